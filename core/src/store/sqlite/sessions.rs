//! Steps on sessions, as statements inside a transaction that the caller has begun. The record is small, so the pure
//! step itself decides; only what it changed is written.

use std::time::Duration;

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::claims::entries_of;
use super::fault::Fault;
use crate::failpoints::{self, Point};
use crate::protocol::roster::{self, ProviderRecord};
use crate::protocol::session::{self, Nonce, SessionId, SessionInfo, SessionRecord, SessionStep, Vitality};
use crate::time::{Timestamp, WallTime};

/// The columns that [`record`] reads, in its order.
pub(super) const COLUMNS: &str = "id, st, n, ttl, seen, died, info, clean, opened, rv";

/// When a transaction runs, by the clocks that the store knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub(super) wall: WallTime,
    pub(super) now: Timestamp,
    /// The boot that `now` counts from.
    pub(super) boot: &'a str,
}

impl Moment<'_> {
    fn seconds(&self) -> i64 {
        i64::try_from(self.now.nanos() / 1_000_000_000).unwrap_or(i64::MAX)
    }
}

/// What a step on a session did.
#[derive(Debug)]
pub(super) struct Stepped {
    pub(super) record: Option<SessionRecord>,
    /// It is dead since this step.
    pub(super) died: bool,
    /// What those who look on see of it.
    pub(super) shown: Option<Shown>,
}

/// Applies one step to one session. When it dies, its places in queues are marked, so that the next step on each
/// claim removes them without looking for them.
pub(super) fn apply(db: &Connection, id: SessionId, step: &SessionStep, at: Moment<'_>) -> Result<Stepped, Fault> {
    let before = load(db, id)?;
    let Some(after) = session::apply(id, before.clone(), step, at.wall) else {
        return Ok(Stepped { record: None, died: false, shown: None });
    };
    match &before {
        Some(before) if *before == after => {}
        Some(_) => update(db, &after)?,
        None => insert(db, &after)?,
    }
    let opened = before.is_none();
    let died = after.vitality == Vitality::Dead && before.is_none_or(|before| before.vitality == Vitality::Live);
    if died {
        let (from, to) = entries_of(id);
        db.prepare_cached("UPDATE q SET gone = 1 WHERE who >= ?1 AND who < ?2")?.execute([from, to])?;
        failpoints::at(Point::SqliteDeathMarked);
        db.prepare_cached("UPDATE sess SET died_up = ?2, died_boot = ?3 WHERE id = ?1")?.execute(params![
            id.to_string(),
            at.seconds(),
            at.boot
        ])?;
    }
    let shown = match step {
        SessionStep::Provide { provider, .. } => {
            save_provider(db, id, provider)?;
            Some(Shown::Provided { revision: after.revision, provider: provider.clone() })
        }
        SessionStep::Withdraw { key, .. } => {
            remove_provider(db, id, key)?;
            Some(Shown::Withdrawn { revision: after.revision, key: key.clone() })
        }
        _ if died => {
            db.prepare_cached("DELETE FROM prov WHERE sid = ?1")?.execute([id.to_string()])?;
            Some(Shown::Ended(Ended::of(&after)))
        }
        _ if opened => Some(Shown::Opened(Opened::of(&after))),
        _ => None,
    };
    Ok(Stepped { record: Some(after.bare()), died, shown })
}

fn save_provider(db: &Connection, id: SessionId, provider: &ProviderRecord) -> Result<(), Fault> {
    let place = "(SELECT ifnull(max(seq), 0) + 1 FROM prov WHERE sid = ?1)";
    let insert = format!("INSERT OR REPLACE INTO prov(sid, k, seq, s, m) VALUES(?1, ?2, {place}, ?3, ?4)");
    let ProviderRecord { key, service, metadata } = provider;
    db.prepare_cached(&insert)?.execute(params![id.to_string(), key, service, metadata])?;
    Ok(())
}

fn remove_provider(db: &Connection, id: SessionId, key: &str) -> Result<(), Fault> {
    db.prepare_cached("DELETE FROM prov WHERE sid = ?1 AND k = ?2")?.execute(params![id.to_string(), key])?;
    Ok(())
}

/// What a session provides, the latest last.
pub(super) fn providers(db: &Connection, id: SessionId) -> rusqlite::Result<Vec<ProviderRecord>> {
    let mut statement = db.prepare_cached("SELECT k, s, m FROM prov WHERE sid = ?1 ORDER BY seq")?;
    let found = statement.query_map([id.to_string()], |row| {
        Ok(ProviderRecord { key: row.get(0)?, service: row.get(1)?, metadata: row.get(2)? })
    })?;
    found.collect()
}

/// A change of a session, in the log: what it changed, not the record, which may be large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Shown {
    Opened(Opened),
    Provided { revision: i64, provider: ProviderRecord },
    Withdrawn { revision: i64, key: String },
    Ended(Ended),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Opened {
    nonce: Option<Nonce>,
    ttl_ms: u64,
    opened: i64,
    info: SessionInfo,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    revision: i64,
    died: Option<i64>,
    clean: bool,
}

impl Opened {
    fn of(record: &SessionRecord) -> Self {
        Self {
            nonce: record.nonce,
            ttl_ms: u64::try_from(record.ttl.as_millis()).unwrap_or(u64::MAX),
            opened: record.opened.0,
            info: record.info.clone(),
        }
    }
}

impl Ended {
    fn of(record: &SessionRecord) -> Self {
        Self { revision: record.revision, died: record.died.map(|died| died.0), clean: record.clean }
    }
}

impl Shown {
    /// The record after this change of a session that was as `before`; none if that cannot be, or was known already.
    pub(super) fn apply(self, id: SessionId, before: Option<&SessionRecord>) -> Option<SessionRecord> {
        if let Self::Opened(opened) = self {
            return before.is_none().then(|| SessionRecord {
                id,
                vitality: Vitality::Live,
                nonce: opened.nonce,
                ttl: Duration::from_millis(opened.ttl_ms),
                seen: WallTime(opened.opened),
                died: None,
                clean: false,
                info: opened.info,
                opened: WallTime(opened.opened),
                revision: 0,
                providers: Vec::new(),
            });
        }
        if let (Self::Ended(ended), None) = (&self, before) {
            // A tombstone of one that never was.
            return Some(SessionRecord {
                id,
                vitality: Vitality::Dead,
                nonce: None,
                ttl: Duration::ZERO,
                seen: WallTime::default(),
                died: ended.died.map(WallTime),
                clean: ended.clean,
                info: SessionInfo::default(),
                opened: WallTime::default(),
                revision: ended.revision,
                providers: Vec::new(),
            });
        }
        let before = before.cloned()?;
        Some(match self {
            Self::Opened(_) => return None,
            Self::Provided { revision, provider } => roster::provide(Some(before), &provider, revision)?,
            Self::Withdrawn { revision, key } => roster::withdraw(Some(before), &key, revision)?,
            Self::Ended(ended) => SessionRecord {
                vitality: Vitality::Dead,
                died: ended.died.map(WallTime),
                clean: ended.clean,
                revision: ended.revision,
                providers: Vec::new(),
                ..before
            },
        })
    }
}

/// Removes records of sessions that died more than a day ago and that no claim mentions any more. Whether more may be left.
///
/// Not by the date alone, which may have been set forward a moment ago: whoever has seen that a session is dead
/// relies on it, and a session without a record could be opened once more by a message that was late.
pub(super) fn purge(db: &Connection, at: Moment<'_>) -> Result<bool, Fault> {
    // In parts, since others want to write too.
    let removed = db
        .prepare_cached(&format!(
            "DELETE FROM sess WHERE id IN (
             SELECT id FROM sess AS s WHERE died < ?1 AND (died_boot != ?2 OR died_up < ?3)
             AND NOT EXISTS (SELECT 1 FROM lock WHERE own >= s.id || '/' AND own < s.id || '0')
             AND NOT EXISTS (SELECT 1 FROM q WHERE who >= s.id || '/' AND who < s.id || '0')
             LIMIT {PART})"
        ))?
        .execute(params![
            at.wall.0.saturating_sub(1_000 * KEEP_DEAD),
            at.boot,
            at.seconds().saturating_sub(KEEP_DEAD)
        ])?;
    Ok(removed == PART)
}

/// As many tombstones are removed at a time.
const PART: usize = 1_000;

/// How long a tombstone is kept, in seconds: a day.
const KEEP_DEAD: i64 = 86_400;

/// The record in a row of [`COLUMNS`].
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(|error| malformed(column, error));
    let info = serde_json::from_str(text(6)?).map_err(|error| malformed(6, error))?;
    let ttl: i64 = row.get(3)?;
    Ok(SessionRecord {
        id: text(0)?.parse().map_err(|error| malformed(0, error))?,
        vitality: match text(1)? {
            "live" => Vitality::Live,
            "dead" => Vitality::Dead,
            _ => return Err(malformed(1, FromSqlError::InvalidType)),
        },
        nonce: row.get::<_, Option<i64>>(2)?.map(Nonce),
        ttl: Duration::from_millis(ttl.try_into().map_err(|error| malformed(3, error))?),
        seen: WallTime(row.get(4)?),
        died: row.get::<_, Option<i64>>(5)?.map(WallTime),
        clean: row.get(7)?,
        info,
        opened: WallTime(row.get(8)?),
        revision: row.get(9)?,
        providers: Vec::new(),
    })
}

fn malformed(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

fn load(db: &Connection, id: SessionId) -> Result<Option<SessionRecord>, Fault> {
    let mut statement = db.prepare_cached(LOAD)?;
    Ok(statement.query_row([id.to_string()], record).optional()?)
}

fn insert(db: &Connection, record: &SessionRecord) -> Result<(), Fault> {
    let info = serde_json::to_string(&record.info)
        .map_err(|error| Fault::corrupt(format!("a session's description cannot be written: {error}")))?;
    // Rounded up: an observer may wait longer than it has to, never shorter.
    let ttl = record.ttl.as_nanos().div_ceil(1_000_000);
    db.prepare_cached(INSERT)?.execute(params![
        record.id.to_string(),
        word(record.vitality),
        record.nonce.map(|nonce| nonce.0),
        i64::try_from(ttl).unwrap_or(i64::MAX),
        record.seen.0,
        record.died.map(|died| died.0),
        info,
        record.clean,
        record.opened.0,
        record.revision
    ])?;
    Ok(())
}

fn update(db: &Connection, record: &SessionRecord) -> Result<(), Fault> {
    db.prepare_cached(UPDATE)?.execute(params![
        record.id.to_string(),
        word(record.vitality),
        record.nonce.map(|nonce| nonce.0),
        record.seen.0,
        record.died.map(|died| died.0),
        record.clean,
        record.revision
    ])?;
    Ok(())
}

fn word(vitality: Vitality) -> &'static str {
    match vitality {
        Vitality::Live => "live",
        Vitality::Dead => "dead",
    }
}

const LOAD: &str = "SELECT id, st, n, ttl, seen, died, info, clean, opened, rv FROM sess WHERE id = ?1";
const INSERT: &str = "INSERT INTO sess(id, st, n, ttl, seen, died, info, clean, opened, rv) \
                      VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const UPDATE: &str = "UPDATE sess SET st = ?2, n = ?3, seen = ?4, died = ?5, clean = ?6, rv = ?7 WHERE id = ?1";
