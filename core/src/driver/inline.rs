//! Running a part of a future on the thread that asks for it, whoever's thread that is.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use super::{runtime, sys};
use crate::error::{Code, Error, Result};

/// Polls a future once on this thread, in the context of a runtime, with signals blocked: its first step may write
/// to a connection. If it is not ready it must be polled again elsewhere, since this poll's waker wakes nobody.
/// A panic is an error, and must not be polled again.
pub(crate) fn poll_once<F: Future + ?Sized>(handle: &Handle, future: Pin<&mut F>) -> Poll<Result<F::Output>> {
    // A thread whose end has begun has no context any more, and tokio panics; the runtime's own threads have.
    let Ok(_context) = catch_unwind(|| handle.enter()) else { return Poll::Pending };
    let _blocked = block_foreign();
    let mut context = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| future.poll(&mut context))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) => Poll::Ready(Err(panicked(&*payload))),
    }
}

/// Drops on this thread what was polled here or made by the runtime. A panic in it is logged.
pub(crate) fn drop_here<T>(handle: &Handle, value: T) {
    let _context = catch_unwind(|| handle.enter());
    let _blocked = block_foreign();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!("{}", panicked(&*payload));
    }
}

/// The error for a panic with this payload.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::new(Code::Panic, format!("a defect in coord, please report it: {text}"))
}

/// Threads of ours have their signals blocked for good.
fn block_foreign() -> Option<sys::SignalsBlocked> {
    (!runtime::on_runtime_thread()).then(sys::SignalsBlocked::new)
}
