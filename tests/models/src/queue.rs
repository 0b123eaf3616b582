//! A holder, three waiters and one who only tries, any two of whom die at any moment.
//!
//! Modelled: the claim by the code itself; deaths of holder and waiters; whoever is involved and alive clears the
//! dead away as far as it observes them (the holder and the head of the queue); a try that knows of the dead.
//!
//! Abstracted: how a death is proven (other models), messages (each step is atomic; the other models delay them).
//!
//! Bounds: 4 claimants that claim once each, 2 deaths, 1 try.

use std::collections::BTreeSet;

use coord_core::protocol::claim::{ClaimRecord, HEAD, Step};
use stateright::{Model, Property};

use crate::world::{apply_claim, entry, holder, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A release frees the claim and leaves it to the waiters to notice.
    NoHandOver,
    /// A try looks only at the holder, not at the queue.
    TryQueues,
    /// Only the first waiter observes, and only the holder.
    OneObserver,
    /// A waiter that asks again goes to the end of the queue.
    ResendRequeues,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Queue {
    /// How many want the claim.
    pub claimants: u8,
    /// How many of them may die.
    pub deaths: usize,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    claim: Option<ClaimRecord>,
    /// Who has asked, in the order in which the store saw it.
    arrived: Vec<u8>,
    /// Who has had the claim, in order.
    granted: Vec<u8>,
    dead: BTreeSet<u8>,
    /// Who has released.
    done: BTreeSet<u8>,
    tried: bool,
    overtaken: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// This one asks, or asks again.
    Acquire(u8),
    /// The holder releases, knowing these to be dead.
    Release(u8),
    /// This one dies.
    Die(u8),
    /// The first clears the second away.
    Sweep(u8, u8),
    /// The one who does not wait tries, knowing of all the dead.
    Try,
    /// He was granted it and gives it back.
    Return,
}

const TRIER: u8 = 9;

impl Queue {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn step(&self, world: &mut World, step: Step) {
        let before = world.claim.clone();
        let no_hand_over = self.is(Mutant::NoHandOver) && step.add.is_none() && !step.remove.is_empty();
        let try_queues = self.is(Mutant::TryQueues) && step.add == Some(entry(TRIER, 1));
        let freed = try_queues && holder(&before).is_some_and(|h| step.dead.contains(&h.session));
        let step = if freed { Step { wait: true, ..step } } else { step };
        apply_claim(&mut world.claim, step);
        if let (true, Some(record), Some(old)) = (no_hand_over, world.claim.as_mut(), before) {
            record.holder = None;
            record.waiters = old.waiters;
        }
        let Some(now) = holder(&world.claim) else { return };
        let granted = (0..self.claimants).find(|who| now == entry(*who, 1) && !world.granted.contains(who));
        let (Some(who), Some(record)) = (granted, &world.claim) else { return };
        let place = |of: u8| world.arrived.iter().position(|w| *w == of);
        world.overtaken |=
            (0..self.claimants).any(|other| record.waiters.contains(&entry(other, 1)) && place(other) < place(who));
        world.granted.push(who);
    }

    /// Whether this one looks after that one.
    fn observes(&self, world: &World, who: u8, other: u8) -> bool {
        let Some(record) = &world.claim else { return false };
        if self.is(Mutant::OneObserver) {
            let first = record.waiters.first().is_some_and(|w| w.session == session(who));
            return first && record.holder.is_some_and(|h| h.session == session(other));
        }
        let head = record.waiters.iter().take(HEAD);
        let involved = |of: u8| record.holder.iter().chain(head.clone()).any(|e| e.session == session(of));
        involved(who) && involved(other)
    }
}

impl Model for Queue {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            claim: None,
            arrived: Vec::new(),
            granted: Vec::new(),
            dead: BTreeSet::new(),
            done: BTreeSet::new(),
            tried: false,
            overtaken: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for who in (0..self.claimants).filter(|who| !world.dead.contains(who)) {
            let involved = world.claim.as_ref().is_some_and(|r| r.involves(&entry(who, 1)));
            if !world.arrived.contains(&who) || involved {
                actions.push(Action::Acquire(who));
            }
            if holder(&world.claim) == Some(entry(who, 1)) {
                actions.push(Action::Release(who));
            }
            if world.dead.len() < self.deaths {
                actions.push(Action::Die(who));
            }
            for other in &world.dead {
                if self.observes(world, who, *other) {
                    actions.push(Action::Sweep(who, *other));
                }
            }
        }
        if !world.tried {
            actions.push(Action::Try);
        }
        if holder(&world.claim) == Some(entry(TRIER, 1)) {
            actions.push(Action::Return);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Acquire(who) => {
                if !world.arrived.contains(&who) {
                    world.arrived.push(who);
                } else if let (true, Some(record)) = (self.is(Mutant::ResendRequeues), world.claim.as_mut()) {
                    record.waiters.retain(|w| *w != entry(who, 1));
                }
                self.step(&mut world, Step::acquire(entry(who, 1), true, 10, vec![]));
            }
            Action::Release(who) => {
                world.done.insert(who);
                self.step(&mut world, Step::remove(entry(who, 1), vec![]));
            }
            Action::Die(who) => {
                world.dead.insert(who);
            }
            Action::Sweep(_, other) => self.step(&mut world, Step::sweep(session(other))),
            Action::Try => {
                world.tried = true;
                let dead = world.dead.iter().map(|who| session(*who)).collect();
                self.step(&mut world, Step::acquire(entry(TRIER, 1), false, 10, dead));
            }
            Action::Return => self.step(&mut world, Step::remove(entry(TRIER, 1), vec![])),
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FREE_IS_EMPTY, |_, world: &World| {
                world.claim.as_ref().is_none_or(|r| r.holder.is_some() || r.waiters.is_empty())
            }),
            Property::always(TRY_NEVER_WAITS, |_, world: &World| {
                world.claim.as_ref().is_none_or(|r| !r.waiters.contains(&entry(TRIER, 1)))
            }),
            Property::always(IN_ORDER, |_, world: &World| !world.overtaken),
            Property::always(NOBODY_STUCK, |model: &Self, world: &World| {
                let stuck = (0..model.claimants).any(|who| !world.dead.contains(&who) && !world.done.contains(&who));
                !stuck || model.next_steps(world).iter().any(|(_, next)| next != world)
            }),
            Property::sometimes("all are served", |model: &Self, world: &World| {
                world.done.len() == usize::from(model.claimants)
            }),
            Property::sometimes("two die and the others are served", |model: &Self, world: &World| {
                world.dead.len() == model.deaths && world.done.len() + model.deaths == usize::from(model.claimants)
            }),
        ]
    }
}

/// A free claim has no waiters.
pub const FREE_IS_EMPTY: &str = "a free claim has no waiters";
/// One who does not wait is not in the queue.
pub const TRY_NEVER_WAITS: &str = "a try never waits";
/// Those who stay are granted in the order in which they came.
pub const IN_ORDER: &str = "granted in order";
/// Whoever lives gets the claim in the end.
pub const NOBODY_STUCK: &str = "nobody is stuck";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Queue {
        Queue { claimants: 4 + extra().min(2), deaths: 2, mutant }
    }

    #[test]
    fn everybody_who_lives_is_served_in_order() {
        holds("queue", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        refuted("queue, NoHandOver", model(Some(Mutant::NoHandOver)), FREE_IS_EMPTY);
        refuted("queue, TryQueues", model(Some(Mutant::TryQueues)), TRY_NEVER_WAITS);
        refuted("queue, OneObserver", model(Some(Mutant::OneObserver)), NOBODY_STUCK);
        refuted("queue, ResendRequeues", model(Some(Mutant::ResendRequeues)), IN_ORDER);
    }
}
