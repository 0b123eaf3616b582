//! Watching a collection: a change stream that goes on from its last token, and says so when it cannot.
//!
//! Changes that were made as one have one place, the time of their entry in the oplog, and the stream does not say which
//! of them is the last. What was made in a transaction carries its number. In a replica set before MongoDB 6.1 everything
//! else is alone at its place. Later servers also put other writes into one entry (what a TTL index removes, batches of
//! inserts), and the shards of a cluster may each have an entry of one time; neither says so, and no change of theirs is
//! known to be the last of its place.
//!
//! Three parts, as for the locks: a *pump* owns one change stream and is never interrupted; the *supervisor* listens to
//! it, watches the time, and opens the next one; the receiver is what the caller reads. A token that the server has once
//! refused is not used again.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, OperationType, ResumeToken};
use mongodb::options::{FullDocumentBeforeChangeType, FullDocumentType, ReadPreference, SelectionCriteria};
use tokio::sync::mpsc;

use super::super::errors::history_is_lost;
use super::super::feed::{Opened, spawn_pump};
use super::{Table, WATCH, faults, no_previous, position_of, revision_of, source_of, timestamp_of, visible};
use crate::error::{Code, Result};
use crate::protocol::document::{Key, Position, RESERVED, WRITTEN_BY};
use crate::store::documents::{Change, Changes, Event, From, Operation, WatchOptions};
use crate::time::WallTime;

type Stream = ChangeStream<ChangeStreamEvent<Document>>;

/// From where the next change stream goes on.
#[derive(Clone, Debug)]
enum Place {
    /// After this place.
    After(Position),
    /// After what this token stands for.
    Token(ResumeToken),
}

impl Place {
    /// The time from which a stream is asked for that goes on from here.
    fn begins(&self) -> Option<Position> {
        match self {
            Self::After(place) => Some(Position(place.0 + 1)),
            Self::Token(token) => time_in(token),
        }
    }
}

/// Opens the stream. Fails if its first opening does; later ones are tried for as long as there is hope.
pub(super) async fn open(table: Table, options: WatchOptions) -> Result<Changes> {
    let (place, first, since) = match options.from {
        From::Now => {
            let now = table.position().await?;
            (now, Some(Event::Gap(now)), None)
        }
        // So that what has happened at the place comes (again): a transaction's changes have one place.
        From::After(place) => (place.before(), None, None),
        From::Time(time) => {
            let seconds = u64::try_from(time.0.max(0) / 1_000).unwrap_or(0);
            (Position(seconds << 32).before(), None, Some(time))
        }
    };
    let server = Server::of(&table).await?;
    let stream = watch(&table, options.previous, Place::After(place)).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let supervisor =
        Supervisor { previous: options.previous, server, since, place: Place::After(place), events: sender, table };
    let tasks = supervisor.table.inner.clone();
    tasks.tasks.spawn(supervisor.run(stream, first))?;
    let next = async |mut receiver: mpsc::Receiver<Result<Event>>| receiver.recv().await.map(|next| (next, receiver));
    Ok(Box::pin(futures::stream::unfold(receiver, next)))
}

/// What its answers mean depends on this.
#[derive(Clone, Copy)]
struct Server {
    sharded: bool,
    /// It may give several changes one place that were made in no transaction.
    groups: bool,
}

impl Server {
    async fn of(table: &Table) -> Result<Self> {
        let admin = table.documents.client().database("admin");
        let request = async move {
            let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
            admin.run_command(doc! { "hello": 1 }).selection_criteria(primary).await
        };
        let hello = table.run(table.inner.limits.operation, WATCH, request).await?;
        let sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let groups = sharded || !hello.get_i32("maxWireVersion").is_ok_and(|version| version <= MONGODB_6_0);
        Ok(Self { sharded, groups })
    }
}

async fn watch(table: &Table, previous: bool, place: Place) -> Result<Opened> {
    let documents = table.documents.clone();
    let request = async move {
        let mut watch = documents.watch().full_document(FullDocumentType::UpdateLookup).max_await_time(QUIET);
        if previous {
            watch = watch.full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable);
        }
        match place {
            Place::Token(token) => watch.resume_after(token).await,
            Place::After(place) => watch.start_at_operation_time(timestamp_of(Position(place.0 + 1))).await,
        }
    };
    match Opened::by(&table.inner, table.run(table.inner.limits.operation, WATCH, request)).await {
        Err(error) if error.code() == Code::InvalidArgument && previous => Err(no_previous()),
        opened => opened,
    }
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

async fn pump(mut changes: Stream, out: mpsc::Sender<Pumped>) {
    loop {
        let report = match changes.next_if_any().await {
            Ok(Some(event)) => Pumped::Event(Box::new(event), changes.resume_token()),
            Ok(None) if changes.is_alive() => Pumped::Quiet(changes.resume_token()),
            // The collection was dropped or renamed: no stream goes on from there.
            Ok(None) => Pumped::Over { resumable: false },
            Err(error) => {
                tracing::debug!("the change stream of a table ended: {error}");
                // What cannot be read would come again.
                let unreadable = matches!(*error.kind, mongodb::error::ErrorKind::Bson(_))
                    || faults::code_of(&error).is_some_and(|code| TOO_LARGE.contains(&code));
                Pumped::Over { resumable: !history_is_lost(&error) && !unreadable }
            }
        };
        let over = matches!(report, Pumped::Over { .. });
        if out.send(report).await.is_err() || over {
            return;
        }
    }
}

struct Supervisor {
    table: Table,
    previous: bool,
    server: Server,
    /// Nothing before this date is of interest.
    since: Option<WallTime>,
    place: Place,
    events: mpsc::Sender<Result<Event>>,
}

/// The caller is gone.
struct Gone;

impl Supervisor {
    async fn run(mut self, stream: Opened, first: Option<Event>) {
        let mut closing = self.table.inner.closing.subscribe();
        let caller_gone = self.events.clone();
        tokio::select! {
            _ = self.follow_for_ever(stream, first) => {}
            () = caller_gone.closed() => {}
            // An error means that the store itself is gone.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    async fn follow_for_ever(&mut self, stream: Opened, first: Option<Event>) -> std::result::Result<(), Gone> {
        if let Some(event) = first {
            self.tell(event).await?;
        }
        let mut stream = stream;
        loop {
            let resumable = self.follow(stream).await?;
            stream = self.reopen(resumable).await?;
        }
    }

    async fn tell(&self, event: Event) -> std::result::Result<(), Gone> {
        self.events.send(Ok(event)).await.map_err(|_| Gone)
    }

    /// Forwards what one change stream shows, until it ends or falls silent, or its server is primary no more: its cursor
    /// outlives that. Whether the next can go on from there.
    async fn follow(&mut self, opened: Opened) -> std::result::Result<bool, Gone> {
        let Opened { stream, mut primary } = opened;
        let asked = self.place.begins();
        let (sender, mut reports) = mpsc::channel(1);
        spawn_pump(&self.table.inner, pump(stream, sender)).map_err(|_| Gone)?;
        loop {
            let report = tokio::select! {
                report = tokio::time::timeout(SILENCE, reports.recv()) => report,
                // An error means that the store is gone.
                _ = primary.changed() => return Ok(true),
            };
            match report {
                Ok(Some(Pumped::Event(event, token))) => {
                    if let Some(event) = self.event_of(*event) {
                        self.tell(event).await?;
                    }
                    self.remember(token);
                }
                Ok(Some(Pumped::Quiet(token))) => {
                    let mark = token.as_ref().and_then(time_in);
                    self.remember(token);
                    if let Some(mark) = mark {
                        // Where it was asked for it has come to, and knows nothing of what is there. A later mark is that of
                        // an entry which its only server has read.
                        let passed = !self.server.sharded && asked.is_some_and(|asked| mark > asked);
                        self.tell(Event::Progress(if passed { mark } else { mark.before() })).await?;
                    }
                }
                Ok(Some(Pumped::Over { resumable })) => return Ok(resumable),
                Ok(None) => return Ok(true),
                Err(_) => {
                    tracing::debug!("the change stream of a table was silent for {SILENCE:?}; opening another");
                    return Ok(true);
                }
            }
        }
    }

    fn remember(&mut self, token: Option<ResumeToken>) {
        if let Some(token) = token {
            self.place = Place::Token(token);
        }
    }

    /// Opens the next change stream: from the last place, or from now on after a gap.
    async fn reopen(&mut self, mut resumable: bool) -> std::result::Result<Opened, Gone> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_reopen(resumable).await {
                Ok((stream, gap)) => {
                    if let Some(place) = gap {
                        self.since = None;
                        self.tell(Event::Gap(place)).await?;
                    }
                    return Ok(stream);
                }
                Err(error) if matches!(error.code(), Code::Closed) => return Err(Gone),
                Err(error) if matches!(error.code(), Code::Forbidden | Code::Unauthorized) => {
                    let _ = self.events.send(Err(error)).await;
                    return Err(Gone);
                }
                Err(error) => {
                    // Once per outage.
                    if pause == FIRST_PAUSE {
                        tracing::warn!(table = %self.table.name, "a table cannot be watched for now: {error}");
                    }
                    resumable &= error.code() == Code::Unavailable;
                }
            }
            self.table.inner.env.sleep(self.table.inner.env.jittered(pause)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn try_reopen(&mut self, resumable: bool) -> Result<(Opened, Option<Position>)> {
        self.server = Server::of(&self.table).await?;
        if resumable {
            return Ok((watch(&self.table, self.previous, self.place.clone()).await?, None));
        }
        let now = self.table.position().await?;
        self.place = Place::After(now);
        Ok((watch(&self.table, self.previous, self.place.clone()).await?, Some(now)))
    }

    fn event_of(&self, event: ChangeStreamEvent<Document>) -> Option<Event> {
        let position = position_of(event.cluster_time);
        let last = !self.server.groups && event.lsid.is_none() && event.txn_number.is_none();
        let operation = match event.operation_type {
            OperationType::Insert => Operation::Insert,
            OperationType::Update => Operation::Update,
            OperationType::Replace => Operation::Replace,
            OperationType::Delete => Operation::Delete,
            // The end of the collection, which ends the stream, too; or nothing about documents.
            _ => return None,
        };
        let seconds = (position.0 >> 32).cast_signed();
        let at = WallTime(event.wall_time.map_or(seconds * 1_000, |date| date.timestamp_millis()));
        if self.since.is_some_and(|since| at < since) {
            return None;
        }
        let key = Key::stored(event.document_key?.get("_id")?.clone());
        let (mut changed, mut source) = (Vec::new(), None);
        if let Some(update) = &event.update_description {
            let arrays = update.truncated_arrays.iter().flatten().map(|array| &array.field);
            changed = update.updated_fields.keys().chain(&update.removed_fields).chain(arrays).cloned().collect();
            changed.retain(|path| !RESERVED.contains(&path.split('.').next().unwrap_or(path)));
            changed.sort();
            changed.dedup();
            if update.updated_fields.contains_key(WRITTEN_BY) {
                source = source_of(&update.updated_fields);
            }
        } else if let Some(document) = &event.full_document {
            source = source_of(document);
        }
        if self.table.name.foreign().is_some() {
            source = None;
        }
        let document = event.full_document.map(visible).filter(|_| operation != Operation::Delete);
        Some(Event::Change(Box::new(Change {
            key,
            operation,
            revision: document.as_ref().map(revision_of),
            document,
            previous: event.full_document_before_change.map(visible),
            position,
            last,
            at,
            source,
            changed,
        })))
    }
}

/// The time in a token, which begins with a type and a timestamp, as the server writes its keys.
fn time_in(token: &ResumeToken) -> Option<Position> {
    const TIMESTAMP: &str = "82";
    let token = bson::serialize_to_document(token).ok()?;
    let data = token.get_str("_data").ok()?;
    let time = data.strip_prefix(TIMESTAMP)?.get(..16)?;
    u64::from_str_radix(time, 16).ok().map(Position)
}

/// The protocol that MongoDB 6.0 speaks.
const MONGODB_6_0: i32 = 17;

/// How long the server waits for an event before it says that there is none.
const QUIET: Duration = Duration::from_secs(1);

/// A stream from which nothing has come for this long, not even that there is nothing, is given up.
const SILENCE: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How many events may wait for a caller that is slow; then the server's history waits.
const AHEAD: usize = 256;

/// An event that is larger than any document may be.
const TOO_LARGE: [i32; 2] = [10_334, 17_419];
