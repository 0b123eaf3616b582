use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn terms(priority: i32) -> Terms {
    Terms {
        value: format!("v{priority}"),
        priority: Priority::new(priority).unwrap(),
        keep_on_error: false,
        min_pause: Duration::from_secs(1),
        max_pause: Duration::from_secs(10),
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn exact(pause: Duration) -> Duration {
    pause
}

#[test]
fn everybody_is_called_once_in_a_term() {
    let mut rota = Rota::default();
    let (a, b) = (rota.join(terms(0)), rota.join(terms(0)));
    assert!(!rota.take(a), "nobody leads");
    rota.begin();
    assert!(rota.take(a) && !rota.take(a) && rota.take(b));
    rota.succeeded(a);
    assert!(!rota.take(a), "it was called in this term");
    let c = rota.join(terms(0));
    assert!(rota.take(c), "whoever comes during a term is called in it");
    rota.end();
    rota.succeeded(b);
    assert!(rota.is_running(), "one call has not ended");
    rota.overtaken(c);
    assert!(!rota.is_running());
    rota.begin();
    assert!(rota.take(a) && rota.take(b) && rota.take(c));
}

#[test]
fn no_call_begins_after_the_term() {
    let mut rota = Rota::default();
    let a = rota.join(terms(0));
    rota.begin();
    rota.end();
    assert!(!rota.take(a));
}

#[test]
fn a_call_that_nobody_received_is_due_again() {
    let mut rota = Rota::default();
    let a = rota.join(terms(0));
    rota.begin();
    assert!(rota.take(a));
    rota.put_back(a);
    assert!(rota.take(a));
    rota.end();
    rota.put_back(a);
    assert!(!rota.take(a) && !rota.is_running());
}

#[test]
fn the_highest_priority_and_the_oldest_value_count() {
    let mut rota = Rota::default();
    assert_eq!(rota.plan(), None);
    let a = rota.join(terms(1));
    let b = rota.join(terms(5));
    assert_eq!((rota.plan().unwrap().priority.value(), rota.value()), (5, Some("v1")));
    rota.leave(a);
    assert_eq!(rota.value(), Some("v5"));
    rota.leave(b);
    assert_eq!((rota.plan(), rota.value(), rota.is_empty()), (None, None, true));
}

#[test]
fn whoever_leaves_during_its_call_is_gone_after_it() {
    let mut rota = Rota::default();
    let a = rota.join(terms(0));
    rota.begin();
    assert!(rota.take(a));
    rota.leave(a);
    assert!(rota.contains(a) && rota.plan().is_none());
    assert!(!rota.failed(a, at(0), exact), "its failure is nobody's concern any more");
    assert!(rota.is_empty());
}

#[test]
fn failures_pause_longer_and_longer_until_a_success() {
    let mut rota = Rota::default();
    let a = rota.join(terms(0));
    let mut now = 0;
    for pause in [1, 2, 4, 8, 10, 10] {
        rota.begin();
        assert!(rota.take(a));
        assert!(rota.failed(a, at(now), exact), "the term is to end");
        rota.end();
        assert_eq!(rota.plan().unwrap().not_before, at(now + pause));
        now += pause;
    }
    rota.begin();
    assert!(rota.take(a));
    rota.succeeded(a);
    rota.end();
    rota.begin();
    assert!(rota.take(a));
    rota.failed(a, at(100), exact);
    assert_eq!(rota.plan().unwrap().not_before, at(101));
}

#[test]
fn one_that_keeps_the_term_on_errors_does_not_pause() {
    let mut rota = Rota::default();
    let a = rota.join(Terms { keep_on_error: true, ..terms(0) });
    rota.begin();
    assert!(rota.take(a));
    assert!(!rota.failed(a, at(5), exact));
    assert_eq!(rota.plan().unwrap().not_before, at(0));
    assert!(!rota.take(a), "and is not called again in it");
}

#[derive(Clone, Debug)]
enum Step {
    Join(i32),
    Leave(usize),
    Begin,
    End,
    Take(usize),
    PutBack(usize),
    Succeed(usize),
    Overtake(usize),
    Fail(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..5;
    prop_oneof![
        (-3i32..3).prop_map(Step::Join),
        who.clone().prop_map(Step::Leave),
        Just(Step::Begin),
        Just(Step::End),
        who.clone().prop_map(Step::Take),
        who.clone().prop_map(Step::PutBack),
        who.clone().prop_map(Step::Succeed),
        who.clone().prop_map(Step::Overtake),
        who.prop_map(Step::Fail),
    ]
}

proptest! {
    /// Against a plain account of who runs and who was called: no call twice in a term, none beside another of the same
    /// function, none outside of a term.
    #[test]
    fn calls_never_overlap(steps in proptest::collection::vec(step(), 1..120)) {
        let mut rota = Rota::default();
        let mut ids: Vec<MemberId> = Vec::new();
        let mut gone = BTreeSet::new();
        let mut running = BTreeSet::new();
        let mut called = BTreeSet::new();
        let mut leading = false;
        for step in steps {
            let id = |n: usize| ids.get(n).copied();
            match step {
                Step::Join(priority) if ids.len() < 5 => ids.push(rota.join(terms(priority))),
                Step::Join(_) => {}
                Step::Leave(n) => if let Some(id) = id(n) {
                    rota.leave(id);
                    gone.insert(id);
                },
                Step::Begin if running.is_empty() && !leading => {
                    rota.begin();
                    leading = true;
                    called.clear();
                }
                Step::Begin => {}
                Step::End => {
                    rota.end();
                    leading = false;
                }
                Step::Take(n) => if let Some(id) = id(n) {
                    let expected = leading && !gone.contains(&id) && !called.contains(&id) && !running.contains(&id);
                    prop_assert_eq!(rota.take(id), expected);
                    if expected {
                        running.insert(id);
                        called.insert(id);
                    }
                },
                Step::PutBack(n) => if let Some(id) = id(n).filter(|id| running.remove(id)) {
                    rota.put_back(id);
                    called.remove(&id);
                },
                Step::Succeed(n) => if let Some(id) = id(n).filter(|id| running.remove(id)) { rota.succeeded(id) },
                Step::Overtake(n) => if let Some(id) = id(n).filter(|id| running.remove(id)) { rota.overtaken(id) },
                Step::Fail(n) => if let Some(id) = id(n).filter(|id| running.remove(id)) {
                    prop_assert_eq!(rota.failed(id, at(1), exact), !gone.contains(&id));
                },
            }
            prop_assert_eq!(rota.is_running(), !running.is_empty());
            let here = ids.iter().any(|id| !gone.contains(id));
            prop_assert_eq!(rota.plan().is_some(), here);
        }
    }
}
