//! Operations that report to an event queue.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::cancel::{self, CancelToken};
use super::inline::{Begun, begin, panicked};
use super::queue::EventQueue;
use super::runtime::{Runtime, shut_down};
use super::wait::{cancelled, timed_out};
use crate::error::Result;

impl Runtime {
    /// Starts `future`; its outcome becomes one event of `queue`, made by `map`.
    ///
    /// Exactly one event comes, whatever happens: success, failure, `Timeout` after `timeout`, `Cancelled` by the
    /// returned [`Op`] or by `cancel`, `Panic`, or `Closed` when the runtime ends first. It may be in the queue
    /// before this call returns. Before the event of an operation that was given up, its future has been dropped.
    ///
    /// # Errors
    /// `Forked` in a child of the process that started the runtime. Then nothing was started, and no event comes.
    pub fn start<U, T>(
        &self,
        queue: &Arc<EventQueue<T>>,
        future: impl Future<Output = Result<U>> + Send + 'static,
        timeout: Option<Duration>,
        cancel: Option<&CancelToken>,
        map: impl FnOnce(Result<U>) -> T + Send + 'static,
    ) -> Result<Op>
    where
        U: Send + 'static,
        T: Send + 'static,
    {
        Ok(match self.start_or_end(queue, future, timeout, cancel, map)? {
            Started::GoesOn(op) => op,
            Started::Ended(event) => {
                queue.push(event);
                Op(CancelToken::new())
            }
        })
    }

    /// As [`Runtime::start`], but what has ended when this call returns is given to the caller, and not to the queue:
    /// whoever watches the queue on another thread is not woken for it.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    pub fn start_or_end<U, T>(
        &self,
        queue: &Arc<EventQueue<T>>,
        future: impl Future<Output = Result<U>> + Send + 'static,
        timeout: Option<Duration>,
        cancel: Option<&CancelToken>,
        map: impl FnOnce(Result<U>) -> T + Send + 'static,
    ) -> Result<Started<T>>
    where
        U: Send + 'static,
        T: Send + 'static,
    {
        let stop = CancelToken::new();
        self.go(queue, outcome(future, timeout, stop.clone(), cancel.cloned()), stop, map)
    }

    /// As [`Runtime::start_or_end`], for an operation of which something may be done already that cannot be undone: it
    /// heeds `stop`, which [`Op::cancel`] fires, and its time by itself, and what it says then is its event. Only `cancel`
    /// drops it, since nobody hears what it would say.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    pub fn start_heeding<U, T>(
        &self,
        queue: &Arc<EventQueue<T>>,
        future: impl Future<Output = Result<U>> + Send + 'static,
        stop: CancelToken,
        cancel: Option<&CancelToken>,
        map: impl FnOnce(Result<U>) -> T + Send + 'static,
    ) -> Result<Started<T>>
    where
        U: Send + 'static,
        T: Send + 'static,
    {
        self.go(queue, outcome(future, None, CancelToken::new(), cancel.cloned()), stop, map)
    }

    fn go<U, T>(
        &self,
        queue: &Arc<EventQueue<T>>,
        operation: impl Future<Output = Result<U>> + Send + 'static,
        stop: CancelToken,
        map: impl FnOnce(Result<U>) -> T + Send + 'static,
    ) -> Result<Started<T>>
    where
        U: Send + 'static,
        T: Send + 'static,
    {
        if let Err(error) = self.check() {
            std::mem::forget((operation, map));
            return Err(error);
        }
        match begin(self.handle(), Box::pin(operation)) {
            Begun::Ended(ended) => Ok(Started::Ended(map(ended.flatten()))),
            Begun::GoesOn(task) => {
                let terminal =
                    Terminal { queue: Arc::clone(queue), map: Some(map), _outcome: std::marker::PhantomData };
                self.handle().spawn(async move { terminal.deliver(task.await) });
                Ok(Started::GoesOn(Op(stop)))
            }
        }
    }
}

/// What became of an operation by the time the call that started it returned.
#[derive(Debug)]
pub enum Started<T> {
    /// It has ended, with this event.
    Ended(T),
    /// Its event comes to the queue.
    GoesOn(Op),
}

/// A started operation. Dropping it lets the operation go on.
#[derive(Clone, Debug)]
pub struct Op(CancelToken);

impl Op {
    /// Ends the operation, unless it has ended; its event still comes.
    pub fn cancel(&self) {
        self.0.fire();
    }
}

async fn outcome<U>(
    future: impl Future<Output = Result<U>>,
    timeout: Option<Duration>,
    own: CancelToken,
    shared: Option<CancelToken>,
) -> Result<U> {
    if own.is_fired() || shared.as_ref().is_some_and(CancelToken::is_fired) {
        return Err(cancelled());
    }
    // A result that is there wins over whatever came at the same moment.
    tokio::select! {
        biased;
        outcome = AssertUnwindSafe(future).catch_unwind() => outcome.unwrap_or_else(|payload| Err(panicked(&*payload))),
        () = own.fired() => Err(cancelled()),
        () = cancel::fired(shared.as_ref()) => Err(cancelled()),
        () = expired(timeout) => Err(timed_out()),
    }
}

async fn expired(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// The duty to push one event. Dropped undone, because its task was, it does so.
struct Terminal<U, T: Send, M: FnOnce(Result<U>) -> T> {
    queue: Arc<EventQueue<T>>,
    map: Option<M>,
    _outcome: std::marker::PhantomData<fn(U)>,
}

impl<U, T: Send, M: FnOnce(Result<U>) -> T> Terminal<U, T, M> {
    fn deliver(mut self, outcome: Result<U>) {
        self.push(outcome);
    }

    fn push(&mut self, outcome: Result<U>) {
        if let Some(map) = self.map.take() {
            self.queue.push(map(outcome));
        }
    }
}

impl<U, T: Send, M: FnOnce(Result<U>) -> T> Drop for Terminal<U, T, M> {
    fn drop(&mut self) {
        self.push(Err(shut_down()));
    }
}
