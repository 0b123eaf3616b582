//! What is played, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checks::Seen;

/// Whether faults ever stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They do not; only what must never happen is checked.
    Safety,
    /// They do after two thirds of the time, and then everybody must be served.
    Liveness,
    /// Only notices are lost, and operators break locks. The ttl is so long that a poll or an audit comes late.
    Quiet,
    /// As [`Mode::Liveness`], with elections instead of locks.
    Elections,
    /// As [`Mode::Liveness`], with providers and observers instead of locks.
    Providers,
}

impl Mode {
    /// The mode in which a seed is played when many are.
    pub fn of(seed: u64) -> Self {
        match seed % 6 {
            0 | 2 => Self::Liveness,
            1 | 3 => Self::Safety,
            4 => Self::Quiet,
            _ if seed % 12 == 11 => Self::Providers,
            _ => Self::Elections,
        }
    }
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The mode.
    pub mode: Mode,
    /// How much time went by in the simulation.
    pub simulated: Duration,
    /// What the checks saw.
    pub seen: Seen,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// A number that two runs of one seed have in common, and two histories almost never.
    pub fingerprint: u64,
}
