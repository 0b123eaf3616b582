//! The stream of changes: one change stream over both collections, after a snapshot of them.
//!
//! The snapshot is read at one moment of the cluster's time (read concern `snapshot`), and the change stream begins at that
//! moment; so nothing falls between, and nothing comes twice. Events are deltas ([`patch`]); the documents that they change
//! are kept here, so each change is told with the record as it left it. An outage that the server's history covers
//! costs nothing: the next stream goes on from the last event. Otherwise everything begins anew.
//!
//! Deliberately absent: pre- and post-images (they cost every writer), looking a document up after its event (it shows a
//! later state), and MongoDB before 5.0, which has no such snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document, Timestamp, doc};
use mongodb::change_stream::event::{OperationType, ResumeToken, UpdateDescription};
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, Collection};
use tokio::sync::mpsc;

use super::errors::Doing;
use super::feed::{self, Event, Feed, Opened, QUIET, WAITING};
use super::{Inner, codec, pipeline};
use crate::error::{Code, Error, Result};
use crate::protocol::session::{SessionRecord, Vitality};
use crate::store::changes::{Change, Changes, Interest, Snapshot};

/// Opens the stream. Fails if its first opening does; later ones are tried for ever.
pub(super) async fn open(inner: Arc<Inner>, interest: Interest) -> Result<Changes> {
    let mut follower =
        Follower { interest, known: Known::default(), token: None, out: None, inner: Arc::clone(&inner) };
    let first = follower.begin().await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    follower.out = Some(sender);
    inner.tasks.spawn(follower.run(first))?;
    Ok(Box::pin(stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|change| (change, receiver)))))
}

/// The documents of interest, as of the last event.
#[derive(Default)]
struct Known {
    claims: BTreeMap<String, Document>,
    sessions: BTreeMap<String, Document>,
    /// Events up to this moment are in them already.
    since: Option<Timestamp>,
}

struct Follower {
    inner: Arc<Inner>,
    interest: Interest,
    known: Known,
    token: Option<ResumeToken>,
    /// Set before it runs.
    out: Option<mpsc::Sender<Change>>,
}

/// Nobody reads the changes any more.
struct Unheard;

impl Follower {
    async fn run(mut self, first: Opened) {
        let mut closing = self.inner.closing.subscribe();
        let Some(reader_gone) = self.out.clone() else { return };
        tokio::select! {
            _ = self.follow_for_ever(first) => {}
            () = reader_gone.closed() => {}
            // An error means that the store itself is gone.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    async fn follow_for_ever(&mut self, first: Opened) -> Result<(), Unheard> {
        let mut next = first;
        loop {
            self.tell(Change::Snapshot(self.snapshot())).await?;
            self.follow(next).await?;
            self.tell(Change::Interrupted).await?;
            next = self.reopen().await;
        }
    }

    async fn tell(&self, change: Change) -> Result<(), Unheard> {
        match &self.out {
            Some(out) => out.send(change).await.map_err(|_| Unheard),
            None => Err(Unheard),
        }
    }

    /// Tells what one change stream shows, until it is given up.
    async fn follow(&mut self, opened: Opened) -> Result<(), Unheard> {
        let Ok(mut feed) = Feed::start(&self.inner, opened) else { return Ok(()) };
        while let Some(event) = feed.next(&mut self.token).await {
            match self.known.take_in(&self.interest, &self.inner, &event) {
                Taken::Nothing => {}
                Taken::Change(change) => self.tell(*change).await?,
                Taken::Unknowable => {
                    self.token = None;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn reopen(&mut self) -> Opened {
        let mut token = self.token.take();
        let (inner, interest) = (self.inner.clone(), self.interest.clone());
        let open = move |token| {
            let (inner, interest) = (inner.clone(), interest.clone());
            async move {
                match token {
                    Some(token) => Ok((watch(&inner, &interest, Start::After(token)).await?, None)),
                    None => read_and_watch(&inner, &interest).await.map(|(known, stream)| (stream, Some(known))),
                }
            }
            .boxed()
        };
        let (stream, known) = feed::reopen(&self.inner, &mut token, "what others hold and provide", open).await;
        self.token = token;
        if let Some(known) = known {
            self.known = known;
        }
        stream
    }

    async fn begin(&mut self) -> Result<Opened> {
        let (known, stream) = read_and_watch(&self.inner, &self.interest).await?;
        self.known = known;
        Ok(stream)
    }

    fn snapshot(&self) -> Snapshot {
        let claims = self.known.claims.values().filter_map(|claim| readable(codec::claim_state(claim)));
        let sessions = self.known.sessions.values().filter_map(|session| readable(codec::session(session)));
        Snapshot {
            claims: claims.filter(|claim| claim.holder.is_some()).collect(),
            sessions: sessions.filter(|session| session.vitality == Vitality::Live).collect(),
        }
    }
}

/// What is of interest at one moment, and the change stream from then on.
async fn read_and_watch(inner: &Arc<Inner>, interest: &Interest) -> Result<(Known, Opened)> {
    let known = read(inner, interest).await?;
    let since = known.since.ok_or_else(|| {
        Error::new(
            Code::Unsupported,
            "this MongoDB server cannot read a snapshot; observing needs MongoDB 5.0 or later",
        )
    })?;
    let stream = watch(inner, interest, Start::At(since)).await?;
    Ok((known, stream))
}

async fn read(inner: &Arc<Inner>, interest: &Interest) -> Result<Known> {
    let (locks, sessions) = (inner.locks.clone(), inner.sessions.clone());
    let prefixes: Vec<Document> =
        interest.claims.iter().map(|prefix| doc! { "_id": codec::begins_with(prefix) }).collect();
    let with_sessions = interest.sessions;
    let request = async move {
        let mut session = locks.client().start_session().snapshot(true).await?;
        let mut known = Known::default();
        // Also when no session is of interest: it is what the moment is taken from.
        let live = if with_sessions {
            doc! { "st": "live" }
        } else {
            doc! { "_id": "nobody" }
        };
        known.sessions = find(&sessions, live, pipeline::roster_fields(), &mut session).await?;
        if !prefixes.is_empty() {
            let held = doc! { "own": { "$type": "string" }, "$or": prefixes };
            known.claims = find(&locks, held, pipeline::shown_claim_fields(), &mut session).await?;
        }
        known.since = session.snapshot_time();
        Ok(known)
    };
    inner.tasks.run(inner.limits.operation, READ_SNAPSHOT, request, &inner.locks_namespace()).await
}

async fn find(
    collection: &Collection<Document>,
    filter: Document,
    fields: Document,
    session: &mut ClientSession,
) -> mongodb::error::Result<BTreeMap<String, Document>> {
    // Said here too: the driver would keep the collection's own read concern, and read at no moment in particular.
    let snapshot = ReadConcern::snapshot();
    let mut found = collection.find(filter).projection(fields).read_concern(snapshot).session(&mut *session).await?;
    let documents: Vec<Document> = found.stream(session).try_collect().await?;
    Ok(documents
        .into_iter()
        .filter_map(|document| Some((document.get_str("_id").ok()?.to_owned(), document)))
        .collect())
}

/// Where a change stream begins.
enum Start {
    At(Timestamp),
    After(ResumeToken),
}

async fn watch(inner: &Inner, interest: &Interest, start: Start) -> Result<Opened> {
    let database = inner.locks.client().database(&inner.locks.namespace().db);
    let pipeline = [doc! { "$match": filter(inner, interest) }];
    let opening = async move {
        let watch = database.watch().pipeline(pipeline).max_await_time(QUIET);
        match start {
            Start::At(moment) => watch.start_at_operation_time(moment).await,
            Start::After(token) => watch.resume_after(token).await,
        }
    };
    let namespace = &inner.locks.namespace().db;
    Opened::by(inner, inner.tasks.run(inner.limits.operation, WATCH_CHANGES, opening, namespace)).await
}

/// What of all that happens in the database is a change. Renewals set other fields, and what happens in a queue does too.
fn filter(inner: &Inner, interest: &Interest) -> Document {
    let whole = doc! { "operationType": { "$in": ["insert", "replace", "delete", "drop", "rename", "dropDatabase"] } };
    let touched = |field: &str| doc! { format!("updateDescription.updatedFields.{field}"): { "$exists": true } };
    let mut any = Vec::new();
    if interest.sessions {
        let change = [whole.clone(), touched("rv"), touched("st")];
        any.push(doc! { "ns.coll": inner.sessions.name(), "$or": change });
    }
    if !interest.claims.is_empty() {
        let ours = interest.claims.iter().map(|prefix| doc! { "documentKey._id": codec::begins_with(prefix) });
        let ours: Vec<Document> = ours.chain([doc! { "documentKey": { "$exists": false } }]).collect();
        let change = [whole, touched("own"), touched("tok"), touched("val")];
        any.push(doc! { "ns.coll": inner.locks.name(), "$and": [{ "$or": ours }, { "$or": change }] });
    }
    any.push(doc! { "operationType": "dropDatabase" });
    doc! { "$or": any }
}

/// What an event has done to the known documents.
enum Taken {
    /// Nothing that anybody sees.
    Nothing,
    /// This.
    Change(Box<Change>),
    /// Only reading everything anew can tell.
    Unknowable,
}

impl Known {
    fn take_in(&mut self, interest: &Interest, inner: &Inner, event: &Event) -> Taken {
        if event.cluster_time.is_some() && event.cluster_time <= self.since {
            return Taken::Nothing;
        }
        let Some(key) = event.document_key.as_ref().and_then(|key| key.get_str("_id").ok()) else {
            // A collection was dropped or renamed.
            return Taken::Unknowable;
        };
        let collection = event.ns.as_ref().and_then(|ns| ns.coll.as_deref());
        if collection == Some(inner.sessions.name()) && interest.sessions {
            let fields = pipeline::roster_fields();
            let before = self.sessions.get(key).cloned();
            let after = after(before.clone(), &fields, event, key);
            self.sessions_changed(key, before, after)
        } else if collection == Some(inner.locks.name()) {
            let fields = pipeline::shown_claim_fields();
            let before = self.claims.get(key).cloned();
            let after = after(before.clone(), &fields, event, key);
            self.claims_changed(key, before, after)
        } else {
            Taken::Nothing
        }
    }

    fn sessions_changed(&mut self, key: &str, before: Option<Document>, after: Option<Document>) -> Taken {
        let gone = |before: Document| {
            // Somebody has removed a live session's document: it is missing, and that is not counted.
            let record = readable(codec::session(&before))?;
            (record.vitality == Vitality::Live).then(|| SessionRecord {
                vitality: Vitality::Dead,
                providers: Vec::new(),
                revision: record.revision + 1,
                ..record
            })
        };
        let record = match (after, before) {
            (Some(after), _) => {
                let record = readable(codec::session(&after));
                if record.as_ref().is_some_and(|record| record.vitality == Vitality::Live) {
                    self.sessions.insert(key.to_owned(), after);
                } else {
                    self.sessions.remove(key);
                }
                record
            }
            (None, before) => {
                self.sessions.remove(key);
                before.and_then(gone)
            }
        };
        record.map_or(Taken::Nothing, |record| Taken::Change(Box::new(Change::Session(record))))
    }

    fn claims_changed(&mut self, key: &str, before: Option<Document>, after: Option<Document>) -> Taken {
        let before = before.as_ref().and_then(|claim| readable(codec::claim_state(claim)));
        let now = after.as_ref().and_then(|claim| readable(codec::claim_state(claim)));
        match after {
            Some(after) if now.as_ref().is_some_and(|now| now.holder.is_some()) => {
                self.claims.insert(key.to_owned(), after);
            }
            _ => {
                self.claims.remove(key);
            }
        }
        let shown = match (before, now) {
            (before, Some(now)) if before.as_ref() != Some(&now) => Some(now),
            // Removed by hand, while it was held.
            (Some(before), None) => Some(crate::store::changes::ClaimState { holder: None, value: None, ..before }),
            _ => None,
        };
        shown.map_or(Taken::Nothing, |claim| Taken::Change(Box::new(Change::Claim(claim))))
    }
}

/// The document after an event, with these fields only; none if it is gone.
fn after(before: Option<Document>, fields: &Document, event: &Event, key: &str) -> Option<Document> {
    match (&event.update_description, &event.full_document) {
        (Some(update), _) => {
            let mut document = before.unwrap_or_else(|| doc! { "_id": key });
            patch(&mut document, fields, update);
            Some(document)
        }
        (None, Some(whole)) => {
            let kept = whole.iter().filter(|(name, _)| *name == "_id" || fields.contains_key(*name));
            Some(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        (None, None) if event.operation_type == OperationType::Delete => None,
        (None, None) => before,
    }
}

/// Applies a delta to a document, as far as it is about these fields. No name of ours has a dot or is a number, so a path
/// means one thing.
fn patch(document: &mut Document, fields: &Document, update: &UpdateDescription) {
    let ours = |path: &str| fields.contains_key(path.split('.').next().unwrap_or(path));
    for path in update.removed_fields.iter().filter(|path| ours(path)) {
        set(document, path, None);
    }
    for array in update.truncated_arrays.iter().flatten().filter(|array| ours(&array.field)) {
        if let Some(Bson::Array(items)) = place(document, &array.field) {
            items.truncate(usize::try_from(array.new_size).unwrap_or(0));
        }
    }
    for (path, value) in update.updated_fields.iter().filter(|(path, _)| ours(path)) {
        set(document, path, Some(value.clone()));
    }
}

/// The value at a path.
fn place<'a>(document: &'a mut Document, path: &str) -> Option<&'a mut Bson> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let mut value = document.get_mut(first)?;
    for part in rest.into_iter().flat_map(|rest| rest.split('.')) {
        value = match value {
            Bson::Document(inner) => inner.get_mut(part)?,
            Bson::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

/// Sets the value at a path, or removes it.
fn set(document: &mut Document, path: &str, value: Option<Bson>) {
    let Some((parent, last)) = path.rsplit_once('.') else {
        match value {
            Some(value) => document.insert(path, value),
            None => document.remove(path),
        };
        return;
    };
    match (place(document, parent), value) {
        (Some(Bson::Document(inner)), Some(value)) => {
            inner.insert(last, value);
        }
        (Some(Bson::Document(inner)), None) => {
            inner.remove(last);
        }
        (Some(Bson::Array(items)), Some(value)) => {
            let Ok(index) = last.parse::<usize>() else { return };
            if index < items.len() {
                items[index] = value;
            } else if index == items.len() {
                items.push(value);
            }
        }
        _ => {}
    }
}

/// A record, unless its document is corrupt; then the log says so.
fn readable<T>(decoded: Result<T>) -> Option<T> {
    decoded.inspect_err(|error| tracing::warn!("left out of what is observed: {error}")).ok()
}

const READ_SNAPSHOT: Doing = Doing { what: "read a snapshot", rights: "find" };
const WATCH_CHANGES: Doing = Doing { what: "watch the database", rights: "changeStream and find" };

#[cfg(test)]
mod tests {
    use super::*;

    fn update(updated: Document, removed: &[&str], truncated: Option<(&str, i32)>) -> UpdateDescription {
        let truncated: Vec<Document> =
            truncated.into_iter().map(|(field, size)| doc! { "field": field, "newSize": size }).collect();
        bson::deserialize_from_document(
            doc! { "updatedFields": updated, "removedFields": removed, "truncatedArrays": truncated },
        )
        .unwrap()
    }

    #[test]
    fn deltas_lead_from_one_document_to_the_next() {
        let fields = pipeline::roster_fields();
        let mut document =
            doc! { "_id": "a", "rv": 1_i64, "st": "live", "prov": [{ "k": "x", "m": "1" }, { "k": "y", "m": "2" }] };
        patch(&mut document, &fields, &update(doc! { "rv": 2_i64, "prov.1.m": "3", "q.1": 5_i64 }, &[], None));
        assert_eq!(
            document,
            doc! { "_id": "a", "rv": 2_i64, "st": "live", "prov": [{ "k": "x", "m": "1" }, { "k": "y", "m": "3" }] }
        );
        patch(&mut document, &fields, &update(doc! { "prov.2": { "k": "z" } }, &[], None));
        assert_eq!(document.get_array("prov").unwrap().len(), 3);
        patch(&mut document, &fields, &update(doc! { "prov.0": { "k": "w" } }, &[], Some(("prov", 1))));
        assert_eq!(document.get_array("prov").unwrap(), &vec![doc! { "k": "w" }.into()]);
        patch(&mut document, &fields, &update(doc! { "st": "dead" }, &["prov"], None));
        assert_eq!(document, doc! { "_id": "a", "rv": 2_i64, "st": "dead" });
        // What does not fit is left out, whatever it is.
        patch(
            &mut document,
            &fields,
            &update(doc! { "prov.7": 1, "st.x": 2, "prov.": 3 }, &["prov.9.k"], Some(("st", -1))),
        );
        assert_eq!(document, doc! { "_id": "a", "rv": 2_i64, "st": "dead" });
    }
}
