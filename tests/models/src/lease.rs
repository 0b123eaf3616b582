//! A holder that may be paused for any time at any moment, and an observer that kills it and takes over.
//!
//! Modelled: the holder's session view, the observer's table, the session and the claim, all by the code itself; a
//! clock in ticks (a ttl is two); requests and replies of renewals and of the acquire that are delayed, reordered,
//! doubled and lost; kills that arrive late; suspension and revival; a grant that is learnt late.
//!
//! Abstracted: both clocks run at one rate (rates are left to a property test); the contender's own session never
//! ends; its reads are answered at once, since a slow read only makes it more patient and an old one is what a late
//! kill is; it comes after the holder, since nothing is at stake before.
//!
//! Bounds: 6 ticks, 1 renewal that may come twice; or 5 ticks and 2 renewals. 1 acquire each, that of the holder
//! under way from the start.

use std::collections::BTreeSet;

use coord_core::protocol::claim::{ClaimRecord, Step};
use coord_core::protocol::session::{
    KillProof, Observations, SessionRecord, SessionState, SessionStep, SessionView, Timing, Vitality,
};
use stateright::{Model, Property};

use crate::world::{TICK, TTL, apply_claim, apply_session, at, entry, holder, nonce, observed, opening, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The observer compares the store's date, which may jump, with the date of the last renewal.
    ServerClock,
    /// The holder counts its ttl from the reply.
    DeadlineFromReply,
    /// A grant is handed to the user whatever has become of the session.
    NoCheckAfterGrant,
    /// A kill applies whatever the nonce is by now.
    KillWithoutNonce,
    /// The observer waits for two thirds of the ttl.
    Impatient,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The last tick.
    pub ticks: u8,
    /// How many renewals the holder sends.
    pub renewals: u8,
    /// Whether a renewal may arrive twice.
    pub doubled: bool,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// A message under way, named by what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// A renewal with its nonce; the accepted nonces are in the state.
    Renew(u8),
    /// Its reply.
    Renewed(u8, bool),
    /// The holder's acquire.
    Acquire,
    /// Its reply: granted, or waiting.
    Acquired(bool),
    /// The observer's kill with the nonce that it saw.
    Kill(u8),
}

/// What a user was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Nothing.
    None,
    /// A hold of this epoch, valid while the session is live in it.
    Epoch(u64),
    /// A hold that nobody checked.
    Blind,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    now: u8,
    record: Option<SessionRecord>,
    claim: Option<ClaimRecord>,
    view: SessionView,
    accepts: Vec<SessionStep>,
    network: BTreeSet<Message>,
    guard: Guard,
    table: Observations,
    killed: bool,
    seen_at: u8,
    jumped: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Tick,
    /// The holder sends a renewal.
    SendRenewal,
    /// A message arrives; it may arrive again.
    Deliver(Message, bool),
    /// The observer reads.
    Read,
    /// The observer sends a kill with the nonce of its proof.
    SendKill(u8),
    /// The contender acquires, and clears away the holder, which it knows to be dead.
    Contend,
    /// The store's date jumps ahead.
    Jump,
}

const HOLDER: u8 = 1;
const CONTENDER: u8 = 2;

impl Lease {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn eligible(&self, world: &World) -> Option<u8> {
        if self.is(Mutant::ServerClock) {
            let date = world.now + if world.jumped { 3 } else { 0 };
            let expired = date >= world.seen_at + 3;
            return world.record.as_ref().and_then(|r| r.nonce).filter(|_| expired).map(|n| n.0 as u8);
        }
        if self.is(Mutant::Impatient) {
            let long = world.table.sighting(at(world.now), session(HOLDER));
            let coord_core::protocol::session::Sighting::Unchanged(long) = long else { return None };
            return world.record.as_ref().and_then(|r| r.nonce).filter(|_| long >= TICK * 2).map(|n| n.0 as u8);
        }
        world.table.eligible().into_iter().find_map(|(_, proof)| match proof {
            KillProof::Observed(seen) => seen.map(|n| n.0 as u8),
            KillProof::KernelLock(_) => None,
        })
    }

    fn deliver(&self, world: &mut World, message: &Message) {
        match message {
            Message::Renew(number) => {
                let step = &world.accepts[usize::from(*number) - 1];
                let ok = apply_session(&mut world.record, session(HOLDER), step).is_some();
                if ok && self.is(Mutant::ServerClock) {
                    world.seen_at = world.now + if world.jumped { 3 } else { 0 };
                }
                world.network.insert(Message::Renewed(*number, ok));
            }
            Message::Renewed(number, true) => {
                if self.is(Mutant::DeadlineFromReply) && matches!(world.view.state(), SessionState::Live) {
                    // Sent anew on paper at the moment of its reply.
                    let _ = world.view.begin_renewal(at(world.now), nonce(100 + number));
                    world.view.on_renewed(at(world.now), nonce(100 + number));
                } else {
                    world.view.on_renewed(at(world.now), nonce(*number));
                }
            }
            Message::Renewed(number, false) => world.view.on_refused(nonce(*number)),
            Message::Acquire => {
                let step = Step::acquire(entry(HOLDER, 1), true, 10, vec![]);
                apply_claim(&mut world.claim, step);
                let granted = holder(&world.claim) == Some(entry(HOLDER, 1));
                world.network.insert(Message::Acquired(granted));
            }
            Message::Acquired(granted) => {
                world.view.on_time(at(world.now));
                if *granted && world.guard == Guard::None {
                    if world.view.state() == SessionState::Live {
                        world.guard = Guard::Epoch(world.view.epoch());
                    } else if self.is(Mutant::NoCheckAfterGrant) {
                        world.guard = Guard::Blind;
                    }
                }
            }
            Message::Kill(seen) => {
                let current = world.record.as_ref().and_then(|r| r.nonce);
                let proof = if self.is(Mutant::KillWithoutNonce) { current } else { Some(nonce(*seen)) };
                let after = apply_session(&mut world.record, session(HOLDER), &observed(proof));
                world.killed |= after.is_some_and(|r| r.vitality == Vitality::Dead);
            }
        }
    }

    fn believes(world: &World) -> bool {
        let mut view = world.view.clone();
        view.on_time(at(world.now));
        match world.guard {
            Guard::None => false,
            Guard::Epoch(epoch) => view.state() == SessionState::Live && view.epoch() == epoch,
            Guard::Blind => true,
        }
    }
}

impl Model for Lease {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut record = None;
        apply_session(&mut record, session(HOLDER), &opening(nonce(0)));
        let timing = Timing { ttl: TTL, margin: std::time::Duration::ZERO, renew_every: TICK };
        let mut view = SessionView::begin_open(timing, nonce(0), at(0));
        view.on_opened(at(0), true);
        let mut table = Observations::default();
        table.want(at(0), session(HOLDER), TICK * 1_000);
        vec![World {
            now: 0,
            record,
            claim: None,
            view,
            accepts: Vec::new(),
            network: BTreeSet::from([Message::Acquire]),
            guard: Guard::None,
            table,
            killed: false,
            seen_at: 0,
            jumped: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < self.ticks {
            actions.push(Action::Tick);
        }
        let ended = matches!(world.view.state(), SessionState::Lost(_));
        if !ended && world.accepts.len() < usize::from(self.renewals) {
            actions.push(Action::SendRenewal);
        }
        for message in &world.network {
            actions.push(Action::Deliver(message.clone(), false));
            if self.doubled && matches!(message, Message::Renew(_)) {
                actions.push(Action::Deliver(message.clone(), true));
            }
        }
        if !world.killed {
            actions.push(Action::Read);
            let proven = self.eligible(world).filter(|seen| !world.network.contains(&Message::Kill(*seen)));
            actions.extend(proven.map(Action::SendKill));
        }
        if world.killed {
            actions.push(Action::Contend);
        }
        if self.is(Mutant::ServerClock) && !world.jumped {
            actions.push(Action::Jump);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Tick => world.now += 1,
            Action::SendRenewal => {
                let number = world.accepts.len() as u8 + 1;
                world.view.on_time(at(world.now));
                let step = world.view.begin_renewal(at(world.now), nonce(number));
                world.accepts.push(step);
                world.network.insert(Message::Renew(number));
            }
            Action::Deliver(message, again) => {
                if !again {
                    world.network.remove(&message);
                }
                self.deliver(&mut world, &message);
            }
            Action::Read => {
                let now = at(world.now);
                world.table.on_read(now, now, session(HOLDER), world.record.as_ref(), TTL);
            }
            Action::SendKill(seen) => {
                world.network.insert(Message::Kill(seen));
            }
            Action::Contend => {
                apply_claim(&mut world.claim, Step::acquire(entry(CONTENDER, 1), true, 10, vec![session(HOLDER)]));
            }
            Action::Jump => world.jumped = true,
        }
        (world != *last).then_some(world)
    }

    /// Where the contender holds, the holder does not believe, and nothing under way could make it believe, no more
    /// can go wrong.
    fn within_boundary(&self, world: &World) -> bool {
        let hope = world.network.iter().any(|m| matches!(m, Message::Acquired(true) | Message::Renewed(_, true)));
        hope || Self::believes(world) || holder(&world.claim) != Some(entry(CONTENDER, 1))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOLDER, |_, world: &World| {
                !(Self::believes(world) && holder(&world.claim) == Some(entry(CONTENDER, 1)))
            }),
            Property::sometimes("the holder holds", |_, world: &World| Self::believes(world)),
            Property::sometimes("the contender takes over from the dead", |_, world: &World| {
                world.killed && holder(&world.claim) == Some(entry(CONTENDER, 1)) && world.guard != Guard::None
            }),
            Property::sometimes("a suspended session comes back", |_, world: &World| {
                world.view.state() == SessionState::Live && world.view.epoch() > 0
            }),
        ]
    }
}

/// The property that everything is about.
pub const ONE_HOLDER: &str = "one holder";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Lease {
        Lease { ticks: 6 + extra(), renewals: 1 + extra(), doubled: true, mutant }
    }

    #[test]
    fn never_two_holders() {
        holds("lease", model(None));
    }

    #[test]
    fn never_two_holders_with_one_renewal_behind_the_other() {
        holds("lease, two renewals", Lease { ticks: 5 + extra(), renewals: 2, doubled: false, mutant: None });
    }

    #[test]
    fn mutants_are_refuted() {
        for mutant in [
            Mutant::ServerClock,
            Mutant::DeadlineFromReply,
            Mutant::NoCheckAfterGrant,
            Mutant::KillWithoutNonce,
            Mutant::Impatient,
        ] {
            refuted(&format!("lease, {mutant:?}"), model(Some(mutant)), ONE_HOLDER);
        }
    }
}
