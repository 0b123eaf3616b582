//! Tokens across garbage collection, failovers and dates that jump: a token never comes a second time.
//!
//! Modelled: grants, releases and collections of one claim by the code itself; a primary's date that is any number
//! of steps off the true time, from failover to failover; a logical clock that only goes forward.
//!
//! Abstracted: who the holders are; how the logical clock follows the true time (it may lag, it never falls).
//!
//! Bounds: 4 steps of time of 20 minutes each, dates up to 2 hours ahead or behind, 3 grants.

use coord_core::protocol::claim::{ClaimRecord, ClaimStep, Step, StoreNow, TOKENS_PER_MS, token_floor};
use coord_core::time::WallTime;
use stateright::{Model, Property};

use crate::world::{apply_claim_at, entry, holder};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A free record is collected whatever its token.
    CollectWithoutFloor,
    /// Tokens count from one when the record is gone.
    TokenWithoutFloor,
    /// The date alone is the floor.
    FloorByDate,
    /// The record is collected once the date, capped as it is for grants, has passed its token.
    CollectByDate,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Collect {
    /// The last step of time.
    pub steps: i64,
    /// How many grants.
    pub grants: u64,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    claim: Option<ClaimRecord>,
    now: i64,
    /// The logical clock of the cluster.
    cluster: i64,
    /// How far the present primary's date is off.
    off: i64,
    grants: u64,
    highest: i64,
    repeated: bool,
    collected: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Pass,
    /// The logical clock catches up by one step.
    Advance,
    /// A primary whose date is this far off takes over.
    Failover(i64),
    /// Somebody acquires the free claim.
    Acquire,
    /// The holder releases.
    Release,
    /// The claim is collected, if the store may.
    Collect,
}

const STEP_MS: i64 = 20 * 60 * 1_000;
const START: i64 = 10;

impl Collect {
    fn floors(&self, world: &World) -> (StoreNow, StoreNow) {
        let wall = WallTime((world.now + world.off) * STEP_MS);
        let cluster = WallTime(world.cluster * STEP_MS);
        let grant = match self.mutant {
            Some(Mutant::TokenWithoutFloor) => 0,
            Some(Mutant::FloorByDate) => wall.0 * TOKENS_PER_MS,
            _ => token_floor(wall, cluster),
        };
        let collect = match self.mutant {
            Some(Mutant::CollectWithoutFloor) => i64::MAX,
            Some(Mutant::FloorByDate) => wall.0 * TOKENS_PER_MS,
            Some(Mutant::CollectByDate) => token_floor(wall, cluster),
            _ => cluster.0 * TOKENS_PER_MS,
        };
        // The date in the record is for people; left out, states with equal tokens are equal.
        (StoreNow { wall: WallTime(0), floor: grant }, StoreNow { wall: WallTime(0), floor: collect })
    }
}

impl Model for Collect {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            claim: None,
            now: START,
            cluster: START,
            off: 0,
            grants: 0,
            highest: 0,
            repeated: false,
            collected: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < START + self.steps {
            actions.push(Action::Pass);
        }
        if world.cluster < world.now {
            actions.push(Action::Advance);
        }
        actions.extend([-6, -1, 0, 1, 3, 4, 6].into_iter().filter(|off| *off != world.off).map(Action::Failover));
        if holder(&world.claim).is_some() {
            actions.push(Action::Release);
        } else if world.grants < self.grants {
            actions.push(Action::Acquire);
        }
        actions.push(Action::Collect);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let (grant, collect) = self.floors(&world);
        match action {
            Action::Pass => world.now += 1,
            Action::Advance => world.cluster += 1,
            Action::Failover(off) => world.off = off,
            Action::Acquire => {
                world.grants += 1;
                let step = Step::acquire(entry(1, world.grants), true, 10, vec![]);
                let record = apply_claim_at(&mut world.claim, ClaimStep::Step(step), grant)?;
                world.repeated |= record.token <= world.highest;
                world.highest = world.highest.max(record.token);
            }
            Action::Release => {
                let step = Step::remove(holder(&world.claim)?, vec![]);
                apply_claim_at(&mut world.claim, ClaimStep::Step(step), grant)?;
            }
            Action::Collect => {
                // A store that collects without a floor counts the tokens of the next record from wherever it is.
                apply_claim_at(&mut world.claim, ClaimStep::Collect, collect)?;
                world.collected = true;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TOKENS_GROW, |_, world: &World| !world.repeated),
            Property::sometimes("a grant after a collection", |_, world: &World| {
                world.collected && world.claim.is_some()
            }),
            Property::sometimes("a token an hour ahead", |_, world: &World| {
                world.highest == (world.cluster * STEP_MS + 3_600_000) * TOKENS_PER_MS
            }),
        ]
    }
}

/// No token comes twice, none falls.
pub const TOKENS_GROW: &str = "tokens grow";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Collect {
        Collect { steps: 4 + 3 * i64::from(extra()), grants: 3 + u64::from(extra()), mutant }
    }

    #[test]
    fn tokens_grow_for_ever() {
        holds("collect", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        for mutant in
            [Mutant::CollectWithoutFloor, Mutant::TokenWithoutFloor, Mutant::FloorByDate, Mutant::CollectByDate]
        {
            refuted(&format!("collect, {mutant:?}"), model(Some(mutant)), TOKENS_GROW);
        }
    }
}
