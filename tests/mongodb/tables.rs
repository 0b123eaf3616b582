//! Tables and reconcilers beside a program that writes with the plain driver, through step-downs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coord_core::bson::{Bson, Document, doc};
use coord_core::client::{Client, connect};
use coord_core::error::Code;
use coord_core::reconciler::{Mode, Outcome, ReconcileOptions, Reconciler, Source};
use coord_core::table::{
    CacheOptions, FindOptions, Key, LogEntry, LogFrom, Position, Table, TableEvent, TableLog, WatchOptions,
    WriteOptions,
};
use coord_tests::servers::{ReplicaSet, SetOptions};
use futures::TryStreamExt;

use super::support::*;

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

type Collection = mongodb::Collection<Document>;

async fn client(uri: &str) -> Client {
    let separator = if uri.contains('?') { '&' } else { '?' };
    connect(&format!("{uri}{separator}coord.prefix={}", prefix())).await.expect("a client")
}

/// Writes as other programs do: random inserts, updates and deletions, each tried until it is done.
async fn storm(collection: Collection, writes: u64, keys: u64) {
    let mut dice = Dice(7);
    for n in 0..writes {
        let key = i64::try_from(dice.roll(keys)).unwrap();
        let kind = dice.roll(5);
        // Through failovers, like any program that retries.
        while write(&collection, key, kind, i64::try_from(n).unwrap()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn write(collection: &Collection, key: i64, kind: u64, n: i64) -> mongodb::error::Result<()> {
    let filter = doc! { "_id": key };
    match kind {
        0 => collection.delete_one(filter).await.map(drop),
        1 => collection.replace_one(filter, doc! { "n": n }).upsert(true).await.map(drop),
        _ => {
            let update = doc! { "$set": { "n": n }, "$inc": { "count": 1 } };
            collection.update_one(filter, update).upsert(true).await.map(drop)
        }
    }
}

async fn contents(collection: &Collection) -> BTreeMap<Key, Document> {
    let found: Vec<Document> =
        until("the collection", async || collection.find(doc! {}).await.ok()?.try_collect().await.ok()).await;
    found.into_iter().map(|document| (Key::of(&document).unwrap(), document)).collect()
}

/// Runs a reconciler's keys for ever, and keeps what its function was shown last of each.
fn run_all(reconciler: Reconciler) -> Arc<Mutex<BTreeMap<Key, Document>>> {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let shown = seen.clone();
    tokio::spawn(async move {
        let ran = reconciler.run(|work| {
            let mut seen = shown.lock().unwrap();
            match work.document() {
                Some(document) => seen.insert(work.key().clone(), document.clone()),
                None => seen.remove(work.key()),
            };
            // Some fail at their first attempt, and lose nothing by that.
            let sum: u32 = work.key().bytes().iter().map(|byte| u32::from(*byte)).sum();
            let fails = work.attempt() == 1 && sum.is_multiple_of(7);
            async move { if fails { Outcome::Error("planted".into()) } else { Outcome::Done } }
        });
        ran.await.unwrap();
    });
    seen
}

/// A copy that is made of a watch's events.
fn copy_all(table: &Table) -> Arc<Mutex<BTreeMap<Key, Document>>> {
    let watch = table.watch((), WatchOptions::default()).unwrap();
    let copy = Arc::new(Mutex::new(BTreeMap::new()));
    let made = copy.clone();
    tokio::spawn(async move {
        let mut snapshot = BTreeMap::new();
        while let Ok(delivery) = watch.next().await {
            let mut copy = made.lock().unwrap();
            match delivery.take() {
                TableEvent::Init => snapshot.clear(),
                TableEvent::InitApply { key, document, .. } => drop(snapshot.insert(key, document)),
                TableEvent::InitDone => *copy = std::mem::take(&mut snapshot),
                TableEvent::Apply { key, document, .. } => drop(copy.insert(key, document)),
                TableEvent::Delete { key, .. } => drop(copy.remove(&key)),
                _ => unreachable!("all events are named"),
            }
        }
    });
    copy
}

fn everything(client: &Client) -> Source {
    Source::table(&client.table("app.things").unwrap(), ()).unwrap()
}

#[test]
fn what_is_seen_in_the_end_is_what_is_there_whatever_happened() {
    let Some(set) = ReplicaSet::start(3) else { return };
    let set = Arc::new(set);
    run(async {
        let plain = mongodb::Client::with_uri_str(set.uri()).await.unwrap();
        let collection: Collection = plain.database("app").collection("things");
        let existing = (0..300i64).map(|n| doc! { "_id": n, "n": -1 });
        collection.insert_many(existing).await.unwrap();

        let client = client(&set.uri()).await;
        let table = client.table("app.things").unwrap();
        let options = ReconcileOptions { workers: 8, ..ReconcileOptions::default() };
        let all = client.reconcile("all", everything(&client), options.clone()).await.unwrap();
        let leader = ReconcileOptions { mode: Mode::Leader, ..options };
        let led = client.reconcile("led", everything(&client), leader).await.unwrap();
        let cached = client.cached_table("app.things", CacheOptions::default()).await.unwrap();
        let (all_seen, led_seen, copy) = (run_all(all.clone()), run_all(led.clone()), copy_all(&table));

        let storm = tokio::spawn(storm(collection.clone(), 1500, 400));
        let mut downs = 0;
        while !storm.is_finished() {
            let down = set.clone();
            if downs < 3 {
                blocking(move || down.step_down()).await;
                downs += 1;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        storm.await.unwrap();
        assert!(downs > 0, "a primary stepped down meanwhile");

        let there = contents(&collection).await;
        for (what, seen) in [("all", &all_seen), ("led", &led_seen), ("the watch", &copy)] {
            until(what, async || (*seen.lock().unwrap() == there).then_some(())).await;
        }
        let in_memory = || -> BTreeMap<Key, Document> {
            let found = cached.find((), FindOptions::default()).unwrap();
            found.into_iter().map(|stored| (stored.key, stored.document)).collect()
        };
        until("the copy in memory", async || (in_memory() == there).then_some(())).await;
        assert!(all.stats().errors > 0 && all.stats().retries > 0, "some runs failed: {:?}", all.stats());

        // Read your writes, and wait for them to be run, on a collection of somebody else's.
        let written = cached.put(1, doc! { "n": "mine" }, WriteOptions::default()).await.unwrap();
        assert_eq!(cached.get(1).unwrap().document.get_str("n").unwrap(), "mine");
        all.wait_until_reconciled(1, written.position, PATIENCE).await.unwrap();
        assert_eq!(all_seen.lock().unwrap()[&Key::from(1)].get("n"), Some(&Bson::String("mine".into())));
        // A document that another program wrote is replaced if it is as it was read.
        collection.update_one(doc! { "_id": 1 }, doc! { "$set": { "n": "theirs" } }).await.unwrap();
        let stale = table.replace_if(1, doc! {}, written.revision.unwrap(), WriteOptions::default()).await;
        assert_eq!(stale.unwrap_err().code(), Code::Conflict);
        client.close(PATIENCE).await.unwrap();
    });
}

#[test]
fn a_place_that_the_oplog_no_longer_has_leads_to_a_new_snapshot() {
    let Some(set) = ReplicaSet::with(SetOptions { oplog_mb: 4, ..SetOptions::of(1) }) else { return };
    run(async {
        let client = client(&set.uri()).await;
        let table = client.table("t").unwrap();
        let first = table.put(1, doc! { "n": 1 }, WriteOptions::default()).await.unwrap();
        table.put(2, doc! {}, WriteOptions::default()).await.unwrap();
        table.delete(2, WriteOptions::default()).await.unwrap();
        let plain = mongodb::Client::with_uri_str(set.uri()).await.unwrap();
        let filler: Collection = plain.database("app").collection("filler");
        let oplog: Collection = plain.database("local").collection("oplog.rs");
        let large = "x".repeat(1 << 20);
        until("the oplog to have rolled over", async || {
            for _ in 0..8 {
                filler.insert_one(doc! { "x": &large }).await.ok()?;
            }
            // It keeps what came after the last checkpoint, which this makes.
            set.command(doc! { "fsync": 1 }).ok()?;
            let oldest = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.ok()??;
            let oldest = oldest.get_timestamp("ts").ok()?;
            let place = u64::from(oldest.time) << 32 | u64::from(oldest.increment);
            (place > first.position.0).then_some(())
        })
        .await;
        let from = WatchOptions { from: Some(first.position), previous: false };
        let watch = table.watch((), from).unwrap();
        let mut events = Vec::new();
        while events.len() < 3 {
            events.push(watch.next().await.unwrap().take());
        }
        assert_eq!(events[0], TableEvent::Init);
        assert!(matches!(&events[1], TableEvent::InitApply { key, .. } if *key == Key::from(1)));
        assert_eq!(events[2], TableEvent::InitDone);
        let position = table.put(3, doc! {}, WriteOptions::default()).await.unwrap().position;
        let delivery = watch.next().await.unwrap();
        assert!(delivery.position() >= position && position > Position::default());
        assert!(matches!(delivery.take(), TableEvent::Apply { key, .. } if key == Key::from(3)));
        client.close(PATIENCE).await.unwrap();
    });
}

/// The server forgets the past while a snapshot is still being read.
#[test]
fn a_snapshot_that_takes_longer_than_the_server_remembers_is_completed() {
    let Some(set) = ReplicaSet::start(1) else { return };
    run(async {
        set.command(doc! { "setParameter": 1, "minSnapshotHistoryWindowInSeconds": 1 }).unwrap();
        let plain = mongodb::Client::with_uri_str(set.uri()).await.unwrap();
        let things: Collection = plain.database("app").collection("things");
        // More than what is on the way at once: a batch of the server's has up to 16 MB.
        const THINGS: i64 = 500;
        let large = "x".repeat(100_000);
        for n in 0..THINGS {
            things.insert_one(doc! { "_id": n, "large": &large }).await.unwrap();
        }
        let client = client(&set.uri()).await;
        let (table, other) = (client.table("app.things").unwrap(), client.table("other").unwrap());
        let watch = table.watch((), WatchOptions::default()).unwrap();
        let (mut snapshots, mut shown) = (0, 0);
        loop {
            let delivery = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
            match delivery.take() {
                TableEvent::Init => {
                    snapshots += 1;
                    shown = 0;
                    assert!(snapshots < 4, "the snapshot begins again and again");
                }
                TableEvent::InitApply { .. } => {
                    shown += 1;
                    if shown == 1 {
                        let now = other.put(1, doc! {}, WriteOptions::default()).await.unwrap().position;
                        until("the past to be forgotten", async || {
                            other.put(1, doc! {}, WriteOptions::default()).await.unwrap();
                            let (time, increment) = ((now.0 >> 32) as u32, now.0 as u32);
                            let then = mongodb::bson::Timestamp { time, increment };
                            let concern = doc! { "level": "snapshot", "atClusterTime": then };
                            let find = doc! { "find": "things", "limit": 1, "readConcern": concern };
                            plain.database("app").run_command(find).await.is_err().then_some(())
                        })
                        .await;
                    }
                }
                TableEvent::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(shown, THINGS);
        assert_eq!(snapshots, 2, "the first was too slow");
        client.close(PATIENCE).await.unwrap();
    });
}

async fn next(log: &TableLog) -> LogEntry {
    tokio::time::timeout(PATIENCE, log.next()).await.unwrap().unwrap()
}

/// The first entry after a position that is for one of these keys, and its place.
async fn first_of(table: &Table, position: Position, keys: &[Key]) -> (Key, Position) {
    let log = table.log(LogFrom::After(position)).await.unwrap();
    loop {
        let entry = next(&log).await;
        if keys.contains(&entry.key) {
            return (entry.key, entry.position);
        }
    }
}

/// The same of a watch.
async fn first_watched(table: &Table, position: Position, keys: &[Key]) -> (Key, Position) {
    let watch = table.watch((), WatchOptions { from: Some(position), previous: false }).unwrap();
    loop {
        let delivery = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
        let place = delivery.position();
        match delivery.take() {
            TableEvent::Apply { key, .. } | TableEvent::Delete { key, .. } if keys.contains(&key) => {
                return (key, place);
            }
            _ => {}
        }
    }
}

#[test]
fn every_change_of_a_transaction_is_seen() {
    let Some(set) = ReplicaSet::start(1) else { return };
    run(async {
        let plain = mongodb::Client::with_uri_str(set.uri()).await.unwrap();
        let things: Collection = plain.database("app").collection("things");
        things.insert_one(doc! { "_id": 0i64 }).await.unwrap();
        let client = client(&set.uri()).await;
        let all = client.reconcile("all", everything(&client), ReconcileOptions::default()).await.unwrap();
        let seen = run_all(all);
        let table = client.table("app.things").unwrap();
        let copy = copy_all(&table);
        let log = table.log(LogFrom::Now).await.unwrap();
        until("the snapshot", async || (copy.lock().unwrap().len() == 1).then_some(())).await;

        let before = table.put("last before", doc! {}, WriteOptions::default()).await.unwrap().position;
        table.delete("last before", WriteOptions::default()).await.unwrap();
        assert_eq!(next(&log).await.position, before, "a write that is alone has its own place");
        let before = next(&log).await.position;
        let mut session = plain.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        for n in 1..=3i64 {
            things.insert_one(doc! { "_id": n }).session(&mut session).await.unwrap();
        }
        things.delete_one(doc! { "_id": 0i64 }).session(&mut session).await.unwrap();
        session.commit_transaction().await.unwrap();

        let there = contents(&things).await;
        assert_eq!(there.len(), 3);
        for (what, seen) in [("the reconciler", &seen), ("the watch", &copy)] {
            until(what, async || (*seen.lock().unwrap() == there).then_some(())).await;
        }
        let mut keys = Vec::new();
        for _ in 0..4 {
            keys.push(next(&log).await.key);
        }
        assert_eq!(keys, [1i64, 2, 3, 0].map(Key::from));

        // Whoever stops after the first of them, and goes on from its place, misses none of the others.
        let mut positions = Vec::new();
        for name in ["log", "watch"] {
            let (mut position, mut missing) = (before, keys.clone());
            while !missing.is_empty() {
                let (key, place) = match name {
                    "log" => first_of(&table, position, &missing).await,
                    _ => first_watched(&table, position, &missing).await,
                };
                missing.retain(|other| *other != key);
                position = place;
            }
            positions.push(position);
        }
        assert!(positions.iter().all(|position| *position >= before), "{positions:?} since {before}");
        client.close(PATIENCE).await.unwrap();
    });
}
