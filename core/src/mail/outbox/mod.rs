//! The outbox: mails in the store, which any replica sends.
//!
//! [`Outbox::enqueue`] writes a mail in one write, once per key. [`Outbox::start`] sends: a sender claims as many mails as
//! it can send at once, in the name of its session, and writes down that it sends *before* the final dot and what became
//! of it *after* the server's reply. A sender that dies leaves mails that were certainly not sent, which others send, and
//! those in doubt (one per connection), of which [`OnDoubt`] says what happens to them. Every copy of a mail
//! has the same Message-ID; what is enqueued again after a purge is another mail, unless its message sets that itself.
//!
//! **A second copy can occur exactly when** the server had taken the first one, and
//! - (a) the sender, or its session, died before the store had acknowledged its record of that; or
//! - (b) the connection was lost, or timed out, between the final dot and its reply; or
//! - (c) the sender was stopped between its last check and the dot for longer than the rest of its lease; or
//! - (d) the store was restored to an earlier state, the key was purged and enqueued again, or a person retried.
//!
//! With [`OnDoubt::Park`], (a), (b) and (c) park the mail instead.
//!
//! Dates say only when a mail is due, expires or is purged, and are the store's, whatever the replicas' clocks say; they
//! decide nothing about who sends.

mod claim;
mod options;
mod rate;
mod record;
mod sender;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Mutex, Notify};

pub use options::{OnDoubt, OutboxOptions, Rate};
pub use record::{Mail, MailState};
pub use sender::Senders;

use super::{Mailer, Message};
use crate::client::{Client, Core};
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::name::Name;
use crate::protocol::document::{Action, Filter, Key, Projection, Sort, TableName, Update, Write};
use crate::store::Store;
use crate::store::documents::{Changes, Documents, Event, ManyAction, Query, WatchOptions, WriteMany};
use record::{CLAIMED, QUEUED, Record, id_of};

/// The table that all outboxes of a store share.
const TABLE: &str = "outbox";

/// A mail that does not fit into a record of the store with some room to spare.
const MAX_MAIL: usize = 15 << 20;

/// Mails on their way. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    client: Client,
    inner: Arc<Inner>,
}

/// What senders share with the outbox; it does not keep the client open.
struct Inner {
    core: Arc<Core>,
    name: Name,
    table: TableName,
    mailer: Mailer,
    options: OutboxOptions,
    /// A mail was enqueued here.
    news: Notify,
    full: rate::Full,
}

/// How a mail is to be enqueued.
#[derive(Clone, Debug, Default)]
pub struct EnqueueOptions {
    /// What makes it the same mail: a second one with this key is not accepted. Without one each is another.
    pub key: Option<String>,
    /// Not to be sent before, in milliseconds since 1970.
    pub not_before_ms: Option<i64>,
    /// Not to be sent after, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// A mail that is in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enqueued {
    /// The mail's id.
    pub id: String,
    /// Whether this call has put it there; false if there was one with its key.
    pub new: bool,
}

/// How many mails are in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxStats(pub Vec<(MailState, u64)>);

impl OutboxStats {
    /// How many are in this state.
    pub fn of(&self, state: MailState) -> u64 {
        self.0.iter().find(|(one, _)| *one == state).map_or(0, |(_, count)| *count)
    }

    /// The same as JSON: an object of numbers by state.
    pub fn to_json(&self) -> String {
        let fields: serde_json::Map<_, _> =
            self.0.iter().map(|(state, count)| (state.name().to_owned(), (*count).into())).collect();
        serde_json::Value::Object(fields).to_string()
    }
}

impl Client {
    /// The outbox of this name, whose mails go through this mailer. No I/O: nothing is sent before [`Outbox::start`].
    ///
    /// # Errors
    /// `InvalidArgument` for the name; `Unsupported` if the store keeps no documents; `Closed`.
    pub fn outbox(&self, name: &str, mailer: &Mailer, options: OutboxOptions) -> Result<Outbox> {
        self.core().check_open()?;
        documents(self.core())?;
        let inner = Inner {
            core: self.core().clone(),
            name: self.name(name)?,
            table: TableName::parse(TABLE)?,
            mailer: mailer.clone(),
            options,
            news: Notify::new(),
            full: rate::Full::default(),
        };
        Ok(Outbox { client: self.clone(), inner: Arc::new(inner) })
    }
}

fn documents(core: &Core) -> Result<&dyn Documents> {
    let unsupported = || Error::new(Code::Unsupported, "the store keeps no documents, and so no outbox");
    core.setup().store.documents().ok_or_else(unsupported)
}

impl Outbox {
    /// Its full name.
    pub fn name(&self) -> &Name {
        &self.inner.name
    }

    /// Its client, which it keeps open.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Puts a mail into the outbox, in one write, if there is none with its key. The message is checked as by
    /// [`Mailer::send`], its files are read, and it gets its date and Message-ID.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field; `OutcomeUnknown` when the store went away: enqueue it again with the same
    /// key. Those of the store.
    pub async fn enqueue(&self, message: &Message, options: EnqueueOptions) -> Result<Enqueued> {
        let (inner, message) = (self.inner.clone(), message.clone());
        self.inner.core.drive(async move { inner.enqueue(message, options).await }).await
    }

    /// The mail with this id; none if there is none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, id: &str) -> Result<Option<Mail>> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        self.inner.core.drive(async move { Ok(inner.read(&inner.document_id(&id)).await?.map(|one| one.mail)) }).await
    }

    /// Mails in this state (none: in any), oldest first, at most so many.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, state: Option<MailState>, limit: u64) -> Result<Vec<Mail>> {
        let inner = self.inner.clone();
        self.inner
            .core
            .drive(async move {
                let mut filter = doc! { "box": inner.name.as_str() };
                if let Some(state) = state {
                    filter.insert("st", doc! { "$in": state.stored() });
                }
                let found = inner.find(filter, doc! { "at": 1, "_id": 1 }, limit, Part::State).await?;
                Ok(found.into_iter().map(|record| record.mail).collect())
            })
            .await
    }

    /// How many mails are in each state.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn stats(&self) -> Result<OutboxStats> {
        let inner = self.inner.clone();
        self.inner
            .core
            .drive(async move {
                let mut counts = Vec::new();
                for state in MailState::ALL {
                    let filter = doc! { "box": inner.name.as_str(), "st": { "$in": state.stored() } };
                    counts.push((state, inner.documents()?.count(&inner.table, Filter::parse(filter)?).await?));
                }
                Ok(OutboxStats(counts))
            })
            .await
    }

    /// Sends a mail (again) that has failed, is parked or waits for its time: at once, with all its attempts. Of a mail
    /// with several recipients, to those who have not accepted it, also where they were refused it for good. A second copy
    /// can come of it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is being sent, was sent, expired or was cancelled; those of the store.
    pub async fn retry(&self, id: &str) -> Result<()> {
        let inner = self.inner.clone();
        let update = doc! { "$set": {
            "st": QUEUED, "att": 0_i64, "due": self.date().await?, "done": 0_i64, "again": true,
            "last": "retried by a person",
        } };
        let states = [MailState::Failed.name(), MailState::Parked.name(), QUEUED];
        self.change(id, &states, update).await?;
        inner.news.notify_one();
        Ok(())
    }

    /// Takes back a mail that is not being sent: it stays, so that its key stays used, until it is purged.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is being sent, or has come to its end; those of the store.
    pub async fn cancel(&self, id: &str) -> Result<()> {
        let update = doc! { "$set": {
            "st": MailState::Cancelled.name(), "done": self.date().await?, "msg": "", "last": "cancelled by a person"
        } };
        self.change(id, &[QUEUED, MailState::Parked.name()], update).await
    }

    async fn date(&self) -> Result<i64> {
        let inner = self.inner.clone();
        self.inner.core.drive(async move { inner.now().await }).await
    }

    async fn change(&self, id: &str, states: &[&str], update: Document) -> Result<()> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        let states: Vec<String> = states.iter().map(|&state| state.to_owned()).collect();
        self.inner
            .core
            .drive(async move {
                let document_id = inner.document_id(&id);
                if inner.update(doc! { "_id": &document_id, "st": { "$in": states } }, update).await? > 0 {
                    return Ok(());
                }
                Err(match inner.read(&document_id).await? {
                    None => Error::new(Code::NotFound, format!("there is no mail '{id}' in the outbox")),
                    Some(record) => {
                        let state =
                            if record.stored_state == CLAIMED { "chosen to be sent" } else { record.mail.state.name() };
                        Error::new(Code::Conflict, format!("the mail is {state}, and this cannot be done to it now"))
                    }
                })
            })
            .await
    }

    /// Removes mails that came to their end (sent, failed, expired, cancelled) so long ago; returns how many. After that
    /// their keys are accepted again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn purge(&self, older_than: Duration) -> Result<u64> {
        let inner = self.inner.clone();
        self.inner
            .core
            .drive(async move {
                let finals: Vec<_> =
                    MailState::ALL.into_iter().filter(|state| state.is_final()).map(MailState::name).collect();
                let before =
                    inner.now().await?.saturating_sub(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX));
                let filter = doc! { "box": inner.name.as_str(), "st": { "$in": finals }, "done": { "$lte": before } };
                let write =
                    WriteMany { filter: Filter::parse(filter)?, action: ManyAction::Delete, fence: None, source: None };
                Ok(inner.documents()?.write_many(&inner.table, write).await?.count)
            })
            .await
    }

    /// Tells of every change of every mail, by whatever process. No I/O: it begins with the first [`OutboxWatch::next`].
    pub fn watch(&self) -> OutboxWatch {
        OutboxWatch { outbox: self.clone(), changes: Arc::default() }
    }

    /// Starts to send, up to so many mails at a time; the mailer's `pool` bounds the connections as well. Other replicas
    /// may do the same: each mail is sent by one of them.
    ///
    /// # Errors
    /// `InvalidArgument` for a number that is not from 1 to 32; `Closed`, also if the mailer is.
    pub fn start(&self, senders: usize) -> Result<Senders> {
        self.inner.core.check_open()?;
        self.inner.mailer.check_open()?;
        if !(1..=sender::MOST).contains(&senders) {
            return Err(Error::invalid(format!("senders: an outbox has 1 to {} of them", sender::MOST)));
        }
        Ok(Senders::start(self.clone(), self.inner.clone(), senders))
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbox({})", self.inner.name)
    }
}

/// What happens in an outbox.
pub struct OutboxWatch {
    outbox: Outbox,
    changes: Arc<Mutex<Watching>>,
}

/// How far a watch is. A call that is given up early leaves the rest to the next: one that began anew each time would never
/// be ready.
#[derive(Default)]
enum Watching {
    /// Before the first call, and after an error.
    #[default]
    Closed,
    Opening(BoxFuture<'static, Result<Changes>>),
    Open(Changes),
}

/// A change in an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxEvent {
    /// Changes may be missing before this: list what is there. The first event of every watch.
    Gap,
    /// A mail is new, or has changed.
    Mail(Box<Mail>),
    /// A mail was purged.
    Purged {
        /// Its id.
        id: String,
    },
}

impl OutboxEvent {
    /// The event as JSON: `{"event": "gap"}`, `{"event": "mail", "mail": {…}}` or `{"event": "purged", "id": …}`.
    pub fn to_json(&self) -> String {
        match self {
            Self::Gap => serde_json::json!({"event": "gap"}),
            Self::Mail(mail) => serde_json::json!({"event": "mail", "mail": mail.to_value()}),
            Self::Purged { id } => serde_json::json!({"event": "purged", "id": id}),
        }
        .to_string()
    }
}

impl OutboxWatch {
    /// Waits for the next change. After an error the next call begins anew, with a gap.
    ///
    /// # Errors
    /// `Closed` when the client is closed; those of the store.
    pub async fn next(&self) -> Result<OutboxEvent> {
        let (inner, changes) = (self.outbox.inner.clone(), self.changes.clone());
        self.outbox
            .inner
            .core
            .drive(async move {
                inner.core.check_open()?;
                let next = async {
                    let mut changes = changes.lock().await;
                    let event = inner.next_event(&mut changes).await;
                    if event.is_err() {
                        *changes = Watching::Closed;
                    }
                    event
                };
                // The store's stream need not end with the client: other sessions may use the store on.
                tokio::select! {
                    biased;
                    () = inner.core.closing() => Err(Error::closed("the client")),
                    event = next => event,
                }
            })
            .await
    }

    /// The outbox that is watched.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl fmt::Debug for OutboxWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboxWatch({})", self.outbox.inner.name)
    }
}

impl Inner {
    fn documents(&self) -> Result<&dyn Documents> {
        self.core.check_open()?;
        documents(&self.core)
    }

    /// The store's date, so that replicas agree whose clocks differ: our own never gets into a record.
    async fn now(&self) -> Result<i64> {
        Ok(self.documents()?.date().await?.0)
    }

    fn document_id(&self, id: &str) -> String {
        format!("{}/{id}", self.name)
    }

    async fn next_event(self: &Arc<Self>, watching: &mut Watching) -> Result<OutboxEvent> {
        let mine = format!("{}/", self.name);
        loop {
            self.core.check_open()?;
            let changes = match watching {
                Watching::Closed => {
                    let inner = self.clone();
                    let opening =
                        async move { inner.documents()?.watch(&inner.table, WatchOptions::default()).await }.boxed();
                    *watching = Watching::Opening(opening);
                    continue;
                }
                Watching::Opening(opening) => {
                    *watching = Watching::Open(opening.await?);
                    continue;
                }
                Watching::Open(changes) => changes,
            };
            let change = match changes.next().await {
                None => return Err(Error::closed("the watch of the outbox")),
                Some(Err(error)) => return Err(error),
                Some(Ok(Event::Gap(_))) => return Ok(OutboxEvent::Gap),
                Some(Ok(Event::Progress(_))) => continue,
                Some(Ok(Event::Change(change))) => change,
            };
            let Some(id) = change.key.value().as_str().and_then(|id| id.strip_prefix(&mine)) else { continue };
            return Ok(match &change.document {
                Some(document) => OutboxEvent::Mail(Box::new(Record::read(document)?.mail)),
                None => OutboxEvent::Purged { id: id.to_owned() },
            });
        }
    }

    /// A text that nobody else has.
    fn stamp(&self) -> String {
        self.core.setup().env.session_id().to_string()
    }

    async fn enqueue(&self, message: Message, options: EnqueueOptions) -> Result<Enqueued> {
        let key = options.key.unwrap_or_else(|| self.stamp());
        if key.is_empty() || key.len() > MAX_MAIL_KEY {
            return Err(Error::invalid(format!("key: it has 1 to {MAX_MAIL_KEY} bytes")));
        }
        let now = self.now().await?;
        if options.expires_ms.is_some_and(|expires| expires <= options.not_before_ms.unwrap_or(now).max(now)) {
            return Err(Error::invalid("expires: it lies before the mail may be sent"));
        }
        let (message_id, text) = self.mailer.complete(message).await?;
        if text.len() > MAX_MAIL {
            return Err(Error::invalid(format!(
                "message: it has {} bytes with its attachments, and an outbox keeps at most {MAX_MAIL}",
                text.len()
            )));
        }
        let (id, stamp) = (id_of(&key), self.stamp());
        let document_id = self.document_id(&id);
        let document = doc! {
            "box": self.name.as_str(),
            "key": &key,
            "st": QUEUED,
            "mid": message_id,
            "at": now,
            "due": options.not_before_ms.unwrap_or(now),
            "exp": options.expires_ms.unwrap_or(0),
            "done": 0_i64,
            "att": 0_i64,
            "maybe": false,
            "msg": text,
            "by": "",
            "sid": "",
            "born": &stamp,
        };
        // Whether a try may have put it there although its answer was none.
        let (mut left, mut in_doubt) = (ENQUEUE_TRIES, false);
        loop {
            left -= 1;
            let error = match self.insert(&document_id, &document, &stamp).await {
                Ok(new) => {
                    if new {
                        self.news.notify_one();
                    }
                    return Ok(Enqueued { id, new });
                }
                Err(error) => error,
            };
            let again = error.ambiguous();
            in_doubt |= again;
            // A later refusal says nothing about an earlier try.
            if !in_doubt {
                return Err(error);
            }
            if !again || left == 0 {
                let message = format!("whether the mail is in the outbox is not known; enqueue it again: {error}");
                return Err(Error::with_source(Code::OutcomeUnknown, message, error));
            }
            self.core.setup().env.sleep(PAUSE).await;
        }
    }

    /// Writes a new mail; false if there is another one with its key.
    async fn insert(&self, document_id: &str, document: &Document, stamp: &str) -> Result<bool> {
        let write = Write::new(Key::new(document_id)?, Action::Insert(document.clone())).prepared()?;
        failpoints::at(Point::MailEnqueue);
        let written = self.documents()?.write(&self.table, write).await;
        failpoints::at(Point::MailEnqueued);
        match written {
            Ok(_) => return Ok(true),
            Err(error) if error.code() != Code::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        // There is one with this key: perhaps this very one, by a write whose answer was lost. Only what is found counts:
        // what stands in the way may not be acknowledged, and be gone when another server takes over.
        match self.read_document(document_id).await? {
            Some(found) => Ok(found.get_str("born").is_ok_and(|born| born == stamp)),
            None => Err(Error::unavailable("there is a mail with this key, which the store has not acknowledged")),
        }
    }

    /// All of a mail but its message.
    async fn read_document(&self, document_id: &str) -> Result<Option<Document>> {
        let query = Query {
            filter: Filter::key(&Key::new(document_id)?),
            limit: Some(1),
            projection: Part::State.projection()?,
            ..Query::default()
        };
        let mut found = self.documents()?.find(&self.table, query).await?;
        Ok(found.next().await.transpose()?.map(|stored| stored.document))
    }

    async fn read(&self, document_id: &str) -> Result<Option<Record>> {
        self.read_document(document_id).await?.as_ref().map(Record::read).transpose()
    }

    async fn find(&self, filter: Document, sort: Document, limit: u64, part: Part) -> Result<Vec<Record>> {
        let query = Query {
            filter: Filter::parse(filter)?,
            sort: Some(Sort::parse(sort)?),
            limit: Some(limit),
            projection: part.projection()?,
            ..Query::default()
        };
        let mut found = self.documents()?.find(&self.table, query).await?;
        let mut records = Vec::new();
        while let Some(stored) = found.next().await {
            records.push(Record::read(&stored?.document)?);
        }
        Ok(records)
    }

    /// Changes every record that matches, each atomically; returns how many did.
    async fn update(&self, filter: Document, update: Document) -> Result<u64> {
        let write = WriteMany {
            filter: Filter::parse(filter)?,
            action: ManyAction::Update(Update::parse(update)?),
            fence: None,
            source: None,
        };
        Ok(self.documents()?.write_many(&self.table, write).await?.count)
    }

    /// The states in which a mail belongs to a sender.
    fn with_a_sender() -> Vec<&'static str> {
        vec![CLAIMED, record::SENDING]
    }
}

/// What to read of mails: a message may have megabytes, and only who sends it needs it.
#[derive(Clone, Copy)]
enum Part {
    State,
    Whole,
}

impl Part {
    fn projection(self) -> Result<Option<Projection>> {
        match self {
            Self::State => Projection::parse(doc! { "msg": 0 }).map(Some),
            Self::Whole => Ok(None),
        }
    }
}

const MAX_MAIL_KEY: usize = 1_024;
/// How often a write is sent again whose answer was lost.
const ENQUEUE_TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
