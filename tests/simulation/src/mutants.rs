//! The proof that the simulation can fail: each known-bad variant is played until something catches it.

#![expect(clippy::print_stdout, reason = "this program's output")]

use std::time::{Duration, Instant};

use coord_core::mutants::{ALL, set};

use crate::{Mode, run};

/// How long one mutant may go uncaught, where nothing else ends the search.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many seeds the quick campaign plays for each mutant, and for none.
const QUICK_SEEDS: u64 = 160;

/// Those that the quick campaign leaves out, since they need more seeds than it has.
const SLOW: [&str; 2] = ["clear-once", "early-break-forgotten"];

/// Those that only one mode shows, or so rarely that nothing but its seeds is played.
const OF_MODE: [(&str, Mode); 6] = [
    ("stale-provide", Mode::Providers),
    ("late-loss-forgets", Mode::Providers),
    ("not-reregistered", Mode::Providers),
    ("withdrawal-believed", Mode::Quiet),
    ("early-break-forgotten", Mode::Quiet),
    ("clear-once", Mode::Liveness),
];

/// What has to catch those that are there to show that one rule can fail; any violation will do for the others.
const BY_RULE: [(&str, &str); 3] = [
    ("grant-to-the-last", "granted to"),
    ("own-ttl", "was declared dead"),
    ("kill-without-nonce", "was declared dead"),
];

/// Plays all mutants, those of the quick campaign, or one by name; before all or many none, which must stay clean. Prints
/// a table, and returns whether every one was caught, in a seed that is clean without it; none if there is none of that
/// name. `only` leaves out the seeds of other modes.
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
    if let Some(message) = (0..QUICK_SEEDS).filter(|_| many).find_map(|seed| violation(seed, length, "")) {
        println!("without any mutant: {message}");
        good = false;
    }
    println!("| mutant | what it does wrong | seeds | s | caught by |\n|---|---|---|---|---|");
    for (name, what) in chosen {
        set(Some(name));
        let begin = Instant::now();
        let only = only.or_else(|| OF_MODE.iter().find(|(mutant, _)| *mutant == name).map(|(_, mode)| *mode));
        let rule = BY_RULE.iter().find(|(mutant, _)| *mutant == name).map_or("", |(_, rule)| rule);
        let (mut played, mut caught) = (0, None);
        for seed in (0..).filter(|seed| only.is_none_or(|mode| Mode::of(*seed) == mode)) {
            if caught.is_some() || if quick { played == QUICK_SEEDS } else { begin.elapsed() > PATIENCE } {
                break;
            }
            played += 1;
            caught = violation(seed, length, rule).map(|by| (seed, by));
        }
        set(None);
        // What a seed says without the mutant as well does not come of the mutant.
        let alarm = caught.as_ref().and_then(|(seed, _)| violation(*seed, length, ""));
        good &= caught.is_some() && alarm.is_none();
        let by = match (caught, alarm) {
            (Some((seed, _)), Some(alarm)) => format!("FALSE ALARM of seed {seed}, without it, too: {alarm}"),
            (Some((_, by)), None) => by,
            (None, _) => "NOT CAUGHT".into(),
        };
        let by: String = by.chars().take(110).collect();
        println!("| {name} | {what} | {played} | {:.1} | {by} |", begin.elapsed().as_secs_f64());
    }
    Some(good)
}

/// The first violation of a seed that says this.
fn violation(seed: u64, length: Duration, rule: &str) -> Option<String> {
    let mode = Mode::of(seed);
    let first = run(seed, mode, length).seen.violations.into_iter().find(|violation| violation.contains(rule))?;
    Some(format!("{mode:?}: {first}"))
}
