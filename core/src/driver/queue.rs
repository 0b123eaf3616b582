//! The one way to tell foreign code anything: a queue that it polls, by a blocking call or by a descriptor.
//!
//! Invariants: the descriptor is readable exactly when the queue is not empty; an event that nobody took is dropped,
//! and its `Drop` gives back what it carried. No event is ever dropped while the queue is locked.
//!
//! `sync` is named by the parent, so that `tests/concurrency` can play this file in every order of its threads' steps.

use std::collections::VecDeque;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::park::{after, sleep};
use super::runtime::Runtime;
use super::sync::{Condvar, Mutex, MutexGuard};
use crate::error::{Code, Error, Result};
use crate::time::{Clock, SystemClock, Timestamp};

/// A queue of events of type `T`, first in, first out, for any number of threads.
///
/// In a process forked from the one that made it, it is empty, and what is pushed is leaked.
pub struct EventQueue<T: Send> {
    /// Not dropped by itself, so that a forked child drops no event; `close` leaves nothing to free.
    state: ManuallyDrop<Mutex<State<T>>>,
    ready: Condvar,
    /// Counts 1 when the queue is not empty, else 0.
    descriptor: OwnedFd,
}

struct State<T> {
    events: VecDeque<T>,
    closed: bool,
    /// Whether anybody has asked for the descriptor; if not, its upkeep is saved.
    watched: bool,
    /// What the descriptor says.
    readable: bool,
    /// Threads blocked in a poll.
    blocked: usize,
    /// How often `wake` was called.
    wakes: u64,
    /// A `wake` that found nobody blocked, kept for the next poll that would block.
    wake_kept: bool,
}

impl<T: Send> EventQueue<T> {
    /// An empty queue.
    ///
    /// # Errors
    /// `Unavailable` when the process has no descriptor left.
    pub fn new() -> Result<Arc<Self>> {
        let descriptor = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(|error| {
            Error::with_source(Code::Unavailable, "the system gives no descriptor for an event queue", error)
        })?;
        let state = State {
            events: VecDeque::new(),
            closed: false,
            watched: false,
            readable: false,
            blocked: 0,
            wakes: 0,
            wake_kept: false,
        };
        let state = ManuallyDrop::new(Mutex::new(state));
        Ok(Arc::new(Self { state, ready: Condvar::new(), descriptor }))
    }

    /// The descriptor, for `poll`, `epoll` and event loops: readable exactly when the queue is not empty. It is the
    /// queue's; do not read, write or close it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        if let Some(mut state) = self.lock() {
            state.watched = true;
            self.show(&mut state);
        }
        self.descriptor.as_fd()
    }

    /// Takes the first event; waits for one for at most `timeout` (none: for ever). None when the time has passed,
    /// after [`EventQueue::wake`], and always at once when the queue is closed.
    pub fn poll(&self, timeout: Option<Duration>) -> Option<T> {
        let mut state = self.wait_for_events(timeout)?;
        let event = state.events.pop_front();
        self.show(&mut state);
        event
    }

    /// The same for up to `max` events at once, appended to `out`; returns how many. Waits only for the first.
    pub fn poll_batch(&self, max: usize, timeout: Option<Duration>, out: &mut Vec<T>) -> usize {
        if max == 0 {
            return 0;
        }
        let Some(mut state) = self.wait_for_events(timeout) else { return 0 };
        let count = max.min(state.events.len());
        out.extend(state.events.drain(..count));
        self.show(&mut state);
        count
    }

    /// Makes every poll that is blocked return, also without an event; if none is, the next that would block.
    pub fn wake(&self) {
        let Some(mut state) = self.lock() else { return };
        state.wakes += 1;
        state.wake_kept = state.blocked == 0;
        self.ready.notify_all();
    }

    /// Appends an event. On a closed queue it is dropped instead.
    pub fn push(&self, event: T) {
        let Some(mut state) = self.lock() else { return std::mem::forget(event) };
        if state.closed {
            drop(state);
            return drop(event);
        }
        state.events.push_back(event);
        self.show(&mut state);
        if state.blocked > 0 {
            self.ready.notify_one();
        }
    }

    /// Drops the events that nobody took and every later one, and ends every blocked poll.
    pub fn close(&self) {
        let Some(mut state) = self.lock() else { return };
        state.closed = true;
        let untaken = std::mem::take(&mut state.events);
        self.show(&mut state);
        self.ready.notify_all();
        drop(state);
        drop(untaken);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().is_none_or(|state| state.closed)
    }

    /// How many events wait to be taken.
    pub fn len(&self) -> usize {
        self.lock().map_or(0, |state| state.events.len())
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The locked state when there is an event; none when there is none in time.
    fn wait_for_events(&self, timeout: Option<Duration>) -> Option<MutexGuard<'_, State<T>>> {
        let mut state = self.lock()?;
        // The clock is read only by a poll that finds nothing.
        let mut deadline: Option<Timestamp> = None;
        let wakes = state.wakes;
        while state.events.is_empty() {
            if state.closed || state.wakes != wakes || timeout == Some(Duration::ZERO) {
                return None;
            }
            if std::mem::take(&mut state.wake_kept) {
                return None;
            }
            let now = SystemClock.now();
            let deadline = *deadline.get_or_insert_with(|| after(now, timeout));
            if now >= deadline {
                return None;
            }
            state.blocked += 1;
            state = sleep(&self.ready, state, deadline);
            state.blocked -= 1;
        }
        Some(state)
    }

    /// Makes the descriptor say whether there are events. The lock is held, so it never says anything else.
    fn show(&self, state: &mut State<T>) {
        let readable = !state.events.is_empty();
        if !state.watched || readable == state.readable {
            return;
        }
        // Neither can block or fail: the counter goes from 0 to 1 and back, and nobody else touches it.
        let mut counter = [0; 8];
        let shown = if readable {
            rustix::io::write(&self.descriptor, &1u64.to_ne_bytes())
        } else {
            rustix::io::read(&self.descriptor, &mut counter)
        };
        match shown {
            Ok(_) => state.readable = readable,
            Err(error) => tracing::error!("an event queue's descriptor was touched by somebody else: {error}"),
        }
    }

    /// None in a forked child, where a thread that no longer exists may have held the lock.
    fn lock(&self) -> Option<MutexGuard<'_, State<T>>> {
        Runtime::is_ours().then(|| self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Send> Drop for EventQueue<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T: Send> fmt::Debug for EventQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventQueue").field("len", &self.len()).finish_non_exhaustive()
    }
}
