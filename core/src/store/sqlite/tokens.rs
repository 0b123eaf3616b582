//! Where tokens begin: what keeps them growing when a record was collected, or lost with the machine's power.
//!
//! Two marks in the file. `hlc` is at least every token of every record that is gone. `ceil` is at least every token
//! that was ever granted, and is synced to the disk *before* any token above its old value is granted, so it survives
//! a power loss that the grants themselves do not. The first to open the file after a boot takes `ceil` for `hlc`.
//! So the machine's clock only makes tokens speak for time; order does not depend on it.

use crate::protocol::claim::TOKENS_PER_MS;
use crate::time::WallTime;

/// A date further ahead of all that is known than this does not count: some clock was years wrong.
const WALL_AHEAD_MS: i64 = 400 * 86_400_000;

/// By how much the ceiling is raised beyond what is needed: a minute, so that it costs one sync a minute at most.
const ROOM: i64 = 60_000 * TOKENS_PER_MS;

/// The ceiling is raised when less than this is left.
const NEAR: i64 = 30_000 * TOKENS_PER_MS;

/// The marks of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) hlc: i64,
    pub(super) ceil: i64,
}

impl Marks {
    /// The lowest token that a grant may get now.
    pub(super) fn floor(self, wall: WallTime) -> i64 {
        self.hlc.saturating_add(1).max(self.clock(wall))
    }

    /// Whether a grant of this token has to wait until the ceiling is raised.
    pub(super) fn forbids(self, token: i64) -> bool {
        token > self.ceil
    }

    /// Whether the ceiling should be raised soon, for grants not to have to wait.
    pub(super) fn is_near(self, token: i64) -> bool {
        token > self.ceil.saturating_sub(NEAR)
    }

    /// The new ceiling that allows this token and leaves room above it.
    pub(super) fn raised(self, wall: WallTime, token: i64) -> i64 {
        self.ceil.max(self.floor(wall).max(token).saturating_add(ROOM))
    }

    /// Whether the date is so far ahead that it does not count.
    pub(super) fn distrusts(self, wall: WallTime) -> bool {
        let known = self.hlc.max(self.ceil);
        known > 0 && wall.0.saturating_mul(TOKENS_PER_MS) > known.saturating_add(WALL_AHEAD_MS * TOKENS_PER_MS)
    }

    fn clock(self, wall: WallTime) -> i64 {
        if self.distrusts(wall) { 0 } else { wall.0.saturating_mul(TOKENS_PER_MS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn the_floor_follows_the_date_and_never_falls_below_what_was_granted() {
        let marks = Marks { hlc: 1_000 * DAY * TOKENS_PER_MS, ceil: 1_001 * DAY * TOKENS_PER_MS };
        assert_eq!(marks.floor(WallTime(1_002 * DAY)), 1_002 * DAY * TOKENS_PER_MS);
        assert_eq!(marks.floor(WallTime(999 * DAY)), marks.hlc + 1);
        assert_eq!(marks.floor(WallTime(-5)), marks.hlc + 1);
    }

    #[test]
    fn a_date_that_is_years_ahead_does_not_count() {
        let marks = Marks { hlc: 0, ceil: 1_000 * DAY * TOKENS_PER_MS };
        assert_eq!(marks.floor(WallTime(1_399 * DAY)), 1_399 * DAY * TOKENS_PER_MS);
        assert_eq!(marks.floor(WallTime(1_401 * DAY)), 1);
        assert_eq!(marks.raised(WallTime(9_000 * DAY), 7), marks.ceil);
        // Nothing is known yet: any date is as good as any other.
        assert_eq!(Marks::default().floor(WallTime(9_000 * DAY)), 9_000 * DAY * TOKENS_PER_MS);
    }

    #[test]
    fn a_raised_ceiling_allows_what_it_was_raised_for() {
        let wall = WallTime(1_000 * DAY);
        let mut marks = Marks::default();
        for token in [1, marks.floor(wall), i64::MAX / 2] {
            marks.ceil = marks.raised(wall, token);
            assert!(!marks.forbids(token) && !marks.is_near(token));
        }
        assert_eq!(marks.raised(wall, 0), marks.ceil, "it never falls");
    }
}
