//! Running a part of a future on the thread that asks for it, whoever's thread that is.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use super::{runtime, sys};
use crate::error::{Code, Error, Result};

/// What became of a future that was polled once.
pub(crate) enum Begun<F: Future + ?Sized> {
    /// It has ended and is dropped; a panic is an error.
    Ended(Result<F::Output>),
    /// It must be polled again elsewhere: the waker that it has been given wakes nobody.
    GoesOn(Pin<Box<F>>),
}

/// Polls a future once on this thread, in the context of a runtime.
pub(crate) fn begin<F: Future + ?Sized>(handle: &Handle, mut future: Pin<Box<F>>) -> Begun<F> {
    match poll_here(handle, &mut future, &mut Context::from_waker(Waker::noop())) {
        Some(Poll::Ready(outcome)) => {
            drop_caught(future);
            Begun::Ended(outcome)
        }
        Some(Poll::Pending) | None => Begun::GoesOn(future),
    }
}

/// Polls a future on this thread, in the context of a runtime, with signals blocked if there are connections: its step may
/// write to one. A panic is an error. None on a thread whose end has begun: it has no context any more, and tokio panics;
/// the runtime's own threads have.
pub(super) fn poll_here<F: Future + ?Sized>(
    handle: &Handle,
    future: &mut Pin<Box<F>>,
    context: &mut Context<'_>,
) -> Option<Poll<Result<F::Output>>> {
    let _context = catch_unwind(|| handle.enter()).ok()?;
    let _blocked = block_foreign();
    let within = WITHIN.replace(true);
    let polled = poll_caught(future, context);
    WITHIN.set(within);
    Some(polled)
}

/// Polls a future in the context in which the caller is. A panic is an error.
pub(crate) fn poll_caught<F: Future + ?Sized>(
    future: &mut Pin<Box<F>>,
    context: &mut Context<'_>,
) -> Poll<Result<F::Output>> {
    match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(panicked(&*payload))),
    }
}

/// Whether this is the context of the runtime: a task of it, or what [`begin`] polls. A future of ours within another one
/// needs no help of its own there.
#[inline]
pub(crate) fn is_within() -> bool {
    WITHIN.get() || runtime::on_runtime_thread()
}

/// Drops on this thread what was polled here or made by the runtime. A panic in it is logged.
pub(crate) fn drop_here<T>(handle: &Handle, value: T) {
    let _context = catch_unwind(|| handle.enter());
    let _blocked = block_foreign();
    drop_caught(value);
}

fn drop_caught<T>(value: T) {
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

thread_local! {
    /// Whether [`begin`] polls a future further up the stack.
    static WITHIN: Cell<bool> = const { Cell::new(false) };

    /// Whether signals are blocked by a call of this module further up the stack.
    static BLOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this process has ever opened what may break under a write, see [`connections_may_break`].
static CONNECTIONS: AtomicBool = AtomicBool::new(false);

/// From now on whoever calls is kept from the signal that writing to a broken connection raises. To be called before the
/// first connection is opened, which is done by a task: the step that runs now is not protected yet.
#[cfg(any(feature = "mongodb", feature = "mail", test))]
pub(crate) fn connections_may_break() {
    CONNECTIONS.store(true, Ordering::Relaxed);
}

/// Threads of ours have their signals blocked for good, and a call within another has them blocked already: each
/// block costs three system calls, as much as a whole acquire in memory, where there is no connection.
fn block_foreign() -> Option<Blocked> {
    let needed = CONNECTIONS.load(Ordering::Relaxed) && !runtime::on_runtime_thread() && !BLOCKED.replace(true);
    needed.then(|| Blocked { _signals: sys::SignalsBlocked::new() })
}

struct Blocked {
    _signals: sys::SignalsBlocked,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        BLOCKED.set(false);
    }
}
