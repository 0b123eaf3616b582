//! Owners: the sessions that are alive, what they hold and provide, and watching them come and go.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::ptr;

use coord_core::error::{HolderState, Result};
use coord_core::owner::{Owner, OwnerEvent, OwnerWatch};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{
    COORD_EVENT_OWNER, COORD_EVENT_OWNER_WATCH, COORD_EVENT_OWNERS, EventObject, Payload, coord_event_t, coord_op_t,
};
use crate::handle::{self, Owned, object};
use crate::labels::Labels;
use crate::listing::{COORD_HOLDER_LIVE, state_number};
use crate::queue::{Report, coord_queue_t, wait};
use crate::shared::Shared;

/// There is no such event.
pub const COORD_OWNER_NONE: i32 = 0;
/// What follows, up to COORD_OWNER_SNAPSHOT_END, leads from what was known to what is true now.
pub const COORD_OWNER_SNAPSHOT_START: i32 = 1;
/// The view is complete and up to date.
pub const COORD_OWNER_SNAPSHOT_END: i32 = 2;
/// A session is there.
pub const COORD_OWNER_JOINED: i32 = 3;
/// A session was closed by its owner.
pub const COORD_OWNER_LEFT: i32 = 4;
/// A session was declared dead by another.
pub const COORD_OWNER_EXPIRED: i32 = 5;

/// The sessions that were alive at one moment. What it lends is valid until it is destroyed.
pub struct coord_owner_list_t;

/// A session. Belongs to the list or the event that lends it; what it lends lives as long.
pub struct coord_owner_t;

/// Sessions as they come and go. It keeps its client open.
pub struct coord_owner_watch_t;

/// What a watch of owners tells. What it lends is valid until it is destroyed.
pub struct coord_owner_event_t;

pub(crate) struct OwnerListObject(Vec<Owned<OwnerObject>>);

pub(crate) struct OwnerObject {
    session: Lent,
    name: Lent,
    host: Lent,
    pid: u32,
    labels: Labels,
    since_ms: i64,
    last_renewal_ms: i64,
    state: HolderState,
    holds: Vec<Lent>,
    provides: Vec<Lent>,
}

pub(crate) struct OwnerWatchObject(Shared<OwnerWatch>);

pub(crate) struct OwnerEventObject {
    kind: i32,
    owner: Option<Owned<OwnerObject>>,
}

object!(OwnerListObject, coord_owner_list_t, 14, "list of owners");
object!(OwnerObject, coord_owner_t, 15, "owner");
object!(OwnerWatchObject, coord_owner_watch_t, 16, "watch of owners");
object!(OwnerEventObject, coord_owner_event_t, 17, "event of an owner");

impl OwnerListObject {
    pub(crate) fn new(owners: &[Owner]) -> Self {
        Self(owners.iter().map(|owner| Owned::new(OwnerObject::new(owner))).collect())
    }
}

impl OwnerObject {
    fn new(owner: &Owner) -> Self {
        let lent = |names: &[String]| names.iter().map(|name| Lent::new(name)).collect();
        Self {
            session: Lent::new(&owner.session),
            name: Lent::new(&owner.name),
            host: Lent::new(&owner.host),
            pid: owner.pid,
            labels: Labels::new(&owner.labels),
            since_ms: owner.since_ms,
            last_renewal_ms: owner.last_renewal_ms,
            state: owner.state,
            holds: lent(&owner.holds),
            provides: lent(&owner.provides),
        }
    }
}

impl OwnerWatchObject {
    pub(crate) fn new(watch: OwnerWatch) -> Self {
        Self(Shared::new("watch of owners", watch))
    }
}

impl OwnerEventObject {
    pub(crate) fn new(event: &OwnerEvent) -> Self {
        let (kind, owner) = match event {
            OwnerEvent::SnapshotStart => (COORD_OWNER_SNAPSHOT_START, None),
            OwnerEvent::SnapshotEnd => (COORD_OWNER_SNAPSHOT_END, None),
            OwnerEvent::Joined(owner) => (COORD_OWNER_JOINED, Some(owner)),
            OwnerEvent::Left(owner) => (COORD_OWNER_LEFT, Some(owner)),
            OwnerEvent::Expired(owner) => (COORD_OWNER_EXPIRED, Some(owner)),
        };
        Self { kind, owner: owner.map(|owner| Owned::new(OwnerObject::new(owner))) }
    }
}

/// Lists the sessions that are alive, in the order of their ids, with what they hold and provide. Two reads.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_owner_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_owners(
    client: *mut coord_client_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_owner_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(owners(client)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(OwnerListObject::new(&result)));
        Ok(())
    })
}

/// Starts coord_client_owners; ends with COORD_EVENT_OWNERS.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_owners_start(
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
        let future = owners(client)?;
        Report { queue, tag, op }.start(COORD_EVENT_OWNERS, limit, future, Payload::Owners)
    })
}

fn owners(handle: *mut coord_client_t) -> Result<impl Future<Output = Result<Vec<Owner>>> + Send + 'static> {
    let client = client(handle)?;
    Ok(async move { client.owners().await })
}

/// Takes the list of owners out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_owner_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_owners(
    event: *mut coord_event_t,
    out: *mut *mut coord_owner_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let owners = handle::get::<EventObject>(event)?.take("list of owners", |payload| match payload {
            Payload::Owners(owners) => Ok(owners),
            other => Err(other),
        })?;
        out.put(handle::issue(OwnerListObject::new(&owners)));
        Ok(())
    })
}

/// How many sessions there are in the list; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_list_count(list: *const coord_owner_list_t) -> usize {
    read_list(list, 0, |l| l.0.len())
}

/// The session at this place; NULL beyond the end. Belongs to the list.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_list_at(list: *const coord_owner_list_t, index: usize) -> *const coord_owner_t {
    read_list(list, ptr::null(), |l| l.0.get(index).map_or(ptr::null(), Owned::handle))
}

/// Destroys a list and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `list`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_list_destroy(list: *mut coord_owner_list_t) {
    quiet(|| handle::take::<OwnerListObject>(list).map(drop));
}

/// The id of the session: 32 hexadecimal digits, new at every start of a client and after every loss.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_session(owner: *const coord_owner_t) -> *const c_char {
    read(owner, empty(), |o| o.session.start())
}

/// The name that its client was given; empty if none was.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_name(owner: *const coord_owner_t) -> *const c_char {
    read(owner, empty(), |o| o.name.start())
}

/// The host that it reported.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_host(owner: *const coord_owner_t) -> *const c_char {
    read(owner, empty(), |o| o.host.start())
}

/// Its process id on its host; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_pid(owner: *const coord_owner_t) -> u32 {
    read(owner, 0, |o| o.pid)
}

/// How many labels its client was given.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_label_count(owner: *const coord_owner_t) -> usize {
    read(owner, 0, |o| o.labels.count())
}

/// The key of the label at this place, in the order of the keys; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_label_key(owner: *const coord_owner_t, index: usize) -> *const c_char {
    read(owner, empty(), |o| o.labels.key(index))
}

/// The value of the label at this place; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_label_value(owner: *const coord_owner_t, index: usize) -> *const c_char {
    read(owner, empty(), |o| o.labels.value(index))
}

/// When the session was opened, in milliseconds since 1970 by the store's clock: for people, never for decisions.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_since_ms(owner: *const coord_owner_t) -> i64 {
    read(owner, 0, |o| o.since_ms)
}

/// When the session was renewed last as far as this client has read, likewise.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_last_renewal_ms(owner: *const coord_owner_t) -> i64 {
    read(owner, 0, |o| o.last_renewal_ms)
}

/// What this client has observed of the session (COORD_HOLDER_...).
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_state(owner: *const coord_owner_t) -> i32 {
    read(owner, COORD_HOLDER_LIVE, |o| state_number(o.state))
}

/// How much it holds. In the events of a watch: what it held when the watch read it, nothing for one that has just
/// joined.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_hold_count(owner: *const coord_owner_t) -> usize {
    read(owner, 0, |o| o.holds.len())
}

/// What it holds, in order: the full key "kind/namespace/scope/name", e.g. "lock/default/default/a"; empty beyond the
/// end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_hold(owner: *const coord_owner_t, index: usize) -> *const c_char {
    read(owner, empty(), |o| o.holds.get(index).map_or_else(empty, Lent::start))
}

/// How many services it provides.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_service_count(owner: *const coord_owner_t) -> usize {
    read(owner, 0, |o| o.provides.len())
}

/// The full name of a service that it provides, in order, once each; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_service(owner: *const coord_owner_t, index: usize) -> *const c_char {
    read(owner, empty(), |o| o.provides.get(index).map_or_else(empty, Lent::start))
}

fn read<T>(owner: *const coord_owner_t, neutral: T, body: impl FnOnce(&OwnerObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<OwnerObject>(owner)?)))
}

fn read_list<T>(list: *const coord_owner_list_t, neutral: T, body: impl FnOnce(&OwnerListObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<OwnerListObject>(list)?)))
}

/// Watches sessions come and go. The first events are a bracket: COORD_OWNER_SNAPSHOT_START, one COORD_OWNER_JOINED for
/// each session that is there, COORD_OWNER_SNAPSHOT_END. After an interruption there is another one, with the
/// difference between what was known and what is true now.
///
/// @threadsafe yes
/// @blocks until the watch has begun, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_owner_watch_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_watch_owners(
    client: *mut coord_client_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_owner_watch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(watch_owners(client)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(OwnerWatchObject::new(result)));
        Ok(())
    })
}

/// Starts coord_client_watch_owners; ends with COORD_EVENT_OWNER_WATCH.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_watch_owners_start(
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
        let future = watch_owners(client)?;
        Report { queue, tag, op }.start(COORD_EVENT_OWNER_WATCH, limit, future, Payload::OwnerWatch)
    })
}

fn watch_owners(handle: *mut coord_client_t) -> Result<impl Future<Output = Result<OwnerWatch>> + Send + 'static> {
    let client = client(handle)?;
    Ok(async move { client.watch_owners().await })
}

/// Takes the watch of owners out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_owner_watch_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_owner_watch(
    event: *mut coord_event_t,
    out: *mut *mut coord_owner_watch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let watch = handle::get::<EventObject>(event)?.take("watch of owners", |payload| match payload {
            Payload::OwnerWatch(watch) => Ok(watch),
            other => Err(other),
        })?;
        out.put(handle::issue(OwnerWatchObject::new(watch)));
        Ok(())
    })
}

/// The next event of the watch. A call that ends by its time limit or by `cancel` takes none away. COORD_E_CLOSED when
/// the watch or the client is closed, or the handle destroyed.
///
/// @threadsafe yes
/// @blocks until there is one, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_owner_event_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_owner_watch_next(
    watch: *mut coord_owner_watch_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_owner_event_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(next(watch)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(OwnerEventObject::new(&result)));
        Ok(())
    })
}

/// Starts coord_owner_watch_next; ends with COORD_EVENT_OWNER. An event of the watch that nobody takes out of it is
/// gone.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_owner_watch_next_start(
    watch: *mut coord_owner_watch_t,
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
        Report { queue, tag, op }.start(COORD_EVENT_OWNER, limit, future, |event| Payload::OwnerEvent(Box::new(event)))
    })
}

fn next(watch: *mut coord_owner_watch_t) -> Result<impl Future<Output = Result<OwnerEvent>> + Send + 'static> {
    Ok(handle::get::<OwnerWatchObject>(watch)?.0.wait(move |watch| async move { watch.next().await }))
}

/// Takes the event of an owner out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_owner_event_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_owner_event(
    event: *mut coord_event_t,
    out: *mut *mut coord_owner_event_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let told = handle::get::<EventObject>(event)?.take("event of an owner", |payload| match payload {
            Payload::OwnerEvent(told) => Ok(told),
            other => Err(other),
        })?;
        out.put(handle::issue(OwnerEventObject::new(&told)));
        Ok(())
    })
}

/// Destroys a watch: calls that wait for its next event end with COORD_E_CLOSED. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `watch`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_watch_destroy(watch: *mut coord_owner_watch_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<OwnerWatchObject>(watch)?.0.end();
        Ok(())
    });
}

/// What has happened (COORD_OWNER_...); COORD_OWNER_NONE for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_event_type(event: *const coord_owner_event_t) -> i32 {
    read_event(event, COORD_OWNER_NONE, |e| e.kind)
}

/// The session that the event is about; NULL for the ends of a bracket. Belongs to the event.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_event_owner(event: *const coord_owner_event_t) -> *const coord_owner_t {
    read_event(event, ptr::null(), |e| e.owner.as_ref().map_or(ptr::null(), Owned::handle))
}

/// Destroys an event of a watch and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `event`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_owner_event_destroy(event: *mut coord_owner_event_t) {
    quiet(|| handle::take::<OwnerEventObject>(event).map(drop));
}

fn read_event<T>(event: *const coord_owner_event_t, neutral: T, body: impl FnOnce(&OwnerEventObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<OwnerEventObject>(event)?)))
}
