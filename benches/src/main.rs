//! Measures coord against the floors of its stores and against real peers, interleaved on the same servers, and
//! writes `benches/RESULTS.md` and `benches/results.svg`. Started by `benches/run`.
//!
//! Everything is bounded in time: each answer of a worker, and the whole run. What cannot be had or fails is told in
//! one line, and the rest is measured. Nothing here judges: a goal that is missed is shown, and ends nothing.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coord_bench_worker::Result;
use coord_core::client::{self, Client};
use coord_core::election::{LeaderWatch, Term};

mod book;
mod floors;
mod languages;
mod plot;
mod proc;
mod process;
mod report;
mod rows;
mod servers;
mod stage;
mod subjects;

use book::Book;
use rows::{ROWS, Round, Row};
use stage::Stage;

const USAGE: &str = "usage: coord-bench [ONLY=word,…] [ROUNDS=n] [MINUTES=n]
words: pair parallel contended handover waiters killed holding told queue calls idle growth size;
lock and all are all of them";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["worker", subject, url] => subjects::work(subject, url),
        ["calls", url, count] => calls(url, count),
        ["idle", url @ ..] => idle(url.first().copied()),
        options => Plan::parse(options).and_then(|plan| plan.run()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coord-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be measured.
struct Plan {
    rows: Vec<&'static Row>,
    rounds: usize,
    limit: Duration,
}

impl Plan {
    fn parse(options: &[&str]) -> Result<Self> {
        let mut plan = Self { rows: ROWS.iter().collect(), rounds: 3, limit: Duration::from_secs(14 * 60) };
        for option in options {
            match option.split_once('=') {
                Some((_, "")) => {}
                Some(("ONLY", words)) => plan.rows = only(words)?,
                Some(("ROUNDS", rounds)) => plan.rounds = rounds.parse::<usize>()?.max(1),
                Some(("MINUTES", minutes)) => plan.limit = Duration::from_secs(minutes.parse::<u64>()? * 60),
                _ => return Err(format!("'{option}' is no option\n{USAGE}").into()),
            }
        }
        Ok(plan)
    }

    fn run(&self) -> Result<()> {
        let stage = Stage::new()?;
        let mut book = Book::default();
        let until = Instant::now() + self.limit;
        for number in 0..self.rounds {
            for row in &self.rows {
                eprintln!("round {} of {}: {}", number + 1, self.rounds, row.title);
                let mut round = Round { stage: &stage, book: &mut book, first: number == 0, until };
                (row.measure)(&mut round)?;
            }
        }
        drop(stage);
        report::write(&book, &self.rows, self.rounds)
    }
}

fn only(words: &str) -> Result<Vec<&'static Row>> {
    let mut rows = Vec::new();
    for word in words.split([',', ' ']) {
        match ROWS.iter().find(|row| row.word == word) {
            Some(row) => rows.push(row),
            None if ["lock", "all"].contains(&word) => rows.extend(&ROWS),
            None => return Err(format!("there is no row '{word}'\n{USAGE}").into()),
        }
    }
    Ok(rows)
}

/// So many acquires and releases on one thread, for profilers: `valgrind --tool=callgrind coord-bench calls memory: 10000`.
fn calls(url: &str, count: &str) -> Result<()> {
    let count: u64 = count.parse()?;
    let took = futures::executor::block_on(async {
        let client = client::connect(url).await?;
        let lock = client.lock("profiled")?;
        let begun = Instant::now();
        for _ in 0..count {
            lock.acquire().await?.release().await?;
        }
        Ok::<_, coord_core::error::Error>(begun.elapsed())
    })?;
    writeln!(std::io::stdout(), "{} ns for an acquire and a release", took.as_nanos() as u64 / count.max(1))?;
    Ok(())
}

/// A process that does nothing until its standard input ends. With a store it has a session, leads an election and
/// observes it. It brings no runtime of its own.
fn idle(url: Option<&str>) -> Result<()> {
    let present = url.map(|url| futures::executor::block_on(present(url))).transpose()?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(present);
    Ok(())
}

async fn present(url: &str) -> Result<(LeaderWatch, Term, Client)> {
    let client = client::connect(url).await?;
    let election = client.election("idle")?;
    let term = election.campaign("").await?;
    let observer = election.observe().await?;
    observer.next().await?;
    Ok((observer, term, client))
}
