//! Locks through the public interface, on the memory store: what they promise when nothing goes wrong, and when
//! callers change their minds.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coord_core::client::{Client, connect};
use coord_core::config::Options;
use coord_core::error::{Code, HolderState, LossReason};

const BOUND: Duration = Duration::from_secs(30);

/// The URL of a store that no other test uses. In memory, or on what `COORD_TEST_STORE` says.
fn url(name: &str) -> String {
    match std::env::var("COORD_TEST_STORE").as_deref() {
        Ok("sqlite") => format!("sqlite:///{}/{name}-{}.db?", std::env::temp_dir().display(), std::process::id()),
        Ok("mongodb") => {
            let uri = std::env::var("COORD_TEST_MONGODB_URI").expect("the URI of a replica set");
            let separator = if uri.contains('?') { '&' } else { '?' };
            format!("{uri}{separator}coord.prefix={name}{}_", std::process::id())
        }
        _ => format!("memory:{name}?"),
    }
}

/// Two clients of one store that nobody else uses.
async fn pair(name: &str) -> (Client, Client) {
    (connect(&url(name)).await.unwrap(), connect(&url(name)).await.unwrap())
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("an event within the bound")
}

#[tokio::test]
async fn one_holds_and_the_other_waits() {
    let (a, b) = pair("one-holds").await;
    let first = a.lock("x").unwrap().acquire().await.unwrap();
    first.check().unwrap();
    assert!(first.remaining() > Duration::ZERO);

    let contended = b.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert_eq!(contended.code(), Code::Contended);
    let holder = contended.holder().unwrap();
    assert_eq!((holder.token, holder.is_self, holder.state), (first.token(), false, HolderState::Live));
    let to_itself = a.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert!(to_itself.holder().unwrap().is_self, "{to_itself}");

    let waiter = tokio::spawn({
        let lock = b.lock("x").unwrap();
        async move { lock.acquire().await }
    });
    waiting(&b, 1).await;
    first.release().await.unwrap();
    let second = bounded(waiter).await.unwrap().unwrap();
    assert!(second.token() > first.token());
    assert_eq!(first.check().unwrap_err().code(), Code::NotHeld);
    assert_eq!(first.release().await.unwrap_err().code(), Code::NotHeld);
}

/// Waits until this many acquires of the client are queued.
async fn waiting(client: &Client, count: u64) {
    bounded(async {
        while client.stats().waiting != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn operations_are_counted() {
    let (a, b) = pair("counted").await;
    let steps = |client: &Client| client.stats().store.claim_steps;
    let lock = a.lock("x").unwrap();
    let before = (steps(&a), a.stats().store.reads);
    let held = lock.acquire().await.unwrap();
    assert_eq!(steps(&a) - before.0, 1, "acquire");
    held.release().await.unwrap();
    assert_eq!(steps(&a) - before.0, 2, "release");
    assert_eq!(a.stats().store.reads, before.1, "no read");

    let held = lock.acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = b.lock("x").unwrap();
        async move { lock.acquire().await }
    });
    waiting(&b, 1).await;
    let before = steps(&a) + steps(&b);
    held.release().await.unwrap();
    let _second = bounded(waiter).await.unwrap().unwrap();
    assert_eq!(steps(&a) + steps(&b) - before, 1, "a hand-over is the release that grants");
}

#[tokio::test]
async fn waiters_are_served_in_order() {
    let (a, _) = pair("fifo").await;
    let lock = a.lock("x").unwrap();
    let held = lock.acquire().await.unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (lock, order) = (lock.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            let held = lock.acquire().await.unwrap();
            order.lock().unwrap().push(n);
            held.release().await.unwrap();
        }));
        waiting(&a, n + 1).await;
    }
    held.release().await.unwrap();
    for task in tasks {
        bounded(task).await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_timeout_leaves_no_waiter() {
    let (a, b) = pair("timeout").await;
    let held = a.lock("x").unwrap().acquire().await.unwrap();
    let error = b.lock("x").unwrap().acquire_timeout(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.code(), Code::Timeout);
    assert_eq!(error.holder().map(|holder| holder.token), Some(held.token()), "{error}");
    no_waiters(&a, "x").await;
    held.release().await.unwrap();
    b.lock("x").unwrap().try_acquire().await.unwrap();
}

async fn no_waiters(client: &Client, name: &str) {
    bounded(async {
        while client.lock_info(name).await.unwrap().is_some_and(|info| !info.waiters.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_cancels_that_race_the_grant_leave_the_lock_free() {
    let (a, b) = pair("cancels").await;
    let (lock, other) = (a.lock("x").unwrap(), b.lock("x").unwrap());
    let mut granted = 0;
    for round in 0..10_000 {
        let held = lock.acquire().await.unwrap();
        let waiter = tokio::spawn({
            let other = other.clone();
            async move { other.acquire().await }
        });
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        let release = tokio::spawn(async move { held.release().await });
        waiter.abort();
        granted += usize::from(waiter.await.is_ok());
        release.await.unwrap().unwrap();
    }
    let held = bounded(lock.acquire()).await.unwrap();
    no_waiters(&a, "x").await;
    held.release().await.unwrap();
    bounded(async {
        while b.stats().held + b.stats().waiting + a.stats().held > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(granted < 10_000, "the cancels never came in time, so the race was not run");
}

#[tokio::test]
async fn dropping_a_hold_releases_it() {
    let (a, b) = pair("drop").await;
    drop(a.lock("x").unwrap().acquire().await.unwrap());
    bounded(b.lock("x").unwrap().acquire()).await.unwrap();
}

#[tokio::test]
async fn run_holds_the_lock_for_exactly_as_long_as_the_function() {
    let (a, b) = pair("run").await;
    let lock = a.lock("x").unwrap();
    let inside = AtomicUsize::new(0);
    let token = lock
        .run(|held| {
            let (inside, b) = (&inside, &b);
            async move {
                inside.fetch_add(1, Ordering::Relaxed);
                assert_eq!(b.lock("x").unwrap().try_acquire().await.unwrap_err().code(), Code::Contended);
                held.token()
            }
        })
        .await
        .unwrap();
    assert!(token > 0);
    assert_eq!(inside.load(Ordering::Relaxed), 1);
    b.lock("x").unwrap().try_acquire().await.unwrap();
}

#[tokio::test]
async fn closing_a_client_ends_its_holds_and_waits() {
    let (a, b) = pair("close").await;
    let held = a.lock("x").unwrap().acquire().await.unwrap();
    let other = b.lock("y").unwrap().acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = a.lock("y").unwrap();
        async move { lock.acquire().await }
    });
    waiting(&a, 1).await;
    let lost = tokio::spawn({
        let held = Arc::new(held);
        let watched = held.clone();
        async move { (held, watched.lost().await) }
    });
    bounded(a.close(BOUND)).await.unwrap();
    assert_eq!(bounded(waiter).await.unwrap().unwrap_err().code(), Code::Closed);
    let (held, reason) = bounded(lost).await.unwrap();
    assert_eq!(reason, LossReason::Closed);
    assert!(held.check().is_err());
    assert_eq!(a.lock("x").unwrap().acquire().await.unwrap_err().code(), Code::Closed);
    bounded(a.close(BOUND)).await.unwrap();

    bounded(b.lock("x").unwrap().acquire()).await.unwrap();
    no_waiters(&b, "y").await;
    other.release().await.unwrap();
}

#[tokio::test]
async fn dropping_the_client_frees_what_it_held() {
    let (a, b) = pair("drop-client").await;
    let lock = a.lock("x").unwrap();
    let held = lock.acquire().await.unwrap();
    drop((a, lock));
    held.check().unwrap();
    drop(held);
    bounded(b.lock("x").unwrap().acquire()).await.unwrap();
}

#[tokio::test]
async fn locks_are_listed_with_holder_and_waiters() {
    let options = |name| Options::parse(&url("listed")).unwrap().name(name).unwrap();
    let a = Client::connect(options("alice")).await.unwrap();
    let b = Client::connect(options("bob")).await.unwrap();
    let held = a.lock("x").unwrap().acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = b.lock("x").unwrap();
        async move { lock.acquire().await }
    });
    waiting(&b, 1).await;
    let locks = b.locks("").await.unwrap();
    let info = locks.iter().find(|l| l.name == "default/default/x").unwrap();
    let holder = info.holder.as_ref().unwrap();
    assert_eq!((holder.name.as_str(), holder.pid, holder.token), ("alice", std::process::id(), held.token()));
    assert_eq!(info.waiters.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["bob"]);
    assert!(b.lock_info("never-used").await.unwrap().is_none());
    waiter.abort();
}

#[tokio::test]
async fn an_operator_breaks_a_hold_by_its_token() {
    let (a, b) = pair("break").await;
    let held = a.lock("x").unwrap().acquire().await.unwrap();
    let error = b.break_lock("x", held.token() + 1, true).await.unwrap_err();
    assert_eq!(error.code(), Code::Conflict);
    held.check().unwrap();

    b.break_lock("x", held.token(), true).await.unwrap();
    assert_eq!(bounded(held.lost()).await, LossReason::Broken);
    let next = bounded(b.lock("x").unwrap().acquire()).await.unwrap();
    assert!(next.token() > held.token());
    assert_eq!(held.release().await.unwrap_err().loss(), Some(LossReason::Broken));
    next.check().unwrap();
}

#[tokio::test]
async fn a_break_that_waits_ends_with_its_client() {
    let (a, b) = pair("break-ends").await;
    // The store that it asks stays open.
    let _sibling = b.open_session().await.unwrap();
    let held = a.lock("x").unwrap().acquire().await.unwrap();
    // Somebody's code runs under it, and takes its time.
    held.manage();
    let (operator, token) = (b.clone(), held.token());
    let breaking = tokio::spawn(async move { operator.break_lock("x", token, false).await });
    bounded(async {
        while held.check().is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    b.close(BOUND).await.unwrap();
    assert_eq!(bounded(breaking).await.unwrap().unwrap_err().code(), Code::Closed);
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let url = url("full") + "&coord.max_queue=1";
    let (a, b) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let _held = a.lock("x").unwrap().acquire().await.unwrap();
    let waiter = tokio::spawn({
        let lock = a.lock("x").unwrap();
        async move { lock.acquire().await }
    });
    waiting(&a, 1).await;
    assert_eq!(b.lock("x").unwrap().acquire().await.unwrap_err().code(), Code::QueueFull);
    waiter.abort();
}

#[tokio::test]
async fn sessions_of_one_client_are_independent() {
    let a = connect(&url("sessions")).await.unwrap();
    let b = a.open_session().await.unwrap();
    assert_ne!(a.session().id, b.session().id);
    let held = a.lock("x").unwrap().acquire().await.unwrap();
    assert_eq!(b.lock("x").unwrap().try_acquire().await.unwrap_err().code(), Code::Contended);
    bounded(b.close(BOUND)).await.unwrap();
    held.check().unwrap();
    held.ensure(Duration::from_secs(1)).await.unwrap();
    assert_eq!(held.ensure(Duration::from_secs(3600)).await.unwrap_err().code(), Code::InvalidArgument);
}
