//! The tokio runtime, blocking waits, event queues and shutdown: the only place that starts threads.
mod background;
mod runtime;
pub(crate) use background::Background;
pub use runtime::Runtime;
