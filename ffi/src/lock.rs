//! Locks: acquiring them, and running a function under one.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::future::Future;
use std::ptr;

use coord_core::error::{Code, Error, Result};
use coord_core::lock::{Held, Lock};

use crate::boundary::{Inside, call_out, fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_HELD, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::held::{HeldObject, coord_held_t};
use crate::queue::{Report, coord_queue_t, wait};

/// A lock by its name. Nothing is held or asked for before it is acquired. It keeps its client open.
pub struct coord_lock_t;

pub(crate) struct LockObject {
    lock: Lock,
    name: Lent,
}

object!(LockObject, coord_lock_t, 10, "lock");

/// The lock of this name: "name", "scope/name" or "namespace/scope/name", of ASCII letters, digits and . _ - : @ + =;
/// coord_name_sanitize makes a name of any text. No I/O.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_lock_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_lock_new(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    out: *mut *mut coord_lock_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, out, err) = unsafe { (Text::lent(name, name_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let lock = self::client(client)?.lock(&name.read("name")?)?;
        let name = Lent::new(lock.name().as_str());
        out.put(handle::issue(LockObject { lock, name }));
        Ok(())
    })
}

/// The lock's full name, "namespace/scope/name"; valid until the lock is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_name(lock: *mut coord_lock_t) -> *const c_char {
    value(empty(), || Ok(handle::get::<LockObject>(lock)?.name.start()))
}

/// Acquires the lock. Waits its turn, also through outages of the store, for up to `timeout_ms`: -1 for ever, 0 does
/// not wait, like coord_lock_try_acquire. A call that fails leaves nothing behind. Not re-entrant: a second acquire by
/// the same client waits like anyone's.
///
/// @threadsafe yes
/// @blocks until granted, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_held_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_lock_acquire(
    lock: *mut coord_lock_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_held_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        // The time limit is the lock's: its error says more.
        let held = wait(acquire(lock, timeout_ms)?, None, cancel)?;
        out.put(handle::issue(HeldObject::new(held)));
        Ok(())
    })
}

/// Acquires the lock if it is free and nobody waits for it; else COORD_E_CONTENDED, whose error names the holder.
/// COORD_E_UNAVAILABLE while the store cannot be reached.
///
/// @threadsafe yes
/// @blocks until the store answers
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_held_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_lock_try_acquire(
    lock: *mut coord_lock_t,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_held_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: the same arguments.
    unsafe { coord_lock_acquire(lock, 0, cancel, out, err) }
}

/// Starts coord_lock_acquire; ends with COORD_EVENT_HELD. If the event is destroyed untaken, the lock is released.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_lock_acquire_start(
    lock: *mut coord_lock_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || Report { queue, tag, op }.start(COORD_EVENT_HELD, None, acquire(lock, timeout_ms)?, Payload::Held))
}

fn acquire(lock: *mut coord_lock_t, timeout_ms: i64) -> Result<impl Future<Output = Result<Held>> + Send + 'static> {
    let lock = handle::get::<LockObject>(lock)?.lock.clone();
    let limit = timeout(timeout_ms)?;
    Ok(async move {
        match limit {
            Some(limit) => lock.acquire_timeout(limit).await,
            None => lock.acquire().await,
        }
    })
}

/// What runs under a lock. `held` is valid for the length of the call, and is released after it; what is returned
/// becomes `*result`.
///
/// MUST NOT throw or leave by longjmp. Checks coord_held_check before each effect; when it fails, the function is to
/// end. MAY call everything but coord_client_close.
pub type coord_run_fn = Option<unsafe extern "C" fn(held: *mut coord_held_t, user_data: *mut c_void) -> i32>;

/// Acquires the lock, runs `function` under it on this thread, and releases the lock when it has returned.
///
/// When the hold is lost, the function is not interrupted: the store keeps the lock for this session until it has
/// returned, unless the session dies; and closing the client waits for it. COORD_E_LOST if the hold was lost before it
/// had returned. `timeout_ms` and `cancel` end the acquiring only. `result` may be NULL.
///
/// @threadsafe yes
/// @blocks until granted, up to timeout_ms; and while the function runs
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_lock_run(
    lock: *mut coord_lock_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    function: coord_run_fn,
    user_data: *mut c_void,
    result: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (result, err) = unsafe { (Out::lent(result), Out::lent(err)) };
    fallible(err, || {
        let function = function.ok_or_else(|| Error::invalid("function is NULL"))?;
        let held = wait(acquire(lock, timeout_ms)?, None, cancel)?;
        held.manage();
        let object = HeldObject::new(held);
        let held = object.shared();
        let handle = handle::issue(object);
        // SAFETY: the caller passed the function for this call, with this data.
        let answer = call_out(Inside::Run, || unsafe { function(handle, user_data) });
        let released = wait(async move { held.release().await }, None, ptr::null_mut());
        // Gone already if the function destroyed it.
        drop(handle::take::<HeldObject>(handle));
        match released {
            // The function released it itself.
            Err(error) if error.code() != Code::NotHeld => Err(error),
            _ => {
                result.put(answer);
                Ok(())
            }
        }
    })
}

/// Destroys the handle of a lock. Holds and started operations of it go on. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `lock`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_destroy(lock: *mut coord_lock_t) {
    quiet(|| handle::take::<LockObject>(lock).map(drop));
}
