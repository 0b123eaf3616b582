//! What is asked of a reconciler from outside of its runs: keys by hand, a pause, and waiting for a key.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coord_core::error::{Error, Result};
use coord_core::reconciler::Reconciler;
use coord_core::table::{Key, Position};

use crate::boundary::fallible;
use crate::bytes::{Bytes, Out};
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, Payload, coord_op_t};
use crate::handle;
use crate::queue::{Report, coord_queue_t, wait};
use crate::reconciler::{ReconcilerObject, coord_reconciler_t, limit};

/// Runs a key, in the reconciler's format, as soon as a worker is free, as if it had changed; also a parked one. `*news`,
/// if it is not NULL, is 0 where that was to be done anyway, else 1. COORD_E_NOT_HELD if another replica runs the key;
/// COORD_E_CLOSED also while it drains.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_add(
    reconciler: *mut coord_reconciler_t,
    key: *const c_void,
    key_len: usize,
    news: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, news, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(news), Out::lent(err)) };
    fallible(err, || about(reconciler, key, news, |reconciler, key| reconciler.add(key)))
}

/// Runs a key after `delay_ms`, or earlier if that is planned already. `*news`, if it is not NULL, is 0 where nothing
/// changed by that, else 1. Errors as of coord_reconciler_add.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_add_after(
    reconciler: *mut coord_reconciler_t,
    key: *const c_void,
    key_len: usize,
    delay_ms: i64,
    news: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, news, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(news), Out::lent(err)) };
    fallible(err, || {
        let delay =
            u64::try_from(delay_ms).map_err(|_| Error::invalid(format!("delay_ms is 0 or more, not {delay_ms}")))?;
        about(reconciler, key, news, |reconciler, key| reconciler.add_after(key, Duration::from_millis(delay)))
    })
}

/// Forgets what is planned for a key, its errors included, and asks its run to stop. The key is run again when it changes;
/// until then coord_reconciler_wait_until_reconciled says that it was cancelled. `*was`, if it is not NULL, is 1 if there
/// was anything, else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_cancel(
    reconciler: *mut coord_reconciler_t,
    key: *const c_void,
    key_len: usize,
    was: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, was, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(was), Out::lent(err)) };
    fallible(err, || about(reconciler, key, was, |reconciler, key| reconciler.cancel(key)))
}

fn about(
    handle: *mut coord_reconciler_t,
    key: Bytes,
    out: Out<i32>,
    call: impl FnOnce(&Arc<Reconciler>, Key) -> Result<bool>,
) -> Result<()> {
    let object = handle::get::<ReconcilerObject>(handle)?;
    let key = object.format().key(key)?;
    out.put(i32::from(call(object.reconciler(), key)?));
    Ok(())
}

/// Begins no run until coord_reconciler_resume; keys are still taken in, and shards and leadership kept.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_pause(
    reconciler: *mut coord_reconciler_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        handle::get::<ReconcilerObject>(reconciler)?.reconciler().pause();
        Ok(())
    })
}

/// Ends a pause.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_resume(
    reconciler: *mut coord_reconciler_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        handle::get::<ReconcilerObject>(reconciler)?.reconciler().resume();
        Ok(())
    })
}

/// Waits until every change of a key up to this position (of a write: coord_written_position) has been run, the last time
/// without an error. COORD_E_CONFLICT if the key is parked, or was cancelled before that and has neither changed nor been
/// added since; COORD_E_NOT_HELD if another replica runs it; COORD_E_CLOSED, also for a change after a drain
/// has begun; what ended the source.
///
/// @threadsafe yes
/// @blocks until it is so, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_wait_until_reconciled(
    reconciler: *mut coord_reconciler_t,
    key: *const c_void,
    key_len: usize,
    position: u64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(err)) };
    fallible(err, || wait(reconciled(reconciler, key, position, timeout_ms)?, None, cancel))
}

/// Starts coord_reconciler_wait_until_reconciled; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_wait_until_reconciled_start(
    reconciler: *mut coord_reconciler_t,
    key: *const c_void,
    key_len: usize,
    position: u64,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, op, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let future = reconciled(reconciler, key, position, timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, None, future, |()| Payload::Nothing)
    })
}

fn reconciled(
    handle: *mut coord_reconciler_t,
    key: Bytes,
    position: u64,
    timeout_ms: i64,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let object = handle::get::<ReconcilerObject>(handle)?;
    let (key, limit) = (object.format().key(key)?, limit(timeout_ms)?);
    Ok(object
        .shared()
        .wait(move |reconciler| async move { reconciler.wait_until_reconciled(key, Position(position), limit).await }))
}
