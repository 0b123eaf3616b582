//! Driver sessions whose transactions somebody else can end.
//!
//! A server keeps the transaction of a process that it hears no more of, with every document that it has changed, for a
//! minute or more (`transactionLifetimeLimitSeconds`): long after the session of that process is dead, nobody could have
//! its lock. So the record of a session names the driver sessions in which its process writes under its holds, before
//! it does, and whoever buries the session ends what is open there (`killSessions`, which each user may do with what is
//! his own). A write under no hold has only its document: the record of any session that dies with the process will do.
//!
//! Driver sessions are used again, so that they are seldom new and have to be named.

use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// The sessions that are open here, the latest last. One whose loss was not heard of is among them still.
    open: Vec<SessionId>,
    /// Those that nobody uses and that an open session names, the latest last.
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
    /// The store has said that this session is live: its record can name them.
    pub(super) fn opened(&self, id: SessionId) {
        let mut state = self.state();
        state.open.retain(|open| *open != id);
        state.open.push(id);
    }

    /// The session is closed, or lost: nothing is named in its record any more.
    pub(super) fn ended(&self, id: SessionId) {
        let mut state = self.state();
        state.open.retain(|open| *open != id);
        state.idle.retain(|lent| lent.named_by != Some(id));
    }

    /// Gives every driver session back to the driver.
    pub(super) fn clear(&self) {
        self.state().idle.clear();
    }

    /// One to use again for a write under a hold of `holder`, or under none; else whose record is to name a new one.
    fn idle(&self, holder: Option<SessionId>, now: Timestamp) -> Result<Lent, Option<SessionId>> {
        let mut state = self.state();
        state.idle.retain(|lent| now.since(lent.used) < KEPT);
        let namer = holder.or_else(|| state.open.last().copied());
        let idle = state.idle.iter().rposition(|lent| lent.named_by == namer).ok_or(namer)?;
        Ok(state.idle.remove(idle))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A driver session for a transaction under a hold of `holder`, named in the holder's record; under none, in that
    /// of a session that is open here, if there is one.
    pub(super) async fn lend_driver_session(&self, holder: Option<SessionId>) -> mongodb::error::Result<Lent> {
        let now = self.env.now();
        let namer = match self.transactions.idle(holder, now) {
            Ok(lent) => return Ok(lent),
            Err(namer) => namer,
        };
        let session = self.locks.client().start_session().await?;
        let mut named_by = None;
        if let Some((namer, id)) = namer.zip(session.id().get("id")) {
            let filter = doc! { "_id": namer.to_string(), "st": "live" };
            let name = doc! { "$push": { NAMED: { "$each": [id], "$slice": -MOST_NAMED } } };
            match self.sessions.update_one(filter, name).await {
                Ok(named) if named.matched_count == 0 => self.transactions.ended(namer),
                Ok(_) => named_by = Some(namer),
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
        let mut state = self.transactions.state();
        if lent.named_by.is_some_and(|namer| state.open.contains(&namer)) {
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
