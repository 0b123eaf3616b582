use proptest::prelude::*;

use super::*;
use crate::protocol::claim::{ClaimKey, Priority};

fn entry(session: u128) -> Entry {
    Entry { session: SessionId::from_random(session), attempt: 0, priority: Priority::default() }
}

fn record(holder: Option<u128>, token: i64, value: Option<&str>) -> ClaimRecord {
    ClaimRecord {
        holder: holder.map(entry),
        token,
        value: value.map(str::to_owned),
        ..ClaimRecord::new(ClaimKey::new("election/a/b/c"))
    }
}

impl Story {
    fn on_record(&mut self, record: Option<&ClaimRecord>) {
        match record.and_then(Tenure::of) {
            Some(tenure) => self.on_leader(tenure),
            None => self.on_free(record.map(|record| record.token)),
        }
    }
}

fn told(story: &mut Story) -> Vec<Told> {
    std::iter::from_fn(|| story.take()).collect()
}

fn leads(session: u128, token: i64, value: Option<&str>) -> Told {
    Told::Leader(Tenure::of(&record(Some(session), token, value)).unwrap())
}

#[test]
fn it_begins_with_the_present_state() {
    let mut story = Story::default();
    story.on_record(None);
    assert_eq!(told(&mut story), [Told::NoLeader]);
    let mut story = Story::default();
    story.on_record(Some(&record(None, 7, None)));
    assert_eq!(told(&mut story), [Told::NoLeader]);
    let mut story = Story::default();
    story.on_record(Some(&record(Some(1), 7, Some("a"))));
    assert_eq!(told(&mut story), [leads(1, 7, Some("a"))]);
}

#[test]
fn a_hand_over_has_a_moment_without_a_leader() {
    let mut story = Story::default();
    story.on_record(Some(&record(Some(1), 1, Some("a"))));
    story.on_record(Some(&record(Some(2), 2, None)));
    story.on_record(Some(&record(Some(2), 2, Some("b"))));
    story.on_record(Some(&record(Some(2), 2, Some("c"))));
    story.on_record(Some(&record(None, 2, Some("c"))));
    let expected = [
        leads(1, 1, Some("a")),
        Told::NoLeader,
        leads(2, 2, None),
        leads(2, 2, Some("b")),
        leads(2, 2, Some("c")),
        Told::NoLeader,
    ];
    assert_eq!(told(&mut story), expected);
}

#[test]
fn the_same_session_can_follow_itself() {
    let mut story = Story::default();
    story.on_record(Some(&record(Some(1), 1, Some("a"))));
    story.on_record(Some(&record(Some(1), 2, Some("a"))));
    assert_eq!(told(&mut story), [leads(1, 1, Some("a")), Told::NoLeader, leads(1, 2, Some("a"))]);
}

#[test]
fn what_is_older_says_nothing() {
    let mut story = Story::default();
    story.on_record(Some(&record(Some(2), 2, Some("b"))));
    told(&mut story);
    story.on_record(Some(&record(Some(1), 1, Some("a"))));
    story.on_record(Some(&record(None, 1, None)));
    story.on_record(Some(&record(Some(2), 2, None)));
    assert!(!story.has_news());
    story.on_record(Some(&record(None, 2, None)));
    assert_eq!(told(&mut story), [Told::NoLeader]);
    story.on_record(Some(&record(Some(2), 2, Some("b"))));
    assert!(!story.has_news(), "a term that is over does not begin again");
}

#[test]
fn a_dead_leader_is_none() {
    let mut story = Story::default();
    story.on_record(Some(&record(Some(1), 1, Some("a"))));
    story.on_dead(SessionId::from_random(2));
    story.on_dead(SessionId::from_random(1));
    assert_eq!(told(&mut story), [leads(1, 1, Some("a")), Told::NoLeader]);
    // Whoever clears up after the dead comes later.
    story.on_record(Some(&record(None, 1, None)));
    story.on_record(Some(&record(Some(2), 2, None)));
    assert_eq!(told(&mut story), [leads(2, 2, None)]);
}

#[test]
fn a_record_that_was_collected_is_nobodys() {
    let mut story = Story::default();
    story.on_record(Some(&record(Some(1), 1, None)));
    story.on_record(None);
    assert_eq!(told(&mut story), [leads(1, 1, None), Told::NoLeader]);
    story.on_record(Some(&record(Some(1), 1, None)));
    assert!(!story.has_news());
}

#[test]
fn who_falls_behind_goes_on_with_the_present() {
    let mut story = Story::default();
    story.on_record(Some(&record(Some(1), 1, None)));
    assert_eq!(story.take(), Some(leads(1, 1, None)));
    for token in 2..1_000 {
        story.on_record(Some(&record(Some(1), token, None)));
    }
    let rest = told(&mut story);
    assert!(rest.len() <= 1_024, "{} events were kept", rest.len());
    assert_eq!((rest.first(), rest.last()), (Some(&Told::NoLeader), Some(&leads(1, 999, None))));
}

#[test]
fn what_could_not_be_told_comes_again() {
    let mut story = Story::default();
    story.on_record(Some(&record(Some(1), 1, None)));
    let first = story.take().unwrap();
    story.put_back(first.clone());
    story.on_record(Some(&record(None, 1, None)));
    assert_eq!(told(&mut story), [first, Told::NoLeader]);
}

/// Something that an observer may be shown: the claim's history, parts of it again, and deaths.
#[derive(Clone, Debug)]
enum Shown {
    Record(bool, i64, u8),
    Missing,
    Dead(u128),
}

fn shown() -> impl Strategy<Value = Shown> {
    prop_oneof![
        6 => (any::<bool>(), 1i64..12, 0u8..3).prop_map(|(h, t, v)| Shown::Record(h, t, v)),
        1 => Just(Shown::Missing),
        1 => (0u128..3).prop_map(Shown::Dead),
    ]
}

proptest! {
    /// Whatever is shown, in whatever order: leaders and moments without one alternate, and tokens grow.
    #[test]
    fn the_story_makes_sense(history in proptest::collection::vec(shown(), 1..60)) {
        let mut story = Story::default();
        let mut all = Vec::new();
        for shown in history {
            match shown {
                Shown::Record(held, token, value) => {
                    // One term has one leader.
                    let holder = held.then_some(token as u128 % 3);
                    story.on_record(Some(&record(holder, token, (value > 0).then_some(if value > 1 { "x" } else { "y" }))));
                }
                Shown::Missing => story.on_record(None),
                Shown::Dead(session) => story.on_dead(SessionId::from_random(session)),
            }
            all.extend(told(&mut story));
        }
        let mut last_token = 0;
        for pair in all.windows(2) {
            match (&pair[0], &pair[1]) {
                (Told::NoLeader, Told::NoLeader) => prop_assert!(false, "nobody leads, twice"),
                (Told::Leader(a), Told::Leader(b)) => {
                    prop_assert_eq!((a.token, a.holder), (b.token, b.holder), "a new term without an end of the last");
                    prop_assert_ne!(&a.value, &b.value);
                }
                _ => {}
            }
        }
        let mut term_open = false;
        for event in &all {
            match event {
                Told::NoLeader => term_open = false,
                Told::Leader(tenure) if term_open => prop_assert_eq!(tenure.token, last_token),
                Told::Leader(tenure) => {
                    prop_assert!(tenure.token > last_token, "tokens grow");
                    last_token = tenure.token;
                    term_open = true;
                }
            }
        }
    }

    /// What is shown completely and in order is told completely and in order.
    #[test]
    fn nothing_is_left_out(terms in proptest::collection::vec((0u128..3, any::<bool>(), any::<bool>()), 1..20)) {
        let mut story = Story::default();
        story.on_record(None);
        let mut expected = vec![Told::NoLeader];
        for (n, (session, speaks, frees)) in terms.iter().enumerate() {
            let token = n as i64 + 1;
            if !matches!(expected.last(), Some(Told::NoLeader)) {
                expected.push(Told::NoLeader);
            }
            story.on_record(Some(&record(Some(*session), token, None)));
            expected.push(leads(*session, token, None));
            if *speaks {
                story.on_record(Some(&record(Some(*session), token, Some("v"))));
                expected.push(leads(*session, token, Some("v")));
            }
            if *frees {
                story.on_record(Some(&record(None, token, None)));
                expected.push(Told::NoLeader);
            }
        }
        prop_assert_eq!(told(&mut story), expected);
    }
}
