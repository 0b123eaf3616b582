//! Tables in the file. Documents are BSON in rows; the shared matcher reads them, by an index where one helps.
//!
//! - `work`, `table`: what the writer does, and the rows that it does it to.
//! - `watch`: the log of changes as a stream.
//!
//! Invariants:
//! - a write is acknowledged when it is synced to the disk, and so is whatever it was refused for, since every writer of
//!   these rows is;
//! - a change, the row of the log that tells of it, and the index entries are one transaction. The row's number is the
//!   change's place and the document's revision;
//! - a write with a fence looks at the lock in its own transaction, so every fence is strict.

mod table;
mod watch;
pub(super) mod work;

use std::sync::Arc;

use bson::Document;
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use rusqlite::Connection;

use self::table::Table;
use self::work::{DocumentDone, DocumentWork, Filled, MOST};
use super::fault::{self, Fault};
use super::reader::Reader;
use super::writer::{Done, Work};
use super::{Open, SqliteStore, places, schema};
use crate::error::{Code, Error, Result};
use crate::protocol::document::write::{Action, Write};
use crate::protocol::document::{Filter, Key, Position, TableName};
use crate::store::documents::{
    Aggregated, Changes, Documents, Found, From, Index, ManyAction, ManyWritten, Query, Snapshot, Stored, TableOptions,
    WatchOptions, WriteMany, Written,
    local::{self, Arranged},
};
use crate::time::WallTime;

impl Open {
    /// Does the work. What the file took that is not found under its path any more is not acknowledged: the file may have
    /// been moved while the work was waiting, so that is looked at before and after.
    async fn work(&self, work: DocumentWork) -> Result<DocumentDone> {
        self.file.check_in_place()?;
        let done = self.writer.run(Work::Document(work)).await?;
        self.file.check_in_place()?;
        match done {
            Done::Document(done) => Ok(done),
            other => Err(super::mismatched(&other)),
        }
    }

    /// The connection that reads tables: scanning one never keeps coordination from reading.
    async fn table_reader(&self) -> Result<Arc<Reader>> {
        let made = self.tables.get_or_try_init(|| async {
            let path = self.file.path().to_owned();
            let opening = self.env.tasks.runtime().spawn_blocking(move || {
                let db = schema::connect(&path);
                db.map(|db| (db, path.clone())).map_err(|error| fault::explain(&path, error))
            });
            let opened =
                opening.await.map_err(|_| Error::unavailable("the runtime was shut down while a file was opened"));
            self.file.check_in_place()?;
            let (db, path) = opened??;
            Ok(Arc::new(Reader::new(self.env.clone(), path, db)))
        });
        made.await.cloned()
    }

    async fn read_table<T: Send + 'static>(
        &self,
        name: &TableName,
        few: bool,
        query: impl Fn(&Connection, Option<&Table>) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let (reader, name) = (self.table_reader().await?, name.clone());
        let found = reader.read(few, move |db| query(db, Table::find(db, &name)?.as_ref())).await?;
        self.file.check_in_place()?;
        Ok(found)
    }

    async fn matching(&self, name: &TableName, filter: Filter) -> Result<Vec<Key>> {
        self.read_table(name, false, move |db, table| {
            let mut keys = Vec::new();
            if let Some(table) = table {
                table.each(db, &filter, |stored| {
                    keys.push(stored.key);
                    true
                })?;
            }
            Ok(keys)
        })
        .await
    }

    async fn write_many(&self, name: TableName, many: WriteMany) -> Result<ManyWritten> {
        let action = match &many.action {
            ManyAction::Update(update) => Action::Update(update.clone()),
            ManyAction::Delete => Action::Delete,
        };
        local::require_shared_action(&action)?;
        many.filter.require_shared()?;
        let mut keys = self.matching(&name, many.filter.clone()).await?;
        let (mut total, mut left_out, mut refusal) = (ManyWritten { count: 0, position: Position(0) }, 0, None);
        while !keys.is_empty() {
            let mut later = keys.split_off(keys.len().min(MOST));
            let work = DocumentWork::Many(name.clone(), keys, Box::new(many.clone()));
            let DocumentDone::Many(done) = self.work(work).await? else { return Err(unexpected()) };
            total.count += done.written;
            total.position = total.position.max(done.position);
            left_out += done.left_out;
            refusal = done.refusal.or(refusal);
            if let Some(error) = done.error {
                return Err(error);
            }
            keys = done.rest;
            keys.append(&mut later);
        }
        refusal.map_or(Ok(total), |refusal| Err(local::partly_fenced(total.count, left_out, &refusal)))
    }

    async fn find(&self, name: &TableName, query: Query) -> Result<Vec<Stored>> {
        local::require_shared(&query)?;
        let few = local::keys_of(&query.filter).is_some_and(|keys| keys.len() <= FEW);
        self.read_table(name, few, move |db, table| {
            let mut arranged = Arranged::new(&query);
            if let Some(table) = table {
                table.each(db, &query.filter, |stored| arranged.take(stored))?;
            }
            Ok(arranged.answer())
        })
        .await?
    }

    async fn ensure_indexes(&self, name: TableName, indexes: Vec<Index>) -> Result<()> {
        loop {
            let work = DocumentWork::AddIndexes(name.clone(), indexes.clone());
            let DocumentDone::Indexes(unready) = self.work(work).await? else { return Err(unexpected()) };
            let unready = unready?;
            if unready.is_empty() {
                return Ok(());
            }
            // If one of them is gone it is added anew, and its verdict is then about what we have found ourselves.
            if self.fill(&name, unready).await? {
                self.writer.run_later(Work::Document(DocumentWork::Sweep));
                return Ok(());
            }
        }
    }

    /// Fills these indexes from the first document to the last. False if one of them is gone.
    async fn fill(&self, name: &TableName, indexes: Vec<i64>) -> Result<bool> {
        let mut after = None;
        loop {
            let work = DocumentWork::Fill(name.clone(), indexes.clone(), after);
            let DocumentDone::Filled(filled) = self.work(work).await? else { return Err(unexpected()) };
            match filled? {
                Filled::To(key) => after = Some(key),
                Filled::All => return Ok(true),
                Filled::Gone => return Ok(false),
            }
        }
    }
}

fn unexpected() -> Error {
    Error::new(Code::Panic, "the writer answered another question about documents")
}

impl Documents for SqliteStore {
    fn write(&self, table: &TableName, write: Write) -> BoxFuture<'_, Result<Written>> {
        let table = table.clone();
        async move {
            let write = write.prepared()?;
            local::require_shared_action(&write.action)?;
            match self.inner()?.work(DocumentWork::Write(table, Box::new(write))).await? {
                DocumentDone::Written(written) => written,
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    // All users of a file are on one machine.
    fn date(&self) -> BoxFuture<'_, Result<WallTime>> {
        async move { Ok(self.inner()?.env.clock.wall()) }.boxed()
    }

    fn write_many(&self, table: &TableName, write: WriteMany) -> BoxFuture<'_, Result<ManyWritten>> {
        let table = table.clone();
        async move { self.inner()?.write_many(table, write).await }.boxed()
    }

    fn find(&self, table: &TableName, query: Query) -> BoxFuture<'_, Result<Found>> {
        let table = table.clone();
        async move {
            let found = self.inner()?.find(&table, query).await?;
            Ok(stream::iter(found.into_iter().map(Ok)).boxed())
        }
        .boxed()
    }

    fn count(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<u64>> {
        let table = table.clone();
        async move {
            filter.require_shared()?;
            Ok(self.inner()?.matching(&table, filter).await?.len() as u64)
        }
        .boxed()
    }

    fn aggregate(&self, _: &TableName, _: Vec<Document>) -> BoxFuture<'_, Result<Aggregated>> {
        future::ready(Err(crate::store::documents::no_aggregation())).boxed()
    }

    fn snapshot(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<Snapshot>> {
        let table = table.clone();
        async move {
            filter.require_shared()?;
            let read = move |db: &Connection, table: Option<&Table>| {
                let mut found = Vec::new();
                if let Some(table) = table {
                    table.each(db, &filter, |stored| {
                        found.push(Ok(stored));
                        true
                    })?;
                }
                Ok((found, places::last(db)?))
            };
            let (found, last) = self.inner()?.read_table(&table, false, read).await?;
            let position = Position(last.cast_unsigned());
            Ok(Snapshot { position, exact: true, documents: stream::iter(found).boxed() })
        }
        .boxed()
    }

    fn watch(&self, table: &TableName, options: WatchOptions) -> BoxFuture<'_, Result<Changes>> {
        let table = table.clone();
        async move {
            let open = self.inner()?;
            open.file.check_in_place()?;
            let reader = match options.from {
                // Searches the log.
                From::Time(_) => open.table_reader().await?,
                From::Now | From::After(_) => open.reader.clone(),
            };
            watch::open(open.env.clone(), &open.log, &reader, &table, options).await
        }
        .boxed()
    }

    fn ensure_indexes(&self, table: &TableName, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        let table = table.clone();
        async move { self.inner()?.ensure_indexes(table, indexes).await }.boxed()
    }

    fn configure(&self, table: &TableName, options: TableOptions) -> BoxFuture<'_, Result<()>> {
        let table = table.clone();
        async move { self.inner()?.work(DocumentWork::Configure(table, options)).await.map(drop) }.boxed()
    }

    fn drop_table(&self, table: &TableName) -> BoxFuture<'_, Result<()>> {
        let table = table.clone();
        async move {
            let open = self.inner()?;
            open.work(DocumentWork::Drop(table)).await?;
            open.writer.run_later(Work::Document(DocumentWork::Sweep));
            Ok(())
        }
        .boxed()
    }
}

/// As many documents are read at once without a thread for it.
const FEW: usize = 16;
