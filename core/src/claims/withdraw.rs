//! An attempt's way out of the store, whatever it was there.

use std::sync::Arc;

use super::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::error::{Code, LossReason};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimStep, Entry, Step};
use crate::protocol::session::SessionState;
use crate::session::Session;
use crate::store::Store;

/// How a withdrawal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
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
pub(super) fn start_withdrawal(
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
    let late = session.claims().forget(&entry);
    failpoints::at(Point::EntryForgotten);
    if (overtaken || late) && !mutants::on(Mutant::WithdrawalBelieved) {
        // The acquire may come after its withdrawal, and its grant may have been heard of while the entry was known.
        session.request_audit();
        let chased = chase(session.clone(), key, entry);
        session.env().spawn(chased);
    }
    outcome
}

/// Takes an entry out once more that may have come into the store after its withdrawal. When it only waits there, no audit
/// finds it, and when it is granted and the notice is lost, nobody would know for the third of a ttl. Asks until it has an
/// answer: where answers are lost, requests are late.
async fn chase(session: Arc<Session>, key: ClaimKey, entry: Entry) {
    loop {
        session.env().sleep(session.env().jittered(LONGEST_PAUSE)).await;
        if matches!(session.state(), SessionState::Lost(_)) {
            return;
        }
        let step = Step::remove(entry, session.known_dead());
        match session.store().apply_claim(key.clone(), ClaimStep::Step(step)).await {
            Ok(None) => return,
            Ok(Some(_)) => {
                tracing::debug!(claim = %key, "an acquire came after its own withdrawal, and was taken out");
                return;
            }
            Err(error) if error.code() == Code::Closed => return,
            Err(error) => tracing::debug!(claim = %key, %error, "looking again for an acquire that may have come late"),
        }
    }
}
