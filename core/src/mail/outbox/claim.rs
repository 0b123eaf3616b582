//! Choosing mails to send: which are due, and which of them become a sender's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bson::doc;
use futures::TryStreamExt;

use super::record::{CLAIMED, QUEUED, Record};
use super::{Inner, Part};
use crate::driver::Mark;
use crate::error::Result;
use crate::failpoints::{self, Point};
use crate::protocol::document::{Filter, Key, Projection, Sort};
use crate::session::Session;
use crate::store::documents::{Index, Query};

/// What a claimed mail is marked with while it is being sent. Claims have names that nobody else has, so an older delivery
/// of the same mail takes away only its own mark.
pub(super) fn mark_of(by: &str, document_id: &str) -> String {
    format!("{by} {document_id}")
}

impl Inner {
    pub(super) async fn ensure_indexes(&self) -> Result<()> {
        let index = |fields: &[&str]| Index {
            fields: fields.iter().map(|&field| (field.to_owned(), false)).collect(),
            ..Index::default()
        };
        let indexes = vec![index(&["box", "st", "due"]), index(&["box", "st", "exp"]), index(&["by"])];
        self.documents()?.ensure_indexes(&self.table, indexes).await
    }

    /// Claims up to so many mails that are due, in the session's name. They are marked before they are claimed: another's
    /// sweep in this client takes back what is claimed and has no mark.
    ///
    /// `ahead` are mails that were due when somebody looked, so that not every claim looks through all that are: whatever
    /// becomes due later stands behind them.
    pub(super) async fn claim(
        &self,
        session: &Arc<Session>,
        by: &str,
        most: usize,
        ahead: &mut VecDeque<Key>,
    ) -> Result<Vec<(Record, Mark)>> {
        let now = self.now().await?;
        let mut looked = false;
        let mut missed = 0;
        loop {
            if ahead.is_empty() || missed == MISSED {
                if looked {
                    return Ok(Vec::new());
                }
                *ahead = self.due(now).await?;
                (looked, missed) = (true, 0);
            }
            let keys: Vec<_> = ahead.drain(..most.min(ahead.len())).collect();
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let claimed = self.claim_of(session, by, &keys, now).await?;
            if !claimed.is_empty() {
                return Ok(claimed);
            }
            missed += 1;
        }
    }

    /// The first mails that are due.
    async fn due(&self, now: i64) -> Result<VecDeque<Key>> {
        let query = Query {
            filter: Filter::parse(doc! { "box": self.name.as_str(), "st": QUEUED, "due": { "$lte": now } })?,
            sort: Some(Sort::parse(doc! { "due": 1, "_id": 1 })?),
            limit: Some(AHEAD),
            projection: Some(Projection::parse(doc! { "_id": 1 })?),
            ..Query::default()
        };
        let found = self.documents()?.find(&self.table, query).await?;
        found.map_ok(|stored| stored.key).try_collect().await
    }

    /// Claims those of these mails that are still queued and due.
    async fn claim_of(&self, session: &Arc<Session>, by: &str, keys: &[Key], now: i64) -> Result<Vec<(Record, Mark)>> {
        let ids: Vec<_> = keys.iter().filter_map(|key| key.value().as_str()).map(str::to_owned).collect();
        let most = ids.len() as u64;
        let mut marks: BTreeMap<_, _> =
            ids.iter().map(|id| (id.clone(), self.core.mails().mark(mark_of(by, id)))).collect();
        let claim = doc! { "$set": { "st": CLAIMED, "by": by, "sid": session.id().to_string() } };
        // Whatever the answer, what carries this name is ours; the next sweep finds what is missed here.
        self.update(doc! { "_id": { "$in": ids }, "st": QUEUED, "due": { "$lte": now } }, claim).await?;
        failpoints::at(Point::MailsClaimed);
        let mine = doc! { "by": by, "st": CLAIMED };
        let claimed = self.find(mine, doc! { "due": 1, "_id": 1 }, most, Part::Whole).await?;
        failpoints::at(Point::MailsRead);
        let marked = claimed.into_iter().filter_map(|record| Some((marks.remove(&record.document_id)?, record)));
        Ok(marked.map(|(mark, record)| (record, mark)).collect())
    }
}

/// How many mails are looked for that are due.
const AHEAD: u64 = 1_000;
/// How often others may have come first before somebody looks again what is left.
const MISSED: u32 = 16;
