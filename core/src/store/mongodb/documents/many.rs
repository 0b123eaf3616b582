//! Writes to many documents. What the server can do in one command it does; documents with fences of their own, or
//! without the fence that is needed, one by one.

use std::collections::BTreeSet;

use bson::{Document, doc};
use futures::TryStreamExt;

use super::transaction::is_fenced;
use super::write::{fenced_pipeline, modifications};
use super::{QUERY_LIMIT, READ, Table, WRITE_MANY, position_of};
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::document::update::Form;
use crate::protocol::document::write::{Action, Condition};
use crate::protocol::document::{FENCES, Fence, Key, Position, Update, Write};
use crate::store::documents::{ManyAction, ManyWritten, WriteMany, local};

impl Table {
    pub(super) async fn write_many(&self, many: WriteMany) -> Result<ManyWritten> {
        let filter = many.filter.document().clone();
        match (&many.action, &many.fence) {
            (ManyAction::Update(update), None) => self.update_many(filter, update, &many).await,
            (ManyAction::Update(update), Some(fence)) => self.update_fenced(filter, update, fence, &many).await,
            (ManyAction::Delete, None) => {
                let documents = self.documents.clone();
                let plain = doc! { "$and": [filter.clone(), { FENCES: { "$exists": false } }] };
                let request = async move {
                    let mut session = documents.client().start_session().await?;
                    let done = documents.delete_many(plain).session(&mut session).await?;
                    Ok((done.deleted_count, position_of(session.operation_time())))
                };
                let (count, position) = self.run(QUERY_LIMIT, WRITE_MANY, request).await?;
                let fenced = doc! { "$and": [filter.clone(), { FENCES: { "$exists": true } }] };
                let rest = self.one_by_one(fenced, &filter, &Action::Delete, &many).await?;
                Ok(added(ManyWritten { count, position }, rest.written))
            }
            (ManyAction::Delete, Some(_)) => {
                let done = self.one_by_one(filter.clone(), &filter, &Action::Delete, &many).await?;
                done.finished()
            }
        }
    }

    async fn update_many(&self, filter: Document, update: &Update, many: &WriteMany) -> Result<ManyWritten> {
        let mut filter = filter;
        if matches!(update.form(), Form::Pipeline(_)) {
            // A pipeline can drop the fences.
            let fenced = doc! { "$and": [filter.clone(), { FENCES: { "$exists": true } }] };
            if self.count_matching(fenced).await? > 0 {
                return Err(fenced_pipeline());
            }
            filter = doc! { "$and": [filter, { FENCES: { "$exists": false } }] };
        }
        let by = self.written_by(many.source.as_deref());
        self.update_in_one(filter, update, by, None).await
    }

    async fn update_fenced(
        &self,
        filter: Document,
        update: &Update,
        fence: &Fence,
        many: &WriteMany,
    ) -> Result<ManyWritten> {
        if matches!(update.form(), Form::Pipeline(_)) {
            return Err(fenced_pipeline());
        }
        let action = Action::Update(update.clone());
        if fence.strict {
            let done = self.one_by_one(filter.clone(), &filter, &action, many).await?;
            return done.finished();
        }
        let field = format!("{FENCES}.{}", fence.key().as_str());
        let new = doc! { "$and": [filter.clone(), { &field: { "$not": { "$gte": fence.token } } }] };
        let mut keys = self.keys(new).await?;
        // Somebody else may have written one of these under the same hold by now: the command is not to change it, too.
        let others = doc! { "_id": { "$nin": keys.iter().map(|key| key.value().clone()).collect::<Vec<_>>() } };
        let mut written = nothing();
        if others.to_vec().is_ok_and(|names| names.len() <= MOST_NAMES) {
            let known = doc! { "$and": [filter.clone(), { &field: fence.token }, others] };
            let by = self.written_by(many.source.as_deref());
            written = self.update_in_one(known, update, by, Some((field.clone(), fence.token.into()))).await?;
        } else {
            let not_newer = doc! { "$and": [filter.clone(), { &field: { "$not": { "$gt": fence.token } } }] };
            keys = self.keys(not_newer).await?;
        }
        let mut rest = self.each(keys, &filter, &action, many).await?;
        let newer = doc! { "$and": [filter, { &field: { "$gt": fence.token } }] };
        rest.left_out = self.count_matching(newer).await?.max(rest.left_out);
        rest.written = added(written, rest.written);
        if rest.left_out > 0 && rest.refusal.is_none() {
            let message =
                format!("a later holder of '{}' than that with token {} has written", fence.lock, fence.token);
            rest.refusal = Some(Error::new(Code::Fenced, message));
        }
        rest.finished()
    }

    async fn update_in_one(
        &self,
        filter: Document,
        update: &Update,
        by: Option<bson::Bson>,
        more: Option<(String, bson::Bson)>,
    ) -> Result<ManyWritten> {
        let documents = self.documents.clone();
        let update = modifications(update, &by, more);
        let request = async move {
            let mut session = documents.client().start_session().await?;
            let done = documents.update_many(filter, update).session(&mut session).await?;
            failpoints::at(Point::MongoManyWritten);
            Ok(ManyWritten { count: done.matched_count, position: position_of(session.operation_time()) })
        };
        self.run(QUERY_LIMIT, WRITE_MANY, request).await
    }

    async fn one_by_one(
        &self,
        which: Document,
        guard: &Document,
        action: &Action,
        many: &WriteMany,
    ) -> Result<OneByOne> {
        let keys = self.keys(which).await?;
        self.each(keys, guard, action, many).await
    }

    /// Writes each of these documents that still matches the guard.
    async fn each(&self, keys: BTreeSet<Key>, guard: &Document, action: &Action, many: &WriteMany) -> Result<OneByOne> {
        let mut done = OneByOne::default();
        for key in keys {
            let write = Write {
                key,
                action: action.clone(),
                condition: Condition::None,
                fence: many.fence.clone(),
                source: many.source.clone(),
            };
            match self.write_in_transaction(write, Some(guard.clone())).await {
                Ok(written) => {
                    done.written.count += 1;
                    done.written.position = done.written.position.max(written.position);
                }
                Err(error) if is_fenced(&error) => {
                    done.left_out += 1;
                    done.refusal = Some(error);
                }
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// The documents that match, each once: a reading shows one again that was moved ahead of it in its index.
    async fn keys(&self, filter: Document) -> Result<BTreeSet<Key>> {
        let documents = self.documents.clone();
        let request = async move {
            let found = documents.find(filter).projection(doc! { "_id": 1 }).max_time(QUERY_LIMIT).await?;
            found.try_collect::<Vec<Document>>().await
        };
        self.run(QUERY_LIMIT, READ, request).await?.iter().map(Key::of).collect()
    }

    async fn count_matching(&self, filter: Document) -> Result<u64> {
        let documents = self.documents.clone();
        self.run(QUERY_LIMIT, READ, async move { documents.count_documents(filter).max_time(QUERY_LIMIT).await }).await
    }
}

struct OneByOne {
    written: ManyWritten,
    left_out: u64,
    /// Why one of those was left out.
    refusal: Option<Error>,
}

impl OneByOne {
    fn finished(self) -> Result<ManyWritten> {
        match self.refusal {
            Some(refusal) => Err(local::partly_fenced(self.written.count, self.left_out, &refusal)),
            None => Ok(self.written),
        }
    }
}

impl Default for OneByOne {
    fn default() -> Self {
        Self { written: nothing(), left_out: 0, refusal: None }
    }
}

fn nothing() -> ManyWritten {
    ManyWritten { count: 0, position: Position(0) }
}

fn added(left: ManyWritten, right: ManyWritten) -> ManyWritten {
    ManyWritten { count: left.count + right.count, position: left.position.max(right.position) }
}

/// How many bytes of names one command may have beside its filter and its update: with them it has at most 16 MiB.
const MOST_NAMES: usize = 8 << 20;
