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
//!
//! `sync` is named by the session, so that `tests/concurrency` can play these files in every order of their steps.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::error::{Error, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimView, Entry, Priority};
use crate::session::Session;
use crate::session::sync::{Mutex, MutexGuard};
use crate::time::{Timestamp, WallTime};

mod acquire;
mod hold;
mod withdraw;

pub(crate) use acquire::{acquire, ask_again, queue_full};
pub(crate) use hold::Hold;
use hold::HoldState;

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
    /// The client is closed: what is not here now never comes, and nothing becomes a hold any more.
    closed: bool,
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
    /// Whether it was asked for again while it was withdrawn: the withdrawal may have been there first.
    late: bool,
}

#[derive(Debug)]
enum Phase {
    /// Asked for or queued. Told of the grant; dropped when the session is lost. Whom it is behind lies elsewhere, for
    /// every hold takes as much room as the largest phase.
    Waiting { granted: Grant, max_queue: u32, queued_since: Option<Timestamp>, behind: Option<Box<Behind>> },
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

/// How many attempts of the user's there are, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) held: usize,
    pub(crate) waiting: usize,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A notice says that `entry` was granted `key`. Returns whether that is as it should be: otherwise nobody here
    /// knows of it.
    pub(crate) fn on_notice(&self, session: &Arc<Session>, key: &ClaimKey, entry: &Entry, token: i64) -> bool {
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
    ///
    /// A newer token than that of its hold says that the hold was broken, and that this attempt was asked for again
    /// before it was known to have been granted: the hold is lost and, with what was granted since, given up.
    pub(crate) fn on_granted(&self, session: &Arc<Session>, key: &ClaimKey, entry: &Entry, token: i64) -> bool {
        let mut table = self.lock();
        let Some(attempt) = table.attempts.get_mut(&entry.attempt).filter(|a| a.entry == *entry && a.key == *key)
        else {
            return false;
        };
        if attempt.token.is_some_and(|known| known > token) {
            // A notice that is late.
            return true;
        }
        attempt.token = Some(token);
        let mut broken = None;
        attempt.phase = match std::mem::replace(&mut attempt.phase, Phase::Delivered) {
            // A pending one, too: a renewal that was late, but not too late, makes nothing live that was not, and so
            // tells nobody.
            Phase::Waiting { granted, .. } | Phase::Pending { granted, .. }
                if session.is_live() || mutants::on(Mutant::NoCheckAfterGrant) =>
            {
                failpoints::at(Point::GrantPublish);
                // A receiver that is gone withdraws the attempt itself.
                let _ = granted.send(Ok(token));
                failpoints::at(Point::GrantPublished);
                Phase::Delivered
            }
            Phase::Waiting { granted, .. } | Phase::Pending { granted, .. } => Phase::Pending { granted, token },
            Phase::Held { hold, since } => {
                broken = (hold.token < token).then(|| hold.clone());
                Phase::Held { hold, since }
            }
            phase => phase,
        };
        drop(table);
        if let Some(hold) = broken {
            hold.end(session, LossReason::Broken);
        }
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
        if hold.begin_break() {
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
            let behind_of = |holder| Box::new(Behind { holder, token: view.token, granted_at: view.granted_at });
            *behind = view.holder.map(behind_of);
        }
    }

    /// Who held this claim when this session last heard of its queue.
    pub(crate) fn behind(&self, key: &ClaimKey) -> Option<Behind> {
        let behind = |attempt: &Attempt| match &attempt.phase {
            Phase::Waiting { behind, .. } if attempt.key == *key => behind.as_deref().copied(),
            _ => None,
        };
        self.lock().attempts.values().find_map(behind)
    }

    /// The store no longer lets this entry wait.
    pub(crate) fn fail(&self, entry: &Entry, error: Error) {
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
        let there: HashSet<(&ClaimKey, Entry, i64)> =
            held.iter().filter_map(|record| Some((&record.key, record.holder?, record.token))).collect();
        let gone: Vec<Arc<HoldState>> = {
            let table = self.lock();
            let missing = |attempt: &Attempt| match &attempt.phase {
                Phase::Held { hold, since } if *since < began => {
                    let there = there.contains(&(&attempt.key, attempt.entry, hold.token));
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

    /// The store shows this entry, which was asked for again. Returns whether nobody here knows it any more. One that is
    /// being withdrawn is taken out once more after that.
    fn is_left_behind(&self, entry: &Entry) -> bool {
        match self.lock().attempts.get_mut(&entry.attempt) {
            Some(attempt) => {
                attempt.late |= matches!(attempt.phase, Phase::Ending);
                false
            }
            None => true,
        }
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
        // The keeper's place is not the user's doing.
        for attempt in self.lock().attempts.values().filter(|attempt| attempt.key.as_str() != KEEPER) {
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

    /// The entry is out of the store. Returns whether it may have come back since.
    fn forget(&self, entry: &Entry) -> bool {
        let mut table = self.lock();
        let forgotten = table.attempts.remove(&entry.attempt);
        if let Some(Attempt { token: Some(token), noticed: false, .. }) = &forgotten {
            table.unnoticed.insert(entry.attempt, *token);
            if table.unnoticed.len() > MAX_UNNOTICED {
                // Not every grant has a notice; the oldest is the least likely to come.
                table.unnoticed.pop_first();
            }
        }
        if table.attempts.is_empty() {
            drop(table);
            self.emptied.notify_waiters();
        }
        forgotten.is_some_and(|attempt| attempt.late)
    }

    /// The client is closed: whoever waits fails, what is held is lost and given up.
    pub(crate) fn close(&self, session: &Arc<Session>) {
        self.lock().closed = true;
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

/// The key of the keeper's claim. Its namespace cannot clash with a user's: the kind is not one of theirs.
pub(crate) const KEEPER: &str = "keeper/coord/coord/keeper";

/// How many notices may be late at a time before one is taken for news.
const MAX_UNNOTICED: usize = 4096;

/// Pauses before something is asked again whose outcome is unknown.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A claim's key in words: `lock 'default/default/a'`.
pub(crate) fn describe(key: &ClaimKey) -> String {
    let kind = key.as_str().split('/').next().unwrap_or_default();
    format!("{kind} '{}'", key.name())
}
