//! A lock by its name.

use coord_core::error::Code;
use coord_core::lock::Lock as CoreLock;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::ours::Ours;

/// A lock of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Lock(Ours<CoreLock>);

impl Lock {
    pub(crate) fn new(lock: CoreLock) -> Self {
        Self(Ours::new(lock))
    }

    fn get(&self, py: Python<'_>) -> PyResult<CoreLock> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Lock {
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(raised(py, self.0.get())?.name().to_string())
    }

    fn acquire(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let (lock, timeout) = (self.get(py)?, args::seconds_or_none("timeout", timeout)?);
        Ok(Call::new(async move {
            match timeout {
                Some(timeout) => lock.acquire_timeout(timeout).await,
                None => lock.acquire().await,
            }
            .map(Answer::Held)
        }))
    }

    /// Describes one attempt, which brings None when somebody else holds the lock.
    fn try_acquire(&self, py: Python<'_>) -> PyResult<Call> {
        let lock = self.get(py)?;
        Ok(Call::new(async move {
            match lock.try_acquire().await {
                Err(error) if error.code() == Code::Contended => Ok(Answer::Nothing),
                held => held.map(Answer::Held),
            }
        }))
    }

    fn info(&self, py: Python<'_>) -> PyResult<Call> {
        let lock = self.get(py)?;
        Ok(Call::new(async move { lock.info().await.map(Answer::Lock) }))
    }
}
