//! Reads: a connection of their own, so that they never wait for writers. Small ones run at once on the caller's
//! thread; what could take long, or finds the connection in use, runs on a thread for blocking work.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use super::claims::{entries_of, entry, optional_entry};
use super::fault::{self, Fault};
use super::{places, sessions};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::protocol::claim::{ClaimKey, ClaimRecord};
use crate::protocol::session::{SessionId, SessionRecord};
use crate::store::changes::{Interest, Snapshot};
use crate::store::{ClaimQuery, SessionQuery};
use crate::time::WallTime;

/// As many records are read at once without a thread for it.
const FEW: usize = 64;

/// How long a read waits for others who recover or close the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection for reads.
#[derive(Debug)]
pub(super) struct Reader {
    env: Env,
    path: PathBuf,
    /// None once it is closed.
    db: Mutex<Option<Connection>>,
}

impl Reader {
    pub(super) fn new(env: Env, path: PathBuf, db: Connection) -> Self {
        Self { env, path, db: Mutex::new(Some(db)) }
    }

    pub(super) async fn sessions(self: &Arc<Self>, query: SessionQuery) -> Result<Vec<SessionRecord>> {
        let few = matches!(&query, SessionQuery::Ids(ids) if ids.len() <= FEW);
        self.read(few, move |db| find_sessions(db, &query)).await
    }

    pub(super) async fn claims(self: &Arc<Self>, query: ClaimQuery) -> Result<Vec<ClaimRecord>> {
        let few = matches!(&query, ClaimQuery::Keys(keys) if keys.len() <= FEW);
        self.read(few, move |db| find_claims(db, &query)).await
    }

    /// A claim without its waiters, of which there may be many.
    pub(super) async fn hold(self: &Arc<Self>, key: ClaimKey) -> Result<Option<ClaimRecord>> {
        self.read(true, move |db| {
            let record = db.prepare_cached(CLAIM)?.query_row([key.as_str()], |row| claim(&key, row)).optional();
            Ok(intact(key.as_str(), record)?.flatten().map(|(record, _)| record))
        })
        .await
    }

    /// Waits for the read that runs, and closes the connection. Blocks.
    pub(super) fn close(&self) {
        drop(self.db.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Runs a query on one state of the database: on the caller's thread if it is short and the connection is free.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        at_once: bool,
        query: impl Fn(&Connection) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        if at_once && let Some(result) = self.try_read(&query) {
            return result;
        }
        let this = self.clone();
        let reading = self.env.tasks.runtime().spawn_blocking(move || this.read_patiently(query));
        reading.await.unwrap_or_else(|_| Err(Error::unavailable("the runtime was shut down during a read")))
    }

    /// Reads now, unless that would have to wait.
    fn try_read<T>(&self, query: impl Fn(&Connection) -> std::result::Result<T, Fault>) -> Option<Result<T>> {
        let db = match self.db.try_lock() {
            Ok(db) => db,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let Some(db) = db.as_ref() else { return Some(Err(Error::closed("the store"))) };
        match snapshot(db, query) {
            Err(fault) if fault.is_busy() => None,
            result => Some(result.map_err(|fault| fault.into_error(&self.path))),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "runs on a thread for blocking work")]
    fn read_patiently<T>(&self, query: impl Fn(&Connection) -> std::result::Result<T, Fault>) -> Result<T> {
        let deadline = self.env.now() + PATIENCE;
        loop {
            let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
            let result = snapshot(db.as_ref().ok_or_else(|| Error::closed("the store"))?, &query);
            drop(db);
            match result {
                Err(fault) if fault.is_busy() && self.env.now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result.map_err(|fault| fault.into_error(&self.path)),
            }
        }
    }
}

/// Runs the query on one state of the database.
fn snapshot<T>(
    db: &Connection,
    query: impl Fn(&Connection) -> std::result::Result<T, Fault>,
) -> std::result::Result<T, Fault> {
    if !db.is_autocommit() {
        // A read that panicked.
        db.execute_batch("ROLLBACK")?;
    }
    db.prepare_cached("BEGIN")?.execute([])?;
    let result = query(db);
    let ended = db.prepare_cached("COMMIT")?.execute([]);
    let found = result?;
    ended?;
    Ok(found)
}

fn find_sessions(db: &Connection, query: &SessionQuery) -> std::result::Result<Vec<SessionRecord>, Fault> {
    let mut found = Vec::new();
    match query {
        SessionQuery::Ids(ids) => {
            let mut statement = db.prepare_cached(&format!("SELECT {} FROM sess WHERE id = ?1", sessions::COLUMNS))?;
            for id in ids {
                let record = statement.query_row([id.to_string()], sessions::record).optional();
                found.extend(intact(&format!("session {id}"), record)?.flatten());
            }
        }
        SessionQuery::Live | SessionQuery::Roster => {
            let mut statement =
                db.prepare_cached(&format!("SELECT {} FROM sess WHERE st = 'live' ORDER BY id", sessions::COLUMNS))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                found.extend(intact("a session", sessions::record(row))?);
            }
        }
    }
    if *query == SessionQuery::Roster {
        for session in &mut found {
            session.providers = sessions::providers(db, session.id)?;
        }
    }
    Ok(found)
}

/// All that is of interest, and the last row of the log that it contains.
pub(super) fn find_snapshot(db: &Connection, interest: &Interest) -> std::result::Result<(Snapshot, i64), Fault> {
    let sessions = if interest.sessions { find_sessions(db, &SessionQuery::Roster)? } else { Vec::new() };
    let mut claims = std::collections::BTreeMap::new();
    for prefix in &interest.claims {
        for key in keys_with(db, prefix)? {
            if let Some(Some(claim)) = intact(key.as_str(), super::claims::state(db, &key))? {
                claims.insert(key, claim);
            }
        }
    }
    let claims = claims.into_values().filter(|claim| claim.holder.is_some()).collect();
    Ok((Snapshot { claims, sessions }, places::last(db)?))
}

fn keys_with(db: &Connection, prefix: &str) -> std::result::Result<Vec<ClaimKey>, Fault> {
    let mut statement = db.prepare_cached("SELECT name FROM lock WHERE name >= ?1 ORDER BY name")?;
    let mut rows = statement.query([prefix])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(key) = intact("a claim", row.get::<_, String>(0))? else { continue };
        if !key.starts_with(prefix) {
            break;
        }
        found.push(ClaimKey::new(key));
    }
    Ok(found)
}

fn find_claims(db: &Connection, query: &ClaimQuery) -> std::result::Result<Vec<ClaimRecord>, Fault> {
    match query {
        ClaimQuery::Keys(keys) => {
            let mut found = Vec::new();
            for key in keys {
                found.extend(find_claim(db, key)?);
            }
            Ok(found)
        }
        ClaimQuery::Of(id) => find_of(db, *id, OF),
        ClaimQuery::HeldBy(id) => find_of(db, *id, HELD_BY),
        ClaimQuery::Prefix(prefix) => {
            let mut found = Vec::new();
            for key in keys_with(db, prefix)? {
                found.extend(find_claim(db, &key)?);
            }
            Ok(found)
        }
        ClaimQuery::Unused { before, limit } => {
            let mut statement = db.prepare_cached(UNUSED)?;
            find_named(db, statement.query(params![before.0, i64::try_from(*limit).unwrap_or(i64::MAX)])?)
        }
    }
}

fn find_of(db: &Connection, id: SessionId, query: &str) -> std::result::Result<Vec<ClaimRecord>, Fault> {
    let (from, to) = entries_of(id);
    let mut statement = db.prepare_cached(query)?;
    find_named(db, statement.query([from, to])?)
}

fn find_named(db: &Connection, mut rows: Rows<'_>) -> std::result::Result<Vec<ClaimRecord>, Fault> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(key) = intact("a claim", row.get::<_, String>(0))? else { continue };
        found.extend(find_claim(db, &ClaimKey::new(key))?);
    }
    Ok(found)
}

fn find_claim(db: &Connection, key: &ClaimKey) -> std::result::Result<Option<ClaimRecord>, Fault> {
    let record = db.prepare_cached(CLAIM)?.query_row([key.as_str()], |row| claim(key, row)).optional();
    let Some(Some((mut record, waiting))) = intact(key.as_str(), record)? else { return Ok(None) };
    if waiting > 0 {
        let mut statement = db.prepare_cached("SELECT who FROM q WHERE name = ?1 ORDER BY prio DESC, seq")?;
        let waiters = statement.query_map(params![key.as_str()], |row| entry(row, 0))?.collect();
        let Some(waiters) = intact(key.as_str(), waiters)? else { return Ok(None) };
        record.waiters = waiters;
    }
    Ok(Some(record))
}

fn claim(key: &ClaimKey, row: &Row<'_>) -> rusqlite::Result<(ClaimRecord, i64)> {
    let record = ClaimRecord {
        key: key.clone(),
        holder: optional_entry(row, 0)?,
        waiters: Vec::new(),
        token: row.get(1)?,
        granted_at: WallTime(row.get(2)?),
        value: row.get(3)?,
        breaking: optional_entry(row, 4)?,
    };
    Ok((record, row.get(5)?))
}

/// Leaves out what cannot be read as what it should be, with a warning.
fn intact<T>(what: &str, result: rusqlite::Result<T>) -> std::result::Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if fault::is_malformed(&error) => {
            tracing::warn!(record = what, %error, "a record that coord cannot have written is left out");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

const CLAIM: &str = "SELECT own, tok, at, val, brk, waiting FROM lock WHERE name = ?1";
// Through all claims, once an hour: an index would cost each grant a page in the log.
const UNUSED: &str = "SELECT name FROM lock WHERE own IS NULL AND waiting = 0 AND at < ?1 LIMIT ?2";
const HELD_BY: &str = "SELECT name FROM lock WHERE own >= ?1 AND own < ?2 ORDER BY name";
const OF: &str = "SELECT name FROM lock WHERE own >= ?1 AND own < ?2 \
                  UNION SELECT name FROM q WHERE who >= ?1 AND who < ?2 ORDER BY name";
