//! Event queues, and the two ways in which an export runs a future: waiting for it, or reporting to a queue.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::future::Future;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coord_core::driver::{CancelToken, EventQueue, Runtime, Started};
use coord_core::error::{Code, Error, Result};

use crate::boundary::{Inside, fallible, inside, quiet, timeout, value};
use crate::bytes::{Out, Room};
use crate::cancel::{coord_cancel_t, token};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{EventObject, OpObject, Payload, coord_event_t, coord_op_t};
use crate::handle::{self, object};

/// Where the outcomes of started operations arrive, in the order in which they become known.
pub struct coord_queue_t;

pub(crate) struct QueueObject {
    events: Arc<EventQueue<EventObject>>,
    /// Fired when the queue is destroyed: ends its operations and its callback thread.
    ended: CancelToken,
    has_callback: AtomicBool,
    /// Whether outcomes that are there at once stay with their operations.
    skip_ended: AtomicBool,
}

object!(QueueObject, coord_queue_t, 4, "queue");

impl QueueObject {
    fn end(&self) {
        self.ended.fire();
        self.events.close();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_fired()
    }

    pub(crate) fn events(&self) -> &EventQueue<EventObject> {
        &self.events
    }

    /// Reserves the queue for a callback.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn claim_for_callback(&self) -> Result<()> {
        if self.has_callback.swap(true, SeqCst) {
            return Err(Error::new(Code::AlreadyExists, "the queue has a callback already"));
        }
        Ok(())
    }

    /// Gives the reservation back.
    pub(crate) fn unclaim(&self) {
        self.has_callback.store(false, SeqCst);
    }

    fn check_pollable(&self) -> Result<()> {
        if !self.has_callback.load(SeqCst) {
            return Ok(());
        }
        if inside() == Inside::EventCallback {
            return Err(Error::new(Code::Reentrant, "a queue must not be polled inside an event callback"));
        }
        Err(Error::invalid("the queue has a callback, which gets its events; use another queue to poll"))
    }

    /// Why a poll returned nothing.
    fn nothing(&self) -> Error {
        if self.is_ended() {
            return Error::new(Code::Handle, "the queue was destroyed while it was polled");
        }
        Error::new(Code::Timeout, "no event came")
    }
}

/// Runs a future to its end, on this thread as far as it needs no I/O.
///
/// # Errors
/// The future's; `Timeout`; `Cancelled`.
pub(crate) fn wait<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
    limit: Option<Duration>,
    cancel: *mut coord_cancel_t,
) -> Result<T> {
    let cancel = token(cancel)?;
    Runtime::shared()?.wait(future, limit, cancel.as_ref())
}

/// As [`wait`], for what goes on when it is given up: it is begun also with a token that was fired before, since nobody can
/// do it afterwards.
///
/// # Errors
/// As [`wait`].
pub(crate) fn wait_begun<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
    limit: Option<Duration>,
    cancel: *mut coord_cancel_t,
) -> Result<T> {
    if !token(cancel)?.is_some_and(|token| token.is_fired()) {
        return wait(future, limit, cancel);
    }
    let begun = Runtime::shared()?.wait(async move { Ok(future.await) }, Some(Duration::ZERO), None);
    begun.unwrap_or_else(|error| match error.code() {
        Code::Timeout => Err(Error::new(Code::Cancelled, "the operation was cancelled; it goes on in the background")),
        _ => Err(error),
    })
}

/// What every `_start` gets beside its own arguments.
pub(crate) struct Report {
    pub(crate) queue: *mut coord_queue_t,
    pub(crate) tag: u64,
    pub(crate) op: Out<*mut coord_op_t>,
}

impl Report {
    /// Starts a future whose outcome becomes an event of this type.
    ///
    /// # Errors
    /// `Handle` for the queue. Then no event comes.
    pub(crate) fn start<T: Send + 'static>(
        self,
        kind: i32,
        limit: Option<Duration>,
        future: impl Future<Output = Result<T>> + Send + 'static,
        payload: impl FnOnce(T) -> Payload + Send + 'static,
    ) -> Result<()> {
        let queue = handle::get::<QueueObject>(self.queue)?;
        let event = self.event(kind, payload);
        let started = Runtime::shared()?.start_or_end(&queue.events, future, limit, Some(&queue.ended), event)?;
        self.started(&queue, started);
        Ok(())
    }

    /// The same for a future that heeds `stop`, which coord_op_cancel fires, and its time by itself.
    ///
    /// # Errors
    /// As [`Report::start`].
    pub(crate) fn start_heeding<T: Send + 'static>(
        self,
        kind: i32,
        stop: CancelToken,
        future: impl Future<Output = Result<T>> + Send + 'static,
        payload: impl FnOnce(T) -> Payload + Send + 'static,
    ) -> Result<()> {
        let queue = handle::get::<QueueObject>(self.queue)?;
        let event = self.event(kind, payload);
        let started = Runtime::shared()?.start_heeding(&queue.events, future, stop, Some(&queue.ended), event)?;
        self.started(&queue, started);
        Ok(())
    }

    fn event<T, P: FnOnce(T) -> Payload + Send + 'static>(
        &self,
        kind: i32,
        payload: P,
    ) -> impl FnOnce(Result<T>) -> EventObject + Send + use<T, P> {
        let tag = self.tag;
        move |outcome| EventObject::new(kind, tag, outcome.map(payload))
    }

    fn started(self, queue: &QueueObject, started: Started<EventObject>) {
        let op = match started {
            Started::GoesOn(op) => OpObject::GoesOn(op),
            Started::Ended(event) if !self.op.is_null() && queue.skip_ended.load(SeqCst) => {
                OpObject::Ended(Mutex::new(Some(event)))
            }
            Started::Ended(event) => {
                queue.events.push(event);
                OpObject::Ended(Mutex::new(None))
            }
        };
        if !self.op.is_null() {
            self.op.put(handle::issue(op));
        }
    }
}

/// Makes a queue.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_queue_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_queue_new(out: *mut *mut coord_queue_t, err: *mut *mut coord_error_t) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let queue = QueueObject {
            events: EventQueue::new()?,
            ended: CancelToken::new(),
            has_callback: AtomicBool::new(false),
            skip_ended: AtomicBool::new(false),
        };
        out.put(handle::issue(queue));
        Ok(())
    })
}

/// From now on the event of an operation that has ended before its `_start` returns does not come to the queue, if the
/// caller asked for the operation (`op` is not NULL): coord_op_take_event takes it. Whoever waits for the queue on another
/// thread is not woken for it, which costs more than many an operation that needs no I/O. Such an event belongs to the
/// operation, also when the queue is destroyed. The idea is that of FILE_SKIP_COMPLETION_PORT_ON_SUCCESS in Windows.
///
/// @threadsafe yes, before the first operation that reports to the queue
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_queue_skip_ended(queue: *mut coord_queue_t) {
    quiet(|| {
        handle::get::<QueueObject>(queue)?.skip_ended.store(true, SeqCst);
        Ok(())
    });
}

/// A descriptor that is readable exactly when the queue is not empty, for poll, epoll and event loops; -1 if there is
/// no such queue. It belongs to the queue: do not read, write or close it.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_queue_fd(queue: *mut coord_queue_t) -> c_int {
    value(-1, || Ok(handle::get::<QueueObject>(queue)?.events.fd().as_raw_fd()))
}

/// Takes the first event. COORD_E_TIMEOUT if none comes within `timeout_ms` (-1 for ever, 0 does not wait), or when
/// coord_queue_yield is called.
///
/// @threadsafe yes
/// @blocks up to timeout_ms
/// @callback_safe no: COORD_E_REENTRANT in a callback of the same queue
/// @owns the caller owns `*out`, and ends it with coord_event_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_queue_poll(
    queue: *mut coord_queue_t,
    timeout_ms: i64,
    out: *mut *mut coord_event_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let queue = handle::get::<QueueObject>(queue)?;
        let limit = timeout(timeout_ms)?;
        queue.check_pollable()?;
        let event = queue.events.poll(limit).ok_or_else(|| queue.nothing())?;
        out.put(handle::issue(event));
        Ok(())
    })
}

/// The same for up to `capacity` events at once, of which `*count` came. Waits for the first only.
///
/// @threadsafe yes
/// @blocks up to timeout_ms
/// @callback_safe no: COORD_E_REENTRANT in a callback of the same queue
/// @owns the caller owns the events, and ends each with coord_event_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_queue_poll_batch(
    queue: *mut coord_queue_t,
    timeout_ms: i64,
    out: *mut *mut coord_event_t,
    capacity: usize,
    count: *mut usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, count, err) = unsafe { (Room::lent(out, capacity), Out::lent(count), Out::lent(err)) };
    fallible(err, || {
        let count = count.required("count")?;
        if out.is_null() || out.length() == 0 {
            return Err(Error::invalid("out needs room for at least one event"));
        }
        let queue = handle::get::<QueueObject>(queue)?;
        let limit = timeout(timeout_ms)?;
        queue.check_pollable()?;
        let mut events = Vec::new();
        if queue.events.poll_batch(out.length().min(MAX_BATCH), limit, &mut events) == 0 {
            return Err(queue.nothing());
        }
        count.put(out.fill(events.into_iter().map(handle::issue)));
        Ok(())
    })
}

/// Makes every poll of the queue that waits now return without an event; if none does, the next that would wait.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_queue_yield(queue: *mut coord_queue_t) {
    quiet(|| {
        handle::get::<QueueObject>(queue)?.events.wake();
        Ok(())
    });
}

/// Destroys a queue: cancels its operations, and destroys its events, which gives back what they carry. Polls that
/// wait return. A callback that runs ends first, on its thread. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `queue`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_queue_destroy(queue: *mut coord_queue_t) {
    quiet(|| {
        handle::take::<QueueObject>(queue)?.end();
        Ok(())
    });
}

/// Larger batches gain nothing.
const MAX_BATCH: usize = 1024;
