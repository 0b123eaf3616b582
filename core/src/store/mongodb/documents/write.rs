//! A write to one document as one command.

use bson::{Bson, Document, doc};
use mongodb::ClientSession;
use mongodb::options::{ReturnDocument, UpdateModifications};
use tokio::sync::watch;

use super::read::settle;
use super::{Table, WRITE, faults, position_of, revision_of, visible};
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::document::update::Form;
use crate::protocol::document::write::{Action, Condition, not_found};
use crate::protocol::document::{FENCES, Fence, Key, Update, WRITTEN_BY, Write};
use crate::store::documents::Written;

/// How often a write is tried again that collides with others which make and remove the same document.
const TRIES: usize = 64;

/// What came of a command.
pub(super) enum Tried {
    /// The document after it, or before it if it was removed; and whether it is new.
    Done(Document, bool),
    /// No document was as the command wants it.
    Nothing,
    /// Somebody else has made the document in this moment.
    Raced,
}

impl Table {
    pub(super) async fn write(&self, write: Write) -> Result<Written> {
        if let (Action::Update(update) | Action::Upsert(update), Some(_)) = (&write.action, &write.fence)
            && matches!(update.form(), Form::Pipeline(_))
        {
            return Err(fenced_pipeline());
        }
        let short = match (&write.fence, &write.condition) {
            (_, Condition::Revision(_) | Condition::Document(_)) => false,
            (Some(fence), _) => !fence.strict && !matches!(write.action, Action::Insert(_) | Action::Delete),
            (None, _) => true,
        };
        if short {
            let (this, write) = (self.clone(), write.clone());
            let request = async move { Ok(this.write_shortly(&write).await) };
            if let Some(written) = self.run(self.inner.limits.operation, WRITE, request).await?? {
                return Ok(written);
            }
        }
        self.write_in_transaction(write, None).await
    }

    /// Writes by one command. None if more has to be looked at.
    async fn write_shortly(&self, write: &Write) -> Result<Option<Written>> {
        let explain = |error| faults::explain(&error, WRITE, &self.namespace());
        let mut session = self.documents.client().start_session().await.map_err(explain)?;
        for _ in 0..TRIES {
            let primaries = self.inner.next_primaries();
            let tried = match self.try_command(write, &mut session).await {
                Ok(tried) => tried,
                Err(error) => {
                    let error = match &write.action {
                        Action::Insert(_) => faults::of_insert(&error, &write.key, WRITE, &self.namespace()),
                        _ => explain(error),
                    };
                    if error.code() != Code::AlreadyExists || self.stands(&mut session, &primaries).await? {
                        return Err(error);
                    }
                    Tried::Raced
                }
            };
            failpoints::at(Point::MongoDocumentWritten);
            match tried {
                Tried::Done(document, created) => {
                    let document = visible(document);
                    let deleted = matches!(write.action, Action::Delete);
                    return Ok(Some(Written {
                        revision: (!deleted).then(|| revision_of(&document)),
                        document,
                        position: position_of(session.operation_time()),
                        created,
                    }));
                }
                Tried::Nothing if write.fence.is_some() => return Ok(None),
                // What is there is fenced, and takes its fences along in a transaction. Or there is nothing.
                Tried::Nothing if matches!(write.action, Action::Delete) => return Ok(None),
                Tried::Nothing => return Err(self.why_nothing(write, &mut session).await),
                Tried::Raced => {}
            }
        }
        Err(Error::unavailable(format!("the document {} is made and removed by others all the time", write.key)))
    }

    /// Whether a refusal stands. A primary refuses by what it alone has, too, and that can be undone: so this waits until a
    /// majority has all that the session was told. That says nothing of it if there is another primary since.
    pub(super) async fn stands(
        &self,
        session: &mut ClientSession,
        primaries: &watch::Receiver<Option<String>>,
    ) -> Result<bool> {
        let settled = settle(&self.documents, self.inner.limits.operation, session).await;
        settled.map_err(|error| faults::explain(&error, WRITE, &self.namespace()))?;
        Ok(matches!(primaries.has_changed(), Ok(false)))
    }

    /// Why no document took a write without a condition.
    async fn why_nothing(&self, write: &Write, session: &mut ClientSession) -> Error {
        let id = doc! { "_id": write.key.value() };
        match self.documents.find_one(id).projection(doc! { "_id": 1 }).session(session).await {
            Ok(Some(_)) if is_pipeline(&write.action) => fenced_pipeline(),
            Ok(_) => not_found(&write.key),
            Err(error) => faults::explain(&error, WRITE, &self.namespace()),
        }
    }

    async fn try_command(&self, write: &Write, session: &mut ClientSession) -> mongodb::error::Result<Tried> {
        let by = self.written_by(write.source.as_deref());
        let fence = write.fence.as_ref();
        match &write.action {
            Action::Insert(document) => self.make(document, &by, session).await,
            Action::Replace(document) => self.replace(&write.key, document, &by, fence, session).await,
            Action::Put(document) => match self.replace(&write.key, document, &by, fence, session).await? {
                Tried::Nothing if fence.is_none() => raced(self.make(document, &by, session).await),
                tried => Ok(tried),
            },
            Action::Update(update) => self.update(&write.key, update, &by, fence, session).await,
            Action::Upsert(update) => match self.update(&write.key, update, &by, fence, session).await? {
                Tried::Nothing if fence.is_none() => raced(self.make_by(&write.key, update, &by, session).await),
                tried => Ok(tried),
            },
            Action::Delete => {
                let filter = doc! { "_id": write.key.value(), FENCES: { "$exists": false } };
                let gone = self.documents.find_one_and_delete(filter).session(session).await?;
                Ok(gone.map_or(Tried::Nothing, |document| Tried::Done(document, false)))
            }
        }
    }

    async fn make(
        &self,
        document: &Document,
        by: &Option<Bson>,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<Tried> {
        let document = with_source(document.clone(), by);
        self.documents.insert_one(&document).session(session).await?;
        Ok(Tried::Done(document, true))
    }

    /// Makes the document that an upsert makes of nothing. Fails if there is one.
    async fn make_by(
        &self,
        key: &Key,
        update: &Update,
        by: &Option<Bson>,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<Tried> {
        // No document has such a fence, so the server tries to make one.
        let filter = doc! { "_id": key.value(), (format!("{FENCES}.none")): { "$exists": true } };
        let made = self
            .documents
            .find_one_and_update(filter, modifications(update, by, None))
            .upsert(true)
            .return_document(ReturnDocument::After)
            .session(session)
            .await?;
        Ok(made.map_or(Tried::Nothing, |document| Tried::Done(document, true)))
    }

    async fn replace(
        &self,
        key: &Key,
        document: &Document,
        by: &Option<Bson>,
        fence: Option<&Fence>,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<Tried> {
        let document = with_source(document.clone(), by);
        if fence.is_none() {
            let filter = doc! { "_id": key.value(), FENCES: { "$exists": false } };
            let after = self
                .documents
                .find_one_and_replace(filter, &document)
                .return_document(ReturnDocument::After)
                .session(&mut *session)
                .await?;
            if let Some(after) = after {
                return Ok(Tried::Done(after, false));
            }
        }
        // By a pipeline, which can keep the fences.
        let (filter, fences) = match fence {
            None => (doc! { "_id": key.value(), FENCES: { "$exists": true } }, Bson::String(format!("${FENCES}"))),
            Some(fence) => {
                let raised = doc! { "$mergeObjects": [format!("${FENCES}"), { fence.key().as_str(): fence.token }] };
                (passes(key, fence), Bson::Document(raised))
            }
        };
        let stage = doc! { "$replaceWith": { "$mergeObjects": [{ "$literal": document }, { FENCES: fences }] } };
        let after = self
            .documents
            .find_one_and_update(filter, vec![stage])
            .return_document(ReturnDocument::After)
            .session(session)
            .await?;
        Ok(after.map_or(Tried::Nothing, |document| Tried::Done(document, false)))
    }

    async fn update(
        &self,
        key: &Key,
        update: &Update,
        by: &Option<Bson>,
        fence: Option<&Fence>,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<Tried> {
        let filter = match fence {
            Some(fence) => passes(key, fence),
            // A pipeline can drop the fences.
            None if matches!(update.form(), Form::Pipeline(_)) => {
                doc! { "_id": key.value(), FENCES: { "$exists": false } }
            }
            None => doc! { "_id": key.value() },
        };
        let fences = fence.map(|fence| (format!("{FENCES}.{}", fence.key().as_str()), Bson::Int64(fence.token)));
        let after = self
            .documents
            .find_one_and_update(filter, modifications(update, by, fences))
            .return_document(ReturnDocument::After)
            .session(session)
            .await?;
        Ok(after.map_or(Tried::Nothing, |document| Tried::Done(document, false)))
    }
}

/// The document of this key if a write of the same hold has come already, and none of a later one. The first write of each
/// hold goes the long way, so that the tombstone knows its token, whatever others do to the document.
fn passes(key: &Key, fence: &Fence) -> Document {
    doc! { "_id": key.value(), (format!("{FENCES}.{}", fence.key().as_str())): fence.token }
}

fn raced(tried: mongodb::error::Result<Tried>) -> mongodb::error::Result<Tried> {
    match tried {
        Err(error) if faults::is_key_taken(&error) => Ok(Tried::Raced),
        tried => tried,
    }
}

fn is_pipeline(action: &Action) -> bool {
    matches!(action, Action::Update(update) | Action::Upsert(update) if matches!(update.form(), Form::Pipeline(_)))
}

/// The document with what says who wrote it.
pub(super) fn with_source(mut document: Document, by: &Option<Bson>) -> Document {
    if let Some(by) = by {
        document.insert(WRITTEN_BY, by.clone());
    }
    document
}

/// The update, which also sets who wrote, and one more field of ours.
pub(super) fn modifications(update: &Update, by: &Option<Bson>, more: Option<(String, Bson)>) -> UpdateModifications {
    let ours: Document = by.clone().map(|by| (WRITTEN_BY.to_owned(), by)).into_iter().chain(more).collect();
    match update.form() {
        Form::Pipeline(stages) => {
            let last = doc! { "$set": { WRITTEN_BY: { "$literal": by.clone() } } };
            let stages: Vec<Document> = stages.iter().cloned().chain(by.is_some().then_some(last)).collect();
            stages.into()
        }
        Form::Operators(operators) => {
            let mut operators = operators.clone();
            // Servers before 5.0 refuse an operator without fields.
            let empty: Vec<String> = operators
                .iter()
                .filter(|(_, fields)| fields.as_document().is_some_and(Document::is_empty))
                .map(|(operator, _)| operator.clone())
                .collect();
            for operator in empty {
                operators.remove(operator);
            }
            if !ours.is_empty() {
                match operators.get_mut("$set") {
                    Some(Bson::Document(set)) => set.extend(ours),
                    _ => drop(operators.insert("$set", ours)),
                }
            }
            if operators.is_empty() {
                // It changes nothing, and is not to be taken for a document that replaces the other one.
                operators.insert("$unset", doc! { WRITTEN_BY: "" });
            }
            UpdateModifications::Document(operators)
        }
    }
}

pub(super) fn fenced_pipeline() -> Error {
    Error::new(Code::Unsupported, "a document that is or will be fenced cannot be updated by a pipeline; use operators")
}
