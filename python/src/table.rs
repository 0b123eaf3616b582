//! A table by its name.

use std::sync::Arc;
use std::time::Duration;

use coord_core::bson::Document;
use coord_core::error::Result;
use coord_core::table::{
    CacheOptions, CachedTable as CoreCached, FindOptions, Index, Key, LogEntry, LogFrom, ManyWritten, Position,
    Projection, Revision, Sort, Stored, Table as CoreTable, TableOptions, Update, WatchOptions, WriteOptions, Written,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::args;
use crate::cached::CachedTable;
use crate::call::Call;
use crate::cursor::Cursor;
use crate::error::raised;
use crate::feed::Feed;
use crate::fence::{Fence, write_options};
use crate::ours::Ours;
use crate::table_watch::TableWatch;
use crate::{lifted, lowered};

/// A table of the core.
#[pyclass(frozen, module = "coord._native")]
pub(crate) struct Table(Ours<CoreTable>);

impl Table {
    pub(crate) fn new(table: CoreTable) -> Self {
        Self(Ours::new(table))
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<CoreTable> {
        raised(py, self.0.get()).cloned()
    }
}

#[pymethods]
impl Table {
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.name().to_owned())
    }

    /// Describes a write to the document of a key: the name of what is done, and what that takes.
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
        let (table, write) = (self.get(py)?, Write::parse(py, action, key, value, revision)?);
        let options = write_options(fence, strict);
        Ok(Call::new(async move { write.of_table(&table, options).await.map(written) }))
    }

    /// Describes a write to all that match: an update, which is in a tuple, or without one their removal.
    fn write_many(
        &self,
        py: Python<'_>,
        filter: &Bound<'_, PyAny>,
        update: Option<(Bound<'_, PyAny>,)>,
        fence: Option<&Bound<'_, Fence>>,
        strict: bool,
    ) -> PyResult<Call> {
        let (table, filter) = (self.get(py)?, lowered::filter(Some(filter))?);
        let (update, options) =
            (update.map(|(update,)| lowered::update(&update)).transpose()?, write_options(fence, strict));
        Ok(Call::new(async move {
            match update {
                Some(update) => table.update_many(filter, update, options).await,
                None => table.delete_many(filter, options).await,
            }
            .map(many_written)
        }))
    }

    fn read(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (table, key) = (self.get(py)?, lowered::key(key)?);
        Ok(Call::new(async move { table.get(key).await.map(stored) }))
    }

    fn contains(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (table, key) = (self.get(py)?, lowered::key(key)?);
        Ok(Call::new(
            async move { Ok(Answer::made(table.contains(key).await?, |py, contains| contains.into_py_any(py))) },
        ))
    }

    fn find(
        &self,
        py: Python<'_>,
        filter: Option<&Bound<'_, PyAny>>,
        sort: Option<&Bound<'_, PyAny>>,
        skip: &Bound<'_, PyAny>,
        limit: Option<&Bound<'_, PyAny>>,
        projection: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let (table, filter) = (self.get(py)?, lowered::filter(filter)?);
        let options = find_options(py, sort, skip, limit, projection)?;
        Ok(Call::new(async move { table.find(filter, options).await.map(found) }))
    }

    fn cursor(
        &self,
        py: Python<'_>,
        filter: Option<&Bound<'_, PyAny>>,
        sort: Option<&Bound<'_, PyAny>>,
        skip: &Bound<'_, PyAny>,
        limit: Option<&Bound<'_, PyAny>>,
        projection: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Call> {
        let (table, filter) = (self.get(py)?, lowered::filter(filter)?);
        let options = find_options(py, sort, skip, limit, projection)?;
        Ok(Call::new(async move { table.cursor(filter, options).await.map(Cursor::of_stored) }))
    }

    fn count(&self, py: Python<'_>, filter: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let (table, filter) = (self.get(py)?, lowered::filter(filter)?);
        Ok(Call::new(async move { table.count(filter).await.map(counted) }))
    }

    fn aggregate(&self, py: Python<'_>, pipeline: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (table, pipeline) = (self.get(py)?, lowered::documents("the pipeline", pipeline)?);
        Ok(Call::new(async move { table.aggregate(pipeline).await.map(Cursor::of_documents) }))
    }

    fn ensure_indexes(&self, py: Python<'_>, indexes: Vec<IndexParts<'_>>) -> PyResult<Call> {
        let table = self.get(py)?;
        let indexes = indexes.into_iter().map(index).collect::<PyResult<Vec<_>>>()?;
        Ok(Call::new(async move { table.ensure_indexes(indexes).await.map(|()| Answer::Nothing) }))
    }

    fn configure(&self, py: Python<'_>, previous: bool) -> PyResult<Call> {
        let table = self.get(py)?;
        Ok(Call::new(async move { table.configure(TableOptions { previous }).await.map(|()| Answer::Nothing) }))
    }

    fn drop_table(&self, py: Python<'_>) -> PyResult<Call> {
        let table = self.get(py)?;
        Ok(Call::new(async move { table.drop_table().await.map(|()| Answer::Nothing) }))
    }

    fn health(&self, py: Python<'_>) -> PyResult<Call> {
        let table = self.get(py)?;
        Ok(Call::new(async move { table.health().await.map(|()| Answer::Nothing) }))
    }

    fn watch(
        &self,
        py: Python<'_>,
        filter: Option<&Bound<'_, PyAny>>,
        from_position: Option<&Bound<'_, PyAny>>,
        previous: bool,
    ) -> PyResult<TableWatch> {
        let (table, filter) = (self.get(py)?, lowered::filter(filter)?);
        let from = from_position.map(|from| args::unsigned("from_position", from).map(Position)).transpose()?;
        Ok(TableWatch::new(raised(py, table.watch(filter, WatchOptions { from, previous }))?))
    }

    /// Describes opening the log from now on, or where `begin` says: after a position, or from a date on, in milliseconds
    /// since 1970; its name, and the number.
    fn log(&self, py: Python<'_>, begin: Option<(String, Bound<'_, PyAny>)>) -> PyResult<Call> {
        let table = self.get(py)?;
        let from = match &begin {
            None => LogFrom::default(),
            Some((what, position)) if what == "position" => {
                LogFrom::After(Position(args::unsigned("from_position", position)?))
            }
            Some((_, at_ms)) => LogFrom::Time(at_ms.extract()?),
        };
        Ok(Call::new(async move {
            let log = Arc::new(table.log(from).await?);
            let feed = Feed::new("the log", move || {
                let log = log.clone();
                async move { Ok(Answer::made(log.next().await?, log_entry)) }
            });
            Ok(Answer::made(feed, |py, feed| feed.into_py_any(py)))
        }))
    }

    /// Describes a copy in memory.
    fn cached(
        &self,
        py: Python<'_>,
        filter: Option<&Bound<'_, PyAny>>,
        max_bytes: Option<&Bound<'_, PyAny>>,
        read_your_writes: bool,
    ) -> PyResult<Call> {
        let (table, filter) = (self.get(py)?, lowered::filter(filter)?);
        let mut options = CacheOptions { filter, read_your_writes, ..Default::default() };
        if let Some(max_bytes) = max_bytes {
            // More than there can be is as much as there can be.
            options.max_bytes = args::unsigned("max_bytes", max_bytes)?.try_into().unwrap_or(usize::MAX);
        }
        Ok(Call::new(async move {
            let cached = table.client().cached_table(table.name(), options).await?;
            Ok(Answer::made(cached, |py, cached| CachedTable::new(cached).into_py_any(py)))
        }))
    }
}

/// A write to the document of one key.
pub(crate) struct Write {
    key: Key,
    what: What,
}

enum What {
    Insert(Document),
    Put(Document),
    Update(Update),
    Upsert(Update),
    Locate(Document),
    Replace(Document, Option<Revision>),
    Delete(Option<Revision>),
}

impl Write {
    pub(crate) fn parse(
        py: Python<'_>,
        action: &str,
        key: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        revision: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let key = lowered::key(key)?;
        let none = py.None().into_bound(py);
        let value = value.unwrap_or(&none);
        let document = || lowered::document("the document", value);
        let revision = || revision.map(|revision| args::unsigned("revision", revision).map(Revision)).transpose();
        let what = match action {
            "insert" => What::Insert(document()?),
            "put" => What::Put(document()?),
            "update" => What::Update(lowered::update(value)?),
            "upsert" => What::Upsert(lowered::update(value)?),
            "locate" => What::Locate(document()?),
            "replace" => What::Replace(document()?, revision()?),
            _ => What::Delete(revision()?),
        };
        Ok(Self { key, what })
    }

    async fn of_table(self, table: &CoreTable, options: WriteOptions) -> Result<Written> {
        let Self { key, what } = self;
        match what {
            What::Insert(document) => table.insert(key, document, options).await,
            What::Put(document) => table.put(key, document, options).await,
            What::Update(update) => table.update(key, update, options).await,
            What::Upsert(update) => table.upsert(key, update, options).await,
            What::Locate(fields) => table.locate(key, fields, options).await,
            What::Replace(document, None) => table.replace(key, document, options).await,
            What::Replace(document, Some(revision)) => table.replace_if(key, document, revision, options).await,
            What::Delete(None) => table.delete(key, options).await,
            What::Delete(Some(revision)) => table.delete_if(key, revision, options).await,
        }
    }

    pub(crate) async fn of_cached(self, table: &CoreCached, options: WriteOptions) -> Result<Written> {
        let Self { key, what } = self;
        match what {
            What::Insert(document) => table.insert(key, document, options).await,
            What::Put(document) => table.put(key, document, options).await,
            What::Update(update) => table.update(key, update, options).await,
            What::Upsert(update) => table.upsert(key, update, options).await,
            What::Locate(fields) => table.locate(key, fields, options).await,
            What::Replace(document, None) => table.replace(key, document, options).await,
            What::Replace(document, Some(revision)) => table.replace_if(key, document, revision, options).await,
            What::Delete(None) => table.delete(key, options).await,
            What::Delete(Some(revision)) => table.delete_if(key, revision, options).await,
        }
    }
}

pub(crate) fn find_options(
    py: Python<'_>,
    sort: Option<&Bound<'_, PyAny>>,
    skip: &Bound<'_, PyAny>,
    limit: Option<&Bound<'_, PyAny>>,
    projection: Option<&Bound<'_, PyAny>>,
) -> PyResult<FindOptions> {
    let sort = sort.map(|sort| raised(py, Sort::parse(lowered::document("the order", sort)?))).transpose()?;
    let projection = projection
        .map(|projection| raised(py, Projection::parse(lowered::document("the projection", projection)?)))
        .transpose()?;
    let skip = args::unsigned("skip", skip)?;
    let limit = limit.map(|limit| args::unsigned("limit", limit)).transpose()?;
    Ok(FindOptions { sort, skip, limit, projection })
}

/// An index: its name, its fields and whether each is descending, unique, sparse, after how many seconds it expires.
type IndexParts<'py> = (String, Vec<(String, bool)>, bool, bool, Option<Bound<'py, PyAny>>);

fn index((name, fields, unique, sparse, expire_after): IndexParts<'_>) -> PyResult<Index> {
    let expire_after: Option<Duration> = args::seconds_or_none("expire_after", expire_after.as_ref())?;
    Ok(Index { name, fields, unique, sparse, expire_after })
}

pub(crate) fn stored(stored: Stored) -> Answer {
    Answer::made(stored, |py, stored| Ok(lifted::stored(py, &stored)?.unbind()))
}

pub(crate) fn found(found: Vec<Stored>) -> Answer {
    Answer::made(found, |py, found| Ok(lifted::stored_list(py, &found)?.into_any().unbind()))
}

pub(crate) fn counted(count: u64) -> Answer {
    Answer::made(count, |py, count| count.into_py_any(py))
}

pub(crate) fn written(written: Written) -> Answer {
    Answer::made(written, |py, written| {
        let document = lifted::document(py, &written.document)?;
        let revision = written.revision.map(|revision| revision.0);
        (document, revision, written.position.0, written.created).into_py_any(py)
    })
}

pub(crate) fn many_written(written: ManyWritten) -> Answer {
    Answer::made(written, |py, written| (written.count, written.position.0).into_py_any(py))
}

fn log_entry(py: Python<'_>, entry: LogEntry) -> PyResult<Py<PyAny>> {
    let key = lifted::key(py, &entry.key)?;
    let revision = entry.revision.map(|revision| revision.0);
    let facts = (entry.source, entry.operation.name(), entry.at_ms, key, entry.changed_fields, revision);
    (facts, entry.position.0).into_py_any(py)
}
