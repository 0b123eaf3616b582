//! Where a reconciler's keys come from: what it follows, lists and fetches.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures::StreamExt;

use super::engine::Engine;
use crate::client::Core;
use crate::error::Result;
use crate::protocol::document::{Filter, Key, Position, Projection, TableName};
use crate::protocol::mirror::Event;
use crate::store::documents::{Query, Stored};
use crate::table::documents;
use crate::table::follow::Follow;

/// A source as the reconciler's tasks need it.
pub(super) enum Origin {
    Table { table: TableName, filter: Filter },
    Manual,
}

impl Origin {
    /// Whether a request's document must be fetched.
    pub(super) fn fetches(&self) -> bool {
        !matches!(self, Self::Manual)
    }

    /// Every key that is there.
    pub(super) async fn list(&self, core: &Core, add: &mut (impl FnMut(Key) + Send)) -> Result<()> {
        match self {
            Self::Table { table, filter } => {
                let projection = Some(Projection::parse(doc! { "_id": 1 })?);
                let query = Query { filter: filter.clone(), projection, ..Query::default() };
                let mut found = documents(&*core.setup().store)?.find(table, query).await?;
                while let Some(stored) = found.next().await.transpose()? {
                    add(stored.key);
                }
                Ok(())
            }
            Self::Manual => Ok(()),
        }
    }

    /// What is there of this key now.
    pub(super) async fn fetch(&self, core: &Core, key: &Key) -> Result<Option<Stored>> {
        match self {
            Self::Table { table, filter } => {
                let wanted = both(filter, key)?;
                let query = Query { filter: wanted, limit: Some(1), ..Query::default() };
                let mut found = documents(&*core.setup().store)?.find(table, query).await?;
                found.next().await.transpose()
            }
            Self::Manual => Ok(None),
        }
    }
}

/// The document of this key, if it matches.
fn both(filter: &Filter, key: &Key) -> Result<Filter> {
    if filter.is_everything() {
        return Ok(Filter::key(key));
    }
    let key: Document = Filter::key(key).document().clone();
    Filter::parse(doc! { "$and": [key, filter.document().clone()] })
}

/// Puts every change of the source into the queue, until the reconciler ends.
pub(super) async fn feed(engine: Arc<Engine>) {
    let fed = match engine.origin() {
        Origin::Table { table, filter } => {
            let follow = Follow::new(engine.core().clone(), table.clone(), filter.clone(), None);
            follow_table(&engine, follow).await
        }
        Origin::Manual => {
            engine.advance(|progress| {
                progress.synced = true;
                progress.position = Position(u64::MAX);
            });
            Ok(())
        }
    };
    if let Err(error) = fed
        && !engine.is_stopping()
    {
        tracing::error!(reconciler = engine.name(), %error, "a reconciler's source cannot be followed; it ends");
        engine.advance(|progress| progress.failure = Some(error));
        engine.stop();
    }
}

/// At the beginning, and whenever changes were missed, every document's key is added: a function may have seen more than
/// the events that have come, so that a document that is as it was in the last event may not be as the function saw it.
async fn follow_table(engine: &Engine, mut follow: Follow) -> Result<()> {
    let mut known: HashSet<Arc<Key>> = HashSet::new();
    let mut listed: HashSet<Arc<Key>> = HashSet::new();
    loop {
        let event = tokio::select! {
            biased;
            () = engine.stopped() => return Ok(()),
            event = follow.next() => event?,
        };
        let snapshot_done = matches!(event, Some(Event::InitDone));
        match event {
            None => {}
            Some(Event::Init) => listed.clear(),
            Some(Event::InitApply { key, .. }) => {
                let key = Arc::new(key);
                listed.insert(key.clone());
                engine.add(key);
            }
            Some(Event::InitDone) => {
                for key in std::mem::take(&mut known).difference(&listed) {
                    engine.add_deleted(key.clone());
                }
                known = std::mem::take(&mut listed);
            }
            Some(Event::Apply { key, .. }) => {
                let key = Arc::new(key);
                known.insert(key.clone());
                engine.add(key);
            }
            Some(Event::Delete { key, .. }) => {
                let key = Arc::new(key);
                known.remove(&key);
                engine.add_deleted(key);
            }
        }
        let position = follow.position();
        engine.advance(|progress| {
            progress.position = position;
            progress.synced |= snapshot_done;
        });
    }
}

/// Goes through the source once more, again and again.
pub(super) async fn resync(engine: Arc<Engine>, every: Duration) {
    let env = engine.core().setup().env.clone();
    loop {
        tokio::select! {
            biased;
            () = engine.stopped() => return,
            () = env.sleep(env.jittered(every)) => {}
        }
        let mut refresh = |key: Key| engine.refresh(Arc::new(key));
        if let Err(error) = engine.origin().list(engine.core(), &mut refresh).await {
            tracing::warn!(reconciler = engine.name(), %error, "a resync failed; the next one comes as planned");
        }
    }
}
