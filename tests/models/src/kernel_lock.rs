//! The proof of death by a kernel lock: which file is looked at, who holds its lock, and whose nonces it has.
//!
//! Modelled: a process that writes each nonce into the ring of its lock file before it sends the renewal; its crash
//! at any moment; renewals and kills that arrive late; an observer on one of three views of the file: the file
//! itself, an overlay through which kernel locks do not conflict, or the file of a cloned machine, where a copy of
//! the process held the lock until it ended.
//!
//! Abstracted: time; and the identity of files, which the flock model has.
//!
//! Bounds: 3 renewals, 1 clone, 1 observer that looks at one view.
//!
//! One thing is not promised: a machine that was cloned since the last renewal. There the ring of the clone is as
//! good as the original's, until the original renews.

use coord_core::protocol::session::{KillProof, Nonce, SessionRecord, SessionStep, SessionView, Timing, Vitality};
use coord_core::time::Timestamp;
use stateright::{Model, Property};

use crate::world::{TICK, TTL, apply_session, nonce, opening, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A free lock counts even if it was never seen held.
    NeverSeenHeld,
    /// The kill is conditional on the nonce that stands in the store.
    NoRing,
    /// The nonce is written after the renewal was sent.
    RingAfterSend,
    /// A forked child unlocks what it inherited.
    ChildUnlocks,
    /// "No such file" is taken for a free lock, and the store's nonce for the ring.
    MissingFile,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct KernelLock {
    /// How many renewals the process sends.
    pub renewals: u8,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// Through what the observer sees the lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The file itself.
    Own,
    /// The same bytes, but locks do not conflict with the owner's.
    Overlay,
    /// A cloned machine: bytes and locks of its own since the clone was made.
    Clone,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    record: Option<SessionRecord>,
    view: SessionView,
    alive: bool,
    unlocked_by_child: bool,
    ring: Vec<Nonce>,
    /// Nonces that the process has yet to write into its ring, or to send.
    step: Option<SessionStep>,
    sent: u8,
    network: Vec<Message>,
    /// The ring of the clone, and whether the copy of the process still runs in it.
    clone: Option<(Vec<Nonce>, bool)>,
    renewed_since_clone: bool,
    place: Option<Place>,
    seen_held: bool,
    cleaned: bool,
    unproven: bool,
}

/// A message under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A renewal.
    Renew(SessionStep),
    /// Its reply.
    Renewed(Nonce, bool),
    /// A kill with the ring that was read; whether that was the crashed owner's.
    Kill(Vec<Nonce>, bool),
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process decides on a nonce.
    Begin,
    /// It does the second of writing and sending.
    Finish,
    /// A message arrives.
    Deliver(usize),
    /// A message is lost.
    Lose(usize),
    /// The process dies.
    Crash,
    /// A forked child of it unlocks.
    Unlock,
    /// The machine is cloned.
    MakeClone,
    /// The copy of the process ends, in the clone.
    CloneEnds,
    /// Somebody deletes the file.
    Clean,
    /// The observer opens the file.
    Open(Place),
    /// It tries the lock.
    Look,
}

const PROCESS: u8 = 1;

impl KernelLock {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn is_free(world: &World, place: Place) -> bool {
        match place {
            Place::Own => !world.alive || world.unlocked_by_child,
            Place::Overlay => true,
            Place::Clone => world.clone.as_ref().is_some_and(|(_, runs)| !runs),
        }
    }

    fn look(&self, world: &mut World) -> Option<()> {
        let place = world.place?;
        let missing = self.is(Mutant::MissingFile) && world.cleaned;
        if !missing && !Self::is_free(world, place) {
            world.seen_held = true;
            return Some(());
        }
        if !missing && !world.seen_held && !self.is(Mutant::NeverSeenHeld) {
            return None;
        }
        let ring = match (self.mutant, place) {
            (Some(Mutant::NoRing | Mutant::MissingFile), _) => {
                world.record.as_ref().and_then(|r| r.nonce).into_iter().collect()
            }
            (_, Place::Own | Place::Overlay) => world.ring.clone(),
            (_, Place::Clone) => world.clone.as_ref()?.0.clone(),
        };
        let kill = Message::Kill(ring, place == Place::Own && !world.alive);
        if world.network.contains(&kill) {
            return None;
        }
        world.network.push(kill);
        Some(())
    }

    fn deliver(&self, world: &mut World, message: Message) {
        let id = session(PROCESS);
        match message {
            Message::Renew(step) => {
                let SessionStep::Renew { nonce, .. } = &step else { return };
                let ok = apply_session(&mut world.record, id, &step).is_some();
                world.renewed_since_clone |= ok && world.clone.as_ref().is_some_and(|(ring, _)| !ring.contains(nonce));
                world.network.push(Message::Renewed(*nonce, ok));
            }
            Message::Renewed(nonce, ok) if world.alive => {
                if ok {
                    world.view.on_renewed(Timestamp::ZERO, nonce);
                } else {
                    world.view.on_refused(nonce);
                }
            }
            Message::Renewed(..) => {}
            Message::Kill(ring, of_the_crashed) => {
                let step = SessionStep::Kill(KillProof::KernelLock(ring));
                let after = apply_session(&mut world.record, id, &step);
                let dead = after.is_some_and(|r| r.vitality == Vitality::Dead);
                world.unproven |= of_the_crashed && !dead;
            }
        }
    }

    fn write(world: &mut World) {
        world.ring = world.view.possible_nonces().collect();
    }

    fn send(world: &mut World) {
        if let Some(step) = world.step.take() {
            world.network.push(Message::Renew(step));
        }
    }
}

impl Model for KernelLock {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut record = None;
        apply_session(&mut record, session(PROCESS), &opening(nonce(0)));
        let timing = Timing { ttl: TTL, margin: std::time::Duration::ZERO, renew_every: TICK };
        let mut view = SessionView::begin_open(timing, nonce(0), Timestamp::ZERO);
        view.on_opened(Timestamp::ZERO, true);
        vec![World {
            record,
            view,
            alive: true,
            unlocked_by_child: false,
            ring: vec![nonce(0)],
            step: None,
            sent: 0,
            network: Vec::new(),
            clone: None,
            renewed_since_clone: false,
            place: None,
            seen_held: false,
            cleaned: false,
            unproven: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.alive {
            actions.push(Action::Crash);
            match world.step {
                None if world.sent < self.renewals => actions.push(Action::Begin),
                None => {}
                Some(_) => actions.push(Action::Finish),
            }
            if self.is(Mutant::ChildUnlocks) && !world.unlocked_by_child {
                actions.push(Action::Unlock);
            }
        }
        for place in 0..world.network.len() {
            actions.push(Action::Deliver(place));
            actions.push(Action::Lose(place));
        }
        match &world.clone {
            None => actions.push(Action::MakeClone),
            Some((_, true)) => actions.push(Action::CloneEnds),
            Some((_, false)) => {}
        }
        if self.is(Mutant::MissingFile) && !world.cleaned {
            actions.push(Action::Clean);
        }
        match world.place {
            None => {
                actions.extend([Place::Own, Place::Overlay].map(Action::Open));
                if world.clone.is_some() {
                    actions.push(Action::Open(Place::Clone));
                }
            }
            Some(_) => actions.push(Action::Look),
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Begin => {
                world.sent += 1;
                let fresh = nonce(world.sent);
                world.step = Some(world.view.begin_renewal(Timestamp::ZERO, fresh));
                if self.is(Mutant::RingAfterSend) {
                    world.network.extend(world.step.clone().map(Message::Renew));
                } else {
                    Self::write(&mut world);
                }
            }
            Action::Finish if self.is(Mutant::RingAfterSend) => {
                world.step = None;
                Self::write(&mut world);
            }
            Action::Finish => Self::send(&mut world),
            Action::Deliver(place) => {
                let message = world.network.remove(place);
                self.deliver(&mut world, message);
            }
            Action::Lose(place) => {
                world.network.remove(place);
            }
            Action::Crash => world.alive = false,
            Action::Unlock => world.unlocked_by_child = true,
            Action::MakeClone => world.clone = Some((world.ring.clone(), world.alive)),
            Action::CloneEnds => world.clone.as_mut()?.1 = false,
            Action::Clean => world.cleaned = true,
            Action::Open(place) => world.place = Some(place),
            Action::Look => self.look(&mut world)?,
        }
        world.network.sort_by_key(|message| format!("{message:?}"));
        (world != *last).then_some(world)
    }

    /// Once the session is dead, nothing changes any more.
    fn within_boundary(&self, world: &World) -> bool {
        world.record.as_ref().is_some_and(|r| r.vitality == Vitality::Live)
            || !world.network.iter().any(|m| matches!(m, Message::Kill(..)))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONLY_THE_DEAD, |_, world: &World| {
                let dead = world.record.as_ref().is_some_and(|r| r.vitality == Vitality::Dead);
                let cloned = world.place == Some(Place::Clone) && !world.renewed_since_clone;
                !dead || !world.alive || cloned
            }),
            Property::always(CRASH_IS_PROVEN, |_, world: &World| !world.unproven),
            Property::sometimes("a crash is proven with a renewal under way", |_, world: &World| {
                let dead = world.record.as_ref().is_some_and(|r| r.vitality == Vitality::Dead);
                dead && !world.alive && world.network.iter().any(|m| matches!(m, Message::Renew(_)))
            }),
            Property::sometimes("a clone's end is no proof", |_, world: &World| {
                let live = world.record.as_ref().is_some_and(|r| r.vitality == Vitality::Live);
                let killing = world.network.iter().any(|m| matches!(m, Message::Kill(..)));
                live && world.alive && world.place == Some(Place::Clone) && killing && world.renewed_since_clone
            }),
        ]
    }
}

/// Who is killed by a kernel lock has crashed.
pub const ONLY_THE_DEAD: &str = "only the dead are killed";
/// What was read after a crash, in the owner's own file, is proof.
pub const CRASH_IS_PROVEN: &str = "a crash is proven";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> KernelLock {
        KernelLock { renewals: 3 + extra(), mutant }
    }

    #[test]
    fn a_free_lock_proves_death() {
        holds("kernel lock", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        for mutant in [Mutant::NeverSeenHeld, Mutant::NoRing, Mutant::ChildUnlocks, Mutant::MissingFile] {
            refuted(&format!("kernel lock, {mutant:?}"), model(Some(mutant)), ONLY_THE_DEAD);
        }
        refuted("kernel lock, RingAfterSend", model(Some(Mutant::RingAfterSend)), CRASH_IS_PROVEN);
    }
}
