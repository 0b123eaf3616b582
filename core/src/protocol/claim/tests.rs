//! What must be true of a claim whatever is done to it, in words of its own: none of this computes a step.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

/// Few enough that steps meet one another's entries.
fn any_entry() -> impl Strategy<Value = Entry> {
    (0u128..4, 0u64..3, select(vec![-2048, 0, 0, 1, 2047])).prop_map(|(session, attempt, priority)| Entry {
        session: SessionId::from_random(session),
        attempt,
        priority: Priority::new(priority).unwrap(),
    })
}

fn any_dead() -> impl Strategy<Value = Vec<SessionId>> {
    subsequence((0..4).map(SessionId::from_random).collect::<Vec<_>>(), 0..=2)
}

#[derive(Clone, Debug)]
enum Op {
    Acquire {
        entry: Entry,
        wait: bool,
        max_queue: u32,
        dead: Vec<SessionId>,
    },
    Replace {
        old: Entry,
        new: Entry,
    },
    Remove {
        entry: Entry,
        dead: Vec<SessionId>,
    },
    Sweep(SessionId),
    /// The present holder hands over to the waiter at this place; or a transfer of strangers.
    Transfer {
        place: usize,
        stranger: Option<(Entry, Entry)>,
    },
    /// The present hold, off by so many tokens.
    Evict {
        off: i64,
        stranger: Option<Entry>,
    },
    Announce {
        off: i64,
    },
    Publish {
        off: i64,
        stranger: Option<Entry>,
        value: String,
    },
    Collect,
}

fn any_op() -> impl Strategy<Value = Op> {
    let off = || select(vec![0, 0, 0, -1, 1]);
    let stranger = || proptest::option::weighted(0.2, any_entry());
    prop_oneof![
        8 => (any_entry(), any::<bool>(), 0u32..5, prop_oneof![3 => Just(vec![]), 1 => any_dead()])
            .prop_map(|(entry, wait, max_queue, dead)| Op::Acquire { entry, wait, max_queue, dead }),
        1 => (any_entry(), any_entry())
            .prop_filter("an entry does not replace itself", |(old, new)| old != new)
            .prop_map(|(old, new)| Op::Replace { old, new }),
        4 => (any_entry(), any_dead()).prop_map(|(entry, dead)| Op::Remove { entry, dead }),
        1 => any_dead().prop_filter_map("one", |dead| dead.first().copied()).prop_map(Op::Sweep),
        2 => (0usize..5, proptest::option::weighted(0.2, (any_entry(), any_entry())))
            .prop_map(|(place, stranger)| Op::Transfer { place, stranger }),
        2 => (off(), stranger()).prop_map(|(off, stranger)| Op::Evict { off, stranger }),
        1 => off().prop_map(|off| Op::Announce { off }),
        1 => (off(), stranger(), "[a-z]{0,3}")
            .prop_map(|(off, stranger, value)| Op::Publish { off, stranger, value }),
        1 => Just(Op::Collect),
    ]
}

fn step_of(op: &Op, record: Option<&ClaimRecord>) -> Option<ClaimStep> {
    let token = record.map_or(0, |r| r.token);
    let holder = record.and_then(|r| r.holder);
    Some(match op.clone() {
        Op::Acquire { entry, wait, max_queue, dead } => {
            ClaimStep::Step(Step::acquire(entry, wait, max_queue, without(dead, entry)))
        }
        Op::Replace { old, new } => ClaimStep::Step(Step { remove: vec![old], ..Step::acquire(new, true, 5, vec![]) }),
        Op::Remove { entry, dead } => ClaimStep::Step(Step::remove(entry, dead)),
        Op::Sweep(dead) => ClaimStep::Step(Step::sweep(dead)),
        Op::Transfer { place, stranger } => {
            let (from, to) = stranger.or_else(|| Some((holder?, *record?.waiters.get(place)?)))?;
            ClaimStep::Step(Step::transfer(from, to))
        }
        Op::Evict { off, stranger } => ClaimStep::Step(Step::evict(stranger.or(holder)?, token + off)),
        Op::Announce { off } => ClaimStep::AnnounceBreak { token: token + off },
        Op::Publish { off, stranger, value } => {
            ClaimStep::Publish { holder: stranger.or(holder)?, token: token + off, value }
        }
        Op::Collect => ClaimStep::Collect,
    })
}

/// Nobody acquires for a session that it declares dead.
fn without(mut dead: Vec<SessionId>, entry: Entry) -> Vec<SessionId> {
    dead.retain(|id| *id != entry.session);
    dead
}

/// A claim with its history: who came when, and what was ever granted.
#[derive(Default)]
struct History {
    record: Option<ClaimRecord>,
    arrived: BTreeMap<Entry, usize>,
    highest: i64,
    steps: usize,
}

impl History {
    fn apply(&mut self, step: &ClaimStep, now: StoreNow) -> Result<(), TestCaseError> {
        let before = self.record.clone();
        self.steps += 1;
        match apply(&key(), before.clone(), step, now) {
            Stepped::Refused => prop_assert!(!due(before.as_ref(), step, now), "refused, though it was due"),
            Stepped::Collected => {
                let gone = before.expect("only what is there can be collected");
                prop_assert!(matches!(step, ClaimStep::Collect));
                prop_assert!(gone.holder.is_none() && gone.waiters.is_empty() && now.floor > gone.token);
                self.record = None;
            }
            Stepped::Written(after) => {
                prop_assert!(due(before.as_ref(), step, now), "applied, though its condition did not hold");
                self.check_write(before.unwrap_or_else(|| ClaimRecord::new(key())), &after, step, now)?;
                self.record = Some(after);
            }
        }
        Ok(())
    }

    fn check_write(
        &mut self,
        before: ClaimRecord,
        after: &ClaimRecord,
        step: &ClaimStep,
        now: StoreNow,
    ) -> Result<(), TestCaseError> {
        prop_assert!(after.holder.is_some() || after.waiters.is_empty(), "free, and {:?} wait", after.waiters);
        prop_assert_eq!(&after.key, &before.key);

        let (add, wait, max_queue, remove, dead) = match step {
            ClaimStep::Step(s) => (s.add, s.wait, s.max_queue as usize, s.remove.clone(), s.dead.clone()),
            _ => (None, false, 0, vec![], vec![]),
        };
        let told_to_go = |entry: &Entry| remove.contains(entry) || dead.contains(&entry.session);
        let all = |r: &ClaimRecord| r.holder.iter().chain(&r.waiters).copied().collect::<Vec<_>>();
        let (entries_before, entries_after) = (all(&before), all(after));

        // Nobody vanishes and nobody appears, except as the step says; nobody is there twice.
        for entry in &entries_before {
            let stays = !told_to_go(entry) || add == Some(*entry);
            prop_assert!(!stays || entries_after.contains(entry), "{:?} was lost", entry);
        }
        for (place, entry) in entries_after.iter().enumerate() {
            prop_assert!(!entries_after[..place].contains(entry), "{:?} is there twice", entry);
            let allowed = add == Some(*entry) || (entries_before.contains(entry) && !told_to_go(entry));
            prop_assert!(allowed, "{:?} came from nowhere, or should have gone", entry);
        }

        // The queue keeps its order, and its limit.
        for pair in after.waiters.windows(2) {
            prop_assert!(pair[0].priority >= pair[1].priority);
        }
        prop_assert!(after.waiters.len() <= before.waiters.len().max(max_queue));
        self.arrived.retain(|entry, _| entries_before.contains(entry) && !told_to_go(entry));
        if let Some(add) = add {
            self.arrived.entry(add).or_insert(self.steps);
        }

        let granted = after.token != before.token;
        if granted {
            let holder = after.holder.expect("a grant is to somebody");
            prop_assert!(before.holder.is_none_or(|old| told_to_go(&old)), "taken from one who still held");
            prop_assert!(after.token > self.highest && after.token >= now.floor, "the token fell");
            prop_assert_eq!((&after.value, &after.breaking, after.granted_at), (&None, &None, now.wall));
            self.highest = after.token;
            match step {
                ClaimStep::Step(Step { when: When::Transfer { to, .. }, .. }) => prop_assert_eq!(holder, *to),
                _ => {
                    for waiter in &after.waiters {
                        let (turn, later) = (self.turn(&holder), self.turn(waiter));
                        prop_assert!(turn < later, "{:?} was granted before {:?}", holder, waiter);
                    }
                }
            }
        } else {
            let freed = after.holder.is_none() && before.holder.is_some_and(|old| told_to_go(&old));
            prop_assert!(after.holder == before.holder || freed, "a hold without a token of its own");
            prop_assert_eq!(after.granted_at, before.granted_at);
        }
        for pair in after.waiters.windows(2) {
            prop_assert!(self.turn(&pair[0]) < self.turn(&pair[1]), "the queue is not in the order of arrival");
        }

        // What becomes of the added.
        if let Some(add) = add {
            let was_there = entries_before.contains(&add) && !told_to_go(&add);
            if !wait {
                prop_assert!(was_there || !after.waiters.contains(&add), "one that does not wait is in the queue");
            }
            let stayed = before.waiters.iter().filter(|w| !told_to_go(w)).count();
            let free = before.holder.is_none_or(|h| told_to_go(&h)) && stayed == 0;
            let due = was_there || if wait { stayed < max_queue } else { free };
            prop_assert_eq!(after.involves(&add), due);
        }
        match step {
            ClaimStep::AnnounceBreak { token } => {
                prop_assert_eq!((after.breaking, after.token), (before.holder, *token));
                prop_assert_eq!(&ClaimRecord { breaking: before.breaking, ..after.clone() }, &before);
            }
            ClaimStep::Publish { value, .. } => {
                prop_assert_eq!(after.value.as_deref(), Some(value.as_str()));
                prop_assert_eq!(&ClaimRecord { value: before.value.clone(), ..after.clone() }, &before);
            }
            ClaimStep::Step(_) if !granted => {
                prop_assert_eq!((&after.value, after.breaking), (&before.value, before.breaking));
            }
            ClaimStep::Step(_) | ClaimStep::Collect => {}
        }
        Ok(())
    }

    /// When it is an entry's turn: the higher priority first, then who came first.
    fn turn(&self, entry: &Entry) -> (i16, usize) {
        (-entry.priority.value(), self.arrived[entry])
    }
}

/// Whether a step's condition holds.
fn due(record: Option<&ClaimRecord>, step: &ClaimStep, now: StoreNow) -> bool {
    let holds = |entry: &Entry, token: i64| record.is_some_and(|r| r.holder == Some(*entry) && r.token == token);
    let waits = |entry: &Entry| record.is_some_and(|r| r.waiters.contains(entry));
    let held_by = |entry: &Entry| record.is_some_and(|r| r.holder == Some(*entry));
    match step {
        ClaimStep::Step(step) => match step.when {
            When::Always => true,
            When::Involved(entry) => held_by(&entry) || waits(&entry),
            When::Transfer { holder, to } => held_by(&holder) && waits(&to),
            When::Holding { holder, token } => holds(&holder, token),
        },
        ClaimStep::AnnounceBreak { token } => record.is_some_and(|r| r.holder.is_some() && r.token == *token),
        ClaimStep::Publish { holder, token, .. } => holds(holder, *token),
        ClaimStep::Collect => record.is_some_and(|r| r.holder.is_none() && r.waiters.is_empty() && now.floor > r.token),
    }
}

fn key() -> ClaimKey {
    ClaimKey::new("lock/n/s/a")
}

/// A date that jumps to and fro; the floor has passed every token, as that of a store that keeps the highest has.
fn now_at(wall: i64, highest: i64) -> StoreNow {
    StoreNow { wall: WallTime(wall), floor: (wall * 8).max(highest + 1) }
}

proptest! {
    #[test]
    fn invariants_hold_after_every_step(ops in vec((any_op(), 0i64..50), 1..80)) {
        let mut history = History::default();
        for (op, wall) in ops {
            if let Some(step) = step_of(&op, history.record.as_ref()) {
                let now = now_at(wall, history.highest);
                history.apply(&step, now)?;
            }
        }
    }

    #[test]
    fn tokens_grow_even_if_the_floor_falls(ops in vec((any_op(), 0i64..1000), 1..60)) {
        let mut record: Option<ClaimRecord> = None;
        for (op, floor) in ops {
            let Some(step) = step_of(&op, record.as_ref()) else { continue };
            if step == ClaimStep::Collect { continue }
            let before = record.clone();
            let now = StoreNow { wall: WallTime(floor), floor };
            if let Stepped::Written(after) = apply(&key(), before.clone(), &step, now) {
                let old = before.as_ref().map_or(0, |r| r.token);
                let same_hold = after.holder == before.as_ref().and_then(|r| r.holder);
                prop_assert!(after.token > old || (after.token == old && (same_hold || after.holder.is_none())));
                record = Some(after);
            }
        }
    }

    /// A step whose reply was lost is sent again. It changes nothing more if it reached its aim the first time; if
    /// it was turned away (busy, full), the second time is a new attempt, and its own reply says how it ended.
    #[test]
    fn a_step_sent_again_changes_nothing(ops in vec(any_op(), 1..40), last in any_op(), floor in 0i64..50) {
        let mut history = History::default();
        for op in ops {
            if let Some(step) = step_of(&op, history.record.as_ref()) {
                let now = now_at(0, history.highest);
                history.apply(&step, now)?;
            }
        }
        let Some(step) = step_of(&last, history.record.as_ref()) else { return Ok(()) };
        let once = match apply(&key(), history.record.clone(), &step, now_at(floor, history.highest)) {
            Stepped::Refused => history.record,
            Stepped::Collected => None,
            Stepped::Written(record) => Some(record),
        };
        let add = match &step {
            ClaimStep::Step(step) => step.add,
            _ => None,
        };
        if add.is_some_and(|add| !once.as_ref().is_some_and(|r| r.involves(&add))) {
            return Ok(());
        }
        match apply(&key(), once.clone(), &step, now_at(floor + 100, i64::MAX - 1)) {
            Stepped::Written(twice) => prop_assert_eq!(Some(twice), once),
            Stepped::Refused => {}
            Stepped::Collected => prop_assert!(false, "collected twice"),
        }
    }

    #[test]
    fn a_view_tells_of_its_record(ops in vec(any_op(), 1..40), asks in any_entry()) {
        let mut history = History::default();
        for op in ops {
            if let Some(step) = step_of(&op, history.record.as_ref()) {
                let now = now_at(0, history.highest);
                history.apply(&step, now)?;
            }
        }
        let record = history.record.unwrap_or_else(|| ClaimRecord::new(key()));
        let view = record.view(Some(&asks));
        prop_assert_eq!((view.holder, view.token, view.granted_at), (record.holder, record.token, record.granted_at));
        prop_assert_eq!(view.waiting, record.waiters.contains(&asks));
        prop_assert_eq!(view.queue_len as usize, record.waiters.len());
        prop_assert!(record.waiters.starts_with(&view.head) && view.head.len() == record.waiters.len().min(HEAD));
        prop_assert!(!record.view(None).waiting);
    }

    #[test]
    fn an_entry_survives_its_text(session: u128, attempt: u64, priority in -2048i32..=2047) {
        let priority = Priority::new(priority).unwrap();
        let entry = Entry { session: SessionId::from_random(session), attempt, priority };
        prop_assert_eq!(entry.to_string().parse(), Ok(entry));
    }

    /// Stores compare texts: a text that is read as an entry must be the only one for it.
    #[test]
    fn a_text_that_is_an_entry_is_the_only_one(text in "[0-9a-f]{32}/[+0-9a-f-]{0,4}/[+0-9a-fA-F-]{1,4}") {
        if let Ok(entry) = text.parse::<Entry>() {
            prop_assert_eq!(entry.to_string(), text);
        }
    }

    #[test]
    fn garbage_is_no_entry(text in any::<String>()) {
        let error = text.parse::<Entry>().expect_err("a random text is no entry");
        prop_assert!(error.to_string().chars().count() < 200, "a long text is cut in the message");
    }

    #[test]
    fn texts_of_entries_compare_by_priority(a in -2048i32..=2047, b in -2048i32..=2047) {
        let text = |priority| {
            let entry = Entry { session: SessionId::from_random(1), attempt: 1, priority };
            entry.to_string().rsplit('/').next().map(str::to_owned)
        };
        let (a, b) = (Priority::new(a).unwrap(), Priority::new(b).unwrap());
        prop_assert_eq!(text(a).cmp(&text(b)), a.cmp(&b));
    }

    #[test]
    fn the_floor_never_falls_below_cluster_time_nor_runs_far_ahead(wall in 0i64..1 << 42, cluster in 0i64..1 << 42) {
        let floor = token_floor(WallTime(wall), WallTime(cluster));
        prop_assert!(floor >= cluster * TOKENS_PER_MS);
        prop_assert!(floor <= (cluster + WALL_AHEAD_MS) * TOKENS_PER_MS);
        prop_assert!(wall < cluster || wall > cluster + WALL_AHEAD_MS || floor == wall * TOKENS_PER_MS);
    }
}

#[test]
fn texts_that_are_almost_entries_are_refused() {
    let sid = "0123456789abcdef0123456789abcdef";
    for tail in [
        "",
        "/",
        "//",
        "/1",
        "/1/",
        "/1/80",
        "/1/8000",
        "/1/800/",
        "/1/800/x",
        "/-1/800",
        "/+1/800",
        "/01/800",
        "/1/+80",
        "/1/-80",
        "/1/8FF",
        "/ 1/800",
        "/1/ 80",
        "/18446744073709551616/800",
        "//800",
        "/0x1/800",
        "/1/80g",
    ] {
        let text = format!("{sid}{tail}");
        assert!(text.parse::<Entry>().is_err(), "{text}");
    }
    assert!(format!("{}/1/800", sid.to_uppercase()).parse::<Entry>().is_err());
    assert!(format!("{}/1/800", &sid[1..]).parse::<Entry>().is_err());
    assert!(format!("{sid}/18446744073709551615/fff").parse::<Entry>().is_ok());
    assert!(format!("{sid}/0/000").parse::<Entry>().is_ok());
}

#[test]
fn priorities_have_a_range() {
    for (value, valid) in [(-2048, true), (2047, true), (-2049, false), (2048, false), (i32::MAX, false)] {
        assert_eq!(Priority::new(value).is_some(), valid, "{value}");
    }
}
