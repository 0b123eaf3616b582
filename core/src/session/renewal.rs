//! Renewal: one write per session and period keeps everything valid that it holds.
//!
//! A try that hangs never holds up the next one: each runs on its own, with its own nonce, and the view puts their
//! answers in order.

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use crate::error::{Code, Error, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::protocol::session::SessionState;
use crate::store::Store;
use crate::time::Timestamp;

/// Renews until the session is over.
pub(super) async fn keep_alive(session: Arc<Session>) {
    let period = session.timing().renew_every;
    // From when the opening was sent, as the session's time counts: this task may begin later.
    let mut next = session.deadline() - (session.timing().ttl - session.timing().margin) + period;
    loop {
        session.env().sleep_until(soonest(&session, next)).await;
        if let SessionState::Lost(_) = session.state() {
            return;
        }
        let now = session.env().now();
        if now < next {
            continue;
        }
        next = now + period;
        let failed = Arc::new(tokio::sync::Notify::new());
        let renewal = try_to_renew(session.clone(), failed.clone());
        drop(session.background().run(renewal));
        // A try that fails at once is followed by another soon, one that hangs by the next in its turn.
        let pause = session.env().jittered((period / 4).max(SHORTEST_PAUSE));
        tokio::select! {
            biased;
            () = failed.notified() => next = next.min(session.env().now() + pause),
            () = session.env().sleep_until(soonest(&session, next)) => {}
        }
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The next moment at which something is to be done: a renewal, or noticing that the deadline has passed.
fn soonest(session: &Session, next: Timestamp) -> Timestamp {
    let deadline = session.deadline();
    if deadline > session.env().now() { next.min(deadline) } else { next }
}

async fn try_to_renew(session: Arc<Session>, failed: Arc<tokio::sync::Notify>) {
    if let Err(error) = renew_once(session.clone()).await {
        tracing::debug!(session = %session.id(), %error, "a renewal failed");
        failed.notify_one();
    }
}

/// Sends one renewal and takes its answer into account.
///
/// # Errors
/// `Lost` if the session is over; those of the store.
pub(super) async fn renew_once(session: Arc<Session>) -> Result<()> {
    if !session.lock_file_intact() {
        session.end(LossReason::StoreReplaced);
        return Err(Error::lost("the session", LossReason::StoreReplaced));
    }
    let fresh = session.env().nonce();
    let (step, nonce) = {
        let mut view = session.lock_view();
        (view.begin_renewal(session.env().now(), fresh), view.newest())
    };
    session.write_ring();
    let slack_before = session.remaining();
    match session.store().apply_session(session.id(), step).await {
        Ok(Some(_)) => {
            session.update(|view, now| view.on_renewed(now, nonce));
            failpoints::at(Point::RenewalPublished);
            session.stats().count_renewal(slack_before);
        }
        Ok(None) => session.update(|view, _| view.on_refused(nonce)),
        Err(error) => {
            session.stats().count_failed_renewal();
            if error.code() == Code::Lost {
                session.end(error.loss().unwrap_or(LossReason::StoreReplaced));
            }
            return Err(error);
        }
    }
    match session.state() {
        SessionState::Lost(reason) => Err(Error::lost("the session", reason)),
        _ => Ok(()),
    }
}

impl Session {
    /// Whether the lock file's descriptor is still what this session opened: a host program that closes descriptors
    /// it does not own takes the kernel lock away, and others could then prove a death that did not happen.
    fn lock_file_intact(&self) -> bool {
        let lock = self.kernel_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lock.as_ref().is_none_or(|owned| owned.intact())
    }
}
