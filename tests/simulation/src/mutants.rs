//! The proof that the simulation can fail: each known-bad variant is played until something catches it.

#![expect(clippy::print_stdout, reason = "this program's output")]

use std::time::{Duration, Instant};

use coord_core::mutants::{ALL, set};

use crate::{Mode, run};

/// How long one mutant may go uncaught, where nothing else ends the search.
const PATIENCE: Duration = Duration::from_secs(240);

/// How many seeds the quick campaign plays for each mutant, and for none.
const QUICK_SEEDS: u64 = 160;

/// Those that the quick campaign leaves out, since they need more seeds than it has.
const SLOW: [&str; 2] = ["clear-once", "early-break-forgotten"];

/// Those that only providers show: nothing but their seeds is played, of which there is one in twelve.
const OF_PROVIDERS: [&str; 3] = ["stale-provide", "late-loss-forgets", "not-reregistered"];

/// Plays all mutants, those of the quick campaign, or one by name; before all or many none, which must stay clean. Prints
/// a table, and returns whether every one was caught; none if there is none of that name. `only` leaves out the seeds of
/// other modes.
pub fn play(which: Option<&str>, only: Option<Mode>, length: Duration) -> Option<bool> {
    let quick = which == Some("quick");
    let chosen: Vec<_> = ALL
        .iter()
        .map(|(_, name, what)| (*name, *what))
        .filter(|(name, _)| match which {
            None => true,
            Some("quick") => !SLOW.contains(name),
            Some(one) => one == *name,
        })
        .collect();
    if chosen.is_empty() {
        return None;
    }
    set(None);
    let mut good = true;
    let many = chosen.len() > 1;
    if let Some(message) = (0..QUICK_SEEDS).filter(|_| many).find_map(|seed| violation(seed, length)) {
        println!("without any mutant: {message}");
        good = false;
    }
    println!("| mutant | what it does wrong | seeds | s | caught by |\n|---|---|---|---|---|");
    for (name, what) in chosen {
        set(Some(name));
        let begin = Instant::now();
        let only = only.or_else(|| OF_PROVIDERS.contains(&name).then_some(Mode::Providers));
        let (mut played, mut caught) = (0, None);
        for seed in (0..).filter(|seed| only.is_none_or(|mode| Mode::of(*seed) == mode)) {
            if caught.is_some() || if quick { played == QUICK_SEEDS } else { begin.elapsed() > PATIENCE } {
                break;
            }
            played += 1;
            caught = violation(seed, length);
        }
        set(None);
        good &= caught.is_some();
        let by = caught.unwrap_or_else(|| "NOT CAUGHT".into());
        let by: String = by.chars().take(110).collect();
        println!("| {name} | {what} | {played} | {:.1} | {by} |", begin.elapsed().as_secs_f64());
    }
    Some(good)
}

fn violation(seed: u64, length: Duration) -> Option<String> {
    let mode = Mode::of(seed);
    let first = run(seed, mode, length).seen.violations.into_iter().next()?;
    Some(format!("{mode:?}: {first}"))
}
