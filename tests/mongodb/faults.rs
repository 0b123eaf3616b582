//! Faults that the server itself plays: commands that fail, hang, or lose their connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coord_core::error::Code;
use coord_core::protocol::claim::{ClaimKey, ClaimStep, ClaimView, Entry, Step};
use coord_core::protocol::document::{Action, Key, TableName, Write};
use coord_core::protocol::session::{Nonce, SessionStep};
use coord_core::store::documents::{From, WatchOptions};
use coord_core::store::mongodb::{MongoStore, testing};
use coord_core::store::{ClaimQuery, Notice, Store};
use coord_tests::servers::ReplicaSet;
use futures::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use once_cell::sync::Lazy;

use super::support::*;

static SET: Lazy<Option<ReplicaSet>> = Lazy::new(|| ReplicaSet::start(1));

/// The server has one point of failure for all.
static TURN: Mutex<()> = Mutex::new(());

/// A server that is ours until the end of the test.
pub(crate) fn server() -> Option<(&'static ReplicaSet, MutexGuard<'static, ()>)> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let set = SET.as_ref()?;
    fail(set, "off".into(), doc! {});
    Some((set, turn))
}

pub(crate) fn fail(set: &ReplicaSet, mode: mongodb::bson::Bson, data: Document) -> i64 {
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    i64::from(set.members()[0].command(command).unwrap().get_i32("count").unwrap())
}

/// Waits until the fault has struck this often since `before`.
pub(crate) fn struck(set: &ReplicaSet, times: i64) {
    let wait = doc! { "waitForFailPoint": "failCommand", "timesEntered": times, "maxTimeMS": 30_000 };
    set.members()[0].command(wait).unwrap();
}

pub(crate) fn uri(set: &ReplicaSet) -> String {
    format!("{}&appName=faulty", set.uri())
}

pub(crate) fn times(n: i32) -> mongodb::bson::Bson {
    doc! { "times": n }.into()
}

#[test]
fn a_write_concern_error_is_an_error() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = open(&uri(set)).await;
        let data = doc! { "failCommands": ["findAndModify"], "appName": "faulty",
        "writeConcernError": { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting timed out" } };
        fail(set, times(3), data);
        let (key, me) = (key("a"), entry(session(), 1));
        let acquire = ClaimStep::Step(Step::acquire(me, true, 256, Vec::new()));
        let error = store.apply_claim(key.clone(), acquire).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains("no majority"), "{error}");
        let error = store.apply_session(session(), open_step(1)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        let error = store.apply_claim(key, ClaimStep::Collect).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "removals too");
        store.close().await;
    });
}

#[test]
fn connecting_goes_on_while_the_majority_is_slow() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let slow = doc! { "failCommands": ["create", "createIndexes", "findAndModify"], "appName": "faulty",
        "writeConcernError": { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting timed out" } };
        let before = fail(set, times(5), slow);
        let url = format!("{}&coord.prefix={}&coord.ttl=3s", uri(set), prefix());
        let client = coord_core::connect(&url).await.unwrap();
        struck(set, before + 5);
        client.lock("a").unwrap().try_acquire().await.unwrap().release().await.unwrap();
        client.close(PATIENCE).await.unwrap();
    });
}

#[test]
fn a_cancel_is_never_overtaken_by_its_acquire() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        // Requests are waited for one second.
        let store = MongoStore::open(&uri(set), &prefix(), 20, Duration::from_secs(3), env()).await.unwrap();
        let (key, session) = (key("a"), session());
        // The whole step, and then the short form of one that was seen free.
        for attempt in 1..=2 {
            let me = entry(session, attempt);
            let hang = doc! { "failCommands": ["findAndModify"], "appName": "faulty", "blockConnection": true,
            "blockTimeMS": 2_500 };
            fail(set, times(1), hang);
            let acquire = ClaimStep::Step(Step::acquire(me, true, 256, Vec::new()));
            let error = store.apply_claim(key.clone(), acquire).await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "its outcome is unknown");
            // The acquire hangs on the server still, and a cancel alone would get past it.
            until("an acknowledged cancel", async || {
                let cancel = ClaimStep::Step(Step::remove(me, Vec::new()));
                store.apply_claim(key.clone(), cancel).await.ok()
            })
            .await;
            // Only time tells that the acquire will not come any more: the server held it for 2.5 s.
            let end = tokio::time::Instant::now() + Duration::from_secs(4);
            while tokio::time::Instant::now() < end {
                // A busy machine may not answer within this ttl's limits.
                let claims = store.claims(ClaimQuery::Of(me.session)).await.unwrap_or_default();
                assert_eq!(claims, [], "the claim belongs to an entry that nobody knows any more");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let claims = until("a read", async || store.claims(ClaimQuery::Of(me.session)).await.ok()).await;
            assert_eq!(claims, []);
            // Twice, since the first may have found that its memory was wrong.
            let other = entry(session, 10 + attempt);
            super::support::acquire(&store, &key, other).await;
            release(&store, &key, other).await.unwrap();
        }
        store.close().await;
    });
}

#[test]
fn a_close_does_not_wait_for_a_request_that_hangs() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        // Requests are waited for ten seconds.
        let store = Arc::new(MongoStore::open(&uri(set), &prefix(), 20, Duration::from_secs(30), env()).await.unwrap());
        let me = entry(session(), 1);
        let before = fail(
            set,
            times(1),
            doc! { "failCommands": ["findAndModify"], "appName": "faulty", "blockConnection": true,
            "blockTimeMS": 20_000 },
        );
        let hanging = tokio::spawn({
            let store = store.clone();
            async move {
                let acquire = ClaimStep::Step(Step::acquire(me, true, 256, Vec::new()));
                store.apply_claim(key("a"), acquire).await
            }
        });
        struck(set, before + 1);
        let begun = Instant::now();
        store.close().await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "closing took {took:?}");
        assert!(hanging.await.unwrap().is_err(), "nobody has answered");
        fail(set, "off".into(), doc! {});
    });
}

/// A claim that was given up a moment ago, so that the next acquire is tried in its short form, and a fault that waits for
/// it: what the claim was then, and how often the fault had struck before.
async fn just_freed(
    set: &ReplicaSet,
    store: &MongoStore,
    key: &ClaimKey,
    entry: Entry,
    mode: mongodb::bson::Bson,
    data: Document,
) -> (ClaimView, i64) {
    loop {
        acquire(store, key, entry).await;
        let begun = Instant::now();
        let free = release(store, key, entry).await.unwrap();
        let before = fail(set, mode.clone(), data.clone());
        // What was seen a second ago is believed no more, and a busy machine may take as long.
        if begun.elapsed() < Duration::from_millis(800) {
            return (free, before);
        }
        fail(set, "off".into(), data.clone());
    }
}

/// A short acquire has no number by which the server could refuse it. Its cancel makes sure that it is too late.
#[test]
fn a_short_acquire_that_comes_after_its_cancel_takes_nothing() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let prefix = prefix();
        let store = MongoStore::open(&uri(set), &prefix, 20, TTL, env()).await.unwrap();
        let client = Client::with_uri_str(set.uri()).await.unwrap();
        let (database, name) = (client.database("coord"), format!("{prefix}locks"));
        let (key, first, me) = (key("a"), entry(session(), 1), entry(session(), 1));
        acquire(&store, &key, first).await;
        let free = release(&store, &key, first).await.unwrap();
        // The short form, the whole step, and the same once more by the driver: none of them arrives.
        let drop = doc! { "failCommands": ["findAndModify"], "appName": "faulty", "closeConnection": true };
        let before = fail(set, times(3), drop);
        let acquire = ClaimStep::Step(Step::acquire(me, true, 256, Vec::new()));
        store.apply_claim(key.clone(), acquire.clone()).await.unwrap_err();
        struck(set, before + 3);
        assert_eq!(release(&store, &key, me).await, None);
        // The first one was held up, and arrives now.
        let (late, void) = testing::short_command(&name, &key, &acquire, &free).expect("a short form");
        assert_eq!(database.run_command(late).await.unwrap().get("value"), Some(&mongodb::bson::Bson::Null));
        assert_eq!(database.run_command(void.unwrap()).await.unwrap().get_i32("n").unwrap(), 0, "it is so already");
        let held = super::support::acquire(&store, &key, me).await;
        assert_eq!(held.holder, Some(me));
        assert!(held.token > free.token + 1);
        store.close().await;
    });
}

/// What breaks a short form, and what it has done nevertheless, is found out by the whole step.
#[test]
fn a_short_form_without_an_answer_is_followed_by_the_whole_step() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = open(&uri(set)).await;
        let (key, session) = (key("a"), session());
        let unclear = doc! { "failCommands": ["findAndModify", "update"], "appName": "faulty",
        "writeConcernError": { "code": 64, "errmsg": "waiting timed out" } };
        let first = entry(session, 1);
        let (free, _) = just_freed(set, &store, &key, first, times(1), unclear.clone()).await;
        let held = acquire(&store, &key, entry(session, 2)).await;
        assert_eq!((held.holder, held.token), (Some(entry(session, 2)), free.token + 1), "taken, and found");
        for attempt in 3..40 {
            release(&store, &key, entry(session, attempt - 1)).await.unwrap();
            acquire(&store, &key, entry(session, attempt)).await;
        }
        fail(set, times(1), unclear);
        let cancel = ClaimStep::Step(Step::remove(entry(session, 39), Vec::new()));
        let error = store.apply_claim(key.clone(), cancel).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "given up by whom, nobody can tell: {error}");
        assert_eq!(release(&store, &key, entry(session, 39)).await, None);
        assert_eq!(store.claims(ClaimQuery::Of(session)).await.unwrap(), []);
        store.close().await;
    });
}

/// The server answers the second sending with the document that it has kept from the first, whatever fields are asked for.
#[test]
fn an_acquire_that_the_driver_has_sent_twice_shows_the_claim() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = open(&uri(set)).await;
        let (key, holder, waiter) = (key("a"), entry(session(), 1), entry(session(), 1));
        acquire(&store, &key, holder).await;
        let steps_down = doc! { "failCommands": ["findAndModify"], "appName": "faulty", "errorLabels": ["RetryableWriteError"],
        "writeConcernError": { "code": 91, "codeName": "ShutdownInProgress", "errmsg": "it is about to end" } };
        fail(set, times(1), steps_down.clone());
        let view = acquire(&store, &key, waiter).await;
        assert_eq!((view.holder, view.waiting), (Some(holder), true), "{view:?}");
        assert_eq!((view.head, view.queue_len), (vec![waiter], 1));
        fail(set, times(1), steps_down);
        let view = release(&store, &key, holder).await.unwrap();
        assert_eq!((view.holder, view.queue_len), (Some(waiter), 0), "{view:?}");
        store.close().await;
    });
}

#[test]
fn an_acquire_without_an_answer_and_its_cancel_are_one_session_of_the_driver() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let prefix = prefix();
        let store = MongoStore::open(&uri(set), &prefix, 20, TTL, env()).await.unwrap();
        let client = Client::with_uri_str(set.uri()).await.unwrap();
        let database = client.database("coord");
        database.run_command(doc! { "profile": 2 }).await.unwrap();
        let (key, me) = (key("a"), entry(session(), 1));
        let unclear = doc! { "failCommands": ["findAndModify"], "appName": "faulty",
        "writeConcernError": { "code": 64, "errmsg": "waiting timed out" } };
        fail(set, times(1), unclear);
        let acquire = ClaimStep::Step(Step::acquire(me, true, 256, Vec::new()));
        store.apply_claim(key.clone(), acquire).await.unwrap_err();
        // Something else takes the driver session that would be the next one, if it was given back.
        let hang = doc! { "failCommands": ["findAndModify"], "appName": "faulty", "blockConnection": true,
        "blockTimeMS": 4_000 };
        let before = fail(set, times(1), hang);
        let store = Arc::new(store);
        let other = tokio::spawn({
            let store = Arc::clone(&store);
            async move { super::support::acquire(&store, &super::support::key("b"), entry(session(), 1)).await }
        });
        struck(set, before + 1);
        release(&store, &key, me).await.unwrap();
        other.await.unwrap();
        database.run_command(doc! { "profile": 0 }).await.unwrap();

        let profile = database.collection::<Document>("system.profile");
        let ours = doc! { "ns": format!("coord.{prefix}locks"), "command.query._id": key.as_str() };
        let requests = profile.find(ours).sort(doc! { "ts": 1, "command.txnNumber": 1 }).await.unwrap();
        let requests: Vec<Document> = requests.try_collect().await.unwrap();
        let of = |index: usize| requests[index].get_document("command").unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(
            of(0).get("lsid"),
            of(1).get("lsid"),
            "a late copy of the acquire is refused: its number is too old"
        );
        assert!(of(0).get_i64("txnNumber").unwrap() < of(1).get_i64("txnNumber").unwrap());
        store.close().await;
    });
}

#[test]
fn a_full_pool_does_not_delay_a_renewal() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = Arc::new(MongoStore::open(&uri(set), &prefix(), 2, TTL, env()).await.unwrap());
        let me = opened(&store).await;
        let hang =
            doc! { "failCommands": ["find"], "appName": "faulty", "blockConnection": true, "blockTimeMS": 8_000 };
        let before = fail(set, times(2), hang);
        let reads: Vec<_> = (0..2)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.claims(ClaimQuery::Prefix(String::new())).await })
            })
            .collect();
        struck(set, before + 2);
        let renew = SessionStep::Renew { accept: vec![Nonce(1)], nonce: Nonce(2) };
        assert!(store.apply_session(me.id, renew).await.unwrap().is_some());
        assert!(reads.iter().all(|read| !read.is_finished()), "the pool was full all the while");
        fail(set, "off".into(), doc! {});
        for read in reads {
            read.await.unwrap().unwrap();
        }
        store.close().await;
    });
}

#[test]
fn a_stream_that_fails_or_hangs_is_replaced() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = open(&uri(set)).await;
        let me = session();
        let (key, other) = (key("a"), session());
        let mut notices = store.notices(me).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        let on = |commands: &[&str], what: Document| {
            let mut data = doc! { "failCommands": commands, "appName": "faulty" };
            data.extend(what);
            data
        };
        let faults = [
            // The history is lost: the next stream begins anew.
            (times(1), on(&["getMore"], doc! { "errorCode": 286, "errorLabels": ["NonResumableChangeStreamError"] })),
            // Connections are lost, and lost again while the stream is opened anew.
            (times(4), on(&["getMore", "aggregate"], doc! { "closeConnection": true })),
            (times(3), on(&["getMore", "aggregate"], doc! { "errorCode": 13 })),
            // Nothing comes any more.
            (times(1), on(&["getMore"], doc! { "blockConnection": true, "blockTimeMS": 15_000 })),
        ];
        for (attempt, (mode, data)) in (1..).zip(faults) {
            let (holder, waiter) = (entry(other, attempt), entry(me, attempt));
            acquire(&store, &key, holder).await;
            acquire(&store, &key, waiter).await;
            let before = fail(set, mode, data);
            struck(set, before + 1);
            assert_eq!(next(&mut notices).await, Notice::Gap, "fault {attempt}");
            let token = release(&store, &key, holder).await.unwrap().token;
            let granted = Notice::Granted { key: key.clone(), entry: waiter, token };
            assert_eq!(next_notice(&mut notices).await, granted, "fault {attempt}");
            release(&store, &key, waiter).await;
            fail(set, "off".into(), doc! {});
        }
        store.close().await;
    });
}

#[test]
fn a_stream_shows_what_happened_while_it_was_down() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = open(&uri(set)).await;
        let (key, holder, waiter) = (key("a"), entry(session(), 1), entry(session(), 1));
        let mut notices = store.notices(waiter.session).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        acquire(&store, &key, holder).await;
        acquire(&store, &key, waiter).await;
        let down = doc! { "failCommands": ["getMore", "aggregate"], "appName": "faulty", "errorCode": 8,
        "errorLabels": ["ResumableChangeStreamError"] };
        let before = fail(set, "alwaysOn".into(), down);
        struck(set, before + 3);
        let token = release(&store, &key, holder).await.unwrap().token;
        fail(set, "off".into(), doc! {});
        assert_eq!(next(&mut notices).await, Notice::Gap);
        assert_eq!(next(&mut notices).await, Notice::Granted { key, entry: waiter, token });
        store.close().await;
    });
}

#[test]
fn dropped_collections_come_back_with_their_indexes() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let prefix = prefix();
        let store = MongoStore::open(&uri(set), &prefix, 20, TTL, env()).await.unwrap();
        let me = session();
        let mut notices = store.notices(me).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        let client = Client::with_uri_str(set.uri()).await.unwrap();
        let locks = client.database("coord").collection::<Document>(&format!("{prefix}locks"));
        acquire(&store, &key("a"), entry(me, 1)).await;
        assert!(matches!(next(&mut notices).await, Notice::Granted { .. }));
        locks.drop().await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        assert_eq!(store.claims(ClaimQuery::Of(me)).await.unwrap(), []);
        assert_eq!(locks.list_index_names().await.unwrap(), ["_id_", "own", "q", "at"]);
        acquire(&store, &key("a"), entry(me, 2)).await;
        assert!(matches!(next_notice(&mut notices).await, Notice::Granted { .. }));
        store.close().await;
    });
}

#[test]
fn the_date_is_not_ahead_by_the_time_that_asking_took() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = open(&uri(set)).await;
        let documents = store.documents().expect("MongoDB keeps documents");
        // Monitors say hello, too.
        let slow =
            doc! { "failCommands": ["hello"], "appName": "faulty", "blockConnection": true, "blockTimeMS": 1_500 };
        fail(set, "alwaysOn".into(), slow);
        let first = documents.date().await.unwrap();
        let answered = Instant::now();
        let second = documents.date().await.unwrap();
        let passed = i64::try_from(answered.elapsed().as_millis()).unwrap();
        fail(set, "off".into(), doc! {});
        let told = second.0 - first.0;
        assert!((0..passed + 1_000).contains(&told), "{told} ms of the date in {passed} ms");
        store.close().await;
    });
}

/// Whatever the server calls it: nothing goes on from that place.
#[test]
fn a_place_that_the_server_refuses_is_no_place_any_more() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let store = open(&uri(set)).await;
        let (documents, table) = (store.documents().unwrap(), TableName::parse("t").unwrap());
        let put = Write::new(Key::from(1), Action::Put(doc! {}));
        let place = documents.write(&table, put).await.unwrap().position;
        for code in [136, 260, 280, 286] {
            fail(set, times(1), doc! { "failCommands": ["aggregate"], "appName": "faulty", "errorCode": code });
            let watch = WatchOptions { from: From::After(place), previous: false };
            let error = documents.watch(&table, watch).await.map(drop).unwrap_err();
            assert_eq!(error.code(), Code::Compacted, "{code}: {error}");
        }
        store.close().await;
    });
}

/// Readings see what was heard before, and what was read before, also from a primary that lags.
#[test]
fn a_reading_sees_what_this_store_has_heard_and_read() {
    let Some((set, _turn)) = server() else { return };
    run(async {
        let prefix = prefix();
        let open = async || MongoStore::open(&uri(set), &prefix, 20, TTL, env()).await.unwrap();
        let (writer, listener, reader) = (open().await, open().await, open().await);
        let (key, me) = (key("a"), entry(session(), 1));
        let mut notices = listener.notices(me.session).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        acquire(&writer, &key, me).await;
        assert!(matches!(next(&mut notices).await, Notice::Granted { .. }));

        let client = Client::with_uri_str(set.uri()).await.unwrap();
        let (database, ns) = (client.database("coord"), format!("coord.{prefix}locks"));
        database.run_command(doc! { "profile": 2 }).await.unwrap();
        for store in [&listener, &reader, &reader] {
            assert_eq!(store.claims(ClaimQuery::HeldBy(me.session)).await.unwrap().len(), 1);
        }
        database.run_command(doc! { "profile": 0 }).await.unwrap();
        let profile = database.collection::<Document>("system.profile");
        let readings = profile.find(doc! { "ns": &ns, "op": "query" }).await.unwrap();
        let readings: Vec<Document> = readings.try_collect().await.unwrap();
        let after: Vec<_> = readings
            .iter()
            .map(|reading| {
                let concern = reading.get_document("command").unwrap().get_document("readConcern").unwrap();
                concern.get_timestamp("afterClusterTime").ok()
            })
            .collect();
        let oplog = client.database("local").collection::<Document>("oplog.rs");
        let grant = oplog.find_one(doc! { "ns": &ns, "o._id": key.as_str() }).await.unwrap().unwrap();
        let granted = grant.get_timestamp("ts").unwrap();
        assert_eq!(after.len(), 3);
        assert!(after[0].is_some_and(|after| after >= granted), "{after:?} and {granted}");
        assert!(after[1].is_none() && after[2].is_some_and(|after| after >= granted), "{after:?} and {granted}");
        for store in [writer, listener, reader] {
            store.close().await;
        }
    });
}
