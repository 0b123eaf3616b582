//! An exclusive claim of a name, with waiters in order and a fencing token: locks, terms and shards are claims.
//!
//! Invariants, each a property test below:
//! - *a free claim has no waiters*: whoever frees it grants it to the next in the same step (direct hand-over);
//! - a step is idempotent by its entry (session and attempt), so it may be sent again after an unknown outcome;
//! - the token of a claim grows with every grant, and never falls;
//! - a step that does not wait leaves its entry out of the queue.
//!
//! Deliberately absent: re-entrancy, expiry (a hold ends with its session, see [`super::session`]), wall clocks
//! that decide anything (the date is only a floor for tokens).
//!
//! The queue that hands over to its head is ZooKeeper's and etcd's lock recipe folded into one record; the fencing
//! token is Chubby's sequencer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::session::SessionId;
use crate::mutants::{self, Mutant};
use crate::time::WallTime;

/// The most waiters that a claim can be told to queue. A hand-over rewrites the queue in a document store.
pub const MAX_QUEUE: u32 = 1_000;

/// How many entries of the queue's head a [`ClaimView`] shows: those that an observer looks after.
pub const HEAD: usize = 5;

/// The key of a claim in the store: `<kind>/<namespace>/<scope>/<name>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey(Arc<str>);

impl ClaimKey {
    /// A key from its text. The caller has validated the name in it.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key without its kind: `<namespace>/<scope>/<name>`.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// How urgently a waiter wants the claim: -2048 to 2047, higher first. Locks use 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(i16);

impl Priority {
    /// The lowest priority.
    pub const MIN: Self = Self(-2048);
    /// The highest priority.
    pub const MAX: Self = Self(2047);

    /// A priority, or none when it is out of range.
    pub fn new(value: i32) -> Option<Self> {
        let value = i16::try_from(value).ok()?;
        (Self::MIN.0..=Self::MAX.0).contains(&value).then_some(Self(value))
    }

    /// The number.
    pub fn value(self) -> i16 {
        self.0
    }
}

/// One attempt of one session to hold a claim: `<session>/<attempt>/<priority>` in the store.
///
/// The attempt is new for each acquire, so two acquires of one session are two entries and cannot be taken for one
/// another. The priority is three hexadecimal digits of priority + 2048, so that texts of entries compare by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    /// The session that wants it or has it.
    pub session: SessionId,
    /// Which of the session's attempts this is.
    pub attempt: u64,
    /// Its place in the queue before arrival counts.
    pub priority: Priority,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:03x}", self.session, self.attempt, i32::from(self.priority.0) + 2048)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text in the store is not an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an entry of the form <session>/<attempt>/<priority>")]
pub struct BadEntry(String);

impl FromStr for Entry {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let parse = || {
            let mut parts = text.split('/');
            let session = parts.next()?.parse().ok()?;
            let attempt = parts.next()?;
            let priority = parts.next()?;
            // Stores compare texts, so a sign, a capital or a leading zero, which std would accept, is not an entry.
            let canonical = (attempt.len() == 1 || !attempt.starts_with('0'))
                && attempt.bytes().all(|b| b.is_ascii_digit())
                && priority.len() == 3
                && priority.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !canonical || parts.next().is_some() {
                return None;
            }
            let attempt = attempt.parse().ok()?;
            let priority = Priority::new(i32::from_str_radix(priority, 16).ok()? - 2048)?;
            Some(Self { session, attempt, priority })
        };
        parse().ok_or_else(|| BadEntry(text.chars().take(80).collect()))
    }
}

/// A claim as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimRecord {
    /// Its key.
    pub key: ClaimKey,
    /// The holder, `own` in the store.
    pub holder: Option<Entry>,
    /// The waiters in the order in which they will be granted, `q` in the store.
    pub waiters: Vec<Entry>,
    /// The token of the latest grant; 0 before the first.
    pub token: i64,
    /// When it was granted, for people.
    pub granted_at: WallTime,
    /// What the holder published (an election's value). Reset by each grant.
    pub value: Option<String>,
    /// The holder that an operator has asked to go. Reset by each grant.
    pub breaking: Option<Entry>,
}

impl ClaimRecord {
    /// A claim that nobody has ever held.
    pub fn new(key: ClaimKey) -> Self {
        Self {
            key,
            holder: None,
            waiters: Vec::new(),
            token: 0,
            granted_at: WallTime::default(),
            value: None,
            breaking: None,
        }
    }

    /// Whether this entry holds the claim or waits for it.
    pub fn involves(&self, entry: &Entry) -> bool {
        self.holder.as_ref() == Some(entry) || self.waiters.contains(entry)
    }

    /// What `entry` needs to know of it.
    pub fn view(&self, entry: Option<&Entry>) -> ClaimView {
        ClaimView {
            holder: self.holder,
            token: self.token,
            granted_at: self.granted_at,
            waiting: entry.is_some_and(|e| self.waiters.contains(e)),
            head: self.waiters.iter().take(HEAD).copied().collect(),
            queue_len: u32::try_from(self.waiters.len()).unwrap_or(u32::MAX),
        }
    }
}

/// What an entry needs to know of a claim: small, however long the queue is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimView {
    /// The holder.
    pub holder: Option<Entry>,
    /// The token of the latest grant.
    pub token: i64,
    /// When it was granted.
    pub granted_at: WallTime,
    /// Whether the entry that the step added (or the read asked for) is in the queue.
    pub waiting: bool,
    /// The first [`HEAD`] waiters.
    pub head: Vec<Entry>,
    /// How many wait.
    pub queue_len: u32,
}

/// The lowest token that a grant may get, whatever the record says: what keeps tokens growing when a record was
/// lost or collected. Each store computes its own (see [`token_floor`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreNow {
    /// The store's date, written beside a grant for people.
    pub wall: WallTime,
    /// The floor for tokens. For [`ClaimStep::Collect`] it must be one that no later grant can get below, whatever
    /// happens to the date: a logical clock or the highest token so far, never the date itself.
    pub floor: i64,
}

/// How many tokens a millisecond of the date is worth. 2^10 keeps tokens exact in a double until the year 2248.
pub const TOKENS_PER_MS: i64 = 1024;

/// A server's date may run ahead of the cluster's logical time by this much before it stops counting.
pub const WALL_AHEAD_MS: i64 = 3_600_000;

/// The floor from a date and from a logical clock that never goes back over a failover (MongoDB's cluster time).
///
/// A wrong date adds at most an hour's worth of tokens.
pub fn token_floor(wall: WallTime, cluster: WallTime) -> i64 {
    let capped = wall.0.min(cluster.0.saturating_add(WALL_AHEAD_MS));
    capped.max(cluster.0).saturating_mul(TOKENS_PER_MS)
}

/// One change of a claim. A closed set: what is not here, no store has to be able to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimStep {
    /// The universal step: remove some entries, add one, and grant a free claim to the next waiter.
    Step(Step),
    /// Ask the holder of this token to go, if it still holds.
    AnnounceBreak {
        /// The token of the hold that is to end.
        token: i64,
    },
    /// Publish a value, if this entry still holds with this token.
    Publish {
        /// The holder that publishes.
        holder: Entry,
        /// Its token.
        token: i64,
        /// The value.
        value: String,
    },
    /// Delete the record if it is free, nobody waits, and the floor has passed its token, so that no token repeats.
    Collect,
}

/// When a [`Step`] applies. Unless it does, nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// Always; a missing record is created.
    Always,
    /// If this entry holds or waits.
    Involved(Entry),
    /// If `holder` holds and `to` waits.
    Transfer {
        /// The entry that hands over.
        holder: Entry,
        /// The entry that is to get it.
        to: Entry,
    },
    /// If `holder` still holds with this token.
    Holding {
        /// The holder.
        holder: Entry,
        /// Its token.
        token: i64,
    },
}

/// The arguments of the universal step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// When it applies.
    pub when: When,
    /// The entry that wants the claim.
    pub add: Option<Entry>,
    /// Whether `add` may wait; otherwise it is granted at once or not at all.
    pub wait: bool,
    /// `add` is refused when this many wait already.
    pub max_queue: u32,
    /// Entries that go.
    pub remove: Vec<Entry>,
    /// Sessions known to be dead for good; their entries go.
    pub dead: Vec<SessionId>,
}

impl Step {
    /// Take the claim, or wait for it if `wait`.
    pub fn acquire(entry: Entry, wait: bool, max_queue: u32, dead: Vec<SessionId>) -> Self {
        Self { when: When::Always, add: Some(entry), wait, max_queue, remove: Vec::new(), dead }
    }

    /// Give up a hold or a place in the queue; whoever is next gets the claim.
    pub fn remove(entry: Entry, dead: Vec<SessionId>) -> Self {
        Self { when: When::Involved(entry), add: None, wait: false, max_queue: 0, remove: vec![entry], dead }
    }

    /// Clear a dead session out of a claim.
    pub fn sweep(dead: SessionId) -> Self {
        Self { when: When::Always, add: None, wait: false, max_queue: 0, remove: Vec::new(), dead: vec![dead] }
    }

    /// Hand the claim to one chosen waiter.
    pub fn transfer(holder: Entry, to: Entry) -> Self {
        Self {
            when: When::Transfer { holder, to },
            add: None,
            wait: false,
            max_queue: 0,
            remove: vec![holder],
            dead: Vec::new(),
        }
    }

    /// End a hold from outside, if it is still this one.
    pub fn evict(holder: Entry, token: i64) -> Self {
        Self {
            when: When::Holding { holder, token },
            add: None,
            wait: false,
            max_queue: 0,
            remove: vec![holder],
            dead: Vec::new(),
        }
    }

    /// The waiter that a grant of this step prefers over the head of the queue.
    pub fn preferred(&self) -> Option<Entry> {
        match self.when {
            When::Transfer { to, .. } => Some(to),
            _ => None,
        }
    }
}

impl When {
    fn holds_for(&self, record: Option<&ClaimRecord>) -> bool {
        match (self, record) {
            (Self::Always, _) => true,
            (_, None) => false,
            (Self::Involved(entry), Some(record)) => {
                record.involves(entry) || mutants::on(Mutant::ReleaseEvictsAnyHolder)
            }
            (Self::Transfer { holder, to }, Some(record)) => {
                record.holder == Some(*holder) && record.waiters.contains(to)
            }
            (Self::Holding { holder, token }, Some(record)) => record.holder == Some(*holder) && record.token == *token,
        }
    }
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// Its condition did not hold: nothing was written.
    Refused,
    /// The record as it is now.
    Written(ClaimRecord),
    /// The record is gone.
    Collected,
}

/// Applies one step to one record: the definition that every store is tested equal to.
pub fn apply(key: &ClaimKey, record: Option<ClaimRecord>, step: &ClaimStep, now: StoreNow) -> Stepped {
    match step {
        ClaimStep::Step(step) => {
            if !step.when.holds_for(record.as_ref()) {
                return Stepped::Refused;
            }
            let record = record.unwrap_or_else(|| ClaimRecord::new(key.clone()));
            Stepped::Written(advance(record, step, now))
        }
        ClaimStep::AnnounceBreak { token } => match record {
            Some(record) if record.token == *token && record.holder.is_some() => {
                Stepped::Written(ClaimRecord { breaking: record.holder, ..record })
            }
            _ => Stepped::Refused,
        },
        ClaimStep::Publish { holder, token, value } => match record {
            Some(record) if record.holder == Some(*holder) && record.token == *token => {
                Stepped::Written(ClaimRecord { value: Some(value.clone()), ..record })
            }
            _ => Stepped::Refused,
        },
        ClaimStep::Collect => match record {
            Some(record)
                if record.holder.is_none()
                    && record.waiters.is_empty()
                    && (now.floor > record.token || mutants::on(Mutant::CollectWithoutFloor)) =>
            {
                Stepped::Collected
            }
            _ => Stepped::Refused,
        },
    }
}

fn advance(mut record: ClaimRecord, step: &Step, now: StoreNow) -> ClaimRecord {
    let gone = |entry: &Entry| step.remove.contains(entry) || step.dead.contains(&entry.session);
    if mutants::on(Mutant::ReleaseEvictsAnyHolder) && !step.remove.is_empty() {
        record.holder = None;
    }
    record.holder = record.holder.filter(|holder| !gone(holder));
    record.waiters.retain(|waiter| !gone(waiter));

    if let Some(add) = step.add {
        let refused = if step.wait {
            record.waiters.len() >= step.max_queue as usize
        } else {
            // Also when somebody waits: the claim would go to the head of the queue, and `add` would be left in it.
            record.holder.is_some() || (!record.waiters.is_empty() && !mutants::on(Mutant::TryWaitsBehindPurge))
        };
        if !refused && !record.involves(&add) {
            let last = mutants::on(Mutant::PriorityIgnored);
            let place = record.waiters.partition_point(|waiter| last || waiter.priority >= add.priority);
            record.waiters.insert(place, add);
        }
    }

    let hands_over = step.add.is_some() || !mutants::on(Mutant::ReleaseWithoutHandOver);
    if record.holder.is_none() && !record.waiters.is_empty() && hands_over {
        let next = if mutants::on(Mutant::GrantToTheLast) { record.waiters.len() - 1 } else { 0 };
        let chosen = step.preferred().and_then(|to| record.waiters.iter().position(|waiter| *waiter == to));
        let place = chosen.unwrap_or(next);
        record.holder = Some(record.waiters.remove(place));
        let floor = if mutants::on(Mutant::TokenWithoutFloor) { 0 } else { now.floor };
        record.token = record.token.saturating_add(1).max(floor);
        record.granted_at = now.wall;
        record.value = None;
        record.breaking = None;
    }
    record
}

#[cfg(test)]
mod tests;
