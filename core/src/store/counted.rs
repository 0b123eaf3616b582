//! Counts what a client asks of its store. The number of operations per acquire, release, renewal and hand-over is
//! part of what this library promises, so it is always counted, not only in tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::future::BoxFuture;

use super::changes::{Changes, Interest};
use super::documents::Documents;
use super::{Applied, Capabilities, ClaimQuery, Notices, SessionQuery, SharedStore, Store};
use crate::error::Result;
use crate::failpoints::Point;
use crate::protocol::claim::{ClaimKey, ClaimStep, Step, When};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep};

/// A store that counts the calls to another.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: SharedStore,
    session_steps: AtomicU64,
    claim_steps: AtomicU64,
    reads: AtomicU64,
    streams: AtomicU64,
}

/// How many operations a client has asked of its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCalls {
    /// Steps on sessions: openings, renewals, kills, closings.
    pub session_steps: u64,
    /// Steps on claims: acquires, releases, cancels, takeovers.
    pub claim_steps: u64,
    /// Reads.
    pub reads: u64,
    /// Streams of changes that were opened: one, however many look on, and another when somebody wants to see more.
    pub streams: u64,
}

impl Counted {
    pub(crate) fn new(inner: SharedStore) -> Self {
        Self {
            inner,
            session_steps: AtomicU64::new(0),
            claim_steps: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            streams: AtomicU64::new(0),
        }
    }

    pub(crate) fn calls(&self) -> StoreCalls {
        StoreCalls {
            session_steps: self.session_steps.load(Relaxed),
            claim_steps: self.claim_steps.load(Relaxed),
            reads: self.reads.load(Relaxed),
            streams: self.streams.load(Relaxed),
        }
    }
}

impl Store for Counted {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.session_steps.fetch_add(1, Relaxed);
        let points = points_of_session(&step);
        passing(points, self.inner.apply_session(id, step))
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        self.claim_steps.fetch_add(1, Relaxed);
        let points = points_of_claim(&step);
        passing(points, self.inner.apply_claim(key, step))
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.reads.fetch_add(1, Relaxed);
        self.inner.sessions(query)
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<crate::protocol::claim::ClaimRecord>>> {
        self.reads.fetch_add(1, Relaxed);
        self.inner.claims(query)
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        self.inner.notices(id)
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        self.streams.fetch_add(1, Relaxed);
        self.inner.changes(interest)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn run_directory(&self) -> Option<PathBuf> {
        self.inner.run_directory()
    }

    fn documents(&self) -> Option<&dyn Documents> {
        self.inner.documents()
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// The request, with the points before it is sent and after its answer has come.
#[cfg(feature = "failpoints")]
fn passing<'a, T: Send + 'a>([before, after]: [Point; 2], request: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
    Box::pin(async move {
        crate::failpoints::at(before);
        let answer = request.await;
        crate::failpoints::at(after);
        answer
    })
}

/// The request as it is.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
fn passing<T>(_: [Point; 2], request: BoxFuture<'_, T>) -> BoxFuture<'_, T> {
    request
}

fn points_of_session(step: &SessionStep) -> [Point; 2] {
    match step {
        SessionStep::Open { .. } => [Point::OpenSend, Point::OpenAnswer],
        SessionStep::Renew { .. } => [Point::RenewSend, Point::RenewAnswer],
        SessionStep::Kill(_) => [Point::KillSend, Point::KillAnswer],
        SessionStep::Close => [Point::CloseSend, Point::CloseAnswer],
        SessionStep::Provide { .. } => [Point::ProvideSend, Point::ProvideAnswer],
        SessionStep::Withdraw { .. } => [Point::WithdrawSend, Point::WithdrawAnswer],
    }
}

fn points_of_claim(step: &ClaimStep) -> [Point; 2] {
    match step {
        ClaimStep::Step(Step { add: Some(_), wait: true, .. }) => [Point::AcquireSend, Point::AcquireAnswer],
        ClaimStep::Step(Step { add: Some(_), .. }) => [Point::TrySend, Point::TryAnswer],
        ClaimStep::Step(Step { when, .. }) => match when {
            When::Involved(_) => [Point::ReleaseSend, Point::ReleaseAnswer],
            When::Transfer { .. } => [Point::TransferSend, Point::TransferAnswer],
            When::Holding { .. } => [Point::EvictSend, Point::EvictAnswer],
            When::Always => [Point::SweepSend, Point::SweepAnswer],
        },
        ClaimStep::AnnounceBreak { .. } => [Point::BreakSend, Point::BreakAnswer],
        ClaimStep::Publish { .. } => [Point::PublishSend, Point::PublishAnswer],
        ClaimStep::Collect => [Point::CollectSend, Point::CollectAnswer],
    }
}
