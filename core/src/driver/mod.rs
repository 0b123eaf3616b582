//! The tokio runtime, blocking waits, event queues and shutdown: the only place that starts threads.
//!
//! Three ways to use an asynchronous operation from outside the runtime, all of which poll it once on the calling
//! thread first, because a hop to the runtime costs more than many operations do:
//! - [`Runtime::wait`] blocks the calling thread;
//! - [`Runtime::drive`] is a future for any executor;
//! - [`Runtime::start`] reports to an [`EventQueue`], which C, Go and Python poll.
//!
//! Invariants: no thread of ours ever runs foreign code; an operation that is given up is dropped, and its `Drop`
//! (or its result's) gives back what it owned; a forked child touches nothing that its parent made.
//!
//! Lacks on purpose: any concept, any backend, and signal handlers.

mod background;
mod cancel;
mod drive;
mod inline;
#[cfg(feature = "mail")]
mod marks;
mod operation;
mod park;
mod queue;
mod runtime;
mod sys;
mod thread;
mod wait;
mod watched;

// For the files that are also played by other means than threads.
use std::sync;

pub(crate) use background::Background;
pub use cancel::CancelToken;
#[cfg(feature = "mail")]
pub(crate) use cancel::fired;
pub use drive::Driven;
#[cfg(any(feature = "mongodb", feature = "mail", test))]
pub(crate) use inline::connections_may_break;
pub(crate) use inline::{Begun, begin};
#[cfg(feature = "mail")]
pub(crate) use marks::{Mark, Marks};
pub use operation::{Op, Started};
pub use queue::EventQueue;
pub use runtime::{Runtime, thread_count};
pub(crate) use sys::awaitable;
#[cfg(test)]
pub(crate) use sys::testing;
pub use thread::spawn_thread;
#[cfg(feature = "mail")]
pub(crate) use wait::cancelled;
pub(crate) use watched::Watched;

#[cfg(test)]
mod tests;
