//! Attempts whose grants, answers and records go astray: none of them waits or holds for ever.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, poll, stream};
use tokio::sync::watch;

use super::*;
use crate::claims::{Hold, Outcome, Want, acquire, ask_again};
use crate::client::Client;
use crate::config::Options;
use crate::env::Env;
use crate::error::{Code, Error, LossReason};
use crate::protocol::claim::{ClaimStep, Step};
use crate::protocol::session::{SessionRecord, SessionStep};
use crate::store::changes::{Changes, Interest};
use crate::store::memory::MemoryStore;
use crate::store::{Applied, Capabilities, Notice, Notices, SessionQuery};
use crate::time::{Clock, SystemClock, Timestamp, WallTime};

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

const WANT: Want = Want { wait: true, max_queue: 8, priority: crate::protocol::claim::Priority::MAX };

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an event within the bound")
}

/// The machine's clock, and by how many seconds it is ahead.
#[derive(Debug, Default)]
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now() + Duration::from_secs(self.0.load(SeqCst))
    }

    fn wall(&self) -> WallTime {
        SystemClock.wall()
    }
}

/// A store in memory whose answers can be held up.
#[derive(Debug)]
struct Stage {
    inner: MemoryStore,
    env: Env,
    clock: Arc<Ahead>,
    /// Whether what adds an entry may be applied.
    adds: watch::Sender<bool>,
    /// Whether what removes entries may be answered, after it was applied.
    removals: watch::Sender<bool>,
    /// Whether those who ask for notices from now on get none.
    deaf: AtomicBool,
    /// The record that can be neither read nor changed. Audits fail as long as there is one.
    damaged: Mutex<Option<ClaimKey>>,
}

impl Stage {
    fn new() -> Arc<Self> {
        let clock = Arc::new(Ahead::default());
        let env = Env { clock: clock.clone(), ..Env::system(tokio::runtime::Handle::current()) };
        let (adds, removals) = (watch::Sender::new(true), watch::Sender::new(true));
        let inner = MemoryStore::open("", env.clone());
        Arc::new(Self { inner, env, clock, adds, removals, deaf: AtomicBool::new(false), damaged: Mutex::default() })
    }

    async fn client(self: &Arc<Self>, ttl: &str) -> (Client, Arc<Session>) {
        let options = Options::parse(&format!("memory:?coord.ttl={ttl}")).expect("valid");
        let client = Client::with_store(self.clone(), options, self.env.clone()).await.expect("memory");
        let session = client.core().current_session();
        (client, session)
    }

    async fn record(&self, key: &ClaimKey) -> ClaimRecord {
        self.inner.claims(ClaimQuery::Keys(vec![key.clone()])).await.expect("memory").pop().expect("it is there")
    }

    /// Waits until the record is so.
    async fn until(&self, key: &ClaimKey, so: impl Fn(&ClaimRecord) -> bool) {
        bounded(async {
            while !so(&self.record(key).await) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn damaged(&self) -> Option<ClaimKey> {
        self.damaged.lock().expect("nobody panics").clone()
    }
}

async fn pass(gate: &watch::Sender<bool>) {
    gate.subscribe().wait_for(|open| *open).await.expect("the gate stays");
}

impl Store for Stage {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.inner.apply_session(id, step)
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        async move {
            let adds = matches!(&step, ClaimStep::Step(Step { add: Some(_), .. }));
            let removes = matches!(&step, ClaimStep::Step(Step { add: None, .. }));
            if adds {
                pass(&self.adds).await;
            }
            if self.damaged().as_ref() == Some(&key) {
                return Err(Error::new(Code::CorruptState, "its queue is no list"));
            }
            let applied = self.inner.apply_claim(key, step).await;
            if removes {
                pass(&self.removals).await;
            }
            applied
        }
        .boxed()
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.inner.sessions(query)
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        let damaged = self.damaged();
        if damaged.is_some() && matches!(query, ClaimQuery::HeldBy(_)) {
            return async { Err(Error::unavailable("it does not answer")) }.boxed();
        }
        async move {
            let found = self.inner.claims(query).await?;
            Ok(found.into_iter().filter(|record| Some(&record.key) != damaged.as_ref()).collect())
        }
        .boxed()
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        if self.deaf.load(SeqCst) {
            return async { Ok(stream::iter([Notice::Gap]).chain(stream::pending()).boxed()) }.boxed();
        }
        self.inner.notices(id)
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        self.inner.changes(interest)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

fn key(name: &str) -> ClaimKey {
    ClaimKey::new(format!("lock/default/default/{name}"))
}

fn hold(outcome: Result<Outcome>) -> Hold {
    match outcome.expect("granted") {
        Outcome::Held(hold) => hold,
        Outcome::Refused(view) => panic!("it was to wait: {view:?}"),
    }
}

async fn take(session: &Arc<Session>, key: &ClaimKey) -> Hold {
    hold(bounded(acquire(session, key, &WANT)).await)
}

#[tokio::test]
async fn whoever_comes_to_a_session_that_is_lost_is_told() {
    let stage = Stage::new();
    let (_client, session) = stage.client("10s").await;
    session.expire();
    let error = bounded(acquire(&session, &key("l"), &WANT)).await.expect_err("the session is over");
    assert_eq!((error.code(), error.loss()), (Code::Lost, Some(LossReason::Killed)));
    assert!(session.claims().is_empty());
}

/// A renewal that reads the clock just before the deadline goes on with the same epoch, so nobody is told that the session
/// is live; a grant that was looked at just after that deadline was put off until somebody is.
#[tokio::test]
async fn a_grant_that_was_put_off_in_the_moment_of_a_renewal_is_handed_out() {
    let stage = Stage::new();
    let (_other, other) = stage.client("10s").await;
    let (_client, session) = stage.client("10s").await;
    let l = key("l");
    let held = take(&other, &l).await;
    let mut wait = Box::pin(acquire(&session, &l, &WANT));
    assert!(poll!(&mut wait).is_pending());
    let entry = stage.record(&l).await.waiters[0];
    stage.clock.0.store(60, SeqCst);
    assert!(session.claims().on_granted(&session, &l, &entry, held.token() + 1));
    stage.clock.0.store(0, SeqCst);
    assert!(poll!(&mut wait).is_pending(), "it was put off");
    drop(held);
    assert_eq!(hold(bounded(wait).await).loss(), None);
}

/// A poll that asks again for a wait has looked that somebody waits; then the wait is given up, and its withdrawal is there
/// before the poll's request.
#[tokio::test]
async fn a_wait_that_is_asked_for_again_while_it_is_given_up_is_taken_out() {
    for (withdrawn, free) in [(false, false), (false, true), (true, false), (true, true)] {
        let stage = Stage::new();
        let (_other, other) = stage.client("10s").await;
        let (_client, session) = stage.client("10s").await;
        let l = key("l");
        let mut held = Some(take(&other, &l).await);
        let mut wait = Box::pin(acquire(&session, &l, &WANT));
        assert!(poll!(&mut wait).is_pending());
        let entry = stage.record(&l).await.waiters[0];
        stage.adds.send_replace(false);
        let attempt = WaitingAttempt { key: l.clone(), entry, max_queue: WANT.max_queue };
        let mut again = Box::pin(ask_again(&session, &attempt, Vec::new()));
        assert!(poll!(&mut again).is_pending());
        stage.removals.send_replace(withdrawn);
        drop(wait);
        stage.until(&l, |record| record.waiters.is_empty()).await;
        assert_eq!(session.claims().is_empty(), withdrawn, "whether the withdrawal knows its end");
        if free {
            held.take();
            stage.until(&l, |record| record.holder.is_none()).await;
        }
        stage.adds.send_replace(true);
        bounded(again).await.expect("memory");
        stage.removals.send_replace(true);
        stage.until(&l, |record| !record.involves(&entry)).await;
        bounded(session.claims().emptied()).await;
    }
}

/// Its process was stopped for longer than its ttl, and nobody declared it dead: the session is live again, the hold is
/// lost, and the store still has it while the code under it does not end.
#[tokio::test]
async fn a_hold_that_was_lost_before_it_is_broken_is_given_up() {
    let stage = Stage::new();
    let (_other, other) = stage.client("1s").await;
    let (_client, session) = stage.client("1s").await;
    let l = key("l");
    let held = take(&session, &l).await;
    session.claims().on_suspended(u64::MAX);
    assert_eq!(held.loss(), Some(LossReason::Expired));
    let announce = ClaimStep::AnnounceBreak { token: held.token() };
    stage.apply_claim(l.clone(), announce).await.expect("memory").expect("it is held");
    assert!(take(&other, &l).await.token() > held.token());
    assert_eq!(held.loss(), Some(LossReason::Expired));
}

#[tokio::test]
async fn a_damaged_record_ends_the_wait_for_it_and_no_other() {
    let stage = Stage::new();
    let (_other, other) = stage.client("10s").await;
    stage.deaf.store(true, SeqCst);
    let (_client, session) = stage.client("3s").await;
    let (bad, good) = (key("bad"), key("good"));
    let (_held, held) = (take(&other, &bad).await, take(&other, &good).await);
    let mut waits_for_bad = Box::pin(acquire(&session, &bad, &WANT));
    let mut waits_for_good = Box::pin(acquire(&session, &good, &WANT));
    assert!(poll!(&mut waits_for_bad).is_pending() && poll!(&mut waits_for_good).is_pending());
    *stage.damaged.lock().expect("nobody panics") = Some(bad.clone());
    drop(held);
    // Only the poll can tell: no notice comes, and no audit succeeds.
    assert_eq!(hold(bounded(waits_for_good).await).loss(), None);
    assert_eq!(bounded(waits_for_bad).await.expect_err("it is damaged").code(), Code::CorruptState);
}
