//! The same files on a condition that loses what it is told, but for what is told to all.

use crate::driver::runtime;

#[path = "../../../core/src/driver/park.rs"]
mod park;
#[path = "../../../core/src/driver/queue.rs"]
pub(crate) mod queue;

mod sync {
    use std::sync::LockResult;
    use std::time::Duration;

    use shuttle::sync::WaitTimeoutResult;
    pub(super) use shuttle::sync::{Mutex, MutexGuard};

    #[derive(Debug, Default)]
    pub(super) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Self::default()
        }

        pub(super) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            self.0.wait(guard)
        }

        pub(super) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            time: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
            self.0.wait_timeout(guard, time)
        }

        pub(super) fn notify_one(&self) {}

        pub(super) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
