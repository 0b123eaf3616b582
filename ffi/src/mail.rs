//! Mail: a mailer, and batches of messages. Messages and reports cross as JSON.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::future::Future;
use std::time::Duration;

use coord_core::driver::CancelToken;
use coord_core::error::{Error, Result};
use coord_core::mail::{Batch, Mailer, MailerOptions, Message, Sent};
use serde_json::{Value, json};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::{coord_cancel_t, token};
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, COORD_EVENT_TEXT, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait};
use crate::shared::Shared;
use crate::text::{TextObject, coord_text_t};

/// A mail server to send through.
pub struct coord_mailer_t;

/// Messages that are being sent.
pub struct coord_mail_batch_t;

pub(crate) struct MailerObject {
    mailer: Mailer,
    location: Lent,
}

pub(crate) struct MailBatchObject(Shared<Batch>);

object!(MailerObject, coord_mailer_t, 50, "mailer");
object!(MailBatchObject, coord_mail_batch_t, 51, "batch of messages");

/// The mailer behind a handle.
///
/// # Errors
/// `Handle`.
pub(crate) fn mailer(handle: *const coord_mailer_t) -> Result<Mailer> {
    Ok(handle::get::<MailerObject>(handle)?.mailer.clone())
}

/// A mailer for the server at this URL: "smtp://user:password@host:587" with STARTTLS, "smtps://..." with TLS from the
/// first byte; docs/mail.md has the options. `options` is NULL, or a JSON object of options by their names in the URL,
/// `{"sender": "shop@example.org", "timeout": "30s"}`, which win over the URL's. `client` may be NULL: a mailer needs no
/// store, and outlives its client. No I/O.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_mailer_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_new(
    client: *mut coord_client_t,
    url: *const c_char,
    url_len: usize,
    options: *const c_char,
    options_len: usize,
    out: *mut *mut coord_mailer_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (url, options) = unsafe { (Text::lent(url, url_len), Text::lent(options, options_len)) };
    // SAFETY: the same.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let mut parsed = MailerOptions::parse(&url.read("url")?)?;
        if !options.is_null() {
            for (name, value) in settings(&options.read("options")?)? {
                parsed.set(&name, &value)?;
            }
        }
        let mailer = if client.is_null() { Mailer::new(parsed)? } else { self::client(client)?.mailer_with(parsed)? };
        let location = Lent::new(&mailer.location());
        out.put(handle::issue(MailerObject { mailer, location }));
        Ok(())
    })
}

/// Options in JSON; a number is its text.
pub(crate) fn settings(text: &str) -> Result<BTreeMap<String, String>> {
    let wrong = || Error::invalid("options is a JSON object of texts and numbers");
    let parsed: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
    let text = |(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(number) => Ok((name, number.to_string())),
        _ => Err(wrong()),
    };
    parsed.into_iter().map(text).collect()
}

/// Where the server is, "smtp://host:port", without user and password; valid until the mailer is destroyed, empty for
/// NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_mailer_location(mailer: *const coord_mailer_t) -> *const c_char {
    value(empty(), || Ok(handle::get::<MailerObject>(mailer)?.location.start()))
}

/// Sends a message, given as JSON (docs/mail.md has its fields):
/// `{"to": "ann@example.org", "subject": "Hello", "text": "..."}`. `*out` becomes the report, JSON with what the server
/// said about each recipient, also where it refused all of them. COORD_E_INVALID_ARGUMENT names the field, and nothing
/// was sent; COORD_E_OUTCOME_UNKNOWN when all of it was sent and the server's answer did not come.
///
/// The mailer's own option "timeout" bounds the call as well as `timeout_ms`. Whichever ends it, or `cancel`: the report is
/// given where the server has answered for somebody. COORD_E_TIMEOUT and COORD_E_CANCELLED say that nothing was sent; once
/// all of the message has left, it is COORD_E_OUTCOME_UNKNOWN.
///
/// @threadsafe yes
/// @blocks until sent, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_send(
    mailer: *mut coord_mailer_t,
    message: *const c_char,
    message_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (message, out, err) = unsafe { (Text::lent(message, message_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let (message, limit) = (Sending::of(mailer, message)?, timeout(timeout_ms)?);
        let report = wait(message.within(limit, token(cancel)?), None, std::ptr::null_mut())?;
        out.put(handle::issue(TextObject::new(&report)));
        Ok(())
    })
}

/// Starts coord_mailer_send; ends with COORD_EVENT_TEXT. coord_op_cancel ends it as `cancel` does there.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_send_start(
    mailer: *mut coord_mailer_t,
    message: *const c_char,
    message_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (message, op, err) = unsafe { (Text::lent(message, message_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, message) = (timeout(timeout_ms)?, Sending::of(mailer, message)?);
        let stop = CancelToken::new();
        let sending = message.within(limit, Some(stop.clone()));
        let report = |report| Payload::Text(Some(report));
        Report { queue, tag, op }.start_heeding(COORD_EVENT_TEXT, stop, sending, report)
    })
}

/// A message and what sends it.
struct Sending(Mailer, Message);

impl Sending {
    fn of(handle: *mut coord_mailer_t, message: Text) -> Result<Self> {
        Ok(Self(mailer(handle)?, Message::from_json(&message.read_long("message")?)?))
    }

    /// The limit and the token are the sending's own to heed: what the server has of the message says how it ends.
    async fn within(self, limit: Option<Duration>, cancel: Option<CancelToken>) -> Result<String> {
        Ok(self.0.send_within(&self.1, limit, cancel.as_ref()).await?.to_json())
    }
}

/// Begins to send messages, a JSON list of them, as many at a time as the mailer has connections. What becomes of each
/// is taken with coord_mail_batch_next. Destroying the batch ends it: what has not begun is not sent.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_mail_batch_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_send_many(
    mailer: *mut coord_mailer_t,
    messages: *const c_char,
    messages_len: usize,
    out: *mut *mut coord_mail_batch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (messages, out, err) = unsafe { (Text::lent(messages, messages_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let mailer = self::mailer(mailer)?;
        let messages = Message::list_from_json(&messages.read_long("messages")?)?;
        out.put(handle::issue(MailBatchObject(Shared::new("batch of messages", mailer.send_many(messages)))));
        Ok(())
    })
}

/// How many messages the batch has; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_mail_batch_total(batch: *const coord_mail_batch_t) -> usize {
    value(0, || Ok(handle::get::<MailBatchObject>(batch)?.0.value().total()))
}

/// Waits for the next message of the batch that has ended, in whatever order. `*out` becomes JSON: `index`, the
/// message's place in the list, and either `report` or `error` (with `code`, `name`, `message` and `retryable`); or
/// NULL when all have ended. COORD_E_CLOSED when the handle is destroyed.
///
/// @threadsafe yes
/// @blocks until the next has ended, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mail_batch_next(
    batch: *mut coord_mail_batch_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let sent = wait(next(batch)?, timeout(timeout_ms)?, cancel)?;
        out.put(sent.map_or(std::ptr::null_mut(), |sent| handle::issue(TextObject::new(&sent))));
        Ok(())
    })
}

/// Starts coord_mail_batch_next; ends with COORD_EVENT_TEXT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mail_batch_next_start(
    batch: *mut coord_mail_batch_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, next) = (timeout(timeout_ms)?, next(batch)?);
        Report { queue, tag, op }.start(COORD_EVENT_TEXT, limit, next, Payload::Text)
    })
}

fn next(batch: *mut coord_mail_batch_t) -> Result<impl Future<Output = Result<Option<String>>> + Send + 'static> {
    let batch = handle::get::<MailBatchObject>(batch)?;
    Ok(batch.0.wait(|batch| async move { Ok(batch.next().await?.map(sent_json)) }))
}

fn sent_json(sent: Sent) -> String {
    match sent.result {
        Ok(report) => json!({"index": sent.index, "report": report.to_value()}).to_string(),
        Err(error) => json!({
            "index": sent.index,
            "error": {
                "code": error.code().number(),
                "name": error.code().name(),
                "message": error.message(),
                "retryable": error.retryable(),
            },
        })
        .to_string(),
    }
}

/// Destroys a batch: what has not begun is not sent. Also while another thread waits for the next. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `batch`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_mail_batch_destroy(batch: *mut coord_mail_batch_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<MailBatchObject>(batch)?.0.end();
        Ok(())
    });
}

/// Connects, logs in, and asks the server whether it answers. COORD_E_UNAVAILABLE when it does not,
/// COORD_E_UNAUTHORIZED for the login or the server's certificate, COORD_E_UNSUPPORTED when it offers no encryption or
/// no login that is wanted.
///
/// @threadsafe yes
/// @blocks until the server answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_health(
    mailer: *mut coord_mailer_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        let mailer = self::mailer(mailer)?;
        wait(async move { mailer.health().await }, timeout(timeout_ms)?, cancel)
    })
}

/// Starts coord_mailer_health; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_health_start(
    mailer: *mut coord_mailer_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, mailer) = (timeout(timeout_ms)?, self::mailer(mailer)?);
        let asking = async move { mailer.health().await };
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, asking, |()| Payload::Nothing)
    })
}

/// Closes a mailer: refuses new messages, waits for those that are being sent, and says goodbye to the server. Closing
/// twice is no error.
///
/// @threadsafe yes
/// @blocks until closed, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; the handle is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_close(
    mailer: *mut coord_mailer_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        let mailer = self::mailer(mailer)?;
        wait(async move { mailer.close().await }, timeout(timeout_ms)?, cancel)
    })
}

/// Starts coord_mailer_close; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_mailer_close_start(
    mailer: *mut coord_mailer_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, mailer) = (timeout(timeout_ms)?, self::mailer(mailer)?);
        let closing = async move { mailer.close().await };
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, closing, |()| Payload::Nothing)
    })
}

/// Destroys the handle of a mailer. What is being sent goes on; its unused connections end with the last handle. NULL
/// is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `mailer`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_mailer_destroy(mailer: *mut coord_mailer_t) {
    quiet(|| handle::take::<MailerObject>(mailer).map(drop));
}
