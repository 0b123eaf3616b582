//! What a session that is over still does with what its client provides: nothing.

use super::*;
use crate::client::Client;
use crate::config::Options;
use crate::env::Env;
use crate::protocol::session::KillProof;
use crate::provider::ProvideOptions;
use crate::store::memory::MemoryStore;
use crate::store::{SessionQuery, Store};

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_does_not_touch_what_its_successor_has_written() {
    let env = Env::system(tokio::runtime::Handle::current());
    let store = Arc::new(MemoryStore::open("over", env.clone()));
    let options = Options::parse("memory:?coord.ttl=1s").expect("valid");
    let client = Client::with_store(store.clone(), options, env).await.expect("memory");
    let provider = client.provide("s", "", ProvideOptions::default()).await.expect("provided");
    let session = client.core().current_session();
    let record = store.sessions(SessionQuery::Ids(vec![session.id()])).await.expect("memory").remove(0);
    let kill = SessionStep::Kill(KillProof::Observed(record.nonce));
    store.apply_session(session.id(), kill).await.expect("memory");
    let provided = async || {
        let live = store.sessions(SessionQuery::Roster).await.expect("memory");
        live.iter().map(|session| session.providers.len()).sum::<usize>()
    };
    let until = async |count: usize| {
        let there = async {
            while provided().await != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.expect("what is wanted is there, and nothing else");
    };
    tokio::time::timeout(PATIENCE, session.over()).await.expect("a renewal tells");
    until(1).await;
    // A task of the dead session that has not been ended yet.
    assert!(session.providers().next_difference(&session).is_none());
    drop(provider);
    until(0).await;
    client.close(PATIENCE).await.expect("closed");
}
