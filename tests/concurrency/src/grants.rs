//! Claims, in schedules drawn by chance: a wait that is given up in the moment of its grant, a release that meets another
//! one's grant, an operator who breaks a grant that may be no hold yet, a client that is closed while it asks. Whatever the
//! order, a claim is somebody's who knows it, or nobody's; and nothing is left in a queue.

use std::sync::Arc;

use coord_core::error::{Code, LossReason};
use coord_core::protocol::claim::{ClaimKey, Priority};
use shuttle::future::{block_on, spawn};

use crate::claims::{Hold, Outcome, Want, acquire};
use crate::mutants::{Mutant, planted};
use crate::schedules;
use crate::session::{Server, Session};

fn want() -> Want {
    Want { wait: true, max_queue: 10, priority: Priority::default() }
}

fn key() -> ClaimKey {
    ClaimKey::new("lock/default/default/l")
}

fn session(id: u128, server: &Arc<Server>) -> Arc<Session> {
    let session = Session::new(id, server.clone());
    server.tell(session.clone());
    session
}

async fn take(session: &Arc<Session>) -> Hold {
    match acquire(session, &key(), &want()).await.expect("the store works") {
        Outcome::Held(hold) => hold,
        Outcome::Refused(view) => panic!("it was to wait: {view:?}"),
    }
}

/// One holds and releases, another waits and gives up at any moment. If it was granted, the store says so for as long as
/// it holds; in the end the claim is free, and neither session has anything left.
async fn a_cancel_meets_a_grant() {
    let server = Arc::new(Server::default());
    let (first, second) = (session(1, &server), session(2, &server));
    let held = take(&first).await;
    let release = spawn(async move { held.release().await });
    let (cancel, cancelled) = tokio::sync::oneshot::channel::<()>();
    let waiting = second.clone();
    let wait = spawn(async move {
        let taking = std::pin::pin!(take(&waiting));
        match futures::future::select(taking, cancelled).await {
            futures::future::Either::Left((hold, _)) => Some(hold),
            futures::future::Either::Right(_) => None,
        }
    });
    let canceller = spawn(async move {
        shuttle::future::yield_now().await;
        // Nobody may be there to hear it.
        let _ = cancel.send(());
    });
    release.await.expect("it ends").expect("it was held");
    canceller.await.expect("it ends");
    if let Some(hold) = wait.await.expect("it ends") {
        let record = server.record().expect("it was held");
        assert_eq!((record.holder, record.token), (Some(hold.entry()), hold.token()), "the holder is another one");
        assert!(hold.loss().is_none(), "it was lost at once");
        drop(hold);
    }
    first.claims().emptied().await;
    second.claims().emptied().await;
    let record = server.record().expect("it was held");
    assert!(record.holder.is_none() && record.waiters.is_empty(), "it is left behind: {record:?}");
}

#[test]
fn a_wait_that_is_given_up_in_the_moment_of_its_grant_leaves_nothing_behind() {
    shuttle::check_random(|| block_on(a_cancel_meets_a_grant()), schedules());
    shuttle::check_pct(|| block_on(a_cancel_meets_a_grant()), schedules() / 4, 3);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wait_that_stays_in_the_queue_is_found() {
    let _planted = planted(Mutant::AbandonedWaitStays);
    shuttle::check_random(|| block_on(a_cancel_meets_a_grant()), schedules());
}

/// One is granted, and asked to go as soon as the store says so: it has no hold then, or one that it finds broken.
async fn a_break_meets_a_grant() {
    let server = Arc::new(Server::default());
    let session = session(1, &server);
    let taking = session.clone();
    let take = spawn(async move { acquire(&taking, &key(), &want()).await });
    let (token, holder) = loop {
        if let Some(granted) = server.record().and_then(|record| Some((record.token, record.holder?))) {
            break granted;
        }
        shuttle::future::yield_now().await;
    };
    session.claims().on_breaking(&session, &holder, token);
    match take.await.expect("it ends") {
        Ok(Outcome::Held(hold)) => {
            assert_eq!(hold.loss(), Some(LossReason::Broken), "it is believed in");
            hold.release().await.expect_err("it was lost");
        }
        Ok(Outcome::Refused(view)) => panic!("it was free: {view:?}"),
        Err(error) => assert_eq!(error.code(), Code::Lost, "{error}"),
    }
    session.claims().emptied().await;
    let record = server.record().expect("it was held");
    assert!(record.holder.is_none() && record.waiters.is_empty(), "it is left behind: {record:?}");
}

#[test]
fn a_grant_that_is_broken_before_it_is_a_hold_is_believed_in_by_nobody() {
    shuttle::check_random(|| block_on(a_break_meets_a_grant()), schedules());
}

#[test]
#[should_panic(expected = "it is believed in")]
fn a_break_that_is_forgotten_before_the_hold_is_found() {
    let _planted = planted(Mutant::EarlyBreakForgotten);
    shuttle::check_random(|| block_on(a_break_meets_a_grant()), schedules());
}

/// Three take it in turn and give it back, each with its own session: no two at once, and everybody is served.
async fn everybody_is_served() {
    let server = Arc::new(Server::default());
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let turns: Vec<_> = (1..=3)
        .map(|id| {
            let (session, inside, server) = (session(id, &server), inside.clone(), server.clone());
            spawn(async move {
                let hold = take(&session).await;
                assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two are inside");
                assert_eq!(server.record().and_then(|record| record.holder), Some(hold.entry()));
                shuttle::future::yield_now().await;
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                hold.release().await.expect("it was held");
                session.claims().emptied().await;
            })
        })
        .collect();
    for turn in turns {
        turn.await.expect("it is served");
    }
    let record = server.record().expect("it was held");
    assert!(record.holder.is_none() && record.waiters.is_empty(), "it is left behind: {record:?}");
}

#[test]
fn releases_that_meet_grants_serve_everybody() {
    shuttle::check_random(|| block_on(everybody_is_served()), schedules());
}

/// A client is closed while it asks. When nothing is left in the table the session goes: nothing may come into the store
/// after that, and what was granted before is believed in by nobody.
async fn a_close_meets_an_acquire() {
    let server = Arc::new(Server::default());
    let session = session(1, &server);
    let taking = session.clone();
    let take = spawn(async move { acquire(&taking, &key(), &want()).await });
    shuttle::future::yield_now().await;
    session.claims().close(&session);
    session.claims().emptied().await;
    let left = server.record();
    assert!(left.as_ref().is_none_or(|record| record.holder.is_none()), "it is left behind: {left:?}");
    match take.await.expect("it ends") {
        Ok(Outcome::Held(hold)) => assert_eq!(hold.loss(), Some(LossReason::Closed), "it is believed in"),
        Ok(Outcome::Refused(view)) => panic!("it was free: {view:?}"),
        Err(error) => assert_eq!(error.code(), Code::Closed, "{error}"),
    }
    assert_eq!(server.record(), left, "this came when the session had gone");
}

#[test]
fn what_is_asked_for_while_the_client_closes_does_not_outlive_it() {
    shuttle::check_random(|| block_on(a_close_meets_an_acquire()), schedules());
}
