//! How an outbox sends.
//!
//! | option | value | default | meaning |
//! |---|---|---|---|
//! | `on_doubt` | `send`, `park` | `send` | whether a mail that may have been sent is sent again: at least once, or at most once |
//! | `rate` | `100/m` | none | at most so many mails per `s`, `m` or `h`, by all replicas together |
//! | `per_domain_rate` | `10/s` | none | the same for the recipients' domains, each by itself |
//! | `attempts` | 1 to 10000 | 20 | how often a mail is begun before it has failed |
//! | `retry_min`, `retry_max` | duration | 10 s, 1 h | the wait before the second attempt, which doubles; its bound |
//! | `poll` | duration | 1 s | how often senders look for what they were not told of |

use std::time::Duration;

use crate::config::{choose, parse_duration, parse_number};
use crate::error::{Error, Result};

/// Whether a mail that may have been sent is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDoubt {
    /// It is: each mail arrives at least once, and in the documented cases twice, with the same Message-ID.
    #[default]
    Send,
    /// It is not: each mail arrives at most once, and a person decides about those in doubt.
    Park,
}

/// At most so many in each second, minute or hour by the store's date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl Rate {
    /// Reads `100/m`: a number, and `s`, `m` or `h`.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("a rate is a number from 1 and s, m or h, such as 100/m");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let per = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => return Err(wrong()),
        };
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        Ok(Self { count, per })
    }
}

/// How an outbox sends; see the table above.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    pub(super) on_doubt: OnDoubt,
    pub(super) rate: Option<Rate>,
    pub(super) per_domain_rate: Option<Rate>,
    pub(super) attempts: u32,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    pub(super) poll: Duration,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            on_doubt: OnDoubt::Send,
            rate: None,
            per_domain_rate: None,
            attempts: 20,
            retry_min: Duration::from_secs(10),
            retry_max: Duration::from_secs(3_600),
            poll: Duration::from_secs(1),
        }
    }
}

impl OutboxOptions {
    /// Sets one option by its name.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such option, or if the value is not in its range.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "on_doubt" => {
                self.on_doubt = choose(key, value, &[("send", OnDoubt::Send), ("park", OnDoubt::Park)])?;
            }
            "rate" => self.rate = Some(Rate::parse(value)?),
            "per_domain_rate" => self.per_domain_rate = Some(Rate::parse(value)?),
            "attempts" => self.attempts = parse_number(key, value, 1, 10_000)?,
            "retry_min" => self.retry_min = parse_duration(key, value)?,
            "retry_max" => self.retry_max = parse_duration(key, value)?,
            "poll" => self.poll = parse_duration(key, value)?.max(SHORTEST_POLL),
            _ => {
                return Err(Error::invalid(format!(
                    "there is no option '{}' of an outbox; the options are on_doubt, rate, per_domain_rate, attempts, \
                     retry_min, retry_max and poll",
                    key.chars().take(64).collect::<String>()
                )));
            }
        }
        Ok(())
    }

    /// The same options with this one set.
    ///
    /// # Errors
    /// As [`OutboxOptions::set`].
    pub fn with(mut self, key: &str, value: &str) -> Result<Self> {
        self.set(key, value)?;
        Ok(self)
    }

    /// How long to wait after so many attempts.
    pub(super) fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.retry_min.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(self.retry_max)
    }
}

const SHORTEST_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_mistakes_named() {
        let options = OutboxOptions::default().with("rate", "100/m").unwrap().with("on_doubt", "park").unwrap();
        assert_eq!(options.rate, Some(Rate { count: 100, per: Duration::from_secs(60) }));
        assert_eq!(options.on_doubt, OnDoubt::Park);
        for (key, value) in [("rate", "0/s"), ("rate", "10"), ("rate", "1/d"), ("on_doubt", "ask"), ("colour", "red")] {
            assert!(options.clone().with(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let options = OutboxOptions::default();
        assert_eq!(options.pause(1), Duration::from_secs(10));
        assert_eq!(options.pause(3), Duration::from_secs(40));
        assert_eq!(options.pause(500), Duration::from_secs(3_600));
    }
}
