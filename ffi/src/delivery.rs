//! What a watch of a table delivers.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use coord_core::bson::Document;
use coord_core::error::{Code, Error, Result};
use coord_core::table::{Delivery, Key, Revision, TableEvent};

use crate::boundary::{fallible, quiet, value};
use crate::bytes::{LentBytes, Out, Text, empty};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{Payload, coord_event_t, take_into};
use crate::format::Format;
use crate::handle::{self, object};

/// There is no such delivery.
pub const COORD_TABLE_NONE: i32 = 0;
/// A snapshot begins: what is not shown up to COORD_TABLE_INIT_DONE is not there any more.
pub const COORD_TABLE_INIT: i32 = 1;
/// A document of the snapshot.
pub const COORD_TABLE_INIT_APPLY: i32 = 2;
/// The snapshot is complete.
pub const COORD_TABLE_INIT_DONE: i32 = 3;
/// A document was made or has changed, or matches the filter now.
pub const COORD_TABLE_APPLY: i32 = 4;
/// A document was removed, or matches the filter no more.
pub const COORD_TABLE_DELETE: i32 = 5;

/// One event of a watch, to be acknowledged; destroyed without that, it comes again. What it lends is valid until it is
/// destroyed.
pub struct coord_delivery_t;

pub(crate) struct DeliveryObject {
    /// Until it is done.
    delivery: Mutex<Option<Delivery>>,
    kind: i32,
    key: Option<LentBytes>,
    document: Option<LentBytes>,
    previous: Option<LentBytes>,
    revision: Option<Revision>,
    position: u64,
    failures: u32,
}

object!(DeliveryObject, coord_delivery_t, 38, "delivery");

impl DeliveryObject {
    pub(crate) fn new(format: Format, delivery: Delivery) -> Result<Self> {
        type Parts<'a> = (i32, Option<&'a Key>, Option<&'a Document>, Option<&'a Document>, Option<Revision>);
        let (kind, key, document, previous, revision): Parts<'_> = match delivery.event() {
            TableEvent::Init => (COORD_TABLE_INIT, None, None, None, None),
            TableEvent::InitApply { key, document, revision } => {
                (COORD_TABLE_INIT_APPLY, Some(key), Some(document), None, *revision)
            }
            TableEvent::InitDone => (COORD_TABLE_INIT_DONE, None, None, None, None),
            TableEvent::Apply { key, document, previous, revision } => {
                (COORD_TABLE_APPLY, Some(key), Some(document), previous.as_ref(), *revision)
            }
            TableEvent::Delete { key, previous } => (COORD_TABLE_DELETE, Some(key), None, previous.as_ref(), None),
            other => return Err(Error::new(Code::Unsupported, format!("an event without a number: {other:?}"))),
        };
        let lend = |document: Option<&Document>| document.map(|document| format.lend(document.clone())).transpose();
        Ok(Self {
            kind,
            key: key.map(|key| format.lend_key(key)).transpose()?,
            document: lend(document)?,
            previous: lend(previous)?,
            revision,
            position: delivery.position().0,
            failures: delivery.failures(),
            delivery: Mutex::new(Some(delivery)),
        })
    }
}

/// Takes the delivery out of an event, once. For an operation that failed, its error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_delivery_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_event_take_delivery(
    event: *mut coord_event_t,
    out: *mut *mut coord_delivery_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    take_into(event, out, err, |payload| match payload {
        Payload::Delivery(it) => Ok(*it),
        other => Err(other),
    })
}

/// What has happened: COORD_TABLE_...; COORD_TABLE_NONE for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_type(delivery: *const coord_delivery_t) -> i32 {
    read(delivery, COORD_TABLE_NONE, |d| d.kind)
}

/// The key, in the format of the table; empty for COORD_TABLE_INIT and COORD_TABLE_INIT_DONE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_key(delivery: *const coord_delivery_t) -> *const c_char {
    read(delivery, empty(), |d| d.key.as_ref().map_or_else(empty, LentBytes::start))
}

/// The length of that in bytes, without the zero that follows; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_key_length(delivery: *const coord_delivery_t) -> usize {
    read(delivery, 0, |d| d.key.as_ref().map_or(0, LentBytes::length))
}

/// The document, in the format of the table: as of this change, or on MongoDB perhaps as of a later one. Empty for
/// COORD_TABLE_DELETE and where there is none.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_document(delivery: *const coord_delivery_t) -> *const c_char {
    read(delivery, empty(), |d| d.document.as_ref().map_or_else(empty, LentBytes::start))
}

/// The length of that in bytes, without the zero that follows; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_document_length(delivery: *const coord_delivery_t) -> usize {
    read(delivery, 0, |d| d.document.as_ref().map_or(0, LentBytes::length))
}

/// What the document was before, where that was asked for and is known; else empty.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_previous(delivery: *const coord_delivery_t) -> *const c_char {
    read(delivery, empty(), |d| d.previous.as_ref().map_or_else(empty, LentBytes::start))
}

/// The length of that in bytes, without the zero that follows; 0 for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_previous_length(delivery: *const coord_delivery_t) -> usize {
    read(delivery, 0, |d| d.previous.as_ref().map_or(0, LentBytes::length))
}

/// Whether there is a revision: 1 or 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_has_revision(delivery: *const coord_delivery_t) -> i32 {
    read(delivery, 0, |d| d.revision.is_some().into())
}

/// The revision; 0 if there is none. Only for comparing, and for the condition of a write.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_revision(delivery: *const coord_delivery_t) -> u64 {
    read(delivery, 0, |d| d.revision.map_or(0, |revision| revision.0))
}

/// Up to where everything has been told, with this event: a later watch may begin here, and misses nothing. That is the
/// event's own place, or the one before while other changes of its place may follow: those of one transaction on
/// MongoDB, and every change on MongoDB 6.1 or later. Those of its place come again then. 0 within a snapshot.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_position(delivery: *const coord_delivery_t) -> u64 {
    read(delivery, 0, |d| d.position)
}

/// How often this event was delivered before.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_failures(delivery: *const coord_delivery_t) -> u32 {
    read(delivery, 0, |d| d.failures)
}

/// Says how it went: well, with a NULL `error`; or with an error, which is logged, and the event comes again: after 5
/// ms at first, up to 1000 s. COORD_E_NOT_HELD when it was done before.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_delivery_done(
    delivery: *mut coord_delivery_t,
    error: *const c_char,
    error_len: usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (error, err) = unsafe { (Text::lent(error, error_len), Out::lent(err)) };
    fallible(err, || {
        let object = handle::get::<DeliveryObject>(delivery)?;
        let outcome = if error.is_null() { Ok(()) } else { Err(error.read("error")?) };
        let delivery = object.delivery.lock().unwrap_or_else(PoisonError::into_inner).take();
        let delivery = delivery.ok_or_else(|| Error::new(Code::NotHeld, "the delivery was done before"))?;
        delivery.done(outcome);
        Ok(())
    })
}

/// Destroys a delivery. One that was not done comes again. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `delivery`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_delivery_destroy(delivery: *mut coord_delivery_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        let object = handle::take::<DeliveryObject>(delivery)?;
        drop(object.delivery.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    });
}

fn read<T>(handle: *const coord_delivery_t, neutral: T, read: impl FnOnce(&DeliveryObject) -> T) -> T {
    value(neutral, || Ok(read(&*handle::get::<DeliveryObject>(handle)?)))
}
