//! A future of ours on somebody else's executor: what it needs of tokio it gets from our runtime.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use super::inline::{drop_here, is_within, panicked, poll_caught, poll_here};
use super::runtime::{Runtime, shut_down};
use crate::error::Result;

impl Runtime {
    /// Awaits `future` on any executor. It is polled and dropped where it is awaited, within the runtime, whose timers
    /// and connections it uses: so what it waits for wakes whoever awaits it, and not first a thread of the runtime, for a
    /// wake-up takes longer than most of its steps. (async-compat does the same.) Only a thread whose end has begun cannot,
    /// and has it go on as a task.
    ///
    /// A panic of `future` is `Panic`, a forked child gets `Forked`.
    pub fn drive<T: Send + 'static>(&self, future: impl Future<Output = Result<T>> + Send + 'static) -> Driven<T> {
        Driven { runtime: self.clone(), state: State::Here(Box::pin(future)), apart: false }
    }

    /// As [`Runtime::drive`], for a future to which others leave something when they wake it: it goes on as a task, and so at
    /// once, though whoever awaits it may be busy with something else. Who blocks in a wait for it is not.
    pub fn drive_apart<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Driven<T> {
        let mut driven = self.drive(future);
        driven.apart = true;
        driven
    }
}

/// The future that [`Runtime::drive`] returns.
#[must_use = "futures do nothing unless awaited"]
pub struct Driven<T: Send + 'static> {
    runtime: Runtime,
    state: State<T>,
    apart: bool,
}

enum State<T> {
    Here(BoxFuture<'static, Result<T>>),
    Task(JoinHandle<Result<T>>),
    Done,
}

impl<T: Send + 'static> Driven<T> {
    /// Ends the future at its next await. Then [`Driven::poll_end`] tells how it ended.
    pub(super) fn abort(&mut self) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Here(future) => drop_here(self.runtime.handle(), future),
            State::Task(task) => {
                task.abort();
                self.state = State::Task(task);
            }
            State::Done => {}
        }
    }

    /// Ready when the future is gone: with its result, or none if it was dropped before it had one.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let State::Task(task) = &mut self.state else { return Poll::Ready(None) };
        let ended = std::task::ready!(task.poll_unpin(context));
        self.state = State::Done;
        Poll::Ready(match ended {
            Ok(outcome) => Some(outcome),
            Err(failure) => failure.try_into_panic().ok().map(|payload| Err(panicked(&*payload))),
        })
    }

    /// Drops what has ended.
    fn end(&mut self) {
        if let State::Here(future) = std::mem::replace(&mut self.state, State::Done) {
            drop_here(self.runtime.handle(), future);
        }
    }
}

impl<T: Send + 'static> Future for Driven<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.runtime.check()?;
        let Self { runtime, state, apart } = &mut *self;
        if let State::Here(future) = state {
            let polled = if is_within() {
                Some(poll_caught(future, context))
            } else if *apart {
                None
            } else {
                poll_here(runtime.handle(), future, context)
            };
            if let Some(polled) = polled {
                let outcome = std::task::ready!(polled);
                self.end();
                return Poll::Ready(outcome.flatten());
            }
            let State::Here(future) = std::mem::replace(&mut self.state, State::Done) else { unreachable!() };
            self.state = State::Task(self.runtime.handle().spawn(future));
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
            State::Here(future) => drop_here(self.runtime.handle(), future),
            State::Task(task) => {
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
