//! Planted violations of each rule, and histories that keep it.

use super::*;
use crate::history::{Answer, Ask};

const TERMS: Terms = Terms { ttl: Duration::from_secs(3), stale: Duration::ZERO, kinds: Vec::new() };

fn line(ms: u64, event: Event) -> Line {
    Line { t: ms * MS, event }
}

/// A hold of lock `l`: attempted, granted and last found good at these milliseconds.
fn hold(n: u64, token: i64, attempted: u64, granted: u64, last_ok: u64) -> Vec<Line> {
    let lock = || "l".to_owned();
    vec![
        line(attempted, Event::Attempt { lock: lock(), n, wait: true, patience_ms: None }),
        line(granted, Event::Granted { lock: lock(), n, token }),
        line(last_ok, Event::Ok { lock: lock(), token }),
        line(last_ok + 1, Event::Released { lock: lock(), token, clean: true }),
    ]
}

fn histories(workers: &[(&str, Vec<Line>)]) -> Histories {
    let workers = workers.iter().map(|(name, lines)| ((*name).to_owned(), lines.clone())).collect();
    Histories { workers, ..Histories::default() }
}

fn violations(histories: &Histories) -> Vec<String> {
    histories.check(&TERMS).violations
}

#[test]
fn a_good_history_is_clean() {
    let good = histories(&[("w1.1", hold(1, 10, 0, 5, 2000)), ("w2.1", hold(1, 11, 1, 2001, 3000))]);
    assert_eq!(violations(&good), Vec::<String>::new());
    let findings = good.check(&TERMS);
    assert_eq!((findings.grants, findings.checks, findings.longest_hold), (2, 2, Duration::from_millis(1995)));
}

#[test]
fn two_holders_are_found_also_inside_of_a_long_hold() {
    let bad = histories(&[
        ("w1.1", hold(1, 10, 0, 5, 2000)),
        ("w2.1", hold(1, 11, 100, 200, 300)),
        ("w3.1", hold(1, 12, 310, 1999, 2500)),
    ]);
    let found = violations(&bad);
    assert_eq!(found.iter().filter(|message| message.contains("at once")).count(), 2, "{found:?}");
    assert!(found.iter().any(|message| message.contains("no order explains")), "{found:?}");
}

#[test]
fn a_refusal_while_nobody_held_is_found_unless_somebody_may_have() {
    let refused = |begun: u64| {
        let lock = || "l".to_owned();
        vec![
            line(begun, Event::Attempt { lock: lock(), n: 1, wait: false, patience_ms: None }),
            line(begun + 1, Event::Refused { lock: lock(), n: 1, code: "Contended".into(), holder: None }),
        ]
    };
    let late = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", refused(30))]);
    assert!(violations(&late)[0].contains("Contended"), "{:?}", violations(&late));
    let in_time = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", refused(12))]);
    assert_eq!(in_time.check(&TERMS).linearized, 3);
    let killed = vec![line(25, Event::Attempt { lock: "l".into(), n: 1, wait: true, patience_ms: None })];
    let explained = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", refused(30)), ("w3.1", killed)]);
    assert_eq!(violations(&explained), Vec::<String>::new());
}

#[test]
fn terms_are_put_into_one_order_as_holds_are() {
    let term = |n: u64, token: i64, attempted: u64, granted: u64, last_ok: u64| {
        let rename = |mut line: Line| {
            match &mut line.event {
                Event::Attempt { lock, .. }
                | Event::Granted { lock, .. }
                | Event::Ok { lock, .. }
                | Event::Released { lock, .. } => *lock = "e0".into(),
                _ => {}
            }
            line
        };
        hold(n, token, attempted, granted, last_ok).into_iter().map(rename).collect::<Vec<_>>()
    };
    let good = histories(&[("c1.1", term(1, 10, 0, 5, 20)), ("go2.1", term(1, 11, 1, 30, 40))]);
    let found = good.check(&TERMS);
    assert_eq!((found.violations, found.linearized), (Vec::new(), 4));
    assert_eq!(found.languages, [("c".to_owned(), (1, 1)), ("go".to_owned(), (1, 1))].into());
    // Nobody checked while two led; what the calls returned cannot have been all the same.
    let bad = histories(&[("c1.1", term(1, 10, 0, 5, 5)), ("go2.1", term(1, 9, 30, 40, 40))]);
    assert!(violations(&bad).iter().any(|message| message.starts_with("e0: no order")), "{:?}", violations(&bad));
}

#[test]
fn a_document_that_no_order_explains_is_found() {
    let asked = |t: u64, n: u64, ask: Ask, answer: Option<Answer>| {
        let mut lines = vec![line(t, Event::Asked { lock: "k0".into(), n, ask })];
        lines.extend(answer.map(|answer| line(t + 2, Event::Answered { lock: "k0".into(), n, answer })));
        lines
    };
    let put = asked(0, 1, Ask::Put { v: 1 }, Some(Answer::Done));
    let read = |v: u64| asked(10, 1, Ask::Get, Some(Answer::Document { v, n: 0 }));
    let good = histories(&[("w1.1.table", put.clone()), ("w2.1.table", read(1))]);
    let found = good.check(&TERMS);
    assert_eq!((found.violations, found.documents), (Vec::new(), 2));
    let lost = histories(&[("w1.1.table", put.clone()), ("w2.1.table", read(2))]);
    assert!(violations(&lost)[0].starts_with("k0: no order"), "{:?}", violations(&lost));
    // Whoever was killed in a call may have done it.
    let killed = asked(5, 1, Ask::Put { v: 2 }, None);
    let explained = histories(&[("w1.1.table", put.clone()), ("w2.1.table", read(2)), ("w3.1.table", killed)]);
    assert_eq!(violations(&explained), Vec::<String>::new());
    // What is read may be old only where the store says so.
    let twice = [put, asked(4, 2, Ask::Put { v: 3 }, Some(Answer::Done))].concat();
    let old = histories(&[("w1.1.table", twice), ("w2.1.table", read(1))]);
    assert_eq!(violations(&old).len(), 1);
    let allowed = Terms { stale: Duration::from_secs(1), ..TERMS };
    assert_eq!(old.check(&allowed).violations, Vec::<String>::new());
}

#[test]
fn a_read_that_lacks_a_write_of_this_generation_is_found_also_where_reads_may_be_old() {
    let terms = Terms { stale: calls::STALE, ..TERMS };
    let asked = |t: u64, ask: Ask, answer: Answer| {
        let lock = || "k0".to_owned();
        vec![
            line(t, Event::Asked { lock: lock(), n: 1, ask }),
            line(t + 2, Event::Answered { lock: lock(), n: 1, answer }),
        ]
    };
    let put = asked(1, Ask::Put { v: 1 }, Answer::Done);
    let stale = calls::STALE.as_millis() as u64;
    let read = |t: u64| histories(&[("w1.1.table", put.clone()), ("w2.1.table", asked(t, Ask::Get, Answer::Nothing))]);
    assert_eq!(read(stale).check(&terms).violations, Vec::<String>::new());
    let found = read(stale + 10).check(&terms).violations;
    assert!(found.len() == 1 && found[0].starts_with("k0: no order"), "{found:?}");
}

#[test]
fn a_watch_that_tells_another_story_is_found() {
    let watch = |tokens: &[Option<i64>]| {
        let lines = tokens.iter().map(|token| line(1, Event::Watched { lock: "e".into(), token: *token }));
        histories(&[("w1.1", lines.collect())])
    };
    let good = watch(&[None, Some(1), Some(1), None, None, Some(3)]);
    assert_eq!((violations(&good), good.check(&TERMS).watched), (Vec::new(), 2));
    assert!(violations(&watch(&[Some(1), Some(2)]))[0].contains("nobody in between"));
    assert!(violations(&watch(&[Some(2), None, Some(1)]))[0].contains("after 2"));
    assert!(violations(&watch(&[Some(2), None, Some(2)]))[0].contains("after 2"));
}

#[test]
fn a_token_that_falls_or_repeats_is_found() {
    let falls = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", hold(1, 9, 30, 40, 50))]);
    assert!(violations(&falls)[0].contains("is not above 10"), "{:?}", violations(&falls));
    let repeats = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", hold(1, 10, 4, 40, 50))]);
    assert!(violations(&repeats)[0].contains("granted twice"), "{:?}", violations(&repeats));
}

#[test]
fn only_overlaps_and_the_order_of_tokens_find_a_wrong_protocol_out() {
    let clean = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", hold(1, 11, 21, 30, 40))]).check(&TERMS);
    assert_eq!(clean.exclusion_is_broken(), Ok(false));
    // Something else is wrong; the same with workers that do not end well.
    let mut other = clean.clone();
    other.violations = vec!["w1 did not end well when it was asked to".into()];
    assert_eq!(other.exclusion_is_broken(), Ok(false));
    let broken = [
        [("w1.1", hold(1, 10, 0, 5, 2000)), ("w2.1", hold(1, 11, 100, 200, 300))],
        [("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", hold(1, 9, 30, 40, 50))],
        [("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", hold(1, 10, 4, 40, 50))],
    ];
    for workers in broken {
        let findings = histories(&workers).check(&TERMS);
        assert_eq!(findings.exclusion_is_broken(), Ok(true), "{findings:?}");
        // Of workers that end by themselves nothing is said.
        assert!(Findings { ended: 1, ..findings }.exclusion_is_broken().is_err());
    }
}

#[test]
fn a_resource_that_took_an_old_or_foreign_token_is_found() {
    let mut bad = histories(&[("w1.1", [hold(1, 10, 0, 5, 20), hold(2, 11, 30, 35, 40)].concat())]);
    bad.registers.insert("l".into(), vec![10, 11, 10]);
    assert!(violations(&bad)[0].contains("accepted 10 after 11"));
    bad.registers.insert("l".into(), vec![12]);
    assert!(violations(&bad)[0].contains("nobody was granted"));
}

#[test]
fn a_waiter_that_is_overtaken_is_found_unless_a_fault_explains_it() {
    let overtaken = || histories(&[("w1.1", hold(1, 12, 0, 9000, 9100)), ("w2.1", hold(1, 11, 2000, 5000, 5100))]);
    assert!(violations(&overtaken())[0].contains("which had come first"));
    let mut explained = overtaken();
    let fault = |target: &str| Fault { t: 0, until: MS, kind: "kill".into(), target: target.into() };
    explained.faults.push(fault("w1"));
    assert_eq!(violations(&explained), Vec::<String>::new());
    let mut of_another = overtaken();
    of_another.faults.push(fault("w11"));
    assert_eq!(violations(&of_another).len(), 1);
    // What was done to a server lasts until the set is whole.
    for (whole, found) in [(15_000, 1), (21_000, 0)] {
        let mut of_server =
            histories(&[("w1.1", hold(1, 12, 20_000, 29_000, 29_100)), ("w2.1", hold(1, 11, 22_000, 25_000, 25_100))]);
        of_server.faults.push(Fault { kind: "server killed".into(), ..fault("servers") });
        of_server.faults.push(healed(whole, whole + 1));
        assert_eq!(violations(&of_server).len(), found, "whole at {whole}");
    }
}

#[test]
fn a_lock_that_nobody_gets_after_healing_is_found() {
    let healed = |until: u64| Fault { t: 0, until: until * MS, kind: HEALED.into(), target: "servers".into() };
    // The bound is 1.1 ttl + 5 s = 8.3 s.
    let mut late = histories(&[("w1.1", hold(1, 10, 0, 8_400, 8_500))]);
    late.faults.push(healed(9_000));
    assert!(violations(&late)[0].contains("nobody had it"));
    let once = hold(1, 10, 0, 10, 20);
    let waits = |from: u64| vec![attempt(from, 1, 60_000)];
    let mut never = histories(&[("w1.1", once.clone()), ("w2.1", waits(30))]);
    never.faults.push(healed(9_000));
    assert!(violations(&never)[0].contains("nobody had it"));
    // Nobody wants it, or not for so long, or whoever does is killed.
    let mut unwanted = histories(&[("w1.1", once.clone())]);
    unwanted.faults.push(healed(9_000));
    let mut briefly = histories(&[("w1.1", once.clone()), ("w2.1", waits(800))]);
    briefly.faults.push(healed(9_000));
    let mut killed = histories(&[("w1.1", once), ("w2.1", waits(30))]);
    killed.faults.push(Fault { t: 40 * MS, until: 41 * MS, kind: KILLED.into(), target: "w2".into() });
    killed.faults.push(healed(9_000));
    for explained in [unwanted, briefly, killed] {
        assert_eq!(violations(&explained), Vec::<String>::new());
    }
    let mut held = histories(&[("w1.1", hold(1, 10, 0, 10, 8_900))]);
    held.faults.push(healed(9_000));
    assert_eq!(violations(&held), Vec::<String>::new());
}

#[test]
fn a_campaign_without_power_says_so() {
    let mut weak = histories(&[("w1.1", hold(1, 10, 0, 5, 20))]);
    weak.faults.push(Fault { t: 500 * MS, until: 501 * MS, kind: "kill".into(), target: "w1".into() });
    let weaknesses = weak.check(&TERMS).weaknesses;
    // It has no documents, no watches, no refusals and nobody who waits behind another.
    assert_eq!(weaknesses.len(), 8, "{weaknesses:?}");
    // A fault of servers while nobody held anything, and a worker that never got anything.
    weak.faults.push(Fault { t: 600 * MS, until: 601 * MS, kind: "step-down".into(), target: "servers".into() });
    weak.workers.insert("c1.1".into(), Vec::new());
    let findings = weak.check(&TERMS);
    assert_eq!(findings.weaknesses.len(), 10, "{findings:?}");
    assert_eq!(findings.idle_languages(), ["nobody in c was granted anything"]);
    // Nothing was put into an order either where there were no calls.
    let silent = histories(&[("w1.1", Vec::new())]).check(&TERMS).weaknesses;
    for what in ["locks and elections were put", "documents were put", "told of a term"] {
        assert!(silent.iter().any(|weakness| weakness.contains(what)), "{what}: {silent:?}");
    }
}

#[test]
fn lines_are_read_as_they_were_written() {
    let written = line(7, Event::Granted { lock: "l".into(), n: 1, token: 5 });
    let text = serde_json::to_string(&written).expect("a line");
    assert_eq!(text, r#"{"t":7000000,"e":"granted","lock":"l","n":1,"token":5}"#);
    assert_eq!(serde_json::from_str::<Line>(&text).expect("a line"), written);
}

/// A time without faults, in milliseconds.
fn healed(from: u64, until: u64) -> Fault {
    Fault { t: from * MS, until: until * MS, kind: HEALED.into(), target: "servers".into() }
}

fn attempt(ms: u64, n: u64, patience_ms: u64) -> Line {
    line(ms, Event::Attempt { lock: "l".into(), n, wait: patience_ms > 0, patience_ms: Some(patience_ms) })
}

fn refused(ms: u64, n: u64, code: &str, holder: Option<i64>) -> Line {
    line(ms, Event::Refused { lock: "l".into(), n, code: code.into(), holder })
}

#[test]
fn a_refusal_that_names_another_holder_than_there_was_is_found_whatever_doubts_there_are() {
    let of = |holder: i64, n: u64| vec![attempt(n * 10, n, 0), refused(n * 10 + 1, n, "Contended", Some(holder))];
    // Somebody was killed while he waited: he may have had it for a moment.
    let killed = vec![attempt(12, 1, 1000)];
    let holders = [hold(1, 10, 0, 5, 15), hold(2, 11, 1, 17, 30)].concat();
    let true_story = histories(&[("w1.1", holders.clone()), ("w2.1", of(11, 2)), ("w3.1", killed.clone())]);
    let found = true_story.check(&TERMS);
    assert_eq!((found.violations, found.refusals), (Vec::new(), 1));
    let false_story = histories(&[("w1.1", holders.clone()), ("w2.1", of(10, 2)), ("w3.1", killed.clone())]);
    assert!(violations(&false_story)[0].contains("no order explains"), "{:?}", violations(&false_story));
    // Of a holder who was killed before he could tell nothing is known.
    let untold = histories(&[("w1.1", holders), ("w2.1", of(12, 2)), ("w3.1", killed)]);
    let found = untold.check(&TERMS);
    assert_eq!((found.violations, found.refusals), (Vec::new(), 0));
}

#[test]
fn a_refusal_for_no_good_reason_is_found() {
    let refusal = |code: &str| histories(&[("w1.1", vec![attempt(0, 1, 100), refused(100, 1, code, None)])]);
    assert_eq!(violations(&refusal("Unavailable")), Vec::<String>::new());
    assert!(violations(&refusal("Internal"))[0].contains("was refused l with Internal"));
}

#[test]
fn an_attempt_that_is_not_answered_after_everything_has_healed_is_found() {
    let late = |lines: Vec<Line>, more: Option<Fault>| {
        let mut late = histories(&[("w1.1", lines), ("w2.1", hold(1, 10, 0, 5, 19_990))]);
        late.faults.push(healed(0, 20_000));
        late.faults.extend(more);
        violations(&late)
    };
    let answer = |ms: u64| vec![attempt(0, 1, 1_000), refused(ms, 1, "Timeout", None)];
    assert_eq!(late(answer(5_900), None), Vec::<String>::new());
    assert!(late(answer(6_100), None)[0].contains("had no answer from l"));
    assert!(late(vec![attempt(0, 1, 1_000)], None)[0].contains("had no answer from l"));
    // Whoever had been killed before is not waited for.
    let killed = Fault { t: 0, until: 1, kind: KILLED.into(), target: "w1".into() };
    assert_eq!(late(vec![attempt(0, 1, 1_000)], Some(killed)), Vec::<String>::new());
}

#[test]
fn a_hold_that_is_lost_without_a_fault_is_found() {
    let mut lost = hold(1, 10, 0, 5, 20);
    lost[3].event = Event::Lost { lock: "l".into(), token: 10 };
    let lost = histories(&[("w1.1", lost)]);
    assert!(violations(&lost)[0].contains("lost l (token 10) without a fault"));
    let mut explained = lost.clone();
    explained.faults.push(Fault { t: 10 * MS, until: 11 * MS, kind: "cut off".into(), target: "w1".into() });
    assert_eq!(violations(&explained), Vec::<String>::new());
    let mut of_another = lost;
    of_another.faults.push(Fault { t: 10 * MS, until: 11 * MS, kind: "cut off".into(), target: "w2".into() });
    assert_eq!(violations(&of_another).len(), 1);
}

#[test]
fn a_watch_that_is_not_told_of_a_lasting_term_is_found() {
    // After 1.1 ttl of quiet, and for longer than half a ttl.
    let watch = |told: &[(u64, Option<i64>)]| {
        let lines = told.iter().map(|(ms, token)| line(*ms, Event::Watched { lock: "l".into(), token: *token }));
        let mut watch = histories(&[("w1.1", hold(1, 10, 3_950, 4_000, 7_000)), ("w2.1.watch", lines.collect())]);
        watch.faults.push(healed(500, 11_000));
        watch.check(&TERMS)
    };
    let told = watch(&[(0, None), (4_100, Some(10))]);
    assert_eq!((told.violations, told.followed), (Vec::new(), 1));
    for silent in [watch(&[(0, None)]), watch(&[(0, None), (5_600, Some(10))]), watch(&[(0, Some(9)), (4_100, None)])] {
        assert!(silent.violations[0].contains("was not told in time of the term 10"), "{silent:?}");
    }
    // It had only begun.
    assert_eq!(watch(&[(3_000, None)]).followed, 0);
}

#[test]
fn a_kind_of_faults_that_never_came_is_a_weakness() {
    let terms = Terms { kinds: vec![KILLED.into(), "disk full".into()], ..TERMS };
    let mut weak = histories(&[("w1.1", hold(1, 10, 0, 5, 20))]);
    weak.faults.push(Fault { t: 10 * MS, until: 11 * MS, kind: KILLED.into(), target: "w1".into() });
    let weaknesses = weak.check(&terms).weaknesses;
    assert!(weaknesses.contains(&"there was no fault of the kind 'disk full'".to_owned()), "{weaknesses:?}");
    assert!(!weaknesses.contains(&"there was no fault of the kind 'killed'".to_owned()), "{weaknesses:?}");
}
