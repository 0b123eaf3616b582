//! Reconcilers whose store, clock and workers are stopped at the moment that counts.

use super::*;
use crate::client::connect;
use crate::env::Env;
use crate::testing::Control;
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

fn plain() -> WriteOptions {
    WriteOptions::default()
}

async fn over(client: &Client, mode: Mode, workers: usize) -> Reconciler {
    let source = Source::table(&client.table("t").unwrap(), ()).unwrap();
    let options = ReconcileOptions { mode, workers, ..ReconcileOptions::default() };
    bounded(client.reconcile("r", source, options)).await.unwrap()
}

/// The next request, which must be for this key.
async fn next(reconciler: &Reconciler, key: i64) -> Request {
    let request = bounded(reconciler.next()).await.unwrap();
    assert_eq!(*request.key(), Key::from(key));
    request
}

/// It leads, and has listed its keys: what changes from now on it hears once.
async fn leads(reconciler: &Reconciler) {
    let listed = |engine: &Engine| (engine.is_complete(&Key::from(0)) == Some(true)).then_some(());
    bounded(reconciler.engine.settled(listed)).await;
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

/// Nobody answers.
fn silent() -> Fate {
    Fate::Failed(Error::unavailable("nobody answers"))
}

fn forbidden() -> Fate {
    Fate::Failed(Error::new(Code::Forbidden, "you may not read"))
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_no_failure_of_a_key() {
    let env = system();
    let store = Kept::open("no-failure", &env);
    let client = store.client(&env).await;
    let reconciler = over(&client, Mode::All, 1).await;
    reconciler.add(1).unwrap();
    next(&reconciler, 1).await.complete(Outcome::ErrorAfter("once".into(), Duration::ZERO)).unwrap();
    store.set(silent());
    assert!(bounded(reconciler.try_next()).await.unwrap().is_none());
    assert_eq!(reconciler.stats().ready, 1, "it went back");
    let tries = store.begun();
    let heals = async {
        store.more_than(tries + 1).await;
        store.set(Fate::Answered);
    };
    let (request, ()) = bounded(futures::future::join(reconciler.next(), heals)).await;
    let request = request.unwrap();
    assert_eq!(request.attempt(), 2);
    request.complete(Outcome::Done).unwrap();
    let stats = reconciler.stats();
    assert_eq!((stats.runs, stats.errors, stats.dropped), (2, 1, 0));
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn a_document_that_may_not_be_read_ends_the_reconciler() {
    let env = system();
    let store = Kept::open("may-not", &env);
    let client = store.client(&env).await;
    for waits in [true, false] {
        let reconciler = over(&client, Mode::All, 1).await;
        reconciler.add(1).unwrap();
        store.set(forbidden());
        let refused = match waits {
            true => bounded(reconciler.next()).await.map(|_| ()),
            false => bounded(reconciler.try_next()).await.map(|_| ()),
        };
        assert_eq!(refused.unwrap_err().code(), Code::Forbidden);
        let waited = bounded(reconciler.wait_until_reconciled(1, Position(0), PATIENCE)).await.unwrap_err();
        assert_eq!(waited.code(), Code::Forbidden);
        assert_eq!(reconciler.add(2).unwrap_err().code(), Code::Closed);
        bounded(reconciler.close(PATIENCE)).await.unwrap();
        store.set(Fate::Answered);
    }
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn who_waits_for_a_document_gives_up_when_its_run_is_to_stop() {
    let env = system();
    for (name, fate) in [("stop-kept", Fate::Kept), ("stop-silent", silent())] {
        let store = Kept::open(name, &env);
        let client = store.client(&env).await;
        let reconciler = over(&client, Mode::All, 1).await;
        store.set(fate.clone());
        let mut fetching = Box::pin(reconciler.next());
        reconciler.add(1).unwrap();
        assert!(futures::poll!(&mut fetching).is_pending() && reconciler.stats().in_flight == 1);
        reconciler.cancel(1).unwrap();
        assert!(futures::poll!(&mut fetching).is_pending() && reconciler.stats().in_flight == 0);
        reconciler.add(2).unwrap();
        assert!(futures::poll!(&mut fetching).is_pending() && reconciler.stats().in_flight == 1);
        let (ended, closed) = bounded(futures::future::join(fetching, reconciler.close(PATIENCE))).await;
        closed.unwrap();
        assert_eq!(ended.unwrap_err().code(), Code::Closed);

        store.set(Fate::Answered);
        let reconciler = over(&client, Mode::Leader, 1).await;
        leads(&reconciler).await;
        store.set(fate);
        let mut fetching = Box::pin(reconciler.next());
        reconciler.add(1).unwrap();
        assert!(futures::poll!(&mut fetching).is_pending() && reconciler.stats().in_flight == 1);
        client.core().current_session().expire();
        assert!(futures::poll!(&mut fetching).is_pending() && reconciler.stats().in_flight == 0);
        let stats = reconciler.stats();
        assert_eq!((stats.ready, stats.runs, stats.dropped), (0, 0, 0), "the next holder runs it");
        drop(fetching);
        bounded(client.close(PATIENCE)).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_not_begun_when_its_part_went_was_no_run() {
    let env = system();
    let store = Kept::open("no-run", &env);
    let client = store.client(&env).await;
    let reconciler = over(&client, Mode::Leader, 1).await;
    leads(&reconciler).await;
    store.set(Fate::Kept);
    let mut fetching = Box::pin(reconciler.next());
    reconciler.add(1).unwrap();
    assert!(futures::poll!(&mut fetching).is_pending() && reconciler.stats().in_flight == 1);
    reconciler.engine.revoke(0);
    drop(fetching);
    let stats = reconciler.stats();
    assert_eq!((stats.in_flight, stats.ready, stats.runs, stats.dropped), (0, 0, 0, 0));
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn what_was_parked_or_cancelled_is_not_done_because_it_is_planned() {
    let env = system();
    let client = Kept::open("planned", &env).client(&env).await;
    let reconciler = bounded(client.reconcile("r", Source::Manual, ReconcileOptions::default())).await.unwrap();
    for key in [1, 2, 3] {
        reconciler.add(key).unwrap();
    }
    next(&reconciler, 1).await.complete(Outcome::Terminal("no".into())).unwrap();
    let request = next(&reconciler, 2).await;
    for key in [2, 3] {
        assert!(reconciler.cancel(key).unwrap());
    }
    for key in [1, 2, 3] {
        assert!(reconciler.add_after(key, PATIENCE * 2).unwrap());
    }
    request.complete(Outcome::Done).unwrap();
    for key in [1, 2, 3] {
        let mut waiting = Box::pin(reconciler.wait_until_reconciled(key, Position(0), PATIENCE));
        assert!(futures::poll!(&mut waiting).is_pending(), "nobody has run {key}");
        reconciler.add(key).unwrap();
        next(&reconciler, key).await.complete(Outcome::Done).unwrap();
        bounded(waiting).await.unwrap();
    }
    bounded(client.close(PATIENCE)).await.unwrap();
}

/// The reconciler's feed has told of everything up to this place.
async fn told(reconciler: &Reconciler, position: Position) {
    let engine = &reconciler.engine;
    bounded(engine.settled(|engine| (engine.progress().get().position >= position).then_some(()))).await;
}

#[tokio::test]
async fn what_the_holder_before_did_not_get_to_is_not_reconciled_before_it_is_listed() {
    let env = system();
    let store = Kept::open("listed", &env);
    let (one, two) = (store.client(&env).await, store.client(&env).await);
    let first = over(&one, Mode::Leader, 1).await;
    leads(&first).await;
    let second = over(&two, Mode::Leader, 1).await;
    let table = one.table("t").unwrap();
    table.insert(0, doc! {}, plain()).await.unwrap();
    let request = next(&first, 0).await;
    let changed = table.insert(1, doc! {}, plain()).await.unwrap().position;
    told(&second, changed).await;
    let refused = bounded(second.wait_until_reconciled(1, changed, PATIENCE)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotHeld);

    store.set(Fate::Kept);
    let listings = store.begun();
    request.complete(Outcome::Done).unwrap();
    bounded(first.close(PATIENCE)).await.unwrap();
    bounded(store.more_than(listings)).await;
    assert_eq!(second.stats().shards, [0]);
    let mut waiting = Box::pin(second.wait_until_reconciled(1, changed, PATIENCE));
    assert!(futures::poll!(&mut waiting).is_pending(), "nobody has run it");
    store.set(Fate::Answered);
    for _ in [0, 1] {
        bounded(second.next()).await.unwrap().complete(Outcome::Done).unwrap();
    }
    bounded(waiting).await.unwrap();
    for client in [one, two] {
        bounded(client.close(PATIENCE)).await.unwrap();
    }
}

#[tokio::test]
async fn what_changes_after_a_drain_began_is_not_said_to_be_run() {
    let env = system();
    let client = Kept::open("drains", &env).client(&env).await;
    let reconciler = over(&client, Mode::All, 1).await;
    let table = client.table("t").unwrap();
    let before = table.insert(1, doc! {}, plain()).await.unwrap().position;
    told(&reconciler, before).await;
    let mut draining = Box::pin(reconciler.drain(PATIENCE));
    assert!(futures::poll!(&mut draining).is_pending(), "one key is left");
    let after = table.insert(2, doc! {}, plain()).await.unwrap().position;
    told(&reconciler, after).await;
    let refused = bounded(reconciler.wait_until_reconciled(2, after, PATIENCE)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Closed);
    next(&reconciler, 1).await.complete(Outcome::Done).unwrap();
    bounded(reconciler.wait_until_reconciled(1, before, PATIENCE)).await.unwrap();
    bounded(draining).await.unwrap();
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn a_run_whose_right_was_lost_reconciles_nothing() {
    let env = system();
    let client = Kept::open("lost-right", &env).client(&env).await;
    let reconciler = over(&client, Mode::Leader, 1).await;
    leads(&reconciler).await;
    let changed = client.table("t").unwrap().insert(1, doc! {}, plain()).await.unwrap().position;
    let request = next(&reconciler, 1).await;
    told(&reconciler, changed).await;
    client.core().current_session().expire();
    // No task of the reconciler's has heard of that yet.
    assert_eq!(request.complete(Outcome::Done).unwrap_err().code(), Code::Fenced);
    assert_eq!(reconciler.stats().shards, [0]);
    let mut waiting = Box::pin(reconciler.wait_until_reconciled(1, changed, PATIENCE));
    assert!(futures::poll!(&mut waiting).is_pending(), "its result did not count");
    drop(waiting);
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn a_deletion_that_fails_for_long_is_run_by_the_next_holder() {
    let url = "memory:fails-for-long?coord.clock=manual";
    let (one, two) = (connect(url).await.unwrap(), connect(url).await.unwrap());
    let first = over(&one, Mode::Leader, 1).await;
    leads(&first).await;
    let second = over(&two, Mode::Leader, 1).await;
    let table = one.table("t").unwrap();
    for key in [1, 2, 3] {
        table.insert(key, doc! {}, plain()).await.unwrap();
        next(&first, key).await.complete(Outcome::Done).unwrap();
    }
    table.delete(1, plain()).await.unwrap();
    let down = Outcome::ErrorAfter("their service is down".into(), Duration::from_secs(100_000));
    next(&first, 1).await.complete(down).unwrap();
    let ttl = one.session().timing.ttl;
    bounded(Control::of(&one).unwrap().advance(ttl * 11)).await.unwrap();
    let last = table.delete(2, plain()).await.unwrap().position;
    next(&first, 2).await.complete(Outcome::Done).unwrap();
    told(&second, last).await;
    bounded(first.close(PATIENCE)).await.unwrap();
    // Every deletion, the last one first, since nobody has told whether it was run; and what is there.
    for key in [2, 1, 3] {
        let request = next(&second, key).await;
        assert_eq!(request.document().is_some(), key == 3);
        request.complete(Outcome::Done).unwrap();
    }
    for client in [one, two] {
        bounded(client.close(PATIENCE)).await.unwrap();
    }
}

#[tokio::test]
async fn who_has_run_a_deletion_does_not_run_it_again() {
    let client = connect("memory:run-deletion").await.unwrap();
    let reconciler = over(&client, Mode::Leader, 1).await;
    leads(&reconciler).await;
    let table = client.table("t").unwrap();
    for key in [1, 2, 3] {
        table.insert(key, doc! {}, plain()).await.unwrap();
        next(&reconciler, key).await.complete(Outcome::Done).unwrap();
    }
    for (key, outcome) in [(1, Outcome::Done), (2, Outcome::Terminal("no".into()))] {
        table.delete(key, plain()).await.unwrap();
        next(&reconciler, key).await.complete(outcome).unwrap();
    }
    let control = Control::of(&client).unwrap();
    bounded(control.expire_session(&client.session().id.to_string())).await.unwrap();
    // It leads again.
    for key in [2, 3] {
        next(&reconciler, key).await.complete(Outcome::Done).unwrap();
    }
    bounded(reconciler.wait_until_reconciled(1, Position(0), PATIENCE)).await.unwrap();
    assert_eq!(reconciler.stats().runs, 7);
    bounded(client.close(PATIENCE)).await.unwrap();
}

fn locks() -> Source {
    Source::ReleasedLocks { prefix: String::new() }
}

#[tokio::test]
async fn a_listing_that_never_ends_keeps_no_reconciler_from_its_end() {
    let env = system();
    let store = Kept::open("never-ends", &env);
    let client = store.client(&env).await;
    for fate in [Fate::Kept, silent()] {
        store.set(fate);
        let listings = store.begun();
        let origin = Origin::ReleasedLocks { prefix: client.name_prefix("").unwrap() };
        let options = ReconcileOptions::default();
        let engine = Arc::new(Engine::new(client.core().clone(), "r".into(), options, origin));
        engine.spawn(source::feed(engine.clone()));
        bounded(store.more_than(listings)).await;
        engine.stop();
        bounded(engine.settled(|engine| (engine.tasks() == 0).then_some(()))).await;
        assert!(engine.progress().get().failure.is_none(), "it was closed");
    }
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn an_error_of_a_listing_that_waiting_does_not_cure_is_told() {
    let env = system();
    let store = Kept::open("not-cured", &env);
    let client = store.client(&env).await;
    let listings = store.begun();
    store.set(silent());
    let heals = async {
        store.more_than(listings).await;
        store.set(Fate::Answered);
    };
    let started = futures::future::join(client.reconcile("r", locks(), ReconcileOptions::default()), heals);
    bounded(started).await.0.unwrap();

    store.set(forbidden());
    let refused = bounded(client.reconcile("r", locks(), ReconcileOptions::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Forbidden);
    // The same of a part that was granted.
    let reconciler = over(&client, Mode::Leader, 1).await;
    assert_eq!(bounded(reconciler.next()).await.unwrap_err().code(), Code::Forbidden);
    let waited = bounded(reconciler.wait_until_reconciled(1, Position(0), PATIENCE)).await.unwrap_err();
    assert_eq!(waited.code(), Code::Forbidden);
    bounded(reconciler.close(PATIENCE)).await.unwrap();
    bounded(client.close(PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn shards_that_are_granted_while_another_is_listed_are_listed_together() {
    let env = system();
    let store = Kept::open("together", &env);
    let client = store.client(&env).await;
    let table = client.table("t").unwrap();
    let keys = 0..100i64;
    for key in keys.clone() {
        table.insert(key, doc! {}, plain()).await.unwrap();
    }
    let listings = store.begun();
    store.set(Fate::Kept);
    let reconciler = over(&client, Mode::SHARDED, 1).await;
    bounded(async {
        while reconciler.stats().shards.len() < 64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    store.set(Fate::Answered);
    for key in keys {
        let key = Key::from(key);
        let listed = |engine: &Engine| (engine.is_complete(&key) == Some(true)).then_some(());
        bounded(reconciler.engine.settled(listed)).await;
    }
    let listings = store.begun() - listings;
    assert!(listings <= 2, "{listings} for the first shard, and all that came while it was listed");
    assert_eq!(reconciler.stats().ready, 100);
    bounded(client.close(PATIENCE)).await.unwrap();
}
