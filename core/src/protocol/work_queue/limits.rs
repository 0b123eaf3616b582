//! How long a key waits after an error, and how many runs may begin in a second.

use std::time::Duration;

use crate::time::Timestamp;

/// Waits that double with each error in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first error.
    pub min: Duration,
    /// At most, before chance adds up to a quarter.
    pub max: Duration,
}

impl Default for Backoff {
    /// 5 ms to 1000 s, as client-go has it: a glitch costs nothing, and what fails for hours costs four runs an hour.
    fn default() -> Self {
        Self { min: Duration::from_millis(5), max: Duration::from_secs(1000) }
    }
}

impl Backoff {
    /// The wait after this many errors in a row. `jitter`, from 0 to 1, adds up to a quarter, so that keys that
    /// failed together do not come back together.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(MOST_DOUBLINGS);
        let plain = self.min.saturating_mul(1 << doublings).min(self.max);
        plain + plain.mul_f64(0.25 * jitter.clamp(0.0, 1.0))
    }
}

/// From a nanosecond this is 4 s, from the default 60 days.
const MOST_DOUBLINGS: u32 = 31;

/// How many runs may begin in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// In the long run; above zero.
    pub per_second: f64,
    /// At once, after a time without runs; at least 1.
    pub burst: u32,
}

/// Lets runs through at a rate: keeps the moment at which the next run would be due if they came evenly.
#[derive(Debug)]
pub struct Gate(Option<Even>);

#[derive(Debug)]
struct Even {
    interval: Duration,
    /// How far ahead of evenness runs may be.
    tolerance: Duration,
    next: Timestamp,
}

impl Gate {
    /// A gate for this rate; none lets everything through.
    pub fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(|rate| {
            let interval = Duration::try_from_secs_f64(1.0 / rate.per_second).unwrap_or(Duration::MAX);
            let tolerance = interval.saturating_mul(rate.burst.saturating_sub(1));
            Even { interval, tolerance, next: Timestamp::ZERO }
        }))
    }

    /// When the next run may begin.
    pub fn opens(&self, now: Timestamp) -> Timestamp {
        self.0.as_ref().map_or(now, |even| even.next - even.tolerance)
    }

    /// Lets one run through, if it may begin now.
    pub fn pass(&mut self, now: Timestamp) -> bool {
        let open = self.opens(now) <= now;
        if let (true, Some(even)) = (open, &mut self.0) {
            even.next = even.next.max(now) + even.interval;
        }
        open
    }
}
