//! Replicas of one sharded reconciler, each a process, which are killed and started again, or stopped for longer than
//! their sessions live, while documents are written.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coord_core::bson::doc;
use coord_core::client::connect;
use coord_core::error::{Code, Result};
use coord_core::table::{Table, WriteOptions};
use coord_faults::history::{now, read};
use coord_faults::random::Random;
use coord_tests::servers::process;
use futures::executor::block_on;
use rustix::process::Signal;

use crate::check::{Blow, Findings, Line, Write, check};
use crate::program::{self, bad_end, ended_by_itself};

/// How to run one.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A new folder, for the histories.
    pub folder: PathBuf,
    /// The store's URL, with the ttl.
    pub url: String,
    /// The same ttl.
    pub ttl: Duration,
    /// How long.
    pub length: Duration,
    /// Which blows.
    pub seed: u64,
    /// The worker's program.
    pub program: PathBuf,
    /// How many replicas.
    pub replicas: usize,
}

impl Plan {
    /// Within what time a change is run.
    pub fn bound(&self) -> Duration {
        self.ttl.mul_f64(1.1) + Duration::from_secs(5)
    }
}

/// How soon everything must be run after the last blow, beside the bound: the replica that was killed last has to start.
const PATIENCE: Duration = Duration::from_secs(60);

const TABLE: &str = "sharded";
const KEYS: usize = 200;

/// Runs one.
///
/// # Errors
/// What the operating system or the library says.
pub fn run(plan: &Plan) -> io::Result<Findings> {
    std::fs::create_dir_all(&plan.folder)?;
    let mut random = Random::new(plan.seed);
    let mut replicas = Vec::new();
    for number in 0..plan.replicas {
        replicas.push(Replica::start(plan, number)?);
    }
    let writer = Writer::start(plan);
    let (mut blows, mut wrong) = (Vec::new(), Vec::new());
    let mut started = plan.replicas;
    let end = Instant::now() + plan.length;
    while Instant::now() < end {
        // So that each write meets one blow at most.
        std::thread::sleep(plan.bound() + random.between(Duration::ZERO, Duration::from_secs(3)));
        let victim = random.below(replicas.len());
        if random.chance(0.6) {
            wrong.extend(ended_by_itself("a replica", &mut replicas[victim].0)?);
            blows.push(Blow { t: now(), kind: "kill" });
            replicas[victim].0.kill()?;
            replicas[victim].0.wait()?;
            replicas[victim] = Replica::start(plan, started)?;
            started += 1;
        } else {
            blows.push(Blow { t: now(), kind: "stop" });
            process::signal(&replicas[victim].0, Signal::STOP)?;
            // For shorter than its session lives without a renewal, or for longer.
            std::thread::sleep(random.between(plan.ttl / 2, plan.ttl * 3));
            process::signal(&replicas[victim].0, Signal::CONT)?;
        }
    }
    let writes = writer.end().map_err(|error| io::Error::other(error.to_string()))?;
    let patience = Instant::now() + plan.bound() + PATIENCE;
    let mut findings = loop {
        let findings = check(&histories(&plan.folder)?, &writes, &blows, plan.bound());
        let open = findings.violations.iter().any(|violation| violation.contains("never run"));
        if !open || Instant::now() > patience {
            break findings;
        }
        // The replicas say nothing but in their files, which are long.
        std::thread::sleep(Duration::from_millis(200));
    };
    for replica in replicas {
        wrong.extend(replica.end()?);
    }
    findings.violations.extend(wrong);
    Ok(findings)
}

fn histories(folder: &Path) -> io::Result<Vec<Vec<Line>>> {
    let mut histories = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            histories.push(read(&path)?);
        }
    }
    Ok(histories)
}

struct Replica(Child);

impl Replica {
    fn start(plan: &Plan, number: usize) -> io::Result<Self> {
        let mut command = Command::new(&plan.program);
        command
            .args(["replica", &plan.url, TABLE])
            .arg(plan.folder.join(format!("{number}.jsonl")))
            .stdin(Stdio::piped());
        process::spawn(command, Signal::KILL).map(Self)
    }

    /// Lets it end. What is wrong with how it does, or that it had ended before.
    fn end(mut self) -> io::Result<Option<String>> {
        if let Some(ended) = ended_by_itself("a replica", &mut self.0)? {
            return Ok(Some(ended));
        }
        drop(self.0.stdin.take());
        bad_end("a replica", &mut self.0, program::PATIENCE)
    }
}

/// Writes documents without a pause for more than a moment, each until it is done.
struct Writer {
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<Vec<Write>>>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Writer {
    fn start(plan: &Plan) -> Self {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (url, seed) = (plan.url.clone(), plan.seed);
        let thread = std::thread::spawn({
            let (stop, writes) = (stop.clone(), writes.clone());
            move || {
                let client = block_on(connect(&url))?;
                let table = client.table(TABLE)?;
                let mut random = Random::new(!seed);
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let key = i64::try_from(random.below(KEYS)).unwrap_or_default();
                    let version = (!random.chance(0.1)).then_some(n);
                    let sent = now();
                    let changed = loop {
                        match block_on(write(&table, key, version)) {
                            Ok(changed) => break changed,
                            Err(error) if error.retryable() || error.code() == Code::OutcomeUnknown => {
                                // The store is away: not at once again.
                                std::thread::sleep(Duration::from_millis(20));
                            }
                            Err(error) => return Err(error),
                        }
                    };
                    if changed {
                        lock(&writes).push(Write { sent, acknowledged: now(), key, n: version });
                    }
                    // Each change has a run that is written down: no more than the checker can read.
                    std::thread::sleep(random.between(Duration::ZERO, Duration::from_millis(30)));
                }
                block_on(client.close(PATIENCE))
            }
        });
        Self { stop, writes, thread }
    }

    fn end(self) -> Result<Vec<Write>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(std::mem::take(&mut *lock(&self.writes)))
    }
}

/// Whether it has changed anything.
async fn write(table: &Table, key: i64, version: Option<i64>) -> Result<bool> {
    let written = match version {
        Some(n) => table.put(key, doc! { "n": n }, WriteOptions::default()).await,
        None => table.delete(key, WriteOptions::default()).await,
    };
    match written {
        Err(error) if version.is_none() && error.code() == Code::NotFound => Ok(false),
        other => other.map(|_| true),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
