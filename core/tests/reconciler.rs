//! Reconcilers through the public interface: what is run, how often, and by whom. In memory, on SQLite, or on what
//! `COORD_TEST_STORE` says.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::doc;
use coord_core::bson;
use coord_core::client::{Client, connect};
use coord_core::error::Code;
use coord_core::reconciler::{Backoff, Mode, Outcome, Rate, ReconcileOptions, Reconciler, Request, Source, Work};
use coord_core::table::{Key, Position, Table, WriteOptions};
use coord_core::testing::Control;

const BOUND: Duration = Duration::from_secs(30);

/// The stores that are tried without being asked for, each with a URL that no other test has.
fn stores(name: &str) -> Vec<String> {
    let name = format!("reconciler-{name}-{}", std::process::id());
    match std::env::var("COORD_TEST_STORE").as_deref() {
        Ok("mongodb") => {
            let uri = std::env::var("COORD_TEST_MONGODB_URI").expect("the URI of a replica set");
            let separator = if uri.contains('?') { '&' } else { '?' };
            vec![format!("{uri}{separator}coord.prefix={}_", name.replace('-', "_"))]
        }
        asked => {
            let file = format!("{}/{name}.db", std::env::temp_dir().display());
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{file}{suffix}"));
            }
            let mut stores = vec![format!("memory:{name}")];
            if cfg!(feature = "sqlite") && asked != Ok("memory") {
                stores.push(format!("sqlite:///{file}"));
            }
            stores
        }
    }
}

#[track_caller]
fn bounded<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        tokio::time::timeout(BOUND, future).await.unwrap_or_else(|_| panic!("an event within the bound, at {place}"))
    }
}

fn plain() -> WriteOptions {
    WriteOptions::default()
}

async fn close(client: Client) {
    client.close(BOUND).await.unwrap();
}

async fn over(table: &Table, options: ReconcileOptions) -> Reconciler {
    let source = Source::table(table, ()).unwrap();
    bounded(table.client().reconcile("r", source, options)).await.unwrap()
}

/// The next request, which must be for this key.
async fn next(reconciler: &Reconciler, key: i64) -> Request {
    let request = bounded(reconciler.next()).await.unwrap();
    assert_eq!(*request.key(), Key::from(key));
    request
}

/// Nothing is to be run, now or later.
fn assert_idle(reconciler: &Reconciler) {
    let stats = reconciler.stats();
    assert_eq!((stats.ready, stats.delayed, stats.in_flight), (0, 0, 0), "{stats:?}");
}

fn quick() -> Backoff {
    Backoff { min: Duration::from_millis(1), max: Duration::from_millis(20) }
}

#[tokio::test]
async fn one_run_for_a_key_one_more_for_requeue_after_and_one_more_after_an_error() {
    for url in stores("older") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        table.insert(1, doc! { "n": 5 }, plain()).await.unwrap();
        let reconciler = over(&table, ReconcileOptions::default()).await;

        let request = next(&reconciler, 1).await;
        assert_eq!((request.attempt(), request.token()), (1, None));
        assert_eq!(request.fence().unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(request.document().unwrap().get_i32("n").unwrap(), 5);
        assert!(request.revision().is_some());
        request.complete(Outcome::RequeueAfter(Duration::from_millis(20))).unwrap();
        assert!(bounded(reconciler.try_next()).await.unwrap().is_none(), "not before its time");

        let request = next(&reconciler, 1).await;
        assert_eq!(request.attempt(), 1);
        request.complete(Outcome::Error("once".into())).unwrap();
        let request = next(&reconciler, 1).await;
        assert_eq!(request.attempt(), 2);
        request.complete(Outcome::Done).unwrap();

        assert_idle(&reconciler);
        let stats = reconciler.stats();
        assert_eq!((stats.runs, stats.errors, stats.retries, stats.requeued), (3, 1, 1, 1));
        close(client).await;
    }
}

#[tokio::test]
async fn every_change_is_run_and_deletions_too() {
    for url in stores("changes") {
        let (client, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
        let table = client.table("t").unwrap();
        let source = Source::table(&table, doc! { "on": true }).unwrap();
        let reconciler = bounded(client.reconcile("r", source, ReconcileOptions::default())).await.unwrap();
        let theirs = other.table("t").unwrap();
        theirs.insert(1, doc! { "on": true }, plain()).await.unwrap();
        let request = next(&reconciler, 1).await;
        assert!(request.document().is_some());

        // While it runs: exactly one more, whatever happens.
        for n in 0..5 {
            theirs.update(1, doc! { "$set": { "n": n } }, plain()).await.unwrap();
        }
        let last = theirs.update(1, doc! { "$set": { "n": 9 } }, plain()).await.unwrap();
        let late = reconciler.wait_until_reconciled(1, last.position, Duration::from_millis(50)).await;
        assert_eq!(late.unwrap_err().code(), Code::Timeout);
        // Whichever of the changes the feed has brought by now: after the second run none is open.
        request.complete(Outcome::Done).unwrap();
        let waiting = tokio::spawn({
            let reconciler = reconciler.clone();
            async move { reconciler.wait_until_reconciled(1, last.position, BOUND).await }
        });
        let running = tokio::spawn({
            let reconciler = reconciler.clone();
            async move {
                let seen = Arc::new(Mutex::new(Vec::new()));
                let shown = seen.clone();
                let run = reconciler.run(move |work| {
                    let document = work.document().cloned();
                    shown.lock().unwrap().push((work.key().clone(), document));
                    async { Outcome::Done }
                });
                run.await.unwrap();
                seen
            }
        });
        bounded(waiting).await.unwrap().unwrap();

        // It matches no more, and a document of the same key that does comes back; then it is deleted.
        let unmatched = theirs.update(1, doc! { "$set": { "on": false } }, plain()).await.unwrap();
        bounded(reconciler.wait_until_reconciled(1, unmatched.position, BOUND)).await.unwrap();
        theirs.insert(2, doc! { "on": true }, plain()).await.unwrap();
        let deleted = theirs.delete(2, plain()).await.unwrap();
        bounded(reconciler.wait_until_reconciled(2, deleted.position, BOUND)).await.unwrap();
        reconciler.drain(BOUND).await.unwrap();
        let seen = bounded(running).await.unwrap();
        let seen = seen.lock().unwrap().clone();
        let of =
            |key: i64| seen.iter().filter(|(k, _)| *k == Key::from(key)).map(|(_, d)| d.clone()).collect::<Vec<_>>();
        assert!(of(1).iter().flatten().any(|document| document.get_i32("n").unwrap() == 9));
        assert_eq!((of(1).last().unwrap(), of(2).last().unwrap()), (&None, &None));
        close(client).await;
        close(other).await;
    }
}

#[tokio::test]
async fn a_panic_is_an_error_and_no_more_run_at_once_than_may() {
    let client = connect("memory:").await.unwrap();
    let options = ReconcileOptions { workers: 3, backoff: quick(), ..ReconcileOptions::default() };
    let reconciler = client.reconcile("r", Source::Manual, options).await.unwrap();
    for key in 0..50 {
        reconciler.add(key).unwrap();
    }
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls = Arc::new(Mutex::new(BTreeMap::<Key, Vec<u32>>::new()));
    let run = reconciler.run(|work| {
        let (running, most, calls) = (running.clone(), most.clone(), calls.clone());
        async move {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            calls.lock().unwrap().entry(work.key().clone()).or_default().push(work.attempt());
            tokio::task::yield_now().await;
            running.fetch_sub(1, SeqCst);
            assert!(*work.key() != Key::from(7) || work.attempt() > 2, "planted");
            Ok::<(), String>(())
        }
    });
    let watch = async {
        for key in 0..50i64 {
            reconciler.wait_until_reconciled(key, Default::default(), BOUND).await.unwrap();
        }
        reconciler.drain(BOUND).await.unwrap();
    };
    let (ran, ()) = bounded(futures::future::join(run, watch)).await;
    ran.unwrap();
    assert_eq!(most.load(SeqCst), 3);
    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 50);
    for (key, attempts) in &calls {
        let expected: &[u32] = if *key == Key::from(7) { &[1, 2, 3] } else { &[1] };
        assert_eq!(attempts, expected, "{key}");
    }
    assert_eq!(reconciler.stats().errors, 2);
    assert_eq!(reconciler.next().await.unwrap_err().code(), Code::Closed);
    close(client).await;
}

#[tokio::test]
async fn terminal_errors_are_parked_until_the_key_changes() {
    for url in stores("parked") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        let written = table.insert(1, doc! {}, plain()).await.unwrap();
        let options = ReconcileOptions { resync: Some(Duration::from_secs(1)), ..ReconcileOptions::default() };
        let reconciler = over(&table, options).await;
        next(&reconciler, 1).await.complete(Outcome::Terminal("no such thing".into())).unwrap();
        let parked = reconciler.parked();
        assert_eq!((parked.len(), parked[0].reason.as_str()), (1, "no such thing"));
        let error = bounded(reconciler.wait_until_reconciled(1, written.position, BOUND)).await.unwrap_err();
        assert_eq!(error.code(), Code::Conflict);
        assert!(error.message().contains("no such thing"));
        // The resync brings other keys, but not this one: the next request after one of another key is that key again.
        reconciler.add(99).unwrap();
        next(&reconciler, 99).await.complete(Outcome::Done).unwrap();
        assert_eq!(reconciler.parked().len(), 1);
        let changed = table.update(1, doc! { "$set": { "n": 1 } }, plain()).await.unwrap();
        next(&reconciler, 1).await.complete(Outcome::Done).unwrap();
        bounded(reconciler.wait_until_reconciled(1, changed.position, BOUND)).await.unwrap();
        assert!(reconciler.parked().is_empty());
        // Now the resync brings it.
        next(&reconciler, 1).await.complete(Outcome::Done).unwrap();
        close(client).await;
    }
}

#[tokio::test]
async fn what_is_dropped_comes_again() {
    for url in stores("dropped") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        table.insert(1, doc! {}, plain()).await.unwrap();
        let reconciler = over(&table, ReconcileOptions { backoff: quick(), ..ReconcileOptions::default() }).await;
        drop(next(&reconciler, 1).await);
        let request = next(&reconciler, 1).await;
        assert_eq!(request.attempt(), 2);
        request.complete(Outcome::Done).unwrap();
        // Futures that are given up lose nothing, wherever they were.
        for n in 0..100 {
            reconciler.add(1).unwrap();
            let mut taking = Box::pin(reconciler.next());
            for _ in 0..n % 5 {
                if let std::task::Poll::Ready(request) = futures::poll!(&mut taking) {
                    drop(request.unwrap());
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(taking);
        }
        reconciler.add(1).unwrap();
        next(&reconciler, 1).await.complete(Outcome::Done).unwrap();
        bounded(reconciler.wait_until_reconciled(1, Default::default(), BOUND)).await.unwrap();
        close(client).await;
    }
}

#[tokio::test]
async fn a_failing_function_is_called_as_often_as_the_back_off_says() {
    let client = connect("memory:?coord.clock=manual").await.unwrap();
    let control = Control::of(&client).unwrap();
    let reconciler = client.reconcile("r", Source::Manual, ReconcileOptions::default()).await.unwrap();
    reconciler.add("k").unwrap();
    let mut calls = 0;
    for _ in 0..=10_000 {
        while let Some(request) = reconciler.try_next().await.unwrap() {
            calls += 1;
            assert_eq!(request.attempt(), calls);
            request.complete(Outcome::Error("always".into())).unwrap();
        }
        control.jump(Duration::from_millis(1)).unwrap();
    }
    // 5·(2ⁿ-1) ms lie before the n-th retry, and up to a quarter more.
    assert!((10..=11).contains(&calls), "{calls} calls in 10 s");
    // A policy of its own, and a success in between.
    control.jump(Duration::from_secs(2000)).unwrap();
    let request = reconciler.try_next().await.unwrap().unwrap();
    request.complete(Outcome::ErrorAfter("later".into(), Duration::from_secs(50))).unwrap();
    control.jump(Duration::from_secs(49)).unwrap();
    assert!(reconciler.try_next().await.unwrap().is_none());
    control.jump(Duration::from_secs(1)).unwrap();
    reconciler.try_next().await.unwrap().unwrap().complete(Outcome::Done).unwrap();
    reconciler.add("k").unwrap();
    assert_eq!(reconciler.try_next().await.unwrap().unwrap().attempt(), 1);
    close(client).await;
}

#[tokio::test]
async fn the_rate_holds_for_all_keys_together() {
    let client = connect("memory:?coord.clock=manual").await.unwrap();
    let control = Control::of(&client).unwrap();
    let rate = Some(Rate { per_second: 10.0, burst: 5 });
    let options = ReconcileOptions { workers: 100, rate, ..ReconcileOptions::default() };
    let reconciler = client.reconcile("r", Source::Manual, options).await.unwrap();
    for key in 0..100 {
        reconciler.add(key).unwrap();
    }
    let mut calls = 0;
    for _ in 0..=2000 {
        while let Some(request) = reconciler.try_next().await.unwrap() {
            calls += 1;
            request.complete(Outcome::Done).unwrap();
        }
        control.jump(Duration::from_millis(1)).unwrap();
    }
    assert_eq!(calls, 5 + 20);
    close(client).await;
}

#[tokio::test]
async fn keys_are_added_planned_cancelled_paused_and_drained() {
    let client = connect("memory:").await.unwrap();
    let options = ReconcileOptions { workers: 2, ..ReconcileOptions::default() };
    let reconciler = client.reconcile("r", Source::Manual, options).await.unwrap();
    assert!(reconciler.add(1).unwrap() && !reconciler.add(1).unwrap());
    assert!(reconciler.cancel(1).unwrap() && !reconciler.cancel(1).unwrap());
    reconciler.add(2).unwrap();
    let request = next(&reconciler, 2).await;
    request.check().unwrap();
    let work = request.work().clone();
    let told = tokio::spawn(async move { work.cancelled().await });
    assert!(reconciler.cancel(2).unwrap() && request.is_cancelled());
    bounded(told).await.unwrap();
    assert_eq!(request.check().unwrap_err().code(), Code::Cancelled);
    request.complete(Outcome::Error("no matter".into())).unwrap();
    assert_idle(&reconciler);
    // What was cancelled is not taken for done.
    for key in [1, 2] {
        let waited = reconciler.wait_until_reconciled(key, Position(0), Duration::from_secs(30)).await.unwrap_err();
        assert!(waited.code() == Code::Conflict && waited.message().contains("cancelled"), "{waited}");
    }
    reconciler.add(2).unwrap();
    next(&reconciler, 2).await.complete(Outcome::Done).unwrap();
    bounded(reconciler.wait_until_reconciled(2, Position(0), Duration::from_secs(30))).await.unwrap();

    reconciler.pause();
    reconciler.add(3).unwrap();
    assert!(reconciler.try_next().await.unwrap().is_none() && reconciler.stats().paused);
    let waiting = tokio::spawn({
        let reconciler = reconciler.clone();
        async move { reconciler.next().await.unwrap() }
    });
    reconciler.resume();
    let request = bounded(waiting).await.unwrap();

    // A key that is due while others wait for nothing in particular.
    let waiting = tokio::spawn({
        let reconciler = reconciler.clone();
        async move { reconciler.next().await.unwrap() }
    });
    reconciler.add_after(4, Duration::from_millis(20)).unwrap();
    let fourth = bounded(waiting).await.unwrap();
    assert_eq!(*fourth.key(), Key::from(4));
    reconciler.add_after(5, BOUND).unwrap();
    let mut draining = Box::pin(reconciler.drain(BOUND));
    assert!(futures::poll!(&mut draining).is_pending());
    // A key that would not be run any more is refused.
    assert_eq!(reconciler.add(3).unwrap_err().code(), Code::Closed);
    request.complete(Outcome::Done).unwrap();
    fourth.complete(Outcome::Error("not waited for".into())).unwrap();
    bounded(draining).await.unwrap();
    assert_eq!(bounded(reconciler.next()).await.unwrap_err().code(), Code::Closed);
    assert_eq!(reconciler.stats().delayed, 2);
    reconciler.close(BOUND).await.unwrap();
    assert_eq!(reconciler.add(6).unwrap_err().code(), Code::Closed);
    close(client).await;
}

#[tokio::test]
async fn closing_asks_what_runs_to_stop_and_waits_for_it() {
    let client = connect("memory:").await.unwrap();
    let reconciler = client.reconcile("r", Source::Manual, ReconcileOptions::default()).await.unwrap();
    reconciler.add(1).unwrap();
    let request = next(&reconciler, 1).await;
    let work = request.work().clone();
    let late = reconciler.close(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(late.code(), Code::Timeout);
    bounded(work.cancelled()).await;
    request.complete(Outcome::Done).unwrap();
    reconciler.close(BOUND).await.unwrap();

    // The last handle closes it, too; so does its client.
    let reconciler = client.reconcile("r", Source::Manual, ReconcileOptions::default()).await.unwrap();
    reconciler.add(1).unwrap();
    let request = next(&reconciler, 1).await;
    drop(reconciler);
    assert!(request.is_cancelled());
    let reconciler = client.reconcile("r", Source::Manual, ReconcileOptions::default()).await.unwrap();
    let waiting = tokio::spawn(async move { reconciler.next().await.map(|_| ()) });
    close(client).await;
    assert_eq!(bounded(waiting).await.unwrap().unwrap_err().code(), Code::Closed);

    // Also while nobody waits for a key.
    let client = connect("memory:").await.unwrap();
    let reconciler = client.reconcile("r", Source::Manual, ReconcileOptions::default()).await.unwrap();
    reconciler.add(1).unwrap();
    let request = next(&reconciler, 1).await;
    close(client).await;
    bounded(request.work().cancelled()).await;
    assert_eq!(reconciler.add(1).unwrap_err().code(), Code::Closed);
}

#[tokio::test]
async fn only_the_leader_runs_keys_and_hands_over() {
    for url in stores("leader") {
        let (one, two) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
        let options = ReconcileOptions { mode: Mode::Leader, ..ReconcileOptions::default() };
        let table = one.table("t").unwrap();
        table.insert(1, doc! {}, plain()).await.unwrap();
        let first = over(&table, options.clone()).await;
        let request = next(&first, 1).await;
        let token = request.token().unwrap();
        request.check().unwrap();
        assert!(one.election("reconcile:r").unwrap().leader().await.unwrap().unwrap().is_self);

        let second = over(&two.table("t").unwrap(), options).await;
        assert_eq!(second.add(1).unwrap_err().code(), Code::NotHeld);
        assert!(second.try_next().await.unwrap().is_none());
        // The hand-over waits for what runs.
        let closing = tokio::spawn({
            let first = first.clone();
            async move { first.close(BOUND).await }
        });
        bounded(request.work().cancelled()).await;
        assert!(second.try_next().await.unwrap().is_none());
        table.put(1, doc! {}, WriteOptions { fence: request.fence().ok(), strict: true }).await.unwrap();
        let stale = request.fence().ok();
        request.complete(Outcome::Done).unwrap();
        bounded(closing).await.unwrap().unwrap();
        let request = next(&second, 1).await;
        assert!(request.token().unwrap() > token);
        let fence = WriteOptions { fence: request.fence().ok(), strict: false };
        table.put(1, doc! { "by": "second" }, fence).await.unwrap();
        let refused = table.put(1, doc! {}, WriteOptions { fence: stale, strict: false }).await;
        assert_eq!(refused.unwrap_err().code(), Code::Fenced);
        request.complete(Outcome::Done).unwrap();
        close(one).await;
        close(two).await;
    }
}

#[tokio::test]
async fn a_result_does_not_count_after_the_leadership_was_lost() {
    let client = connect("memory:").await.unwrap();
    let table = client.table("t").unwrap();
    table.insert(1, doc! {}, plain()).await.unwrap();
    let options = ReconcileOptions { mode: Mode::Leader, ..ReconcileOptions::default() };
    let reconciler = over(&table, options).await;
    let request = next(&reconciler, 1).await;
    let control = Control::of(&client).unwrap();
    control.expire_session(&client.session().id.to_string()).await.unwrap();
    bounded(request.work().cancelled()).await;
    assert_eq!(request.check().unwrap_err().code(), Code::Fenced);
    assert_eq!(request.complete(Outcome::Done).unwrap_err().code(), Code::Fenced);
    // It leads again under its next session, and runs the key again.
    let again = next(&reconciler, 1).await;
    assert_eq!(again.attempt(), 1);
    again.complete(Outcome::Done).unwrap();
    assert_eq!(reconciler.stats().fenced, 1);
    close(client).await;
}

#[tokio::test]
async fn bad_options_are_refused() {
    let client = connect("memory:").await.unwrap();
    let with = |change: fn(&mut ReconcileOptions)| {
        let mut options = ReconcileOptions::default();
        change(&mut options);
        client.reconcile("r", Source::Manual, options)
    };
    let zero = Duration::ZERO;
    let refused = [
        with(|o| o.workers = 0).await,
        with(|o| o.backoff.min = Duration::ZERO).await,
        with(|o| o.backoff = Backoff { min: Duration::from_secs(2), max: Duration::from_secs(1) }).await,
        with(|o| o.rate = Some(Rate { per_second: f64::NAN, burst: 1 })).await,
        with(|o| o.rate = Some(Rate { per_second: 1.0, burst: 0 })).await,
        with(|o| o.resync = Some(Duration::ZERO)).await,
        with(|o| o.mode = Mode::Leader).await,
        with(|o| o.mode = Mode::Sharded { shards: 0 }).await,
        client.reconcile("bad name", Source::Manual, ReconcileOptions::default()).await,
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().code(), Code::InvalidArgument);
    }
    let reconciler = client.reconcile("r", Source::Manual, ReconcileOptions::default()).await.unwrap();
    assert_eq!(reconciler.add(bson::Bson::Double(0.5)).unwrap_err().code(), Code::InvalidArgument);
    reconciler.close(zero).await.unwrap_or_default();
    close(client).await;
}

#[tokio::test]
async fn locks_that_become_free_are_keys() {
    for url in stores("released") {
        let (client, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
        let namespace = client.lock("x").unwrap().name().to_string().rsplit_once('/').unwrap().0.to_owned();
        let early = other.lock("early").unwrap().acquire().await.unwrap();
        early.release().await.unwrap();
        let held = other.lock("held").unwrap().acquire().await.unwrap();
        let _ignored = other.lock("elsewhere/ignored").unwrap().acquire().await.unwrap();
        let locks = |prefix: &str| Source::ReleasedLocks { prefix: prefix.to_owned() };
        for bad in ["a b", "*", "-", "a//", "a/b/c/"] {
            let refused = bounded(client.reconcile("r", locks(bad), ReconcileOptions::default())).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{bad}: {refused}");
        }
        let short = bounded(client.reconcile("r", locks("ea"), ReconcileOptions::default())).await.unwrap();
        assert_eq!(*bounded(short.next()).await.unwrap().key(), Key::new(format!("{namespace}/early")).unwrap());
        let source = locks(&format!("{namespace}/"));
        let reconciler = bounded(client.reconcile("r", source, ReconcileOptions::default())).await.unwrap();
        let next = async |name: &str| {
            let request = bounded(reconciler.next()).await.unwrap();
            assert_eq!(*request.key(), Key::new(format!("{namespace}/{name}")).unwrap());
            assert!(request.document().is_none());
            request.complete(Outcome::Done).unwrap();
        };
        next("early").await;
        // Handed over, it is not free.
        let waiter = tokio::spawn({
            let lock = client.lock("held").unwrap();
            async move { lock.acquire().await }
        });
        bounded(async {
            while client.stats().waiting == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        held.release().await.unwrap();
        let held = bounded(waiter).await.unwrap().unwrap();
        other.lock("mark").unwrap().acquire().await.unwrap().release().await.unwrap();
        next("mark").await;
        held.release().await.unwrap();
        next("held").await;
        assert_idle(&reconciler);
        close(client).await;
        close(other).await;
    }
}

#[tokio::test]
async fn services_that_come_and_go_are_keys() {
    for url in stores("services") {
        let (client, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
        let there = other.provide("svc/there", "v1", Default::default()).await.unwrap();
        let source = Source::Observer("svc/*".into());
        let reconciler = bounded(client.reconcile("r", source, ReconcileOptions::default())).await.unwrap();
        // One run of this service, which sees so many providers.
        let run = async |service: &str, count: usize| {
            let request = bounded(reconciler.next()).await.unwrap();
            let providers = request.document().map_or(0, |document| document.get_array("providers").unwrap().len());
            assert_eq!((request.key(), providers), (&Key::new(service).unwrap(), count));
            request.complete(Outcome::Done).unwrap();
        };
        run(there.service(), 1).await;
        // A change is one run, however soon that begins and ends.
        for _ in 0..50 {
            let again = other.provide("svc/again", "", Default::default()).await.unwrap();
            run(again.service(), 1).await;
            again.close().await.unwrap();
            run(again.service(), 0).await;
        }
        let late = other.provide("svc/late", "", Default::default()).await.unwrap();
        run(late.service(), 1).await;
        there.close().await.unwrap();
        run(there.service(), 0).await;
        close(other).await;
        run(late.service(), 0).await;
        close(client).await;
    }
}

/// What all replicas of a test have seen, and whether two ever ran one key at once by their own tokens.
#[derive(Default)]
struct Witness {
    running: Mutex<BTreeMap<Key, Vec<Arc<Work>>>>,
    /// The highest version of each key that was run to an end that counted.
    seen: Mutex<BTreeMap<Key, i64>>,
    tokens: Mutex<BTreeMap<Key, i64>>,
}

impl Witness {
    async fn run(&self, work: &Arc<Work>) {
        {
            let mut running = self.running.lock().unwrap();
            let others = running.entry(work.key().clone()).or_default();
            let holds = |work: &Work| work.check().err().is_none_or(|error| error.code() != Code::Fenced);
            if let Some(other) = others.iter().find(|other| holds(other) && holds(work)) {
                panic!("{} is run with the tokens {:?} and {:?}", work.key(), other.token(), work.token());
            }
            others.push(work.clone());
            let mut tokens = self.tokens.lock().unwrap();
            let highest = tokens.entry(work.key().clone()).or_default();
            // A run that was taken in time may begin late, and knows.
            let late = work.token().unwrap() < *highest;
            assert!(!late || !holds(work), "an older token begins a run after a newer one");
            *highest = work.token().unwrap().max(*highest);
        }
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    /// Completes the run and remembers it in one step: the next run of the key comes after both.
    fn complete(&self, request: Request) {
        let work = request.work().clone();
        let mut seen = self.seen.lock().unwrap();
        self.running.lock().unwrap().get_mut(work.key()).unwrap().retain(|other| !Arc::ptr_eq(other, &work));
        if request.complete(Outcome::Done).is_ok() {
            let version = work.document().map_or(i64::MAX, |document| document.get_i64("n").unwrap());
            seen.insert(work.key().clone(), version);
        }
    }
}

/// One of several replicas, on a client of its own.
struct Replica {
    client: Client,
    reconciler: Reconciler,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    async fn start(url: &str, witness: &Arc<Witness>) -> Self {
        let client = connect(url).await.unwrap();
        let source = Source::table(&client.table("t").unwrap(), ()).unwrap();
        let options = ReconcileOptions {
            mode: Mode::Sharded { shards: 12 },
            workers: 4,
            backoff: quick(),
            ..ReconcileOptions::default()
        };
        let reconciler = bounded(client.reconcile("r", source, options)).await.unwrap();
        let worker = |reconciler: Reconciler, witness: Arc<Witness>| async move {
            while let Ok(request) = reconciler.next().await {
                witness.run(request.work()).await;
                witness.complete(request);
            }
        };
        let workers: Vec<_> = (0..4).map(|_| worker(reconciler.clone(), witness.clone())).collect();
        let task = tokio::spawn(async move {
            futures::future::join_all(workers).await;
        });
        Self { client, reconciler, task }
    }

    async fn stop(self) {
        let _ = self.reconciler.close(BOUND).await;
        close(self.client).await;
        self.task.await.unwrap();
    }
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_move_between_replicas_and_no_key_is_run_by_two() {
    const SHARDS: usize = 12;
    let url = format!("memory:shards-{}", std::process::id());
    let observer = connect(&url).await.unwrap();
    let control = Control::of(&observer).unwrap();
    let table = observer.table("t").unwrap();
    let witness = Arc::new(Witness::default());
    let mut versions: BTreeMap<Key, i64> = BTreeMap::new();
    let mut replicas = Vec::new();
    for _ in 0..4 {
        replicas.push(Replica::start(&url, &witness).await);
    }
    let mut dice = Dice(1);
    for n in 1..400i64 {
        let key = i64::try_from(dice.roll(40)).unwrap();
        if dice.roll(6) > 0 {
            table.put(key, doc! { "n": n }, plain()).await.unwrap();
            versions.insert(Key::from(key), n);
        } else if table.delete(key, plain()).await.is_ok() {
            versions.insert(Key::from(key), i64::MAX);
        }
        match dice.roll(40) {
            0 => {
                // Dead by silence; it comes back under another session.
                let replica = &replicas[usize::try_from(dice.roll(4)).unwrap()];
                control.expire_session(&replica.client.session().id.to_string()).await.unwrap_or_default();
            }
            1 => {
                let place = usize::try_from(dice.roll(4)).unwrap();
                bounded(replicas.swap_remove(place).stop()).await;
                // Whoever is started now cannot hear of what is gone.
                until("every deletion is run", || {
                    let seen = witness.seen.lock().unwrap();
                    versions.iter().all(|(key, version)| *version != i64::MAX || seen.get(key) == Some(version))
                })
                .await;
                replicas.push(Replica::start(&url, &witness).await);
            }
            _ => {}
        }
        // Every key that is there is seen as it is: some of the time before the next blow.
        if n % 50 == 0 {
            until("every change is run", || *witness.seen.lock().unwrap() == versions).await;
        }
    }
    let held = |replicas: &[Replica]| replicas.iter().map(|r| r.reconciler.stats().shards.len()).sum::<usize>();
    until("everything is run", || *witness.seen.lock().unwrap() == versions && held(&replicas) == SHARDS).await;
    // With one replica left, it has them all.
    while replicas.len() > 1 {
        bounded(replicas.pop().unwrap().stop()).await;
    }
    until("one replica has all shards", || held(&replicas) == SHARDS).await;
    bounded(replicas.pop().unwrap().stop()).await;

    // The number of shards stays what it was.
    let source = Source::table(&table, ()).unwrap();
    let other = ReconcileOptions { mode: Mode::SHARDED, ..ReconcileOptions::default() };
    assert_eq!(observer.reconcile("r", source, other).await.unwrap_err().code(), Code::InvalidArgument);
    close(observer).await;
}

/// Looks until it is so: for what a reconciler's statistics say, of which nothing tells.
async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < BOUND, "{what}, within the bound");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_key_that_is_not_taken_in_is_refused_however_close_the_end_is() {
    let client = connect("memory:").await.unwrap();
    for round in 0..100 {
        let reconciler = client.reconcile("r", Source::Manual, ReconcileOptions::default()).await.unwrap();
        let (adding, begun) = (reconciler.clone(), Arc::new(AtomicUsize::new(0)));
        let added = begun.clone();
        let adder = std::thread::spawn(move || {
            for key in 0i64.. {
                added.store(1, SeqCst);
                let answer =
                    if key % 2 == 0 { adding.add(key) } else { adding.add_after(key, Duration::from_secs(60)) };
                match answer {
                    Ok(news) => assert!(news, "{key} in round {round} was neither planned nor refused"),
                    Err(error) => return error.code(),
                }
            }
            unreachable!("there are many keys")
        });
        while begun.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let drained = reconciler.drain(Duration::ZERO).await;
        assert!(drained.is_ok() || drained.unwrap_err().code() == Code::Timeout);
        assert_eq!(tokio::task::spawn_blocking(|| adder.join().unwrap()).await.unwrap(), Code::Closed);
        bounded(reconciler.close(BOUND)).await.unwrap();
    }
    close(client).await;
}

#[tokio::test]
async fn who_waits_and_is_busy_with_something_else_keeps_no_key_from_the_others() {
    let client = connect("memory:busy-waiter").await.unwrap();
    let options = ReconcileOptions { workers: 2, ..ReconcileOptions::default() };
    let reconciler = client.reconcile("r", Source::Manual, options).await.unwrap();
    let mut busy = std::pin::pin!(reconciler.next());
    assert!(futures::poll!(&mut busy).is_pending());
    // The first of these is told to the one that came first, and is not polled.
    let mut other = std::pin::pin!(reconciler.next());
    assert!(futures::poll!(&mut other).is_pending());
    reconciler.add(1).unwrap();
    reconciler.add(2).unwrap();
    bounded(&mut other).await.unwrap().complete(Outcome::Done).unwrap();
    bounded(&mut busy).await.unwrap().complete(Outcome::Done).unwrap();
    close(client).await;
}
