//! Held locks: is it still valid, for how long, and giving it back.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coord_core::driver::CancelToken;
use coord_core::error::{Code, Error, LossReason, Result};
use coord_core::lock::Held;

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, empty};
use crate::cancel::coord_cancel_t;
use crate::error::{COORD_LOSS_NONE, coord_error_t, coord_status_t, loss_number};
use crate::event::{COORD_EVENT_DONE, COORD_EVENT_LOST, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait, wait_begun};

/// A lock that is held. Destroying it releases the lock in the background. It keeps its client open.
pub struct coord_held_t;

pub(crate) struct HeldObject {
    held: Arc<Held>,
    /// Fired when it is released or its handle destroyed. What waits for its loss ends then, and does not keep it.
    ended: CancelToken,
    name: Lent,
}

object!(HeldObject, coord_held_t, 11, "held lock");

impl HeldObject {
    pub(crate) fn new(held: Held) -> Self {
        let name = Lent::new(held.name().as_str());
        Self { held: Arc::new(held), ended: CancelToken::new(), name }
    }

    pub(crate) fn shared(&self) -> Arc<Held> {
        self.held.clone()
    }
}

impl Drop for HeldObject {
    fn drop(&mut self) {
        self.ended.fire();
    }
}

/// The full name of the lock, "namespace/scope/name"; valid until the handle is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_held_name(held: *mut coord_held_t) -> *const c_char {
    value(empty(), || Ok(handle::get::<HeldObject>(held)?.name.start()))
}

/// The fencing token, 1 or more: grows with every grant of this lock. Give it to the resource that the lock protects,
/// so that it can refuse a holder from before. 0 if there is no such hold.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_held_token(held: *mut coord_held_t) -> i64 {
    value(0, || Ok(handle::get::<HeldObject>(held)?.held.token()))
}

/// How long the hold stays valid without another renewal, in milliseconds; 0 when it is lost or released.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_held_remaining_ms(held: *mut coord_held_t) -> i64 {
    value(0, || Ok(handle::get::<HeldObject>(held)?.held.remaining().as_millis() as i64))
}

/// Why the hold is lost (COORD_LOSS_...); COORD_LOSS_NONE unless it is.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_held_loss(held: *mut coord_held_t) -> i32 {
    value(COORD_LOSS_NONE, || Ok(loss_number(handle::get::<HeldObject>(held)?.held.loss())))
}

/// Checks that the hold is valid now: COORD_OK, COORD_E_LOST, or COORD_E_NOT_HELD after a release. Reads a clock and
/// nothing else: call it before each effect.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_check(held: *mut coord_held_t, err: *mut *mut coord_error_t) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || handle::get::<HeldObject>(held)?.held.check())
}

/// Makes sure that the hold stays valid for `duration_ms` from now, by a renewal if that is needed.
/// COORD_E_INVALID_ARGUMENT if that is more than a renewal can give: the ttl less the stop margin.
///
/// @threadsafe yes
/// @blocks for one write to the store if it is needed, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_ensure(
    held: *mut coord_held_t,
    duration_ms: i64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(ensure(held, duration_ms)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_held_ensure; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_ensure_start(
    held: *mut coord_held_t,
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
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, ensure(held, duration_ms)?, |()| Payload::Nothing)
    })
}

fn ensure(held: *mut coord_held_t, duration_ms: i64) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let held = handle::get::<HeldObject>(held)?.shared();
    let millis = u64::try_from(duration_ms)
        .map_err(|_| Error::invalid(format!("duration_ms is 0 or more, not {duration_ms}")))?;
    Ok(async move { held.ensure(Duration::from_millis(millis)).await })
}

/// Says that the caller's code runs under this hold until it is released: when the hold is lost, the store keeps the
/// lock for this session until then, and closing the client waits for it. coord_lock_run does this by itself; it is
/// for functions that run on other threads than the caller's.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_manage(held: *mut coord_held_t, err: *mut *mut coord_error_t) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        handle::get::<HeldObject>(held)?.held.manage();
        Ok(())
    })
}

/// Waits until the hold is lost, and says why in `*loss` (COORD_LOSS_...). COORD_E_NOT_HELD when it is released, or its
/// handle destroyed.
///
/// @threadsafe yes
/// @blocks until the hold is lost or released, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_wait_lost(
    held: *mut coord_held_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    loss: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (loss, err) = unsafe { (Out::lent(loss), Out::lent(err)) };
    fallible(err, || {
        let loss = loss.required("loss")?;
        loss.put(wait(lost(held)?, timeout(timeout_ms)?, cancel)? as i32);
        Ok(())
    })
}

/// Starts coord_held_wait_lost; ends with COORD_EVENT_LOST. It does not keep the lock held.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_wait_lost_start(
    held: *mut coord_held_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || Report { queue, tag, op }.start(COORD_EVENT_LOST, None, lost(held)?, Payload::Loss))
}

fn lost(held: *mut coord_held_t) -> Result<impl Future<Output = Result<LossReason>> + Send + 'static> {
    let object = handle::get::<HeldObject>(held)?;
    let (held, ended) = (object.shared(), object.ended.clone());
    Ok(async move {
        // What was lost before it was released stays lost.
        tokio::select! {
            biased;
            () = ended.fired() => held.loss().ok_or_else(|| {
                Error::new(Code::NotHeld, format!("lock '{}' was released before it was lost", held.name()))
            }),
            reason = held.lost() => Ok(reason),
        }
    })
}

/// Releases the lock and hands it to the next waiter, in one write. COORD_E_LOST if the hold was lost before; nothing
/// of a later holder is touched then. COORD_E_NOT_HELD when it was released before. When the call ends by
/// COORD_E_TIMEOUT or COORD_E_CANCELLED, the release goes on in the background.
///
/// @threadsafe yes
/// @blocks for one write to the store, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_release(
    held: *mut coord_held_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait_begun(release(held)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_held_release; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_release_start(
    held: *mut coord_held_t,
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
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, release(held)?, |()| Payload::Nothing)
    })
}

fn release(held: *mut coord_held_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    /// Tells when the release has ended or was given up, in which case it goes on by itself.
    struct Ended(CancelToken);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fire();
        }
    }
    let object = handle::get::<HeldObject>(held)?;
    let (held, ended) = (object.shared(), object.ended.clone());
    Ok(async move {
        let _ended = Ended(ended);
        held.release().await
    })
}

/// Destroys the handle. If the lock was not released, it is, in the background. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `held`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_held_destroy(held: *mut coord_held_t) {
    quiet(|| {
        // At once, also when another thread is in a call with this hold.
        handle::take::<HeldObject>(held)?.ended.fire();
        Ok(())
    });
}
