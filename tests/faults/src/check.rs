//! The rules that the histories of all workers together must keep, and the power that a campaign must have.

mod calm;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::calls;
use crate::document::DocumentObject;
use crate::history::{Event, FAULTS, Fault, HEALED, Line, Nanos, read};
use crate::linear::{self, LockObject, LockOp, Verdict};
use crate::servers;

/// Everything that was written down.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    /// By the worker's file, without its ending: `rust3.1`.
    pub workers: BTreeMap<String, Vec<Line>>,
    /// The faults, and the times without any.
    pub faults: Vec<Fault>,
    /// The tokens that each lock's resource accepted, in order.
    pub registers: BTreeMap<String, Vec<i64>>,
}

/// What the check needs to know of the campaign.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The workers' ttl.
    pub ttl: Duration,
    /// How old what a read of a document shows may be.
    pub stale: Duration,
    /// The kinds of faults that there should have been.
    pub kinds: Vec<String>,
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
    /// Times a watch was asked whether it knew a term that lasted while nothing was wrong, and did.
    pub followed: usize,
    /// Calls for which an order was found that a lock with one user at a time could have had.
    pub linearized: usize,
    /// Those among them that were refused.
    pub refusals: usize,
    /// The same, of a document.
    pub documents: usize,
    /// Attempts and grants by the workers' language.
    pub languages: BTreeMap<String, (usize, usize)>,
    /// Faults by kind, and how many of them hit a worker that held something; of faults of servers, how many came while
    /// anybody did.
    pub faults: BTreeMap<String, (usize, usize)>,
    /// The longest time after healing in which nobody had a lock that was wanted.
    pub longest_gap: Duration,
    /// The longest hold.
    pub longest_hold: Duration,
    /// Workers that ended by themselves.
    pub ended: usize,
}

impl Findings {
    /// Those of the weaknesses that no campaign is too short for: languages in which nobody was granted anything.
    pub fn idle_languages(&self) -> Vec<String> {
        let idle = self.languages.iter().filter(|(_, (_, grants))| *grants == 0);
        idle.map(|(language, _)| format!("nobody in {language} was granted anything")).collect()
    }

    /// Whether two were seen to hold the same at once, or tokens out of order: what a protocol that is known to be wrong
    /// must lead to, and what nothing else that may go wrong in a campaign says.
    ///
    /// # Errors
    /// Where workers ended by themselves: what they did not do proves nothing.
    pub fn exclusion_is_broken(&self) -> Result<bool, String> {
        if self.ended > 0 {
            return Err(format!("{} workers ended by themselves: {:#?}", self.ended, self.violations));
        }
        Ok(self.violations.iter().any(|violation| OF_EXCLUSION.iter().any(|text| violation.contains(text))))
    }
}

/// What [`overlaps`] and [`token_order`] say.
const OF_EXCLUSION: [&str; 3] = ["at once, for", "is not above", "was granted twice"];

/// A hold as its worker believed in it: from after the grant to before the last good check.
#[derive(Clone, Debug)]
struct Hold {
    worker: String,
    token: i64,
    attempted: Nanos,
    granted: Nanos,
    last_ok: Nanos,
    ended: bool,
    /// When its worker knew that it was over: unknown where that was killed.
    gone: Option<Nanos>,
}

impl Hold {
    fn is_there_at(&self, t: Nanos) -> bool {
        self.granted <= t && t <= self.gone.unwrap_or(self.last_ok + NEAR)
    }
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
    pub fn check(&self, terms: &Terms) -> Findings {
        let mut findings = Findings::default();
        let holds = self.holds(&mut findings);
        for (lock, holds) in &holds {
            overlaps(lock, holds, &mut findings);
            token_order(lock, holds, &mut findings);
        }
        for (lock, tokens) in &self.registers {
            self.check_register(lock, tokens, holds.get(lock).map_or(&[][..], |holds| holds), &mut findings);
        }
        self.check_refusals(&mut findings);
        self.check_answers(&mut findings);
        self.check_losses(terms, &mut findings);
        self.check_watches(&mut findings);
        self.check_latest(terms, &holds, &mut findings);
        self.check_linear(terms, &mut findings);
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
            let before = (findings.attempts, findings.grants);
            for Line { t, event } in lines {
                match event {
                    Event::Attempt { n, .. } => {
                        findings.attempts += 1;
                        attempts.insert(*n, *t);
                    }
                    Event::Granted { lock, n, token } => {
                        findings.grants += 1;
                        let attempted = attempts.get(n).copied().unwrap_or(*t);
                        let (worker, ended, gone) = (worker.clone(), false, None);
                        let hold = Hold { worker, token: *token, attempted, granted: *t, last_ok: *t, ended, gone };
                        open.insert((lock.clone(), *token), hold);
                    }
                    Event::Ok { lock, token } => {
                        findings.checks += 1;
                        if let Some(hold) = open.get_mut(&(lock.clone(), *token)) {
                            hold.last_ok = hold.last_ok.max(*t);
                        }
                    }
                    Event::Lost { lock, token } => {
                        findings.losses += 1;
                        if let Some(hold) = open.get_mut(&(lock.clone(), *token)) {
                            hold.gone = Some(*t);
                        }
                    }
                    Event::Released { lock, token, .. } => {
                        if let Some(hold) = open.get_mut(&(lock.clone(), *token)) {
                            hold.ended = true;
                            hold.gone.get_or_insert(*t);
                        }
                    }
                    Event::Wrote { accepted, .. } => findings.fenced += usize::from(!accepted),
                    Event::Refused { .. } | Event::Watched { .. } | Event::Asked { .. } | Event::Answered { .. } => {}
                }
            }
            for ((lock, _), hold) in open {
                holds.entry(lock).or_default().push(hold);
            }
            let (attempts, grants) = findings.languages.entry(language(worker)).or_default();
            *attempts += findings.attempts - before.0;
            *grants += findings.grants - before.1;
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

    /// Whether a fault came near this worker in that time, or was over by less than `grace` before it.
    fn troubled(&self, worker: &str, from: Nanos, to: Nanos, grace: Duration) -> bool {
        let grace = grace.as_nanos() as u64;
        self.faults.iter().any(|fault| {
            let hits = fault.target == "servers" || worker.starts_with(&format!("{}.", fault.target));
            hits && fault.kind != HEALED && fault.t < to && self.over(fault).saturating_add(grace) > from
        })
    }

    /// When a fault's effects are over. What was done to a server ends with its repair, but then there may be no primary
    /// for half a minute on a busy machine: until the set was seen to be whole again.
    fn over(&self, fault: &Fault) -> Nanos {
        if !servers::is_kind(&fault.kind) {
            return fault.until;
        }
        let whole = self.faults.iter().filter(|other| other.kind == HEALED && other.t >= fault.until);
        whole.map(|healed| healed.t).min().unwrap_or(Nanos::MAX)
    }

    /// Nobody is refused for another reason than one that a store in trouble, or another holder, gives.
    fn check_refusals(&self, findings: &mut Findings) {
        for (worker, lines) in &self.workers {
            for line in lines {
                let Event::Refused { lock, code, .. } = &line.event else { continue };
                if !REFUSALS.contains(&code.as_str()) {
                    findings.violations.push(format!("{worker} was refused {lock} with {code}"));
                }
            }
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

    /// All calls to a lock, or to a document, together are what one that does one thing at a time could have answered.
    fn check_linear(&self, terms: &Terms, findings: &mut Findings) {
        for (lock, calls) in calls::of_locks(self) {
            let count = calls.len();
            let refusals = calls.iter().filter(|call| matches!(call.op, LockOp::Contended(_))).count();
            let linear = tell(lock, count, linear::check(&LockObject, calls, SEARCH), &mut findings.violations);
            findings.linearized += linear;
            findings.refusals += if linear > 0 { refusals } else { 0 };
        }
        for (key, calls) in calls::of_documents(self, terms.stale) {
            let count = calls.len();
            let verdict = linear::check(&DocumentObject, calls, SEARCH);
            findings.documents += tell(key, count, verdict, &mut findings.violations);
        }
    }

    /// Who was in the queue first is granted first. Only of attempts that no fault came near, and that began so far
    /// apart that the queue must have had them in that order.
    fn check_order(&self, terms: &Terms, findings: &mut Findings) {
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
        for (lock, waits) in &mut waits {
            waits.sort_unstable();
            let calm: Vec<_> = waits
                .iter()
                .filter(|(begun, granted, worker)| !self.troubled(worker, *begun, *granted, terms.ttl))
                .collect();
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

    fn check_power(&self, terms: &Terms, holds: &BTreeMap<String, Vec<Hold>>, findings: &mut Findings) {
        let held_at = |of: Option<&str>, t: Nanos| {
            let of = of.map(|worker| format!("{worker}."));
            holds
                .values()
                .flatten()
                .any(|hold| of.as_ref().is_none_or(|of| hold.worker.starts_with(of)) && hold.is_there_at(t))
        };
        // Of faults of workers, and of servers.
        let mut sums = [(0, 0); 2];
        for fault in self.faults.iter().filter(|fault| fault.kind != HEALED) {
            let of_servers = fault.target == "servers";
            let hit = usize::from(held_at((!of_servers).then_some(&fault.target), fault.t));
            let (count, hits) = findings.faults.entry(fault.kind.clone()).or_default();
            *count += 1;
            *hits += hit;
            let (count, hits) = &mut sums[usize::from(of_servers)];
            *count += 1;
            *hits += hit;
        }
        for ((count, hits), what) in sums.into_iter().zip(["workers hit one", "servers came while anybody"]) {
            if hits * 10 < count * 3 {
                findings.weaknesses.push(format!("only {hits} of {count} faults of {what} that held something"));
            }
        }
        if findings.longest_hold < terms.ttl / 2 {
            findings.weaknesses.push(format!("no hold was longer than {:?}", findings.longest_hold));
        }
        let missing = terms.kinds.iter().filter(|kind| !findings.faults.contains_key(*kind));
        findings.weaknesses.extend(missing.map(|kind| format!("there was no fault of the kind '{kind}'")));
        let kinds = findings.faults.len().max(1);
        if findings.grants < kinds * GRANTS_PER_KIND {
            findings.weaknesses.push(format!("only {} grants for {kinds} kinds of faults", findings.grants));
        }
        let ordered = [
            (findings.linearized, "no calls of locks and elections were put into an order"),
            (findings.refusals, "no refusal was put into an order"),
            (findings.ordered, "of no two waiters the order could be told"),
            (findings.documents, "no calls of documents were put into an order"),
            (findings.watched, "no watch was told of a term"),
            (findings.followed, "no watch was asked for a term that lasted"),
        ];
        findings.weaknesses.extend(ordered.iter().filter(|(count, _)| *count == 0).map(|(_, text)| (*text).to_owned()));
        findings.weaknesses.extend(findings.idle_languages());
    }
}

/// How far apart two attempts must be before the queue's order is known, with room for a busy machine.
const CLEARLY_BEFORE: Duration = Duration::from_secs(1);

/// How many steps the search for an order may take, for one lock.
const SEARCH: u64 = 1_000_000;

/// A fault this soon after the last check of a process that was killed is what killed it.
const NEAR: Nanos = 1_000_000_000;

const GRANTS_PER_KIND: usize = 20;

/// What an attempt may be answered with. Anything else is a bug: in the protocol, a worker or the campaign.
const REFUSALS: [&str; 4] = ["Contended", "Timeout", "Unavailable", "Lost"];

/// A fault of this kind ends a worker's history.
pub const KILLED: &str = "killed";

const MS: Nanos = 1_000_000;

/// How many calls were put into an order.
fn tell(of: &str, count: usize, verdict: Verdict, violations: &mut Vec<String>) -> usize {
    match verdict {
        Verdict::Linear => return count,
        Verdict::NotLinear(stuck) => {
            violations.push(format!("{of}: no order explains what its calls returned: {stuck}"));
        }
        Verdict::TooLong => {
            violations.push(format!("{of}: looking for an order of its {count} calls took too long to tell"));
        }
    }
    0
}

/// The language of a worker: its file's name begins with it.
fn language(worker: &str) -> String {
    worker.chars().take_while(char::is_ascii_alphabetic).collect()
}

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

#[cfg(test)]
mod tests;
