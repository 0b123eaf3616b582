//! One run of one key: what the function gets, and what it answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::error::{Code, Error, Result};
use coord_core::reconciler::{Outcome, Request as CoreRequest, Work as CoreWork};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::fence::Fence;
use crate::lifted;
use crate::ours::Ours;

/// Checks a number of seconds where it is said.
#[pyfunction]
#[pyo3(name = "seconds")]
pub(crate) fn checked_seconds(what: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    Ok(args::seconds(what, value)?.as_secs_f64())
}

/// What to work on. Does not keep the run from being completed.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Work(Ours<Arc<CoreWork>>);

impl Work {
    fn get(&self, py: Python<'_>) -> PyResult<Arc<CoreWork>> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Work {
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        lifted::key(py, self.get(py)?.key())
    }

    /// The document; None if there is none.
    fn document<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.get(py)?.document().map(|document| lifted::document(py, document)).transpose()
    }

    fn attempt(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.get(py)?.attempt())
    }

    fn token(&self, py: Python<'_>) -> PyResult<Option<i64>> {
        Ok(self.get(py)?.token())
    }

    fn revision(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        Ok(self.get(py)?.revision().map(|revision| revision.0))
    }

    /// The shard or the leadership as the right to write.
    fn fence(&self, py: Python<'_>) -> PyResult<Fence> {
        Ok(Fence::new(raised(py, self.get(py)?.fence())?))
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        raised(py, self.0.get().and_then(|work| work.check()))
    }

    /// Whether the run is asked to stop; in a forked child it is.
    fn is_cancelled(&self) -> bool {
        self.0.get().map_or(true, |work| work.is_cancelled())
    }

    /// Describes waiting until the run is asked to stop.
    fn cancelled(&self, py: Python<'_>) -> PyResult<Call> {
        let work = self.get(py)?;
        Ok(Call::new(async move {
            work.cancelled().await;
            Ok(Answer::Nothing)
        }))
    }
}

/// A key to be run now, until it is answered, once. Dropped without that, it comes again, as after an error.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Request {
    request: Mutex<Option<Ours<CoreRequest>>>,
    work: Ours<Arc<CoreWork>>,
}

impl Request {
    pub(crate) fn new(request: CoreRequest) -> Self {
        let work = Ours::new(request.work().clone());
        Self { request: Mutex::new(Some(Ours::new(request))), work }
    }

    fn take(&self) -> Result<CoreRequest> {
        let request = self.request.lock().unwrap_or_else(PoisonError::into_inner).take();
        request.ok_or_else(|| Error::new(Code::NotHeld, "this run was answered before"))?.take()
    }

    fn complete(&self, py: Python<'_>, outcome: Outcome) -> PyResult<()> {
        raised(py, self.take().and_then(|request| request.complete(outcome)))
    }
}

#[pymethods]
impl Request {
    fn work(&self, py: Python<'_>) -> PyResult<Work> {
        Ok(Work(Ours::new(raised(py, self.work.get())?.clone())))
    }

    fn done(&self, py: Python<'_>) -> PyResult<()> {
        self.complete(py, Outcome::Done)
    }

    fn requeue_after(&self, py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        let after = args::seconds("the time to the next run", seconds)?;
        self.complete(py, Outcome::RequeueAfter(after))
    }

    /// It failed; the next try comes after this many seconds, or as the back-off has it.
    fn failed(&self, py: Python<'_>, error: String, after: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let after: Option<Duration> = args::seconds_or_none("the time to the next try", after)?;
        let outcome = match after {
            Some(after) => Outcome::ErrorAfter(error, after),
            None => Outcome::Error(error),
        };
        self.complete(py, outcome)
    }

    fn terminal(&self, py: Python<'_>, error: String) -> PyResult<()> {
        self.complete(py, Outcome::Terminal(error))
    }

    /// Gives it up: it comes again.
    fn drop(&self) {
        // In a forked child it is the parent's, and forgotten.
        drop(self.take());
    }
}
