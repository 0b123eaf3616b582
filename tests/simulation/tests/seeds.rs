//! Some seeds of the simulation, each to its end: fixed ones, and fresh ones. `COORD_SIM_SEED` sets the first fresh one, to
//! play again what has failed, and `COORD_SIM_SEEDS` how many there are. A seed that has shown a bug is none of the fixed
//! ones: with other sources it has another history (see `tests/faults/FOUND.md`).
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use coord_core::env::{Rng, SystemRng};
use coord_simulation::{LENGTH, Mode, run};

/// How many fresh seeds there are, unless it is said: what `make test-simulation` plays in 30 s. All modes have some of
/// twelve.
const FRESH: u64 = 144;

fn play(seed: u64, mode: Mode) {
    let report = run(seed, mode, LENGTH);
    assert!(
        report.seen.violations.is_empty(),
        "seed {seed} in {mode:?} mode: {} violations, first: {}\n{:?}",
        report.seen.violations.len(),
        report.seen.violations[0],
        report.faults
    );
    assert_eq!(report.weakness(), None, "seed {seed} in {mode:?} mode has no power");
}

#[test]
fn one_seed_is_one_history() {
    for (seed, mode) in (0..3).map(|seed| (seed, Mode::Liveness)).chain([(5, Mode::Elections), (11, Mode::Providers)]) {
        let runs: Vec<u64> = (0..3).map(|_| run(seed, mode, LENGTH).fingerprint).collect();
        assert!(runs.iter().all(|fingerprint| *fingerprint == runs[0]), "seed {seed}: {runs:?}");
    }
}

#[test]
fn fixed_seeds_are_safe() {
    for seed in 100..110 {
        play(seed, Mode::Safety);
    }
}

#[test]
fn fixed_seeds_are_prompt() {
    for seed in 300..309 {
        play(seed, Mode::Quiet);
    }
}

#[test]
fn fixed_seeds_lead_one_at_a_time() {
    for seed in 400..411 {
        play(seed, Mode::Elections);
    }
}

#[test]
fn fixed_seeds_show_who_provides() {
    for seed in 500..505 {
        play(seed, Mode::Providers);
    }
}

#[test]
fn fixed_seeds_are_live() {
    for seed in 200..212 {
        play(seed, Mode::Liveness);
    }
}

#[test]
fn fresh_seeds() {
    let told = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
    };
    // Short enough to be typed.
    let first = told("COORD_SIM_SEED").unwrap_or_else(|| SystemRng.bits() >> 40);
    let count = told("COORD_SIM_SEEDS").unwrap_or(FRESH);
    assert!(count > 0, "no seed is played");
    eprintln!("COORD_SIM_SEED={first} COORD_SIM_SEEDS={count}");
    for seed in first..first.saturating_add(count) {
        play(seed, Mode::of(seed));
    }
}
