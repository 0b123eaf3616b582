//! A simulated replica set: one record at a time, majority commits with a lag, fail-overs that lose what was not
//! committed, reads from the past, and a date that jumps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coord_core::env::Env;
use coord_core::error::{Error, Result};
use coord_core::mutants::{self, Mutant};
use coord_core::protocol::claim::{self, ClaimKey, ClaimRecord, ClaimStep, Entry, Stepped, StoreNow};
use coord_core::protocol::session::{self, Nonce, SessionId, SessionRecord, SessionStep, Vitality};
use coord_core::store::changes::{Change, Changes, ClaimState, Interest, Snapshot};
use coord_core::store::{Applied, Capabilities, ClaimQuery, Notice, Notices, SessionQuery, Store};
use coord_core::time::WallTime;
use futures::FutureExt;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::host::SimClock;
use crate::random::Random;
use crate::rules;

/// The records at one moment.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Sessions by id.
    pub sessions: BTreeMap<SessionId, SessionRecord>,
    /// Claims by key.
    pub claims: BTreeMap<ClaimKey, ClaimRecord>,
}

impl Records {
    fn live(&self) -> impl Iterator<Item = &SessionRecord> {
        self.sessions.values().filter(|session| session.vitality == Vitality::Live)
    }
}

/// The replica set.
#[derive(Debug)]
pub struct Server {
    env: Env,
    clock: Arc<SimClock>,
    random: Random,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the primary has applied.
    applied: Records,
    /// What a majority has, and no fail-over can take away.
    committed: Records,
    /// Older states, latest last: what a stale read may show.
    history: VecDeque<Records>,
    uncommitted: VecDeque<Uncommitted>,
    next: u64,
    /// The time of the cluster, which never goes back; in milliseconds.
    cluster_ms: i64,
    listeners: BTreeMap<SessionId, Vec<mpsc::UnboundedSender<Notice>>>,
    onlookers: Vec<(Interest, mpsc::UnboundedSender<Change>)>,
    commit_lag: Duration,
    never_stale: bool,
    /// When each nonce of a session was applied first. A renewal that a fail-over took away was none, and its nonce is not
    /// looked up.
    renewed: BTreeMap<(SessionId, Nonce), Instant>,
    /// Grants to somebody who had waited.
    waited: u64,
    /// Steps that must never be.
    violations: Vec<String>,
}

#[derive(Debug)]
struct Uncommitted {
    number: u64,
    records: Records,
    notice: Option<(SessionId, Notice)>,
    /// Told when a majority has it; still false when a fail-over took it away.
    committed: Arc<AtomicBool>,
}

/// How many older states a stale read can show.
const HISTORY: usize = 20;

/// How far the time of the cluster is behind the date.
const CLUSTER_LAG_MS: i64 = 1500;

/// How likely a read that may be stale is.
const STALE: f64 = 0.05;

impl Server {
    /// An empty replica set. `env` is its own world: it runs on when clients are stopped.
    pub fn new(env: Env, clock: Arc<SimClock>, random: Random) -> Self {
        let state = State { commit_lag: Duration::from_millis(4), ..State::default() };
        Self { env, clock, random, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest time that a majority takes to have a write. With a very long one nothing is acknowledged.
    pub fn set_commit_lag(&self, lag: Duration) {
        self.lock().commit_lag = lag;
    }

    /// From now on every read shows the latest.
    pub fn never_stale(&self) {
        self.lock().never_stale = true;
    }

    /// Another node becomes primary: uncommitted writes are gone, and the date is that of its clock.
    pub fn fail_over(&self, wall_offset_ms: i64) {
        let mut state = self.lock();
        tracing::trace!(lost = state.uncommitted.len(), "another primary");
        state.applied = state.committed.clone();
        state.uncommitted.clear();
        self.clock.set_wall_offset(wall_offset_ms);
    }

    /// How many grants were to somebody who had waited.
    pub fn waited(&self) -> u64 {
        self.lock().waited
    }

    /// The steps that must never be, since the last call.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().violations)
    }

    /// What a majority has now.
    pub fn committed(&self) -> Records {
        self.lock().committed.clone()
    }

    /// Looks at what a majority has, without copying it.
    pub fn with_committed<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.lock().committed)
    }

    fn store_now(&self, state: &mut State) -> StoreNow {
        let wall = coord_core::time::Clock::wall(&*self.clock);
        // A logical clock follows the date, and never goes back.
        state.cluster_ms = state.cluster_ms.max(wall.0 - CLUSTER_LAG_MS);
        StoreNow { wall, floor: claim::token_floor(wall, WallTime(state.cluster_ms)) }
    }

    /// Applies a write, waits until a majority has it, and answers; an error if a fail-over came first.
    async fn write<T>(&self, apply: impl FnOnce(&Self, &mut State) -> (T, Option<(SessionId, Notice)>)) -> Result<T> {
        let committed = Arc::new(AtomicBool::new(false));
        let (result, number, lag) = {
            let mut state = self.lock();
            let (result, notice) = apply(self, &mut state);
            let number = state.next;
            state.next += 1;
            let records = state.applied.clone();
            state.uncommitted.push_back(Uncommitted { number, records, notice, committed: committed.clone() });
            (result, number, self.random.up_to(state.commit_lag))
        };
        if mutants::on(Mutant::UncommittedAcknowledged) && lag > Duration::from_secs(1) {
            return Ok(result);
        }
        self.env.sleep(lag).await;
        self.lock().commit(number);
        if committed.load(Relaxed) { Ok(result) } else { Err(Error::unavailable("not primary any more")) }
    }

    fn read<T>(&self, may_be_stale: bool, look: impl FnOnce(&Records) -> T) -> T {
        let state = self.lock();
        if mutants::on(Mutant::LocalRead) {
            return look(&state.applied);
        }
        let stale = may_be_stale && !state.never_stale && !state.history.is_empty() && self.random.chance(STALE);
        if stale {
            let place = self.random.below(state.history.len() as u64) as usize;
            look(&state.history[place])
        } else {
            look(&state.committed)
        }
    }
}

impl State {
    /// A majority has every write up to this one.
    fn commit(&mut self, number: u64) {
        while self.uncommitted.front().is_some_and(|write| write.number <= number) {
            let Some(write) = self.uncommitted.pop_front() else { return };
            let before = std::mem::replace(&mut self.committed, write.records);
            self.history.push_back(before);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
            write.committed.store(true, Relaxed);
            self.show_difference();
            if let Some((session, notice)) = write.notice
                && let Some(listeners) = self.listeners.get_mut(&session)
            {
                listeners.retain(|listener| listener.unbounded_send(notice.clone()).is_ok());
            }
        }
    }

    /// Tells those who look on what the latest commit has changed.
    fn show_difference(&mut self) {
        let (Some(before), after) = (self.history.back(), &self.committed) else { return };
        if self.onlookers.is_empty() {
            return;
        }
        let revision = |records: &Records, id| records.sessions.get(id).map(|session| session.revision);
        let sessions = after.sessions.values().filter(|s| revision(before, &s.id) != Some(s.revision));
        let state = |records: &Records, key| records.claims.get(key).map(ClaimState::from);
        let claims = after.claims.keys().filter_map(|key| {
            let now = state(after, key);
            now.filter(|now| state(before, key).as_ref() != Some(now))
        });
        let changes: Vec<_> = sessions.cloned().map(Change::Session).chain(claims.map(Change::Claim)).collect();
        self.onlookers.retain(|(interest, onlooker)| {
            let wanted = |change: &&Change| match change {
                Change::Session(_) => interest.sessions,
                Change::Claim(claim) => interest.in_claim(&claim.key),
                _ => true,
            };
            changes.iter().filter(wanted).all(|change| onlooker.unbounded_send(change.clone()).is_ok())
        });
    }

    fn look_at_session(&mut self, before: Option<&SessionRecord>, step: &SessionStep, after: &SessionRecord) {
        if let Some(nonce) = after.nonce {
            self.renewed.entry((after.id, nonce)).or_insert_with(Instant::now);
        }
        let Some((before, nonce)) = before.and_then(|before| Some((before, before.nonce?))) else { return };
        if let Some(renewed) = self.renewed.get(&(before.id, nonce)) {
            self.violations.extend(rules::of_death(before, step, after, renewed.elapsed()));
        }
    }

    fn step_claim(
        &mut self,
        key: &ClaimKey,
        step: &ClaimStep,
        now: StoreNow,
    ) -> (Applied, Option<(SessionId, Notice)>) {
        let before = self.applied.claims.get(key).cloned();
        let holder_before = before.as_ref().and_then(|r| r.holder);
        let added = match step {
            ClaimStep::Step(step) => step.add,
            _ => None,
        };
        let now = match step {
            // Only what never goes back may decide when a record can go.
            ClaimStep::Collect if !mutants::on(Mutant::CollectByDate) => {
                StoreNow { floor: self.cluster_ms * claim::TOKENS_PER_MS, ..now }
            }
            _ => now,
        };
        let stepped = claim::apply(key, before.clone(), step, now);
        tracing::trace!(%key, ?step, ?stepped, "a step");
        match stepped {
            Stepped::Refused => (None, None),
            Stepped::Collected => (self.applied.claims.remove(key).map(|r| r.view(None)), None),
            Stepped::Written(record) => {
                let notice = match (step, record.holder) {
                    (ClaimStep::AnnounceBreak { token }, Some(entry)) => {
                        Some((entry.session, Notice::Breaking { key: key.clone(), entry, token: *token }))
                    }
                    (_, Some(entry)) if Some(entry) != holder_before => {
                        Some((entry.session, Notice::Granted { key: key.clone(), entry, token: record.token }))
                    }
                    _ => None,
                };
                self.violations.extend(rules::of_claim(before.as_ref(), step, &record));
                let waited = |holder: &Entry| before.as_ref().is_some_and(|before| before.waiters.contains(holder));
                self.waited += u64::from(record.holder.as_ref().is_some_and(waited));
                let view = record.view(added.as_ref());
                self.applied.claims.insert(key.clone(), record);
                (Some(view), notice)
            }
        }
    }
}

impl Store for Server {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.write(move |server, state| {
            let now = server.store_now(state);
            let before = state.applied.sessions.get(&id).cloned();
            let after = session::apply(id, before.clone(), &step, now.wall);
            tracing::trace!(%id, ?step, after = ?after.as_ref().map(|after| after.vitality), "a session's step");
            if let Some(record) = &after {
                state.look_at_session(before.as_ref(), &step, record);
                state.applied.sessions.insert(id, record.clone());
            }
            (after.map(SessionRecord::bare), None)
        })
        .boxed()
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        self.write(move |server, state| {
            let now = server.store_now(state);
            state.step_claim(&key, &step, now)
        })
        .boxed()
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        let found = self.read(true, |records| match query {
            SessionQuery::Ids(ids) => {
                ids.iter().filter_map(|id| records.sessions.get(id).cloned().map(SessionRecord::bare)).collect()
            }
            SessionQuery::Live => records.live().cloned().map(SessionRecord::bare).collect(),
            SessionQuery::Roster => records.live().cloned().collect(),
        });
        futures::future::ready(Ok(found)).boxed()
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        let may_be_stale = !matches!(query, ClaimQuery::Of(_) | ClaimQuery::HeldBy(_));
        let most = if let ClaimQuery::Unused { limit, .. } = query { limit } else { usize::MAX };
        let found = self.read(may_be_stale, |records| {
            let wanted = |claim: &&ClaimRecord| match &query {
                ClaimQuery::Keys(keys) => keys.contains(&claim.key),
                ClaimQuery::Of(id) => claim.holder.iter().chain(&claim.waiters).any(|entry| entry.session == *id),
                ClaimQuery::HeldBy(id) => claim.holder.is_some_and(|holder| holder.session == *id),
                ClaimQuery::Prefix(prefix) => claim.key.as_str().starts_with(prefix),
                ClaimQuery::Unused { before, .. } => {
                    claim.holder.is_none() && claim.waiters.is_empty() && claim.granted_at < *before
                }
            };
            records.claims.values().filter(wanted).take(most).cloned().collect()
        });
        futures::future::ready(Ok(found)).boxed()
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        let (sender, receiver) = mpsc::unbounded();
        // The receiver is alive, so this cannot fail.
        let _ = sender.unbounded_send(Notice::Gap);
        self.lock().listeners.entry(id).or_default().push(sender);
        futures::future::ready(Ok(Box::pin(receiver) as Notices)).boxed()
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        let (sender, receiver) = mpsc::unbounded();
        let mut state = self.lock();
        let held = |claim: &&ClaimRecord| claim.holder.is_some() && interest.in_claim(&claim.key);
        let snapshot = Snapshot {
            claims: state.committed.claims.values().filter(held).map(ClaimState::from).collect(),
            sessions: if interest.sessions { state.committed.live().cloned().collect() } else { Vec::new() },
        };
        // The receiver is alive, so this cannot fail.
        let _ = sender.unbounded_send(Change::Snapshot(snapshot));
        state.onlookers.push((interest, sender));
        drop(state);
        futures::future::ready(Ok(Box::pin(receiver) as Changes)).boxed()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { multi_process: false, multi_host: true, kernel_locks_trusted: false }
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }
}
