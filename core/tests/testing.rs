//! What tests of users' code can do with a store in memory.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::time::Duration;

use coord_core::client::{Client, connect};
use coord_core::election::{CampaignOptions, CandidacyOptions, LeaderEvent, Term};
use coord_core::error::{Code, LossReason};
use coord_core::testing::Control;

const BOUND: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("an event within the bound")
}

async fn trio(url: &str) -> (Client, Client, Control) {
    let (a, b) = (connect(url).await.unwrap(), connect(url).await.unwrap());
    let control = Control::of(&a).unwrap();
    (a, b, control)
}

fn id(client: &Client) -> String {
    client.session().id.to_string()
}

fn campaign(client: &Client, priority: i32) -> tokio::task::JoinHandle<coord_core::Result<Term>> {
    let election = client.election("e").unwrap();
    tokio::spawn(async move { election.campaign_with("v", CampaignOptions { priority, timeout: None }).await })
}

#[tokio::test]
async fn a_leader_is_forced() {
    let (a, b, control) = trio("memory:kit-force").await;
    let c = connect("memory:kit-force").await.unwrap();
    let term = a.election("e").unwrap().campaign("a").await.unwrap();
    assert_eq!(control.force_leader("e", &id(&a)).await.unwrap(), term.token());
    term.check().unwrap();
    let _preferred = campaign(&c, 100);
    let chosen = campaign(&b, -100);
    let token = bounded(control.force_leader("e", &id(&b))).await.unwrap();
    assert_eq!(term.loss(), Some(LossReason::Broken), "at once");
    let next = bounded(chosen).await.unwrap().unwrap();
    assert_eq!(next.token(), token);
    assert!(token > term.token());
    next.check().unwrap();
    assert_eq!(control.force_leader("e", "me").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(control.force_leader("a b", &id(&b)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_session_expires() {
    let (a, b, control) = trio("memory:kit-expire").await;
    let candidacy = a.election("e").unwrap().when_elected("a", CandidacyOptions::default()).unwrap();
    let watch = b.election("e").unwrap().observe().await.unwrap();
    let elected = bounded(candidacy.next()).await.unwrap();
    let held = a.lock("l").unwrap().acquire().await.unwrap();
    let before = a.session();
    let next = campaign(&b, 0);
    control.expire_session(&id(&a)).await.unwrap();
    assert_eq!(elected.term().loss(), Some(LossReason::Expired));
    assert_eq!(held.loss(), Some(LossReason::Expired));
    let next = bounded(next).await.unwrap().unwrap();
    assert!(next.token() > elected.term().token());
    bounded(b.lock("l").unwrap().acquire()).await.unwrap();

    // The client goes on with a new session, but the function's call must end before the next.
    let after = bounded(a.session_changed(&before)).await.unwrap();
    let _ = bounded(async {
        let mut now = after;
        while now.id == before.id {
            now = a.session_changed(&now).await.unwrap();
        }
    })
    .await;
    elected.complete(Ok(())).unwrap();
    next.resign().await.unwrap();
    let again = bounded(candidacy.next()).await.unwrap();
    assert!(again.term().token() > next.token());

    let mut story = Vec::new();
    while story.last() != Some(&Some(again.term().token())) {
        match bounded(watch.next()).await.unwrap() {
            LeaderEvent::Leader(leader) if story.last() != Some(&Some(leader.token)) => story.push(Some(leader.token)),
            LeaderEvent::Leader(_) => {}
            _ => story.push(None),
        }
    }
    let (first, second, third) = (elected.term().token(), next.token(), again.term().token());
    let story = story.strip_prefix(&[None]).unwrap_or(&story);
    assert_eq!(story, [Some(first), None, Some(second), None, Some(third)]);

    assert_eq!(control.expire_session(&before.id.to_string()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn time_passes_when_it_is_told_to() {
    let (a, b, control) = trio("memory:kit-clock?coord.clock=manual").await;
    let term = a.election("e").unwrap().campaign("a").await.unwrap();
    let remaining = term.remaining();
    let before = control.date().unwrap();
    let options = CampaignOptions { priority: 0, timeout: Some(HOUR) };
    let waiter = tokio::spawn({
        let election = b.election("e").unwrap();
        async move { election.campaign_with("b", options).await }
    });
    bounded(async {
        while a.election("e").unwrap().candidates().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(term.remaining(), remaining, "time stands still");
    bounded(control.advance(HOUR - Duration::from_secs(1))).await.unwrap();
    assert_eq!(control.date().unwrap().0 - before.0, 3_599_000);
    assert!(!waiter.is_finished());
    term.check().unwrap();
    bounded(control.advance(Duration::from_secs(1))).await.unwrap();
    assert_eq!(bounded(waiter).await.unwrap().unwrap_err().code(), Code::Timeout);
    term.check().unwrap();
    assert!(a.stats().suspensions + b.stats().suspensions == 0, "sessions were renewed all the while");

    control.jump(HOUR).unwrap();
    assert_eq!(term.check().unwrap_err().loss(), Some(LossReason::Expired));
    drop(term);
    bounded(b.election("e").unwrap().campaign("b")).await.unwrap().check().unwrap();
}

/// A session's first renewal is due when its time says so, also if the clock has moved since before its tasks began:
/// moving it further would wait for a renewal that waits for the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_passes_while_clients_come_and_go() {
    let (_a, _b, control) = trio("memory:kit-comers?coord.clock=manual").await;
    for _ in 0..200 {
        let comer = connect("memory:kit-comers?coord.clock=manual").await.unwrap();
        control.jump(Duration::from_millis(100)).unwrap();
        bounded(control.advance(comer.session().timing.ttl)).await.unwrap();
        comer.close(BOUND).await.unwrap();
    }
}

#[tokio::test]
async fn a_hand_over_sees_the_candidate_renew() {
    let (a, b, control) = trio("memory:kit-transfer?coord.clock=manual").await;
    let term = a.election("e").unwrap().campaign("a").await.unwrap();
    let next = campaign(&b, 0);
    let election = a.election("e").unwrap();
    bounded(async {
        while election.candidates().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Time stands still, so nobody renews unless it is moved.
    let handing = tokio::spawn({
        let to = id(&b);
        async move { term.transfer_to(&to).await }
    });
    bounded(async {
        while !handing.is_finished() {
            control.advance(Duration::from_millis(100)).await.unwrap();
        }
    })
    .await;
    handing.await.unwrap().unwrap();
    bounded(next).await.unwrap().unwrap().check().unwrap();
}

#[tokio::test]
async fn what_cannot_be_controlled_is_said() {
    let (a, _b, control) = trio("memory:kit-limits").await;
    for error in [
        control.advance(HOUR).await.unwrap_err(),
        control.jump(HOUR).unwrap_err(),
        control.date().map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::Unsupported);
    }
    let mixed = connect("memory:kit-limits?coord.clock=manual").await.unwrap_err();
    assert_eq!(mixed.code(), Code::InvalidArgument);
    a.close(BOUND).await.unwrap();
    assert_eq!(control.expire_session(&"0".repeat(32)).await.unwrap_err().code(), Code::Closed);
}

/// A renewal can be acknowledged after the deadline, before anybody has looked at the clock: then the session is suspended
/// and revived at once. Whoever waits must hear of both.
#[tokio::test]
async fn whoever_sleeps_through_the_deadline_goes_on() {
    let (a, b, control) = trio("memory:kit-sleeps?coord.clock=manual").await;
    for _ in 0..300 {
        let waiters = [campaign(&a, 0), campaign(&b, 0)];
        bounded(control.advance(Duration::from_secs(2))).await.unwrap();
        control.jump(HOUR).unwrap();
        for waiter in waiters {
            waiter.abort();
            drop(waiter.await);
        }
        let term = bounded(a.election("e").unwrap().campaign("a")).await.unwrap();
        term.resign().await.unwrap();
    }
}

#[tokio::test]
async fn names_that_nobody_uses_are_forgotten_after_a_day() {
    let (a, _b, control) = trio("memory:kit-unused?coord.clock=manual").await;
    let mut tokens = Vec::new();
    for number in 0..1_000 {
        let held = a.lock(&format!("job-{number}")).unwrap().acquire().await.unwrap();
        tokens.push(held.token());
        held.release().await.unwrap();
    }
    let held = a.lock("held").unwrap().acquire().await.unwrap();
    let names = async || a.locks("").await.unwrap().into_iter().map(|lock| lock.name).collect::<Vec<_>>();
    // Long enough for somebody to become the keeper, and to look.
    bounded(control.advance(Duration::from_secs(60))).await.unwrap();
    assert_eq!(names().await.len(), 1_001);
    control.jump(HOUR * 25).unwrap();
    bounded(control.advance(Duration::from_secs(60))).await.unwrap();
    let left = names().await;
    assert!(left == ["default/default/held"], "{} are left, the first {:?}", left.len(), left.first());
    // Their records begin anew, and their tokens go on.
    for (number, before) in tokens.into_iter().enumerate().take(10) {
        let again = a.lock(&format!("job-{number}")).unwrap().acquire().await.unwrap();
        assert!(again.token() > before);
    }
    drop(held);
}
