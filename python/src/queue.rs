//! Operations that report to a queue, whose descriptor an event loop watches.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use coord_core::driver::{EventQueue, Op as CoreOp, Runtime};
use coord_core::error::Result;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::{exception, raised};
use crate::interpreter::{Inside, detached};

/// The end of a started operation.
struct Event {
    tag: u64,
    outcome: Result<Answer>,
}

/// One thing that has ended, for Python: its tag, whether it succeeded, and its result or exception.
type Ended = (u64, bool, Py<PyAny>);

/// A queue of ended operations. Every started one comes out exactly once, or is dropped with the queue; a lock that
/// was granted and that nobody took is given back.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Queue(Arc<EventQueue<Event>>);

#[pymethods]
impl Queue {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Self(raised(py, EventQueue::new())?))
    }

    /// The descriptor: readable exactly when something has ended. Only to be watched.
    fn fd(&self) -> i32 {
        self.0.fd().as_raw_fd()
    }

    /// Starts an operation; its end comes out of the queue under this tag, possibly at once, and `Timeout` after so
    /// many seconds.
    #[pyo3(signature = (tag, call, timeout=None))]
    fn start(&self, py: Python<'_>, tag: u64, call: &Call, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Op> {
        let timeout = args::seconds_or_none("timeout", timeout)?;
        let operation = raised(py, call.take_apart())?;
        let runtime = raised(py, Runtime::shared())?;
        // Its first step is done here, and may write to a file.
        let (started, _inside) = detached(py, || {
            let started = runtime.start(&self.0, operation, timeout, None, move |outcome| Event { tag, outcome });
            drop(runtime);
            started
        });
        Ok(Op(raised(py, started)?))
    }

    /// Takes what has ended; waits for at most `timeout` seconds if that is nothing.
    #[pyo3(signature = (timeout=None))]
    fn take(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Ended>> {
        let timeout = args::seconds_or_none("timeout", timeout)?.unwrap_or(Duration::ZERO);
        let mut events = Vec::new();
        // Until what has ended is Python's.
        let _inside = if timeout == Duration::ZERO {
            self.0.poll_batch(BATCH, Some(timeout), &mut events);
            Inside::enter(py)
        } else {
            detached(py, || self.0.poll_batch(BATCH, Some(timeout), &mut events)).1
        };
        Ok(events.into_iter().map(|event| event.into_python(py)).collect())
    }

    /// Drops what nobody took, and everything that ends later.
    fn close(&self) {
        self.0.close();
    }
}

/// How many events one call takes at most, so that an event loop gets its turn.
const BATCH: usize = 256;

impl Event {
    fn into_python(self, py: Python<'_>) -> Ended {
        let result = match self.outcome {
            Ok(answer) => answer.into_python(py),
            Err(error) => Err(exception(py, &error)),
        };
        match result {
            Ok(value) => (self.tag, true, value),
            Err(error) => (self.tag, false, error.into_value(py).into_any()),
        }
    }
}

/// A started operation. Dropping it lets the operation go on.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Op(CoreOp);

#[pymethods]
impl Op {
    /// Ends the operation, unless it has ended; it still comes out of its queue.
    fn cancel(&self) {
        if Runtime::is_ours() {
            self.0.cancel();
        }
    }
}
