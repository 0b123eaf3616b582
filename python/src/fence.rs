//! A hold, a term or a piece of work as the right to write.

use coord_core::table::{Fence as CoreFence, WriteOptions};
use pyo3::prelude::*;

/// The token of a hold and what it is a token of. It does not keep what is held.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Fence(CoreFence);

impl Fence {
    pub(crate) fn new(fence: CoreFence) -> Self {
        Self(fence)
    }
}

/// By whose right a write is done.
pub(crate) fn write_options(fence: Option<&Bound<'_, Fence>>, strict: bool) -> WriteOptions {
    WriteOptions { fence: fence.map(|fence| fence.get().0.clone()), strict }
}
