//! Checkpoints: what the log has collected goes into the database file in the background, on a connection of its
//! own, so that no commit has to do it, and no writer waits for it.
//!
//! But the log begins anew only when nobody has written since the checkpoint began, which never happens while all
//! write without a pause. So when it has become long in spite of a checkpoint, a second one takes a turn at the gate:
//! writers wait for the few pages that the first one left.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::gate::Gate;
use super::{fault, schema};
use crate::env::Env;
use crate::time::Timestamp;

/// A checkpoint is due after this many commits, of some four pages each: as often as SQLite makes one by itself.
const MANY: u32 = 256;

/// It is also due after this many, if the last one was this long ago, so that many processes that write little do
/// not let the log grow together.
const SOME: u32 = 64;
const LONG: Duration = Duration::from_secs(5);

/// With this many pages the log is long: 4 MB. SQLite finds a page in it by its hash, and the few pages that every
/// step writes are there hundreds of times, one behind the other: with 16,000 pages, looking for them was a third of
/// what sixteen processes do that hand over a lock.
const LONG_LOG: i64 = 4_000;

/// How long the second checkpoint tries to have its turn, and, when it has it, waits for those who read.
const TURN_PATIENCE: Duration = Duration::from_secs(2);
const READER_PATIENCE: Duration = Duration::from_millis(20);

/// When a checkpoint is due, and the connection that makes it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    env: Env,
    path: PathBuf,
    gate: Arc<Gate>,
    commits: AtomicU32,
    last: AtomicU64,
    running: AtomicBool,
    db: Mutex<Checkpointer>,
}

#[derive(Debug)]
enum Checkpointer {
    NotNeededYet,
    Open(Connection),
    Closed,
}

impl Checkpoints {
    pub(super) fn new(env: Env, path: PathBuf, gate: Arc<Gate>) -> Self {
        let last = AtomicU64::new(env.now().nanos());
        let db = Mutex::new(Checkpointer::NotNeededYet);
        Self { env, path, gate, commits: AtomicU32::new(0), last, running: AtomicBool::new(false), db }
    }

    /// Counts a commit, and starts a checkpoint in the background if one is due. Whether it did.
    pub(super) fn on_commit(self: &Arc<Self>) -> bool {
        let commits = self.commits.fetch_add(1, Relaxed) + 1;
        if !commits.is_multiple_of(SOME) || self.running.load(Relaxed) {
            return false;
        }
        let now = self.env.now();
        if commits < MANY && now.since(Timestamp::from_nanos(self.last.load(Relaxed))) < LONG {
            return false;
        }
        if self.running.swap(true, Relaxed) {
            return false;
        }
        self.commits.store(0, Relaxed);
        self.last.store(now.nanos(), Relaxed);
        let this = self.clone();
        self.env.tasks.runtime().spawn_blocking(move || {
            this.run();
            this.running.store(false, Relaxed);
        });
        true
    }

    /// Waits for the checkpoint that runs, and closes the connection. Blocks.
    pub(super) fn close(&self) {
        *self.db.lock().unwrap_or_else(PoisonError::into_inner) = Checkpointer::Closed;
    }

    fn run(&self) {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.checkpoint(&mut db) {
            // The log only grows until the next one succeeds.
            if fault::is_busy(&error) {
                tracing::debug!(%error, "another process makes a checkpoint");
            } else {
                tracing::warn!(path = %self.path.display(), %error, "a checkpoint failed");
            }
        }
    }

    fn checkpoint(&self, db: &mut Checkpointer) -> rusqlite::Result<()> {
        if let Checkpointer::NotNeededYet = db {
            *db = Checkpointer::Open(schema::connect(&self.path)?);
        }
        let Checkpointer::Open(db) = db else { return Ok(()) };
        let pages: i64 = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
        if pages < LONG_LOG {
            return Ok(());
        }
        db.busy_timeout(READER_PATIENCE)?;
        let begun_anew = self.gate.enter(self.env.now() + TURN_PATIENCE, || {
            match db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, i64>(0)) {
                Ok(busy) => Ok(busy == 0),
                Err(error) if fault::is_busy(&error) => Ok(false),
                Err(error) => Err(error),
            }
        });
        self.gate.leave();
        tracing::debug!(pages, outcome = ?begun_anew, "the log was long");
        db.busy_timeout(Duration::ZERO)?;
        begun_anew.map(|_| ())
    }
}
