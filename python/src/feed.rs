//! What comes one after the other: events and requests, which Python fetches when it wants them.
//!
//! Waiting and taking are two steps, so that no event is lost with a wait that is given up after its end: a cancelled
//! task, Ctrl-C. What is ready and was not taken is the next one's.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use coord_core::driver::{CancelToken, Runtime};
use coord_core::error::{Error, Result};
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::call::{Call, Operation};
use crate::error::raised;
use crate::ours::Ours;

/// A source of events. It ends with `Closed`: with its client, or when it is closed itself.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Feed {
    /// What is closed, in a message.
    what: &'static str,
    /// None once it is closed.
    source: Mutex<Option<Ours<Arc<Source>>>>,
    closed: CancelToken,
}

struct Source {
    next: Box<dyn Fn() -> Operation + Send + Sync>,
    /// Who waits has it: one at a time asks the core.
    turn: tokio::sync::Mutex<()>,
    ready: Mutex<Option<Answer>>,
}

impl Feed {
    /// A feed of what `next` brings, each time it is called. Its future is dropped when nobody waits any more, and
    /// must then have taken nothing from the core.
    pub(crate) fn new<F>(what: &'static str, next: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Answer>> + Send + 'static,
    {
        let next: Box<dyn Fn() -> Operation + Send + Sync> = Box::new(move || Box::pin(next()));
        let source = Source { next, turn: tokio::sync::Mutex::new(()), ready: Mutex::new(None) };
        Self { what, source: Mutex::new(Some(Ours::new(Arc::new(source)))), closed: CancelToken::new() }
    }

    /// The source; none once it is closed.
    fn source(&self, py: Python<'_>) -> PyResult<Option<Arc<Source>>> {
        match &*self.source.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(None),
            Some(source) => raised(py, source.get()).cloned().map(Some),
        }
    }
}

#[pymethods]
impl Feed {
    /// Describes waiting until there is something to take.
    fn ready(&self, py: Python<'_>) -> PyResult<Call> {
        let (source, closed, what) = (self.source(py)?, self.closed.clone(), self.what);
        Ok(Call::new(async move {
            let Some(source) = source else { return Err(Error::closed(what)) };
            tokio::select! {
                biased;
                () = closed.fired() => Err(Error::closed(what)),
                outcome = source.fill() => outcome.map(|()| Answer::Nothing),
            }
        }))
    }

    /// Takes what is ready, in a tuple; None if that is nothing.
    fn take(&self, py: Python<'_>) -> PyResult<Option<(Py<PyAny>,)>> {
        let Some(source) = self.source(py)? else { return Ok(None) };
        let ready = source.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        ready.map(|answer| Ok((answer.into_python(py)?,))).transpose()
    }

    /// Ends every wait, and drops what was not taken.
    fn close(&self) {
        if Runtime::is_ours() {
            self.closed.fire();
            drop(self.source.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.is_fired()
    }
}

impl Source {
    /// Waits until something is ready.
    async fn fill(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.ready.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            let answer = (self.next)().await?;
            *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        }
        Ok(())
    }
}
