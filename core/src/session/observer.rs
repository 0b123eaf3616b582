//! Watching the sessions on which somebody here depends, or which somebody here shows, and clearing up after those that
//! died.
//!
//! Two ways to learn of a death. *Observation*: the nonce has not changed for longer than the session's ttl; one
//! read per period for all sessions of interest, whoever in this client is interested. *Kernel lock*: the session's
//! process ran on this host, and the kernel has let go of its lock; milliseconds after a crash.
//!
//! Whoever declares a death also clears the dead session out of every claim, so that waiters in processes that do
//! not observe it (they are too far back in the queue) need not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;

use super::Session;
use super::kernel_lock::DeathWatch;
use crate::claims;
use crate::env::Task;
use crate::error::{HolderState, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimStep, ClaimView, Entry, Step};
use crate::protocol::session::{
    KillProof, Nonce, Observations, SessionId, SessionInfo, SessionRecord, SessionStep, Sighting, Vitality,
};
use crate::store::{ClaimQuery, SessionQuery, Store};
use crate::time::{Timestamp, WallTime};

/// How many in a queue look after the holder and those before them. More than one, so that several deaths in a row
/// cost one ttl and not one each.
const OBSERVERS: usize = 3;

/// How soon a read that failed is tried again while nothing is known of the sessions of interest; and how soon what a dead
/// session has left is looked for again when that failed: somebody waits for it.
const FIRST_PERIOD: Duration = Duration::from_millis(250);

/// The most sessions whose processes are watched through the kernel: each costs a descriptor or two.
const MAX_WATCHES: usize = 128;

/// The most sessions that are looked after for no other reason than that somebody shows them: so many records at most are
/// read in each period. Of more, the keeper looks after the rest.
const MAX_SHOWN: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Observer {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    seen: Observations,
    infos: BTreeMap<SessionId, SessionInfo>,
    watches: BTreeMap<SessionId, Watch>,
    /// Sessions whose lock file proved nothing, or whose death could not be written down, and until when that is not
    /// tried again: they are as good as unwatched.
    in_vain: BTreeMap<SessionId, Timestamp>,
    /// Dead sessions after which is cleared up once more.
    again: BTreeMap<SessionId, Again>,
    stopped: bool,
}

/// When is cleared up again after a dead session.
#[derive(Clone, Copy, Debug)]
struct Again {
    /// The next time: the last, or soon, if the latest failed.
    next: Timestamp,
    /// The last time: a request that was still on its way when the session died may have been granted since.
    last: Timestamp,
}

/// The task that watches a process through the kernel.
#[derive(Debug)]
struct Watch {
    task: Task,
    /// It has its proof, and declares the session dead: what finds that out by other means does not end it.
    buries: bool,
}

impl Observer {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn known_dead(&self) -> Vec<SessionId> {
        self.with(|state| state.seen.dead())
    }

    pub(super) fn saw_renewal(&self, id: SessionId, since: Timestamp) -> bool {
        self.with(|state| state.seen.has_renewed_since(id, since))
    }

    pub(super) fn watched(&self) -> usize {
        self.with(|state| state.watches.values().filter(|watch| !watch.task.is_finished()).count())
    }

    pub(super) fn stop(&self) {
        self.with(|state| {
            state.stopped = true;
            for watch in std::mem::take(&mut state.watches).into_values() {
                watch.task.abort();
            }
        });
    }
}

/// The session waits in this queue: if it is near the head, it looks after those before it. Says whether it does.
pub(super) fn observe_queue(session: &Arc<Session>, entry: &Entry, view: &ClaimView) -> bool {
    let near = view.head.iter().take(OBSERVERS).any(|waiter| waiter == entry);
    if near {
        want(session, before_all(view));
    }
    near
}

/// The sessions of the holder and of those at the head.
pub(super) fn before_all(view: &ClaimView) -> impl Iterator<Item = SessionId> + '_ {
    view.holder.iter().chain(&view.head).map(|entry| entry.session)
}

/// Clears up after those of these sessions that are dead already.
///
/// Nobody else may be left who does: whoever declared them dead has died before that was done, and so have those who
/// look after a queue's head, for they are its head.
pub(super) async fn clear_up_after(session: &Arc<Session>, ids: Vec<SessionId>) -> Result<()> {
    for record in session.store().sessions(SessionQuery::Ids(ids)).await? {
        if record.vitality == Vitality::Dead {
            clear_up(session, record.id).await?;
        }
    }
    Ok(())
}

/// Observes these sessions from now on, for as long as two ttls after the latest call.
pub(super) fn want(session: &Arc<Session>, ids: impl IntoIterator<Item = SessionId>) {
    let now = session.env().now();
    let keep = session.timing().ttl * 2;
    let news = session.observer.with(|state| {
        let mut news = false;
        for id in ids.into_iter().filter(|id| *id != session.id()) {
            state.seen.want(now, id, keep);
            news |= state.seen.sighting(now, id) == Sighting::Unknown;
        }
        news
    });
    if news {
        session.observer.wake.notify_one();
    }
}

/// Observes until it is aborted.
pub(super) async fn run(session: Arc<Session>) {
    let mut last_read = session.env().now();
    loop {
        let mut shown = std::pin::pin!(session.setup.shown.changed());
        shown.as_mut().enable();
        look_after_shown(&session);
        let (anything, period, eligible_at, again_at) = session.observer.with(|state| {
            let now = session.env().now();
            let anything = !state.seen.to_read(now).is_empty() || !state.again.is_empty();
            let again_at = state.again.values().map(|again| again.next).min();
            (anything, state.seen.period().unwrap_or(FIRST_PERIOD), state.seen.next_deadline(), again_at)
        });
        let wake = session.observer.wake.notified();
        if anything {
            let regular = last_read + period;
            // One read exactly when a session becomes eligible, so that a death costs little more than its ttl.
            let next = eligible_at.filter(|at| *at > last_read).map_or(regular, |at| at.min(regular));
            let next = again_at.map_or(next, |at| at.max(last_read + FIRST_PERIOD).min(next));
            tokio::select! {
                biased;
                () = wake => {}
                () = session.env().sleep_until(next) => {}
                // Not a reason to read at once: they may come by the hundred.
                () = shown => continue,
            }
        } else {
            tokio::select! {
                biased;
                () = wake => {}
                () = shown => continue,
            }
        }
        last_read = session.env().now();
        if let Err(error) = read(&session).await {
            tracing::debug!(%error, "the sessions of others could not be read");
        }
        if let Err(error) = clear_up_again(&session).await {
            tracing::debug!(%error, "what dead sessions may have left could not be read");
        }
    }
}

/// Looks after the sessions that somebody shows. Through the kernel where that can be, which costs the store nothing;
/// the others are observed.
fn look_after_shown(session: &Arc<Session>) {
    let unwatched: Vec<SessionId> = session
        .setup
        .shown
        .sessions(MAX_SHOWN)
        .iter()
        .filter(|(id, info)| **id != session.id() && !is_buried(session, **id) && !watch_process(session, **id, info))
        .map(|(id, _)| *id)
        .collect();
    let (now, keep) = (session.env().now(), session.timing().ttl * 2);
    session.observer.with(|state| {
        for id in unwatched {
            state.seen.want(now, id, keep);
        }
    });
}

/// Whether this session was declared dead here: who shows it is about to hear of it.
fn is_buried(session: &Session, id: SessionId) -> bool {
    session.observer.with(|state| state.again.contains_key(&id) || state.seen.is_dead(id))
}

/// What [`Mutant::WallClockExpiry`] and [`Mutant::ServerClockExpiry`] believe.
fn expired_by_date(records: &BTreeMap<SessionId, SessionRecord>, now: WallTime) -> Vec<(SessionId, KillProof)> {
    let expired = |r: &&SessionRecord| now.0 > r.seen.0.saturating_add(r.ttl.as_millis() as i64);
    let live = records.values().filter(|r| r.vitality == Vitality::Live);
    live.filter(expired).map(|r| (r.id, KillProof::Observed(r.nonce))).collect()
}

async fn clear_up_again(session: &Arc<Session>) -> Result<()> {
    let begun = session.env().now();
    let due: Vec<SessionId> = session
        .observer
        .with(|state| state.again.iter().filter(|(_, again)| again.next <= begun).map(|(id, _)| *id).collect());
    for id in due {
        // A store that does not answer would not answer about the others, and they must not keep those waiting who are to
        // be observed: they are due still.
        sweep(session, id).await.inspect_err(|_| sweep_soon(session, id))?;
        session.observer.with(|state| match state.again.get_mut(&id) {
            Some(again) if again.last > begun => again.next = again.last,
            _ => {
                state.again.remove(&id);
            }
        });
    }
    Ok(())
}

/// It is not known whether all that a dead session had is free. The longer that goes on, the longer are the pauses.
fn sweep_soon(session: &Session, id: SessionId) {
    let (now, timing) = (session.env().now(), session.timing());
    session.observer.with(|state| {
        if let Some(again) = state.again.get_mut(&id) {
            let since_death = now.since(again.last - timing.ttl);
            again.next = now + since_death.min(timing.renew_every).max(FIRST_PERIOD);
        }
    });
}

/// Reads all sessions of interest once, and buries those that turn out to be dead.
async fn read(session: &Arc<Session>) -> Result<()> {
    let sent = session.env().now();
    let ids = session.observer.with(|state| state.seen.to_read(sent));
    if ids.is_empty() {
        return Ok(());
    }
    let mut asked = ids.clone();
    if mutants::on(Mutant::ServerClockExpiry) {
        asked.push(session.id());
    }
    let records = session.store().sessions(SessionQuery::Ids(asked)).await?;
    let records: BTreeMap<SessionId, SessionRecord> = records.into_iter().map(|r| (r.id, r)).collect();
    let answered = session.env().now();
    let mut died = Vec::new();
    let eligible = session.observer.with(|state| {
        for id in &ids {
            let record = records.get(id);
            if record.is_none() && mutants::on(Mutant::MissingIsDead) {
                died.push(*id);
            }
            state.seen.on_read(sent, answered, *id, record, session.timing().ttl);
            if let Some(record) = record {
                state.infos.insert(*id, record.info.clone());
                if record.vitality == Vitality::Dead {
                    died.push(*id);
                }
            }
        }
        let wanted = ids.iter().copied().collect::<std::collections::BTreeSet<_>>();
        state.infos.retain(|id, _| wanted.contains(id));
        if mutants::on(Mutant::WallClockExpiry) {
            return expired_by_date(&records, session.env().clock.wall());
        }
        if mutants::on(Mutant::ServerClockExpiry) {
            // The store dates each renewal: the latest of one's own is as near to its date as a client comes.
            let now = records.get(&session.id()).map_or(WallTime(0), |own| own.seen);
            return expired_by_date(&records, now);
        }
        state.seen.eligible()
    });
    // All of them, also when one of them cannot be read, or the store fails in the middle: those that have died are known
    // to be dead now, and are not read again.
    let mut failed = None;
    for id in died {
        if let Err(error) = clear_up(session, id).await {
            failed.get_or_insert(error);
        }
    }
    for (id, proof) in eligible {
        tracing::info!(session = %id, "no sign of life for longer than its ttl; declaring it dead");
        if let Err(error) = bury(session, id, proof).await {
            failed.get_or_insert(error);
        }
    }
    for (id, record) in &records {
        if record.vitality == Vitality::Live && *id != session.id() {
            watch_process(session, *id, &record.info);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Declares a session dead, if the proof still holds in the store, and clears up after it. Says whether it is dead.
async fn bury(session: &Arc<Session>, id: SessionId, proof: KillProof) -> Result<bool> {
    let killed = session.store().apply_session(id, SessionStep::Kill(proof)).await;
    if killed.is_err() && mutants::on(Mutant::AssumeKilled) {
        clear_up(session, id).await?;
    }
    let record = killed?;
    let dead = record.is_some_and(|r| r.vitality == Vitality::Dead);
    if dead {
        session.stats().count_kill();
        failpoints::at(Point::DeadBuried);
        clear_up(session, id).await?;
        failpoints::at(Point::DeadSwept);
    }
    Ok(dead)
}

/// Takes a dead session out of every claim, our own waits first.
async fn clear_up(session: &Arc<Session>, id: SessionId) -> Result<()> {
    session.observer.with(|state| {
        state.seen.on_dead(id);
        // A task that is dropped goes on: it would wait, with its descriptors, until the process ends. But the one that
        // buries may be the very one that runs here; it ends after its last await.
        if let Some(watch) = state.watches.remove(&id).filter(|watch| !watch.buries) {
            watch.task.abort();
        }
        let last = session.env().now() + session.timing().ttl;
        if !mutants::on(Mutant::ClearOnce) {
            state.again.insert(id, Again { next: last, last });
        }
    });
    if let Some(directory) = &session.setup.run_directory {
        super::kernel_lock::remove_file_of_dead(directory, id);
    }
    failpoints::at(Point::DeadFileRemoved);
    let swept = sweep(session, id).await.inspect_err(|_| sweep_soon(session, id));
    // Whoever is to do it again may wait for nothing but news.
    session.observer.wake.notify_one();
    swept
}

/// Takes it out of every claim that can be changed. What is wrong with one claim keeps no other.
async fn sweep(session: &Arc<Session>, id: SessionId) -> Result<()> {
    let claims = session.store().claims(ClaimQuery::Of(id)).await?;
    let waiting = session.claims().waiting_since(session.env().now() + Duration::from_nanos(1));
    let mut unclear = None;
    for claim in claims {
        let own = waiting.iter().find(|attempt| attempt.key == claim.key);
        let swept = match own {
            Some(attempt) => claims::ask_again(session, attempt, vec![id]).await,
            None => session.store().apply_claim(claim.key.clone(), ClaimStep::Step(Step::sweep(id))).await.map(|_| ()),
        };
        match swept {
            Err(error) if error.ambiguous() => {
                unclear.get_or_insert(error);
            }
            // Waiting does not cure it.
            Err(error) => tracing::debug!(%error, claim = %claim.key, "a dead session could not be taken out of it"),
            Ok(()) => {}
        }
    }
    unclear.map_or(Ok(()), Err)
}

/// Watches the process of a session on this host, if its lock file is one that can prove something. Says whether it is
/// watched. What was in vain is tried again once per period at most.
fn watch_process(session: &Arc<Session>, id: SessionId, info: &SessionInfo) -> bool {
    if session.observer.with(|state| state.watches.get(&id).is_some_and(|watch| !watch.task.is_finished())) {
        return true;
    }
    if !may_watch(session, id) {
        return false;
    }
    let Some(mut watch) = open_watch(session, id, info) else { return false };
    if !watch.can_prove() {
        was_in_vain(session, id);
        return false;
    }
    let watcher = session.clone();
    session.observer.with(|state| {
        if !state.stopped {
            // In one lock, so that the task finds itself in the table however soon it ends.
            let task = session.env().spawn(async move {
                let ring = watch.freed(watcher.timing().ttl).await;
                // What it keeps open is of no more use.
                drop(watch);
                end_watch(&watcher, id, ring).await;
            });
            state.watches.insert(id, Watch { task, buries: false });
        }
    });
    true
}

/// A watch has its proof, or never will.
async fn end_watch(session: &Arc<Session>, id: SessionId, ring: Option<Vec<Nonce>>) {
    let dead = match ring {
        Some(ring) => {
            let known = session.observer.with(|state| state.watches.get_mut(&id).map(|watch| watch.buries = true));
            // Somebody else has buried it in this moment.
            let Some(()) = known else { return };
            bury_freed(session, id, ring).await
        }
        None => false,
    };
    if !dead {
        was_in_vain(session, id);
    }
    session.observer.with(|state| state.watches.remove(&id));
    // Whoever is not dead is looked after in another way from now on.
    session.observer.wake.notify_one();
}

/// Buries a session whose kernel lock is free. Says whether it is dead.
async fn bury_freed(session: &Arc<Session>, id: SessionId, ring: Vec<Nonce>) -> bool {
    failpoints::at(Point::DeathProven);
    tracing::debug!(session = %id, "the kernel has let go of its lock; declaring it dead");
    match bury(session, id, KillProof::KernelLock(ring)).await {
        Ok(true) => true,
        Ok(false) => {
            tracing::debug!(session = %id, "it has renewed elsewhere since; only observation can tell");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "a dead session could not be buried; observation will");
            false
        }
    }
}

fn was_in_vain(session: &Session, id: SessionId) {
    let until = session.env().now() + session.timing().renew_every;
    session.observer.with(|state| state.in_vain.insert(id, until));
}

fn may_watch(session: &Session, id: SessionId) -> bool {
    let now = session.env().now();
    session.observer.with(|state| {
        state.watches.retain(|_, watch| !watch.task.is_finished());
        state.in_vain.retain(|_, until| *until > now);
        !state.stopped && state.watches.len() < MAX_WATCHES && !state.in_vain.contains_key(&id)
    })
}

fn open_watch(session: &Session, id: SessionId, info: &SessionInfo) -> Option<DeathWatch> {
    let directory = session.setup.run_directory.as_ref()?;
    if info.host != session.info().host || info.pid == session.info().pid {
        return None;
    }
    DeathWatch::open(directory, id, info, session.store().capabilities().kernel_locks_trusted)
}

/// What is known of a session at this moment: reads it unless it is observed already, and tries to prove its death
/// if its process ran on this host.
pub(super) async fn look_at(session: &Arc<Session>, id: SessionId) -> Result<(SessionInfo, HolderState, Duration)> {
    want(session, [id]);
    let cached = session.observer.with(|state| state.infos.get(&id).cloned());
    let info = match cached {
        Some(info) => info,
        None => {
            let sent = session.env().now();
            let record = session.store().sessions(SessionQuery::Ids(vec![id])).await?.pop();
            let answered = session.env().now();
            session.observer.with(|state| {
                state.seen.on_read(sent, answered, id, record.as_ref(), session.timing().ttl);
                let info = record.map(|r| r.info).unwrap_or_default();
                state.infos.insert(id, info.clone());
                info
            })
        }
    };
    let ttl = session.timing().ttl;
    let proof = open_watch(session, id, &info).and_then(|mut watch| watch.freed(ttl).now_or_never().flatten());
    if let Some(ring) = proof {
        bury(session, id, KillProof::KernelLock(ring)).await?;
    }
    Ok(known(session, id).unwrap_or((info, HolderState::Live, Duration::ZERO)))
}

/// Whether a session has renewed within a third of its ttl, as this client itself has seen: waits for up to that long
/// to see it. A session that is only missing or dead has not.
pub(super) async fn renews(session: &Arc<Session>, id: SessionId) -> Result<bool> {
    if id == session.id() {
        return Ok(session.is_live());
    }
    want(session, [id]);
    let began = session.env().now();
    loop {
        let sent = session.env().now();
        let record = session.store().sessions(SessionQuery::Ids(vec![id])).await?.pop();
        let answered = session.env().now();
        let Some(ttl) = record.as_ref().filter(|r| r.vitality == Vitality::Live).map(|r| r.ttl) else {
            return Ok(false);
        };
        let window = ttl / 3;
        let renewed = session.observer.with(|state| {
            state.seen.on_read(sent, answered, id, record.as_ref(), session.timing().ttl);
            state.seen.has_renewed_since(id, answered - window)
        });
        if renewed || answered.since(began) >= window {
            return Ok(renewed);
        }
        session.env().sleep((ttl / 60).max(SHORTEST_LOOK)).await;
    }
}

/// How often [`renews`] looks, at most.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);

/// What is known of a session without asking anybody; none before it was read for the first time.
pub(super) fn known(session: &Session, id: SessionId) -> Option<(SessionInfo, HolderState, Duration)> {
    let now = session.env().now();
    let (info, sighting) = session.observer.with(|state| (state.infos.get(&id).cloned(), state.seen.sighting(now, id)));
    let info = info?;
    Some(match sighting {
        Sighting::Dead => (info, HolderState::Dead, Duration::ZERO),
        Sighting::Unchanged(time) if time > session.timing().renew_every * 3 / 2 => (info, HolderState::Silent, time),
        Sighting::Unchanged(time) => (info, HolderState::Live, time),
        Sighting::Unknown => (info, HolderState::Live, Duration::ZERO),
    })
}

#[cfg(test)]
mod tests;
