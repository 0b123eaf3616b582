//! What this client provides, whatever session it has: the table of what is wanted, and the task that makes the store agree.
//!
//! One task per session writes, one step after the other, each with a higher number than the last; so the store is never
//! led back by a request that was late. It goes on until the store has what is wanted, through outages, and begins anew
//! under the next session. What a session provided ends with it in the store; nothing has to be taken back.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Session;
use crate::driver::Watched;
use crate::error::{Code, Error, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::roster::{self, MAX_PROVIDERS, MAX_TOGETHER, ProviderRecord};
use crate::protocol::session::{SessionId, SessionStep};
use crate::store::Store;

/// What has happened to a provider. Kept for as long as nobody takes it, but not without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Registered,
    Lost(LossReason),
    Reregistered,
    Closed,
}

/// As many events are kept; of more, the oldest are forgotten.
const EVENTS: usize = 64;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The providers of one client.
#[derive(Debug, Default)]
pub(crate) struct Providers {
    table: Mutex<BTreeMap<String, Arc<Offer>>>,
    /// The number of the latest step. A new session's record begins below any.
    revision: AtomicI64,
    /// Why the latest session was lost: its successor may register before the loss has been told here.
    loss: Mutex<Option<(SessionId, LossReason)>>,
    wanted: Notify,
}

/// One provider.
pub(crate) struct Offer {
    service: String,
    instance: String,
    reregister: bool,
    state: Watched<OfferState>,
    events: Mutex<VecDeque<Happened>>,
}

#[derive(Clone, Debug)]
struct OfferState {
    metadata: String,
    /// Another one whenever something else is wanted.
    version: u64,
    wanted: bool,
    /// In whose record it may be.
    written: Option<SessionId>,
    /// Which version the record of which session has.
    applied: Option<(SessionId, u64)>,
    /// Why this version cannot be had.
    failed: Option<(u64, Error)>,
    /// It was registered once.
    ever: bool,
    /// Nothing will happen to it any more.
    over: bool,
}

impl OfferState {
    fn failure(&self, version: u64) -> Option<&Error> {
        self.failed.as_ref().filter(|(failed, _)| *failed >= version).map(|(_, error)| error)
    }

    fn agrees(&self, session: SessionId) -> bool {
        self.failure(self.version).is_some() || self.applied == Some((session, self.version))
    }
}

impl Offer {
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    pub(crate) fn metadata(&self) -> String {
        self.state.get().metadata
    }

    /// Whether it is in the record of this session.
    pub(crate) fn is_registered(&self, session: SessionId) -> bool {
        let state = self.state.get();
        state.wanted && state.applied.is_some_and(|(of, _)| of == session)
    }

    /// The next event that was not taken.
    ///
    /// # Errors
    /// `Closed` after the last.
    pub(crate) fn take_event(&self) -> Result<Option<Happened>> {
        let over = self.state.get().over;
        match self.events().pop_front() {
            None if over => Err(Error::closed("the provider")),
            event => Ok(event),
        }
    }

    /// Waits until there is an event to take, or never will be. No error of its own.
    pub(crate) async fn has_event(&self) -> Result<()> {
        loop {
            let changed = self.state.changed();
            if self.state.get().over || !self.events().is_empty() {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Waits until the store has what was wanted in this version, or something newer.
    ///
    /// # Errors
    /// Those of the store that waiting cannot cure; `Closed` if it is over.
    pub(crate) async fn registered(&self, version: u64) -> Result<()> {
        let has = |state: &OfferState| state.applied.is_some_and(|(_, applied)| applied >= version);
        self.state.wait_for(|state| has(state) || state.over || state.failure(version).is_some()).await;
        let state = self.state.get();
        match state.failure(version) {
            Some(error) if !has(&state) => Err(error.clone()),
            _ if has(&state) => Ok(()),
            _ => Err(Error::closed("the provider")),
        }
    }

    /// Waits until it is over.
    ///
    /// # Errors
    /// Those of the store that waiting cannot cure.
    pub(crate) async fn gone(&self, version: u64) -> Result<()> {
        self.state.wait_for(|state| state.over || state.failure(version).is_some()).await;
        let state = self.state.get();
        state.failure(version).filter(|_| !state.over).cloned().map_or(Ok(()), Err)
    }

    fn key(&self) -> String {
        roster::key(&self.service, &self.instance)
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<Happened>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&self, event: Happened) {
        let mut events = self.events();
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    fn end(&self) {
        if !self.state.get().over {
            self.happened(Happened::Closed);
            self.state.modify(|state| {
                state.over = true;
                state.wanted = false;
                state.applied = None;
            });
        }
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offer({})", self.key())
    }
}

type Table = BTreeMap<String, Arc<Offer>>;

impl Providers {
    /// Wants a new provider. What is returned with it is the version to wait for.
    ///
    /// # Errors
    /// `AlreadyExists` if this client has it; `QueueFull` if it has too many; `Closed`.
    pub(crate) fn offer(
        &self,
        service: &str,
        instance: &str,
        metadata: &str,
        reregister: bool,
    ) -> Result<(Arc<Offer>, u64)> {
        let mut table = self.table();
        let record = ProviderRecord::new(service, instance, metadata);
        // One that is being withdrawn: the new one takes its place in the record, in one step.
        let before = table.get(&record.key).map(|before| (before.clone(), before.state.get()));
        if before.as_ref().is_some_and(|(_, before)| before.wanted) {
            return Err(Error::new(
                Code::AlreadyExists,
                format!(
                    "this client provides '{service}' as '{instance}' already; update that, or choose another instance"
                ),
            ));
        }
        check_limits(&table, &record)?;
        let state = OfferState {
            metadata: metadata.to_owned(),
            version: 1,
            wanted: true,
            written: before.as_ref().and_then(|(_, before)| before.written),
            applied: None,
            failed: None,
            ever: false,
            over: false,
        };
        let offer = Arc::new(Offer {
            service: service.to_owned(),
            instance: instance.to_owned(),
            reregister,
            state: Watched::new(state),
            events: Mutex::default(),
        });
        table.insert(record.key, offer.clone());
        drop(table);
        if let Some((before, _)) = before {
            before.end();
        }
        self.wanted.notify_one();
        Ok((offer, 1))
    }

    /// Wants other metadata; the version to wait for.
    ///
    /// # Errors
    /// `Closed`, `QueueFull`.
    pub(crate) fn update(&self, offer: &Arc<Offer>, metadata: &str) -> Result<u64> {
        let table = self.table();
        check_limits(&table, &ProviderRecord::new(&offer.service, &offer.instance, metadata))?;
        let version = offer.state.modify(|state| {
            if !state.wanted {
                return Err(Error::closed("the provider"));
            }
            metadata.clone_into(&mut state.metadata);
            state.version += 1;
            Ok(state.version)
        })?;
        drop(table);
        self.wanted.notify_one();
        Ok(version)
    }

    /// Wants it no more; the version to wait for.
    pub(crate) fn withdraw(&self, offer: &Arc<Offer>) -> u64 {
        let table = self.table();
        let version = offer.state.modify(|state| {
            if state.wanted {
                state.wanted = false;
                state.version += 1;
            }
            state.version
        });
        drop(table);
        self.wanted.notify_one();
        version
    }

    /// How many are in the record of this session.
    pub(crate) fn registered(&self, session: SessionId) -> usize {
        self.table().values().filter(|offer| offer.is_registered(session)).count()
    }

    /// The session is about to be over: from now on its successor may be opened.
    pub(super) fn losing(&self, session: SessionId, reason: LossReason) {
        *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = Some((session, reason));
    }

    /// Tells of the loss of the session before this one, if that has not been done.
    fn tell_loss_before(&self, session: SessionId) {
        let before = self.loss.lock().unwrap_or_else(PoisonError::into_inner).take_if(|(lost, _)| *lost != session);
        if let Some((lost, reason)) = before {
            self.on_lost(lost, reason);
        }
    }

    /// The session is over, and everything that it provided is gone. Touches nothing of its successor's, so it may come
    /// late, and twice.
    pub(super) fn on_lost(&self, session: SessionId, reason: LossReason) {
        let mut table = self.table();
        table.retain(|_, offer| {
            let (had, keep) = offer.state.modify(|state| {
                let had = state.applied.is_some_and(|(of, _)| of == session);
                let concerned = had || state.written == Some(session);
                state.written = state.written.filter(|of| *of != session && !mutants::on(Mutant::LateLossForgets));
                state.applied = state.applied.filter(|(of, _)| *of != session);
                // What is in the successor's record already still has to be taken out of it.
                let again = (offer.reregister && !mutants::on(Mutant::NotReregistered)) || !state.ever;
                let goes_on = state.written.is_some() || (state.wanted && again);
                (had && state.wanted, !concerned || goes_on)
            });
            if had && reason != LossReason::Closed {
                offer.happened(Happened::Lost(reason));
            }
            let keep = keep && reason != LossReason::Closed;
            if keep {
                // Whoever waits for an event looks again.
                offer.state.modify(|_| {});
            } else {
                offer.end();
            }
            keep
        });
    }

    /// The client is closed: nothing of this is provided any more, whatever became of the session.
    pub(crate) fn close(&self) {
        let mut table = self.table();
        for offer in std::mem::take(&mut *table).into_values() {
            offer.end();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing in which the record of this session is not as wanted.
    fn next_difference(&self, session: &Session) -> Option<Difference> {
        let id = session.id();
        self.tell_loss_before(id);
        let mut table = self.table();
        // Looked at under the lock: from now on the successor's record is what counts, and may be written already.
        if session.is_over() {
            return None;
        }
        // Withdrawn before it came to this session's record: nothing has to be done.
        table.retain(|_, offer| {
            let state = offer.state.get();
            let keep = state.wanted || state.written == Some(id);
            if !keep {
                offer.end();
            }
            keep
        });
        let offer = table.values().find(|offer| !offer.state.get().agrees(id))?.clone();
        let state = offer.state.get();
        let revision = self.revision.fetch_add(1, Relaxed) + 1;
        let step = if state.wanted {
            // Before it is sent: from now on it may be there.
            offer.state.modify(|state| state.written = Some(id));
            let provider = ProviderRecord::new(&offer.service, &offer.instance, &state.metadata);
            SessionStep::Provide { provider, revision }
        } else {
            SessionStep::Withdraw { key: offer.key(), revision }
        };
        Some(Difference { offer, version: state.version, wanted: state.wanted, step })
    }

    /// The store has acknowledged it.
    fn done(&self, session: &Session, difference: &Difference) {
        let mut table = self.table();
        let Difference { offer, version, wanted, .. } = difference;
        if !wanted {
            if table.get(&offer.key()).is_some_and(|known| Arc::ptr_eq(known, offer)) {
                table.remove(&offer.key());
            }
            offer.end();
            return;
        }
        // After a loss, `on_lost` has been here already, and nothing of this session counts any more.
        if session.is_over() || offer.state.get().over {
            return;
        }
        let before = offer.state.get();
        if before.applied.is_none() && before.wanted {
            offer.happened(if before.ever { Happened::Reregistered } else { Happened::Registered });
        }
        failpoints::at(Point::ProviderRegistered);
        offer.state.modify(|state| {
            state.applied = Some((session.id(), *version));
            state.ever = true;
        });
    }
}

struct Difference {
    offer: Arc<Offer>,
    version: u64,
    wanted: bool,
    step: SessionStep,
}

/// Makes the record of this session say what is wanted, until it is aborted.
pub(super) async fn keep(session: Arc<Session>) {
    let providers = session.providers().clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let wanted = providers.wanted.notified();
        let Some(difference) = providers.next_difference(&session) else {
            if session.is_over() {
                // What has woken this task was meant for its successor.
                providers.wanted.notify_one();
                return;
            }
            wanted.await;
            continue;
        };
        match session.store().apply_session(session.id(), difference.step.clone()).await {
            Ok(Some(_)) => {
                pause = FIRST_PAUSE;
                providers.done(&session, &difference);
            }
            // Somebody has declared the session dead; the next renewal tells.
            Ok(None) => session.over().await,
            Err(error) if error.ambiguous() => {
                tracing::debug!(%error, "what this client provides could not be written; trying again");
                session.env().sleep(session.env().jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                tracing::warn!(service = difference.offer.service, %error, "a service cannot be provided");
                difference.offer.state.modify(|state| state.failed = Some((difference.version, error)));
            }
        }
    }
}

fn check_limits(table: &Table, record: &ProviderRecord) -> Result<()> {
    let others = || table.values().filter(|offer| offer.state.get().wanted && offer.key() != record.key);
    let count = others().count() + 1;
    if count > MAX_PROVIDERS {
        return Err(Error::new(
            Code::QueueFull,
            format!("one session has at most {MAX_PROVIDERS} providers; open another session for more"),
        ));
    }
    let bytes: usize =
        others().map(|offer| offer.key().len() + offer.service.len() + offer.state.get().metadata.len()).sum::<usize>()
            + record.bytes();
    if bytes > MAX_TOGETHER {
        return Err(Error::new(
            Code::QueueFull,
            format!(
                "the providers of one session have at most {MAX_TOGETHER} bytes together; shorten their metadata, or open \
                 another session"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
