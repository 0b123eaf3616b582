//! A store in memory whose readings of documents and claims can be kept from ending, or fail.

use std::sync::Arc;

use bson::Document;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::client::Client;
use crate::config::Options;
use crate::driver::Watched;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep};
use crate::protocol::document::{Filter, TableName, Write};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep};
use crate::store::changes::{Changes, Interest};
use crate::store::documents::{
    self, Aggregated, Documents, Found, Index, ManyWritten, Query, Snapshot, TableOptions, WatchOptions, WriteMany,
    Written,
};
use crate::store::memory::MemoryStore;
use crate::store::{Applied, Capabilities, ClaimQuery, Notices, SessionQuery, Store};
use crate::time::WallTime;

/// What becomes of readings.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// They are answered.
    Answered,
    /// They have no answer before that changes.
    Kept,
    /// They fail.
    Failed(Error),
}

#[derive(Debug)]
pub(super) struct Kept {
    inner: MemoryStore,
    fate: Watched<Fate>,
    /// How many readings have begun.
    begun: Watched<usize>,
}

impl Kept {
    pub(super) fn open(name: &str, env: &Env) -> Arc<Self> {
        let inner = MemoryStore::open(name, env.clone());
        Arc::new(Self { inner, fate: Watched::new(Fate::Answered), begun: Watched::new(0) })
    }

    /// A client of this store, in this world.
    pub(super) async fn client(self: &Arc<Self>, env: &Env) -> Client {
        Client::with_store(self.clone(), Options::parse("memory:").unwrap(), env.clone()).await.unwrap()
    }

    /// What becomes of readings from now on, and of those that are kept.
    pub(super) fn set(&self, fate: Fate) {
        self.fate.replace(fate);
    }

    /// How many readings have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.get()
    }

    /// Waits until more than so many readings have begun.
    pub(super) async fn more_than(&self, begun: usize) {
        self.begun.wait_for(|now| *now > begun).await;
    }

    /// The reading itself comes after the wait: it shows what is there then.
    async fn read<T: Send>(&self, reading: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.begun.modify(|begun| *begun += 1);
        self.fate.wait_for(|fate| !matches!(fate, Fate::Kept)).await;
        match self.fate.get() {
            Fate::Failed(error) => Err(error),
            Fate::Answered | Fate::Kept => reading.await,
        }
    }

    fn documents(&self) -> &dyn Documents {
        self.inner.documents().unwrap()
    }
}

impl Store for Kept {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.inner.apply_session(id, step)
    }
    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        self.inner.apply_claim(key, step)
    }
    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.inner.sessions(query)
    }
    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        match query {
            ClaimQuery::Prefix(_) => self.read(async move { self.inner.claims(query).await }).boxed(),
            _ => self.inner.claims(query),
        }
    }
    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        self.inner.notices(id)
    }
    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        self.inner.changes(interest)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn documents(&self) -> Option<&dyn Documents> {
        Some(self)
    }
    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

impl Documents for Kept {
    fn write(&self, table: &TableName, write: Write) -> BoxFuture<'_, Result<Written>> {
        self.documents().write(table, write)
    }
    fn write_many(&self, table: &TableName, write: WriteMany) -> BoxFuture<'_, Result<ManyWritten>> {
        self.documents().write_many(table, write)
    }
    fn find(&self, table: &TableName, query: Query) -> BoxFuture<'_, Result<Found>> {
        let table = table.clone();
        self.read(async move { self.documents().find(&table, query).await }).boxed()
    }
    fn count(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<u64>> {
        self.documents().count(table, filter)
    }
    fn date(&self) -> BoxFuture<'_, Result<WallTime>> {
        self.documents().date()
    }
    fn aggregate(&self, table: &TableName, pipeline: Vec<Document>) -> BoxFuture<'_, Result<Aggregated>> {
        self.documents().aggregate(table, pipeline)
    }
    fn snapshot(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<Snapshot>> {
        self.documents().snapshot(table, filter)
    }
    fn watch(&self, table: &TableName, options: WatchOptions) -> BoxFuture<'_, Result<documents::Changes>> {
        self.documents().watch(table, options)
    }
    fn ensure_indexes(&self, table: &TableName, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        self.documents().ensure_indexes(table, indexes)
    }
    fn configure(&self, table: &TableName, options: TableOptions) -> BoxFuture<'_, Result<()>> {
        self.documents().configure(table, options)
    }
    fn drop_table(&self, table: &TableName) -> BoxFuture<'_, Result<()>> {
        self.documents().drop_table(table)
    }
}
