//! The end of a client: what it holds is released, functions under it are waited for, and its session ends.

use std::pin::pin;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt;

use super::{Core, Life};
use crate::driver::{Begun, Runtime, begin};
use crate::env::Task;
use crate::error::{Code, Error, LossReason, Result};
use crate::failpoints::{self, Point};
use crate::session::Session;

/// One client's use of a store that several clients share: whoever ends the last one closes the store. By the clients that
/// are open, not by those that somebody still has.
#[derive(Debug)]
pub(super) struct StoreUse {
    all: Arc<AtomicUsize>,
    ended: AtomicBool,
}

impl StoreUse {
    pub(super) fn first() -> Self {
        Self { all: Arc::new(AtomicUsize::new(1)), ended: AtomicBool::new(false) }
    }

    /// Another client's; none if the last has ended, and with it the store.
    pub(super) fn another(&self) -> Option<Self> {
        self.all.fetch_update(AcqRel, Acquire, |count| (count > 0).then_some(count + 1)).ok()?;
        Some(Self { all: self.all.clone(), ended: AtomicBool::new(false) })
    }

    /// Ends it, once. Says whether it was the last.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, AcqRel) && self.all.fetch_sub(1, AcqRel) == 1
    }
}

impl Drop for StoreUse {
    fn drop(&mut self) {
        // An opening that was given up. If it was the last use, the store ends with its last reference.
        self.end();
    }
}

impl Core {
    pub(super) async fn close(self: Arc<Self>, timeout: Duration) -> Result<()> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        self.clone().begin_close();
        let closed = self.life.wait_for(|life| *life == Life::Closed);
        tokio::select! {
            biased;
            () = closed => Ok(()),
            () = self.setup.env.sleep(timeout) => Err(Error::new(
                Code::Timeout,
                format!("the client is not closed after {} s; closing goes on in the background", timeout.as_secs_f64()),
            )),
        }
    }

    /// Starts closing, unless that has begun already.
    pub(super) fn begin_close(self: Arc<Self>) {
        let first = self.life.modify(|life| {
            let first = *life == Life::Open;
            if first {
                *life = Life::Closing;
            }
            first
        });
        if first {
            let env = self.setup.env.clone();
            // Inline first: on a store without I/O everything is released when this returns.
            match begin(env.tasks.runtime(), self.run_close().boxed()) {
                Begun::Ended(Ok(())) => {}
                Begun::Ended(Err(panic)) => tracing::error!("{panic}"),
                Begun::GoesOn(closing) => {
                    env.spawn(closing);
                }
            }
        }
    }

    async fn run_close(self: Arc<Self>) {
        if let Some(supervisor) = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take() {
            supervisor.abort();
        }
        self.changes.close();
        // All but the renewal: holds stay covered until they are released.
        let (session, mut tasks) = {
            let mut tasks = self.session_tasks.lock().unwrap_or_else(PoisonError::into_inner);
            (self.current_session(), std::mem::take(&mut *tasks))
        };
        let renewal = if tasks.is_empty() { None } else { Some(tasks.remove(0)) };
        for task in tasks {
            task.abort();
        }
        session.claims().close(&session);
        if self.released(&session, renewal.as_ref()).await {
            if let Err(error) = session.close().await {
                tracing::debug!(%error, "the session could not be ended in the store; others will bury it");
            }
            failpoints::at(Point::SessionEnded);
        }
        if let Some(renewal) = renewal {
            renewal.abort();
        }
        session.end(LossReason::Closed);
        // Nor is anything of a session that was lost before, and has no successor, going to be provided again.
        self.setup.providers.close();
        if self.store_use.end() {
            self.store.close().await;
        }
        self.life.replace(Life::Closed);
    }

    /// Waits until everything is released; false if the session ends without.
    async fn released(&self, session: &Arc<Session>, renewal: Option<&Task>) -> bool {
        let released = async {
            session.claims().emptied().await;
            // Nothing is held any more. A renewal that comes after the session's end is refused, as after a loss.
            if let Some(renewal) = renewal {
                renewal.abort();
            }
            self.setup.background.idle().await;
        };
        let mut released = pin!(released);
        loop {
            tokio::select! {
                biased;
                () = &mut released => return true,
                // An unreachable store: the session ends by its ttl. But not while a function goes on under a hold, which is
                // to keep everybody else out until it ends; the patience of whoever closes is his own.
                () = self.setup.env.sleep(session.timing().ttl) => {
                    if session.claims().holds().iter().any(|hold| hold.is_managed()) {
                        continue;
                    }
                    tracing::warn!(session = %session.id(), "closing without having released everything; it ends with its ttl");
                    return false;
                }
                () = session.over() => return false,
            }
        }
    }
}
