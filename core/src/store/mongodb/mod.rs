//! The store in a MongoDB replica set: many processes on many hosts.
//!
//! Two collections in the URI's database (`coord` if it names none):
//!
//! | collection | `_id` | fields | indexes |
//! |---|---|---|---|
//! | `<prefix>sessions` | session id | `st` live or dead, `n` nonce, `ttl` ms, `seen`, `died`, `clean`, `info`, `opened`, `prov` what it provides, `rv` its changes, `tx` driver sessions | `died` (removed after 24 h), `st` |
//! | `<prefix>locks` | key of the claim | `own` holder, `q` waiters, `tok` token, `at` date of the grant, `val` value, `brk` and `brt` the holder asked to go and its token, `qt` the token of the last grant by the short form | `own`, `q`, `at` |
//!
//! Invariants:
//! - a step is one `findAndModify` (see `pipeline`), acknowledged by a majority with its journal, or it is an error; where a
//!   short form of it was tried in vain (see `quick`), it is the second write;
//! - reads are of what a majority has, from the primary; those of claims see every write that was acknowledged to
//!   this store, what its notices told and what it has read, also after a failover;
//! - no request is interrupted half way, and none is waited for longer than its limit (see `tasks`);
//! - an acquire cannot be applied after its own cancel (see `lanes` and `quick`);
//! - what a process that has died was about to write to a table ends with its session (see `transactions`).
//!
//! Deliberately absent: transactions (a hot document would suffer, and one document holds all that a step needs),
//! server clocks that decide anything, `exp` in a session (it follows from `seen` and `ttl`).
//!
//! Needs MongoDB 4.4 or later as a replica set, 5.0 for the stream of changes; one member will do. A sharded cluster works as long as the two
//! collections are not sharded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::{BoxFuture, FutureExt};
use mongodb::bson::{DateTime, Document, Timestamp, doc};
use mongodb::options::{ReadConcern, ReturnDocument};
use mongodb::{ClientSession, Collection};
use tokio::sync::watch;

use self::errors::Doing;
use self::lanes::{Lanes, Slot};
use self::pipeline::Write;
use self::quick::Memory;
use self::tasks::{Limits, Tasks};
use self::transactions::{NAMED, Transactions};
use super::changes::{Changes, Interest};
use super::documents::Documents;
use super::{Applied, Capabilities, ClaimQuery, Notices, SessionQuery, Store};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep, Vitality};

mod changes;
mod codec;
mod connect;
mod documents;
mod errors;
mod feed;
mod lanes;
mod pipeline;
mod quick;
mod stream;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod transactions;

/// One user of a replica set.
pub struct MongoStore(Arc<Inner>);

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoStore({})", self.0.locks_namespace())
    }
}

/// What the requests of a store share.
struct Inner {
    sessions: Collection<Document>,
    /// The same collection, through connections that nothing else uses.
    own_session: Collection<Document>,
    locks: Collection<Document>,
    prefix: String,
    limits: Limits,
    collect_margin_ms: i64,
    env: Env,
    tasks: Tasks,
    lanes: Lanes,
    memory: Memory,
    transactions: Transactions,
    /// The highest operation time that the server has told us, as one number.
    seen: AtomicU64,
    closing: watch::Sender<bool>,
    /// The address of the primary that was found last: another one after a failover.
    primary: watch::Receiver<Option<String>>,
    tombstones_made: tokio::sync::OnceCell<()>,
    date: documents::KnownDate,
    long_readings: documents::LongReadings,
}

impl MongoStore {
    /// Connects to the replica set of this URI, and creates what is missing of the collections, whose names begin
    /// with `prefix`. Uses at most `pool` connections per server, and a few more for renewals.
    ///
    /// # Errors
    /// `InvalidArgument` for a URI that is wrong, `Unsupported` for a server that stands alone or is too old,
    /// `Unauthorized` for credentials or a certificate that are not accepted, `Forbidden` that names the missing
    /// right, `Unavailable` when no server answers within 2 s, or none is primary within a third of the ttl.
    pub async fn open(uri: &str, prefix: &str, pool: u32, ttl: Duration, env: Env) -> Result<Self> {
        if ttl < SAFE_TTL {
            tracing::warn!(
                "a ttl of {:.1} s is short for MongoDB: electing a new primary takes 11 s in a replica set with default \
                 settings, and every hold is lost when that takes longer than the ttl",
                ttl.as_secs_f64()
            );
        }
        let limits = Limits::of(ttl);
        let tasks = Tasks::new(env.clone());
        let connection = connect::connect(uri, prefix, pool, limits, &env, &tasks).await?;
        Ok(Self(Arc::new(Inner {
            sessions: connection.main.collection(&format!("{prefix}sessions")),
            own_session: connection.renewals.collection(&format!("{prefix}sessions")),
            locks: connection.main.collection(&format!("{prefix}locks")),
            prefix: prefix.to_owned(),
            limits,
            collect_margin_ms: if connection.sharded { COLLECT_MARGIN_SHARDED_MS } else { COLLECT_MARGIN_MS },
            env,
            tasks,
            lanes: Lanes::default(),
            memory: Memory::default(),
            transactions: Transactions::default(),
            seen: AtomicU64::new(0),
            closing: watch::Sender::new(false),
            primary: connection.primary,
            tombstones_made: tokio::sync::OnceCell::new(),
            date: documents::KnownDate::default(),
            long_readings: documents::LongReadings::default(),
        })))
    }
}

impl Inner {
    fn locks_namespace(&self) -> String {
        self.locks.namespace().to_string()
    }

    /// Tells of the primaries after the present one.
    fn next_primaries(&self) -> watch::Receiver<Option<String>> {
        let mut primary = self.primary.clone();
        primary.mark_unchanged();
        primary
    }

    fn saw(&self, operation: Option<Timestamp>) {
        if let Some(Timestamp { time, increment }) = operation {
            self.seen.fetch_max(u64::from(time) << 32 | u64::from(increment), Ordering::Relaxed);
        }
    }

    fn highest_seen(&self) -> Option<Timestamp> {
        let seen = self.seen.load(Ordering::Relaxed);
        (seen > 0).then_some(Timestamp { time: (seen >> 32) as u32, increment: seen as u32 })
    }

    async fn step_session(self: &Arc<Self>, id: SessionId, step: SessionStep) -> Result<Option<SessionRecord>> {
        let (collection, limit) = match step {
            SessionStep::Kill(_) | SessionStep::Provide { .. } | SessionStep::Withdraw { .. } => {
                (&self.sessions, self.limits.operation)
            }
            SessionStep::Renew { .. } => (&self.own_session, self.limits.renewal),
            SessionStep::Open { .. } | SessionStep::Close => (&self.own_session, self.limits.operation),
        };
        let mut fields = pipeline::session_fields();
        let kill = matches!(step, SessionStep::Kill(_));
        if kill {
            fields.insert(NAMED, 1);
        }
        if matches!(step, SessionStep::Close) {
            self.transactions.ended(id);
        }
        let this = Arc::clone(self);
        let request = write(collection.clone(), pipeline::session(id, &step), fields, limit, None);
        let request = async move {
            let after = request.await?;
            failpoints::at(Point::MongoSessionWritten);
            if let Some(dead) = after.as_ref().filter(|after| kill && matches!(after.get_str("st"), Ok("dead"))) {
                this.end_transactions_of(dead).await;
            }
            Ok(after)
        };
        let after = self.tasks.run(limit, CHANGE_SESSION, request, &self.sessions.namespace().to_string()).await?;
        let after = after.as_ref().map(codec::session).transpose()?;
        let live = after.as_ref().is_some_and(|after| after.vitality == Vitality::Live);
        match step {
            SessionStep::Open { .. } if live => self.transactions.opened(id),
            SessionStep::Renew { .. } | SessionStep::Kill(_) if !live => self.transactions.ended(id),
            _ => {}
        }
        Ok(after)
    }

    async fn step_claim(self: &Arc<Self>, key: ClaimKey, step: ClaimStep) -> Result<Applied> {
        let this = Arc::clone(self);
        let request = async move {
            let lane = this.lanes.enter(&step, this.env.now());
            let mut slot = lane.lock().await;
            let written = this.write_claim(&key, &step, &mut slot).await;
            this.saw(slot.operation_time());
            if written.is_ok() {
                this.lanes.leave(&step, &lane);
            } else {
                // Its cancel does not wait for this.
                drop(slot);
                this.end_transactions_in_the_way_of(&step).await;
            }
            written
        };
        self.tasks.run(self.limits.operation, CHANGE_CLAIM, request, &self.locks_namespace()).await?
    }

    /// The step in its short form where that is promising, and in its whole form unless the short one has applied.
    async fn write_claim(
        &self,
        key: &ClaimKey,
        step: &ClaimStep,
        slot: &mut Slot,
    ) -> mongodb::error::Result<Result<Applied>> {
        let added = if let ClaimStep::Step(step) = step { step.add } else { None };
        if let (None, Some(last)) = (added, slot.unanswered) {
            self.write_once(slot, |collection| quick::void(collection, key, last)).await?;
        }
        let suggested = if slot.unanswered.is_none() { self.memory.suggest(key, step, self.env.now()) } else { None };
        let mut unknown = None;
        if let Some(form) = suggested {
            if let quick::Form::Take { last, .. } = form {
                slot.unanswered = Some(last);
            }
            match self.write_once(slot, |collection| form.command(collection, key)).await {
                Ok(answer) => {
                    failpoints::at(Point::MongoClaimTaken);
                    slot.unanswered = None;
                    if let Some(view) = form.view(&answer) {
                        self.memory.learn(key, step, Some(&view), self.env.now());
                        return Ok(Ok(Some(view)));
                    }
                }
                Err(error) => {
                    tracing::debug!(claim = %key, %error, "changing a claim by the whole step after an unknown outcome");
                    unknown = Some(error);
                }
            }
            self.memory.was_wrong(key);
        }
        let after = write(
            self.locks.clone(),
            pipeline::claim(key, step, self.collect_margin_ms),
            pipeline::view_of(added),
            self.limits.operation,
            Some(slot.session(self.locks.client()).await?),
        )
        .await?;
        failpoints::at(Point::MongoClaimWritten);
        // Whatever it found, the claim is no longer free with the token that was asked for.
        slot.unanswered = None;
        let view = after.as_ref().map(|after| codec::view(after, added.as_ref())).transpose();
        match (unknown, &view) {
            // Given up a moment ago, or never held: whoever asked cannot be told which, and asks again.
            (Some(error), Ok(None)) if added.is_none() => return Err(error),
            (_, Ok(view)) => self.memory.learn(key, step, view.as_ref(), self.env.now()),
            (_, Err(_)) => {}
        }
        Ok(view)
    }

    /// A command that writes once, since the driver does not send it again.
    async fn write_once(
        &self,
        slot: &mut Slot,
        command: impl FnOnce(&str) -> Document,
    ) -> mongodb::error::Result<Document> {
        let namespace = self.locks.namespace();
        let mut command = command(&namespace.coll);
        command.extend(doc! {
            "writeConcern": { "w": "majority", "j": true, "wtimeout": millis(self.limits.acknowledge) },
            "maxTimeMS": millis(self.limits.operation),
        });
        let client = self.locks.client();
        let session = slot.session(client).await?;
        let answer = client.database(&namespace.db).run_command(command).session(session).await?;
        errors::of_a_write(&answer).map_or(Ok(answer), Err)
    }

    async fn read_sessions(&self, query: SessionQuery) -> Result<Vec<SessionRecord>> {
        let mut fields = pipeline::session_fields();
        let filter = match query {
            SessionQuery::Ids(ids) if ids.is_empty() => return self.nothing(),
            SessionQuery::Ids(ids) => {
                doc! { "_id": { "$in": ids.iter().map(SessionId::to_string).collect::<Vec<_>>() } }
            }
            SessionQuery::Live => doc! { "st": "live" },
            SessionQuery::Roster => {
                fields = pipeline::roster_fields();
                doc! { "st": "live" }
            }
        };
        let sessions = self.sessions.clone();
        let limit = self.limits.operation;
        let request = async move {
            let found = sessions.find(filter).projection(fields).max_time(limit).await?;
            found.try_collect::<Vec<_>>().await
        };
        let found = self.tasks.run(limit, READ_SESSIONS, request, &self.sessions.namespace().to_string()).await?;
        Ok(readable(&found, codec::session))
    }

    async fn read_claims(self: &Arc<Self>, query: ClaimQuery) -> Result<Vec<ClaimRecord>> {
        let (mut sort, mut most) = (doc! { "_id": 1 }, 0);
        let filter = match query {
            ClaimQuery::Keys(keys) if keys.is_empty() => return self.nothing(),
            ClaimQuery::Keys(keys) => {
                doc! { "_id": { "$in": keys.iter().map(ClaimKey::as_str).collect::<Vec<_>>() } }
            }
            ClaimQuery::Of(id) => {
                doc! { "$or": [{ "own": codec::entries_of(id) }, { "q": codec::entries_of(id) }] }
            }
            ClaimQuery::HeldBy(id) => doc! { "own": codec::entries_of(id) },
            ClaimQuery::Prefix(prefix) => doc! { "_id": codec::begins_with(&prefix) },
            ClaimQuery::Unused { limit: 0, .. } => return self.nothing(),
            ClaimQuery::Unused { before, limit } => {
                (sort, most) = (doc! { "at": 1 }, i64::try_from(limit).unwrap_or(i64::MAX));
                // One that was never granted has no date.
                doc! { "own": null, "q": [], "at": { "$not": { "$gte": DateTime::from_millis(before.0) } } }
            }
        };
        let this = Arc::clone(self);
        let request = async move {
            let mut session = this.locks.client().start_session().await?;
            if let Some(seen) = this.highest_seen() {
                session.advance_operation_time(seen);
            }
            let limit = this.limits.operation;
            let find = this.locks.find(filter).sort(sort).limit(most).max_time(limit);
            let mut found = find.session(&mut session).await?;
            let claims = found.stream(&mut session).try_collect::<Vec<_>>().await;
            this.saw(session.operation_time());
            claims
        };
        let found = self.tasks.run(self.limits.operation, READ_CLAIMS, request, &self.locks_namespace()).await?;
        Ok(readable(&found, codec::claim))
    }

    fn nothing<T>(&self) -> Result<Vec<T>> {
        if self.tasks.is_closed() { Err(Error::closed("the store")) } else { Ok(Vec::new()) }
    }

    async fn ask_health(&self) -> Result<()> {
        let (sessions, limit) = (self.sessions.clone(), self.limits.operation);
        // A linearizable read writes to the oplog and waits for a majority, but leaves no document behind.
        let request = async move {
            sessions
                .find_one(doc! { "_id": "nobody" })
                .read_concern(ReadConcern::linearizable())
                .max_time(limit)
                .await
                .map(drop)
        };
        self.tasks.run(limit, ASK_HEALTH, request, &self.sessions.namespace().to_string()).await
    }

    async fn close(&self) {
        self.closing.send_replace(true);
        // Whoever closes has waited for what matters to him; a request that hangs is left to its connection.
        let limit = self.limits.operation.min(connect::CONNECT_TIMEOUT);
        self.tasks.close(limit).await;
        self.lanes.clear();
        self.transactions.clear();
        let clients = [self.own_session.client().clone(), self.locks.client().clone()];
        let (ended, both_ended) = tokio::sync::oneshot::channel::<()>();
        // The driver ends its sessions on a server that may not answer, and waits for connections that are in use. It
        // goes on with that by itself.
        self.env.spawn(async move {
            for client in clients {
                client.shutdown().immediate(true).await;
            }
            drop(ended);
        });
        let _ = tokio::time::timeout(limit, both_ended).await;
    }
}

/// One conditional write: the document after it (before it, when it is removed), or none if nothing matched.
async fn write(
    collection: Collection<Document>,
    write: Write,
    fields: Document,
    limit: Duration,
    session: Option<&mut ClientSession>,
) -> mongodb::error::Result<Option<Document>> {
    let (filter, update, upsert) = match write {
        Write::Pipeline { filter, stages, upsert } => (filter, stages.into(), upsert),
        Write::Operators { filter, update } => (filter, mongodb::options::UpdateModifications::from(update), false),
        Write::Remove { filter } => {
            let request = collection.find_one_and_delete(filter).projection(fields).max_time(limit);
            return match session {
                Some(session) => request.session(session).await,
                None => request.await,
            };
        }
    };
    let request = collection
        .find_one_and_update(filter, update)
        .upsert(upsert)
        .return_document(ReturnDocument::After)
        .projection(fields)
        .max_time(limit);
    match session {
        Some(session) => request.session(session).await,
        None => request.await,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The records of those documents that can be read; the others are named in the log.
fn readable<T>(documents: &[Document], decode: impl Fn(&Document) -> Result<T>) -> Vec<T> {
    documents
        .iter()
        .filter_map(|document| {
            decode(document).inspect_err(|error| tracing::warn!("left out of a listing: {error}")).ok()
        })
        .collect()
}

impl Store for MongoStore {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.0.step_session(id, step).boxed()
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        self.0.step_claim(key, step).boxed()
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.0.read_sessions(query).boxed()
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        self.0.read_claims(query).boxed()
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        stream::open(Arc::clone(&self.0), id).boxed()
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        changes::open(Arc::clone(&self.0), interest).boxed()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { multi_process: true, multi_host: true, kernel_locks_trusted: false }
    }

    fn documents(&self) -> Option<&dyn Documents> {
        Some(self)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.0.ask_health().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close().boxed()
    }
}

const CHANGE_SESSION: Doing = Doing { what: "change a session", rights: "find, insert and update" };
const CHANGE_CLAIM: Doing = Doing { what: "change a lock", rights: "find, insert, update and remove" };
const READ_SESSIONS: Doing = Doing { what: "read sessions", rights: "find" };
const READ_CLAIMS: Doing = Doing { what: "read locks", rights: "find" };
const ASK_HEALTH: Doing = Doing { what: "ask the majority", rights: "find" };

/// Below this an ordinary failover can last longer than the ttl.
const SAFE_TTL: Duration = Duration::from_secs(10);

/// How far cluster time must be beyond a token before its record is removed: it lags by up to two seconds.
const COLLECT_MARGIN_MS: i64 = 2_000;

/// The same where a router's clock is the date of a grant: as much as that may run ahead and still count.
const COLLECT_MARGIN_SHARDED_MS: i64 = 3_600_000;
