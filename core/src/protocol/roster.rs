//! Who provides what.
//!
//! A provider is part of its session's record ([`ProviderRecord`]), so that one write ends them all: what a dead
//! session provided is gone with the write that made it dead, and a request that comes later finds no live session and
//! is refused. [`provide`] and [`withdraw`] are the steps.
//!
//! [`view`] is the observer's side: from a complete snapshot and the changes after it, who provides what now; [`feed`] tells
//! it, with the edges between "somebody" and "nobody". A provider counts if and only if its session is there, live, and has it. A
//! session that may be suspended counts: no edge for a pause that ends before others declare it dead.
//!
//! Invariant of the edges: for each service first-up and last-down alternate, first-up comes first, and they come only
//! from complete views; a view that replaces another after an interruption gives the difference, never an edge for what
//! was true before and after it.

pub mod feed;
#[cfg(test)]
mod tests;
pub mod view;

use serde::{Deserialize, Serialize};

use super::session::{SessionRecord, Vitality};
use crate::mutants::{self, Mutant};

/// The most providers that one session may have.
pub const MAX_PROVIDERS: usize = 1_000;

/// The longest metadata of one provider, in bytes.
pub const MAX_METADATA: usize = 4 * 1_024;

/// The most that the providers of one session may be together, in bytes of their texts.
pub const MAX_TOGETHER: usize = 1_024 * 1_024;

/// One provider, in the record of its session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProviderRecord {
    /// What tells it apart in its session: `<service>#<instance>`. `k` in the store.
    #[serde(rename = "k")]
    pub key: String,
    /// The service's full name. `s` in the store.
    #[serde(rename = "s")]
    pub service: String,
    /// What it says of itself. `m` in the store.
    #[serde(rename = "m")]
    pub metadata: String,
}

impl ProviderRecord {
    /// A provider of a service. `#` cannot be part of a service's name.
    pub fn new(service: &str, instance: &str, metadata: &str) -> Self {
        Self { key: key(service, instance), service: service.to_owned(), metadata: metadata.to_owned() }
    }

    /// The instance within the service.
    pub fn instance(&self) -> &str {
        self.key.split_once('#').map_or(&self.key, |(_, instance)| instance)
    }

    /// How much it counts toward [`MAX_TOGETHER`].
    pub fn bytes(&self) -> usize {
        self.key.len() + self.service.len() + self.metadata.len()
    }
}

/// The key of a provider in its session's record.
pub fn key(service: &str, instance: &str) -> String {
    format!("{service}#{instance}")
}

/// Adds a provider to a live session, or replaces the one with its key, which then comes last.
pub fn provide(record: Option<SessionRecord>, provider: &ProviderRecord, revision: i64) -> Option<SessionRecord> {
    changed(record, revision, |providers| {
        providers.retain(|other| other.key != provider.key);
        providers.push(provider.clone());
    })
}

/// Removes the provider with this key from a live session, if it has one.
pub fn withdraw(record: Option<SessionRecord>, key: &str, revision: i64) -> Option<SessionRecord> {
    changed(record, revision, |providers| providers.retain(|other| other.key != key))
}

/// A step that was sent before another and comes after it is refused: a provider that was withdrawn does not come back by
/// a request that was late. One that is sent again with its number does no harm.
fn changed(
    record: Option<SessionRecord>,
    revision: i64,
    change: impl FnOnce(&mut Vec<ProviderRecord>),
) -> Option<SessionRecord> {
    let in_turn = |r: &SessionRecord| r.revision <= revision || mutants::on(Mutant::StaleProvide);
    let mut record = record.filter(|r| r.vitality == Vitality::Live && in_turn(r))?;
    change(&mut record.providers);
    record.revision = revision;
    Some(record)
}
