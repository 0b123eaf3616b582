//! One history: who does what, what goes wrong, and what must hold in the end.

mod elections;
mod faults;
mod providers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::env::{Env, Rng};
use coord_core::error::Code;
use coord_core::lock::Held;
use coord_core::observer::Observer;
use coord_core::protocol::session::{SessionId, Vitality};
use coord_core::store::faulty::{Faults, FaultyStore};
use tokio::time::Instant;

use crate::checks::{Believed, Checks, Promptness, Seen};
use crate::host::{self, Gate, Gated, SimClock, WayToStore};
use crate::panics;
use crate::random::Random;
use crate::report::{Mode, Report};
use crate::server::Server;

const TTL: Duration = Duration::from_secs(6);
const QUIET_TTL: Duration = Duration::from_secs(60);
const PROCESSES: usize = 4;
const WORKERS: u64 = 2;
const LOCKS: u64 = 3;

/// At most 5 % between any two clocks: what the margin is made for.
const SLOWEST_CLOCK: f64 = 0.975;

/// The ttl of every second process: the others have to wait for as long as that before they may call it dead.
const LONG_TTL: Duration = Duration::from_millis(TTL.as_millis() as u64 * 3 / 2);

/// How long the longest death takes from when somebody begins to look: on the slowest clock, with what is added to a ttl.
const LONGEST_DEATH: Duration = Duration::from_millis(LONG_TTL.as_millis() as u64 * 1020 / 975);

/// The longest time until a waiter polls, and sees that it is near the head of its queue and has to look.
const LONGEST_POLL: Duration = Duration::from_millis(LONG_TTL.as_millis() as u64 * 1250 / 975 / 6);

/// How long a call may have been waiting for its answer in vain when everything heals.
const CALL_LIMIT: Duration = Duration::from_millis(1500);

/// How long after healing a live waiter may still wait: for two deaths, each with a poll before, and what was under way.
/// One death is what it takes where somebody near the head of the queue lives, or the keeper does. Where those have died as
/// well, or have just been served and gone, whoever is next begins to look when that is done. The longest of 2,400 seeds was
/// 12.3 s, two deaths of which one was half over. A third in a row takes that within one ttl all die who are near and all
/// who stand by for the keeper, which no seed has shown.
const SERVED_WITHIN: Duration = Duration::from_millis(
    2 * (LONGEST_DEATH.as_millis() as u64 + LONGEST_POLL.as_millis() as u64) + CALL_LIMIT.as_millis() as u64,
);

/// How long after everybody has left a bystander may take to clear up: it becomes keeper after up to 1.25 ttl, and then
/// looks for one ttl and a little more.
const CLEARED_WITHIN: Duration = Duration::from_secs(6 * TTL.as_secs());

/// Plays one seed to its end.
pub fn run(seed: u64, mode: Mode, duration: Duration) -> Report {
    let (mut report, panics) = panics::recorded(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread");
        let report = runtime.block_on(Story::play(seed, mode, duration));
        // Tasks that wait for ever go down with the runtime.
        runtime.shutdown_background();
        report
    });
    // First, for the rest may come of it.
    report.seen.violations.splice(0..0, panics);
    report
}

struct Story {
    mode: Mode,
    seed: u64,
    random: Random,
    server: Arc<Server>,
    checks: Arc<Checks>,
    processes: Mutex<Vec<Process>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    /// What each observer was told last, by process and election: the token of the leader, or none.
    told: Mutex<BTreeMap<(usize, u64), Option<i64>>>,
    /// The observer of services in each process, and what it has told.
    observers: Mutex<BTreeMap<usize, Observer>>,
    views: Mutex<BTreeMap<usize, providers::View>>,
    /// What each process provides to the end.
    provided: Mutex<Vec<(usize, Vec<providers::Offered>)>>,
    /// What was withdrawn, and acknowledged: the process, its session and the provider's key in the record.
    withdrawn: Mutex<BTreeSet<(usize, SessionId, String)>>,
    /// Providers that were registered.
    grants: AtomicU64,
    /// Faults that met somebody who held something.
    hits: AtomicU64,
    /// How long after healing the last who waited was served.
    served_after: Mutex<Duration>,
    history: Mutex<u64>,
    begin: Instant,
    /// From then on nothing goes wrong and nobody starts anything new.
    healed_at: Instant,
}

/// One simulated process: a client, and workers that use it.
struct Process {
    number: usize,
    gate: Arc<Gate>,
    clock: Arc<SimClock>,
    store: Arc<FaultyStore>,
    workers: Vec<tokio::task::JoinHandle<()>>,
    /// Its workers have ended, though its observers may go on.
    done: Arc<AtomicBool>,
}

impl Story {
    async fn play(seed: u64, mode: Mode, duration: Duration) -> Report {
        let random = Random::new(seed);
        let server_clock = Arc::new(SimClock::new(1000, Duration::from_secs(1000)));
        let server_env = host::env(server_clock.clone(), random.fork(), Arc::default());
        let server = Arc::new(Server::new(server_env, server_clock, random.fork()));
        let begin = Instant::now();
        let healed_after = match mode {
            Mode::Safety | Mode::Quiet => duration,
            Mode::Liveness | Mode::Elections | Mode::Providers => duration * 2 / 3,
        };
        let story = Arc::new(Self {
            mode,
            seed,
            random,
            server,
            checks: Arc::default(),
            processes: Mutex::default(),
            faults: Mutex::default(),
            told: Mutex::default(),
            observers: Mutex::default(),
            views: Mutex::default(),
            provided: Mutex::default(),
            withdrawn: Mutex::default(),
            grants: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            served_after: Mutex::default(),
            history: Mutex::new(seed),
            begin,
            healed_at: begin + healed_after,
        });
        for number in 0..PROCESSES {
            story.clone().start_process(number);
        }
        let watcher = tokio::spawn(story.clone().watch());
        if mode == Mode::Quiet {
            story.server.never_stale();
            story.checks.expect_prompt(story.promptness());
            story.operate().await;
        } else {
            // Two faults may come together, such as a partition right after a stop.
            tokio::join!(story.clone().go_wrong(), story.clone().go_wrong(), story.collect());
        }
        match mode {
            Mode::Safety => {}
            Mode::Quiet => story.expect_nobody_died(),
            Mode::Liveness => {
                let healed = story.heal();
                story.expect_everybody_served(healed).await;
            }
            Mode::Elections => {
                let healed = story.heal();
                story.expect_elections_over(healed).await;
            }
            Mode::Providers => {
                story.heal();
                story.expect_services_agree().await;
            }
        }
        watcher.abort();
        Report {
            seed,
            mode,
            simulated: begin.elapsed(),
            seen: story.seen(),
            waited: story.server.waited(),
            faults: story.faults.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            hits: story.hits.load(Relaxed),
            served_after: *story.served_after.lock().unwrap_or_else(PoisonError::into_inner),
            fingerprint: *story.history.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn seen(&self) -> Seen {
        let seen = self.checks.seen();
        Seen { grants: seen.grants + self.grants.load(Relaxed), ..seen }
    }

    /// Mixes an event into the history's fingerprint.
    fn note(&self, what: &str, number: u64) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let time = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for part in what.bytes().map(u64::from).chain([number, time]) {
            *history = (*history ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
    }

    /// A fault that meets this process, or all.
    fn count(&self, fault: &'static str, victim: Option<usize>) {
        self.note(fault, 0);
        self.hits.fetch_add(u64::from(self.checks.believes(victim)), Relaxed);
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
    }

    fn healed(&self) -> bool {
        Instant::now() >= self.healed_at
    }

    fn ttl(&self) -> Duration {
        if self.mode == Mode::Quiet { QUIET_TTL } else { TTL }
    }

    /// Whether the streams of notices are silent instead of reopened when they have lost something.
    fn silent(&self) -> bool {
        self.random_of_seed(2) == 0
    }

    fn random_of_seed(&self, below: u64) -> u64 {
        Random::new(self.seed).below(below)
    }

    /// What the core promises by its periods: a gap is read after, a silent stream is polled under, an audit finds
    /// what was evicted.
    fn promptness(&self) -> Promptness {
        let some = Duration::from_millis(500);
        let poll = QUIET_TTL.mul_f64(1.25 / SLOWEST_CLOCK) / 6;
        let grant = if self.silent() { poll + some } else { self.faults_of_the_day().limit + some };
        Promptness { grant, loss: QUIET_TTL.mul_f64(1.25 / SLOWEST_CLOCK) / 3 + some }
    }

    fn faults_of_the_day(&self) -> Faults {
        if self.mode == Mode::Quiet {
            return Faults {
                delay: Duration::from_millis(3),
                lost_notice: 0.3,
                gaps: !self.silent(),
                limit: CALL_LIMIT,
                ..Faults::NONE
            };
        }
        Faults {
            delay: Duration::from_millis(3),
            slow: 0.02,
            slow_delay: Duration::from_millis(1400),
            gaps: true,
            lost_request: 0.01,
            lost_reply: 0.01,
            duplicate: 0.01,
            lost_notice: 0.02,
            limit: CALL_LIMIT,
        }
    }

    fn start_process(self: Arc<Self>, number: usize) {
        let gate: Arc<Gate> = Arc::default();
        let clock = SimClock::new(975 + self.random.below(51), self.random.up_to(Duration::from_secs(100_000)));
        let clock = Arc::new(clock);
        let env = host::env(clock.clone(), self.random.fork(), gate.clone());
        let network_clock = Arc::new(SimClock::new(1000, Duration::ZERO));
        let network = host::env(network_clock, self.random.fork(), Arc::default());
        let faults = if self.healed() {
            Faults { limit: Duration::from_secs(2), ..Faults::NONE }
        } else {
            self.faults_of_the_day()
        };
        let store = Arc::new(FaultyStore::new(self.server.clone(), network, faults));
        let way = Arc::new(WayToStore::new(gate.clone(), store.clone()));
        let mut workers = Vec::new();
        let story = self.clone();
        let started = connect(way, env, number, self.clone());
        let stops = gate.clone();
        let done = Arc::new(AtomicBool::new(false));
        let finished = done.clone();
        workers.push(tokio::spawn(Gated::new(gate.clone(), async move {
            let client = started.await;
            if story.mode == Mode::Elections {
                return story.take_part(client, number, stops, finished).await;
            }
            if story.mode == Mode::Providers {
                return story.provide(client, number).await;
            }
            let work = (0..WORKERS).map(|_| story.clone().work(client.clone(), number, stops.clone()));
            tokio::select! {
                biased;
                _ = futures::future::join_all(work) => {}
                () = story.watch_session(client.clone()) => {}
            }
        })));
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.retain(|process| process.number != number);
        processes.push(Process { number, gate, clock, store, workers, done });
        drop(processes);
    }

    /// A session that its client gives up is one that others have killed.
    async fn watch_session(&self, client: Client) {
        let mut seen = client.session();
        while let Ok(now) = client.session_changed(&seen).await {
            if now.id != seen.id {
                self.checks.session_lost(seen.id, &self.server);
            }
            seen = now;
        }
    }

    /// What one thread of a process does, again and again.
    async fn work(self: Arc<Self>, client: Client, process: usize, gate: Arc<Gate>) {
        while !self.healed() {
            tokio::time::sleep(self.random.up_to(Duration::from_millis(800))).await;
            let lock = format!("l{}", self.random.below(LOCKS));
            let Ok(lock) = client.lock(&lock) else { return };
            let held = match self.random.below(10) {
                0 | 1 => lock.try_acquire().await,
                2 | 3 => lock.acquire_timeout(self.random.up_to(self.ttl() * 2)).await,
                4 => {
                    // Changes its mind at a random moment, often while the first request is on its way: the future is dropped.
                    let longest = if self.random.chance(0.5) { 6 } else { 60 };
                    let patience = self.random.up_to(Duration::from_millis(longest));
                    match tokio::time::timeout(patience, lock.acquire()).await {
                        Ok(held) => held,
                        Err(_) => continue,
                    }
                }
                _ => lock.acquire().await,
            };
            match held {
                Ok(held) => self.hold(process, Arc::new(held), &gate).await,
                Err(error) => self.expect_allowed(&error.code()),
            }
        }
    }

    fn expect_allowed(&self, code: &Code) {
        self.note("error", code.number() as u64);
        let allowed = [Code::Contended, Code::Timeout, Code::Lost, Code::Unavailable, Code::QueueFull];
        if !allowed.contains(code) {
            self.checks.violation(format!("an acquire ended with {code:?}"));
        }
    }

    async fn hold(&self, process: usize, held: Arc<Held>, gate: &Arc<Gate>) {
        let number = self.checks.granted(process, Believed::Lock(held.clone()), gate, &self.server);
        self.note("granted", held.token() as u64);
        // Some holds are short; some are longer than a ttl, for those are the ones that can overlap.
        let long = if self.mode == Mode::Quiet { 0.1 } else { 0.3 };
        let longest = if self.random.chance(long) { self.ttl() * 2 } else { Duration::from_millis(300) };
        // Not everybody looks often.
        let pause = Duration::from_millis(if self.random.chance(0.3) { 3000 } else { 200 });
        let until = Instant::now() + self.random.up_to(longest);
        // Once everything has healed, whoever waits does so for the core alone.
        while Instant::now() < until && held.check().is_ok() && !self.healed() {
            tokio::time::sleep(self.random.up_to(pause)).await;
            if self.random.chance(0.05) {
                let _ = held.ensure(self.ttl() / 3).await;
            }
        }
        self.note("gives up", held.token() as u64);
        self.checks.forget(number);
        if self.random.chance(0.8) {
            let _ = held.release().await;
        }
    }

    /// Looks at everything every few milliseconds.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.checks.look(&self.server);
        }
    }

    fn process<T>(&self, number: usize, f: impl FnOnce(&Process) -> T) -> Option<T> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.iter().find(|process| process.number == number).map(f)
    }

    /// Where nothing is wrong but the notices, everybody renews.
    fn expect_nobody_died(&self) {
        self.server.with_committed(|records| {
            for session in records.sessions.values().filter(|s| s.vitality == Vitality::Dead && !s.clean) {
                self.checks.violation(format!("declared dead, and nothing kept it from renewing: {session:?}"));
            }
        });
    }

    fn served(&self, healed: Instant) {
        *self.served_after.lock().unwrap_or_else(PoisonError::into_inner) = healed.elapsed();
    }

    /// After healing, everybody who waits is served, everything is given up, and the store holds nothing of anybody.
    async fn expect_everybody_served(&self, healed: Instant) {
        let workers: Vec<_> = {
            let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
            processes.iter_mut().flat_map(|process| process.workers.drain(..)).collect()
        };
        let served = tokio::time::timeout(SERVED_WITHIN, futures::future::join_all(workers)).await;
        if served.is_err() {
            let claims = self.server.committed().claims;
            self.checks.violation(format!("somebody waits {SERVED_WITHIN:?} after everything has healed: {claims:?}"));
            return;
        }
        self.served(healed);
        // Late duplicates, and sessions of crashed processes that only an observer can bury: somebody must be there.
        let bystander = connect_plainly(&self.server, &self.random).await;
        let own = bystander.session().id;
        tokio::time::sleep(CLEARED_WITHIN).await;
        for number in 0..LOCKS {
            // A request of a session that has ended may be applied after its end; whoever comes next clears it away.
            let lock = bystander.lock(&format!("l{number}")).expect("a valid name");
            if let Err(error) = lock.acquire_timeout(Duration::from_secs(2)).await {
                self.checks.violation(format!("lock l{number} after everybody has left: {error}"));
            }
        }
        self.server.with_committed(|records| {
            let lives = |id: &SessionId| records.sessions.get(id).is_some_and(|s| s.vitality == Vitality::Live);
            for claim in records.claims.values() {
                // The same goes for the keeper's queue, but nobody came next: the bystander is the keeper.
                let keepers = claim.key.as_str().starts_with("keeper/");
                if claim.waiters.iter().any(|waiter| !keepers || lives(&waiter.session)) {
                    self.checks.violation(format!("waits after everybody has left: {claim:?}"));
                }
            }
            for session in records.sessions.values().filter(|s| s.vitality == Vitality::Live && s.id != own) {
                self.checks.violation(format!("lives on after everybody has left: {session:?}"));
            }
        });
    }
}

async fn connect(store: Arc<WayToStore>, env: Env, number: usize, story: Arc<Story>) -> Client {
    loop {
        let ttl = if number.is_multiple_of(2) || story.mode == Mode::Quiet { story.ttl() } else { LONG_TTL };
        let options = options(&format!("p{number}"), ttl);
        match Client::with_store(store.clone(), options, env.clone()).await {
            Ok(client) => return client,
            Err(error) => {
                story.note("connect", error.code().number() as u64);
                tokio::time::sleep(story.random.up_to(Duration::from_millis(500))).await;
            }
        }
    }
}

async fn connect_plainly(server: &Arc<Server>, random: &Random) -> Client {
    let clock = Arc::new(SimClock::new(1000, Duration::from_secs(5)));
    let env = host::env(clock, Random::new(random.bits()), Arc::default());
    // A network without faults: it gives every call the time limit that a store has to have.
    let store = Arc::new(FaultyStore::new(server.clone(), env.clone(), Faults::NONE));
    loop {
        match Client::with_store(store.clone(), options("operator", TTL), env.clone()).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn options(name: &str, ttl: Duration) -> Options {
    let options = Options::parse("memory:").and_then(|options| options.ttl(ttl)).and_then(|options| options.name(name));
    options.expect("valid options")
}
