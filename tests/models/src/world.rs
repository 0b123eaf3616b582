//! What the models share: names for the few sessions and entries, and stores of one record.

use std::time::Duration;

use coord_core::protocol::claim::{self, ClaimKey, ClaimRecord, ClaimStep, Entry, Priority, Step, Stepped, StoreNow};
use coord_core::protocol::session::{self, KillProof, Nonce, SessionId, SessionInfo, SessionRecord, SessionStep};
use coord_core::time::{Timestamp, WallTime};

/// The unit of time of the models.
pub(crate) const TICK: Duration = Duration::from_secs(50);

/// Just so much less than three ticks that an observer is patient for exactly three.
pub(crate) const TTL: Duration = Duration::from_millis(147_058);

pub(crate) const fn session(number: u8) -> SessionId {
    SessionId::from_random(number as u128)
}

pub(crate) fn entry(session_number: u8, attempt: u64) -> Entry {
    Entry { session: session(session_number), attempt, priority: Priority::default() }
}

pub(crate) fn nonce(number: u8) -> Nonce {
    Nonce(i64::from(number))
}

pub(crate) fn at(tick: u8) -> Timestamp {
    Timestamp::ZERO + TICK * u32::from(tick)
}

pub(crate) fn opening(first: Nonce) -> SessionStep {
    SessionStep::Open { nonce: first, ttl: TTL, info: SessionInfo::default() }
}

pub(crate) fn observed(seen: Option<Nonce>) -> SessionStep {
    SessionStep::Kill(KillProof::Observed(seen))
}

/// Applies a step to a session as a store does; dates are left out, they decide nothing.
pub(crate) fn apply_session(
    record: &mut Option<SessionRecord>,
    id: SessionId,
    step: &SessionStep,
) -> Option<SessionRecord> {
    let after = session::apply(id, record.clone(), step, WallTime(0))?;
    *record = Some(after.clone());
    Some(after)
}

/// Applies a step to a claim as a store does; the record afterwards, unless the step was refused.
pub(crate) fn apply_claim(record: &mut Option<ClaimRecord>, step: Step) -> Option<ClaimRecord> {
    apply_claim_at(record, ClaimStep::Step(step), StoreNow { wall: WallTime(0), floor: 0 })
}

pub(crate) fn apply_claim_at(record: &mut Option<ClaimRecord>, step: ClaimStep, now: StoreNow) -> Option<ClaimRecord> {
    match claim::apply(&ClaimKey::new("l"), record.clone(), &step, now) {
        Stepped::Refused => None,
        Stepped::Collected => record.take(),
        Stepped::Written(after) => {
            *record = Some(after.clone());
            Some(after)
        }
    }
}

/// The holder of a claim, if it has one.
pub(crate) fn holder(record: &Option<ClaimRecord>) -> Option<Entry> {
    record.as_ref().and_then(|r| r.holder)
}
