//! A future of ours on somebody else's executor: what it needs of tokio it gets from our runtime.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use super::runtime::{Runtime, panicked, shut_down};
use crate::error::{Error, Result};

impl Runtime {
    /// Awaits `future` on any executor. Its first poll happens on the awaiting thread; what is not ready then goes
    /// on as a task of the runtime.
    ///
    /// Dropping the returned future drops `future` on the runtime, or the result that was not fetched. A panic of
    /// `future` is `Panic`, a forked child gets `Forked`.
    pub fn drive<T: Send + 'static>(&self, future: impl Future<Output = Result<T>> + Send + 'static) -> Driven<T> {
        Driven { runtime: self.clone(), state: State::New(Box::pin(future)) }
    }
}

/// The future that [`Runtime::drive`] returns.
#[must_use = "futures do nothing unless awaited"]
pub struct Driven<T: Send + 'static> {
    runtime: Runtime,
    state: State<T>,
}

enum State<T> {
    New(BoxFuture<'static, Result<T>>),
    Running(JoinHandle<Result<T>>),
    Done,
}

impl<T: Send + 'static> Driven<T> {
    /// Ends it at its next await. Polled on, it tells how it ended: with its result, or with `error`'s answer.
    pub(super) fn abort(&mut self) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::New(future) => self.runtime.drop_here(future),
            State::Running(task) => {
                task.abort();
                self.state = State::Running(task);
            }
            State::Done => {}
        }
    }

    fn begin(&mut self, mut future: BoxFuture<'static, Result<T>>) -> Poll<Result<T>> {
        match self.runtime.poll_once(future.as_mut()) {
            Poll::Ready(outcome) => {
                self.runtime.drop_here(future);
                Poll::Ready(outcome.flatten())
            }
            Poll::Pending => {
                self.state = State::Running(self.runtime.handle().spawn(future));
                Poll::Pending
            }
        }
    }
}

impl<T: Send + 'static> Future for Driven<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.runtime.check()?;
        if let State::New(_) = self.state {
            let State::New(future) = std::mem::replace(&mut self.state, State::Done) else { unreachable!() };
            if let Poll::Ready(outcome) = self.begin(future) {
                return Poll::Ready(outcome);
            }
        }
        let State::Running(task) = &mut self.state else { return Poll::Ready(Err(shut_down())) };
        let outcome = std::task::ready!(task.poll_unpin(context));
        self.state = State::Done;
        Poll::Ready(outcome.unwrap_or_else(|failure| Err(explain(failure))))
    }
}

impl<T: Send + 'static> Drop for Driven<T> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Done);
        if !Runtime::is_ours() {
            std::mem::forget(state);
            return;
        }
        match state {
            State::New(future) => self.runtime.drop_here(future),
            State::Running(task) => {
                task.abort();
                // If it has ended already, this drops its result.
                self.runtime.drop_here(task);
            }
            State::Done => {}
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Driven<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven").finish_non_exhaustive()
    }
}

fn explain(failure: tokio::task::JoinError) -> Error {
    match failure.try_into_panic() {
        Ok(payload) => panicked(&*payload),
        Err(_) => shut_down(),
    }
}
