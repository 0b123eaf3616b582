//! What a read finds, a page at a time.
//!
//! As with a feed, waiting and taking are two steps: a page whose wait was given up after its end is the next one's. A page
//! leaves here only when all of it has arrived, so that an exception on the way loses nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coord_core::bson::{Bson, Document};
use coord_core::error::{Error, Result};
use coord_core::table::{Cursor as CoreCursor, Stored};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::raised;
use crate::lifted;
use crate::ours::Ours;

/// A cursor of the core; none once it is closed.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Cursor(Mutex<Option<Ours<Arc<Source>>>>);

struct Source {
    next: Next,
    /// Who waits has it: one at a time asks the core.
    turn: tokio::sync::Mutex<()>,
    page: Mutex<Page>,
}

/// What was read and not taken.
#[derive(Default)]
struct Page {
    items: Vec<Item>,
    weight: usize,
    /// Whether nothing comes after it.
    ended: bool,
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
    /// Describes waiting until there is a page to take, or the end.
    fn ready(&self, py: Python<'_>) -> PyResult<Call> {
        let source = self.source(py)?;
        Ok(Call::new(async move { source.fill().await.map(|()| Answer::Nothing) }))
    }

    /// Puts the page at the end of a deque; whether that was nothing, because the end is reached. A page that is empty
    /// before the end was taken by another. One call at a time: what one puts back is missing for another.
    fn take(&self, py: Python<'_>, into: &Bound<'_, PyAny>) -> PyResult<bool> {
        let source = self.source(py)?;
        let (items, weight, ended) = source.page().take();
        // Runs code of Python's, so that nothing may be locked.
        let arrived = put(py, &items, into);
        let over = ended && items.is_empty();
        if arrived.is_err() {
            source.page().put_back(items, weight);
        }
        arrived.map(|()| over)
    }

    fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Source {
    /// Waits until a page is full, or until there is no more.
    async fn fill(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        while !self.page().is_full() {
            // Given up here, nothing is taken from the core, and what was taken before stays.
            let item = (self.next)().await?;
            self.page().add(item);
        }
        Ok(())
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn is_full(&self) -> bool {
        self.ended || self.items.len() >= MOST_ITEMS || self.weight >= MOST_WEIGHT
    }

    fn add(&mut self, item: Option<Item>) {
        match item {
            None => self.ended = true,
            Some(item) => {
                self.weight += weight(item.document());
                self.items.push(item);
            }
        }
    }

    fn take(&mut self) -> (Vec<Item>, usize, bool) {
        (std::mem::take(&mut self.items), std::mem::take(&mut self.weight), self.ended)
    }

    /// Undoes that, before what others may have read since.
    fn put_back(&mut self, items: Vec<Item>, weight: usize) {
        self.items.splice(0..0, items);
        self.weight += weight;
    }
}

/// Puts all of them at the end of a deque, or none.
fn put(py: Python<'_>, items: &[Item], into: &Bound<'_, PyAny>) -> PyResult<()> {
    let lifted = items.iter().map(|item| match item {
        Item::Stored(stored) => lifted::stored(py, stored),
        Item::Document(document) => lifted::document(py, document).map(Bound::into_any),
    });
    into.call_method1("extend", (lifted.collect::<PyResult<Vec<_>>>()?,)).map(drop)
}

impl Item {
    fn document(&self) -> &Document {
        match self {
            Self::Stored(stored) => &stored.document,
            Self::Document(document) => document,
        }
    }
}

/// About how many bytes a document takes: enough to tell small ones from large ones.
fn weight(document: &Document) -> usize {
    fn of(value: &Bson) -> usize {
        match value {
            Bson::String(text) | Bson::Symbol(text) | Bson::JavaScriptCode(text) => text.len(),
            Bson::Binary(binary) => binary.bytes.len(),
            Bson::Document(fields) => weight(fields),
            Bson::Array(elements) => elements.iter().map(|element| ELEMENT + of(element)).sum(),
            _ => 0,
        }
    }
    document.iter().map(|(name, value)| ELEMENT + name.len() + of(value)).sum()
}

/// How many documents cross at once at most.
const MOST_ITEMS: usize = 64;

/// From which weight on no more cross at once.
const MOST_WEIGHT: usize = 1 << 20;

/// What an element takes beside its name and what it refers to.
const ELEMENT: usize = 16;
