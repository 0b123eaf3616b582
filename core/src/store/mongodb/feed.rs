//! One change stream of the server, read by a task of its own and watched: what the stream of notices and that of changes
//! have in common.
//!
//! Invariants: a stream that is silent for longer than it promised is given up, and so is one of a server that is primary
//! no more: a cursor outlives its server's term, and where that server is cut off it has nothing to tell. Nothing of the
//! driver is interrupted half way, but for the store's closing; the place after the last event is always known, if there
//! is one.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use mongodb::bson::Document;
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, ResumeToken};
use tokio::sync::{mpsc, watch};

use super::Inner;
use super::connect::prepare;
use super::errors::history_is_lost;
use crate::error::{Code, Result};

/// A change stream of the driver.
pub(super) type Stream = ChangeStream<ChangeStreamEvent<Document>>;

/// An event of it.
pub(super) type Event = ChangeStreamEvent<Document>;

/// A change stream that was opened.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// Tells of the primaries after the one that it was opened on.
    pub(super) primary: watch::Receiver<Option<String>>,
}

impl Opened {
    /// Opens a change stream on the primary.
    pub(super) async fn by(inner: &Inner, opening: impl Future<Output = Result<Stream>>) -> Result<Self> {
        // From before it is opened: which of two primaries has it, nobody says.
        let primary = inner.next_primaries();
        Ok(Self { stream: opening.await?, primary })
    }
}

/// A running change stream.
pub(super) struct Feed {
    reports: mpsc::Receiver<Pumped>,
    primary: watch::Receiver<Option<String>>,
}

impl Feed {
    /// Starts to read.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) fn start(inner: &Inner, opened: Opened) -> Result<Self> {
        let (sender, reports) = mpsc::channel(1);
        spawn_pump(inner, pump(opened.stream, sender))?;
        Ok(Self { reports, primary: opened.primary })
    }

    /// The next event, with the place after it in `token`. None when this stream is over; the next can go on from
    /// `token`, if that is left.
    pub(super) async fn next(&mut self, token: &mut Option<ResumeToken>) -> Option<Event> {
        loop {
            let report = tokio::select! {
                report = tokio::time::timeout(SILENCE, self.reports.recv()) => report,
                // The driver would find its way by itself, if at all, and nobody would learn that there was an interruption.
                // An error means that the store is gone.
                _ = self.primary.changed() => return None,
            };
            let reached = match report {
                Ok(Some(Pumped::Event(event, reached))) => {
                    *token = reached.or_else(|| token.take());
                    return Some(*event);
                }
                Ok(Some(Pumped::Quiet(reached))) => reached,
                Ok(Some(Pumped::Over { resumable })) => {
                    if !resumable {
                        *token = None;
                    }
                    return None;
                }
                Ok(None) => return None,
                Err(_) => {
                    tracing::debug!("a change stream has been silent for {SILENCE:?}; opening another");
                    return None;
                }
            };
            *token = reached.or_else(|| token.take());
        }
    }
}

/// What a pump reports.
enum Pumped {
    /// An event, and the place after it.
    Event(Box<Event>, Option<ResumeToken>),
    /// Nothing has happened for a while; the place up to which this is known.
    Quiet(Option<ResumeToken>),
    /// The change stream is over, and whether the next can go on from the last place.
    Over { resumable: bool },
}

/// Runs what reads a change stream. It ends by itself when nobody listens any more and its request is answered, which takes
/// up to [`QUIET`]; only when the store closes, and its connections with it, it is ended at once.
pub(super) fn spawn_pump(inner: &Inner, pump: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let mut closing = inner.closing.subscribe();
    inner.tasks.spawn(async move {
        tokio::select! {
            () = pump => {}
            // An error means that the store itself is gone.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    })?;
    Ok(())
}

async fn pump(mut stream: Stream, out: mpsc::Sender<Pumped>) {
    loop {
        let report = match stream.next_if_any().await {
            Ok(Some(event)) => Pumped::Event(Box::new(event), stream.resume_token()),
            Ok(None) if stream.is_alive() => Pumped::Quiet(stream.resume_token()),
            // The collection was dropped or renamed: no stream goes on from there.
            Ok(None) => Pumped::Over { resumable: false },
            Err(error) => {
                tracing::debug!("a change stream ended: {error}");
                Pumped::Over { resumable: !history_is_lost(&error) }
            }
        };
        let over = matches!(report, Pumped::Over { .. });
        if out.send(report).await.is_err() || over {
            return;
        }
    }
}

/// Tries until it succeeds to open the next change stream, from the last known place if that is possible. `open` takes
/// that place; without one it finds a beginning of its own.
pub(super) async fn reopen<T>(
    inner: &Inner,
    token: &mut Option<ResumeToken>,
    what: &str,
    open: impl Fn(Option<ResumeToken>) -> BoxFuture<'static, Result<T>>,
) -> T {
    let mut pause = FIRST_PAUSE;
    loop {
        if token.is_none() {
            // The collections may have been dropped, with their indexes.
            let database = inner.locks.client().database(&inner.locks.namespace().db);
            if let Err(error) = prepare(&database, &inner.prefix, inner.limits, &inner.tasks).await {
                tracing::debug!("the collections cannot be checked: {error}");
            }
        }
        match open(token.clone()).await {
            Ok(opened) => return opened,
            Err(error) => {
                // Once per outage.
                if pause == FIRST_PAUSE {
                    tracing::warn!("{what} cannot be watched; trying until it can: {error}");
                }
                if error.code() != Code::Unavailable {
                    *token = None;
                }
            }
        }
        inner.env.sleep(inner.env.jittered(pause)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// How long the server waits for an event before it says that there is none.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// A stream from which nothing has come for this long, not even that there is nothing, is given up.
const SILENCE: Duration = Duration::from_secs(3);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How many messages may wait for a caller that is slow; then the server's history waits.
pub(super) const WAITING: usize = 1_024;
