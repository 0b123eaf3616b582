//! An operation, described but not begun. The synchronous API waits for it, asyncio's starts it on a queue.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coord_core::driver::Runtime;
use coord_core::error::{Error, Result};
use pyo3::prelude::*;
use tokio::task::{block_in_place, spawn_blocking};

use crate::answer::Answer;
use crate::args;
use crate::error::raised;
use crate::interpreter::{SIGNALS, detached, is_main};
use crate::ours::Ours;

pub(crate) type Operation = Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// An operation that was described but not begun: it is waited for, or started, once. Dropped before that, it does
/// nothing.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Call(Mutex<Option<Ours<Described>>>);

enum Described {
    Operation(Operation),
    /// What needs no I/O, but time.
    Computation(Computation),
}

type Computation = Box<dyn FnOnce() -> Result<Answer> + Send>;

impl Call {
    pub(crate) fn new(operation: impl Future<Output = Result<Answer>> + Send + 'static) -> Self {
        Self(Mutex::new(Some(Ours::new(Described::Operation(Box::pin(operation))))))
    }

    /// Describes what needs no I/O, but time: it must hold up neither an event loop nor a thread that does I/O.
    pub(crate) fn computing(computation: impl FnOnce() -> Result<Answer> + Send + 'static) -> Self {
        Self(Mutex::new(Some(Ours::new(Described::Computation(Box::new(computation))))))
    }

    fn take(&self) -> Result<Described> {
        let described = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        described.ok_or_else(|| Error::invalid("this call was begun before"))?.take()
    }

    /// The operation, which is there once, for a thread that waits for it and may compute as well.
    fn take_here(&self) -> Result<Operation> {
        Ok(match self.take()? {
            Described::Operation(operation) => operation,
            Described::Computation(compute) => Box::pin(async { block_in_place(compute) }),
        })
    }

    /// The operation, which is there once, for a thread that has something else to do.
    pub(crate) fn take_apart(&self) -> Result<Operation> {
        Ok(match self.take()? {
            Described::Operation(operation) => operation,
            Described::Computation(compute) => Box::pin(async { apart(compute).await }),
        })
    }
}

/// On a thread of the runtime's that may block.
async fn apart(compute: Computation) -> Result<Answer> {
    match spawn_blocking(compute).await {
        Ok(outcome) => outcome,
        Err(failure) => match failure.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(_) => Err(Error::closed("the runtime of this library")),
        },
    }
}

#[pymethods]
impl Call {
    /// Waits for the result, at most `timeout` seconds. On the main thread a signal handler's exception ends the wait;
    /// what the operation would have brought is given back.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let timeout = args::seconds_or_none("timeout", timeout)?;
        let operation = raised(py, self.take_here())?;
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
