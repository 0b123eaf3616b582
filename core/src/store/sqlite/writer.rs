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

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use super::checkpoint::Checkpoints;
use super::documents::work::{self, DocumentDone, DocumentWork};
use super::fault::{self, Fault};
use super::gate::{Entry, Gate};
use super::log::{self, Listeners, Log, Topic};
use super::run::RunDirectory;
use super::sessions::{Moment, Shown};
use super::tokens::Marks;
use super::wake::Wakes;
use super::{changes, claims, sessions};
use crate::config::Durability;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::protocol::claim::{ClaimKey, ClaimStep};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep};
use crate::store::documents::local::SWEEP_EVERY;
use crate::store::{Applied, Notice};
use crate::time::{Timestamp, WallTime};

/// How long a transaction waits for other processes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a caller waits, also for a disk that hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// How many steps share a transaction.
const BATCH: usize = 64;

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
    /// Add what a process listens to.
    Listen(SessionId, Vec<Topic>),
    /// Remove some of what a process listens to, or all.
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
    Nothing,
}

/// A piece of work that was done, and what follows from it once it is committed.
#[derive(Debug)]
struct Finished {
    done: Done,
    notice: Option<(SessionId, Notice)>,
    died: Option<SessionId>,
    ceiling_is_near: bool,
    /// Who is to look at the log.
    listeners: Vec<SessionId>,
    /// Old rows of the log may be left.
    trim_again: bool,
}

impl Finished {
    fn new(done: Done) -> Self {
        Self { done, notice: None, died: None, ceiling_is_near: false, listeners: Vec::new(), trim_again: false }
    }
}

#[derive(Debug)]
struct Job {
    work: Work,
    since: Timestamp,
    reply: Option<oneshot::Sender<Result<Done>>>,
}

#[derive(Debug, Default)]
struct Queue {
    sessions: VecDeque<Job>,
    others: VecDeque<Job>,
    documents: VecDeque<Job>,
    turn_of_documents: bool,
    /// A thread empties it.
    served: bool,
    closed: bool,
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
            engine: Mutex::new(Some(Engine { db, boot, synced: None, warned: false, listeners: Listeners::default() })),
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
        if let Some((session, notice)) = finished.notice {
            self.around.wakes.tell(session, notice);
        }
        if !finished.listeners.is_empty() {
            self.around.log.tell(&finished.listeners);
        }
        if finished.trim_again {
            self.run_later(Work::Trim);
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

impl Queue {
    /// Puts documents that were taken back to the front.
    fn put_back(&mut self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            self.documents.push_front(job);
        }
    }

    fn is_idle(&self) -> bool {
        !self.served && !self.closed
    }

    /// The next batch: sessions first, then the others in their order, then tables, which are a batch of their own and
    /// have their turn after each batch of the others. What nobody waits for any more is left out.
    fn take(&mut self) -> Vec<Job> {
        let turn = std::mem::replace(&mut self.turn_of_documents, true);
        if self.sessions.is_empty() && (turn || self.others.is_empty()) {
            let batch = self.take_documents();
            if !batch.is_empty() {
                self.turn_of_documents = false;
                return batch;
            }
        }
        let batch = self.take_coordination();
        if batch.is_empty() { self.take_documents() } else { batch }
    }

    fn take_coordination(&mut self) -> Vec<Job> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Some(job) = self.sessions.pop_front().or_else(|| self.others.pop_front()) else { break };
            if job.is_wanted() {
                batch.push(job);
            }
        }
        batch
    }

    fn take_documents(&mut self) -> Vec<Job> {
        let (mut batch, mut weight) = (Vec::new(), 0);
        while weight < work::MOST {
            let Some(job) = self.documents.pop_front() else { break };
            if let Work::Document(work) = &job.work
                && job.is_wanted()
            {
                weight += work.weight();
                batch.push(job);
            }
        }
        batch
    }
}

impl Job {
    fn is_wanted(&self) -> bool {
        !self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl Work {
    fn must_be_synced(&self) -> bool {
        matches!(self, Self::RaiseCeiling(_) | Self::Document(_))
    }
}

/// The connection that writes.
#[derive(Debug)]
struct Engine {
    db: Connection,
    boot: String,
    /// Whether commits are synced now; none if it was never set.
    synced: Option<bool>,
    /// It was said that the date is wrong.
    warned: bool,
    listeners: Listeners,
}

impl Engine {
    /// Chooses whether the next transactions are synced at their commit. SQLite ignores it inside of one.
    fn set_synced(&mut self, synced: bool) -> Result<(), Fault> {
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
    fn begin(&mut self) -> Result<bool, Fault> {
        self.reset()?;
        match self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([]) {
            Ok(_) => Ok(true),
            Err(error) if fault::is_busy(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Does the works in the transaction that was begun, and ends it: all or nothing. The ceiling is raised above
    /// `above` first.
    fn finish(&mut self, works: &[&Work], above: Option<i64>, env: &Env) -> Result<Vec<Finished>, Fault> {
        let result = self.perform_all(works, above, env).and_then(|finished| {
            self.db.prepare_cached("COMMIT")?.execute([])?;
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
            Work::Purge => sessions::purge(&self.db, at).map(|()| nothing()),
            Work::Listen(id, topics) => log::listen(&self.db, *id, topics).map(|()| nothing()),
            Work::Unlisten(id, topics) => log::unlisten(&self.db, *id, topics.as_deref()).map(|()| nothing()),
            Work::Trim => Ok(Finished { trim_again: log::trim(&self.db, wall)?, ..nothing() }),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(token: i64) -> (Job, oneshot::Receiver<Result<Done>>) {
        let (reply, answer) = oneshot::channel();
        (Job { work: Work::RaiseCeiling(token), since: Timestamp::ZERO, reply: Some(reply) }, answer)
    }

    fn taken(queue: &mut Queue) -> Vec<i64> {
        let number = |job: Job| match job.work {
            Work::RaiseCeiling(token) => token,
            other => panic!("{other:?}"),
        };
        queue.take().into_iter().map(number).collect()
    }

    #[test]
    fn sessions_go_first_and_each_class_keeps_its_order() {
        let mut queue = Queue::default();
        let mut answers = Vec::new();
        for token in [1, 2, 3] {
            let ((other, first), (session, second)) = (job(token), job(10 * token));
            queue.others.push_back(other);
            queue.sessions.push_back(session);
            answers.extend([first, second]);
        }
        assert_eq!(taken(&mut queue), [10, 20, 30, 1, 2, 3]);
        assert!(taken(&mut queue).is_empty());
    }

    #[test]
    fn what_its_caller_has_dropped_never_runs() {
        let mut queue = Queue::default();
        let ((first, answer), (second, _waits)) = (job(1), job(2));
        queue.others.extend([first, second]);
        drop(answer);
        assert_eq!(taken(&mut queue), [2]);
    }

    #[test]
    fn a_batch_has_a_limit() {
        let mut queue = Queue::default();
        let answers: Vec<_> = (0..100)
            .map(|token| {
                let (job, answer) = job(token);
                queue.others.push_back(job);
                answer
            })
            .collect();
        assert_eq!(taken(&mut queue).len(), BATCH);
        assert_eq!(taken(&mut queue).len(), answers.len() - BATCH);
    }
}
