//! The loss of what was granted, as an event that does not keep it held.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use coord_core::driver::{CancelToken, Runtime};
use coord_core::election::Term;
use coord_core::error::{Code, Error, LossReason, Result};
use coord_core::lock::Held;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::call::Call;

/// What was granted, and can be lost.
pub(crate) trait Grant: Send + Sync {
    fn loss(&self) -> Option<LossReason>;
    fn lost(&self) -> Pin<Box<dyn Future<Output = LossReason> + Send + '_>>;
}

impl Grant for Held {
    fn loss(&self) -> Option<LossReason> {
        self.loss()
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = LossReason> + Send + '_>> {
        Box::pin(self.lost())
    }
}

impl Grant for Term {
    fn loss(&self) -> Option<LossReason> {
        self.loss()
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = LossReason> + Send + '_>> {
        Box::pin(self.lost())
    }
}

/// How a grant ended: what is left of it when it is given back or gone.
#[derive(Default)]
pub(crate) struct Fate {
    /// Whether a release has begun.
    releasing: AtomicBool,
    /// Set when the grant has ended: the loss that came before the release, if one did.
    loss: OnceLock<Option<LossReason>>,
    /// Fired then, too. What waits for the loss ends with it and does not keep the grant.
    ended: CancelToken,
}

impl Fate {
    pub(crate) fn end(&self, loss: Option<LossReason>) {
        // The first end is the one that counts.
        let _ = self.loss.set(loss);
        self.ended.fire();
    }

    /// Whether a release has begun.
    pub(crate) fn is_releasing(&self) -> bool {
        self.releasing.load(Ordering::Relaxed)
    }

    /// Begins a release. True if one was begun before.
    pub(crate) fn begin_release(&self) -> bool {
        self.releasing.swap(true, Ordering::Relaxed)
    }
}

/// The loss of a grant, as an event.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Loss {
    grant: Weak<dyn Grant>,
    fate: Arc<Fate>,
}

impl Loss {
    pub(crate) fn new<G: Grant + 'static>(grant: &Arc<G>, fate: &Arc<Fate>) -> Self {
        let weak = Arc::downgrade(grant);
        Self { grant: weak, fate: fate.clone() }
    }
}

#[pymethods]
impl Loss {
    /// Why it is lost, as a number; None if it is not, or was released before.
    fn reason(&self) -> Option<i32> {
        if !Runtime::is_ours() {
            return Some(LossReason::Forked as i32);
        }
        let loss = match self.fate.loss.get() {
            Some(loss) => *loss,
            None => self.grant.upgrade().and_then(|grant| grant.loss()),
        };
        loss.map(|reason| reason as i32)
    }

    /// Describes waiting for the loss. `NotHeld` when the grant ends without one.
    fn wait(&self) -> Call {
        let (grant, fate) = (self.grant.clone(), self.fate.clone());
        Call::new(async move { lost(grant.upgrade(), &fate).await.map(Answer::Loss) })
    }
}

async fn lost(grant: Option<Arc<dyn Grant>>, fate: &Fate) -> Result<LossReason> {
    if let Some(grant) = grant {
        tokio::select! {
            biased;
            () = fate.ended.fired() => {}
            reason = grant.lost() => return Ok(reason),
        }
    }
    let ended = || Error::new(Code::NotHeld, "it was released before it was lost");
    fate.loss.get().copied().flatten().ok_or_else(ended)
}
