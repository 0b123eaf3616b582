//! For tests of users' programs, on the memory store: who leads, whose session dies, and what time it is.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::time::Duration;

use coord_core::error::{Error, Result};
use coord_core::testing::Control;

use crate::boundary::{fallible, quiet, timeout};
use crate::bytes::{Out, Text};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, COORD_EVENT_FORCED, EventObject, Payload, coord_event_t, coord_op_t};
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait};

/// Power over a store in memory and its clients, which are all in this process.
pub struct coord_control_t;

pub(crate) struct ControlObject(Control);

object!(ControlObject, coord_control_t, 30, "control");

fn control(handle: *mut coord_control_t) -> Result<Control> {
    Ok(handle::get::<ControlObject>(handle)?.0.clone())
}

/// Power over the store of this client. COORD_E_UNSUPPORTED unless it is a memory store.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_control_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_new(
    client: *mut coord_client_t,
    out: *mut *mut coord_control_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let control = Control::of(&self::client(client)?)?;
        out.put(handle::issue(ControlObject(control)));
        Ok(())
    })
}

/// Makes a candidate the leader: the one whose session has this id, whatever its priority. Whoever leads before loses
/// its term at once, with COORD_LOSS_BROKEN. `*token`, if it is not NULL, is that of the new term. Waits for the
/// candidate to campaign, for 30 s at most; COORD_E_NOT_FOUND if it does not.
///
/// @threadsafe yes
/// @blocks until the candidate leads, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_force_leader(
    control: *mut coord_control_t,
    election: *const c_char,
    election_len: usize,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    token: *mut i64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (election, session) = unsafe { (Text::lent(election, election_len), Text::lent(session, session_len)) };
    // SAFETY: as above.
    let (token, err) = unsafe { (Out::lent(token), Out::lent(err)) };
    fallible(err, || {
        token.put(wait(force_leader(control, election, session)?, timeout(timeout_ms)?, cancel)?);
        Ok(())
    })
}

/// Starts coord_control_force_leader; ends with COORD_EVENT_FORCED.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_force_leader_start(
    control: *mut coord_control_t,
    election: *const c_char,
    election_len: usize,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (election, session, op, err) = unsafe {
        (Text::lent(election, election_len), Text::lent(session, session_len), Out::lent(op), Out::lent(err))
    };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = force_leader(control, election, session)?;
        Report { queue, tag, op }.start(COORD_EVENT_FORCED, limit, future, Payload::Token)
    })
}

fn force_leader(
    handle: *mut coord_control_t,
    election: Text,
    session: Text,
) -> Result<impl Future<Output = Result<i64>> + Send + 'static> {
    let control = control(handle)?;
    let (election, session) = (election.read("election")?, session.read("session")?);
    Ok(async move { control.force_leader(&election, &session).await })
}

/// Takes the token of the term that coord_control_force_leader_start has begun out of an event, once. For an operation
/// that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_token(
    event: *mut coord_event_t,
    token: *mut i64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (token, err) = unsafe { (Out::lent(token), Out::lent(err)) };
    fallible(err, || {
        let token = token.required("token")?;
        token.put(handle::get::<EventObject>(event)?.take("token", |payload| match payload {
            Payload::Token(token) => Ok(token),
            other => Err(other),
        })?);
        Ok(())
    })
}

/// Ends a session as if its process had given no sign of life for its whole ttl: everything that it held is lost, with
/// COORD_LOSS_EXPIRED, and goes to whoever is next; its client opens a new session. COORD_E_NOT_FOUND if this store has
/// no such live session.
///
/// @threadsafe yes
/// @blocks until it is so, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_expire_session(
    control: *mut coord_control_t,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (session, err) = unsafe { (Text::lent(session, session_len), Out::lent(err)) };
    fallible(err, || wait(expire_session(control, session)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_control_expire_session; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_expire_session_start(
    control: *mut coord_control_t,
    session: *const c_char,
    session_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (session, op, err) = unsafe { (Text::lent(session, session_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = expire_session(control, session)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn expire_session(
    handle: *mut coord_control_t,
    session: Text,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let control = control(handle)?;
    let session = session.read("session")?;
    Ok(async move { control.expire_session(&session).await })
}

/// Lets time pass for every client of the store: what is due on the way is done at its time, and sessions are renewed.
/// Succeeds when the clock shows the new time. COORD_E_UNSUPPORTED unless the store was opened with the option "clock"
/// as "manual".
///
/// @threadsafe yes
/// @blocks until it is so, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_advance(
    control: *mut coord_control_t,
    duration_ms: i64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(advance(control, duration_ms)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_control_advance; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_advance_start(
    control: *mut coord_control_t,
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
        let future = advance(control, duration_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn advance(
    handle: *mut coord_control_t,
    duration_ms: i64,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let control = control(handle)?;
    let by = duration(duration_ms)?;
    Ok(async move { control.advance(by).await })
}

fn duration(milliseconds: i64) -> Result<Duration> {
    u64::try_from(milliseconds)
        .ok()
        .filter(|ms| *ms <= LONGEST_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| Error::invalid(format!("duration_ms is 0 to {LONGEST_MS}, a hundred years, not {milliseconds}")))
}

const LONGEST_MS: u64 = 3_155_760_000_000;

/// Moves the clock at once, as if the machine had slept: nothing happened in between, and what is due is late.
/// COORD_E_UNSUPPORTED as coord_control_advance.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_jump(
    control: *mut coord_control_t,
    duration_ms: i64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || self::control(control)?.jump(duration(duration_ms)?))
}

/// The date that the store's manual clock shows, in milliseconds since 1970. COORD_E_UNSUPPORTED as
/// coord_control_advance.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_control_date_ms(
    control: *mut coord_control_t,
    date_ms: *mut i64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (date_ms, err) = unsafe { (Out::lent(date_ms), Out::lent(err)) };
    fallible(err, || {
        date_ms.required("date_ms")?.put(self::control(control)?.date()?.0);
        Ok(())
    })
}

/// Destroys the handle of a control; what it has done stays. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `control`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_control_destroy(control: *mut coord_control_t) {
    quiet(|| handle::take::<ControlObject>(control).map(drop));
}
