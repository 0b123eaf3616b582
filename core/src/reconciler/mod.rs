//! Reconcilers: a function is called for every key of a source, and again for every key that changes, until what it has to
//! do is done.
//!
//! What is guaranteed:
//! - every key that exists at the start is run, and every change of a key, deletions included, leads to a run that begins
//!   after it; several changes may share one;
//! - one key is never run by two workers at once, and changes during a run lead to exactly one more;
//! - an error is tried again after a growing pause; nothing is given up but by [`Outcome::Terminal`];
//! - with several replicas in mode [`Mode::Leader`] or [`Mode::Sharded`], a key is begun only by who holds the leadership or
//!   the key's shard, which are claims like locks, with tokens: see [`Work::token`]. As with a lock, a function may still
//!   be at work when its hold has ended; its result does not count then, and its token tells its effects apart.
//!
//! What is not: that a deletion is seen that happened while no replica was running, or that was not run yet when its
//! replica died, was closed or gave its shard up, and another one took over that was started after it, or that has seen
//! 10,000 other deletions since.
//!
//! A function that always changes its own key runs for ever: write only what differs.
//!
//! The queue behind it is [`protocol::work_queue`](crate::protocol::work_queue); the ideas are those of client-go and
//! controller-runtime, `wait_until_reconciled` that of Cilium's statedb.
//!
//! Other languages take [`Request`]s with [`Reconciler::next`] and complete them; [`Reconciler::run`] does that for Rust.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use futures::FutureExt;
use futures::future::try_join_all;

use crate::client::{Client, claim_key};
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::observer::ObserveOptions;
use crate::protocol::document::{Filter, Key, Position};
use crate::protocol::shards::MAX_SHARDS;
use crate::protocol::work_queue::QueueOptions;
pub use crate::protocol::work_queue::{Backoff, Rate};
use crate::table::{Given, Table, WriteOptions};

mod engine;
mod heard;
mod rights;
mod source;
mod work;

use engine::{Engine, Refused};
use source::Origin;
pub use work::{Outcome, Request, Work};

/// Where keys come from.
#[allow(clippy::large_enum_variant, reason = "one for each reconciler")]
#[derive(Clone, Debug)]
pub enum Source {
    /// The documents of a table that match: their keys, at the start and whenever one changes.
    Table {
        /// The table.
        table: Table,
        /// Which of its documents.
        filter: Filter,
    },
    /// The services that an observer sees, `name`, `scope/*` …: their full names, at the start those that somebody provides,
    /// and then whenever a provider comes, goes or changes.
    Observer(String),
    /// The locks that became free: their full names. At the start every free lock that the store remembers, and again
    /// after an interruption. One that goes from a holder to a waiter was not free.
    ReleasedLocks {
        /// What their names begin with, of which the client fills in namespace and scope as of every name: `order-`,
        /// `scope/`, `scope/order-`, `namespace/scope/`. Empty for all of the client's namespace.
        prefix: String,
    },
    /// Keys that are added by hand: [`Reconciler::add`].
    Manual,
}

impl Source {
    /// The documents of a table that match.
    ///
    /// # Errors
    /// `InvalidArgument` for the filter.
    pub fn table(table: &Table, filter: impl Given<Filter>) -> Result<Self> {
        Ok(Self::Table { table: table.clone(), filter: filter.given()? })
    }
}

/// Which of several replicas, reconcilers of one name, run a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every replica runs every key.
    #[default]
    All,
    /// The elected one runs every key. The election is `reconcile:<name>`.
    Leader,
    /// Each key belongs to one of so many shards, and each shard to one replica.
    Sharded {
        /// How many; the same for all replicas, for ever. 64 is a good number.
        shards: u32,
    },
}

impl Mode {
    /// Sharded, with 64 shards.
    pub const SHARDED: Self = Self::Sharded { shards: 64 };
}

/// How a reconciler works.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconcileOptions {
    /// How many keys are run at once; 1 by default.
    pub workers: usize,
    /// Which replica runs a key.
    pub mode: Mode,
    /// How long a key waits after an error: 5 ms to 1000 s by default.
    pub backoff: Backoff,
    /// How many runs may begin in a second; as many as can by default.
    pub rate: Option<Rate>,
    /// How often every key is run although nothing has changed, at least a second apart; never by default. Keys that wait
    /// after an error keep waiting, and parked ones stay parked.
    pub resync: Option<Duration>,
    /// How long a run may go on when its shard is to move to another replica, before it is asked to stop; 10 s by default.
    /// However long it takes, the shard moves after its end.
    pub move_grace: Duration,
}

impl Default for ReconcileOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            mode: Mode::All,
            backoff: Backoff::default(),
            rate: None,
            resync: None,
            move_grace: Duration::from_secs(10),
        }
    }
}

impl ReconcileOptions {
    fn queue(&self) -> QueueOptions {
        QueueOptions { workers: self.workers, backoff: self.backoff, rate: self.rate }
    }

    fn check(&self) -> Result<()> {
        if self.workers == 0 || self.workers > MAX_WORKERS {
            return Err(Error::invalid(format!("a reconciler has 1 to {MAX_WORKERS} workers, not {}", self.workers)));
        }
        if self.backoff.min.is_zero() || self.backoff.min > self.backoff.max {
            return Err(Error::invalid("a back-off begins above zero, and not above its greatest"));
        }
        if let Some(Rate { per_second, burst }) = self.rate
            && !(per_second.is_finite() && per_second > 0.0 && burst > 0)
        {
            return Err(Error::invalid("a rate is above zero, and its burst at least 1"));
        }
        if self.resync.is_some_and(|every| every < LEAST_RESYNC) {
            return Err(Error::invalid("a resync comes at most once a second; leave it out for none"));
        }
        match self.mode {
            Mode::Sharded { shards } if shards == 0 || shards > MAX_SHARDS => {
                Err(Error::invalid(format!("a reconciler has 1 to {MAX_SHARDS} shards, not {shards}")))
            }
            _ => Ok(()),
        }
    }
}

/// A key that is not run before it changes or is added by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedKey {
    /// The key.
    pub key: Key,
    /// What the function said.
    pub reason: String,
    /// For how long it has been parked.
    pub parked_for: Duration,
}

/// A reconciler at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReconcilerStats {
    /// Keys that wait for a worker.
    pub ready: u64,
    /// Keys that are due later: after an error, or planned.
    pub delayed: u64,
    /// Keys that are being run.
    pub in_flight: u64,
    /// Keys that are parked.
    pub parked: u64,
    /// How long the first of the ready keys has been ready.
    pub oldest: Duration,
    /// How long the longest of the present runs has been going on.
    pub longest_run: Duration,
    /// Runs that have ended.
    pub runs: u64,
    /// Those that ended with an error, terminal ones included.
    pub errors: u64,
    /// Runs that began after an error of their key.
    pub retries: u64,
    /// Runs that ended with a terminal error.
    pub terminal: u64,
    /// Runs that asked for another one later.
    pub requeued: u64,
    /// Runs whose result did not count, because their shard or the leadership was lost.
    pub fenced: u64,
    /// Requests that were dropped without having been completed.
    pub dropped: u64,
    /// How long all runs that have ended took together.
    pub run_time: Duration,
    /// How long the longest of them took.
    pub longest_ended_run: Duration,
    /// How long all keys together were ready before they were run.
    pub queue_time: Duration,
    /// The shards that this replica holds; `[0]` for the leadership; empty in mode [`Mode::All`].
    pub shards: Vec<u32>,
    /// Whether every key of the source has been seen.
    pub synced: bool,
    /// Whether it is paused.
    pub paused: bool,
}

/// Calls for every key that changes. All clones are one reconciler; it is closed with the last of them.
#[derive(Clone)]
pub struct Reconciler {
    client: Client,
    engine: Arc<Engine>,
    _handle: Arc<Handle>,
}

/// Ends the reconciler.
struct Handle(Arc<Engine>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Client {
    /// Starts a reconciler. Returns when it follows its source; its keys are then taken with [`Reconciler::next`], or by
    /// [`Reconciler::run`]. Reconcilers on one source have each a queue of their own; the name tells replicas of one
    /// reconciler, and matters only in the modes [`Mode::Leader`] and [`Mode::Sharded`].
    ///
    /// # Errors
    /// `InvalidArgument` for the name and the options, for a prefix that no name begins with, for another client's table, for
    /// another number of shards than this reconciler began with, and for [`Source::Manual`] in another mode than [`Mode::All`] (nobody else knows its keys);
    /// `Unsupported` if the store cannot watch; `Closed`; those of the store.
    pub async fn reconcile(&self, name: &str, source: Source, options: ReconcileOptions) -> Result<Reconciler> {
        let name = self.name(name)?;
        options.check()?;
        let core = self.core().clone();
        core.check_open()?;
        let origin = match source {
            Source::Table { table, .. } if !Arc::ptr_eq(table.client().core(), &core) => {
                return Err(Error::invalid("a reconciler's table is one of its own client's"));
            }
            Source::Table { table, filter } => Origin::Table { table: table.table_name().clone(), filter },
            Source::Observer(pattern) => Origin::Observer(self.observe(&pattern, ObserveOptions::default()).await?),
            Source::ReleasedLocks { prefix } => Origin::ReleasedLocks { prefix: self.name_prefix(&prefix)? },
            Source::Manual if options.mode == Mode::All => Origin::Manual,
            Source::Manual => {
                return Err(Error::invalid(
                    "keys that are added by hand are known to one process only, so every replica runs its own (mode all)",
                ));
            }
        };
        let mode = options.mode;
        if let Mode::Sharded { shards } = mode {
            self.agree_on_shards(&name, shards).await?;
        }
        let engine = Arc::new(Engine::new(core.clone(), name.to_string(), options, origin));
        let handle = Handle(engine.clone());
        engine.spawn(source::feed(engine.clone()));
        let waiting = engine.clone();
        core.drive(async move {
            let synced = |engine: &Engine| {
                let progress = engine.progress().get();
                match progress.failure {
                    Some(failure) => Some(Err(failure)),
                    None if engine.is_stopping() => Some(Err(Error::closed("the client"))),
                    None => progress.synced.then_some(Ok(())),
                }
            };
            waiting.settled(synced).await
        })
        .await?;
        if let Some(every) = engine.options().resync {
            engine.spawn(source::resync(engine.clone(), every));
        }
        match mode {
            Mode::All => {}
            Mode::Leader => {
                let claim = claim_key(crate::election::KIND, &part_name(&name, "reconcile:", "")?);
                engine.spawn(rights::lead(engine.clone(), claim));
            }
            Mode::Sharded { shards } => {
                let replicas = Arc::new(rights::Replicas::new(engine.now()));
                // Of all replicas of the client's, each has a name of its own among the members.
                let member = format!("{MEMBERS}{:016x}", core.setup().env.rng.bits());
                let members = claim_key(SHARD_KIND, &part_name(&name, "", MEMBERS)?);
                let member = claim_key(SHARD_KIND, &part_name(&name, "", &member)?);
                engine.spawn(rights::follow_members(engine.clone(), replicas.clone(), members));
                engine.spawn(rights::be_member(engine.clone(), member));
                for shard in 0..shards {
                    let claim = claim_key(SHARD_KIND, &part_name(&name, "", &format!(":{shard}"))?);
                    engine.spawn(rights::keep_shard(engine.clone(), replicas.clone(), shard, claim));
                }
            }
        }
        Ok(Reconciler { client: self.clone(), engine, _handle: Arc::new(handle) })
    }

    /// All replicas of a reconciler have the same number of shards, or a key would belong to two of them.
    async fn agree_on_shards(&self, name: &Name, shards: u32) -> Result<()> {
        let table = self.table(RECORDS)?;
        let record = doc! { "shards": i64::from(shards) };
        match table.insert(name.as_str(), record, WriteOptions::default()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Code::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let record = table.get(name.as_str()).await?.document;
        match record.get_i64("shards") {
            Ok(agreed) if agreed == i64::from(shards) => Ok(()),
            Ok(agreed) => Err(Error::invalid(format!(
                "the reconciler '{name}' has {agreed} shards, not {shards}; a number once chosen stays, and a new name \
                 begins anew"
            ))),
            Err(_) => {
                Err(Error::new(Code::CorruptState, format!("the record of the reconciler '{name}' has no shards")))
            }
        }
    }
}

/// The name of a claim of a reconciler: in its namespace and scope, with something before and behind its own.
fn part_name(name: &Name, before: &str, behind: &str) -> Result<Name> {
    let (path, short) = name.as_str().rsplit_once('/').unwrap_or_default();
    Name::parse(&format!("{path}/{before}{short}{behind}"), "", "")
}

impl Reconciler {
    /// Its full name.
    pub fn name(&self) -> &str {
        self.engine.name()
    }

    /// Its client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The next key to be run; waits for it. At most [`ReconcileOptions::workers`] requests are out at a time. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// `Closed` when the reconciler or its client is closed, or a drain has come to its end; what ended the source.
    pub async fn next(&self) -> Result<Request> {
        if let Some(ready) = self.engine.try_next() {
            return ready;
        }
        let next = self.engine.clone().next();
        // Apart: one is told of a key at a time, and the others wait until that one has looked.
        match self.client.runtime() {
            Some(runtime) => runtime.drive_apart(next).await,
            None => next.await,
        }
    }

    /// The next key to be run if one is ready now. Does not wait, but for its document; none, too, if the store does not
    /// answer.
    ///
    /// # Errors
    /// As [`Reconciler::next`].
    pub async fn try_next(&self) -> Result<Option<Request>> {
        if let Some(ready) = self.engine.try_next() {
            return ready.map(Some);
        }
        let engine = self.engine.clone();
        self.client.core().drive(async move { engine.next_ready().await }).await
    }

    /// Calls `f` for each key until the reconciler is closed or drained, at most [`ReconcileOptions::workers`] at a time, all
    /// on the task that awaits this. A panic of `f` is an error like another. Dropping the future drops the calls; their keys
    /// come again.
    ///
    /// # Errors
    /// What ended the source.
    pub async fn run<F, Fut, O>(&self, f: F) -> Result<()>
    where
        F: Fn(Arc<Work>) -> Fut,
        Fut: Future<Output = O>,
        O: Into<Outcome>,
    {
        let worker = || async {
            loop {
                let request = match self.next().await {
                    Ok(request) => request,
                    Err(error) if error.code() == Code::Closed => return Ok(()),
                    Err(error) => return Err(error),
                };
                let work = request.work().clone();
                let run = AssertUnwindSafe(async { f(work).await.into() }).catch_unwind().await;
                let outcome = run.unwrap_or_else(|payload| {
                    let text = panic_text(&*payload);
                    tracing::error!(reconciler = self.name(), key = %request.key(), "a reconciler's function panicked: {text}");
                    Outcome::Error(format!("panicked: {text}"))
                });
                if let Err(error) = request.complete(outcome) {
                    tracing::info!(reconciler = self.name(), %error, "a run does not count");
                }
            }
        };
        try_join_all((0..self.engine.options().workers).map(|_| worker())).await.map(|_| ())
    }

    /// Runs a key as soon as a worker is free, as if it had changed; also a parked one. Returns whether that was news.
    ///
    /// # Errors
    /// `InvalidArgument` for the key; `NotHeld` if another replica runs it; `Closed`, also while it drains.
    pub fn add(&self, key: impl Given<Key>) -> Result<bool> {
        self.ask(key.given()?, Duration::ZERO)
    }

    /// Runs a key after this time, or earlier if that is planned already. Returns whether that was news.
    ///
    /// # Errors
    /// As [`Reconciler::add`].
    pub fn add_after(&self, key: impl Given<Key>, delay: Duration) -> Result<bool> {
        self.ask(key.given()?, delay)
    }

    fn ask(&self, key: Key, delay: Duration) -> Result<bool> {
        self.client.core().check_open()?;
        let key = Arc::new(key);
        self.engine.ask(key.clone(), delay).map_err(|refused| match refused {
            Refused::Closed => Error::closed("the reconciler"),
            Refused::NotOurs => Error::new(Code::NotHeld, format!("{key} is for another replica to run")),
        })
    }

    /// Forgets what is planned for a key, its errors included, and asks its run to stop. The key is run again when it
    /// changes; until then who waits for it is told ([`Reconciler::wait_until_reconciled`]). Returns whether there was
    /// anything.
    ///
    /// # Errors
    /// `InvalidArgument` for the key; `Closed`.
    pub fn cancel(&self, key: impl Given<Key>) -> Result<bool> {
        let key = key.given()?;
        self.client.core().check_open()?;
        let cancelled = self.engine.queue().cancel(&Arc::new(key));
        self.engine.cancels().notify_waiters();
        self.engine.changed();
        Ok(cancelled)
    }

    /// Begins no run until [`Reconciler::resume`]; keys are still taken in, and shards and leadership kept.
    pub fn pause(&self) {
        self.engine.queue().pause();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.engine.queue().resume();
        self.engine.wake();
    }

    /// Takes in no more keys, runs those that are ready, and waits until they have ended. What is due later is not waited for.
    /// [`Reconciler::next`] gives `Closed` then.
    ///
    /// # Errors
    /// `Timeout` when that takes longer; it goes on.
    pub async fn drain(&self, timeout: Duration) -> Result<()> {
        self.engine.drain();
        let drained = |engine: &Engine| {
            let queue = engine.queue();
            (queue.is_drained() || queue.is_closed() && queue.running() == 0).then_some(())
        };
        self.within(timeout, "drained", drained).await
    }

    /// Ends it: begins no more runs, asks those that go on to stop, waits until they have ended, and gives up shards and
    /// leadership. Closing twice is no error.
    ///
    /// # Errors
    /// `Timeout` when that takes longer; it goes on in the background.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        self.engine.stop();
        let ended = |engine: &Engine| (engine.queue().running() == 0 && engine.tasks() == 0).then_some(());
        self.within(timeout, "closed", ended).await
    }

    /// Waits until every change of a key up to this position (of a write: [`Written::position`](crate::table::Written)) has
    /// been run, the last time without an error.
    ///
    /// # Errors
    /// `Timeout`; `Conflict` if the key is parked, or was cancelled before that and has neither changed nor been added since;
    /// `NotHeld` if another replica runs it; `Closed`, also for a change after a drain has begun; what ended the source.
    pub async fn wait_until_reconciled(
        &self,
        key: impl Given<Key>,
        position: Position,
        timeout: Duration,
    ) -> Result<()> {
        let key = key.given()?;
        self.within(timeout, "reconciled", move |engine| engine.reconciled(&key, position)).await?
    }

    async fn within<T: Send + 'static>(
        &self,
        timeout: Duration,
        what: &'static str,
        settled: impl Fn(&Engine) -> Option<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let engine = self.engine.clone();
        self.client
            .core()
            .drive(async move {
                tokio::select! {
                    biased;
                    answer = engine.settled(settled) => Ok(answer),
                    () = engine.core().setup().env.sleep(timeout) => Err(late(what, timeout)),
                }
            })
            .await
    }

    /// What it is doing and has done. No I/O.
    pub fn stats(&self) -> ReconcilerStats {
        self.engine.stats()
    }

    /// The keys whose function said that they cannot be reconciled. No I/O.
    pub fn parked(&self) -> Vec<ParkedKey> {
        let now = self.engine.now();
        let parked = self.engine.queue().parked();
        let shown = parked.into_iter().map(|parked| ParkedKey {
            key: (*parked.key).clone(),
            reason: parked.reason,
            parked_for: now.since(parked.since),
        });
        shown.collect()
    }
}

fn late(what: &str, timeout: Duration) -> Error {
    Error::new(Code::Timeout, format!("not {what} within {} s; it goes on", timeout.as_secs_f64()))
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// More than this is no reconciler but a stampede.
const MAX_WORKERS: usize = 10_000;
const LEAST_RESYNC: Duration = Duration::from_secs(1);

/// The kind of claim that a shard is.
const SHARD_KIND: &str = "shard";

/// What stands before a replica's own claim, which says that it lives: digits stand there for a shard.
const MEMBERS: &str = ":r";

/// The table with what the replicas of each sharded reconciler have agreed on.
const RECORDS: &str = "reconcilers";

impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reconciler({})", self.name())
    }
}

#[cfg(test)]
mod tests;
