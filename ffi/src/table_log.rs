//! The change log of a table: who has changed what, and when.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::future::Future;

use coord_core::error::{Error, Result};
use coord_core::table::{LogEntry, LogFrom, Operation, Position, Revision, TableLog};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Lent, LentBytes, Out, empty};
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_LOG_ENTRY, COORD_EVENT_TABLE_LOG, Payload, coord_event_t, coord_op_t, take_into};
use crate::format::Format;
use crate::handle::{self, object};
use crate::queue::{Report, coord_queue_t, wait};
use crate::shared::Shared;
use crate::table::{coord_table_t, table};

/// A log begins with the changes to come.
pub const COORD_LOG_FROM_NOW: i32 = 0;
/// A log begins with the change after a position.
pub const COORD_LOG_FROM_POSITION: i32 = 1;
/// A log begins with the first change at a date or after it, in milliseconds since 1970 by the store's clock.
pub const COORD_LOG_FROM_TIME: i32 = 2;

/// There is no such entry.
pub const COORD_OPERATION_NONE: i32 = 0;
/// A document was made.
pub const COORD_OPERATION_INSERT: i32 = 1;
/// Some fields of a document were changed.
pub const COORD_OPERATION_UPDATE: i32 = 2;
/// A document was replaced by another one.
pub const COORD_OPERATION_REPLACE: i32 = 3;
/// A document was removed.
pub const COORD_OPERATION_DELETE: i32 = 4;

/// The log of a table, which is being read. It keeps its client open.
pub struct coord_table_log_t;

/// One change of a document. What it lends is valid until it is destroyed.
pub struct coord_log_entry_t;

pub(crate) struct TableLogObject {
    log: Shared<TableLog>,
    format: Format,
}

pub(crate) struct LogEntryObject {
    source: Lent,
    operation: i32,
    at_ms: i64,
    key: LentBytes,
    changed: Vec<Lent>,
    revision: Option<Revision>,
    position: u64,
}

object!(TableLogObject, coord_table_log_t, 39, "log of a table");
object!(LogEntryObject, coord_log_entry_t, 40, "entry of a log");

impl LogEntryObject {
    fn new(format: Format, entry: &LogEntry) -> Result<Self> {
        Ok(Self {
            source: Lent::new(entry.source.as_deref().unwrap_or_default()),
            operation: match entry.operation {
                Operation::Insert => COORD_OPERATION_INSERT,
                Operation::Update => COORD_OPERATION_UPDATE,
                Operation::Replace => COORD_OPERATION_REPLACE,
                Operation::Delete => COORD_OPERATION_DELETE,
            },
            at_ms: entry.at_ms,
            key: format.lend_key(&entry.key)?,
            changed: entry.changed_fields.iter().map(|path| Lent::new(path)).collect(),
            revision: entry.revision,
            position: entry.position.0,
        })
    }
}

/// Reads the log of the table from there on: `from` is one of COORD_LOG_FROM_..., `place` the position or the date
/// that it speaks of, 0 otherwise. On MongoDB the log is the oplog, which also has what other programs wrote, without
/// their names; elsewhere the history of the table, which is trimmed by age. COORD_E_COMPACTED if the store no longer
/// has it so far back; COORD_E_INVALID_ARGUMENT for a position that is still to come, in memory and on SQLite: on MongoDB
/// the log waits for it.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_table_log_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_log(
    table: *mut coord_table_t,
    from: i32,
    place: u64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_table_log_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_log(table, from, place)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_table_log; ends with COORD_EVENT_TABLE_LOG.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_log_start(
    table: *mut coord_table_t,
    from: i32,
    place: u64,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_log(table, from, place)?);
        Report { queue, tag, op }.start(COORD_EVENT_TABLE_LOG, limit, future, Payload::TableLog)
    })
}

fn op_log(
    table: *mut coord_table_t,
    from: i32,
    place: u64,
) -> Result<impl Future<Output = Result<TableLogObject>> + Send + 'static> {
    let table = self::table(table)?;
    let from = match from {
        COORD_LOG_FROM_NOW => LogFrom::Now,
        COORD_LOG_FROM_POSITION => LogFrom::After(Position(place)),
        COORD_LOG_FROM_TIME => {
            LogFrom::Time(i64::try_from(place).map_err(|_| Error::invalid(format!("{place} is no date")))?)
        }
        other => return Err(Error::invalid(format!("from is one of COORD_LOG_FROM_..., not {other}"))),
    };
    Ok(async move {
        let log = Shared::new("log of a table", table.table.log(from).await?);
        Ok(TableLogObject { log, format: table.format })
    })
}

/// Takes the log of a table out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_table_log_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_table_log(
    event: *mut coord_event_t,
    out: *mut *mut coord_table_log_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::TableLog(it) => Ok(it),
        other => Err(other),
    })
}

/// The next entry: waits for it, through outages of the store. A call that ends by its time limit or by `cancel` takes
/// none away. COORD_E_COMPACTED when changes are missing from here on; the next call goes on after them.
/// COORD_E_CLOSED when the log or the client is closed, or the handle destroyed.
///
/// @threadsafe yes
/// @blocks until something has changed, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_log_entry_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_log_next(
    log: *mut coord_table_log_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_log_entry_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_next(log)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_table_log_next; ends with COORD_EVENT_LOG_ENTRY.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_log_next_start(
    log: *mut coord_table_log_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (None, op_next(log)?);
        Report { queue, tag, op }
            .start(COORD_EVENT_LOG_ENTRY, limit, future, |entry| Payload::LogEntry(Box::new(entry)))
    })
}

fn op_next(log: *mut coord_table_log_t) -> Result<impl Future<Output = Result<LogEntryObject>> + Send + 'static> {
    let log = handle::get::<TableLogObject>(log)?;
    let format = log.format;
    Ok(log.log.wait(move |log| async move { LogEntryObject::new(format, &log.next().await?) }))
}

/// Ends a log: waits for the next entry end with COORD_E_CLOSED. Closing twice is no error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_log_close(
    log: *mut coord_table_log_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        handle::get::<TableLogObject>(log)?.log.value().close();
        Ok(())
    })
}

/// Destroys a log, and ends it. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `log`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_table_log_destroy(log: *mut coord_table_log_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<TableLogObject>(log)?.log.end();
        Ok(())
    });
}

/// Takes the entry of a log out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_log_entry_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_log_entry(
    event: *mut coord_event_t,
    out: *mut *mut coord_log_entry_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::LogEntry(it) => Ok(*it),
        other => Err(other),
    })
}

/// The name of the client that wrote; empty if that is not known: another program, a client without a name, and any
/// deletion on MongoDB.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_source(entry: *const coord_log_entry_t) -> *const c_char {
    read(entry, empty(), |e| e.source.start())
}

/// What was done: COORD_OPERATION_...; COORD_OPERATION_NONE for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_operation(entry: *const coord_log_entry_t) -> i32 {
    read(entry, COORD_OPERATION_NONE, |e| e.operation)
}

/// When, in milliseconds since 1970 by the store's clock; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_at_ms(entry: *const coord_log_entry_t) -> i64 {
    read(entry, 0, |e| e.at_ms)
}

/// The key of the document, in the format of the table; empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_key(entry: *const coord_log_entry_t) -> *const c_char {
    read(entry, empty(), |e| e.key.start())
}

/// The length of that in bytes, without the zero that follows; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_key_length(entry: *const coord_log_entry_t) -> usize {
    read(entry, 0, |e| e.key.length())
}

/// How many paths an update has changed or removed; 0 for other operations and for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_changed_count(entry: *const coord_log_entry_t) -> usize {
    read(entry, 0, |e| e.changed.len())
}

/// The path at this place, in order; empty beyond the end.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_changed_at(entry: *const coord_log_entry_t, index: usize) -> *const c_char {
    read(entry, empty(), |e| e.changed.get(index).map_or_else(empty, Lent::start))
}

/// Whether there is a revision: 1 or 0. There is none after a deletion; on MongoDB perhaps none of an update whose
/// document was gone when the log was read.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_has_revision(entry: *const coord_log_entry_t) -> i32 {
    read(entry, 0, |e| e.revision.is_some().into())
}

/// The revision; 0 if there is none. Only for comparing, and for the condition of a write.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_revision(entry: *const coord_log_entry_t) -> u64 {
    read(entry, 0, |e| e.revision.map_or(0, |revision| revision.0))
}

/// Up to where everything has been told with the entry: a later log may begin after it, and misses nothing. Its place
/// in the history, or the one before while other changes of its place may follow: the changes of one transaction on
/// MongoDB, and every change on MongoDB 6.1 or later. Those of its place come again then. 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_position(entry: *const coord_log_entry_t) -> u64 {
    read(entry, 0, |e| e.position)
}

/// Destroys an entry of a log. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `entry`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_log_entry_destroy(entry: *mut coord_log_entry_t) {
    quiet(|| handle::take::<LogEntryObject>(entry).map(drop));
}

fn read<T>(handle: *const coord_log_entry_t, neutral: T, read: impl FnOnce(&LogEntryObject) -> T) -> T {
    value(neutral, || Ok(read(&*handle::get::<LogEntryObject>(handle)?)))
}
