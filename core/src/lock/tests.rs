//! Grants that come late, or twice.

use std::sync::Arc;
use std::time::Duration;

use crate::claims::{Hold, Outcome, Want, acquire};
use crate::client::Client;
use crate::config::Options;
use crate::env::Env;
use crate::error::LossReason;
use crate::protocol::claim::{ClaimKey, Priority};
use crate::session::Session;
use crate::store::memory::MemoryStore;

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

async fn held(session: &Arc<Session>, key: &ClaimKey) -> Hold {
    let want = Want { wait: true, max_queue: 8, priority: Priority::default() };
    let outcome = tokio::time::timeout(PATIENCE, acquire(session, key, &want)).await.expect("it is free");
    let Outcome::Held(hold) = outcome.expect("memory") else { panic!("it waits") };
    hold
}

#[tokio::test]
async fn a_newer_grant_of_an_attempt_ends_its_hold_and_an_older_one_does_not() {
    let env = Env::system(tokio::runtime::Handle::current());
    let store = Arc::new(MemoryStore::open("newer-grant", env.clone()));
    let client = Client::with_store(store, Options::parse("memory:").expect("valid"), env).await.expect("memory");
    let (session, key) = (client.core().current_session(), ClaimKey::new("lock/default/default/a"));
    let hold = held(&session, &key).await;

    assert!(session.claims().on_granted(&session, &key, &hold.entry(), hold.token() - 1));
    assert_eq!(hold.loss(), None, "a late notice");
    assert!(session.claims().on_granted(&session, &key, &hold.entry(), hold.token() + 1));
    assert_eq!(hold.loss(), Some(LossReason::Broken));
    // Given up in the store, though its user still has it.
    assert!(held(&session, &key).await.token() > hold.token());
}
