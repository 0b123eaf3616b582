//! One driver session for an acquire and for its cancel, and for all values that one holder publishes.
//!
//! A request can outlive our wait for it: held up on a server that was frozen, it could be applied after its own
//! cancel, and the claim would belong to an entry that nobody knows. The server refuses a request of a session
//! in which a later one has begun (`TransactionTooOld`). So all requests for one entry go through one driver
//! session, one after the other, from the acquire until an answer is there, and again for the cancel.
//!
//! An acquire that was answered needs its lane no longer: a late copy finds its recorded result. What a lane cannot
//! cover (a copy of a request that changed nothing, a server session that expired after half an hour) is found by
//! the core's audit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mongodb::{Client, ClientSession, bson};

use crate::protocol::claim::{ClaimStep, Entry};
use crate::time::Timestamp;

/// What at most one request uses at a time.
pub(super) type Lane = Arc<tokio::sync::Mutex<Slot>>;

/// What the requests of one entry share.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// None until the first request.
    session: Option<ClientSession>,
    /// A taking in its short form (see `quick`) that was not answered: the token that it asked for.
    pub(super) unanswered: Option<i64>,
}

impl Slot {
    /// The driver session, begun on its first use.
    pub(super) async fn session(&mut self, client: &Client) -> mongodb::error::Result<&mut ClientSession> {
        match &mut self.session {
            Some(session) => Ok(session),
            none => Ok(none.insert(client.start_session().await?)),
        }
    }

    /// The operation time that the servers have told it.
    pub(super) fn operation_time(&self) -> Option<bson::Timestamp> {
        self.session.as_ref()?.operation_time()
    }
}

/// The lanes of entries whose last request has no answer yet.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<Entry, (Lane, Timestamp)>>);

impl Lanes {
    /// The lane for this step: that of the entry which it adds or which publishes (kept from now on), or which it removes
    /// (if there is one).
    pub(super) fn enter(&self, step: &ClaimStep, now: Timestamp) -> Lane {
        let (keep, remove) = match step {
            ClaimStep::Step(step) => (step.add, step.remove.as_slice()),
            ClaimStep::Publish { holder, .. } => (Some(*holder), [].as_slice()),
            _ => return Lane::default(),
        };
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = keep {
            if lanes.len() >= TIDY_ABOVE {
                lanes.retain(|_, (_, since)| now.since(*since) < KEPT);
            }
            return Arc::clone(&lanes.entry(entry).or_insert_with(|| (Lane::default(), now)).0);
        }
        remove.iter().find_map(|entry| lanes.get(entry)).map(|(lane, _)| Arc::clone(lane)).unwrap_or_default()
    }

    /// The step was answered: its entry's lane has served, unless another request waits in it.
    pub(super) fn leave(&self, step: &ClaimStep, lane: &Lane) {
        let served: Vec<Entry> = match step {
            ClaimStep::Step(step) => step.add.iter().chain(&step.remove).copied().collect(),
            ClaimStep::Publish { holder, .. } => vec![*holder],
            _ => return,
        };
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &served {
            // A waiting request has a handle of its own, beside ours and the map's.
            let unused = |(known, _): &(Lane, _)| Arc::ptr_eq(known, lane) && Arc::strong_count(lane) <= 2;
            if lanes.get(entry).is_some_and(unused) {
                lanes.remove(entry);
            }
        }
    }

    /// Gives every driver session back.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A server forgets a session after half an hour without use.
const KEPT: std::time::Duration = std::time::Duration::from_secs(30 * 60);

/// Lanes of unanswered requests are few; beyond this number the old ones are looked for.
const TIDY_ABOVE: usize = 1_024;
