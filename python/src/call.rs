//! An operation, described but not begun. The synchronous API waits for it, asyncio's starts it on a queue.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coord_core::driver::Runtime;
use coord_core::error::{Error, Result};
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::error::raised;
use crate::interpreter::{SIGNALS, detached, is_main};
use crate::ours::Ours;

pub(crate) type Operation = Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// An operation that was described but not begun: it is waited for, or started, once. Dropped before that, it does
/// nothing.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Call(Mutex<Option<Ours<Operation>>>);

impl Call {
    pub(crate) fn new(operation: impl Future<Output = Result<Answer>> + Send + 'static) -> Self {
        Self(Mutex::new(Some(Ours::new(Box::pin(operation)))))
    }

    /// The operation, which is there once.
    pub(crate) fn take(&self) -> Result<Operation> {
        let operation = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        operation.ok_or_else(|| Error::invalid("this call was begun before"))?.take()
    }
}

#[pymethods]
impl Call {
    /// Waits for the result, at most `timeout` seconds. On the main thread a signal handler's exception ends the wait;
    /// what the operation would have brought is given back.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let timeout = args::seconds_or_none("timeout", timeout)?;
        let operation = raised(py, self.take())?;
        let runtime = raised(py, Runtime::shared())?;
        let main = is_main(py)?;
        let every = if main { SIGNALS } else { Duration::MAX };
        let signals = || Python::attach(|py| py.check_signals());
        // Until the result is Python's.
        let (outcome, _inside) = detached(py, || {
            let outcome = runtime.wait_sliced(operation, timeout, None, every, signals);
            drop(runtime);
            outcome
        });
        raised(py, outcome?)?.into_python(py)
    }
}
