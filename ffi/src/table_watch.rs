//! Watching tables.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::future::Future;

use coord_core::error::Result;
use coord_core::table::{Filter, Position, TableWatch, WatchOptions};

use crate::boundary::{fallible, quiet, timeout};
use crate::bytes::{Bytes, Out, lent_number};
use crate::cancel::coord_cancel_t;
use crate::delivery::{DeliveryObject, coord_delivery_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::event::{COORD_EVENT_DELIVERY, Payload, coord_op_t};
use crate::format::Format;
use crate::handle::{self, object};
use crate::options::{Given, coord_options_t};
use crate::queue::{Report, coord_queue_t, wait};
use crate::shared::Shared;
use crate::table::{coord_table_t, table};

/// The changes of a table, each acknowledged. It keeps its client open.
pub struct coord_table_watch_t;

pub(crate) struct TableWatchObject {
    watch: Shared<TableWatch>,
    format: Format,
}

object!(TableWatchObject, coord_table_watch_t, 37, "watch of a table");

/// Watches the documents that match: a snapshot in brackets, then changes. A NULL filter is every document. `from` may
/// be NULL; with a position (coord_delivery_position of an earlier watch, coord_written_position) there is no
/// snapshot, but the changes after it, unless the store no longer has them. One that is still to come is
/// COORD_E_INVALID_ARGUMENT by the first coord_table_watch_next in memory and on SQLite; on MongoDB the watch waits for it.
/// Options: "previous" (switch, 0 by
/// default): also show what a document was before a change, where the table keeps that (coord_table_configure;
/// always in memory). No I/O: the first coord_table_watch_next begins.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_table_watch_destroy; `options` stay the caller's
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_watch(
    table: *mut coord_table_t,
    filter: *const c_void,
    filter_len: usize,
    from: *const u64,
    options: *mut coord_options_t,
    out: *mut *mut coord_table_watch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (filter, from, out, err) =
        unsafe { (Bytes::lent(filter, filter_len), lent_number(from), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let table = self::table(table)?;
        let filter = Filter::parse(table.format.filter(filter)?)?;
        let mut given = Given::read(options)?;
        let options =
            WatchOptions { from: from.map(Position), previous: given.switch("previous")?.unwrap_or_default() };
        given.finish()?;
        let watch = Shared::new("watch of a table", table.table.watch(filter, options)?);
        out.put(handle::issue(TableWatchObject { watch, format: table.format }));
        Ok(())
    })
}

/// The next delivery: waits for it, through outages of the store, and until the last one is done. One that is not
/// acknowledged with coord_delivery_done comes again, and nothing comes before it. A call that ends by its time limit
/// or by `cancel` takes nothing away. COORD_E_CLOSED when the watch or the client is closed, or the handle destroyed;
/// COORD_E_UNSUPPORTED if the store cannot watch, or not by this filter.
///
/// @threadsafe yes
/// @blocks until something is to be told, up to timeout_ms
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_delivery_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_watch_next(
    watch: *mut coord_table_watch_t,
    timeout_ms: i64,
    cancel: *mut coord_cancel_t,
    out: *mut *mut coord_delivery_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        out.put(handle::issue(wait(op_next(watch)?, timeout(timeout_ms)?, cancel)?));
        Ok(())
    })
}

/// Starts coord_table_watch_next; ends with COORD_EVENT_DELIVERY. If the event is destroyed untaken, the delivery
/// comes again.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*op` (`op` may be NULL), and ends it with coord_op_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_watch_next_start(
    watch: *mut coord_table_watch_t,
    queue: *mut coord_queue_t,
    tag: u64,
    op: *mut *mut coord_op_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (op, err) = unsafe { (Out::lent(op), Out::lent(err)) };
    fallible(err, || {
        let (limit, future) = (None, op_next(watch)?);
        Report { queue, tag, op }
            .start(COORD_EVENT_DELIVERY, limit, future, |delivery| Payload::Delivery(Box::new(delivery)))
    })
}

fn op_next(watch: *mut coord_table_watch_t) -> Result<impl Future<Output = Result<DeliveryObject>> + Send + 'static> {
    let watch = handle::get::<TableWatchObject>(watch)?;
    let format = watch.format;
    Ok(watch.watch.wait(move |watch| async move { DeliveryObject::new(format, watch.next().await?) }))
}

/// Ends a watch: waits for the next delivery end with COORD_E_CLOSED. Closing twice is no error.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing; the handle stays, and is still to be destroyed
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_watch_close(
    watch: *mut coord_table_watch_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { Out::lent(err) };
    fallible(err, || {
        handle::get::<TableWatchObject>(watch)?.watch.value().close();
        Ok(())
    })
}

/// Destroys a watch, and ends it. A delivery that is out can still be acknowledged. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `watch`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_table_watch_destroy(watch: *mut coord_table_watch_t) {
    quiet(|| {
        // At once, also when another thread is in a call with it.
        handle::take::<TableWatchObject>(watch)?.watch.end();
        Ok(())
    });
}
