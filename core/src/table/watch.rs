//! Watching a table: a snapshot in brackets, then changes, each acknowledged.
//!
//! The events' names and meaning are kube-runtime's: what was not shown between [`TableEvent::Init`] and
//! [`TableEvent::InitDone`] is not there any more. The bracket comes at the beginning (unless the watch begins at a
//! position) and again whenever the store no longer has the changes that are missing.
//!
//! A delivery that is not acknowledged comes again, after a growing pause, and nothing comes before it: so changes of
//! one document are never seen in another order, however often one fails.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bson::Document;
use tokio::sync::Notify;

use super::follow::{Follow, Version};
use super::given::Given;
use super::{Filter, Key, Position, Revision, Table};
use crate::client::Client;
use crate::driver::CancelToken;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::protocol::mirror::Event;
use crate::protocol::work_queue::Backoff;
use crate::time::Timestamp;

/// How to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Without a snapshot, from the change after this position on ([`Delivery::position`] of an earlier watch, or
    /// `position` of a write). If the store no longer has it, there is a snapshot after all. One that is still to
    /// come is `InvalidArgument` in memory and on SQLite; on MongoDB the watch waits for it.
    pub from: Option<Position>,
    /// Also show what a document was before a change, where the table keeps that: [`TableOptions::previous`], always in
    /// memory.
    ///
    /// [`TableOptions::previous`]: super::TableOptions::previous
    pub previous: bool,
}

/// What a watch shows.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TableEvent {
    /// A snapshot begins.
    Init,
    /// A document of the snapshot.
    InitApply {
        /// Its key.
        key: Key,
        /// The document.
        document: Document,
        /// Its state; none on MongoDB if only a part was read.
        revision: Option<Revision>,
    },
    /// The snapshot is complete.
    InitDone,
    /// A document was made or has changed, or matches the filter now.
    Apply {
        /// Its key.
        key: Key,
        /// The document: as of this change, or on MongoDB perhaps as of a later one.
        document: Document,
        /// What it was before, where that was asked for and is known.
        previous: Option<Document>,
        /// The state of `document`.
        revision: Option<Revision>,
    },
    /// A document was removed, or matches the filter no more.
    Delete {
        /// Its key.
        key: Key,
        /// What it was, where that was asked for and is known.
        previous: Option<Document>,
    },
}

/// A watch of a table. One delivery is out at a time. Dropping it ends it.
pub struct TableWatch {
    client: Client,
    follow: Arc<tokio::sync::Mutex<Follow>>,
    desk: Arc<Desk>,
    closed: CancelToken,
}

/// Where deliveries are handed out and come back to.
#[derive(Debug)]
struct Desk {
    env: Env,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each watch")]
enum State {
    /// The next event may be fetched.
    Free,
    /// A delivery is out.
    Out,
    /// An event is to be delivered again.
    Back { event: TableEvent, position: Position, failures: u32, due: Timestamp },
}

/// One event, to be acknowledged. Dropped without that, it comes again.
#[derive(Debug)]
pub struct Delivery {
    /// Taken when it is done.
    event: Option<TableEvent>,
    position: Position,
    failures: u32,
    desk: Arc<Desk>,
}

impl Table {
    /// Watches the documents that match. No I/O: the first [`TableWatch::next`] begins.
    ///
    /// # Errors
    /// `InvalidArgument` for the filter; `Closed`.
    pub fn watch(&self, filter: impl Given<Filter>, options: WatchOptions) -> Result<TableWatch> {
        let core = self.client().core();
        core.check_open()?;
        let follow = Follow::new(core.clone(), self.table_name().clone(), filter.given()?, options.from);
        let desk = Desk { env: core.setup().env.clone(), state: Mutex::new(State::Free), changed: Notify::new() };
        Ok(TableWatch {
            client: self.client().clone(),
            follow: Arc::new(tokio::sync::Mutex::new(follow.with_previous(options.previous))),
            desk: Arc::new(desk),
            closed: CancelToken::new(),
        })
    }
}

impl TableWatch {
    /// The next delivery; waits for it, through outages of the store, and until the last one is done. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// `Unsupported` if the store cannot watch, or not by this filter; `Forbidden`, `Unauthorized`; `Closed` when the
    /// watch or the client is closed.
    pub async fn next(&self) -> Result<Delivery> {
        let (follow, desk, closed) = (self.follow.clone(), self.desk.clone(), self.closed.clone());
        let core = self.client.core().clone();
        self.client
            .core()
            .drive(async move {
                core.check_open()?;
                tokio::select! {
                    biased;
                    () = closed.fired() => Err(Error::closed("the watch")),
                    () = core.closing() => Err(Error::closed("the client")),
                    delivery = deliver(&follow, &desk) => delivery,
                }
            })
            .await
    }

    /// Ends the watch: a wait for the next delivery ends with `Closed`. Closing twice is no error.
    pub fn close(&self) {
        self.closed.fire();
    }
}

async fn deliver(follow: &tokio::sync::Mutex<Follow>, desk: &Arc<Desk>) -> Result<Delivery> {
    // One at a time: the others wait here.
    let mut follow = follow.lock().await;
    loop {
        let changed = desk.changed.notified();
        match desk.again() {
            Again::Free => break,
            Again::Wait(None) => changed.await,
            Again::Wait(Some(due)) => desk.env.sleep_until(due).await,
            Again::Deliver(delivery) => return Ok(delivery),
        }
    }
    loop {
        if let Some(event) = follow.next().await? {
            *desk.lock() = State::Out;
            return Ok(Delivery {
                event: Some(shown(event)),
                position: follow.resume(),
                failures: 0,
                desk: desk.clone(),
            });
        }
    }
}

/// What is to be done before the next event is fetched.
#[allow(clippy::large_enum_variant, reason = "it is looked at and gone")]
enum Again {
    Free,
    Wait(Option<Timestamp>),
    Deliver(Delivery),
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn again(self: &Arc<Self>) -> Again {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Out) {
            State::Free => {
                *state = State::Free;
                Again::Free
            }
            State::Out => Again::Wait(None),
            State::Back { event, position, failures, due } if due > self.env.now() => {
                *state = State::Back { event, position, failures, due };
                Again::Wait(Some(due))
            }
            State::Back { event, position, failures, .. } => {
                Again::Deliver(Delivery { event: Some(event), position, failures, desk: self.clone() })
            }
        }
    }
}

impl Delivery {
    /// What has happened.
    pub fn event(&self) -> &TableEvent {
        // Only `done` takes it, and uses the delivery up.
        self.event.as_ref().unwrap_or(&TableEvent::Init)
    }

    /// Up to where everything has been told, with this event: a later watch may begin here, and misses nothing. That is the
    /// event's own place, or the one before while other changes of its place may follow: those of one transaction on
    /// MongoDB, and every change on MongoDB 6.1 or later. Those of its place come again then. Within a snapshot, the default.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How often this event was delivered before.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Says how it went: after an error the event comes again, after 5 ms at first and up to 1000 s.
    pub fn done(mut self, result: std::result::Result<(), String>) {
        match result {
            Ok(()) => {
                self.event = None;
                *self.desk.lock() = State::Free;
                self.desk.changed.notify_one();
            }
            Err(error) => tracing::warn!(%error, failures = self.failures, "a change was not taken; it comes again"),
        }
    }

    /// Says that it went well, and returns the event.
    pub fn take(mut self) -> TableEvent {
        let event = self.event.take().unwrap_or(TableEvent::Init);
        *self.desk.lock() = State::Free;
        self.desk.changed.notify_one();
        event
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(event) = self.event.take() else { return };
        let failures = self.failures.saturating_add(1);
        let due = self.desk.env.now() + Backoff::default().delay(failures, 0.0);
        *self.desk.lock() = State::Back { event, position: self.position, failures, due };
        self.desk.changed.notify_one();
    }
}

fn shown(event: Event<Key, Version>) -> TableEvent {
    match event {
        Event::Init => TableEvent::Init,
        Event::InitApply { key, value: Version { document, revision, .. } } => {
            TableEvent::InitApply { key, document, revision }
        }
        Event::InitDone => TableEvent::InitDone,
        Event::Apply { key, value: Version { document, previous, revision, .. } } => {
            TableEvent::Apply { key, document, previous, revision }
        }
        Event::Delete { key, value } => TableEvent::Delete { key, previous: value.map(|version| version.document) },
    }
}

impl fmt::Debug for TableWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWatch").field("client", &self.client).finish_non_exhaustive()
    }
}
