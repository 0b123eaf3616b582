//! Tables: the store as a place for documents.
//!
//! A [`Table`] is a name; each call is one request to the store. On MongoDB it is a collection, also any existing one of
//! other programs' (`database.collection`), on SQLite a table of documents, in memory a map. Filters, updates, sorts and
//! projections are MongoDB's; the part that means the same on every store is described in
//! [`protocol::document`](crate::protocol::document), and what is beyond it is `Unsupported` on SQLite and in memory.
//!
//! - [`Table::watch`]: a snapshot in brackets, then changes, with acknowledgement ([`watch`]).
//! - [`Table::log`]: who has changed what and when ([`log`]).
//! - [`CachedTable`]: a copy in memory that is kept fresh ([`cached`]).
//!
//! **Fenced writes**: with [`WriteOptions::fence`] a write carries the token of a hold. After it no write with a lower
//! token of the same lock touches that document, deletions and new insertions included; a stale holder gets `Fenced`
//! (Kleppmann's fencing tokens). What it does not stop is a stale holder whose successor has not written there yet;
//! [`WriteOptions::strict`] does. Tokens of different locks are not comparable, and other programs that write the
//! document whole drop its fences.

use std::fmt;
use std::sync::Arc;

use bson::Document;
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, Core};
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::lock::Held;
use crate::protocol::document::{Action, Condition, Write};
pub use crate::protocol::document::{
    Fence, Filter, Key, MAX_DOCUMENT, Position, Projection, Revision, Sort, TableName, Update,
};
use crate::store::Store;
use crate::store::documents::{Documents, ManyAction, Query, WriteMany};
pub use crate::store::documents::{Index, ManyWritten, Operation, Stored, TableOptions, Written};

pub mod cached;
pub(crate) mod follow;
pub mod given;
pub mod log;
pub mod watch;

pub use cached::{CacheOptions, CachedTable};
pub use given::Given;
pub use log::{LogEntry, LogFrom, TableLog};
pub use watch::{Delivery, TableEvent, TableWatch, WatchOptions};

/// A table by its name. Cheap to clone; nothing is asked of the store before it is used.
#[derive(Clone)]
pub struct Table {
    client: Client,
    name: TableName,
}

/// By whose right a write is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The hold under which the write is done: [`Held::fence`], [`Term::fence`](crate::election::Term::fence) or
    /// [`Work::fence`](crate::reconciler::Work::fence). After it, a write with an older hold of the same lock is
    /// refused with `Fenced`.
    pub fence: Option<Fence>,
    /// Also refuse the write when the hold has ended although nobody has written since. Free on memory and SQLite, which
    /// always do; on MongoDB the write becomes a transaction with the lock's record.
    pub strict: bool,
}

impl WriteOptions {
    /// Under this hold.
    ///
    /// # Errors
    /// `NotHeld` after its release.
    pub fn fenced(held: &Held) -> Result<Self> {
        Ok(Self { fence: Some(held.fence()?), strict: false })
    }

    /// Also refused when the hold has ended.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    fn fence(self) -> Result<Option<Fence>> {
        match self {
            Self { fence: Some(fence), strict } => Ok(Some(Fence { strict: strict || fence.strict, ..fence })),
            Self { strict: true, .. } => Err(Error::invalid("a strict write needs the hold that it is done under")),
            Self { .. } => Ok(None),
        }
    }
}

/// Which of the documents that match to read, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FindOptions {
    /// In this order. Without one, and among equals, in no particular order.
    pub sort: Option<Sort>,
    /// Without the first so many.
    pub skip: u64,
    /// At most so many; all by default.
    pub limit: Option<u64>,
    /// With these fields only.
    pub projection: Option<Projection>,
}

impl Client {
    /// The table of this name: `name`, or `database.collection` for any collection of a MongoDB server. No I/O.
    ///
    /// A plain name is kept under the client's `coord.prefix`, and does not depend on namespace and scope.
    ///
    /// # Errors
    /// `InvalidArgument` if the name is not valid; `Unsupported` if the store has no tables; `Closed`.
    pub fn table(&self, name: &str) -> Result<Table> {
        self.core().check_open()?;
        documents(&*self.core().setup().store)?;
        Ok(Table { client: self.clone(), name: TableName::parse(name)? })
    }

    /// A table with a copy in memory; returns when the copy is complete. See [`CachedTable`].
    ///
    /// # Errors
    /// As [`Client::table`]; `InvalidArgument` if the documents are more than [`CacheOptions::max_bytes`]; those of the
    /// store.
    pub async fn cached_table(&self, name: &str, options: CacheOptions) -> Result<CachedTable> {
        CachedTable::open(self.table(name)?, options).await
    }
}

impl Table {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn table_name(&self) -> &TableName {
        &self.name
    }

    /// Makes the document of a key.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, or if a unique index would be broken; `InvalidArgument` for a key or a document
    /// that cannot be stored (over 16 MiB, nested too deeply, with an `_id` that is not the key); `Fenced`; those of the
    /// store.
    pub async fn insert(&self, key: impl Given<Key>, document: Document, options: WriteOptions) -> Result<Written> {
        self.write(key.given()?, Action::Insert(document), Condition::None, options).await
    }

    /// Makes the document of a key, or puts it in the place of the one that is there.
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub async fn put(&self, key: impl Given<Key>, document: Document, options: WriteOptions) -> Result<Written> {
        self.write(key.given()?, Action::Put(document), Condition::None, options).await
    }

    /// Changes the document of a key.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidArgument` if the update does not fit it; `Unsupported` for an update that only
    /// MongoDB knows; `AlreadyExists` if a unique index would be broken; `Fenced`; those of the store.
    pub async fn update(
        &self,
        key: impl Given<Key>,
        update: impl Given<Update>,
        options: WriteOptions,
    ) -> Result<Written> {
        self.write(key.given()?, Action::Update(update.given()?), Condition::None, options).await
    }

    /// Changes the document of a key, or changes an empty one into it.
    ///
    /// # Errors
    /// As [`Table::update`], but for `NotFound`.
    pub async fn upsert(
        &self,
        key: impl Given<Key>,
        update: impl Given<Update>,
        options: WriteOptions,
    ) -> Result<Written> {
        self.write(key.given()?, Action::Upsert(update.given()?), Condition::None, options).await
    }

    /// Makes sure that the document of a key has these fields: makes it, or sets them in the one that is there.
    ///
    /// # Errors
    /// As [`Table::upsert`].
    pub async fn locate(&self, key: impl Given<Key>, fields: Document, options: WriteOptions) -> Result<Written> {
        self.upsert(key, given::setting(fields)?, options).await
    }

    /// Puts a document in the place of the one that is there.
    ///
    /// # Errors
    /// `NotFound` if there is none; as [`Table::insert`] otherwise.
    pub async fn replace(&self, key: impl Given<Key>, document: Document, options: WriteOptions) -> Result<Written> {
        self.write(key.given()?, Action::Replace(document), Condition::None, options).await
    }

    /// The same, if the document is still as it was read, with this revision.
    ///
    /// # Errors
    /// `Conflict` if it has changed since; as [`Table::replace`].
    pub async fn replace_if(
        &self,
        key: impl Given<Key>,
        document: Document,
        revision: Revision,
        options: WriteOptions,
    ) -> Result<Written> {
        self.write(key.given()?, Action::Replace(document), Condition::Revision(revision), options).await
    }

    /// Removes the document of a key.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Fenced`; those of the store.
    pub async fn delete(&self, key: impl Given<Key>, options: WriteOptions) -> Result<Written> {
        self.write(key.given()?, Action::Delete, Condition::None, options).await
    }

    /// The same, if the document is still as it was read, with this revision.
    ///
    /// # Errors
    /// `Conflict` if it has changed since; as [`Table::delete`].
    pub async fn delete_if(&self, key: impl Given<Key>, revision: Revision, options: WriteOptions) -> Result<Written> {
        self.write(key.given()?, Action::Delete, Condition::Revision(revision), options).await
    }

    async fn write(&self, key: Key, action: Action, condition: Condition, options: WriteOptions) -> Result<Written> {
        let (fence, source) = (options.fence()?, self.source());
        let write = Write { key, action, condition, fence, source }.prepared()?;
        let [before, after] = points_of(&write.action);
        self.ask(move |store, table| async move {
            failpoints::at(before);
            let written = documents(&*store)?.write(&table, write).await;
            failpoints::at(after);
            written
        })
        .await
    }

    /// Changes every document that matches. Not atomic as a group.
    ///
    /// # Errors
    /// `Fenced` if a later holder has written some of them: these were left out, the others written; as
    /// [`Table::update`].
    pub async fn update_many(
        &self,
        filter: impl Given<Filter>,
        update: impl Given<Update>,
        options: WriteOptions,
    ) -> Result<ManyWritten> {
        self.write_many(filter.given()?, ManyAction::Update(update.given()?), options).await
    }

    /// Removes every document that matches. Not atomic as a group.
    ///
    /// # Errors
    /// As [`Table::update_many`].
    pub async fn delete_many(&self, filter: impl Given<Filter>, options: WriteOptions) -> Result<ManyWritten> {
        self.write_many(filter.given()?, ManyAction::Delete, options).await
    }

    async fn write_many(&self, filter: Filter, action: ManyAction, options: WriteOptions) -> Result<ManyWritten> {
        let write = WriteMany { filter, action, fence: options.fence()?, source: self.source() };
        self.ask(|store, table| async move {
            failpoints::at(Point::ManySend);
            let written = documents(&*store)?.write_many(&table, write).await;
            failpoints::at(Point::ManyAnswer);
            written
        })
        .await
    }

    /// The document of a key.
    ///
    /// # Errors
    /// `NotFound` if there is none; those of the store.
    pub async fn get(&self, key: impl Given<Key>) -> Result<Stored> {
        let key = key.given()?;
        let found = self.read_one(key.clone()).await?;
        found.ok_or_else(|| not_found(self.name(), &key))
    }

    pub(crate) async fn read_one(&self, key: Key) -> Result<Option<Stored>> {
        let query = Query { filter: Filter::key(&key), limit: Some(1), ..Query::default() };
        self.ask(|store, table| async move {
            let mut found = documents(&*store)?.find(&table, query).await?;
            found.next().await.transpose()
        })
        .await
    }

    /// Whether there is a document of this key.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn contains(&self, key: impl Given<Key>) -> Result<bool> {
        Ok(self.read_one(key.given()?).await?.is_some())
    }

    /// The documents that match, all at once. See [`Table::cursor`] for more than fit into memory, on MongoDB.
    ///
    /// # Errors
    /// `Unsupported` for what only MongoDB knows; `InvalidArgument`; those of the store.
    pub async fn find(&self, filter: impl Given<Filter>, options: FindOptions) -> Result<Vec<Stored>> {
        self.cursor(filter, options).await?.collect().await
    }

    /// The documents that match, one after the other. On MongoDB some are fetched at a time; SQLite and memory read all of
    /// them first, whole, as of one moment.
    ///
    /// # Errors
    /// As [`Table::find`].
    pub async fn cursor(&self, filter: impl Given<Filter>, options: FindOptions) -> Result<Cursor<Stored>> {
        let FindOptions { sort, skip, limit, projection } = options;
        let query = Query { filter: filter.given()?, sort, skip, limit, projection };
        let found = self.ask(|store, table| async move { documents(&*store)?.find(&table, query).await }).await?;
        Ok(Cursor::new(&self.client, found))
    }

    /// How many documents match.
    ///
    /// # Errors
    /// As [`Table::find`].
    pub async fn count(&self, filter: impl Given<Filter>) -> Result<u64> {
        let filter = filter.given()?;
        self.ask(|store, table| async move { documents(&*store)?.count(&table, filter).await }).await
    }

    /// Runs an aggregation pipeline. MongoDB only.
    ///
    /// # Errors
    /// `Unsupported` on other stores; `InvalidArgument` for a pipeline that writes; those of the store.
    pub async fn aggregate(&self, pipeline: Vec<Document>) -> Result<Cursor<Document>> {
        let found =
            self.ask(|store, table| async move { documents(&*store)?.aggregate(&table, pipeline).await }).await?;
        Ok(Cursor::new(&self.client, found))
    }

    /// Makes those indexes that are not there; the others stay.
    ///
    /// # Errors
    /// `InvalidArgument` if there is another index of the same name; `AlreadyExists` if documents break a unique one.
    pub async fn ensure_indexes(&self, indexes: Vec<Index>) -> Result<()> {
        self.ask(|store, table| async move { documents(&*store)?.ensure_indexes(&table, indexes).await }).await
    }

    /// Sets how the table is kept.
    ///
    /// # Errors
    /// `Unsupported` if the server cannot; those of the store.
    pub async fn configure(&self, options: TableOptions) -> Result<()> {
        self.ask(move |store, table| async move { documents(&*store)?.configure(&table, options).await }).await
    }

    /// Removes the table with its documents, indexes and options. No error if there is none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn drop_table(&self) -> Result<()> {
        self.ask(|store, table| async move { documents(&*store)?.drop_table(&table).await }).await
    }

    /// Asks the store whether it could be written to now.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn health(&self) -> Result<()> {
        self.client.health().await
    }

    /// Who is told to have written: the client's name.
    fn source(&self) -> Option<String> {
        Some(self.client.core().options().name.clone()).filter(|name| !name.is_empty())
    }

    /// Asks something of the store, on the client's runtime.
    async fn ask<T, F>(&self, request: impl FnOnce(Arc<dyn Store>, TableName) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let core = self.client.core();
        core.check_open()?;
        core.drive(request(core.setup().store.clone(), self.name.clone())).await
    }
}

/// Documents as values of any type that serde knows.
impl Table {
    /// [`Table::insert`] of a value.
    ///
    /// # Errors
    /// `InvalidArgument` if the value is no document; as [`Table::insert`].
    pub async fn insert_as<T: Serialize + ?Sized>(
        &self,
        key: impl Given<Key>,
        value: &T,
        options: WriteOptions,
    ) -> Result<Written> {
        self.insert(key, given::document_of(value)?, options).await
    }

    /// [`Table::put`] of a value.
    ///
    /// # Errors
    /// As [`Table::insert_as`].
    pub async fn put_as<T: Serialize + ?Sized>(
        &self,
        key: impl Given<Key>,
        value: &T,
        options: WriteOptions,
    ) -> Result<Written> {
        self.put(key, given::document_of(value)?, options).await
    }

    /// [`Table::replace`] by a value.
    ///
    /// # Errors
    /// As [`Table::replace`], and [`Table::insert_as`].
    pub async fn replace_as<T: Serialize + ?Sized>(
        &self,
        key: impl Given<Key>,
        value: &T,
        options: WriteOptions,
    ) -> Result<Written> {
        self.replace(key, given::document_of(value)?, options).await
    }

    /// [`Table::replace_if`] by a value.
    ///
    /// # Errors
    /// As [`Table::replace_if`], and [`Table::insert_as`].
    pub async fn replace_if_as<T: Serialize + ?Sized>(
        &self,
        key: impl Given<Key>,
        value: &T,
        revision: Revision,
        options: WriteOptions,
    ) -> Result<Written> {
        self.replace_if(key, given::document_of(value)?, revision, options).await
    }

    /// [`Table::get`] as a value.
    ///
    /// # Errors
    /// `CorruptState` if the document is no such value; as [`Table::get`].
    pub async fn get_as<T: DeserializeOwned>(&self, key: impl Given<Key>) -> Result<T> {
        given::value_of(self.get(key).await?.document)
    }

    /// [`Table::find`] as values.
    ///
    /// # Errors
    /// As [`Table::get_as`] and [`Table::find`].
    pub async fn find_as<T: DeserializeOwned>(
        &self,
        filter: impl Given<Filter>,
        options: FindOptions,
    ) -> Result<Vec<T>> {
        let found = self.find(filter, options).await?;
        found.into_iter().map(|stored| given::value_of(stored.document)).collect()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

/// Results of a read, one after the other. May be dropped at any time.
pub struct Cursor<T> {
    core: Arc<Core>,
    found: Arc<tokio::sync::Mutex<Results<T>>>,
}

type Results<T> = futures::stream::BoxStream<'static, Result<T>>;

impl<T: Send + 'static> Cursor<T> {
    fn new(client: &Client, found: Results<T>) -> Self {
        // Asked again after its end, it ends again.
        let found: Results<T> = Box::pin(found.fuse());
        Self { core: client.core().clone(), found: Arc::new(tokio::sync::Mutex::new(found)) }
    }

    /// The next result; none after the last.
    ///
    /// # Errors
    /// Those of the store; after one, begin anew.
    pub async fn next(&self) -> Result<Option<T>> {
        let found = self.found.clone();
        self.core.drive(async move { found.lock().await.next().await.transpose() }).await
    }

    /// All the others.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn collect(self) -> Result<Vec<T>> {
        let found = self.found.clone();
        self.core
            .drive(async move {
                let mut found = found.lock().await;
                let mut all = Vec::new();
                while let Some(result) = found.next().await {
                    all.push(result?);
                }
                Ok(all)
            })
            .await
    }
}

impl<T> fmt::Debug for Cursor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").finish_non_exhaustive()
    }
}

/// Where a write passes before it is sent, and when its answer has come.
fn points_of(action: &Action) -> [Point; 2] {
    match action {
        Action::Insert(_) => [Point::InsertSend, Point::InsertAnswer],
        Action::Replace(_) | Action::Put(_) => [Point::ReplaceSend, Point::ReplaceAnswer],
        Action::Update(_) | Action::Upsert(_) => [Point::UpdateSend, Point::UpdateAnswer],
        Action::Delete => [Point::DeleteSend, Point::DeleteAnswer],
    }
}

/// The tables of a store.
///
/// # Errors
/// `Unsupported` if it has none.
pub(crate) fn documents(store: &(impl Store + ?Sized)) -> Result<&dyn Documents> {
    store.documents().ok_or_else(|| Error::new(Code::Unsupported, "this store keeps no tables"))
}

pub(crate) fn not_found(table: &str, key: &Key) -> Error {
    Error::new(Code::NotFound, format!("table '{table}' has no document {key}"))
}
