//! The story of an election, as somebody who watches its claim tells it: who leads, and when nobody does.
//!
//! Invariants, each a property test below:
//! - the story begins with the present state;
//! - between two terms there is always a moment without a leader, and never two such moments in a row;
//! - terms come in the order of their tokens, and what is older than what was told is ignored;
//! - after a gap it goes on with the state of then: what happened in between is left out, nothing is made up. The same
//!   for an observer that has fallen behind by more than a thousand events.
//!
//! etcd's observers never hear that nobody leads; here that is half of the story.

use std::collections::VecDeque;

use super::claim::{ClaimRecord, Entry};
use super::session::SessionId;
use crate::mutants::{self, Mutant};
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
    /// What was taken last.
    heard: Option<Told>,
    heard_before: Option<Told>,
}

impl Story {
    /// The claim is held: as a change left it, or as it was read at some moment.
    pub fn on_leader(&mut self, tenure: Tenure) {
        if tenure.token <= self.over {
            return;
        }
        match self.leader() {
            Some(leader) if tenure.token < leader.token => return,
            Some(leader) if tenure.token > leader.token && !mutants::on(Mutant::StoryWithoutPause) => {
                let token = leader.token;
                self.end(token);
            }
            // A term's value is never taken back, so a state without one is older.
            Some(leader) if tenure.value.is_none() || tenure.value == leader.value => return,
            Some(_) | None => {}
        }
        self.tell(Told::Leader(tenure));
    }

    /// The claim is free after the term of this token, or there is none of it.
    pub fn on_free(&mut self, token: Option<i64>) {
        // A free claim says that the term of its token is over; an older one says nothing.
        if self.leader().is_none_or(|leader| token.is_none_or(|token| leader.token <= token)) {
            self.end(token.unwrap_or(self.over));
        }
    }

    /// This session is dead: if it leads, nobody does.
    pub fn on_dead(&mut self, session: SessionId) {
        if let Some(token) = self.leader().filter(|leader| leader.holder.session == session).map(|l| l.token) {
            self.end(token);
        }
    }

    /// These sessions live, and no other: a leader that is not among them is none.
    pub fn on_living(&mut self, lives: impl Fn(SessionId) -> bool) {
        if let Some(session) = self.leader().map(|leader| leader.holder.session).filter(|id| !lives(*id)) {
            self.on_dead(session);
        }
    }

    /// What is to be told next.
    pub fn take(&mut self) -> Option<Told> {
        let told = self.untold.pop_front()?;
        self.heard_before = self.heard.replace(told.clone());
        Some(told)
    }

    /// Puts back what was taken last and could not be told.
    pub fn put_back(&mut self, told: Told) {
        self.heard = self.heard_before.take();
        self.untold.push_front(told);
    }

    /// Whether anything is to be told.
    pub fn has_news(&self) -> bool {
        !self.untold.is_empty()
    }

    fn end(&mut self, token: i64) {
        let leader = self.leader().map_or(0, |leader| leader.token);
        self.over = self.over.max(token).max(leader);
        if self.last != Some(Told::NoLeader) {
            self.tell(Told::NoLeader);
        }
    }

    /// Who leads as far as is known, told or not.
    pub fn leader(&self) -> Option<&Tenure> {
        match &self.last {
            Some(Told::Leader(tenure)) => Some(tenure),
            _ => None,
        }
    }

    fn tell(&mut self, told: Told) {
        self.last = Some(told.clone());
        if self.untold.len() >= MAX_UNTOLD {
            self.skip_to(told);
        } else {
            self.untold.push_back(told);
        }
    }

    /// Leaves out what whoever is too slow has not heard yet, and goes on with the present.
    fn skip_to(&mut self, present: Told) {
        self.untold.clear();
        let term = |told: &Told| match told {
            Told::Leader(tenure) => Some(tenure.token),
            Told::NoLeader => None,
        };
        let heard = self.heard.as_ref();
        if let (Some(before), Some(now)) = (heard.and_then(term), term(&present))
            && before != now
        {
            self.untold.push_back(Told::NoLeader);
        }
        if heard != Some(&present) {
            self.untold.push_back(present);
        }
    }
}

/// How many events are kept for an observer that does not take them.
const MAX_UNTOLD: usize = 1_024;

#[cfg(test)]
mod tests;
