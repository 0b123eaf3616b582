//! An operator breaks a hold: announced, then executed after the holder's ttl; and the holder learns of it.
//!
//! Modelled: the claim by the code itself; a holder whose task renews and then audits, may stand still for any time,
//! gives back by itself and acquires again; a waiter that is next; an operator who announces to the hold that he
//! read, waits, and executes; notices that are all lost (the audit must do).
//!
//! Abstracted: the session is its deadline: the latest renewal plus the ttl of three ticks.
//!
//! Bounds: 9 ticks, 1 break, 2 holds.

use coord_core::protocol::claim::{ClaimRecord, ClaimStep, Entry, Step, StoreNow};
use coord_core::time::WallTime;
use stateright::{Model, Property};

use crate::world::{apply_claim, apply_claim_at, entry, holder};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The break is executed at once, without force.
    NoWait,
    /// The wait is a tick too short.
    ShortWait,
    /// The holder's audit does not look for what it holds.
    NoAudit,
    /// The audit compares holders, and does not look at announcements.
    AnnouncementIgnored,
    /// Whoever holds when the break is executed is broken.
    BreakByName,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Breaking {
    /// The last tick.
    pub ticks: u8,
    /// How often the holder may acquire.
    pub holds: u64,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    now: u8,
    claim: Option<ClaimRecord>,
    /// The hold in which the holder's user works, with its token.
    belief: Option<(Entry, i64)>,
    renewed: u8,
    holds: u64,
    operator: Operator,
    wrong: bool,
    deaf: bool,
}

/// The operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Has not begun.
    Idle,
    /// Announced to this hold at this tick.
    Announced(Entry, i64, u8),
    /// Executed, or refused because the hold had ended.
    Done,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Tick,
    /// The holder's task renews and audits.
    Beat,
    /// The user gives back.
    Release,
    /// The user acquires again.
    Acquire,
    /// The waiter, when it holds, gives back.
    OtherReleases,
    /// The operator announces the break of the present hold.
    Announce,
    /// He executes it.
    Execute,
}

const HOLDER: u8 = 1;
const OTHER: u8 = 2;
const TTL_TICKS: u8 = 3;

impl Breaking {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn wait(&self) -> u8 {
        match self.mutant {
            Some(Mutant::NoWait) => 0,
            Some(Mutant::ShortWait) => TTL_TICKS - 1,
            _ => TTL_TICKS,
        }
    }

    fn believes(world: &World) -> bool {
        world.belief.is_some() && world.now < world.renewed + TTL_TICKS
    }

    /// Two ways: what the record says of us, and what we believe of the record.
    fn audit(&self, world: &mut World) {
        let Some((mine, token)) = world.belief else { return };
        let Some(record) = &world.claim else { return };
        let still = record.holder == Some(mine) && record.token == token;
        let asked = record.breaking == Some(mine) && !self.is(Mutant::AnnouncementIgnored);
        if self.is(Mutant::NoAudit) || (still && !asked) {
            return;
        }
        world.belief = None;
        apply_claim(&mut world.claim, Step::remove(mine, vec![]));
    }

    fn execute(&self, world: &mut World, announced: Entry, token: i64) -> Option<()> {
        world.operator = Operator::Done;
        let before = holder(&world.claim);
        if self.is(Mutant::BreakByName) {
            apply_claim(&mut world.claim, Step::remove(before?, vec![]));
        } else {
            apply_claim(&mut world.claim, Step::evict(announced, token));
        }
        world.wrong |= holder(&world.claim) != before && before != Some(announced);
        Some(())
    }
}

impl Model for Breaking {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut claim = None;
        let first = entry(HOLDER, 1);
        let granted = apply_claim(&mut claim, Step::acquire(first, true, 10, vec![]));
        apply_claim(&mut claim, Step::acquire(entry(OTHER, 1), true, 10, vec![]));
        vec![World {
            now: 0,
            claim,
            belief: granted.map(|record| (first, record.token)),
            renewed: 0,
            holds: 1,
            operator: Operator::Idle,
            wrong: false,
            deaf: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < self.ticks {
            actions.push(Action::Tick);
        }
        actions.push(Action::Beat);
        if world.belief.is_some() {
            actions.push(Action::Release);
        } else if world.holds < self.holds {
            actions.push(Action::Acquire);
        }
        let present = holder(&world.claim);
        if present == Some(entry(OTHER, 1)) {
            actions.push(Action::OtherReleases);
        }
        match world.operator {
            Operator::Idle if present.is_some() => actions.push(Action::Announce),
            Operator::Announced(_, _, when) if world.now >= when + self.wait() => actions.push(Action::Execute),
            Operator::Idle | Operator::Announced(..) | Operator::Done => {}
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Tick => world.now += 1,
            Action::Beat => {
                // A session that was suspended comes back, its holds do not.
                if !Self::believes(&world) && world.belief.is_some() {
                    let (mine, _) = world.belief.take()?;
                    apply_claim(&mut world.claim, Step::remove(mine, vec![]));
                }
                world.renewed = world.now;
                self.audit(&mut world);
                world.deaf |= world.belief.is_some_and(|(mine, _)| holder(&world.claim) != Some(mine));
            }
            Action::Release => {
                let (mine, _) = world.belief.take()?;
                apply_claim(&mut world.claim, Step::remove(mine, vec![]));
            }
            Action::Acquire => {
                world.holds += 1;
                let mine = entry(HOLDER, world.holds);
                let record = apply_claim(&mut world.claim, Step::acquire(mine, false, 10, vec![]))?;
                let live = world.now < world.renewed + TTL_TICKS;
                world.belief = (live && record.holder == Some(mine)).then_some((mine, record.token));
                if !live {
                    apply_claim(&mut world.claim, Step::remove(mine, vec![]));
                }
            }
            Action::OtherReleases => {
                apply_claim(&mut world.claim, Step::remove(entry(OTHER, 1), vec![]))?;
            }
            Action::Announce => {
                let (present, token) = (holder(&world.claim)?, world.claim.as_ref()?.token);
                let now = StoreNow { wall: WallTime(0), floor: 0 };
                apply_claim_at(&mut world.claim, ClaimStep::AnnounceBreak { token }, now)?;
                world.operator = Operator::Announced(present, token, world.now);
            }
            Action::Execute => {
                let Operator::Announced(announced, token, _) = world.operator else { return None };
                self.execute(&mut world, announced, token)?;
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOLDER, |_, world: &World| {
                !(Self::believes(world) && holder(&world.claim) == Some(entry(OTHER, 1)))
            }),
            Property::always(THE_RIGHT_ONE, |_, world: &World| !world.wrong),
            Property::always(IT_LEARNS, |_, world: &World| !world.deaf),
            Property::sometimes("broken while it stood still", |_, world: &World| {
                world.operator == Operator::Done
                    && world.belief.is_some_and(|(mine, _)| holder(&world.claim) != Some(mine))
            }),
            Property::sometimes("it gave way to the announcement", |_, world: &World| {
                matches!(world.operator, Operator::Announced(who, ..) if who == entry(HOLDER, 1))
                    && world.belief.is_none()
                    && holder(&world.claim) == Some(entry(OTHER, 1))
            }),
        ]
    }
}

/// The broken one does not believe any more when the next one holds.
pub const ONE_HOLDER: &str = "one holder";
/// The hold that ends is the one that was announced.
pub const THE_RIGHT_ONE: &str = "the announced hold is broken and no other";
/// A holder that runs learns that it was broken.
pub const IT_LEARNS: &str = "a broken holder learns it";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Breaking {
        Breaking { ticks: 9 + 3 * extra(), holds: 2 + u64::from(extra()), mutant }
    }

    #[test]
    fn a_break_ends_one_hold_in_time() {
        holds("breaking", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        for mutant in [Mutant::NoWait, Mutant::ShortWait, Mutant::AnnouncementIgnored] {
            refuted(&format!("breaking, {mutant:?}"), model(Some(mutant)), ONE_HOLDER);
        }
        refuted("breaking, NoAudit", model(Some(Mutant::NoAudit)), IT_LEARNS);
        refuted("breaking, BreakByName", model(Some(Mutant::BreakByName)), THE_RIGHT_ONE);
    }
}
