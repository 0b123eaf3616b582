//! The client's side of claims: the attempts of one session to hold something, and the holds that came of them.
//! Locks and elections are built on it.
//!
//! Invariants:
//! - an attempt is in the table from before its step is sent until its removal is acknowledged, so an entry of this
//!   session in the store that is not in the table is a late duplicate, and may be removed;
//! - a grant becomes a hold only while the session is live, however it was learnt; until then it is kept;
//! - a hold is valid only in the epoch of the session in which it was made: once the deadline has passed it is lost
//!   for good, even if nobody looked and the session came back;
//! - whatever a future that is dropped leaves behind is withdrawn in the background.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::error::{Code, Error, LossReason, Result};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep, ClaimView, Entry, Priority, Step};
use crate::protocol::session::{SessionId, SessionState};
use crate::session::Session;
use crate::store::Store;
use crate::time::{Timestamp, WallTime};

/// How a session wants to acquire a claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) wait: bool,
    pub(crate) max_queue: u32,
    pub(crate) priority: Priority,
}

/// What came of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    Held(Hold),
    /// It is held and the attempt does not wait, or too many wait already.
    Refused(ClaimView),
}

/// All attempts of one session.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    table: Mutex<Table>,
    /// The last attempt has left the table.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next_attempt: u64,
    attempts: BTreeMap<u64, Attempt>,
    /// Grants of attempts that have left the table before their notice came, by attempt: the notice is not news then.
    unnoticed: BTreeMap<u64, i64>,
}

#[derive(Debug)]
struct Attempt {
    key: ClaimKey,
    entry: Entry,
    phase: Phase,
    /// The token of its grant, once that is known.
    token: Option<i64>,
    /// Whether the store's notice of the grant has come.
    noticed: bool,
    /// The token of the grant that an operator wants to end, when that was heard of before there was a hold of it.
    breaking: Option<i64>,
}

#[derive(Debug)]
enum Phase {
    /// Asked for or queued. Told of the grant; dropped when the session is lost.
    Waiting { granted: Grant, max_queue: u32, queued_since: Option<Timestamp>, behind: Option<Behind> },
    /// Granted while the session was not live: told as soon as it is again.
    Pending { granted: Grant, token: i64 },
    /// The waiting future knows its token, and is about to make a hold of it.
    Delivered,
    /// A hold of the user's.
    Held { hold: Arc<HoldState>, since: Timestamp },
    /// Being withdrawn.
    Ending,
}

/// Who a waiting attempt is behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    pub(crate) holder: Entry,
    pub(crate) token: i64,
    pub(crate) granted_at: WallTime,
}

/// Tells a waiting future its token, or why it never gets one.
type Grant = oneshot::Sender<Result<i64>>;

/// What a waiting attempt asked for: enough to ask again.
pub(crate) struct WaitingAttempt {
    pub(crate) key: ClaimKey,
    pub(crate) entry: Entry,
    pub(crate) max_queue: u32,
}

/// How many attempts there are, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) held: usize,
    pub(crate) waiting: usize,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(
        &self,
        session: &Arc<Session>,
        key: &ClaimKey,
        want: &Want,
    ) -> (Registered, oneshot::Receiver<Result<i64>>) {
        let (granted, receiver) = oneshot::channel();
        let mut table = self.lock();
        let attempt = table.next_attempt;
        table.next_attempt += 1;
        let entry = Entry { session: session.id(), attempt, priority: want.priority };
        let phase = Phase::Waiting { granted, max_queue: want.max_queue, queued_since: None, behind: None };
        table
            .attempts
            .insert(attempt, Attempt { key: key.clone(), entry, phase, token: None, noticed: false, breaking: None });
        (Registered { session: session.clone(), key: key.clone(), entry, armed: true }, receiver)
    }

    /// A notice says that `entry` was granted `key`. Returns whether that is as it should be: otherwise nobody here
    /// knows of it.
    pub(crate) fn on_notice(&self, session: &Session, key: &ClaimKey, entry: &Entry, token: i64) -> bool {
        if self.on_granted(session, key, entry, token) {
            if let Some(attempt) = self.lock().attempts.get_mut(&entry.attempt) {
                attempt.noticed = true;
            }
            return true;
        }
        let mut table = self.lock();
        let late = table.unnoticed.get(&entry.attempt) == Some(&token);
        if late {
            table.unnoticed.remove(&entry.attempt);
        }
        late
    }

    /// The store says that `entry` holds `key` with this token. Returns whether the entry is known.
    pub(crate) fn on_granted(&self, session: &Session, key: &ClaimKey, entry: &Entry, token: i64) -> bool {
        let mut table = self.lock();
        let Some(attempt) = table.attempts.get_mut(&entry.attempt).filter(|a| a.entry == *entry && a.key == *key)
        else {
            return false;
        };
        attempt.token = Some(token);
        attempt.phase = match std::mem::replace(&mut attempt.phase, Phase::Delivered) {
            Phase::Waiting { granted, .. } if session.is_live() || mutants::on(Mutant::NoCheckAfterGrant) => {
                // A receiver that is gone withdraws the attempt itself.
                let _ = granted.send(Ok(token));
                Phase::Delivered
            }
            Phase::Waiting { granted, .. } | Phase::Pending { granted, .. } => Phase::Pending { granted, token },
            phase => phase,
        };
        true
    }

    /// An operator wants this hold to end: it is lost at once, and given up when the user's code has ended, or after a
    /// ttl if that does not happen. It is this client that gives it up and nobody else, so the next holder never
    /// begins while this one still believes.
    pub(crate) fn on_breaking(&self, session: &Arc<Session>, entry: &Entry, token: i64) {
        let hold = match self.lock().attempts.get_mut(&entry.attempt).filter(|attempt| attempt.entry == *entry) {
            Some(Attempt { phase: Phase::Held { hold, .. }, .. }) if hold.token == token => hold.clone(),
            // The grant is on its way still: it is never made a hold.
            Some(Attempt {
                phase: Phase::Waiting { .. } | Phase::Pending { .. } | Phase::Delivered, breaking, ..
            }) if !mutants::on(Mutant::EarlyBreakForgotten) => {
                *breaking = Some(token);
                return;
            }
            _ => return,
        };
        if mutants::on(Mutant::BreakUnheard) {
            return;
        }
        if hold.lose(LossReason::Broken) {
            let session = session.clone();
            session.env().clone().spawn(async move {
                session.env().sleep(session.timing().ttl).await;
                hold.give_up(&session);
            });
        }
    }

    /// The session was suspended: every hold that was made before this epoch is lost for good.
    pub(crate) fn on_suspended(&self, epoch: u64) {
        for hold in self.holds() {
            if hold.epoch < epoch && !mutants::on(Mutant::HoldsRevive) {
                hold.lose(LossReason::Expired);
            }
        }
    }

    /// The store has queued this entry.
    pub(crate) fn on_queued(&self, entry: &Entry, now: Timestamp, view: &ClaimView) {
        if let Some(Attempt { phase: Phase::Waiting { queued_since, behind, .. }, .. }) =
            self.lock().attempts.get_mut(&entry.attempt)
        {
            queued_since.get_or_insert(now);
            *behind = view.holder.map(|holder| Behind { holder, token: view.token, granted_at: view.granted_at });
        }
    }

    /// Who held this claim when this session last heard of its queue.
    pub(crate) fn behind(&self, key: &ClaimKey) -> Option<Behind> {
        let behind = |attempt: &Attempt| match &attempt.phase {
            Phase::Waiting { behind, .. } if attempt.key == *key => *behind,
            _ => None,
        };
        self.lock().attempts.values().find_map(behind)
    }

    /// The store no longer lets this entry wait.
    fn fail(&self, entry: &Entry, error: Error) {
        let mut table = self.lock();
        let Some(attempt) = table.attempts.get_mut(&entry.attempt) else { return };
        attempt.phase = match std::mem::replace(&mut attempt.phase, Phase::Ending) {
            Phase::Waiting { granted, .. } => {
                let _ = granted.send(Err(error));
                Phase::Ending
            }
            phase => phase,
        };
    }

    /// The session is live again: what was granted in the meantime is handed out.
    pub(crate) fn on_live(&self) {
        let mut table = self.lock();
        for attempt in table.attempts.values_mut() {
            attempt.phase = match std::mem::replace(&mut attempt.phase, Phase::Delivered) {
                Phase::Pending { granted, token } => {
                    let _ = granted.send(Ok(token));
                    Phase::Delivered
                }
                phase => phase,
            };
        }
    }

    /// The session is over: whoever waits fails, whoever holds is told.
    pub(crate) fn on_lost(&self, reason: LossReason) {
        self.lose_all(reason);
        let mut table = self.lock();
        for attempt in table.attempts.values_mut() {
            if matches!(attempt.phase, Phase::Waiting { .. } | Phase::Pending { .. }) {
                attempt.phase = Phase::Ending;
            }
        }
    }

    pub(crate) fn lose_all(&self, reason: LossReason) {
        for hold in self.holds() {
            hold.lose(reason);
        }
    }

    /// Compares the claims that the store says this session holds with the table. Returns the entries that nobody
    /// here knows, and tells the holds that are not in the store any more. `began` is when the read was sent.
    pub(crate) fn audit(
        &self,
        session: &Arc<Session>,
        began: Timestamp,
        held: &[ClaimRecord],
    ) -> Vec<(ClaimKey, Entry)> {
        let mut unknown = Vec::new();
        for record in held {
            if let Some(entry) = record.holder.filter(|h| h.session == session.id())
                && !self.on_granted(session, &record.key, &entry, record.token)
            {
                unknown.push((record.key.clone(), entry));
            }
            if let Some(entry) = record.breaking {
                self.on_breaking(session, &entry, record.token);
            }
        }
        let gone: Vec<Arc<HoldState>> = {
            let table = self.lock();
            let missing = |attempt: &Attempt| match &attempt.phase {
                Phase::Held { hold, since } if *since < began => {
                    let there = held
                        .iter()
                        .any(|r| r.key == attempt.key && r.holder == Some(attempt.entry) && r.token == hold.token);
                    (!there && !mutants::on(Mutant::EvictionUntold)).then(|| hold.clone())
                }
                _ => None,
            };
            table.attempts.values().filter_map(missing).collect()
        };
        // Whoever slept through its lease was declared dead, not broken.
        let reason = if session.is_live() { LossReason::Broken } else { LossReason::Expired };
        for hold in gone {
            hold.lose(reason);
        }
        unknown
    }

    /// The attempts that have been in a queue since before `moment`.
    pub(crate) fn waiting_since(&self, moment: Timestamp) -> Vec<WaitingAttempt> {
        let waits = |attempt: &Attempt| match attempt.phase {
            Phase::Waiting { queued_since: Some(since), max_queue, .. } if since < moment => {
                Some(WaitingAttempt { key: attempt.key.clone(), entry: attempt.entry, max_queue })
            }
            _ => None,
        };
        self.lock().attempts.values().filter_map(waits).collect()
    }

    fn is_waiting(&self, entry: &Entry) -> bool {
        self.lock().attempts.get(&entry.attempt).is_some_and(|a| matches!(a.phase, Phase::Waiting { .. }))
    }

    pub(crate) fn holds(&self) -> Vec<Arc<HoldState>> {
        let hold = |attempt: &Attempt| match &attempt.phase {
            Phase::Held { hold, .. } => Some(hold.clone()),
            _ => None,
        };
        self.lock().attempts.values().filter_map(hold).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().attempts.is_empty()
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for attempt in self.lock().attempts.values() {
            match attempt.phase {
                Phase::Held { .. } => counts.held += 1,
                Phase::Waiting { queued_since: Some(_), .. } | Phase::Pending { .. } => counts.waiting += 1,
                _ => {}
            }
        }
        counts
    }

    /// Whether this session has a valid hold of this claim now.
    pub(crate) fn has_valid(&self, session: &Session, key: &ClaimKey) -> bool {
        // Not in the table's lock: looking at a hold may find that the session is suspended, which needs it.
        self.holds().iter().any(|hold| hold.key == *key && hold.loss(session).is_none())
    }

    fn set_ending(&self, entry: &Entry) {
        if let Some(attempt) = self.lock().attempts.get_mut(&entry.attempt) {
            attempt.phase = Phase::Ending;
        }
    }

    fn forget(&self, entry: &Entry) {
        let mut table = self.lock();
        if let Some(Attempt { token: Some(token), noticed: false, .. }) = table.attempts.remove(&entry.attempt) {
            table.unnoticed.insert(entry.attempt, token);
            if table.unnoticed.len() > MAX_UNNOTICED {
                // Not every grant has a notice; the oldest is the least likely to come.
                table.unnoticed.pop_first();
            }
        }
        if table.attempts.is_empty() {
            drop(table);
            self.emptied.notify_waiters();
        }
    }

    /// The client is closed: whoever waits fails, what is held is lost and given up.
    pub(crate) fn close(&self, session: &Arc<Session>) {
        for hold in self.holds() {
            hold.end(session, LossReason::Closed);
        }
        let mut table = self.lock();
        for attempt in table.attempts.values_mut() {
            if matches!(attempt.phase, Phase::Waiting { .. } | Phase::Pending { .. }) {
                // Dropping the sender ends the wait, and the waiting future withdraws the attempt.
                attempt.phase = Phase::Ending;
            }
        }
    }

    /// Waits until every attempt is out of the table, and so out of the store.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().attempts.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

/// Acquires a claim for this session, or finds out that it cannot be had. Waits for as long as `want` says and the
/// session lives; dropping the future withdraws the attempt in the background.
pub(crate) async fn acquire(session: &Arc<Session>, key: &ClaimKey, want: &Want) -> Result<Outcome> {
    let (registered, mut granted) = session.claims().register(session, key, want);
    let mut pause = FIRST_PAUSE;
    loop {
        let step = Step::acquire(registered.entry, want.wait, want.max_queue, session.known_dead());
        match session.store().apply_claim(key.clone(), ClaimStep::Step(step)).await {
            Ok(Some(view)) => {
                if view.holder == Some(registered.entry) {
                    session.claims().on_granted(session, key, &registered.entry, view.token);
                    break;
                }
                if view.waiting {
                    session.claims().on_queued(&registered.entry, session.env().now(), &view);
                    session.observe_queue(&registered.entry, &view);
                    break;
                }
                // A notice may have told of a grant that was released for us in the meantime: not for a fresh entry.
                registered.forget();
                return Ok(Outcome::Refused(view));
            }
            Ok(None) => return Err(unconditional_refused(key)),
            Err(error) if error.ambiguous() && want.wait => {
                session.request_audit();
                tracing::debug!(claim = %key, %error, "asking again for a claim after an unknown outcome");
                let wait = session.env().jittered(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
                // The request may have been applied: then a notice comes.
                tokio::select! {
                    biased;
                    token = &mut granted => return deliver(registered, token),
                    () = session.env().sleep(wait) => {}
                }
            }
            Err(error) => {
                session.request_audit();
                return Err(error);
            }
        }
    }
    if !want.wait && !session.is_live() {
        return Err(Error::unavailable(format!("{} was granted while the session is suspended", describe(key))));
    }
    let token = granted.await;
    deliver(registered, token)
}

/// Asks again for an attempt that waits: after a session in its way has died, or when the store seems to have
/// forgotten it.
pub(crate) async fn ask_again(session: &Arc<Session>, attempt: &WaitingAttempt, dead: Vec<SessionId>) -> Result<()> {
    let WaitingAttempt { key, entry, max_queue } = attempt;
    if !session.claims().is_waiting(entry) {
        return Ok(());
    }
    let step = ClaimStep::Step(Step::acquire(*entry, true, *max_queue, dead));
    let Some(view) = session.store().apply_claim(key.clone(), step).await? else {
        return Err(unconditional_refused(key));
    };
    if view.holder == Some(*entry) {
        session.claims().on_granted(session, key, entry, view.token);
    } else if view.waiting {
        session.claims().on_queued(entry, session.env().now(), &view);
        session.observe_queue(entry, &view);
    } else {
        session.claims().fail(entry, queue_full(key, view.queue_len));
    }
    Ok(())
}

pub(crate) fn queue_full(key: &ClaimKey, waiting: u32) -> Error {
    Error::new(Code::QueueFull, format!("{waiting} wait for {} already, which is as many as may", describe(key)))
}

/// How many notices may be late at a time before one is taken for news.
const MAX_UNNOTICED: usize = 4096;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

fn unconditional_refused(key: &ClaimKey) -> Error {
    Error::new(Code::CorruptState, format!("the store refused an unconditional step on {key}"))
}

fn deliver(registered: Registered, token: Result<Result<i64>, oneshot::error::RecvError>) -> Result<Outcome> {
    let session = registered.session.clone();
    let Ok(token) = token else {
        return Err(match session.state() {
            SessionState::Lost(reason) => Error::lost(&format!("the wait for {}", registered.key), reason),
            _ => Error::closed("the client"),
        });
    };
    match registered.into_hold(token?) {
        Ok(hold) => Ok(Outcome::Held(hold)),
        // Suspended, or broken by an operator, in the very moment of the grant; the attempt is withdrawn, and the caller
        // may try anew.
        Err(reason) => Err(Error::lost("the grant", reason)),
    }
}

/// An attempt in the table. Dropping it withdraws the attempt in the background.
struct Registered {
    session: Arc<Session>,
    key: ClaimKey,
    entry: Entry,
    armed: bool,
}

impl Registered {
    /// Nothing of it is in the store.
    fn forget(mut self) {
        self.armed = false;
        self.session.claims().forget(&self.entry);
    }

    /// Makes a hold of a grant, if the session is live at this moment and no operator wants it to end.
    fn into_hold(mut self, token: i64) -> Result<Hold, LossReason> {
        let session = &self.session;
        let mut table = session.claims().lock();
        // In the table's lock: a suspension either is seen here, or finds the hold in the table.
        let epoch = match session.live_epoch() {
            None if mutants::on(Mutant::NoCheckAfterGrant) => 0,
            epoch => epoch.ok_or(LossReason::Expired)?,
        };
        let attempt = table.attempts.get_mut(&self.entry.attempt).ok_or(LossReason::Expired)?;
        if attempt.breaking == Some(token) {
            return Err(LossReason::Broken);
        }
        let state = Arc::new(HoldState {
            key: self.key.clone(),
            entry: self.entry,
            token,
            epoch,
            lost: OnceLock::new(),
            changed: Notify::new(),
            ended: AtomicBool::new(false),
            released: AtomicBool::new(false),
            managed: AtomicBool::new(false),
            publishing: tokio::sync::Mutex::new(()),
            value: Mutex::default(),
        });
        attempt.phase = Phase::Held { hold: state.clone(), since: session.env().now() };
        drop(table);
        self.armed = false;
        Ok(Hold { session: self.session.clone(), state })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.armed && !mutants::on(Mutant::AbandonedWaitStays) {
            drop(start_withdrawal(&self.session, &self.key, &self.entry, None));
        }
    }
}

/// A claim that this session holds. Dropping it releases in the background.
#[derive(Debug)]
pub(crate) struct Hold {
    session: Arc<Session>,
    state: Arc<HoldState>,
}

#[derive(Debug)]
pub(crate) struct HoldState {
    key: ClaimKey,
    entry: Entry,
    token: i64,
    epoch: u64,
    lost: OnceLock<LossReason>,
    changed: Notify,
    /// Given up in the store, or about to be.
    ended: AtomicBool,
    /// The user has released it.
    released: AtomicBool,
    /// A function runs under it: its end, not the client's closing, releases it.
    managed: AtomicBool,
    /// One value is written at a time, in the order in which they were given.
    publishing: tokio::sync::Mutex<()>,
    /// What was published last.
    value: Mutex<String>,
}

impl HoldState {
    /// Returns whether it was not lost before.
    fn lose(&self, reason: LossReason) -> bool {
        let news = self.lost.set(reason).is_ok();
        if news {
            match reason {
                // The user's own doing, who was told in the documentation.
                LossReason::Closed | LossReason::Resigned => {
                    tracing::debug!(claim = %self.key, token = self.token, reason = reason.name(), "a hold ends")
                }
                _ => tracing::warn!(claim = %self.key, token = self.token, reason = reason.name(), "a hold is lost"),
            }
            self.changed.notify_waiters();
        }
        news
    }

    /// Gives it up in the store, unless that has been done.
    fn give_up(&self, session: &Arc<Session>) {
        if !self.ended.swap(true, Relaxed) {
            drop(start_withdrawal(session, &self.key, &self.entry, None));
        }
    }

    /// Why it is not valid now, or none. Reads the clock; no I/O.
    #[inline]
    fn loss(&self, session: &Session) -> Option<LossReason> {
        if self.lost.get().is_none() && session.valid_in(self.epoch) {
            return None;
        }
        Some(self.lost.get().copied().unwrap_or_else(|| match session.state() {
            SessionState::Lost(reason) => reason,
            _ => LossReason::Expired,
        }))
    }

    pub(crate) fn is_managed(&self) -> bool {
        self.managed.load(Relaxed)
    }

    /// Loses the hold and, unless a function still runs under it, gives it up in the store.
    pub(crate) fn end(&self, session: &Arc<Session>, reason: LossReason) {
        self.lose(reason);
        if !self.is_managed() {
            self.give_up(session);
        }
    }
}

impl Hold {
    pub(crate) fn token(&self) -> i64 {
        self.state.token
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn key(&self) -> &ClaimKey {
        &self.state.key
    }

    pub(crate) fn entry(&self) -> Entry {
        self.state.entry
    }

    /// What was published last.
    pub(crate) fn value(&self) -> String {
        self.state.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_managed(&self) {
        self.state.managed.store(true, Relaxed);
    }

    pub(crate) fn is_released(&self) -> bool {
        self.state.released.load(Relaxed)
    }

    /// Why it is not valid now, or none. Reads the clock; no I/O.
    #[inline]
    pub(crate) fn loss(&self) -> Option<LossReason> {
        self.state.loss(&self.session)
    }

    /// How long it stays valid without another renewal; zero when it is lost.
    pub(crate) fn remaining(&self) -> Duration {
        match self.loss() {
            None => self.session.remaining(),
            Some(_) => Duration::ZERO,
        }
    }

    /// Waits until it is lost.
    pub(crate) async fn lost(&self) -> LossReason {
        loop {
            let changed = self.state.changed.notified();
            if let Some(reason) = self.loss() {
                return reason;
            }
            tokio::select! {
                biased;
                () = changed => {}
                // The renewal task tells; this is for the moment when it is the one that is late.
                () = self.session.env().sleep_until(self.session.deadline()) => {
                    if mutants::on(Mutant::TimerOnlyGuard) {
                        self.session.state();
                    }
                }
            }
        }
    }

    /// Gives it up. What was begun goes on in the background when the future is dropped.
    pub(crate) async fn release(&self) -> Result<()> {
        self.give_back(None).await.map(|_| ())
    }

    /// It is over here from now on, by its user's own wish: before anybody else can have it.
    pub(crate) fn resign(&self) {
        if !mutants::on(Mutant::TermKeptInHandOver) {
            self.state.lose(self.loss().unwrap_or(LossReason::Resigned));
        }
    }

    /// Gives it up to whoever is next, or to `to` if that one still waits. Says whether it went to `to`. Goes on in the
    /// background when the future is dropped.
    pub(crate) async fn give_back(&self, to: Option<Entry>) -> Result<bool> {
        let loss = self.loss().filter(|reason| *reason != LossReason::Resigned);
        if self.state.ended.swap(true, Relaxed) {
            return Err(self.gone_already());
        }
        self.state.released.store(true, Relaxed);
        let withdrawn = start_withdrawal(&self.session, &self.state.key, &self.state.entry, to).await;
        if let Some(reason) = loss {
            return Err(Error::lost(&self.describe(), reason));
        }
        match withdrawn {
            Withdrawn::Gone => Ok(false),
            Withdrawn::HandedOver => Ok(true),
            Withdrawn::WasNotThere => Err(Error::lost(&self.describe(), LossReason::Broken)),
            Withdrawn::SessionOver(reason) => Err(Error::lost(&self.describe(), reason)),
        }
    }

    /// The error of a release that comes too late: somebody else, or the user before, has given it up.
    fn gone_already(&self) -> Error {
        match self.state.lost.get() {
            Some(reason) if !self.state.released.swap(true, Relaxed) => Error::lost(&self.describe(), *reason),
            _ => Error::new(Code::NotHeld, format!("{} was released before", self.describe())),
        }
    }

    /// Writes a value beside the hold, and asks again until that is acknowledged or the hold is lost. Goes on in the
    /// background when the future is dropped, so that a later value is never overwritten by an earlier one.
    pub(crate) async fn publish(&self, value: &str) -> Result<()> {
        let published = publish(self.session.clone(), self.state.clone(), value.to_owned());
        let done = self.session.background().run(published);
        done.await.unwrap_or_else(|_| Err(Error::lost(&self.describe(), LossReason::Closed)))
    }

    pub(crate) fn describe(&self) -> String {
        describe(&self.state.key)
    }
}

/// A claim's key in words: `lock 'default/default/a'`.
pub(crate) fn describe(key: &ClaimKey) -> String {
    let kind = key.as_str().split('/').next().unwrap_or_default();
    format!("{kind} '{}'", key.name())
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.state.give_up(&self.session);
    }
}

/// How a withdrawal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// The entry is out of the store, by this withdrawal or by one whose answer was lost.
    Gone,
    /// The same, and the claim is the chosen one's.
    HandedOver,
    /// It was not in the store when the withdrawal came.
    WasNotThere,
    /// The session is over, and with it everything that it had.
    SessionOver(LossReason),
}

/// Begins to take an entry out of the store; what it holds goes to `to`, if that one waits. Goes on when the future
/// that tells the end is dropped.
fn start_withdrawal(
    session: &Arc<Session>,
    key: &ClaimKey,
    entry: &Entry,
    to: Option<Entry>,
) -> impl Future<Output = Withdrawn> + use<> {
    session.claims().set_ending(entry);
    let done = session.background().run(withdraw(session.clone(), key.clone(), *entry, to));
    async move { done.await.unwrap_or(Withdrawn::SessionOver(LossReason::Closed)) }
}

/// Takes an entry out of the store, and asks again until that is acknowledged or the session is over. Safe in every
/// state, since it names the attempt.
async fn withdraw(session: Arc<Session>, key: ClaimKey, entry: Entry, to: Option<Entry>) -> Withdrawn {
    let mut pause = FIRST_PAUSE;
    let mut doubtful = false;
    let mut overtaken = false;
    // With a chosen successor first the hand-over. One that is refused is followed by a plain removal: either the
    // successor has gone, or a hand-over whose answer was lost has been applied.
    let mut handing = to;
    let mut maybe_handed = false;
    let outcome = loop {
        if let SessionState::Lost(reason) = session.state() {
            break Withdrawn::SessionOver(reason);
        }
        let step = match handing {
            Some(to) => Step::transfer(entry, to),
            None => Step::remove(entry, session.known_dead()),
        };
        match session.store().apply_claim(key.clone(), ClaimStep::Step(step)).await {
            Ok(Some(_)) if handing.is_some() => break Withdrawn::HandedOver,
            Ok(None) if handing.is_some() => {
                handing = None;
                maybe_handed = doubtful;
            }
            Ok(None) if maybe_handed => break Withdrawn::HandedOver,
            Ok(view) => {
                overtaken = view.is_none();
                break if overtaken && !doubtful { Withdrawn::WasNotThere } else { Withdrawn::Gone };
            }
            Err(error) if error.code() == Code::Closed => break Withdrawn::SessionOver(LossReason::Closed),
            Err(error) => {
                doubtful = true;
                session.request_audit();
                tracing::debug!(claim = %key, %error, "withdrawing again after an unknown outcome");
                session.env().sleep(session.env().jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    };
    session.claims().forget(&entry);
    if overtaken {
        // The acquire may come after its withdrawal, and its grant may have been heard of while the entry was known.
        session.request_audit();
    }
    outcome
}

/// Writes a value beside a hold. The step applies only while this entry holds with this token, so sending it again
/// is harmless.
async fn publish(session: Arc<Session>, hold: Arc<HoldState>, value: String) -> Result<()> {
    let _turn = hold.publishing.lock().await;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(reason) = hold.loss(&session) {
            return Err(Error::lost(&describe(&hold.key), reason));
        }
        let step = ClaimStep::Publish { holder: hold.entry, token: hold.token, value: value.clone() };
        match session.store().apply_claim(hold.key.clone(), step).await {
            Ok(Some(_)) => {
                *hold.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
                return Ok(());
            }
            // Somebody else's already: the next audit tells the hold.
            Ok(None) => {
                session.request_audit();
                return Err(Error::lost(&describe(&hold.key), hold.loss(&session).unwrap_or(LossReason::Broken)));
            }
            Err(error) if error.ambiguous() => {
                tracing::debug!(claim = %hold.key, %error, "writing a value again after an unknown outcome");
                session.env().sleep(session.env().jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}
