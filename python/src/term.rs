//! A time of leadership.

use std::sync::Arc;

use coord_core::election::Term as CoreTerm;
use coord_core::error::LossReason;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::fence::Fence;
use crate::loss::{Fate, Loss};
use crate::ours::Ours;

/// A term of the core. Dropping one of a campaign's resigns in the background; one of a function's is only looked at.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Term {
    term: Ours<Arc<CoreTerm>>,
    fate: Arc<Fate>,
}

impl Term {
    pub(crate) fn new(term: Arc<CoreTerm>) -> Self {
        Self { term: Ours::new(term), fate: Arc::default() }
    }

    /// A term that was won, as an answer.
    pub(crate) fn answer(term: CoreTerm) -> Answer {
        Answer::made(term, |py, term| Self::new(Arc::new(term)).into_py_any(py))
    }

    fn get(&self, py: Python<'_>) -> PyResult<Arc<CoreTerm>> {
        raised(py, self.term.get()).cloned()
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        if let Ok(term) = self.term.get() {
            self.fate.end(term.loss());
        }
    }
}

#[pymethods]
impl Term {
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.name().to_string())
    }

    fn token(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.get(py)?.token())
    }

    fn value(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.value())
    }

    /// The seconds for which it stays valid without another renewal; zero in a forked child, too.
    fn remaining(&self) -> f64 {
        self.term.get().map_or(0.0, |term| term.remaining().as_secs_f64())
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        raised(py, self.term.get().and_then(|term| term.check()))
    }

    fn ensure(&self, py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (term, duration) = (self.get(py)?, args::seconds("seconds", seconds)?);
        Ok(Call::new(async move { term.ensure(duration).await.map(|()| Answer::Nothing) }))
    }

    /// This term as the right to write.
    fn fence(&self, py: Python<'_>) -> PyResult<Fence> {
        Ok(Fence::new(raised(py, self.get(py)?.fence())?))
    }

    /// Whether it has ended by this client's own wish.
    fn released(&self) -> bool {
        self.term.get().is_ok_and(|term| term.loss() == Some(LossReason::Resigned))
    }

    fn proclaim(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (term, value) = (self.get(py)?, args::text("value", value)?);
        Ok(Call::new(async move { term.proclaim(&value).await.map(|()| Answer::Nothing) }))
    }

    /// Describes its end. Once begun, it goes on whatever becomes of the call.
    fn resign(&self, py: Python<'_>) -> PyResult<Call> {
        let term = self.get(py)?;
        Ok(Call::new(async move { term.resign().await.map(|()| Answer::Nothing) }))
    }

    fn give_back(&self, py: Python<'_>) -> PyResult<Call> {
        self.resign(py)
    }

    fn transfer_to(&self, py: Python<'_>, candidate: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (term, candidate) = (self.get(py)?, args::text("a candidate's session", candidate)?);
        Ok(Call::new(async move { term.transfer_to(&candidate).await.map(|()| Answer::Nothing) }))
    }

    fn lost(&self, py: Python<'_>) -> PyResult<Loss> {
        Ok(Loss::new(raised(py, self.term.get())?, &self.fate))
    }
}
