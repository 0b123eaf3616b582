//! A file of the core's session as it is, on loom's atomics; and, for the files of claims, a session that has nothing
//! but them: it lives for ever, and its store is a record that is changed by the core's own pure steps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::error::Result;
use coord_core::protocol::claim::{self, ClaimKey, ClaimRecord, ClaimStep, ClaimView, Entry, Step, Stepped, StoreNow};
use coord_core::protocol::session::{SessionId, SessionState, Timing};
use coord_core::time::{Timestamp, WallTime};
use loom::sync::atomic;
pub(crate) use shuttle::sync;

use crate::claims::Claims;

#[path = "../../../core/src/session/validity.rs"]
pub(crate) mod validity;

/// The session of a client.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    claims: Claims,
    server: Arc<Server>,
    timing: Timing,
}

impl Session {
    pub(crate) fn new(id: u128, server: Arc<Server>) -> Arc<Self> {
        let timing = Timing::new(Duration::from_secs(10), Duration::ZERO).expect("a good timing");
        Arc::new(Self { id: SessionId::from_random(id), claims: Claims::default(), server, timing })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(crate) fn store(&self) -> &Server {
        &self.server
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
    }

    pub(crate) fn state(&self) -> SessionState {
        SessionState::Live
    }

    pub(crate) fn is_live(&self) -> bool {
        true
    }

    pub(crate) fn live_epoch(&self) -> Option<u64> {
        Some(1)
    }

    pub(crate) fn valid_in(&self, epoch: u64) -> bool {
        epoch == 1
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.timing.ttl
    }

    pub(crate) fn deadline(&self) -> Timestamp {
        Timestamp::from_nanos(u64::MAX)
    }

    pub(crate) fn known_dead(&self) -> Vec<SessionId> {
        Vec::new()
    }

    pub(crate) fn observe_queue(&self, _: &Entry, _: &ClaimView) {}

    pub(crate) fn request_audit(&self) {}

    pub(crate) fn env(&self) -> &Env {
        &Env
    }

    pub(crate) fn background(&self) -> &Env {
        &Env
    }
}

/// Where tasks run. Here no time passes: nothing fails, so nothing is asked again after a while.
#[derive(Clone)]
pub(crate) struct Env;

impl Env {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(1)
    }

    pub(crate) fn jittered(&self, duration: Duration) -> Duration {
        duration
    }

    pub(crate) async fn sleep(&self, _: Duration) {
        std::future::pending().await
    }

    pub(crate) async fn sleep_until(&self, _: Timestamp) {
        std::future::pending().await
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(future));
    }

    pub(crate) fn is_ours(&self) -> bool {
        true
    }

    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        drop(shuttle::future::spawn(async move {
            // Whoever does not wait for it lets it go on.
            let _ = done.send(future.await);
        }));
        result
    }
}

/// The record of one claim, and the sessions that are told of grants.
#[derive(Debug, Default)]
pub(crate) struct Server {
    // Never held across a step of the schedule, so these need not be shuttle's.
    record: Mutex<Option<ClaimRecord>>,
    sessions: Mutex<Vec<Arc<Session>>>,
}

impl Server {
    /// From now on this session is told of its grants.
    pub(crate) fn tell(&self, session: Arc<Session>) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    pub(crate) fn record(&self) -> Option<ClaimRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies a step at some moment between its request and its answer, and tells who was granted.
    pub(crate) async fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> Result<Option<ClaimView>> {
        shuttle::future::yield_now().await;
        let added = match &step {
            ClaimStep::Step(Step { add, .. }) => *add,
            _ => None,
        };
        let (view, granted) = self.apply(&key, &step, added);
        if let Some((entry, token)) = granted {
            self.notice(&key, entry, token);
        }
        shuttle::future::yield_now().await;
        Ok(view)
    }

    fn apply(
        &self,
        key: &ClaimKey,
        step: &ClaimStep,
        added: Option<Entry>,
    ) -> (Option<ClaimView>, Option<(Entry, i64)>) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = record.as_ref().and_then(|record| record.holder);
        match claim::apply(key, record.clone(), step, StoreNow { wall: WallTime(0), floor: 0 }) {
            Stepped::Written(after) => {
                let view = after.view(added.as_ref());
                let granted = after.holder.filter(|entry| Some(*entry) != holder).map(|entry| (entry, after.token));
                *record = Some(after);
                (Some(view), granted)
            }
            _ => (None, None),
        }
    }

    fn notice(&self, key: &ClaimKey, entry: Entry, token: i64) {
        let found = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.iter().find(|session| session.id == entry.session).cloned()
        };
        if let Some(session) = found {
            let key = key.clone();
            drop(shuttle::future::spawn(async move {
                // What nobody knows of is given back, as the session's own listener does.
                if !session.claims.on_notice(&session, &key, &entry, token) {
                    let removal = ClaimStep::Step(Step::remove(entry, Vec::new()));
                    session.server.apply_claim(key, removal).await.expect("the store works");
                }
            }));
        }
    }
}
