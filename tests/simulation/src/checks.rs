//! What must never happen, looked at after every grant and every few milliseconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use coord_core::lock::Held;
use coord_core::protocol::session::Vitality;

use crate::server::Server;

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
    grants: u64,
    looks: u64,
    violations: Vec<String>,
}

struct Registered {
    process: usize,
    lock: String,
    held: Arc<Held>,
    /// Broken by an operator with force: may believe for a while, by contract.
    forced: bool,
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

    /// A process was given a hold. Returns a number for [`Checks::forget`].
    pub fn granted(&self, process: usize, held: &Arc<Held>, server: &Server) -> u64 {
        let number = self.with(|inner| {
            let lock = held.name().to_string();
            let token = held.token();
            let highest = inner.highest_token.entry(lock.clone()).or_default();
            let valid = held.check().is_ok();
            if token <= *highest && valid {
                let message = format!("token {token} of {lock} after {highest}");
                inner.violations.push(message);
            } else {
                *highest = token.max(*highest);
            }
            inner.grants += 1;
            let number = inner.next;
            inner.next += 1;
            inner.holds.insert(number, Registered { process, lock, held: held.clone(), forced: false });
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

    /// An operator forces holds of this lock to end.
    pub fn forced(&self, lock: &str) {
        self.with(|inner| {
            for hold in inner.holds.values_mut().filter(|hold| hold.lock == lock) {
                hold.forced = true;
            }
        });
    }

    /// A rule of the story's own was broken.
    pub fn violation(&self, message: String) {
        self.with(|inner| inner.violations.push(message));
    }

    /// Looks at every hold: of those that its own process believes in, there is at most one for each lock, and the
    /// store agrees with it.
    pub fn look(&self, server: &Server) {
        self.with(|inner| {
            inner.looks += 1;
            let mut believers: BTreeMap<&str, Vec<&Registered>> = BTreeMap::new();
            for hold in inner.holds.values().filter(|hold| !hold.forced && hold.held.check().is_ok()) {
                believers.entry(&hold.lock).or_default().push(hold);
            }
            let mut violations = Vec::new();
            for (lock, holds) in &believers {
                if holds.len() > 1 {
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
        });
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.with(|inner| Seen { grants: inner.grants, looks: inner.looks, violations: inner.violations.clone() })
    }
}
