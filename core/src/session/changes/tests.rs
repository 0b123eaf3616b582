//! The hub over the memory store.

use std::time::Duration;

use super::*;
use crate::protocol::claim::{ClaimKey, ClaimStep, Entry, Priority, Step};
use crate::protocol::session::{Nonce, SessionId, SessionInfo, SessionStep};
use crate::store::memory::MemoryStore;

struct World {
    store: Arc<Counted>,
    hub: Arc<Hub>,
}

fn world() -> World {
    let env = Env::system(tokio::runtime::Handle::current());
    let store = Arc::new(Counted::new(Arc::new(MemoryStore::open("", env.clone()))));
    World { hub: Hub::new(env, store.clone()), store }
}

fn claims(prefix: &str) -> Interest {
    Interest { claims: vec![prefix.to_owned()], sessions: false }
}

impl World {
    async fn grant(&self, key: &str) {
        let session = SessionId::from_random(7);
        let entry = Entry { session, attempt: 1, priority: Priority::default() };
        let step = ClaimStep::Step(Step::acquire(entry, true, 9, Vec::new()));
        self.store.apply_claim(ClaimKey::new(key), step).await.unwrap();
    }

    async fn open_session(&self, number: u128) {
        let (ttl, info) = (Duration::from_secs(9), SessionInfo::default());
        let step = SessionStep::Open { nonce: Nonce(1), ttl, info };
        self.store.apply_session(SessionId::from_random(number), step).await.unwrap();
    }
}

/// What one who looks on has heard.
struct Subscription {
    changes: tokio::sync::mpsc::UnboundedReceiver<Change>,
    _attached: Attached,
}

impl Subscription {
    async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }
}

impl Hub {
    async fn subscribe(self: &Arc<Self>, interest: Interest) -> Result<Subscription> {
        let (sender, changes) = tokio::sync::mpsc::unbounded_channel();
        let mut sender = Some(sender);
        let sink = move |change: Option<&Change>| match (change, &sender) {
            (Some(change), Some(open)) => drop(open.send(change.clone())),
            _ => sender = None,
        };
        Ok(Subscription { changes, _attached: self.attach(interest, Box::new(sink)).await? })
    }
}

async fn next(subscription: &mut Subscription) -> Change {
    tokio::time::timeout(Duration::from_secs(30), subscription.next()).await.expect("in time").expect("open")
}

fn key_of(change: Change) -> String {
    match change {
        Change::Claim(claim) => claim.key.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_share_one_stream_and_each_sees_its_own() {
    let world = world();
    world.grant("election/a/b/old").await;
    let mut first = world.hub.subscribe(claims("election/a/b/old")).await.unwrap();
    let Change::Snapshot(snapshot) = next(&mut first).await else { panic!() };
    assert_eq!((snapshot.claims.len(), snapshot.sessions.len()), (1, 0));
    let mut second = world.hub.subscribe(claims("election/a/c/new")).await.unwrap();
    let mut third = world.hub.subscribe(Interest { sessions: true, ..Interest::default() }).await.unwrap();
    for late in [&mut second, &mut third] {
        assert_eq!(next(late).await, Change::Snapshot(Default::default()));
    }
    assert_eq!(world.store.calls().streams, 1);
    world.open_session(7).await;
    world.grant("election/a/c/new").await;
    world.grant("lock/a/b/old").await;
    assert_eq!(key_of(next(&mut second).await), "election/a/c/new");
    let Change::Session(session) = next(&mut third).await else { panic!() };
    assert_eq!(session.id, SessionId::from_random(7));
    drop((second, third));
    world.hub.close();
    assert_eq!(first.next().await, None, "and nothing else was told");
}

#[tokio::test]
async fn a_wider_interest_begins_a_wider_stream() {
    let world = world();
    let mut first = world.hub.subscribe(claims("election/a/")).await.unwrap();
    next(&mut first).await;
    world.grant("lock/a/b/c").await;
    let mut second = world.hub.subscribe(claims("lock/a/b/c")).await.unwrap();
    let Change::Snapshot(snapshot) = next(&mut second).await else { panic!() };
    assert_eq!(snapshot.claims.len(), 1);
    assert!(matches!(next(&mut first).await, Change::Snapshot(_)), "as after an interruption");
    world.grant("election/a/b/c").await;
    assert_eq!(key_of(next(&mut first).await), "election/a/b/c");
    assert_eq!(world.store.calls().streams, 2);
}

#[tokio::test]
async fn the_last_to_leave_closes_the_stream() {
    let world = world();
    let first = world.hub.subscribe(claims("a/b/")).await.unwrap();
    let second = world.hub.subscribe(claims("a/b/")).await.unwrap();
    drop(first);
    assert!(world.hub.state().task.is_some());
    drop(second);
    assert!(world.hub.state().task.is_none());
    let mut third = world.hub.subscribe(claims("a/b/")).await.unwrap();
    assert!(matches!(next(&mut third).await, Change::Snapshot(_)));
    assert_eq!(world.store.calls().streams, 2);
    world.hub.close();
    assert_eq!(third.next().await, None);
    assert!(world.hub.subscribe(claims("a/b/")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_the_last_goes_is_told() {
    let world = world();
    for round in 0..ROUNDS {
        let last = world.hub.subscribe(claims("election/a/")).await.unwrap();
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let begun = barrier.clone();
        let goes = tokio::task::spawn_blocking(move || {
            begun.wait();
            // So that each moment of the other's coming has its turn.
            for _ in 0..round % 997 {
                std::hint::spin_loop();
            }
            drop(last);
        });
        barrier.wait();
        // It wants more than there is, so a wider stream begins.
        let mut comes = world.hub.subscribe(claims("lock/a/")).await.expect("nobody has closed the hub");
        assert!(matches!(next(&mut comes).await, Change::Snapshot(_)));
        goes.await.unwrap();
    }
}

const ROUNDS: u32 = 5_000;
