//! Random steps, compared with the pure functions that define them. `COORD_DIFF_STEPS` says how many, and
//! `COORD_DIFF_SEED` which.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::protocol::claim::{self, ClaimRecord, Stepped, StoreNow, TOKENS_PER_MS, When};
use crate::protocol::roster::{self, ProviderRecord};
use crate::protocol::session::{self, KillProof, Vitality};
use crate::store::{ClaimQuery, SessionQuery};
use crate::time::{Clock, ManualClock, Timestamp, WallTime};

const SESSIONS: u64 = 6;
const ATTEMPTS: u64 = 3;
const NAMES: [&str; 4] = ["p", "pq", "q", "r%_"];
const START: i64 = 1_750_000_000_000;

/// Marsaglia's xorshift: the same steps for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    fn session(&mut self) -> SessionId {
        id(u128::from(self.below(SESSIONS)))
    }

    fn entry(&mut self) -> Entry {
        let attempt = self.below(ATTEMPTS);
        // One attempt has one priority, but the same session and attempt with another one is another entry.
        let priority = if self.one_in(20) { 7 } else { [0, 0, 2047][attempt as usize] };
        Entry { session: self.session(), attempt, priority: Priority::new(priority).unwrap() }
    }

    fn several<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let many = if self.one_in(3) { self.below(3) } else { 0 };
        (0..many).map(|_| make(self)).collect()
    }

    /// A token that is right most of the time.
    fn token(&mut self, record: Option<&ClaimRecord>) -> i64 {
        record.map_or(0, |record| record.token) - i64::from(self.one_in(5))
    }

    /// The holder, or a waiter, or somebody else.
    fn involved(&mut self, record: Option<&ClaimRecord>) -> Entry {
        let known: Vec<Entry> = record.iter().flat_map(|r| r.holder.iter().chain(&r.waiters).copied()).collect();
        if known.is_empty() || self.one_in(4) { self.entry() } else { known[self.below(known.len() as u64) as usize] }
    }

    fn claim_step(&mut self, record: Option<&ClaimRecord>) -> ClaimStep {
        let holder = record.and_then(|record| record.holder);
        let holder = holder.filter(|_| !self.one_in(6)).unwrap_or_else(|| self.entry());
        match self.below(16) {
            0..=4 => {
                let dead = self.several(Self::session);
                ClaimStep::Step(Step::acquire(self.entry(), !self.one_in(3), self.below(6) as u32, dead))
            }
            5..=7 => {
                let entry = self.involved(record);
                ClaimStep::Step(Step::remove(entry, self.several(Self::session)))
            }
            8 => ClaimStep::Step(Step::sweep(self.session())),
            9 => ClaimStep::Step(Step::transfer(holder, self.involved(record))),
            10 => ClaimStep::Step(Step::evict(holder, self.token(record))),
            11 => ClaimStep::AnnounceBreak { token: self.token(record) },
            12 => {
                let token = self.token(record);
                ClaimStep::Publish { holder, token, value: format!("v{}", self.below(100)) }
            }
            13 => ClaimStep::Collect,
            // Whatever else the type allows.
            _ => ClaimStep::Step(Step {
                when: match self.below(4) {
                    0 => When::Always,
                    1 => When::Involved(self.involved(record)),
                    2 => When::Transfer { holder, to: self.involved(record) },
                    _ => When::Holding { holder, token: self.token(record) },
                },
                add: if self.one_in(2) { Some(self.involved(record)) } else { None },
                wait: self.one_in(2),
                max_queue: self.below(6) as u32,
                remove: self.several(|dice| dice.involved(record)),
                dead: self.several(Self::session),
            }),
        }
    }

    /// A number that is the next most of the time.
    fn revision(&mut self, record: Option<&SessionRecord>) -> i64 {
        record.map_or(0, |record| record.revision) + [1, 1, 1, 0, -1][self.below(5) as usize]
    }

    fn session_step(&mut self, record: Option<&SessionRecord>) -> SessionStep {
        let nonce = record.and_then(|record| record.nonce).filter(|_| !self.one_in(4));
        let fresh = Nonce(self.below(1 << 40) as i64);
        match self.below(18) {
            0..=3 => SessionStep::Open {
                nonce: fresh,
                ttl: Duration::from_millis(1_000 + self.below(9_000)),
                info: SessionInfo { name: format!("'{}\"\n☺", self.below(9)), pid: 7, ..SessionInfo::default() },
            },
            4..=7 => SessionStep::Renew { accept: nonce.into_iter().chain([Nonce(-1)]).collect(), nonce: fresh },
            8 => SessionStep::Kill(KillProof::Observed(nonce)),
            9 => SessionStep::Kill(KillProof::KernelLock(nonce.into_iter().collect())),
            10 => SessionStep::Kill(KillProof::Observed(None)),
            11..=14 => SessionStep::Provide {
                provider: ProviderRecord::new(
                    ["a/b/c", "a/b/d"][self.below(2) as usize],
                    &self.below(3).to_string(),
                    &format!("'{}\"☺", self.below(9)),
                ),
                revision: self.revision(record),
            },
            15..=16 => SessionStep::Withdraw {
                key: roster::key(["a/b/c", "a/b/d"][self.below(2) as usize], &self.below(3).to_string()),
                revision: self.revision(record),
            },
            _ => SessionStep::Close,
        }
    }
}

/// What the store should hold, by the pure functions.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionId, SessionRecord>,
    claims: BTreeMap<ClaimKey, ClaimRecord>,
    /// The highest token of a claim that is gone.
    collected: i64,
    /// The highest token that each name ever had, which outlives its record.
    granted: BTreeMap<ClaimKey, i64>,
}

impl Model {
    fn dead(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.values().filter(|s| s.vitality == Vitality::Dead).map(|s| s.id)
    }

    fn step_claim(&mut self, key: &ClaimKey, step: &ClaimStep, wall: WallTime) -> Applied {
        let before = self.claims.get(key).cloned();
        let floor = match (step, &before) {
            // The highest token of all that is gone, this record included: it is remembered in the same transaction.
            (ClaimStep::Collect, Some(record)) => self.collected.max(record.token) + 1,
            _ => (self.collected + 1).max(wall.0 * TOKENS_PER_MS),
        };
        let now = StoreNow { wall, floor };
        let (step, add) = match step.clone() {
            ClaimStep::Step(mut step) => {
                step.dead.extend(self.dead());
                let add = step.add;
                (ClaimStep::Step(step), add)
            }
            step => (step, None),
        };
        match claim::apply(key, before.clone(), &step, now) {
            Stepped::Refused => None,
            Stepped::Collected => {
                let gone = self.claims.remove(key).unwrap();
                self.collected = self.collected.max(gone.token);
                Some(gone.view(None))
            }
            Stepped::Written(record) => {
                let view = record.view(add.as_ref());
                self.check(before.as_ref(), &record, &step);
                self.claims.insert(key.clone(), record);
                Some(view)
            }
        }
    }

    /// The invariants, whatever the pure function says.
    fn check(&mut self, before: Option<&ClaimRecord>, record: &ClaimRecord, step: &ClaimStep) {
        if let ClaimStep::Step(Step { add: Some(add), wait: false, .. }) = step {
            let waited = before.is_some_and(|before| before.waiters.contains(add));
            assert!(waited || !record.waiters.contains(add), "a step that does not wait has left {add} in the queue");
        }
        assert!(record.holder.is_some() || record.waiters.is_empty(), "{record:?} is free, and somebody waits");
        let latest = self.granted.entry(record.key.clone()).or_default();
        let granted = before.is_none_or(|before| before.token != record.token) && record.token != 0;
        assert!(if granted { record.token > *latest } else { record.token <= *latest }, "{record:?} after {latest}");
        *latest = (*latest).max(record.token);
    }
}

use crate::store::Applied;

#[test]
fn random_steps_do_what_the_pure_functions_say() {
    let setting = |name: &str, default: u64| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let steps = setting("COORD_DIFF_STEPS", 20_000);
    let seed = setting("COORD_DIFF_SEED", 0x2545_f491_4f6c_dd1d);
    runtime().block_on(compare(seed, steps));
}

async fn compare(seed: u64, steps: u64) {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(START)));
    let env = Env { clock: clock.clone(), ..env() };
    let store = SqliteStore::open(&scratch.db(), Durability::Normal, env).await.unwrap();
    let mut dice = Dice(seed);
    let mut model = Model::default();
    for number in 0..steps {
        match dice.below(40) {
            0 => clock.advance(Duration::from_millis(dice.below(50))),
            1 => clock.set_wall(WallTime(START + dice.below(30 * 86_400_000) as i64)),
            2..=9 => {
                let id = dice.session();
                let step = dice.session_step(model.sessions.get(&id));
                let expected = session::apply(id, model.sessions.get(&id).cloned(), &step, clock.wall());
                let found = store.apply_session(id, step.clone()).await.unwrap();
                let answer = expected.clone().map(SessionRecord::bare);
                assert_eq!(found, answer, "step {number} of seed {seed}: {step:?}");
                model.sessions.extend(expected.map(|record| (id, record)));
                // Ids are never reused; here they are, once nobody remembers that they died.
                if dice.one_in(3) && model.sessions.get(&id).is_some_and(|s| s.vitality == Vitality::Dead) {
                    forget(&store, &mut model, id);
                }
            }
            _ => {
                let key = key(NAMES[dice.below(NAMES.len() as u64) as usize]);
                let record = model.claims.get(&key).cloned();
                let step = dice.claim_step(record.as_ref());
                let expected = model.step_claim(&key, &step, clock.wall());
                let found = store.apply_claim(key.clone(), step.clone()).await.unwrap();
                assert_eq!(found, expected, "step {number} of seed {seed}: {step:?} on {record:?}");
                let found = store.claims(ClaimQuery::Keys(vec![key.clone()])).await.unwrap();
                assert_eq!(
                    found.first(),
                    model.claims.get(&key),
                    "step {number} of seed {seed}: {step:?} on {record:?}"
                );
            }
        }
        if number % 250 == 0 {
            compare_all(&store, &model, &mut dice).await;
        }
    }
    compare_all(&store, &model, &mut dice).await;
    store.close().await;
}

/// Takes a dead session out of the database and out of every claim, so that its id can begin anew.
fn forget(store: &SqliteStore, model: &mut Model, id: SessionId) {
    let mentioned = |c: &ClaimRecord| c.holder.iter().chain(&c.waiters).any(|entry| entry.session == id);
    if model.claims.values().any(mentioned) {
        return;
    }
    model.sessions.remove(&id);
    let deleted = store.inner().unwrap().writer.with_connection(|db| {
        // It goes past the gate, and on a busy machine the log grows so long that a checkpoint takes a turn there.
        db.busy_timeout(Duration::from_secs(30)).unwrap();
        let deleted = db.execute("DELETE FROM sess WHERE id = ?1", [id.to_string()]).unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        deleted
    });
    assert_eq!(deleted, 1);
}

async fn compare_all(store: &SqliteStore, model: &Model, dice: &mut Dice) {
    let wanted = |test: &dyn Fn(&ClaimRecord) -> bool| -> Vec<ClaimRecord> {
        model.claims.values().filter(|c| test(c)).cloned().collect()
    };
    let who = dice.session();
    for (query, expected) in [
        (ClaimQuery::Prefix("lock/".into()), wanted(&|_| true)),
        (ClaimQuery::Prefix("lock/a/b/p".into()), wanted(&|c| c.key.as_str().starts_with("lock/a/b/p"))),
        (ClaimQuery::Prefix("lock/a/b/r%".into()), wanted(&|c| c.key.as_str().starts_with("lock/a/b/r%"))),
        (ClaimQuery::Prefix("zz".into()), Vec::new()),
        (
            ClaimQuery::Unused { before: WallTime(i64::MAX), limit: 1_000 },
            wanted(&|c| c.holder.is_none() && c.waiters.is_empty()),
        ),
        (ClaimQuery::HeldBy(who), wanted(&|c| c.holder.is_some_and(|h| h.session == who))),
        (ClaimQuery::Of(who), wanted(&|c| c.holder.iter().chain(&c.waiters).any(|e| e.session == who))),
    ] {
        assert_eq!(store.claims(query.clone()).await.unwrap(), expected, "{query:?}");
    }
    let ids: Vec<SessionId> = (0..SESSIONS).map(|number| id(number.into())).collect();
    let all: Vec<SessionRecord> = model.sessions.values().cloned().collect();
    let live: Vec<SessionRecord> = all.iter().filter(|s| s.vitality == Vitality::Live).cloned().collect();
    let bare = |records: &[SessionRecord]| records.iter().cloned().map(SessionRecord::bare).collect::<Vec<_>>();
    assert_eq!(store.sessions(SessionQuery::Ids(ids)).await.unwrap(), bare(&all));
    assert_eq!(store.sessions(SessionQuery::Live).await.unwrap(), bare(&live));
    assert_eq!(store.sessions(SessionQuery::Roster).await.unwrap(), live);
}
