//! What a check of a hold reads: two atomics and no lock.
//!
//! Invariant: whoever sees a deadline sees the epoch that it belongs to, or a later one. So no hold of an earlier epoch
//! is valid by the deadline of a later one.
//!
//! `atomic` is named by the parent, so that `tests/concurrency` can play this file in every order of its steps.

use super::atomic::{AtomicU64, Ordering};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};

/// Until when which holds are valid.
#[derive(Debug)]
pub(crate) struct Validity {
    /// In nanoseconds while the session is live, else 0. Written after `epoch`, and read before it.
    deadline: AtomicU64,
    epoch: AtomicU64,
}

impl Validity {
    /// Of a session that is not live yet.
    pub(crate) fn new() -> Self {
        Self { deadline: AtomicU64::new(0), epoch: AtomicU64::new(0) }
    }

    /// Tells the checks what is so now. Calls must not overlap. Returns whether the epoch is another than before.
    pub(crate) fn publish(&self, epoch: u64, deadline: u64) -> bool {
        let before = self.epoch.swap(epoch, Ordering::AcqRel);
        failpoints::at(Point::ValidityHalf);
        self.deadline.store(deadline, Ordering::Release);
        before != epoch
    }

    /// The deadline.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Acquire)
    }

    /// The epoch in which a hold that is made now will be valid, or none when the session is not live. The clock is
    /// read after the deadline.
    pub(crate) fn live_epoch(&self, now: impl FnOnce() -> u64) -> Option<u64> {
        let deadline = self.deadline.load(Ordering::Acquire);
        let epoch = self.epoch.load(Ordering::Acquire);
        (now() < deadline).then_some(epoch)
    }

    /// Whether a hold that was made in this epoch is valid now. The clock is read after the deadline.
    #[inline]
    pub(crate) fn valid_in(&self, epoch: u64, now: impl FnOnce() -> u64) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        let in_time = now() < deadline || (mutants::on(Mutant::TimerOnlyGuard) && deadline > 0);
        in_time && (self.epoch.load(Ordering::Acquire) == epoch || mutants::on(Mutant::HoldsRevive))
    }
}
