//! A replica set of three, each member behind a proxy: its address for clients and for the other members.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coord_tests::servers::{Mongod, ReplicaSet};
use mongodb::bson::{Bson, doc};

use crate::dates::Date;
use crate::proxy::{self, TAG, Weather};
use crate::random::Random;

/// The set and its network.
#[derive(Debug)]
pub struct Servers {
    set: ReplicaSet,
    weather: Weather,
    proxies: Vec<u16>,
    // Carries the proxies.
    _runtime: tokio::runtime::Runtime,
}

/// What can happen to servers.
pub const KINDS: [&str; 8] = [
    "server killed",
    "primary killed",
    "server frozen",
    "step-down",
    "server cut off",
    "server parted",
    "slow network",
    "server's date jumps",
];

/// In steps of this length all of them come before any comes again.
pub const STRIDE: usize = 3;
const _: () = assert!(!KINDS.len().is_multiple_of(STRIDE));

impl Servers {
    /// Starts them. None where there is no `mongod`.
    ///
    /// # Errors
    /// What the operating system says, or the set about its new addresses.
    pub fn start() -> io::Result<Option<Self>> {
        let Some(set) = ReplicaSet::start(3) else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let weather = Weather::default();
        let mut proxies = Vec::new();
        for member in set.members() {
            proxies.push(runtime.block_on(proxy::start(member.port(), weather.clone()))?);
        }
        let servers = Self { set, weather, proxies, _runtime: runtime };
        servers.move_behind_proxies().map_err(io::Error::other)?;
        Ok(Some(servers))
    }

    fn move_behind_proxies(&self) -> mongodb::error::Result<()> {
        let mut config =
            self.set.command(doc! { "replSetGetConfig": 1 })?.get_document("config").cloned().unwrap_or_default();
        let version = config.get_i32("version").unwrap_or(1);
        config.insert("version", version + 100);
        if let Ok(members) = config.get_array_mut("members") {
            for (member, port) in members.iter_mut().zip(&self.proxies) {
                if let Bson::Document(member) = member {
                    member.insert("host", format!("localhost:{port}"));
                }
            }
        }
        self.set.command(doc! { "replSetReconfig": config, "force": true })?;
        self.set.primary();
        Ok(())
    }

    /// The URL for the worker with this tag.
    pub fn url(&self, tag: &str, ttl: Duration) -> String {
        let hosts: Vec<String> = self.proxies.iter().map(|port| format!("localhost:{port}")).collect();
        let (hosts, ttl) = (hosts.join(","), ttl.as_millis());
        format!("mongodb://{hosts}/faults?replicaSet=rs&appName={TAG}{tag}&coord.ttl={ttl}ms")
    }

    /// What passes between everybody.
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    fn primary(&self) -> &Mongod {
        self.set.primary()
    }

    /// Lets one of [`KINDS`] happen, and repairs it after a while. Returns whether anything was done.
    pub fn suffer(&self, kind: &str, random: &mut Random) -> bool {
        let members = self.set.members();
        let victim = if random.chance(0.5) { self.primary() } else { &members[random.below(members.len())] };
        let while_bad = random.between(Duration::from_millis(500), Duration::from_secs(6));
        match kind {
            "server killed" | "primary killed" => {
                let victim = if kind == "primary killed" { self.primary() } else { victim };
                victim.kill();
                std::thread::sleep(while_bad);
                victim.restart();
            }
            "server frozen" => {
                victim.freeze();
                std::thread::sleep(while_bad);
                victim.thaw();
            }
            "step-down" => {
                // One that has just lost its office refuses, which is as good.
                let _ = self.primary().command(doc! { "replSetStepDown": 5, "force": true });
            }
            // Without libfaketime there is none, and a file that cannot be written leaves the date as it is.
            "server's date jumps" => return self.date_of(victim).is_some_and(|date| date.jump(random).is_ok()),
            "server cut off" => {
                self.weather.cut_server(victim.port(), true);
                std::thread::sleep(while_bad);
                self.weather.cut_server(victim.port(), false);
            }
            // From the other servers alone. A primary believes that it is one for a while, and so do its clients.
            "server parted" => {
                self.weather.part_server(victim.port(), true);
                std::thread::sleep(while_bad);
                self.weather.part_server(victim.port(), false);
            }
            _ => {
                self.weather.set_delay(random.between(Duration::from_millis(20), Duration::from_millis(300)));
                std::thread::sleep(while_bad);
                self.weather.set_delay(Duration::ZERO);
            }
        }
        true
    }

    /// The date of a member, where `tests/faults/with-skew` has given it one.
    fn date_of(&self, member: &Mongod) -> Option<Date> {
        let folder = std::env::var_os("COORD_FAULTS_DATES")?;
        Date::kept_in(PathBuf::from(folder).join(member.port().to_string()))
    }

    /// Waits until the set does its work: a majority has acknowledged some writes in a row, each within a second.
    ///
    /// # Errors
    /// If it does not in a minute: nothing that is seen then would be of a set that works.
    pub fn heal(&self) -> io::Result<()> {
        self.weather.heal();
        let note = doc! { "appendOplogNote": 1, "data": { "healed": true } };
        let (until, mut in_a_row) = (Instant::now() + PATIENCE, 0);
        while in_a_row < 3 {
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "no majority acknowledges writes in time, {PATIENCE:?} after healing"
                )));
            }
            let begun = Instant::now();
            let mut command = note.clone();
            command.insert("writeConcern", doc! { "w": "majority", "wtimeout": 1_000 });
            let reply = self.primary().command(command);
            let acknowledged = reply.is_ok_and(|reply| !reply.contains_key("writeConcernError"));
            in_a_row = if acknowledged && begun.elapsed() < Duration::from_secs(1) { in_a_row + 1 } else { 0 };
        }
        Ok(())
    }
}

/// How long that may take, on a machine that others use, too.
const PATIENCE: Duration = Duration::from_secs(60);
