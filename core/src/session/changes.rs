//! The hub: one stream of changes from the store for everybody in this client who looks on.
//!
//! It is opened with the first who looks on and closed with the last. Sessions are always followed, and claims by kind and
//! namespace, so that the next to come mostly finds what it wants in the stream that is there. When somebody wants
//! more, a wider stream takes its place, and those who look on already get a snapshot, as after an interruption.
//!
//! Everybody gets the contract of [`crate::store::changes`]: a snapshot first, then every change. Sinks are called one after
//! the other, under the hub's lock, so that all see the same order; they must be quick, and never call the hub.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt;

use crate::driver::Runtime;
use crate::env::{Env, Task};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::changes::{Change, Changes, Interest, Mirror};
use crate::store::counted::Counted;

/// Takes what it is told. The last call is with none: the hub is closed.
pub(crate) type Sink = Box<dyn FnMut(Option<&Change>) + Send>;

/// Shares one stream of changes.
pub(crate) struct Hub {
    env: Env,
    store: Arc<Counted>,
    /// Held while a stream is opened.
    opening: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// What the running stream is of interest for.
    interest: Interest,
    mirror: Mirror,
    /// The running stream has shown its first snapshot.
    begun: bool,
    interrupted: bool,
    /// Which stream runs: what an older one still says is not heard.
    stream: u64,
    task: Option<Task>,
    sinks: Vec<(u64, Interest, Sink)>,
    next: u64,
}

impl Hub {
    pub(crate) fn new(env: Env, store: Arc<Counted>) -> Arc<Self> {
        Arc::new(Self { env, store, opening: tokio::sync::Mutex::default(), state: Mutex::default() })
    }

    /// Tells this sink of what is of interest to it, beginning with a snapshot, until what is returned is dropped.
    ///
    /// # Errors
    /// `Closed`; those of the store. Nothing was told then.
    pub(crate) async fn attach(self: &Arc<Self>, interest: Interest, sink: Sink) -> Result<Attached> {
        let mut sink = Some(sink);
        if let Some(attached) = self.join(&mut self.state(), &interest, &mut sink)? {
            return Ok(attached);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(attached) = self.join(&mut self.state(), &interest, &mut sink)? {
            return Ok(attached);
        }
        let wider = self.state().interest.and(&interest);
        let changes = self.store.changes(wider.clone()).await?;
        // In one lock: the last of the others may go at any time, and with it the stream that nobody listens to.
        let mut state = self.state();
        self.run(&mut state, wider, changes);
        self.join(&mut state, &interest, &mut sink)?.ok_or_else(|| Error::closed("the client"))
    }

    /// How many look on.
    pub(crate) fn onlookers(&self) -> usize {
        self.state().sinks.len()
    }

    /// Ends the stream, and tells everybody.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.stop();
        let sinks = std::mem::take(&mut state.sinks);
        drop(state);
        for (_, _, mut sink) in sinks {
            sink(None);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches the sink if the running stream shows what it wants.
    fn join(
        self: &Arc<Self>,
        state: &mut State,
        interest: &Interest,
        sink: &mut Option<Sink>,
    ) -> Result<Option<Attached>> {
        if state.closed {
            return Err(Error::closed("the client"));
        }
        if state.task.is_none() || !state.interest.covers(interest) {
            return Ok(None);
        }
        let Some(mut sink) = sink.take() else { return Ok(None) };
        if state.begun {
            sink(Some(&Change::Snapshot(state.mirror.snapshot(interest))));
            if state.interrupted {
                sink(Some(&Change::Interrupted));
            }
        }
        let number = state.next;
        state.next += 1;
        state.sinks.push((number, interest.clone(), sink));
        Ok(Some(Attached { hub: Arc::downgrade(self), number }))
    }

    fn run(self: &Arc<Self>, state: &mut State, interest: Interest, changes: Changes) {
        if state.closed {
            return;
        }
        state.stop();
        state.stream += 1;
        state.interest = interest;
        let follow = follow(Arc::downgrade(self), state.stream, changes);
        state.task = Some(self.env.spawn(follow));
    }

    fn detach(&self, number: u64) {
        let mut state = self.state();
        let gone = state.sinks.iter().position(|(other, ..)| *other == number).map(|place| state.sinks.remove(place));
        if state.sinks.is_empty() {
            state.stop();
        }
        drop(state);
        drop(gone);
    }

    /// Tells everybody. Whether there is still somebody to tell.
    fn tell(&self, stream: u64, change: Option<&Change>) -> bool {
        let mut state = self.state();
        if state.closed || state.stream != stream {
            return false;
        }
        let Some(change) = change else {
            drop(state);
            // The store is closed, and with it everything that could be observed.
            self.close();
            return false;
        };
        state.mirror.apply(change);
        match change {
            Change::Interrupted => state.interrupted = true,
            Change::Snapshot(_) => (state.begun, state.interrupted) = (true, false),
            Change::Claim(_) | Change::Session(_) => {}
        }
        let State { mirror, sinks, .. } = &mut *state;
        for (_, interest, sink) in sinks {
            match change {
                Change::Snapshot(_) => sink(Some(&Change::Snapshot(mirror.snapshot(interest)))),
                Change::Claim(claim) if !interest.in_claim(&claim.key) => {}
                Change::Session(_) if !interest.sessions => {}
                change => sink(Some(change)),
            }
        }
        true
    }
}

impl State {
    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.stream += 1;
        self.interest = Interest::default();
        self.mirror = Mirror::default();
        (self.begun, self.interrupted) = (false, false);
    }
}

async fn follow(hub: Weak<Hub>, stream: u64, mut changes: Changes) {
    loop {
        let change = changes.next().await;
        let Some(hub) = hub.upgrade() else { return };
        if !hub.tell(stream, change.as_ref()) {
            return;
        }
    }
}

impl Interest {
    /// What both want, widened so that the next is likely to be covered.
    fn and(&self, other: &Self) -> Self {
        let mut claims = self.claims.clone();
        for prefix in &other.claims {
            let wide = kind_and_namespace(prefix).to_owned();
            if !claims.iter().any(|known| wide.starts_with(known.as_str())) {
                claims.retain(|known| !known.starts_with(&wide));
                claims.push(wide);
            }
        }
        Self { claims, sessions: true }
    }

    fn covers(&self, other: &Self) -> bool {
        let covered = |prefix: &String| self.claims.iter().any(|known| prefix.starts_with(known.as_str()));
        (self.sessions || !other.sessions) && other.claims.iter().all(covered)
    }
}

/// `kind/namespace/` of a prefix that goes that far, else all of it.
fn kind_and_namespace(prefix: &str) -> &str {
    prefix.match_indices('/').nth(1).map_or(prefix, |(place, _)| &prefix[..=place])
}

/// A sink at the hub. Dropping this detaches it.
#[derive(Debug)]
pub(crate) struct Attached {
    hub: Weak<Hub>,
    number: u64,
}

impl Attached {
    /// The sink is told nothing more, and is dropped. Never called under a lock that the sink takes.
    pub(crate) fn detach(&self) {
        // In a forked child the lock may be held by a thread that is not there, and the stream is the parent's.
        if Runtime::is_ours()
            && let Some(hub) = self.hub.upgrade()
        {
            hub.detach(self.number);
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.detach();
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("Hub")
            .field("interest", &state.interest)
            .field("sinks", &state.sinks.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
