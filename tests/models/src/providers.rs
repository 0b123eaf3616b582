//! Providers in their sessions' records, and an observer of them: nothing outlives its session, the last word counts, and
//! no edge is false.
//!
//! Modelled: two sessions that may provide one service, by the code itself; owners who say yes and no, in requests that may
//! come late, in any order and twice; a session that others declare dead at any time; an observer with the code's own
//! view and feed, who hears changes in their order, may be interrupted, and then takes a snapshot.
//!
//! Abstracted: renewals and the proof of death (see the lease's model); several observers, who do not meet.
//!
//! Bounds: 3 wishes of one owner and 1 of the other, 1 death, 1 interruption.

use coord_core::protocol::roster::feed::{Event, Feed};
use coord_core::protocol::roster::view::{Pattern, Roster};
use coord_core::protocol::roster::{self, ProviderRecord};
use coord_core::protocol::session::{SessionRecord, SessionStep, Vitality};
use stateright::{Model, Property};

use crate::world::{apply_session, at, nonce, observed, opening, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A provider is written after its session's kill.
    WrittenAfterKill,
    /// Requests have no order.
    Unnumbered,
    /// A snapshot is read one session after the other, and edges are taken from it.
    ScanWithoutSnapshot,
    /// After an interruption the observer goes on with what it knew.
    NoSnapshotAfterGap,
    /// A session that is missing from a snapshot is taken for unchanged.
    MissingIsUnchanged,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Providers {
    /// How many wishes each owner has.
    pub wishes: [u8; 2],
    /// How many sessions die.
    pub deaths: u8,
    /// How often the observer is interrupted.
    pub interruptions: u8,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    records: [Option<SessionRecord>; 2],
    /// Requests on their way.
    wire: Vec<(u8, SessionStep)>,
    revisions: [i64; 2],
    wanted: [bool; 2],
    deaths: u8,
    interruptions: u8,
    /// What the observer has not heard, each with whether somebody provided after it.
    changes: Vec<(SessionRecord, bool)>,
    /// The observer follows.
    synced: bool,
    /// A scan that is under way has read this.
    scanned: Option<Option<SessionRecord>>,
    roster: Roster,
    feed: Feed,
    up: bool,
    false_edge: bool,
    repeated_edge: bool,
    was_down: bool,
    came_late: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// This owner says yes, or no.
    Wish(u8),
    /// A request comes.
    Deliver(usize),
    /// It comes, and will come once more.
    DeliverTwice(usize),
    /// Somebody declares this session dead.
    Kill(u8),
    /// The observer hears the next change.
    Hear,
    /// The observer's stream ends.
    Interrupt,
    /// It takes a snapshot, or the first half of one.
    Snapshot,
    /// The second half.
    ScanOn,
}

const SERVICE: &str = "n/s/a";

impl Providers {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn apply(&self, world: &mut World, which: u8, step: &SessionStep) {
        let record = &mut world.records[usize::from(which)];
        let before = record.clone();
        let changed = match (step, &mut *record) {
            (SessionStep::Provide { provider, revision }, Some(dead))
                if self.is(Mutant::WrittenAfterKill) && dead.vitality == Vitality::Dead =>
            {
                dead.providers = vec![provider.clone()];
                dead.revision = *revision;
                true
            }
            (SessionStep::Provide { provider, .. }, Some(live)) if self.is(Mutant::Unnumbered) => {
                let revision = live.revision + 1;
                let step = SessionStep::Provide { provider: provider.clone(), revision };
                apply_session(record, session(which), &step).is_some()
            }
            (SessionStep::Withdraw { key, .. }, Some(live)) if self.is(Mutant::Unnumbered) => {
                let revision = live.revision + 1;
                let step = SessionStep::Withdraw { key: key.clone(), revision };
                apply_session(record, session(which), &step).is_some()
            }
            _ => apply_session(record, session(which), step).is_some(),
        };
        world.came_late |= !changed;
        if *record != before
            && let Some(after) = record.clone()
        {
            let provided = is_provided(world);
            if world.synced || world.scanned.is_some() {
                world.changes.push((after, provided));
            }
        }
    }

    /// The observer hands on what it has to tell. `provided` is what was true at the moment of which it tells.
    fn tell(world: &mut World, provided: bool) {
        while let Some(event) = world.feed.take(&world.roster, at(0)) {
            match event {
                Event::FirstUp(_) => {
                    world.repeated_edge |= std::mem::replace(&mut world.up, true);
                }
                Event::LastDown(_) => {
                    world.repeated_edge |= !std::mem::replace(&mut world.up, false);
                    world.false_edge |= provided;
                    world.was_down = true;
                }
                _ => {}
            }
        }
    }

    fn take_snapshot(&self, world: &mut World, sessions: &[SessionRecord], provided: bool) {
        let steps = if self.is(Mutant::MissingIsUnchanged) {
            sessions.iter().flat_map(|session| world.roster.apply(session)).collect()
        } else {
            world.roster.replace(sessions)
        };
        world.feed.bracket(steps, at(0));
        Self::tell(world, provided);
        world.synced = true;
    }
}

fn provider() -> ProviderRecord {
    ProviderRecord::new(SERVICE, "1", "")
}

fn is_provided(world: &World) -> bool {
    world.records.iter().flatten().any(|r| r.vitality == Vitality::Live && !r.providers.is_empty())
}

fn live(records: &[Option<SessionRecord>]) -> Vec<SessionRecord> {
    records.iter().flatten().filter(|record| record.vitality == Vitality::Live).cloned().collect()
}

impl Model for Providers {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut records = [None, None];
        for (which, record) in (0..).zip(&mut records) {
            apply_session(record, session(which), &opening(nonce(which)));
        }
        vec![World {
            records,
            wire: Vec::new(),
            revisions: [0, 0],
            wanted: [false, false],
            deaths: 0,
            interruptions: 0,
            changes: Vec::new(),
            synced: false,
            scanned: None,
            roster: Roster::new(Pattern::One(SERVICE.into())),
            feed: Feed::default(),
            up: false,
            false_edge: false,
            repeated_edge: false,
            was_down: false,
            came_late: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for which in 0..2 {
            if world.revisions[usize::from(which)] < i64::from(self.wishes[usize::from(which)]) {
                actions.push(Action::Wish(which));
            }
            let alive = world.records[usize::from(which)].as_ref().is_some_and(|r| r.vitality == Vitality::Live);
            if alive && world.deaths < self.deaths {
                actions.push(Action::Kill(which));
            }
        }
        for place in 0..world.wire.len() {
            actions.push(Action::Deliver(place));
            if world.wire.len() < 3 {
                actions.push(Action::DeliverTwice(place));
            }
        }
        if world.synced {
            if !world.changes.is_empty() {
                actions.push(Action::Hear);
            }
            if world.interruptions < self.interruptions {
                actions.push(Action::Interrupt);
            }
        } else if world.scanned.is_some() {
            actions.push(Action::ScanOn);
        } else {
            actions.push(Action::Snapshot);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Wish(which) => {
                let owner = usize::from(which);
                world.revisions[owner] += 1;
                world.wanted[owner] = !world.wanted[owner];
                let revision = world.revisions[owner];
                let step = if world.wanted[owner] {
                    SessionStep::Provide { provider: provider(), revision }
                } else {
                    SessionStep::Withdraw { key: roster::key(SERVICE, "1"), revision }
                };
                world.wire.push((which, step));
            }
            Action::Deliver(place) => {
                let (which, step) = world.wire.remove(place);
                self.apply(&mut world, which, &step);
            }
            Action::DeliverTwice(place) => {
                let (which, step) = world.wire[place].clone();
                self.apply(&mut world, which, &step);
            }
            Action::Kill(which) => {
                world.deaths += 1;
                self.apply(&mut world, which, &observed(Some(nonce(which))));
            }
            Action::Hear => {
                let (session, provided) = world.changes.remove(0);
                let steps = world.roster.apply(&session);
                world.feed.extend(steps, at(0));
                Self::tell(&mut world, provided);
            }
            Action::Interrupt => {
                world.interruptions += 1;
                world.changes.clear();
                world.synced = self.is(Mutant::NoSnapshotAfterGap);
            }
            Action::Snapshot if self.is(Mutant::ScanWithoutSnapshot) => {
                world.scanned = Some(world.records[0].clone());
            }
            Action::Snapshot => {
                let (sessions, provided) = (live(&world.records), is_provided(&world));
                self.take_snapshot(&mut world, &sessions, provided);
            }
            Action::ScanOn => {
                let first = world.scanned.take()?;
                let sessions = live(&[first, world.records[1].clone()]);
                let provided = is_provided(&world);
                self.take_snapshot(&mut world, &sessions, provided);
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_OUTLIVES, |_, world: &World| {
                world.records.iter().flatten().all(|r| r.vitality == Vitality::Live || r.providers.is_empty())
            }),
            Property::always(LAST_WORD, |_, world: &World| {
                let agrees = |(record, wanted): (&Option<SessionRecord>, bool)| {
                    record.as_ref().is_none_or(|r| r.vitality == Vitality::Dead || r.providers.is_empty() != wanted)
                };
                !world.wire.is_empty() || world.records.iter().zip(world.wanted).all(agrees)
            }),
            Property::always(NO_FALSE_EDGE, |_, world: &World| !world.false_edge && !world.repeated_edge),
            Property::always(KNOWS, |_, world: &World| {
                !world.synced
                    || !world.changes.is_empty()
                    || (world.up == is_provided(world) && world.roster.is_provided(SERVICE) == is_provided(world))
            }),
            Property::sometimes("down was told", |_, world: &World| world.was_down),
            Property::sometimes("a request came too late", |_, world: &World| world.came_late),
            Property::sometimes("both provide", |_, world: &World| {
                world.records.iter().flatten().filter(|record| !record.providers.is_empty()).count() == 2
            }),
        ]
    }
}

/// What a dead session provided went with it.
pub const NOTHING_OUTLIVES: &str = "a dead session provides nothing";
/// When everything has come, a live session provides what its owner wanted last.
pub const LAST_WORD: &str = "the owner's last word counts";
/// Nobody is told that a service is down while somebody provides it, or twice that it is up or down.
pub const NO_FALSE_EDGE: &str = "no edge is false";
/// Whoever has heard everything knows what is true.
pub const KNOWS: &str = "who has heard everything knows";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Providers {
        Providers { wishes: [3 + extra(), 1 + extra()], deaths: 1 + extra(), interruptions: 1, mutant }
    }

    #[test]
    fn providers_live_and_die_with_their_sessions() {
        holds("providers", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        for (mutant, property) in [
            (Mutant::WrittenAfterKill, NOTHING_OUTLIVES),
            (Mutant::Unnumbered, LAST_WORD),
            (Mutant::ScanWithoutSnapshot, NO_FALSE_EDGE),
            (Mutant::NoSnapshotAfterGap, KNOWS),
            (Mutant::MissingIsUnchanged, KNOWS),
        ] {
            refuted(&format!("providers, {mutant:?}"), model(Some(mutant)), property);
        }
    }
}
