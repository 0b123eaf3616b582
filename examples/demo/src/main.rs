//! The demo, in two parts. Processes of several languages append to one ledger under one lock, and one of them is
//! killed while it holds the lock. Then some provide a service and want to lead, and whoever leads is killed. Checks what
//! they leave, and says what happened in tables.
//!
//! `coord-demo ledger URL SECONDS LEDGER NAME=COMMAND…`; the last worker is the one that is killed.
//! `coord-demo members URL OBSERVER-COMMAND NAME=COMMAND…`. `examples/demo/run` builds the workers and calls this.
#![allow(clippy::print_stdout)]

mod ledger;
mod members;
mod worker;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ledger::Entry;
use worker::{Times, Worker, now};

const USAGE: &str = "usage: coord-demo ledger URL SECONDS LEDGER NAME=COMMAND NAME=COMMAND…\n       \
    coord-demo members URL OBSERVER-COMMAND NAME=COMMAND…";

/// How long the lock may have no holder, whatever happens: the longest default ttl of a session, a tenth more, and
/// room for a busy machine. A clean hand-over takes milliseconds, and so does one after a kill on the same machine;
/// the table says what it was.
const LIMIT: Duration = Duration::from_secs(45);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [part, url, seconds, ledger, workers @ ..] if part == "ledger" => {
            let (Ok(seconds), Some(workers)) = (seconds.parse::<f64>(), named(workers)) else { return usage() };
            if workers.len() < 2 || !(0.5..=3600.0).contains(&seconds) {
                return usage();
            }
            play(url, Duration::from_secs_f64(seconds), Path::new(ledger), &workers)
        }
        [part, url, observer, members @ ..] if part == "members" => {
            let Some(members) = named(members).filter(|members| !members.is_empty()) else { return usage() };
            members::play(url, observer, &members)
        }
        _ => return usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Names and commands.
fn named(workers: &[String]) -> Option<Vec<(&str, &str)>> {
    workers.iter().map(|worker| worker.split_once('=')).collect()
}

fn play(url: &str, duration: Duration, path: &Path, commands: &[(&str, &str)]) -> Result<(), String> {
    let begin = now();
    let at = |share: f64| begin + u64::try_from(duration.mul_f64(share).as_nanos()).unwrap_or(u64::MAX);
    let names: Vec<&str> = commands.iter().map(|(name, _)| *name).collect();
    println!(
        "demo: {} append to one ledger for {} s, each entry under one lock",
        names.join(", "),
        duration.as_secs_f64()
    );
    let mut workers = Vec::new();
    for (index, (name, command)) in commands.iter().enumerate() {
        let stuck = (index + 1 == commands.len()).then(|| at(0.5));
        workers.push(Worker::start(name, command, url, path, Times { until: at(1.0), stuck })?);
    }
    let mut victim = workers.pop().ok_or("there is no worker")?;
    let killed = victim.kill_when_stuck()?;
    println!("demo: {} was killed with SIGKILL in the middle of an entry; the others go on", victim.name);
    let mut everybody: Vec<(String, u32)> = workers.iter().map(|worker| (worker.name.clone(), worker.pid)).collect();
    everybody.push((format!("{} (killed)", victim.name), victim.pid));
    for worker in workers {
        worker.join()?;
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let entries = ledger::read(&text)?;
    let blocked = check(&entries, &everybody, victim.pid, killed)?;
    report(&entries, &everybody, blocked);
    Ok(())
}

/// Checks who wrote, that exactly the killed one's last entry is torn, and that nobody waited for too long. Returns
/// how long the kill kept the others from the lock.
fn check(entries: &[Entry], everybody: &[(String, u32)], victim: u32, killed: u64) -> Result<Duration, String> {
    for (name, pid) in everybody {
        if !entries.iter().any(|entry| entry.pid == *pid && entry.end.is_some()) {
            return Err(format!("{name} has not written one entry"));
        }
    }
    let torn: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].end.is_none()).collect();
    let [torn] = torn[..] else { return Err(format!("{} entries are torn; only the killed one's may be", torn.len())) };
    if entries[torn].pid != victim || entries[torn + 1..].iter().any(|entry| entry.pid == victim) {
        return Err("the torn entry is not the last of the killed process".into());
    }
    let next = entries.get(torn + 1).ok_or("nobody has written after the kill")?;
    if next.begin < killed {
        return Err("somebody wrote while the killed process held the lock".into());
    }
    let blocked = Duration::from_nanos(next.begin - killed);
    let longest = blocked.max(ledger::longest_gap(entries));
    if longest > LIMIT {
        return Err(format!("nobody held the lock for {}; at most {} are right", show(longest), show(LIMIT)));
    }
    Ok(blocked)
}

fn report(entries: &[Entry], everybody: &[(String, u32)], blocked: Duration) {
    let whole = entries.iter().filter(|entry| entry.end.is_some()).count();
    println!("\n  {:<22} {:>8} {:>8} {:>7}", "who", "process", "entries", "share");
    for (name, pid) in everybody {
        let count = entries.iter().filter(|entry| entry.pid == *pid && entry.end.is_some()).count();
        println!("  {name:<22} {pid:>8} {count:>8} {:>5.0} %", count as f64 * 100.0 / whole as f64);
    }
    let times = ledger::hand_overs(entries);
    let at = |share: f64| times.get(((times.len() - 1) as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "\n  hand-over to another process: p50 {}, p99 {}, longest {}",
        show(at(0.5)),
        show(at(0.99)),
        show(at(1.0))
    );
    println!("  the killed holder blocked the others for {}", show(blocked));
    println!(
        "  the ledger: {whole} entries, none written by two at once, tokens strictly increasing; 1 cut short by the kill"
    );
    println!();
}

fn show(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds => format!("{:.2} ms", seconds * 1e3),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
