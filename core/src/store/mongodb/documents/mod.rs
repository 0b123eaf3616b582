//! Tables as collections: `<prefix>t_<name>` in the store's database, or any other collection by its full name, with
//! whatever other programs have put there.
//!
//! What we keep with a document: `_fence`, the highest token of each lock that has written it, and in collections of our
//! own `_by`, the name of who wrote it last and a number that changes with each write. Others may drop both; then the
//! document is as new to its fences, and the source of its last write is not known. `<prefix>fences` has the tombstones:
//!
//! | `_id` | fields | indexes |
//! |---|---|---|
//! | `{t: table, k: key}` | `f` the fences, `at` date of the last change | `at` (removed after 30 days) |
//!
//! Invariants:
//! - a write is one command (`write`), unless it must look at something else as well: then it is a transaction
//!   (`transaction`), tried again when it collides with another one;
//! - a fenced write takes the short way only where the document shows that a write of the same hold has come already, and
//!   none of a later one. So a tombstone has the highest token of each lock, also when others remove the document or make
//!   it anew;
//! - a stream that lost its place says so with a gap (`watch`).

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::future::{BoxFuture, FutureExt};
use mongodb::options::{CreateCollectionOptions, IndexOptions};
use mongodb::{Collection, IndexModel};
use sha2::{Digest, Sha256};

use super::errors::Doing;
use super::{Inner, MongoStore};
use crate::error::{Code, Error, Result};
use crate::protocol::document::fence::FENCES_KEPT;
use crate::protocol::document::write::MAX_SOURCE;
use crate::protocol::document::{Filter, Position, RESERVED, Revision, TableName, WRITTEN_BY, Write};
use crate::store::documents::{
    Aggregated, Changes, Documents, Found, Index, ManyWritten, Query, Snapshot, TableOptions, WatchOptions, WriteMany,
    Written, local,
};
use crate::time::WallTime;

mod date;
mod faults;
mod many;
mod read;
mod transaction;
mod watch;
mod write;

pub(super) use date::KnownDate;
pub(super) use read::LongReadings;

/// A table, and what its requests need.
#[derive(Clone)]
struct Table {
    inner: Arc<Inner>,
    name: TableName,
    documents: Collection<Document>,
}

impl Table {
    fn of(store: &MongoStore, name: &TableName) -> Self {
        let inner = Arc::clone(&store.0);
        let client = inner.locks.client();
        let documents = match name.foreign() {
            Some((database, collection)) => client.database(database).collection(collection),
            None => client.database(&inner.locks.namespace().db).collection(&format!("{}t_{name}", inner.prefix)),
        };
        Self { inner, name: name.clone(), documents }
    }

    fn namespace(&self) -> String {
        self.documents.namespace().to_string()
    }

    fn tombstones(&self) -> Collection<Document> {
        let database = self.inner.locks.client().database(&self.inner.locks.namespace().db);
        database.collection(&format!("{}fences", self.inner.prefix))
    }

    /// Runs a request of the driver in a task of its own. Its errors are those of documents.
    async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: Doing,
        request: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let namespace = self.namespace();
        let answer = self.inner.tasks.run(limit, doing, async move { Ok(request.await) }, &namespace).await?;
        answer.map_err(|error| faults::explain(&error, doing, &namespace))
    }

    /// The value of the field that says who writes. None in the collections of others.
    fn written_by(&self, source: Option<&str>) -> Option<Bson> {
        let source = source.filter(|_| self.name.foreign().is_none())?;
        let end = (0..=MAX_SOURCE.min(source.len())).rev().find(|end| source.is_char_boundary(*end)).unwrap_or(0);
        Some(Bson::String(format!("{} {:016x}", &source[..end], self.inner.env.rng.bits())))
    }

    /// Makes the collection of tombstones, once.
    async fn prepare_tombstones(&self) -> Result<()> {
        let made = self.inner.tombstones_made.get_or_try_init(|| async {
            let at = IndexOptions::builder().name("at".to_owned()).expire_after(FENCES_KEPT).build();
            let index = IndexModel::builder().keys(doc! { "at": 1 }).options(at).build();
            let tombstones = self.tombstones();
            self.run(self.inner.limits.operation, INDEX, async move { tombstones.create_index(index).await })
                .await
                .map(drop)
        });
        made.await.map(drop)
    }

    async fn ensure_indexes(&self, indexes: Vec<Index>) -> Result<()> {
        let models: Vec<IndexModel> = local::checked_indexes(indexes)?.into_iter().map(model).collect();
        if models.is_empty() {
            return Ok(());
        }
        let documents = self.documents.clone();
        self.run(INDEX_LIMIT, INDEX, async move { documents.create_indexes(models).await }).await.map(drop)
    }

    async fn configure(&self, options: TableOptions) -> Result<()> {
        let (documents, previous) = (self.documents.clone(), options.previous);
        let request = async move {
            let database = documents.client().database(&documents.namespace().db);
            let name = documents.namespace().coll;
            let options = CreateCollectionOptions::default();
            match database.create_collection(name.clone()).with_options(options).await {
                Err(error) if faults::code_of(&error) != Some(NAMESPACE_EXISTS) => return Err(error),
                _ => {}
            }
            let set = doc! { "collMod": name, "changeStreamPreAndPostImages": { "enabled": previous } };
            Ok(database.run_command(set).await)
        };
        match self.run(self.inner.limits.operation, CONFIGURE, request).await? {
            Ok(_) => Ok(()),
            // Servers that know nothing of it keep nothing.
            Err(error) if faults::code_of(&error).is_some_and(|code| UNKNOWN_OPTION.contains(&code)) => {
                if previous {
                    Err(no_previous())
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(faults::explain(&error, CONFIGURE, &self.namespace())),
        }
    }

    async fn drop_table(&self) -> Result<()> {
        let (documents, tombstones) = (self.documents.clone(), self.tombstones());
        let of_table = doc! { "_id.t": self.name.as_str() };
        let request = async move {
            documents.drop().await?;
            tombstones.delete_many(of_table).await.map(drop)
        };
        self.run(QUERY_LIMIT, DROP, request).await
    }
}

/// A document as users see it.
fn visible(mut document: Document) -> Document {
    for field in RESERVED {
        document.remove(field);
    }
    document
}

/// What a document's state is called: a hash of what users see of it.
fn revision_of(document: &Document) -> Revision {
    let digest = Sha256::digest(document.to_vec().unwrap_or_default());
    Revision(digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
}

fn position_of(time: Option<bson::Timestamp>) -> Position {
    time.map_or(Position(0), |time| Position(u64::from(time.time) << 32 | u64::from(time.increment)))
}

fn timestamp_of(position: Position) -> bson::Timestamp {
    bson::Timestamp { time: (position.0 >> 32) as u32, increment: position.0 as u32 }
}

/// Who wrote, from the value of the field that says so.
fn source_of(fields: &Document) -> Option<String> {
    let text = fields.get_str(WRITTEN_BY).ok()?;
    text.rsplit_once(' ').map(|(source, _)| source.to_owned())
}

fn model(index: Index) -> IndexModel {
    let keys = index.fields.into_iter().map(|(path, descending)| (path, Bson::Int32(if descending { -1 } else { 1 })));
    let mut options = IndexOptions::default();
    options.name = Some(index.name);
    options.unique = index.unique.then_some(true);
    options.sparse = index.sparse.then_some(true);
    options.expire_after = index.expire_after;
    IndexModel::builder().keys(keys.collect::<Document>()).options(options).build()
}

fn no_previous() -> Error {
    Error::new(Code::Unsupported, "this MongoDB server keeps no earlier states of documents; 6.0 is the first that can")
}

impl Documents for MongoStore {
    fn write(&self, table: &TableName, write: Write) -> BoxFuture<'_, Result<Written>> {
        let table = Table::of(self, table);
        async move { table.write(write.prepared()?).await }.boxed()
    }

    fn write_many(&self, table: &TableName, write: WriteMany) -> BoxFuture<'_, Result<ManyWritten>> {
        let table = Table::of(self, table);
        async move { table.write_many(write).await }.boxed()
    }

    fn date(&self) -> BoxFuture<'_, Result<WallTime>> {
        self.0.date().boxed()
    }

    fn find(&self, table: &TableName, query: Query) -> BoxFuture<'_, Result<Found>> {
        let table = Table::of(self, table);
        async move { table.find(query).await }.boxed()
    }

    fn count(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<u64>> {
        let table = Table::of(self, table);
        async move { table.count(filter).await }.boxed()
    }

    fn aggregate(&self, table: &TableName, pipeline: Vec<Document>) -> BoxFuture<'_, Result<Aggregated>> {
        let table = Table::of(self, table);
        async move { table.aggregate(pipeline).await }.boxed()
    }

    fn snapshot(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<Snapshot>> {
        let table = Table::of(self, table);
        async move { table.snapshot(filter).await }.boxed()
    }

    fn watch(&self, table: &TableName, options: WatchOptions) -> BoxFuture<'_, Result<Changes>> {
        let table = Table::of(self, table);
        async move { watch::open(table, options).await }.boxed()
    }

    fn ensure_indexes(&self, table: &TableName, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        let table = Table::of(self, table);
        async move { table.ensure_indexes(indexes).await }.boxed()
    }

    fn configure(&self, table: &TableName, options: TableOptions) -> BoxFuture<'_, Result<()>> {
        let table = Table::of(self, table);
        async move { table.configure(options).await }.boxed()
    }

    fn drop_table(&self, table: &TableName) -> BoxFuture<'_, Result<()>> {
        let table = Table::of(self, table);
        async move { table.drop_table().await }.boxed()
    }
}

const WRITE: Doing = Doing { what: "write a document", rights: "find, insert, update and remove" };
const WRITE_MANY: Doing = Doing { what: "write documents", rights: "find, insert, update and remove" };
const READ: Doing = Doing { what: "read documents", rights: "find" };
const INDEX: Doing = Doing { what: "make an index", rights: "createIndex" };
const CONFIGURE: Doing = Doing { what: "configure a collection", rights: "createCollection and collMod" };
const DROP: Doing = Doing { what: "drop a collection", rights: "dropCollection and remove" };
const WATCH: Doing = Doing { what: "watch a collection", rights: "changeStream and find" };

/// How long reading, and writing many documents, may take.
const QUERY_LIMIT: Duration = Duration::from_secs(120);

/// How long making an index may take.
const INDEX_LIMIT: Duration = Duration::from_secs(3_600);

const NAMESPACE_EXISTS: i32 = 48;

/// An option or a field of a command that the server does not know.
const UNKNOWN_OPTION: [i32; 3] = [40_415, 72, 9];
