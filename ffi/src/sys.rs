//! The caller's functions and their data, which no type of Rust's can vouch for.
#![allow(unsafe_code)]

use std::ffi::c_void;

/// Frees the data of a callback. Called exactly once, when the last call of the callback has returned, also when
/// registering it fails.
pub type coord_destroy_cb = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// The caller's data for a callback, and the duty to free it once.
pub(crate) struct UserData {
    data: *mut c_void,
    destroy: coord_destroy_cb,
}

// SAFETY: the header says that a callback and its destructor are called on threads of the library, so that data which
// is registered for one is fit for that.
unsafe impl Send for UserData {}
// SAFETY: as above; the header says of each callback whether its calls may overlap.
unsafe impl Sync for UserData {}

impl UserData {
    /// # Safety
    /// `destroy`, if there is one, may be called once with `data` on any thread.
    pub(crate) unsafe fn new(data: *mut c_void, destroy: coord_destroy_cb) -> Self {
        Self { data, destroy }
    }

    pub(crate) fn get(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy.take() {
            // SAFETY: by the contract of `new`, and `take` makes it the only call.
            unsafe { destroy(self.data) }
        }
    }
}
