//! A client's session: opened, renewed, observed by others, and lost as a whole.
//!
//! [`Session`] is one incarnation, with one id. It runs five tasks, each a file here or a method below:
//! - [`renewal`]: keeps it alive, and is the only one that moves its deadline;
//! - `hear`: takes the store's notices;
//! - [`upkeep`]: the safety net under the notices (poll, audit), and the keeper's turn;
//! - [`providers`]: makes its record say what this client provides;
//! - [`observer`]: watches the sessions on which somebody here depends or which somebody here shows (see [`shown`]), and
//!   clears up after the dead.
//!
//! When it is lost, the client opens another; nothing is carried over. Beside them, for all sessions of a client, is
//! [`changes`]: what others do, for those in this client who look on.

pub(crate) mod changes;
mod collector;
mod keeper;
pub(crate) mod kernel_lock;
mod observer;
pub(crate) mod providers;
mod renewal;
pub(crate) mod shown;
mod upkeep;
mod validity;

use std::fmt;
// For the file that is also played by other means than threads.
pub(crate) use std::sync;
use std::sync::atomic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::Notify;

use crate::claims::Claims;
use crate::driver::{Background, Watched};
use crate::env::{Env, Task};
use crate::error::{Error, HolderState, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimStep, ClaimView, Entry, Step};
use crate::protocol::session::{
    PROTOCOL_VERSION, SessionId, SessionInfo, SessionState, SessionStep, SessionView, Timing, Vitality,
};
use crate::stats::Stats;
use crate::store::counted::Counted;
use crate::store::{Notice, Notices, Store};
use crate::time::Timestamp;
use kernel_lock::{HostIdentity, OwnedLock};
use observer::Observer;
use providers::Providers;
use shown::Shown;
use validity::Validity;

/// What all sessions of a client have in common.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) env: Env,
    pub(crate) store: Arc<Counted>,
    pub(crate) timing: Timing,
    pub(crate) name: String,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// Where lock files are, if a kernel lock may prove deaths on this host.
    pub(crate) run_directory: Option<std::path::PathBuf>,
    pub(crate) background: Background,
    pub(crate) stats: Arc<Stats>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) shown: Arc<Shown>,
}

/// One incarnation of a client's session.
pub(crate) struct Session {
    id: SessionId,
    setup: Setup,
    info: SessionInfo,
    view: Mutex<SessionView>,
    validity: Validity,
    state: Watched<SessionState>,
    kernel_lock: Mutex<Option<OwnedLock>>,
    claims: Claims,
    observer: Observer,
    /// The store reports something that only reading can settle.
    audit_wanted: Notify,
    /// Notices may have been missed: read what is waited for.
    poll_wanted: Notify,
    notices: Mutex<Option<Notices>>,
}

impl Session {
    /// Opens a session: its lock file first, then its record, then its stream of notices.
    ///
    /// # Errors
    /// Those of the store. After one nothing of the session is used again; if its record was written after all,
    /// others bury it.
    pub(crate) async fn open(setup: Setup) -> Result<Arc<Self>> {
        let id = setup.env.session_id();
        let host = HostIdentity::read();
        let kernel_lock = match &setup.run_directory {
            Some(directory) => OwnedLock::create(directory, id)
                .map_err(|error| {
                    tracing::warn!(directory = %directory.display(), %error, "no lock file for this session; its death can \
                                    only be observed");
                })
                .ok(),
            None => None,
        };
        failpoints::at(Point::LockFileMade);
        let info = SessionInfo {
            name: setup.name.clone(),
            labels: setup.labels.clone(),
            host: host.host,
            boot: host.boot,
            pid: host.pid,
            start: host.start,
            lk: kernel_lock.as_ref().map(OwnedLock::identity),
            pv: PROTOCOL_VERSION,
        };
        let nonce = setup.env.nonce();
        let view = SessionView::begin_open(setup.timing, nonce, setup.env.now());
        let session = Self {
            id,
            info: info.clone(),
            view: Mutex::new(view),
            validity: Validity::new(),
            state: Watched::new(SessionState::Opening),
            kernel_lock: Mutex::new(kernel_lock),
            claims: Claims::default(),
            observer: Observer::default(),
            audit_wanted: Notify::new(),
            poll_wanted: Notify::new(),
            notices: Mutex::new(None),
            setup,
        };
        session.write_ring();
        let open = SessionStep::Open { nonce, ttl: session.timing().ttl, info };
        let record = session.store().apply_session(id, open).await?;
        let live = record.is_some_and(|r| r.vitality == Vitality::Live);
        session.update(|view, now| view.on_opened(now, live));
        if !live {
            return Err(Error::lost("the session that was just opened", LossReason::Killed));
        }
        let mut notices = session.store().notices(id).await?;
        // The gap with which every stream begins: nothing was asked for before, so nothing can have been missed.
        notices.next().await;
        session.stats().count_gap();
        *session.notices.lock().unwrap_or_else(PoisonError::into_inner) = Some(notices);
        tracing::debug!(session = %id, ttl = ?session.timing().ttl, "session opened");
        Ok(Arc::new(session))
    }

    /// Starts the session's tasks. They end when they are aborted.
    pub(crate) fn start(self: &Arc<Self>) -> Vec<Task> {
        let env = &self.setup.env;
        vec![
            env.spawn(renewal::keep_alive(self.clone())),
            env.spawn(hear(self.clone())),
            env.spawn(upkeep::run(self.clone())),
            env.spawn(observer::run(self.clone())),
            env.spawn(providers::keep(self.clone())),
        ]
    }

    /// Ends the session in the store, after everything it held was released, and removes its lock file.
    ///
    /// # Errors
    /// Those of the store; the session then dies as if its process had.
    pub(crate) async fn close(&self) -> Result<()> {
        // Here first: as soon as the store has heard of it, others may be granted what was held.
        self.update(|view, _| view.end(LossReason::Closed));
        let closed = self.store().apply_session(self.id, SessionStep::Close).await;
        self.end(LossReason::Closed);
        closed.map(|_| ())
    }

    /// The session is over here, whatever the store knows: for this reason, unless it was over before. Its lock file goes,
    /// so that others need not wait, and so do its watches of others.
    pub(crate) fn end(&self, reason: LossReason) {
        self.update(|view, _| view.end(reason));
        self.observer.stop();
        if let Some(lock) = self.kernel_lock.lock().unwrap_or_else(PoisonError::into_inner).take() {
            lock.remove();
        }
    }

    /// The session ends as if it had been silent for its whole ttl: first here, as it would.
    pub(crate) fn expire(&self) {
        self.claims.lose_all(LossReason::Expired);
        self.end(LossReason::Killed);
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn info(&self) -> &SessionInfo {
        &self.info
    }

    pub(crate) fn env(&self) -> &Env {
        &self.setup.env
    }

    pub(crate) fn store(&self) -> &Counted {
        &self.setup.store
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(crate) fn providers(&self) -> &Arc<Providers> {
        &self.setup.providers
    }

    pub(crate) fn background(&self) -> &Background {
        &self.setup.background
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.setup.stats
    }

    pub(crate) fn timing(&self) -> Timing {
        self.setup.timing
    }

    /// The state by the clock: a live session whose deadline has passed is suspended, whether or not its tasks ran.
    pub(crate) fn state(&self) -> SessionState {
        let mut view = self.lock_view();
        let before = view.state();
        view.on_time(self.env().now());
        let state = view.state();
        if state != before {
            self.publish(view);
        }
        state
    }

    /// The next change of the state after this call. Take it before looking at the state.
    pub(crate) fn state_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.state.changed()
    }

    /// Whether the session is known to be over: before it is, it has no successor.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state.get(), SessionState::Lost(_))
    }

    /// Waits until the session is over.
    pub(crate) async fn over(&self) {
        self.state.wait_for(|state| matches!(state, SessionState::Lost(_))).await;
    }

    /// Whether holds may be made now.
    pub(crate) fn is_live(&self) -> bool {
        self.live_epoch().is_some()
    }

    /// The epoch in which a hold that is made now will be valid, or none when the session is not live.
    pub(crate) fn live_epoch(&self) -> Option<u64> {
        self.validity.live_epoch(|| self.env().now().nanos())
    }

    /// Whether a hold that was made in this epoch is valid now.
    #[inline]
    pub(crate) fn valid_in(&self, epoch: u64) -> bool {
        self.validity.valid_in(epoch, || self.env().now().nanos())
    }

    /// Until when holds are valid; in the past when the session is not live.
    pub(crate) fn deadline(&self) -> Timestamp {
        Timestamp::from_nanos(self.validity.deadline())
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.deadline().since(self.env().now())
    }

    /// Extends the deadline until holds stay valid for `duration`, by renewing now if that is needed.
    ///
    /// # Errors
    /// `InvalidArgument` if no renewal can give that much, `Lost` if the session is not live, those of the store.
    pub(crate) async fn ensure(self: &Arc<Self>, duration: Duration) -> Result<()> {
        let most = self.timing().ttl - self.timing().margin;
        if duration > most {
            return Err(Error::invalid(format!(
                "a hold stays valid for at most {} s without another renewal, so {} s cannot be ensured; use a longer ttl",
                most.as_secs_f64(),
                duration.as_secs_f64()
            )));
        }
        if self.remaining() >= duration {
            return Ok(());
        }
        renewal::renew_once(self.clone()).await?;
        if self.remaining() < duration {
            return Err(Error::unavailable(format!(
                "the renewal took so long that less than {} s are left of it",
                duration.as_secs_f64()
            )));
        }
        Ok(())
    }

    /// The sessions that are known to be dead for good, for steps to clear away.
    pub(crate) fn known_dead(&self) -> Vec<SessionId> {
        self.observer.known_dead()
    }

    /// This session waits for a claim: whoever is in the way is observed.
    pub(crate) fn observe_queue(self: &Arc<Self>, entry: &Entry, view: &ClaimView) -> bool {
        observer::observe_queue(self, entry, view)
    }

    /// The same without I/O: what is known of it already.
    pub(crate) fn known(&self, id: SessionId) -> Option<(SessionInfo, HolderState, Duration)> {
        observer::known(self, id)
    }

    /// How many processes on this host are watched.
    pub(crate) fn watched(&self) -> usize {
        self.observer.watched()
    }

    /// What is observed of the holder of a claim that this session wants; observed from now on.
    pub(crate) async fn look_at(self: &Arc<Self>, id: SessionId) -> Result<(SessionInfo, HolderState, Duration)> {
        observer::look_at(self, id).await
    }

    /// Whether a session is known to have renewed within a third of its ttl; waits for up to that long to see it.
    pub(crate) async fn renews(self: &Arc<Self>, id: SessionId) -> Result<bool> {
        observer::renews(self, id).await
    }

    /// Whether a session is known to have renewed since this moment: one's own, or one that is observed here. No I/O.
    pub(crate) fn saw_renewal(&self, id: SessionId, since: Timestamp) -> bool {
        if id == self.id { self.is_live() } else { self.observer.saw_renewal(id, since) }
    }

    /// Observes these sessions from now on, for as long as two ttls after the latest call.
    pub(crate) fn observe(self: &Arc<Self>, ids: impl IntoIterator<Item = SessionId>) {
        observer::want(self, ids);
    }

    /// An outcome is unknown: compare the store with what is known here, soon.
    pub(crate) fn request_audit(&self) {
        self.audit_wanted.notify_one();
    }

    fn lock_view(&self) -> MutexGuard<'_, SessionView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view and tells whoever depends on it.
    fn update<T>(&self, change: impl FnOnce(&mut SessionView, Timestamp) -> T) -> T {
        let mut view = self.lock_view();
        let result = change(&mut view, self.env().now());
        self.publish(view);
        result
    }

    /// Publishes the view: first to the holds' checks, then, if the state is another, to whoever waits for it.
    fn publish(&self, view: MutexGuard<'_, SessionView>) {
        let (state, epoch) = (view.state(), view.epoch());
        let deadline = if state == SessionState::Live { view.deadline().nanos() } else { 0 };
        let passed = self.validity.publish(epoch, deadline);
        if let SessionState::Lost(reason) = state {
            self.setup.providers.losing(self.id, reason);
        }
        let before = self.state.replace(state);
        drop(view);
        // A renewal that is acknowledged after the deadline, before anybody looked, suspends and revives in one change.
        if before == state && !passed {
            return;
        }
        tracing::debug!(session = %self.id, ?before, ?state, "session state");
        if state == SessionState::Suspended || (state == SessionState::Live && passed) {
            self.stats().count_suspension();
            tracing::warn!(session = %self.id, "the session could not be renewed in time; everything it held is lost");
            self.claims.on_suspended(epoch);
        }
        match state {
            SessionState::Opening | SessionState::Suspended => {}
            SessionState::Live => self.claims.on_live(),
            SessionState::Lost(reason) => {
                if reason != LossReason::Closed {
                    self.stats().count_loss();
                    tracing::warn!(session = %self.id, reason = reason.name(), "the session is lost");
                }
                self.claims.on_lost(reason);
                self.setup.providers.on_lost(self.id, reason);
            }
        }
    }

    /// Writes every nonce that may be in the store to the lock file. Must come before a nonce is sent.
    fn write_ring(&self) {
        let nonces: Vec<_> = self.lock_view().possible_nonces().collect();
        let mut lock = self.kernel_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owned) = lock.as_ref()
            && let Err(error) = owned.write_ring(&nonces)
        {
            // An old ring proves nothing, so this only costs others the wait for the ttl.
            tracing::warn!(session = %self.id, %error, "the lock file cannot be written; the session goes on without it");
            *lock = None;
        }
        failpoints::at(Point::RingWritten);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.id)
    }
}

/// Takes the store's notices, and gives back what was granted to nobody.
async fn hear(session: Arc<Session>) {
    let Some(mut notices) = session.notices.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Gap if mutants::on(Mutant::GapIgnored) => {}
            Notice::Gap => {
                session.stats().count_gap();
                session.poll_wanted.notify_one();
                session.request_audit();
            }
            Notice::Granted { key, entry, token } => {
                if !session.claims().on_notice(&session, &key, &entry, token) {
                    give_back(&session, key, entry);
                }
            }
            Notice::Breaking { entry, token, .. } => session.claims().on_breaking(&session, &entry, token),
        }
    }
    tracing::debug!(session = %session.id, "the stream of notices ended");
}

/// Removes an entry of this session that nobody here knows: a duplicate of a request, applied after it was cancelled.
fn give_back(session: &Arc<Session>, key: ClaimKey, entry: Entry) {
    if mutants::on(Mutant::UnknownGrantKept) {
        return;
    }
    tracing::info!(claim = %key, %entry, "giving back a grant that nobody waits for");
    session.stats().count_unknown_grant();
    let owner = session.clone();
    drop(session.background().run(async move {
        let step = ClaimStep::Step(Step::remove(entry, owner.known_dead()));
        if let Err(error) = owner.store().apply_claim(key, step).await {
            tracing::debug!(%error, "a grant could not be given back; the next audit finds it");
            owner.request_audit();
        }
    }));
}
