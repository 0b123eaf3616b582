//! A lock that is held.

use std::sync::Arc;

use coord_core::error::{Code, Error, Result};
use coord_core::lock::Held as CoreHeld;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::fence::Fence;
use crate::loss::{Fate, Loss};
use crate::ours::Ours;

/// A held lock of the core. Dropping it releases the lock in the background.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Held {
    held: Ours<Arc<CoreHeld>>,
    fate: Arc<Fate>,
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

    /// This hold as the right to write.
    fn fence(&self, py: Python<'_>) -> PyResult<Fence> {
        Ok(Fence::new(raised(py, self.get(py)?.fence())?))
    }

    /// Whether a release has begun.
    fn released(&self) -> bool {
        self.fate.is_releasing()
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
        Ok(Loss::new(raised(py, self.held.get())?, &self.fate))
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
    if fate.begin_release() {
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
