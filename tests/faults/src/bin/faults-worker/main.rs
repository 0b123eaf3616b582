//! The Rust worker: `faults-worker URL HISTORY SEED TTL_MS`. Acquires, holds, checks and releases locks, leads and
//! resigns, watches elections, and writes and reads documents, until its input ends.

mod clerk;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::election::{CampaignOptions, Election, LeaderEvent, Term};
use coord_core::error::Code;
use coord_core::lock::{Held, Lock};
use coord_faults::history::{Event, Line, Log, now};
use coord_faults::random::Random;
use futures::executor::block_on;
use rustix::fs::{FlockOperation, flock};

use crate::clerk::Clerk;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, history, seed, ttl] = &arguments[..] else {
        eprintln!("usage: faults-worker URL HISTORY SEED TTL_MS");
        std::process::exit(2);
    };
    #[cfg(feature = "mutants")]
    if let Ok(name) = std::env::var("COORD_FAULTS_MUTANT") {
        assert!(coord_core::mutants::set(Some(&name)), "there is no mutant {name}");
    }
    #[cfg(not(feature = "mutants"))]
    assert!(std::env::var_os("COORD_FAULTS_MUTANT").is_none(), "this worker was built without the feature mutants");
    let ended = Arc::new(AtomicBool::new(false));
    let input = ended.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        input.store(true, Relaxed);
    });
    let history = PathBuf::from(history);
    let folder = history.parent().map(Path::to_owned).unwrap_or_default();
    let log = Log::open(&history).expect("a file for the history");
    let seed = seed.parse().expect("a seed");
    let random = Random::new(seed);
    let ttl = Duration::from_millis(ttl.parse().expect("milliseconds"));
    // Beside its own history, whose last line says whether it holds something.
    let watched = Log::open(&history.with_extension("watch.jsonl")).expect("a file for what is watched");
    let documents =
        Log::open(&history.with_extension("documents.jsonl")).expect("a file for what is asked of documents");
    let worker = Worker { log, watched: Arc::new(Mutex::new(watched)), random, folder, ended, attempts: 0, ttl };
    worker.run(url, Clerk::new(documents, seed));
}

struct Worker {
    log: Log,
    watched: Arc<Mutex<Log>>,
    random: Random,
    folder: PathBuf,
    ended: Arc<AtomicBool>,
    attempts: u64,
    ttl: Duration,
}

const LOCKS: usize = 3;
const ELECTIONS: usize = 2;

/// What is taken, and had: a lock and a hold of it, or an election and a term.
enum Claim {
    Lock(Lock),
    Election(Election),
}

enum Having {
    Hold(Held),
    Term(Term),
}

impl Claim {
    fn take(&self, patience: Option<Duration>) -> coord_core::Result<Having> {
        match (self, patience) {
            (Self::Lock(lock), None) => block_on(lock.try_acquire()).map(Having::Hold),
            (Self::Lock(lock), Some(patience)) => block_on(lock.acquire_timeout(patience)).map(Having::Hold),
            (Self::Election(election), None) => block_on(election.try_campaign("me")).map(Having::Term),
            (Self::Election(election), Some(patience)) => {
                let options = CampaignOptions { timeout: Some(patience), ..CampaignOptions::default() };
                block_on(election.campaign_with("me", options)).map(Having::Term)
            }
        }
    }
}

impl Having {
    fn token(&self) -> i64 {
        match self {
            Self::Hold(held) => held.token(),
            Self::Term(term) => term.token(),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Hold(held) => held.check().is_ok(),
            Self::Term(term) => term.check().is_ok(),
        }
    }

    /// Whether it was given back while it was valid.
    fn give_back(&self) -> bool {
        match self {
            Self::Hold(held) => block_on(held.release()).is_ok(),
            Self::Term(term) => block_on(term.resign()).is_ok(),
        }
    }
}

/// Writes down what a watch is told, until the client is closed.
fn watch(election: &Election, log: &Mutex<Log>) {
    let told = |event: LeaderEvent| {
        let token = match event {
            LeaderEvent::Leader(leader) => Some(leader.token),
            _ => None,
        };
        let event = Event::Watched { lock: election.name().short().to_owned(), token };
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(&Line { t: now(), event }).expect("the history can be written");
    };
    let watch = loop {
        match block_on(election.observe()) {
            Ok(watch) => break watch,
            Err(error) if error.code() == Code::Closed => return,
            // The store is away: not at once again.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    loop {
        match block_on(watch.next()) {
            Ok(event) => told(event),
            Err(error) if error.code() == Code::Closed => return,
            // The store is away: not at once again.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

impl Worker {
    fn run(mut self, url: &str, mut clerk: Clerk) {
        let options = Options::parse(url).expect("a valid URL");
        let client = loop {
            match block_on(Client::connect(options.clone())) {
                Ok(client) => break client,
                Err(_) if self.ended.load(Relaxed) => return,
                Err(error) => eprintln!("connecting again: {error}"),
            }
            // The store is away: not at once again.
            std::thread::sleep(Duration::from_millis(200));
        };
        for number in 0..ELECTIONS {
            let election = client.election(&format!("e{number}")).expect("a valid name");
            let log = self.watched.clone();
            std::thread::spawn(move || watch(&election, &log));
        }
        let table = client.table("faults").expect("a valid name");
        let ended = self.ended.clone();
        let clerk = std::thread::spawn(move || {
            while !ended.load(Relaxed) {
                clerk.ask(&table);
            }
        });
        while !self.ended.load(Relaxed) {
            self.attempt(&client);
        }
        clerk.join().expect("the clerk ends");
        if let Err(error) = block_on(client.close(Duration::from_secs(20))) {
            eprintln!("closing: {error}");
        }
    }

    fn note(&mut self, event: Event) {
        self.log.write(&Line { t: now(), event }).expect("the history can be written");
    }

    fn attempt(&mut self, client: &Client) {
        let (name, claim) = match self.random.below(LOCKS + ELECTIONS) {
            number if number < LOCKS => {
                let name = format!("l{number}");
                let claim = Claim::Lock(client.lock(&name).expect("a valid name"));
                (name, claim)
            }
            number => {
                let name = format!("e{}", number - LOCKS);
                let claim = Claim::Election(client.election(&name).expect("a valid name"));
                (name, claim)
            }
        };
        self.attempts += 1;
        let n = self.attempts;
        let wait = self.random.chance(0.8);
        let patience = wait.then(|| self.random.between(Duration::from_millis(20), self.ttl * 4));
        let patience_ms = Some(patience.unwrap_or_default().as_millis() as u64);
        self.note(Event::Attempt { lock: name.clone(), n, wait, patience_ms });
        match claim.take(patience) {
            Ok(having) => {
                self.note(Event::Granted { lock: name.clone(), n, token: having.token() });
                self.hold(&name, &having);
            }
            Err(error) => {
                let holder = error.holder().map(|holder| holder.token);
                self.note(Event::Refused { lock: name, n, code: format!("{:?}", error.code()), holder });
                std::thread::sleep(self.random.between(Duration::from_millis(1), Duration::from_millis(200)));
            }
        }
    }

    fn hold(&mut self, lock: &str, held: &Having) {
        let token = held.token();
        // Only holds that are comparable with the ttl can overlap.
        let longest = if self.random.chance(0.6) { self.ttl.mul_f64(1.2) } else { Duration::from_millis(50) };
        let until = now() + self.random.between(Duration::ZERO, longest).as_nanos() as u64;
        loop {
            let before = now();
            if !held.is_valid() {
                self.note(Event::Lost { lock: lock.into(), token });
                break;
            }
            let event = Event::Ok { lock: lock.into(), token };
            self.log.write(&Line { t: before, event }).expect("the history can be written");
            if before >= until || self.ended.load(Relaxed) {
                break;
            }
            if self.random.chance(0.3) {
                self.write_resource(lock, token);
            }
            std::thread::sleep(self.random.between(Duration::from_millis(1), Duration::from_millis(20)));
        }
        let clean = held.give_back();
        self.note(Event::Released { lock: lock.into(), token, clean });
    }

    /// The resource: a file that its own lock protects, so it is right whatever ours does. It keeps every accepted
    /// token.
    fn write_resource(&mut self, lock: &str, token: i64) {
        let path = self.folder.join(format!("{lock}.register"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).expect("the register");
        // One that was stopped in the middle of a write must not stop the others.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        let text = std::fs::read_to_string(&path).expect("the register");
        let highest = text.lines().rev().find_map(|line| line.parse::<i64>().ok()).unwrap_or(0);
        let accepted = token >= highest;
        if token > highest {
            std::io::Write::write_all(&mut &file, format!("{token}\n").as_bytes()).expect("the register");
        }
        drop(file);
        self.note(Event::Wrote { lock: lock.into(), token, accepted });
    }
}
