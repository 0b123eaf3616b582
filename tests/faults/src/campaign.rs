//! Faults and pauses in turn, and what must be left in the end: nothing.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_core::client::Client;
use coord_core::config::{Location, Options};
use coord_core::env::Env;
use coord_core::protocol::claim::ClaimRecord;
use coord_core::protocol::session::SessionRecord;
use coord_core::store::mongodb::MongoStore;
use coord_core::store::sqlite::SqliteStore;
use coord_core::store::{ClaimQuery, SessionQuery, Store};

use crate::check::{Findings, Histories, KILLED, Terms};
use crate::dates::Date;
use crate::disk::Disk;
use crate::history::{FAULTS, Fault, HEALED, Log, now};
use crate::proxy::{Party, TROUBLES};
use crate::random::Random;
use crate::servers::{self, Servers};
use crate::workers::{Orders, Program, Worker};

/// How to run one.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A new folder for histories and, with SQLite, the database.
    pub folder: PathBuf,
    /// How long.
    pub length: Duration,
    /// Which faults.
    pub seed: u64,
    /// The workers' programs, in turn.
    pub programs: Vec<Program>,
    /// How many workers.
    pub workers: usize,
    /// The workers' ttl.
    pub ttl: Duration,
    /// How old what a read of a document shows may be, by this store's contract.
    pub stale: Duration,
}

/// How long faults go on before everything heals for a while.
const STORM: Duration = Duration::from_secs(20);

/// How many faults of workers may go on at once, so that waiters and observers die together with the holder.
const LANES: u64 = 3;

/// Runs a campaign on the store of these servers, or on SQLite without any. Returns what was found.
///
/// # Errors
/// What the operating system says.
pub fn run(plan: &Plan, servers: Option<&Servers>) -> io::Result<Findings> {
    std::fs::create_dir_all(&plan.folder)?;
    let campaign = Campaign::start(plan, servers)?;
    let end = Instant::now() + plan.length;
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (over, campaign) = (&over, &campaign);
            let on_store = scope.spawn(move || match servers {
                Some(servers) => campaign.trouble_servers(servers, round, over),
                None => campaign.trouble_disk(round, over),
            });
            let lanes: Vec<_> =
                (0..LANES).map(|lane| scope.spawn(move || campaign.trouble_workers(round, lane))).collect();
            let troubled = lanes.into_iter().try_for_each(|lane| lane.join().expect("the workers' faults end"));
            over.store(true, Relaxed);
            on_store.join().expect("the store's faults end")?;
            troubled
        })?;
        if let Some(servers) = servers {
            servers.heal()?;
        }
        campaign.rest()?;
    }
    let ended = campaign.end()?;
    let mut findings = Histories::read(&plan.folder)?.check(&campaign.terms());
    for number in 0..plan.workers {
        let worker = campaign.worker(number);
        findings.ended += worker.ended_by_themselves();
        findings.violations.extend(worker.cries()?);
    }
    if findings.ended > 0 {
        findings.violations.push(format!("{} workers ended by themselves; see their .err files", findings.ended));
    }
    findings.violations.extend(ended);
    findings.violations.extend(campaign.left_behind()?);
    Ok(findings)
}

struct Campaign<'a> {
    plan: &'a Plan,
    servers: Option<&'a Servers>,
    disk: Option<Disk>,
    workers: Vec<Mutex<Worker>>,
    dates: Vec<Option<Date>>,
    faults: Mutex<Log>,
    /// How many faults of servers there have been.
    troubles: AtomicUsize,
    /// How many troubles of workers' connections.
    troubles_of_workers: AtomicUsize,
}

/// What can happen to a worker's process. Those that hit a holder hardest stand twice.
const OF_PROCESSES: [&str; 7] =
    [KILLED, KILLED, "stopped briefly", "stopped for long", "stopped for long", "starved", "date jumps"];

/// What can happen to its connections, on a network, as often as all of [`TROUBLES`] together.
const RESET: &str = "connections reset";

/// What can happen to SQLite's file system.
const DISK_FULL: &str = "disk full";

impl<'a> Campaign<'a> {
    fn start(plan: &'a Plan, servers: Option<&'a Servers>) -> io::Result<Self> {
        let disk = if servers.is_none() { Disk::mount(&database_folder(plan))? } else { None };
        if servers.is_none() && disk.is_none() {
            eprintln!("no disk of its own could be mounted: it is never full");
        }
        let (mut workers, mut dates) = (Vec::new(), Vec::new());
        for number in 0..plan.workers {
            let program = plan.programs[number % plan.programs.len()].clone();
            let name = Worker::name_of(number, &program);
            let date = Date::new(plan.folder.join(format!("{name}.date")))?;
            // Half of each language's begin with another date than the host's.
            if let Some(date) = date.as_ref().filter(|_| number / plan.programs.len() % 2 == 1) {
                date.jump(&mut Random::new(plan.seed ^ number as u64))?;
            }
            let orders = Orders {
                // Between two that read kernel locks a kill is proven at once: so every second of each language's goes
                // by what it observes, as on two hosts, and leaves no kernel lock either.
                url: url(plan, servers, &name)
                    + if number / plan.programs.len() % 4 < 2 { "" } else { "&coord.host_liveness=off" },
                folder: plan.folder.clone(),
                ttl: plan.ttl,
                environment: date.as_ref().map(Date::environment).unwrap_or_default(),
            };
            workers.push(Mutex::new(Worker::start(number, program, orders)?));
            dates.push(date);
        }
        let faults = Mutex::new(Log::open(&plan.folder.join(FAULTS))?);
        let (troubles, troubles_of_workers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Self { plan, servers, disk, workers, dates, faults, troubles, troubles_of_workers })
    }

    fn log(&self, kind: &str, target: &str, t: u64) -> io::Result<()> {
        let fault = Fault { t, until: now(), kind: kind.into(), target: target.into() };
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).write(&fault)
    }

    fn worker(&self, number: usize) -> std::sync::MutexGuard<'_, Worker> {
        self.workers[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to a worker next.
    fn next_of_workers(&self, random: &mut Random) -> &'static str {
        let of_connections = if self.servers.is_some() { 2 } else { 0 };
        let number = random.below(OF_PROCESSES.len() + of_connections);
        match number.checked_sub(OF_PROCESSES.len()) {
            None => OF_PROCESSES[number],
            Some(0) => RESET,
            // They last for longest, and each comes in its turn.
            Some(_) => TROUBLES[self.troubles_of_workers.fetch_add(1, Relaxed) % TROUBLES.len()],
        }
    }

    fn trouble_workers(&self, round: u64, lane: u64) -> io::Result<()> {
        let mut random = Random::new(self.plan.seed ^ round << 20 ^ lane << 50);
        let until = Instant::now() + STORM;
        while Instant::now() < until {
            // What comes at random moments meets the workers in any state.
            std::thread::sleep(random.between(Duration::ZERO, Duration::from_millis(1200)));
            let kind = self.next_of_workers(&mut random);
            let victim = self.choose(&mut random);
            self.trouble_worker(victim, kind, &mut random)?;
        }
        Ok(())
    }

    /// More often than not somebody who holds something. Those to whom something happens already are left out.
    fn choose(&self, random: &mut Random) -> usize {
        let any = random.below(self.workers.len());
        if random.chance(0.2) {
            return any;
        }
        let holds = |number: &usize| self.workers[*number].try_lock().is_ok_and(|worker| worker.holds());
        let holders: Vec<usize> = (0..self.workers.len()).filter(holds).collect();
        if holders.is_empty() { any } else { holders[random.below(holders.len())] }
    }

    fn trouble_worker(&self, victim: usize, kind: &str, random: &mut Random) -> io::Result<()> {
        let mut worker = self.worker(victim);
        let begun = now();
        let name = worker.name().to_owned();
        let ttl = self.plan.ttl;
        match kind {
            KILLED => worker.kill()?,
            "stopped briefly" | "stopped for long" => {
                let (shortest, longest) = if kind == "stopped briefly" { (0.2, 0.9) } else { (1.0, 3.0) };
                worker.set_stopped(true)?;
                std::thread::sleep(random.between(ttl.mul_f64(shortest), ttl.mul_f64(longest)));
                worker.set_stopped(false)?;
            }
            "starved" => worker.starve(random.between(ttl / 2, ttl * 3 / 2))?,
            "date jumps" => match &self.dates[victim] {
                Some(date) => date.jump(random)?,
                None => return Ok(()),
            },
            _ => {
                let Some(servers) = self.servers else { return Ok(()) };
                let whom = Party::Client(name.clone());
                if kind == RESET {
                    servers.weather().reset(&whom);
                } else {
                    servers.weather().trouble(&whom, kind, random.between(ttl / 5, ttl * 3));
                }
            }
        }
        self.log(kind, &name, begun)
    }

    fn trouble_servers(&self, servers: &Servers, round: u64, over: &AtomicBool) -> io::Result<()> {
        let mut random = Random::new(self.plan.seed ^ round << 40);
        let kinds = servers.kinds();
        while !over.load(Relaxed) {
            // Between two there is time to be granted something, which the next one hits.
            std::thread::sleep(random.between(Duration::from_secs(1), Duration::from_secs(7)));
            // Each in its turn, so that a campaign of minutes has all; beginning anywhere.
            let turn = self.troubles.fetch_add(1, Relaxed) + self.plan.seed as usize;
            let kind = kinds[turn * servers::STRIDE % kinds.len()];
            let begun = now();
            if servers.suffer(kind, &mut random)? {
                self.log(kind, "servers", begun)?;
            }
        }
        Ok(())
    }

    fn trouble_disk(&self, round: u64, over: &AtomicBool) -> io::Result<()> {
        let mut random = Random::new(self.plan.seed ^ round << 40);
        let Some(disk) = &self.disk else { return Ok(()) };
        while !over.load(Relaxed) {
            // Between two there is time to be granted something, which the next one hits.
            std::thread::sleep(random.between(Duration::from_secs(2), Duration::from_secs(8)));
            let begun = now();
            disk.fill()?;
            // For shorter than sessions live without a renewal, or for longer.
            std::thread::sleep(random.between(self.plan.ttl.mul_f64(0.2), self.plan.ttl.mul_f64(1.5)));
            disk.clear()?;
            self.log(DISK_FULL, "servers", begun)?;
        }
        Ok(())
    }

    /// What the histories are held to.
    fn terms(&self) -> Terms {
        let of_store = self.servers.map_or_else(|| vec![DISK_FULL], Servers::kinds);
        let of_connections = self.servers.iter().flat_map(|_| [RESET].into_iter().chain(TROUBLES));
        let kinds = OF_PROCESSES.into_iter().chain(of_connections).chain(of_store).map(str::to_owned).collect();
        Terms { ttl: self.plan.ttl, stale: self.plan.stale, kinds }
    }

    /// Everything works for long enough to see that everybody is served.
    fn rest(&self) -> io::Result<()> {
        let begun = now();
        // The length of the rest: longer than the bound within which everybody must be served.
        std::thread::sleep(self.plan.ttl.mul_f64(1.1) + Duration::from_secs(8));
        self.log(HEALED, "servers", begun)?;
        (0..self.workers.len()).try_for_each(|number| self.worker(number).revive().map(|_| ()))
    }

    fn end(&self) -> io::Result<Vec<String>> {
        (0..self.workers.len()).for_each(|number| self.worker(number).ask_to_end());
        let mut bad = Vec::new();
        for number in 0..self.workers.len() {
            let mut worker = self.worker(number);
            if !worker.ended(self.plan.ttl * 5 + Duration::from_secs(30))? {
                bad.push(format!("{} did not end well when it was asked to", worker.name()));
            }
        }
        Ok(bad)
    }

    /// What is in the store when everybody has gone, and a bystander has had time to bury the dead.
    fn left_behind(&self) -> io::Result<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let url = url(self.plan, self.servers, "bystander");
        runtime.block_on(async {
            let options = Options::parse(&url).map_err(io::Error::other)?;
            let store = open_store(&options, self.plan.ttl).await.map_err(io::Error::other)?;
            let bystander = Client::connect(options).await.map_err(io::Error::other)?;
            let own = bystander.session().id;
            let until = Instant::now() + self.plan.ttl * 5 + Duration::from_secs(10);
            let left = loop {
                let mut sessions = store.sessions(SessionQuery::Live).await.map_err(io::Error::other)?;
                sessions.retain(|session| session.id != own);
                let mut claims = Vec::new();
                for kind in ["lock/", "election/"] {
                    let query = ClaimQuery::Prefix(kind.into());
                    claims.extend(store.claims(query).await.map_err(io::Error::other)?);
                }
                let left = leaks(&sessions, &claims);
                if left.is_empty() || Instant::now() > until {
                    break left;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            };
            bystander.close(Duration::from_secs(10)).await.map_err(io::Error::other)?;
            store.close().await;
            Ok(left)
        })
    }
}

/// What these records should not show when everybody has gone.
fn leaks(sessions: &[SessionRecord], claims: &[ClaimRecord]) -> Vec<String> {
    let sessions = sessions.iter().map(|session| format!("the session of {:?} lives on", session.info.name));
    let claims = claims.iter().filter(|claim| claim.holder.is_some() || !claim.waiters.is_empty());
    sessions.chain(claims.map(|claim| format!("{} is still held or waited for", claim.key))).collect()
}

async fn open_store(options: &Options, ttl: Duration) -> coord_core::error::Result<Arc<dyn Store>> {
    let env = Env::system(tokio::runtime::Handle::current());
    Ok(match options.location() {
        Location::MongoDb { uri } => Arc::new(MongoStore::open(uri, "coord_", 10, ttl, env).await?),
        Location::Sqlite { path } => Arc::new(SqliteStore::open(path, Default::default(), env).await?),
        _ => return Err(coord_core::error::Error::unavailable("a campaign needs a store of several processes")),
    })
}

fn url(plan: &Plan, servers: Option<&Servers>, tag: &str) -> String {
    match servers {
        Some(servers) => servers.url(tag, plan.ttl),
        None => {
            let file = database_folder(plan).join("coord.db");
            format!("sqlite:///{}?coord.ttl={}ms&coord.name={tag}", file.display(), plan.ttl.as_millis())
        }
    }
}

fn database_folder(plan: &Plan) -> PathBuf {
    plan.folder.join("disk")
}

#[cfg(test)]
mod tests {
    use coord_tests::servers::scratch::Scratch;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_left_behind_is_found() {
        let scratch = Scratch::new().expect("a folder");
        let file = scratch.path().join("coord.db");
        let options = |name: &str| {
            Options::parse(&format!("sqlite:///{}?coord.ttl=2s&coord.name={name}", file.display())).expect("a URL")
        };
        let store = open_store(&options(""), Duration::from_secs(2)).await.expect("a store");
        let left = async || {
            let sessions = store.sessions(SessionQuery::Live).await.expect("sessions");
            leaks(&sessions, &store.claims(ClaimQuery::Prefix("lock/".into())).await.expect("claims"))
        };
        let client = Client::connect(options("leaker")).await.expect("a client");
        let held = client.lock("l").expect("a name").acquire().await.expect("the lock");
        let found = left().await;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("leaker") && found[1].contains("is still held"), "{found:?}");
        held.release().await.expect("a release");
        assert_eq!(left().await.len(), 1);
        client.close(Duration::from_secs(5)).await.expect("a close");
        assert_eq!(left().await, Vec::<String>::new());
        store.close().await;
    }
}
