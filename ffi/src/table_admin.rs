//! How a table is kept: indexes, options, and removing it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::future::Future;
use std::time::Duration;

use coord_core::bson::{Bson, Document};
use coord_core::error::{Error, Result};
use coord_core::table::{Index, TableOptions};

use crate::boundary::{fallible, timeout};
use crate::bytes::{Bytes, Out};
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DONE, Payload, coord_op_t};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait};
use crate::table::{coord_table_t, table};

/// Reads one index of a list.
fn index(given: Document) -> Result<Index> {
    let mut index = Index::default();
    for (name, value) in given {
        match (name.as_str(), value) {
            ("name", Bson::String(name)) => index.name = name,
            ("fields", Bson::Document(fields)) => {
                index.fields = fields.into_iter().map(direction).collect::<Result<_>>()?;
            }
            ("unique", Bson::Boolean(unique)) => index.unique = unique,
            ("sparse", Bson::Boolean(sparse)) => index.sparse = sparse,
            ("expire_after_s", value) => {
                let seconds = whole(&value).and_then(|seconds| u64::try_from(seconds).ok());
                let seconds = seconds.ok_or_else(|| Error::invalid("expire_after_s is a number of seconds"))?;
                index.expire_after = Some(Duration::from_secs(seconds));
            }
            ("name" | "fields" | "unique" | "sparse", _) => {
                return Err(Error::invalid(format!("'{name}' of an index has the wrong type")));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "an index has no '{name}'; it has: name, fields, unique, sparse, expire_after_s"
                )));
            }
        }
    }
    Ok(index)
}

/// A field of an index, and whether it is descending.
fn direction((path, value): (String, Bson)) -> Result<(String, bool)> {
    match whole(&value) {
        Some(1) => Ok((path, false)),
        Some(-1) => Ok((path, true)),
        _ => Err(Error::invalid(format!("the field '{path}' of an index is 1, ascending, or -1, descending"))),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::float_cmp, reason = "compared with what it came from")]
fn whole(value: &Bson) -> Option<i64> {
    match *value {
        Bson::Int32(number) => Some(number.into()),
        Bson::Int64(number) => Some(number),
        Bson::Double(number) if f64::from(number as i32) == number => Some(number as i64),
        _ => None,
    }
}

/// Makes those indexes that are not there; the others stay. A list of documents: `{"fields": {"a": 1, "b": -1},
/// "name": "...", "unique": true, "sparse": true, "expire_after_s": 60}`, of which only the fields must be there; with
/// expire_after_s, a document is removed when the date in the only field is so many seconds ago.
/// COORD_E_INVALID_ARGUMENT if there is another index of the same name, COORD_E_ALREADY_EXISTS if documents break a
/// unique one.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_ensure_indexes(
    table: *mut coord_table_t,
    indexes: *const c_void,
    indexes_len: usize,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (indexes, err) = unsafe { (Bytes::lent(indexes, indexes_len), Out::lent(err)) };
    fallible(err, || wait(op_ensure_indexes(table, indexes)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_table_ensure_indexes; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_ensure_indexes_start(
    table: *mut coord_table_t,
    indexes: *const c_void,
    indexes_len: usize,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (indexes, op, err) = unsafe { (Bytes::lent(indexes, indexes_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_ensure_indexes(table, indexes)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_ensure_indexes(
    table: *mut coord_table_t,
    indexes: Bytes,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let table = self::table(table)?;
    let indexes = table.format.list(indexes, "indexes")?.into_iter().map(index).collect::<Result<_>>()?;
    Ok(async move { table.table.ensure_indexes(indexes).await })
}

/// Sets how the table is kept. Options: "previous" (switch, 0 by default): keep what each document was before a
/// change, for watches that ask for it; on MongoDB 6.0 or later this sets the collection's
/// changeStreamPreAndPostImages, and is COORD_E_UNSUPPORTED before.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_configure(
    table: *mut coord_table_t,
    options: *mut coord_options_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(op_configure(table, options)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_table_configure; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_configure_start(
    table: *mut coord_table_t,
    options: *mut coord_options_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_configure(table, options)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_configure(
    table: *mut coord_table_t,
    options: *mut coord_options_t,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let table = self::table(table)?;
    let mut given = Given::read(options)?;
    let options = TableOptions { previous: given.switch("previous")?.unwrap_or_default() };
    given.finish()?;
    Ok(async move { table.table.configure(options).await })
}

/// Removes the table with its documents, indexes and options. No error if there is none.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_drop(
    table: *mut coord_table_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(op_drop(table)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_table_drop; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_drop_start(
    table: *mut coord_table_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_drop(table)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_drop(table: *mut coord_table_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let table = self::table(table)?;
    Ok(async move { table.table.drop_table().await })
}

/// Asks the store whether it could be written to now.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_health(
    table: *mut coord_table_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || wait(op_health(table)?, timeout(timeout_ms)?, cancel))
}

/// Starts coord_table_health; ends with COORD_EVENT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_health_start(
    table: *mut coord_table_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_health(table)?);
        Report { queue, tag, op }.start(COORD_EVENT_DONE, limit, future, |()| Payload::Nothing)
    })
}

fn op_health(table: *mut coord_table_t) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let table = self::table(table)?;
    Ok(async move { table.table.health().await })
}
