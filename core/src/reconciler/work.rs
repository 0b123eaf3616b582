//! One run of one key: what the function gets, and what it answers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::Document;

use super::engine::Engine;
use super::rights::Right;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::document::{Fence, Key, Revision};
use crate::protocol::work_queue::{Ticket, Verdict};
use crate::store::documents::Stored;
use crate::time::Timestamp;

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to be done until the key changes.
    Done,
    /// To be run again after this time, or earlier if the key changes.
    RequeueAfter(Duration),
    /// It failed: to be tried again after the back-off's time, or earlier if the key changes.
    Error(String),
    /// It failed: to be tried again after this time, or earlier if the key changes. For a policy of one's own
    /// ([`Work::attempt`] counts).
    ErrorAfter(String, Duration),
    /// It failed and will fail again: the key is parked until it changes or is added by hand.
    Terminal(String),
}

impl Outcome {
    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_) | Self::ErrorAfter(..) | Self::Terminal(_))
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Done
    }
}

/// An error is tried again after the back-off's time.
impl<T: Into<Self>, E: fmt::Display> From<std::result::Result<T, E>> for Outcome {
    fn from(result: std::result::Result<T, E>) -> Self {
        match result {
            Ok(outcome) => outcome.into(),
            Err(error) => Self::Error(error.to_string()),
        }
    }
}

/// What a function is to work on.
pub struct Work {
    engine: Arc<Engine>,
    key: Arc<Key>,
    stored: Option<Stored>,
    attempt: u32,
    began: Timestamp,
    /// Taken when it is complete.
    ticket: Mutex<Option<Ticket>>,
    /// The shard or the leadership under which it runs.
    right: Option<Arc<Right>>,
}

impl Work {
    /// The key: of the document, the service or the lock.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The document as it was when this run began; none if it was deleted or matches the filter no more, and for keys
    /// that are added by hand and locks. Of a service: `{service, providers: [{instance_id, session, name, host, pid,
    /// metadata}]}`, none if nobody provides it.
    pub fn document(&self) -> Option<&Document> {
        self.stored.as_ref().map(|stored| &stored.document)
    }

    /// The state of the document, for [`Table::replace_if`](crate::table::Table::replace_if).
    pub fn revision(&self) -> Option<Revision> {
        self.stored.as_ref().and_then(|stored| stored.revision)
    }

    /// 1, and one more for each error in a row before.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The fencing token of the key's shard or of the leadership; none in mode [`All`](super::Mode::All). Tokens of one key
    /// are comparable for ever.
    pub fn token(&self) -> Option<i64> {
        self.right.as_ref().map(|right| right.token())
    }

    /// The shard or the leadership as the condition of writes to tables.
    ///
    /// # Errors
    /// `InvalidArgument` in mode [`All`](super::Mode::All), in which a run is under neither; `Fenced` when it is lost or
    /// given up, as from [`Work::check`].
    pub fn fence(&self) -> Result<Fence> {
        let right = self.right.as_ref();
        let right = right.ok_or_else(|| Error::invalid("a run in mode 'all' has no hold to write under"))?;
        if right.is_lost() { Err(right.fenced(&self.key)) } else { right.fence() }
    }

    /// Checks that the key is still this replica's to work on. Reads a clock, no I/O: call it before each effect.
    ///
    /// # Errors
    /// `Fenced` when the shard or the leadership is lost or given up; `Cancelled` when the run is asked to stop.
    pub fn check(&self) -> Result<()> {
        if let Some(right) = self.right.as_ref().filter(|right| right.is_lost()) {
            return Err(right.fenced(&self.key));
        }
        if self.is_cancelled() {
            return Err(Error::new(Code::Cancelled, format!("the run of {} is asked to stop", self.key)));
        }
        Ok(())
    }

    /// Whether the run is asked to stop: its key was cancelled, its shard or leadership is lost or is to move, or the
    /// reconciler is being closed. No I/O.
    pub fn is_cancelled(&self) -> bool {
        self.engine.is_stopping()
            || self.right.as_ref().is_some_and(|right| right.is_revoked() || right.is_lost())
            || self
                .ticket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .is_some_and(|ticket| self.engine.queue().is_cancelled(ticket))
    }

    /// Waits until the run is asked to stop. For any executor.
    pub async fn cancelled(self: &Arc<Self>) {
        let work = self.clone();
        let core = self.engine.core().clone();
        let waiting = async move {
            work.wait_until_cancelled().await;
            Ok(())
        };
        // An error is the end of the runtime, and of everything on it.
        let _ = core.drive(waiting).await;
    }

    pub(super) async fn wait_until_cancelled(&self) {
        loop {
            let mut changed = std::pin::pin!(self.engine.cancels().notified());
            changed.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            let lost = async {
                match &self.right {
                    Some(right) => right.lost().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = lost => {}
            }
        }
    }

    /// What the reconciler has this key's result for: takes the ticket, once.
    fn finish(&self, verdict: Verdict, outcome: Option<&Outcome>) -> bool {
        let ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(ticket) = ticket else { return false };
        self.engine.finish(&self.key, ticket, verdict, outcome, self.began);
        failpoints::at(Point::KeyFinished);
        if let Some(right) = &self.right {
            right.leave();
        }
        true
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // A request completes or drops its work; this is for one that was leaked and whose views are gone.
        self.finish(Verdict::Failed { after: None }, None);
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("key", &self.key).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// A key to be run now, until it is completed. Dropped without that, it comes again, as after an error.
#[derive(Debug)]
pub struct Request {
    work: Arc<Work>,
}

impl Request {
    pub(super) fn new(
        engine: Arc<Engine>,
        key: Arc<Key>,
        attempt: u32,
        ticket: Ticket,
        right: Option<Arc<Right>>,
    ) -> Self {
        let began = engine.now();
        let work = Work { engine, key, stored: None, attempt, began, ticket: Mutex::new(Some(ticket)), right };
        Self { work: Arc::new(work) }
    }

    /// Puts the document in, before the request is shown to anybody.
    pub(super) fn with(mut self, stored: Option<Stored>) -> Self {
        if let Some(work) = Arc::get_mut(&mut self.work) {
            work.stored = stored;
        }
        self
    }

    /// What to work on, also to be kept beside the request.
    pub fn work(&self) -> &Arc<Work> {
        &self.work
    }

    /// Says what the run has come to.
    ///
    /// # Errors
    /// `Fenced` when the shard or the leadership under which the key was run is lost: then the result does not count, and
    /// the next holder runs the key. `NotHeld` when it was completed before.
    pub fn complete(self, outcome: Outcome) -> Result<()> {
        failpoints::at(Point::KeyDone);
        let lost = self.work.right.as_ref().filter(|right| right.is_lost());
        if let Some(right) = lost {
            let fenced = right.fenced(&self.work.key);
            self.work.engine.count_fenced();
            self.work.finish(Verdict::Forgotten, None);
            return Err(fenced);
        }
        let verdict = match &outcome {
            Outcome::Done => Verdict::Done,
            Outcome::RequeueAfter(delay) => Verdict::RequeueAfter(*delay),
            Outcome::Error(_) => Verdict::Failed { after: None },
            Outcome::ErrorAfter(_, delay) => Verdict::Failed { after: Some(*delay) },
            Outcome::Terminal(reason) => Verdict::Terminal { reason: reason.clone() },
        };
        if self.work.finish(verdict, Some(&outcome)) {
            return Ok(());
        }
        Err(Error::new(Code::NotHeld, format!("the run of {} was completed before", self.work.key)))
    }

    /// Gives it back without having run it: it comes again at once, as the same attempt.
    pub(super) fn give_back(self) {
        self.work.finish(Verdict::Returned, None);
    }
}

impl std::ops::Deref for Request {
    type Target = Work;

    fn deref(&self) -> &Work {
        &self.work
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let verdict = match &self.work.right {
            Some(right) if right.is_lost() => Verdict::Forgotten,
            _ => Verdict::Failed { after: None },
        };
        self.work.finish(verdict, None);
    }
}
