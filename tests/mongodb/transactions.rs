//! Transactions and writes to many documents, among which others write, or in the midst of which a process dies.

use std::sync::Arc;
use std::time::Duration;

use coord_core::error::Code;
use coord_core::protocol::claim::{ClaimKey, ClaimStep, Entry, Step};
use coord_core::protocol::document::{Action, Condition, Fence, Filter, Key, TableName, Update, Write};
use coord_core::protocol::session::{KillProof, Nonce, SessionId, SessionStep, Vitality};
use coord_core::store::Store;
use coord_core::store::documents::{ManyAction, ManyWritten, WriteMany};
use coord_core::store::mongodb::MongoStore;
use coord_tests::servers::ReplicaSet;
use mongodb::Client;
use mongodb::bson::{Document, doc};

use super::faults::{fail, server, struck, times, uri};
use super::support::*;

/// Its caller has long been told that nobody knows what came of it.
#[test]
fn a_transaction_that_was_given_up_is_never_committed() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let prefix = prefix();
        // Requests are waited for one second.
        let store = MongoStore::open(&uri(set), &prefix, 20, Duration::from_secs(3), env()).await.unwrap();
        let (documents, table) = (store.documents().unwrap(), TableName::parse("t").unwrap());
        let client = Client::with_uri_str(set.uri()).await.unwrap();
        let plain = client.database("coord").collection::<Document>(&format!("{prefix}t_t"));
        let (lock, holder) = (key("a"), entry(session(), 1));
        let step = ClaimStep::Step(Step::acquire(holder, true, 256, Vec::new()));
        let held = until("a lock", async || store.apply_claim(lock.clone(), step.clone()).await.ok()).await.unwrap();
        let fence = Fence { lock, holder, token: held.token, strict: true };
        let put = |key: i64| Write { fence: Some(fence.clone()), ..Write::new(Key::from(key), Action::Put(doc! {})) };
        until("a fenced write", async || documents.write(&table, put(0)).await.ok()).await;

        for (key, command) in [(1, "find"), (2, "commitTransaction")] {
            let cut = doc! { "failCommands": [command], "appName": "faulty", "closeConnection": true };
            let before = fail(set, "alwaysOn".into(), cut);
            let error = documents.write(&table, put(key)).await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{error}");
            struck(set, before + 1);
            if command == "commitTransaction" {
                // All that it has locked is free again, though its commit did not get through.
                until("no transaction", async || {
                    let status = set.members()[0].command(doc! { "serverStatus": 1 }).ok()?;
                    let open = status.get_document("transactions").ok()?.get_i64("currentOpen").ok()?;
                    (open == 0).then_some(())
                })
                .await;
            }
            fail(set, "off".into(), doc! {});
            // Only time tells that it does not come.
            let end = tokio::time::Instant::now() + Duration::from_secs(4);
            while tokio::time::Instant::now() < end {
                assert_eq!(plain.find_one(doc! { "_id": key }).await.unwrap(), None, "written after all: {command}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            until("another write", async || documents.write(&table, put(key)).await.ok()).await;
        }
        store.close().await;
    });
}

/// The server would keep it, and the lock in it, for a minute.
#[test]
fn a_transaction_of_the_dead_ends_with_their_session() {
    let Some((set, _turn)) = server() else { return };
    run(let_one_die_in_a_transaction(set, &set.uri(), &prefix()));
}

/// Somebody dies in the midst of a strict write: a successor has the lock and the document as soon as the session is dead.
pub(crate) async fn let_one_die_in_a_transaction(set: &ReplicaSet, uri: &str, prefix: &str) {
    // Requests are waited for one second.
    let ttl = Duration::from_secs(3);
    let dying = MongoStore::open(&format!("{uri}&appName=faulty"), prefix, 20, ttl, env()).await.unwrap();
    let other = MongoStore::open(uri, prefix, 20, TTL, env()).await.unwrap();
    let hasty = MongoStore::open(uri, prefix, 20, ttl, env()).await.unwrap();
    let client = Client::with_uri_str(uri).await.unwrap();
    let records = client.database("coord").collection::<Document>(&format!("{prefix}sessions"));
    // By default it is a minute.
    let keep = |seconds: i32| set.command(doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": seconds });
    keep(3_600).unwrap();
    let table = TableName::parse("t").unwrap();
    let write = async |store: &MongoStore, lock: &ClaimKey, holder: Entry, token| {
        let fence = Some(Fence { lock: lock.clone(), holder, token, strict: true });
        let write = Write { fence, ..Write::new(Key::from(1), Action::Put(doc! {})) };
        store.documents().unwrap().write(&table, write).await
    };
    // What a process writes in is named in the record of the session that holds, whichever it has opened since.
    for (whole, sibling) in [(true, None), (true, Some(Vitality::Live)), (true, Some(Vitality::Dead)), (false, None)] {
        let id = session();
        let open = async |id| until("a session", async || dying.apply_session(id, open_step(1)).await.ok()).await;
        let opened = open(id).await.unwrap();
        if let Some(vitality) = sibling {
            let sibling = session();
            open(sibling).await;
            if vitality == Vitality::Dead {
                until("its end", async || dying.apply_session(sibling, SessionStep::Close).await.ok()).await;
            }
        }
        let (lock, holder) = (key(&id.to_string()), entry(id, 1));
        let step = ClaimStep::Step(Step::acquire(holder, true, 256, Vec::new()));
        let held = until("a lock", async || dying.apply_claim(lock.clone(), step.clone()).await.ok()).await.unwrap();
        until("a strict write", async || write(&dying, &lock, holder, held.token).await.ok()).await;

        let held_up = doc! {
            "failCommands": ["find"], "appName": "faulty", "blockConnection": true, "blockTimeMS": 300_000,
        };
        let before = fail(set, "alwaysOn".into(), held_up);
        let error = write(&dying, &lock, holder, held.token).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        struck(set, before + 1);

        let sweep = ClaimStep::Step(Step::sweep(id));
        let swept = if whole {
            let kill = SessionStep::Kill(KillProof::Observed(opened.nonce));
            let killed = other.apply_session(id, kill).await.unwrap().expect("a record");
            assert_eq!(killed.vitality, Vitality::Dead);
            // A server waits for ten seconds until it refuses this.
            other.apply_claim(lock.clone(), sweep).await.expect("the lock can be changed")
        } else {
            // Whoever buried the session has died before he did the rest.
            let buried = doc! { "$set": { "st": "dead", "died": mongodb::bson::DateTime::now() } };
            records.update_one(doc! { "_id": id.to_string() }, buried).await.unwrap();
            until("the lock", async || hasty.apply_claim(lock.clone(), sweep.clone()).await.ok()).await
        };
        assert_eq!(swept.expect("it is there").holder, None);
        let next = entry(session(), 1);
        let token = acquire(&other, &lock, next).await.token;
        write(&other, &lock, next, token).await.expect("the document can be written");
        fail(set, "off".into(), doc! {});
    }
    keep(60).unwrap();
    for store in [dying, other, hasty] {
        store.close().await;
    }
}

/// A driver session is named once, and used again, for as long as the session whose record names it is open here.
#[test]
fn each_hold_is_written_under_in_what_the_record_of_its_session_names() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let prefix = prefix();
        let store = MongoStore::open(&uri(set), &prefix, 20, TTL, env()).await.unwrap();
        let (documents, table) = (store.documents().unwrap(), TableName::parse("t").unwrap());
        let client = Client::with_uri_str(set.uri()).await.unwrap();
        let records = client.database("coord").collection::<Document>(&format!("{prefix}sessions"));
        let named = async |id: SessionId| {
            let record = records.find_one(doc! { "_id": id.to_string() }).await.unwrap().unwrap();
            record.get_array("tx").map_or(0, Vec::len)
        };
        let write = async |fence: Option<Fence>| {
            let put = Write { fence, ..Write::new(Key::from(1), Action::Put(doc! {})) };
            documents.write(&table, put).await.unwrap()
        };
        // Under no hold, and in a transaction for what it must look at.
        let replace = async || {
            let condition = Condition::Revision(write(None).await.revision.unwrap());
            let replace = Write { condition, ..Write::new(Key::from(1), Action::Replace(doc! { "n": 1 })) };
            documents.write(&table, replace).await.unwrap();
        };
        let mut holds = Vec::new();
        for _ in 0..3 {
            let id = opened(&store).await.id;
            let (lock, holder) = (key(&id.to_string()), entry(id, 1));
            let token = acquire(&store, &lock, holder).await.token;
            holds.push(Fence { lock, holder, token, strict: true });
        }
        let [quiet, first, second] = [0, 1, 2].map(|index: usize| holds[index].holder.session);
        for fence in [&holds[1], &holds[2], &holds[1], &holds[2]] {
            write(Some(fence.clone())).await;
        }
        assert_eq!((named(quiet).await, named(first).await, named(second).await), (0, 1, 1));

        for closed in [first, second] {
            store.apply_session(closed, SessionStep::Close).await.unwrap().expect("a record");
        }
        // One that was never open: the server refuses it.
        fail(set, times(1), doc! { "failCommands": ["findAndModify"], "appName": "faulty", "errorCode": 13 });
        store.apply_session(session(), open_step(1)).await.unwrap_err();
        replace().await;
        assert_eq!(named(quiet).await, 1, "any session will do that is open");
        write(Some(holds[0].clone())).await;
        replace().await;
        assert_eq!(named(quiet).await, 1, "and it is used again");

        // It is lost, and its hold is not ended yet.
        let kill = SessionStep::Kill(KillProof::Observed(Some(Nonce(1))));
        let other = MongoStore::open(&set.uri(), &prefix, 20, TTL, env()).await.unwrap();
        other.apply_session(quiet, kill).await.unwrap().expect("a record");
        let renew = SessionStep::Renew { accept: vec![Nonce(1)], nonce: Nonce(2) };
        assert_eq!(store.apply_session(quiet, renew).await.unwrap(), None);
        let next = opened(&store).await.id;
        write(Some(holds[0].clone())).await;
        replace().await;
        assert_eq!((named(quiet).await, named(next).await), (1, 1));
        for store in [store, other] {
            store.close().await;
        }
    });
}

/// Writes to many under a hold.
async fn count_up(store: &MongoStore, filter: Document, fence: &Fence) -> ManyWritten {
    let update = Update::parse(doc! { "$inc": { "written": 1 } }).unwrap();
    let (filter, action) = (Filter::parse(filter).unwrap(), ManyAction::Update(update));
    let many = WriteMany { filter, action, fence: Some(fence.clone()), source: None };
    store.documents().unwrap().write_many(&TableName::parse("t").unwrap(), many).await.unwrap()
}

/// What is written under the same hold meanwhile makes a document known that was listed as new.
#[test]
fn an_update_of_many_comes_to_each_once() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        // Names of a few bytes, and too many bytes of names for one command.
        for large in [0, 34] {
            let prefix = prefix();
            let store = Arc::new(MongoStore::open(&uri(set), &prefix, 20, TTL, env()).await.unwrap());
            let other = MongoStore::open(&set.uri(), &prefix, 20, TTL, env()).await.unwrap();
            let client = Client::with_uri_str(set.uri()).await.unwrap();
            let plain = client.database("coord").collection::<Document>(&format!("{prefix}t_t"));
            let (lock, holder) = (key("a"), entry(session(), 1));
            let token = acquire(&other, &lock, holder).await.token;
            let fence = Fence { lock, holder, token, strict: false };
            plain.insert_many([doc! { "_id": "known" }, doc! { "_id": "new" }]).await.unwrap();
            for n in 0..large {
                plain.insert_one(doc! { "_id": format!("{n}{}", "x".repeat(1 << 19)) }).await.unwrap();
            }
            assert_eq!(count_up(&other, doc! { "_id": "known" }, &fence).await.count, 1);

            let slow = doc! { "failCommands": ["update"], "appName": "faulty", "blockConnection": true,
            "blockTimeMS": 1_000 };
            let before = fail(set, times(1), slow);
            let all = tokio::spawn({
                let (store, fence) = (Arc::clone(&store), fence.clone());
                async move { count_up(&store, doc! {}, &fence).await }
            });
            struck(set, before + 1);
            assert_eq!(count_up(&other, doc! { "_id": "new" }, &fence).await.count, 1);
            assert_eq!(all.await.unwrap().count, 2 + large);
            let twice = plain.count_documents(doc! { "_id": { "$in": ["known", "new"] }, "written": 2 }).await.unwrap();
            let once = plain.count_documents(doc! { "written": 1 }).await.unwrap();
            assert_eq!((twice, once), (2, large), "of two updates, and of one");
            store.close().await;
            other.close().await;
        }
    });
}

/// A server shows a document again that somebody moves ahead of its reading, in the index that this goes along.
#[test]
fn a_document_that_is_listed_twice_is_written_once() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let prefix = prefix();
        let store = Arc::new(MongoStore::open(&uri(set), &prefix, 20, TTL, env()).await.unwrap());
        let client = Client::with_uri_str(set.uri()).await.unwrap();
        let plain = client.database("coord").collection::<Document>(&format!("{prefix}t_t"));
        let by_n = mongodb::IndexModel::builder().keys(doc! { "n": 1 }).build();
        plain.create_index(by_n).await.unwrap();
        // More than the first batch has.
        plain.insert_many((0..110_i64).map(|n| doc! { "_id": n, "n": n })).await.unwrap();
        let (lock, holder) = (key("a"), entry(session(), 1));
        let token = acquire(&store, &lock, holder).await.token;
        let fence = Fence { lock, holder, token, strict: false };

        let slow =
            doc! { "failCommands": ["getMore"], "appName": "faulty", "blockConnection": true, "blockTimeMS": 1_000 };
        let before = fail(set, times(1), slow);
        let all = tokio::spawn({
            let store = Arc::clone(&store);
            async move { count_up(&store, doc! { "n": { "$gte": 0 } }, &fence).await }
        });
        struck(set, before + 1);
        plain.update_one(doc! { "_id": 0 }, doc! { "$set": { "n": 1_000 } }).await.unwrap();
        assert_eq!(all.await.unwrap().count, 110);
        assert_eq!(plain.count_documents(doc! { "written": 1 }).await.unwrap(), 110);
        store.close().await;
    });
}
