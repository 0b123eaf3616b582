//! A token with which any thread ends operations that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Fired once, for good; may serve many operations. Clones are the same token.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    fired: AtomicBool,
    waiting: Notify,
}

impl CancelToken {
    /// A token that is not fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every operation that has this token, now and later. Not for signal handlers.
    pub fn fire(&self) {
        self.0.fired.store(true, Ordering::SeqCst);
        self.0.waiting.notify_waiters();
    }

    /// Whether it was fired.
    pub fn is_fired(&self) -> bool {
        self.0.fired.load(Ordering::SeqCst)
    }

    /// Waits until it is fired; on any executor.
    pub async fn fired(&self) {
        let mut waiting = std::pin::pin!(self.0.waiting.notified());
        // Enrolled before the flag is read, so that no firing falls in between.
        waiting.as_mut().enable();
        if !self.is_fired() {
            waiting.await;
        }
    }
}

/// Waits until the token, if there is one, is fired.
pub(crate) async fn fired(token: Option<&CancelToken>) {
    match token {
        Some(token) => token.fired().await,
        None => std::future::pending().await,
    }
}
