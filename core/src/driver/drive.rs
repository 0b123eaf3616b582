//! A future of ours on somebody else's executor: what it needs of tokio it gets from our runtime.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use super::inline::{Begun, begin, drop_here, is_within, panicked, poll_caught, poll_here};
use super::runtime::{Runtime, shut_down};
use crate::error::Result;

impl Runtime {
    /// Awaits `future` on any executor. Its first poll happens on the awaiting thread; what is not ready then goes
    /// on as a task of the runtime. Within another future that is driven so it is polled as a part of that one.
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
    /// Not polled yet, or only within others.
    New(BoxFuture<'static, Result<T>>),
    Running(JoinHandle<Result<T>>),
    Done,
}

impl<T: Send + 'static> Driven<T> {
    /// Polls the future on this thread, for whoever has nothing else to do than to wait for it: what wakes it wakes this
    /// thread then, and not first one of the runtime's.
    pub(super) fn poll_here(&mut self, context: &mut Context<'_>) -> Poll<Result<T>> {
        let State::New(future) = &mut self.state else { return self.poll_unpin(context) };
        match poll_here(self.runtime.handle(), future, context) {
            Some(polled) => {
                let outcome = std::task::ready!(polled);
                self.end();
                Poll::Ready(outcome.flatten())
            }
            None => self.poll_unpin(context),
        }
    }

    /// Ends the future at its next await. Then [`Driven::poll_end`] tells how it ended.
    pub(super) fn abort(&mut self) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::New(future) => drop_here(self.runtime.handle(), future),
            State::Running(task) => {
                task.abort();
                self.state = State::Running(task);
            }
            State::Done => {}
        }
    }

    /// Ready when the future is gone: with its result, or none if it was dropped before it had one.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let State::Running(task) = &mut self.state else { return Poll::Ready(None) };
        let ended = std::task::ready!(task.poll_unpin(context));
        self.state = State::Done;
        Poll::Ready(match ended {
            Ok(outcome) => Some(outcome),
            Err(failure) => failure.try_into_panic().ok().map(|payload| Err(panicked(&*payload))),
        })
    }

    /// Drops what has ended.
    fn end(&mut self) {
        if let State::New(future) = std::mem::replace(&mut self.state, State::Done) {
            drop_here(self.runtime.handle(), future);
        }
    }

    fn begin(&mut self, future: BoxFuture<'static, Result<T>>) -> Poll<Result<T>> {
        match begin(self.runtime.handle(), future) {
            Begun::Ended(outcome) => Poll::Ready(outcome.flatten()),
            Begun::GoesOn(future) => {
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
        if let State::New(future) = &mut self.state {
            if is_within() {
                let outcome = std::task::ready!(poll_caught(future, context));
                self.end();
                return Poll::Ready(outcome.flatten());
            }
            let State::New(future) = std::mem::replace(&mut self.state, State::Done) else { unreachable!() };
            if let Poll::Ready(outcome) = self.begin(future) {
                return Poll::Ready(outcome);
            }
        }
        self.poll_end(context).map(|outcome| outcome.unwrap_or_else(|| Err(shut_down())))
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
            State::New(future) => drop_here(self.runtime.handle(), future),
            State::Running(task) => {
                task.abort();
                // If it has ended already, this drops its result.
                drop_here(self.runtime.handle(), task);
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
