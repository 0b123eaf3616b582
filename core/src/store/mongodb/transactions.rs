//! Driver sessions whose transactions somebody else can end.
//!
//! A server keeps the transaction of a process that it hears no more of, with every document that it has changed, for a
//! minute or more (`transactionLifetimeLimitSeconds`): long after the session of that process is dead, nobody could have
//! its lock. So the record of a session names the driver sessions that its process writes in, before it does, and
//! whoever buries the session ends what is open there (`killSessions`, which each user may do with what is his own).
//!
//! Driver sessions are used again, so that they are seldom new and have to be named.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use mongodb::ClientSession;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Bson, Document, doc};

use super::Inner;
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimStep, Step};
use crate::protocol::session::SessionId;
use crate::time::Timestamp;

/// The field of a session's record that names driver sessions.
pub(super) const NAMED: &str = "tx";

/// The driver sessions of one store.
#[derive(Debug, Default)]
pub(super) struct Transactions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The session that was opened last.
    own: Option<SessionId>,
    /// Those that nobody uses, the latest last.
    idle: Vec<Lent>,
}

/// A driver session for transactions.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) session: ClientSession,
    /// Whose record names it.
    named_by: Option<SessionId>,
    used: Timestamp,
}

impl Transactions {
    /// This session's record is the one to name them in from now on.
    pub(super) fn belong_to(&self, own: SessionId) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.own = Some(own);
        state.idle.clear();
    }

    /// Gives every driver session back to the driver.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).idle.clear();
    }

    /// One that can be used again, or whose record is to name a new one.
    fn idle(&self, now: Timestamp) -> Result<Lent, Option<SessionId>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.idle.retain(|lent| now.since(lent.used) < KEPT);
        state.idle.pop().ok_or(state.own)
    }
}

impl Inner {
    /// A driver session for transactions, named in the record of this store's session if it has one.
    pub(super) async fn lend_driver_session(&self) -> mongodb::error::Result<Lent> {
        let now = self.env.now();
        let own = match self.transactions.idle(now) {
            Ok(lent) => return Ok(lent),
            Err(own) => own,
        };
        let session = self.locks.client().start_session().await?;
        let mut named_by = None;
        if let Some((own, id)) = own.zip(session.id().get("id")) {
            let filter = doc! { "_id": own.to_string(), "st": "live" };
            let name = doc! { "$push": { NAMED: { "$each": [id], "$slice": -MOST_NAMED } } };
            match self.sessions.update_one(filter, name).await {
                Ok(named) => named_by = (named.matched_count > 0).then_some(own),
                // What is in its way is in the way of the transaction, or of nothing.
                Err(error) => tracing::debug!(%error, "a driver session could not be named"),
            }
            failpoints::at(Point::MongoTransactionNamed);
        }
        Ok(Lent { session, named_by, used: now })
    }

    /// Takes one back in which nothing is open.
    pub(super) fn give_back(&self, lent: Lent) {
        let now = self.env.now();
        let mut state = self.transactions.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lent.named_by.is_some() && lent.named_by == state.own {
            state.idle.push(Lent { used: now, ..lent });
        }
    }

    /// Ends the transactions of a session that is dead by this record. Where that fails, or the user is another one, the
    /// server does it later.
    pub(super) async fn end_transactions_of(&self, dead: &Document) {
        let named = dead.get_array(NAMED).map(Vec::as_slice).unwrap_or_default();
        let named: Vec<Document> = named.iter().filter(|id| is_name(id)).map(|id| doc! { "id": id }).collect();
        if named.is_empty() || mutants::on(Mutant::TransactionsStay) {
            return;
        }
        let admin = self.locks.client().database("admin");
        if let Err(error) = admin.run_command(doc! { "killSessions": named }).await {
            tracing::debug!(%error, "the transactions of a dead session are left to the server");
        }
    }

    /// A step has failed, perhaps for such a transaction: whoever buried the session may have died before he ended it.
    pub(super) async fn end_transactions_in_the_way_of(&self, step: &ClaimStep) {
        let ClaimStep::Step(Step { dead, .. }) = step else { return };
        if dead.is_empty() {
            return;
        }
        let ids: Vec<String> = dead.iter().map(SessionId::to_string).collect();
        let filter = doc! { "_id": { "$in": ids }, "st": "dead", NAMED: { "$exists": true } };
        let found = self.sessions.find(filter).projection(doc! { NAMED: 1 }).max_time(self.limits.operation);
        let Ok(found) = found.await else { return };
        let Ok(found) = found.try_collect::<Vec<_>>().await else { return };
        for dead in &found {
            self.end_transactions_of(dead).await;
        }
    }
}

/// What else stands there nobody of us has written, and a server would refuse the whole command for it.
fn is_name(id: &Bson) -> bool {
    matches!(id, Bson::Binary(id) if id.subtype == BinarySubtype::Uuid)
}

/// A server forgets a driver session after half an hour without use.
const KEPT: Duration = Duration::from_secs(20 * 60);

/// The oldest names go first. Of more transactions at a time than this the server ends some by itself.
const MOST_NAMED: i32 = 256;
