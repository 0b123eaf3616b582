//! Tables with a copy in memory.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::future::Future;
use std::sync::Arc;

use coord_core::error::Result;
use coord_core::table::{CacheOptions, CachedTable, Filter, Position};

use crate::boundary::{fallible, quiet, timeout, value};
use crate::bytes::{Bytes, Out, lent_number};
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{
    COORD_EVENT_CACHED_TABLE, COORD_EVENT_DONE, COORD_EVENT_STORED, COORD_EVENT_WRITTEN, Payload, coord_event_t,
    coord_op_t, take_into,
};
use crate::fence::{coord_fence_t, right};
use crate::format::Format;
use crate::handle::{self, object};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait};
use crate::shared::Shared;
use crate::stored::{
    StoredListObject, StoredObject, WrittenObject, coord_stored_list_t, coord_stored_t, coord_written_t,
};
use crate::table::{coord_table_t, table};
use crate::table_read::find_options;
use crate::table_write::{Write, write_through};

/// A table with a copy in memory, which is kept fresh. It keeps its client open.
pub struct coord_cached_table_t;

pub(crate) struct CachedTableObject {
    cached: Shared<CachedTable>,
    format: Format,
}

object!(CachedTableObject, coord_cached_table_t, 41, "cached table");

fn cached(handle: *const coord_cached_table_t) -> Result<Arc<CachedTableObject>> {
    handle::get::<CachedTableObject>(handle)
}

/// A table with a copy in memory of the documents that match; a NULL filter is every document. Returns when the copy
/// is complete; it is kept fresh until the handle is destroyed. Options: "max_bytes" (number, 268435456 by default):
/// the most that the documents may take, in bytes of BSON, and as much again while a snapshot is read anew;
/// COORD_E_INVALID_ARGUMENT when they are more, later from every read of the copy; writes go on. "read_your_writes"
/// (switch, 1 by default): whether a write through the cached table returns only when the copy shows it, or has ended.
///
/// @threadsafe yes
/// @blocks until the copy is complete, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_cached_table_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_open(
    table: *mut coord_table_t,
    filter: *const c_void,
    filter_len: usize,
    options: *mut coord_options_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_cached_table_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, out, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_open(table, filter, options)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_cached_table_open; ends with COORD_EVENT_CACHED_TABLE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_open_start(
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
        let (limit, future) = (timeout(timeout_ms)?, op_open(table, filter, options)?);
        Report { queue, tag, op }.start(COORD_EVENT_CACHED_TABLE, limit, future, Payload::CachedTable)
    })
}

fn op_open(
    table: *mut coord_table_t,
    filter: Bytes,
    options: *mut coord_options_t,
) -> Result<impl Future<Output = Result<CachedTableObject>> + Send + 'static> {
    let table = self::table(table)?;
    let usual = CacheOptions::default();
    let mut given = Given::read(options)?;
    let options = CacheOptions {
        filter: Filter::parse(table.format.filter(filter)?)?,
        max_bytes: given.number_as("max_bytes")?.unwrap_or(usual.max_bytes),
        read_your_writes: given.switch("read_your_writes")?.unwrap_or(usual.read_your_writes),
    };
    given.finish()?;
    Ok(async move {
        let cached = table.table.client().cached_table(table.table.name(), options).await?;
        Ok(CachedTableObject { cached: Shared::new("cached table", cached), format: table.format })
    })
}

/// Takes the cached table out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_cached_table_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_cached_table(
    event: *mut coord_event_t,
    out: *mut *mut coord_cached_table_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::CachedTable(it) => Ok(it),
        other => Err(other),
    })
}

/// The document of a key, from memory; COORD_E_NOT_FOUND if there is none. COORD_E_INVALID_ARGUMENT also when the
/// documents have become more than they may, COORD_E_CLOSED when the client is closed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stored_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_get(
    cached: *mut coord_cached_table_t,
    key: *const c_void,
    key_len: usize,
    out: *mut *mut coord_stored_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, out, err) = unsafe { (Bytes::lent(key, key_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let cached = self::cached(cached)?;
        let stored = cached.cached.value().get(cached.format.key(key)?)?;
        out.put(handle::issue(StoredObject::new(cached.format, stored)?));
        Ok(())
    })
}

/// The document of a key, from the store; COORD_E_NOT_FOUND if there is none.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stored_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_get_fresh(
    cached: *mut coord_cached_table_t,
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
        out.put(handle::issue(wait(op_get_fresh(cached, key)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_cached_table_get_fresh; ends with COORD_EVENT_STORED.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_get_fresh_start(
    cached: *mut coord_cached_table_t,
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
        let (limit, future) = (timeout(timeout_ms)?, op_get_fresh(cached, key)?);
        Report { queue, tag, op }.start(COORD_EVENT_STORED, limit, future, |stored| Payload::Stored(Box::new(stored)))
    })
}

fn op_get_fresh(
    cached: *mut coord_cached_table_t,
    key: Bytes,
) -> Result<impl Future<Output = Result<StoredObject>> + Send + 'static> {
    let cached = self::cached(cached)?;
    let (format, key) = (cached.format, cached.format.key(key)?);
    Ok(cached.cached.wait(move |cached| async move { StoredObject::new(format, cached.get_fresh(key).await?) }))
}

/// The documents that match, from memory: looks at each. A NULL filter is every document. Options as of
/// coord_table_find. COORD_E_UNSUPPORTED for what only MongoDB knows, also there: ask the table then.
/// COORD_E_INVALID_ARGUMENT also when the documents have become more than they may, COORD_E_CLOSED when the client is
/// closed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stored_list_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_find(
    cached: *mut coord_cached_table_t,
    filter: *const c_void,
    filter_len: usize,
    options: *mut coord_options_t,
    out: *mut *mut coord_stored_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, out, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let cached = self::cached(cached)?;
        let format = cached.format;
        let (filter, options) = (Filter::parse(format.filter(filter)?)?, find_options(format, options)?);
        let found = cached.cached.value().find(filter, options)?;
        let found: Result<Vec<_>> = found.into_iter().map(|stored| StoredObject::new(format, stored)).collect();
        out.put(handle::issue(StoredListObject::new(found?)));
        Ok(())
    })
}

/// How many documents match, from memory. A NULL filter is every document. COORD_E_INVALID_ARGUMENT also when the
/// documents have become more than they may, COORD_E_CLOSED when the client is closed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_count(
    cached: *mut coord_cached_table_t,
    filter: *const c_void,
    filter_len: usize,
    count: *mut u64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, count, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(count), Out::lent(err)) };
    fallible(err, || {
        let count = count.required("count")?;
        let cached = self::cached(cached)?;
        let filter = Filter::parse(cached.format.filter(filter)?)?;
        count.put(cached.cached.value().count(filter)?);
        Ok(())
    })
}

/// Writes to the store, as coord_table_write; with "read_your_writes" returns when the copy shows it.
///
/// @threadsafe yes
/// @blocks until the store answers and the copy shows it, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_written_destroy; `out` may be NULL
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_write(
    cached: *mut coord_cached_table_t,
    action: i32,
    key: *const c_void,
    key_len: usize,
    document: *const c_void,
    document_len: usize,
    revision: *const u64,
    fence: *const coord_fence_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_written_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, document, revision, out, err) = unsafe {
        (
            Bytes::lent(key, key_len),
            Bytes::lent(document, document_len),
            lent_number(revision),
            Out::lent(out),
            Out::lent(err),
        )
    };
    fallible(err, || {
        let result = wait(op_write(cached, action, key, document, revision, fence)?, timeout(timeout_ms)?, cancel)?;
        if !out.is_null() {
            out.put(handle::issue(result));
        }
        Ok(())
    })
}

/// Starts coord_cached_table_write; ends with COORD_EVENT_WRITTEN.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_write_start(
    cached: *mut coord_cached_table_t,
    action: i32,
    key: *const c_void,
    key_len: usize,
    document: *const c_void,
    document_len: usize,
    revision: *const u64,
    fence: *const coord_fence_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, document, revision, op, err) = unsafe {
        (
            Bytes::lent(key, key_len),
            Bytes::lent(document, document_len),
            lent_number(revision),
            Out::lent(op),
            Out::lent(err),
        )
    };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_write(cached, action, key, document, revision, fence)?);
        Report { queue, tag, op }
            .start(COORD_EVENT_WRITTEN, limit, future, |written| Payload::Written(Box::new(written)))
    })
}

fn op_write(
    cached: *mut coord_cached_table_t,
    action: i32,
    key: Bytes,
    document: Bytes,
    revision: Option<u64>,
    fence: *const coord_fence_t,
) -> Result<impl Future<Output = Result<WrittenObject>> + Send + 'static> {
    let cached = self::cached(cached)?;
    let format = cached.format;
    let (key, right) = (format.key(key)?, right(fence)?);
    let write = Write::read(format, action, document, revision)?;
    Ok(cached.cached.wait(move |cached| async move {
        WrittenObject::new(format, write_through(CachedTable::clone(&cached), key, write, right).await?)
    }))
}

/// Waits until the copy shows everything up to this place in the history.
///
/// @threadsafe yes
/// @blocks until the copy shows it, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_wait_until(
    cached: *mut coord_cached_table_t,
    position: u64,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(op_wait_until(cached, position)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_cached_table_wait_until; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cached_table_wait_until_start(
    cached: *mut coord_cached_table_t,
    position: u64,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_wait_until(cached, position)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_wait_until(
    cached: *mut coord_cached_table_t,
    position: u64,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let cached = self::cached(cached)?;
    Ok(cached.cached.wait(move |cached| async move { cached.wait_until(Position(position)).await }))
}

/// Up to which place in the history the copy shows everything; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cached_table_position(cached: *const coord_cached_table_t) -> u64 {
    read(cached, 0, |c| c.cached.value().position().0)
}

/// Whether the copy follows the store at this moment: 1 or 0. 0 while the store cannot be reached, when it shows what
/// was there before.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cached_table_is_synced(cached: *const coord_cached_table_t) -> i32 {
    read(cached, 0, |c| c.cached.value().synced().into())
}

/// How many bytes of BSON the copy takes; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cached_table_bytes(cached: *const coord_cached_table_t) -> usize {
    read(cached, 0, |c| c.cached.value().bytes())
}

/// Destroys a cached table, and its copy; the documents in the store stay. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `cached`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cached_table_destroy(cached: *mut coord_cached_table_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<CachedTableObject>(cached)?.cached.end();
        Ok(())
    });
}

fn read<T>(handle: *const coord_cached_table_t, neutral: T, read: impl FnOnce(&CachedTableObject) -> T) -> T {
    value(neutral, || Ok(read(&*handle::get::<CachedTableObject>(handle)?)))
}
