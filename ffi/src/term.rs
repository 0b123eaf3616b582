//! Terms: what a leader has.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coord_core::election::Term;
use coord_core::error::{Error, LossReason, Result};
use coord_core::table::Fence;

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::error::{COORD_LOSS_NONE, coord_error_t, coord_status_t, loss_number};
use crate::event::{COORD_EVENT_DONE, COORD_EVENT_LOST, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait, wait_begun};
use crate::shared::Shared;
use crate::text::{TextObject, coord_text_t};

/// A term of this client's. Destroying one that was campaigned for resigns it in the background; one that
/// coord_elected_term has given is not affected. It keeps its client open.
pub struct coord_term_t;

pub(crate) struct TermObject {
    term: Shared<Term>,
    name: Lent,
}

object!(TermObject, coord_term_t, 24, "term");

impl TermObject {
    pub(crate) fn new(term: Term) -> Self {
        Self::shared(Arc::new(term))
    }

    pub(crate) fn shared(term: Arc<Term>) -> Self {
        let name = Lent::new(term.name().as_str());
        Self { term: Shared::of("term", term), name }
    }

    pub(crate) fn fence(&self) -> Result<Fence> {
        self.term.value().fence()
    }
}

/// The full name of the election, "namespace/scope/name"; valid until the handle is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_term_name(term: *mut coord_term_t) -> *const c_char {
    read(term, empty(), |t| t.name.start())
}

/// The fencing token, 1 or more: grows with every term of this election. Give it to the resource that the leader works
/// on, so that it can refuse a leader from before. Tokens of different elections are not comparable. 0 if there is no
/// such term.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_term_token(term: *mut coord_term_t) -> i64 {
    read(term, 0, |t| t.term.value().token())
}

/// How long the term stays valid without another renewal, in milliseconds; 0 when it is over.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_term_remaining_ms(term: *mut coord_term_t) -> i64 {
    read(term, 0, |t| t.term.value().remaining().as_millis() as i64)
}

/// Why the term is over (COORD_LOSS_...), COORD_LOSS_RESIGNED when it was this client's own wish; COORD_LOSS_NONE
/// unless it is.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_term_loss(term: *mut coord_term_t) -> i32 {
    read(term, COORD_LOSS_NONE, |t| loss_number(t.term.value().loss()))
}

fn read<T>(term: *mut coord_term_t, neutral: T, body: impl FnOnce(&TermObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<TermObject>(term)?)))
}

fn term(handle: *mut coord_term_t) -> Result<Arc<Term>> {
    Ok(handle::get::<TermObject>(handle)?.term.value().clone())
}

/// What is published: the text that was said when campaigning, or the one that was proclaimed last.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_value(
    term: *mut coord_term_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(TextObject::new(&self::term(term)?.value())));
        Ok(())
    })
}

/// Checks that this client leads now: COORD_OK, COORD_E_LOST, or COORD_E_NOT_HELD after the term was resigned or handed
/// over. Reads a clock and nothing else: call it before each effect.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_check(term: *mut coord_term_t, err: *mut *mut coord_error_t) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || self::term(term)?.check())
}

/// Makes sure that the term stays valid for `duration_ms` from now, by a renewal if that is needed.
/// COORD_E_INVALID_ARGUMENT if that is more than a renewal can give: the ttl less the stop margin.
///
/// @threadsafe yes
/// @blocks for one write to the store if it is needed, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_ensure(
    term: *mut coord_term_t,
    duration_ms: i64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(ensure(term, duration_ms)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_term_ensure; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_ensure_start(
    term: *mut coord_term_t,
    duration_ms: i64,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = ensure(term, duration_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn ensure(handle: *mut coord_term_t, duration_ms: i64) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let term = term(handle)?;
    let millis = u64::try_from(duration_ms)
        .map_err(|_| Error::invalid(format!("duration_ms is 0 or more, not {duration_ms}")))?;
    Ok(async move { term.ensure(Duration::from_millis(millis)).await })
}

/// Waits until the term is over, for whatever reason, before anybody else can lead; `*loss` says why (COORD_LOSS_...),
/// COORD_LOSS_RESIGNED when it was this client's own wish. COORD_E_CLOSED when the handle is destroyed.
///
/// @threadsafe yes
/// @blocks until the term is over, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_wait_lost(
    term: *mut coord_term_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    loss: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (loss, err) = unsafe { (Out::lent(loss), Out::lent(err)) };
    fallible(err, || {
        let loss = loss.required("loss")?;
        let result = wait(lost(term)?, timeout(timeout_ms)?, cancel)?;
        loss.put(result as i32);
        Ok(())
    })
}

/// Starts coord_term_wait_lost; ends with COORD_EVENT_LOST. It does not keep the term.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_wait_lost_start(
    term: *mut coord_term_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = lost(term)?;
        Report { queue, tag, op }.start(COORD_EVENT_LOST, limit, future, Payload::Loss)
    })
}

fn lost(handle: *mut coord_term_t) -> Result<impl Future<Output = Result<LossReason>> + Send + 'static> {
    Ok(handle::get::<TermObject>(handle)?.term.wait(move |term| async move { Ok(term.lost().await) }))
}

/// Publishes another value, at most 64 KiB. Waits and asks again while the store cannot be reached. COORD_E_LOST,
/// COORD_E_NOT_HELD when the term is over. When the call ends by COORD_E_TIMEOUT or COORD_E_CANCELLED, it goes on in
/// the background, so that values are published in the order in which they were given.
///
/// @threadsafe yes
/// @blocks for one write to the store, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_proclaim(
    term: *mut coord_term_t,
    said: *const c_char,
    said_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (said, err) = unsafe { (Text::lent(said, said_len), Out::lent(err)) };
    fallible(err, || wait_begun(proclaim(term, said)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_term_proclaim; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_proclaim_start(
    term: *mut coord_term_t,
    said: *const c_char,
    said_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (said, op, err) = unsafe { (Text::lent(said, said_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = proclaim(term, said)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn proclaim(handle: *mut coord_term_t, said: Text) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let term = term(handle)?;
    let said = said.read("said")?;
    Ok(async move { term.proclaim(&said).await })
}

/// Ends the term: here at once, then in the store, where the next candidate wins it in the same write. COORD_E_LOST if
/// the term was lost before, COORD_E_NOT_HELD when it was resigned before. When the call ends by COORD_E_TIMEOUT or
/// COORD_E_CANCELLED, it goes on in the background. A term of a candidacy ends for every function of this client, and
/// the store hears of it when all of them have returned; this does not wait for that.
///
/// @threadsafe yes
/// @blocks for one write to the store, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_resign(
    term: *mut coord_term_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait_begun(resign(term)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_term_resign; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_resign_start(
    term: *mut coord_term_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = resign(term)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn resign(handle: *mut coord_term_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let term = term(handle)?;
    Ok(async move { term.resign().await })
}

/// Hands the term over to a waiting candidate, given by the id of its session (coord_candidate_list_session), whatever
/// its priority, in one write. The candidate must be seen to renew its session, which takes up to a third of its ttl.
/// COORD_E_NOT_FOUND if it does not wait, COORD_E_UNAVAILABLE if it was not seen to renew: this client still leads
/// then, as coord_term_check says, unless the candidate went away in the very moment of the hand-over.
///
/// @threadsafe yes
/// @blocks until the candidate is seen alive, and for one write, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_transfer(
    term: *mut coord_term_t,
    candidate: *const c_char,
    candidate_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (candidate, err) = unsafe { (Text::lent(candidate, candidate_len), Out::lent(err)) };
    fallible(err, || wait(transfer(term, candidate)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_term_transfer; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_transfer_start(
    term: *mut coord_term_t,
    candidate: *const c_char,
    candidate_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (candidate, op, err) = unsafe { (Text::lent(candidate, candidate_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = transfer(term, candidate)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn transfer(handle: *mut coord_term_t, candidate: Text) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let term = term(handle)?;
    let candidate = candidate.read("candidate")?;
    Ok(async move { term.transfer_to(&candidate).await })
}

/// Destroys the handle. A term that was campaigned for and is not over is resigned in the background. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `term`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_term_destroy(term: *mut coord_term_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<TermObject>(term)?.term.end();
        Ok(())
    });
}
