//! What replicas of a sharded reconciler have written down, and what must never be in it.
//!
//! All times are of the host's boot-time clock, and each is the moment before a check that then succeeded: at that moment
//! the run was valid without doubt, and so it was between the first and the last of them. Those parts of two runs of one
//! key must not overlap, nor may a lower token begin after a higher one.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_faults::history::Nanos;
use serde::{Deserialize, Serialize};

/// What a replica does with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The moment before a check that succeeded.
    pub t: Nanos,
    /// The key.
    pub key: i64,
    /// The token of the key's shard.
    pub token: i64,
    /// Which run of this replica's.
    pub run: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happens in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "kebab-case")]
pub enum Event {
    /// It begins.
    Begin {
        /// The version of the document; none if there is no document.
        n: Option<i64>,
    },
    /// It goes on.
    Ok,
    /// The run was completed, and counts.
    Done,
}

/// What the campaign did to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Before the write was sent.
    pub sent: Nanos,
    /// After it was acknowledged.
    pub acknowledged: Nanos,
    /// The key.
    pub key: i64,
    /// The document's version; none if it was deleted.
    pub n: Option<i64>,
}

/// What the campaign did to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blow {
    /// When.
    pub t: Nanos,
    /// `kill` or `stop`.
    pub kind: &'static str,
}

/// A run, as its lines tell it.
#[derive(Clone, Debug)]
struct Run {
    replica: usize,
    token: i64,
    begin: Nanos,
    /// The moment before the last check that succeeded.
    valid: Nanos,
    n: Option<i64>,
    done: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// Runs that began.
    pub runs: usize,
    /// Runs that did not end: their replica was killed, or lost the shard.
    pub unfinished: usize,
    /// Runs that began under another token than the run of the key before.
    pub moves: usize,
    /// Writes whose run was looked for.
    pub writes: usize,
    /// The longest time from a write, or from the last blow that still counted for it, to the write's run.
    pub slowest: Duration,
    /// Kills.
    pub kills: usize,
    /// Stops.
    pub stops: usize,
}

/// Checks the histories, one per process, of a campaign.
pub fn check(histories: &[Vec<Line>], writes: &[Write], blows: &[Blow], bound: Duration) -> Findings {
    let mut findings = Findings {
        writes: writes.len(),
        kills: blows.iter().filter(|blow| blow.kind == "kill").count(),
        stops: blows.iter().filter(|blow| blow.kind == "stop").count(),
        ..Findings::default()
    };
    let runs = runs_of(histories);
    for (key, runs) in &runs {
        exclusive(*key, runs, &mut findings);
    }
    for (index, write) in writes.iter().enumerate() {
        let next = writes[index + 1..].iter().filter(|later| later.key == write.key).find_map(|later| later.n);
        let of_key = runs.get(&write.key).map_or(&[][..], Vec::as_slice);
        in_time(write, next, of_key, blows, bound, &mut findings);
    }
    findings
}

/// The runs of each key, in the order in which they began.
fn runs_of(histories: &[Vec<Line>]) -> BTreeMap<i64, Vec<Run>> {
    let mut runs: BTreeMap<i64, Vec<Run>> = BTreeMap::new();
    for (replica, history) in histories.iter().enumerate() {
        let mut open: BTreeMap<u64, (i64, Run)> = BTreeMap::new();
        for line in history {
            match line.event {
                Event::Begin { n } => {
                    let run = Run { replica, token: line.token, begin: line.t, valid: line.t, n, done: false };
                    open.insert(line.run, (line.key, run));
                }
                Event::Ok => {
                    if let Some((_, run)) = open.get_mut(&line.run) {
                        run.valid = run.valid.max(line.t);
                    }
                }
                Event::Done => {
                    if let Some((_, run)) = open.get_mut(&line.run) {
                        run.done = true;
                    }
                }
            }
        }
        for (key, run) in open.into_values() {
            runs.entry(key).or_default().push(run);
        }
    }
    for runs in runs.values_mut() {
        runs.sort_by_key(|run| run.begin);
    }
    runs
}

fn exclusive(key: i64, runs: &[Run], findings: &mut Findings) {
    findings.runs += runs.len();
    findings.unfinished += runs.iter().filter(|run| !run.done).count();
    for (index, run) in runs.iter().enumerate() {
        for later in runs[index + 1..].iter().take_while(|later| later.begin < run.valid) {
            findings.violations.push(format!(
                "key {key}: replica {} with token {} and replica {} with token {} both ran it at {}",
                run.replica, run.token, later.replica, later.token, later.begin
            ));
        }
    }
    let mut highest = i64::MIN;
    for run in runs {
        if run.token < highest {
            findings
                .violations
                .push(format!("key {key}: token {} began a run at {} after token {highest} had", run.token, run.begin));
        }
        findings.moves += usize::from(highest != i64::MIN && run.token > highest);
        highest = highest.max(run.token);
    }
}

/// `next` is the version that the key got next, if it got one: a run that shows that one or a later one is as good.
fn in_time(write: &Write, next: Option<i64>, runs: &[Run], blows: &[Blow], bound: Duration, findings: &mut Findings) {
    let shows = |run: &&Run| match (write.n, run.n) {
        (Some(wanted), Some(n)) => n >= wanted,
        // Gone after it, at whatever time: what it showed is what there was.
        (Some(_), None) => run.begin > write.acknowledged,
        (None, Some(n)) => next.is_some_and(|next| n >= next),
        (None, None) => run.begin > write.sent,
    };
    let Some(run) = runs.iter().filter(|run| run.done).find(shows) else {
        findings.violations.push(format!("key {}: its change to {:?} was never run to an end", write.key, write.n));
        return;
    };
    // A blow gives another bound of time only where the last one had not passed: a change that was lost is not in time
    // because a later blow makes somebody look at all keys again.
    let mut times: Vec<Nanos> = blows.iter().map(|blow| blow.t).filter(|t| *t <= run.begin).collect();
    times.sort_unstable();
    let grace = bound.as_nanos() as Nanos;
    let extend = |from: Nanos, t: Nanos| if t <= from + grace { from.max(t) } else { from };
    let from = times.into_iter().fold(write.acknowledged, extend);
    let took = Duration::from_nanos(run.begin.saturating_sub(from));
    findings.slowest = findings.slowest.max(took);
    if took > bound {
        let seconds = took.as_secs_f64();
        findings.violations.push(format!("key {}: its change to {:?} was run after {seconds} s", write.key, write.n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);
    const SECOND: Nanos = 1_000_000_000;

    /// A run from `begin` to `end`, in seconds.
    fn run(key: i64, token: i64, number: u64, begin: Nanos, end: Nanos, n: Option<i64>) -> Vec<Line> {
        let line = |t: Nanos, event| Line { t: t * SECOND, key, token, run: number, event };
        vec![line(begin, Event::Begin { n }), line(end, Event::Ok), line(end, Event::Done)]
    }

    fn write(key: i64, at: Nanos, n: Option<i64>) -> Write {
        Write { sent: at * SECOND, acknowledged: at * SECOND, key, n }
    }

    fn violations(histories: &[Vec<Line>], writes: &[Write], blows: &[Blow]) -> Vec<String> {
        check(histories, writes, blows, BOUND).violations
    }

    #[test]
    fn a_good_history_has_no_violation() {
        let first = [run(1, 5, 1, 10, 12, Some(1)), run(2, 6, 2, 11, 12, Some(1))].concat();
        let second = [run(1, 7, 1, 12, 13, Some(2)), run(2, 8, 2, 25, 26, None)].concat();
        let writes = [write(1, 9, Some(1)), write(2, 9, Some(1)), write(1, 11, Some(2)), write(2, 12, None)];
        let blows = [Blow { t: 20 * SECOND, kind: "kill" }];
        let findings = check(&[first, second], &writes, &blows, BOUND);
        assert_eq!(findings.violations, Vec::<String>::new());
        assert_eq!((findings.runs, findings.unfinished, findings.moves, findings.kills), (4, 0, 2, 1));
        assert_eq!(findings.slowest, Duration::from_secs(5));
    }

    #[test]
    fn each_planted_violation_is_found() {
        let history = run(1, 5, 1, 10, 14, Some(1));
        let writes = [write(1, 9, Some(1))];
        let found = |histories: &[Vec<Line>], writes: &[Write], needle: &str| {
            let violations = violations(histories, writes, &[]);
            assert!(violations.len() == 1 && violations[0].contains(needle), "{needle}: {violations:?}");
        };
        // Two at once, in two processes, or in one.
        found(&[history.clone(), run(1, 6, 1, 13, 15, Some(1))], &writes, "both ran it");
        found(&[[history.clone(), run(1, 5, 2, 13, 15, Some(1))].concat()], &writes, "both ran it");
        // Somebody whose token is from before.
        found(&[history.clone(), run(1, 4, 1, 15, 16, Some(1))], &writes, "after token 5 had");
        // Never, or not to an end, or too late.
        let alone = std::slice::from_ref(&history);
        found(alone, &[write(1, 9, Some(2))], "never run");
        found(alone, &[write(1, 12, None)], "never run");
        found(alone, &[write(3, 9, Some(1))], "never run");
        let mut unfinished = history.clone();
        unfinished.pop();
        found(&[unfinished], &writes, "never run");
        found(&[run(1, 5, 1, 20, 21, Some(1))], &writes, "after 11 s");
    }

    #[test]
    fn a_blow_counts_for_a_change_that_was_still_in_time() {
        let blows = |times: &[Nanos]| times.iter().map(|t| Blow { t: t * SECOND, kind: "kill" }).collect::<Vec<_>>();
        let found = |begin: Nanos, times: &[Nanos]| {
            let history = run(1, 5, 1, begin, begin + 1, Some(1));
            violations(&[history], &[write(1, 9, Some(1))], &blows(times))
        };
        // It was lost, and found again because replicas were killed long after.
        assert_eq!(found(41, &[25, 40]), ["key 1: its change to Some(1) was run after 32 s"]);
        assert_eq!(found(41, &[40, 25]).len(), 1);
        // Each blow came before the time was over; the last one did not come in vain, either.
        assert_eq!(found(36, &[18, 27]), Vec::<String>::new());
        assert_eq!(found(36, &[27, 18]), Vec::<String>::new());
        assert_eq!(found(38, &[18, 27]), ["key 1: its change to Some(1) was run after 11 s"]);
        // Those before the change and after its run are none of its business.
        assert_eq!(found(20, &[8, 21]).len(), 1);
    }

    #[test]
    fn what_looks_like_one_is_none() {
        // A paused run whose check did not succeed any more; and a deletion whose key came back before anybody looked.
        let mut paused = run(1, 5, 1, 10, 11, Some(1));
        paused.pop();
        let next = run(1, 6, 1, 12, 13, Some(3));
        let writes = [write(1, 9, Some(1)), write(1, 10, None), write(1, 11, Some(3))];
        assert_eq!(violations(&[paused, next], &writes, &[]), Vec::<String>::new());
    }
}
