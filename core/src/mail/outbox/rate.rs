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
    /// Counts one mail to these domains. Some moment (in milliseconds since 1970) to try again if it is one too many.
    pub(super) async fn count(&self, domains: &BTreeSet<String>) -> Result<Option<i64>> {
        if let Some(rate) = self.options.rate
            && let Some(later) = self.count_one("*", rate).await?
        {
            return Ok(Some(later));
        }
        if let Some(rate) = self.options.per_domain_rate {
            for domain in domains {
                if let Some(later) = self.count_one(domain, rate).await? {
                    return Ok(Some(later));
                }
            }
        }
        Ok(None)
    }

    async fn count_one(&self, what: &str, rate: Rate) -> Result<Option<i64>> {
        let length = i64::try_from(rate.per.as_millis()).unwrap_or(i64::MAX).max(1);
        let window = self.now().await / length;
        let end = (window + 1) * length;
        let key = Key::new(format!("{}/{what}/{length}/{window}", self.name))?;
        let update = Update::parse(doc! { "$inc": { "n": 1_i64 }, "$set": { "end": end } })?;
        let write = Write::new(key, Action::Upsert(update)).prepared()?;
        let written = self.documents()?.write(&TableName::parse(TABLE)?, write).await?;
        let count = written.document.get_i64("n").unwrap_or(i64::MAX);
        Ok((count > i64::from(rate.count)).then_some(end))
    }

    /// Removes the counters of windows that are over.
    pub(super) async fn forget_rates(&self) -> Result<()> {
        if self.options.rate.is_none() && self.options.per_domain_rate.is_none() {
            return Ok(());
        }
        let filter = Filter::parse(doc! { "end": { "$lt": self.now().await - KEPT_MS } })?;
        let write = WriteMany { filter, action: ManyAction::Delete, fence: None, source: None };
        self.documents()?.write_many(&TableName::parse(TABLE)?, write).await?;
        Ok(())
    }
}

/// Longer than the clocks of a store's servers differ.
const KEPT_MS: i64 = 600_000;
