//! A value whose changes can be awaited, by any number of tasks, in the order in which they came.
//!
//! Not tokio's `watch`: that one wakes its receivers in an order that it draws by chance, and then one seed of a
//! simulation is not one history.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

#[derive(Debug)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> T {
        self.lock().clone()
    }

    /// Sets the value, and returns the one before.
    pub(crate) fn replace(&self, value: T) -> T {
        let before = std::mem::replace(&mut *self.lock(), value);
        self.changed.notify_waiters();
        before
    }

    /// Changes the value.
    pub(crate) fn modify<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// The next change after this call. Take it before reading the value, so that no change is missed.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Waits until the value is as wanted.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&T) -> bool) {
        loop {
            let changed = self.changed();
            if wanted(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}
