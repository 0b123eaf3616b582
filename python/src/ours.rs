//! What belongs to the process that made it.

use coord_core::driver::Runtime;
use coord_core::error::{Error, Result};

/// A value of the core, which a forked child must neither use nor drop: the threads that it counts on are its
/// parent's, and so is what it would release.
pub(crate) struct Ours<T>(Option<T>);

impl<T> Ours<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value.
    ///
    /// # Errors
    /// `Forked` in a child.
    pub(crate) fn get(&self) -> Result<&T> {
        self.0.as_ref().filter(|_| Runtime::is_ours()).ok_or_else(Error::forked)
    }

    /// The value, taken out.
    ///
    /// # Errors
    /// `Forked` in a child.
    pub(crate) fn take(mut self) -> Result<T> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        self.0.take().ok_or_else(Error::forked)
    }
}

impl<T> Drop for Ours<T> {
    fn drop(&mut self) {
        if !Runtime::is_ours() {
            std::mem::forget(self.0.take());
        }
    }
}
