//! Elections: campaigning for a term, who leads, and who waits to.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::ptr;

use coord_core::election::{CampaignOptions, Candidate, Election, Leader, Term};
use coord_core::error::Result;

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{
    COORD_EVENT_CANDIDATES, COORD_EVENT_LEADER, COORD_EVENT_TERM, EventObject, Payload, coord_event_t, coord_op_t,
};
use crate::handle::{self, object};
use crate::leader::{LeaderObject, coord_leader_t};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait};
use crate::term::{TermObject, coord_term_t};

/// An election by its name. Nothing is asked for before somebody campaigns or observes. It keeps its client open.
pub struct coord_election_t;

/// Who waits to lead, in the order in which they would win, at one moment. What it lends is valid until it is
/// destroyed.
pub struct coord_candidate_list_t;

pub(crate) struct ElectionObject {
    election: Election,
    name: Lent,
}

pub(crate) struct CandidateListObject(Vec<CandidateEntry>);

struct CandidateEntry {
    session: Lent,
    name: Lent,
    host: Lent,
    pid: u32,
    priority: i32,
    is_self: bool,
}

object!(ElectionObject, coord_election_t, 23, "election");
object!(CandidateListObject, coord_candidate_list_t, 26, "list of candidates");

impl CandidateListObject {
    pub(crate) fn new(candidates: &[Candidate]) -> Self {
        let entry = |candidate: &Candidate| CandidateEntry {
            session: Lent::new(&candidate.session),
            name: Lent::new(&candidate.name),
            host: Lent::new(&candidate.host),
            pid: candidate.pid,
            priority: candidate.priority,
            is_self: candidate.is_self,
        };
        Self(candidates.iter().map(entry).collect())
    }
}

/// The election behind a handle.
///
/// # Errors
/// `Handle`.
pub(crate) fn election(handle: *mut coord_election_t) -> Result<Election> {
    Ok(handle::get::<ElectionObject>(handle)?.election.clone())
}

/// The election of this name: "name", "scope/name" or "namespace/scope/name", as of a lock. No I/O.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_election_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_new(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    out: *mut *mut coord_election_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, out, err) = unsafe { (Text::lent(name, name_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let election = self::client(client)?.election(&name.read("name")?)?;
        let name = Lent::new(election.name().as_str());
        out.put(handle::issue(ElectionObject { election, name }));
        Ok(())
    })
}

/// The full name of the election, "namespace/scope/name"; valid until the handle is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_election_name(election: *mut coord_election_t) -> *const c_char {
    value(empty(), || Ok(handle::get::<ElectionObject>(election)?.name.start()))
}

/// Campaigns until this client leads, and publishes what is `said`, at most 64 KiB, NULL for an empty text. Waits its
/// turn, also through outages of the store, for up to `timeout_ms`: -1 for ever, 0 does not wait, like
/// coord_election_try_campaign. A call that fails leaves nothing behind. COORD_E_LOST if the session died while
/// waiting; the next call uses a new one. Options: "priority" (number, -2048 to 2047, 0 by default): of those who wait,
/// the highest wins the next term. A leader is not pushed out by a higher one, and a low one can wait for ever.
///
/// @threadsafe yes
/// @blocks until it leads, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_term_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_campaign(
    election: *mut coord_election_t,
    said: *const c_char,
    said_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_term_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (said, out, err) = unsafe { (Text::lent(said, said_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(campaign(election, said, options, timeout_ms)?, None, cancel)?;
        out.put(handle::issue(TermObject::new(result)));
        Ok(())
    })
}

/// Starts coord_election_campaign; ends with COORD_EVENT_TERM. If the event is destroyed untaken, the term is resigned.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_campaign_start(
    election: *mut coord_election_t,
    said: *const c_char,
    said_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (said, op, err) = unsafe { (Text::lent(said, said_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let future = campaign(election, said, options, timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_TERM, None, future, Payload::Term)
    })
}

/// Campaigns if nobody leads and nobody waits; else COORD_E_CONTENDED, whose error names the leader.
/// COORD_E_UNAVAILABLE while the store cannot be reached.
///
/// @threadsafe yes
/// @blocks until the store answers
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_term_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_try_campaign(
    election: *mut coord_election_t,
    said: *const c_char,
    said_len: usize,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_term_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: the same arguments.
    unsafe { coord_election_campaign(election, said, said_len, ptr::null_mut(), 0, cancel, out, err) }
}

fn campaign(
    handle: *mut coord_election_t,
    said: Text,
    options: *mut coord_options_t,
    timeout_ms: i64,
) -> Result<impl Future<Output = Result<Term>> + Send + 'static> {
    let election = election(handle)?;
    let said = if said.is_null() { String::new() } else { said.read("said")? };
    let mut given = Given::read(options)?;
    let priority = given.number_as("priority")?.unwrap_or_default();
    given.finish()?;
    let options = CampaignOptions { priority, timeout: timeout(timeout_ms)? };
    Ok(async move { election.campaign_with(&said, options).await })
}

/// Takes the term out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_term_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_term(
    event: *mut coord_event_t,
    out: *mut *mut coord_term_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let term = handle::get::<EventObject>(event)?.take("term", |payload| match payload {
            Payload::Term(term) => Ok(term),
            other => Err(other),
        })?;
        out.put(handle::issue(TermObject::new(term)));
        Ok(())
    })
}

/// 1 if this client leads now: it has a term that is valid at this moment. Reads a clock and nothing else. 0 otherwise.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_election_is_leader(election: *mut coord_election_t) -> i32 {
    value(0, || Ok(i32::from(self::election(election)?.is_leader())))
}

/// Who leads at this moment; `*out` is NULL when nobody does. One or two reads, which may be a moment old: what a
/// leader itself goes by is coord_term_check.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_leader_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_leader(
    election: *mut coord_election_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_leader_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(leader(election)?, timeout(timeout_ms)?, cancel)?;
        out.put(result.map_or(ptr::null_mut(), |leader| handle::issue(LeaderObject::new(&leader))));
        Ok(())
    })
}

/// Starts coord_election_leader; ends with COORD_EVENT_LEADER.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_leader_start(
    election: *mut coord_election_t,
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
        let future = leader(election)?;
        Report { queue, tag, op }
            .start(COORD_EVENT_LEADER, limit, future, |leader| Payload::Leader(leader.map(Box::new)))
    })
}

fn leader(handle: *mut coord_election_t) -> Result<impl Future<Output = Result<Option<Leader>>> + Send + 'static> {
    let election = election(handle)?;
    Ok(async move { election.leader().await })
}

/// Lists who waits to lead, in the order in which they would win. One or two reads.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_candidate_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_candidates(
    election: *mut coord_election_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_candidate_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(candidates(election)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(CandidateListObject::new(&result)));
        Ok(())
    })
}

/// Starts coord_election_candidates; ends with COORD_EVENT_CANDIDATES.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_candidates_start(
    election: *mut coord_election_t,
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
        let future = candidates(election)?;
        Report { queue, tag, op }.start(COORD_EVENT_CANDIDATES, limit, future, Payload::Candidates)
    })
}

fn candidates(handle: *mut coord_election_t) -> Result<impl Future<Output = Result<Vec<Candidate>>> + Send + 'static> {
    let election = election(handle)?;
    Ok(async move { election.candidates().await })
}

/// Takes the list of candidates out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_candidate_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_candidates(
    event: *mut coord_event_t,
    out: *mut *mut coord_candidate_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let candidates = handle::get::<EventObject>(event)?.take("list of candidates", |payload| match payload {
            Payload::Candidates(candidates) => Ok(candidates),
            other => Err(other),
        })?;
        out.put(handle::issue(CandidateListObject::new(&candidates)));
        Ok(())
    })
}

/// Destroys the handle of an election. Terms, candidacies and started operations of it go on. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `election`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_election_destroy(election: *mut coord_election_t) {
    quiet(|| handle::take::<ElectionObject>(election).map(drop));
}

/// How many candidates there are in the list; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_count(list: *const coord_candidate_list_t) -> usize {
    value(0, || Ok(handle::get::<CandidateListObject>(list)?.0.len()))
}

/// The id of the session of the candidate at this place, for coord_term_transfer; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_session(list: *const coord_candidate_list_t, index: usize) -> *const c_char {
    entry(list, index, empty(), |candidate| candidate.session.start())
}

/// The name that the candidate's client was given; empty if none was, and beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_name(list: *const coord_candidate_list_t, index: usize) -> *const c_char {
    entry(list, index, empty(), |candidate| candidate.name.start())
}

/// The host that the candidate at this place reported.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_host(list: *const coord_candidate_list_t, index: usize) -> *const c_char {
    entry(list, index, empty(), |candidate| candidate.host.start())
}

/// The process id of the candidate at this place, on its host.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_pid(list: *const coord_candidate_list_t, index: usize) -> u32 {
    entry(list, index, 0, |candidate| candidate.pid)
}

/// The priority of the candidate at this place.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_priority(list: *const coord_candidate_list_t, index: usize) -> i32 {
    entry(list, index, 0, |candidate| candidate.priority)
}

/// 1 if the candidate at this place is the client that asked, else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_is_self(list: *const coord_candidate_list_t, index: usize) -> i32 {
    entry(list, index, 0, |candidate| i32::from(candidate.is_self))
}

fn entry<T: Copy>(
    list: *const coord_candidate_list_t,
    index: usize,
    neutral: T,
    body: impl FnOnce(&CandidateEntry) -> T,
) -> T {
    value(neutral, || Ok(handle::get::<CandidateListObject>(list)?.0.get(index).map_or(neutral, body)))
}

/// Destroys a list and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `list`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_candidate_list_destroy(list: *mut coord_candidate_list_t) {
    quiet(|| handle::take::<CandidateListObject>(list).map(drop));
}
