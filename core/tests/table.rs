//! Tables through the public interface: typed calls, watches that lose nothing, copies in memory, and fenced writes.
//! In memory, on SQLite, or on what `COORD_TEST_STORE` says.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document, doc};
use coord_core::bson;
use coord_core::client::{Client, connect};
use coord_core::error::Code;
use coord_core::table::{
    CacheOptions, Filter, FindOptions, Key, LogFrom, Operation, Sort, Table, TableEvent, TableWatch, Update,
    WatchOptions, WriteOptions,
};
use serde::{Deserialize, Serialize};

const BOUND: Duration = Duration::from_secs(30);

/// The stores that are tried without being asked for, as a name and a URL that no other test has.
fn stores(name: &str) -> Vec<(&'static str, String)> {
    let name = format!("table-{name}-{}", std::process::id());
    match std::env::var("COORD_TEST_STORE").as_deref() {
        Ok("mongodb") => {
            let uri = std::env::var("COORD_TEST_MONGODB_URI").expect("the URI of a replica set");
            let separator = if uri.contains('?') { '&' } else { '?' };
            vec![("mongodb", format!("{uri}{separator}coord.prefix={}_", name.replace('-', "_")))]
        }
        _ => {
            let file = format!("{}/{name}.db", std::env::temp_dir().display());
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{file}{suffix}"));
            }
            let mut stores = vec![("memory", format!("memory:{name}"))];
            if cfg!(feature = "sqlite") && std::env::var("COORD_TEST_STORE").as_deref() != Ok("memory") {
                stores.push(("sqlite", format!("sqlite:///{file}")));
            }
            stores
        }
    }
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("an event within the bound")
}

fn plain() -> WriteOptions {
    WriteOptions::default()
}

async fn close(client: Client) {
    client.close(BOUND).await.unwrap();
}

/// The next event, acknowledged.
async fn event(watch: &TableWatch) -> TableEvent {
    bounded(watch.next()).await.unwrap().take()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Person {
    name: String,
    age: i64,
    tags: Vec<String>,
}

#[tokio::test]
async fn values_go_in_and_out_as_they_are() {
    for (_, url) in stores("values") {
        let client = connect(&url).await.unwrap();
        let people = client.table("people").unwrap();
        let ann = Person { name: "Ann".into(), age: 44, tags: vec!["a".into()] };
        let written = people.insert_as("ann", &ann, plain()).await.unwrap();
        assert!(written.created);
        assert_eq!(people.get_as::<Person>("ann").await.unwrap(), ann);
        assert_eq!(people.insert_as("ann", &ann, plain()).await.unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(people.get_as::<Vec<i32>>("ann").await.unwrap_err().code(), Code::CorruptState);
        assert_eq!(people.insert_as(1, &5, plain()).await.unwrap_err().code(), Code::InvalidArgument);

        let stored = people.get("ann").await.unwrap();
        let older = Person { age: 45, ..ann };
        people.replace_if_as("ann", &older, stored.revision.unwrap(), plain()).await.unwrap();
        let stale = people.replace_if_as("ann", &older, stored.revision.unwrap(), plain()).await.unwrap_err();
        assert_eq!(stale.code(), Code::Conflict);
        assert_eq!(
            people.find_as::<Person>(doc! { "age": { "$gt": 44 } }, FindOptions::default()).await.unwrap(),
            [older]
        );
        assert_eq!(
            people.delete_if("ann", stored.revision.unwrap(), plain()).await.unwrap_err().code(),
            Code::Conflict
        );
        people.delete("ann", plain()).await.unwrap();
        assert_eq!(people.get("ann").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(people.delete("ann", plain()).await.unwrap_err().code(), Code::NotFound);

        // Keys of all kinds, and values that JSON could not carry.
        let odd = doc! {
            "nan": f64::NAN, "at": bson::DateTime::from_millis(-5), "bytes": Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 255],
            }), "long": i64::MAX, "none": Bson::Null,
        };
        for key in [Key::new(7).unwrap(), Key::new(doc! { "a": 1, "b": "x" }).unwrap()] {
            people.put(&key, odd.clone(), plain()).await.unwrap();
            let read = people.get(&key).await.unwrap().document;
            assert!(read.get_f64("nan").unwrap().is_nan());
            for field in ["at", "bytes", "long", "none"] {
                assert_eq!(read.get(field), odd.get(field));
            }
        }
        assert!(people.contains(7).await.unwrap());
        people.locate("bob", doc! { "age": 3 }, plain()).await.unwrap();
        let bob = people.locate("bob", doc! { "name": "Bob" }, plain()).await.unwrap();
        assert_eq!((bob.created, bob.document), (false, doc! { "_id": "bob", "age": 3, "name": "Bob" }));
        assert_eq!(people.locate("bob", doc! { "a.b": 1 }, plain()).await.unwrap_err().code(), Code::InvalidArgument);
        close(client).await;
    }
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_done() {
    for (store, url) in stores("bad") {
        let client = connect(&url).await.unwrap();
        for name in ["", "a b", "$x", "a..b", "admin.x", &"x".repeat(999)] {
            assert_eq!(client.table(name).unwrap_err().code(), Code::InvalidArgument, "{name}");
        }
        let table = client.table("t").unwrap();
        for key in [Bson::Double(1.5), Bson::Boolean(true), Bson::Array(vec![]), Bson::Null] {
            assert_eq!(table.get(key).await.unwrap_err().code(), Code::InvalidArgument);
        }
        let invalid = [
            table.insert("a", doc! { "x": "y".repeat(17 << 20) }, plain()).await.unwrap_err(),
            table.insert("a", doc! { "_id": "b" }, plain()).await.unwrap_err(),
            table.insert("a", doc! { "_fence": 1 }, plain()).await.unwrap_err(),
            table.update("a", doc! { "x": 1 }, plain()).await.unwrap_err(),
            table.update("a", doc! { "$set": { "_id": 1 } }, plain()).await.unwrap_err(),
            table.find(doc! { "$and": 1 }, FindOptions::default()).await.unwrap_err(),
            table.put("a", doc! {}, plain().strict()).await.unwrap_err(),
        ];
        for error in invalid {
            assert_eq!(error.code(), Code::InvalidArgument, "{store}: {error}");
        }
        assert_eq!(table.count(()).await.unwrap(), 0);
        if store != "mongodb" {
            let only_mongodb = doc! { "$where": "true" };
            let refused = table.find(only_mongodb, FindOptions::default()).await.map(|_| ());
            assert!(matches!(refused.unwrap_err().code(), Code::Unsupported | Code::InvalidArgument));
            assert_eq!(table.count(doc! { "a": { "$mod": [2, 0] } }).await.unwrap_err().code(), Code::Unsupported);
            // Of nothing, too.
            let (filter, update) = (doc! { "a": { "$mod": [2, 0] } }, doc! { "$set": { "b": 1 } });
            let refused = [
                table.update_many(filter.clone(), update, plain()).await.unwrap_err(),
                table.delete_many(filter.clone(), plain()).await.unwrap_err(),
            ];
            assert!(refused.iter().all(|error| error.code() == Code::Unsupported), "{store}: {refused:?}");
            assert_eq!(table.aggregate(vec![]).await.unwrap_err().code(), Code::Unsupported);
        }
        close(client).await;
    }
}

#[tokio::test]
async fn a_watch_shows_a_snapshot_then_every_change() {
    for (store, url) in stores("watch") {
        let (client, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
        let table = client.table("t").unwrap();
        for key in 0..3 {
            table.insert(key, doc! { "n": key }, plain()).await.unwrap();
        }
        let watch = table.watch((), WatchOptions::default()).unwrap();
        assert_eq!(event(&watch).await, TableEvent::Init);
        let mut seen = BTreeMap::new();
        loop {
            match event(&watch).await {
                TableEvent::InitApply { key, document, revision } => {
                    assert!(revision.is_some());
                    seen.insert(key, document.get_i32("n").unwrap());
                }
                TableEvent::InitDone => break,
                other => panic!("{store}: {other:?} within a snapshot"),
            }
        }
        assert_eq!(seen.values().copied().collect::<Vec<_>>(), [0, 1, 2]);

        let same = other.table("t").unwrap();
        same.update(1, doc! { "$set": { "n": 11 } }, plain()).await.unwrap();
        let inserted = same.insert("new", doc! { "n": 4 }, plain()).await.unwrap();
        same.delete(0, plain()).await.unwrap();
        match event(&watch).await {
            TableEvent::Apply { key, document, .. } => {
                assert_eq!((key, document.get_i32("n").unwrap()), (Key::from(1), 11));
            }
            other => panic!("{store}: {other:?}"),
        }
        assert!(matches!(event(&watch).await, TableEvent::Apply { key, .. } if key == Key::new("new").unwrap()));
        assert!(matches!(event(&watch).await, TableEvent::Delete { key, .. } if key == Key::from(0)));

        // From a position on: no snapshot, and nothing twice.
        let later = table.watch((), WatchOptions { from: Some(inserted.position), previous: false }).unwrap();
        assert!(matches!(event(&later).await, TableEvent::Delete { key, .. } if key == Key::from(0)));

        watch.close();
        assert_eq!(watch.next().await.unwrap_err().code(), Code::Closed);
        let waiting = tokio::spawn(async move { later.next().await.map(|_| ()) });
        close(client).await;
        assert_eq!(bounded(waiting).await.unwrap().unwrap_err().code(), Code::Closed);
        close(other).await;
    }
}

#[tokio::test]
async fn what_matches_no_more_is_deleted_once() {
    for (_, url) in stores("filter") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        table.insert(1, doc! { "on": true }, plain()).await.unwrap();
        table.insert(2, doc! { "on": false }, plain()).await.unwrap();
        let watch = table.watch(doc! { "on": true }, WatchOptions::default()).unwrap();
        assert_eq!(event(&watch).await, TableEvent::Init);
        assert!(matches!(event(&watch).await, TableEvent::InitApply { key, .. } if key == Key::from(1)));
        assert_eq!(event(&watch).await, TableEvent::InitDone);
        table.update(2, doc! { "$set": { "x": 1 } }, plain()).await.unwrap();
        table.update(1, doc! { "$set": { "on": false } }, plain()).await.unwrap();
        table.delete(1, plain()).await.unwrap();
        table.update(2, doc! { "$set": { "on": true } }, plain()).await.unwrap();
        assert!(matches!(event(&watch).await, TableEvent::Delete { key, .. } if key == Key::from(1)));
        assert!(matches!(event(&watch).await, TableEvent::Apply { key, .. } if key == Key::from(2)));
        close(client).await;
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_before_anything_else() {
    for (_, url) in stores("again") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        let watch = table.watch((), WatchOptions::default()).unwrap();
        assert_eq!(event(&watch).await, TableEvent::Init);
        assert_eq!(event(&watch).await, TableEvent::InitDone);
        table.put(1, doc! { "n": 1 }, plain()).await.unwrap();
        table.put(2, doc! { "n": 2 }, plain()).await.unwrap();
        let is_first = |event: &TableEvent| matches!(event, TableEvent::Apply { key, .. } if *key == Key::from(1));
        let delivery = bounded(watch.next()).await.unwrap();
        assert!(is_first(delivery.event()) && delivery.failures() == 0);
        // A second one is not handed out meanwhile.
        assert!(futures::poll!(std::pin::pin!(watch.next())).is_pending());
        delivery.done(Err("not now".into()));
        let delivery = bounded(watch.next()).await.unwrap();
        assert!(is_first(delivery.event()) && delivery.failures() == 1);
        drop(delivery);
        let delivery = bounded(watch.next()).await.unwrap();
        assert!(is_first(delivery.event()) && delivery.failures() == 2);
        delivery.done(Ok(()));
        assert!(matches!(event(&watch).await, TableEvent::Apply { key, .. } if key == Key::from(2)));
        close(client).await;
    }
}

#[tokio::test]
async fn a_cached_table_reads_its_own_writes_and_those_of_others() {
    for (_, url) in stores("cached") {
        let (client, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
        let remote = other.table("t").unwrap();
        for n in 0..5 {
            remote.insert(n, doc! { "n": n, "even": n % 2 == 0 }, plain()).await.unwrap();
        }
        let cached = client.cached_table("t", CacheOptions::default()).await.unwrap();
        assert!(cached.synced() && cached.bytes() > 0);
        assert_eq!(cached.count(()).unwrap(), 5);
        let options = FindOptions {
            sort: Some(Sort::parse(doc! { "n": -1 }).unwrap()),
            limit: Some(2),
            ..FindOptions::default()
        };
        let found = cached.find(doc! { "even": true }, options).unwrap();
        assert_eq!(found.iter().map(|s| s.document.get_i32("n").unwrap()).collect::<Vec<_>>(), [4, 2]);

        let written = cached.update(3, doc! { "$set": { "n": 33 } }, plain()).await.unwrap();
        assert_eq!(cached.get(3).unwrap().document.get_i32("n").unwrap(), 33);
        assert_eq!(cached.get(3).unwrap().revision, written.revision);
        cached.delete(4, plain()).await.unwrap();
        assert_eq!(cached.get(4).unwrap_err().code(), Code::NotFound);
        assert!(cached.contains(3).unwrap() && !cached.contains(4).unwrap());

        let theirs = remote.put("x", doc! { "n": 9 }, plain()).await.unwrap();
        bounded(cached.wait_until(theirs.position)).await.unwrap();
        // Places are the store's: one of another table is passed, too.
        let elsewhere = other.table("u").unwrap().put("x", doc! {}, plain()).await.unwrap();
        bounded(cached.wait_until(elsewhere.position)).await.unwrap();
        assert_eq!(cached.get("x").unwrap().document, cached.get_fresh("x").await.unwrap().document);
        let all: usize = remote.find((), FindOptions::default()).await.unwrap().len();
        assert_eq!(cached.count(()).unwrap(), all as u64);
        close(client).await;
        assert_eq!(cached.get(3).unwrap_err().code(), Code::Closed);
        assert_eq!(cached.contains(3).unwrap_err().code(), Code::Closed);
        close(other).await;
    }
}

#[tokio::test]
async fn a_cached_table_that_is_too_large_says_so() {
    for (_, url) in stores("bounded") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        table.insert(1, doc! { "x": "y".repeat(1000) }, plain()).await.unwrap();
        let small = CacheOptions { max_bytes: 500, ..CacheOptions::default() };
        let error = bounded(client.cached_table("t", small)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("max_bytes"), "{error}");

        let enough = CacheOptions { max_bytes: 2_500, ..CacheOptions::default() };
        let cached = bounded(client.cached_table("t", enough)).await.unwrap();
        // Changed in place again and again, it takes no more.
        for n in 0..10 {
            cached.put(1, doc! { "x": "y".repeat(1000), "n": n }, plain()).await.unwrap();
        }
        table.insert(2, doc! { "x": "y".repeat(1000) }, plain()).await.unwrap();
        let third = table.insert(3, doc! { "x": "y".repeat(1000) }, plain()).await.unwrap();
        assert_eq!(bounded(cached.wait_until(third.position)).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(cached.get(1).unwrap_err().code(), Code::InvalidArgument);
        // Only the reads fail: what a write has done is said, and not done twice.
        let updated = bounded(cached.update(3, Update::parse(doc! { "$inc": { "n": 1 } }).unwrap(), plain())).await;
        assert_eq!(updated.unwrap().document.get("n"), Some(&Bson::Int32(1)));
        assert_eq!(bounded(cached.delete_many(doc! { "n": 1 }, plain())).await.unwrap().count, 1);
        let part = CacheOptions {
            max_bytes: 2_500,
            filter: Filter::parse(doc! { "n": 9 }).unwrap(),
            ..CacheOptions::default()
        };
        let cached = bounded(client.cached_table("t", part)).await.unwrap();
        assert_eq!(cached.count(()).unwrap(), 1);
        close(client).await;
    }
}

#[tokio::test]
async fn a_stale_holder_is_fenced_off() {
    for (_, url) in stores("fence") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        let lock = client.lock("l").unwrap();
        let first = lock.acquire().await.unwrap();
        let stale = WriteOptions::fenced(&first).unwrap();
        table.put("a", doc! { "n": 1 }, stale.clone()).await.unwrap();
        table.put("gone", doc! {}, stale.clone()).await.unwrap();
        first.release().await.unwrap();
        assert_eq!(first.fence().unwrap_err().code(), Code::NotHeld);
        let second = lock.acquire().await.unwrap();
        let fresh = WriteOptions::fenced(&second).unwrap();
        table.put("a", doc! { "n": 2 }, fresh.clone()).await.unwrap();
        table.delete("gone", fresh.clone()).await.unwrap();
        let update = || Update::parse(doc! { "$set": { "n": 0 } }).unwrap();
        let attempts = [
            table.put("a", doc! {}, stale.clone()).await.unwrap_err(),
            table.update("a", update(), stale.clone()).await.unwrap_err(),
            table.delete("a", stale.clone()).await.unwrap_err(),
            table.upsert("gone", update(), stale.clone()).await.unwrap_err(),
            table.insert("gone", doc! {}, stale.clone()).await.unwrap_err(),
            table.insert("new", doc! {}, stale.clone().strict()).await.unwrap_err(),
        ];
        for error in attempts {
            assert_eq!(error.code(), Code::Fenced, "{error}");
        }
        table.update("a", update(), fresh.strict()).await.unwrap();
        // Without a fence anybody may write.
        table.put("gone", doc! {}, plain()).await.unwrap();
        second.release().await.unwrap();
        close(client).await;
    }
}

#[tokio::test]
async fn the_log_says_who_has_done_what() {
    for (store, url) in stores("log") {
        let separator = if url.contains('?') { '&' } else { '?' };
        let client = connect(&format!("{url}{separator}coord.name=writer")).await.unwrap();
        let table: Table = client.table("t").unwrap();
        let log = table.log(LogFrom::Now).await.unwrap();
        let first = table.insert(1, doc! { "a": 1, "b": 1 }, plain()).await.unwrap();
        table.update(1, doc! { "$set": { "b": 2 }, "$unset": { "a": 1 } }, plain()).await.unwrap();
        table.delete(1, plain()).await.unwrap();
        let mut entries = Vec::new();
        for _ in 0..3 {
            entries.push(bounded(log.next()).await.unwrap());
        }
        let operations: Vec<_> = entries.iter().map(|entry| entry.operation).collect();
        assert_eq!(operations, [Operation::Insert, Operation::Update, Operation::Delete]);
        assert!(entries.iter().all(|entry| entry.key == Key::from(1) && entry.at_ms > 0));
        assert_eq!(entries[1].changed_fields, ["a", "b"]);
        assert_eq!(entries[0].source.as_deref(), Some("writer"));
        if store != "mongodb" {
            assert_eq!(entries[2].source.as_deref(), Some("writer"));
        }
        let again = table.log(LogFrom::After(first.position)).await.unwrap();
        let mut entry = bounded(again.next()).await.unwrap();
        if store == "mongodb" {
            // It reads the document when the change is read, which may be gone by then.
            entry.revision = entries[1].revision;
        }
        assert_eq!(entry, entries[1]);
        again.close();
        assert_eq!(again.next().await.unwrap_err().code(), Code::Closed);
        close(client).await;
    }
}

/// What the documents of a table are, by key.
async fn contents(table: &Table) -> BTreeMap<Key, Document> {
    let found = table.find((), FindOptions::default()).await.unwrap();
    found.into_iter().map(|stored| (stored.key, stored.document)).collect()
}

#[tokio::test]
async fn a_watch_that_begins_in_a_storm_of_writes_misses_nothing() {
    for (store, url) in stores("storm") {
        let client = connect(&url).await.unwrap();
        let table = client.table("t").unwrap();
        for key in 0..200 {
            table.put(key, doc! { "n": 0 }, plain()).await.unwrap();
        }
        let writer = tokio::spawn({
            let table = table.clone();
            async move {
                for n in 1..600i64 {
                    let key = (n * 7919) % 250;
                    match n % 5 {
                        0 => match table.delete(key, plain()).await {
                            Err(error) if error.code() == Code::NotFound => {}
                            deleted => drop(deleted.unwrap()),
                        },
                        _ => drop(table.put(key, doc! { "n": n }, plain()).await.unwrap()),
                    }
                }
                table.put("end", doc! {}, plain()).await.unwrap();
            }
        });
        let watch = table.watch((), WatchOptions::default()).unwrap();
        let mut copy: BTreeMap<Key, Document> = BTreeMap::new();
        let mut snapshot = BTreeMap::new();
        let end = Key::new("end").unwrap();
        while !copy.contains_key(&end) {
            match event(&watch).await {
                TableEvent::Init => snapshot.clear(),
                TableEvent::InitApply { key, document, .. } => {
                    snapshot.insert(key, document);
                }
                TableEvent::InitDone => copy = std::mem::take(&mut snapshot),
                TableEvent::Apply { key, document, .. } => {
                    copy.insert(key, document);
                }
                TableEvent::Delete { key, .. } => {
                    copy.remove(&key);
                }
                _ => unreachable!("all events are named"),
            }
        }
        bounded(writer).await.unwrap();
        assert_eq!(copy, contents(&table).await, "{store}");
        close(client).await;
    }
}
