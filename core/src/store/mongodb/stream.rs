//! The stream of what concerns one session: a change stream on the locks, filtered on the server to grants and
//! requests to go that name the session's entries. Not to what an entry has taken by the short form (`qt`, see `quick`): its
//! answer tells it, or the next question after an answer that was lost.
//!
//! Invariant: after every (re)opening there is a [`Notice::Gap`], so whoever reads then what it waits for misses
//! nothing, whatever became of the old stream.
//!
//! The supervisor listens to a [`Feed`] and opens the next one; the receiver is what the caller reads. The supervisor
//! ends when the caller drops the stream or the store closes.

use std::sync::Arc;

use futures::{FutureExt, stream};
use mongodb::bson::{Document, doc};
use mongodb::change_stream::event::ResumeToken;
use tokio::sync::mpsc;

use super::Inner;
use super::codec::entries_of;
use super::errors::WATCH;
use super::feed::{self, Event, Feed, Opened, QUIET, WAITING};
use crate::error::Result;
use crate::protocol::claim::{ClaimKey, Entry};
use crate::protocol::session::SessionId;
use crate::store::{Notice, Notices};

/// Opens the stream. Fails if its first opening does; later ones are tried for ever.
pub(super) async fn open(inner: Arc<Inner>, id: SessionId) -> Result<Notices> {
    let first = watch(&inner, id, None).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let supervisor = Supervisor { inner: Arc::clone(&inner), id, token: None, notices: sender };
    inner.tasks.spawn(supervisor.run(first))?;
    Ok(Box::pin(stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|notice| (notice, receiver)))))
}

async fn watch(inner: &Inner, id: SessionId, after: Option<ResumeToken>) -> Result<Opened> {
    let locks = inner.locks.clone();
    let ours = entries_of(id);
    let pipeline = [doc! { "$match": { "$or": [
        { "updateDescription.updatedFields.own": ours.clone(), "updateDescription.updatedFields.qt": { "$exists": false } },
        { "fullDocument.own": ours.clone() },
        { "updateDescription.updatedFields.brk": ours.clone() },
        { "fullDocument.brk": ours },
    ] } }];
    let opening = async move { locks.watch().pipeline(pipeline).max_await_time(QUIET).resume_after(after).await };
    Opened::by(inner, inner.tasks.run(inner.limits.operation, WATCH, opening, &inner.locks_namespace())).await
}

struct Supervisor {
    inner: Arc<Inner>,
    id: SessionId,
    token: Option<ResumeToken>,
    notices: mpsc::Sender<Notice>,
}

impl Supervisor {
    async fn run(mut self, first: Opened) {
        let mut closing = self.inner.closing.subscribe();
        let caller_gone = self.notices.clone();
        tokio::select! {
            () = self.follow_for_ever(first) => {}
            () = caller_gone.closed() => {}
            // An error means that the store itself is gone.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    async fn follow_for_ever(&mut self, first: Opened) {
        let mut next = Some(first);
        loop {
            let opened = match next.take() {
                Some(opened) => opened,
                None => {
                    let (inner, id) = (self.inner.clone(), self.id);
                    let open = move |token| {
                        let inner = inner.clone();
                        async move { watch(&inner, id, token).await }.boxed()
                    };
                    feed::reopen(&self.inner, &mut self.token, "what concerns this client's locks", open).await
                }
            };
            // An error means that the caller is gone, which `run` sees too.
            if self.notices.send(Notice::Gap).await.is_err() || self.follow(opened).await.is_err() {
                return;
            }
        }
    }

    /// Forwards what one change stream shows, until it is given up.
    async fn follow(&mut self, opened: Opened) -> Result<(), mpsc::error::SendError<Notice>> {
        let Ok(mut feed) = Feed::start(&self.inner, opened) else { return Ok(()) };
        while let Some(event) = feed.next(&mut self.token).await {
            // Before anybody believes in a grant: what is read of claims from now on, on whatever primary, is not older.
            self.inner.saw(event.cluster_time);
            for notice in notices_of(&event) {
                self.notices.send(notice).await?;
            }
        }
        Ok(())
    }
}

/// What an event says to the session that it matched. An event that cannot be read says "look for yourself".
fn notices_of(event: &Event) -> Vec<Notice> {
    let fields = match (&event.update_description, &event.full_document) {
        (Some(update), _) => &update.updated_fields,
        (None, Some(document)) => document,
        // An event that ends the stream.
        (None, None) => return Vec::new(),
    };
    let Some(key) = event.document_key.as_ref().and_then(|key| key.get_str("_id").ok()) else {
        return vec![Notice::Gap];
    };
    let key = ClaimKey::new(key);
    let mut notices = Vec::new();
    if let Some((entry, token)) = named(fields, "own", "tok") {
        notices.push(Notice::Granted { key: key.clone(), entry, token });
    }
    if let Some((entry, token)) = named(fields, "brk", "brt") {
        notices.push(Notice::Breaking { key: key.clone(), entry, token });
    }
    if notices.is_empty() {
        tracing::warn!("the lock '{key}' in the store was changed by something else than this library");
        notices.push(Notice::Gap);
    }
    notices
}

fn named(fields: &Document, entry: &str, token: &str) -> Option<(Entry, i64)> {
    Some((fields.get_str(entry).ok()?.parse().ok()?, fields.get_i64(token).ok()?))
}
