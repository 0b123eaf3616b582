//! Looking on: who leads, and when nobody does.

use std::fmt;

use super::{Election, Leader};
use crate::error::Result;

/// What an observer of an election is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaderEvent {
    /// Nobody leads: the leader resigned, handed over, was broken, or its session died.
    NoLeader,
    /// This one leads now, or has another value than before.
    Leader(Leader),
}

/// The story of an election, told one event after the other.
pub struct LeaderWatch {
    election: Election,
}

impl Election {
    /// Observes the election: the present state, then every change, always with [`LeaderEvent::NoLeader`] between two
    /// terms. The stream of changes is shared by everything that this client observes.
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn observe(&self) -> Result<LeaderWatch> {
        Ok(LeaderWatch { election: self.clone() })
    }
}

impl LeaderWatch {
    /// Waits for the next event. Goes on through outages of the store; after one, the story goes on with the state of then.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Closed` when the client is closed; `Forked`.
    pub async fn next(&self) -> Result<LeaderEvent> {
        todo!("comes with the stream of changes: {}", self.election.name)
    }
}

impl fmt::Debug for LeaderWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaderWatch({})", self.election.name)
    }
}
