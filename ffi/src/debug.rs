//! Hooks for tests.
#![allow(unsafe_code)]

use coord_core::driver::thread_count;

use crate::boundary::value;

/// How many threads the library has at this moment: 0 some time after the last client, queue callback and operation
/// has ended. For tests.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_debug_thread_count() -> u32 {
    value(0, || Ok(thread_count() as u32))
}

/// Panics behind the boundary, and returns COORD_E_PANIC.
#[cfg(feature = "test-panic")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_test_panic(err: *mut *mut crate::error::coord_error_t) -> crate::error::coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let err = unsafe { crate::bytes::Out::lent(err) };
    crate::boundary::fallible(err, || panic!("on purpose"))
}
