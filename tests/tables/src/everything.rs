//! A table of many documents that a program writes with the plain driver, on a replica set whose primaries step down and
//! whose oplog is small, and reconcilers of every language, which are killed and stopped. In the end the last state of
//! each key that each of them was shown is what the collection holds.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use coord_faults::random::Random;
use coord_tests::servers::{ReplicaSet, SetOptions, process};
use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use rustix::process::Signal;

use crate::worker::whole;

/// How to run one.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A new folder, for what the reconcilers have seen.
    pub folder: PathBuf,
    /// How long there are writes and blows.
    pub length: Duration,
    /// How many documents there are at the start.
    pub documents: usize,
    /// Which blows.
    pub seed: u64,
    /// The program that writes, and how it is started.
    pub writer: Vec<String>,
    /// The reconcilers' programs: a name for each, and how it is started.
    pub workers: Vec<(String, Vec<String>)>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// What the plain program has written.
    pub writes: u64,
    /// Primaries that stepped down.
    pub downs: usize,
    /// Reconcilers that were killed and started again.
    pub kills: usize,
    /// Reconcilers that were stopped until the oplog no longer had their place.
    pub rollovers: usize,
    /// Documents at the end.
    pub documents: usize,
    /// Runs that each reconciler's last process has made.
    pub runs: BTreeMap<String, u64>,
    /// How long after the last write each reconciler had seen everything.
    pub settled: BTreeMap<String, Duration>,
}

/// How soon after the last write every reconciler must have seen everything: a new one runs all documents.
const PATIENCE: Duration = Duration::from_secs(900);

const DATABASE: &str = "app";
const COLLECTION: &str = "things";
const OPLOG_MB: u32 = 16;

/// Runs one. None where there is no `mongod`.
///
/// # Errors
/// What the operating system, the servers or a program says.
pub fn run(plan: &Plan) -> io::Result<Option<Findings>> {
    let Some(set) = ReplicaSet::with(SetOptions { oplog_mb: OPLOG_MB, ..SetOptions::of(3) }) else { return Ok(None) };
    std::fs::create_dir_all(&plan.folder)?;
    let mut findings = Findings::default();
    let store = Store::of(&set)?;
    store.fill(plan.documents)?;
    let writer = Writer::start(plan, &set.uri())?;
    let uri = format!("{}&coord.prefix=campaign_", set.uri());
    let mut workers = Vec::new();
    for (name, command) in &plan.workers {
        workers.push(Worker::start(name, command, &uri, &plan.folder)?);
    }
    let mut random = Random::new(plan.seed);
    let end = Instant::now() + plan.length;
    // Each of the workers in turn, so that each is hit.
    let mut turn = random.below(workers.len());
    let mut blow = 0;
    while Instant::now() < end {
        let pause =
            random.between(plan.length / 24, plan.length / 12).min(end.saturating_duration_since(Instant::now()));
        std::thread::sleep(pause);
        match blow % 3 {
            0 => {
                set.step_down();
                findings.downs += 1;
            }
            1 => {
                workers[turn].restart(&uri, &plan.folder)?;
                findings.kills += 1;
            }
            _ => {
                let worker = &workers[turn];
                worker.signal(Signal::STOP)?;
                store.roll_over(&set)?;
                worker.signal(Signal::CONT)?;
                findings.rollovers += 1;
                turn = (turn + 1) % workers.len();
            }
        }
        blow += 1;
    }
    findings.writes = writer.end()?;
    let last = Instant::now();
    let there = store.contents()?;
    findings.documents = there.len();
    while findings.settled.len() < workers.len() && last.elapsed() < PATIENCE {
        for worker in &mut workers {
            if findings.settled.contains_key(&worker.name) {
                continue;
            }
            let (seen, runs) = worker.dump()?;
            if seen == there {
                findings.settled.insert(worker.name.clone(), last.elapsed());
                findings.runs.insert(worker.name.clone(), runs);
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    for mut worker in workers {
        if !findings.settled.contains_key(&worker.name) {
            let (seen, _) = worker.dump()?;
            findings.violations.push(difference(&worker.name, &seen, &there));
        }
        worker.end()?;
    }
    Ok(Some(findings))
}

/// The `n` of each key.
type Contents = BTreeMap<i64, i64>;

fn difference(name: &str, seen: &Contents, there: &Contents) -> String {
    let lacks = there.keys().filter(|key| !seen.contains_key(key)).count();
    let extra = seen.keys().filter(|key| !there.contains_key(key)).count();
    let stale: Vec<_> = there.iter().filter(|(key, n)| seen.get(key).is_some_and(|seen| seen != *n)).collect();
    format!("{name} has not seen {lacks} documents, nor that {extra} are gone, nor the last change of {stale:?}")
}

/// The collection, with the plain driver.
struct Store {
    runtime: tokio::runtime::Runtime,
    client: mongodb::Client,
}

impl Store {
    fn of(set: &ReplicaSet) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(mongodb::Client::with_uri_str(set.uri())).map_err(io::Error::other)?;
        Ok(Self { runtime, client })
    }

    fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.client.database(DATABASE).collection(name)
    }

    fn fill(&self, documents: usize) -> io::Result<()> {
        let things = self.collection(COLLECTION);
        let keys: Vec<i64> = (0..i64::try_from(documents).map_err(io::Error::other)?).collect();
        for keys in keys.chunks(5_000) {
            let documents = keys.iter().map(|key| doc! { "_id": key, "n": -1i64 });
            self.runtime.block_on(async { things.insert_many(documents).await }).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn contents(&self) -> io::Result<Contents> {
        let things = self.collection(COLLECTION);
        let found: Vec<Document> =
            wait(|| self.runtime.block_on(async { things.find(doc! {}).await?.try_collect().await }))?;
        let pair = |document: Document| Some((whole(document.get("_id")?)?, whole(document.get("n")?)?));
        let contents: Option<Contents> = found.into_iter().map(pair).collect();
        contents.ok_or_else(|| io::Error::other("a document is not as the writer makes them"))
    }

    /// Writes until the oplog no longer has what it had last.
    fn roll_over(&self, set: &ReplicaSet) -> io::Result<()> {
        let filler = self.collection("filler");
        let oplog: mongodb::Collection<Document> = self.client.database("local").collection("oplog.rs");
        let place = |order: i32| {
            let found = || {
                let sorted = oplog.find_one(doc! {}).sort(doc! { "$natural": order });
                self.runtime.block_on(async { sorted.await })
            };
            let entry = wait(found)?.ok_or_else(|| io::Error::other("the oplog is empty"))?;
            entry.get_timestamp("ts").map_err(io::Error::other)
        };
        let last = place(-1)?;
        let large = "x".repeat(1 << 20);
        let bound = Instant::now() + Duration::from_secs(120);
        while place(1)? <= last {
            if Instant::now() > bound {
                return Err(io::Error::other("the oplog does not roll over"));
            }
            for _ in 0..8 {
                wait(|| self.runtime.block_on(async { filler.insert_one(doc! { "x": &large }).await }))?;
            }
            // It keeps what came after the last checkpoint, which this makes.
            for member in set.members() {
                let _ = member.command(doc! { "fsync": 1 });
            }
        }
        wait(|| self.runtime.block_on(async { filler.drop().await }))
    }
}

/// Through failovers, as any program that tries again.
fn wait<T>(mut call: impl FnMut() -> mongodb::error::Result<T>) -> io::Result<T> {
    let bound = Instant::now() + Duration::from_secs(60);
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > bound => return Err(io::Error::other(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The plain program: writes until its input ends, and then says how often it has.
struct Writer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Writer {
    fn start(plan: &Plan, uri: &str) -> io::Result<Self> {
        let mut command = Command::new(&plan.writer[0]);
        command
            .args(&plan.writer[1..])
            .args([uri, DATABASE, COLLECTION, &plan.documents.to_string(), &plan.seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = process::spawn(command, Signal::KILL)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(|| io::Error::other("no output"))?);
        Ok(Self { child, output })
    }

    fn end(mut self) -> io::Result<u64> {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let status = self.child.wait()?;
        line.trim().parse().map_err(|_| io::Error::other(format!("the writer said '{line}' and ended with {status}")))
    }
}

/// A reconciler's process.
struct Worker {
    name: String,
    command: Vec<String>,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    out: PathBuf,
}

impl Worker {
    fn start(name: &str, command: &[String], uri: &str, folder: &Path) -> io::Result<Self> {
        let out = folder.join(format!("{name}.seen"));
        let mut started = Command::new(&command[0]);
        started
            .args(&command[1..])
            .args([uri, &format!("{DATABASE}.{COLLECTION}"), "workers=16"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = process::spawn(started, Signal::KILL)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(|| io::Error::other("no output"))?);
        let input = child.stdin.take();
        Ok(Self { name: name.to_owned(), command: command.to_vec(), child, input, output, out })
    }

    fn restart(&mut self, uri: &str, folder: &Path) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        *self = Self::start(&self.name, &self.command, uri, folder)?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        process::signal(&self.child, signal)
    }

    /// What it has seen, and its runs.
    fn dump(&mut self) -> io::Result<(Contents, u64)> {
        self.ask(&format!("dump {}", self.out.display()), |answer| answer.starts_with("dumped "))?;
        let text = std::fs::read_to_string(&self.out)?;
        let pair = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some((line.get("key")?.as_i64()?, line.get("document")?.get("n")?.as_i64()?))
        };
        let seen: Option<Contents> = text.lines().map(pair).collect();
        let seen = seen.ok_or_else(|| io::Error::other(format!("{} has dumped something else", self.name)))?;
        let stats = self.ask("stats", |answer| answer.starts_with('{'))?;
        let stats: serde_json::Value = serde_json::from_str(&stats)?;
        Ok((seen, stats.get("runs").and_then(serde_json::Value::as_u64).unwrap_or_default()))
    }

    /// Asks, and waits for the answer; `ready` may come before it.
    fn ask(&mut self, command: &str, wanted: impl Fn(&str) -> bool) -> io::Result<String> {
        let input = self.input.as_mut().ok_or_else(|| io::Error::other("no input"))?;
        writeln!(input, "{command}").and_then(|()| input.flush())?;
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                return Err(io::Error::other(format!("{} has ended", self.name)));
            }
            if wanted(&line) {
                return Ok(line);
            }
            if line.trim() != "ready" {
                return Err(io::Error::other(format!("{} said '{line}' to '{command}'", self.name)));
            }
        }
    }

    fn end(mut self) -> io::Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{} ended with {status}", self.name))) }
    }
}
