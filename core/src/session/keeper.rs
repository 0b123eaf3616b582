//! The keeper looks after sessions in which nobody else is interested, so that what a dead process held or provided
//! goes away even if nobody waits for it.
//!
//! It is an ordinary claim of a few clients. Its holder and the first waiter observe *all* live sessions; all others
//! read nothing. It is for liveness only: every kill keeps its own condition, so two keepers or a stale one do no
//! harm. The holder removes what nobody uses any more, too (see [`collector`]).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Session, collector, observer};
use crate::claims::{self, Outcome, Want};
use crate::error::Result;
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimRecord, Priority};
use crate::protocol::session::{Nonce, SessionId};
use crate::store::{ClaimQuery, SessionQuery, Store};

/// How many may wait for the keeper's place.
const STAND_BYS: u32 = 4;

/// Takes the keeper's turn, when it comes, until it is aborted.
pub(super) async fn run(session: &Arc<Session>) {
    let key = ClaimKey::new(claims::KEEPER);
    let mut suspects = Suspects::default();
    loop {
        // Short-lived clients never get here, so they cost the store nothing.
        session.env().sleep(session.env().jittered(session.timing().ttl)).await;
        if let Err(error) = take_turn(session, &key, &mut suspects).await {
            tracing::debug!(%error, "the keeper's turn ended early");
        }
    }
}

async fn take_turn(session: &Arc<Session>, key: &ClaimKey, suspects: &mut Suspects) -> Result<()> {
    let Some(record) = read(session, key).await? else { return stand_by(session, key).await };
    if record.waiters.len() < STAND_BYS as usize {
        return stand_by(session, key).await;
    }
    suspects.check(session, &record).await
}

/// Waits for the place and holds it, and observes everybody while first or second.
async fn stand_by(session: &Arc<Session>, key: &ClaimKey) -> Result<()> {
    let want = Want { wait: true, max_queue: STAND_BYS, priority: Priority::default() };
    let mut acquire = pin!(claims::acquire(session, key, &want));
    let hold = loop {
        tokio::select! {
            biased;
            outcome = &mut acquire => match outcome? {
                Outcome::Held(hold) => break hold,
                Outcome::Refused(_) => return Ok(()),
            },
            () = session.env().sleep(period(session)) => {
                let record = read(session, key).await?;
                let first = record.and_then(|r| r.waiters.first().copied());
                if first.is_some_and(|entry| entry.session == session.id()) {
                    observe_all(session).await?;
                }
            }
        }
    };
    failpoints::at(Point::KeeperGranted);
    tokio::select! {
        biased;
        _ = hold.lost() => Ok(()),
        observed = observe_for_ever(session) => observed,
        () = collector::run(session) => Ok(()),
    }
}

async fn observe_for_ever(session: &Arc<Session>) -> Result<()> {
    loop {
        observe_all(session).await?;
        session.env().sleep(period(session)).await;
    }
}

fn period(session: &Session) -> Duration {
    (session.timing().ttl / 15).max(Duration::from_secs(1))
}

async fn observe_all(session: &Arc<Session>) -> Result<()> {
    if mutants::on(Mutant::NoKeeper) {
        return Ok(());
    }
    let live = session.store().sessions(SessionQuery::Live).await?;
    observer::want(session, live.into_iter().map(|record| record.id));
    Ok(())
}

async fn read(session: &Arc<Session>, key: &ClaimKey) -> Result<Option<ClaimRecord>> {
    Ok(session.store().claims(ClaimQuery::Keys(vec![key.clone()])).await?.pop())
}

/// Those in the keeper's queue that had not renewed from one turn to the next. All of them may have died together,
/// and then nobody of theirs observes them; somebody outside must.
#[derive(Default)]
struct Suspects(BTreeMap<SessionId, Option<Nonce>>);

impl Suspects {
    async fn check(&mut self, session: &Arc<Session>, record: &ClaimRecord) -> Result<()> {
        let ids: Vec<SessionId> = record.holder.iter().chain(&record.waiters).map(|entry| entry.session).collect();
        let records = session.store().sessions(SessionQuery::Ids(ids.clone())).await?;
        let now: BTreeMap<_, _> =
            ids.iter().map(|id| (*id, records.iter().find(|r| r.id == *id).and_then(|r| r.nonce))).collect();
        let silent = now.iter().filter(|(id, nonce)| self.0.get(id) == Some(nonce)).map(|(id, _)| *id);
        observer::want(session, silent);
        self.0 = now;
        Ok(())
    }
}
