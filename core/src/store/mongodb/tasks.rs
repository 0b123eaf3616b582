//! Requests as tasks of their own, each with a time limit.
//!
//! A future of the driver is never dropped half way: the connection under it could be left with an answer that
//! nobody reads. So each runs to its end in a task, and only our wait for it ends at the limit, or when the caller
//! loses interest. What it began may then still happen, as the store's contract says.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::errors::{self, Doing};
use crate::env::{Env, Task};
use crate::error::{Error, Result};

/// How long things may take; all follow from the ttl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Until a majority has acknowledged a write, on the server.
    pub(super) acknowledge: Duration,
    /// Until the driver has found a primary.
    pub(super) selection: Duration,
    /// One request, as the caller sees it.
    pub(super) operation: Duration,
    /// One renewal: the next one is due then.
    pub(super) renewal: Duration,
}

impl Limits {
    pub(super) fn of(ttl: Duration) -> Self {
        let third = (ttl / 3).max(Duration::from_secs(1));
        Self {
            acknowledge: (ttl / 4).min(Duration::from_secs(5)),
            selection: third,
            operation: third,
            renewal: (ttl / 6).max(Duration::from_millis(250)),
        }
    }
}

/// The tasks of one store.
#[derive(Debug)]
pub(super) struct Tasks {
    env: Env,
    // Every task holds a sender; the receiver ends when all have. None once the store is closed.
    running: Mutex<Option<mpsc::Sender<()>>>,
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Tasks {
    pub(super) fn new(env: Env) -> Self {
        let (running, ended) = mpsc::channel(1);
        Self { env, running: Mutex::new(Some(running)), ended: tokio::sync::Mutex::new(ended) }
    }

    /// Runs a request of the driver, and waits for its answer until the limit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: Doing,
        request: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
        namespace: &str,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        self.spawn(async move {
            // Nobody may be waiting any more.
            let _ = sender.send(request.await);
        })?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(errors::from_driver(&error, doing, namespace)),
            Ok(Err(_)) => Err(Error::unavailable(format!("cannot {}: the runtime shuts down", doing.what))),
            Err(_) => Err(Error::unavailable(format!(
                "cannot {}: MongoDB has not answered within {:.1} s",
                doing.what,
                limit.as_secs_f64()
            ))),
        }
    }

    /// Runs a task that [`Tasks::close`] waits for.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Result<Task> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let running = running.ok_or_else(|| Error::closed("the store"))?;
        Ok(self.env.spawn(async move {
            future.await;
            drop(running);
        }))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Lets no new task begin, and waits for those that run, but not for longer than `limit`.
    pub(super) async fn close(&self, limit: Duration) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let all_ended = async { while self.ended.lock().await.recv().await.is_some() {} };
        // What hangs now is ended by the shutdown of the driver's clients.
        let _ = tokio::time::timeout(limit, all_ended).await;
    }
}
