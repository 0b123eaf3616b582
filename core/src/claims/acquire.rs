//! An attempt's way into the store: asked for, asked for again, and made a hold of once it is granted.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::hold::{Hold, HoldState};
use super::withdraw::start_withdrawal;
use super::{Attempt, Claims, FIRST_PAUSE, LONGEST_PAUSE, Outcome, Phase, WaitingAttempt, Want, describe};
use crate::error::{Code, Error, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimStep, Entry, Step};
use crate::protocol::session::{SessionId, SessionState};
use crate::session::Session;
use crate::store::Store;

/// Acquires a claim for this session, or finds out that it cannot be had. Waits for as long as `want` says and the
/// session lives; dropping the future withdraws the attempt in the background.
pub(crate) async fn acquire(session: &Arc<Session>, key: &ClaimKey, want: &Want) -> Result<Outcome> {
    let (registered, mut granted) = session.claims().register(session, key, want)?;
    // Whoever waited when the session was lost has been told; from now on this attempt would be.
    if let SessionState::Lost(reason) = session.state() {
        registered.forget();
        return Err(Error::lost(&format!("the wait for {key}"), reason));
    }
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
    if (view.holder == Some(*entry) || view.waiting) && session.claims().is_left_behind(entry) {
        // Given up meanwhile, and its removal was there first.
        drop(start_withdrawal(session, key, entry, None));
    } else if view.holder == Some(*entry) {
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
        Err(LossReason::Closed) => Err(Error::closed("the client")),
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
        // In the table's lock: a close or a suspension either is seen here, or finds the hold in the table.
        if table.closed {
            return Err(LossReason::Closed);
        }
        let epoch = match session.live_epoch() {
            None if mutants::on(Mutant::NoCheckAfterGrant) => 0,
            epoch => epoch.ok_or(LossReason::Expired)?,
        };
        let attempt = table.attempts.get_mut(&self.entry.attempt).ok_or(LossReason::Expired)?;
        // Asked to go, or gone already and granted anew.
        if attempt.breaking == Some(token) || attempt.token.is_some_and(|newest| newest > token) {
            return Err(LossReason::Broken);
        }
        let state = Arc::new(HoldState::new(self.key.clone(), self.entry, token, epoch));
        attempt.phase = Phase::Held { hold: state.clone(), since: session.env().now() };
        drop(table);
        failpoints::at(Point::HoldMade);
        self.armed = false;
        Ok(Hold { session: self.session.clone(), state })
    }
}

impl Claims {
    /// # Errors
    /// `Closed` once the client is: what is asked for after that would come into the store when the session has gone.
    fn register(
        &self,
        session: &Arc<Session>,
        key: &ClaimKey,
        want: &Want,
    ) -> Result<(Registered, oneshot::Receiver<Result<i64>>)> {
        let (granted, receiver) = oneshot::channel();
        let mut table = self.lock();
        if table.closed {
            return Err(Error::closed("the client"));
        }
        let attempt = table.next_attempt;
        table.next_attempt += 1;
        let entry = Entry { session: session.id(), attempt, priority: want.priority };
        let phase = Phase::Waiting { granted, max_queue: want.max_queue, queued_since: None, behind: None };
        table.attempts.insert(
            attempt,
            Attempt { key: key.clone(), entry, phase, token: None, noticed: false, breaking: None, late: false },
        );
        Ok((Registered { session: session.clone(), key: key.clone(), entry, armed: true }, receiver))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.armed && !mutants::on(Mutant::AbandonedWaitStays) {
            failpoints::at(Point::WaitGivenUp);
            drop(start_withdrawal(&self.session, &self.key, &self.entry, None));
        }
    }
}
