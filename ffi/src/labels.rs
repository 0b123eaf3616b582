//! Labels, lent one by one.

use std::collections::BTreeMap;
use std::ffi::c_char;

use crate::bytes::{Lent, empty};

/// The labels of a client, in the order of their keys.
pub(crate) struct Labels(Vec<(Lent, Lent)>);

impl Labels {
    pub(crate) fn new(labels: &BTreeMap<String, String>) -> Self {
        Self(labels.iter().map(|(key, value)| (Lent::new(key), Lent::new(value))).collect())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Empty beyond the end.
    pub(crate) fn key(&self, index: usize) -> *const c_char {
        self.0.get(index).map_or_else(empty, |(key, _)| key.start())
    }

    /// Empty beyond the end.
    pub(crate) fn value(&self, index: usize) -> *const c_char {
        self.0.get(index).map_or_else(empty, |(_, value)| value.start())
    }
}
