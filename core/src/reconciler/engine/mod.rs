//! What all handles and tasks of a reconciler share: the queue, whose keys it may run, and what it has done.
//!
//! Whoever takes a key holds the queue's lock for a moment and nothing else; the document is fetched outside of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::rights::Right;
use super::source::Origin;
use super::work::{Outcome, Request};
use super::{Mode, ReconcileOptions};
use crate::client::Core;
use crate::driver::{CancelToken, Watched};
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::document::{Key, Position};
use crate::protocol::work_queue::{KeyState, Taken, Ticket, Verdict, WorkQueue};
use crate::time::Timestamp;

mod counters;
mod graves;
mod parts;

use counters::{Counters, nanos};
use graves::MAX_GRAVES;
use parts::Rights;

pub(super) struct Engine {
    core: Arc<Core>,
    name: String,
    options: ReconcileOptions,
    origin: Origin,
    queue: Mutex<WorkQueue<Arc<Key>>>,
    /// There may be something to take.
    takable: Notify,
    /// Somebody was told so who has not looked yet: he looks after whatever was added until then, and tells the next one
    /// if there is more. To tell a second one already would wake a thread for nothing, which takes as long as many a run.
    told: AtomicBool,
    /// A run may have been asked to stop.
    cancels: Notify,
    /// Something ended: a run, or the feed came further.
    settled: Notify,
    rights: Option<Mutex<Rights>>,
    /// Held while keys of parts that were granted are listed.
    listing: tokio::sync::Mutex<()>,
    progress: Watched<Progress>,
    /// It drains: changes after this place are not run.
    drains_after: OnceLock<Position>,
    stop: CancelToken,
    counters: Counters,
    tasks: AtomicUsize,
}

/// How far the feed has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Every change up to this place is in the queue.
    pub(super) position: Position,
    /// Everything that was there is in the queue.
    pub(super) synced: bool,
    /// Why there is no feed any more.
    pub(super) failure: Option<Error>,
}

impl Engine {
    pub(super) fn new(core: Arc<Core>, name: String, options: ReconcileOptions, origin: Origin) -> Self {
        let queue = Mutex::new(WorkQueue::new(options.queue()));
        let rights = (options.mode != Mode::All).then(Mutex::default);
        Self {
            core,
            name,
            options,
            origin,
            queue,
            takable: Notify::new(),
            told: AtomicBool::new(false),
            cancels: Notify::new(),
            settled: Notify::new(),
            rights,
            listing: tokio::sync::Mutex::default(),
            progress: Watched::new(Progress::default()),
            drains_after: OnceLock::new(),
            stop: CancelToken::new(),
            counters: Counters::default(),
            tasks: AtomicUsize::new(0),
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Runs a task of the reconciler's, which ends when that is stopped.
    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.fetch_add(1, SeqCst);
        let ended = TaskEnded(self.clone());
        self.core.setup().env.spawn(async move {
            let _ended = ended;
            task.await;
        });
    }

    /// How many of its tasks have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.load(SeqCst)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn options(&self) -> &ReconcileOptions {
        &self.options
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn now(&self) -> Timestamp {
        self.core.setup().env.now()
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, WorkQueue<Arc<Key>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cancels(&self) -> &Notify {
        &self.cancels
    }

    pub(super) fn progress(&self) -> &Watched<Progress> {
        &self.progress
    }

    /// The feed has come further, or has ended.
    pub(super) fn advance(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.modify(change);
        self.settled.notify_waiters();
    }

    /// Takes in no more keys.
    pub(super) fn drain(&self) {
        // Before the queue refuses: the feed goes on, and everything up to here is in the queue.
        let _ = self.drains_after.set(self.progress.get().position);
        self.queue().drain();
        self.wake_all();
    }

    /// Whether everything under way is to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_fired()
    }

    /// Waits until the reconciler or its client is closed.
    pub(super) async fn stopped(&self) {
        tokio::select! {
            biased;
            () = self.stop.fired() => {}
            () = self.core.closing() => self.stop(),
        }
    }

    /// Begins nothing more, and asks what runs to stop.
    pub(super) fn stop(&self) {
        self.queue().close();
        self.stop.fire();
        self.takable.notify_waiters();
        self.cancels.notify_waiters();
        self.settled.notify_waiters();
    }

    /// The source cannot be had any more: that is told to everybody, and ends it.
    pub(super) fn fail(&self, error: Error) {
        if self.is_stopping() {
            return;
        }
        tracing::error!(reconciler = self.name, %error, "a reconciler's source cannot be followed; it ends");
        self.advance(|progress| progress.failure = Some(error));
        self.stop();
    }

    /// Whoever waits for a key to take looks again.
    pub(super) fn wake_all(&self) {
        self.takable.notify_waiters();
        self.settled.notify_waiters();
    }

    /// What is planned was changed by somebody who holds the queue himself.
    pub(super) fn changed(&self) {
        self.settled.notify_waiters();
    }

    /// There may be something to take: after keys were added by somebody who holds the queue himself.
    pub(super) fn wake(&self) {
        if !self.told.swap(true, SeqCst) {
            self.takable.notify_one();
        }
    }

    // --- keys come in ---

    /// The key has changed. Not ours to run: dropped.
    pub(super) fn add(&self, key: Arc<Key>) {
        let _ = self.put(key, |queue, key, now| Ok(queue.add(key, now)));
    }

    /// Somebody asks for the key to be run, after this time. Whether it is taken in is decided with the queue's lock held,
    /// so that what is refused is never said to be planned, whoever closes, drains or revokes meanwhile.
    pub(super) fn ask(&self, key: Arc<Key>, delay: Duration) -> std::result::Result<bool, Refused> {
        self.put(key, |queue, key, now| {
            if !queue.takes_in() {
                return Err(Refused::Closed);
            }
            Ok(queue.add_after(key, delay, now))
        })
    }

    /// The key is gone from the source: it is run, and remembered for whoever gets its part next. Both with the queue's
    /// lock held: the end of a run before forgets either nothing or what is in the queue anew.
    pub(super) fn add_deleted(&self, key: Arc<Key>) {
        let queue = self.queue();
        let overflows = self.bury(&key);
        let _ = self.put_into(queue, key, |queue, key, now| Ok(queue.add(key, now)));
        if overflows {
            tracing::info!(
                reconciler = self.name,
                "more than {MAX_GRAVES} deletions are remembered for replicas that die before they have run them; the \
                 oldest are forgotten"
            );
        }
    }

    /// The key exists, and its source is gone through once more.
    pub(super) fn refresh(&self, key: Arc<Key>) {
        let _ = self.put(key, |queue, key, now| Ok(queue.refresh(key, now)));
    }

    /// Adds a key that is ours to run. The right is looked at within the queue's lock: a part that is given up is taken
    /// from the rights first, and its keys from the queue then.
    fn put(
        &self,
        key: Arc<Key>,
        put: impl FnOnce(&mut WorkQueue<Arc<Key>>, Arc<Key>, Timestamp) -> std::result::Result<bool, Refused>,
    ) -> std::result::Result<bool, Refused> {
        self.put_into(self.queue(), key, put)
    }

    fn put_into(
        &self,
        mut queue: MutexGuard<'_, WorkQueue<Arc<Key>>>,
        key: Arc<Key>,
        put: impl FnOnce(&mut WorkQueue<Arc<Key>>, Arc<Key>, Timestamp) -> std::result::Result<bool, Refused>,
    ) -> std::result::Result<bool, Refused> {
        let now = self.now();
        if !self.is_ours(&key) {
            return Err(Refused::NotOurs);
        }
        let news = put(&mut queue, key, now)?;
        drop(queue);
        if news {
            self.wake();
        }
        Ok(news)
    }

    /// Lists all keys, and adds those that are ours. Tries until that is done.
    ///
    /// # Errors
    /// Those that waiting does not cure.
    pub(super) async fn list_all(&self) -> Result<()> {
        self.list(|_| true).await
    }

    async fn list(&self, wanted: impl Fn(&Key) -> bool + Send + Sync) -> Result<()> {
        let wanted = &wanted;
        self.answered(|| async move {
            let mut add = |key: Key| {
                if wanted(&key) {
                    self.add(Arc::new(key));
                }
            };
            self.origin.list(&self.core, &mut add).await
        })
        .await
    }

    /// Asks the source until the store answers.
    ///
    /// # Errors
    /// Those that waiting does not cure.
    async fn answered<T, F: Future<Output = Result<T>>>(&self, ask: impl Fn() -> F) -> Result<T> {
        let env = &self.core.setup().env;
        let mut pause = FIRST_PAUSE;
        loop {
            match ask().await {
                Err(error) if !lasts(&error) => {
                    tracing::debug!(reconciler = self.name, %error, "the source could not be read; trying again");
                    env.sleep(env.jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => return answer,
            }
        }
    }

    // --- keys go out ---

    /// The next key to be run, if there is one now. Its right, if it needs one, is counted as in use.
    fn take(self: &Arc<Self>) -> Take {
        let now = self.now();
        let mut queue = self.queue();
        loop {
            let Some(Taken { key, attempt, waited, ticket }) = queue.take(now) else {
                let ended = queue.is_closed() || queue.is_drained();
                return if ended { Take::Ended } else { Take::Nothing { until: queue.next_wake(now) } };
            };
            let right = match self.right_for(&key) {
                Ok(right) => right,
                Err(Forgotten) => {
                    // The next holder lists all keys.
                    queue.finish(ticket, Verdict::Forgotten, now, 0.0);
                    continue;
                }
            };
            failpoints::at(Point::KeyTaken);
            // Whoever else waits may have waited for this one only.
            let more = queue.next_wake(now).is_some();
            drop(queue);
            if more {
                self.wake();
            }
            self.counters.wait_nanos.fetch_add(nanos(waited), Relaxed);
            if attempt > 1 {
                self.counters.retries.fetch_add(1, Relaxed);
            }
            return Take::Taken(Request::new(self.clone(), key, attempt, ticket, right));
        }
    }

    fn right_for(&self, key: &Key) -> std::result::Result<Option<Arc<Right>>, Forgotten> {
        let Some(rights) = &self.rights else { return Ok(None) };
        let rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
        // Entered within the lock: who revokes it afterwards waits for this run.
        let right = rights.right(self.part_of(key)).ok_or(Forgotten)?;
        right.enter();
        Ok(Some(right.clone()))
    }

    /// The next request, if there is one now and nothing must be fetched for it.
    pub(super) fn try_next(self: &Arc<Self>) -> Option<Result<Request>> {
        if self.origin.fetches() {
            return None;
        }
        match self.take() {
            Take::Taken(request) => Some(Ok(request)),
            Take::Ended => Some(Err(self.ended())),
            Take::Nothing { .. } => None,
        }
    }

    /// The next request if there is one now; none while the store does not answer.
    pub(super) async fn next_ready(self: Arc<Self>) -> Result<Option<Request>> {
        loop {
            self.core.check_open()?;
            match self.take() {
                Take::Taken(request) => match self.fetch(request, false).await {
                    Ok(None) => {}
                    Err(error) if !lasts(&error) => return Ok(None),
                    fetched => return fetched,
                },
                Take::Ended => return Err(self.ended()),
                Take::Nothing { .. } => return Ok(None),
            }
        }
    }

    /// The next request; waits for it.
    pub(super) async fn next(self: Arc<Self>) -> Result<Request> {
        loop {
            // While its document is fetched this worker is told of nothing: whoever waits is.
            let request = self.taken().await?;
            if let Some(request) = self.fetch(request, true).await? {
                return Ok(request);
            }
        }
    }

    /// The next key to be run; waits for it.
    async fn taken(self: &Arc<Self>) -> Result<Request> {
        loop {
            let mut takable = std::pin::pin!(self.takable.notified());
            takable.as_mut().enable();
            self.core.check_open()?;
            // Before the look. Whoever adds after it tells anew; a word that its hearer was dropped with goes to the next.
            self.told.store(false, SeqCst);
            match self.take() {
                Take::Taken(request) => return Ok(request),
                Take::Ended => return Err(self.ended()),
                Take::Nothing { until } => {
                    let mut watch = Watch(until.map(|_| &**self));
                    let due = async {
                        match until {
                            Some(until) => self.core.setup().env.sleep_until(until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        () = self.core.closing() => self.stop(),
                        () = self.stop.fired() => {}
                        () = takable => {}
                        () = due => {}
                    }
                    watch.0 = None;
                }
            }
        }
    }

    /// Gets the request's document; if it `waits`, as soon as the store answers. None if the run is asked to stop before
    /// that. A request that gets none, also when this is dropped, goes back as it was: a store that does not answer is no
    /// failure of the key's.
    ///
    /// # Errors
    /// Those that waiting does not cure, which end the reconciler; others only if it does not wait.
    async fn fetch(&self, request: Request, waits: bool) -> Result<Option<Request>> {
        if !self.origin.fetches() {
            return Ok(Some(request));
        }
        let mut held = GiveBack(Some(request));
        let Some(run) = &held.0 else { return Ok(None) };
        let reading = async {
            let ask = || self.origin.fetch(&self.core, run.key());
            if waits { self.answered(ask).await } else { ask().await }
        };
        let fetched = tokio::select! {
            biased;
            fetched = reading => fetched,
            () = run.wait_until_cancelled() => return Ok(None),
        };
        match fetched {
            Ok(stored) => {
                failpoints::at(Point::KeyFetched);
                Ok(held.0.take().map(|request| request.with(stored)))
            }
            Err(error) if lasts(&error) => {
                self.fail(error);
                Err(self.ended())
            }
            Err(error) => Err(error),
        }
    }

    fn ended(&self) -> Error {
        if let Some(failure) = self.progress.get().failure {
            return failure;
        }
        Error::closed("the reconciler")
    }

    /// A run has ended.
    pub(super) fn finish(
        &self,
        key: &Arc<Key>,
        ticket: Ticket,
        verdict: Verdict,
        outcome: Option<&Outcome>,
        began: Timestamp,
    ) {
        let now = self.now();
        // What was given back was no run, whoever runs it next.
        if verdict != Verdict::Returned {
            self.count(key, outcome, now.since(began));
        }
        // Of a part that is being given up the next holder runs every key.
        let verdict = if self.is_ours(key) { verdict } else { Verdict::Forgotten };
        let chance = match verdict {
            Verdict::Failed { .. } => (self.core.setup().env.rng.bits() >> 11) as f64 / (1u64 << 53) as f64,
            _ => 0.0,
        };
        let done = verdict == Verdict::Done;
        let mut queue = self.queue();
        queue.finish(ticket, verdict, now, chance);
        // Looked at with the queue's lock held: a deletion that came while the key was still ours is in the queue.
        if done && self.rights.is_some() && self.is_ours(key) && queue.state(key) == KeyState::Idle {
            self.forget_deletion(key);
        }
        let more = queue.next_wake(now).is_some();
        let drained = queue.is_drained();
        drop(queue);
        if drained {
            self.takable.notify_waiters();
        } else if more {
            self.wake();
        }
        self.settled.notify_waiters();
    }

    pub(super) fn count_fenced(&self) {
        self.counters.fenced.fetch_add(1, Relaxed);
    }

    // --- what is going on ---

    /// Waits until `settled` answers; asked again whenever a run has ended or the feed has come further.
    pub(super) async fn settled<T>(&self, settled: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.settled.notified());
            changed.as_mut().enable();
            if let Some(answer) = settled(self) {
                return answer;
            }
            changed.await;
        }
    }

    /// Whether every change of the key up to this place has been run without an error; none while that is open.
    pub(super) fn reconciled(&self, key: &Key, position: Position) -> Option<Result<()>> {
        // The feed first: what it has put into the queue is seen there.
        let progress = self.progress.get();
        let queue = self.queue();
        if let Some(failure) = progress.failure {
            return Some(Err(failure));
        }
        if queue.is_closed() {
            return Some(Err(Error::closed("the reconciler")));
        }
        if self.drains_after.get().is_some_and(|last| position > *last) {
            return Some(Err(Error::new(
                Code::Closed,
                "the reconciler drains, and does not run what has changed since",
            )));
        }
        if progress.position < position || !progress.synced {
            return None;
        }
        match self.is_complete(key) {
            None => return Some(Err(Error::new(Code::NotHeld, format!("{key} is for another replica to run")))),
            Some(false) => return None,
            Some(true) => {}
        }
        match queue.state(&Arc::new(key.clone())) {
            KeyState::Idle | KeyState::Delayed { owed: false, .. } => Some(Ok(())),
            KeyState::Parked => {
                let reason = queue.parked().into_iter().find(|parked| *parked.key == *key).map(|parked| parked.reason);
                let reason = reason.unwrap_or_default();
                Some(Err(Error::new(Code::Conflict, format!("{key} is parked and will not be run again: {reason}"))))
            }
            KeyState::Cancelled => {
                let message = format!("{key} was cancelled and will not be run before it changes or is added again");
                Some(Err(Error::new(Code::Conflict, message)))
            }
            KeyState::Ready | KeyState::Delayed { .. } | KeyState::Running { .. } => None,
        }
    }
}

/// Also when the runtime drops a task.
struct TaskEnded(Arc<Engine>);

impl Drop for TaskEnded {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, SeqCst);
        self.0.settled.notify_waiters();
    }
}

enum Take {
    Taken(Request),
    Nothing { until: Option<Timestamp> },
    Ended,
}

/// Of all who wait perhaps only this one knows when the next key is due: dropped, it has another one look.
struct Watch<'a>(Option<&'a Engine>);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(engine) = self.0 {
            engine.wake();
        }
    }
}

/// Whether waiting does not cure it.
fn lasts(error: &Error) -> bool {
    use Code::{Closed, CorruptState, Forbidden, Forked, InvalidArgument, Unauthorized, Unsupported};
    matches!(error.code(), Unauthorized | Forbidden | Unsupported | InvalidArgument | CorruptState | Closed | Forked)
}

/// The key is not this replica's any more.
struct Forgotten;

/// Why a key is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The reconciler was closed, or drains.
    Closed,
    /// Another replica runs it.
    NotOurs,
}

/// A request whose document is not there yet. One that gets none goes back at once.
struct GiveBack(Option<Request>);

impl Drop for GiveBack {
    fn drop(&mut self) {
        if let Some(request) = self.0.take() {
            request.give_back();
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
