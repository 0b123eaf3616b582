//! Where the keys of a reconciler come from.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};

use coord_core::error::Result;
use coord_core::reconciler::Source;

use crate::boundary::{fallible, quiet};
use crate::bytes::{Bytes, Out, Text};
use crate::error::{coord_error_t, coord_status_t};
use crate::handle::{self, object};
use crate::table::{coord_table_t, table};

/// Where the keys of reconcilers come from. It may be used for several, and destroyed after the call that got it.
pub struct coord_source_t;

pub(crate) struct SourceObject(Source);

object!(SourceObject, coord_source_t, 45, "source");

/// The source behind a handle.
///
/// # Errors
/// `Handle`.
pub(crate) fn source(handle: *mut coord_source_t) -> Result<Source> {
    Ok(handle::get::<SourceObject>(handle)?.0.clone())
}

/// The documents of a table that match: their keys, at the start and whenever one changes or is deleted. `filter` is in the
/// table's format; NULL for all documents. It keeps the table's client open, and is for reconcilers of that client.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_source_destroy; `table` stays the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_source_table(
    table: *mut coord_table_t,
    filter: *const c_void,
    filter_len: usize,
    out: *mut *mut coord_source_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, out, err) = unsafe { (Bytes::lent(filter, filter_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        make(out, || {
            let table = self::table(table)?;
            Source::table(&table.table, table.format.filter(filter)?)
        })
    })
}

/// The services that an observer of this pattern sees ("name", "scope/name", "scope/" and a star): keys are their full
/// names, at the start those that somebody provides, and then whenever a provider comes, goes or changes. The pattern is
/// checked by coord_client_reconcile.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_source_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_source_observer(
    pattern: *const c_char,
    pattern_len: usize,
    out: *mut *mut coord_source_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (pattern, out, err) = unsafe { (Text::lent(pattern, pattern_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || make(out, || Ok(Source::Observer(pattern.read("pattern")?))))
}

/// The locks that became free: keys are their full names. At the start every free lock that the store remembers, and
/// again after an interruption; then each that is released while nobody waits for it. `prefix` is what their names begin
/// with, of which the client fills in namespace and scope as of every name: "order-", "scope/", "scope/order-",
/// "namespace/scope/". NULL or empty for all of the client's namespace. coord_client_reconcile refuses a prefix that no
/// name begins with.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_source_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_source_released_locks(
    prefix: *const c_char,
    prefix_len: usize,
    out: *mut *mut coord_source_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (prefix, out, err) = unsafe { (Text::lent(prefix, prefix_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        make(out, || {
            let prefix = if prefix.is_null() { String::new() } else { prefix.read("prefix")? };
            Ok(Source::ReleasedLocks { prefix })
        })
    })
}

/// Keys that are added by hand, with coord_reconciler_add.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_source_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_source_manual(
    out: *mut *mut coord_source_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || make(out, || Ok(Source::Manual)))
}

fn make(out: Out<*mut coord_source_t>, source: impl FnOnce() -> Result<Source>) -> Result<()> {
    let out = out.required("out")?;
    out.put(handle::issue(SourceObject(source()?)));
    Ok(())
}

/// Destroys a source. Reconcilers that were made from it go on. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `source`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_source_destroy(source: *mut coord_source_t) {
    quiet(|| handle::take::<SourceObject>(source).map(drop));
}
