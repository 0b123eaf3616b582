//! What a reconciler has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::ReconcilerStats;
use super::super::work::Outcome;
use super::Engine;
use crate::protocol::document::Key;

#[derive(Default)]
pub(super) struct Counters {
    pub(super) runs: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) terminal: AtomicU64,
    pub(super) requeued: AtomicU64,
    pub(super) fenced: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) run_nanos: AtomicU64,
    pub(super) longest_nanos: AtomicU64,
    pub(super) wait_nanos: AtomicU64,
}

impl Engine {
    pub(super) fn count(&self, key: &Key, outcome: Option<&Outcome>, took: Duration) {
        let counters = &self.counters;
        counters.runs.fetch_add(1, Relaxed);
        counters.run_nanos.fetch_add(nanos(took), Relaxed);
        counters.longest_nanos.fetch_max(nanos(took), Relaxed);
        match outcome {
            None => {
                counters.dropped.fetch_add(1, Relaxed);
            }
            Some(Outcome::Done) => {}
            Some(Outcome::RequeueAfter(_)) => {
                counters.requeued.fetch_add(1, Relaxed);
            }
            Some(Outcome::Error(error) | Outcome::ErrorAfter(error, _)) => {
                counters.errors.fetch_add(1, Relaxed);
                tracing::warn!(reconciler = self.name, %key, %error, "a key could not be reconciled; it is tried again");
            }
            Some(Outcome::Terminal(error)) => {
                counters.errors.fetch_add(1, Relaxed);
                counters.terminal.fetch_add(1, Relaxed);
                tracing::error!(reconciler = self.name, %key, %error, "a key is parked until it changes");
            }
        }
    }

    /// What it is doing and has done.
    pub(in crate::reconciler) fn stats(&self) -> ReconcilerStats {
        let depth = self.queue().depth(self.now());
        let counters = &self.counters;
        let duration = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Relaxed));
        ReconcilerStats {
            ready: depth.ready as u64,
            delayed: depth.delayed as u64,
            in_flight: depth.running as u64,
            parked: depth.parked as u64,
            oldest: depth.oldest,
            longest_run: depth.longest_run,
            runs: counters.runs.load(Relaxed),
            errors: counters.errors.load(Relaxed),
            retries: counters.retries.load(Relaxed),
            terminal: counters.terminal.load(Relaxed),
            requeued: counters.requeued.load(Relaxed),
            fenced: counters.fenced.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            run_time: duration(&counters.run_nanos),
            longest_ended_run: duration(&counters.longest_nanos),
            queue_time: duration(&counters.wait_nanos),
            shards: self.parts(),
            synced: self.progress.get().synced,
            paused: self.queue().is_paused(),
        }
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
