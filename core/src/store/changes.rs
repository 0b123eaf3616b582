//! What a store tells those who look on: a snapshot, then every change, in the order in which it was made.
//!
//! Invariants, which every store keeps and the conformance suite looks at:
//! - the stream begins with a [`Change::Snapshot`]: all that is of [`Interest`], at one moment;
//! - what follows is every change since that moment, each with the record as that change left it, and in the order of
//!   the commits for each record; nothing is merged and nothing left out;
//! - after an interruption, of which [`Change::Interrupted`] tells, a snapshot comes again. It goes on where the stream
//!   was interrupted if the store still has the history, so that no change is lost; otherwise it is the present state.
//!
//! Renewals are no changes, and neither is what happens in a claim's queue.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures::Stream;

use crate::protocol::claim::{ClaimKey, ClaimRecord, Entry};
use crate::protocol::session::{SessionId, SessionRecord, Vitality};
use crate::time::WallTime;

/// What somebody wants to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Claims whose key begins with one of these texts.
    pub claims: Vec<String>,
    /// Sessions: opened, ended, with other providers.
    pub sessions: bool,
}

impl Interest {
    /// Whether this claim is of interest.
    pub fn in_claim(&self, key: &ClaimKey) -> bool {
        self.claims.iter().any(|prefix| key.as_str().starts_with(prefix.as_str()))
    }
}

/// Who holds a claim: what others may want to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimState {
    /// Its key.
    pub key: ClaimKey,
    /// The holder.
    pub holder: Option<Entry>,
    /// The token of the latest grant.
    pub token: i64,
    /// When it was granted.
    pub granted_at: WallTime,
    /// What the holder has published.
    pub value: Option<String>,
}

impl From<&ClaimRecord> for ClaimState {
    fn from(record: &ClaimRecord) -> Self {
        Self {
            key: record.key.clone(),
            holder: record.holder,
            token: record.token,
            granted_at: record.granted_at,
            // What a former holder had to say is nobody's word.
            value: record.value.clone().filter(|_| record.holder.is_some()),
        }
    }
}

/// All that is of interest, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The claims of interest that somebody holds, and perhaps some that are free, in the order of their keys.
    pub claims: Vec<ClaimState>,
    /// The sessions that are live, with what they provide, in the order of their ids. Empty if they are of no interest.
    pub sessions: Vec<SessionRecord>,
}

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The store cannot be followed at this moment; what comes next is a snapshot.
    Interrupted,
    /// All that is of interest.
    Snapshot(Snapshot),
    /// A claim was granted, freed or collected, or its holder has published something.
    Claim(ClaimState),
    /// A session was opened, has ended, or provides something else. Its nonce and its latest renewal may be old.
    Session(SessionRecord),
}

/// Changes, for ever: the store reconnects behind it. Ends only when the store is closed.
pub type Changes = Pin<Box<dyn Stream<Item = Change> + Send>>;

/// What is known of the store: a snapshot, kept up to date by the changes after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    claims: BTreeMap<ClaimKey, ClaimState>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRecord>,
}

impl Mirror {
    /// Takes one message of the stream in.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Interrupted => {}
            Change::Snapshot(snapshot) => *self = Self::from(snapshot),
            Change::Claim(claim) if claim.holder.is_none() => {
                self.claims.remove(&claim.key);
            }
            Change::Claim(claim) => {
                self.claims.insert(claim.key.clone(), claim.clone());
            }
            Change::Session(session) if session.vitality == Vitality::Dead => {
                self.sessions.remove(&session.id);
            }
            Change::Session(session) => {
                self.sessions.insert(session.id, session.clone());
            }
        }
    }

    /// What of it is of interest.
    pub(crate) fn snapshot(&self, interest: &Interest) -> Snapshot {
        Snapshot {
            claims: self.claims.values().filter(|claim| interest.in_claim(&claim.key)).cloned().collect(),
            sessions: if interest.sessions { self.sessions.values().cloned().collect() } else { Vec::new() },
        }
    }
}

impl From<&Snapshot> for Mirror {
    fn from(snapshot: &Snapshot) -> Self {
        let held = snapshot.claims.iter().filter(|claim| claim.holder.is_some());
        Self {
            claims: held.map(|claim| (claim.key.clone(), claim.clone())).collect(),
            sessions: snapshot.sessions.iter().map(|session| (session.id, session.clone())).collect(),
        }
    }
}
