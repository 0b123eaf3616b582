//! Work that must be finished although nobody waits for it any more: releases, cancels, resends.

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::oneshot;

use super::inline::{Begun, begin};
use super::watched::Watched;
use crate::env::Env;

/// Runs futures to their end. Each is polled once on the caller's thread first, so that what a store serves without
/// I/O costs no task and is done when the call returns.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    env: Env,
    running: Arc<Watched<usize>>,
    /// False in a forked child, where nothing of the parent's may be touched.
    ours: fn() -> bool,
}

impl Background {
    pub(crate) fn new(env: Env, ours: fn() -> bool) -> Self {
        Self { env, running: Arc::new(Watched::new(0)), ours }
    }

    /// Whether this process is the one whose work this is: not in a forked child, where locks may be held by threads that
    /// are not there.
    pub(crate) fn is_ours(&self) -> bool {
        (self.ours)()
    }

    /// Starts `future` now. What is returned tells its result, or an error when it was never run; dropping that
    /// stops nothing.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        if !self.is_ours() {
            std::mem::forget(future);
            return result;
        }
        match begin(self.env.tasks.runtime(), future.boxed()) {
            Begun::Ended(Ok(value)) => {
                let _ = done.send(value);
            }
            Begun::Ended(Err(panic)) => tracing::error!("{panic}"),
            Begun::GoesOn(future) => {
                let running = Running::begin(&self.running);
                self.env.spawn(async move {
                    let value = future.await;
                    drop(running);
                    let _ = done.send(value);
                });
            }
        }
        result
    }

    /// Waits until nothing runs.
    pub(crate) async fn idle(&self) {
        self.running.wait_for(|count| *count == 0).await;
    }
}

/// Counts a task for as long as it lives, also when it is aborted.
struct Running(Arc<Watched<usize>>);

impl Running {
    fn begin(count: &Arc<Watched<usize>>) -> Self {
        count.modify(|n| *n += 1);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.modify(|n| *n -= 1);
    }
}
