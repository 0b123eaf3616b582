//! Death watches that cannot prove anything, and kills that fail: the session is observed instead. And a queue whose head
//! is dead.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::BoxFuture;

use super::super::kernel_lock::tests::{Dir, left_by_a_crash};
use super::*;
use crate::client::Client;
use crate::config::Options;
use crate::env::Env;
use crate::error::Error;
use crate::protocol::claim::{ClaimKey, ClaimRecord, Step};
use crate::store::changes::{Changes, Interest};
use crate::store::memory::MemoryStore;
use crate::store::{Applied, Capabilities, Notices};

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store of several processes that writes down no death, and counts what it is asked about one session.
#[derive(Debug)]
struct Undying {
    inner: MemoryStore,
    directory: PathBuf,
    trusted: bool,
    session: SessionId,
    /// Whether a kill is answered with an error, or with the record as it is.
    fails: AtomicBool,
    kills: AtomicUsize,
    reads: AtomicUsize,
    asked: Notify,
    /// Whether the next question for the claims of a session is answered with an error.
    claims_fail: AtomicBool,
}

impl Undying {
    fn new(directory: &Dir, trusted: bool, session: SessionId) -> Arc<Self> {
        let env = Env::system(tokio::runtime::Handle::current());
        let inner = MemoryStore::open(&format!("undying-{session}"), env);
        let (fails, kills, reads) = (AtomicBool::new(true), AtomicUsize::new(0), AtomicUsize::new(0));
        let directory = directory.0.clone();
        Arc::new(Self {
            inner,
            directory,
            trusted,
            session,
            fails,
            kills,
            reads,
            asked: Notify::new(),
            claims_fail: AtomicBool::new(false),
        })
    }

    /// Waits until the session was read so often.
    async fn read(&self, times: usize) {
        let enough = async {
            while self.reads.load(SeqCst) < times {
                self.asked.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("it is observed");
    }
}

impl Store for Undying {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        if id != self.session || !matches!(step, SessionStep::Kill(_)) {
            return self.inner.apply_session(id, step);
        }
        self.kills.fetch_add(1, SeqCst);
        if self.fails.load(SeqCst) {
            return async { Err(Error::unavailable("it does not answer")) }.boxed();
        }
        async move { Ok(self.inner.sessions(SessionQuery::Ids(vec![id])).await?.pop()) }.boxed()
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        async move {
            let applied = self.inner.apply_claim(key, step).await;
            self.asked.notify_one();
            applied
        }
        .boxed()
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        if matches!(&query, SessionQuery::Ids(ids) if ids.contains(&self.session)) {
            self.reads.fetch_add(1, SeqCst);
            self.asked.notify_one();
        }
        self.inner.sessions(query)
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        if matches!(query, ClaimQuery::Of(_)) && self.claims_fail.swap(false, SeqCst) {
            return async { Err(Error::unavailable("it does not answer")) }.boxed();
        }
        self.inner.claims(query)
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        self.inner.notices(id)
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        self.inner.changes(interest)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { multi_process: true, multi_host: false, kernel_locks_trusted: self.trusted }
    }

    fn run_directory(&self) -> Option<PathBuf> {
        Some(self.directory.clone())
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// A client that is shown a session whose process has crashed before anybody looked.
async fn look_on(store: &Arc<Undying>) -> (Client, crate::session::shown::Showing) {
    let (nonce, ttl) = (Nonce(7), Duration::from_secs(600));
    let info = left_by_a_crash(&store.directory, store.session, nonce);
    let open = SessionStep::Open { nonce, ttl, info: info.clone() };
    store.inner.apply_session(store.session, open).await.expect("memory");
    let env = Env::system(tokio::runtime::Handle::current());
    let mut options = Options::parse("memory:").expect("valid");
    options.ttl = Some(ttl);
    let client = Client::with_store(store.clone(), options, env).await.expect("memory");
    let showing = client.core().setup().shown.begin();
    showing.add(store.session, &Arc::new(info));
    (client, showing)
}

#[tokio::test]
async fn a_death_that_cannot_be_written_down_is_tried_once_per_period_and_observed() {
    let dir = Dir::new();
    let store = Undying::new(&dir, true, SessionId::from_random(1));
    let (client, _showing) = look_on(&store).await;
    store.read(1).await;
    assert_eq!(store.kills.load(SeqCst), 1, "the period is 100 s");
    assert_eq!(client.core().current_session().watched(), 0);
    drop(client);

    // The same where the store says that the session is alive: it has renewed elsewhere.
    let store = Undying::new(&dir, true, SessionId::from_random(2));
    store.fails.store(false, SeqCst);
    let (_client, _showing) = look_on(&store).await;
    store.read(1).await;
    assert_eq!(store.kills.load(SeqCst), 1);
}

#[tokio::test]
async fn a_lock_that_nobody_saw_held_is_no_watch() {
    let dir = Dir::new();
    let store = Undying::new(&dir, false, SessionId::from_random(3));
    let (client, _showing) = look_on(&store).await;
    store.read(1).await;
    assert_eq!((store.kills.load(SeqCst), client.core().current_session().watched()), (0, 0));
}

#[tokio::test]
async fn a_queue_whose_head_was_declared_dead_and_left_goes_on() {
    let env = Env::system(tokio::runtime::Handle::current());
    let store = Arc::new(MemoryStore::open("dead-head", env.clone()));
    let key = ClaimKey::new("lock/default/default/l");
    // The holder and the five behind it; whoever declared them dead did nothing else.
    let dead: Vec<SessionId> = (1..=6).map(SessionId::from_random).collect();
    for id in &dead {
        let (nonce, ttl) = (Nonce(7), Duration::from_secs(600));
        let open = SessionStep::Open { nonce, ttl, info: SessionInfo::default() };
        store.apply_session(*id, open).await.expect("memory");
        let entry = Entry { session: *id, attempt: 1, priority: Default::default() };
        let step = Step::acquire(entry, true, 256, Vec::new());
        store.apply_claim(key.clone(), ClaimStep::Step(step)).await.expect("memory");
    }
    for id in &dead {
        let kill = SessionStep::Kill(KillProof::Observed(Some(Nonce(7))));
        store.apply_session(*id, kill).await.expect("memory");
    }
    let record = store.claims(ClaimQuery::Keys(vec![key])).await.expect("memory").pop().expect("it is there");
    assert_eq!((record.holder.map(|holder| holder.session), record.waiters.len()), (Some(dead[0]), 5), "{record:?}");

    let mut options = Options::parse("memory:").expect("valid");
    options.ttl = Some(Duration::from_secs(8));
    let client = Client::with_store(store, options, env).await.expect("memory");
    // At the first poll, after a sixth of the ttl and not after a ttl.
    client.lock("l").expect("valid").acquire_timeout(Duration::from_secs(5)).await.expect("nobody else lives");
}

/// A session that holds a claim of its own, and was declared dead by somebody who did nothing else.
async fn leave_dead(store: &dyn Store, id: SessionId, key: &ClaimKey) {
    let (nonce, ttl) = (Nonce(7), Duration::from_secs(600));
    let open = SessionStep::Open { nonce, ttl, info: SessionInfo::default() };
    store.apply_session(id, open).await.expect("memory");
    grant(store, id, key).await;
    let kill = SessionStep::Kill(KillProof::Observed(Some(nonce)));
    store.apply_session(id, kill).await.expect("memory");
}

async fn grant(store: &dyn Store, session: SessionId, key: &ClaimKey) {
    let entry = Entry { session, attempt: 1, priority: Default::default() };
    let step = ClaimStep::Step(Step::acquire(entry, true, 256, Vec::new()));
    let view = store.apply_claim(key.clone(), step).await.expect("memory").expect("a view");
    assert_eq!(view.holder, Some(entry));
}

impl Undying {
    async fn freed(&self, key: &ClaimKey) {
        let free = async {
            while self.inner.claims(ClaimQuery::Keys(vec![key.clone()])).await.expect("memory")[0].holder.is_some() {
                self.asked.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, free).await.expect("it is free");
    }
}

/// A request of the dead can be on its way for a while: it is applied when all that they had is free again.
#[tokio::test]
async fn what_the_dead_get_late_is_free_again_although_nobody_waits_for_it() {
    let directory = Dir::new();
    let store = Undying::new(&directory, false, SessionId::from_random(9));
    let (dead, key) = (SessionId::from_random(1), ClaimKey::new("lock/default/default/l"));
    leave_dead(&store.inner, dead, &key).await;
    let mut options = Options::parse("memory:").expect("valid");
    options.ttl = Some(Duration::from_secs(1));
    let env = Env::system(tokio::runtime::Handle::current());
    let client = Client::with_store(store.clone(), options, env).await.expect("memory");
    want(&client.core().current_session(), [dead]);
    store.freed(&key).await;
    grant(&store.inner, dead, &key).await;
    store.freed(&key).await;
}

/// Who is known to be dead is not read again: what is not done then has to be remembered, and done soon.
#[tokio::test]
async fn several_that_are_found_dead_at_once_are_all_cleared_up_after() {
    let directory = Dir::new();
    let store = Undying::new(&directory, false, SessionId::from_random(9));
    let dead: Vec<SessionId> = (1..=3).map(SessionId::from_random).collect();
    let key = |id: &SessionId| ClaimKey::new(format!("lock/default/default/{id}"));
    for id in &dead {
        leave_dead(&store.inner, *id, &key(id)).await;
    }
    let env = Env::system(tokio::runtime::Handle::current());
    let mut options = Options::parse("memory:").expect("valid");
    options.ttl = Some(Duration::from_secs(600));
    let client = Client::with_store(store.clone(), options, env).await.expect("memory");
    store.claims_fail.store(true, SeqCst);
    want(&client.core().current_session(), dead.clone());
    for id in &dead {
        store.freed(&key(id)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_buried_keeps_no_other() {
    let directory = Dir::new();
    let (refused, other) = (SessionId::from_random(1), SessionId::from_random(2));
    let store = Undying::new(&directory, false, refused);
    let key = ClaimKey::new("lock/default/default/l");
    let ttl = Duration::from_secs(1);
    for id in [refused, other] {
        let open = SessionStep::Open { nonce: Nonce(7), ttl, info: SessionInfo::default() };
        store.inner.apply_session(id, open).await.expect("memory");
    }
    grant(&store.inner, other, &key).await;
    let mut options = Options::parse("memory:").expect("valid");
    options.ttl = Some(ttl);
    let env = Env::system(tokio::runtime::Handle::current());
    let client = Client::with_store(store.clone(), options, env).await.expect("memory");
    want(&client.core().current_session(), [refused, other]);
    store.freed(&key).await;
    assert!(store.kills.load(SeqCst) > 0, "nobody tried to bury the first");
}

/// Whoever replaces a session lets go of what belongs to it.
#[tokio::test]
async fn a_session_that_is_refused_watches_nobody_any_more() {
    let directory = Dir::new();
    let store = Undying::new(&directory, true, SessionId::from_random(9));
    let mut options = Options::parse("memory:").expect("valid");
    options.ttl = Some(Duration::from_secs(1));
    let env = Env::system(tokio::runtime::Handle::current());
    let client = Client::with_store(store.clone(), options, env).await.expect("memory");
    let lost = client.core().current_session();
    let record = store.sessions(SessionQuery::Ids(vec![lost.id()])).await.expect("memory").remove(0);
    let kill = SessionStep::Kill(KillProof::Observed(record.nonce));
    store.apply_session(lost.id(), kill).await.expect("memory");
    let replaced = async {
        while client.core().current_session().id() == lost.id() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, replaced).await.expect("a renewal tells");
    assert!(lost.observer.with(|state| state.stopped), "it watches others still");
    assert!(lost.kernel_lock.lock().expect("nobody panics").is_none(), "its lock file is kept");
}
