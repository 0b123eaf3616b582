//! A table of many documents that a program writes with the plain driver, on a replica set whose primaries step down and
//! whose oplog is small, and reconcilers of every language, which are killed and stopped. In the end the last state of
//! each key that each of them was shown is what the collection holds.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use coord_faults::random::Random;
use coord_tests::servers::{ReplicaSet, SetOptions, process};
use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use rustix::process::Signal;

use crate::program::{self, Program, Said, bad_end, ended_by_itself};
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
        // Between two blows there are writes, whose changes the next one meets.
        std::thread::sleep(pause);
        match blow % 3 {
            0 => {
                set.step_down();
                findings.downs += 1;
            }
            1 => {
                findings.violations.extend(workers[turn].restart(&uri, &plan.folder)?);
                findings.kills += 1;
            }
            _ => {
                let worker = &mut workers[turn];
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
    let mut alive = Vec::new();
    while !workers.is_empty() {
        let late = last.elapsed() > PATIENCE;
        for mut worker in std::mem::take(&mut workers) {
            match worker.dump()? {
                Ok((seen, runs)) => match difference(&worker.name, &seen, &there) {
                    None => {
                        findings.settled.insert(worker.name.clone(), last.elapsed());
                        findings.runs.insert(worker.name.clone(), runs);
                        alive.push(worker);
                    }
                    Some(difference) if late => {
                        findings.violations.push(difference);
                        alive.push(worker);
                    }
                    Some(_) => workers.push(worker),
                },
                Err(wrong) => {
                    findings.violations.push(wrong);
                    worker.kill()?;
                }
            }
        }
        // They say nothing when they have seen it all, and a dump of all keys is not made for nothing.
        std::thread::sleep(Duration::from_millis(500));
    }
    for worker in alive {
        findings.violations.extend(worker.end()?);
    }
    Ok(Some(findings))
}

/// The `n` of each key.
type Contents = BTreeMap<i64, i64>;

/// What a reconciler has not seen; none if it has seen everything.
fn difference(name: &str, seen: &Contents, there: &Contents) -> Option<String> {
    let lacks = there.keys().filter(|key| !seen.contains_key(key)).count();
    let extra = seen.keys().filter(|key| !there.contains_key(key)).count();
    let stale: Vec<_> = there.iter().filter(|(key, n)| seen.get(key).is_some_and(|seen| seen != *n)).collect();
    (seen != there).then(|| {
        format!("{name} has not seen {lacks} documents, nor that {extra} are gone, nor the last change of {stale:?}")
    })
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
            // The servers are away: not at once again.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The plain program: writes until its input ends, and then says how often it has.
struct Writer(Program);

impl Writer {
    fn start(plan: &Plan, uri: &str) -> io::Result<Self> {
        let mut command = Command::new(&plan.writer[0]);
        let settings = [uri, DATABASE, COLLECTION, &plan.documents.to_string(), &plan.seed.to_string()];
        command.args(&plan.writer[1..]).args(settings);
        Program::start(command).map(Self)
    }

    /// What a reconciler has seen proves nothing unless the writer has ended: whatever it does wrong is an error.
    fn end(mut self) -> io::Result<u64> {
        self.0.close_input();
        let said = self.0.line(Instant::now() + program::PATIENCE);
        if let Some(bad) = bad_end("the writer", self.0.child(), program::PATIENCE)? {
            return Err(io::Error::other(format!("{bad}; it said {said:?}")));
        }
        let count = if let Said::Line(line) = &said { line.trim().parse().ok() } else { None };
        count.ok_or_else(|| io::Error::other(format!("the writer ended with {said:?} instead of a number")))
    }
}

/// A reconciler's process.
struct Worker {
    name: String,
    command: Vec<String>,
    program: Program,
    out: PathBuf,
    /// How long it may take to answer.
    patience: Duration,
}

impl Worker {
    fn start(name: &str, command: &[String], uri: &str, folder: &Path) -> io::Result<Self> {
        let out = folder.join(format!("{name}.seen"));
        let mut started = Command::new(&command[0]);
        started.args(&command[1..]).args([uri, &format!("{DATABASE}.{COLLECTION}"), "workers=16"]);
        let (name, command, program) = (name.to_owned(), command.to_vec(), Program::start(started)?);
        Ok(Self { name, command, program, out, patience: program::PATIENCE })
    }

    /// Kills it and starts it again. Returns what is wrong if it had ended by itself.
    fn restart(&mut self, uri: &str, folder: &Path) -> io::Result<Option<String>> {
        let ended = ended_by_itself(&self.name, self.program.child())?;
        self.kill()?;
        *self = Self::start(&self.name, &self.command, uri, folder)?;
        Ok(ended)
    }

    fn kill(&mut self) -> io::Result<()> {
        self.program.child().kill()?;
        self.program.child().wait().map(drop)
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        process::signal(self.program.child(), signal)
    }

    /// What it has seen, and its runs; or what is wrong with it: it has ended, or hangs.
    fn dump(&mut self) -> io::Result<Result<(Contents, u64), String>> {
        if let Err(wrong) = self.ask(&format!("dump {}", self.out.display()), |answer| answer.starts_with("dumped "))? {
            return Ok(Err(wrong));
        }
        let text = std::fs::read_to_string(&self.out)?;
        let pair = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some((line.get("key")?.as_i64()?, line.get("document")?.get("n")?.as_i64()?))
        };
        let seen: Option<Contents> = text.lines().map(pair).collect();
        let seen = seen.ok_or_else(|| io::Error::other(format!("{} has dumped something else", self.name)))?;
        Ok(match self.ask("stats", |answer| answer.starts_with('{'))? {
            Ok(stats) => {
                let stats: serde_json::Value = serde_json::from_str(&stats)?;
                Ok((seen, stats.get("runs").and_then(serde_json::Value::as_u64).unwrap_or_default()))
            }
            Err(wrong) => Err(wrong),
        })
    }

    /// Asks, and waits for the answer, or for what is wrong; `ready` may come before it.
    fn ask(&mut self, command: &str, wanted: impl Fn(&str) -> bool) -> io::Result<Result<String, String>> {
        match self.program.tell(command) {
            // It has ended, or is about to: then so do its lines.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            told => told?,
        }
        let until = Instant::now() + self.patience;
        loop {
            return Ok(match self.program.line(until) {
                Said::Line(line) if wanted(&line) => Ok(line),
                Said::Line(line) if line.trim() == "ready" => continue,
                Said::Line(line) => {
                    return Err(io::Error::other(format!("{} said '{line}' to '{command}'", self.name)));
                }
                Said::End => Err(format!("{} has ended by itself, or does not speak any more", self.name)),
                Said::Late => Err(format!("{} did not answer '{command}' within {:?}", self.name, self.patience)),
            });
        }
    }

    /// Lets it end. What is wrong with how it does, or that it had ended before.
    fn end(mut self) -> io::Result<Option<String>> {
        if let Some(ended) = ended_by_itself(&self.name, self.program.child())? {
            return Ok(Some(ended));
        }
        self.program.close_input();
        bad_end(&self.name, self.program.child(), self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_told() {
        let there = Contents::from([(1, 10), (2, 20), (3, 30)]);
        let difference = |seen: &[(i64, i64)]| difference("it", &seen.iter().copied().collect(), &there);
        assert_eq!(difference(&[(1, 10), (2, 20), (3, 30)]), None);
        let found = |seen: &[(i64, i64)], needle: &str| {
            let difference = difference(seen).expect("there is one");
            assert!(difference.contains(needle), "{difference}");
        };
        found(&[(1, 10), (2, 20)], "not seen 1 documents, nor that 0 are gone, nor the last change of []");
        found(
            &[(1, 10), (2, 20), (3, 30), (4, 40)],
            "not seen 0 documents, nor that 1 are gone, nor the last change of []",
        );
        found(
            &[(1, 10), (2, 19), (3, 30)],
            "not seen 0 documents, nor that 0 are gone, nor the last change of [(2, 20)]",
        );
    }

    fn worker(folder: &Path, script: &str) -> Worker {
        let command = ["sh", "-c", script].map(str::to_owned);
        Worker::start("it", &command, "uri", folder).expect("a shell")
    }

    #[test]
    fn a_reconciler_that_answers_is_asked() {
        let scratch = coord_tests::servers::scratch::Scratch::new().expect("a folder");
        let script = r#"echo ready; read dump file; echo '{"key": 1, "document": {"n": 2}}' > "$file"; echo dumped 1
            read stats; echo '{"runs": 7}'; read end; exit 0"#;
        let mut good = worker(scratch.path(), script);
        assert_eq!(good.dump().expect("an answer"), Ok((Contents::from([(1, 2)]), 7)));
        assert_eq!(good.end().expect("an end"), None);
    }

    #[test]
    fn a_reconciler_that_hangs_or_ended_by_itself_is_a_violation() {
        let scratch = coord_tests::servers::scratch::Scratch::new().expect("a folder");
        let mut hangs = worker(scratch.path(), "echo ready; exec sleep 1000");
        hangs.patience = Duration::from_millis(1);
        assert!(hangs.dump().expect("no error").is_err_and(|wrong| wrong.contains("did not answer")));
        assert!(hangs.end().expect("no error").is_some_and(|wrong| wrong.contains("did not end")));
        let ended = || {
            let mut ended = worker(scratch.path(), "exit 3");
            ended.program.child().wait().expect("a child");
            ended
        };
        assert!(ended().dump().expect("no error").is_err_and(|wrong| wrong.contains("has ended by itself")));
        assert!(ended().end().expect("no error").is_some_and(|wrong| wrong.contains("exit status: 3")));
        let mut restarted = ended();
        let wrong = restarted.restart("uri", scratch.path()).expect("no error");
        assert!(wrong.is_some_and(|wrong| wrong.contains("by itself, with exit status: 3")));
        // One that was there is killed, and that is all.
        let mut good = worker(scratch.path(), "exec sleep 1000");
        assert_eq!(good.restart("uri", scratch.path()).expect("no error"), None);
        good.kill().expect("it is there");
    }
}
