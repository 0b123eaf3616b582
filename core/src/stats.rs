//! What a client has done and how near it came to losing its session: counters, and a snapshot of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::claims::Counts;
use crate::store::counted::StoreCalls;

/// A snapshot of what a client has done since it was connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatsSnapshot {
    /// Renewals of the session that were acknowledged.
    pub renewals: u64,
    /// Renewals that failed or were not answered in time.
    pub failed_renewals: u64,
    /// How much validity was left at the latest renewal.
    pub last_slack: Option<Duration>,
    /// The least validity that was ever left at a renewal: how near this client came to losing what it holds.
    pub least_slack: Option<Duration>,
    /// How often the session was suspended.
    pub suspensions: u64,
    /// How many sessions were lost and replaced.
    pub losses: u64,
    /// Holds that were granted.
    pub grants: u64,
    /// Grants that were asked for by nobody any more and given back.
    pub unknown_grants: u64,
    /// Acquires that ended at their time limit.
    pub timeouts: u64,
    /// How often the store's stream of notices was opened or had a gap.
    pub notice_gaps: u64,
    /// Sessions of others that this client declared dead.
    pub kills: u64,
    /// Holds at this moment.
    pub held: u64,
    /// Waiting acquires at this moment.
    pub waiting: u64,
    /// Providers that are registered at this moment.
    pub providers: u64,
    /// Observers and others who look on at this moment; they share one stream of changes.
    pub onlookers: u64,
    /// Processes on this host whose death would be noticed at once.
    pub watched: u64,
    /// Operations asked of the store.
    pub store: StoreCalls,
}

/// Who provides and who looks on, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RosterCounts {
    pub(crate) providers: usize,
    pub(crate) onlookers: usize,
}

/// The counters behind the snapshot.
#[derive(Debug)]
pub(crate) struct Stats {
    renewals: AtomicU64,
    failed_renewals: AtomicU64,
    last_slack: AtomicU64,
    least_slack: AtomicU64,
    suspensions: AtomicU64,
    losses: AtomicU64,
    grants: AtomicU64,
    unknown_grants: AtomicU64,
    timeouts: AtomicU64,
    notice_gaps: AtomicU64,
    kills: AtomicU64,
}

/// No renewal yet.
const NEVER: u64 = u64::MAX;

impl Default for Stats {
    fn default() -> Self {
        Self {
            renewals: AtomicU64::new(0),
            failed_renewals: AtomicU64::new(0),
            last_slack: AtomicU64::new(NEVER),
            least_slack: AtomicU64::new(NEVER),
            suspensions: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            grants: AtomicU64::new(0),
            unknown_grants: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            notice_gaps: AtomicU64::new(0),
            kills: AtomicU64::new(0),
        }
    }
}

impl Stats {
    pub(crate) fn count_renewal(&self, slack_before: Duration) {
        let slack = u64::try_from(slack_before.as_nanos()).unwrap_or(NEVER - 1);
        self.renewals.fetch_add(1, Relaxed);
        self.last_slack.store(slack, Relaxed);
        self.least_slack.fetch_min(slack, Relaxed);
    }

    pub(crate) fn count_failed_renewal(&self) {
        self.failed_renewals.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_suspension(&self) {
        self.suspensions.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_loss(&self) {
        self.losses.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_grant(&self) {
        self.grants.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_unknown_grant(&self) {
        self.unknown_grants.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_timeout(&self) {
        self.timeouts.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_gap(&self) {
        self.notice_gaps.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_kill(&self) {
        self.kills.fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(
        &self,
        counts: Counts,
        roster: RosterCounts,
        watched: usize,
        store: StoreCalls,
    ) -> StatsSnapshot {
        let slack = |nanos: &AtomicU64| match nanos.load(Relaxed) {
            NEVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        };
        StatsSnapshot {
            renewals: self.renewals.load(Relaxed),
            failed_renewals: self.failed_renewals.load(Relaxed),
            last_slack: slack(&self.last_slack),
            least_slack: slack(&self.least_slack),
            suspensions: self.suspensions.load(Relaxed),
            losses: self.losses.load(Relaxed),
            grants: self.grants.load(Relaxed),
            unknown_grants: self.unknown_grants.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            notice_gaps: self.notice_gaps.load(Relaxed),
            kills: self.kills.load(Relaxed),
            held: counts.held as u64,
            waiting: counts.waiting as u64,
            providers: roster.providers as u64,
            onlookers: roster.onlookers as u64,
            watched: watched as u64,
            store,
        }
    }
}
