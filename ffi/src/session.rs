//! A client's session: a snapshot of it, and waiting for it to change.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;

use coord_core::client::{SessionState, SessionStatus};
use coord_core::error::{Error, Result};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{ClientObject, client, coord_client_t};
use crate::error::{COORD_LOSS_NONE, coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_SESSION, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait};

/// The store has not acknowledged the session yet; nothing can be held.
pub const COORD_SESSION_OPENING: i32 = 0;
/// Holds are valid.
pub const COORD_SESSION_LIVE: i32 = 1;
/// The session could not be renewed in time: every hold is lost, places in queues are kept, and it may come back.
pub const COORD_SESSION_SUSPENDED: i32 = 2;
/// The session is over. The client opens a new one by itself unless it is closed.
pub const COORD_SESSION_LOST: i32 = 3;

/// A client's session at one moment. What it lends is valid until it is destroyed.
pub struct coord_session_t;

pub(crate) struct SessionObject {
    status: SessionStatus,
    id: Lent,
    name: Lent,
    host: Lent,
}

object!(SessionObject, coord_session_t, 8, "session");

impl SessionObject {
    pub(crate) fn new(status: SessionStatus) -> Self {
        let id = Lent::new(&status.id.to_string());
        let (name, host) = (Lent::new(&status.info.name), Lent::new(&status.info.host));
        Self { status, id, name, host }
    }
}

/// A client's session as it is now.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_session_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_session(
    client: *mut coord_client_t,
    out: *mut *mut coord_session_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let client = handle::get::<ClientObject>(client)?;
        out.put(handle::issue(SessionObject::new(client.client.session())));
        Ok(())
    })
}

/// The state of a client's session now (COORD_SESSION_...); COORD_SESSION_LOST if there is no such client.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_client_session_state(client: *mut coord_client_t) -> i32 {
    value(COORD_SESSION_LOST, || Ok(state_number(handle::get::<ClientObject>(client)?.client.session().state)))
}

/// Waits until the state of the session differs from `seen`, or a new session has replaced it. COORD_E_CLOSED when the
/// client is closed or its handle destroyed.
///
/// @threadsafe yes
/// @blocks until the session changes, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_session_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_session_wait(
    client: *mut coord_client_t,
    seen: *const coord_session_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_session_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let status = wait(changed(client, seen)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(SessionObject::new(status)));
        Ok(())
    })
}

/// Starts coord_client_session_wait; ends with COORD_EVENT_SESSION. To be told of every change, start it again with
/// the session of the event: a change in between is not missed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_session_wait_start(
    client: *mut coord_client_t,
    seen: *const coord_session_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let changed = changed(client, seen)?;
        Report { queue, tag, op }.start(COORD_EVENT_SESSION, None, changed, |status| Payload::Session(Box::new(status)))
    })
}

fn changed(
    handle: *mut coord_client_t,
    seen: *const coord_session_t,
) -> Result<impl Future<Output = Result<SessionStatus>> + Send + 'static> {
    let ended = handle::get::<ClientObject>(handle)?.ended.clone();
    let client = client(handle)?;
    let seen = handle::get::<SessionObject>(seen)?.status.clone();
    Ok(async move {
        tokio::select! {
            biased;
            changed = client.session_changed(&seen) => changed,
            () = ended.fired() => Err(Error::closed("the handle of the client")),
        }
    })
}

/// The state of the session (COORD_SESSION_...); COORD_SESSION_LOST for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_state(session: *const coord_session_t) -> i32 {
    read(session, COORD_SESSION_LOST, |s| state_number(s.status.state))
}

/// Why the session was lost (COORD_LOSS_...); COORD_LOSS_NONE unless it was.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_loss(session: *const coord_session_t) -> i32 {
    read(session, COORD_LOSS_NONE, |s| match s.status.state {
        SessionState::Lost(reason) => reason as i32,
        _ => COORD_LOSS_NONE,
    })
}

/// The session's id, 32 hexadecimal digits, new at every start and after every loss; empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_id(session: *const coord_session_t) -> *const c_char {
    read(session, empty(), |s| s.id.start())
}

/// The owner's name, from the option "name"; empty if there is none.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_name(session: *const coord_session_t) -> *const c_char {
    read(session, empty(), |s| s.name.start())
}

/// The name of the host that the session reports; empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_host(session: *const coord_session_t) -> *const c_char {
    read(session, empty(), |s| s.host.start())
}

/// How long holds stayed valid without another renewal when the snapshot was taken, in milliseconds; 0 unless live.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_remaining_ms(session: *const coord_session_t) -> i64 {
    read(session, 0, |s| s.status.remaining.as_millis() as i64)
}

/// The ttl of the session in milliseconds: how long others wait before they may declare it dead.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_ttl_ms(session: *const coord_session_t) -> i64 {
    read(session, 0, |s| s.status.timing.ttl.as_millis() as i64)
}

/// Destroys a snapshot of a session; the session is not affected. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `session`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_session_destroy(session: *mut coord_session_t) {
    quiet(|| handle::take::<SessionObject>(session).map(drop));
}

fn read<T>(session: *const coord_session_t, neutral: T, body: impl FnOnce(&SessionObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<SessionObject>(session)?)))
}

fn state_number(state: SessionState) -> i32 {
    match state {
        SessionState::Opening => COORD_SESSION_OPENING,
        SessionState::Live => COORD_SESSION_LIVE,
        SessionState::Suspended => COORD_SESSION_SUSPENDED,
        SessionState::Lost(_) => COORD_SESSION_LOST,
    }
}
