//! Elections while servers fail: leadership goes on where the session could be renewed in time, ends locally first where it
//! could not, and whoever looks on is told no end that was none.

use std::sync::Arc;
use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::election::{CandidacyOptions, LeaderEvent, LeaderWatch};
use coord_core::error::LossReason;
use coord_tests::servers::ReplicaSet;

use super::support::*;

async fn connect(set: &ReplicaSet, prefix: &str, name: &str, ttl: Duration) -> Client {
    let uri = set.uri();
    let separator = if uri.contains('?') { '&' } else { '?' };
    let options = Options::parse(&format!("{uri}{separator}coord.prefix={prefix}"));
    let options = options.and_then(|options| options.name(name)).and_then(|options| options.ttl(ttl)).unwrap();
    until("a connection", async || Client::connect(options.clone()).await.ok()).await
}

async fn next(watch: &LeaderWatch) -> LeaderEvent {
    tokio::time::timeout(PATIENCE * 2, watch.next()).await.expect("an event in time").unwrap()
}

/// The token and value of the next leader who has published; none for a moment without.
async fn leader(watch: &LeaderWatch) -> Option<(i64, String)> {
    loop {
        match next(watch).await {
            LeaderEvent::Leader(leader) => {
                if let Some(value) = leader.value {
                    return Some((leader.token, value));
                }
            }
            _ => return None,
        }
    }
}

#[test]
fn leadership_and_its_story_survive_a_step_down_and_a_restart_of_all_members() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    run(async {
        let prefix = prefix();
        let (a, b) = (connect(&set, &prefix, "a", TTL).await, connect(&set, &prefix, "b", TTL).await);
        let onlooker = connect(&set, &prefix, "onlooker", TTL).await;
        let first = a.election("e").unwrap().when_elected("a", CandidacyOptions::default()).unwrap();
        let elected = tokio::time::timeout(PATIENCE, first.next()).await.unwrap().unwrap();
        let term = elected.term().clone();
        let second = b.election("e").unwrap().when_elected("b", CandidacyOptions::default()).unwrap();
        let watch = onlooker.election("e").unwrap().observe().await.unwrap();
        assert_eq!(leader(&watch).await, Some((term.token(), "a".into())));
        until("a candidate", async || {
            let waiting = onlooker.election("e").unwrap().candidates().await.ok()?;
            (waiting.len() == 1).then_some(())
        })
        .await;

        let faults: [fn(&ReplicaSet); 2] = [
            |set| set.step_down(),
            |set| {
                set.members().iter().for_each(|member| member.kill());
                set.members().iter().for_each(|member| member.restart());
            },
        ];
        for (number, fault) in faults.into_iter().enumerate() {
            let failing = set.clone();
            blocking(move || fault(&failing)).await;
            // Waits until the store can be written to again; the term is the same.
            let value = format!("after {number}");
            tokio::time::timeout(PATIENCE * 2, term.proclaim(&value)).await.expect("a majority").unwrap();
            term.check().unwrap();
            // The very next event: the story has no end of a term that goes on.
            assert_eq!(leader(&watch).await, Some((term.token(), value)));
        }

        term.resign().await.unwrap();
        elected.complete(Ok(())).unwrap();
        let elected = tokio::time::timeout(PATIENCE, second.next()).await.unwrap().unwrap();
        assert!(elected.term().token() > term.token());
        assert_eq!(leader(&watch).await, None);
        assert_eq!(leader(&watch).await, Some((elected.term().token(), "b".into())));
        elected.term().check().unwrap();
        for client in [a, b, onlooker] {
            drop(client.close(PATIENCE).await);
        }
    });
}

#[test]
fn without_a_majority_a_term_ends_here_before_the_next_begins() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    run(async {
        let prefix = prefix();
        let short = Duration::from_secs(3);
        let (a, b) = (connect(&set, &prefix, "a", short).await, connect(&set, &prefix, "b", short).await);
        let onlooker = connect(&set, &prefix, "onlooker", short).await;
        let candidacy = a.election("e").unwrap().when_elected("a", CandidacyOptions::default()).unwrap();
        let elected = tokio::time::timeout(PATIENCE, candidacy.next()).await.unwrap().unwrap();
        let term = elected.term().clone();
        let watch = onlooker.election("e").unwrap().observe().await.unwrap();
        assert_eq!(leader(&watch).await, Some((term.token(), "a".into())));
        let next_term = tokio::spawn({
            let election = b.election("e").unwrap();
            async move { election.campaign("b").await }
        });

        let freezing = set.clone();
        let frozen = blocking(move || {
            let secondaries = freezing.secondaries();
            secondaries.iter().for_each(|secondary| secondary.freeze());
            secondaries.iter().map(|secondary| secondary.port()).collect::<Vec<_>>()
        })
        .await;
        assert_eq!(tokio::time::timeout(PATIENCE, term.lost()).await.unwrap(), LossReason::Expired);
        assert!(term.check().is_err() && !a.election("e").unwrap().is_leader());
        set.members().iter().filter(|member| frozen.contains(&member.port())).for_each(|member| member.thaw());

        // The function has not returned, so its client's session keeps the claim, unless others have declared it dead.
        elected.complete(Err("its term is over".into())).unwrap();
        let next_term = tokio::time::timeout(PATIENCE * 2, next_term).await.unwrap().unwrap();
        let token = match next_term {
            Ok(next_term) => {
                next_term.check().unwrap();
                assert!(next_term.token() > term.token());
                next_term.token()
            }
            // Its session died in the outage; the client has a new one.
            Err(error) => {
                assert!(error.loss().is_some(), "{error}");
                candidacy_token(&candidacy, term.token()).await
            }
        };
        // The story goes on, in order, until it comes to the present leader.
        let mut last = Some(term.token());
        while last != Some(token) {
            let now = leader(&watch).await.map(|(token, _)| token);
            match (last, now) {
                (Some(before), Some(now)) => assert_eq!(before, now, "two terms without a moment between them"),
                (None, None) => panic!("nobody leads, twice"),
                _ => {}
            }
            last = now;
        }
        for client in [a, b, onlooker] {
            drop(client.close(PATIENCE).await);
        }
    });
}

async fn candidacy_token(candidacy: &coord_core::election::Candidacy, after: i64) -> i64 {
    let elected = tokio::time::timeout(PATIENCE * 2, candidacy.next()).await.unwrap().unwrap();
    assert!(elected.term().token() > after);
    let token = elected.term().token();
    elected.complete(Ok(())).unwrap();
    token
}
