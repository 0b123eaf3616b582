//! A write to one document as a transaction: where it must look at the document first, at its tombstone, or at the lock
//! whose token it carries.

use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::ClientSession;
use mongodb::options::{ReadConcern, ReturnDocument};

use super::write::{fenced_pipeline, modifications, with_source};
use super::{Table, WRITE, faults, position_of, revision_of, visible};
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::document::order::same;
use crate::protocol::document::write::{Action, Condition, already_exists, conflict, not_found};
use crate::protocol::document::{FENCES, Fence, FenceKey, Fences, Write};
use crate::store::documents::Written;
use crate::time::Timestamp;

/// How long a server keeps a transaction of which it hears no more.
const KEPT_OPEN: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(250);

/// Why an attempt did not come to its end.
enum Stop {
    /// The write is refused.
    Refused(Error),
    /// The server did not do it.
    Failed(mongodb::error::Error),
    /// Another transaction was faster.
    Collided,
    /// Nobody waits for it any more. What it has done may be there still, and its commit may be under way.
    Late,
}

impl From<mongodb::error::Error> for Stop {
    fn from(error: mongodb::error::Error) -> Self {
        if error.contains_label("TransientTransactionError") { Self::Collided } else { Self::Failed(error) }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The document after a write, or the one that it removed, and whether it is new.
type Done = std::result::Result<(Document, bool), Stop>;

impl Table {
    /// Writes in a transaction. With a `guard` the document must match that filter, too: else it is `NotFound`.
    pub(super) async fn write_in_transaction(&self, write: Write, guard: Option<Document>) -> Result<Written> {
        self.prepare_tombstones().await?;
        let this = self.clone();
        // Counted from before the caller waits: nothing is begun for one who has been told that the outcome is unknown.
        let until = self.inner.env.now() + self.inner.limits.operation;
        let request = async move { Ok(this.transact(&write, guard.as_ref(), until).await) };
        self.run(self.inner.limits.operation, WRITE, request).await?
    }

    async fn transact(&self, write: &Write, guard: Option<&Document>, until: Timestamp) -> Result<Written> {
        let explain = |error| faults::explain(&error, WRITE, &self.namespace());
        let holder = write.fence.as_ref().map(|fence| fence.holder.session);
        let mut lent = self.inner.lend_driver_session(holder).await.map_err(explain)?;
        let written = self.transact_in(&mut lent.session, write, guard, until).await;
        let failed = |error: &Error| matches!(error.code(), Code::Unavailable | Code::OutcomeUnknown);
        // After these something may be open in it still.
        if !written.as_ref().is_err_and(failed) {
            self.inner.give_back(lent);
        }
        written
    }

    async fn transact_in(
        &self,
        session: &mut ClientSession,
        write: &Write,
        guard: Option<&Document>,
        until: Timestamp,
    ) -> Result<Written> {
        let explain = |error| faults::explain(&error, WRITE, &self.namespace());
        for attempt in 0_u32.. {
            let primaries = self.inner.next_primaries();
            if let Err(error) = session.start_transaction().read_concern(ReadConcern::snapshot()).await {
                if attempt > 0 {
                    self.void(session).await;
                }
                return Err(explain(error));
            }
            let stop = match self.attempt(write, guard, session).await {
                Ok((document, created)) => match self.commit(session, until).await {
                    Ok(()) => {
                        failpoints::at(Point::MongoCommitted);
                        let document = visible(document);
                        let deleted = matches!(write.action, Action::Delete);
                        return Ok(Written {
                            revision: (!deleted).then(|| revision_of(&document)),
                            document,
                            position: position_of(session.operation_time()),
                            created,
                        });
                    }
                    Err(stop) => stop,
                },
                Err(stop) => {
                    // The server ends what it cannot hear of by itself.
                    let _ = session.abort_transaction().await;
                    stop
                }
            };
            let refusal = match stop {
                Stop::Refused(error) => Some(error),
                Stop::Failed(error) => {
                    let error = faults::of_insert(&error, &write.key, WRITE, &self.namespace());
                    if error.code() != Code::AlreadyExists {
                        return Err(error);
                    }
                    Some(error)
                }
                Stop::Collided => None,
                Stop::Late => break,
            };
            // A transaction reads what only the primary has, and only its commit waits for a majority.
            if let Some(refusal) = refusal
                && self.stands(session, &primaries).await?
            {
                return Err(refusal);
            }
            if self.inner.env.now() >= until {
                break;
            }
            // Not in step with those that it collides with.
            let pause = Duration::from_micros(500 << attempt.min(6));
            self.inner.env.sleep(self.inner.env.jittered(pause)).await;
        }
        self.void(session).await;
        Err(Error::unavailable(format!("the document {} could not be written in time", write.key)))
    }

    /// Commits. Asks again for as long as the answer is unknown and somebody waits for it.
    async fn commit(&self, session: &mut ClientSession, until: Timestamp) -> std::result::Result<(), Stop> {
        failpoints::at(Point::MongoCommit);
        while self.inner.env.now() < until {
            match session.commit_transaction().await {
                Err(error) if error.contains_label("UnknownTransactionCommitResult") => {}
                done => return Ok(done?),
            }
        }
        Err(Stop::Late)
    }

    /// Ends what a transaction that was given up may have left open on the server, with all that it has locked, and makes
    /// sure that its commit is not applied later: a session's next transaction ends the one before.
    async fn void(&self, session: &mut ClientSession) {
        // Not after a commit was tried: that is what the next transaction is for.
        let _ = session.abort_transaction().await;
        let begun = self.inner.env.now();
        while !self.inner.tasks.is_closed() && self.inner.env.now().since(begun) < KEPT_OPEN {
            if session.start_transaction().read_concern(ReadConcern::snapshot()).await.is_ok() {
                let nobody = self.inner.locks.find_one(doc! { "_id": "nobody" });
                let answer = nobody.session(&mut *session).await;
                let _ = session.abort_transaction().await;
                if answer.is_ok() {
                    return;
                }
            }
            self.inner.env.sleep(self.inner.env.jittered(PAUSE)).await;
        }
    }

    async fn attempt(&self, write: &Write, guard: Option<&Document>, session: &mut ClientSession) -> Done {
        if let Some(fence) = write.fence.as_ref().filter(|fence| fence.strict) {
            self.check_hold(fence, session).await?;
        }
        let id = doc! { "_id": write.key.value() };
        let found = self.documents.find_one(id.clone()).session(&mut *session).await?;
        if let Some(guard) = guard {
            let filter = doc! { "$and": [id.clone(), guard.clone()] };
            let matches = self.documents.find_one(filter).projection(doc! { "_id": 1 }).session(&mut *session).await?;
            if matches.is_none() {
                return Err(not_found(&write.key).into());
            }
        }
        let fences = self.fences_of(write, found.as_ref(), session).await?;
        let exists = found.is_some();
        let before = found.map(visible);
        check_condition(write, before.as_ref())?;
        let by = self.written_by(write.source.as_deref());
        let ours = |document: &Document| {
            let mut document = with_source(document.clone(), &by);
            if !fences.0.is_empty() {
                document.insert(FENCES, field(&fences));
            }
            document
        };
        match (&write.action, before) {
            (Action::Insert(_), Some(_)) => Err(already_exists(&write.key).into()),
            (Action::Replace(_) | Action::Update(_) | Action::Delete, None) => Err(not_found(&write.key).into()),
            (Action::Insert(document) | Action::Put(document), None) => {
                let document = ours(document);
                self.documents.insert_one(&document).session(session).await?;
                Ok((document, true))
            }
            (Action::Replace(document) | Action::Put(document), Some(_)) => {
                let document = ours(document);
                self.documents.replace_one(id, &document).session(session).await?;
                Ok((document, false))
            }
            (Action::Update(update) | Action::Upsert(update), _) => {
                if !fences.0.is_empty() && matches!(update.form(), crate::protocol::document::update::Form::Pipeline(_))
                {
                    return Err(fenced_pipeline().into());
                }
                let more = (!fences.0.is_empty()).then(|| (FENCES.to_owned(), Bson::Document(field(&fences))));
                let after = self
                    .documents
                    .find_one_and_update(id, modifications(update, &by, more))
                    .upsert(!exists)
                    .return_document(ReturnDocument::After)
                    .session(session)
                    .await?;
                Ok((after.ok_or_else(|| not_found(&write.key))?, !exists))
            }
            (Action::Delete, Some(document)) => {
                self.documents.delete_one(id).session(session).await?;
                Ok((document, false))
            }
        }
    }

    /// Looks that the hold has not ended, in a way that collides with whatever ends it.
    async fn check_hold(&self, fence: &Fence, session: &mut ClientSession) -> std::result::Result<(), Stop> {
        let filter = doc! { "_id": fence.lock.as_str(), "own": fence.holder.to_string(), "tok": fence.token };
        let held = self.inner.locks.update_one(filter, doc! { "$inc": { "w": 1_i64 } }).session(session).await?;
        failpoints::at(Point::MongoLockTouched);
        if held.matched_count == 0 { Err(fence.refused(None).into()) } else { Ok(()) }
    }

    /// The fences that the document is to have, those of its tombstone included, which remembers them as well.
    async fn fences_of(
        &self,
        write: &Write,
        found: Option<&Document>,
        session: &mut ClientSession,
    ) -> std::result::Result<Fences, Stop> {
        let mut fences = found.map(Fences::of).unwrap_or_default();
        if fences.0.is_empty() && write.fence.is_none() {
            return Ok(fences);
        }
        let tombstones = self.tombstones();
        let id = doc! { "_id": { "t": self.name.as_str(), "k": write.key.value() } };
        if let Some(tombstone) = tombstones.find_one(id.clone()).session(&mut *session).await? {
            for (key, token) in &Fences::of(&doc! { FENCES: tombstone.get("f").cloned() }).0 {
                let highest = fences.0.entry(key.clone()).or_insert(*token);
                *highest = (*highest).max(*token);
            }
        }
        if let Some(fence) = &write.fence {
            fences.admit(fence)?;
            fences.raise(fence);
        }
        // The server's date, by which it removes them: one that is behind would make this one go away at once.
        let kept = doc! { "$set": { "f": field(&fences) }, "$currentDate": { "at": true } };
        let kept = tombstones.update_one(id, kept).upsert(true).session(session).await;
        failpoints::at(Point::MongoTombstoneWritten);
        match kept {
            // Another one has made it since this transaction began.
            Err(error) if faults::is_key_taken(&error) => Err(Stop::Collided),
            done => Ok(done.map(|_| fences)?),
        }
    }
}

fn check_condition(write: &Write, before: Option<&Document>) -> Result<()> {
    match (&write.condition, before) {
        (Condition::None, _) => Ok(()),
        (_, None) => Err(not_found(&write.key)),
        (Condition::Revision(wanted), Some(found)) if *wanted == revision_of(found) => Ok(()),
        (Condition::Document(wanted), Some(found)) if same(wanted, found) => Ok(()),
        _ => Err(conflict(&write.key)),
    }
}

fn field(fences: &Fences) -> Document {
    fences.0.iter().map(|(key, token): (&FenceKey, &i64)| (key.as_str().to_owned(), Bson::Int64(*token))).collect()
}

/// Whether a write was refused by its fence.
pub(super) fn is_fenced(error: &Error) -> bool {
    error.code() == Code::Fenced
}
