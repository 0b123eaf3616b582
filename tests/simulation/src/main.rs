//! Plays seeds and prints what was seen.
//!
//! - `coord-simulation seed N [safety|liveness|quiet|elections|providers]` plays one; with `COORD_SIM_LOG=1` every decision is printed too.
//! - `coord-simulation seeds FIRST COUNT [MODE]` plays many, in all modes or in one.
//! - `coord-simulation minutes N [FIRST]` plays as many as there is time for.
//! - `coord-simulation mutants [quick|NAME [MODE]]` plays each bad variant until it is caught; needs the feature `mutants`.

#![expect(clippy::print_stdout, reason = "this program's output")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use coord_simulation::report::Totals;
use coord_simulation::{LENGTH, Mode, Report, run};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    let good = match words[..] {
        ["seed", seed] => number(seed).map(|seed| one(seed, Mode::of(seed))),
        ["seed", seed, mode] => number(seed).zip(mode_of(mode)).map(|(seed, mode)| one(seed, mode)),
        ["seeds", first, count] => {
            number(first).zip(number(count)).map(|(first, count)| many(first..first.saturating_add(count), None, None))
        }
        ["seeds", first, count, mode] => number(first)
            .zip(number(count))
            .zip(mode_of(mode))
            .map(|((first, count), mode)| many(first..first.saturating_add(count), Some(mode), None)),
        ["minutes", minutes] => number(minutes).map(|minutes| many(0..u64::MAX, None, Some(minutes))),
        ["minutes", minutes, first] => {
            number(minutes).zip(number(first)).map(|(minutes, first)| many(first..u64::MAX, None, Some(minutes)))
        }
        #[cfg(feature = "mutants")]
        ["mutants"] => coord_simulation::mutants::play(None, None, LENGTH),
        #[cfg(feature = "mutants")]
        ["mutants", which] => coord_simulation::mutants::play(Some(which), None, LENGTH),
        #[cfg(feature = "mutants")]
        ["mutants", which, mode] => {
            mode_of(mode).and_then(|mode| coord_simulation::mutants::play(Some(which), Some(mode), LENGTH))
        }
        _ => None,
    };
    match good {
        Some(true) => {}
        Some(false) => std::process::exit(1),
        None => {
            println!(
                "usage: coord-simulation seed N [safety|liveness|quiet|elections|providers] | seeds FIRST COUNT [MODE] | minutes N [FIRST]"
            );
            println!("       coord-simulation mutants [quick|NAME [MODE]]    (built with --features mutants)");
            std::process::exit(2);
        }
    }
}

fn mode_of(word: &str) -> Option<Mode> {
    match word {
        "safety" => Some(Mode::Safety),
        "liveness" => Some(Mode::Liveness),
        "quiet" => Some(Mode::Quiet),
        "elections" => Some(Mode::Elections),
        "providers" => Some(Mode::Providers),
        _ => None,
    }
}

fn one(seed: u64, mode: Mode) -> bool {
    if std::env::var_os("COORD_SIM_LOG").is_some() {
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_timer(Virtual).finish();
        // Nobody else sets one in this program.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    let report = run(seed, mode, LENGTH);
    println!("{report:#?}");
    let weakness = report.weakness();
    if let Some(weakness) = &weakness {
        println!("no power: {weakness}");
    }
    report.seen.violations.is_empty() && weakness.is_none()
}

/// The time of the simulation, which the lines of its log bear.
struct Virtual;

impl FormatTime for Virtual {
    fn format_time(&self, line: &mut Writer<'_>) -> std::fmt::Result {
        static BEGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
        // Nothing is told outside of the runtime whose time is virtual but what nobody needs a time for.
        let Ok(_runtime) = tokio::runtime::Handle::try_current() else { return Ok(()) };
        let now = tokio::time::Instant::now();
        write!(line, "{:10.4}", (now - *BEGIN.get_or_init(|| now)).as_secs_f64())
    }
}

fn many(seeds: impl Iterator<Item = u64>, mode: Option<Mode>, minutes: Option<u64>) -> bool {
    let begin = Instant::now();
    let end = minutes.map(|minutes| begin + Duration::from_secs(minutes * 60));
    let mut totals = Totals::default();
    // The same line while it goes on and at its end, so that a long run that is stopped has told all.
    let tell = |totals: &Totals| println!("{totals}, in {:.0} s", begin.elapsed().as_secs_f64());
    for seed in seeds {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let report = run(seed, mode.unwrap_or_else(|| Mode::of(seed)), LENGTH);
        totals.add(&report);
        print_if_bad(&report);
        if totals.played.is_multiple_of(500) {
            tell(&totals);
        }
    }
    tell(&totals);
    let weakness = totals.weakness();
    if let Some(weakness) = &weakness {
        println!("no power: {weakness}");
    }
    totals.bad == 0 && weakness.is_none()
}

fn print_if_bad(report: &Report) {
    if let Some(first) = report.seen.violations.first() {
        let count = report.seen.violations.len();
        println!("seed {} in {:?} mode: {count} violations, first: {first}", report.seed, report.mode);
    }
    if let Some(weakness) = report.weakness() {
        println!("seed {} in {:?} mode has no power: {weakness}", report.seed, report.mode);
    }
}
