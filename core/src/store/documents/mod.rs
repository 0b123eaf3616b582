//! Tables of documents: the second face of a store, for what users keep.
//!
//! Documents are BSON on every store, so that dates, 64-bit integers, decimals and binary values come back exactly, and
//! documents that other programs wrote to MongoDB are first-class. What a filter, a sort, a projection or an update
//! means is MongoDB's; the part that means the same on every store is in [`protocol::document`](crate::protocol::document).
//! Anything beyond it works on MongoDB, and is `Unsupported` elsewhere, before anything is done.
//!
//! A write is acknowledged when it is as durable as the store can make it: by a majority with its journal on MongoDB,
//! synced to the disk on SQLite.

pub(in crate::store) mod local;

use std::pin::Pin;
use std::time::Duration;

use bson::Document;
use futures::Stream;
use futures::future::BoxFuture;

use crate::error::{Code, Error, Result};
use crate::protocol::document::{Fence, Filter, Key, Position, Projection, Revision, Sort, TableName, Update, Write};
use crate::time::WallTime;

/// Which documents to read, and how.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Those that match; all by default.
    pub filter: Filter,
    /// In this order. Without one, and among equals, in no particular order.
    pub sort: Option<Sort>,
    /// Without the first so many.
    pub skip: u64,
    /// At most so many; all by default.
    pub limit: Option<u64>,
    /// With these fields only.
    pub projection: Option<Projection>,
}

/// A document as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its key.
    pub key: Key,
    /// The document, with its `_id` unless the projection left it out.
    pub document: Document,
    /// The state that it was in. None if only a part of it was read, on MongoDB.
    pub revision: Option<Revision>,
}

/// Documents, one after the other. An error ends them. May be dropped at any time.
pub type Found = Pin<Box<dyn Stream<Item = Result<Stored>> + Send>>;

/// What an aggregation gives.
pub type Aggregated = Pin<Box<dyn Stream<Item = Result<Document>> + Send>>;

/// What a write has done.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The document as it is now, or as it was before it was deleted.
    pub document: Document,
    /// Its state; none after a deletion.
    pub revision: Option<Revision>,
    /// The change's place in the history: a [`Documents::watch`] that has come to it has shown the change.
    pub position: Position,
    /// There was none before.
    pub created: bool,
}

/// A write to every document that matches.
#[derive(Clone, Debug)]
pub struct WriteMany {
    /// Which.
    pub filter: Filter,
    /// What happens to each.
    pub action: ManyAction,
    /// By which hold's right. Documents that a later holder has written are left out, and the write ends with `Fenced`,
    /// which says how many were written and how many not.
    pub fence: Option<Fence>,
    /// Who writes, for the change log.
    pub source: Option<String>,
}

/// What a write to many does to each.
#[derive(Clone, Debug, PartialEq)]
pub enum ManyAction {
    /// Changes it.
    Update(Update),
    /// Removes it.
    Delete,
}

/// What a write to many has done. Not atomic as a group: others may see some of it before the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManyWritten {
    /// How many documents were written.
    pub count: u64,
    /// The place of the last of the changes in the history.
    pub position: Position,
}

/// An index to be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// Its name; made of the fields if it is empty, as MongoDB does.
    pub name: String,
    /// Its fields by path, and whether each is descending.
    pub fields: Vec<(String, bool)>,
    /// No two documents have the same values in it.
    pub unique: bool,
    /// Documents without its fields are not in it.
    pub sparse: bool,
    /// A document is removed when the date in the index's only field is as long ago as this. Some time after: on MongoDB
    /// within a minute or two, elsewhere within a minute.
    pub expire_after: Option<Duration>,
}

/// How a table is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Keep each document's state before a change, for [`WatchOptions::previous`]. On MongoDB 6.0 or later this sets the
    /// collection's `changeStreamPreAndPostImages`, and is `Unsupported` before; each change is written twice then.
    pub previous: bool,
}

/// How to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Where to begin.
    pub from: From,
    /// Also show what a document was before a change, where the table keeps it (see [`TableOptions::previous`]).
    pub previous: bool,
}

/// Where to begin to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// With the changes to come.
    #[default]
    Now,
    /// With the change after this place.
    After(Position),
    /// With the first change at this date or after it, by the store's clock.
    Time(WallTime),
}

/// What one is told who watches a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The stream begins here, after this place; or changes are missing before it, because the store no longer has them
    /// or the table was dropped: read the table anew.
    Gap(Position),
    /// A document has changed.
    Change(Box<Change>),
    /// There are no other changes up to this place.
    Progress(Position),
}

/// What has happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It was made.
    Insert,
    /// Some of its fields were changed.
    Update,
    /// It was replaced by another one.
    Replace,
    /// It was removed.
    Delete,
}

impl Operation {
    /// The name in the documentation: `insert`, `update`, `replace`, `delete`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }

    /// The operation of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Insert, Self::Update, Self::Replace, Self::Delete].into_iter().find(|operation| operation.name() == name)
    }
}

/// A change of one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Whose.
    pub key: Key,
    /// What has happened.
    pub operation: Operation,
    /// The document: as of this change on memory and SQLite; on MongoDB after an update perhaps as of a later one, and
    /// none if it is deleted by now. None after a deletion.
    pub document: Option<Document>,
    /// The document before, where it was asked for and is known.
    pub previous: Option<Document>,
    /// The state of `document`.
    pub revision: Option<Revision>,
    /// The change's place in the history. Changes that were made as one may have one place.
    pub position: Position,
    /// Whether no other change of this place follows. False also where the store cannot tell.
    pub last: bool,
    /// When it was, by the store's clock.
    pub at: WallTime,
    /// Which client wrote; none if that is not known: another program, and any deletion on MongoDB.
    pub source: Option<String>,
    /// The paths that an update has changed or removed, in order. Empty for other operations.
    pub changed: Vec<String>,
}

impl Change {
    /// Up to where everything has been told with this change: its own place, or the one before while others of its place
    /// may follow.
    pub fn told(&self) -> Position {
        if self.last { self.position } else { self.position.before() }
    }
}

/// The changes of a table, for ever: the store reconnects behind it. Begins with [`Event::Gap`] if from [`From::Now`]. An
/// error ends it.
pub type Changes = Pin<Box<dyn Stream<Item = Result<Event>> + Send>>;

/// All documents as they were at one moment.
pub struct Snapshot {
    /// The moment: every change up to it is in the documents. Where [`Snapshot::exact`] is not set, some later ones may
    /// be, too.
    pub position: Position,
    /// No change after the position is in the documents. Not on MongoDB before 5.0.
    pub exact: bool,
    /// The documents.
    pub documents: Found,
}

/// Where documents live.
///
/// Errors of every call, beside those that it names: `Unavailable` (whether a write was applied, or still will be, is not
/// known), `Unauthorized`, `Forbidden`, `CorruptState`, `Closed`; `Lost` while the store's file is not in its place, or
/// another one is (a write may have gone into the one that was moved); `InvalidArgument` for what a store does not take.
/// `Unsupported` for a filter, sort, projection or update that only MongoDB knows. A future may be dropped at any time:
/// what it began may then still happen.
pub trait Documents: Send + Sync {
    /// Writes one document.
    ///
    /// # Errors
    /// Those of [`Action`](crate::protocol::document::Action), [`Condition`](crate::protocol::document::Condition) and
    /// [`Fence`]; `AlreadyExists` if it would break a unique index.
    fn write(&self, table: &TableName, write: Write) -> BoxFuture<'_, Result<Written>>;

    /// Writes every document that matches.
    ///
    /// # Errors
    /// `Fenced`, `AlreadyExists`: some may have been written then.
    fn write_many(&self, table: &TableName, write: WriteMany) -> BoxFuture<'_, Result<ManyWritten>>;

    /// Reads documents.
    fn find(&self, table: &TableName, query: Query) -> BoxFuture<'_, Result<Found>>;

    /// Counts the documents that match.
    fn count(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<u64>>;

    /// The store's date, the same for all its users however their own clocks are set. May be older than the call by how
    /// long an answer takes and what a clock's rate is wrong in a minute. It may go back: after another member of a
    /// replica set has become primary, whose clock is behind, and where somebody sets the store's clock. So it says when
    /// something is due, and never who may do it.
    fn date(&self) -> BoxFuture<'_, Result<WallTime>>;

    /// Runs an aggregation pipeline. MongoDB only. A pipeline that writes (`$out`, `$merge`) is `InvalidArgument`.
    fn aggregate(&self, table: &TableName, pipeline: Vec<Document>) -> BoxFuture<'_, Result<Aggregated>>;

    /// Reads all documents that match as of one moment, to watch from there on.
    fn snapshot(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<Snapshot>>;

    /// Watches all changes of a table. For a filter see [`Filter::matches`] and [`Filter::is_shared`].
    ///
    /// # Errors
    /// `Compacted` if the history no longer reaches back so far.
    fn watch(&self, table: &TableName, options: WatchOptions) -> BoxFuture<'_, Result<Changes>>;

    /// Makes those indexes that are not there. The others stay.
    ///
    /// # Errors
    /// `InvalidArgument` if there is another index of the same name; `AlreadyExists` if documents break a unique one.
    fn ensure_indexes(&self, table: &TableName, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>>;

    /// Sets how the table is kept.
    fn configure(&self, table: &TableName, options: TableOptions) -> BoxFuture<'_, Result<()>>;

    /// Removes the table: documents, indexes, options and tombstones. No error if there is none. Who watches gets a
    /// [`Event::Gap`].
    fn drop_table(&self, table: &TableName) -> BoxFuture<'_, Result<()>>;
}

/// Only MongoDB has aggregations.
pub(in crate::store) fn no_aggregation() -> Error {
    Error::new(Code::Unsupported, "only MongoDB can aggregate; this store cannot")
}

/// The history does not reach back so far.
pub(in crate::store) fn compacted() -> Error {
    Error::new(Code::Compacted, "the store no longer has the changes since then; read the table anew")
}
