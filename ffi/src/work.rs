//! Runs of reconcilers: what a function gets, and what it answers.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::driver::CancelToken;
use coord_core::error::{Code, Error, Result};
use coord_core::reconciler::{Outcome, Request, Work};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{LentBytes, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, EventObject, Payload, coord_event_t, coord_op_t};
use crate::fence::{FenceObject, coord_fence_t};
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait};
use crate::reconciler::Run;

/// Nothing is to be done until the key changes.
pub const COORD_OUTCOME_DONE: i32 = 0;
/// The key is to be run again after `after_ms`, or earlier if it changes.
pub const COORD_OUTCOME_REQUEUE_AFTER: i32 = 1;
/// It failed: the key is run again after the back-off's time, or earlier if it changes.
pub const COORD_OUTCOME_ERROR: i32 = 2;
/// It failed: the key is run again after `after_ms`, or earlier if it changes. For a back-off of one's own
/// (coord_work_attempt counts).
pub const COORD_OUTCOME_ERROR_AFTER: i32 = 3;
/// It failed and will fail again: the key is parked until it changes or is added by hand.
pub const COORD_OUTCOME_TERMINAL: i32 = 4;

/// One run of one key. Until it is completed, the key is run by nobody else of this reconciler's replicas, as far as its
/// mode says so. What it lends is valid until it is destroyed.
pub struct coord_work_t;

pub(crate) struct WorkObject {
    work: Arc<Work>,
    /// Taken when the run is completed.
    request: Mutex<Option<Request>>,
    /// Fired when nobody is to be told any more that the run is to stop.
    over: CancelToken,
    key: LentBytes,
    document: Option<LentBytes>,
}

object!(WorkObject, coord_work_t, 47, "run");

impl WorkObject {
    pub(crate) fn new(Run { request, format }: Run) -> Result<Self> {
        Ok(Self {
            work: request.work().clone(),
            key: format.lend_key(request.key())?,
            document: request.document().map(|document| format.lend(document.clone())).transpose()?,
            request: Mutex::new(Some(request)),
            over: CancelToken::new(),
        })
    }

    fn take(&self) -> Option<Request> {
        self.over.fire();
        self.request.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Takes the run out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_work_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_work(
    event: *mut coord_event_t,
    out: *mut *mut coord_work_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let run = handle::get::<EventObject>(event)?.take("run", |payload| match payload {
            Payload::Work(run) => Ok(*run),
            other => Err(other),
        })?;
        out.put(handle::issue(WorkObject::new(run)?));
        Ok(())
    })
}

/// The key in the reconciler's format: of the document, the service or the lock; empty for NULL. It ends with a zero, which
/// coord_work_key_length does not count.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_key(work: *const coord_work_t) -> *const c_char {
    read(work, empty(), |work| work.key.start())
}

/// The length of the key in bytes; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_key_length(work: *const coord_work_t) -> usize {
    read(work, 0, |work| work.key.length())
}

/// 1 if the key has a document, as it was when this run began. 0 if it was deleted or does not match any more, and for
/// locks and keys that are added by hand. The document of a service, which has one while somebody provides it, is
/// {"_id", "service", "providers": [{"instance_id", "session", "name", "host", "pid", "metadata"}]}.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_has_document(work: *const coord_work_t) -> i32 {
    read(work, 0, |work| i32::from(work.document.is_some()))
}

/// The document in the reconciler's format; empty if there is none. It ends with a zero, which
/// coord_work_document_length does not count.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_document(work: *const coord_work_t) -> *const c_char {
    read(work, empty(), |work| work.document.as_ref().map_or_else(empty, LentBytes::start))
}

/// The length of the document in bytes; 0 if there is none.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_document_length(work: *const coord_work_t) -> usize {
    read(work, 0, |work| work.document.as_ref().map_or(0, LentBytes::length))
}

/// 1 if the document has a revision: that of a table has, unless another program has written it.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_has_revision(work: *const coord_work_t) -> i32 {
    read(work, 0, |work| i32::from(work.work.revision().is_some()))
}

/// The state of the document, for COORD_WRITE_REPLACE and COORD_WRITE_DELETE; 0 if it has no revision.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_revision(work: *const coord_work_t) -> u64 {
    read(work, 0, |work| work.work.revision().map_or(0, |revision| revision.0))
}

/// 1, and one more for each error of the key in a row before; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_attempt(work: *const coord_work_t) -> u32 {
    read(work, 0, |work| work.work.attempt())
}

/// The fencing token of the key's shard or of the leadership, 0 in the mode "all". Tokens of one key are comparable for
/// ever.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_token(work: *const coord_work_t) -> i64 {
    read(work, 0, |work| work.work.token().unwrap_or(0))
}

/// 1 if the run is asked to stop: its key was cancelled, its shard or the leadership is lost or is to move, or the
/// reconciler is being closed. Else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_is_cancelled(work: *const coord_work_t) -> i32 {
    read(work, 0, |work| i32::from(work.work.is_cancelled()))
}

fn read<T>(work: *const coord_work_t, neutral: T, body: impl FnOnce(&WorkObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<WorkObject>(work)?)))
}

/// Checks that the key is still this replica's to work on: call it before each effect. Reads a clock and nothing else.
/// COORD_E_FENCED when the shard or the leadership is lost or given up, COORD_E_CANCELLED when the run is asked to stop for another
/// reason.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_work_check(work: *const coord_work_t, err: *mut *mut coord_error_t) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || handle::get::<WorkObject>(work)?.work.check())
}

/// The shard or the leadership as the condition of writes to tables. `strict` is as of coord_held_fence.
/// COORD_E_INVALID_ARGUMENT also in the mode "all", in which a run is under neither; COORD_E_FENCED when it is lost
/// or given up, as from coord_work_check.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_fence_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_work_fence(
    work: *const coord_work_t,
    strict: i32,
    out: *mut *mut coord_fence_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let fence = handle::get::<WorkObject>(work)?.work.fence()?;
        out.put(handle::issue(FenceObject::new(fence, strict)?));
        Ok(())
    })
}

/// Waits until the run is asked to stop. COORD_E_CLOSED when it is completed or its handle destroyed before.
///
/// @threadsafe yes
/// @blocks until it is so, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_work_wait_cancelled(
    work: *mut coord_work_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(cancelled(work)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_work_wait_cancelled; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_work_wait_cancelled_start(
    work: *mut coord_work_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = cancelled(work)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn cancelled(handle: *mut coord_work_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let object = handle::get::<WorkObject>(handle)?;
    let (work, over) = (object.work.clone(), object.over.clone());
    Ok(async move {
        tokio::select! {
            biased;
            () = over.fired() => Err(Error::closed("the run")),
            () = work.cancelled() => Ok(()),
        }
    })
}

/// Says what the run has come to (COORD_OUTCOME_...). `after_ms` counts for COORD_OUTCOME_REQUEUE_AFTER and
/// COORD_OUTCOME_ERROR_AFTER and is 0 for the others; `message` says why for COORD_OUTCOME_ERROR,
/// COORD_OUTCOME_ERROR_AFTER and COORD_OUTCOME_TERMINAL, goes to the log and, for the last, to coord_reconciler_parked, and
/// is NULL for the others. COORD_E_FENCED when the shard or the leadership under which the key was run is lost: the result
/// does not count then, and the next holder runs the key. COORD_E_NOT_HELD when it was completed before.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_work_complete(
    work: *mut coord_work_t,
    outcome: i32,
    after_ms: i64,
    message: *const c_char,
    message_len: usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (message, err) = unsafe { (Text::lent(message, message_len), Out::lent(err)) };
    fallible(err, || {
        let work = handle::get::<WorkObject>(work)?;
        let outcome = outcome_of(outcome, after_ms, message)?;
        let completed = || Error::new(Code::NotHeld, format!("the run of {} was completed before", work.work.key()));
        work.take().ok_or_else(completed)?.complete(outcome)
    })
}

fn outcome_of(outcome: i32, after_ms: i64, message: Text) -> Result<Outcome> {
    let after = || match u64::try_from(after_ms) {
        Ok(after) => Ok(Duration::from_millis(after)),
        Err(_) => Err(Error::invalid(format!("after_ms is 0 or more, not {after_ms}"))),
    };
    let wanted = match outcome {
        COORD_OUTCOME_DONE => Outcome::Done,
        COORD_OUTCOME_REQUEUE_AFTER => Outcome::RequeueAfter(after()?),
        COORD_OUTCOME_ERROR => Outcome::Error(message.read("message")?),
        COORD_OUTCOME_ERROR_AFTER => Outcome::ErrorAfter(message.read("message")?, after()?),
        COORD_OUTCOME_TERMINAL => Outcome::Terminal(message.read("message")?),
        other => return Err(Error::invalid(format!("{other} is no outcome of a run (COORD_OUTCOME_...)"))),
    };
    if !wanted.is_error() && !message.is_null() {
        return Err(Error::invalid("only an outcome that is an error has a message"));
    }
    if after_ms != 0 && !matches!(wanted, Outcome::RequeueAfter(_) | Outcome::ErrorAfter(..)) {
        return Err(Error::invalid("only COORD_OUTCOME_REQUEUE_AFTER and COORD_OUTCOME_ERROR_AFTER have an after_ms"));
    }
    Ok(wanted)
}

/// Destroys a run. One that was not completed comes again, as after an error. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `work`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_work_destroy(work: *mut coord_work_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        drop(handle::take::<WorkObject>(work)?.take());
        Ok(())
    });
}
