//! Providers: a process says that it offers a service, for as long as its session lives.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;

use coord_core::error::{LossReason, Result};
use coord_core::provider::{ProvideOptions, Provider, ProviderEvent};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{COORD_LOSS_NONE, coord_error_t, coord_status_t};
use crate::event::{
    COORD_EVENT_DONE, COORD_EVENT_PROVIDER, COORD_EVENT_PROVIDER_CHANGED, EventObject, Payload, coord_event_t,
    coord_op_t,
};
use crate::handle::{self, object};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait, wait_begun};
use crate::shared::Shared;
use crate::text::{TextObject, coord_text_t};

/// It is registered: observers see it.
pub const COORD_PROVIDER_REGISTERED: i32 = 1;
/// Its session is lost: observers see, or will see, it leave.
pub const COORD_PROVIDER_LOST: i32 = 2;
/// It is registered again, under a new session.
pub const COORD_PROVIDER_REREGISTERED: i32 = 3;
/// It was closed, or its client was; or its session was lost and it was not to be registered again. The last event.
pub const COORD_PROVIDER_CLOSED: i32 = 4;

/// A service that this client provides. Destroying it withdraws it in the background. It keeps its client open.
pub struct coord_provider_t;

pub(crate) struct ProviderObject {
    provider: Shared<Provider>,
    service: Lent,
    instance_id: Lent,
}

object!(ProviderObject, coord_provider_t, 18, "provider");

impl ProviderObject {
    pub(crate) fn new(provider: Provider) -> Self {
        let (service, instance_id) = (Lent::new(provider.service()), Lent::new(provider.instance_id()));
        Self { provider: Shared::new("provider", provider), service, instance_id }
    }
}

/// Says that this process provides a service, with metadata for those who look for one: an address, say, of at most 4
/// KiB; NULL for none. Succeeds when observers can see it. One write. After a lost session it is registered again under
/// the client's next session by itself. COORD_E_ALREADY_EXISTS if this client provides the service under this instance
/// id already; COORD_E_QUEUE_FULL beyond 1000 providers or 1 MiB of metadata in one session. Options: "instance_id"
/// (text) tells the providers of one service in one session apart, random by default; "reregister" (switch, 1 by
/// default).
///
/// @threadsafe yes
/// @blocks until it is registered, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_provider_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_provide(
    client: *mut coord_client_t,
    service: *const c_char,
    service_len: usize,
    metadata: *const c_char,
    metadata_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_provider_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, metadata, out, err) = unsafe {
        (Text::lent(service, service_len), Text::lent(metadata, metadata_len), Out::lent(out), Out::lent(err))
    };
    fallible(err, || {
        let out = out.required("out")?;
        let result = wait(provide(client, service, metadata, options)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(ProviderObject::new(result)));
        Ok(())
    })
}

/// Starts coord_client_provide; ends with COORD_EVENT_PROVIDER. If the event is destroyed untaken, the provider is
/// withdrawn.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_provide_start(
    client: *mut coord_client_t,
    service: *const c_char,
    service_len: usize,
    metadata: *const c_char,
    metadata_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (service, metadata, op, err) = unsafe {
        (Text::lent(service, service_len), Text::lent(metadata, metadata_len), Out::lent(op), Out::lent(err))
    };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = provide(client, service, metadata, options)?;
        Report { queue, tag, op }.start(COORD_EVENT_PROVIDER, limit, future, Payload::Provider)
    })
}

fn provide(
    handle: *mut coord_client_t,
    service: Text,
    metadata: Text,
    options: *mut coord_options_t,
) -> Result<impl Future<Output = Result<Provider>> + Send + 'static> {
    let client = client(handle)?;
    let service = service.read("service")?;
    let metadata = if metadata.is_null() { String::new() } else { metadata.read("metadata")? };
    let mut given = Given::read(options)?;
    let mut options = ProvideOptions::default();
    options.instance_id = given.text("instance_id")?;
    options.reregister = given.switch("reregister")?.unwrap_or(options.reregister);
    given.finish()?;
    Ok(async move { client.provide(&service, &metadata, options).await })
}

/// Takes the provider out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_provider_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_provider(
    event: *mut coord_event_t,
    out: *mut *mut coord_provider_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let provider = handle::get::<EventObject>(event)?.take("provider", |payload| match payload {
            Payload::Provider(provider) => Ok(provider),
            other => Err(other),
        })?;
        out.put(handle::issue(ProviderObject::new(provider)));
        Ok(())
    })
}

/// The full name of the service, "namespace/scope/name"; valid until the handle is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_service(provider: *mut coord_provider_t) -> *const c_char {
    read(provider, empty(), |p| p.service.start())
}

/// What tells it apart from other providers of the service in this session; valid until the handle is destroyed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_instance_id(provider: *mut coord_provider_t) -> *const c_char {
    read(provider, empty(), |p| p.instance_id.start())
}

/// 1 if it is registered under a session that is not lost, else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_is_registered(provider: *mut coord_provider_t) -> i32 {
    read(provider, 0, |p| i32::from(p.provider.value().is_registered()))
}

/// The metadata that was given last.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_provider_metadata(
    provider: *mut coord_provider_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let metadata = handle::get::<ProviderObject>(provider)?.provider.value().metadata();
        out.put(handle::issue(TextObject::new(&metadata)));
        Ok(())
    })
}

fn read<T>(provider: *mut coord_provider_t, neutral: T, body: impl FnOnce(&ProviderObject) -> T) -> T {
    value(neutral, || Ok(body(&*handle::get::<ProviderObject>(provider)?)))
}

/// Replaces the metadata. Succeeds when observers can see it. One write. COORD_E_CLOSED after coord_provider_close.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_provider_update(
    provider: *mut coord_provider_t,
    metadata: *const c_char,
    metadata_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (metadata, err) = unsafe { (Text::lent(metadata, metadata_len), Out::lent(err)) };
    fallible(err, || wait(update(provider, metadata)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_provider_update; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_provider_update_start(
    provider: *mut coord_provider_t,
    metadata: *const c_char,
    metadata_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (metadata, op, err) = unsafe { (Text::lent(metadata, metadata_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = update(provider, metadata)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn update(
    provider: *mut coord_provider_t,
    metadata: Text,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let provider = handle::get::<ProviderObject>(provider)?;
    let metadata = metadata.read("metadata")?;
    Ok(provider.provider.wait(move |provider| async move { provider.update(&metadata).await }))
}

/// The next event of a provider: `*type` is COORD_PROVIDER_..., and `*loss`, which may be NULL, says why for
/// COORD_PROVIDER_LOST. The first is COORD_PROVIDER_REGISTERED. A call that ends by its time limit or by `cancel` takes
/// none away. COORD_E_CLOSED after the last, and when the handle is destroyed.
///
/// @threadsafe yes
/// @blocks until there is one, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_provider_next(
    provider: *mut coord_provider_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    r#type: *mut i32,
    loss: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (kind, loss, err) = unsafe { (Out::lent(r#type), Out::lent(loss), Out::lent(err)) };
    fallible(err, || {
        let kind = kind.required("type")?;
        tell(&wait(next(provider)?, timeout(timeout_ms)?, cancel)?, kind, loss);
        Ok(())
    })
}

/// Starts coord_provider_next; ends with COORD_EVENT_PROVIDER_CHANGED. An event of the provider that nobody takes out
/// of it is gone.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_provider_next_start(
    provider: *mut coord_provider_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let next = next(provider)?;
        Report { queue, tag, op }.start(COORD_EVENT_PROVIDER_CHANGED, None, next, Payload::ProviderEvent)
    })
}

fn next(provider: *mut coord_provider_t) -> Result<impl Future<Output = Result<ProviderEvent>> + Send + 'static> {
    Ok(handle::get::<ProviderObject>(provider)?.provider.wait(move |provider| async move { provider.next().await }))
}

fn tell(event: &ProviderEvent, kind: Out<i32>, loss: Out<i32>) {
    let (number, reason) = match event {
        ProviderEvent::Registered => (COORD_PROVIDER_REGISTERED, None),
        ProviderEvent::Lost(reason) => (COORD_PROVIDER_LOST, Some(*reason)),
        ProviderEvent::Reregistered => (COORD_PROVIDER_REREGISTERED, None),
        ProviderEvent::Closed => (COORD_PROVIDER_CLOSED, None),
    };
    kind.put(number);
    loss.put(reason.map_or(COORD_LOSS_NONE, |reason: LossReason| reason as i32));
}

/// Takes what has happened to a provider out of an event, once: as coord_provider_next. For an operation that failed,
/// its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_provider_event(
    event: *mut coord_event_t,
    r#type: *mut i32,
    loss: *mut i32,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (kind, loss, err) = unsafe { (Out::lent(r#type), Out::lent(loss), Out::lent(err)) };
    fallible(err, || {
        let kind = kind.required("type")?;
        let told = handle::get::<EventObject>(event)?.take("event of a provider", |payload| match payload {
            Payload::ProviderEvent(told) => Ok(told),
            other => Err(other),
        })?;
        tell(&told, kind, loss);
        Ok(())
    })
}

/// Withdraws a provider. Succeeds when observers can see that. Closing twice is no error. When the call ends by an
/// error of the store, COORD_E_TIMEOUT or COORD_E_CANCELLED, it goes on in the background.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_provider_close(
    provider: *mut coord_provider_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait_begun(close(provider)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_provider_close; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_provider_close_start(
    provider: *mut coord_provider_t,
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
        let future = close(provider)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn close(provider: *mut coord_provider_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let provider = handle::get::<ProviderObject>(provider)?.provider.value().clone();
    Ok(async move { provider.close().await })
}

/// Destroys the handle. If the provider was not closed, it is withdrawn in the background. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `provider`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_provider_destroy(provider: *mut coord_provider_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<ProviderObject>(provider)?.provider.end();
        Ok(())
    });
}
