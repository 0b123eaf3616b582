//! Reading from tables.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::future::Future;
use std::sync::Arc;

use coord_core::bson::Document;
use coord_core::error::{Error, Result};
use coord_core::table::{Cursor, Filter, FindOptions, Projection, Sort, Stored};

use crate::boundary::{fallible, quiet, timeout};
use crate::bytes::{Bytes, Out};
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{
    COORD_EVENT_CURSOR, COORD_EVENT_NUMBER, COORD_EVENT_STORED, COORD_EVENT_STORED_LIST, Payload, coord_event_t,
    coord_op_t, take_into,
};
use crate::format::Format;
use crate::handle::{self, object};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait};
use crate::stored::{StoredListObject, StoredObject, coord_stored_list_t, coord_stored_t};
use crate::table::{coord_table_t, table};

/// Results of a read, which are fetched as they are taken. It keeps its client open.
pub struct coord_cursor_t;

pub(crate) struct CursorObject {
    format: Format,
    /// Empty while a call takes from it, and after one that did not come to its end.
    rest: Arc<tokio::sync::Mutex<Option<Rest>>>,
}

object!(CursorObject, coord_cursor_t, 36, "cursor");

enum Rest {
    Stored(Cursor<Stored>),
    Computed(Cursor<Document>),
}

impl Rest {
    async fn next(&self, format: Format) -> Result<Option<StoredObject>> {
        match self {
            Self::Stored(cursor) => cursor.next().await?.map(|stored| StoredObject::new(format, stored)).transpose(),
            Self::Computed(cursor) => {
                cursor.next().await?.map(|document| StoredObject::computed(format, document)).transpose()
            }
        }
    }
}

impl CursorObject {
    fn new(format: Format, rest: Rest) -> Self {
        Self { format, rest: Arc::new(tokio::sync::Mutex::new(Some(rest))) }
    }
}

/// How to read, from the options of a call.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn find_options(format: Format, options: *mut coord_options_t) -> Result<FindOptions> {
    let mut given = Given::read(options)?;
    let found = FindOptions {
        sort: given.document("sort", format)?.map(Sort::parse).transpose()?,
        projection: given.document("projection", format)?.map(Projection::parse).transpose()?,
        skip: given.number_as("skip")?.unwrap_or_default(),
        limit: given.number_as("limit")?,
    };
    given.finish()?;
    Ok(found)
}

/// The document of a key; COORD_E_NOT_FOUND if there is none.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stored_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_get(
    table: *mut coord_table_t,
    key: *const c_void,
    key_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_stored_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, out, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_get(table, key)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_table_get; ends with COORD_EVENT_STORED.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_get_start(
    table: *mut coord_table_t,
    key: *const c_void,
    key_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, op, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_get(table, key)?);
        Report { queue, tag, op }.start(COORD_EVENT_STORED, limit, future, |stored| Payload::Stored(Box::new(stored)))
    })
}

fn op_get(
    table: *mut coord_table_t,
    key: Bytes,
) -> Result<impl Future<Output = Result<StoredObject>> + Send + 'static> {
    let table = self::table(table)?;
    let key = table.format.key(key)?;
    Ok(async move { StoredObject::new(table.format, table.table.get(key).await?) })
}

/// The documents that match, in the form of a cursor, from which coord_cursor_next takes them. A NULL filter is every
/// document. Options: "sort" (document such as `{"a": 1, "b": -1}`; without one, and among equals, in no particular
/// order), "projection" (document), both in the format of the table, by coord_options_set_document; "skip" and "limit"
/// (numbers). COORD_E_UNSUPPORTED for what only MongoDB knows.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_cursor_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_find(
    table: *mut coord_table_t,
    filter: *const c_void,
    filter_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_cursor_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, out, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_find(table, filter, options)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_table_find; ends with COORD_EVENT_CURSOR.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_find_start(
    table: *mut coord_table_t,
    filter: *const c_void,
    filter_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, op, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_find(table, filter, options)?);
        Report { queue, tag, op }.start(COORD_EVENT_CURSOR, limit, future, Payload::Cursor)
    })
}

fn op_find(
    table: *mut coord_table_t,
    filter: Bytes,
    options: *mut coord_options_t,
) -> Result<impl Future<Output = Result<CursorObject>> + Send + 'static> {
    let table = self::table(table)?;
    let format = table.format;
    let (filter, options) = (Filter::parse(format.filter(filter)?)?, find_options(format, options)?);
    Ok(async move { Ok(CursorObject::new(format, Rest::Stored(table.table.cursor(filter, options).await?))) })
}

/// Runs an aggregation pipeline, a list of stages, and gives its results in the form of a cursor; they have no keys.
/// MongoDB only: COORD_E_UNSUPPORTED on other stores. COORD_E_INVALID_ARGUMENT for a pipeline that writes.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_cursor_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_aggregate(
    table: *mut coord_table_t,
    pipeline: *const c_void,
    pipeline_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_cursor_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (pipeline, out, err) = unsafe { (Bytes::lent(pipeline, pipeline_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_aggregate(table, pipeline)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_table_aggregate; ends with COORD_EVENT_CURSOR.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_aggregate_start(
    table: *mut coord_table_t,
    pipeline: *const c_void,
    pipeline_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (pipeline, op, err) = unsafe { (Bytes::lent(pipeline, pipeline_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_aggregate(table, pipeline)?);
        Report { queue, tag, op }.start(COORD_EVENT_CURSOR, limit, future, Payload::Cursor)
    })
}

fn op_aggregate(
    table: *mut coord_table_t,
    pipeline: Bytes,
) -> Result<impl Future<Output = Result<CursorObject>> + Send + 'static> {
    let table = self::table(table)?;
    let pipeline = table.format.list(pipeline, "pipeline")?;
    Ok(async move { Ok(CursorObject::new(table.format, Rest::Computed(table.table.aggregate(pipeline).await?))) })
}

/// How many documents match. A NULL filter is every document.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_count(
    table: *mut coord_table_t,
    filter: *const c_void,
    filter_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    count: *mut u64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, count, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(count), Out::lent(err)) };
    fallible(err, || {
        let count = count.required("count")?;
        count.put(wait(op_count(table, filter)?, timeout(timeout_ms)?, cancel)?);
        Ok(())
    })
}

/// Starts coord_table_count; ends with COORD_EVENT_NUMBER.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_count_start(
    table: *mut coord_table_t,
    filter: *const c_void,
    filter_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, op, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_count(table, filter)?);
        Report { queue, tag, op }.start(COORD_EVENT_NUMBER, limit, future, Payload::Number)
    })
}

fn op_count(table: *mut coord_table_t, filter: Bytes) -> Result<impl Future<Output = Result<u64>> + Send + 'static> {
    let table = self::table(table)?;
    let filter = Filter::parse(table.format.filter(filter)?)?;
    Ok(async move { table.table.count(filter).await })
}

/// The next documents, at most `max` of them (1 or more); fewer only at the end, and none after it. A call that fails,
/// also by its time limit or its cancel token, ends the cursor: begin anew with another one.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stored_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cursor_next(
    cursor: *mut coord_cursor_t,
    max: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_stored_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_next(cursor, max)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_cursor_next; ends with COORD_EVENT_STORED_LIST.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cursor_next_start(
    cursor: *mut coord_cursor_t,
    max: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_next(cursor, max)?);
        Report { queue, tag, op }.start(COORD_EVENT_STORED_LIST, limit, future, Payload::StoredList)
    })
}

fn op_next(
    cursor: *mut coord_cursor_t,
    max: usize,
) -> Result<impl Future<Output = Result<StoredListObject>> + Send + 'static> {
    let cursor = handle::get::<CursorObject>(cursor)?;
    if max == 0 {
        return Err(Error::invalid("max is 1 or more"));
    }
    let (format, shared) = (cursor.format, cursor.rest.clone());
    Ok(async move {
        let mut place = shared.lock().await;
        let rest = place.take().ok_or_else(|| Error::closed("the cursor, by a call that did not come to its end,"))?;
        let mut documents = Vec::new();
        while documents.len() < max {
            match rest.next(format).await? {
                Some(document) => documents.push(document),
                None => break,
            }
        }
        *place = Some(rest);
        Ok(StoredListObject::new(documents))
    })
}

/// Takes the cursor out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_cursor_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_cursor(
    event: *mut coord_event_t,
    out: *mut *mut coord_cursor_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::Cursor(it) => Ok(it),
        other => Err(other),
    })
}

/// Destroys a cursor, read to its end or not. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `cursor`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cursor_destroy(cursor: *mut coord_cursor_t) {
    quiet(|| handle::take::<CursorObject>(cursor).map(drop));
}
