//! Documents as they come back: read ones, lists of them, and what a write has made.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr;

use coord_core::bson::Document;
use coord_core::error::Result;
use coord_core::table::{Revision, Stored, Written};

use crate::boundary::{fallible, quiet, value};
use crate::bytes::{LentBytes, Out, empty};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{EventObject, Payload, coord_event_t, take_into};
use crate::format::Format;
use crate::handle::{self, Owned, object};

/// A document as it was read. What it lends is valid until it, or the list that it belongs to, is destroyed.
pub struct coord_stored_t;

/// Documents, in their order. What it lends is valid until it is destroyed.
pub struct coord_stored_list_t;

/// What a write has done. What it lends is valid until it is destroyed.
pub struct coord_written_t;

pub(crate) struct StoredObject {
    key: LentBytes,
    document: LentBytes,
    revision: Option<Revision>,
}

pub(crate) struct StoredListObject(Vec<Owned<StoredObject>>);

pub(crate) struct WrittenObject {
    document: LentBytes,
    revision: Option<Revision>,
    position: u64,
    created: bool,
}

object!(WrittenObject, coord_written_t, 33, "result of a write");
object!(StoredObject, coord_stored_t, 34, "document");
object!(StoredListObject, coord_stored_list_t, 35, "list of documents");

impl StoredObject {
    pub(crate) fn new(format: Format, stored: Stored) -> Result<Self> {
        let Stored { key, document, revision } = stored;
        Ok(Self { key: format.lend_key(&key)?, document: format.lend(document)?, revision })
    }

    /// A document that is none of a table's: the result of an aggregation.
    pub(crate) fn computed(format: Format, document: Document) -> Result<Self> {
        Ok(Self { key: LentBytes::new(Vec::new()), document: format.lend(document)?, revision: None })
    }
}

impl StoredListObject {
    pub(crate) fn new(documents: Vec<StoredObject>) -> Self {
        Self(documents.into_iter().map(Owned::new).collect())
    }
}

impl WrittenObject {
    pub(crate) fn new(format: Format, written: Written) -> Result<Self> {
        let Written { document, revision, position, created } = written;
        Ok(Self { document: format.lend(document)?, revision, position: position.0, created })
    }
}

/// Takes the result of a write out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_written_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_written(
    event: *mut coord_event_t,
    out: *mut *mut coord_written_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::Written(it) => Ok(*it),
        other => Err(other),
    })
}

/// The document as it is now, or as it was before it was deleted; empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_written_document(written: *const coord_written_t) -> *const c_char {
    read_written(written, empty(), |w| w.document.start())
}

/// The length of that in bytes, without the zero that follows; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_written_document_length(written: *const coord_written_t) -> usize {
    read_written(written, 0, |w| w.document.length())
}

/// Whether there is a revision: 1 or 0. There is none after a deletion.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_written_has_revision(written: *const coord_written_t) -> i32 {
    read_written(written, 0, |w| w.revision.is_some().into())
}

/// The revision; 0 if there is none. Only for comparing, and for the condition of a write.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_written_revision(written: *const coord_written_t) -> u64 {
    read_written(written, 0, |w| w.revision.map_or(0, |revision| revision.0))
}

/// The place of the change in the history: a watch or a cached table that has come to it has shown the change. 0 for
/// NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_written_position(written: *const coord_written_t) -> u64 {
    read_written(written, 0, |w| w.position)
}

/// Whether there was no document before: 1 or 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_written_created(written: *const coord_written_t) -> i32 {
    read_written(written, 0, |w| w.created.into())
}

/// Destroys the result of a write. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `written`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_written_destroy(written: *mut coord_written_t) {
    quiet(|| handle::take::<WrittenObject>(written).map(drop));
}

/// Takes the document out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stored_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_stored(
    event: *mut coord_event_t,
    out: *mut *mut coord_stored_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::Stored(it) => Ok(*it),
        other => Err(other),
    })
}

/// The key, in the format of the table; empty for what an aggregation gives, and for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_key(stored: *const coord_stored_t) -> *const c_char {
    read_stored(stored, empty(), |s| s.key.start())
}

/// The length of that in bytes, without the zero that follows; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_key_length(stored: *const coord_stored_t) -> usize {
    read_stored(stored, 0, |s| s.key.length())
}

/// The document, in the format of the table, with its _id unless a projection left it out; empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_document(stored: *const coord_stored_t) -> *const c_char {
    read_stored(stored, empty(), |s| s.document.start())
}

/// The length of that in bytes, without the zero that follows; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_document_length(stored: *const coord_stored_t) -> usize {
    read_stored(stored, 0, |s| s.document.length())
}

/// Whether there is a revision: 1 or 0. On MongoDB there is none if only a part of the document was read.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_has_revision(stored: *const coord_stored_t) -> i32 {
    read_stored(stored, 0, |s| s.revision.is_some().into())
}

/// The revision; 0 if there is none. Only for comparing, and for the condition of a write.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_revision(stored: *const coord_stored_t) -> u64 {
    read_stored(stored, 0, |s| s.revision.map_or(0, |revision| revision.0))
}

/// Destroys a document that the caller owns. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `stored`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_destroy(stored: *mut coord_stored_t) {
    quiet(|| handle::take::<StoredObject>(stored).map(drop));
}

/// Takes the list of documents out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_stored_list_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_stored_list(
    event: *mut coord_event_t,
    out: *mut *mut coord_stored_list_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::StoredList(it) => Ok(it),
        other => Err(other),
    })
}

/// How many documents there are in the list; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_list_count(list: *const coord_stored_list_t) -> usize {
    read_list(list, 0, |l| l.0.len())
}

/// The document at this place; NULL beyond the end. Belongs to the list.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_list_at(list: *const coord_stored_list_t, index: usize) -> *const coord_stored_t {
    read_list(list, ptr::null(), |l| l.0.get(index).map_or(ptr::null(), Owned::handle))
}

/// Destroys a list and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `list`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_stored_list_destroy(list: *mut coord_stored_list_t) {
    quiet(|| handle::take::<StoredListObject>(list).map(drop));
}

/// Takes the number out of an event, once: of documents. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_number(
    event: *mut coord_event_t,
    out: *mut u64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::get::<EventObject>(event)?.take("number", |payload| match payload {
            Payload::Number(number) => Ok(number),
            other => Err(other),
        })?);
        Ok(())
    })
}

/// Takes out of an event, once, how many documents were written, and the place of the last of the changes in the
/// history. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing; `count` and `position` may be NULL
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_many_written(
    event: *mut coord_event_t,
    count: *mut u64,
    position: *mut u64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (count, position, err) = unsafe { (Out::lent(count), Out::lent(position), Out::lent(err)) };
    fallible(err, || {
        let written =
            handle::get::<EventObject>(event)?.take("result of a write to many", |payload| match payload {
                Payload::ManyWritten(written) => Ok(written),
                other => Err(other),
            })?;
        count.put(written.count);
        position.put(written.position.0);
        Ok(())
    })
}

fn read_written<T>(handle: *const coord_written_t, neutral: T, read: impl FnOnce(&WrittenObject) -> T) -> T {
    value(neutral, || Ok(read(&*handle::get::<WrittenObject>(handle)?)))
}

fn read_stored<T>(handle: *const coord_stored_t, neutral: T, read: impl FnOnce(&StoredObject) -> T) -> T {
    value(neutral, || Ok(read(&*handle::get::<StoredObject>(handle)?)))
}

fn read_list<T>(handle: *const coord_stored_list_t, neutral: T, read: impl FnOnce(&StoredListObject) -> T) -> T {
    value(neutral, || Ok(read(&*handle::get::<StoredListObject>(handle)?)))
}
