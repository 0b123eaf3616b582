//! How one thread sleeps until another wakes it, or until a moment.
//!
//! `sync` is named by the parent, so that `tests/concurrency` can play this file in every order of its threads' steps.

use std::sync::{Arc, PoisonError};
use std::task::Wake;
use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard};
use crate::time::{Clock, SystemClock, Timestamp};

/// `NEVER`, or the moment this long after `start`.
pub(super) fn after(start: Timestamp, duration: Option<Duration>) -> Timestamp {
    duration.map_or(NEVER, |duration| start + duration)
}

/// The moment that does not come.
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);

/// Where one thread sleeps. Not `std::thread::park`, whose one token other code on this thread may use.
#[derive(Default)]
pub(crate) struct Parker {
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Parker {
    /// Sleeps until it is woken, or this moment has come; may return early.
    pub(crate) fn park_until(&self, moment: Timestamp) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if !*woken {
            woken = sleep(&self.wake, woken, moment);
        }
        *woken = false;
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }
}

/// Waits on a condition until this moment at the longest; may return early.
pub(super) fn sleep<'a, S>(condition: &Condvar, guard: MutexGuard<'a, S>, moment: Timestamp) -> MutexGuard<'a, S> {
    if moment == NEVER {
        return condition.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    let time = moment.since(SystemClock.now());
    condition.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
}
