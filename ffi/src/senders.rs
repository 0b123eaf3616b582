//! What sends the mails of an outbox, and who watches them.
#![allow(unsafe_code)]

use std::future::Future;
use std::sync::Arc;

use coord_core::error::Result;
use coord_core::mail::{OutboxWatch, Senders};

use crate::boundary::{fallible, quiet, timeout};
use crate::bytes::Out;
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, COORD_EVENT_TEXT, Payload, coord_op_t};
use crate::handle::{self, object};
use crate::outbox::{coord_outbox_t, outbox};
use crate::queue::{Report, coord_queue_t, wait, wait_begun};
use crate::shared::Shared;
use crate::text::{TextObject, coord_text_t};

/// What happens in an outbox, event by event. It keeps its client open.
pub struct coord_outbox_watch_t;

/// What sends the mails of an outbox in this process.
pub struct coord_senders_t;

pub(crate) struct OutboxWatchObject(Shared<OutboxWatch>);

pub(crate) struct SendersObject(Arc<Senders>);

object!(OutboxWatchObject, coord_outbox_watch_t, 53, "watch of an outbox");
object!(SendersObject, coord_senders_t, 54, "senders");

/// A watch of every mail of the outbox, whatever process changes it. It begins with the first coord_outbox_watch_next,
/// whose event is a gap.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_outbox_watch_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_watch_new(
    outbox: *mut coord_outbox_t,
    out: *mut *mut coord_outbox_watch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let watch = self::outbox(outbox)?.watch();
        out.put(handle::issue(OutboxWatchObject(Shared::new("watch of an outbox", watch))));
        Ok(())
    })
}

/// Waits for the next event: `{"event": "gap"}` (changes may be missing: list what is there),
/// `{"event": "mail", "mail": {...}}` or `{"event": "purged", "id": ...}`. COORD_E_CLOSED when the client is closed, or the
/// handle destroyed.
///
/// @threadsafe yes
/// @blocks until there is one, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_text_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_watch_next(
    watch: *mut coord_outbox_watch_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_text_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let text = wait(op_watch_next(watch)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(TextObject::new(&text)));
        Ok(())
    })
}

/// Starts coord_outbox_watch_next; ends with COORD_EVENT_TEXT.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_watch_next_start(
    watch: *mut coord_outbox_watch_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_watch_next(watch)?);
        Report { queue, tag, op }.start(COORD_EVENT_TEXT, limit, future, |text| Payload::Text(Some(text)))
    })
}

fn op_watch_next(watch: *mut coord_outbox_watch_t) -> Result<impl Future<Output = Result<String>> + Send + 'static> {
    let watch = handle::get::<OutboxWatchObject>(watch)?;
    Ok(watch.0.wait(|watch| async move { Ok(watch.next().await?.to_json()) }))
}

/// Ends a watch, also a wait for its next event. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `watch`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_outbox_watch_destroy(watch: *mut coord_outbox_watch_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<OutboxWatchObject>(watch)?.0.end();
        Ok(())
    });
}

/// Starts to send the mails of an outbox, up to so many at a time, from 1 to 32. Other processes may do the same: each
/// mail is sent by one of them.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_senders_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_outbox_start(
    outbox: *mut coord_outbox_t,
    senders: u32,
    out: *mut *mut coord_senders_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let started = self::outbox(outbox)?.start(senders as usize)?;
        out.put(handle::issue(SendersObject(Arc::new(started))));
        Ok(())
    })
}

/// Begins nothing new, and waits until what has begun is finished and recorded. COORD_E_CLOSED if the mailer or
/// the client was closed before: then they had ended without it, and the mails wait in the outbox for other senders.
///
/// @threadsafe yes
/// @blocks until nothing is being sent, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_senders_stop(
    senders: *mut coord_senders_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait_begun(op_stop(senders)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_senders_stop; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_senders_stop_start(
    senders: *mut coord_senders_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_stop(senders)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_stop(senders: *mut coord_senders_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let senders = handle::get::<SendersObject>(senders)?.0.clone();
    Ok(async move { senders.stop().await })
}

/// Destroys senders: what has begun is finished in the background, and nothing new is begun. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `senders`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_senders_destroy(senders: *mut coord_senders_t) {
    quiet(|| handle::take::<SendersObject>(senders).map(drop));
}
