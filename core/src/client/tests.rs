//! A client's end: beside the opening of the next session, without one, and with others on the same store.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::future::BoxFuture;

use super::*;
use crate::error::LossReason;
use crate::protocol::claim::{ClaimRecord, ClaimStep};
use crate::protocol::session::{KillProof, SessionRecord, SessionStep, Vitality};
use crate::provider::{ProvideOptions, ProviderEvent};
use crate::store::changes::{Changes, Interest};
use crate::store::{Applied, Capabilities, ClaimQuery, Notices, SessionQuery, Store};

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store in memory that opens no more than so many sessions, takes its time to end one, and counts its own ends.
#[derive(Debug)]
struct Limited {
    inner: MemoryStore,
    /// How many sessions may still be opened.
    left: AtomicUsize,
    /// How long the answer to the end of a session is on its way.
    slow: Duration,
    closed: AtomicUsize,
}

impl Limited {
    fn new(name: &str, sessions: usize, slow: Duration) -> Arc<Self> {
        let inner = MemoryStore::open(name, Env::system(tokio::runtime::Handle::current()));
        Arc::new(Self { inner, left: AtomicUsize::new(sessions), slow, closed: AtomicUsize::new(0) })
    }

    async fn connect(self: &Arc<Self>) -> Client {
        let options = Options::parse("memory:?coord.ttl=1s").expect("valid");
        let env = Env::system(tokio::runtime::Handle::current());
        Client::with_store(self.clone(), options, env).await.expect("memory")
    }
}

impl Store for Limited {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        match step {
            SessionStep::Open { .. } if self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err() => {
                async { Err(Error::unavailable("it takes no more sessions")) }.boxed()
            }
            SessionStep::Close => async move {
                let closed = self.inner.apply_session(id, step).await;
                // A renewal that is sent while the end is under way has the time to come after it.
                tokio::time::sleep(self.slow).await;
                closed
            }
            .boxed(),
            step => self.inner.apply_session(id, step),
        }
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        self.inner.apply_claim(key, step)
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.inner.sessions(query)
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        self.inner.claims(query)
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        self.inner.notices(id)
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        self.inner.changes(interest)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn run_directory(&self) -> Option<PathBuf> {
        self.inner.run_directory()
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.fetch_add(1, SeqCst);
        self.inner.close()
    }
}

#[tokio::test]
async fn a_session_that_was_opened_beside_a_close_is_not_the_clients() {
    let env = Env::system(tokio::runtime::Handle::current());
    let store = Arc::new(MemoryStore::open("closed-beside-an-opening", env.clone()));
    let options = Options::parse("memory:").expect("valid");
    let client = Client::with_store(store, options, env).await.expect("memory");
    let core = client.core();
    let late = Session::open(core.setup().clone()).await.expect("memory");
    client.close(PATIENCE).await.expect("nothing is held");
    assert!(!core.adopt(&late));
    assert_ne!(core.current_session().id(), late.id());
    assert!(core.session_tasks.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn closing_ends_the_providers_of_a_session_that_was_lost() {
    let store = Limited::new("closed-after-a-loss", 1, Duration::ZERO);
    let client = store.connect().await;
    let provider = client.provide("s", "", ProvideOptions::default()).await.expect("provided");
    let session = client.core().current_session();
    let record = store.sessions(SessionQuery::Ids(vec![session.id()])).await.expect("memory").remove(0);
    let kill = SessionStep::Kill(KillProof::Observed(record.nonce));
    store.apply_session(session.id(), kill).await.expect("memory");
    let next = async || tokio::time::timeout(PATIENCE, provider.next()).await.expect("an event");
    assert_eq!(next().await, Ok(ProviderEvent::Registered));
    assert_eq!(next().await, Ok(ProviderEvent::Lost(LossReason::Killed)), "a renewal tells");
    client.close(PATIENCE).await.expect("nothing is held");
    assert_eq!(next().await, Ok(ProviderEvent::Closed));
    assert_eq!(next().await.expect_err("the last").code(), Code::Closed);
    tokio::time::timeout(PATIENCE, provider.close()).await.expect("it is over").expect("closing twice is no error");
}

#[tokio::test]
async fn a_session_that_ends_is_not_renewed() {
    // The answer takes as long as two renewals are apart.
    let client = Limited::new("closed-slowly", 1, Duration::from_millis(400)).connect().await;
    client.close(PATIENCE).await.expect("nothing is held");
    assert_eq!(client.stats().losses, 0);
    assert_eq!(client.session().state, SessionState::Lost(LossReason::Closed));
}

/// Whoever hears of it from the store may be granted what this session held.
#[tokio::test]
async fn a_session_is_over_here_before_it_is_in_the_store() {
    let store = Limited::new("closed-here-first", 1, PATIENCE);
    let client = store.connect().await;
    let session = client.core().current_session();
    let dead = async {
        let read = async || store.sessions(SessionQuery::Ids(vec![session.id()])).await.expect("memory").remove(0);
        while read().await.vitality == Vitality::Live {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        closed = client.close(PATIENCE) => panic!("the answer comes late: {closed:?}"),
        () = dead => {}
    }
    assert!(session.is_over());
}

#[tokio::test]
async fn the_last_client_that_is_closed_closes_the_store() {
    let store = Limited::new("closed-by-the-last", 2, Duration::ZERO);
    let first = store.connect().await;
    let second = first.open_session().await.expect("memory");
    first.open_session().await.expect_err("it takes no third");
    first.close(PATIENCE).await.expect("nothing is held");
    assert_eq!(store.closed.load(SeqCst), 0, "the second uses it");
    second.health().await.expect("memory");
    second.close(PATIENCE).await.expect("nothing is held");
    assert_eq!(store.closed.load(SeqCst), 1, "although both are still there");
    assert_eq!(first.open_session().await.expect_err("closed").code(), Code::Closed);
    drop((first, second));
    assert_eq!(store.closed.load(SeqCst), 1);
}
