//! A lock that is held, and its loss.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use coord_core::driver::{CancelToken, Runtime};
use coord_core::error::{Code, Error, LossReason, Result};
use coord_core::lock::Held as CoreHeld;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::ours::Ours;

/// A held lock of the core. Dropping it releases the lock in the background.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Held {
    held: Ours<Arc<CoreHeld>>,
    fate: Arc<Fate>,
}

/// How a hold ended: what is left of it when it is released or gone.
#[derive(Default)]
struct Fate {
    /// Whether a release has begun.
    releasing: AtomicBool,
    /// Set when the hold has ended: the loss that came before the release, if one did.
    loss: OnceLock<Option<LossReason>>,
    /// Fired then, too. What waits for the loss ends with it and does not keep the lock held.
    ended: CancelToken,
}

impl Fate {
    fn end(&self, loss: Option<LossReason>) {
        // The first end is the one that counts.
        let _ = self.loss.set(loss);
        self.ended.fire();
    }
}

impl Held {
    pub(crate) fn new(held: CoreHeld) -> Self {
        Self { held: Ours::new(Arc::new(held)), fate: Arc::default() }
    }

    fn get(&self, py: Python<'_>) -> PyResult<Arc<CoreHeld>> {
        raised(py, self.held.get()).cloned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Ok(held) = self.held.get() {
            self.fate.end(held.loss());
        }
    }
}

#[pymethods]
impl Held {
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.name().to_string())
    }

    fn token(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.get(py)?.token())
    }

    /// The seconds for which it stays valid without another renewal; zero in a forked child, too.
    fn remaining(&self) -> f64 {
        self.held.get().map_or(0.0, |held| held.remaining().as_secs_f64())
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        raised(py, self.held.get().and_then(|held| held.check()))
    }

    fn ensure(&self, py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (held, duration) = (self.get(py)?, args::seconds("seconds", seconds)?);
        Ok(Call::new(async move { held.ensure(duration).await.map(|()| Answer::Nothing) }))
    }

    /// Whether a release has begun.
    fn released(&self) -> bool {
        self.fate.releasing.load(Ordering::Relaxed)
    }

    /// Says that a function runs under this hold, whose end closing the client waits for.
    fn manage(&self, py: Python<'_>) -> PyResult<()> {
        self.get(py)?.manage();
        Ok(())
    }

    /// Describes the release. Once begun, it goes on whatever becomes of the call.
    fn release(&self, py: Python<'_>) -> PyResult<Call> {
        let (held, fate) = (self.get(py)?, self.fate.clone());
        Ok(Call::new(async move { release(&held, &fate).await.map(|()| Answer::Nothing) }))
    }

    fn give_back(&self, py: Python<'_>) -> PyResult<Call> {
        self.release(py)
    }

    fn lost(&self, py: Python<'_>) -> PyResult<Loss> {
        Ok(Loss { held: Arc::downgrade(raised(py, self.held.get())?), fate: self.fate.clone() })
    }
}

async fn release(held: &CoreHeld, fate: &Fate) -> Result<()> {
    /// Ends the fate also when the call is given up: the release goes on by itself then.
    struct Ending<'a>(&'a CoreHeld, &'a Fate);
    impl Drop for Ending<'_> {
        fn drop(&mut self) {
            self.1.end(self.0.loss());
        }
    }
    if fate.releasing.swap(true, Ordering::Relaxed) {
        return Err(released(held));
    }
    let _ending = Ending(held, fate);
    let outcome = held.release().await;
    fate.end(outcome.as_ref().err().and_then(Error::loss));
    outcome
}

fn released(held: &CoreHeld) -> Error {
    Error::new(Code::NotHeld, format!("lock '{}' was released before", held.name()))
}

/// The loss of a hold, as an event. It does not keep the lock held.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Loss {
    held: Weak<CoreHeld>,
    fate: Arc<Fate>,
}

#[pymethods]
impl Loss {
    /// Why the hold is lost, as a number; None if it is not, or was released before.
    fn reason(&self) -> Option<i32> {
        if !Runtime::is_ours() {
            return Some(LossReason::Forked as i32);
        }
        let loss = match self.fate.loss.get() {
            Some(loss) => *loss,
            None => self.held.upgrade().and_then(|held| held.loss()),
        };
        loss.map(|reason| reason as i32)
    }

    /// Describes waiting for the loss. `NotHeld` when the hold ends without one.
    fn wait(&self) -> Call {
        let (held, fate) = (self.held.clone(), self.fate.clone());
        Call::new(async move { lost(held.upgrade(), &fate).await.map(Answer::Loss) })
    }
}

async fn lost(held: Option<Arc<CoreHeld>>, fate: &Fate) -> Result<LossReason> {
    if let Some(held) = held {
        tokio::select! {
            biased;
            () = fate.ended.fired() => {}
            reason = held.lost() => return Ok(reason),
        }
    }
    let ended = || Error::new(Code::NotHeld, "the lock was released before it was lost");
    fate.loss.get().copied().flatten().ok_or_else(ended)
}
