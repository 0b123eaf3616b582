//! Rates across replicas: one counter per window, domain and outbox, counted up before a mail is sent. Windows are those of
//! the store's date: by their own clocks, replicas would each fill a window of their own.
//!
//! A domain has a *line*, too: one more counter, which deals out places in the windows to come, as many in each as may be
//! sent in it. A mail over the limit is put off to its place at once, and not from window to window: of a long backlog
//! each is put back about once. A place is when the mail is `due`, and no right: only the window's counter decides what
//! is sent. So a place that nobody takes, or that two have, makes nothing faster, and keeps no other mail from a window
//! that has room. Mails at their place come before newer ones there, since they are due first.

use std::collections::BTreeSet;
use std::ops::Range;
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
            if self.add(&window.counter, 1).await? > i64::from(rate.count) {
                // Not from this one: who comes now is too late as well, and need not be counted again.
                for counter in &counted {
                    self.add(counter, -1).await?;
                }
                if what == "*" {
                    self.full.set(self.core.setup().env.now() + window.left);
                    return Ok(Some(window.counter.end));
                }
                return self.place(what, rate, &window).await.map(Some);
            }
            counted.push(window.counter);
        }
        Ok(None)
    }

    async fn window(&self, what: &str, rate: Rate) -> Result<Window> {
        let length = i64::try_from(rate.per.as_millis()).unwrap_or(i64::MAX).max(1);
        let now = self.now().await?;
        let number = now / length;
        let key = Key::new(format!("{}/{what}/{length}/{number}", self.name))?;
        let end = (number + 1) * length;
        let left = Duration::from_millis((end - now).unsigned_abs());
        Ok(Window { counter: Counter { key, end }, number, length, left })
    }

    /// Deals out the domain's next free place behind this window, which is full: when it begins.
    async fn place(&self, domain: &str, rate: Rate, full: &Window) -> Result<i64> {
        // Each limit has its own line, since the same place is another moment with another one.
        let key = Key::new(format!("{}/{domain}/{}/{}/line", self.name, full.length, rate.count))?;
        let line = Counter { key, end: full.counter.end + AHEAD_MS };
        let places = full.places(rate.count);
        for _ in 0..TRIES {
            let place = self.add(&line, 1).await? - 1;
            if places.contains(&place) {
                return Ok(place / i64::from(rate.count) * full.length);
            }
            // It is new, has been passed by the windows, or leads too far. Only the first to see that moves it.
            let outside = doc! { "$not": { "$gte": places.start, "$lt": places.end } };
            let write = WriteMany {
                filter: Filter::parse(doc! { "_id": line.key.value().clone(), "n": outside })?,
                action: ManyAction::Update(Update::parse(doc! { "$set": { "n": places.start } })?),
                fence: None,
                source: None,
            };
            self.documents()?.write_many(&TableName::parse(TABLE)?, write).await?;
        }
        Ok(full.counter.end)
    }

    /// What the counter is after that.
    async fn add(&self, counter: &Counter, count: i64) -> Result<i64> {
        let update = Update::parse(doc! { "$inc": { "n": count }, "$set": { "end": counter.end } })?;
        let write = Write::new(counter.key.clone(), Action::Upsert(update)).prepared()?;
        let written = self.documents()?.write(&TableName::parse(TABLE)?, write).await?;
        Ok(written.document.get_i64("n").unwrap_or(i64::MAX))
    }

    /// Removes the counters that are over.
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
struct Counter {
    key: Key,
    end: i64,
}

struct Window {
    counter: Counter,
    number: i64,
    length: i64,
    /// How long it is from now to its end.
    left: Duration,
}

impl Window {
    /// The places of the windows behind it, for a day: place *p* is in window *p / count*.
    fn places(&self, count: u32) -> Range<i64> {
        let of = |window: i64| window.saturating_mul(count.into());
        let next = self.number + 1;
        of(next)..of(next + (AHEAD_MS / self.length).max(1))
    }
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

/// How far ahead places are dealt out. Behind that a line begins again with the next window: so a longer backlog is put
/// back about once a day, and a date that was wrong, or a limit that is no more, delays a mail for no longer.
const AHEAD_MS: i64 = 86_400_000;

/// How often a line may turn out to be elsewhere; then a mail is put off to the next window.
const TRIES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_windows_to_come() {
        let window = |length, number| Window {
            counter: Counter { key: Key::from(0), end: 0 },
            number,
            length,
            left: Duration::ZERO,
        };
        assert_eq!(window(60_000, 7).places(5), 8 * 5..(8 + 1_440) * 5);
        assert_eq!(window(3_600_000, 0).places(1), 1..25);
        assert_eq!(window(2 * AHEAD_MS, 3).places(2), 8..10, "never none");
    }
}
