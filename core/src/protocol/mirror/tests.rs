use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Table = BTreeMap<u8, u64>;

fn copy(mirror: &Mirror<u8, u64>) -> Table {
    mirror.iter().map(|(key, value)| (*key, *value)).collect()
}

fn drain(sequence: &mut Sequence<u8, u64>) -> Vec<Event<u8, u64>> {
    std::iter::from_fn(|| sequence.pop()).collect()
}

#[test]
fn a_snapshot_is_swapped_in_at_once() {
    let mut mirror = Mirror::new();
    for event in [Event::Init, Event::InitApply { key: 1, value: 10 }, Event::InitApply { key: 2, value: 20 }] {
        assert!(mirror.apply(event).is_empty());
    }
    assert!(!mirror.is_synced() && mirror.is_empty(), "half a snapshot is not shown");
    assert_eq!(mirror.apply(Event::InitDone).len(), 2);

    mirror.apply(Event::Init);
    mirror.apply(Event::InitApply { key: 2, value: 21 });
    mirror.apply(Event::InitApply { key: 3, value: 30 });
    assert_eq!(copy(&mirror), Table::from([(1, 10), (2, 20)]), "the old copy is shown until then");
    let mut differences = mirror.apply(Event::InitDone);
    differences.sort_by_key(|difference| difference.key);
    let expected = [(1, Some(10)), (2, Some(20)), (3, None)];
    assert_eq!(differences, expected.map(|(key, before)| Difference { key, before }));
    assert_eq!(copy(&mirror), Table::from([(2, 21), (3, 30)]));
    assert!(mirror.apply(Event::Apply { key: 3, value: 30 }).is_empty(), "no difference");
    assert!(mirror.apply(Event::Delete { key: 9, value: None }).is_empty());
}

#[test]
fn changes_beside_a_listing_come_after_it_and_those_in_it_do_not_come_again() {
    let mut sequence = Sequence::new();
    assert!(sequence.wants_listing());
    sequence.on_gap(Position(10));
    sequence.on_change(Place::whole(Position(11)), 1u8, Changed::Apply(11u64));
    assert!(!sequence.on_listing(Position(9)), "from before the stream: what is between would be missing");
    assert!(sequence.on_listing(Position(12)));
    sequence.on_change(Place::whole(Position(12)), 1, Changed::Apply(12));
    sequence.on_listed(1, 12);
    sequence.on_change(Place::whole(Position(14)), 2, Changed::Apply(14));
    sequence.on_change(Place::whole(Position(13)), 3, Changed::Delete(None));
    sequence.on_listed(3, 3);
    sequence.on_listing_done();
    assert_eq!(
        drain(&mut sequence),
        [
            Event::Init,
            Event::InitApply { key: 1, value: 12 },
            Event::InitApply { key: 3, value: 3 },
            Event::InitDone,
            Event::Delete { key: 3, value: None },
            Event::Apply { key: 2, value: 14 },
        ]
    );
    assert_eq!(sequence.position(), Position(14));
    sequence.on_change(Place::whole(Position(12)), 1, Changed::Apply(12));
    sequence.on_change(Place::whole(Position(13)), 3, Changed::Delete(None));
    assert!(!sequence.has_events(), "told again after the stream was opened anew");
    sequence.on_change(Place::whole(Position(14)), 5, Changed::Apply(14));
    assert_eq!(drain(&mut sequence), [Event::Apply { key: 5, value: 14 }], "made as one with a change that was told");
    sequence.on_progress(Position(20));
    assert_eq!(sequence.position(), Position(20));
}

#[test]
fn a_gap_within_a_listing_is_healed_by_it_only_if_it_is_from_later() {
    let mut sequence = Sequence::<u8, u64>::new();
    sequence.on_gap(Position(1));
    sequence.on_listing(Position(5));
    assert!(!sequence.on_gap(Position(4)));
    assert!(sequence.is_listing());
    assert!(sequence.on_gap(Position(6)));
    assert!(sequence.wants_listing());
    assert!(!sequence.on_listing(Position(5)));
    assert!(sequence.on_listing(Position(6)));
    sequence.on_listing_failed();
    assert!(sequence.wants_listing());
    assert_eq!(drain(&mut sequence), [Event::Init, Event::Init]);
}

#[test]
fn a_place_that_is_told_beside_a_listing_counts_after_it() {
    let mut sequence = Sequence::<u8, u64>::new();
    sequence.on_gap(Position(1));
    sequence.on_progress(Position(7));
    sequence.on_listing(Position(3));
    sequence.on_change(Place::whole(Position(6)), 1, Changed::Apply(6));
    sequence.on_listing_failed();
    sequence.on_listing(Position(5));
    sequence.on_listing_done();
    assert_eq!(sequence.position(), Position::default(), "nothing of it was popped");
    drain(&mut sequence);
    assert_eq!((sequence.position(), sequence.resume()), (Position(7), Position(7)), "the stream says no more");

    sequence.on_gap(Position(20));
    sequence.on_listing(Position(21));
    sequence.on_place(Place { position: Position(22), last: false });
    sequence.on_listing_done();
    drain(&mut sequence);
    assert_eq!((sequence.position(), sequence.resume()), (Position(22), Position(21)));

    sequence.on_gap(Position(30));
    sequence.on_progress(Position(31));
    sequence.on_listing(Position(32));
    sequence.on_listing_done();
    drain(&mut sequence);
    assert_eq!(sequence.position(), Position(32), "the listing is from later");
}

#[test]
fn one_goes_on_from_before_a_place_of_which_more_may_come() {
    let part = |position| Place { position: Position(position), last: false };
    let mut sequence = Sequence::after(Position(10));
    assert_eq!(sequence.resume(), Position(10));
    sequence.on_change(part(20), 1u8, Changed::Apply(1u64));
    sequence.on_change(part(20), 2, Changed::Apply(2));
    sequence.on_change(Place::whole(Position(30)), 1, Changed::Delete(None));
    let mut places = Vec::new();
    while sequence.pop().is_some() {
        places.push((sequence.position().0, sequence.resume().0));
    }
    assert_eq!(places, [(20, 19), (20, 19), (30, 30)]);
    sequence.on_change(part(40), 2, Changed::Delete(None));
    sequence.pop();
    sequence.on_place(part(41));
    assert_eq!(
        (sequence.position(), sequence.resume()),
        (Position(41), Position(40)),
        "of one that need not be told, too"
    );
    sequence.on_progress(Position(41));
    assert_eq!(sequence.resume(), Position(41), "now no more can come");

    // Who goes on from there is told both, and of what lies before nothing.
    let mut again = Sequence::after(Position(19));
    again.on_change(Place::whole(Position(19)), 3, Changed::Apply(3));
    again.on_change(part(20), 1, Changed::Apply(1));
    again.on_change(part(20), 2, Changed::Apply(2));
    assert_eq!(drain(&mut again), [Event::Apply { key: 1, value: 1 }, Event::Apply { key: 2, value: 2 }]);

    // Beside a listing as well.
    let mut sequence = Sequence::new();
    sequence.on_gap(Position(1));
    sequence.on_listing(Position(5));
    sequence.on_change(part(7), 1, Changed::Apply(1));
    sequence.on_listing_done();
    drain(&mut sequence);
    assert_eq!((sequence.position(), sequence.resume()), (Position(7), Position(6)));
    sequence.on_change(part(7), 2, Changed::Apply(2));
    assert_eq!(drain(&mut sequence).len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    /// The stream tells the next change.
    Hear,
    /// The stream has lost what it has not told.
    Lose,
    /// The stream is opened anew from the sequence's position.
    Resume,
    /// A listing is begun, or the next part of it is read.
    List,
    FailListing,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..5u8).prop_map(Step::Put),
        3 => (0..5u8).prop_map(Step::Delete),
        8 => Just(Step::Hear),
        1 => Just(Step::Lose),
        1 => Just(Step::Resume),
        8 => Just(Step::List),
        1 => Just(Step::FailListing),
    ]
}

/// A table with its history, a stream of changes that is behind, and a listing that is read in parts.
#[derive(Default)]
struct World {
    table: Table,
    /// The table after each change, the empty one first.
    states: Vec<Table>,
    changes: Vec<(u8, Option<u64>)>,
    /// How many changes the stream has told or lost.
    heard: usize,
    listing: Option<Vec<(u8, u64)>>,
    sequence: Sequence<u8, u64>,
    mirror: Mirror<u8, u64>,
}

impl World {
    fn new() -> Self {
        let mut world = Self { states: vec![Table::new()], ..Self::default() };
        world.sequence.on_gap(Position(0));
        world
    }

    fn change(&mut self, key: u8, value: Option<u64>) {
        match value {
            Some(value) => self.table.insert(key, value),
            None => self.table.remove(&key),
        };
        self.changes.push((key, value));
        self.states.push(self.table.clone());
    }

    fn hear(&mut self) {
        if let Some((key, value)) = self.changes.get(self.heard).copied() {
            self.heard += 1;
            let change = value.map_or(Changed::Delete(None), Changed::Apply);
            self.sequence.on_change(Place::whole(Position(self.heard as u64)), key, change);
        } else {
            self.sequence.on_progress(Position(self.heard as u64));
        }
    }

    fn list(&mut self) {
        match &mut self.listing {
            None if self.sequence.wants_listing() && self.sequence.on_listing(Position(self.changes.len() as u64)) => {
                self.listing = Some(self.table.clone().into_iter().collect());
            }
            None => {}
            Some(rest) => match rest.pop() {
                Some((key, value)) => self.sequence.on_listed(key, value),
                None => {
                    self.listing = None;
                    self.sequence.on_listing_done();
                }
            },
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(key) => self.change(*key, Some(self.changes.len() as u64)),
            Step::Delete(key) => self.change(*key, None),
            Step::Hear => self.hear(),
            Step::Lose => {
                self.heard = self.changes.len();
                if self.sequence.on_gap(Position(self.heard as u64)) {
                    self.listing = None;
                }
            }
            // Only of use where something is known; before, the stream begins with a gap.
            Step::Resume if !self.sequence.wants_listing() && !self.sequence.is_listing() => {
                self.heard = (self.sequence.position().0 as usize).saturating_sub(1);
            }
            Step::Resume => {}
            Step::List => self.list(),
            Step::FailListing => {
                self.listing = None;
                self.sequence.on_listing_failed();
            }
        }
    }

    /// What the mirror shows was in the table at one moment, and never an earlier one than before.
    fn check(&mut self, latest: &mut usize) -> Result<(), TestCaseError> {
        while let Some(event) = self.sequence.pop() {
            let told = event.clone();
            let before = copy(&self.mirror);
            let differences = self.mirror.apply(event);
            let after = copy(&self.mirror);
            for key in 0..5 {
                let differs = differences.iter().any(|difference| difference.key == key);
                prop_assert_eq!(differs, before.get(&key) != after.get(&key), "{:?}", told);
            }
            if !self.mirror.is_synced() || self.sequence.has_events() {
                continue;
            }
            let place = (*latest..self.states.len()).find(|place| self.states[*place] == after);
            prop_assert!(place.is_some(), "{after:?} was never in the table since {latest}");
            *latest = place.unwrap_or_default();
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_copy_follows_the_table_through_gaps_and_resyncs(steps in prop::collection::vec(steps(), 1..150)) {
        let mut world = World::new();
        let mut latest = 0;
        for step in &steps {
            world.step(step);
            world.check(&mut latest)?;
        }
        for _ in 0..2 {
            for _ in 0..20 {
                world.list();
            }
            while world.heard < world.changes.len() {
                world.hear();
            }
        }
        world.check(&mut latest)?;
        prop_assert!(world.mirror.is_synced());
        prop_assert_eq!(copy(&world.mirror), world.table.clone());
        world.hear();
        prop_assert_eq!(world.sequence.position(), Position(world.changes.len() as u64));
    }
}
