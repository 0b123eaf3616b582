//! The stream of what concerns one session: a change stream on the locks, filtered on the server to grants and
//! requests to go that name the session's entries.
//!
//! Invariants: after every (re)opening there is a [`Notice::Gap`], so whoever reads then what it waits for misses
//! nothing, whatever became of the old stream; a stream that is silent for longer than it promised is replaced.
//!
//! Three parts: a *pump* owns one change stream and is never interrupted; the *supervisor* listens to it, watches
//! the time, and opens the next one; the receiver is what the caller reads. The supervisor ends when the caller
//! drops the stream or the store closes.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use mongodb::bson::{Document, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, ResumeToken};
use tokio::sync::mpsc;

use super::Inner;
use super::codec::entries_of;
use super::connect::prepare;
use super::errors::{WATCH, history_is_lost};
use crate::env::Task;
use crate::error::Result;
use crate::protocol::claim::{ClaimKey, Entry};
use crate::protocol::session::SessionId;
use crate::store::{Notice, Notices};

type Changes = ChangeStream<ChangeStreamEvent<Document>>;

/// Opens the stream. Fails if its first opening does; later ones are tried for ever.
pub(super) async fn open(inner: Arc<Inner>, id: SessionId) -> Result<Notices> {
    let changes = watch(&inner, id, None).await?;
    let (sender, receiver) = mpsc::channel(WAITING_NOTICES);
    let supervisor = Supervisor { inner: Arc::clone(&inner), id, token: None, notices: sender };
    inner.tasks.spawn(supervisor.run(changes))?;
    Ok(Box::pin(stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|notice| (notice, receiver)))))
}

async fn watch(inner: &Inner, id: SessionId, after: Option<ResumeToken>) -> Result<Changes> {
    let locks = inner.locks.clone();
    let ours = entries_of(id);
    let pipeline = [doc! { "$match": { "$or": [
        { "updateDescription.updatedFields.own": ours.clone() },
        { "fullDocument.own": ours.clone() },
        { "updateDescription.updatedFields.brk": ours.clone() },
        { "fullDocument.brk": ours },
    ] } }];
    let opening = async move { locks.watch().pipeline(pipeline).max_await_time(QUIET).resume_after(after).await };
    inner.tasks.run(inner.limits.operation, WATCH, opening, &inner.locks_namespace()).await
}

/// What a pump reports.
enum Pumped {
    /// An event, and the place after it.
    Event(Box<ChangeStreamEvent<Document>>, Option<ResumeToken>),
    /// Nothing has happened for a while; the place up to which this is known.
    Quiet(Option<ResumeToken>),
    /// The change stream is over, and whether the next can go on from the last place.
    Over { resumable: bool },
}

async fn pump(mut changes: Changes, out: mpsc::Sender<Pumped>) {
    loop {
        let report = match changes.next_if_any().await {
            Ok(Some(event)) => Pumped::Event(Box::new(event), changes.resume_token()),
            Ok(None) if changes.is_alive() => Pumped::Quiet(changes.resume_token()),
            // The collection was dropped or renamed: no stream goes on from there.
            Ok(None) => Pumped::Over { resumable: false },
            Err(error) => {
                tracing::debug!("the change stream of the locks ended: {error}");
                Pumped::Over { resumable: !history_is_lost(&error) }
            }
        };
        let over = matches!(report, Pumped::Over { .. });
        if out.send(report).await.is_err() || over {
            return;
        }
    }
}

struct Supervisor {
    inner: Arc<Inner>,
    id: SessionId,
    token: Option<ResumeToken>,
    notices: mpsc::Sender<Notice>,
}

impl Supervisor {
    async fn run(mut self, first: Changes) {
        let mut closing = self.inner.closing.subscribe();
        let caller_gone = self.notices.clone();
        tokio::select! {
            () = self.follow_for_ever(first) => {}
            () = caller_gone.closed() => {}
            // An error means that the store itself is gone.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    async fn follow_for_ever(&mut self, first: Changes) {
        let mut next = Some(first);
        loop {
            let changes = match next.take() {
                Some(changes) => changes,
                None => self.reopen().await,
            };
            // An error means that the caller is gone, which `run` sees too.
            if self.notices.send(Notice::Gap).await.is_err() || self.follow(changes).await.is_err() {
                return;
            }
        }
    }

    /// Forwards what one change stream shows, until it ends or falls silent.
    async fn follow(&mut self, changes: Changes) -> Result<(), mpsc::error::SendError<Notice>> {
        let (sender, mut reports) = mpsc::channel(1);
        let Ok(task) = self.inner.tasks.spawn(pump(changes, sender)) else { return Ok(()) };
        let _pump = Pump { task, inner: Arc::clone(&self.inner) };
        loop {
            match tokio::time::timeout(SILENCE, reports.recv()).await {
                Ok(Some(Pumped::Event(event, token))) => {
                    self.token = token.or_else(|| self.token.take());
                    for notice in notices_of(&event) {
                        self.notices.send(notice).await?;
                    }
                }
                Ok(Some(Pumped::Quiet(token))) => self.token = token.or_else(|| self.token.take()),
                Ok(Some(Pumped::Over { resumable })) => {
                    if !resumable {
                        self.token = None;
                    }
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(_) => {
                    tracing::debug!("the change stream of the locks has been silent for {SILENCE:?}; opening another");
                    return Ok(());
                }
            }
        }
    }

    /// Opens the next change stream, from the last known place if that is possible.
    async fn reopen(&mut self) -> Changes {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.token.is_none() {
                // The collection may have been dropped, with its indexes.
                let database = self.inner.locks.client().database(&self.inner.locks.namespace().db);
                if let Err(error) = prepare(&database, &self.inner.prefix, self.inner.limits, &self.inner.tasks).await {
                    tracing::debug!("the collections cannot be checked: {error}");
                }
            }
            match watch(&self.inner, self.id, self.token.clone()).await {
                Ok(changes) => return changes,
                Err(error) => {
                    // Once per outage.
                    if pause == FIRST_PAUSE {
                        tracing::warn!("the locks cannot be watched, waiting clients poll until they can: {error}");
                    }
                    if !matches!(error.code(), crate::error::Code::Unavailable) {
                        self.token = None;
                    }
                }
            }
            self.inner.env.sleep(self.inner.env.jittered(pause)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// A running pump. One that is left behind ends by itself when its request is answered; only when the store closes,
/// and its connections with it, it is ended at once.
struct Pump {
    task: Task,
    inner: Arc<Inner>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        if *self.inner.closing.borrow() {
            self.task.abort();
        }
    }
}

/// What an event says to the session that it matched. An event that cannot be read says "look for yourself".
fn notices_of(event: &ChangeStreamEvent<Document>) -> Vec<Notice> {
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

/// How long the server waits for an event before it says that there is none.
const QUIET: Duration = Duration::from_secs(1);

/// A stream from which nothing has come for this long, not even that there is nothing, is given up.
const SILENCE: Duration = Duration::from_secs(3);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How many notices may wait for a caller that is slow; then the server's history waits.
const WAITING_NOTICES: usize = 1_024;
