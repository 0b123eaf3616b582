//! Listing locks: who holds them, and who waits.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::ptr;

use coord_core::error::{Holder, HolderState, Result};
use coord_core::lock::{LockInfo, Waiter};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_LOCKS, Payload, coord_op_t};
use crate::handle::{self, Owned, object};
use crate::queue::{Report, coord_queue_t, wait};

/// It renewed its session while this client looked.
pub const COORD_HOLDER_LIVE: i32 = 0;
/// No renewal was seen since this client began to look; coord_holder_silent_ms says for how long.
pub const COORD_HOLDER_SILENT: i32 = 1;
/// Its session is dead; the next waiter takes over.
pub const COORD_HOLDER_DEAD: i32 = 2;

/// Locks with their holders and waiters, at one moment. What it lends is valid until it is destroyed.
pub struct coord_lock_list_t;

/// Who holds a lock or waits for it. Belongs to the list or the error that lends it; what it lends lives as long.
pub struct coord_holder_t;

pub(crate) struct LockListObject(Vec<Entry>);

struct Entry {
    name: Lent,
    token: i64,
    breaking: bool,
    holder: Option<Owned<HolderObject>>,
    waiters: Vec<Owned<HolderObject>>,
}

pub(crate) struct HolderObject {
    name: Lent,
    session: Lent,
    host: Lent,
    pid: u32,
    token: i64,
    since_ms: i64,
    state: i32,
    silent_ms: i64,
    is_self: bool,
}

object!(LockListObject, coord_lock_list_t, 12, "list of locks");
object!(HolderObject, coord_holder_t, 13, "holder");

impl LockListObject {
    pub(crate) fn new(locks: Vec<LockInfo>) -> Self {
        let entry = |lock: LockInfo| Entry {
            name: Lent::new(&lock.name),
            token: lock.token,
            breaking: lock.breaking,
            holder: lock.holder.as_ref().map(|holder| Owned::new(HolderObject::new(holder))),
            waiters: lock.waiters.iter().map(|waiter| Owned::new(HolderObject::waiting(waiter))).collect(),
        };
        Self(locks.into_iter().map(entry).collect())
    }
}

impl HolderObject {
    pub(crate) fn new(holder: &Holder) -> Self {
        Self {
            name: Lent::new(&holder.name),
            session: Lent::new(&holder.session),
            host: Lent::new(&holder.host),
            pid: holder.pid,
            token: holder.token,
            since_ms: holder.since_ms,
            state: state_number(holder.state),
            silent_ms: holder.silent_for.as_millis() as i64,
            is_self: holder.is_self,
        }
    }

    fn waiting(waiter: &Waiter) -> Self {
        Self {
            name: Lent::new(&waiter.name),
            session: Lent::new(&waiter.session),
            host: Lent::new(&waiter.host),
            pid: waiter.pid,
            token: 0,
            since_ms: 0,
            state: COORD_HOLDER_LIVE,
            silent_ms: 0,
            is_self: false,
        }
    }
}

/// Lists the locks whose full name "namespace/scope/name" begins with `prefix`, with holders and waiters; with a NULL
/// or empty prefix, all of the client's namespace. Two reads.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_lock_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_locks(
    client: *mut coord_client_t,
    prefix: *const c_char,
    prefix_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_lock_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (prefix, out, err) = unsafe { (Text::lent(prefix, prefix_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let list = wait(locks(client, prefix)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(LockListObject::new(list)));
        Ok(())
    })
}

/// Starts coord_client_locks; ends with COORD_EVENT_LOCKS.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_locks_start(
    client: *mut coord_client_t,
    prefix: *const c_char,
    prefix_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (prefix, op, err) = unsafe { (Text::lent(prefix, prefix_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_LOCKS, limit, locks(client, prefix)?, Payload::Locks)
    })
}

fn locks(
    handle: *mut coord_client_t,
    prefix: Text,
) -> Result<impl Future<Output = Result<Vec<LockInfo>>> + Send + 'static> {
    let client = client(handle)?;
    let prefix = if prefix.is_null() { String::new() } else { prefix.read("prefix")? };
    Ok(async move { client.locks(&prefix).await })
}

/// Who holds one lock and who waits for it: a list of one, or an empty one if the lock was never used. A free lock that was
/// granted more than a day ago is forgotten; its tokens go on all the same.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_lock_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_lock_info(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_lock_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, out, err) = unsafe { (Text::lent(name, name_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let list = wait(lock_info(client, name)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(LockListObject::new(list)));
        Ok(())
    })
}

/// Starts coord_client_lock_info; ends with COORD_EVENT_LOCKS.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_lock_info_start(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, op, err) = unsafe { (Text::lent(name, name_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_LOCKS, limit, lock_info(client, name)?, Payload::Locks)
    })
}

fn lock_info(
    handle: *mut coord_client_t,
    name: Text,
) -> Result<impl Future<Output = Result<Vec<LockInfo>>> + Send + 'static> {
    let client = client(handle)?;
    let name = name.read("name")?;
    Ok(async move { Ok(client.lock_info(&name).await?.into_iter().collect()) })
}

/// How many locks there are in the list; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_count(list: *const coord_lock_list_t) -> usize {
    value(0, || Ok(handle::get::<LockListObject>(list)?.0.len()))
}

/// The full name of the lock at this place; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_name(list: *const coord_lock_list_t, index: usize) -> *const c_char {
    entry(list, index, empty(), |lock| lock.name.start())
}

/// The token of the latest grant of the lock at this place; 0 if there was none.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_token(list: *const coord_lock_list_t, index: usize) -> i64 {
    entry(list, index, 0, |lock| lock.token)
}

/// 1 if an operator has asked the holder of the lock at this place to go, else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_is_breaking(list: *const coord_lock_list_t, index: usize) -> i32 {
    entry(list, index, 0, |lock| i32::from(lock.breaking))
}

/// Who holds the lock at this place; NULL if it is free. Belongs to the list.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_holder(list: *const coord_lock_list_t, index: usize) -> *const coord_holder_t {
    entry(list, index, ptr::null(), |lock| lock.holder.as_ref().map_or(ptr::null(), Owned::handle))
}

/// How many wait for the lock at this place.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_waiter_count(list: *const coord_lock_list_t, index: usize) -> usize {
    entry(list, index, 0, |lock| lock.waiters.len())
}

/// Who waits for the lock at this place, 0 being the next to get it; NULL beyond the end. Belongs to the list.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_waiter(
    list: *const coord_lock_list_t,
    index: usize,
    waiter: usize,
) -> *const coord_holder_t {
    entry(list, index, ptr::null(), |lock| lock.waiters.get(waiter).map_or(ptr::null(), Owned::handle))
}

fn entry<T: Copy>(list: *const coord_lock_list_t, index: usize, neutral: T, body: impl FnOnce(&Entry) -> T) -> T {
    value(neutral, || Ok(handle::get::<LockListObject>(list)?.0.get(index).map_or(neutral, body)))
}

/// Destroys a list and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `list`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_lock_list_destroy(list: *mut coord_lock_list_t) {
    quiet(|| handle::take::<LockListObject>(list).map(drop));
}

/// The name that the holder's client was given; empty if none was.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_name(holder: *const coord_holder_t) -> *const c_char {
    read(holder, empty(), |h| h.name.start())
}

/// The id of the holder's session: 32 hexadecimal digits.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_session(holder: *const coord_holder_t) -> *const c_char {
    read(holder, empty(), |h| h.session.start())
}

/// The host that the holder reported.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_host(holder: *const coord_holder_t) -> *const c_char {
    read(holder, empty(), |h| h.host.start())
}

/// The holder's process id on its host; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_pid(holder: *const coord_holder_t) -> u32 {
    read(holder, 0, |h| h.pid)
}

/// The fencing token of the hold; 0 for one who waits.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_token(holder: *const coord_holder_t) -> i64 {
    read(holder, 0, |h| h.token)
}

/// When the hold was granted, in milliseconds since 1970 by the store's clock: for people, never for decisions. 0 for
/// one who waits.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_since_ms(holder: *const coord_holder_t) -> i64 {
    read(holder, 0, |h| h.since_ms)
}

/// What this client has observed of the holder's session (COORD_HOLDER_...).
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_state(holder: *const coord_holder_t) -> i32 {
    read(holder, COORD_HOLDER_LIVE, |h| h.state)
}

/// How long this client has seen no renewal of the holder's session, in milliseconds.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_silent_ms(holder: *const coord_holder_t) -> i64 {
    read(holder, 0, |h| h.silent_ms)
}

/// 1 if the holder is the client that asked, which waits for its own release like anyone; else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_holder_is_self(holder: *const coord_holder_t) -> i32 {
    read(holder, 0, |h| i32::from(h.is_self))
}

fn read<T>(holder: *const coord_holder_t, neutral: T, body: impl FnOnce(&HolderObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<HolderObject>(holder)?)))
}

/// What was observed of a session, as a number.
pub(crate) fn state_number(state: HolderState) -> i32 {
    match state {
        HolderState::Live => COORD_HOLDER_LIVE,
        HolderState::Silent => COORD_HOLDER_SILENT,
        _ => COORD_HOLDER_DEAD,
    }
}
