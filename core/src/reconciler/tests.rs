//! Reconcilers whose store, clock and workers are stopped at the moment that counts.

use super::*;
use crate::env::Env;
use crate::time::{ManualClock, Timestamp, WallTime};
use kept::{Fate, Kept};

mod kept;

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

#[track_caller]
fn bounded<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let ended = tokio::time::timeout(PATIENCE, future).await;
        ended.unwrap_or_else(|_| panic!("an event within the bound, at {place}"))
    }
}

fn system() -> Env {
    Env::system(tokio::runtime::Handle::current())
}

async fn over(client: &Client, mode: Mode, workers: usize) -> Reconciler {
    let source = Source::table(&client.table("t").unwrap(), ()).unwrap();
    let options = ReconcileOptions { mode, workers, ..ReconcileOptions::default() };
    bounded(client.reconcile("r", source, options)).await.unwrap()
}

#[tokio::test]
async fn whoever_goes_while_it_waits_for_the_time_of_a_key_leaves_that_to_another() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(1), WallTime(0)));
    let env = Env { clock: clock.clone(), ..system() };
    let client = Kept::open("goes", &env).client(&env).await;
    let options = ReconcileOptions { workers: 3, ..ReconcileOptions::default() };
    let reconciler = bounded(client.reconcile("r", Source::Manual, options)).await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(reconciler.next())).collect();
    for next in &mut waiting {
        assert!(futures::poll!(next).is_pending());
    }
    reconciler.add_after(1, Duration::from_millis(100)).unwrap();
    for next in &mut waiting {
        assert!(futures::poll!(next).is_pending());
    }
    // One was told, and knows the time. It goes, and the next one after it.
    for left in [2, 1] {
        drop(waiting.remove(0));
        assert_eq!(waiting.len(), left);
        for next in &mut waiting {
            assert!(futures::poll!(next).is_pending());
        }
    }
    clock.advance(Duration::from_millis(100));
    let std::task::Poll::Ready(request) = futures::poll!(&mut waiting[0]) else { panic!("nobody woke it") };
    request.unwrap().complete(Outcome::Done).unwrap();
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn who_fetches_a_document_is_not_told_of_the_next_key() {
    let env = system();
    let store = Kept::open("fetches", &env);
    let client = store.client(&env).await;
    let reconciler = over(&client, Mode::All, 2).await;
    store.set(Fate::Kept);
    let mut fetching = Box::pin(reconciler.next());
    assert!(futures::poll!(&mut fetching).is_pending());
    reconciler.add(1).unwrap();
    assert!(futures::poll!(&mut fetching).is_pending());
    assert_eq!(reconciler.stats().in_flight, 1);
    let mut waiting = Box::pin(reconciler.next());
    assert!(futures::poll!(&mut waiting).is_pending());
    reconciler.add(2).unwrap();
    assert!(futures::poll!(&mut waiting).is_pending());
    assert_eq!(reconciler.stats().in_flight, 2, "the one that waits has taken it");
    store.set(Fate::Answered);
    bounded(waiting).await.unwrap().complete(Outcome::Done).unwrap();
    bounded(fetching).await.unwrap().complete(Outcome::Done).unwrap();
    client.close(PATIENCE).await.unwrap();
}
