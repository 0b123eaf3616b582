//! The tokio runtime, blocking waits, event queues and shutdown: the only place that starts threads.
