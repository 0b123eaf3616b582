//! Elections through the public interface: terms, candidates, hand-overs, and functions that run while one leads. On the
//! memory store, or on what `COORD_TEST_STORE` says.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::election::{
    CampaignOptions, CandidacyOptions, Elected, Election, LeaderEvent, LeaderWatch, MAX_VALUE, Term,
};
use coord_core::error::{Code, LossReason};

const BOUND: Duration = Duration::from_secs(30);

/// The URL of a store that no other test uses. Its sessions renew often, so that hand-overs are quick.
fn url(name: &str) -> String {
    let base = match std::env::var("COORD_TEST_STORE").as_deref() {
        Ok("sqlite") => format!("sqlite:///{}/e-{name}-{}.db?", std::env::temp_dir().display(), std::process::id()),
        Ok("mongodb") => {
            let uri = std::env::var("COORD_TEST_MONGODB_URI").expect("the URI of a replica set");
            let separator = if uri.contains('?') { '&' } else { '?' };
            format!("{uri}{separator}coord.prefix=e-{name}{}_", std::process::id())
        }
        _ => format!("memory:e-{name}?"),
    };
    format!("{base}&coord.ttl=3s")
}

async fn named(store: &str, name: &str) -> Client {
    Client::connect(Options::parse(&url(store)).unwrap().name(name).unwrap()).await.unwrap()
}

async fn pair(store: &str) -> (Client, Client) {
    (named(store, "a").await, named(store, "b").await)
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("an event within the bound")
}

fn id(client: &Client) -> String {
    client.session().id.to_string()
}

fn campaign(client: &Client, value: &str, priority: i32) -> tokio::task::JoinHandle<coord_core::Result<Term>> {
    let (election, value) = (client.election("e").unwrap(), value.to_owned());
    let options = CampaignOptions { priority, timeout: None };
    tokio::spawn(async move { election.campaign_with(&value, options).await })
}

/// Waits until exactly these sessions wait, in this order.
async fn candidates(election: &Election, expected: &[&Client]) {
    let expected: Vec<String> = expected.iter().map(|client| id(client)).collect();
    bounded(async {
        loop {
            let waiting: Vec<String> = election.candidates().await.unwrap().into_iter().map(|c| c.session).collect();
            if waiting == expected {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Options with pauses that a test can wait for.
fn quick() -> CandidacyOptions {
    CandidacyOptions {
        min_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_millis(50),
        ..CandidacyOptions::default()
    }
}

#[tokio::test]
async fn a_leader_is_known_with_its_value() {
    let (a, b) = pair("known").await;
    let (mine, theirs) = (a.election("e").unwrap(), b.election("e").unwrap());
    assert_eq!(theirs.leader().await.unwrap(), None);
    assert!(!mine.is_leader());

    let term = bounded(mine.campaign("host:1")).await.unwrap();
    term.check().unwrap();
    assert!(mine.is_leader() && !theirs.is_leader());
    assert!(term.remaining() > Duration::ZERO && term.loss().is_none());
    let leader = theirs.leader().await.unwrap().unwrap();
    assert_eq!((leader.session, leader.name.as_str(), leader.is_self), (id(&a), "a", false));
    assert_eq!((leader.value.as_deref(), leader.token, leader.pid), (Some("host:1"), term.token(), std::process::id()));
    assert!(mine.leader().await.unwrap().unwrap().is_self);

    term.proclaim("host:2").await.unwrap();
    assert_eq!(term.value(), "host:2");
    assert_eq!(theirs.leader().await.unwrap().unwrap().value.as_deref(), Some("host:2"));

    let contended = theirs.try_campaign("x").await.unwrap_err();
    assert_eq!((contended.code(), contended.holder().unwrap().token), (Code::Contended, term.token()));

    term.resign().await.unwrap();
    assert_eq!(term.lost().await, LossReason::Resigned);
    assert_eq!(term.check().unwrap_err().code(), Code::NotHeld);
    assert_eq!(term.resign().await.unwrap_err().code(), Code::NotHeld);
    assert_eq!(term.proclaim("x").await.unwrap_err().code(), Code::NotHeld);
    assert!(!mine.is_leader());
    assert_eq!(theirs.leader().await.unwrap(), None);

    let next = theirs.try_campaign("y").await.unwrap();
    assert!(next.token() > term.token());
    assert_eq!(mine.leader().await.unwrap().unwrap().value.as_deref(), Some("y"), "never the last leader's value");
}

#[tokio::test]
async fn bad_input_is_refused() {
    let a = named("bad", "a").await;
    let election = a.election("e").unwrap();
    let invalid = |result: coord_core::Result<Term>| assert_eq!(result.unwrap_err().code(), Code::InvalidArgument);
    let long = "x".repeat(MAX_VALUE + 1);
    invalid(election.campaign(&long).await);
    invalid(election.campaign_with("", CampaignOptions { priority: 2048, timeout: None }).await);
    invalid(election.campaign_with("", CampaignOptions { priority: -2049, timeout: None }).await);
    assert_eq!(a.election("a b").unwrap_err().code(), Code::InvalidArgument);
    let backwards = CandidacyOptions { min_backoff: BOUND, max_backoff: Duration::ZERO, ..quick() };
    assert_eq!(election.when_elected("", backwards).unwrap_err().code(), Code::InvalidArgument);

    let term = election.campaign(&long[1..]).await.unwrap();
    assert_eq!(term.proclaim(&long).await.unwrap_err().code(), Code::InvalidArgument);
    for candidate in ["", "somebody", &id(&a)] {
        assert_eq!(term.transfer_to(candidate).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(term.transfer_to(&"0".repeat(32)).await.unwrap_err().code(), Code::NotFound);
    term.check().unwrap();
    assert_eq!(term.ensure(Duration::from_secs(3600)).await.unwrap_err().code(), Code::InvalidArgument);
    term.ensure(Duration::from_millis(1500)).await.unwrap();
}

#[tokio::test]
async fn the_highest_priority_wins_the_next_term() {
    let (a, b) = pair("priority").await;
    let (c, d) = pair("priority").await;
    let election = a.election("e").unwrap();
    let term = bounded(election.campaign("a")).await.unwrap();
    let low = campaign(&b, "b", -5);
    candidates(&election, &[&b]).await;
    let high = campaign(&c, "c", 5);
    candidates(&election, &[&c, &b]).await;
    let late = campaign(&d, "d", 5);
    candidates(&election, &[&c, &d, &b]).await;
    let priorities: Vec<i32> = election.candidates().await.unwrap().iter().map(|c| c.priority).collect();
    assert_eq!(priorities, [5, 5, -5]);
    term.check().unwrap();

    let mut token = term.token();
    term.resign().await.unwrap();
    for (task, value) in [(high, "c"), (late, "d"), (low, "b")] {
        let term = bounded(task).await.unwrap().unwrap();
        assert_eq!(election.leader().await.unwrap().unwrap().value.as_deref(), Some(value));
        assert!(term.token() > token);
        token = term.token();
        term.resign().await.unwrap();
    }
}

#[tokio::test]
async fn a_term_is_handed_to_a_chosen_candidate() {
    let (a, b) = pair("transfer").await;
    let c = named("transfer", "c").await;
    let election = a.election("e").unwrap();
    let term = bounded(election.campaign("a")).await.unwrap();
    let first = campaign(&b, "b", 7);
    let chosen = campaign(&c, "c", -7);
    candidates(&election, &[&b, &c]).await;
    bounded(term.transfer_to(&id(&c))).await.unwrap();
    assert_eq!(term.check().unwrap_err().code(), Code::NotHeld);
    assert_eq!(term.loss(), Some(LossReason::Resigned));
    let next = bounded(chosen).await.unwrap().unwrap();
    assert!(next.token() > term.token());
    candidates(&election, &[&b]).await;
    drop(next);
    bounded(first).await.unwrap().unwrap().check().unwrap();
}

#[tokio::test]
async fn a_campaign_that_is_given_up_leaves_nothing() {
    let (a, b) = pair("given-up").await;
    let election = a.election("e").unwrap();
    let term = bounded(election.campaign("a")).await.unwrap();
    // Long enough for every store to say who is in the way.
    let options = CampaignOptions { priority: 0, timeout: Some(Duration::from_millis(500)) };
    let error = b.election("e").unwrap().campaign_with("b", options).await.unwrap_err();
    assert_eq!((error.code(), error.holder().map(|holder| holder.token)), (Code::Timeout, Some(term.token())));
    let waiter = campaign(&b, "b", 0);
    candidates(&election, &[&b]).await;
    waiter.abort();
    candidates(&election, &[]).await;
    drop(term);
    bounded(b.election("e").unwrap().campaign("b")).await.unwrap();
}

#[tokio::test]
async fn terms_and_locks_of_one_name_are_different_things() {
    let (a, b) = pair("kinds").await;
    let term = bounded(a.election("e").unwrap().campaign("a")).await.unwrap();
    let held = bounded(b.lock("e").unwrap().acquire()).await.unwrap();
    held.check().unwrap();
    term.check().unwrap();
    let locks = a.locks("").await.unwrap();
    let holders: Vec<_> = locks.iter().filter_map(|lock| lock.holder.as_ref()).map(|h| h.session.clone()).collect();
    assert_eq!(holders, [id(&b)], "a term is no lock");
}

#[tokio::test]
async fn closing_the_client_ends_the_term() {
    let (a, b) = pair("close").await;
    let term = bounded(a.election("e").unwrap().campaign("a")).await.unwrap();
    let next = campaign(&b, "b", 0);
    candidates(&b.election("e").unwrap(), &[&b]).await;
    bounded(a.close(BOUND)).await.unwrap();
    assert_eq!(term.loss(), Some(LossReason::Closed));
    let next = bounded(next).await.unwrap().unwrap();
    assert!(next.token() > term.token());
    assert_eq!(a.election("e").unwrap().campaign("").await.unwrap_err().code(), Code::Closed);
    assert_eq!(a.election("e").unwrap().when_elected("", quick()).unwrap_err().code(), Code::Closed);
}

#[tokio::test]
async fn a_function_is_called_in_every_term() {
    let (a, b) = pair("every-term").await;
    let election = a.election("e").unwrap();
    let candidacy = election.when_elected("a", quick()).unwrap();
    let mut token = 0;
    for _ in 0..3 {
        let elected = bounded(candidacy.next()).await.unwrap();
        let term = elected.term().clone();
        term.check().unwrap();
        assert!(term.token() > token && election.is_leader());
        token = term.token();
        assert_eq!(b.election("e").unwrap().leader().await.unwrap().unwrap().value.as_deref(), Some("a"));
        term.resign().await.unwrap();
        assert_eq!(term.lost().await, LossReason::Resigned);
        assert_eq!(term.resign().await.unwrap_err().code(), Code::NotHeld);
        // The store hears of it when the function has returned.
        assert_eq!(b.election("e").unwrap().leader().await.unwrap().unwrap().token, token);
        elected.complete(Ok(())).unwrap();
        assert_eq!(elected.complete(Ok(())).unwrap_err().code(), Code::NotHeld);
    }
    candidacy.close();
    bounded(candidacy.closed()).await;
    assert_eq!(candidacy.next().await.unwrap_err().code(), Code::Closed);
    bounded(b.election("e").unwrap().campaign("b")).await.unwrap();
}

#[tokio::test]
async fn a_call_that_returns_keeps_the_term() {
    let (a, b) = pair("keeps").await;
    let candidacy = a.election("e").unwrap().when_elected("a", quick()).unwrap();
    let elected = bounded(candidacy.next()).await.unwrap();
    let term = elected.term().clone();
    elected.complete(Ok(())).unwrap();
    let next = campaign(&b, "b", 0);
    candidates(&b.election("e").unwrap(), &[&b]).await;
    term.check().unwrap();
    // One that comes during the term is called at once; one that is closed does not end it for the other.
    let second = a.election("e").unwrap().when_elected("another", quick()).unwrap();
    let elected = bounded(second.next()).await.unwrap();
    assert_eq!((elected.term().token(), elected.term().value()), (term.token(), "a".into()));
    second.close();
    assert_eq!(elected.term().lost().await, LossReason::Resigned, "this function is told to stop");
    assert_eq!(elected.term().check().unwrap_err().code(), Code::NotHeld);
    assert_eq!(elected.term().resign().await.unwrap_err().code(), Code::NotHeld);
    elected.complete(Ok(())).unwrap();
    bounded(second.closed()).await;
    term.check().unwrap();
    drop(candidacy);
    bounded(next).await.unwrap().unwrap();
    assert_eq!(term.check().unwrap_err().code(), Code::NotHeld);
}

#[tokio::test]
async fn several_functions_share_one_place_in_the_queue() {
    let (a, b) = pair("shared").await;
    let election = b.election("e").unwrap();
    let term = bounded(election.campaign("b")).await.unwrap();
    let first = a.election("e").unwrap().when_elected("first", quick()).unwrap();
    candidates(&election, &[&a]).await;
    let second = a.election("e").unwrap().when_elected("second", CandidacyOptions { priority: 9, ..quick() }).unwrap();
    bounded(async {
        while election.candidates().await.unwrap().iter().map(|c| c.priority).collect::<Vec<_>>() != [9] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    term.resign().await.unwrap();
    let (one, two) = (bounded(first.next()).await.unwrap(), bounded(second.next()).await.unwrap());
    assert_eq!(one.term().token(), two.term().token());
    assert_eq!(election.leader().await.unwrap().unwrap().value.as_deref(), Some("first"));

    // The term is given back when both have returned, and not before.
    let next = campaign(&b, "b", 0);
    candidates(&election, &[&b]).await;
    two.term().resign().await.unwrap();
    assert_eq!(one.term().check().unwrap_err().code(), Code::NotHeld);
    two.complete(Ok(())).unwrap();
    assert!(election.leader().await.unwrap().is_some_and(|leader| leader.session == id(&a)));
    one.complete(Err("too late to matter".into())).unwrap();
    let next = bounded(next).await.unwrap().unwrap();
    // An error after the end of the term costs no pause: the campaign goes on at once.
    candidates(&election, &[&a]).await;
    next.resign().await.unwrap();
    bounded(first.next()).await.unwrap();
}

#[tokio::test]
async fn a_function_hands_over_when_all_have_returned() {
    let (a, b) = pair("function-transfer").await;
    let election = b.election("e").unwrap();
    let candidacy = a.election("e").unwrap().when_elected("a", quick()).unwrap();
    let elected = bounded(candidacy.next()).await.unwrap();
    let c = named("function-transfer", "c").await;
    let _other = campaign(&c, "c", 5);
    let chosen = campaign(&b, "b", 0);
    candidates(&election, &[&c, &b]).await;
    bounded(elected.term().transfer_to(&id(&b))).await.unwrap();
    assert_eq!(elected.term().loss(), Some(LossReason::Resigned));
    elected.complete(Ok(())).unwrap();
    bounded(chosen).await.unwrap().unwrap().check().unwrap();
}

#[tokio::test]
async fn an_error_resigns_and_backs_off() {
    let (a, b) = pair("error").await;
    let election = b.election("e").unwrap();
    let long = CandidacyOptions { min_backoff: BOUND * 10, max_backoff: BOUND * 10, ..quick() };
    let candidacy = a.election("e").unwrap().when_elected("a", long).unwrap();
    let elected = bounded(candidacy.next()).await.unwrap();
    let term = elected.term().clone();
    elected.complete(Err("no disk".into())).unwrap();
    assert_eq!(term.check().unwrap_err().code(), Code::NotHeld);
    let next = bounded(election.campaign("b")).await.unwrap();
    assert!(election.candidates().await.unwrap().is_empty(), "it pauses");
    next.resign().await.unwrap();
    assert!(!a.election("e").unwrap().is_leader());
    candidacy.close();
    bounded(candidacy.closed()).await;

    // One that is dropped without being completed has failed, too; after the pause it comes again.
    let candidacy = a.election("e").unwrap().when_elected("a", quick()).unwrap();
    let elected = bounded(candidacy.next()).await.unwrap();
    let first = elected.term().token();
    drop(elected);
    assert!(bounded(candidacy.next()).await.unwrap().term().token() > first);
}

#[tokio::test]
async fn an_error_can_keep_the_term() {
    let a = named("keep", "a").await;
    let options = CandidacyOptions { keep_on_error: true, ..quick() };
    let candidacy = a.election("e").unwrap().when_elected("a", options).unwrap();
    let elected = bounded(candidacy.next()).await.unwrap();
    let term = elected.term().clone();
    elected.complete(Err("never mind".into())).unwrap();
    term.check().unwrap();
    assert!(a.election("e").unwrap().is_leader());
}

#[tokio::test]
async fn a_wait_for_the_next_call_can_be_given_up() {
    let (a, b) = pair("give-up-next").await;
    let election = b.election("e").unwrap();
    let term = bounded(election.campaign("b")).await.unwrap();
    let candidacy = Arc::new(a.election("e").unwrap().when_elected("a", quick()).unwrap());
    for _ in 0..200 {
        let waiting = tokio::spawn({
            let candidacy = candidacy.clone();
            async move { candidacy.next().await.map(|elected| elected.complete(Ok(()))) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        if waiting.await.is_ok() {
            break;
        }
    }
    term.resign().await.unwrap();
    // However many waits were given up, the call comes once.
    bounded(candidacy.next()).await.unwrap();
}

#[tokio::test]
async fn closing_the_client_waits_for_the_function() {
    let (a, b) = pair("close-function").await;
    let candidacy = a.election("e").unwrap().when_elected("a", quick()).unwrap();
    let elected = bounded(candidacy.next()).await.unwrap();
    let closing = tokio::spawn({
        let a = a.clone();
        async move { a.close(BOUND).await }
    });
    assert_eq!(bounded(elected.term().lost()).await, LossReason::Closed);
    let next = campaign(&b, "b", 0);
    candidates(&b.election("e").unwrap(), &[&b]).await;
    elected.complete(Ok(())).unwrap();
    bounded(closing).await.unwrap().unwrap();
    bounded(next).await.unwrap().unwrap();
    assert_eq!(candidacy.next().await.unwrap_err().code(), Code::Closed);
}

#[tokio::test]
async fn run_ends_with_its_function() {
    let (a, b) = pair("run").await;
    let (election, calls) = (a.election("e").unwrap(), AtomicUsize::new(0));
    let run = election.run("a", quick(), |term| {
        let (calls, b) = (&calls, &b);
        async move {
            term.check().unwrap();
            assert_eq!(b.election("e").unwrap().leader().await.unwrap().unwrap().token, term.token());
            match calls.fetch_add(1, Ordering::Relaxed) {
                0 => Err("not yet"),
                _ => Ok(()),
            }
        }
    });
    bounded(run).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(b.election("e").unwrap().leader().await.unwrap(), None);
    bounded(b.election("e").unwrap().campaign("b")).await.unwrap();
}

/// Several clients, each with a function that fails, returns or resigns in turn: at any moment at most one of them is
/// inside a term that it believes in.
#[tokio::test]
async fn no_two_functions_lead_at_once() {
    const CLIENTS: usize = 4;
    let inside = Arc::new(AtomicUsize::new(0));
    let highest = Arc::new(std::sync::Mutex::new(0));
    let mut tasks = Vec::new();
    for n in 0..CLIENTS {
        let client = named("no-overlap", &format!("c{n}")).await;
        let (inside, highest) = (inside.clone(), highest.clone());
        tasks.push(tokio::spawn(async move {
            let candidacy = client.election("e").unwrap().when_elected("v", quick()).unwrap();
            for round in 0..25 {
                let elected: Elected = bounded(candidacy.next()).await.unwrap();
                let term = elected.term();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two lead at once");
                term.check().unwrap();
                {
                    let mut highest = highest.lock().unwrap();
                    assert!(term.token() > *highest, "tokens grow");
                    *highest = term.token();
                }
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                match (round + n) % 3 {
                    0 => elected.complete(Err("once in a while".into())).unwrap(),
                    1 => term.resign().await.unwrap(),
                    _ => {
                        if let Some(next) = client.election("e").unwrap().candidates().await.unwrap().pop() {
                            // Whoever has gone in the meantime is no error here.
                            let _ = term.transfer_to(&next.session).await;
                        }
                        if term.loss().is_none() {
                            term.resign().await.unwrap();
                        }
                    }
                }
            }
            client.close(BOUND).await.unwrap();
        }));
    }
    for task in tasks {
        tokio::time::timeout(BOUND * 3, task).await.expect("all rounds in time").unwrap();
    }
}

/// The next event, in short: the leader's name and value, or none.
async fn told(watch: &LeaderWatch) -> Option<(String, Option<String>)> {
    match bounded(watch.next()).await.unwrap() {
        LeaderEvent::Leader(leader) => Some((leader.name, leader.value)),
        _ => None,
    }
}

/// The same until the leader has published.
async fn told_value(watch: &LeaderWatch) -> Option<(String, String)> {
    loop {
        match told(watch).await {
            Some((_, None)) => {}
            Some((name, Some(value))) => return Some((name, value)),
            None => return None,
        }
    }
}

fn says(name: &str, value: &str) -> Option<(String, String)> {
    Some((name.into(), value.into()))
}

#[tokio::test]
async fn an_observer_hears_the_whole_story() {
    let (a, b) = pair("story").await;
    let onlooker = named("story", "onlooker").await;
    let watch = onlooker.election("e").unwrap().observe().await.unwrap();
    assert_eq!(told(&watch).await, None, "it begins with the present");
    // Another election whose name begins alike is another story.
    let _other = bounded(a.election("e2").unwrap().campaign("other")).await.unwrap();
    let term = bounded(a.election("e").unwrap().campaign("1")).await.unwrap();
    assert_eq!(told_value(&watch).await, says("a", "1"));
    term.proclaim("2").await.unwrap();
    assert_eq!(told_value(&watch).await, says("a", "2"));

    let next = campaign(&b, "3", 0);
    candidates(&a.election("e").unwrap(), &[&b]).await;
    term.resign().await.unwrap();
    let next = bounded(next).await.unwrap().unwrap();
    assert_eq!(told(&watch).await, None, "a moment without a leader between two terms");
    assert_eq!(told_value(&watch).await, says("b", "3"));

    // A second observer of this client begins with the present, too.
    let late = onlooker.election("e").unwrap().observe().await.unwrap();
    assert_eq!(told_value(&late).await, says("b", "3"));

    drop(next);
    assert_eq!(told(&watch).await, None);
    assert_eq!(told(&late).await, None);
    let term = bounded(a.election("e").unwrap().campaign("4")).await.unwrap();
    assert_eq!(told_value(&watch).await, says("a", "4"));
    bounded(a.close(BOUND)).await.unwrap();
    assert_eq!(told(&watch).await, None, "the leader's client was closed");
    assert!(term.check().is_err());

    let waits = tokio::spawn(async move { watch.next().await });
    bounded(onlooker.close(BOUND)).await.unwrap();
    assert_eq!(bounded(waits).await.unwrap().unwrap_err().code(), Code::Closed);
    assert_eq!(onlooker.election("e").unwrap().observe().await.unwrap_err().code(), Code::Closed);
}

#[tokio::test]
async fn a_wait_for_an_event_can_be_given_up() {
    let (a, b) = pair("watch-cancel").await;
    let watch = Arc::new(b.election("e").unwrap().observe().await.unwrap());
    let election = a.election("e").unwrap();
    let mut open = false;
    for round in 0..100 {
        let waiting = tokio::spawn({
            let watch = watch.clone();
            async move { watch.next().await }
        });
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        let term = bounded(election.campaign("v")).await.unwrap();
        waiting.abort();
        if let Ok(event) = waiting.await {
            open = matches!(event.unwrap(), LeaderEvent::Leader(_));
        }
        // Whatever was given up: no event is lost and none comes twice, so leaders and moments without one alternate.
        loop {
            match told(&watch).await {
                None => {
                    assert!(open || round == 0, "nobody leads, twice");
                    open = false;
                }
                Some((_, None)) => open = true,
                Some((_, Some(_))) => {
                    open = true;
                    break;
                }
            }
        }
        term.resign().await.unwrap();
    }
}
