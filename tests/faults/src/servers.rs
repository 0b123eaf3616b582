//! A replica set of three, each member behind a proxy: its address for clients and for the other members. Where that can
//! be had, each has a network of its own, with a link that can be cut.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coord_tests::servers::{Mongod, Place, ReplicaSet, SetOptions};
use mongodb::bson::{Bson, doc};
use tokio::runtime::Runtime;

use crate::dates::Date;
use crate::links::{self, Link};
use crate::proxy::{self, Party, TAG, TROUBLES, Weather};
use crate::random::Random;

/// The set and its network.
#[derive(Debug)]
pub struct Servers {
    set: ReplicaSet,
    weather: Weather,
    /// Where each is reached.
    hosts: Vec<String>,
    // Carry the proxies.
    _runtimes: Vec<Runtime>,
    /// Of each, or of none. Last, since the others live in their networks.
    links: Vec<Link>,
}

/// What can happen to servers and to the network between everybody.
const KINDS: [&str; 16] = [
    "server killed",
    "server cut off",
    "elections frozen",
    "primary killed",
    "server hears nothing",
    "slow network",
    "server frozen",
    "server is not heard",
    "server locked",
    "step-down",
    "server flaps",
    "unsteady network",
    "server emptied",
    "server parted",
    "server's date jumps",
    "lossy network",
];

/// What can happen beside them where members have links.
const LINK_CUT: &str = "link cut";

/// In steps of this length all of them come before any comes again.
pub const STRIDE: usize = 3;
const _: () = assert!(!KINDS.len().is_multiple_of(STRIDE) && !(KINDS.len() + 1).is_multiple_of(STRIDE));

/// Whether this is what happens to servers: until the set is whole again it goes on.
pub fn is_kind(kind: &str) -> bool {
    kind == LINK_CUT || KINDS.contains(&kind)
}

const MEMBERS: usize = 3;

impl Servers {
    /// Starts them. None where there is no `mongod`.
    ///
    /// # Errors
    /// What the operating system says, or the set about its new addresses.
    pub fn start() -> io::Result<Option<Self>> {
        let links = links::make(MEMBERS).unwrap_or_else(|error| {
            eprintln!("no networks can be made, and no link of a server is cut; its proxy is: {error}");
            Vec::new()
        });
        let places = (0..MEMBERS).map(|number| links.get(number).map_or_else(Place::default, Link::place)).collect();
        let Some(set) = ReplicaSet::at(SetOptions::of(MEMBERS), places) else { return Ok(None) };
        let (weather, mut hosts, mut runtimes) = (Weather::default(), Vec::new(), Vec::new());
        for (number, member) in set.members().iter().enumerate() {
            let link = links.get(number);
            let address = link.map_or(Ipv4Addr::LOCALHOST, Link::address);
            let runtime = links::runtime(link)?;
            // A task runs in the network of its runtime, unlike what waits for it here.
            let proxy = runtime.spawn(proxy::start(address, member.port(), weather.clone()));
            hosts.push(format!("{}:{}", member.host(), runtime.block_on(proxy)??));
            runtimes.push(runtime);
        }
        let servers = Self { set, weather, hosts, _runtimes: runtimes, links };
        servers.move_behind_proxies().map_err(io::Error::other)?;
        Ok(Some(servers))
    }

    fn move_behind_proxies(&self) -> mongodb::error::Result<()> {
        let mut config =
            self.set.command(doc! { "replSetGetConfig": 1 })?.get_document("config").cloned().unwrap_or_default();
        let version = config.get_i32("version").unwrap_or(1);
        config.insert("version", version + 100);
        if let Ok(members) = config.get_array_mut("members") {
            for (member, host) in members.iter_mut().zip(&self.hosts) {
                if let Bson::Document(member) = member {
                    member.insert("host", host);
                }
            }
        }
        self.set.command(doc! { "replSetReconfig": config, "force": true })?;
        self.set.primary();
        Ok(())
    }

    /// The URL for the worker with this tag.
    pub fn url(&self, tag: &str, ttl: Duration) -> String {
        let (hosts, ttl) = (self.hosts.join(","), ttl.as_millis());
        format!("mongodb://{hosts}/faults?replicaSet=rs&appName={TAG}{tag}&coord.ttl={ttl}ms")
    }

    /// What passes between everybody.
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    fn primary(&self) -> &Mongod {
        self.set.primary()
    }

    /// What can happen to these.
    pub fn kinds(&self) -> Vec<&'static str> {
        KINDS.into_iter().chain((!self.links.is_empty()).then_some(LINK_CUT)).collect()
    }

    /// Lets one of [`Self::kinds`] happen, and repairs it after a while. Returns whether anything was done.
    ///
    /// # Errors
    /// Where it cannot be repaired.
    pub fn suffer(&self, kind: &str, random: &mut Random) -> io::Result<bool> {
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
            // It writes nothing; a primary remains one.
            "server locked" => {
                let locked = victim.command(doc! { "fsync": 1, "lock": true }).is_ok();
                if locked {
                    std::thread::sleep(while_bad);
                }
                unlock(victim)?;
                return Ok(locked);
            }
            "server emptied" => self.set.sync_anew(victim),
            // One that has just lost its office refuses, which is as good.
            "step-down" => self.step_down(),
            "elections frozen" => return Ok(self.freeze_elections(while_bad, random)),
            // Without libfaketime there is none, and a file that cannot be written leaves the date as it is.
            "server's date jumps" => return Ok(self.date_of(victim).is_some_and(|date| date.jump(random).is_ok())),
            // From the other servers alone. A primary believes that it is one for a while, and so do its clients.
            "server parted" => {
                self.weather.part_server(victim.port(), true);
                std::thread::sleep(while_bad);
                self.weather.part_server(victim.port(), false);
            }
            LINK_CUT => {
                let number = members.iter().position(|member| member.port() == victim.port());
                let Some(link) = number.and_then(|number| self.links.get(number)) else { return Ok(false) };
                link.cut_for(while_bad, random)?;
            }
            "slow network" | "unsteady network" | "lossy network" => self.slow_down(kind, while_bad, random),
            _ => {
                let known = kind.strip_prefix("server ").and_then(|kind| TROUBLES.into_iter().find(|t| *t == kind));
                let Some(kind) = known else { return Ok(false) };
                // One that flaps does it more than once.
                let length = if kind == "flaps" { while_bad + Duration::from_secs(3) } else { while_bad };
                self.weather.trouble(&Party::Server(victim.port()), kind, length);
            }
        }
        Ok(true)
    }

    fn step_down(&self) {
        let _ = self.primary().command(doc! { "replSetStepDown": 5, "force": true });
    }

    /// The primary goes, and for a while none of the others may follow it. Returns whether any of them was told.
    fn freeze_elections(&self, length: Duration, random: &mut Random) -> bool {
        let primary = self.primary();
        let others = || self.set.members().iter().filter(|member| member.port() != primary.port());
        // It ends by itself, too.
        let freeze = |seconds: i64| others().filter(|m| m.command(doc! { "replSetFreeze": seconds }).is_ok()).count();
        let frozen = freeze(length.as_secs() as i64 + 1);
        if random.chance(0.5) {
            primary.kill();
            std::thread::sleep(length);
            primary.restart();
        } else {
            self.step_down();
            std::thread::sleep(length);
        }
        freeze(0);
        frozen > 0
    }

    fn slow_down(&self, kind: &str, length: Duration, random: &mut Random) {
        match kind {
            "lossy network" => self.weather.set_lossy(true),
            "unsteady network" => self.weather.set_delay(Duration::ZERO, Duration::from_millis(400)),
            _ => {
                let delay = random.between(Duration::from_millis(20), Duration::from_millis(300));
                self.weather.set_delay(delay, delay);
            }
        }
        std::thread::sleep(length);
        self.weather.set_lossy(false);
        self.weather.set_delay(Duration::ZERO, Duration::ZERO);
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
        let (until, mut in_a_row) = (Instant::now() + PATIENCE, 0);
        while in_a_row < 3 {
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "no majority acknowledges writes in time, {PATIENCE:?} after healing"
                )));
            }
            in_a_row = if self.set.acknowledged("majority".into()) { in_a_row + 1 } else { 0 };
        }
        Ok(())
    }
}

/// Lets a member write again, however often it was locked.
fn unlock(member: &Mongod) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        // Whoever unlocks what is not locked is told so without a code. Here it says that it is locked, or nothing.
        let error = match member.command(doc! { "currentOp": 1, "$ownOps": true }) {
            Ok(state) if !state.get_bool("fsyncLock").unwrap_or(false) => return Ok(()),
            Ok(_) => member.command(doc! { "fsyncUnlock": 1 }).err(),
            Err(error) => Some(error),
        };
        if Instant::now() > until {
            return Err(io::Error::other(format!("a server stays locked: {error:?}")));
        }
    }
}

/// How long that may take, on a machine that others use, too.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_happened_to_servers_is_over_afterwards() {
        let Some(servers) = Servers::start().expect("servers") else { return };
        let all_acknowledge = || {
            let until = Instant::now() + PATIENCE;
            while !servers.set.acknowledged((MEMBERS as i32).into()) {
                assert!(Instant::now() < until, "one of them does not write");
            }
        };
        all_acknowledge();
        let secondary = servers.set.secondaries()[0];
        for _ in 0..2 {
            secondary.command(doc! { "fsync": 1, "lock": true }).expect("it can be locked");
        }
        assert!(!servers.set.acknowledged((MEMBERS as i32).into()), "it is locked");
        unlock(secondary).expect("it can be unlocked");
        all_acknowledge();
        unlock(secondary).expect("nor is it locked");
        let mut random = Random::new(1);
        for kind in ["server locked", "elections frozen", "server emptied", "server flaps", "lossy network"] {
            assert!(servers.suffer(kind, &mut random).expect("it is repaired"), "there was no {kind}");
            all_acknowledge();
        }
        assert!(!servers.suffer("server eaten", &mut random).expect("nothing is broken"), "nobody knows what that is");
    }
}
