//! The writer: one connection, on which all steps of this process run one after the other.
//!
//! While nobody else writes, here or in another process, a step runs at once on its caller's thread: a few
//! microseconds without a sync. Otherwise it goes into a queue, which a thread for blocking work empties: it waits at
//! the gate in this process's name, and runs what has collected as one transaction, so that many callers share a
//! commit.
//!
//! Invariants: claims are served in the order in which they came, so a cancel never overtakes its acquire; sessions
//! go before them, so that load does not let one expire. A step that fails leaves nothing of itself, and none of its
//! neighbours fails with it. What was dropped by its caller before it began never runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use super::checkpoint::Checkpoints;
use super::documents::work::{DocumentDone, DocumentWork};
use super::fault::Fault;
use super::gate::{Entry, Gate};
use super::log::{Log, Topic};
use super::run::RunDirectory;
use super::wake::Wakes;
use crate::config::Durability;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::claim::{ClaimKey, ClaimStep};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep};
use crate::store::Applied;
use crate::store::documents::local::SWEEP_EVERY;
use crate::time::Timestamp;

mod engine;
mod queue;

use engine::{Engine, Finished};
use queue::{Job, Queue};

/// How long a transaction waits for other processes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a caller waits, also for a disk that hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// How often old tombstones of sessions are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(3_600);

/// How often old rows of the log are looked for.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// One piece of work, done in one transaction, perhaps together with others.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Session(SessionId, SessionStep),
    Claim(ClaimKey, ClaimStep),
    /// Raise the ceiling of tokens above this one. Synced to the disk.
    RaiseCeiling(i64),
    /// Remove old tombstones.
    Purge,
    /// Add what somebody listens to, under a name that is new or still among the listeners.
    Listen {
        id: SessionId,
        topics: Vec<Topic>,
        is_new: bool,
    },
    /// Remove some of what somebody listens to, or all with the name.
    Unlisten(SessionId, Option<Vec<Topic>>),
    /// Remove old rows of the log.
    Trim,
    /// Show that the file can be written.
    Probe,
    /// Something about tables. Synced to the disk.
    Document(DocumentWork),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    Session(Option<SessionRecord>),
    Claim(Applied),
    Document(DocumentDone),
    /// Whether the name is among the listeners.
    Listens(bool),
    Nothing,
}

/// Where the writer's steps have an effect beyond the file.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) run: Arc<RunDirectory>,
    pub(super) wakes: Arc<Wakes>,
    pub(super) log: Arc<Log>,
    pub(super) checkpoints: Arc<Checkpoints>,
}

/// The writer of one store.
#[derive(Debug)]
pub(super) struct Writer {
    env: Env,
    path: PathBuf,
    durability: Durability,
    gate: Arc<Gate>,
    around: Surroundings,
    /// None once it is closed.
    engine: Mutex<Option<Engine>>,
    queue: Mutex<Queue>,
    /// Nobody empties the queue any more.
    idle: Notify,
    raising: AtomicBool,
    purged: AtomicU64,
    trimmed: AtomicU64,
    swept: AtomicU64,
}

impl Writer {
    pub(super) fn new(
        env: Env,
        path: PathBuf,
        durability: Durability,
        gate: Arc<Gate>,
        around: Surroundings,
        db: Connection,
        boot: String,
    ) -> Self {
        Self {
            purged: AtomicU64::new(env.now().nanos()),
            trimmed: AtomicU64::new(env.now().nanos()),
            swept: AtomicU64::new(env.now().nanos()),
            env,
            path,
            durability,
            gate,
            around,
            engine: Mutex::new(Some(Engine::new(db, boot))),
            queue: Mutex::default(),
            idle: Notify::new(),
            raising: AtomicBool::new(false),
        }
    }

    /// Does the work, at once or in its turn.
    pub(super) async fn run(self: &Arc<Self>, work: Work) -> Result<Done> {
        if let Some(result) = self.try_run(&work) {
            return result;
        }
        let (reply, answer) = oneshot::channel();
        self.enqueue(work, Some(reply))?;
        let limited = {
            // Timers need the runtime that they belong to, and the caller may be on another.
            let _context = self.env.tasks.runtime().enter();
            tokio::time::timeout(LIMIT, answer)
        };
        match limited.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::unavailable(format!("writing to '{}' was given up", self.path.display()))),
            Err(_) => Err(Error::unavailable(format!(
                "writing to '{}' takes longer than {} s; its disk may hang",
                self.path.display(),
                LIMIT.as_secs()
            ))),
        }
    }

    /// Does the work later, for nobody in particular.
    pub(super) fn run_later(self: &Arc<Self>, work: Work) {
        // Refused only when the store is closed, and then it is not needed.
        let _ = self.enqueue(work, None);
    }

    /// Takes no more work, and waits for what has been taken.
    pub(super) async fn finish(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if !self.stop() {
                return;
            }
            idle.await;
        }
    }

    /// Takes no more work. Whether some is still being done.
    pub(super) fn stop(&self) -> bool {
        let mut queue = self.queue();
        queue.closed = true;
        queue.served
    }

    /// Closes the connection; to be called when it is finished. Blocks.
    pub(super) fn close(&self) {
        drop(self.engine.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Lets a test look at the file, or spoil it, by the connection that writes.
    #[cfg(test)]
    pub(super) fn with_connection<T>(&self, f: impl FnOnce(&Connection) -> T) -> T {
        f(&self.engine.lock().unwrap_or_else(PoisonError::into_inner).as_ref().unwrap().db)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work on this thread, unless somebody would have to be waited for.
    fn try_run(self: &Arc<Self>, work: &Work) -> Option<Result<Done>> {
        // A sync takes milliseconds, and this may be a thread of the runtime.
        if self.durability == Durability::Full || work.must_be_synced() {
            return None;
        }
        let mut engine = match self.engine.try_lock() {
            Ok(engine) => engine,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if !self.queue().is_idle() || !self.gate.is_quiet() {
            return None;
        }
        let Some(db) = engine.as_mut() else { return Some(Err(Error::closed("the store"))) };
        let result = match db.set_synced(false).and_then(|()| db.begin()) {
            Ok(true) => db.finish(&[work], None, &self.env),
            Ok(false) => return None,
            Err(fault) => Err(fault),
        };
        drop(engine);
        self.gate.leave();
        match result {
            Ok(mut finished) => Some(Ok(self.follow(finished.remove(0)))),
            // That needs a sync.
            Err(Fault::CeilingTooLow(_)) => None,
            Err(fault) => Some(Err(fault.into_error(&self.path))),
        }
    }

    fn enqueue(self: &Arc<Self>, work: Work, reply: Option<oneshot::Sender<Result<Done>>>) -> Result<()> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(Error::closed("the store"));
        }
        let job = Job { since: self.env.now(), work, reply };
        match job.work {
            Work::Session(..) | Work::RaiseCeiling(_) => queue.sessions.push_back(job),
            Work::Document(_) => queue.documents.push_back(job),
            _ => queue.others.push_back(job),
        }
        if !queue.served {
            queue.served = true;
            drop(queue);
            let shift = Shift { writer: self.clone(), over: false };
            self.env.tasks.runtime().spawn_blocking(move || shift.work());
        }
        Ok(())
    }

    /// Runs a batch, each job with a result of its own. Those at its end may be left for another one.
    fn serve(&self, engine: &mut Option<Engine>, mut batch: Vec<Job>) -> Served {
        let Some(engine) = engine else {
            return Served::all(batch.into_iter().map(|job| (job, Err(Error::closed("the store")))).collect());
        };
        let works: Vec<&Work> = batch.iter().map(|job| &job.work).collect();
        match self.transact(engine, &works) {
            Ok(finished) => {
                let left = batch.split_off(finished.len());
                Served { results: batch.into_iter().zip(finished.into_iter().map(Ok)).collect(), left }
            }
            // One of them may be at fault, and must not take the others with it.
            Err(fault) if batch.len() > 1 && !matches!(fault, Fault::TimedOut) => {
                Served::all(batch.into_iter().flat_map(|job| self.serve_alone(engine, job)).collect())
            }
            Err(fault) => {
                let error = fault.into_error(&self.path);
                Served::all(batch.into_iter().map(|job| (job, Err(error.clone()))).collect())
            }
        }
    }

    fn serve_alone(&self, engine: &mut Engine, job: Job) -> Option<(Job, Result<Finished>)> {
        let result = self.transact(engine, &[&job.work]).map(|mut finished| finished.pop());
        match result {
            Ok(finished) => finished.map(|finished| (job, Ok(finished))),
            Err(fault) => Some((job, Err(fault.into_error(&self.path)))),
        }
    }

    /// Runs the works in one transaction, when it is this process's turn.
    fn transact(&self, engine: &mut Engine, works: &[&Work]) -> Result<Vec<Finished>, Fault> {
        let mut above = None;
        loop {
            let full = self.durability == Durability::Full
                || above.is_some()
                || works.iter().any(|work| work.must_be_synced());
            engine.set_synced(full)?;
            let deadline = self.env.now() + PATIENCE;
            if self.gate.enter(deadline, || engine.begin())? == Entry::TimedOut {
                return Err(Fault::TimedOut);
            }
            let result = engine.finish(works, above, &self.env);
            self.gate.leave();
            match result {
                Err(Fault::CeilingTooLow(token)) => above = Some(token.max(above.unwrap_or(token))),
                result => return result,
            }
        }
    }

    /// What follows from a commit.
    fn follow(self: &Arc<Self>, finished: Finished) -> Done {
        failpoints::at(Point::SqliteFollow);
        if let Some((session, notice)) = finished.notice {
            self.around.wakes.tell(session, notice);
            failpoints::at(Point::SqliteTold);
        }
        if !finished.listeners.is_empty() {
            self.around.log.tell(&finished.listeners);
        }
        if let Some(work) = finished.again {
            self.run_later(work);
        }
        if matches!(finished.done, Done::Document(DocumentDone::Swept(true))) {
            self.run_later(Work::Document(DocumentWork::Sweep));
        }
        self.sweep_sometimes();
        if let Some(session) = finished.died {
            self.around.run.remove_remains(session);
        }
        if finished.ceiling_is_near && !self.raising.swap(true, Relaxed) {
            self.run_later(Work::RaiseCeiling(0));
        }
        if self.around.checkpoints.on_commit() {
            self.purge_sometimes();
        }
        finished.done
    }

    /// Looks for documents that have expired, for as long as anything at all is written: as sessions are.
    fn sweep_sometimes(self: &Arc<Self>) {
        let now = self.env.now();
        if now.since(Timestamp::from_nanos(self.swept.load(Relaxed))) >= SWEEP_EVERY {
            self.swept.store(now.nanos(), Relaxed);
            self.run_later(Work::Document(DocumentWork::Sweep));
        }
    }

    fn purge_sometimes(self: &Arc<Self>) {
        let now = self.env.now();
        if now.since(Timestamp::from_nanos(self.purged.load(Relaxed))) >= PURGE_EVERY {
            self.purged.store(now.nanos(), Relaxed);
            self.run_later(Work::Purge);
        }
        if now.since(Timestamp::from_nanos(self.trimmed.load(Relaxed))) >= TRIM_EVERY {
            self.trimmed.store(now.nanos(), Relaxed);
            self.run_later(Work::Trim);
        }
    }

    fn warn_if_slow(&self, job: &Job, done: &Done) {
        let (Work::Session(id, SessionStep::Renew { .. }), Done::Session(Some(record))) = (&job.work, done) else {
            return;
        };
        let waited = self.env.now().since(job.since);
        if waited > record.ttl / 3 {
            tracing::warn!(session = %id, ?waited, "a renewal waited long for other writers of the database");
        }
    }
}

/// One thread's time of emptying the queue. However it ends, the queue can be served again.
struct Shift {
    writer: Arc<Writer>,
    /// It found the queue empty. From then on the queue belongs to whoever serves it next, perhaps already.
    over: bool,
}

impl Shift {
    fn work(mut self) {
        let writer = &self.writer;
        loop {
            // First the connection, then the queue: whoever finds the queue empty and has the connection knows that
            // nothing that came before is still being done.
            let mut engine = writer.engine.lock().unwrap_or_else(PoisonError::into_inner);
            let batch = {
                let mut queue = writer.queue();
                let batch = queue.take();
                if batch.is_empty() {
                    queue.served = false;
                    self.over = true;
                    break;
                }
                batch
            };
            let served = writer.serve(&mut engine, batch);
            drop(engine);
            writer.queue().put_back(served.left);
            for (job, result) in served.results {
                if let Work::RaiseCeiling(_) = job.work {
                    writer.raising.store(false, Relaxed);
                }
                let result = result.map(|finished| writer.follow(finished));
                if let Ok(done) = &result {
                    writer.warn_if_slow(&job, done);
                }
                if let Some(reply) = job.reply {
                    failpoints::at(Point::SqliteReply);
                    // Who no longer listens has dropped its call.
                    let _ = reply.send(result);
                }
            }
        }
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        let mut queue = self.writer.queue();
        if !self.over {
            // The thread panicked, or the runtime is shut down: who waits is told by the loss of its reply.
            queue.served = false;
            queue.sessions.clear();
            queue.others.clear();
            queue.documents.clear();
        }
        drop(queue);
        self.writer.idle.notify_waiters();
    }
}

/// What came of a batch.
struct Served {
    results: Vec<(Job, Result<Finished>)>,
    /// What there was no time for.
    left: Vec<Job>,
}

impl Served {
    fn all(results: Vec<(Job, Result<Finished>)>) -> Self {
        Self { results, left: Vec::new() }
    }
}

impl Work {
    fn must_be_synced(&self) -> bool {
        matches!(self, Self::RaiseCeiling(_) | Self::Document(_))
    }
}
