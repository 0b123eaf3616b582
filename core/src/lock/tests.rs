//! Grants that come late, or twice; and holds in a forked child.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::claims::{Hold, Outcome, Want, acquire};
use crate::client::Client;
use crate::config::Options;
use crate::driver::testing::in_forked_child;
use crate::election::Term;
use crate::env::Env;
use crate::error::{Code, LossReason};
use crate::lock::Held;
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

/// What a forked child makes of what its parent has: 0 if it believes in nothing, and leaves all of it alone.
fn in_the_child(session: &Session, held: &Held, term: &Term, dropped: (Held, Term)) -> i32 {
    let forked = Some(LossReason::Forked);
    let says_so = held.check().is_err_and(|error| error.code() == Code::Forked)
        && (held.loss(), held.remaining(), held.lost().now_or_never()) == (forked, Duration::ZERO, forked)
        && (term.loss(), term.remaining(), term.lost().now_or_never()) == (forked, Duration::ZERO, forked);
    drop(dropped);
    // To give them up is to begin with a lock, which a thread may have that is not here.
    let untouched = session.claims().counts().held == 4;
    i32::from(!says_so) + 2 * i32::from(!untouched)
}

#[tokio::test]
async fn a_forked_child_does_not_believe_in_a_hold_and_does_not_give_it_up() {
    let client = crate::connect("memory:").await.expect("memory");
    let both = async |name: &str| {
        let held = client.lock(name).expect("valid").acquire().await.expect("it is free");
        (held, client.election(name).expect("valid").campaign("").await.expect("nobody else campaigns"))
    };
    let ((held, term), session) = (both("asked").await, client.core().current_session());
    let mut given = Some(both("dropped").await);
    let status = in_forked_child(|| {
        let dropped = given.take().expect("a copy of the parent's");
        in_the_child(&session, &held, &term, dropped)
    });
    assert_eq!(status, 0);
    let (dropped, _) = given.expect("the parent's own");
    held.check().expect("nothing has happened");
    dropped.check().expect("nothing has happened");
}
