//! Where a reconciler's keys come from: what it follows, lists and fetches.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures::StreamExt;

use super::engine::Engine;
use super::heard::Heard;
use crate::client::Core;
use crate::error::Result;
use crate::lock;
use crate::observer::{Observer, ObserverEvent, ProviderInfo};
use crate::protocol::claim::ClaimKey;
use crate::protocol::document::{Filter, Key, Position, Projection, TableName};
use crate::protocol::mirror::Event;
use crate::store::changes::{Change, Interest};
use crate::store::documents::{Query, Stored};
use crate::store::{ClaimQuery, Store};
use crate::table::documents;
use crate::table::follow::Follow;

/// A source as the reconciler's tasks need it.
#[allow(clippy::large_enum_variant, reason = "one for each reconciler")]
pub(super) enum Origin {
    Table {
        table: TableName,
        filter: Filter,
    },
    Observer(Observer),
    /// Of locks whose full name begins with this.
    ReleasedLocks {
        prefix: String,
    },
    Manual,
}

impl Origin {
    /// Whether a request's document must be fetched.
    pub(super) fn fetches(&self) -> bool {
        matches!(self, Self::Table { .. } | Self::Observer(_))
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
            Self::Observer(observer) => {
                for service in observer.services()? {
                    add(Key::new(service)?);
                }
                Ok(())
            }
            Self::ReleasedLocks { prefix } => {
                let claims = core.setup().store.claims(ClaimQuery::Prefix(lock::claim_prefix(prefix))).await?;
                for claim in claims.into_iter().filter(|claim| claim.holder.is_none()) {
                    add(Key::new(claim.key.name())?);
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
            Self::Observer(observer) => {
                let service = key.value().as_str().unwrap_or_default();
                let providers = observer.providers(service)?;
                let document = (!providers.is_empty()).then(|| described(service, &providers));
                Ok(document.map(|document| Stored { key: key.clone(), document, revision: None }))
            }
            Self::ReleasedLocks { .. } | Self::Manual => Ok(None),
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
        Origin::Observer(observer) => follow_observer(&engine, observer).await,
        Origin::ReleasedLocks { prefix } => follow_locks(&engine, prefix).await,
        Origin::Manual => {
            synced(&engine);
            // Nothing to follow, but somebody has to hear that the client is closed.
            engine.stopped().await;
            Ok(())
        }
    };
    if let Err(error) = fed {
        engine.fail(error);
    }
}

/// A source without a history of its own: what is known of it is in the queue.
fn synced(engine: &Engine) {
    engine.advance(|progress| {
        progress.synced = true;
        progress.position = Position(u64::MAX);
    });
}

/// An observer tells what is different after an interruption by itself. The edges between somebody and nobody are left
/// out: a provider comes or goes beside each of them, and would make one change two runs.
async fn follow_observer(engine: &Engine, observer: &Observer) -> Result<()> {
    loop {
        let event = tokio::select! {
            biased;
            () = engine.stopped() => return Ok(()),
            event = observer.next() => event?,
        };
        match event {
            ObserverEvent::SnapshotStart | ObserverEvent::FirstUp(_) | ObserverEvent::LastDown { .. } => {}
            ObserverEvent::SnapshotEnd => synced(engine),
            ObserverEvent::Joined(provider) | ObserverEvent::Changed(provider) => {
                engine.add(Arc::new(Key::new(provider.service)?));
            }
            ObserverEvent::Left(provider) => engine.add_deleted(Arc::new(Key::new(provider.service)?)),
        }
    }
}

/// A lock that goes from one holder to the next was never free. After an interruption every free lock is added: some may
/// have been taken and released meanwhile.
async fn follow_locks(engine: &Engine, prefix: &str) -> Result<()> {
    let interest = Interest { claims: vec![lock::claim_prefix(prefix)], sessions: false };
    let core = engine.core();
    let mut changes = Heard::of(core, interest).await?;
    let mut held: HashSet<ClaimKey> = HashSet::new();
    loop {
        let change = tokio::select! {
            biased;
            () = engine.stopped() => return Ok(()),
            change = changes.next() => change?,
        };
        match change {
            Change::Interrupted | Change::Session(_) => {}
            Change::Snapshot(snapshot) => {
                held = snapshot.claims.iter().filter(|claim| claim.holder.is_some()).map(|c| c.key.clone()).collect();
                tokio::select! {
                    biased;
                    () = engine.stopped() => return Ok(()),
                    listed = engine.list_all() => listed?,
                }
                synced(engine);
            }
            Change::Claim(claim) if claim.holder.is_some() => {
                held.insert(claim.key);
            }
            Change::Claim(claim) => {
                if held.remove(&claim.key) {
                    engine.add_deleted(Arc::new(Key::new(claim.key.name())?));
                }
            }
        }
    }
}

/// The providers of a service as a document.
fn described(service: &str, providers: &[ProviderInfo]) -> Document {
    let described = providers.iter().map(|provider| {
        doc! {
            "instance_id": &provider.instance_id, "session": &provider.session, "name": &provider.name,
            "host": &provider.host, "pid": i64::from(provider.pid), "metadata": &provider.metadata,
        }
    });
    doc! { "_id": service, "service": service, "providers": described.collect::<Vec<_>>() }
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
        let listed = tokio::select! {
            biased;
            () = engine.stopped() => return,
            listed = engine.origin().list(engine.core(), &mut refresh) => listed,
        };
        if let Err(error) = listed {
            tracing::warn!(reconciler = engine.name(), %error, "a resync failed; the next one comes as planned");
        }
    }
}
