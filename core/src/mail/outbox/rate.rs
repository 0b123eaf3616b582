//! Rates across replicas: one counter per window, domain and outbox, counted up before a mail is sent. Windows are those of
//! the store's date: by their own clocks, replicas would each fill a window of their own.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::doc;

use super::Inner;
use super::options::Rate;
use crate::error::Result;
use crate::protocol::document::{Action, Filter, Key, TableName, Update, Write};
use crate::store::documents::{ManyAction, WriteMany};
use crate::time::Timestamp;

/// The table of the counters.
const TABLE: &str = "outbox_rates";

impl Inner {
    /// Counts one mail to these domains. Some moment (in milliseconds since 1970) to try again if it is one too many:
    /// then it takes nothing from the other counters, which others may use.
    pub(super) async fn count(&self, domains: &BTreeSet<String>) -> Result<Option<i64>> {
        let mut counters: Vec<(&str, Rate)> = Vec::new();
        if let Some(rate) = self.options.per_domain_rate {
            counters.extend(domains.iter().map(|domain| (domain.as_str(), rate)));
        }
        counters.extend(self.options.rate.map(|rate| ("*", rate)));
        let mut counted = Vec::new();
        for (what, rate) in counters {
            let window = self.window(what, rate).await?;
            if self.add(&window, 1).await? > i64::from(rate.count) {
                if what == "*" {
                    self.full.set(self.core.setup().env.now() + window.left);
                }
                // Not from this one: who comes now is too late as well, and need not be counted again.
                for window in &counted {
                    self.add(window, -1).await?;
                }
                return Ok(Some(window.end));
            }
            counted.push(window);
        }
        Ok(None)
    }

    async fn window(&self, what: &str, rate: Rate) -> Result<Window> {
        let length = i64::try_from(rate.per.as_millis()).unwrap_or(i64::MAX).max(1);
        let now = self.now().await?;
        let number = now / length;
        let key = Key::new(format!("{}/{what}/{length}/{number}", self.name))?;
        let end = (number + 1) * length;
        Ok(Window { key, end, left: Duration::from_millis((end - now).unsigned_abs()) })
    }

    /// What the counter is after that.
    async fn add(&self, window: &Window, count: i64) -> Result<i64> {
        let update = Update::parse(doc! { "$inc": { "n": count }, "$set": { "end": window.end } })?;
        let write = Write::new(window.key.clone(), Action::Upsert(update)).prepared()?;
        let written = self.documents()?.write(&TableName::parse(TABLE)?, write).await?;
        Ok(written.document.get_i64("n").unwrap_or(i64::MAX))
    }

    /// Removes the counters of windows that are over.
    pub(super) async fn forget_rates(&self) -> Result<()> {
        if self.options.rate.is_none() && self.options.per_domain_rate.is_none() {
            return Ok(());
        }
        let filter = Filter::parse(doc! { "end": { "$lt": self.now().await? - KEPT_MS } })?;
        let write = WriteMany { filter, action: ManyAction::Delete, fence: None, source: None };
        self.documents()?.write_many(&TableName::parse(TABLE)?, write).await?;
        Ok(())
    }
}

/// A counter, and when its time is over.
struct Window {
    key: Key,
    end: i64,
    /// How long that is from now.
    left: Duration,
}

/// Until when the rate of all mails is used up, as far as this process knows, by its own clock. A mail that was claimed
/// before that would be counted and put back, one after the other of all that wait.
#[derive(Default)]
pub(super) struct Full(Mutex<Option<Timestamp>>);

impl Full {
    fn set(&self, until: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// That moment if it lies after this one.
    pub(super) fn after(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).filter(|until| *until > now)
    }
}

/// Longer than the clocks of a store's servers differ.
const KEPT_MS: i64 = 600_000;
