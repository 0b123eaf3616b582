//! What is played, what came of it, and whether that is enough to prove something.

use std::collections::BTreeMap;
use std::fmt;
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

/// The simulated time of one seed, wherever seeds are played: what is asked of them is made for it.
pub const LENGTH: Duration = Duration::from_secs(600);

/// Every kind of fault, some of which each long run has to have.
pub const KINDS: [&str; 7] = ["break", "crash", "fail-over", "long stop", "no majority", "partition", "short stop"];

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
    /// Grants to somebody who had waited.
    pub waited: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that met somebody who held something.
    pub hits: u64,
    /// How long after healing the last who waited was served, where that is looked at.
    pub served_after: Duration,
    /// A number that two runs of one seed have in common, and two histories almost never.
    pub fingerprint: u64,
}

impl Report {
    /// Why nothing follows from the seed's being clean, if so: too little has happened in it. What is asked is about half of
    /// the least that any of 3,000 seeds had in its mode.
    pub fn weakness(&self) -> Option<String> {
        let (grants, waited, faults, hits) = match self.mode {
            Mode::Safety => (200, 160, 75, 34),
            Mode::Liveness => (120, 95, 45, 20),
            Mode::Quiet => (90, 40, 14, 12),
            Mode::Elections => (70, 80, 45, 13),
            // Nobody waits for a provider, and what a process provides is not looked at when a fault comes.
            Mode::Providers => (450, 0, 45, 0),
        };
        let happened = [
            ("grants", self.seen.grants, grants),
            ("grants to somebody who had waited", self.waited, waited),
            ("faults", self.faults.values().sum(), faults),
            ("faults that met somebody who held something", self.hits, hits),
        ];
        let (what, seen, least) = happened.into_iter().find(|(_, seen, least)| seen < least)?;
        Some(format!("{what}: {seen}, and fewer than {least} prove nothing"))
    }
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Seeds that were played.
    pub played: u64,
    /// Of them, those in a mode in which everything goes wrong.
    wild: u64,
    /// Seeds with violations, and such in which too little has happened.
    pub bad: u64,
    simulated: Duration,
    grants: u64,
    waited: u64,
    faults: BTreeMap<&'static str, u64>,
    hits: u64,
    served_after: Duration,
}

/// From how many seeds on every kind of fault has to have come: of each there are nine in a usual seed with faults.
const MANY: u64 = 12;

impl Totals {
    /// Takes in one seed.
    pub fn add(&mut self, report: &Report) {
        self.played += 1;
        self.wild += u64::from(report.mode != Mode::Quiet);
        self.bad += u64::from(!report.seen.violations.is_empty() || report.weakness().is_some());
        self.simulated += report.simulated;
        self.grants += report.seen.grants;
        self.waited += report.waited;
        for (kind, count) in &report.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        self.hits += report.hits;
        self.served_after = self.served_after.max(report.served_after);
    }

    /// Why nothing follows from all of them, if so.
    pub fn weakness(&self) -> Option<String> {
        if self.played == 0 {
            return Some("no seed was played".into());
        }
        let missing = KINDS.iter().find(|kind| self.wild >= MANY && !self.faults.contains_key(*kind))?;
        Some(format!("no fault of the kind \"{missing}\" in {} seeds", self.wild))
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds: {:.1} simulated hours, {} grants, {} of them to who had waited, {} faults, {} of which met somebody who \
             held something, the last served {:.1} s after healing, {} seeds with violations or without power",
            self.played,
            self.simulated.as_secs_f64() / 3600.0,
            self.grants,
            self.waited,
            self.faults.values().sum::<u64>(),
            self.hits,
            self.served_after.as_secs_f64(),
            self.bad,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Report {
        Report {
            seed: 1,
            mode: Mode::Safety,
            simulated: LENGTH,
            seen: Seen { grants: 460, looks: 30_000, violations: Vec::new() },
            waited: 395,
            faults: KINDS.iter().map(|kind| (*kind, 24)).collect(),
            hits: 93,
            served_after: Duration::ZERO,
            fingerprint: 0,
        }
    }

    #[test]
    fn a_seed_in_which_little_happens_has_no_power() {
        assert_eq!(usual().weakness(), None);
        let idle: [fn(&mut Report); 4] =
            [|r| r.seen.grants = 10, |r| r.waited = 0, |r| r.faults.clear(), |r| r.hits = 0];
        for idle in idle {
            let mut report = usual();
            idle(&mut report);
            assert!(report.weakness().is_some(), "{report:?}");
            let mut totals = Totals::default();
            totals.add(&report);
            assert_eq!(totals.bad, 1);
        }
    }

    #[test]
    fn a_run_without_seeds_or_without_a_kind_of_fault_has_no_power() {
        let mut totals = Totals::default();
        assert!(totals.weakness().is_some());
        let mut tame = usual();
        tame.faults.remove("fail-over");
        for _ in 0..MANY {
            totals.add(&tame);
        }
        assert_eq!(totals.bad, 0);
        assert!(totals.weakness().unwrap().contains("fail-over"));
        totals.add(&usual());
        assert_eq!(totals.weakness(), None);
    }
}
