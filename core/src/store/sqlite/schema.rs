//! How the file is laid out, how a connection is set up, and what makes a file ours.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::fault::{self, Fault};
use super::places;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};

/// "coor": says that the file is ours, also to `file(1)`.
const APPLICATION_ID: i32 = 0x636f_6f72;

/// The version of the layout. A newer file is refused; an older one is brought up to date.
pub(super) const VERSION: i32 = LAYOUTS.len() as i32;

/// What each version adds to the one before.
const LAYOUTS: [&str; 4] = [LAYOUT, CHANGES, TABLES, LOST];

/// A commit writes whole pages to the log, and our records are small: with pages of the usual 4 KiB an acquire and
/// its release take a third longer. Fixed when the file is made; a file with other pages works as well.
const PAGE_BYTES: i64 = 1_024;

/// How long opening waits for others who open, recover or close the file.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// `own`, `brk` and `who` are entries as text, so they begin with the session's id, and the indexes over them find
/// what a session holds and waits for. `waiting` counts the rows of the claim in `q`, and `seq` numbers them, so that
/// no step has to look at the whole queue. `gone` marks waiters whose session has died since. `died_up` and
/// `died_boot` say when that was by the machine's boot clock, in seconds, and in which boot.
const LAYOUT: &str = "
    CREATE TABLE meta(
        id INTEGER PRIMARY KEY CHECK(id = 1),
        hlc INTEGER NOT NULL, ceil INTEGER NOT NULL, boot TEXT NOT NULL, probe INTEGER NOT NULL);
    INSERT INTO meta VALUES(1, 0, 0, '', 0);
    CREATE TABLE sess(
        id TEXT PRIMARY KEY, st TEXT NOT NULL CHECK(st IN ('live', 'dead')), n INTEGER, ttl INTEGER NOT NULL,
        seen INTEGER NOT NULL, died INTEGER, died_up INTEGER, died_boot TEXT, info TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX sess_live ON sess(id) WHERE st = 'live';
    CREATE INDEX sess_died ON sess(died) WHERE died IS NOT NULL;
    CREATE TABLE lock(
        name TEXT PRIMARY KEY, own TEXT, tok INTEGER NOT NULL, at INTEGER NOT NULL,
        waiting INTEGER NOT NULL, seq INTEGER NOT NULL, val TEXT, brk TEXT) WITHOUT ROWID;
    CREATE INDEX lock_own ON lock(own) WHERE own IS NOT NULL;
    CREATE TABLE q(
        name TEXT NOT NULL, prio INTEGER NOT NULL, seq INTEGER NOT NULL, who TEXT NOT NULL, gone INTEGER NOT NULL,
        PRIMARY KEY(name, prio DESC, seq)) WITHOUT ROWID;
    CREATE UNIQUE INDEX q_who ON q(who, name);
    CREATE INDEX q_gone ON q(name) WHERE gone = 1;
";

/// `rv` counts the changes of what a session provides. In `log` is what has changed, for those in `listener` and for
/// whoever reads it later; `listeners` is another number whenever the rows of `listener` are others, and `trimmed` is the
/// last row of `log` that was removed. A row of `listener` without a topic says that this listener was not taken off.
const CHANGES: &str = "
    ALTER TABLE sess ADD COLUMN clean INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sess ADD COLUMN opened INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sess ADD COLUMN rv INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE prov(
        sid TEXT NOT NULL, k TEXT NOT NULL, seq INTEGER NOT NULL, s TEXT NOT NULL, m TEXT NOT NULL,
        PRIMARY KEY(sid, k)) WITHOUT ROWID;
    ALTER TABLE meta ADD COLUMN listeners INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE meta ADD COLUMN trimmed INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE log(
        seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
        source TEXT NOT NULL, at INTEGER NOT NULL);
    CREATE INDEX log_topic ON log(topic, seq);
    CREATE TABLE listener(
        id TEXT NOT NULL, topic TEXT NOT NULL, prefix TEXT NOT NULL, PRIMARY KEY(id, topic, prefix)) WITHOUT ROWID;
";

/// Tables of documents. A table without a name was dropped, and an index of table 0 given up; what they had is removed
/// little by little. `fence` has the fences of documents, and for 30 days those of documents that are `gone`.
const TABLES: &str = "
    CREATE TABLE tab(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, prev INTEGER NOT NULL);
    CREATE TABLE doc(
        tab INTEGER NOT NULL, key BLOB NOT NULL, rev INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE(tab, key));
    CREATE TABLE fence(
        tab INTEGER NOT NULL, key BLOB NOT NULL, lock TEXT NOT NULL, tok INTEGER NOT NULL, gone INTEGER,
        PRIMARY KEY(tab, key, lock)) WITHOUT ROWID;
    CREATE INDEX fence_gone ON fence(gone) WHERE gone IS NOT NULL;
    CREATE TABLE ix(
        id INTEGER PRIMARY KEY AUTOINCREMENT, tab INTEGER NOT NULL, ready INTEGER NOT NULL, expires INTEGER,
        def BLOB NOT NULL);
    CREATE INDEX ix_tab ON ix(tab);
    CREATE TABLE entry(
        ix INTEGER NOT NULL, val BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY(ix, val, key)) WITHOUT ROWID;
";

/// Numbers of rows of `log` that were perhaps written and then lost with the machine's power: those after `after` and up
/// to `upto`. None of them is ever used again.
const LOST: &str = "
    CREATE TABLE lost(upto INTEGER PRIMARY KEY, after INTEGER NOT NULL);
";

/// Opens a connection that never waits for a lock by itself. Blocks.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::ZERO)?;
    db.set_prepared_statement_cache_capacity(64);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Else a prepared statement is parsed anew whenever its arguments change, which takes longer than to run it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    Ok(db)
}

/// Opens the first connection: makes sure that the file is ours, and lays it out if it is empty. `boot` is the
/// machine's boot id. Blocks for some seconds at most.
///
/// # Errors
/// `InvalidArgument` for another application's file, `Unsupported` for one of a newer coord, `CorruptState` for a
/// damaged one, `Forbidden` for one that cannot be written, `Unavailable` if others keep it locked.
pub(super) fn open(path: &Path, boot: &str) -> Result<Connection> {
    let open = || -> std::result::Result<Connection, Fault> {
        let mut db = connect(path)?;
        db.busy_timeout(OPEN_PATIENCE)?;
        if db.is_readonly("main")? {
            return Err(Error::new(
                Code::Forbidden,
                format!("'{}' is read-only for this process; give it write access", path.display()),
            )
            .into());
        }
        if identify(path, &db)? == Content::Nothing {
            db.pragma_update(None, "page_size", PAGE_BYTES)?;
        }
        enter_wal_mode(path, &db)?;
        lay_out(path, &mut db, boot)?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        db.busy_timeout(Duration::ZERO)?;
        Ok(db)
    };
    open().map_err(|fault| match fault {
        Fault::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Error::with_source(
            Code::InvalidArgument,
            format!("'{}' is not an SQLite database; name another file", path.display()),
            error,
        ),
        // A statement over our tables that does not compile: they are not as we made them.
        Fault::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Error::with_source(
            Code::CorruptState,
            format!("'{}' says that it is coord's, but is not laid out so: {error}", path.display()),
            error,
        ),
        fault => fault.into_error(path),
    })
}

#[derive(PartialEq, Eq)]
enum Content {
    Nothing,
    /// Ours, in this version.
    Ours(i32),
}

fn identify(path: &Path, db: &Connection) -> std::result::Result<Content, Fault> {
    // One statement, since another process may lay the file out at this moment.
    let (application, version, tables): (i32, i32, i64) = db.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), \
         (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let at = path.display();
    if application == 0 && version == 0 && tables == 0 {
        return Ok(Content::Nothing);
    }
    if application != APPLICATION_ID {
        return Err(Error::invalid(format!(
            "'{at}' is the database of another application (id {application:#010x}); name another file"
        ))
        .into());
    }
    if version > VERSION {
        return Err(Error::new(
            Code::Unsupported,
            format!(
                "'{at}' was written by a newer coord (format {version}, this one knows up to {VERSION}); update this \
                 program, or name another file"
            ),
        )
        .into());
    }
    if version < 1 || tables == 0 {
        return Err(Fault::corrupt(format!("'{at}' says that it is coord's, but has format {version}")));
    }
    Ok(Content::Ours(version))
}

#[expect(clippy::disallowed_methods, reason = "opening runs on a thread for blocking work")]
fn enter_wal_mode(path: &Path, db: &Connection) -> std::result::Result<(), Fault> {
    // SQLite does not always wait by itself here, when several make the change at once.
    const TRIES: u32 = 500;
    for attempt in 1.. {
        match db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => break,
            Ok(mode) => {
                return Err(Error::new(
                    Code::Unsupported,
                    format!("'{}' cannot be in WAL mode where it lies (it stays in '{mode}' mode)", path.display()),
                )
                .into());
            }
            Err(error) if fault::is_busy(&error) && attempt < TRIES => std::thread::sleep(OPEN_PATIENCE / TRIES),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn lay_out(path: &Path, db: &mut Connection, boot: &str) -> std::result::Result<(), Fault> {
    let stored = |db: &Connection| db.query_row("SELECT boot FROM meta WHERE id = 1", [], |row| row.get(0)).optional();
    if identify(path, db)? == Content::Ours(VERSION) && !boot.is_empty() && stored(db)? == Some(boot.to_owned()) {
        return Ok(());
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = match identify(path, &transaction)? {
        Content::Nothing => 0,
        Content::Ours(version) => version,
    };
    if version < VERSION {
        for layout in LAYOUTS.iter().skip(version as usize) {
            transaction.execute_batch(layout)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        failpoints::at(Point::SqliteLaidOut);
    }
    // The machine was started anew, perhaps after a power loss that undid grants: no token below the ceiling is safe, and
    // no place in the log after its last row. Without a boot id to compare that has to be assumed each time.
    let booted = transaction
        .execute("UPDATE meta SET hlc = max(hlc, ceil), boot = ?1 WHERE id = 1 AND (boot != ?1 OR ?1 = '')", [boot])?;
    if booted > 0 && version > 0 {
        places::skip_lost(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::Scratch;

    fn file(scratch: &Scratch) -> std::path::PathBuf {
        let path = scratch.path("t.db");
        std::fs::File::create(&path).unwrap();
        path
    }

    fn marks(db: &Connection) -> (i64, i64) {
        db.query_row("SELECT hlc, ceil FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    #[test]
    fn the_bundled_sqlite_has_no_wal_reset_bug() {
        assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    }

    #[test]
    fn a_file_is_laid_out_once() {
        let scratch = Scratch::new();
        let path = file(&scratch);
        let first = open(&path, "b").unwrap();
        let second = open(&path, "b").unwrap();
        for db in [&first, &second] {
            assert_eq!(db.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0)).unwrap(), "wal");
            assert_eq!(db.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0)).unwrap(), VERSION);
            assert_eq!(db.pragma_query_value(None, "wal_autocheckpoint", |row| row.get::<_, i32>(0)).unwrap(), 0);
        }
    }

    #[test]
    fn many_may_open_a_new_file_at_once() {
        let scratch = Scratch::new();
        let path = file(&scratch);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || open(&path, "b").map(|_| ()))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    }

    #[test]
    fn after_a_boot_tokens_begin_above_the_ceiling() {
        let scratch = Scratch::new();
        let path = file(&scratch);
        let db = open(&path, "first").unwrap();
        db.execute("UPDATE meta SET hlc = 5, ceil = 900", []).unwrap();
        drop(db);
        assert_eq!(marks(&open(&path, "first").unwrap()), (5, 900));
        assert_eq!(marks(&open(&path, "second").unwrap()), (900, 900));
        let db = open(&path, "second").unwrap();
        db.execute("UPDATE meta SET ceil = 1000", []).unwrap();
        assert_eq!(marks(&open(&path, "").unwrap()), (1000, 1000), "an unknown boot may be a new one");
    }

    #[test]
    fn files_that_are_not_ours_are_refused_untouched() {
        let scratch = Scratch::new();
        let other = |set_up: &str| {
            let path = scratch.path("other.db");
            let _ = std::fs::remove_file(&path);
            Connection::open(&path).unwrap().execute_batch(set_up).unwrap();
            let before = std::fs::read(&path).unwrap();
            let error = open(&path, "b").unwrap_err();
            assert_eq!(std::fs::read(&path).unwrap(), before);
            error
        };
        let error = other("CREATE TABLE t(x)");
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("another application"), "{error}");
        assert_eq!(other("PRAGMA application_id = 77; CREATE TABLE t(x)").code(), Code::InvalidArgument);
        let ours = format!("PRAGMA application_id = {APPLICATION_ID};");
        let error = other(&format!("{ours} PRAGMA user_version = 99; CREATE TABLE t(x)"));
        assert_eq!(error.code(), Code::Unsupported);
        assert!(error.message().contains("newer"), "{error}");
        assert_eq!(other(&format!("{ours} CREATE TABLE t(x)")).code(), Code::CorruptState);

        let text = scratch.path("text");
        std::fs::write(&text, "This is not a database, but a text that is long enough to be looked at. ".repeat(40))
            .unwrap();
        let error = open(&text, "b").unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }

    #[test]
    fn damage_is_reported_as_such() {
        let scratch = Scratch::new();
        let path = file(&scratch);
        drop(open(&path, "b").unwrap());
        let whole = std::fs::read(&path).unwrap();
        // The first page names the tables; all of it but its head is gone.
        let mut bytes = whole.clone();
        bytes[100..1_024].fill(0xa5);
        std::fs::write(&path, &bytes).unwrap();
        let error = open(&path, "b").unwrap_err();
        assert_eq!(error.code(), Code::CorruptState, "{error}");
        std::fs::write(&path, &whole[..1_024]).unwrap();
        let error = open(&path, "b").unwrap_err();
        assert_eq!(error.code(), Code::CorruptState, "{error}");
        // A table that somebody has dropped.
        std::fs::write(&path, &whole).unwrap();
        Connection::open(&path).unwrap().execute_batch("DROP TABLE meta").unwrap();
        let error = open(&path, "b").unwrap_err();
        assert_eq!(error.code(), Code::CorruptState, "{error}");
    }
}
