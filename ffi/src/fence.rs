//! Fences: a hold as the condition of writes to tables.
#![allow(unsafe_code)]

use coord_core::error::{Error, Result};
use coord_core::table::{Fence, WriteOptions};

use crate::boundary::{fallible, quiet};
use crate::bytes::Out;
use crate::error::{coord_error_t, coord_status_t};
use crate::handle::{self, object};
use crate::held::{HeldObject, coord_held_t};
use crate::term::{TermObject, coord_term_t};

/// By which right writes are done: after one with this fence, no write with an older hold of the same lock touches that
/// document. It neither keeps the hold nor ends it, and is for any number of writes.
pub struct coord_fence_t;

pub(crate) struct FenceObject(Fence);

object!(FenceObject, coord_fence_t, 31, "fence");

impl FenceObject {
    /// `strict` is 1 or 0, as it comes from the caller.
    ///
    /// # Errors
    /// `InvalidArgument` for other numbers.
    pub(crate) fn new(fence: Fence, strict: i32) -> Result<Self> {
        match strict {
            0 | 1 => Ok(Self(Fence { strict: strict == 1, ..fence })),
            other => Err(Error::invalid(format!("strict is 1 or 0, not {other}"))),
        }
    }
}

/// The options of a write under this fence; without one for NULL.
///
/// # Errors
/// `Handle`.
pub(crate) fn right(fence: *const coord_fence_t) -> Result<WriteOptions> {
    let fence = handle::get_nullable::<FenceObject>(fence)?;
    Ok(WriteOptions { fence: fence.map(|fence| fence.0.clone()), strict: false })
}

/// The fence of a hold, for writes to tables. With `strict` 1 a write is also refused when the hold has ended although
/// nobody has written since: free on memory and SQLite, which always do; on MongoDB the write becomes a transaction.
/// COORD_E_NOT_HELD after a release. A hold that is lost has a fence, with which writes are refused once a later holder
/// has written.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_fence_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_held_fence(
    held: *mut coord_held_t,
    strict: i32,
    out: *mut *mut coord_fence_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let fence = handle::get::<HeldObject>(held)?.shared().fence()?;
        out.put(handle::issue(FenceObject::new(fence, strict)?));
        Ok(())
    })
}

/// The fence of a term: as coord_held_fence. COORD_E_NOT_HELD after the term was resigned or handed over.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_fence_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_term_fence(
    term: *mut coord_term_t,
    strict: i32,
    out: *mut *mut coord_fence_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        let out = out.required("out")?;
        let fence = handle::get::<TermObject>(term)?.fence()?;
        out.put(handle::issue(FenceObject::new(fence, strict)?));
        Ok(())
    })
}

/// Destroys a fence; the hold is not affected. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `fence`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_fence_destroy(fence: *mut coord_fence_t) {
    quiet(|| handle::take::<FenceObject>(fence).map(drop));
}
