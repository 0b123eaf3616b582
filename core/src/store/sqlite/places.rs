//! Places in the log: the numbers of its rows, which users keep to go on from there another day, and what is known of them.
//!
//! Rows of claims and sessions are not synced, so a power loss may take the last ones, with numbers that somebody has been
//! told and has kept elsewhere. After a boot the numbers go on far beyond them, and the history after a place between is
//! lost: else other changes would come to stand there, and whoever went on from it would never see them.

use rusqlite::{Connection, OptionalExtension};

/// More rows than are ever written between two syncs of the file, of which there is one a minute, or with a checkpoint.
const UNSYNCED: i64 = 1 << 32;

/// The number of the last row that was ever written.
pub(super) fn last(db: &Connection) -> rusqlite::Result<i64> {
    let last = db.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'log'")?.query_row([], |row| row.get(0));
    Ok(last.optional()?.unwrap_or(0))
}

/// The number of the last row that was removed.
pub(super) fn trimmed(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT trimmed FROM meta WHERE id = 1")?.query_row([], |row| row.get(0))
}

/// Whether all rows after this number are there, as far as there are any: none was removed, or lost.
pub(super) fn is_known(db: &Connection, seq: i64) -> rusqlite::Result<bool> {
    let lost = || db.prepare_cached("SELECT 1 FROM lost WHERE after < ?1 AND ?1 < upto")?.exists([seq]);
    Ok(seq >= trimmed(db)? && !lost()?)
}

/// Skips the numbers that rows may have had which were lost with the machine's power, inside a transaction.
pub(super) fn skip_lost(db: &Connection) -> rusqlite::Result<()> {
    let last = last(db)?;
    let next = last.saturating_add(UNSYNCED);
    // Nothing was logged since the boot before: then it is one stretch.
    if db.execute("UPDATE lost SET upto = ?2 WHERE upto = ?1", [last, next])? == 0 {
        db.execute("INSERT INTO lost(upto, after) VALUES(?2, ?1)", [last, next])?;
    }
    if db.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'log'", [next])? == 0 {
        db.execute("INSERT INTO sqlite_sequence(name, seq) VALUES('log', ?1)", [next])?;
    }
    Ok(())
}
