//! The reference store: records in maps behind one mutex, changed by calling the pure steps. For tests of user
//! code, for a single process, and for simulation. Shared inside a process by name; gone with its last user.

mod documents;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{self, BoxFuture, FutureExt};
use once_cell::sync::Lazy;

use super::changes::{Change, Changes, ClaimState, Interest, Snapshot};
use super::documents::Documents;
use super::{Applied, Capabilities, ClaimQuery, Notice, Notices, SessionQuery, Store};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::protocol::claim::{self, ClaimKey, ClaimRecord, ClaimStep, Step, Stepped, StoreNow, TOKENS_PER_MS};
use crate::protocol::session::{self, SessionId, SessionRecord, SessionStep, Vitality};
use crate::time::Timestamp;

/// The highest token that any store of this process has granted: a named store that is opened again in the
/// millisecond in which its last user closed it must not begin with a token that it has given out.
static HIGHEST: AtomicI64 = AtomicI64::new(0);

/// How long the record of a dead session is kept.
const TOMBSTONE_KEPT: Duration = Duration::from_secs(24 * 3600);

static NAMED: Lazy<Mutex<HashMap<String, Weak<Shared>>>> = Lazy::new(Mutex::default);

/// A store in this process's memory. Each value is one user of it.
#[derive(Debug)]
pub struct MemoryStore {
    env: Env,
    records: Mutex<Option<Arc<Shared>>>,
}

/// What all users of a store share.
type Shared = Mutex<Records>;

#[derive(Debug, Default)]
struct Records {
    sessions: BTreeMap<SessionId, SessionRecord>,
    claims: BTreeMap<ClaimKey, ClaimRecord>,
    /// Sessions in the order in which they died, and when that was.
    dead: VecDeque<(Timestamp, SessionId)>,
    /// Whether the first user's clock is a manual one.
    manual: bool,
    listeners: BTreeMap<SessionId, Vec<mpsc::UnboundedSender<Notice>>>,
    onlookers: Vec<(Interest, mpsc::UnboundedSender<Change>)>,
    tables: documents::Tables,
}

impl MemoryStore {
    /// The store of this name, shared with every other user of the name in this process; with an empty name, one
    /// of its own.
    pub fn open(name: &str, env: Env) -> Self {
        let new = || Arc::new(Mutex::new(Records { manual: env.clock.as_manual().is_some(), ..Records::default() }));
        let records = if name.is_empty() { new() } else { Self::named(name, new) };
        Self { env, records: Mutex::new(Some(records)) }
    }

    /// Whether its users have the same kind of clock: otherwise they would take one another for dead.
    pub(crate) fn clocks_agree(&self) -> bool {
        let manual = self.env.clock.as_manual().is_some();
        self.with(|records| records.manual == manual).unwrap_or(true)
    }

    fn named(name: &str, new: impl FnOnce() -> Arc<Shared>) -> Arc<Shared> {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, records| records.strong_count() > 0);
        if let Some(records) = named.get(name).and_then(Weak::upgrade) {
            return records;
        }
        let records = new();
        named.insert(name.to_owned(), Arc::downgrade(&records));
        records
    }

    fn with<T>(&self, f: impl FnOnce(&mut Records) -> T) -> Result<T> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let records = records.as_ref().ok_or_else(|| Error::closed("the store"))?;
        Ok(f(&mut records.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn now_with_floor(&self) -> StoreNow {
        let wall = self.env.clock.wall();
        let next = HIGHEST.load(Relaxed).saturating_add(1);
        StoreNow { wall, floor: wall.0.saturating_mul(TOKENS_PER_MS).max(next) }
    }

    fn step_claim(&self, key: ClaimKey, step: &ClaimStep) -> Result<Applied> {
        self.with(|records| {
            let now = self.now_with_floor();
            let before = records.claims.get(&key).cloned();
            let holder_before = before.as_ref().and_then(|r| r.holder);
            let shown_before = records.shows(&key).then(|| before.as_ref().map(ClaimState::from));
            let added = match step {
                ClaimStep::Step(step) => step.add,
                _ => None,
            };
            match claim::apply(&key, before, step, now) {
                Stepped::Refused => None,
                Stepped::Collected => {
                    // It was free before: nobody who looks on sees a difference.
                    let gone = records.claims.remove(&key);
                    gone.map(|record| record.view(None))
                }
                Stepped::Written(record) => {
                    HIGHEST.fetch_max(record.token, Relaxed);
                    records.announce(&record, holder_before, step);
                    if let Some(before) = shown_before {
                        records.show_claim(before, &record);
                    }
                    let view = record.view(added.as_ref());
                    records.claims.insert(key, record);
                    Some(view)
                }
            }
        })
    }
}

impl Records {
    fn announce(&mut self, record: &ClaimRecord, holder_before: Option<claim::Entry>, step: &ClaimStep) {
        let key = record.key.clone();
        match (step, record.holder) {
            (ClaimStep::AnnounceBreak { token }, Some(entry)) => {
                self.tell(entry.session, Notice::Breaking { key, entry, token: *token });
            }
            // The entry that asked has its answer.
            (ClaimStep::Step(Step { add, .. }), Some(entry)) if *add == Some(entry) => {}
            (_, Some(entry)) if Some(entry) != holder_before => {
                self.tell(entry.session, Notice::Granted { key, entry, token: record.token });
            }
            _ => {}
        }
    }

    fn shows(&self, key: &ClaimKey) -> bool {
        self.onlookers.iter().any(|(interest, _)| interest.in_claim(key))
    }

    fn show_claim(&mut self, before: Option<ClaimState>, record: &ClaimRecord) {
        let state = ClaimState::from(record);
        if before.as_ref() != Some(&state) {
            self.show(|interest| interest.in_claim(&record.key), &Change::Claim(state));
        }
    }

    fn show_session(&mut self, before: Option<&SessionRecord>, record: &SessionRecord) {
        if before.is_none_or(|before| before.revision != record.revision) {
            self.show(|interest| interest.sessions, &Change::Session(record.clone()));
        }
    }

    fn show(&mut self, to: impl Fn(&Interest) -> bool, change: &Change) {
        self.onlookers.retain(|(interest, onlooker)| {
            let wants = to(interest);
            if wants { onlooker.unbounded_send(change.clone()).is_ok() } else { !onlooker.is_closed() }
        });
    }

    /// Remembers that a session died, and forgets who did so long ago that nothing of it can come late.
    fn bury(&mut self, id: SessionId, now: Timestamp) {
        self.dead.push_back((now, id));
        while let Some((died, id)) = self.dead.front().copied()
            && now.since(died) > TOMBSTONE_KEPT
        {
            self.dead.pop_front();
            self.sessions.remove(&id);
        }
    }

    fn live(&self) -> impl Iterator<Item = &SessionRecord> {
        self.sessions.values().filter(|session| session.vitality == Vitality::Live)
    }

    fn snapshot(&self, interest: &Interest) -> Snapshot {
        let held = |claim: &&ClaimRecord| claim.holder.is_some() && interest.in_claim(&claim.key);
        Snapshot {
            claims: self.claims.values().filter(held).map(ClaimState::from).collect(),
            sessions: if interest.sessions { self.live().cloned().collect() } else { Vec::new() },
        }
    }

    fn tell(&mut self, session: SessionId, notice: Notice) {
        if let Some(listeners) = self.listeners.get_mut(&session) {
            listeners.retain(|listener| listener.unbounded_send(notice.clone()).is_ok());
            if listeners.is_empty() {
                self.listeners.remove(&session);
            }
        }
    }
}

impl Store for MemoryStore {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        let (wall, now) = (self.env.clock.wall(), self.env.now());
        let applied = self.with(|records| {
            let before = records.sessions.remove(&id);
            let Some(after) = session::apply(id, before.clone(), &step, wall) else {
                records.sessions.extend(before.map(|before| (id, before)));
                return None;
            };
            records.show_session(before.as_ref(), &after);
            let died = after.vitality == Vitality::Dead && before.is_none_or(|b| b.vitality == Vitality::Live);
            let answer = after.clone().bare();
            records.sessions.insert(id, after);
            if died {
                records.bury(id, now);
            }
            Some(answer)
        });
        future::ready(applied).boxed()
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        future::ready(self.step_claim(key, &step)).boxed()
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        let found = self.with(|records| match query {
            SessionQuery::Ids(ids) => {
                ids.iter().filter_map(|id| records.sessions.get(id).cloned().map(SessionRecord::bare)).collect()
            }
            SessionQuery::Live => records.live().map(|session| session.clone().bare()).collect(),
            SessionQuery::Roster => records.live().cloned().collect(),
        });
        future::ready(found).boxed()
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        let found = self.with(|records| match query {
            ClaimQuery::Keys(keys) => keys.iter().filter_map(|key| records.claims.get(key).cloned()).collect(),
            ClaimQuery::Of(id) => records
                .claims
                .values()
                .filter(|c| c.holder.iter().chain(&c.waiters).any(|entry| entry.session == id))
                .cloned()
                .collect(),
            ClaimQuery::HeldBy(id) => {
                records.claims.values().filter(|c| c.holder.is_some_and(|h| h.session == id)).cloned().collect()
            }
            ClaimQuery::Prefix(prefix) => {
                records.claims.values().filter(|c| c.key.as_str().starts_with(&prefix)).cloned().collect()
            }
            ClaimQuery::Unused { before, limit } => {
                let unused = |c: &&ClaimRecord| c.holder.is_none() && c.waiters.is_empty() && c.granted_at < before;
                records.claims.values().filter(unused).take(limit).cloned().collect()
            }
        });
        future::ready(found).boxed()
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        let stream = self.with(|records| {
            let (sender, receiver) = mpsc::unbounded();
            // The receiver is alive, so this cannot fail.
            let _ = sender.unbounded_send(Notice::Gap);
            records.listeners.entry(id).or_default().push(sender);
            Box::pin(receiver) as Notices
        });
        future::ready(stream).boxed()
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        let stream = self.with(|records| {
            let (sender, receiver) = mpsc::unbounded();
            // The receiver is alive, so this cannot fail.
            let _ = sender.unbounded_send(Change::Snapshot(records.snapshot(&interest)));
            records.onlookers.push((interest, sender));
            Box::pin(receiver) as Changes
        });
        future::ready(stream).boxed()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { multi_process: false, multi_host: false, kernel_locks_trusted: false }
    }

    fn documents(&self) -> Option<&dyn Documents> {
        Some(self)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        future::ready(self.with(|_| ())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).take();
        future::ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::session::{Nonce, SessionInfo};
    use crate::time::{ManualClock, WallTime};

    #[tokio::test]
    async fn the_dead_are_forgotten_after_a_day() {
        let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
        let env = Env { clock: clock.clone(), ..Env::system(tokio::runtime::Handle::current()) };
        let store = MemoryStore::open("", env);
        let ids: Vec<SessionId> = (1..=100).map(SessionId::from_random).collect();
        let open = SessionStep::Open { nonce: Nonce(1), ttl: Duration::from_secs(1), info: SessionInfo::default() };
        let die = async |ids: &[SessionId]| {
            for id in ids {
                store.apply_session(*id, SessionStep::Close).await.unwrap().unwrap();
                assert_eq!(store.apply_session(*id, SessionStep::Close).await.unwrap(), None);
            }
        };
        let known = async || store.sessions(SessionQuery::Ids(ids.clone())).await.unwrap().len();
        for id in &ids {
            store.apply_session(*id, open.clone()).await.unwrap().unwrap();
        }
        die(&ids[..98]).await;
        clock.advance(TOMBSTONE_KEPT);
        die(&ids[98..99]).await;
        assert_eq!(known().await, 100);
        clock.advance(Duration::from_secs(1));
        die(&ids[99..]).await;
        assert_eq!(known().await, 2, "who died last, and a day ago at most");
    }
}
