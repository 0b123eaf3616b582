//! A file of the core's session as it is, on loom's atomics.

use loom::sync::atomic;

#[path = "../../../core/src/session/validity.rs"]
pub(crate) mod validity;
