//! The functions of one client that want to run while it leads: they share one campaign, and each is called once in a
//! term.
//!
//! Invariants, each a property test below:
//! - a function is never called while an earlier call of it runs;
//! - no term begins while a call of an earlier one runs;
//! - a function that joins during a term is called in that term;
//! - after a failure nobody campaigns before the pause is over, and the pause grows up to its bound.
//!
//! The shape is Curator's leader selector: a call *is* leadership, and the end of the term waits for the end of the call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claim::Priority;
use crate::time::Timestamp;

/// One of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u64);

/// How a function wants to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What is published while it leads.
    pub value: String,
    /// How urgently.
    pub priority: Priority,
    /// A failed call does not end the term.
    pub keep_on_error: bool,
    /// The pause after the first failure in a row.
    pub min_pause: Duration,
    /// The longest pause.
    pub max_pause: Duration,
}

/// What the shared campaign asks for: the highest priority of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The priority.
    pub priority: Priority,
    /// Not before this moment.
    pub not_before: Timestamp,
}

/// All functions of one election in one client.
#[derive(Debug, Default)]
pub struct Rota {
    members: BTreeMap<MemberId, Member>,
    next: u64,
    /// A term has begun and not ended: calls may begin.
    leading: bool,
}

#[derive(Debug)]
struct Member {
    terms: Terms,
    call: Call,
    failures: u32,
    not_before: Timestamp,
    /// Gone as soon as its call has ended.
    leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Not in this term, or not any more.
    None,
    Due,
    Running,
}

impl Rota {
    /// Adds a function.
    pub fn join(&mut self, terms: Terms) -> MemberId {
        let id = MemberId(self.next);
        self.next += 1;
        let call = if self.leading { Call::Due } else { Call::None };
        let member = Member { terms, call, failures: 0, not_before: Timestamp::ZERO, leaving: false };
        self.members.insert(id, member);
        id
    }

    /// Takes a function away, when its call has ended.
    pub fn leave(&mut self, id: MemberId) {
        match self.members.get_mut(&id) {
            Some(member) if member.call == Call::Running => member.leaving = true,
            _ => {
                self.members.remove(&id);
            }
        }
    }

    /// What to campaign for; none when nobody wants to lead.
    pub fn plan(&self) -> Option<Plan> {
        let staying = || self.staying();
        let priority = staying().map(|member| member.terms.priority).max()?;
        let not_before = staying().map(|member| member.not_before).max()?;
        Some(Plan { priority, not_before })
    }

    /// The value to publish: that of the member that has been here longest.
    pub fn value(&self) -> Option<&str> {
        self.staying().next().map(|member| member.terms.value.as_str())
    }

    /// A term begins: everybody is to be called.
    pub fn begin(&mut self) {
        debug_assert!(!self.is_running(), "the calls of the last term have ended before");
        self.leading = true;
        for member in self.members.values_mut().filter(|member| !member.leaving) {
            member.call = Call::Due;
        }
    }

    /// The term is over: no call begins any more.
    pub fn end(&mut self) {
        self.leading = false;
        for member in self.members.values_mut().filter(|member| member.call == Call::Due) {
            member.call = Call::None;
        }
    }

    /// The call of this function begins, if it is due.
    pub fn take(&mut self, id: MemberId) -> bool {
        match self.members.get_mut(&id) {
            Some(member) if member.call == Call::Due => {
                member.call = Call::Running;
                true
            }
            _ => false,
        }
    }

    /// A call that has begun was never made: it is due as before, if the term goes on.
    pub fn put_back(&mut self, id: MemberId) {
        let leading = self.leading;
        if self.ended(id).is_some()
            && leading
            && let Some(member) = self.members.get_mut(&id)
        {
            member.call = Call::Due;
        }
    }

    /// The call has ended well. Not the end of the term: that is for the function to say.
    pub fn succeeded(&mut self, id: MemberId) {
        if let Some(member) = self.ended(id) {
            member.failures = 0;
        }
    }

    /// The call has ended, in whatever way, after its term: that says nothing about the function.
    pub fn overtaken(&mut self, id: MemberId) {
        self.ended(id);
    }

    /// The call has failed during its term. Returns whether the term is to end. `jitter` lengthens a pause a little.
    pub fn failed(&mut self, id: MemberId, now: Timestamp, jitter: impl Fn(Duration) -> Duration) -> bool {
        let Some(member) = self.ended(id).filter(|member| !member.terms.keep_on_error) else { return false };
        let doublings = member.failures.min(MAX_DOUBLINGS);
        member.failures += 1;
        let pause = member.terms.min_pause.saturating_mul(1 << doublings).min(member.terms.max_pause);
        member.not_before = now + jitter(pause);
        true
    }

    /// Whether a call runs.
    pub fn is_running(&self) -> bool {
        self.members.values().any(|member| member.call == Call::Running)
    }

    /// Whether this function is still here, or its call still runs.
    pub fn contains(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    /// Every function that is here.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.members.keys().copied()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn staying(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.leaving)
    }

    /// Ends the call of this member; returns the member if it stays.
    fn ended(&mut self, id: MemberId) -> Option<&mut Member> {
        let member = self.members.get_mut(&id)?;
        member.call = Call::None;
        if member.leaving {
            self.members.remove(&id);
            return None;
        }
        self.members.get_mut(&id)
    }
}

/// Beyond this the longest pause rules anyhow.
const MAX_DOUBLINGS: u32 = 20;

#[cfg(test)]
mod tests;
