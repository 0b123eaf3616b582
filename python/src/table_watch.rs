//! Watches of a table, and what they deliver.

use std::sync::{Arc, Mutex, PoisonError};

use coord_core::table::{Delivery as CoreDelivery, TableEvent, TableWatch as CoreWatch};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::error::raised;
use crate::feed::Feed;
use crate::lifted;
use crate::ours::Ours;

/// A watch of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct TableWatch(Ours<Arc<CoreWatch>>);

impl TableWatch {
    pub(crate) fn new(watch: CoreWatch) -> Self {
        Self(Ours::new(Arc::new(watch)))
    }
}

#[pymethods]
impl TableWatch {
    /// Its deliveries, each with what it tells: kind, key, document, previous, revision; position and failures.
    fn events(&self, py: Python<'_>) -> PyResult<Feed> {
        let watch = raised(py, self.0.get())?.clone();
        Ok(Feed::new("the watch", move || {
            let watch = watch.clone();
            async move { Ok(Answer::made(watch.next().await?, delivered)) }
        }))
    }
}

/// Something that was delivered. Dropped undone, it comes again.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Delivery(Mutex<Option<Ours<CoreDelivery>>>);

#[pymethods]
impl Delivery {
    /// Says that it went well, or why it did not; whether that was still to be said.
    #[pyo3(signature = (error=None))]
    fn done(&self, py: Python<'_>, error: Option<String>) -> PyResult<bool> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(delivery) = taken else { return Ok(false) };
        raised(py, delivery.take())?.done(error.map_or(Ok(()), Err));
        Ok(true)
    }

    /// Gives it back undone, if it is.
    fn back(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether it was done, failed or given back.
    fn settled(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

fn delivered(py: Python<'_>, delivery: CoreDelivery) -> PyResult<Py<PyAny>> {
    let (kind, key, document, previous, revision) = match delivery.event() {
        TableEvent::InitApply { key, document, revision } => ("init_apply", Some(key), Some(document), None, *revision),
        TableEvent::InitDone => ("init_done", None, None, None, None),
        TableEvent::Apply { key, document, previous, revision } => {
            ("apply", Some(key), Some(document), previous.as_ref(), *revision)
        }
        TableEvent::Delete { key, previous } => ("delete", Some(key), None, previous.as_ref(), None),
        // A snapshot begins; and what this version does not know of ends in one, too.
        _ => ("init", None, None, None, None),
    };
    let key = key.map(|key| lifted::key(py, key)).transpose()?;
    let document = document.map(|document| lifted::document(py, document)).transpose()?;
    let previous = previous.map(|document| lifted::document(py, document)).transpose()?;
    let told = (kind, key, document, previous, revision.map(|revision| revision.0));
    let (position, failures) = (delivery.position().0, delivery.failures());
    (Delivery(Mutex::new(Some(Ours::new(delivery)))), told, position, failures).into_py_any(py)
}
