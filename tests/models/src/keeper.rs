//! Who cleans up where nobody waits: the keeper's claim, its holder and its first waiter.
//!
//! Modelled: three clients that take the keeper's claim or wait for it, any of which crashes; a worker that holds a
//! claim of its own, stands still, goes on, or crashes, and another that waits for it; observation as "no new nonce
//! for a ttl", which is possible only while the observed one does not run; kills that arrive late; sweeps.
//!
//! Abstracted: time (a worker that stands still may be silent for a ttl at any moment; it has stopped to believe by
//! then, as the lease model shows).
//!
//! Bounds: 3 keepers, 2 workers, 2 crashes of keepers, 1 standstill of the holding worker.

use std::collections::BTreeSet;

use coord_core::protocol::claim::{ClaimRecord, Entry, HEAD, Step};
use coord_core::protocol::session::{Nonce, SessionRecord, SessionStep, Vitality};
use stateright::{Model, Property};

use crate::world::{apply_claim, apply_session, entry, nonce, observed, opening, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The keeper's claim is not observed by those who wait for it, as every other claim is: when its holder and
    /// its first waiter are gone, nobody looks.
    WaitersDoNotLook,
    /// A kill applies whatever the nonce is by now.
    KillWithoutNonce,
    /// The dead are removed from what they hold, not from where they wait.
    SweepOnlyHeld,
    /// A session that was seen silent is swept without having been declared dead.
    SweepWithoutKill,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// How many clients want to be the keeper.
    pub keepers: u8,
    /// How many of them may crash; at least one stays.
    pub crashes: u8,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// It runs, and renews in time.
    Runs,
    /// It stands still; it believes in nothing when it goes on, before it has renewed.
    Stands,
    /// It is gone.
    Crashed,
    /// It went on, found itself killed, and gave up.
    Ended,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    lives: Vec<Life>,
    sessions: Vec<Option<SessionRecord>>,
    keeper: Option<ClaimRecord>,
    work: Option<ClaimRecord>,
    /// Kills under way: whose, and with which nonce.
    kills: BTreeSet<(u8, Nonce)>,
    stood: bool,
    crashed: u8,
    asked: BTreeSet<u8>,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client asks for the keeper's claim.
    Ask(u8),
    /// A process crashes.
    Crash(u8),
    /// The holding worker stands still.
    Stand,
    /// It goes on: it renews.
    GoOn,
    /// This keeper has seen that one silent for long enough and sends a kill.
    Observe(u8, u8),
    /// A kill arrives.
    Kill(u8, Nonce),
    /// This keeper clears that dead one out of all claims.
    Sweep(u8, u8),
}

impl Keeper {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The worker that holds.
    fn worker(&self) -> u8 {
        self.keepers
    }

    /// The worker that waits.
    fn waiter(&self) -> u8 {
        self.keepers + 1
    }

    fn everybody(&self) -> std::ops::Range<u8> {
        0..self.keepers + 2
    }

    /// Holder and first waiter look after everybody; those behind them after one another, as in any claim.
    fn observes(&self, world: &World, who: u8, other: u8) -> bool {
        let Some(record) = &world.keeper else { return false };
        let is = |of: u8| move |e: &Entry| e.session == session(of);
        let keeps = record.holder.iter().chain(record.waiters.first()).any(is(who));
        let head = || record.holder.iter().chain(record.waiters.iter().take(HEAD));
        let neighbours = head().any(is(who)) && head().any(is(other)) && !self.is(Mutant::WaitersDoNotLook);
        world.lives[usize::from(who)] == Life::Runs && (keeps || neighbours)
    }

    fn is_dead(world: &World, who: u8) -> bool {
        world.sessions[usize::from(who)].as_ref().is_some_and(|r| r.vitality == Vitality::Dead)
    }

    fn entries(world: &World, who: u8) -> usize {
        let all = [&world.keeper, &world.work].into_iter().flatten();
        all.flat_map(|r| r.holder.iter().chain(&r.waiters)).filter(|e| e.session == session(who)).count()
    }

    fn sweep(&self, world: &mut World, who: u8) {
        for claim in [&mut world.keeper, &mut world.work] {
            let holds = claim.as_ref().is_some_and(|r| r.holder.is_some_and(|h| h.session == session(who)));
            let waits = claim.as_ref().is_some_and(|r| r.waiters.iter().any(|w| w.session == session(who)));
            if holds || (waits && !self.is(Mutant::SweepOnlyHeld)) {
                apply_claim(claim, Step::sweep(session(who)));
            }
        }
    }
}

impl Model for Keeper {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut sessions = Vec::new();
        for who in self.everybody() {
            let mut record = None;
            apply_session(&mut record, session(who), &opening(nonce(0)));
            sessions.push(record);
        }
        let mut work = None;
        apply_claim(&mut work, Step::acquire(entry(self.worker(), 1), true, 10, vec![]));
        apply_claim(&mut work, Step::acquire(entry(self.waiter(), 1), true, 10, vec![]));
        vec![World {
            lives: vec![Life::Runs; usize::from(self.keepers) + 2],
            sessions,
            keeper: None,
            work,
            kills: BTreeSet::new(),
            stood: false,
            crashed: 0,
            asked: BTreeSet::new(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let worker = usize::from(self.worker());
        for who in self.everybody() {
            let runs = matches!(world.lives[usize::from(who)], Life::Runs | Life::Stands);
            if runs && (who >= self.keepers || world.crashed < self.crashes) {
                actions.push(Action::Crash(who));
            }
            if who < self.keepers && world.lives[usize::from(who)] == Life::Runs && !world.asked.contains(&who) {
                actions.push(Action::Ask(who));
            }
        }
        match world.lives[worker] {
            Life::Runs if !world.stood => actions.push(Action::Stand),
            Life::Stands => actions.push(Action::GoOn),
            Life::Runs | Life::Crashed | Life::Ended => {}
        }
        for who in 0..self.keepers {
            for other in self.everybody().filter(|other| *other != who && self.observes(world, who, *other)) {
                let silent = matches!(world.lives[usize::from(other)], Life::Stands | Life::Crashed | Life::Ended);
                if silent && !Self::is_dead(world, other) {
                    actions.push(Action::Observe(who, other));
                }
                let swept = Self::is_dead(world, other) || (silent && self.is(Mutant::SweepWithoutKill));
                if swept && Self::entries(world, other) > 0 {
                    actions.push(Action::Sweep(who, other));
                }
            }
        }
        actions.extend(world.kills.iter().map(|(whom, seen)| Action::Kill(*whom, *seen)));
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let worker = usize::from(self.worker());
        match action {
            Action::Ask(who) => {
                world.asked.insert(who);
                apply_claim(&mut world.keeper, Step::acquire(entry(who, 1), true, 4, vec![]));
            }
            Action::Crash(who) => {
                world.lives[usize::from(who)] = Life::Crashed;
                world.crashed += u8::from(who < self.keepers);
            }
            Action::Stand => {
                world.stood = true;
                world.lives[worker] = Life::Stands;
            }
            Action::GoOn => {
                let step = SessionStep::Renew { accept: vec![nonce(0), nonce(1)], nonce: nonce(1) };
                let renewed = apply_session(&mut world.sessions[worker], session(self.worker()), &step);
                world.lives[worker] = if renewed.is_some() { Life::Runs } else { Life::Ended };
            }
            Action::Observe(_, other) => {
                let seen = world.sessions[usize::from(other)].as_ref()?.nonce?;
                world.kills.insert((other, seen));
            }
            Action::Kill(whom, seen) => {
                world.kills.remove(&(whom, seen));
                let record = &mut world.sessions[usize::from(whom)];
                let current = record.as_ref().and_then(|r| r.nonce);
                let proof = if self.is(Mutant::KillWithoutNonce) { current } else { Some(seen) };
                apply_session(record, session(whom), &observed(proof));
            }
            Action::Sweep(_, other) => self.sweep(&mut world, other),
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(THE_LIVING_STAY, |model: &Self, world: &World| {
                model.everybody().all(|who| {
                    let asked = who >= model.keepers || world.asked.contains(&who);
                    world.lives[usize::from(who)] != Life::Runs
                        || (!Self::is_dead(world, who) && (!asked || Self::entries(world, who) > 0))
                })
            }),
            Property::always(ALL_IS_CLEANED, |model: &Self, world: &World| {
                let left = model.everybody().any(|who| {
                    let gone = matches!(world.lives[usize::from(who)], Life::Crashed | Life::Ended);
                    gone && Self::entries(world, who) > 0
                });
                !left || model.next_steps(world).iter().any(|(_, next)| next != world)
            }),
            Property::sometimes("the last keeper has cleaned up after all", |model: &Self, world: &World| {
                world.crashed == model.crashes
                    && world.lives[usize::from(model.worker())] == Life::Crashed
                    && Self::entries(world, model.worker()) == 0
            }),
            Property::sometimes("a kill comes too late", |model: &Self, world: &World| {
                let worker = model.worker();
                world.stood
                    && world.lives[usize::from(worker)] == Life::Runs
                    && world.kills.iter().any(|(whom, _)| *whom == worker)
            }),
        ]
    }
}

/// Nobody who runs is declared dead, or loses what it has.
pub const THE_LIVING_STAY: &str = "the living keep what they have";
/// When nothing more can happen, the gone have left nothing behind.
pub const ALL_IS_CLEANED: &str = "nothing of the gone is left";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Keeper {
        Keeper { keepers: 3 + extra(), crashes: 2 + extra(), mutant }
    }

    #[test]
    fn a_keeper_cleans_up() {
        holds("keeper", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        refuted("keeper, WaitersDoNotLook", model(Some(Mutant::WaitersDoNotLook)), ALL_IS_CLEANED);
        refuted("keeper, SweepOnlyHeld", model(Some(Mutant::SweepOnlyHeld)), ALL_IS_CLEANED);
        refuted("keeper, KillWithoutNonce", model(Some(Mutant::KillWithoutNonce)), THE_LIVING_STAY);
        refuted("keeper, SweepWithoutKill", model(Some(Mutant::SweepWithoutKill)), THE_LIVING_STAY);
    }
}
