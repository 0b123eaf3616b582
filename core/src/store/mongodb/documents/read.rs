//! Reading documents: from the primary, what a majority has.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::{Document, Timestamp, doc};
use futures::stream::{self, StreamExt};
use mongodb::action::Find;
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, Collection, Cursor, SessionCursor};
use tokio::sync::mpsc;

use super::{QUERY_LIMIT, READ, Table, faults, position_of, revision_of, visible};
use crate::error::{Error, Result};
use crate::protocol::document::{Filter, Key, Position, Projection, RESERVED};
use crate::store::documents::{Aggregated, Found, Query, Snapshot, Stored};

/// How many documents wait for a reader that is slow; then the server's cursor waits.
const AHEAD: usize = 256;

/// How often a reading of one moment is tried, and how long after the one before, while the server has none yet.
const SNAPSHOT_TRIES: usize = 100;
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);
const SNAPSHOT_UNAVAILABLE: i32 = 246;
const SNAPSHOT_TOO_OLD: i32 = 239;

/// The collections whose reading as of one moment took longer than the server remembers that moment, which is five minutes.
/// Read so again it would break off again, so it is not from then on.
#[derive(Debug, Default)]
pub(in super::super) struct LongReadings(Mutex<HashSet<String>>);

impl LongReadings {
    fn add(&self, namespace: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned());
    }

    fn has(&self, namespace: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }
}

impl Table {
    pub(super) async fn find(&self, query: Query) -> Result<Found> {
        if query.limit == Some(0) {
            return Ok(stream::empty().boxed());
        }
        let documents = self.documents.clone();
        let (part, strip) = on_the_wire(query.projection.as_ref());
        let request = async move {
            let mut find: Find<'_, Document> = documents.find(query.filter.document().clone()).max_time(QUERY_LIMIT);
            if let Some(sort) = &query.sort {
                find = find.sort(sort.document().clone());
            }
            if let Some(part) = part {
                find = find.projection(part);
            }
            if query.skip > 0 {
                find = find.skip(query.skip);
            }
            if let Some(limit) = query.limit {
                find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
            }
            find.await
        };
        let cursor = self.run(QUERY_LIMIT, READ, request).await?;
        let whole = query.projection.is_none();
        self.streamed(cursor, move |document| stored(document, whole, strip))
    }

    pub(super) async fn count(&self, filter: Filter) -> Result<u64> {
        let documents = self.documents.clone();
        let filter = filter.document().clone();
        self.run(QUERY_LIMIT, READ, async move { documents.count_documents(filter).max_time(QUERY_LIMIT).await }).await
    }

    pub(super) async fn aggregate(&self, pipeline: Vec<Document>) -> Result<Aggregated> {
        if pipeline.iter().any(|stage| stage.contains_key("$out") || stage.contains_key("$merge")) {
            return Err(Error::invalid("an aggregation here only reads; '$out' and '$merge' write"));
        }
        let documents = self.documents.clone();
        let request = async move { documents.aggregate(pipeline).max_time(QUERY_LIMIT).await };
        let cursor = self.run(QUERY_LIMIT, READ, request).await?;
        self.streamed(cursor, |document| Ok(visible(document)))
    }

    /// Hands out what a cursor gives. The cursor is never interrupted half way: a task of its own reads it.
    fn streamed<T: Send + 'static>(
        &self,
        mut cursor: Cursor<Document>,
        decode: impl Fn(Document) -> Result<T> + Send + 'static,
    ) -> Result<std::pin::Pin<Box<dyn futures::Stream<Item = Result<T>> + Send>>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let namespace = self.namespace();
        self.inner.tasks.spawn(async move {
            while let Some(next) = cursor.next().await {
                let next = next.map_err(|error| faults::explain(&error, READ, &namespace)).and_then(&decode);
                let failed = next.is_err();
                if sender.send(next).await.is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(received(receiver))
    }

    pub(super) async fn snapshot(&self, filter: Filter) -> Result<Snapshot> {
        let filter = filter.document().clone();
        if !self.inner.long_readings.has(&self.namespace())
            && let Some(snapshot) = self.exact_snapshot(filter.clone()).await?
        {
            return Ok(snapshot);
        }
        self.plain_snapshot(filter).await
    }

    /// As of one moment of the server. None if it cannot.
    async fn exact_snapshot(&self, filter: Document) -> Result<Option<Snapshot>> {
        let (documents, env) = (self.documents.clone(), self.inner.env.clone());
        let request = async move {
            for _ in 0..SNAPSHOT_TRIES {
                let mut session = documents.client().start_session().snapshot(true).await?;
                // The collection's own level would stand in the session's place.
                let find = documents.find(filter.clone()).read_concern(ReadConcern::snapshot()).max_time(QUERY_LIMIT);
                match find.session(&mut session).await {
                    Ok(cursor) => return Ok(Some((cursor, session))),
                    Err(error) if cannot_snapshot(&error) => return Ok(None),
                    // The collection, or an index, was made a moment ago.
                    Err(error) if faults::code_of(&error) == Some(SNAPSHOT_UNAVAILABLE) => {
                        env.sleep(SNAPSHOT_PAUSE).await;
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        };
        let Some((cursor, session)) = self.run(QUERY_LIMIT, READ, request).await? else { return Ok(None) };
        let Some(time) = session.snapshot_time() else { return Ok(None) };
        let documents = self.streamed_in(cursor, session)?;
        Ok(Some(Snapshot { position: position_of(Some(time)), exact: true, documents }))
    }

    fn streamed_in(&self, mut cursor: SessionCursor<Document>, mut session: ClientSession) -> Result<Found> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (inner, namespace) = (self.inner.clone(), self.namespace());
        self.inner.tasks.spawn(async move {
            while let Some(next) = cursor.next(&mut session).await {
                let next = next.map_err(|error| {
                    if faults::code_of(&error) == Some(SNAPSHOT_TOO_OLD) {
                        inner.long_readings.add(&namespace);
                    }
                    faults::explain(&error, READ, &namespace)
                });
                let next = next.and_then(|document| stored(document, true, false));
                let failed = next.is_err();
                if sender.send(next).await.is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(received(receiver))
    }

    /// As of some moment after a place of the history: what has changed meanwhile is in both, and nothing in neither.
    async fn plain_snapshot(&self, filter: Document) -> Result<Snapshot> {
        let documents = self.documents.clone();
        let request = async move {
            let mut session = documents.client().start_session().causal_consistency(true).await?;
            let place = ping(&documents, &mut session).await?;
            // In the session of the place: else it could be read as of an earlier moment, one that the majority has.
            let find = documents.find(filter).read_concern(ReadConcern::majority()).max_time(QUERY_LIMIT);
            let cursor = find.session(&mut session).await?;
            Ok((place, cursor, session))
        };
        let (place, cursor, session) = self.run(QUERY_LIMIT, READ, request).await?;
        let documents = self.streamed_in(cursor, session)?;
        Ok(Snapshot { position: position_of(place), exact: false, documents })
    }

    /// Where the server's history is now. Whoever reads after the answer reads what is there or something later: a stream
    /// that begins after this place and a reading leave nothing out between them. The place may be one that no majority has
    /// yet, which reads do not show; so one is made that waits for it.
    pub(super) async fn position(&self) -> Result<Position> {
        let (documents, limit) = (self.documents.clone(), self.inner.limits.operation);
        let request = async move {
            let mut session = documents.client().start_session().await?;
            let now = ping(&documents, &mut session).await?;
            settle(&documents, limit, &mut session).await?;
            Ok(now)
        };
        Ok(position_of(self.run(self.inner.limits.operation, READ, request).await?))
    }
}

/// Waits until a majority has all that the session was told: a read that is causally after it shows only that.
pub(super) async fn settle(
    documents: &Collection<Document>,
    limit: Duration,
    session: &mut ClientSession,
) -> mongodb::error::Result<()> {
    documents.find_one(doc! {}).projection(doc! { "_id": 1 }).max_time(limit).session(session).await?;
    Ok(())
}

/// Where the server's history is now.
async fn ping(
    documents: &Collection<Document>,
    session: &mut ClientSession,
) -> mongodb::error::Result<Option<Timestamp>> {
    let database = documents.client().database(&documents.namespace().db);
    database.run_command(doc! { "ping": 1 }).session(&mut *session).await?;
    Ok(session.operation_time())
}

fn received<T: Send + 'static>(
    receiver: mpsc::Receiver<Result<T>>,
) -> std::pin::Pin<Box<dyn futures::Stream<Item = Result<T>> + Send>> {
    stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|next| (next, receiver))).boxed()
}

fn stored(document: Document, whole: bool, strip: bool) -> Result<Stored> {
    let key = Key::of(&document)?;
    let mut document = visible(document);
    if strip {
        document.remove("_id");
    }
    Ok(Stored { key, revision: whole.then(|| revision_of(&document)), document })
}

/// The projection to send, and whether the key was not wanted: it always comes along.
fn on_the_wire(projection: Option<&Projection>) -> (Option<Document>, bool) {
    let Some(projection) = projection else { return (None, false) };
    let mut document = projection.document().clone();
    let strip = !projection.has_key();
    if strip {
        document.remove("_id");
    }
    (Some(document), strip)
}

/// Whether the server, or its storage, knows no reading of one moment.
fn cannot_snapshot(error: &mongodb::error::Error) -> bool {
    const UNKNOWN: [i32; 2] = [72, 31_465];
    match &*error.kind {
        mongodb::error::ErrorKind::IncompatibleServer { .. } => true,
        _ => faults::code_of(error).is_some_and(|code| UNKNOWN.contains(&code)),
    }
}

const _: () = assert!(RESERVED.len() == 2, "`visible` takes out what a projection may let through");
