//! What a session holds: whether it is valid, how it ends, and the value beside it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::withdraw::{Withdrawn, start_withdrawal};
use super::{FIRST_PAUSE, LONGEST_PAUSE, describe};
use crate::error::{Code, Error, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimStep, Entry};
use crate::protocol::document::Fence;
use crate::protocol::session::SessionState;
use crate::session::Session;
use crate::session::sync::Mutex;
use crate::store::Store;

/// A claim that this session holds. Dropping it releases in the background.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(super) session: Arc<Session>,
    pub(super) state: Arc<HoldState>,
}

#[derive(Debug)]
pub(crate) struct HoldState {
    pub(super) key: ClaimKey,
    entry: Entry,
    pub(super) token: i64,
    pub(super) epoch: u64,
    lost: OnceLock<LossReason>,
    changed: Notify,
    /// An operator wants it to end, and it will be given up after a ttl.
    breaking: AtomicBool,
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
    pub(super) fn new(key: ClaimKey, entry: Entry, token: i64, epoch: u64) -> Self {
        Self {
            key,
            entry,
            token,
            epoch,
            lost: OnceLock::new(),
            changed: Notify::new(),
            breaking: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            released: AtomicBool::new(false),
            managed: AtomicBool::new(false),
            publishing: tokio::sync::Mutex::new(()),
            value: Mutex::default(),
        }
    }

    /// Returns whether it was not lost before.
    pub(super) fn lose(&self, reason: LossReason) -> bool {
        failpoints::at(Point::LossPublish);
        let news = self.lost.set(reason).is_ok();
        failpoints::at(Point::LossPublished);
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

    /// An operator wants it to end. Returns whether that is news: also of a hold that was lost before, which the store
    /// may have kept.
    pub(super) fn begin_break(&self) -> bool {
        self.lose(LossReason::Broken);
        !self.breaking.swap(true, Relaxed)
    }

    /// Gives it up in the store, unless that has been done.
    pub(super) fn give_up(&self, session: &Arc<Session>) {
        if !self.ended.swap(true, Relaxed) {
            drop(start_withdrawal(session, &self.key, &self.entry, None));
        }
    }

    /// Why it is not valid now, or none. Reads the clock; no I/O.
    #[inline]
    pub(super) fn loss(&self, session: &Session) -> Option<LossReason> {
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

    /// This hold as the condition of writes. One that is lost has a fence, too, which the store refuses as soon as a later
    /// holder has written.
    ///
    /// # Errors
    /// `NotHeld` after its user has given it up.
    pub(crate) fn fence(&self) -> Result<Fence> {
        if self.is_released() || self.state.lost.get() == Some(&LossReason::Resigned) {
            return Err(Error::new(
                Code::NotHeld,
                format!("{} was released; nothing is done under it", self.describe()),
            ));
        }
        Ok(Fence { lock: self.state.key.clone(), holder: self.state.entry, token: self.state.token, strict: false })
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

impl Drop for Hold {
    fn drop(&mut self) {
        // In a forked child it is the parent's, and giving it up would begin with a lock.
        if self.session.background().is_ours() {
            self.state.give_up(&self.session);
        }
    }
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
