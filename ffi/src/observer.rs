//! Observers: who provides a service now, and the moments when the first provider comes and the last one goes.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::ptr;

use coord_core::error::Result;
use coord_core::observer::{ObserveOptions, Observer, ObserverEvent, ProviderInfo};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{
    COORD_EVENT_DONE, COORD_EVENT_OBSERVED, COORD_EVENT_OBSERVER, EventObject, Payload, coord_event_t, coord_op_t,
};
use crate::handle::{self, Owned, object};
use crate::options::{Given, coord_options_t};
use crate::provided::{ProviderInfoObject, ProviderListObject, coord_provider_info_t, coord_provider_list_t};
use crate::queue::{Report, coord_queue_t, wait};
use crate::shared::Shared;
use crate::text::{NameListObject, coord_name_list_t};

/// There is no such event.
pub const COORD_OBSERVED_NONE: i32 = 0;
/// What follows, up to COORD_OBSERVED_SNAPSHOT_END, leads from what was known to what is true now.
pub const COORD_OBSERVED_SNAPSHOT_START: i32 = 1;
/// The view is complete and up to date.
pub const COORD_OBSERVED_SNAPSHOT_END: i32 = 2;
/// A service has a provider that had none. Comes before that one's COORD_OBSERVED_JOINED.
pub const COORD_OBSERVED_FIRST_UP: i32 = 3;
/// A service has no provider any more. Comes after the last COORD_OBSERVED_LEFT, or "down_grace_ms" later.
pub const COORD_OBSERVED_LAST_DOWN: i32 = 4;
/// A provider has come.
pub const COORD_OBSERVED_JOINED: i32 = 5;
/// A provider has gone: withdrawn, or its session has ended.
pub const COORD_OBSERVED_LEFT: i32 = 6;
/// A provider has other metadata.
pub const COORD_OBSERVED_CHANGED: i32 = 7;

/// The providers of some services, as the store has them. It keeps its client open.
pub struct coord_observer_t;

/// What an observer is told. What it lends is valid until it is destroyed.
pub struct coord_observer_event_t;

pub(crate) struct ObserverObject {
    observer: Shared<Observer>,
    pattern: Lent,
}

pub(crate) struct ObserverEventObject {
    kind: i32,
    service: Lent,
    provider: Option<Owned<ProviderInfoObject>>,
}

object!(ObserverObject, coord_observer_t, 21, "observer");
object!(ObserverEventObject, coord_observer_event_t, 22, "event of an observer");

impl ObserverObject {
    pub(crate) fn new(observer: Observer) -> Self {
        let pattern = Lent::new(&observer.pattern());
        Self { observer: Shared::new("observer", observer), pattern }
    }
}

impl Drop for ObserverObject {
    fn drop(&mut self) {
        self.observer.value().close();
    }
}

impl ObserverEventObject {
    pub(crate) fn new(event: &ObserverEvent) -> Self {
        let about = |kind, provider: &ProviderInfo| Self {
            kind,
            service: Lent::new(&provider.service),
            provider: Some(Owned::new(ProviderInfoObject::new(provider))),
        };
        match event {
            ObserverEvent::SnapshotStart => Self::plain(COORD_OBSERVED_SNAPSHOT_START, ""),
            ObserverEvent::SnapshotEnd => Self::plain(COORD_OBSERVED_SNAPSHOT_END, ""),
            ObserverEvent::FirstUp(provider) => about(COORD_OBSERVED_FIRST_UP, provider),
            ObserverEvent::LastDown { service } => Self::plain(COORD_OBSERVED_LAST_DOWN, service),
            ObserverEvent::Joined(provider) => about(COORD_OBSERVED_JOINED, provider),
            ObserverEvent::Left(provider) => about(COORD_OBSERVED_LEFT, provider),
            ObserverEvent::Changed(provider) => about(COORD_OBSERVED_CHANGED, provider),
        }
    }

    fn plain(kind: i32, service: &str) -> Self {
        Self { kind, service: Lent::new(service), provider: None }
    }
}

/// Observes the service of this name, "name", "scope/name" or "namespace/scope/name"; or, with a star in the place of
/// the last part, all services of a scope. Succeeds when the first view is complete. However many observers a client
/// has, they share one stream of changes from the store. Options: "down_grace_ms" (number, 0 by default) is how long a
/// COORD_OBSERVED_LAST_DOWN is held back; it is dropped, with the COORD_OBSERVED_FIRST_UP that would follow it, when a
/// provider is back in time.
///
/// @threadsafe yes
/// @blocks until the first view is complete, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_observer_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_observe(
    client: *mut coord_client_t,
    pattern: *const c_char,
    pattern_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_observer_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (pattern, out, err) = unsafe { (Text::lent(pattern, pattern_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(observe(client, pattern, options)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(ObserverObject::new(result)));
        Ok(())
    })
}

/// Starts coord_client_observe; ends with COORD_EVENT_OBSERVER.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_observe_start(
    client: *mut coord_client_t,
    pattern: *const c_char,
    pattern_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (pattern, op, err) = unsafe { (Text::lent(pattern, pattern_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = observe(client, pattern, options)?;
        Report { queue, tag, op }.start(COORD_EVENT_OBSERVER, limit, future, Payload::Observer)
    })
}

fn observe(
    handle: *mut coord_client_t,
    pattern: Text,
    options: *mut coord_options_t,
) -> Result<impl Future<Output = Result<Observer>> + Send + 'static> {
    let client = client(handle)?;
    let pattern = pattern.read("pattern")?;
    let mut given = Given::read(options)?;
    let mut options = ObserveOptions::default();
    options.down_grace = given.milliseconds("down_grace_ms")?.unwrap_or(options.down_grace);
    given.finish()?;
    Ok(async move { client.observe(&pattern, options).await })
}

/// Takes the observer out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_observer_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_observer(
    event: *mut coord_event_t,
    out: *mut *mut coord_observer_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let observer = handle::get::<EventObject>(event)?.take("observer", |payload| match payload {
            Payload::Observer(observer) => Ok(observer),
            other => Err(other),
        })?;
        out.put(handle::issue(ObserverObject::new(observer)));
        Ok(())
    })
}

/// What is observed, in full: "namespace/scope/name", or a star in the place of the last part; valid until the handle
/// is destroyed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_observer_pattern(observer: *mut coord_observer_t) -> *const c_char {
    read(observer, empty(), |o| o.pattern.start())
}

/// 1 if the view follows the store at this moment, 0 during an interruption, when it shows what was true before it.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_observer_is_synced(observer: *mut coord_observer_t) -> i32 {
    read(observer, 0, |o| i32::from(o.observer.value().synced()))
}

fn read<T>(observer: *mut coord_observer_t, neutral: T, body: impl FnOnce(&ObserverObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<ObserverObject>(observer)?)))
}

/// Whether the service has a provider now, by the latest view: `*available` is 1 or 0. "down_grace_ms" is not waited
/// for. `service` may be NULL where one service is observed, and stands for that one. COORD_E_INVALID_ARGUMENT for a
/// service that is not observed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_is_available(
    observer: *mut coord_observer_t,
    service: *const c_char,
    service_len: usize,
    available: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, out, err) = unsafe { (Text::lent(service, service_len), Out::lent(available), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("available")?;
        let observer = handle::get::<ObserverObject>(observer)?;
        out.put(i32::from(observer.observer.value().is_available(&named(service)?)?));
        Ok(())
    })
}

/// The full names of the services that have a provider now, in order.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_name_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_services(
    observer: *mut coord_observer_t,
    out: *mut *mut coord_name_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let observer = handle::get::<ObserverObject>(observer)?;
        out.put(handle::issue(NameListObject::new(&observer.observer.value().services()?)));
        Ok(())
    })
}

/// The providers of a service now, in the order of their sessions and instances. `service` may be NULL where one
/// service is observed, and stands for that one.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_provider_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_providers(
    observer: *mut coord_observer_t,
    service: *const c_char,
    service_len: usize,
    out: *mut *mut coord_provider_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, out, err) = unsafe { (Text::lent(service, service_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let observer = handle::get::<ObserverObject>(observer)?;
        out.put(handle::issue(ProviderListObject::new(&observer.observer.value().providers(&named(service)?)?)));
        Ok(())
    })
}

/// No name stands for the one service that is observed.
fn named(service: Text) -> Result<String> {
    if service.is_null() { Ok(String::new()) } else { service.read("service") }
}

/// Waits until the service has a provider. `service` may be NULL where one service is observed, and stands for that
/// one. COORD_E_CLOSED when the observer or the client is closed, or the handle destroyed.
///
/// @threadsafe yes
/// @blocks until it is so, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_wait_available(
    observer: *mut coord_observer_t,
    service: *const c_char,
    service_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, err) = unsafe { (Text::lent(service, service_len), Out::lent(err)) };
    fallible(err, || wait(wait_available(observer, service, timeout_ms)?, None, cancel))
}

/// Starts coord_observer_wait_available; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_wait_available_start(
    observer: *mut coord_observer_t,
    service: *const c_char,
    service_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, op, err) = unsafe { (Text::lent(service, service_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = wait_available(observer, service, timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn wait_available(
    observer: *mut coord_observer_t,
    service: Text,
    timeout_ms: i64,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let observer = handle::get::<ObserverObject>(observer)?;
    let (service, limit) = (named(service)?, timeout(timeout_ms)?);
    Ok(observer.observer.wait(move |observer| async move { observer.wait_available(&service, limit).await }))
}

/// Waits until the service has no provider. `service` may be NULL where one service is observed, and stands for that
/// one. COORD_E_CLOSED when the observer or the client is closed, or the handle destroyed.
///
/// @threadsafe yes
/// @blocks until it is so, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_wait_unavailable(
    observer: *mut coord_observer_t,
    service: *const c_char,
    service_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, err) = unsafe { (Text::lent(service, service_len), Out::lent(err)) };
    fallible(err, || wait(wait_unavailable(observer, service, timeout_ms)?, None, cancel))
}

/// Starts coord_observer_wait_unavailable; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_wait_unavailable_start(
    observer: *mut coord_observer_t,
    service: *const c_char,
    service_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, op, err) = unsafe { (Text::lent(service, service_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = wait_unavailable(observer, service, timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn wait_unavailable(
    observer: *mut coord_observer_t,
    service: Text,
    timeout_ms: i64,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let observer = handle::get::<ObserverObject>(observer)?;
    let (service, limit) = (named(service)?, timeout(timeout_ms)?);
    Ok(observer.observer.wait(move |observer| async move { observer.wait_unavailable(&service, limit).await }))
}

/// The next event. The first are a bracket: COORD_OBSERVED_SNAPSHOT_START, a COORD_OBSERVED_FIRST_UP and
/// COORD_OBSERVED_JOINED for what is there, COORD_OBSERVED_SNAPSHOT_END; after an interruption there is another one,
/// with the difference between what was known and what is true now. One who is slow is told less: of each service what
/// is true now, and where thousands of events wait, a bracket in the place of all; but never two COORD_OBSERVED_FIRST_UP
/// or two COORD_OBSERVED_LAST_DOWN of one service in a row. A call that ends by its time limit or by `cancel` takes no
/// event away. COORD_E_CLOSED when the observer or the client is closed, or the handle destroyed.
///
/// @threadsafe yes
/// @blocks until there is one, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_observer_event_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_next(
    observer: *mut coord_observer_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_observer_event_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(next(observer)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(ObserverEventObject::new(&result)));
        Ok(())
    })
}

/// Starts coord_observer_next; ends with COORD_EVENT_OBSERVED. An event of the observer that nobody takes out of it is
/// gone.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_next_start(
    observer: *mut coord_observer_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = next(observer)?;
        Report { queue, tag, op }
            .start(COORD_EVENT_OBSERVED, limit, future, |event| Payload::ObserverEvent(Box::new(event)))
    })
}

fn next(observer: *mut coord_observer_t) -> Result<impl Future<Output = Result<ObserverEvent>> + Send + 'static> {
    Ok(handle::get::<ObserverObject>(observer)?.observer.wait(move |observer| async move { observer.next().await }))
}

/// Takes the event of an observer out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_observer_event_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_observer_event(
    event: *mut coord_event_t,
    out: *mut *mut coord_observer_event_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let told = handle::get::<EventObject>(event)?.take("event of an observer", |payload| match payload {
            Payload::ObserverEvent(told) => Ok(told),
            other => Err(other),
        })?;
        out.put(handle::issue(ObserverEventObject::new(&told)));
        Ok(())
    })
}

/// Ends an observer: calls that wait on it end with COORD_E_CLOSED. Closing twice is no error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_observer_close(
    observer: *mut coord_observer_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        handle::get::<ObserverObject>(observer)?.observer.value().close();
        Ok(())
    })
}

/// Destroys the handle, and ends the observer. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `observer`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_observer_destroy(observer: *mut coord_observer_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<ObserverObject>(observer)?.observer.end();
        Ok(())
    });
}

/// What has happened (COORD_OBSERVED_...); COORD_OBSERVED_NONE for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_observer_event_type(event: *const coord_observer_event_t) -> i32 {
    read_event(event, COORD_OBSERVED_NONE, |e| e.kind)
}

/// The full name of the service that the event is about; empty for the ends of a bracket.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_observer_event_service(event: *const coord_observer_event_t) -> *const c_char {
    read_event(event, empty(), |e| e.service.start())
}

/// The provider that the event is about; NULL for the ends of a bracket and for COORD_OBSERVED_LAST_DOWN. Belongs to
/// the event.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_observer_event_provider(event: *const coord_observer_event_t) -> *const coord_provider_info_t {
    read_event(event, ptr::null(), |e| e.provider.as_ref().map_or(ptr::null(), Owned::handle))
}

/// Destroys an event of an observer and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `event`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_observer_event_destroy(event: *mut coord_observer_event_t) {
    quiet(|| handle::take::<ObserverEventObject>(event).map(drop));
}

fn read_event<T>(event: *const coord_observer_event_t, neutral: T, body: impl FnOnce(&ObserverEventObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<ObserverEventObject>(event)?)))
}
