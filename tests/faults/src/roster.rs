//! Providers that come and go in many processes, which are killed, and observers who must all tell the same story.
//!
//! At every quiet moment each observer's view is what the processes that live say that they provide. The edges of each
//! service alternate, and in the end every observer has told of equally many.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::observer::{ObserveOptions, Observer, ObserverEvent};
use coord_tests::servers::process;
use futures::executor::block_on;
use rustix::process::Signal;

use crate::random::Random;

/// How to run one.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A new folder, for the workers' messages.
    pub folder: PathBuf,
    /// The store's URL.
    pub url: String,
    /// How long.
    pub length: Duration,
    /// Which faults.
    pub seed: u64,
    /// The worker's program.
    pub program: PathBuf,
    /// How many processes.
    pub processes: usize,
    /// How many services.
    pub services: usize,
    /// How many providers in all.
    pub providers: usize,
    /// How many observers, each with a client of its own.
    pub observers: usize,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// Where observers count other edges. One that fell behind by far, or lost its stream, is told less by contract.
    pub differences: Vec<String>,
    /// Times that everybody was quiet and the views were compared.
    pub quiet: usize,
    /// Processes that were killed.
    pub kills: usize,
    /// The most providers at a quiet moment.
    pub most: usize,
    /// `FirstUp`s that each observer told of.
    pub ups: usize,
    /// `LastDown`s.
    pub downs: usize,
    /// Events that all observers told of.
    pub events: usize,
}

/// How long processes are killed before there is a quiet moment.
const STORM: Duration = Duration::from_secs(6);

/// How soon everybody must agree: the dead are buried after a ttl, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs one.
///
/// # Errors
/// What the operating system or the library says.
pub fn run(plan: &Plan) -> io::Result<Findings> {
    std::fs::create_dir_all(&plan.folder)?;
    let mut findings = Findings::default();
    let mut random = Random::new(plan.seed);
    let mut watchers = Vec::new();
    for _ in 0..plan.observers {
        watchers.push(Watcher::start(&plan.url)?);
    }
    let mut workers = Vec::new();
    for number in 0..plan.processes {
        workers.push(Worker::start(plan, number)?);
    }
    let end = Instant::now() + plan.length;
    while Instant::now() < end {
        let storm = Instant::now() + STORM;
        while Instant::now() < storm {
            std::thread::sleep(random.between(Duration::from_millis(100), Duration::from_millis(1500)));
            let victim = random.below(workers.len());
            workers[victim].kill()?;
            workers[victim] = Worker::start(plan, victim + findings.kills * plan.processes)?;
            findings.kills += 1;
        }
        let mut provided = BTreeSet::new();
        for worker in &mut workers {
            provided.extend(worker.rest()?);
        }
        findings.quiet += 1;
        findings.most = findings.most.max(provided.len());
        for (number, watcher) in watchers.iter().enumerate() {
            if let Err(view) = watcher.comes_to(&provided)? {
                let missing: Vec<_> = provided.difference(&view).collect();
                let extra: Vec<_> = view.difference(&provided).collect();
                let message = format!("observer {number} lacks {missing:?} and has {extra:?} beside what is provided");
                findings.violations.push(message);
            }
        }
        workers.iter_mut().try_for_each(Worker::go)?;
    }
    for mut worker in workers {
        worker.end()?;
    }
    let mut edges = Vec::new();
    for (number, watcher) in watchers.iter().enumerate() {
        if let Err(view) = watcher.comes_to(&BTreeSet::new())? {
            findings.violations.push(format!("observer {number} sees {view:?} after everybody has gone"));
        }
        let mut story = watcher.story();
        findings.violations.append(&mut story.violations);
        findings.events += story.events;
        edges.push(story.edges.clone());
    }
    if let Some(first) = edges.first() {
        findings.ups = first.values().map(|(ups, _)| ups).sum();
        findings.downs = first.values().map(|(_, downs)| downs).sum();
        for (number, other) in edges.iter().enumerate().skip(1).filter(|(_, other)| *other != first) {
            findings.differences.push(format!("observer {number} counts {other:?}, observer 0 {first:?}"));
        }
    }
    for watcher in watchers {
        block_on(watcher.client.close(Duration::from_secs(20))).map_err(io::Error::other)?;
    }
    Ok(findings)
}

/// An observer of everything, whose events are taken as they come.
struct Watcher {
    client: Client,
    observer: Observer,
    story: Arc<Mutex<Story>>,
}

/// What an observer has told.
#[derive(Debug, Default)]
struct Story {
    /// `service#instance`, of those who have joined and not left.
    there: BTreeSet<String>,
    /// Of each service, how often it came up and went down.
    edges: BTreeMap<String, (usize, usize)>,
    events: usize,
    violations: Vec<String>,
}

impl Watcher {
    fn start(url: &str) -> io::Result<Self> {
        let options = Options::parse(url).map_err(io::Error::other)?;
        let client = block_on(Client::connect(options)).map_err(io::Error::other)?;
        let observer = block_on(client.observe("*", ObserveOptions::default())).map_err(io::Error::other)?;
        let story = Arc::new(Mutex::new(Story::default()));
        let (telling, told) = (observer.clone(), story.clone());
        std::thread::spawn(move || {
            while let Ok(event) = block_on(telling.next()) {
                told.lock().unwrap_or_else(PoisonError::into_inner).take(event);
            }
        });
        Ok(Self { client, observer, story })
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what the observer shows and what it has told are this. What is not, otherwise.
    fn comes_to(&self, provided: &BTreeSet<String>) -> io::Result<Result<(), BTreeSet<String>>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let view = self.view()?;
            let told = self.story().there.clone();
            if view == *provided && told == *provided {
                return Ok(Ok(()));
            }
            if Instant::now() > until {
                return Ok(Err(if view == *provided { told } else { view }));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn view(&self) -> io::Result<BTreeSet<String>> {
        let mut view = BTreeSet::new();
        for service in self.observer.services().map_err(io::Error::other)? {
            for provider in self.observer.providers(&service).map_err(io::Error::other)? {
                view.insert(format!("{}#{}", provider.service, provider.instance_id));
            }
        }
        Ok(view)
    }
}

impl Story {
    fn take(&mut self, event: ObserverEvent) {
        self.events += 1;
        match event {
            ObserverEvent::FirstUp(provider) => self.edge(provider.service, true),
            ObserverEvent::LastDown { service } => self.edge(service, false),
            ObserverEvent::Joined(provider) => {
                let name = format!("{}#{}", provider.service, provider.instance_id);
                if !self.there.insert(name.clone()) {
                    self.violations.push(format!("{name} has joined twice"));
                }
            }
            ObserverEvent::Left(provider) => {
                let name = format!("{}#{}", provider.service, provider.instance_id);
                if !self.there.remove(&name) {
                    self.violations.push(format!("{name} has left and was not there"));
                }
            }
            ObserverEvent::Changed(_) | ObserverEvent::SnapshotStart | ObserverEvent::SnapshotEnd => {}
        }
    }

    fn edge(&mut self, service: String, up: bool) {
        let (ups, downs) = self.edges.entry(service.clone()).or_default();
        if (*ups > *downs) == up {
            self.violations.push(format!("{service} went {} twice", if up { "up" } else { "down" }));
        }
        *(if up { ups } else { downs }) += 1;
    }
}

/// A process of providers.
struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(plan: &Plan, number: usize) -> io::Result<Self> {
        let errors = messages(&plan.folder, number)?;
        let mut command = Command::new(&plan.program);
        command
            .arg(&plan.url)
            .arg((plan.seed ^ number as u64).to_string())
            .arg(plan.services.to_string())
            .arg((plan.providers / plan.processes).max(1).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut child = process::spawn(command, Signal::KILL)?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().map(BufReader::new).ok_or_else(|| io::Error::other("no output"))?;
        Ok(Self { child, orders, answers })
    }

    fn order(&mut self, order: &str) -> io::Result<()> {
        match &mut self.orders {
            Some(orders) => writeln!(orders, "{order}"),
            None => Err(io::Error::other("the worker was told to end")),
        }
    }

    /// Lets it keep what it has. Returns that.
    fn rest(&mut self) -> io::Result<Vec<String>> {
        self.order("rest")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::other("a worker has ended by itself"));
        }
        Ok(line.split_whitespace().map(str::to_owned).collect())
    }

    fn go(&mut self) -> io::Result<()> {
        self.order("go")
    }

    fn kill(&mut self) -> io::Result<()> {
        // A crash must not pass for the kill.
        if let Some(status) = self.child.try_wait()? {
            return Err(io::Error::other(format!("a worker has ended by itself: {status}")));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.orders.take());
        if self.child.wait()?.success() { Ok(()) } else { Err(io::Error::other("a worker did not end well")) }
    }
}

fn messages(folder: &Path, number: usize) -> io::Result<File> {
    File::options().create(true).append(true).open(folder.join(format!("p{number}.err")))
}
