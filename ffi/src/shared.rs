//! What ends with its handle: a wait on it neither keeps it nor outlives the handle.

use std::future::Future;
use std::sync::Arc;

use coord_core::driver::CancelToken;
use coord_core::error::{Error, Result};

/// Something of the core's behind a handle on which calls wait.
pub(crate) struct Shared<T> {
    value: Arc<T>,
    ended: CancelToken,
    noun: &'static str,
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// `noun` is what messages call it.
    pub(crate) fn new(noun: &'static str, value: T) -> Self {
        Self::of(noun, Arc::new(value))
    }

    /// The same for what others share.
    pub(crate) fn of(noun: &'static str, value: Arc<T>) -> Self {
        Self { value, ended: CancelToken::new(), noun }
    }

    pub(crate) fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// A wait that ends with `Closed` when the handle is destroyed.
    pub(crate) fn wait<R, C, F>(&self, call: C) -> impl Future<Output = Result<R>> + Send + use<T, R, C, F>
    where
        C: FnOnce(Arc<T>) -> F,
        F: Future<Output = Result<R>> + Send,
    {
        let (ended, noun, waiting) = (self.ended.clone(), self.noun, call(self.value.clone()));
        async move {
            tokio::select! {
                biased;
                () = ended.fired() => Err(Error::closed(&format!("the handle of the {noun}"))),
                outcome = waiting => outcome,
            }
        }
    }

    /// Ends every wait. For a handle that is destroyed, also when another thread is in a call with it.
    pub(crate) fn end(&self) {
        self.ended.fire();
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        self.ended.fire();
    }
}
