//! Time: the only file that reads a clock.
//!
//! Two kinds that never mix. A [`Timestamp`] counts on the host's boot-time clock, goes on while the machine is
//! suspended, never jumps, and decides everything. A [`WallTime`] is what people read; it decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment on this host's boot-time clock (`CLOCK_BOOTTIME`), in nanoseconds.
///
/// Not `std::time::Instant`: that one stands still during suspend on Linux (rust-lang/rust#87906), and a laptop
/// that wakes up would go on believing that it holds a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock's zero: the boot of the machine, or the start of a simulation.
    pub const ZERO: Self = Self(0);

    /// A moment this many nanoseconds after the clock's zero.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's zero.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, or zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since 1970, by some machine's idea of the date. For people, and as a floor for fencing tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl WallTime {
    /// The same as the standard library's type; 1970 for what is before.
    pub fn system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Where time comes from. Stores, driver and concepts receive it when they are opened and read no other clock.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment on the boot-time clock.
    fn now(&self) -> Timestamp;

    /// The present date.
    fn wall(&self) -> WallTime;

    /// This clock, if it stands still unless somebody moves it: then waits are for its movements, not for timers.
    fn as_manual(&self) -> Option<&ManualClock> {
        None
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Timestamp(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    fn wall(&self) -> WallTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that a test moves by hand.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Manual>);

#[derive(Debug, Default)]
struct Manual {
    now: Timestamp,
    /// The date, and the moment at which it was set.
    wall: (WallTime, Timestamp),
    /// Whoever waits for a moment, by that moment and a number of its own.
    sleepers: BTreeMap<(Timestamp, u64), Waker>,
    next_sleeper: u64,
}

impl ManualClock {
    /// A clock that stands at this moment and date.
    pub fn new(now: Timestamp, wall: WallTime) -> Self {
        Self(Mutex::new(Manual { now, wall: (wall, now), ..Manual::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Manual> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves both clocks forward, and wakes whoever waited for that.
    pub fn advance(&self, by: Duration) {
        let mut time = self.lock();
        time.now = time.now + by;
        let due: Vec<Waker> = time.due().map(|(_, waker)| waker.clone()).collect();
        drop(time);
        due.into_iter().for_each(Waker::wake);
    }

    /// Sets the date only, as a person or NTP does.
    pub fn set_wall(&self, wall: WallTime) {
        let mut time = self.lock();
        time.wall = (wall, time.now);
    }

    /// Ready when the clock shows this moment.
    pub fn reached(&self, moment: Timestamp) -> Reached<'_> {
        Reached { clock: self, moment, number: None }
    }

    /// The next moment for which somebody waits: in the past, if somebody was woken and has not run yet.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.lock().sleepers.keys().next().map(|(moment, _)| *moment)
    }
}

impl Manual {
    fn due(&self) -> impl Iterator<Item = (&(Timestamp, u64), &Waker)> {
        self.sleepers.range(..=(self.now, u64::MAX))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn wall(&self) -> WallTime {
        let time = self.lock();
        let (wall, set) = time.wall;
        let since = i64::try_from(time.now.since(set).as_millis()).unwrap_or(i64::MAX);
        WallTime(wall.0.saturating_add(since))
    }

    fn as_manual(&self) -> Option<&ManualClock> {
        Some(self)
    }
}

/// The future that [`ManualClock::reached`] returns.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Reached<'a> {
    clock: &'a ManualClock,
    moment: Timestamp,
    /// Its number among the sleepers, once it has been polled.
    number: Option<u64>,
}

impl Reached<'_> {
    fn leave(&mut self, time: &mut Manual) {
        if let Some(number) = self.number.take() {
            time.sleepers.remove(&(self.moment, number));
        }
    }
}

impl Future for Reached<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock;
        let mut time = clock.lock();
        if time.now >= self.moment {
            self.leave(&mut time);
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            time.next_sleeper += 1;
            time.next_sleeper
        });
        time.sleepers.insert((self.moment, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        let clock = self.clock;
        self.leave(&mut clock.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_saturate_instead_of_wrapping() {
        assert_eq!(Timestamp::ZERO - Duration::from_secs(1), Timestamp::ZERO);
        assert_eq!(Timestamp::from_nanos(u64::MAX) + Duration::from_secs(1), Timestamp::from_nanos(u64::MAX));
        assert_eq!(Timestamp::ZERO.since(Timestamp::from_nanos(5)), Duration::ZERO);
    }

    #[test]
    fn the_system_clock_moves_forward() {
        let first = SystemClock.now();
        assert!(SystemClock.now() >= first);
        assert!(SystemClock.wall().0 > 1_600_000_000_000);
    }

    #[test]
    fn a_manual_clock_wakes_whoever_waits_for_its_moment() {
        let clock = ManualClock::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut early = Box::pin(clock.reached(Timestamp::from_nanos(1_000)));
        let mut late = Box::pin(clock.reached(Timestamp::from_nanos(2_000)));
        assert!(early.as_mut().poll(&mut context).is_pending() && late.as_mut().poll(&mut context).is_pending());
        assert_eq!(clock.next_wake(), Some(Timestamp::from_nanos(1_000)));
        clock.advance(Duration::from_nanos(1_500));
        assert_eq!(clock.next_wake(), Some(Timestamp::from_nanos(1_000)), "woken, but has not run");
        assert!(early.as_mut().poll(&mut context).is_ready() && late.as_mut().poll(&mut context).is_pending());
        drop(late);
        assert_eq!(clock.next_wake(), None, "a sleeper that is dropped is forgotten");
    }
}
