//! Threads beside the runtime's, for functions of the user that a binding calls.

use std::sync::atomic::Ordering;

use super::runtime::THREADS;
use super::sys;
use crate::error::{Code, Error, Result};

/// Starts a thread that runs `body` with every signal blocked, and counts it in [`super::thread_count`] until `body`
/// has ended. It keeps no runtime alive.
///
/// # Errors
/// `Unavailable` when the system gives no thread; `body` is dropped then.
pub fn spawn_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    // Threads inherit the mask of the one that starts them.
    let _blocked = sys::SignalsBlocked::new();
    THREADS.fetch_add(1, Ordering::SeqCst);
    let counted = Counted;
    let run = move || {
        let _counted = counted;
        body();
    };
    match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::with_source(Code::Unavailable, "the system gives no thread for a callback", error)),
    }
}

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::SeqCst);
    }
}
