//! The safety net under the notices: a lost one costs a second, never a hang.
//!
//! *Poll*: reads every claim that this session waits for, and now and then who is before all others there. *Audit*:
//! compares what the store says this session holds with what is known here, in both directions; a hold that the store no
//! longer has is lost, an entry that nobody here knows is given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Session, give_back, keeper, observer};
use crate::claims::{self, WaitingAttempt};
use crate::error::Result;
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimRecord};
use crate::protocol::session::SessionId;
use crate::store::{ClaimQuery, Store};

/// How many claims one read asks for.
const BATCH: usize = 500;

/// Polls, audits and takes the keeper's turn until it is aborted.
pub(super) async fn run(session: Arc<Session>) {
    tokio::join!(poll_for_ever(&session), audit_for_ever(&session), keeper::run(&session));
}

async fn poll_for_ever(session: &Arc<Session>) {
    let (ttl, env) = (session.timing().ttl, session.env());
    let period = (ttl / 6).max(Duration::from_secs(1));
    let mut next_look = env.now();
    loop {
        tokio::select! {
            biased;
            () = session.poll_wanted.notified() => {}
            () = env.sleep(env.jittered(period)) => {}
        }
        let unobserved = match poll(session).await {
            Ok(unobserved) => unobserved,
            Err(error) => {
                tracing::debug!(%error, "the claims that are waited for could not be read");
                continue;
            }
        };
        // A poll that finds nobody puts the look off for nobody: who comes to a queue of the dead has it at his first poll.
        if unobserved.is_empty() || env.now() < next_look {
            continue;
        }
        match look_past(session, unobserved).await {
            Ok(()) => next_look = env.now() + env.jittered(ttl),
            Err(error) => tracing::debug!(%error, "who is before others in a queue could not be looked after"),
        }
    }
}

/// Those at the head look after the sessions before them; whoever is behind makes sure, once per ttl, that the head is not
/// one of dead sessions only.
async fn look_past(session: &Arc<Session>, ids: BTreeSet<SessionId>) -> Result<()> {
    let ids: Vec<SessionId> = ids.into_iter().filter(|id| *id != session.id()).collect();
    for batch in ids.chunks(BATCH) {
        observer::clear_up_after(session, batch.to_vec()).await?;
    }
    Ok(())
}

/// Returns the sessions at the heads of those queues in which this session is too far behind to observe them.
async fn poll(session: &Arc<Session>) -> Result<BTreeSet<SessionId>> {
    let mut unobserved = BTreeSet::new();
    if mutants::on(Mutant::NoPoll) {
        return Ok(unobserved);
    }
    let waiting = session.claims().waiting_since(session.env().now());
    let mut unclear = None;
    for batch in waiting.chunks(BATCH) {
        let keys = batch.iter().map(|attempt| attempt.key.clone()).collect();
        let records = session.store().claims(ClaimQuery::Keys(keys)).await?;
        failpoints::at(Point::PollRead);
        let records: BTreeMap<ClaimKey, ClaimRecord> = records.into_iter().map(|r| (r.key.clone(), r)).collect();
        for attempt in batch {
            // What is wrong with one claim is for those who wait for it: the others are polled all the same.
            match settle(session, attempt, records.get(&attempt.key), &mut unobserved).await {
                Err(error) if error.ambiguous() => unclear = unclear.or(Some(error)),
                Err(error) => session.claims().fail(&attempt.entry, error),
                Ok(()) => {}
            }
        }
    }
    unclear.map_or(Ok(unobserved), Err)
}

async fn settle(
    session: &Arc<Session>,
    attempt: &WaitingAttempt,
    record: Option<&ClaimRecord>,
    unobserved: &mut BTreeSet<SessionId>,
) -> Result<()> {
    match record {
        Some(record) if record.holder == Some(attempt.entry) => {
            session.claims().on_granted(session, &attempt.key, &attempt.entry, record.token);
            if record.breaking == Some(attempt.entry) {
                session.claims().on_breaking(session, &attempt.entry, record.token);
            }
            Ok(())
        }
        Some(record) if record.waiters.contains(&attempt.entry) => {
            let view = record.view(Some(&attempt.entry));
            session.claims().on_queued(&attempt.entry, session.env().now(), &view);
            if !session.observe_queue(&attempt.entry, &view) {
                unobserved.extend(observer::before_all(&view));
            }
            Ok(())
        }
        // The read may be older than the queue's acknowledgement, or the record was lost: asking again is harmless.
        _ => claims::ask_again(session, attempt, session.known_dead()).await,
    }
}

async fn audit_for_ever(session: &Arc<Session>) {
    let period = session.timing().ttl / 3;
    let mut asked = false;
    loop {
        tokio::select! {
            biased;
            () = session.audit_wanted.notified() => asked = true,
            () = session.env().sleep(session.env().jittered(period)) => {}
        }
        // A late duplicate can appear only where something was asked for.
        if !asked && session.claims().is_empty() {
            continue;
        }
        match audit(session).await {
            Ok(()) => asked = false,
            Err(error) => {
                tracing::debug!(%error, "the audit could not read the store");
                session.env().sleep(session.env().jittered(AUDIT_PAUSE)).await;
            }
        }
    }
}

/// After a failed audit, or one that was asked for, the next is at least this much later.
const AUDIT_PAUSE: Duration = Duration::from_millis(200);

async fn audit(session: &Arc<Session>) -> Result<()> {
    if mutants::on(Mutant::NoAudit) {
        return Ok(());
    }
    let began = session.env().now();
    let held = session.store().claims(ClaimQuery::HeldBy(session.id())).await?;
    failpoints::at(Point::AuditRead);
    for (key, entry) in session.claims().audit(session, began, &held) {
        give_back(session, key, entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
