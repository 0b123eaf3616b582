//! Candidacies: a function of the caller's that is to run in every term, in the form of calls that are taken one by one.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;

use coord_core::election::{Candidacy, CandidacyOptions, Elected};
use coord_core::error::Result;

use crate::boundary::{fallible, quiet, timeout};
use crate::bytes::{Out, Text};
use crate::cancel::coord_cancel_t;
use crate::election::{coord_election_t, election};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, COORD_EVENT_ELECTED, EventObject, Payload, coord_event_t, coord_op_t};
use crate::handle::{self, object};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait, wait_begun};
use crate::shared::Shared;
use crate::term::{TermObject, coord_term_t};

/// A function that is to run whenever this client leads: here in the form of calls that coord_candidacy_next gives. It
/// campaigns by itself for as long as it lives. It keeps its client open.
pub struct coord_candidacy_t;

/// One call: this client leads, and the caller's function is to run until it is done or the term is over. Until it is
/// completed, the store keeps the term for this client's session, and no other call begins.
pub struct coord_elected_t;

pub(crate) struct CandidacyObject(Shared<Candidacy>);

pub(crate) struct ElectedObject(Elected);

object!(CandidacyObject, coord_candidacy_t, 28, "candidacy");
object!(ElectedObject, coord_elected_t, 29, "call of a candidacy");

/// Registers a function that is to run whenever this client leads; the calls come from coord_candidacy_next. No I/O.
/// Campaigns by itself for as long as the candidacy lives: again after every term, through lost sessions and outages of
/// the store. All candidacies of one election in one client share one campaign, hence one place in the queue and one
/// term, and what is published is what the oldest of them `said` (at most 64 KiB, NULL for an empty text). One that is
/// registered while this client leads by such a campaign already has its call at once. Options: "priority" (number) as
/// of coord_election_campaign, the highest of them counts; "keep_on_error" (switch, 0 by default): a call that fails
/// does not end the term; "min_backoff_ms" and "max_backoff_ms" (numbers, 1000 and 60000 by default): after a call that
/// failed this client does not campaign for so long, twice as long after the next, and so on.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_candidacy_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_when_elected(
    election: *mut coord_election_t,
    said: *const c_char,
    said_len: usize,
    options: *mut coord_options_t,
    out: *mut *mut coord_candidacy_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (said, out, err) = unsafe { (Text::lent(said, said_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let election = self::election(election)?;
        let said = if said.is_null() { String::new() } else { said.read("said")? };
        let candidacy = election.when_elected(&said, terms(options)?)?;
        out.put(handle::issue(CandidacyObject(Shared::new("candidacy", candidacy))));
        Ok(())
    })
}

fn terms(options: *mut coord_options_t) -> Result<CandidacyOptions> {
    let mut given = Given::read(options)?;
    let usual = CandidacyOptions::default();
    let terms = CandidacyOptions {
        priority: given.number_as("priority")?.unwrap_or(usual.priority),
        keep_on_error: given.switch("keep_on_error")?.unwrap_or(usual.keep_on_error),
        min_backoff: given.milliseconds("min_backoff_ms")?.unwrap_or(usual.min_backoff),
        max_backoff: given.milliseconds("max_backoff_ms")?.unwrap_or(usual.max_backoff),
    };
    given.finish()?;
    Ok(terms)
}

/// Waits for the next term, and begins the call of the function in it. The next call comes only after this one is
/// completed, in a later term. A call that ends by its time limit or by `cancel` takes none away. COORD_E_CLOSED when
/// the candidacy or the client is closed, or the handle destroyed. Errors of the store that waiting cannot cure are
/// reported here once each time; the campaign goes on, and so may the caller, with the next call.
///
/// @threadsafe yes
/// @blocks until this client leads, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_elected_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_candidacy_next(
    candidacy: *mut coord_candidacy_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_elected_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(next(candidacy)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(ElectedObject(result)));
        Ok(())
    })
}

/// Starts coord_candidacy_next; ends with COORD_EVENT_ELECTED. If the event is destroyed untaken, the call has failed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_candidacy_next_start(
    candidacy: *mut coord_candidacy_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = next(candidacy)?;
        Report { queue, tag, op }.start(COORD_EVENT_ELECTED, limit, future, Payload::Elected)
    })
}

fn next(candidacy: *mut coord_candidacy_t) -> Result<impl Future<Output = Result<Elected>> + Send + 'static> {
    Ok(handle::get::<CandidacyObject>(candidacy)?.0.wait(move |candidacy| async move { candidacy.next().await }))
}

/// Takes the call of a candidacy out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_elected_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_elected(
    event: *mut coord_event_t,
    out: *mut *mut coord_elected_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let elected = handle::get::<EventObject>(event)?.take("call of a candidacy", |payload| match payload {
            Payload::Elected(elected) => Ok(elected),
            other => Err(other),
        })?;
        out.put(handle::issue(ElectedObject(elected)));
        Ok(())
    })
}

/// Ends a candidacy: no other call begins, one that runs finds its term over, and when it was the last candidacy of
/// this client's, the term is resigned as soon as that call is completed. Waits for that; COORD_E_TIMEOUT when it takes
/// longer, and it goes on in the background. Inside a call it would wait for itself: give it a limit of 0 there.
/// Closing twice is no error.
///
/// @threadsafe yes
/// @blocks until its call is completed and the term given back, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_candidacy_close(
    candidacy: *mut coord_candidacy_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait_begun(close(candidacy)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_candidacy_close; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_candidacy_close_start(
    candidacy: *mut coord_candidacy_t,
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
        let future = close(candidacy)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn close(handle: *mut coord_candidacy_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let candidacy = handle::get::<CandidacyObject>(handle)?.0.value().clone();
    Ok(async move {
        candidacy.close();
        candidacy.closed().await;
        Ok(())
    })
}

/// Destroys the handle, and ends the candidacy like coord_candidacy_close, without waiting. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `candidacy`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidacy_destroy(candidacy: *mut coord_candidacy_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<CandidacyObject>(candidacy)?.0.end();
        Ok(())
    });
}

/// The term that the call was begun in, which other functions of this client may share: its end is the function's duty
/// to stop. Destroying the handle does not end it.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_term_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_elected_term(
    elected: *mut coord_elected_t,
    out: *mut *mut coord_term_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let term = handle::get::<ElectedObject>(elected)?.0.term().clone();
        out.put(handle::issue(TermObject::shared(term)));
        Ok(())
    })
}

/// Says that the function has returned: well, with a NULL `error`, which keeps the term until it is lost, resigned, or
/// the candidacy closed; or with an error, which is logged, ends the term unless the candidacy keeps it, and makes this
/// client pause before it campaigns again. COORD_E_NOT_HELD when it was completed before.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_elected_complete(
    elected: *mut coord_elected_t,
    error: *const c_char,
    error_len: usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (error, err) = unsafe { (Text::lent(error, error_len), Out::lent(err)) };
    fallible(err, || {
        let elected = handle::get::<ElectedObject>(elected)?;
        let outcome = if error.is_null() { Ok(()) } else { Err(error.read("error")?) };
        elected.0.complete(outcome)
    })
}

/// Destroys a call. One that was not completed has failed. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `elected`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_elected_destroy(elected: *mut coord_elected_t) {
    quiet(|| handle::take::<ElectedObject>(elected).map(drop));
}
