//! `coord-faults sqlite|mongodb MINUTES [SEED [quick]]` runs a campaign and prints what was found; `coord-faults check
//! sqlite|mongodb FOLDER TTL_MS` reads the histories of an earlier one. Fails on violations, and where the campaign had
//! no power; in a quick one each language must be granted something, and that is all. `coord-faults naive …`, built with the feature `mutants`, runs the same with workers for
//! which the store's date alone decides that a session is dead, and fails unless that shows. `coord-faults roster sqlite|mongodb MINUTES SEED [quick | PROCESSES SERVICES
//! PROVIDERS]` plays providers and observers (10, 20, 200); in a quick one observers may count other edges.

#![expect(clippy::print_stdout, reason = "this program's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use coord_faults::calls::STALE;
use coord_faults::campaign::{Plan, run};
use coord_faults::check::{Findings, Histories, Terms};
use coord_faults::servers::Servers;
use coord_faults::workers::Program;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [store @ ("sqlite" | "mongodb"), minutes] => campaign(store, minutes, "1"),
        [store @ ("sqlite" | "mongodb"), minutes, seed] => campaign(store, minutes, seed),
        [store @ ("sqlite" | "mongodb"), minutes, seed, "quick"] => campaign(store, minutes, seed)
            .inspect(|findings| println!("weaknesses, most of which are not asked for: {:?}", findings.weaknesses))
            .map(|findings| Findings { weaknesses: findings.idle_languages(), ..findings }),
        ["roster", store @ ("sqlite" | "mongodb"), minutes, seed] => {
            return roster(store, minutes, seed, false, [10, 20, 200]);
        }
        ["roster", store @ ("sqlite" | "mongodb"), minutes, seed, "quick"] => {
            return roster(store, minutes, seed, true, [10, 20, 200]);
        }
        ["roster", store @ ("sqlite" | "mongodb"), minutes, seed, processes, services, providers] => {
            let sizes = [processes, services, providers].map(|size| size.parse().unwrap_or(1));
            return roster(store, minutes, seed, false, sizes);
        }
        ["naive", store @ ("sqlite" | "mongodb"), minutes, seed] => return naive(store, minutes, seed),
        ["check", store @ ("sqlite" | "mongodb"), folder, ttl] => check(store, folder, ttl),
        _ => Err("usage: coord-faults [naive] sqlite|mongodb MINUTES [SEED [quick]] | check STORE FOLDER TTL_MS | roster STORE MINUTES SEED".to_owned()),
    };
    match result {
        Ok(findings) => report(&findings),
        Err(message) => {
            eprintln!("coord-faults: {message}");
            ExitCode::from(2)
        }
    }
}

/// How old what a read of a document shows may be.
fn stale(store: &str) -> Duration {
    if store == "mongodb" { STALE } else { Duration::ZERO }
}

fn campaign(store: &str, minutes: &str, seed: &str) -> Result<Findings, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    play(store, minutes, seed, Program::all(&own.with_file_name("faults-worker"))?)
}

/// The protocol that is known to be wrong must be found out.
fn naive(store: &str, minutes: &str, seed: &str) -> ExitCode {
    const MUTANT: &str = "server-clock-expiry";
    let found = std::env::current_exe().map_err(|error| error.to_string()).and_then(|own| {
        let worker = own.with_file_name("faults-worker").display().to_string();
        let words = ["env".to_owned(), format!("COORD_FAULTS_MUTANT={MUTANT}"), worker].into();
        play(store, minutes, seed, vec![Program { language: "rust".into(), words }])
    });
    let broken = found.and_then(|findings| {
        println!("{findings:#?}");
        findings.exclusion_is_broken()
    });
    match broken {
        Ok(false) => {
            println!("the store's date alone decided, and nobody saw two holders or tokens out of order");
            ExitCode::FAILURE
        }
        Ok(true) => {
            println!("found out, as it must be");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("coord-faults: {message}");
            ExitCode::from(2)
        }
    }
}

fn play(store: &str, minutes: &str, seed: &str, programs: Vec<Program>) -> Result<Findings, String> {
    let minutes: f64 = minutes.parse().map_err(|_| format!("'{minutes}' is not a number of minutes"))?;
    let seed = seed.parse().map_err(|_| format!("'{seed}' is not a seed"))?;
    let folder = std::env::temp_dir().join(format!("coord-faults-{}-{store}", std::process::id()));
    let of_mongodb = store == "mongodb";
    let plan = Plan {
        folder: folder.clone(),
        length: Duration::from_secs_f64(minutes * 60.0),
        seed,
        programs,
        workers: if of_mongodb { 12 } else { 16 },
        ttl: Duration::from_secs(if of_mongodb { 5 } else { 3 }),
        stale: stale(store),
    };
    println!("{store}: {minutes} minutes, seed {seed}, histories in {}", folder.display());
    let servers = match store {
        "mongodb" => Some(Servers::start().map_err(|error| error.to_string())?.ok_or("there is no mongod")?),
        _ => None,
    };
    let findings = run(&plan, servers.as_ref()).map_err(|error| error.to_string())?;
    drop(servers);
    if findings.violations.is_empty() {
        // What is left is only of use after a violation.
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok(findings)
}

fn roster(store: &str, minutes: &str, seed: &str, quick: bool, sizes: [usize; 3]) -> ExitCode {
    match play_roster(store, minutes, seed, sizes) {
        Ok(findings) => {
            println!("{findings:#?}");
            let agreed = quick || findings.differences.is_empty();
            if findings.violations.is_empty() && agreed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            eprintln!("coord-faults: {message}");
            ExitCode::from(2)
        }
    }
}

fn play_roster(
    store: &str,
    minutes: &str,
    seed: &str,
    [processes, services, providers]: [usize; 3],
) -> Result<coord_faults::roster::Findings, String> {
    let minutes: f64 = minutes.parse().map_err(|_| format!("'{minutes}' is not a number of minutes"))?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = std::env::temp_dir().join(format!("coord-roster-{}-{store}", std::process::id()));
    let url = match store {
        "sqlite" => format!("sqlite:///{}/coord.db?coord.ttl=5s", folder.display()),
        _ => {
            let uri = coord_tests::servers::shared_uri().ok_or("there is no mongod")?;
            let separator = if uri.contains('?') { '&' } else { '?' };
            format!("{uri}{separator}coord.prefix=roster{}_&coord.ttl=10s", std::process::id())
        }
    };
    println!("roster on {store}: {minutes} minutes, seed {seed}, messages in {}", folder.display());
    let findings = coord_faults::roster::run(&coord_faults::roster::Plan {
        folder: folder.clone(),
        url,
        length: Duration::from_secs_f64(minutes * 60.0),
        seed: seed.parse().map_err(|_| format!("'{seed}' is not a seed"))?,
        program: own.with_file_name("roster-worker"),
        processes,
        services,
        providers,
        observers: 3,
    })
    .map_err(|error| error.to_string())?;
    if findings.violations.is_empty() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok(findings)
}

fn check(store: &str, folder: &str, ttl: &str) -> Result<Findings, String> {
    let ttl = ttl.parse().map(Duration::from_millis).map_err(|_| format!("'{ttl}' is not a number of milliseconds"))?;
    let histories = Histories::read(&PathBuf::from(folder)).map_err(|error| error.to_string())?;
    Ok(histories.check(&Terms { ttl, stale: stale(store), kinds: Vec::new() }))
}

fn report(findings: &Findings) -> ExitCode {
    println!("{findings:#?}");
    if findings.violations.is_empty() && findings.weaknesses.is_empty() {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
