//! Started operations and their events.
#![allow(unsafe_code)]

use std::sync::{Mutex, OnceLock, PoisonError};

use coord_core::client::{Client, SessionStatus};
use coord_core::driver::Op;
use coord_core::election::{Candidate, Elected, Leader, LeaderWatch, Term};
use coord_core::error::{Code, Error, LossReason, Result};
use coord_core::lock::{Held, LockInfo};
use coord_core::observer::{Observer, ObserverEvent};
use coord_core::owner::{Owner, OwnerEvent, OwnerWatch};
use coord_core::provider::{Provider, ProviderEvent};
use coord_core::table::ManyWritten;

use crate::boundary::{fallible, quiet, value};
use crate::bytes::Out;
use crate::cached::CachedTableObject;
use crate::client::{ClientObject, coord_client_t};
use crate::delivery::DeliveryObject;
use crate::error::{
    COORD_E_HANDLE, COORD_LOSS_NONE, COORD_OK, ErrorObject, coord_error_t, coord_status_t, loss_number,
};
use crate::handle::{self, Object, Owned, object};
use crate::held::{HeldObject, coord_held_t};
use crate::listing::{LockListObject, coord_lock_list_t};
use crate::reconciler::{Begun, Run};
use crate::session::{SessionObject, coord_session_t};
use crate::stored::{StoredListObject, StoredObject, WrittenObject};
use crate::table_log::{LogEntryObject, TableLogObject};
use crate::table_read::CursorObject;
use crate::text::{TextObject, coord_text_t};

/// No event.
pub const COORD_EVENT_NONE: i32 = 0;
/// An operation ended that gives nothing: a release, a close, a health check, an ensure, a break.
pub const COORD_EVENT_DONE: i32 = 1;
/// A client was to be connected, or a session opened; coord_event_take_client.
pub const COORD_EVENT_CLIENT: i32 = 2;
/// A lock was to be acquired; coord_event_take_held.
pub const COORD_EVENT_HELD: i32 = 3;
/// Locks were to be listed; coord_event_take_locks.
pub const COORD_EVENT_LOCKS: i32 = 4;
/// A hold is lost or a term over; coord_event_loss says why.
pub const COORD_EVENT_LOST: i32 = 5;
/// The session has changed; coord_event_take_session.
pub const COORD_EVENT_SESSION: i32 = 6;
/// Owners were to be listed; coord_event_take_owners.
pub const COORD_EVENT_OWNERS: i32 = 7;
/// A watch of owners was to begin; coord_event_take_owner_watch.
pub const COORD_EVENT_OWNER_WATCH: i32 = 8;
/// A watch of owners has something to tell; coord_event_take_owner_event.
pub const COORD_EVENT_OWNER: i32 = 9;
/// A service was to be provided; coord_event_take_provider.
pub const COORD_EVENT_PROVIDER: i32 = 10;
/// Something has happened to a provider; coord_event_take_provider_event.
pub const COORD_EVENT_PROVIDER_CHANGED: i32 = 11;
/// A service was to be observed; coord_event_take_observer.
pub const COORD_EVENT_OBSERVER: i32 = 12;
/// An observer has something to tell; coord_event_take_observer_event.
pub const COORD_EVENT_OBSERVED: i32 = 13;
/// An election was to be won; coord_event_take_term.
pub const COORD_EVENT_TERM: i32 = 14;
/// The leader was to be told, or a watch of leaders tells of one; coord_event_take_leader.
pub const COORD_EVENT_LEADER: i32 = 15;
/// The candidates were to be listed; coord_event_take_candidates.
pub const COORD_EVENT_CANDIDATES: i32 = 16;
/// A watch of leaders was to begin; coord_event_take_leader_watch.
pub const COORD_EVENT_LEADER_WATCH: i32 = 17;
/// A candidacy has won, and a function is to be called; coord_event_take_elected.
pub const COORD_EVENT_ELECTED: i32 = 18;
/// A leader was to be forced, in a test; coord_event_take_token.
pub const COORD_EVENT_FORCED: i32 = 19;
/// A document was to be written; coord_event_take_written.
pub const COORD_EVENT_WRITTEN: i32 = 20;
/// Documents were to be written; coord_event_take_many_written.
pub const COORD_EVENT_MANY_WRITTEN: i32 = 21;
/// A document was to be read; coord_event_take_stored.
pub const COORD_EVENT_STORED: i32 = 22;
/// Documents were to be read; coord_event_take_stored_list.
pub const COORD_EVENT_STORED_LIST: i32 = 23;
/// A read of many documents was to begin; coord_event_take_cursor.
pub const COORD_EVENT_CURSOR: i32 = 24;
/// An operation ended whose result is a number, such as a count; coord_event_take_number.
pub const COORD_EVENT_NUMBER: i32 = 25;
/// A watch of a table has something to tell; coord_event_take_delivery.
pub const COORD_EVENT_DELIVERY: i32 = 26;
/// A log was to be read; coord_event_take_table_log.
pub const COORD_EVENT_TABLE_LOG: i32 = 27;
/// A log has something to tell; coord_event_take_log_entry.
pub const COORD_EVENT_LOG_ENTRY: i32 = 28;
/// A table was to be copied into memory; coord_event_take_cached_table.
pub const COORD_EVENT_CACHED_TABLE: i32 = 29;
/// A reconciler was to be started; coord_event_take_reconciler.
pub const COORD_EVENT_RECONCILER: i32 = 40;
/// A reconciler has a key that is to be run; coord_event_take_work.
pub const COORD_EVENT_WORK: i32 = 41;
/// An operation ended whose result is a text, such as the report of a message; coord_event_take_text.
pub const COORD_EVENT_TEXT: i32 = 50;

/// An operation that was started. Needed to cancel it, and on a queue of coord_queue_skip_ended to take its outcome.
pub struct coord_op_t;

pub(crate) enum OpObject {
    /// Its event comes to the queue.
    GoesOn(Op),
    /// It had ended before its start returned. Its event, on a queue that such events skip, until it is taken.
    Ended(Mutex<Option<EventObject>>),
}

object!(OpObject, coord_op_t, 5, "operation");

/// The outcome of an operation. What it carries and nobody takes is given back when it is destroyed: a lock is
/// released, a client is closed, a delivery and a run come again. What only tells something is lost with it, such as the
/// entry of a log (COORD_EVENT_LOG_ENTRY) or the documents of a cursor (COORD_EVENT_STORED_LIST), which goes on after them.
pub struct coord_event_t;

/// What a successful operation gives.
pub(crate) enum Payload {
    Nothing,
    Client(Client),
    Held(Held),
    Locks(Vec<LockInfo>),
    Loss(LossReason),
    Session(Box<SessionStatus>),
    Owners(Vec<Owner>),
    OwnerWatch(OwnerWatch),
    OwnerEvent(Box<OwnerEvent>),
    Provider(Provider),
    ProviderEvent(ProviderEvent),
    Observer(Observer),
    ObserverEvent(Box<ObserverEvent>),
    Term(Term),
    Leader(Option<Box<Leader>>),
    Candidates(Vec<Candidate>),
    LeaderWatch(LeaderWatch),
    Elected(Elected),
    Token(i64),
    Written(Box<WrittenObject>),
    ManyWritten(ManyWritten),
    Stored(Box<StoredObject>),
    StoredList(StoredListObject),
    Cursor(CursorObject),
    Number(u64),
    Delivery(Box<DeliveryObject>),
    TableLog(TableLogObject),
    LogEntry(Box<LogEntryObject>),
    CachedTable(CachedTableObject),
    Reconciler(Box<Begun>),
    Work(Box<Run>),
    /// None at the end of what comes one after another.
    Text(Option<String>),
}

pub(crate) struct EventObject {
    kind: i32,
    tag: u64,
    error: Option<Error>,
    lent_error: OnceLock<Owned<ErrorObject>>,
    loss: i32,
    payload: Mutex<Payload>,
}

object!(EventObject, coord_event_t, 6, "event");

impl EventObject {
    pub(crate) fn new(kind: i32, tag: u64, outcome: Result<Payload>) -> Self {
        let (payload, error) = match outcome {
            Ok(payload) => (payload, None),
            Err(error) => (Payload::Nothing, Some(error)),
        };
        let loss = match (&payload, &error) {
            (Payload::Loss(reason), _) => *reason as i32,
            (_, Some(error)) => loss_number(error.loss()),
            _ => COORD_LOSS_NONE,
        };
        Self { kind, tag, error, lent_error: OnceLock::new(), loss, payload: Mutex::new(payload) }
    }

    /// Takes what `pick` accepts; the operation's own error if it failed.
    pub(crate) fn take<T>(&self, what: &str, pick: impl FnOnce(Payload) -> Result<T, Payload>) -> Result<T> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let mut payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        pick(std::mem::replace(&mut *payload, Payload::Nothing)).map_err(|other| {
            *payload = other;
            Error::new(Code::NotFound, format!("the event carries no {what}, or it was taken before"))
        })
    }

    fn lend_error(&self) -> *const coord_error_t {
        match &self.error {
            Some(error) => self.lent_error.get_or_init(|| Owned::new(ErrorObject::new(error.clone()))).handle(),
            None => std::ptr::null(),
        }
    }
}

/// What a coord_event_take_... does that gives a handle of what `pick` accepts.
pub(crate) fn take_into<T: Object>(
    event: *mut coord_event_t,
    out: Out<*mut T::C>,
    err: Out<*mut coord_error_t>,
    pick: impl FnOnce(Payload) -> Result<T, Payload>,
) -> coord_status_t {
    fallible(err, || {
        let out = out.required("out")?;
        let object = handle::get::<EventObject>(event)?.take(T::NOUN, pick)?;
        out.put(handle::issue(object));
        Ok(())
    })
}

/// Cancels an operation, unless it has ended. Its one event still comes: with COORD_E_CANCELLED, or with the outcome
/// that was faster.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_op_cancel(op: *mut coord_op_t) {
    quiet(|| {
        if let OpObject::GoesOn(op) = &*handle::get::<OpObject>(op)? {
            op.cancel();
        }
        Ok(())
    });
}

/// Takes the outcome of an operation that had ended before its `_start` returned, on a queue of
/// coord_queue_skip_ended; it never comes to that queue. COORD_E_NOT_FOUND if it had not, or if it was taken: then the
/// event comes to the queue, or has.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_event_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_op_take_event(
    op: *mut coord_op_t,
    out: *mut *mut coord_event_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let event = match &*handle::get::<OpObject>(op)? {
            OpObject::GoesOn(_) => None,
            OpObject::Ended(event) => event.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        let Some(event) = event else {
            return Err(Error::new(Code::NotFound, "the operation has no event: it comes to the queue, or was taken"));
        };
        out.put(handle::issue(event));
        Ok(())
    })
}

/// Forgets an operation, which goes on; it is not cancelled. What it has kept for coord_op_take_event, and nobody took,
/// is given back. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `op`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_op_destroy(op: *mut coord_op_t) {
    quiet(|| handle::take::<OpObject>(op).map(drop));
}

/// What kind of operation ended (COORD_EVENT_...), well or not; COORD_EVENT_NONE for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_event_type(event: *const coord_event_t) -> i32 {
    value(COORD_EVENT_NONE, || Ok(handle::get::<EventObject>(event)?.kind))
}

/// The number that was given when the operation was started; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_event_tag(event: *const coord_event_t) -> u64 {
    value(0, || Ok(handle::get::<EventObject>(event)?.tag))
}

/// How the operation ended; COORD_E_HANDLE if there is no such event.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_event_status(event: *const coord_event_t) -> coord_status_t {
    value(COORD_E_HANDLE, || {
        Ok(handle::get::<EventObject>(event)?.error.as_ref().map_or(COORD_OK, |error| error.code().number()))
    })
}

/// The error of an operation that failed, else NULL. It belongs to the event and ends with it.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_event_error(event: *const coord_event_t) -> *const coord_error_t {
    value(std::ptr::null(), || Ok(handle::get::<EventObject>(event)?.lend_error()))
}

/// Why a hold is lost (COORD_LOSS_...), for COORD_EVENT_LOST and for operations that failed with COORD_E_LOST; else
/// COORD_LOSS_NONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_event_loss(event: *const coord_event_t) -> i32 {
    value(COORD_LOSS_NONE, || Ok(handle::get::<EventObject>(event)?.loss))
}

/// Takes the client out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_client_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_client(
    event: *mut coord_event_t,
    out: *mut *mut coord_client_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let client = handle::get::<EventObject>(event)?.take("client", |payload| match payload {
            Payload::Client(client) => Ok(client),
            other => Err(other),
        })?;
        out.put(handle::issue(ClientObject::new(client)));
        Ok(())
    })
}

/// Takes the held lock out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_held_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_held(
    event: *mut coord_event_t,
    out: *mut *mut coord_held_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let held = handle::get::<EventObject>(event)?.take("held lock", |payload| match payload {
            Payload::Held(held) => Ok(held),
            other => Err(other),
        })?;
        out.put(handle::issue(HeldObject::new(held)));
        Ok(())
    })
}

/// Takes the list of locks out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_lock_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_locks(
    event: *mut coord_event_t,
    out: *mut *mut coord_lock_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let locks = handle::get::<EventObject>(event)?.take("list of locks", |payload| match payload {
            Payload::Locks(locks) => Ok(locks),
            other => Err(other),
        })?;
        out.put(handle::issue(LockListObject::new(locks)));
        Ok(())
    })
}

/// Takes the state of the session out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_session_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_session(
    event: *mut coord_event_t,
    out: *mut *mut coord_session_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let status = handle::get::<EventObject>(event)?.take("session", |payload| match payload {
            Payload::Session(status) => Ok(*status),
            other => Err(other),
        })?;
        out.put(handle::issue(SessionObject::new(status)));
        Ok(())
    })
}

/// Takes the text out of an event, once; `*out` becomes NULL at the end of what comes one after another. For an
/// operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_text(
    event: *mut coord_event_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let text = handle::get::<EventObject>(event)?.take("text", |payload| match payload {
            Payload::Text(text) => Ok(text),
            other => Err(other),
        })?;
        out.put(text.map_or(std::ptr::null_mut(), |text| handle::issue(TextObject::new(&text))));
        Ok(())
    })
}

/// Destroys an event, and gives back what it carries and nobody took. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `event`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_event_destroy(event: *mut coord_event_t) {
    quiet(|| handle::take::<EventObject>(event).map(drop));
}
