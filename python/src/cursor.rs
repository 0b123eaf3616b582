//! What a read finds, a page at a time.
//!
//! As with a feed, waiting and taking are two steps: a page whose wait was given up after its end is the next one's.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use coord_core::bson::Document;
use coord_core::error::{Error, Result};
use coord_core::table::{Cursor as CoreCursor, Stored};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::raised;
use crate::lifted;
use crate::ours::Ours;

/// How many documents cross at once at most.
const PAGE: usize = 64;

/// A cursor of the core; none once it is closed.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Cursor(Mutex<Option<Ours<Arc<Source>>>>);

struct Source {
    next: Next,
    /// Who waits has it: one at a time asks the core.
    turn: tokio::sync::Mutex<()>,
    page: Mutex<Vec<Item>>,
}

type Next = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Option<Item>>> + Send>> + Send + Sync>;

enum Item {
    Stored(Stored),
    Document(Document),
}

impl Cursor {
    pub(crate) fn of_stored(cursor: CoreCursor<Stored>) -> Answer {
        Self::of(cursor, Item::Stored)
    }

    pub(crate) fn of_documents(cursor: CoreCursor<Document>) -> Answer {
        Self::of(cursor, Item::Document)
    }

    fn of<T: Send + 'static>(cursor: CoreCursor<T>, item: fn(T) -> Item) -> Answer {
        let cursor = Arc::new(cursor);
        let next: Next = Box::new(move || {
            let cursor = cursor.clone();
            Box::pin(async move { Ok(cursor.next().await?.map(item)) })
        });
        let source = Source { next, turn: tokio::sync::Mutex::default(), page: Mutex::default() };
        Answer::made(source, |py, source| Self(Mutex::new(Some(Ours::new(Arc::new(source))))).into_py_any(py))
    }

    fn source(&self, py: Python<'_>) -> PyResult<Arc<Source>> {
        let source = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Err(Error::closed("the cursor")),
            Some(source) => source.get().cloned(),
        };
        raised(py, source)
    }
}

#[pymethods]
impl Cursor {
    /// Describes waiting until there is a page to take, which is empty at the end.
    fn ready(&self, py: Python<'_>) -> PyResult<Call> {
        let source = self.source(py)?;
        Ok(Call::new(async move { source.fill().await.map(|()| Answer::Nothing) }))
    }

    /// Takes the page.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let source = self.source(py)?;
        let page = std::mem::take(&mut *source.page.lock().unwrap_or_else(PoisonError::into_inner));
        page.iter()
            .map(|item| match item {
                Item::Stored(stored) => lifted::stored(py, stored),
                Item::Document(document) => lifted::document(py, document).map(Bound::into_any),
            })
            .collect()
    }

    fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Source {
    /// Waits until a page is full, or until there is no more.
    async fn fill(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        while self.page.lock().unwrap_or_else(PoisonError::into_inner).len() < PAGE {
            // Given up here, nothing is taken from the core, and what was taken before stays.
            let Some(item) = (self.next)().await? else { break };
            self.page.lock().unwrap_or_else(PoisonError::into_inner).push(item);
        }
        Ok(())
    }
}
