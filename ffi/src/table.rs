//! Tables: their handles, and writing to them.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::Arc;

use coord_core::error::Result;
use coord_core::table::Table;

use crate::boundary::{fallible, quiet, value};
use crate::bytes::{Lent, Out, Text, empty};
use crate::client::{client, coord_client_t};
use crate::error::{coord_error_t, coord_status_t};
use crate::format::Format;
use crate::handle::{self, object};

/// A table: the store as a place for documents. It keeps its client open.
pub struct coord_table_t;

pub(crate) struct TableObject {
    pub(crate) table: Table,
    pub(crate) format: Format,
    name: Lent,
}

object!(TableObject, coord_table_t, 32, "table");

/// The table behind a handle.
///
/// # Errors
/// `Handle`.
pub(crate) fn table(handle: *const coord_table_t) -> Result<Arc<TableObject>> {
    handle::get::<TableObject>(handle)
}

/// The table of this name: `name`, or `database.collection` for any collection of a MongoDB server. Documents and keys
/// cross in `format`, COORD_FORMAT_JSON or COORD_FORMAT_BSON. No I/O: the table is made by its first document.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_table_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_table_new(
    client: *mut coord_client_t,
    name: *const c_char,
    name_len: usize,
    format: i32,
    out: *mut *mut coord_table_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, out, err) = unsafe { (Text::lent(name, name_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let (client, format) = (self::client(client)?, Format::numbered(format)?);
        let table = client.table(&name.read("name")?)?;
        let name = Lent::new(table.name());
        out.put(handle::issue(TableObject { table, format, name }));
        Ok(())
    })
}

/// The name of the table; valid until the handle is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_table_name(table: *const coord_table_t) -> *const c_char {
    value(empty(), || Ok(self::table(table)?.name.start()))
}

/// Destroys the handle of a table; its documents stay. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `table`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_table_destroy(table: *mut coord_table_t) {
    quiet(|| handle::take::<TableObject>(table).map(drop));
}
