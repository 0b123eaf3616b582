//! Exhaustive models of the protocol: small worlds in which every order of events is tried.
//!
//! Architecture invariant: the models check the code and not a paraphrase of it. What a store does to a record, what
//! a holder believes and what an observer concludes are the pure functions of `coord-core`; a model adds only the
//! world around them: a network, a clock, people, crashes.
//!
//! Each module has one aspect, says what it abstracts, and has mutants: known-bad variants that the checker must
//! refute, or its silence about the right one means nothing. `COORD_MODEL_DEPTH=1` (or more) widens the bounds; the
//! numbers of states go to the standard error.
//!
//! - [`lease`]: a holder that may be paused, and an observer that kills: never two holders.
//! - [`failover`]: a replica set that loses what was not acknowledged.
//! - [`zombie`]: an acquire that comes after its own cancel, and the audit.
//! - [`short_form`]: taking a free claim by a request that cannot be told from a late copy of it.
//! - [`queue`]: three waiters, some of them dead, and one who only tries.
//! - [`collect`]: tokens across garbage collection and dates that jump.
//! - [`kernel_lock`]: the proof of death by a kernel lock and the ring of nonces.
//! - [`flock`]: how a session and its lock file come and go on one machine.
//! - [`breaking`]: a break that is announced, then executed.
//! - [`keeper`]: who cleans up where nobody waits.
//! - [`providers`]: what a session provides, and who observes it.
//! - [`tombstone`]: fenced writes to a document that is deleted and made anew.

pub mod breaking;
pub mod collect;
pub mod failover;
pub mod flock;
pub mod keeper;
pub mod kernel_lock;
pub mod lease;
pub mod providers;
pub mod queue;
pub mod short_form;
pub mod tombstone;
mod world;
pub mod zombie;

#[cfg(test)]
mod check {
    use std::hash::Hash;
    use std::io::Write;
    use std::time::{Duration, Instant};

    use stateright::{Checker, HasDiscoveries, Model};

    /// How much wider than by default the bounds are.
    pub(crate) fn extra() -> u8 {
        std::env::var("COORD_MODEL_DEPTH").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Every reachable state has every property, and what should be possible is.
    pub(crate) fn holds<M>(name: &str, model: M)
    where
        M: Model + Send + Sync + 'static,
        M::State: Clone + std::fmt::Debug + Hash + Send + Sync + PartialEq,
        M::Action: Clone + std::fmt::Debug + PartialEq,
    {
        let begun = Instant::now();
        let finish = HasDiscoveries::AnyFailures;
        let checker = model.checker().finish_when(finish).spawn_bfs().join();
        report(name, "complete", checker.unique_state_count(), begun.elapsed());
        for (property, path) in checker.discoveries() {
            let failed = checker.model().property(property).expectation.discovery_is_failure();
            assert!(!failed, "{name}: '{property}' fails after {:#?}", path.into_actions());
        }
        assert!(checker.is_done(), "{name}: not every state was visited");
        checker.assert_properties();
    }

    /// The checker finds a counterexample to this property.
    pub(crate) fn refuted<M>(name: &str, model: M, property: &'static str)
    where
        M: Model + Send + Sync + 'static,
        M::State: Clone + std::fmt::Debug + Hash + Send + Sync + PartialEq,
        M::Action: Clone + std::fmt::Debug + PartialEq,
    {
        let begun = Instant::now();
        let finish = HasDiscoveries::AnyOf([property].into());
        let checker = model.checker().finish_when(finish).spawn_bfs().join();
        let path = checker.assert_any_discovery(property).into_actions();
        let verdict = format!("refuted in {} steps", path.len());
        report(name, &verdict, checker.unique_state_count(), begun.elapsed());
    }

    /// Past the capture of the test harness: the numbers are part of the result.
    fn report(name: &str, verdict: &str, states: usize, took: Duration) {
        let line = format!("model {name:<44} {verdict:<22} {states:>9} states  {:.1} s\n", took.as_secs_f64());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
