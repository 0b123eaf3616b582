//! What must hold while nothing is wrong: in the times without faults, and wherever none came near.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Findings, Histories, Hold, KILLED, MS, Terms};
use crate::history::{Event, HEALED, Line, Nanos};

impl Histories {
    /// When nothing is wrong any more, whoever waits is answered when its patience ends.
    pub(super) fn check_answers(&self, findings: &mut Findings) {
        let grace = ANSWERED_WITHIN.as_nanos() as u64;
        for healed in self.faults.iter().filter(|fault| fault.kind == HEALED) {
            for (worker, lines) in &self.workers {
                if self.death_of(worker).is_some_and(|death| death < healed.until) {
                    continue;
                }
                let mut open = None;
                for Line { t, event } in lines.iter().filter(|line| line.t <= healed.until) {
                    match event {
                        Event::Attempt { lock, patience_ms: Some(patience), .. } => {
                            open = Some((lock, *t + patience * MS))
                        }
                        Event::Granted { .. } | Event::Refused { .. } => {
                            late_answer(worker, open.take(), healed.t, *t, grace, findings);
                        }
                        _ => {}
                    }
                }
                late_answer(worker, open, healed.t, healed.until, grace, findings);
            }
        }
    }

    /// When the worker of this history was killed: each kill of its place ends one history.
    pub(super) fn death_of(&self, worker: &str) -> Option<Nanos> {
        let (place, generation) = worker.split_once('.')?;
        let generation: usize = generation.split('.').next()?.parse().ok()?;
        let mut kills: Vec<Nanos> = self
            .faults
            .iter()
            .filter(|fault| fault.kind == KILLED && fault.target == place)
            .map(|fault| fault.t)
            .collect();
        kills.sort_unstable();
        kills.get(generation.checked_sub(1)?).copied()
    }

    /// Nobody loses a hold while nothing is wrong with it, its store or the way between them.
    pub(super) fn check_losses(&self, terms: &Terms, findings: &mut Findings) {
        for (worker, lines) in &self.workers {
            let mut granted = BTreeMap::new();
            for Line { t, event } in lines {
                match event {
                    Event::Granted { token, .. } => {
                        granted.insert(*token, *t);
                    }
                    Event::Lost { lock, token } => {
                        let since = granted.get(token).copied().unwrap_or(*t);
                        if !self.troubled(worker, since, *t, terms.ttl * 2) {
                            findings.violations.push(format!("{worker} lost {lock} (token {token}) without a fault"));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// When nothing is wrong, whoever watches an election is told of a term while it lasts.
    pub(super) fn check_latest(&self, terms: &Terms, holds: &BTreeMap<String, Vec<Hold>>, findings: &mut Findings) {
        let (recovery, told) = (terms.ttl.mul_f64(1.1).as_nanos() as u64, terms.ttl.as_nanos() as u64 / 2);
        for healed in self.faults.iter().filter(|fault| fault.kind == HEALED) {
            let steady = healed.t + recovery;
            for (watcher, lines) in &self.workers {
                // Since when this one watches which election.
                let mut first: BTreeMap<&str, Nanos> = BTreeMap::new();
                for line in lines {
                    if let Event::Watched { lock, .. } = &line.event {
                        first.entry(lock).or_insert(line.t);
                    }
                }
                let death = self.death_of(watcher).unwrap_or(Nanos::MAX);
                for (election, since) in first.into_iter().filter(|(_, since)| *since < healed.t) {
                    let terms = holds.get(election).into_iter().flatten();
                    let lasting = |hold: &&Hold| hold.granted > steady && hold.last_ok >= hold.granted + told;
                    for hold in terms.filter(lasting).filter(|hold| hold.granted + told < healed.until.min(death)) {
                        let known = lines.iter().any(|line| match &line.event {
                            Event::Watched { lock, token: Some(token) } => {
                                lock == election && *token >= hold.token && line.t <= hold.granted + told
                            }
                            _ => false,
                        });
                        if known {
                            findings.followed += 1;
                        } else {
                            let Hold { token, worker, .. } = hold;
                            findings.violations.push(format!(
                                "{watcher}, which has watched {election} since {since}, was not told in time of the term {token} of {worker}"
                            ));
                        }
                    }
                }
            }
        }
    }

    /// After healing nobody waits long for a lock that nobody holds.
    pub(super) fn check_gaps(&self, terms: &Terms, holds: &BTreeMap<String, Vec<Hold>>, findings: &mut Findings) {
        let bound = terms.ttl.mul_f64(1.1) + Duration::from_secs(5);
        let wanted = self.wanted();
        for healed in self.faults.iter().filter(|fault| fault.kind == HEALED) {
            for (lock, wanted) in &wanted {
                let holds = holds.get(*lock).map_or(&[][..], Vec::as_slice);
                let mut last = healed.t;
                for hold in holds.iter().filter(|hold| hold.last_ok >= healed.t && hold.granted <= healed.until) {
                    note_gap(last, hold.granted.min(healed.until), lock, wanted, bound, findings);
                    last = last.max(hold.last_ok);
                }
                note_gap(last, healed.until, lock, wanted, bound, findings);
            }
        }
    }

    /// From when to when somebody alive wanted each lock, in the order of the beginnings.
    fn wanted(&self) -> BTreeMap<&str, Vec<(Nanos, Nanos)>> {
        let mut wanted: BTreeMap<&str, Vec<(Nanos, Nanos)>> = BTreeMap::new();
        for (worker, lines) in &self.workers {
            let mut open: Option<(&str, Nanos)> = None;
            for Line { t, event } in lines {
                match event {
                    Event::Attempt { lock, .. } => open = Some((lock, *t)),
                    Event::Granted { .. } | Event::Refused { .. } => {
                        if let Some((lock, begun)) = open.take() {
                            wanted.entry(lock).or_default().push((begun, *t));
                        }
                    }
                    _ => {}
                }
            }
            if let Some((lock, begun)) = open {
                wanted.entry(lock).or_default().push((begun, self.death_of(worker).unwrap_or(Nanos::MAX)));
            }
        }
        wanted.values_mut().for_each(|times| times.sort_unstable());
        wanted
    }
}

/// How long after its patience has ended an attempt may be answered: a call that was begun while its store was away
/// comes to its own limit first.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Notes an attempt, and the moment when its patience ended, that was not answered by `until`.
fn late_answer(
    worker: &str,
    attempt: Option<(&String, Nanos)>,
    healed: Nanos,
    until: Nanos,
    grace: Nanos,
    findings: &mut Findings,
) {
    let Some((lock, patient)) = attempt else { return };
    let due = patient.max(healed) + grace;
    if until > due {
        let late = Duration::from_nanos(until - patient);
        findings.violations.push(format!("{worker} had no answer from {lock} {late:?} after its patience had ended"));
    }
}

/// Notes for how long, in this time in which nobody had the lock, somebody or other wanted it without a pause.
fn note_gap(from: Nanos, to: Nanos, lock: &str, wanted: &[(Nanos, Nanos)], bound: Duration, findings: &mut Findings) {
    let (mut since, mut until, mut longest) = (from, from, 0);
    for (begun, ended) in wanted.iter().map(|(begun, ended)| ((*begun).max(from), (*ended).min(to))) {
        if begun < ended {
            if begun > until {
                since = begun;
            }
            until = until.max(ended);
            longest = longest.max(until - since);
        }
    }
    let gap = Duration::from_nanos(longest);
    findings.longest_gap = findings.longest_gap.max(gap);
    if gap > bound {
        findings.violations.push(format!("{lock}: nobody had it for {gap:?} after everything had healed"));
    }
}
