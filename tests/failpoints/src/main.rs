//! `coord-failpoints sqlite|mongodb ROUNDS [SEED [LANES [POINT…]]]` kills and holds up a process at every point, so often
//! each, and prints how often each was hit; `coord-failpoints quick SAMPLE [SEED]` plays the story once on each store, and
//! as many blows as that, drawn by the seed. Fails on what must never be, and on a point that is never passed.
//! `coord-failpoints points` lists them. To be built with the feature `failpoints`. `coord-failpoints mutants
//! [NAME…]` plays it with each known-bad variant of the core that it is to catch; it needs the feature `mutants`, too.
#![expect(clippy::print_stdout, reason = "this program's output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use coord_core::failpoints::{ALL, Point};
use coord_core::mutants::{Mutant, OF_CRASHES};
use coord_failpoints::matrix::{self, Findings, Plan};
use coord_failpoints::place::Kind;
use coord_failpoints::strike::{Blow, Strike, prepare};
use coord_failpoints::{story, victim};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Ok(name) = std::env::var(matrix::MUTANT)
        && let Err(message) = be_mutant(Some(&name))
    {
        eprintln!("coord-failpoints: {message}");
        return ExitCode::from(2);
    }
    let result = match words[..] {
        [victim::WORD, url, post] => be_victim(url, post),
        [matrix::WORD, url, fresh, post, ref strike @ ..] => be_story(url, fresh, post, strike),
        ["points"] => {
            for (_, name, on, place) in ALL {
                println!("{name:<24} {:<8} {place}", format!("{on:?}").to_lowercase());
            }
            Ok(true)
        }
        ["quick", sample] => quick(sample, "1"),
        ["quick", sample, seed] => quick(sample, seed),
        ["mutants", ref only @ ..] => mutants(only),
        [store, rounds] => campaign(store, rounds, "1", "3", &[]),
        [store, rounds, seed] => campaign(store, rounds, seed, "3", &[]),
        [store, rounds, seed, lanes, ref only @ ..] => campaign(store, rounds, seed, lanes, only),
        _ => {
            Err("usage: coord-failpoints sqlite|mongodb ROUNDS [SEED [LANES [POINT…]]] | quick SAMPLE [SEED] | points\n       coord-failpoints mutants [NAME…]"
                .into())
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("coord-failpoints: {message}");
            ExitCode::from(2)
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

fn point(name: &str) -> Result<Point, String> {
    Point::named(name).ok_or_else(|| format!("there is no point '{name}'; see `coord-failpoints points`"))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

fn be_victim(url: &str, post: &str) -> Result<bool, String> {
    runtime()?.block_on(victim::be(url, number(post)?)).map_err(|error| error.to_string())?;
    Ok(true)
}

fn be_story(url: &str, fresh: &str, post: &str, strike: &[&str]) -> Result<bool, String> {
    let strike = match strike {
        [] => None,
        [name, nth, blow] => {
            let blow = match *blow {
                "kill" => Blow::Kill,
                millis => Blow::Delay(Duration::from_millis(number(millis)?)),
            };
            Some(Strike { point: point(name)?, nth: number(nth)?, blow })
        }
        _ => return Err("a blow has a point, a number and a kind".into()),
    };
    if !prepare(strike) {
        return Err("this program was built without the feature failpoints".into());
    }
    runtime()?.block_on(story::play(url, fresh, number(post)?))?;
    story::over();
    Ok(true)
}

fn kind(store: &str) -> Result<Kind, String> {
    [Kind::Sqlite, Kind::MongoDb]
        .into_iter()
        .find(|kind| kind.name() == store)
        .ok_or_else(|| format!("'{store}' is no store"))
}

fn campaign(store: &str, rounds: &str, seed: &str, lanes: &str, only: &[&str]) -> Result<bool, String> {
    let only = only.iter().map(|name| point(name)).collect::<Result<_, _>>()?;
    let plan = Plan {
        kind: kind(store)?,
        rounds: number(rounds)?,
        seed: number(seed)?,
        lanes: number(lanes)?,
        only,
        sample: None,
        mutant: None,
    };
    let found = play(&plan)?.ok_or("there is no mongod")?;
    println!("{:<24} {:>8} {:>7} {:>8}", "point", "passed", "killed", "held up");
    for (name, [passed, killed, delayed]) in &found.hits {
        println!("{name:<24} {passed:>8} {killed:>7} {delayed:>8}");
    }
    Ok(report(&plan, &found))
}

fn quick(sample: &str, seed: &str) -> Result<bool, String> {
    let (sample, seed) = (number(sample)?, number(seed)?);
    let mut good = true;
    for kind in [Kind::Sqlite, Kind::MongoDb] {
        let plan = Plan { kind, rounds: 1, only: Vec::new(), sample: Some(sample), seed, lanes: 3, mutant: None };
        match play(&plan)? {
            Some(found) => good &= report(&plan, &found),
            None => println!("{}: left out", kind.name()),
        }
    }
    Ok(good)
}

/// Everybody in this process is this variant from now on, or none.
#[cfg(feature = "mutants")]
fn be_mutant(name: Option<&str>) -> Result<(), String> {
    if coord_core::mutants::set(name) { Ok(()) } else { Err(format!("there is no variant {name:?}")) }
}

#[cfg(not(feature = "mutants"))]
fn be_mutant(_: Option<&str>) -> Result<(), String> {
    Err("this program was built without the feature mutants".into())
}

/// Where a variant of the core shows itself, if it is the crash matrix's.
fn caught_at(variant: Mutant) -> Option<(Kind, Point)> {
    Some(match variant {
        Mutant::UnbornStay => (Kind::Sqlite, Point::LockFileMade),
        Mutant::ListenersStay => (Kind::Sqlite, Point::KeyFetched),
        Mutant::TransactionsStay => (Kind::MongoDb, Point::MongoLockTouched),
        Mutant::MailsStay => (Kind::Sqlite, Point::MailData),
        Mutant::MailDoubtForgotten => (Kind::Sqlite, Point::MailRecord),
        _ => return None,
    })
}

/// How often each is tried there.
const TRIES: usize = 4;

/// Whether the matrix catches each variant, and nothing without it.
fn mutants(only: &[&str]) -> Result<bool, String> {
    if let Some(unknown) = only.iter().find(|wanted| OF_CRASHES.iter().all(|(_, name, _)| name != *wanted)) {
        return Err(format!("there is no variant '{unknown}' of the crash matrix"));
    }
    let mut good = true;
    println!("| variant | what it does wrong | stories | s | caught by |\n|---|---|---|---|---|");
    for (variant, name, what) in OF_CRASHES.iter().filter(|(_, name, _)| only.is_empty() || only.contains(name)) {
        let (kind, point) = caught_at(*variant).ok_or_else(|| format!("nobody has said where {name} shows itself"))?;
        be_mutant(Some(name))?;
        let begun = Instant::now();
        let plan = |mutant| Plan { kind, rounds: TRIES, only: vec![point], sample: None, seed: 1, lanes: 3, mutant };
        let found = matrix::play(&plan(Some(name)))?.ok_or("there is no mongod")?;
        be_mutant(None)?;
        let alarm = matrix::play(&plan(None))?.unwrap_or_default().violations;
        good &= !found.violations.is_empty() && alarm.is_empty();
        let by = match (found.violations.first(), alarm.first()) {
            (_, Some(alarm)) => format!("FALSE ALARM, without it, too: {alarm}"),
            (Some(by), None) => by.clone(),
            (None, None) => "NOT CAUGHT".to_owned(),
        };
        let by: String = by.chars().take(140).collect();
        println!("| {name} | {what} | {} | {:.0} | {by} |", found.stories, begun.elapsed().as_secs_f64());
    }
    Ok(good)
}

fn play(plan: &Plan) -> Result<Option<Findings>, String> {
    let begun = Instant::now();
    println!("{}: seed {}", plan.kind.name(), plan.seed);
    let found = matrix::play(plan)?;
    println!("{}: {:.0} s", plan.kind.name(), begun.elapsed().as_secs_f64());
    Ok(found)
}

fn report(plan: &Plan, found: &Findings) -> bool {
    let blows = |which: usize| found.hits.values().map(|hits| hits[which]).sum::<u64>();
    println!(
        "{}: {} points, {} stories, {} killed and {} held up; free after {:.1} s at most; {} violations",
        plan.kind.name(),
        found.hits.len(),
        found.stories,
        blows(1),
        blows(2),
        found.free_after.as_secs_f64(),
        found.violations.len()
    );
    found.violations.iter().for_each(|violation| println!("  {violation}"));
    found.violations.is_empty()
}
