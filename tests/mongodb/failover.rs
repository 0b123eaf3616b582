//! What the store promises while servers fail.

use coord_core::error::Code;
use coord_core::protocol::claim::{ClaimKey, ClaimStep, Entry, Step};
use coord_core::store::mongodb::MongoStore;
use coord_core::store::{ClaimQuery, Notice, Store};
use coord_tests::servers::ReplicaSet;
use std::sync::Arc;
use std::time::Duration;

use super::support::*;

#[test]
fn an_acquire_that_no_majority_has_acknowledged_is_an_error() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    // Every option here would let a single server answer for the set.
    let hostile = "&w=1&journal=false&wtimeoutMS=1&readPreference=secondaryPreferred&readConcernLevel=local\
                   &retryWrites=false&retryReads=false&maxPoolSize=1&heartbeatFrequencyMS=60000\
                   &connectTimeoutMS=60000&serverSelectionTimeoutMS=60000";
    run(async {
        let uri = set.uri() + hostile;
        let ttl = Duration::from_secs(3);
        let store = MongoStore::open(&uri, &prefix(), 20, ttl, env()).await.unwrap();
        for option in [
            "option w ",
            "journal=false",
            "wtimeoutMS",
            "readConcernLevel",
            "option readPreference",
            "retryWrites=false",
            "retryReads=false",
            "maxPoolSize",
            "heartbeatFrequencyMS",
            "connectTimeoutMS",
            "serverSelectionTimeoutMS",
        ] {
            assert_eq!(warnings(option).len(), 1, "one warning for {option}");
        }
        assert!(!warnings("a ttl of 3.0 s is short").is_empty());

        let (key, me) = (key("a"), entry(session(), 1));
        let frozen = blocking({
            let set = Arc::clone(&set);
            move || {
                let secondaries = set.secondaries();
                secondaries.iter().for_each(|secondary| secondary.freeze());
                secondaries.iter().map(|secondary| secondary.port()).collect::<Vec<_>>()
            }
        })
        .await;
        let acquire = Step::acquire(me, true, 256, Vec::new());
        let error = store.apply_claim(key.clone(), ClaimStep::Step(acquire)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        let error = store.apply_session(session(), open_step(1)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        let error = store.health().await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");

        let other = prefix();
        let opening = MongoStore::open(&uri, &other, 20, ttl, env());
        assert_eq!(opening.await.err().map(|error| error.code()), Some(Code::Unavailable), "nor does a new one open");

        set.members().iter().filter(|member| frozen.contains(&member.port())).for_each(|member| member.thaw());
        let held = until("an acknowledged acquire", async || {
            let acquire = Step::acquire(me, true, 256, Vec::new());
            store.apply_claim(key.clone(), ClaimStep::Step(acquire)).await.ok()
        })
        .await
        .unwrap();
        assert_eq!(held.holder, Some(me));
        until("health", async || store.health().await.ok()).await;
        store.close().await;
    });
}

#[test]
fn the_stream_and_what_was_acknowledged_survive_every_failover() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    run(async {
        let store = open(&set.uri()).await;
        let me = session();
        let mut notices = store.notices(me).await.unwrap();
        let first = entry(me, 0);
        let key = key("a");
        let mut holder = first;
        acquire(&store, &key, first).await;

        for (attempt, fault) in (1..).zip([step_down, kill, freeze]) {
            let next = entry(me, attempt);
            assert!(acquire(&store, &key, next).await.waiting);
            let repair = blocking({
                let set = Arc::clone(&set);
                move || fault(&set)
            })
            .await;
            // From the new primary, as soon as it answers.
            let all = until("a read", async || store.claims(ClaimQuery::Of(me)).await.ok()).await;
            assert_eq!((all[0].holder, &all[0].waiters), (Some(holder), &vec![next]));
            let token = hand_over(&store, &key, holder, next).await;
            let granted = Notice::Granted { key: key.clone(), entry: next, token };
            // Not by a poll: the stream itself goes on where it was.
            while next_notice(&mut notices).await != granted {}
            let all = store.claims(ClaimQuery::HeldBy(me)).await.unwrap();
            assert_eq!(all[0].holder, Some(next));
            holder = next;
            repair(&set);
            blocking({
                let set = Arc::clone(&set);
                move || drop(set.secondaries())
            })
            .await;
        }
        store.close().await;
    });
}

type Repair = fn(&ReplicaSet);

fn step_down(set: &ReplicaSet) -> Repair {
    set.step_down();
    |_| {}
}

fn kill(set: &ReplicaSet) -> Repair {
    set.primary().kill();
    |set| {
        for member in set.members() {
            if !member.is_running() {
                member.restart();
            }
        }
    }
}

fn freeze(set: &ReplicaSet) -> Repair {
    set.primary().freeze();
    |set| set.members().iter().filter(|member| !member.is_running()).for_each(|member| member.thaw())
}

/// Releases until it is acknowledged: a failed try may have been applied.
async fn hand_over(store: &MongoStore, key: &ClaimKey, from: Entry, to: Entry) -> i64 {
    until("a release", async || {
        let release = Step::remove(from, Vec::new());
        store.apply_claim(key.clone(), ClaimStep::Step(release)).await.ok()
    })
    .await;
    let claim = store.claims(ClaimQuery::Keys(vec![key.clone()])).await.unwrap();
    assert_eq!(claim[0].holder, Some(to));
    claim[0].token
}
