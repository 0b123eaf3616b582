//! Clients: connecting, closing, and what a client does beside its locks.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::time::Duration;

use coord_core::client::Client;
use coord_core::driver::CancelToken;
use coord_core::error::Result;

use crate::boundary::{fallible, quiet, refuse_inside_callbacks, timeout, value};
use crate::bytes::{Out, Text};
use crate::cancel::coord_cancel_t;
use crate::config::{ConfigObject, coord_config_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_CLIENT, COORD_EVENT_DONE, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait};

/// A connection to a store, with a session that carries everything that is held through it.
///
/// Locks and holds made from it keep it open. It is closed by coord_client_close, or in the background when its handle
/// and those of all that was made from it are destroyed.
pub struct coord_client_t;

pub(crate) struct ClientObject {
    pub(crate) client: Client,
    /// Fired when the handle is destroyed. What only watches the client ends then, and does not keep it open.
    pub(crate) ended: CancelToken,
}

object!(ClientObject, coord_client_t, 7, "client");

impl ClientObject {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, ended: CancelToken::new() }
    }
}

impl Drop for ClientObject {
    fn drop(&mut self) {
        self.ended.fire();
    }
}

/// The client behind a handle.
///
/// # Errors
/// `Handle`.
pub(crate) fn client(handle: *mut coord_client_t) -> Result<Client> {
    Ok(handle::get::<ClientObject>(handle)?.client.clone())
}

/// Connects to a store and opens a session. `timeout_ms` is -1 for no limit but the store's own.
///
/// @threadsafe yes
/// @blocks until connected, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_client_destroy; `config` stays the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_connect(
    config: *mut coord_config_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_client_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let options = handle::get::<ConfigObject>(config)?.options();
        let client = wait(Client::connect(options), timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(ClientObject::new(client)));
        Ok(())
    })
}

/// Starts coord_client_connect; ends with COORD_EVENT_CLIENT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_connect_start(
    config: *mut coord_config_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let options = handle::get::<ConfigObject>(config)?.options();
        let limit = timeout(timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_CLIENT, limit, Client::connect(options), Payload::Client)
    })
}

/// Opens another session on the same store: a client whose holds live and die independently of this one's.
///
/// @threadsafe yes
/// @blocks until opened, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_client_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_open_session(
    client: *mut coord_client_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_client_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let opened = wait(open_session(client)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(ClientObject::new(opened)));
        Ok(())
    })
}

/// Starts coord_client_open_session; ends with COORD_EVENT_CLIENT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_open_session_start(
    client: *mut coord_client_t,
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
        Report { queue, tag, op }.start(COORD_EVENT_CLIENT, limit, open_session(client)?, Payload::Client)
    })
}

fn open_session(handle: *mut coord_client_t) -> Result<impl Future<Output = Result<Client>> + Send + 'static> {
    let client = client(handle)?;
    Ok(async move { client.open_session().await })
}

/// Closes a client: refuses new work, ends every wait with COORD_E_CLOSED, releases what is held, waits for functions
/// that run under a lock, and ends the session. COORD_E_TIMEOUT when that takes longer than `timeout_ms`; it goes on
/// in the background. Closing twice is no error. The handle stays, and is still to be destroyed.
///
/// @threadsafe yes
/// @blocks until closed, up to timeout_ms
/// @callback_safe no: COORD_E_REENTRANT
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_close(
    client: *mut coord_client_t,
    timeout_ms: i64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        refuse_inside_callbacks("coord_client_close")?;
        wait(close(client, timeout_ms)?, None, std::ptr::null_mut())
    })
}

/// Starts coord_client_close; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_close_start(
    client: *mut coord_client_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        Report { queue, tag, op }.start(COORD_EVENT_DONE, None, close(client, timeout_ms)?, |()| Payload::Nothing)
    })
}

fn close(handle: *mut coord_client_t, timeout_ms: i64) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let client = client(handle)?;
    let limit = timeout(timeout_ms)?.unwrap_or(Duration::MAX);
    Ok(async move { client.close(limit).await })
}

/// 1 if the client is open, 0 if it was closed or there is no such client.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_client_is_open(client: *mut coord_client_t) -> i32 {
    value(0, || Ok(i32::from(!handle::get::<ClientObject>(client)?.client.is_closed())))
}

/// Asks the store whether it could be written to now.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_health(
    client: *mut coord_client_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(health(client)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_client_health; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_health_start(
    client: *mut coord_client_t,
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
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, health(client)?, |()| Payload::Nothing)
    })
}

fn health(handle: *mut coord_client_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let client = client(handle)?;
    Ok(async move { client.health().await })
}

/// Ends somebody's hold of a lock, if it is still the one with this token. For operators.
///
/// First the holder is asked: its client declares the hold lost at once, and gives the lock up when the code under it
/// has ended, or after its ttl. Nobody else removes it then, unless its session dies. COORD_E_TIMEOUT after two ttls if
/// it lives and has not gone; it has been asked, and may still go.
///
/// With `force` not 0 it is removed right away. The old holder may believe in its hold until it learns of that: a third
/// of its ttl as a rule, all of it when it is cut off. Only its token tells it from the next one.
///
/// COORD_E_CONFLICT if the token is not that of the present hold; nothing is broken then.
///
/// @threadsafe yes
/// @blocks up to two ttls of the holder's session unless forced, and up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_break_lock(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    token: i64,
    force: i32,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, err) = unsafe { (Text::lent(name, name_len), Out::lent(err)) };
    fallible(err, || wait(break_lock(client, name, token, force)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_client_break_lock; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_break_lock_start(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    token: i64,
    force: i32,
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
        let breaking = break_lock(client, name, token, force)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, breaking, |()| Payload::Nothing)
    })
}

fn break_lock(
    handle: *mut coord_client_t,
    name: Text,
    token: i64,
    force: i32,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let client = client(handle)?;
    let name = name.read("name")?;
    Ok(async move { client.break_lock(&name, token, force != 0).await })
}

/// Destroys the handle of a client, and ends what watches its session. The client itself is closed in the background
/// as soon as no lock or hold that was made from it is left; its holds are released. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `client`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_client_destroy(client: *mut coord_client_t) {
    quiet(|| {
        // At once, also when another thread is in a call with this client.
        handle::take::<ClientObject>(client)?.ended.fire();
        Ok(())
    });
}
