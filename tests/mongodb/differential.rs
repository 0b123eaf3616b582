//! Random steps through the server's commands and through the pure functions: every answer must be the same.
//!
//! The server's date and cluster time are given with each command, so tokens and dates compare exactly.
//! `COORD_DIFF_STEPS` is the number of steps (20 000 unless told), `COORD_DIFF_SEED` repeats a run.

use std::time::Duration;

use coord_core::protocol::claim::{
    self, ClaimKey, ClaimRecord, ClaimStep, Entry, Priority, Step, Stepped, StoreNow, TOKENS_PER_MS, When, token_floor,
};
use coord_core::protocol::roster::ProviderRecord;
use coord_core::protocol::session::{self, KillProof, Nonce, SessionId, SessionInfo, SessionRecord, SessionStep};
use coord_core::store::mongodb::testing;
use coord_core::time::WallTime;
use coord_tests::servers;
use mongodb::bson::{Bson, DateTime, Document, Timestamp, doc};
use mongodb::{Client, Database};

use super::support::{prefix, run};

const WORKERS: u64 = 12;

#[test]
fn claims_step_on_the_server_as_in_the_pure_function() {
    let Some(uri) = servers::shared_uri() else { return };
    let totals = run(all_workers(&uri, |database, collection, seed, steps| async move {
        let mut walk = ClaimWalk::new(seed);
        for _ in 0..steps {
            walk.step(&database, &collection).await;
        }
        walk.done
    }));
    // A run that does not meet every case proves nothing.
    for (index, case) in Case::NAMES.iter().enumerate() {
        let met: u64 = totals.iter().map(|done| done[index]).sum();
        assert!(met >= 20, "only {met} steps of 20 were '{case}'");
    }
}

#[test]
fn sessions_step_on_the_server_as_in_the_pure_function() {
    let Some(uri) = servers::shared_uri() else { return };
    let totals = run(all_workers(&uri, |database, collection, seed, steps| async move {
        let mut walk = SessionWalk::new(seed);
        for _ in 0..steps / 4 {
            walk.step(&database, &collection).await;
        }
        walk.done
    }));
    for (index, case) in ["written", "refused", "killed", "buried without a life", "provided"].iter().enumerate() {
        let met: u64 = totals.iter().map(|done| done[index]).sum();
        assert!(met >= 20, "only {met} steps of 20 were '{case}'");
    }
}

async fn all_workers<T, F, W>(uri: &str, worker: W) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
    W: Fn(Database, String, u64, u64) -> F,
{
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let steps: u64 = number("COORD_DIFF_STEPS").unwrap_or(20_000);
    let seed: u64 = number("COORD_DIFF_SEED").unwrap_or_else(|| super::support::env().rng.bits());
    eprintln!("COORD_DIFF_SEED={seed} COORD_DIFF_STEPS={steps}");
    let client = Client::with_uri_str(uri).await.unwrap();
    let collection = prefix() + "walk";
    let database = client.database("coord_differential");
    database.create_collection(&collection).await.unwrap();
    let walks: Vec<_> = (0..WORKERS)
        .map(|n| tokio::spawn(worker(database.clone(), collection.clone(), seed.wrapping_add(n), steps / WORKERS)))
        .collect();
    let mut results = Vec::new();
    for walk in walks {
        results.push(walk.await.expect("a walk without a difference"));
    }
    database.collection::<Document>(&collection).drop().await.unwrap();
    client.shutdown().immediate(true).await;
    results
}

async fn execute(database: &Database, command: Document, wall: WallTime, cluster_s: u32) -> Option<Document> {
    match run_command(database, command, wall, cluster_s).await.get("value") {
        Some(Bson::Document(document)) => Some(document.clone()),
        _ => None,
    }
}

async fn run_command(database: &Database, mut command: Document, wall: WallTime, cluster_s: u32) -> Document {
    command.insert(
        "runtimeConstants",
        doc! {
            "localNow": DateTime::from_millis(wall.0),
            "clusterTime": Timestamp { time: cluster_s, increment: 1 },
        },
    );
    command.insert("writeConcern", doc! { "w": 1, "j": false });
    database.run_command(command.clone()).await.unwrap_or_else(|error| panic!("{error}\n{command}"))
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The server's date, which jumps both ways, and its cluster time, which only grows.
struct Clocks {
    wall_ms: i64,
    cluster_s: u32,
}

impl Clocks {
    fn new() -> Self {
        Self { wall_ms: 1_800_000_000_000, cluster_s: 1_799_999_999 }
    }

    fn advance(&mut self, random: &mut Random) {
        match random.below(20) {
            0 => self.wall_ms += random.below(3 * 3_600_000) as i64,
            1 => self.wall_ms -= random.below(3 * 3_600_000) as i64,
            2 => self.cluster_s += random.below(5_000) as u32,
            3 => self.wall_ms = i64::from(self.cluster_s) * 1_000 + random.below(3_000) as i64,
            _ => self.wall_ms += random.below(20) as i64,
        }
        self.cluster_s += u32::from(random.one_in(3));
    }

    fn cluster_ms(&self) -> i64 {
        i64::from(self.cluster_s) * 1_000
    }
}

struct Case;

impl Case {
    const NAMES: [&str; 12] = [
        "granted",
        "waiting",
        "refused",
        "collected",
        "break announced",
        "published",
        "transferred",
        "swept",
        "taken by the short form",
        "given up by the short form",
        "remembered wrongly",
        "voided",
    ];
}

struct ClaimWalk {
    random: Random,
    clocks: Clocks,
    key: ClaimKey,
    record: Option<ClaimRecord>,
    /// What somebody remembers of it.
    remembered: Option<ClaimRecord>,
    done: [u64; 12],
}

impl ClaimWalk {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            clocks: Clocks::new(),
            key: ClaimKey::new(format!("lock/a/b/{seed}")),
            record: None,
            remembered: None,
            done: [0; 12],
        }
    }

    async fn step(&mut self, database: &Database, collection: &str) {
        self.clocks.advance(&mut self.random);
        let step = self.random_step();
        let wall = WallTime(self.clocks.wall_ms);
        let floor = match step {
            // A record is collected only when no later floor can be lower.
            ClaimStep::Collect => (self.clocks.cluster_ms() - testing::COLLECT_MARGIN) * TOKENS_PER_MS,
            _ => token_floor(wall, WallTime(self.clocks.cluster_ms())),
        };
        if !self.random.one_in(3) {
            self.remembered = self.record.clone();
        }
        if self.random.one_in(2) && self.short_step(database, collection, &step, StoreNow { wall, floor }).await {
            return;
        }
        let before = self.record.take();
        let expected = claim::apply(&self.key, before.clone(), &step, StoreNow { wall, floor });
        let command = testing::claim_command(collection, &self.key, &step);
        let answer = execute(database, command, wall, self.clocks.cluster_s).await;
        let context = || format!("step {step:?}\nbefore {before:?}");
        match &expected {
            Stepped::Refused => {
                assert_eq!(answer, None, "{}", context());
                self.record = before.clone();
            }
            Stepped::Collected => {
                let removed = answer.unwrap_or_else(|| panic!("not removed: {}", context()));
                assert_eq!(testing::claim(&removed).unwrap(), before.clone().unwrap());
            }
            Stepped::Written(record) => {
                let document = answer.unwrap_or_else(|| panic!("not written: {}", context()));
                assert_eq!(testing::claim(&document).unwrap(), *record, "{}", context());
                let breaking = record.breaking.map(|_| record.token);
                assert_eq!(document.get_i64("brt").ok(), breaking, "{}", context());
                self.record = Some(record.clone());
            }
        }
        self.count(&step, before.as_ref(), &expected);
    }

    /// The step by its short form, if there is one for what is remembered; whether it applied.
    async fn short_step(&mut self, database: &Database, collection: &str, step: &ClaimStep, now: StoreNow) -> bool {
        let Some(before) = self.remembered.clone() else { return false };
        let short = testing::short_command(collection, &self.key, step, &before.view(None));
        let Some((command, void)) = short else { return false };
        let is_so = |record: &Option<ClaimRecord>| {
            record.as_ref().is_some_and(|now| {
                (now.holder, now.token, now.waiters.is_empty()) == (before.holder, before.token, true)
            })
        };
        let as_remembered = is_so(&self.record);
        let voided = match void {
            Some(void) if self.random.one_in(4) => {
                let reply = run_command(database, void, now.wall, self.clocks.cluster_s).await;
                assert_eq!(reply.get_i32("n").unwrap(), i32::from(as_remembered));
                if as_remembered {
                    self.record.as_mut().expect("a record").token += 1;
                }
                true
            }
            _ => false,
        };
        let reply = run_command(database, command, now.wall, self.clocks.cluster_s).await;
        let applied = reply.get_document("value").is_ok() || reply.get_i32("n").is_ok_and(|n| n == 1);
        assert_eq!(applied, as_remembered && !voided, "step {step:?}\nremembered {before:?}\nis {:?}", self.record);
        if !applied {
            self.done[if voided && as_remembered { 11 } else { 10 }] += 1;
            return false;
        }
        let Stepped::Written(mut expected) = claim::apply(&self.key, self.record.clone(), step, now) else {
            panic!("the whole step would have refused it: {step:?}\nbefore {before:?}");
        };
        let document = database.collection::<Document>(collection).find_one(doc! { "_id": self.key.as_str() }).await;
        let document = document.unwrap().expect("a document");
        let after = testing::claim(&document).unwrap();
        if expected.token > before.token {
            // One more is enough for the order of tokens; the date is the server's own.
            assert!(after.granted_at.0 > 1_600_000_000_000);
            (expected.token, expected.granted_at) = (before.token + 1, after.granted_at);
            self.done[8] += 1;
        } else {
            self.done[9] += 1;
        }
        assert_eq!(after, expected, "step {step:?}\nbefore {before:?}");
        self.record = Some(after);
        true
    }

    fn count(&mut self, step: &ClaimStep, before: Option<&ClaimRecord>, after: &Stepped) {
        let mut met = |index: usize| self.done[index] += 1;
        let Stepped::Written(after) = after else { return met(if *after == Stepped::Refused { 2 } else { 3 }) };
        match step {
            ClaimStep::AnnounceBreak { .. } => met(4),
            ClaimStep::Publish { .. } => met(5),
            ClaimStep::Collect => {}
            ClaimStep::Step(step) => {
                if before.map_or(0, |record| record.token) < after.token {
                    met(0);
                }
                let waited = |entry: &Entry| before.is_some_and(|record| record.waiters.contains(entry));
                if step.add.is_some_and(|entry| after.waiters.contains(&entry) && !waited(&entry)) {
                    assert!(step.wait, "who does not wait is not put into the queue");
                    met(1);
                }
                if step.preferred().is_some() {
                    met(6);
                }
                if !step.dead.is_empty() && before.is_some_and(|record| record.waiters.len() > after.waiters.len() + 1)
                {
                    met(7);
                }
            }
        }
    }

    fn random_step(&mut self) -> ClaimStep {
        let token = match self.random.below(5) {
            0 => self.record.as_ref().map_or(1, |record| record.token - 1),
            _ => self.record.as_ref().map_or(0, |record| record.token),
        };
        match self.random.below(24) {
            0 => ClaimStep::Collect,
            1 => ClaimStep::AnnounceBreak { token },
            2 | 3 => ClaimStep::Publish { holder: self.involved(), token, value: "$own".into() },
            4 | 5 => ClaimStep::Step(Step::transfer(self.holder(), self.involved())),
            6 => ClaimStep::Step(Step::evict(self.holder(), token)),
            7 => ClaimStep::Step(Step::sweep(self.session())),
            8..=13 => {
                let dead = self.some_dead();
                ClaimStep::Step(Step::remove(self.involved(), dead))
            }
            14 => ClaimStep::Step(self.wild_step(token)),
            _ => {
                let (wait, max_queue) = (!self.random.one_in(4), [0, 1, 3, 6, 256][self.random.below(5) as usize]);
                let (entry, dead) = (self.entry(), self.some_dead());
                ClaimStep::Step(Step::acquire(entry, wait, max_queue, dead))
            }
        }
    }

    /// A step that no constructor makes: every field at random.
    fn wild_step(&mut self, token: i64) -> Step {
        let when = match self.random.below(4) {
            0 => When::Always,
            1 => When::Involved(self.involved()),
            2 => When::Transfer { holder: self.holder(), to: self.involved() },
            _ => When::Holding { holder: self.holder(), token },
        };
        Step {
            when,
            add: self.random.one_in(2).then(|| self.entry()),
            wait: self.random.one_in(2),
            max_queue: self.random.below(6) as u32,
            remove: (0..self.random.below(4)).map(|_| self.involved()).collect(),
            dead: self.some_dead(),
        }
    }

    fn session(&mut self) -> SessionId {
        SessionId::from_random(u128::from(self.random.below(6)) << 90 | 7)
    }

    fn entry(&mut self) -> Entry {
        let attempt = self.random.below(4);
        let priority = Priority::new([0, 0, 0, 1, -1, 2047, -2048][self.random.below(7) as usize]).unwrap();
        Entry { session: self.session(), attempt, priority }
    }

    fn holder(&mut self) -> Entry {
        match self.record.as_ref().and_then(|record| record.holder) {
            Some(holder) if !self.random.one_in(6) => holder,
            _ => self.entry(),
        }
    }

    /// Mostly somebody who holds or waits.
    fn involved(&mut self) -> Entry {
        let all: Vec<Entry> =
            self.record.iter().flat_map(|record| record.holder.iter().chain(&record.waiters)).copied().collect();
        if all.is_empty() || self.random.one_in(5) {
            return self.entry();
        }
        all[self.random.below(all.len() as u64) as usize]
    }

    fn some_dead(&mut self) -> Vec<SessionId> {
        let count = if self.random.one_in(5) { 1 + self.random.below(2) } else { 0 };
        (0..count).map(|_| self.session()).collect()
    }
}

struct SessionWalk {
    random: Random,
    clocks: Clocks,
    id: SessionId,
    record: Option<SessionRecord>,
    done: [u64; 5],
}

impl SessionWalk {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let id = SessionId::from_random(u128::from(random.bits()) << 64 | u128::from(random.bits()));
        Self { random, clocks: Clocks::new(), id, record: None, done: [0; 5] }
    }

    async fn step(&mut self, database: &Database, collection: &str) {
        // The dead stay dead, so a life is short and another begins.
        if self.record.as_ref().is_some_and(|record| record.died.is_some()) && self.random.one_in(4) {
            *self = Self { done: self.done, ..Self::new(self.random.bits()) };
        }
        self.clocks.advance(&mut self.random);
        let step = self.random_step();
        let wall = WallTime(self.clocks.wall_ms);
        let before = self.record.take();
        let mut expected = session::apply(self.id, before.clone(), &step, wall);
        let command = testing::session_command(collection, self.id, &step);
        let answer = execute(database, command, wall, self.clocks.cluster_s).await;
        let answer = answer.map(|document| testing::session(&document).unwrap());
        // A renewal's date is the server's own.
        if let (SessionStep::Renew { .. }, Some(expected), Some(answer)) = (&step, &mut expected, &answer) {
            assert!(answer.seen.0 > 1_600_000_000_000);
            expected.seen = answer.seen;
        }
        assert_eq!(answer, expected, "step {step:?}\nbefore {before:?}");
        let has_died = |record: &Option<SessionRecord>| record.as_ref().is_some_and(|record| record.died.is_some());
        self.done[usize::from(expected.is_none())] += 1;
        self.done[2] += u64::from(before.is_some() && has_died(&expected) && !has_died(&before));
        self.done[3] += u64::from(before.is_none() && has_died(&expected));
        self.done[4] += u64::from(expected.as_ref().is_some_and(|record| record.providers.len() > 1));
        self.record = expected.or(before);
    }

    fn random_step(&mut self) -> SessionStep {
        match self.random.below(24) {
            0..=2 => {
                let mut info = SessionInfo { name: "$n".into(), pid: 7, start: u64::MAX, ..SessionInfo::default() };
                info.labels.insert("$a.b".into(), "$$NOW".into());
                let ttl = Duration::from_millis(1_000 + self.random.below(9_000));
                SessionStep::Open { nonce: self.nonce(), ttl, info }
            }
            3 => SessionStep::Close,
            4 => SessionStep::Kill(KillProof::Observed(None)),
            5 => SessionStep::Kill(KillProof::Observed(Some(self.nonce()))),
            6 => SessionStep::Kill(KillProof::KernelLock(vec![self.nonce()])),
            7..=11 => SessionStep::Provide {
                revision: self.revision(),
                provider: ProviderRecord {
                    key: self.provider(),
                    service: "$a".into(),
                    metadata: ["", "$$ROOT", "{$x: 1}"][self.random.below(3) as usize].into(),
                },
            },
            12..=14 => SessionStep::Withdraw { revision: self.revision(), key: self.provider() },
            _ => SessionStep::Renew { accept: vec![self.nonce(), self.nonce()], nonce: self.nonce() },
        }
    }

    fn revision(&mut self) -> i64 {
        self.record.as_ref().map_or(0, |record| record.revision) + [1, 1, 1, 0, -1][self.random.below(5) as usize]
    }

    fn provider(&mut self) -> String {
        ["$a#1", "$a#$k", "#", "$$NOW"][self.random.below(4) as usize].into()
    }

    fn nonce(&mut self) -> Nonce {
        Nonce(1 + self.random.below(5) as i64)
    }
}
