//! Who leads, and looking on as that changes.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::ptr;

use coord_core::election::{Leader, LeaderEvent, LeaderWatch};
use coord_core::error::{Error, Result};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, empty};
use crate::cancel::coord_cancel_t;
use crate::election::{coord_election_t, election};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_LEADER, COORD_EVENT_LEADER_WATCH, EventObject, Payload, coord_event_t, coord_op_t};
use crate::handle::{self, object};
use crate::labels::Labels;
use crate::queue::{Report, coord_queue_t, wait};
use crate::shared::Shared;

/// Who leads at one moment. What it lends is valid until it is destroyed.
pub struct coord_leader_t;

/// The story of an election. It keeps its client open.
pub struct coord_leader_watch_t;

pub(crate) struct LeaderObject {
    session: Lent,
    name: Lent,
    host: Lent,
    pid: u32,
    labels: Labels,
    value: Option<Lent>,
    token: i64,
    since_ms: i64,
    is_self: bool,
}

pub(crate) struct LeaderWatchObject(Shared<LeaderWatch>);

object!(LeaderObject, coord_leader_t, 25, "leader");
object!(LeaderWatchObject, coord_leader_watch_t, 27, "watch of leaders");

impl LeaderObject {
    pub(crate) fn new(leader: &Leader) -> Self {
        Self {
            session: Lent::new(&leader.session),
            name: Lent::new(&leader.name),
            host: Lent::new(&leader.host),
            pid: leader.pid,
            labels: Labels::new(&leader.labels),
            value: leader.value.as_deref().map(Lent::new),
            token: leader.token,
            since_ms: leader.since_ms,
            is_self: leader.is_self,
        }
    }
}

impl LeaderWatchObject {
    pub(crate) fn new(watch: LeaderWatch) -> Self {
        Self(Shared::new("watch of leaders", watch))
    }
}

/// Takes the leader out of an event, once; `*out` is NULL when nobody leads. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_leader_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_leader(
    event: *mut coord_event_t,
    out: *mut *mut coord_leader_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let leader = handle::get::<EventObject>(event)?.take("leader", |payload| match payload {
            Payload::Leader(leader) => Ok(leader),
            other => Err(other),
        })?;
        out.put(leader.map_or(ptr::null_mut(), |leader| handle::issue(LeaderObject::new(&leader))));
        Ok(())
    })
}

/// The id of the leader's session: 32 hexadecimal digits, new at every start of a client and after every loss.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_session(leader: *const coord_leader_t) -> *const c_char {
    read(leader, empty(), |l| l.session.start())
}

/// The name that the leader's client was given; empty if none was.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_name(leader: *const coord_leader_t) -> *const c_char {
    read(leader, empty(), |l| l.name.start())
}

/// The host that the leader reported.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_host(leader: *const coord_leader_t) -> *const c_char {
    read(leader, empty(), |l| l.host.start())
}

/// The leader's process id on its host; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_pid(leader: *const coord_leader_t) -> u32 {
    read(leader, 0, |l| l.pid)
}

/// How many labels the leader's client was given.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_label_count(leader: *const coord_leader_t) -> usize {
    read(leader, 0, |l| l.labels.count())
}

/// The key of the label at this place, in the order of the keys; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_label_key(leader: *const coord_leader_t, index: usize) -> *const c_char {
    read(leader, empty(), |l| l.labels.key(index))
}

/// The value of the label at this place; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_label_value(leader: *const coord_leader_t, index: usize) -> *const c_char {
    read(leader, empty(), |l| l.labels.value(index))
}

/// 1 if the leader has published a value; 0 in the moment between its win and that.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_has_value(leader: *const coord_leader_t) -> i32 {
    read(leader, 0, |l| i32::from(l.value.is_some()))
}

/// What the leader has published; empty if there is nothing.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_value(leader: *const coord_leader_t) -> *const c_char {
    read(leader, empty(), |l| l.value.as_ref().map_or_else(empty, Lent::start))
}

/// The fencing token of the leader's term; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_token(leader: *const coord_leader_t) -> i64 {
    read(leader, 0, |l| l.token)
}

/// When the term began, in milliseconds since 1970 by the store's clock: for people, never for decisions.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_since_ms(leader: *const coord_leader_t) -> i64 {
    read(leader, 0, |l| l.since_ms)
}

/// 1 if the leader is the client that asked, else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_is_self(leader: *const coord_leader_t) -> i32 {
    read(leader, 0, |l| i32::from(l.is_self))
}

/// Destroys a leader's description and all that it lent; the leader is not affected. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `leader`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_destroy(leader: *mut coord_leader_t) {
    quiet(|| handle::take::<LeaderObject>(leader).map(drop));
}

fn read<T>(leader: *const coord_leader_t, neutral: T, body: impl FnOnce(&LeaderObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<LeaderObject>(leader)?)))
}

/// Observes the election: coord_leader_watch_next gives the present state, then every change, always with a moment of
/// no leader between two terms. The stream of changes is shared by everything that this client observes.
///
/// @threadsafe yes
/// @blocks until it has begun, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_leader_watch_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_observe(
    election: *mut coord_election_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_leader_watch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(observe(election)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(LeaderWatchObject::new(result)));
        Ok(())
    })
}

/// Starts coord_election_observe; ends with COORD_EVENT_LEADER_WATCH.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_election_observe_start(
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
        let future = observe(election)?;
        Report { queue, tag, op }.start(COORD_EVENT_LEADER_WATCH, limit, future, Payload::LeaderWatch)
    })
}

fn observe(handle: *mut coord_election_t) -> Result<impl Future<Output = Result<LeaderWatch>> + Send + 'static> {
    let election = election(handle)?;
    Ok(async move { election.observe().await })
}

/// Takes the watch of leaders out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_leader_watch_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_leader_watch(
    event: *mut coord_event_t,
    out: *mut *mut coord_leader_watch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let watch = handle::get::<EventObject>(event)?.take("watch of leaders", |payload| match payload {
            Payload::LeaderWatch(watch) => Ok(watch),
            other => Err(other),
        })?;
        out.put(handle::issue(LeaderWatchObject::new(watch)));
        Ok(())
    })
}

/// Waits for the next event: `*out` is the leader, who is new or has published another value, or NULL when nobody
/// leads. Goes on through outages of the store; after one, with the state of then. A call that ends by its time limit
/// or by `cancel` takes no event away. COORD_E_CLOSED when the client is closed or the handle destroyed.
///
/// @threadsafe yes
/// @blocks until there is one, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_leader_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_leader_watch_next(
    watch: *mut coord_leader_watch_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_leader_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(next(watch)?, timeout(timeout_ms)?, cancel)?;
        out.put(result.map_or(ptr::null_mut(), |leader| handle::issue(LeaderObject::new(&leader))));
        Ok(())
    })
}

/// Starts coord_leader_watch_next; ends with COORD_EVENT_LEADER. An event of the watch that nobody takes out of it is
/// gone.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_leader_watch_next_start(
    watch: *mut coord_leader_watch_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = next(watch)?;
        Report { queue, tag, op }
            .start(COORD_EVENT_LEADER, limit, future, |leader| Payload::Leader(leader.map(Box::new)))
    })
}

fn next(watch: *mut coord_leader_watch_t) -> Result<impl Future<Output = Result<Option<Leader>>> + Send + 'static> {
    Ok(handle::get::<LeaderWatchObject>(watch)?.0.wait(move |watch| async move {
        match watch.next().await? {
            LeaderEvent::NoLeader => Ok(None),
            LeaderEvent::Leader(leader) => Ok(Some(leader)),
            other => Err(Error::invalid(format!("this interface cannot tell of {other:?}"))),
        }
    }))
}

/// Destroys a watch: calls that wait for its next event end with COORD_E_CLOSED. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `watch`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_leader_watch_destroy(watch: *mut coord_leader_watch_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<LeaderWatchObject>(watch)?.0.end();
        Ok(())
    });
}
