//! Rates across replicas: one counter per window, domain and outbox, counted up before a mail is sent. Windows are those of
//! the store's date: by their own clocks, replicas would each fill a window of their own.

use std::collections::BTreeSet;

use bson::doc;

use super::Inner;
use super::options::Rate;
use crate::error::Result;
use crate::protocol::document::{Action, Filter, Key, TableName, Update, Write};
use crate::store::documents::{ManyAction, WriteMany};

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
        let number = self.now().await? / length;
        let key = Key::new(format!("{}/{what}/{length}/{number}", self.name))?;
        Ok(Window { key, end: (number + 1) * length })
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
}

/// Longer than the clocks of a store's servers differ.
const KEPT_MS: i64 = 600_000;
