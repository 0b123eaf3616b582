//! The suite that every store passes: ours, and those of others.
//!
//! ```no_run
//! # async fn example(open_my_store: fn() -> futures::future::BoxFuture<'static, coord_core::store::SharedStore>) {
//! coord_core::store::conformance::run(open_my_store).await;
//! # }
//! ```
//!
//! Each case is named, uses sessions and keys of its own, and goes on when another has failed, so the suite may run
//! against a store that is in use. It assumes nothing about how fast a store is: what a store may show late is read
//! until it shows, for at most [`PATIENCE`].
//!
//! Deliberately absent: faults (lost replies, failovers), and steps at random; those have tests of their own.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::StreamExt;

use super::{ClaimQuery, Notice, Notices, SessionQuery, SharedStore};
use crate::env::{Rng, SystemRng};
use crate::error::Result;
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep, ClaimView, Entry, MAX_QUEUE, Priority, Step};
use crate::protocol::session::{Nonce, SessionId, SessionInfo, SessionRecord, SessionStep, Vitality};

mod changes;
mod claims;
mod documents;
mod limits;
mod notices;
mod reads;
mod sessions;
mod steps;

/// How long the suite waits for something that a store does in its own time: a notice, a read that is up to date,
/// a record that may be collected.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every case. `open` is called several times: each call gives a new handle on the same store, as another
/// process would have it. Needs a tokio runtime with timers.
///
/// # Panics
/// After the last case, if any failed: the message names each and what it found.
pub async fn run(open: impl Fn() -> BoxFuture<'static, SharedStore>) {
    run_matching("", open).await;
}

/// Runs the cases whose name contains this text: for work on one of them.
///
/// # Panics
/// As [`run`], and when no case has such a name.
pub async fn run_matching(part: &str, open: impl Fn() -> BoxFuture<'static, SharedStore>) {
    let chosen: Vec<&Case> = all().filter(|case| case.name.contains(part)).collect();
    assert!(!chosen.is_empty(), "no case of the suite has '{part}' in its name");
    run_cases(&chosen, open).await;
}

/// The names of all cases, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|case| case.name)
}

fn all() -> impl Iterator<Item = &'static Case> {
    let coordination =
        [sessions::CASES, claims::CASES, steps::CASES, reads::CASES, notices::CASES, changes::CASES, limits::CASES];
    let tables = [
        documents::writes::CASES,
        documents::reads::CASES,
        documents::indexes::CASES,
        documents::fences::CASES,
        documents::watching::CASES,
    ];
    coordination.into_iter().chain(tables).flatten()
}

async fn run_cases(cases: &[&Case], open: impl Fn() -> BoxFuture<'static, SharedStore>) {
    let (first, second) = (open().await, open().await);
    let mut failures = Vec::new();
    for case in cases {
        let bench = Bench::new(first.clone(), second.clone(), open().await);
        tracing::debug!(case = case.name, "conformance");
        if let Err(panic) = AssertUnwindSafe((case.run)(&bench)).catch_unwind().await {
            failures.push(format!("{}: {}", case.name, message(panic.as_ref())));
        }
        bench.spare.close().await;
    }
    first.close().await;
    second.close().await;
    assert!(failures.is_empty(), "{} case(s) failed:\n{}", failures.len(), failures.join("\n"));
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

struct Case {
    name: &'static str,
    run: fn(&Bench) -> BoxFuture<'_, ()>,
}

/// The cases of one file: the name of a function is the name of its case.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(in crate::store::conformance) const CASES: &[$crate::store::conformance::Case] = &[
            $($crate::store::conformance::Case { name: stringify!($name), run: |bench| Box::pin($name(bench)) }),+
        ];
    };
}
use cases;

/// What a case works with: handles on one store, and what is new to it.
struct Bench {
    first: SharedStore,
    second: SharedStore,
    /// A third handle, for this case alone: it may be closed.
    spare: SharedStore,
    /// Sets the keys of this case apart from all others.
    mark: String,
    attempts: AtomicU64,
}

impl Bench {
    fn new(first: SharedStore, second: SharedStore, spare: SharedStore) -> Self {
        let mark = format!("{:016x}", SystemRng.bits());
        Self { first, second, spare, mark, attempts: AtomicU64::new(1) }
    }

    fn key(&self, name: &str) -> ClaimKey {
        ClaimKey::new(format!("{}{name}", self.prefix()))
    }

    fn prefix(&self) -> String {
        format!("lock/conformance/{}/", self.mark)
    }

    fn session_id() -> SessionId {
        SessionId::from_random(u128::from(SystemRng.bits()) << 64 | u128::from(SystemRng.bits()))
    }

    fn nonce() -> Nonce {
        Nonce::from_random(SystemRng.bits())
    }

    /// A new attempt of this session.
    fn entry(&self, session: SessionId) -> Entry {
        self.entry_with(session, 0)
    }

    fn entry_with(&self, session: SessionId, priority: i32) -> Entry {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        Entry { session, attempt, priority: Priority::new(priority).expect("the case's priority is in range") }
    }

    /// A new attempt of a new session, whose record is not needed.
    fn stranger(&self) -> Entry {
        self.entry(Self::session_id())
    }
}

/// The calls of a store as the cases make them: an error ends the case.
trait Calls {
    async fn session(&self, id: SessionId, step: SessionStep) -> Option<SessionRecord>;
    async fn open(&self, id: SessionId, nonce: Nonce) -> SessionRecord;
    async fn step(&self, key: &ClaimKey, step: impl Into<ClaimStep>) -> Option<ClaimView>;
    async fn acquire(&self, key: &ClaimKey, entry: Entry) -> ClaimView;
    async fn release(&self, key: &ClaimKey, entry: Entry) -> Option<ClaimView>;
    async fn read(&self, key: &ClaimKey) -> Option<ClaimRecord>;
    async fn read_session(&self, id: SessionId) -> Option<SessionRecord>;
}

impl From<Step> for ClaimStep {
    fn from(step: Step) -> Self {
        Self::Step(step)
    }
}

impl Calls for SharedStore {
    async fn session(&self, id: SessionId, step: SessionStep) -> Option<SessionRecord> {
        unwrap("apply_session", self.apply_session(id, step).await)
    }

    async fn open(&self, id: SessionId, nonce: Nonce) -> SessionRecord {
        let step = SessionStep::Open { nonce, ttl: TTL, info: SessionInfo::default() };
        self.session(id, step).await.expect("an opening always answers with the record")
    }

    async fn step(&self, key: &ClaimKey, step: impl Into<ClaimStep>) -> Option<ClaimView> {
        unwrap("apply_claim", self.apply_claim(key.clone(), step.into()).await)
    }

    async fn acquire(&self, key: &ClaimKey, entry: Entry) -> ClaimView {
        let view = self.step(key, Step::acquire(entry, true, MAX_QUEUE, Vec::new())).await;
        view.expect("an acquire applies always")
    }

    async fn release(&self, key: &ClaimKey, entry: Entry) -> Option<ClaimView> {
        self.step(key, Step::remove(entry, Vec::new())).await
    }

    async fn read(&self, key: &ClaimKey) -> Option<ClaimRecord> {
        let found = unwrap("claims", self.claims(ClaimQuery::Keys(vec![key.clone()])).await);
        assert!(found.len() <= 1, "one key was asked for, {} records came", found.len());
        found.into_iter().next()
    }

    async fn read_session(&self, id: SessionId) -> Option<SessionRecord> {
        let found = unwrap("sessions", self.sessions(SessionQuery::Ids(vec![id])).await);
        assert!(found.len() <= 1, "one id was asked for, {} records came", found.len());
        found.into_iter().next()
    }
}

fn unwrap<T>(call: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{call} failed: {error:?}"))
}

/// Reads until what is read is right: a store may show a write late, but it must show it.
async fn eventually<T, F>(what: &str, read: impl Fn() -> F, right: impl Fn(&T) -> bool) -> T
where
    T: fmt::Debug,
    F: Future<Output = T>,
{
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = read().await;
        if right(&found) {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "{what}: after {PATIENCE:?} still {found:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// One session's notices, read as its client reads them.
struct Listener {
    id: SessionId,
    notices: Notices,
}

impl Listener {
    async fn new(store: &SharedStore, id: SessionId) -> Self {
        let mut listener = Self { id, notices: unwrap("notices", store.notices(id).await) };
        let first = listener.next("the first notice").await;
        assert_eq!(first, Notice::Gap, "a stream begins with a gap, so that its reader reads what came before");
        listener
    }

    async fn next(&mut self, what: &str) -> Notice {
        let next = tokio::time::timeout(PATIENCE, self.notices.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"));
        let notice = next.unwrap_or_else(|| panic!("the stream ended before {what}; it must never end"));
        if let Notice::Granted { entry, .. } | Notice::Breaking { entry, .. } = &notice {
            assert_eq!(entry.session, self.id, "a notice for another session");
        }
        notice
    }

    /// Waits for this notice. One that tells what an earlier one has told may come before it; nothing else may. A
    /// gap is allowed at any time, and then a read stands in for the notice.
    async fn expect(&mut self, store: &SharedStore, expected: &Notice, told: &[Notice]) {
        loop {
            match self.next(&format!("{expected:?}")).await {
                notice if notice == *expected => return,
                Notice::Gap if shows(store, expected).await => return,
                Notice::Gap => {}
                other => assert!(told.contains(&other), "{other:?} instead of {expected:?}"),
            }
        }
    }
}

async fn shows(store: &SharedStore, notice: &Notice) -> bool {
    match notice {
        Notice::Gap => true,
        Notice::Granted { key, entry, token } => {
            store.read(key).await.is_some_and(|r| r.holder == Some(*entry) && r.token == *token)
        }
        Notice::Breaking { key, entry, .. } => store.read(key).await.is_some_and(|r| r.breaking == Some(*entry)),
    }
}

/// Long enough that nobody but a case ends a session of the suite.
const TTL: Duration = Duration::from_secs(3_600);

/// Between two reads for something that a store may show late.
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::Env;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn memory_passes() {
        let env = Env::system(tokio::runtime::Handle::current());
        run(move || {
            let store: SharedStore = Arc::new(MemoryStore::open("conformance", env.clone()));
            std::future::ready(store).boxed()
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "gone_is_gone")]
    async fn a_failure_names_its_case() {
        let case = Case { name: "gone_is_gone", run: |_| Box::pin(async { panic!("it was not") }) };
        let env = Env::system(tokio::runtime::Handle::current());
        let store: SharedStore = Arc::new(MemoryStore::open("", env));
        run_cases(&[&case], move || std::future::ready(store.clone()).boxed()).await;
    }

    #[test]
    fn names_are_unique() {
        let all: std::collections::BTreeSet<&str> = names().collect();
        assert_eq!(all.len(), names().count());
    }
}
