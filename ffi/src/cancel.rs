//! Cancel tokens: one thread ends the waiting of others.
#![allow(unsafe_code)]

use coord_core::driver::CancelToken;
use coord_core::error::Result;

use crate::boundary::{fallible, quiet, value};
use crate::bytes::Out;
use crate::error::{coord_error_t, coord_status_t};
use crate::handle::{self, object};

/// Ends the waiting of the calls that it is given to. One token may serve many calls; once fired, it stays so.
pub struct coord_cancel_t;

pub(crate) struct CancelObject(CancelToken);

object!(CancelObject, coord_cancel_t, 3, "cancel token");

/// The token behind a handle; none for NULL.
pub(crate) fn token(cancel: *mut coord_cancel_t) -> Result<Option<CancelToken>> {
    Ok(handle::get_nullable::<CancelObject>(cancel)?.map(|cancel| cancel.0.clone()))
}

/// Makes a cancel token.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_cancel_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_cancel_new(
    out: *mut *mut coord_cancel_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        out.required("out")?.put(handle::issue(CancelObject(CancelToken::new())));
        Ok(())
    })
}

/// Makes every call that waits with this token, now or later, end with COORD_E_CANCELLED. A call whose outcome is
/// certain at that moment may still succeed. One that ends so holds nothing; of a write it is not known whether it was
/// done, or still will be. Not for signal handlers.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cancel_fire(cancel: *mut coord_cancel_t) {
    quiet(|| {
        handle::get::<CancelObject>(cancel)?.0.fire();
        Ok(())
    });
}

/// 1 if the token was fired, else 0.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cancel_is_fired(cancel: *mut coord_cancel_t) -> i32 {
    value(0, || Ok(i32::from(handle::get::<CancelObject>(cancel)?.0.is_fired())))
}

/// Destroys a token without firing it: calls that wait with it go on. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `cancel`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_cancel_destroy(cancel: *mut coord_cancel_t) {
    quiet(|| handle::take::<CancelObject>(cancel).map(drop));
}
