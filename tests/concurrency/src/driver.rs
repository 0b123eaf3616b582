//! Files of the core's driver as they are, on shuttle's locks and conditions.

use shuttle::sync;

#[path = "../../../core/src/driver/park.rs"]
pub(crate) mod park;
#[path = "../../../core/src/driver/queue.rs"]
pub(crate) mod queue;

/// What they name of the runtime: here nobody forks.
pub(crate) mod runtime {
    pub(crate) struct Runtime;

    impl Runtime {
        pub(crate) fn is_ours() -> bool {
            true
        }
    }
}
