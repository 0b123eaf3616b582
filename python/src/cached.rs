//! A table with a copy in memory.

use std::sync::{Mutex, PoisonError};

use coord_core::error::{Error, Result};
use coord_core::table::{CachedTable as CoreCached, Position};
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::call::Call;
use crate::error::raised;
use crate::fence::{Fence, write_options};
use crate::ours::Ours;
use crate::table::{Table, Write, counted, find_options, found, many_written, stored, written};
use crate::{lifted, lowered};

/// A cached table of the core; none once it is closed.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct CachedTable(Mutex<Option<Ours<CoreCached>>>);

impl CachedTable {
    pub(crate) fn new(cached: CoreCached) -> Self {
        Self(Mutex::new(Some(Ours::new(cached))))
    }

    fn look(&self) -> Result<CoreCached> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Err(Error::closed("the cached table")),
            Some(cached) => cached.get().cloned(),
        }
    }

    fn get(&self, py: Python<'_>) -> PyResult<CoreCached> {
        raised(py, self.look())
    }
}

#[pymethods]
impl CachedTable {
    /// The table itself.
    fn table(&self, py: Python<'_>) -> PyResult<Table> {
        Ok(Table::new(self.get(py)?.table().clone()))
    }

    fn read<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (cached, key) = (self.get(py)?, lowered::key(key)?);
        lifted::stored(py, &raised(py, cached.get(key))?)
    }

    fn contains(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (cached, key) = (self.get(py)?, lowered::key(key)?);
        raised(py, cached.contains(key))
    }

    fn read_fresh(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (cached, key) = (self.get(py)?, lowered::key(key)?);
        Ok(Call::new(async move { cached.get_fresh(key).await.map(stored) }))
    }

    /// Describes looking at every document.
    fn find(
        &self,
        py: Python<'_>,
        filter: Option<&Bound<'_, PyAny>>,
        sort: Option<&Bound<'_, PyAny>>,
        skip: &Bound<'_, PyAny>,
        limit: Option<&Bound<'_, PyAny>>,
        projection: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let (cached, filter) = (self.get(py)?, lowered::filter(filter)?);
        let options = find_options(py, sort, skip, limit, projection)?;
        Ok(Call::computing(move || cached.find(filter, options).map(found)))
    }

    /// Describes the same, without taking them.
    fn count(&self, py: Python<'_>, filter: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let (cached, filter) = (self.get(py)?, lowered::filter(filter)?);
        Ok(Call::computing(move || cached.count(filter).map(counted)))
    }

    #[allow(clippy::too_many_arguments, reason = "each is one of Python's")]
    fn write(
        &self,
        py: Python<'_>,
        action: &str,
        key: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        revision: Option<&Bound<'_, PyAny>>,
        fence: Option<&Bound<'_, Fence>>,
        strict: bool,
    ) -> PyResult<Call> {
        let (cached, write) = (self.get(py)?, Write::parse(py, action, key, value, revision)?);
        let options = write_options(fence, strict);
        Ok(Call::new(async move { write.of_cached(&cached, options).await.map(written) }))
    }

    fn write_many(
        &self,
        py: Python<'_>,
        filter: &Bound<'_, PyAny>,
        update: Option<(Bound<'_, PyAny>,)>,
        fence: Option<&Bound<'_, Fence>>,
        strict: bool,
    ) -> PyResult<Call> {
        let (cached, filter) = (self.get(py)?, lowered::filter(Some(filter))?);
        let (update, options) =
            (update.map(|(update,)| lowered::update(&update)).transpose()?, write_options(fence, strict));
        Ok(Call::new(async move {
            match update {
                Some(update) => cached.update_many(filter, update, options).await,
                None => cached.delete_many(filter, options).await,
            }
            .map(many_written)
        }))
    }

    fn wait_until(&self, py: Python<'_>, position: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (cached, position) = (self.get(py)?, Position(args::unsigned("position", position)?));
        Ok(Call::new(async move { cached.wait_until(position).await.map(|()| Answer::Nothing) }))
    }

    fn position(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.get(py)?.position().0)
    }

    /// Whether the copy follows the store; not when it is closed, and not in a forked child.
    fn synced(&self) -> bool {
        self.look().is_ok_and(|cached| cached.synced())
    }

    fn bytes(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.bytes())
    }

    /// Ends the copy, unless somebody else still asks it something.
    fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn is_closed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}
