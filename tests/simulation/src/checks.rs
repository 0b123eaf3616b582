//! What must never happen, looked at after every grant and every few milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::election::Term;
use coord_core::lock::Held;
use coord_core::protocol::session::{SessionId, Vitality};
use tokio::time::Instant;

use crate::host::Gate;
use crate::server::{Records, Server};

/// How soon, where nothing is wrong but the notices, a process learns what the store knows.
#[derive(Clone, Copy, Debug)]
pub struct Promptness {
    /// A grant is delivered.
    pub grant: Duration,
    /// A hold that the store has taken away is lost.
    pub loss: Duration,
}

/// What a process may believe in.
#[derive(Clone)]
pub enum Believed {
    /// A lock.
    Lock(Arc<Held>),
    /// A term of its own.
    Term(Arc<Term>),
    /// A term that other functions of its client may share.
    Shared(Arc<Term>),
}

impl Believed {
    fn name(&self) -> String {
        match self {
            Self::Lock(held) => held.name().to_string(),
            Self::Term(term) | Self::Shared(term) => term.name().to_string(),
        }
    }

    fn token(&self) -> i64 {
        match self {
            Self::Lock(held) => held.token(),
            Self::Term(term) | Self::Shared(term) => term.token(),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Lock(held) => held.check().is_ok(),
            Self::Term(term) | Self::Shared(term) => term.check().is_ok(),
        }
    }

    fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }
}

/// Every hold that a simulated process may believe in, and the rules between them.
#[derive(Default)]
pub struct Checks {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    holds: BTreeMap<u64, Registered>,
    highest_token: BTreeMap<String, i64>,
    /// Holds that an operator broke with force, and when: they may be believed in for a while, by contract.
    forced: BTreeMap<(String, i64), Instant>,
    /// Holds that an operator asked to go, and when.
    asked: BTreeMap<(String, i64), Instant>,
    /// Every grant that reached its process.
    delivered: BTreeSet<(String, i64)>,
    /// Since when the store has said so, for each lock and the token of its present hold.
    granted_since: BTreeMap<String, (i64, Instant)>,
    promptness: Option<Promptness>,
    grants: u64,
    looks: u64,
    violations: Vec<String>,
}

struct Registered {
    process: usize,
    lock: String,
    held: Believed,
    gate: Arc<Gate>,
    /// A check has failed: from then on none may succeed.
    lost: bool,
}

impl Inner {
    /// A grant that its process has not got in time. One that nobody wants any more is given back sooner.
    fn look_for_late_grants(&mut self, server: &Server, within: Duration) {
        let now = Instant::now();
        // Of a client that has closed nobody is left who could be told: what it had asked for may be there after its last
        // word, and whoever comes next clears it away.
        let closed = |records: &Records, id| records.sessions.get(&id).is_some_and(|session| session.clean);
        let holds: Vec<(String, i64)> = server.with_committed(|records| {
            let locks = records.claims.values().filter(|claim| claim.key.as_str().starts_with("lock/"));
            let held = locks.filter(|claim| claim.holder.is_some_and(|holder| !closed(records, holder.session)));
            held.map(|claim| (claim.key.name().to_owned(), claim.token)).collect()
        });
        for (lock, token) in holds {
            let since = self.granted_since.entry(lock.clone()).or_insert((token, now));
            if since.0 != token {
                *since = (token, now);
            }
            let late = now - since.1 > within;
            if late && !self.delivered.contains(&(lock.clone(), token)) {
                tracing::warn!(lock, token, "nobody was told of a grant");
                self.violations.push(format!("{lock} was granted {:?} ago, and nobody was told", now - since.1));
            }
        }
    }
}

/// What the checks have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Grants.
    pub grants: u64,
    /// Times that every hold was looked at.
    pub looks: u64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

impl Checks {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on everything has to be told this soon.
    pub fn expect_prompt(&self, promptness: Promptness) {
        self.with(|inner| inner.promptness = Some(promptness));
    }

    /// A session is over for its own client: it must be dead in the store.
    pub fn session_lost(&self, id: SessionId, server: &Server) {
        let record = server.with_committed(|records| records.sessions.get(&id).cloned());
        if !record.as_ref().is_some_and(|r| r.vitality == Vitality::Dead) {
            self.violation(format!("a client gave its session up, and nobody had killed it: {record:?}"));
        }
    }

    /// A process was given a hold. Returns a number for [`Checks::forget`].
    pub fn granted(&self, process: usize, held: Believed, gate: &Arc<Gate>, server: &Server) -> u64 {
        let number = self.with(|inner| {
            let lock = held.name();
            let token = held.token();
            if !held.is_valid() && !held.is_shared() {
                inner.violations.push(format!("process {process} was given {lock} with token {token}, lost already"));
            }
            inner.delivered.insert((lock.clone(), token));
            let highest = inner.highest_token.entry(lock.clone()).or_default();
            let valid = held.is_valid() && !inner.forced.contains_key(&(lock.clone(), token));
            let known = token == *highest && held.is_shared();
            if token <= *highest && valid && !known {
                let message = format!("token {token} of {lock} after {highest}");
                inner.violations.push(message);
            } else {
                *highest = token.max(*highest);
            }
            inner.grants += 1;
            let number = inner.next;
            inner.next += 1;
            inner.holds.insert(number, Registered { process, lock, held, gate: gate.clone(), lost: false });
            number
        });
        self.look(server);
        number
    }

    /// The process gives the hold up, or is no more.
    pub fn forget(&self, number: u64) {
        self.with(|inner| inner.holds.remove(&number));
    }

    /// Everything of this process is gone.
    pub fn forget_process(&self, process: usize) {
        self.with(|inner| inner.holds.retain(|_, hold| hold.process != process));
    }

    /// An operator forces the hold of this lock with this token to end.
    pub fn forced(&self, lock: &str, token: i64) {
        self.with(|inner| inner.forced.insert((lock.to_owned(), token), Instant::now()));
    }

    /// An operator asks the hold of this lock with this token to go.
    pub fn asked(&self, lock: &str, token: i64) {
        self.with(|inner| inner.asked.insert((lock.to_owned(), token), Instant::now()));
    }

    /// Whether somebody, or this process, has a hold that it has not seen lost.
    pub fn believes(&self, process: Option<usize>) -> bool {
        let of = |hold: &Registered| process.is_none_or(|process| hold.process == process) && !hold.lost;
        self.with(|inner| inner.holds.values().any(of))
    }

    /// A rule of the story's own was broken.
    pub fn violation(&self, message: String) {
        self.with(|inner| inner.violations.push(message));
    }

    /// Looks at every hold: of those that its own process believes in, there is at most one for each lock, and the
    /// store agrees with it. A process that is stopped believes nothing.
    pub fn look(&self, server: &Server) {
        self.with(|inner| {
            inner.looks += 1;
            let mut violations = server.take_violations();
            let mut believers: BTreeMap<&str, Vec<&Registered>> = BTreeMap::new();
            for hold in inner.holds.values_mut().filter(|hold| !hold.gate.is_stopped()) {
                let (valid, token) = (hold.held.is_valid(), hold.held.token());
                if valid && hold.lost {
                    violations.push(format!("{} with token {token} was lost, and is valid again", hold.lock));
                }
                hold.lost |= !valid;
            }
            for hold in inner.holds.values().filter(|hold| !hold.gate.is_stopped() && !hold.lost) {
                let key = (hold.lock.clone(), hold.held.token());
                let forced = inner.forced.get(&key);
                if forced.is_none() {
                    believers.entry(&hold.lock).or_default().push(hold);
                }
                let told = forced.or_else(|| inner.asked.get(&key)).zip(inner.promptness);
                if let Some((since, _)) = told.filter(|(since, promptness)| since.elapsed() > promptness.loss) {
                    violations.push(format!(
                        "{} with token {} was broken {:?} ago (by force: {}) and is believed in by process {}",
                        key.0,
                        key.1,
                        since.elapsed(),
                        forced.is_some(),
                        hold.process
                    ));
                }
            }
            for (lock, holds) in &believers {
                let different: BTreeSet<_> = holds.iter().map(|hold| (hold.process, hold.held.token())).collect();
                let alone = holds.len() == 1 || holds.iter().all(|hold| hold.held.is_shared());
                if different.len() > 1 || !alone {
                    let who: Vec<String> =
                        holds.iter().map(|h| format!("process {} token {}", h.process, h.held.token())).collect();
                    violations.push(format!("{} hold {lock}: {}", holds.len(), who.join(", ")));
                }
            }
            server.with_committed(|records| {
                for hold in believers.values().flatten() {
                    let claim = records.claims.values().find(|c| c.key.name() == hold.lock);
                    let agrees = claim.is_some_and(|c| {
                        c.token == hold.held.token()
                            && c.holder.is_some_and(|holder| {
                                records.sessions.get(&holder.session).is_some_and(|s| s.vitality == Vitality::Live)
                            })
                    });
                    if !agrees {
                        violations.push(format!(
                            "process {} believes in {} with token {}, and the store says {claim:?}",
                            hold.process,
                            hold.lock,
                            hold.held.token()
                        ));
                    }
                }
            });
            inner.violations.extend(violations);
            if let Some(promptness) = inner.promptness {
                inner.look_for_late_grants(server, promptness.grant);
            }
        });
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.with(|inner| Seen { grants: inner.grants, looks: inner.looks, violations: inner.violations.clone() })
    }
}
