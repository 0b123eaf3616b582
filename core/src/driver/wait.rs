//! Blocking calls: one thread waits for one future, up to a time, a cancel token, or a check of its own.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;

use super::cancel::{self, CancelToken};
use super::drive::Driven;
use super::park::{Parker, after};
use super::runtime::{Runtime, on_runtime_thread};
use crate::error::{Code, Error, Result};
use crate::time::{Clock, SystemClock, Timestamp};

/// How long a call that gives up waits until its future is dropped, so that what it owned is on its way back when
/// the call returns. Longer only when the runtime's threads are kept from running.
const CLEAN_UP: Duration = Duration::from_secs(1);

impl Runtime {
    /// Blocks this thread until `future` is ready, for at most `timeout` (none: for ever).
    ///
    /// The future is polled on this thread, which sleeps in between. A call that gives up drops the future before it
    /// returns. A result that comes first wins: then `Ok` is returned although the time had passed or the token was
    /// fired meanwhile. A token fired before the call gives `Cancelled`, and the future is not polled. A timeout of zero
    /// polls once.
    ///
    /// # Errors
    /// The future's; `Timeout`; `Cancelled`; `Reentrant` on a thread of the runtime, where it would wait for itself;
    /// `Panic` when the future panicked; `Forked` in a child of the process that started the runtime.
    pub fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
        timeout: Option<Duration>,
        cancel: Option<&CancelToken>,
    ) -> Result<T> {
        let outcome = self.wait_sliced(future, timeout, cancel, Duration::MAX, || Ok::<(), Infallible>(()));
        outcome.unwrap_or_else(|never| match never {})
    }

    /// The same, and calls `tick` on this thread every `every`, while it waits. When `tick` gives an error, the
    /// future is given up, and the error is returned whatever became of the future; its result is dropped.
    ///
    /// # Errors
    /// The outer error is `tick`'s; the inner ones are those of [`Runtime::wait`].
    pub fn wait_sliced<T: Send + 'static, E>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
        timeout: Option<Duration>,
        cancel: Option<&CancelToken>,
        every: Duration,
        mut tick: impl FnMut() -> Result<(), E>,
    ) -> Result<Result<T>, E> {
        let mut driven = self.drive(future);
        if let Err(error) = self.check().and_then(|()| check_thread()).and_then(|()| check_token(cancel)) {
            return Ok(Err(error));
        }
        let parker = Arc::new(Parker::default());
        let waker = Waker::from(Arc::clone(&parker));
        let mut context = Context::from_waker(&waker);
        let mut fired = std::pin::pin!(cancel::fired(cancel));
        // The clock is read only for those who want it: what is in memory is over sooner.
        let timed = timeout.is_some() || every < Duration::MAX;
        let start = if timed { SystemClock.now() } else { Timestamp::from_nanos(0) };
        let deadline = after(start, timeout);
        let mut next_tick = after(start, Some(every));
        loop {
            if let Poll::Ready(outcome) = driven.poll_unpin(&mut context) {
                return Ok(outcome);
            }
            let now = SystemClock.now();
            if fired.as_mut().poll(&mut context).is_ready() {
                return Ok(give_up(driven, &parker).unwrap_or_else(|| Err(cancelled())));
            }
            if now >= deadline {
                return Ok(give_up(driven, &parker).unwrap_or_else(|| Err(timed_out())));
            }
            if now >= next_tick {
                if let Err(error) = tick() {
                    drop(give_up(driven, &parker));
                    return Err(error);
                }
                next_tick = after(SystemClock.now(), Some(every));
            }
            parker.park_until(deadline.min(next_tick));
        }
    }
}

/// Ends the future and waits until it is gone. Some if it had a result before that.
fn give_up<T: Send + 'static>(mut driven: Driven<T>, parker: &Arc<Parker>) -> Option<Result<T>> {
    let waker = Waker::from(Arc::clone(parker));
    let mut context = Context::from_waker(&waker);
    driven.abort();
    let until = SystemClock.now() + CLEAN_UP;
    loop {
        match driven.poll_end(&mut context) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending if SystemClock.now() >= until => return None,
            Poll::Pending => parker.park_until(until),
        }
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the operation was cancelled")
}

pub(super) fn timed_out() -> Error {
    Error::new(Code::Timeout, "the operation did not end within its timeout")
}

fn check_thread() -> Result<()> {
    if !on_runtime_thread() {
        return Ok(());
    }
    let message = "a blocking call on a thread of this library would wait for itself; use the asynchronous call";
    Err(Error::new(Code::Reentrant, message))
}

fn check_token(cancel: Option<&CancelToken>) -> Result<()> {
    if cancel.is_some_and(CancelToken::is_fired) { Err(cancelled()) } else { Ok(()) }
}
