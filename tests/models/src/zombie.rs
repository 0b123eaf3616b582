//! An acquire that the store sees after its own cancel, and the audit that finds it.
//!
//! Modelled: one client whose user gives up a first try and makes a second; its acquires, cancels and their replies,
//! delayed, reordered, doubled and lost; the audit, whose answer is old when it comes; a contender that takes what
//! is free and gives it back.
//!
//! Abstracted: both sessions live on (so that nothing but the audit cleans up), no time, no tokens; the contender's
//! own calls are atomic.
//!
//! Bounds: 2 tries, each message twice at most, 1 stay of the contender.

use std::collections::{BTreeMap, BTreeSet};

use coord_core::protocol::claim::{ClaimRecord, Step};
use stateright::{Model, Property};

use crate::world::{apply_claim, entry, holder, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Nobody looks for entries that nobody knows.
    NoAudit,
    /// The second try is sent as the first.
    AttemptReused,
    /// A cancel removes whatever the session has.
    CancelBySession,
    /// The audit removes what it does not see as held, though it was sent and is not yet answered.
    AuditForgetsPending,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Zombie {
    /// How many copies of a message may be under way.
    pub copies: u8,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// A message under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// The acquire of this attempt.
    Acquire(u64),
    /// Its reply: granted or waiting.
    Acquired(u64, bool),
    /// The release or cancel of this attempt.
    Remove(u64),
    /// Its acknowledgement.
    Removed(u64),
    /// The audit's answer: these attempts were in the record.
    Audited(BTreeSet<u64>),
}

/// What the client knows of its present try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// Sent, not answered.
    Pending(u64),
    /// In the queue.
    Waiting(u64),
    /// Held: the user works.
    Held(u64),
    /// Given up or given back; nothing is wanted now.
    Nothing,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    claim: Option<ClaimRecord>,
    network: BTreeMap<Message, u8>,
    local: Local,
    tries: u8,
    /// Attempts that are to be removed and whose removal is not acknowledged.
    removing: BTreeSet<u64>,
    contender: Contender,
}

/// The other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// Has not asked.
    Idle,
    /// Waits or holds, as the record says.
    Asked,
    /// Has given back.
    Done,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The user begins a try.
    Try,
    /// The user gives up or gives back.
    End,
    /// The acquire is sent again.
    Resend(u64),
    /// A removal is sent again.
    ResendRemove(u64),
    /// The store answers an audit.
    Audit,
    /// A message arrives.
    Deliver(Message),
    /// A message is lost.
    Lose(Message),
    /// The contender acquires.
    Contend,
    /// It releases.
    Yield,
}

const ME: u8 = 1;
const OTHER: u8 = 2;

impl Zombie {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn send(&self, world: &mut World, message: Message) {
        let copies = world.network.entry(message).or_insert(0);
        *copies = (*copies + 1).min(self.copies);
    }

    fn remove(&self, world: &mut World, attempt: u64) {
        world.removing.insert(attempt);
        self.send(world, Message::Remove(attempt));
    }

    fn deliver(&self, world: &mut World, message: Message) {
        match message {
            Message::Acquire(attempt) => {
                apply_claim(&mut world.claim, Step::acquire(entry(ME, attempt), true, 10, vec![]));
                let granted = holder(&world.claim) == Some(entry(ME, attempt));
                self.send(world, Message::Acquired(attempt, granted));
            }
            Message::Acquired(attempt, granted) => match world.local {
                Local::Pending(mine) | Local::Waiting(mine) if mine == attempt => {
                    world.local = if granted { Local::Held(mine) } else { Local::Waiting(mine) };
                }
                Local::Held(mine) if mine == attempt => {}
                _ if self.is(Mutant::NoAudit) => {}
                // A grant, or a place, that nobody here knows.
                _ => self.remove(world, attempt),
            },
            Message::Remove(attempt) => {
                let step = if self.is(Mutant::CancelBySession) {
                    Step::sweep(session(ME))
                } else {
                    Step::remove(entry(ME, attempt), vec![])
                };
                apply_claim(&mut world.claim, step);
                self.send(world, Message::Removed(attempt));
            }
            Message::Removed(attempt) => {
                world.removing.remove(&attempt);
            }
            Message::Audited(found) => {
                let known = match world.local {
                    Local::Pending(_) if self.is(Mutant::AuditForgetsPending) => None,
                    Local::Pending(mine) | Local::Waiting(mine) | Local::Held(mine) => Some(mine),
                    Local::Nothing => None,
                };
                for attempt in found.into_iter().filter(|attempt| Some(*attempt) != known) {
                    self.remove(world, attempt);
                }
            }
        }
    }

    fn mine(world: &World) -> BTreeSet<u64> {
        let all = world.claim.iter().flat_map(|r| r.holder.iter().chain(&r.waiters));
        all.filter(|e| e.session == session(ME)).map(|e| e.attempt).collect()
    }

    /// Nothing is under way, and nobody is going to do anything.
    fn quiet(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.actions(world, &mut actions);
        actions.is_empty()
    }
}

impl Model for Zombie {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            claim: None,
            network: BTreeMap::new(),
            local: Local::Nothing,
            tries: 0,
            removing: BTreeSet::new(),
            contender: Contender::Idle,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        match world.local {
            Local::Nothing if world.tries < 2 => actions.push(Action::Try),
            Local::Nothing => {}
            Local::Pending(attempt) => {
                actions.push(Action::Resend(attempt));
                actions.push(Action::End);
            }
            // The poll of what is waited for is the acquire, sent again.
            Local::Waiting(attempt) => {
                actions.push(Action::Resend(attempt));
                actions.push(Action::End);
            }
            Local::Held(_) => actions.push(Action::End),
        }
        for attempt in &world.removing {
            if !world.network.contains_key(&Message::Remove(*attempt)) {
                actions.push(Action::ResendRemove(*attempt));
            }
        }
        for message in world.network.keys() {
            actions.push(Action::Deliver(message.clone()));
            actions.push(Action::Lose(message.clone()));
        }
        let found = Self::mine(world);
        if !self.is(Mutant::NoAudit) && !found.is_empty() && !world.network.contains_key(&Message::Audited(found)) {
            actions.push(Action::Audit);
        }
        match world.contender {
            Contender::Idle => actions.push(Action::Contend),
            Contender::Asked if holder(&world.claim) == Some(entry(OTHER, 1)) => actions.push(Action::Yield),
            Contender::Asked | Contender::Done => {}
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Try => {
                world.tries += 1;
                let attempt = if self.is(Mutant::AttemptReused) { 1 } else { u64::from(world.tries) };
                world.local = Local::Pending(attempt);
                self.send(&mut world, Message::Acquire(attempt));
            }
            Action::End => {
                let (Local::Pending(attempt) | Local::Waiting(attempt) | Local::Held(attempt)) = world.local else {
                    return None;
                };
                world.local = Local::Nothing;
                self.remove(&mut world, attempt);
            }
            Action::Resend(attempt) => self.send(&mut world, Message::Acquire(attempt)),
            Action::ResendRemove(attempt) => self.send(&mut world, Message::Remove(attempt)),
            Action::Audit => {
                let found = Self::mine(&world);
                self.send(&mut world, Message::Audited(found));
            }
            Action::Deliver(message) => {
                take(&mut world.network, &message);
                self.deliver(&mut world, message);
            }
            Action::Lose(message) => take(&mut world.network, &message),
            Action::Contend => {
                world.contender = Contender::Asked;
                apply_claim(&mut world.claim, Step::acquire(entry(OTHER, 1), true, 10, vec![]));
            }
            Action::Yield => {
                world.contender = Contender::Done;
                apply_claim(&mut world.claim, Step::remove(entry(OTHER, 1), vec![]));
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BELIEF_IS_TRUE, |_, world: &World| match world.local {
                Local::Held(attempt) => holder(&world.claim) == Some(entry(ME, attempt)),
                _ => true,
            }),
            Property::always(NOTHING_LEFT, |model: &Self, world: &World| {
                Self::mine(world).is_empty() || !model.quiet(world)
            }),
            Property::sometimes("an acquire comes after its cancel", |_, world: &World| {
                world.local == Local::Nothing && world.removing.is_empty() && !Self::mine(world).is_empty()
            }),
            Property::sometimes("all is over, and both have held", |model: &Self, world: &World| {
                model.quiet(world) && world.contender == Contender::Done
            }),
        ]
    }
}

fn take(network: &mut BTreeMap<Message, u8>, message: &Message) {
    if let Some(copies) = network.get_mut(message) {
        *copies -= 1;
        if *copies == 0 {
            network.remove(message);
        }
    }
}

/// Who believes that it holds is the holder.
pub const BELIEF_IS_TRUE: &str = "who believes that it holds is the holder";

/// When all is quiet, no entry is left that nobody wants.
pub const NOTHING_LEFT: &str = "nothing is left behind";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Zombie {
        Zombie { copies: 1 + extra(), mutant }
    }

    #[test]
    fn a_zombie_is_found_and_nothing_else_is_taken() {
        holds("zombie", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        refuted("zombie, NoAudit", model(Some(Mutant::NoAudit)), NOTHING_LEFT);
        refuted("zombie, AttemptReused", model(Some(Mutant::AttemptReused)), BELIEF_IS_TRUE);
        refuted("zombie, CancelBySession", model(Some(Mutant::CancelBySession)), BELIEF_IS_TRUE);
        refuted("zombie, AuditForgetsPending", model(Some(Mutant::AuditForgetsPending)), BELIEF_IS_TRUE);
    }
}
