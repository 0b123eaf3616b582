//! A simulated process: a clock of its own, tasks that can be stopped, continued and ended all at once, and a way to the
//! store that ends with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coord_core::env::{Env, Spawn, Task, TaskFuture};
use coord_core::error::Result;
use coord_core::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep};
use coord_core::protocol::session::{SessionId, SessionRecord, SessionStep};
use coord_core::store::changes::{Changes, Interest};
use coord_core::store::faulty::FaultyStore;
use coord_core::store::{Applied, Capabilities, ClaimQuery, Notice, Notices, SessionQuery, Store};
use coord_core::time::{Clock, Timestamp, WallTime};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::random::Random;

/// A clock that runs at its own rate and shows its own date.
#[derive(Debug)]
pub struct SimClock {
    start: Instant,
    /// Parts per thousand.
    rate: u64,
    offset: Duration,
    wall_offset_ms: AtomicI64,
    stood_still: AtomicU64,
}

/// What the date is when a simulation begins.
const EPOCH_MS: i64 = 1_800_000_000_000;

impl SimClock {
    /// A clock with this rate in parts per thousand, that shows `offset` now.
    pub fn new(rate: u64, offset: Duration) -> Self {
        Self { start: Instant::now(), rate, offset, wall_offset_ms: AtomicI64::new(0), stood_still: AtomicU64::new(0) }
    }

    /// The clock did not count this long, as `CLOCK_MONOTONIC` does not while the host sleeps.
    pub fn stand_still(&self, duration: Duration) {
        self.stood_still.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Sets the date off by this much, as a wrong NTP server does.
    pub fn set_wall_offset(&self, milliseconds: i64) {
        self.wall_offset_ms.store(milliseconds, Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let elapsed = elapsed.saturating_sub(self.stood_still.load(Relaxed));
        Timestamp::from_nanos(elapsed / 1000 * self.rate) + self.offset
    }

    fn wall(&self) -> WallTime {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        WallTime(EPOCH_MS + elapsed + self.wall_offset_ms.load(Relaxed))
    }
}

/// Stops and continues everything that a process does, or ends it.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
    dead: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    /// Stops all tasks of the process.
    pub fn stop(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Whether they are stopped.
    pub fn is_stopped(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Continues them, unless the process is dead.
    pub fn resume(&self) {
        if !self.is_dead() {
            self.closed.store(false, Relaxed);
            self.wake();
        }
    }

    /// The process is dead: none of its tasks does anything again.
    pub fn kill(&self) {
        self.dead.store(true, Relaxed);
        self.closed.store(true, Relaxed);
        self.wake();
    }

    /// Whether the process is dead.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    fn wake(&self) {
        for waker in std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)) {
            waker.wake();
        }
    }

    fn blocks(&self, waker: &Waker) -> bool {
        let closed = self.closed.load(Relaxed);
        if closed {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waker.clone());
        }
        closed
    }
}

/// A future that does nothing while its process is stopped.
pub struct Gated<F> {
    gate: Arc<Gate>,
    /// None once the process is dead: what it had in its memory is gone.
    inner: Option<Pin<Box<F>>>,
}

impl<F: Future> Gated<F> {
    /// A future of the process with this gate.
    pub fn new(gate: Arc<Gate>, inner: F) -> Self {
        Self { gate, inner: Some(Box::pin(inner)) }
    }
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.gate.is_dead() {
            self.inner = None;
            return Poll::Pending;
        }
        if self.gate.blocks(context.waker()) {
            return Poll::Pending;
        }
        self.inner.as_mut().map_or(Poll::Pending, |inner| inner.as_mut().poll(context))
    }
}

#[derive(Debug)]
struct GatedSpawn {
    gate: Arc<Gate>,
    runtime: tokio::runtime::Handle,
}

impl Spawn for GatedSpawn {
    fn spawn(&self, future: TaskFuture) -> Task {
        Spawn::spawn(&self.runtime, Box::pin(Gated::new(self.gate.clone(), future)))
    }

    fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}

/// The world of a process that `gate` stops. Call it inside the simulation's runtime.
pub fn env(clock: Arc<SimClock>, random: Random, gate: Arc<Gate>) -> Env {
    let runtime = tokio::runtime::Handle::current();
    Env { clock, rng: Arc::new(random), tasks: Arc::new(GatedSpawn { gate, runtime }) }
}

/// A process's way to the store, on which the dead send nothing: the destructors of what they had run all the same. What
/// was sent before goes on, as it does on a network.
#[derive(Debug)]
pub struct WayToStore {
    gate: Arc<Gate>,
    network: Arc<FaultyStore>,
}

impl WayToStore {
    /// The way of the process with this gate, by this network.
    pub fn new(gate: Arc<Gate>, network: Arc<FaultyStore>) -> Self {
        Self { gate, network }
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a FaultyStore) -> BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        if self.gate.is_dead() { futures::future::pending().boxed() } else { call(&self.network) }
    }
}

impl Store for WayToStore {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.call(|network| network.apply_session(id, step))
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        self.call(|network| network.apply_claim(key, step))
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.call(|network| network.sessions(query))
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        self.call(|network| network.claims(query))
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        // The gap with which each begins is not the network's, and cannot be lost: without it a session is never opened.
        let begin = futures::stream::iter([Notice::Gap]);
        let notices = self.call(move |network| network.notices(id));
        async move { Ok(begin.chain(notices.await?).boxed()) }.boxed()
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        self.call(|network| network.changes(interest))
    }

    fn capabilities(&self) -> Capabilities {
        self.network.capabilities()
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.call(|network| network.health())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.network.close()
    }
}
