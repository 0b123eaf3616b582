//! Writing to tables.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::future::Future;

use coord_core::bson::Document;
use coord_core::error::{Error, Result};
use coord_core::table::{CachedTable, Filter, Key, ManyWritten, Revision, Table, Update, WriteOptions, Written};

use crate::boundary::{fallible, timeout};
use crate::bytes::{Bytes, Out, lent_number};
use crate::cancel::coord_cancel_t;
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_MANY_WRITTEN, COORD_EVENT_WRITTEN, Payload, coord_op_t};
use crate::fence::{coord_fence_t, right};
use crate::format::Format;
use crate::handle;
use crate::queue::{Report, coord_queue_t, wait};
use crate::stored::{WrittenObject, coord_written_t};
use crate::table::{coord_table_t, table};

/// Makes the document of a key; COORD_E_ALREADY_EXISTS if there is one.
pub const COORD_WRITE_INSERT: i32 = 1;
/// Makes the document of a key, or puts it in the place of the one that is there.
pub const COORD_WRITE_PUT: i32 = 2;
/// Changes the document of a key by an update: operators such as `{"$set": {...}}`, or on MongoDB a pipeline;
/// COORD_E_NOT_FOUND if there is none.
pub const COORD_WRITE_UPDATE: i32 = 3;
/// The same; an empty document is changed if there is none.
pub const COORD_WRITE_UPSERT: i32 = 4;
/// Makes sure that the document of a key has these fields: makes it, or sets them in the one that is there.
pub const COORD_WRITE_LOCATE: i32 = 5;
/// Puts a document in the place of the one that is there; COORD_E_NOT_FOUND if there is none.
pub const COORD_WRITE_REPLACE: i32 = 6;
/// Removes the document of a key; COORD_E_NOT_FOUND if there is none.
pub const COORD_WRITE_DELETE: i32 = 7;

/// One write, as it was asked for.
pub(crate) enum Write {
    Insert(Document),
    Put(Document),
    Update(Update),
    Upsert(Update),
    Locate(Document),
    Replace(Document, Option<Revision>),
    Delete(Option<Revision>),
}

impl Write {
    /// Reads the parts of a call.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn read(format: Format, action: i32, document: Bytes, revision: Option<u64>) -> Result<Self> {
        let conditional = matches!(action, COORD_WRITE_REPLACE | COORD_WRITE_DELETE);
        if revision.is_some() && !conditional {
            return Err(Error::invalid("only COORD_WRITE_REPLACE and COORD_WRITE_DELETE have a revision as condition"));
        }
        if action == COORD_WRITE_DELETE && !document.is_null() {
            return Err(Error::invalid("COORD_WRITE_DELETE takes no document"));
        }
        let revision = revision.map(Revision);
        let given = || format.document(document, "document");
        let update = || format.update(document, "document");
        match action {
            COORD_WRITE_INSERT => Ok(Self::Insert(given()?)),
            COORD_WRITE_PUT => Ok(Self::Put(given()?)),
            COORD_WRITE_UPDATE => Ok(Self::Update(update()?)),
            COORD_WRITE_UPSERT => Ok(Self::Upsert(update()?)),
            COORD_WRITE_LOCATE => Ok(Self::Locate(given()?)),
            COORD_WRITE_REPLACE => Ok(Self::Replace(given()?, revision)),
            COORD_WRITE_DELETE => Ok(Self::Delete(revision)),
            other => Err(Error::invalid(format!("action is one of COORD_WRITE_..., not {other}"))),
        }
    }
}

/// The same words, for a table and for one with a copy in memory.
macro_rules! writes {
    ($name:ident, $table:ty) => {
        pub(crate) async fn $name(table: $table, key: Key, write: Write, right: WriteOptions) -> Result<Written> {
            match write {
                Write::Insert(document) => table.insert(key, document, right).await,
                Write::Put(document) => table.put(key, document, right).await,
                Write::Update(update) => table.update(key, update, right).await,
                Write::Upsert(update) => table.upsert(key, update, right).await,
                Write::Locate(fields) => table.locate(key, fields, right).await,
                Write::Replace(document, None) => table.replace(key, document, right).await,
                Write::Replace(document, Some(state)) => table.replace_if(key, document, state, right).await,
                Write::Delete(None) => table.delete(key, right).await,
                Write::Delete(Some(state)) => table.delete_if(key, state, right).await,
            }
        }
    };
}

writes!(write_to, Table);
writes!(write_through, CachedTable);

/// Writes the document of a key, in one step: `action` is one of COORD_WRITE_..., with a document, an update or the
/// fields; NULL for COORD_WRITE_DELETE. `revision` may be NULL; with COORD_WRITE_REPLACE and COORD_WRITE_DELETE it is
/// the state that the document must still be in, else COORD_E_CONFLICT. `fence` may be NULL; with one, no write with
/// an older hold of the same lock touches this document afterwards, and one that is older itself gets COORD_E_FENCED.
/// COORD_E_INVALID_ARGUMENT for what cannot be stored: more than 16 MiB, nested too deeply, an _id that is not the
/// key; COORD_E_UNSUPPORTED for an update that only MongoDB knows; COORD_E_ALREADY_EXISTS also if a unique index would
/// be broken. After COORD_E_UNAVAILABLE it is not known whether it was done.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_written_destroy; `out` may be NULL
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_write(
    table: *mut coord_table_t,
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
        let result = wait(op_write(table, action, key, document, revision, fence)?, timeout(timeout_ms)?, cancel)?;
        if !out.is_null() {
            out.put(handle::issue(result));
        }
        Ok(())
    })
}

/// Starts coord_table_write; ends with COORD_EVENT_WRITTEN.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_write_start(
    table: *mut coord_table_t,
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
        let (limit, future) = (timeout(timeout_ms)?, op_write(table, action, key, document, revision, fence)?);
        Report { queue, tag, op }
            .start(COORD_EVENT_WRITTEN, limit, future, |written| Payload::Written(Box::new(written)))
    })
}

fn op_write(
    table: *mut coord_table_t,
    action: i32,
    key: Bytes,
    document: Bytes,
    revision: Option<u64>,
    fence: *const coord_fence_t,
) -> Result<impl Future<Output = Result<WrittenObject>> + Send + 'static> {
    let table = self::table(table)?;
    let format = table.format;
    let (key, right) = (format.key(key)?, right(fence)?);
    let write = Write::read(format, action, document, revision)?;
    Ok(async move { WrittenObject::new(format, write_to(table.table.clone(), key, write, right).await?) })
}

/// Writes every document that matches: COORD_WRITE_UPDATE with an update, or COORD_WRITE_DELETE with NULL. A NULL
/// filter is every document. Not atomic as a group. `*count` becomes how many were written, `*position` the place of
/// the last change in the history. COORD_E_FENCED if a later holder has written some of them: these were left out, and
/// the others written, as the message tells.
///
/// @threadsafe yes
/// @blocks until the store answers, up to timeout_ms
/// @callback_safe yes
/// @owns nothing; `count` and `position` may be NULL
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_write_many(
    table: *mut coord_table_t,
    action: i32,
    filter: *const c_void,
    filter_len: usize,
    update: *const c_void,
    update_len: usize,
    fence: *const coord_fence_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    count: *mut u64,
    position: *mut u64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, update, count, position, err) = unsafe {
        (
            Bytes::lent(filter, filter_len),
            Bytes::lent(update, update_len),
            Out::lent(count),
            Out::lent(position),
            Out::lent(err),
        )
    };
    fallible(err, || {
        let written = wait(op_write_many(table, action, filter, update, fence)?, timeout(timeout_ms)?, cancel)?;
        count.put(written.count);
        position.put(written.position.0);
        Ok(())
    })
}

/// Starts coord_table_write_many; ends with COORD_EVENT_MANY_WRITTEN.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_write_many_start(
    table: *mut coord_table_t,
    action: i32,
    filter: *const c_void,
    filter_len: usize,
    update: *const c_void,
    update_len: usize,
    fence: *const coord_fence_t,
    timeout_ms: i64,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, update, op, err) =
        unsafe { (Bytes::lent(filter, filter_len), Bytes::lent(update, update_len), Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (timeout(timeout_ms)?, op_write_many(table, action, filter, update, fence)?);
        Report { queue, tag, op }.start(COORD_EVENT_MANY_WRITTEN, limit, future, Payload::ManyWritten)
    })
}

fn op_write_many(
    table: *mut coord_table_t,
    action: i32,
    filter: Bytes,
    update: Bytes,
    fence: *const coord_fence_t,
) -> Result<impl Future<Output = Result<ManyWritten>> + Send + 'static> {
    let table = self::table(table)?;
    let format = table.format;
    let (filter, right) = (Filter::parse(format.filter(filter)?)?, right(fence)?);
    let update = match action {
        COORD_WRITE_UPDATE => Some(format.update(update, "update")?),
        COORD_WRITE_DELETE if update.is_null() => None,
        COORD_WRITE_DELETE => return Err(Error::invalid("COORD_WRITE_DELETE takes no update")),
        other => {
            return Err(Error::invalid(format!("action is COORD_WRITE_UPDATE or COORD_WRITE_DELETE, not {other}")));
        }
    };
    Ok(async move {
        match update {
            Some(update) => table.table.update_many(filter, update, right).await,
            None => table.table.delete_many(filter, right).await,
        }
    })
}
