//! A function of Python's that is called while this client leads: its calls are fetched, and answered.

use std::sync::Arc;

use coord_core::election::{Candidacy as CoreCandidacy, Elected as CoreElected};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::raised;
use crate::feed::Feed;
use crate::ours::Ours;
use crate::term::Term;

/// A candidacy of the core. Dropping it, and its calls, closes it.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Candidacy(Ours<Arc<CoreCandidacy>>);

impl Candidacy {
    pub(crate) fn new(candidacy: CoreCandidacy) -> Self {
        Self(Ours::new(Arc::new(candidacy)))
    }

    fn get(&self, py: Python<'_>) -> PyResult<Arc<CoreCandidacy>> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Candidacy {
    /// The calls of the function.
    fn calls(&self, py: Python<'_>) -> PyResult<Feed> {
        let candidacy = self.get(py)?;
        Ok(Feed::new("the candidacy", move || {
            let candidacy = candidacy.clone();
            async move {
                let elected = Elected(Ours::new(candidacy.next().await?));
                Ok(Answer::made(elected, |py, elected| elected.into_py_any(py)))
            }
        }))
    }

    /// Says that no call is to begin any more.
    fn close(&self) {
        // Nothing is to be ended in a forked child.
        if let Ok(candidacy) = self.0.get() {
            candidacy.close();
        }
    }

    /// Describes waiting until the last call is answered after `close`.
    fn closed(&self, py: Python<'_>) -> PyResult<Call> {
        let candidacy = self.get(py)?;
        Ok(Call::new(async move {
            candidacy.closed().await;
            Ok(Answer::Nothing)
        }))
    }
}

/// A call of the function. Dropped unanswered, it has failed.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Elected(Ours<CoreElected>);

#[pymethods]
impl Elected {
    fn term(&self, py: Python<'_>) -> PyResult<Term> {
        Ok(Term::new(raised(py, self.0.get())?.term().clone()))
    }

    /// Answers: the function has returned, or failed with this error.
    fn complete(&self, py: Python<'_>, error: Option<String>) -> PyResult<()> {
        let outcome = error.map_or(Ok(()), Err);
        raised(py, self.0.get().and_then(|elected| elected.complete(outcome)))
    }
}
