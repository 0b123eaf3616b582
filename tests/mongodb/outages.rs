//! What an outage must not do: leave a stream where it is for ever, or let somebody take for true what is undone later.

use std::sync::Arc;
use std::time::Duration;

use coord_core::bson::doc;
use coord_core::error::Code;
use coord_core::protocol::claim::{ClaimKey, ClaimStep, Entry, Step};
use coord_core::protocol::document::{Action, Condition, Fence, Filter, Key, TableName, Update, Write};
use coord_core::store::changes::{Change, Changes, Interest};
use coord_core::store::documents::{Event, WatchOptions};
use coord_core::store::mongodb::MongoStore;
use coord_core::store::{ClaimQuery, Notice, Store};
use coord_tests::servers::{Mongod, ReplicaSet, SetOptions};
use futures::StreamExt;
use mongodb::bson::Document;
use mongodb::{Client, Collection};

use super::support::*;

/// Lets a member take nothing more over from the others. It stays a member that answers.
fn stop_replication(member: &Mongod) {
    let stop = doc! { "configureFailPoint": "stopReplProducer", "mode": "alwaysOn" };
    let before = i64::from(member.command(stop).unwrap().get_i32("count").unwrap());
    let hello = member.command(doc! { "hello": 1 }).unwrap();
    // A primary takes nothing over.
    if !hello.get_bool("isWritablePrimary").unwrap() {
        let wait = doc! { "waitForFailPoint": "stopReplProducer", "timesEntered": before + 1, "maxTimeMS": 30_000 };
        member.command(wait).unwrap();
    }
}

fn go_on_replicating(member: &Mongod) {
    member.command(doc! { "configureFailPoint": "stopReplProducer", "mode": "off" }).unwrap();
}

/// Releases until it is acknowledged: a failed try may have been applied. The token of whoever has it then.
async fn released(store: &MongoStore, key: &ClaimKey, entry: Entry) -> i64 {
    let step = ClaimStep::Step(Step::remove(entry, Vec::new()));
    until("a release", async || store.apply_claim(key.clone(), step.clone()).await.ok()).await;
    until("a read", async || store.claims(ClaimQuery::Keys(vec![key.clone()])).await.ok()).await[0].token
}

async fn next_change(changes: &mut Changes) -> Change {
    tokio::time::timeout(PATIENCE, changes.next()).await.expect("a change in time").expect("a stream without end")
}

/// The oplog rolls over while a client does not reach the server: its last places are no places any more.
#[test]
fn streams_begin_anew_when_an_outage_was_longer_than_the_history() {
    let Some(set) = ReplicaSet::with(SetOptions { oplog_mb: 4, ..SetOptions::of(1) }) else { return };
    run(async {
        let store = open(&format!("{}&appName=cut", set.uri())).await;
        let (key, holder, waiter) = (key("a"), entry(session(), 1), entry(session(), 1));
        let mut notices = store.notices(waiter.session).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        let interest = Interest { claims: vec![key.as_str().to_owned()], sessions: false };
        let mut changes = store.changes(interest).await.unwrap();
        assert!(matches!(next_change(&mut changes).await, Change::Snapshot(_)));
        // So that each has a place.
        acquire(&store, &key, waiter).await;
        assert!(matches!(next(&mut notices).await, Notice::Granted { .. }));
        assert!(matches!(next_change(&mut changes).await, Change::Claim(_)));
        release(&store, &key, waiter).await;
        acquire(&store, &key, holder).await;
        acquire(&store, &key, waiter).await;

        let cut = doc! { "failCommands": ["getMore", "aggregate"], "appName": "cut", "closeConnection": true };
        set.command(doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": cut }).unwrap();
        while next_change(&mut changes).await != Change::Interrupted {}
        let others = Client::with_uri_str(set.uri()).await.unwrap();
        let large = "x".repeat(1 << 20);
        let filler = others.database("app").collection::<Document>("filler");
        let mark = others.database("app").run_command(doc! { "insert": "filler", "documents": [{}] }).await.unwrap();
        let mark = mark.get_timestamp("operationTime").unwrap();
        let oplog: Collection<Document> = others.database("local").collection("oplog.rs");
        until("the oplog to have rolled over", async || {
            for _ in 0..8 {
                filler.insert_one(doc! { "x": &large }).await.ok()?;
            }
            // It keeps what came after the last checkpoint, which this makes.
            set.command(doc! { "fsync": 1 }).ok()?;
            let oldest = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.ok()??;
            (oldest.get_timestamp("ts").ok()? > mark).then_some(())
        })
        .await;
        set.command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).unwrap();

        assert_eq!(next(&mut notices).await, Notice::Gap);
        assert!(matches!(next_change(&mut changes).await, Change::Snapshot(_)));
        let token = released(&store, &key, holder).await;
        assert_eq!(next_notice(&mut notices).await, Notice::Granted { key, entry: waiter, token });
        store.close().await;
    });
}

/// A cursor outlives the term of the server that has it, and one that is cut off from its set has nothing to tell.
#[test]
fn streams_leave_a_server_that_is_primary_no_more() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    run(async {
        let store = open(&set.uri()).await;
        let documents = store.documents().unwrap();
        let table = TableName::parse("t").unwrap();
        let mut changes = documents.watch(&table, WatchOptions::default()).await.unwrap();
        let (key, holder, waiter) = (key("a"), entry(session(), 1), entry(session(), 1));
        let mut notices = store.notices(waiter.session).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        acquire(&store, &key, holder).await;
        acquire(&store, &key, waiter).await;

        let cut_off = blocking({
            let set = set.clone();
            move || {
                let before = set.primary();
                stop_replication(before);
                set.step_down();
                before.port()
            }
        })
        .await;
        until("a write", async || documents.write(&table, Write::new(Key::from(1), Action::Put(doc! {}))).await.ok())
            .await;
        released(&store, &key, holder).await;
        let told = async {
            loop {
                match changes.next().await.expect("no end").expect("an event") {
                    Event::Change(change) => return change.key,
                    Event::Progress(_) | Event::Gap(_) => {}
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, told).await.expect("a change in time"), Key::from(1));
        assert!(matches!(next_notice(&mut notices).await, Notice::Granted { entry, .. } if entry == waiter));
        let cut_off = set.members().iter().find(|member| member.port() == cut_off).unwrap();
        go_on_replicating(cut_off);
        store.close().await;
    });
}

/// A primary whose secondaries do not follow has writes that may be undone, and refuses others by them.
#[test]
fn what_only_the_primary_has_refuses_nothing() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    run(async {
        let store = MongoStore::open(&set.uri(), &prefix(), 20, Duration::from_secs(4), env()).await.unwrap();
        let documents = store.documents().unwrap();
        let table = TableName::parse("t").unwrap();
        let (lock, holder) = (key("a"), entry(session(), 1));
        let token = until("a lock", async || {
            let step = Step::acquire(holder, true, 256, Vec::new());
            store.apply_claim(lock.clone(), ClaimStep::Step(step)).await.ok()
        })
        .await
        .unwrap()
        .token;
        let fence = Fence { lock, holder, token, strict: false };
        let of = |key: &str, action| Write::new(Key::new(key).unwrap(), action);
        let fenced = |write| Write { fence: Some(fence.clone()), ..write };
        let set_by = |who: &str| Action::Update(Update::parse(doc! { "$set": { "by": who } }).unwrap());
        let mut revision = None;
        for write in [
            fenced(of("makes what fences need", Action::Put(doc! {}))),
            of("gone", Action::Put(doc! {})),
            of("there", Action::Put(doc! { "n": 1 })),
        ] {
            revision = until("a write", async || documents.write(&table, write.clone()).await.ok()).await.revision;
        }

        let secondaries = blocking({
            let set = set.clone();
            move || {
                let secondaries = set.secondaries();
                secondaries.iter().for_each(|secondary| stop_replication(secondary));
                secondaries.iter().map(|secondary| secondary.port()).collect::<Vec<_>>()
            }
        })
        .await;
        let insert = || of("new", Action::Insert(doc! {}));
        for write in [insert(), of("there", set_by("nobody knows")), of("gone", Action::Delete)] {
            let error = documents.write(&table, write).await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{error}");
        }
        let refused = [
            (insert(), Code::AlreadyExists),
            (fenced(insert()), Code::AlreadyExists),
            (
                Write { condition: Condition::Revision(revision.unwrap()), ..of("there", Action::Replace(doc! {})) },
                Code::Conflict,
            ),
            (fenced(of("gone", set_by("us"))), Code::NotFound),
            (of("gone", Action::Delete), Code::NotFound),
        ];
        for (write, _) in &refused {
            let error = documents.write(&table, write.clone()).await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{write:?}: {error}");
        }
        set.members().iter().filter(|member| secondaries.contains(&member.port())).for_each(go_on_replicating);
        // Now a majority has it.
        for (write, code) in refused {
            until("a refusal", async || {
                let error = documents.write(&table, write.clone()).await.unwrap_err();
                (error.code() != Code::Unavailable).then(|| assert_eq!(error.code(), code, "{error}"))
            })
            .await;
        }
        assert_eq!(documents.count(&table, Filter::default()).await.unwrap(), 3);
        store.close().await;
    });
}
