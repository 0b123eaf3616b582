//! The story of an election, as somebody who watches its claim tells it: who leads, and when nobody does.
//!
//! Invariants, each a property test below:
//! - the story begins with the present state;
//! - between two terms there is always a moment without a leader, and never two such moments in a row;
//! - terms come in the order of their tokens, and what is older than what was told is ignored;
//! - after a gap it goes on with the state of then: what happened in between is left out, nothing is made up.
//!
//! etcd's observers never hear that nobody leads; here that is half of the story.

use std::collections::VecDeque;

use super::claim::{ClaimRecord, Entry};
use super::session::SessionId;
use crate::time::WallTime;

/// One leader's term, as the record of the claim shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Who leads.
    pub holder: Entry,
    /// The token of the term.
    pub token: i64,
    /// When it began, by the store's date; for people.
    pub since: WallTime,
    /// What the leader has published, once it has.
    pub value: Option<String>,
}

impl Tenure {
    /// The term that a record shows, if somebody holds the claim.
    pub fn of(record: &ClaimRecord) -> Option<Self> {
        let holder = record.holder?;
        Some(Self { holder, token: record.token, since: record.granted_at, value: record.value.clone() })
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody leads.
    NoLeader,
    /// This one leads, or has another value than before.
    Leader(Tenure),
}

/// What was told last, and what is still to be told.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// What was told last; none before the beginning.
    last: Option<Told>,
    /// No term up to this token can begin any more.
    over: i64,
    untold: VecDeque<Told>,
}

impl Story {
    /// A committed state of the claim, in the order of its changes, or read at a moment of its own.
    pub fn on_record(&mut self, record: Option<&ClaimRecord>) {
        match record.and_then(Tenure::of) {
            Some(tenure) => self.on_leader(tenure),
            None => {
                let token = record.map_or(self.over, |record| record.token);
                // A free claim says that the term of its token is over; an older one says nothing.
                if self.leader().is_none_or(|leader| record.is_none() || leader.token <= token) {
                    self.end(token);
                }
            }
        }
    }

    /// This session is dead: if it leads, nobody does.
    pub fn on_dead(&mut self, session: SessionId) {
        if let Some(token) = self.leader().filter(|leader| leader.holder.session == session).map(|l| l.token) {
            self.end(token);
        }
    }

    /// What is to be told next.
    pub fn next(&mut self) -> Option<Told> {
        self.untold.pop_front()
    }

    /// Whether anything is to be told.
    pub fn has_news(&self) -> bool {
        !self.untold.is_empty()
    }

    fn on_leader(&mut self, tenure: Tenure) {
        if tenure.token <= self.over {
            return;
        }
        match self.leader() {
            Some(leader) if tenure.token < leader.token => return,
            Some(leader) if tenure.token == leader.token => {
                // A term's value is never taken back, so a state without one is older.
                if tenure.value.is_none() || tenure.value == leader.value {
                    return;
                }
            }
            Some(leader) => {
                let token = leader.token;
                self.end(token);
            }
            None => {}
        }
        self.tell(Told::Leader(tenure));
    }

    fn end(&mut self, token: i64) {
        let leader = self.leader().map_or(0, |leader| leader.token);
        self.over = self.over.max(token).max(leader);
        if self.last != Some(Told::NoLeader) {
            self.tell(Told::NoLeader);
        }
    }

    fn leader(&self) -> Option<&Tenure> {
        match &self.last {
            Some(Told::Leader(tenure)) => Some(tenure),
            _ => None,
        }
    }

    fn tell(&mut self, told: Told) {
        self.last = Some(told.clone());
        self.untold.push_back(told);
    }
}

#[cfg(test)]
mod tests;
