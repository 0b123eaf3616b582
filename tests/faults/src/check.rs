//! The rules that the histories of all workers together must keep, and the power that a campaign must have.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::history::{Event, FAULTS, Fault, HEALED, Line, Nanos, read};
use crate::linear::{self, Call, LockObject, LockOp, Verdict};

/// Everything that was written down.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    /// By the worker's file, without its ending: `w3.1`.
    pub workers: BTreeMap<String, Vec<Line>>,
    /// The faults, and the times without any.
    pub faults: Vec<Fault>,
    /// The tokens that each lock's resource accepted, in order.
    pub registers: BTreeMap<String, Vec<i64>>,
}

/// What the check needs to know of the campaign.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The workers' ttl.
    pub ttl: Duration,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// Why the campaign proves little, if it does.
    pub weaknesses: Vec<String>,
    /// Attempts.
    pub attempts: usize,
    /// Grants.
    pub grants: usize,
    /// Checks that found a hold valid.
    pub checks: usize,
    /// Holds that were lost while they were held.
    pub losses: usize,
    /// Grants that followed a holder which never released.
    pub takeovers: usize,
    /// Writes that the resource refused: what fencing is for.
    pub fenced: usize,
    /// Pairs of waiters whose order could be told.
    pub ordered: usize,
    /// Terms that watches of elections told of.
    pub watched: usize,
    /// Calls for which an order was found that a lock with one user at a time could have had.
    pub linearized: usize,
    /// Faults by kind, and how many of them hit a worker that held something.
    pub faults: BTreeMap<String, (usize, usize)>,
    /// The longest time after healing in which nobody had a lock that was wanted.
    pub longest_gap: Duration,
    /// The longest hold.
    pub longest_hold: Duration,
}

/// A hold as its worker believed in it: from after the grant to before the last good check.
#[derive(Clone, Debug)]
struct Hold {
    worker: String,
    token: i64,
    attempted: Nanos,
    granted: Nanos,
    last_ok: Nanos,
    ended: bool,
}

impl Histories {
    /// Reads a campaign's folder.
    ///
    /// # Errors
    /// What the operating system says, or which line is not one of ours.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut histories = Self::default();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name == FAULTS {
                histories.faults = read(&path)?;
            } else if let Some(worker) = name.strip_suffix(".jsonl") {
                histories.workers.insert(worker.to_owned(), read(&path)?);
            } else if let Some(lock) = name.strip_suffix(".register") {
                let tokens = std::fs::read_to_string(&path)?.lines().filter_map(|line| line.parse().ok()).collect();
                histories.registers.insert(lock.to_owned(), tokens);
            }
        }
        Ok(histories)
    }

    /// Looks for what must never be.
    pub fn check(&self, terms: Terms) -> Findings {
        let mut findings = Findings::default();
        let holds = self.holds(&mut findings);
        for (lock, holds) in &holds {
            overlaps(lock, holds, &mut findings);
            token_order(lock, holds, &mut findings);
        }
        for (lock, tokens) in &self.registers {
            self.check_register(lock, tokens, holds.get(lock).map_or(&[][..], |holds| holds), &mut findings);
        }
        self.check_watches(&mut findings);
        self.check_linear(&mut findings);
        self.check_order(terms, &mut findings);
        self.check_gaps(terms, &holds, &mut findings);
        self.check_power(terms, &holds, &mut findings);
        findings
    }

    fn holds(&self, findings: &mut Findings) -> BTreeMap<String, Vec<Hold>> {
        let mut holds: BTreeMap<String, Vec<Hold>> = BTreeMap::new();
        for (worker, lines) in &self.workers {
            let mut attempts = BTreeMap::new();
            let mut open: BTreeMap<(String, i64), Hold> = BTreeMap::new();
            for Line { t, event } in lines {
                match event {
                    Event::Attempt { n, .. } => {
                        findings.attempts += 1;
                        attempts.insert(*n, *t);
                    }
                    Event::Granted { lock, n, token } => {
                        findings.grants += 1;
                        let attempted = attempts.get(n).copied().unwrap_or(*t);
                        let (worker, ended) = (worker.clone(), false);
                        let hold = Hold { worker, token: *token, attempted, granted: *t, last_ok: *t, ended };
                        open.insert((lock.clone(), *token), hold);
                    }
                    Event::Ok { lock, token } => {
                        findings.checks += 1;
                        if let Some(hold) = open.get_mut(&(lock.clone(), *token)) {
                            hold.last_ok = hold.last_ok.max(*t);
                        }
                    }
                    Event::Lost { .. } => findings.losses += 1,
                    Event::Released { lock, token, .. } => {
                        if let Some(hold) = open.get_mut(&(lock.clone(), *token)) {
                            hold.ended = true;
                        }
                    }
                    Event::Wrote { accepted, .. } => findings.fenced += usize::from(!accepted),
                    Event::Refused { .. } | Event::Watched { .. } => {}
                }
            }
            for ((lock, _), hold) in open {
                holds.entry(lock).or_default().push(hold);
            }
        }
        for holds in holds.values_mut() {
            holds.sort_by_key(|hold| hold.granted);
            findings.takeovers += holds.windows(2).filter(|pair| !pair[0].ended).count();
            let longest = holds.iter().map(|hold| hold.last_ok - hold.granted).max().unwrap_or(0);
            findings.longest_hold = findings.longest_hold.max(Duration::from_nanos(longest));
        }
        holds
    }

    fn check_register(&self, lock: &str, tokens: &[i64], holds: &[Hold], findings: &mut Findings) {
        for pair in tokens.windows(2).filter(|pair| pair[1] <= pair[0]) {
            findings.violations.push(format!("the resource of {lock} accepted {} after {}", pair[1], pair[0]));
        }
        let granted: BTreeSet<i64> = holds.iter().map(|hold| hold.token).collect();
        for token in tokens.iter().filter(|token| !granted.contains(token)) {
            findings
                .violations
                .push(format!("the resource of {lock} was written with {token}, which nobody was granted"));
        }
    }

    /// A watch tells of terms in their order, and between two of them that nobody leads.
    fn check_watches(&self, findings: &mut Findings) {
        for (worker, lines) in &self.workers {
            let mut last: BTreeMap<&str, (Option<i64>, i64)> = BTreeMap::new();
            for line in lines {
                let Event::Watched { lock, token } = &line.event else { continue };
                let (leading, highest) = last.entry(lock).or_insert((None, i64::MIN));
                match (*leading, *token) {
                    // Another value of the same term.
                    (Some(before), Some(now)) if before == now => {}
                    (Some(before), Some(now)) => findings.violations.push(format!(
                        "{worker} was told of the term {now} of {lock} after {before}, with nobody in between"
                    )),
                    (None, Some(now)) if now <= *highest => findings
                        .violations
                        .push(format!("{worker} was told of the term {now} of {lock} after {highest}")),
                    (None, Some(_)) => findings.watched += 1,
                    (_, None) => {}
                }
                *leading = *token;
                *highest = token.unwrap_or(*highest).max(*highest);
            }
        }
    }

    /// All calls to a lock together are what one lock could have answered.
    fn check_linear(&self, findings: &mut Findings) {
        for (lock, calls) in self.calls() {
            let count = calls.len();
            match linear::check(&LockObject, calls, SEARCH) {
                Verdict::Linear => findings.linearized += count,
                Verdict::NotLinear(stuck) => {
                    findings.violations.push(format!("{lock}: no order explains what its calls returned: {stuck}"));
                }
                Verdict::TooLong => findings
                    .violations
                    .push(format!("{lock}: looking for an order of its {count} calls took too long to tell")),
            }
        }
    }

    /// The calls to each lock.
    fn calls(&self) -> BTreeMap<&str, Vec<Call<LockOp>>> {
        let mut calls: BTreeMap<&str, Vec<Call<LockOp>>> = BTreeMap::new();
        let mut contended: Vec<(&str, Nanos, Nanos)> = Vec::new();
        // Attempts that may have been granted for a moment, or for as long as it takes to bury a session: in such a
        // time a refusal says nothing.
        let mut doubts: BTreeMap<&str, Vec<(Nanos, Nanos)>> = BTreeMap::new();
        for lines in self.workers.values() {
            let mut attempt = None;
            let mut hold: Option<(&str, i64, Nanos)> = None;
            let end = |hold: &mut Option<(&str, i64, Nanos)>, ended| {
                if let Some((_, token, last_ok)) = hold.take() {
                    return Some(Call { op: LockOp::End(token), begun: last_ok, ended });
                }
                None
            };
            for Line { t, event } in lines {
                match event {
                    Event::Attempt { lock, .. } => attempt = Some((lock.as_str(), *t)),
                    Event::Granted { lock, token, .. } => {
                        if let Some((_, begun)) = attempt.take() {
                            let grant = Call { op: LockOp::Grant(*token), begun, ended: Some(*t) };
                            calls.entry(lock).or_default().push(grant);
                            hold = Some((lock, *token, *t));
                        }
                    }
                    Event::Refused { code, .. } => match attempt.take() {
                        Some((lock, begun)) if code == "Contended" => contended.push((lock, begun, *t)),
                        // Given up, and taken back soon after.
                        Some((lock, begun)) if code == "Timeout" => {
                            doubts.entry(lock).or_default().push((begun, t + TAKEN_BACK));
                        }
                        Some((lock, begun)) => doubts.entry(lock).or_default().push((begun, Nanos::MAX)),
                        None => {}
                    },
                    Event::Ok { .. } => {
                        if let Some((_, _, last_ok)) = &mut hold {
                            *last_ok = *t;
                        }
                    }
                    Event::Released { lock, clean, .. } => {
                        calls.entry(lock).or_default().extend(end(&mut hold, clean.then_some(*t)));
                    }
                    Event::Lost { .. } | Event::Wrote { .. } | Event::Watched { .. } => {}
                }
            }
            if let Some((lock, ..)) = hold {
                calls.entry(lock).or_default().extend(end(&mut hold, None));
            }
            if let Some((lock, begun)) = attempt {
                doubts.entry(lock).or_default().push((begun, Nanos::MAX));
            }
        }
        for (lock, begun, ended) in contended {
            let doubtful = doubts.get(lock).into_iter().flatten().any(|(from, to)| *from < ended && begun < *to);
            if !doubtful {
                calls.entry(lock).or_default().push(Call { op: LockOp::Contended, begun, ended: Some(ended) });
            }
        }
        calls
    }

    /// Who was in the queue first is granted first. Only of attempts that no fault came near, and that began so far
    /// apart that the queue must have had them in that order.
    fn check_order(&self, terms: Terms, findings: &mut Findings) {
        let grace = terms.ttl.as_nanos() as u64;
        let mut waits: BTreeMap<&str, Vec<(Nanos, Nanos, &str)>> = BTreeMap::new();
        for (worker, lines) in &self.workers {
            let mut open = BTreeMap::new();
            for Line { t, event } in lines {
                match event {
                    Event::Attempt { n, wait: true, .. } => {
                        open.insert(*n, *t);
                    }
                    Event::Granted { lock, n, .. } => {
                        if let Some(begun) = open.remove(n) {
                            waits.entry(lock).or_default().push((begun, *t, worker));
                        }
                    }
                    _ => {}
                }
            }
        }
        let near = |begun: Nanos, granted: Nanos, worker: &str| {
            self.faults.iter().any(|fault| {
                let hits = fault.target == "servers" || worker.starts_with(&format!("{}.", fault.target));
                hits && fault.kind != HEALED && fault.t < granted && fault.until + grace > begun
            })
        };
        for (lock, waits) in &mut waits {
            waits.sort_unstable();
            let calm: Vec<_> =
                waits.iter().filter(|(begun, granted, worker)| !near(*begun, *granted, worker)).collect();
            for (place, first) in calm.iter().enumerate() {
                let queued = first.0 + CLEARLY_BEFORE.as_nanos() as u64;
                for second in calm[place + 1..].iter().take_while(|second| second.0 < first.1) {
                    if second.0 > queued {
                        findings.ordered += 1;
                        if second.1 + CLEARLY_BEFORE.as_nanos() as u64 <= first.1 {
                            let message =
                                format!("{} was granted {lock} before {}, which had come first", second.2, first.2);
                            findings.violations.push(message);
                        }
                    }
                }
            }
        }
    }

    /// After healing nobody waits long for a lock that nobody holds.
    fn check_gaps(&self, terms: Terms, holds: &BTreeMap<String, Vec<Hold>>, findings: &mut Findings) {
        let bound = terms.ttl.mul_f64(1.1) + Duration::from_secs(5);
        for healed in self.faults.iter().filter(|fault| fault.kind == HEALED) {
            for (lock, holds) in holds {
                let mut last = healed.t;
                for hold in holds.iter().filter(|hold| hold.last_ok >= healed.t && hold.granted <= healed.until) {
                    note_gap(last, hold.granted.min(healed.until), lock, bound, findings);
                    last = last.max(hold.last_ok);
                }
                note_gap(last, healed.until, lock, bound, findings);
            }
        }
    }

    fn check_power(&self, terms: Terms, holds: &BTreeMap<String, Vec<Hold>>, findings: &mut Findings) {
        let held_at = |worker: &str, t: Nanos| {
            let of = format!("{worker}.");
            holds
                .values()
                .flatten()
                .any(|hold| hold.worker.starts_with(&of) && (hold.granted..=hold.last_ok + NEAR).contains(&t))
        };
        for fault in self.faults.iter().filter(|fault| fault.kind != HEALED) {
            let (count, hits) = findings.faults.entry(fault.kind.clone()).or_default();
            *count += 1;
            *hits += usize::from(fault.target != "servers" && held_at(&fault.target, fault.t));
        }
        let on_workers = self.faults.iter().filter(|f| f.kind != HEALED && f.target != "servers").count();
        let hits: usize = findings.faults.values().map(|(_, hits)| hits).sum();
        if hits * 10 < on_workers * 3 {
            findings.weaknesses.push(format!("only {hits} of {on_workers} faults hit a worker that held something"));
        }
        if findings.longest_hold < terms.ttl / 2 {
            findings.weaknesses.push(format!("no hold was longer than {:?}", findings.longest_hold));
        }
        let kinds = findings.faults.len().max(1);
        if findings.grants < kinds * GRANTS_PER_KIND {
            findings.weaknesses.push(format!("only {} grants for {kinds} kinds of faults", findings.grants));
        }
    }
}

/// How far apart two attempts must be before the queue's order is known, with room for a busy machine.
const CLEARLY_BEFORE: Duration = Duration::from_secs(1);

/// How many steps the search for an order may take, for one lock.
const SEARCH: u64 = 20_000_000;

/// Within this time after a wait was given up its entry has left the store, and if not, its session ends.
const TAKEN_BACK: Nanos = 60_000_000_000;

/// A fault this soon after the last check hits a hold.
const NEAR: Nanos = 30_000_000;

const GRANTS_PER_KIND: usize = 20;

fn overlaps(lock: &str, holds: &[Hold], findings: &mut Findings) {
    let mut latest: Option<&Hold> = None;
    for hold in holds {
        if let Some(before) = latest.filter(|before| before.last_ok > hold.granted) {
            let both = Duration::from_nanos(before.last_ok.min(hold.last_ok) - hold.granted);
            findings.violations.push(format!(
                "{lock} was held by {} (token {}) and {} (token {}) at once, for {both:?}",
                before.worker, before.token, hold.worker, hold.token
            ));
        }
        if latest.is_none_or(|before| before.last_ok < hold.last_ok) {
            latest = Some(hold);
        }
    }
}

/// A grant that was asked for after another was made has the higher token; no token is granted twice.
fn token_order(lock: &str, holds: &[Hold], findings: &mut Findings) {
    let mut by_attempt: Vec<&Hold> = holds.iter().collect();
    by_attempt.sort_by_key(|hold| hold.attempted);
    let mut granted = holds.iter().peekable();
    let mut highest = i64::MIN;
    for hold in by_attempt {
        while let Some(earlier) = granted.next_if(|earlier| earlier.granted < hold.attempted) {
            highest = highest.max(earlier.token);
        }
        if hold.token <= highest {
            let message =
                format!("{lock}: token {} of {} is not above {highest}, granted before", hold.token, hold.worker);
            findings.violations.push(message);
        }
    }
    let mut seen = BTreeSet::new();
    for hold in holds.iter().filter(|hold| !seen.insert(hold.token)) {
        findings.violations.push(format!("{lock}: token {} was granted twice", hold.token));
    }
}

fn note_gap(from: Nanos, to: Nanos, lock: &str, bound: Duration, findings: &mut Findings) {
    let gap = Duration::from_nanos(to.saturating_sub(from));
    findings.longest_gap = findings.longest_gap.max(gap);
    if gap > bound {
        findings.violations.push(format!("{lock}: nobody had it for {gap:?} after everything had healed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { ttl: Duration::from_secs(3) };
    const MS: u64 = 1_000_000;

    fn line(ms: u64, event: Event) -> Line {
        Line { t: ms * MS, event }
    }

    /// A hold of lock `l`: attempted, granted and last found good at these milliseconds.
    fn hold(n: u64, token: i64, attempted: u64, granted: u64, last_ok: u64) -> Vec<Line> {
        let lock = || "l".to_owned();
        vec![
            line(attempted, Event::Attempt { lock: lock(), n, wait: true }),
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
        histories.check(TERMS).violations
    }

    #[test]
    fn a_good_history_is_clean() {
        let good = histories(&[("w1.1", hold(1, 10, 0, 5, 2000)), ("w2.1", hold(1, 11, 1, 2001, 3000))]);
        assert_eq!(violations(&good), Vec::<String>::new());
        let findings = good.check(TERMS);
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
                line(begun, Event::Attempt { lock: lock(), n: 1, wait: false }),
                line(begun + 1, Event::Refused { lock: lock(), n: 1, code: "Contended".into() }),
            ]
        };
        let late = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", refused(30))]);
        assert!(violations(&late)[0].contains("Contended"), "{:?}", violations(&late));
        let in_time = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", refused(12))]);
        assert_eq!(in_time.check(TERMS).linearized, 3);
        let killed = vec![line(25, Event::Attempt { lock: "l".into(), n: 1, wait: true })];
        let explained = histories(&[("w1.1", hold(1, 10, 0, 5, 20)), ("w2.1", refused(30)), ("w3.1", killed)]);
        assert_eq!(violations(&explained), Vec::<String>::new());
    }

    #[test]
    fn a_watch_that_tells_another_story_is_found() {
        let watch = |tokens: &[Option<i64>]| {
            let lines = tokens.iter().map(|token| line(1, Event::Watched { lock: "e".into(), token: *token }));
            histories(&[("w1.1", lines.collect())])
        };
        let good = watch(&[None, Some(1), Some(1), None, None, Some(3)]);
        assert_eq!((violations(&good), good.check(TERMS).watched), (Vec::new(), 2));
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
    }

    #[test]
    fn a_lock_that_nobody_gets_after_healing_is_found() {
        let healed = |until: u64| Fault { t: 0, until: until * MS, kind: HEALED.into(), target: "servers".into() };
        // The bound is 1.1 ttl + 5 s = 8.3 s.
        let mut late = histories(&[("w1.1", hold(1, 10, 0, 8_400, 8_500))]);
        late.faults.push(healed(9_000));
        assert!(violations(&late)[0].contains("nobody had it"));
        let mut never = histories(&[("w1.1", hold(1, 10, 0, 10, 20))]);
        never.faults.push(healed(9_000));
        assert!(violations(&never)[0].contains("nobody had it"));
        let mut held = histories(&[("w1.1", hold(1, 10, 0, 10, 8_900))]);
        held.faults.push(healed(9_000));
        assert_eq!(violations(&held), Vec::<String>::new());
    }

    #[test]
    fn a_campaign_without_power_says_so() {
        let mut weak = histories(&[("w1.1", hold(1, 10, 0, 5, 20))]);
        weak.faults.push(Fault { t: 500 * MS, until: 501 * MS, kind: "kill".into(), target: "w1".into() });
        let weaknesses = weak.check(TERMS).weaknesses;
        assert_eq!(weaknesses.len(), 3, "{weaknesses:?}");
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let written = line(7, Event::Granted { lock: "l".into(), n: 1, token: 5 });
        let text = serde_json::to_string(&written).expect("a line");
        assert_eq!(text, r#"{"t":7000000,"e":"granted","lock":"l","n":1,"token":5}"#);
        assert_eq!(serde_json::from_str::<Line>(&text).expect("a line"), written);
    }
}
