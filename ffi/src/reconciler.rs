//! Reconcilers: a function of the caller's that is to run for every key that changes, in the form of runs that are taken
//! one by one.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coord_core::error::{Code, Error, Result};
use coord_core::reconciler::{Mode, Rate, ReconcileOptions, Reconciler, Request};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::cancel::coord_cancel_t;
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{
    COORD_EVENT_DONE, COORD_EVENT_RECONCILER, COORD_EVENT_WORK, EventObject, Payload, coord_event_t, coord_op_t,
};
use crate::format::Format;
use crate::handle::{self, object};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait, wait_begun};
use crate::shared::Shared;
use crate::source::{coord_source_t, source};
use crate::work::{WorkObject, coord_work_t};

/// A function that is to run for every key of a source, and again for every key that changes: here in the form of runs
/// that coord_reconciler_next gives. It keeps its client open.
pub struct coord_reconciler_t;

pub(crate) struct ReconcilerObject {
    reconciler: Shared<Reconciler>,
    format: Format,
    name: Lent,
}

object!(ReconcilerObject, coord_reconciler_t, 46, "reconciler");

/// A reconciler, and the form in which its keys and documents cross.
pub(crate) struct Begun {
    reconciler: Reconciler,
    format: Format,
}

/// A run that was begun, and the form in which its key and document cross.
pub(crate) struct Run {
    pub(crate) request: Request,
    pub(crate) format: Format,
}

impl ReconcilerObject {
    fn new(Begun { reconciler, format }: Begun) -> Self {
        let name = Lent::new(reconciler.name());
        Self { reconciler: Shared::new("reconciler", reconciler), format, name }
    }

    pub(crate) fn shared(&self) -> &Shared<Reconciler> {
        &self.reconciler
    }

    pub(crate) fn reconciler(&self) -> &Arc<Reconciler> {
        self.reconciler.value()
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }
}

/// Starts a reconciler of this name ("name", "scope/name" or "namespace/scope/name"). Succeeds when it follows its source;
/// its runs are then taken with coord_reconciler_next. `format` (COORD_FORMAT_...) is that of its keys and documents.
/// Reconcilers of one source have each a queue of their own; the name tells which are replicas of each other, for the
/// modes "leader" and "sharded".
///
/// Options: "workers" (number, 1 by default) is how many runs may be out at a time. "mode" (text): "all", the default,
/// runs every key in every replica; "leader" in the elected one; "sharded" divides the keys into "shards" (number, 64 by
/// default, the same for all replicas for ever), each of which one replica has. "backoff_min_ms" and "backoff_max_ms"
/// (numbers, 5 and 1000000 by default): how long a key waits after an error, twice as long after each further one.
/// "rate_per_second" (a number, or a text such as "0.5") is how many runs may begin in a second, without a limit by
/// default, and "rate_burst" (number, 1 by default) how many at once. "resync_ms" (number, at least 1000, never by
/// default): how often every key is run although nothing has changed. "move_grace_ms" (number, 10000 by default): how long
/// a run may go on when its shard is to move to another replica, before it is asked to stop.
///
/// COORD_E_INVALID_ARGUMENT also for another number of shards than this reconciler began with, and for keys that are
/// added by hand in another mode than "all"; COORD_E_UNSUPPORTED if the store cannot watch.
///
/// @threadsafe yes
/// @blocks until the source is followed, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_reconciler_destroy; `source` and `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_reconcile(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    source: *mut coord_source_t,
    format: i32,
    options: *mut coord_options_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_reconciler_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, out, err) = unsafe { (Text::lent(name, name_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let begun = wait(reconcile(client, name, source, format, options)?, timeout(timeout_ms)?, cancel)?;
        out.put(handle::issue(ReconcilerObject::new(begun)));
        Ok(())
    })
}

/// Starts coord_client_reconcile; ends with COORD_EVENT_RECONCILER.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_client_reconcile_start(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    source: *mut coord_source_t,
    format: i32,
    options: *mut coord_options_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, op, err) = unsafe { (Text::lent(name, name_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = timeout(timeout_ms)?;
        let future = reconcile(client, name, source, format, options)?;
        Report { queue, tag, op }
            .start(COORD_EVENT_RECONCILER, limit, future, |begun| Payload::Reconciler(Box::new(begun)))
    })
}

fn reconcile(
    handle: *mut coord_client_t,
    name: Text,
    source: *mut coord_source_t,
    format: i32,
    options: *mut coord_options_t,
) -> Result<impl Future<Output = Result<Begun>> + Send + 'static> {
    let client = client(handle)?;
    let (source, name, format) = (self::source(source)?, name.read("name")?, Format::numbered(format)?);
    let options = reconcile_options(options)?;
    Ok(async move { Ok(Begun { reconciler: client.reconcile(&name, source, options).await?, format }) })
}

fn reconcile_options(options: *mut coord_options_t) -> Result<ReconcileOptions> {
    let mut given = Given::read(options)?;
    let usual = ReconcileOptions::default();
    let shards = given.number_as("shards")?;
    let mode = match (given.text("mode")?.as_deref(), shards) {
        (Some("sharded"), Some(shards)) => Mode::Sharded { shards },
        (Some("sharded"), None) => Mode::SHARDED,
        (_, Some(_)) => return Err(Error::invalid("only a reconciler of the mode 'sharded' has shards")),
        (None, None) => usual.mode,
        (Some("all"), None) => Mode::All,
        (Some("leader"), None) => Mode::Leader,
        (Some(other), None) => {
            return Err(Error::invalid(format!("the option 'mode' is all, leader or sharded, not '{other}'")));
        }
    };
    let burst = given.number_as("rate_burst")?;
    let rate = match (given.decimal("rate_per_second")?, burst) {
        (Some(per_second), burst) => Some(Rate { per_second, burst: burst.unwrap_or(1) }),
        (None, None) => usual.rate,
        (None, Some(_)) => return Err(Error::invalid("a 'rate_burst' needs a 'rate_per_second'")),
    };
    let mut backoff = usual.backoff;
    backoff.min = given.milliseconds("backoff_min_ms")?.unwrap_or(backoff.min);
    backoff.max = given.milliseconds("backoff_max_ms")?.unwrap_or(backoff.max);
    let options = ReconcileOptions {
        workers: given.number_as("workers")?.unwrap_or(usual.workers),
        mode,
        backoff,
        rate,
        resync: given.milliseconds("resync_ms")?.or(usual.resync),
        move_grace: given.milliseconds("move_grace_ms")?.unwrap_or(usual.move_grace),
    };
    given.finish()?;
    Ok(options)
}

/// Takes the reconciler out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_reconciler_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_reconciler(
    event: *mut coord_event_t,
    out: *mut *mut coord_reconciler_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let begun = handle::get::<EventObject>(event)?.take("reconciler", |payload| match payload {
            Payload::Reconciler(begun) => Ok(*begun),
            other => Err(other),
        })?;
        out.put(handle::issue(ReconcilerObject::new(begun)));
        Ok(())
    })
}

/// The full name of the reconciler, "namespace/scope/name"; valid until the handle is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_reconciler_name(reconciler: *mut coord_reconciler_t) -> *const c_char {
    value(empty(), || Ok(handle::get::<ReconcilerObject>(reconciler)?.name.start()))
}

/// Waits for a key that is to be run, and begins its run, which is to be completed with coord_work_complete. At most as
/// many runs as there are "workers" are out at a time, and never two of one key. A call that ends by its time limit or by
/// `cancel` takes none away; with a limit of 0 it takes a key that is due now, and waits for its document only,
/// and takes none while the store does not answer. COORD_E_CLOSED when the reconciler or the client is closed, the handle
/// destroyed, or a drain has come to its end; what ended the source.
///
/// @threadsafe yes
/// @blocks until there is one, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_work_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_next(
    reconciler: *mut coord_reconciler_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_work_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let run = match timeout(timeout_ms)? {
            Some(Duration::ZERO) => wait(next_ready(reconciler)?, None, cancel)?,
            limit => wait(next(reconciler)?, limit, cancel)?,
        };
        out.put(handle::issue(WorkObject::new(run)?));
        Ok(())
    })
}

/// Starts coord_reconciler_next; ends with COORD_EVENT_WORK. If the event is destroyed untaken, the key comes again, as
/// after an error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_next_start(
    reconciler: *mut coord_reconciler_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let limit = None;
        let future = next(reconciler)?;
        Report { queue, tag, op }.start(COORD_EVENT_WORK, limit, future, |run| Payload::Work(Box::new(run)))
    })
}

fn next(handle: *mut coord_reconciler_t) -> Result<impl Future<Output = Result<Run>> + Send + 'static> {
    let object = handle::get::<ReconcilerObject>(handle)?;
    let format = object.format;
    Ok(object.reconciler.wait(move |reconciler| async move { Ok(Run { request: reconciler.next().await?, format }) }))
}

fn next_ready(handle: *mut coord_reconciler_t) -> Result<impl Future<Output = Result<Run>> + Send + 'static> {
    let object = handle::get::<ReconcilerObject>(handle)?;
    let format = object.format;
    Ok(object.reconciler.wait(move |reconciler| async move {
        match reconciler.try_next().await? {
            Some(request) => Ok(Run { request, format }),
            None => Err(Error::new(Code::Timeout, "no key is to be run now")),
        }
    }))
}

/// Takes in no more keys, lets those that are due now be run, and waits until these runs are completed; coord_reconciler_next
/// gives COORD_E_CLOSED then. What is due later is not waited for. COORD_E_TIMEOUT when that takes longer; it goes on.
///
/// @threadsafe yes
/// @blocks until what is due was run, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_drain(
    reconciler: *mut coord_reconciler_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait_begun(drain(reconciler, timeout_ms)?, None, cancel))
}

/// Starts coord_reconciler_drain; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_drain_start(
    reconciler: *mut coord_reconciler_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let future = drain(reconciler, timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, None, future, |()| Payload::Nothing)
    })
}

fn drain(
    handle: *mut coord_reconciler_t,
    timeout_ms: i64,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let (object, limit) = (handle::get::<ReconcilerObject>(handle)?, limit(timeout_ms)?);
    Ok(object.reconciler.wait(move |reconciler| async move { reconciler.drain(limit).await }))
}

/// Ends a reconciler: no further run begins, those that are out are asked to stop, and when they are completed shards and
/// leadership are given up. Waits for that; COORD_E_TIMEOUT when it takes longer, and it goes on in the background. Inside a
/// run it would wait for itself: give it a limit of 0 there. Closing twice is no error.
///
/// @threadsafe yes
/// @blocks until its runs are completed, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_close(
    reconciler: *mut coord_reconciler_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait_begun(close(reconciler, timeout_ms)?, None, cancel))
}

/// Starts coord_reconciler_close; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_reconciler_close_start(
    reconciler: *mut coord_reconciler_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let future = close(reconciler, timeout_ms)?;
        Report { queue, tag, op }.start(COORD_EVENT_DONE, None, future, |()| Payload::Nothing)
    })
}

/// Not cut off with the handle: what was asked to end is waited for.
fn close(
    handle: *mut coord_reconciler_t,
    timeout_ms: i64,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let reconciler = handle::get::<ReconcilerObject>(handle)?.reconciler().clone();
    let limit = limit(timeout_ms)?;
    Ok(async move { reconciler.close(limit).await })
}

/// The core counts this limit, and its error says what took longer.
pub(crate) fn limit(timeout_ms: i64) -> Result<Duration> {
    Ok(timeout(timeout_ms)?.unwrap_or(Duration::MAX))
}

/// Destroys the handle, and ends the reconciler like coord_reconciler_close, without waiting. Runs that are out are asked
/// to stop, and are still to be completed. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `reconciler`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_reconciler_destroy(reconciler: *mut coord_reconciler_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<ReconcilerObject>(reconciler)?.reconciler.end();
        Ok(())
    });
}
