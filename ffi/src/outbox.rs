//! The outbox: mails in the store, which any process sends. Mails, statistics and events cross as JSON.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::time::Duration;

use coord_core::error::Result;
use coord_core::mail::{EnqueueOptions, MailState, Message, Outbox, OutboxOptions};
use serde_json::json;

use crate::boundary::{fallible, quiet, timeout};
use crate::bytes::{Out, Text};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, COORD_EVENT_TEXT, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::mail::{coord_mailer_t, mailer, settings};
use crate::queue::{Report, coord_queue_t, wait};
use crate::text::{TextObject, coord_text_t};

/// Mails on their way. It keeps its client open.
pub struct coord_outbox_t;

pub(crate) struct OutboxObject(Outbox);

object!(OutboxObject, coord_outbox_t, 52, "outbox");

/// The outbox behind a handle.
///
/// # Errors
/// `Handle`.
pub(crate) fn outbox(handle: *const coord_outbox_t) -> Result<Outbox> {
    Ok(handle::get::<OutboxObject>(handle)?.0.clone())
}

/// The outbox of this name, whose mails go through this mailer. `options` is NULL, or a JSON object of options:
/// `{"on_doubt": "park", "rate": "100/m"}`; docs/mail.md has them. Nothing is sent before coord_outbox_start. No I/O.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_outbox_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_new(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    mailer: *mut coord_mailer_t,
    options: *const c_char,
    options_len: usize,
    out: *mut *mut coord_outbox_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, options) = unsafe { (Text::lent(name, name_len), Text::lent(options, options_len)) };
    // SAFETY: the same.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let mut parsed = OutboxOptions::default();
        if !options.is_null() {
            for (name, value) in settings(&options.read("options")?)? {
                parsed.set(&name, &value)?;
            }
        }
        let outbox = self::client(client)?.outbox(&name.read("name")?, &self::mailer(mailer)?, parsed)?;
        out.put(handle::issue(OutboxObject(outbox)));
        Ok(())
    })
}

/// Puts a mail into the outbox, in one write, if there is none with its key; `key` may be NULL, and then each is
/// another. `not_before_ms` and `expires_ms` are in milliseconds since 1970, or 0. `*out` becomes JSON: `id`, and `new`,
/// which is false if there was one with this key. COORD_E_INVALID_ARGUMENT names the field of the message; after
/// COORD_E_OUTCOME_UNKNOWN enqueue it again with the same key.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_enqueue(
    outbox: *mut coord_outbox_t,
    message: *const c_char,
    message_len: usize,
    key: *const c_char,
    key_len: usize,
    not_before_ms: i64,
    expires_ms: i64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let message = unsafe { Text::lent(message, message_len) };
    // SAFETY: as every export, see lib.rs.
    let key = unsafe { Text::lent(key, key_len) };
    // SAFETY: the same.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let text = wait(op_enqueue(outbox, message, key, not_before_ms, expires_ms)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(TextObject::new(&text)));
        Ok(())
    })
}

/// Starts coord_outbox_enqueue; ends with COORD_EVENT_TEXT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_enqueue_start(
    outbox: *mut coord_outbox_t,
    message: *const c_char,
    message_len: usize,
    key: *const c_char,
    key_len: usize,
    not_before_ms: i64,
    expires_ms: i64,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let message = unsafe { Text::lent(message, message_len) };
    // SAFETY: as every export, see lib.rs.
    let key = unsafe { Text::lent(key, key_len) };
    // SAFETY: the same.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_enqueue(outbox, message, key, not_before_ms, expires_ms)?);
        Report { queue, tag, op }.start(COORD_EVENT_TEXT, limit, future, |text| Payload::Text(Some(text)))
    })
}

fn op_enqueue(
    outbox: *mut coord_outbox_t,
    message: Text,
    key: Text,
    not_before_ms: i64,
    expires_ms: i64,
) -> Result<impl Future<Output = Result<String>> + Send + 'static> {
    let outbox = self::outbox(outbox)?;
    let message = Message::from_json(&message.read_long("message")?)?;
    let key = if key.is_null() { None } else { Some(key.read("key")?) };
    let some = |ms: i64| (ms != 0).then_some(ms);
    let options = EnqueueOptions { key, not_before_ms: some(not_before_ms), expires_ms: some(expires_ms) };
    Ok(async move {
        let enqueued = outbox.enqueue(&message, options).await?;
        Ok(json!({"id": enqueued.id, "new": enqueued.new}).to_string())
    })
}

/// The mail with this id as JSON, or NULL if there is none.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_get(
    outbox: *mut coord_outbox_t,
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let id = unsafe { Text::lent(id, id_len) };
    // SAFETY: the same.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let sent = wait(op_get(outbox, id)?, timeout(timeout_ms)?, cancel)?;
        out.put(sent.map_or(std::ptr::null_mut(), |text| handle::issue(TextObject::new(&text))));
        Ok(())
    })
}

/// Starts coord_outbox_get; ends with COORD_EVENT_TEXT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_get_start(
    outbox: *mut coord_outbox_t,
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let id = unsafe { Text::lent(id, id_len) };
    // SAFETY: the same.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_get(outbox, id)?);
        Report { queue, tag, op }.start(COORD_EVENT_TEXT, limit, future, Payload::Text)
    })
}

fn op_get(
    outbox: *mut coord_outbox_t,
    id: Text,
) -> Result<impl Future<Output = Result<Option<String>>> + Send + 'static> {
    let (outbox, id) = (self::outbox(outbox)?, id.read("id")?);
    Ok(async move { Ok(outbox.get(&id).await?.map(|mail| mail.to_json())) })
}

/// Mails in this state ("queued", "sending", "sent", "failed", "parked", "expired", "cancelled"; NULL: in any), oldest
/// first, at most so many, as a JSON list.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_list(
    outbox: *mut coord_outbox_t,
    state: *const c_char,
    state_len: usize,
    limit: u64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let state = unsafe { Text::lent(state, state_len) };
    // SAFETY: the same.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let text = wait(op_list(outbox, state, limit)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(TextObject::new(&text)));
        Ok(())
    })
}

/// Starts coord_outbox_list; ends with COORD_EVENT_TEXT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_list_start(
    outbox: *mut coord_outbox_t,
    state: *const c_char,
    state_len: usize,
    limit: u64,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let state = unsafe { Text::lent(state, state_len) };
    // SAFETY: the same.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_list(outbox, state, limit)?);
        Report { queue, tag, op }.start(COORD_EVENT_TEXT, limit, future, |text| Payload::Text(Some(text)))
    })
}

fn op_list(
    outbox: *mut coord_outbox_t,
    state: Text,
    limit: u64,
) -> Result<impl Future<Output = Result<String>> + Send + 'static> {
    let outbox = self::outbox(outbox)?;
    let state = if state.is_null() { None } else { Some(MailState::from_name(&state.read("state")?)?) };
    Ok(async move {
        let mails: Vec<_> = outbox.list(state, limit).await?.iter().map(|mail| mail.to_value()).collect();
        Ok(serde_json::Value::from(mails).to_string())
    })
}

/// How many mails are in each state: a JSON object of numbers.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_stats(
    outbox: *mut coord_outbox_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let text = wait(op_stats(outbox)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(TextObject::new(&text)));
        Ok(())
    })
}

/// Starts coord_outbox_stats; ends with COORD_EVENT_TEXT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_stats_start(
    outbox: *mut coord_outbox_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_stats(outbox)?);
        Report { queue, tag, op }.start(COORD_EVENT_TEXT, limit, future, |text| Payload::Text(Some(text)))
    })
}

fn op_stats(outbox: *mut coord_outbox_t) -> Result<impl Future<Output = Result<String>> + Send + 'static> {
    let outbox = self::outbox(outbox)?;
    Ok(async move { Ok(outbox.stats().await?.to_json()) })
}

/// Sends a mail (again) that has failed, is parked or waits for its time, at once. A second copy can come of it.
/// COORD_E_NOT_FOUND; COORD_E_CONFLICT for other states.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_retry(
    outbox: *mut coord_outbox_t,
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let id = unsafe { Text::lent(id, id_len) };
    // SAFETY: the same.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(op_retry(outbox, id)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_outbox_retry; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_retry_start(
    outbox: *mut coord_outbox_t,
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let id = unsafe { Text::lent(id, id_len) };
    // SAFETY: the same.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_retry(outbox, id)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_retry(outbox: *mut coord_outbox_t, id: Text) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let (outbox, id) = (self::outbox(outbox)?, id.read("id")?);
    Ok(async move { outbox.retry(&id).await })
}

/// Takes back a mail that is queued or parked. It stays, so that its key stays used, until it is purged.
/// COORD_E_NOT_FOUND; COORD_E_CONFLICT for other states.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_cancel(
    outbox: *mut coord_outbox_t,
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let id = unsafe { Text::lent(id, id_len) };
    // SAFETY: the same.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(op_cancel(outbox, id)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_outbox_cancel; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_cancel_start(
    outbox: *mut coord_outbox_t,
    id: *const c_char,
    id_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let id = unsafe { Text::lent(id, id_len) };
    // SAFETY: the same.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_cancel(outbox, id)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_cancel(outbox: *mut coord_outbox_t, id: Text) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let (outbox, id) = (self::outbox(outbox)?, id.read("id")?);
    Ok(async move { outbox.cancel(&id).await })
}

/// Removes mails that came to their end so long ago; `*out` becomes their number. After that their keys are accepted
/// again.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_purge(
    outbox: *mut coord_outbox_t,
    older_than_ms: u64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let text = wait(op_purge(outbox, older_than_ms)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(TextObject::new(&text)));
        Ok(())
    })
}

/// Starts coord_outbox_purge; ends with COORD_EVENT_TEXT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_purge_start(
    outbox: *mut coord_outbox_t,
    older_than_ms: u64,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_purge(outbox, older_than_ms)?);
        Report { queue, tag, op }.start(COORD_EVENT_TEXT, limit, future, |text| Payload::Text(Some(text)))
    })
}

fn op_purge(
    outbox: *mut coord_outbox_t,
    older_than_ms: u64,
) -> Result<impl Future<Output = Result<String>> + Send + 'static> {
    let outbox = self::outbox(outbox)?;
    Ok(async move { Ok(outbox.purge(Duration::from_millis(older_than_ms)).await?.to_string()) })
}

/// Destroys the handle of an outbox; its senders go on until theirs are. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `outbox`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_outbox_destroy(outbox: *mut coord_outbox_t) {
    quiet(|| handle::take::<OutboxObject>(outbox).map(drop));
}
