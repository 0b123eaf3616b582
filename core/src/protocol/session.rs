//! A session: the proof that a process is alive, which carries everything that it holds.
//!
//! Three machines that only meet in the store:
//! - the record and its steps ([`SessionRecord`], [`SessionStep`], [`apply`]): the point where "renewed" and
//!   "killed" are put in order;
//! - the holder's own view ([`SessionView`]): until when it may believe that it lives, counted from *before* a
//!   renewal was sent;
//! - the observer's view ([`Observations`]): whom it has seen silent for long enough to declare dead.
//!
//! Invariant that makes a hold safe: a holder stops believing at `sent + ttl - margin`; an observer kills at the
//! earliest when it has seen the nonce of that renewal, unchanged, for 1.02 ttl on its own clock, and the kill
//! applies only while that nonce is current. So no two clocks are ever compared; only their rates matter, and may
//! differ by 6 %. It is the rule of the DynamoDB lock client and of client-go's leader election.
//!
//! ```text
//!            renewed in time                     renewed, nobody had killed it
//!           ┌───────────┐                  ┌─────────────────────────────────────┐
//!           ▼           │                  ▼                                     │
//!  opening ──────────► live ── deadline passes: every hold is lost for good ──► suspended
//!     │                 │                                                        │
//!     └── refused ──────┴──────────── refused: killed, or a copy renewed ────────┴──► lost (final)
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::roster::{self, ProviderRecord};
use crate::error::LossReason;
use crate::mutants::{self, Mutant};
use crate::time::{Timestamp, WallTime};

/// The version of the protocol that this library writes into its sessions.
pub const PROTOCOL_VERSION: u32 = 1;

/// The shortest ttl: below it the margin would leave nothing.
pub const MIN_TTL: Duration = Duration::from_secs(1);

/// The longest ttl: a day, so that no dead holder blocks for longer.
pub const MAX_TTL: Duration = Duration::from_secs(86_400);

/// How many nonces the ring in a session's lock file holds; one less may be unacknowledged at a time.
pub const RING: usize = 8;

/// The id of a session: 128 random bits, never reused; 32 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u128);

impl SessionId {
    /// An id from random bits.
    pub const fn from_random(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a session id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 32 lower-case hexadecimal digits")]
pub struct BadSessionId;

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        let valid = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !valid {
            return Err(BadSessionId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| BadSessionId)
    }
}

/// What tells one renewal from the next: random, positive, fits into every store's integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub i64);

impl Nonce {
    /// A nonce from random bits.
    pub const fn from_random(bits: u64) -> Self {
        Self((bits >> 1) as i64)
    }
}

/// Which file carries a session's kernel lock: what must be equal before the lock proves anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LockFile {
    /// The device of the file.
    pub dev: u64,
    /// Its inode, which alone proves nothing: file systems use it again.
    pub ino: u64,
    /// When the inode was born, in nanoseconds since 1970.
    pub btime: i64,
}

/// Who a session is. For people and for proofs of death on the same host; never compared to decide a hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The name that the user gave to the client.
    #[serde(default)]
    pub name: String,
    /// Labels that the user gave to the client.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The host's name.
    #[serde(default)]
    pub host: String,
    /// The host's boot id.
    #[serde(default)]
    pub boot: String,
    /// The process id.
    #[serde(default)]
    pub pid: u32,
    /// When the process started, in clock ticks since boot: tells apart two uses of one pid.
    #[serde(default)]
    pub start: u64,
    /// The file that carries the session's kernel lock, if it has one.
    #[serde(default)]
    pub lk: Option<LockFile>,
    /// The protocol version of the client.
    #[serde(default)]
    pub pv: u32,
}

/// Whether a session may still act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vitality {
    /// It may renew.
    Live,
    /// It is dead for good.
    Dead,
}

/// A session as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Whether it may still act.
    pub vitality: Vitality,
    /// The nonce of its latest renewal. A tombstone of a session that never was has none.
    pub nonce: Option<Nonce>,
    /// How long others must see no renewal before they may kill it. Zero in a tombstone.
    pub ttl: Duration,
    /// When it was renewed last, by the store's date; for people.
    pub seen: WallTime,
    /// When it died, by the store's date; for people and for garbage collection.
    pub died: Option<WallTime>,
    /// Whether its owner ended it itself.
    pub clean: bool,
    /// Who it is.
    pub info: SessionInfo,
    /// When it was opened, by the store's date; for people.
    pub opened: WallTime,
    /// The number of the latest step that changed what it provides; its end adds one.
    pub revision: i64,
    /// What it provides, the latest last; nothing when it is dead. Left out of most answers: see the store's queries.
    pub providers: Vec<ProviderRecord>,
}

impl SessionRecord {
    /// The record without what it provides, which may be much.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { providers: Vec::new(), ..self }
    }
}

/// One change of a session's record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionStep {
    /// Create the record if it is missing. Sent again until acknowledged; a record that is there keeps its nonce.
    Open {
        /// The first nonce.
        nonce: Nonce,
        /// The session's ttl.
        ttl: Duration,
        /// Who it is.
        info: SessionInfo,
    },
    /// Replace the nonce, if the session is live and its nonce is one of `accept`.
    Renew {
        /// The last acknowledged nonce, all sent since, and `nonce` itself.
        accept: Vec<Nonce>,
        /// The new nonce.
        nonce: Nonce,
    },
    /// Declare it dead.
    Kill(KillProof),
    /// Its owner ends it.
    Close,
    /// Add a provider, or replace the one with its key, if the session is live and no later step has come before.
    Provide {
        /// The provider.
        provider: ProviderRecord,
        /// The number of this step: each that the owner asks for has a higher one.
        revision: i64,
    },
    /// Remove the provider with this key, on the same conditions.
    Withdraw {
        /// The provider's key.
        key: String,
        /// The number of this step.
        revision: i64,
    },
}

/// Why an observer may declare a session dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KillProof {
    /// It was seen with this nonce for longer than its ttl; `None` if the record was missing all the while, and
    /// then a tombstone is written, since "missing" can be a stale read.
    Observed(Option<Nonce>),
    /// Its kernel lock is free, and these nonces stand in the ring of its lock file. Needs the record to exist.
    KernelLock(Vec<Nonce>),
}

/// Applies one step to one session: the record afterwards, or none if the step's condition did not hold.
///
/// An `Open` or `Kill` that finds the session already decided returns it as it is: look at its vitality.
pub fn apply(id: SessionId, record: Option<SessionRecord>, step: &SessionStep, now: WallTime) -> Option<SessionRecord> {
    match step {
        SessionStep::Open { nonce, ttl, info } => Some(record.unwrap_or_else(|| SessionRecord {
            id,
            vitality: Vitality::Live,
            nonce: Some(*nonce),
            ttl: *ttl,
            seen: now,
            died: None,
            clean: false,
            info: info.clone(),
            opened: now,
            revision: 0,
            providers: Vec::new(),
        })),
        SessionStep::Renew { accept, nonce } => record
            .filter(|r| r.vitality == Vitality::Live || mutants::on(Mutant::RenewalRevivesTheDead))
            .filter(|r| r.nonce.is_some_and(|n| accept.contains(&n)))
            .map(|r| SessionRecord { nonce: Some(*nonce), seen: now, vitality: Vitality::Live, ..r }),
        SessionStep::Kill(proof) => kill(id, record, proof, now),
        SessionStep::Close => {
            record.filter(|r| r.vitality == Vitality::Live).map(|r| SessionRecord { clean: true, ..bury(r, now) })
        }
        SessionStep::Provide { provider, revision } => roster::provide(record, provider, *revision),
        SessionStep::Withdraw { key, revision } => roster::withdraw(record, key, *revision),
    }
}

fn kill(id: SessionId, record: Option<SessionRecord>, proof: &KillProof, now: WallTime) -> Option<SessionRecord> {
    match (proof, record) {
        (KillProof::Observed(_), None) => Some(SessionRecord {
            id,
            vitality: Vitality::Dead,
            nonce: None,
            ttl: Duration::ZERO,
            seen: WallTime::default(),
            died: Some(now),
            clean: false,
            info: SessionInfo::default(),
            opened: WallTime::default(),
            revision: 1,
            providers: Vec::new(),
        }),
        (KillProof::KernelLock(_), None) => None,
        (_, Some(record)) if record.vitality == Vitality::Dead => Some(record),
        (KillProof::Observed(seen), Some(record)) => {
            let current = seen.is_some() && record.nonce == *seen || mutants::on(Mutant::KillWithoutNonce);
            Some(if current { bury(record, now) } else { record })
        }
        (KillProof::KernelLock(ring), Some(record)) => {
            Some(if record.nonce.is_some_and(|n| ring.contains(&n)) { bury(record, now) } else { record })
        }
    }
}

fn bury(record: SessionRecord, now: WallTime) -> SessionRecord {
    SessionRecord {
        vitality: Vitality::Dead,
        died: Some(now),
        revision: record.revision + 1,
        providers: Vec::new(),
        ..record
    }
}

/// How a session keeps time. Checked once, by [`Timing::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How long others must see no renewal before they may kill the session.
    pub ttl: Duration,
    /// How much earlier than `ttl` the holder itself stops: what covers clocks that run at different rates.
    pub margin: Duration,
    /// The time from one renewal to the next. A sixth of the ttl: several may fail before the deadline.
    pub renew_every: Duration,
}

impl Timing {
    /// The timing of a session with this ttl, which stops `stop_margin` earlier than it would have to.
    ///
    /// # Errors
    /// The sentence that says which rule the values break.
    pub fn new(ttl: Duration, stop_margin: Duration) -> Result<Self, String> {
        if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(format!(
                "the ttl must be from {} s to {} s, not {} s",
                MIN_TTL.as_secs(),
                MAX_TTL.as_secs(),
                ttl.as_secs_f64()
            ));
        }
        let margin = (ttl / 10).max(Duration::from_millis(500)).saturating_add(stop_margin);
        let margin = if mutants::on(Mutant::NoMargin) { Duration::ZERO } else { margin };
        let renew_every = ttl / 6;
        if margin.saturating_add(renew_every * 2) > ttl {
            return Err(format!(
                "a stop margin of {} s leaves no time for two renewals within a ttl of {} s",
                stop_margin.as_secs_f64(),
                ttl.as_secs_f64()
            ));
        }
        Ok(Self { ttl, margin, renew_every })
    }
}

/// What the holder may believe of its own session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Not acknowledged yet; nothing can be held.
    Opening,
    /// Holds are valid until the deadline.
    Live,
    /// The deadline has passed. Every hold is lost for good, places in queues are kept; it may come back to life.
    Suspended,
    /// Final.
    Lost(LossReason),
}

/// The holder's own view of its session.
///
/// The owner calls `begin_*` right before it sends, `on_*` when an answer comes, and [`SessionView::on_time`] when
/// the clock may have passed the deadline. Whatever the order in which answers come, the deadline is never later
/// than `first send of an applied renewal + ttl - margin`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionView {
    timing: Timing,
    state: SessionState,
    deadline: Timestamp,
    acknowledged: Nonce,
    /// Nonces sent and not acknowledged, oldest first, each with the time of its first send.
    sent: Vec<(Nonce, Timestamp)>,
    epoch: u64,
}

impl SessionView {
    /// A session about to be opened with this nonce; call it right before the first send.
    pub fn begin_open(timing: Timing, nonce: Nonce, now: Timestamp) -> Self {
        Self {
            timing,
            state: SessionState::Opening,
            deadline: Timestamp::ZERO,
            acknowledged: nonce,
            sent: vec![(nonce, now)],
            epoch: 0,
        }
    }

    /// The store acknowledged the opening; `live` is what its answer says.
    pub fn on_opened(&mut self, now: Timestamp, live: bool) {
        if self.state != SessionState::Opening {
            return;
        }
        if !live {
            self.state = SessionState::Lost(LossReason::Killed);
            return;
        }
        let (_, sent_at) = self.sent.remove(0);
        self.deadline = sent_at + (self.timing.ttl - self.timing.margin);
        self.state = if now < self.deadline { SessionState::Live } else { SessionState::Suspended };
    }

    /// A renewal is about to be sent. With `fresh` its nonce is new; when too many are unacknowledged to keep them
    /// all in the ring of the lock file, the newest is sent again instead.
    pub fn begin_renewal(&mut self, now: Timestamp, fresh: Nonce) -> SessionStep {
        let nonce = match self.sent.last() {
            Some((newest, _)) if self.sent.len() >= RING - 1 => *newest,
            _ => {
                self.sent.push((fresh, now));
                fresh
            }
        };
        let mut accept = vec![self.acknowledged];
        accept.extend(self.sent.iter().map(|(n, _)| *n));
        SessionStep::Renew { accept, nonce }
    }

    /// The nonce of the latest send.
    pub fn newest(&self) -> Nonce {
        self.sent.last().map_or(self.acknowledged, |(nonce, _)| *nonce)
    }

    /// The nonces that may be in the store now or soon: what the ring of the lock file must hold before a send.
    pub fn possible_nonces(&self) -> impl Iterator<Item = Nonce> + '_ {
        std::iter::once(self.acknowledged).chain(self.sent.iter().map(|(nonce, _)| *nonce))
    }

    /// The store acknowledged the renewal with this nonce.
    pub fn on_renewed(&mut self, now: Timestamp, nonce: Nonce) {
        self.on_time(now);
        // Before the opening is acknowledged nothing else can be: the first nonce sent is the opening's.
        if matches!(self.state, SessionState::Opening | SessionState::Lost(_)) {
            return;
        }
        // An answer to a nonce that a newer acknowledgement has superseded says nothing new.
        let Some(place) = self.sent.iter().position(|(n, _)| *n == nonce) else { return };
        let (_, first_sent) = self.sent[place];
        let sent_at = if mutants::on(Mutant::DeadlineFromReply) { now } else { first_sent };
        self.sent.drain(..=place);
        self.acknowledged = nonce;
        self.deadline = self.deadline.max(sent_at + (self.timing.ttl - self.timing.margin));
        if self.state == SessionState::Suspended && now < self.deadline {
            self.state = SessionState::Live;
        }
    }

    /// The store refused the renewal with this nonce: the record is dead, missing, or renewed by a copy of us.
    pub fn on_refused(&mut self, nonce: Nonce) {
        // A refusal of a superseded try proves nothing: our own later renewal may have been applied first.
        let newest = self.sent.last().is_some_and(|(newest, _)| *newest == nonce);
        if newest || mutants::on(Mutant::SupersededRefusalIsLoss) {
            self.end(LossReason::Killed);
        }
    }

    /// The clock has moved: past the deadline a live session is suspended.
    pub fn on_time(&mut self, now: Timestamp) {
        if self.state == SessionState::Live && now >= self.deadline {
            self.state = SessionState::Suspended;
            self.epoch += 1;
        }
    }

    /// The session is over, for a reason that is not in the store.
    pub fn end(&mut self, reason: LossReason) {
        if !matches!(self.state, SessionState::Lost(_)) {
            self.state = SessionState::Lost(reason);
            self.epoch += 1;
        }
    }

    /// The state as of the latest call; [`SessionView::on_time`] brings it up to date.
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Until when holds are valid, while live.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// How often the session has stopped to be live. A hold is valid only in the epoch in which it was granted.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The timing it was opened with.
    pub fn timing(&self) -> Timing {
        self.timing
    }
}

/// How long beyond a session's ttl an observer looks before it kills, in hundredths: covers clock rates.
const PATIENCE_PERCENT: u32 = 102;

/// What one observer has seen of other sessions, on its own clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observations {
    seen: BTreeMap<SessionId, Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen {
    /// None until the first successful read. The inner option: a record, or a missing one.
    sight: Option<Sight>,
    wanted_until: Timestamp,
    dead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sight {
    nonce: Option<Nonce>,
    ttl: Duration,
    /// When a read that showed this nonce was first answered.
    first: Timestamp,
    /// When the last read that showed it was sent.
    last: Timestamp,
    /// When the last read that showed an earlier nonce was sent: the session is known to have renewed after that.
    renewed_after: Option<Timestamp>,
}

/// What an observer knows of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Not read yet.
    Unknown,
    /// Its nonce has not changed for this long.
    Unchanged(Duration),
    /// It is dead for good.
    Dead,
}

impl Observations {
    /// Somebody here depends on `id`: it is observed for the next `keep`, and until then nothing is forgotten, so
    /// that repeated short waits add up.
    pub fn want(&mut self, now: Timestamp, id: SessionId, keep: Duration) {
        let until = now + keep;
        let seen = self.seen.entry(id).or_insert(Seen { sight: None, wanted_until: until, dead: false });
        seen.wanted_until = seen.wanted_until.max(until);
    }

    /// The sessions to read: wanted, and not known dead.
    pub fn to_read(&mut self, now: Timestamp) -> Vec<SessionId> {
        self.seen.retain(|_, seen| seen.wanted_until > now);
        self.seen.iter().filter(|(_, seen)| !seen.dead).map(|(id, _)| *id).collect()
    }

    /// A successful read of `id`, sent and answered at these times, showed this record (or none).
    pub fn on_read(
        &mut self,
        sent: Timestamp,
        answered: Timestamp,
        id: SessionId,
        record: Option<&SessionRecord>,
        default_ttl: Duration,
    ) {
        let Some(seen) = self.seen.get_mut(&id) else { return };
        if record.is_some_and(|r| r.vitality == Vitality::Dead) {
            seen.dead = true;
            return;
        }
        let nonce = record.and_then(|r| r.nonce);
        // The holder's ttl, not ours, says how long it may be silent. Of a missing record only the last is known.
        let ttl = record.map_or_else(|| seen.sight.map_or(default_ttl, |s| s.ttl.max(default_ttl)), |r| r.ttl);
        let ttl = if mutants::on(Mutant::OwnTtl) { default_ttl } else { ttl };
        seen.sight = Some(match seen.sight {
            // After a gap it may have been the store that was away, so the count starts anew.
            Some(sight) if sight.nonce == nonce && sent.since(sight.last) <= ttl / 2 => {
                Sight { last: sight.last.max(sent), ttl, ..sight }
            }
            before => {
                let renewed_after = before.filter(|b| b.nonce != nonce).map(|b| b.last);
                Sight { nonce, ttl, first: answered, last: sent, renewed_after }
            }
        });
    }

    /// The session is known to be dead for good.
    pub fn on_dead(&mut self, id: SessionId) {
        if let Some(seen) = self.seen.get_mut(&id) {
            seen.dead = true;
        }
    }

    /// Whom this observer may declare dead now, each with the proof.
    pub fn eligible(&self) -> Vec<(SessionId, KillProof)> {
        self.seen
            .iter()
            .filter(|(_, seen)| !seen.dead)
            .filter_map(|(id, seen)| {
                let sight = seen.sight?;
                (sight.last.since(sight.first) >= patience(sight.ttl))
                    .then_some((*id, KillProof::Observed(sight.nonce)))
            })
            .collect()
    }

    /// How often to read, so that a death costs little more than a ttl and no two reads are so far apart that the count
    /// would start anew. The shortest ttl of those observed decides. None if nothing is observed.
    pub fn period(&self) -> Option<Duration> {
        self.seen
            .values()
            .filter(|seen| !seen.dead)
            .filter_map(|seen| seen.sight.map(|sight| (sight.ttl / 15).max(SHORTEST_PERIOD).min(sight.ttl / 4)))
            .min()
    }

    /// When the next read is worth most: as soon as some session could be eligible. None if nothing is observed.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.seen
            .values()
            .filter(|seen| !seen.dead)
            .filter_map(|seen| seen.sight.map(|sight| sight.first + patience(sight.ttl)))
            .min()
    }

    /// What is known of `id` at this moment.
    pub fn sighting(&self, now: Timestamp, id: SessionId) -> Sighting {
        match self.seen.get(&id) {
            None => Sighting::Unknown,
            Some(seen) if seen.dead => Sighting::Dead,
            Some(Seen { sight: None, .. }) => Sighting::Unknown,
            Some(Seen { sight: Some(sight), .. }) => Sighting::Unchanged(now.since(sight.first)),
        }
    }

    /// Every session that is wanted and known to be dead.
    pub fn dead(&self) -> Vec<SessionId> {
        self.seen.iter().filter(|(_, seen)| seen.dead).map(|(id, _)| *id).collect()
    }

    /// Whether `id` is known to have renewed since this moment, and not to have died.
    pub fn has_renewed_since(&self, id: SessionId, moment: Timestamp) -> bool {
        let sight = self.seen.get(&id).filter(|seen| !seen.dead).and_then(|seen| seen.sight);
        sight.and_then(|sight| sight.renewed_after).is_some_and(|after| after >= moment)
    }

    /// Whether `id` is wanted and known to be dead.
    pub fn is_dead(&self, id: SessionId) -> bool {
        self.seen.get(&id).is_some_and(|seen| seen.dead)
    }
}

/// Reading more often than this gains nothing that people would notice.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

fn patience(ttl: Duration) -> Duration {
    ttl.saturating_mul(PATIENCE_PERCENT) / 100
}

#[cfg(test)]
mod tests;
