//! The connection that writes: a transaction of several works, and what follows from each once it is committed.

use rusqlite::Connection;

use super::super::documents::work;
use super::super::fault::{self, Fault};
use super::super::log::{self, Listeners};
use super::super::sessions::{Moment, Shown};
use super::super::tokens::Marks;
use super::super::{changes, claims, sessions};
use super::{Done, Work};
use crate::env::Env;
use crate::error::{Code, Error};
use crate::failpoints::{self, Point};
use crate::protocol::claim::ClaimKey;
use crate::protocol::session::SessionId;
use crate::store::Notice;
use crate::time::{Timestamp, WallTime};

/// A piece of work that was done, and what follows from it once it is committed.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) done: Done,
    pub(super) notice: Option<(SessionId, Notice)>,
    pub(super) died: Option<SessionId>,
    pub(super) ceiling_is_near: bool,
    /// Who is to look at the log.
    pub(super) listeners: Vec<SessionId>,
    /// This was a part of it: it is to be done once more.
    pub(super) again: Option<Work>,
}

impl Finished {
    fn new(done: Done) -> Self {
        Self { done, notice: None, died: None, ceiling_is_near: false, listeners: Vec::new(), again: None }
    }
}

/// The connection that writes.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) db: Connection,
    boot: String,
    /// Whether commits are synced now; none if it was never set.
    synced: Option<bool>,
    /// It was said that the date is wrong.
    warned: bool,
    listeners: Listeners,
}

impl Engine {
    pub(super) fn new(db: Connection, boot: String) -> Self {
        Self { db, boot, synced: None, warned: false, listeners: Listeners::default() }
    }

    /// Chooses whether the next transactions are synced at their commit. SQLite ignores it inside of one.
    pub(super) fn set_synced(&mut self, synced: bool) -> Result<(), Fault> {
        if self.synced == Some(synced) {
            return Ok(());
        }
        self.reset()?;
        self.synced = None;
        self.db.execute_batch(if synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })?;
        let level: i64 = self.db.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        if level != if synced { 2 } else { 1 } {
            return Err(Error::new(Code::Unknown, format!("SQLite stays at synchronous level {level}")).into());
        }
        self.synced = Some(synced);
        Ok(())
    }

    /// Begins a transaction. False if another connection writes.
    pub(super) fn begin(&mut self) -> Result<bool, Fault> {
        self.reset()?;
        match self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([]) {
            Ok(_) => Ok(true),
            Err(error) if fault::is_busy(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Does the works in the transaction that was begun, and ends it: all or nothing. The ceiling is raised above
    /// `above` first.
    pub(super) fn finish(&mut self, works: &[&Work], above: Option<i64>, env: &Env) -> Result<Vec<Finished>, Fault> {
        failpoints::at(Point::SqliteBegun);
        let result = self.perform_all(works, above, env).and_then(|finished| {
            failpoints::at(Point::SqliteDone);
            self.db.prepare_cached("COMMIT")?.execute([])?;
            failpoints::at(Point::SqliteCommitted);
            Ok(finished)
        });
        if result.is_err() {
            // SQLite may have done it by itself; an error here would show again at the next beginning.
            let _ = self.reset();
            self.listeners.forget();
        }
        result
    }

    fn perform_all(&mut self, works: &[&Work], above: Option<i64>, env: &Env) -> Result<Vec<Finished>, Fault> {
        let (wall, now) = (env.clock.wall(), env.now());
        if let Some(token) = above {
            self.raise_ceiling(token, wall)?;
        }
        let mut finished = Vec::with_capacity(works.len());
        for work in works {
            finished.push(self.perform(work, wall, now, env)?);
            // What is left is done in another transaction, after whatever is more urgent.
            if matches!(work, Work::Document(_)) && env.now().since(now) >= work::TIME {
                break;
            }
        }
        Ok(finished)
    }

    fn perform(&mut self, work: &Work, wall: WallTime, now: Timestamp, env: &Env) -> Result<Finished, Fault> {
        let at = Moment { wall, now, boot: &self.boot };
        let nothing = || Finished::new(Done::Nothing);
        let part = |more: bool| Finished { again: more.then(|| work.clone()), ..nothing() };
        match work {
            Work::Session(id, step) => {
                let stepped = sessions::apply(&self.db, *id, step, at)?;
                let mut finished = Finished::new(Done::Session(stepped.record));
                finished.died = stepped.died.then_some(*id);
                if let Some(shown) = &stepped.shown {
                    finished.listeners = self.show_session(*id, shown, wall)?;
                }
                Ok(finished)
            }
            Work::Claim(key, step) => {
                let stepped = claims::apply(&self.db, key, step, wall)?;
                if stepped.date_is_wrong {
                    self.warn_about_date(wall);
                }
                let mut finished = Finished::new(Done::Claim(stepped.applied));
                finished.notice = stepped.notice;
                finished.ceiling_is_near = stepped.ceiling_is_near;
                if stepped.shown {
                    finished.listeners = self.show_claim(key, stepped.listeners, wall)?;
                }
                Ok(finished)
            }
            Work::RaiseCeiling(token) => self.raise_ceiling(*token, wall).map(|()| nothing()),
            Work::Purge => Ok(part(sessions::purge(&self.db, at)?)),
            Work::Listen { id, topics, is_new } => {
                Ok(Finished::new(Done::Listens(log::listen(&self.db, *id, topics, *is_new)?)))
            }
            Work::Unlisten(id, topics) => log::unlisten(&self.db, *id, topics.as_deref()).map(|()| nothing()),
            Work::Trim => Ok(part(log::trim(&self.db, wall)?)),
            Work::Document(work) => {
                let performed = work::perform(&self.db, work, wall, env)?;
                let mut finished = Finished::new(Done::Document(performed.done));
                for topic in &performed.changed {
                    let generation = log::generation(&self.db)?;
                    finished.listeners.extend(self.listeners.to(&self.db, generation, topic, "")?);
                }
                Ok(finished)
            }
            Work::Probe => {
                self.db.prepare_cached("UPDATE meta SET probe = probe + 1 WHERE id = 1")?.execute([])?;
                Ok(nothing())
            }
        }
    }

    /// Logs a session's change if somebody listens, and says who.
    fn show_session(&mut self, id: SessionId, shown: &Shown, wall: WallTime) -> Result<Vec<SessionId>, Fault> {
        let key = id.to_string();
        let listeners = self.listeners.to(&self.db, log::generation(&self.db)?, log::SESSIONS, &key)?;
        if !listeners.is_empty() {
            log::append(&self.db, log::SESSIONS, &key, &changes::encode(shown)?, "", wall)?;
        }
        Ok(listeners)
    }

    /// Logs a claim's change if somebody listens, and says who.
    fn show_claim(&mut self, key: &ClaimKey, generation: i64, wall: WallTime) -> Result<Vec<SessionId>, Fault> {
        let listeners = self.listeners.to(&self.db, generation, log::CLAIMS, key.as_str())?;
        if !listeners.is_empty()
            && let Some(body) = changes::encode_claim(&self.db, key)?
        {
            log::append(&self.db, log::CLAIMS, key.as_str(), &body, "", wall)?;
        }
        Ok(listeners)
    }

    fn raise_ceiling(&self, token: i64, wall: WallTime) -> Result<(), Fault> {
        let marks = self
            .db
            .prepare_cached("SELECT hlc, ceil FROM meta WHERE id = 1")?
            .query_row([], |row| Ok(Marks { hlc: row.get(0)?, ceil: row.get(1)? }))?;
        self.db
            .prepare_cached("UPDATE meta SET ceil = max(ceil, ?1) WHERE id = 1")?
            .execute([marks.raised(wall, token)])?;
        failpoints::at(Point::SqliteCeilingRaised);
        Ok(())
    }

    fn warn_about_date(&mut self, wall: WallTime) {
        if !self.warned {
            self.warned = true;
            tracing::warn!(date = %wall, "the machine's date is over a year ahead of all that the database has seen; \
                                          tokens go on without it");
        }
    }

    /// Ends a transaction that a failure or a panic has left open.
    fn reset(&self) -> Result<(), Fault> {
        if !self.db.is_autocommit() {
            self.db.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }
}
