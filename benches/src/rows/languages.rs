//! Rows 9 and 10: a reconciler's queue, and calls that do no I/O, as programs in each language meet them.

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit, quantile};
use crate::languages::Language::{self, *};
use crate::process::{PATIENCE, Worker};

const KEYS: u64 = 100_000;
const WARM_UP_KEYS: u64 = 10_000;

/// Keys that are added while nothing else is to do, each when all workers are asleep again.
const LONE_KEYS: u64 = 300;
const PAUSE_MICROS: u64 = 2_000;

/// What is too short to be timed is timed in batches, of which the median counts.
const BATCHES: u64 = 101;
const CHECKS: u64 = 5_000;
const PAIRS: u64 = 500;

/// Row 9.
pub(super) fn queue(round: &mut Round<'_>) -> Result<()> {
    each(round, |round, language, program| {
        let name = language.name();
        program.ask(&format!("keys {WARM_UP_KEYS}"), "keys", PATIENCE)?;
        let [elapsed] = program.ask(&format!("keys {KEYS}"), "keys", PATIENCE)?[..] else {
            return Err("one time is the answer".into());
        };
        let rate = KEYS as f64 * 1e9 / elapsed as f64;
        let least = match language {
            Rust | C => 1e6,
            Go => 3e5,
            Python => 1e5,
        };
        round.book.goal(9, format!("{name}, keys"), Unit::PerSecond, rate, Goal::AtLeast(least));
        let mut samples = program.ask(&format!("idle {LONE_KEYS} {PAUSE_MICROS}"), "idle", PATIENCE)?;
        let p50 = quantile(&mut samples, 0.5) as f64;
        let goal = if matches!(language, Rust) { Goal::AtMost(20_000.0) } else { Goal::None };
        round.book.goal(9, format!("{name}, idle, from add until called, p50"), Unit::Time, p50, goal);
        Ok(())
    });
    Ok(())
}

/// Row 10.
pub(super) fn calls(round: &mut Round<'_>) -> Result<()> {
    each(round, |round, language, program| {
        let name = language.name();
        let (check, pair) = match language {
            // For comparison, and a goal of row 1.
            Rust => (Goal::None, Goal::None),
            C => (Goal::AtMost(50.0), Goal::AtMost(1_000.0)),
            Go => (Goal::AtMost(100.0), Goal::AtMost(1_500.0)),
            Python => (Goal::AtMost(150.0), Goal::AtMost(3_000.0)),
        };
        let time = per_call(program, "checks", CHECKS)?;
        round.book.goal(10, format!("{name}, whether a hold is valid"), Unit::Time, time, check);
        let time = per_call(program, "pairs", PAIRS)?;
        round.book.goal(10, format!("{name}, acquire + release in memory"), Unit::Time, time, pair);
        Ok(())
    });
    Ok(())
}

/// Measures each language in turn. What fails is told and left out.
fn each(round: &mut Round<'_>, measure: impl Fn(&mut Round<'_>, Language, &mut Worker) -> Result<()>) {
    for language in Language::ALL {
        if round.is_over() {
            break;
        }
        let measured = language.start().and_then(|mut program| measure(round, language, &mut program));
        if let Err(error) = measured {
            round.book.absent(format!("{}: {error}", language.name()));
        }
    }
}

/// Nanoseconds of a call: the median of batches, after one that warms up.
fn per_call(program: &mut Worker, what: &str, calls: u64) -> Result<f64> {
    program.ask(&format!("{what} 1 {calls}"), what, PATIENCE)?;
    let mut batches = program.ask(&format!("{what} {BATCHES} {calls}"), what, PATIENCE)?;
    Ok(quantile(&mut batches, 0.5) as f64 / calls as f64)
}
