//! Taking a free claim by the short form of MongoDB's store, which the server cannot tell from a copy that comes late.
//!
//! Modelled: one client whose user tries three times, by the short form where it has seen the claim free; requests that are
//! answered, lost, or held up and applied whenever it pleases the world, also after the client has given up waiting for
//! them; the cancel, which first makes what it cancels too late; a contender that takes and gives back; the removal of a
//! free record, and its return.
//!
//! Abstracted: requests of the whole form have a number, so none is applied after one that was sent later; sessions live
//! on; no time; the contender's own calls are atomic.
//!
//! Bounds: 3 tries, 3 answers that are not waited for, 1 stay of the contender, 1 removal.

use std::collections::BTreeSet;

use coord_core::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep, Step, StoreNow};
use coord_core::time::WallTime;
use stateright::{Model, Property};

use crate::world::{apply_claim_at, entry, holder};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The cancel trusts that what was not answered does not come.
    NoVoid,
    /// It makes sure of that only after it has removed the entry.
    VoidLast,
    /// The short form takes whatever is free, whichever token it had.
    AnyToken,
    /// The short form leaves the token as it was.
    TokenStays,
}

/// The model.
#[derive(Clone, Debug)]
pub struct ShortForm {
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// A request under way. The answer comes back in the step that applies it, if the client still waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// The short form: attempt, and the token that was seen.
    Take(u64, i64),
    /// The whole step of this attempt.
    Acquire(u64),
    /// No taking that asked for this token is to come any more.
    Void(u64, i64),
    /// The whole removal of this attempt.
    Remove(u64),
}

/// What the client does for its present attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// Nothing; the token of the claim when it was last seen free.
    Idle(Option<i64>),
    /// It waits for the answer to this request; a taking that asked for this token was not answered.
    Asking(Request, Option<i64>),
    /// In the queue.
    Waiting,
    /// The user works.
    Held,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    claim: Option<ClaimRecord>,
    /// The highest token of all grants, for the floor of a record that is made anew.
    highest: i64,
    /// Whether a grant had a token that was not above all before.
    repeated: bool,
    network: BTreeSet<Request>,
    local: Local,
    attempt: u64,
    resent: u8,
    /// No request with a number of these attempts, and of which kind, is accepted any more.
    passed: BTreeSet<Request>,
    contender: u8,
    collected: bool,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The user begins a try.
    Try,
    /// The user gives up or gives back.
    End,
    /// A request arrives.
    Deliver(Request),
    /// A request is lost.
    Lose(Request),
    /// The connection breaks: the client waits for its answer no longer. What was sent may still arrive.
    Break,
    /// The grant of what was waited for is told.
    Tell,
    /// The contender takes the claim, or waits for it.
    Contend,
    /// It leaves.
    Yield,
    /// The record of a free claim is removed.
    Collect,
}

const ME: u8 = 1;
const OTHER: u8 = 2;
const RESENDS: u8 = 3;

impl ShortForm {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn ask(world: &mut World, request: Request, unanswered: Option<i64>) {
        world.network.insert(request);
        world.local = Local::Asking(request, unanswered);
    }

    /// What a cancel or a release sends first.
    fn end(&self, world: &mut World, unanswered: Option<i64>) {
        let attempt = world.attempt;
        match unanswered {
            Some(last) if !self.is(Mutant::NoVoid) && !self.is(Mutant::VoidLast) => {
                Self::ask(world, Request::Void(attempt, last), unanswered);
            }
            _ => Self::ask(world, Request::Remove(attempt), unanswered),
        }
    }

    fn whole(world: &mut World, step: Step) {
        let now = StoreNow { wall: WallTime(0), floor: world.highest + 1 };
        let before = world.claim.as_ref().map_or(0, |record| record.token);
        apply_claim_at(&mut world.claim, ClaimStep::Step(step), now);
        let after = world.claim.as_ref().map_or(0, |record| record.token);
        if after > before {
            Self::granted(world, after);
        }
    }

    fn granted(world: &mut World, token: i64) {
        world.repeated |= token <= world.highest;
        world.highest = world.highest.max(token);
    }

    fn free_since(&self, world: &World, last: i64) -> bool {
        let is_free = |record: &ClaimRecord| record.holder.is_none() && record.waiters.is_empty();
        world
            .claim
            .as_ref()
            .is_some_and(|record| is_free(record) && (record.token == last || self.is(Mutant::AnyToken)))
    }

    fn deliver(&self, world: &mut World, request: Request) {
        match request {
            Request::Take(attempt, last) => {
                let applies = self.free_since(world, last);
                if applies {
                    let raised = i64::from(!self.is(Mutant::TokenStays));
                    let record = world.claim.as_mut().expect("a record that is free");
                    record.holder = Some(entry(ME, attempt));
                    record.token += raised;
                    let token = record.token;
                    Self::granted(world, token);
                }
                self.answered(world, request, |_, world| match applies {
                    true => world.local = Local::Held,
                    false => Self::ask(world, Request::Acquire(attempt), None),
                });
            }
            Request::Acquire(attempt) => {
                if world.passed.contains(&request) {
                    return;
                }
                Self::whole(world, Step::acquire(entry(ME, attempt), true, 10, vec![]));
                self.answered(world, request, |_, world| {
                    let held = holder(&world.claim) == Some(entry(ME, attempt));
                    world.local = if held { Local::Held } else { Local::Waiting };
                });
            }
            Request::Void(attempt, last) => {
                if self.free_since(world, last) {
                    world.claim.as_mut().expect("a record that is free").token += 1;
                }
                self.answered(world, request, |model, world| match model.mutant {
                    Some(Mutant::VoidLast) => Self::over(world),
                    _ => Self::ask(world, Request::Remove(attempt), None),
                });
            }
            Request::Remove(attempt) => {
                world.passed.insert(Request::Acquire(attempt));
                Self::whole(world, Step::remove(entry(ME, attempt), vec![]));
                let Local::Asking(_, unanswered) = world.local else { return };
                self.answered(world, request, |model, world| match unanswered {
                    Some(last) if model.is(Mutant::VoidLast) => Self::ask(world, Request::Void(attempt, last), None),
                    _ => Self::over(world),
                });
            }
        }
    }

    /// Goes on, if the client waits for the answer to this request.
    fn answered(&self, world: &mut World, request: Request, then: impl FnOnce(&Self, &mut World)) {
        if matches!(world.local, Local::Asking(asked, _) if asked == request) {
            then(self, world);
        }
    }

    fn over(world: &mut World) {
        let free = world.claim.as_ref().filter(|record| record.holder.is_none()).map(|record| record.token);
        world.local = Local::Idle(free);
    }

    /// The client has nothing to do with this attempt any more.
    fn done(world: &World, attempt: u64) -> bool {
        attempt < world.attempt || matches!(world.local, Local::Idle(_))
    }
}

impl Model for ShortForm {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let record = |token| ClaimRecord { token, ..ClaimRecord::new(ClaimKey::new("l")) };
        vec![World {
            claim: Some(record(1)),
            highest: 1,
            repeated: false,
            network: BTreeSet::new(),
            local: Local::Idle(Some(1)),
            attempt: 0,
            resent: 0,
            passed: BTreeSet::new(),
            contender: 0,
            collected: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        match world.local {
            Local::Idle(_) if world.attempt < 3 => actions.push(Action::Try),
            Local::Idle(_) => {}
            Local::Asking(..) if world.resent < RESENDS => actions.push(Action::Break),
            Local::Asking(..) => {}
            Local::Waiting | Local::Held => actions.push(Action::End),
        }
        if world.local == Local::Waiting && holder(&world.claim) == Some(entry(ME, world.attempt)) {
            actions.push(Action::Tell);
        }
        for request in &world.network {
            actions.push(Action::Deliver(*request));
            actions.push(Action::Lose(*request));
        }
        match world.contender {
            0 => actions.push(Action::Contend),
            1 => actions.push(Action::Yield),
            _ => {}
        }
        if !world.collected && world.claim.as_ref().is_some_and(|r| r.holder.is_none() && r.waiters.is_empty()) {
            actions.push(Action::Collect);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Try => {
                world.attempt += 1;
                let attempt = world.attempt;
                match world.local {
                    Local::Idle(Some(seen)) => Self::ask(&mut world, Request::Take(attempt, seen), None),
                    _ => Self::ask(&mut world, Request::Acquire(attempt), None),
                }
            }
            Action::End => self.end(&mut world, None),
            Action::Break => {
                world.resent += 1;
                let Local::Asking(request, unanswered) = world.local else { return None };
                match request {
                    Request::Take(attempt, seen) => Self::ask(&mut world, Request::Acquire(attempt), Some(seen)),
                    // The user has had enough.
                    Request::Acquire(_) => self.end(&mut world, unanswered),
                    Request::Void(..) | Request::Remove(_) => Self::ask(&mut world, request, unanswered),
                }
            }
            Action::Deliver(request) => {
                world.network.remove(&request);
                self.deliver(&mut world, request);
            }
            Action::Lose(request) => {
                world.network.remove(&request);
            }
            Action::Tell => world.local = Local::Held,
            Action::Contend => {
                world.contender = 1;
                Self::whole(&mut world, Step::acquire(entry(OTHER, 1), true, 10, vec![]));
            }
            Action::Yield => {
                world.contender = 2;
                Self::whole(&mut world, Step::remove(entry(OTHER, 1), vec![]));
            }
            Action::Collect => {
                world.collected = true;
                world.highest = world.highest.max(world.claim.take()?.token);
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_AFTER_ITS_CANCEL, |_, world: &World| {
                (1..=world.attempt)
                    .filter(|attempt| Self::done(world, *attempt))
                    .all(|attempt| holder(&world.claim) != Some(entry(ME, attempt)))
            }),
            Property::always(BELIEF_IS_TRUE, |_, world: &World| {
                world.local != Local::Held || holder(&world.claim) == Some(entry(ME, world.attempt))
            }),
            Property::always(TOKENS_GROW, |_, world: &World| !world.repeated),
            Property::sometimes("a taking is still under way after its cancel", |_, world: &World| {
                world.network.iter().any(|r| matches!(r, Request::Take(attempt, _) if Self::done(world, *attempt)))
            }),
            Property::sometimes("the second try takes by the short form", |_, world: &World| {
                world.attempt == 2 && world.local == Local::Held && world.resent == 0 && world.passed.len() == 1
            }),
        ]
    }
}

/// What was cancelled is not granted.
pub const NEVER_AFTER_ITS_CANCEL: &str = "no attempt holds after its cancel or release";

/// Who believes that it holds is the holder.
pub const BELIEF_IS_TRUE: &str = "who believes that it holds is the holder";

/// Tokens grow with grants.
pub const TOKENS_GROW: &str = "each grant has a token above all before";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{holds, refuted};

    #[test]
    fn what_is_cancelled_does_not_come() {
        holds("short form", ShortForm { mutant: None });
    }

    #[test]
    fn mutants_are_refuted() {
        let refute = |mutant, property| refuted("short form", ShortForm { mutant: Some(mutant) }, property);
        refute(Mutant::NoVoid, NEVER_AFTER_ITS_CANCEL);
        refute(Mutant::VoidLast, NEVER_AFTER_ITS_CANCEL);
        refute(Mutant::AnyToken, NEVER_AFTER_ITS_CANCEL);
        refute(Mutant::TokenStays, TOKENS_GROW);
    }
}
