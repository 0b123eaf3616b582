//! Tables on real servers, with a plain client of the driver that writes beside us: other programs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coord_core::bson::oid::ObjectId;
use coord_core::bson::{Bson, Document, doc};
use coord_core::error::{Code, Result};
use coord_core::protocol::claim::Step;
use coord_core::protocol::document::{Action, Condition, Fence, Filter, Key, Position, TableName, Update, Write};
use coord_core::store::Store;
use coord_core::store::documents::{
    Change, Changes, Documents, Event, From, Index, ManyAction, Operation, Query, TableOptions, WatchOptions, WriteMany,
};
use coord_core::store::mongodb::MongoStore;
use coord_tests::servers::{self, ReplicaSet, SetOptions};
use futures::{StreamExt, TryStreamExt};
use mongodb::{Client, Collection};

use super::support::{PATIENCE, TTL, acquire, entry, env, env_behind, key, open, prefix, release, run, session, until};

/// A collection of others, as they have it and as we do.
struct Shared {
    store: Arc<MongoStore>,
    table: TableName,
    others: Collection<Document>,
}

impl Shared {
    async fn new(uri: &str) -> Self {
        let collection = format!("{}others", prefix());
        let others = Client::with_uri_str(uri).await.unwrap().database("elsewhere").collection(&collection);
        let table = TableName::parse(&format!("elsewhere.{collection}")).unwrap();
        Self { store: Arc::new(open(uri).await), table, others }
    }

    fn documents(&self) -> &dyn Documents {
        self.store.documents().unwrap()
    }

    async fn write(&self, write: Write) -> Result<coord_core::store::documents::Written> {
        self.documents().write(&self.table, write).await
    }

    async fn all(&self) -> BTreeMap<Key, Document> {
        let found = self.documents().find(&self.table, Query::default()).await.unwrap();
        found.map_ok(|stored| (stored.key, stored.document)).try_collect().await.unwrap()
    }

    async fn close(self) {
        self.others.drop().await.unwrap();
        self.store.close().await;
    }
}

async fn next(changes: &mut Changes) -> Event {
    tokio::time::timeout(PATIENCE, changes.next()).await.expect("in time").expect("no end").expect("an event")
}

async fn change(changes: &mut Changes) -> Change {
    loop {
        match next(changes).await {
            Event::Change(change) => return *change,
            Event::Progress(_) => {}
            Event::Gap(place) => panic!("a gap at {place}"),
        }
    }
}

/// The holds of a lock by two holders, one after the other; only the second is there still.
async fn holds(store: &MongoStore, name: &str) -> (Fence, Fence) {
    let lock = key(name);
    let mut fences = Vec::new();
    for attempt in 1..=2 {
        let holder = entry(session(), attempt);
        let token = acquire(store, &lock, holder).await.token;
        fences.push(Fence { lock: lock.clone(), holder, token, strict: false });
        if attempt == 1 {
            release(store, &lock, holder).await;
        }
    }
    let current = fences.pop().unwrap();
    (fences.pop().unwrap(), current)
}

fn set(fields: Document) -> Update {
    Update::parse(doc! { "$set": fields }).unwrap()
}

#[test]
fn documents_of_others_are_read_watched_and_written_as_they_are() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let shared = Shared::new(&uri).await;
        let mut changes = shared.documents().watch(&shared.table, WatchOptions::default()).await.unwrap();
        assert!(matches!(next(&mut changes).await, Event::Gap(_)));
        let id = ObjectId::new();
        let id_of = |id: ObjectId| Key::new(id).unwrap();
        shared.others.insert_one(doc! { "_id": id, "n": 1, "x": { "y": [1, 2] } }).await.unwrap();
        shared
            .others
            .update_one(doc! { "_id": id }, doc! { "$set": { "x.y": [3] }, "$unset": { "n": 1 } })
            .await
            .unwrap();
        shared.others.replace_one(doc! { "_id": id }, doc! { "r": true }).await.unwrap();
        shared.others.insert_one(doc! { "_id": 1.5 }).await.unwrap();
        shared.others.delete_one(doc! { "_id": id }).await.unwrap();

        let inserted = change(&mut changes).await;
        assert_eq!((inserted.operation, &inserted.key), (Operation::Insert, &id_of(id)));
        assert_eq!(inserted.document, Some(doc! { "_id": id, "n": 1, "x": { "y": [1, 2] } }));
        assert_eq!(inserted.source, None);
        let updated = change(&mut changes).await;
        assert_eq!((updated.operation, updated.source), (Operation::Update, None));
        assert_eq!(updated.changed, ["n", "x.y"]);
        let replaced = change(&mut changes).await;
        assert_eq!((replaced.operation, replaced.document), (Operation::Replace, Some(doc! { "_id": id, "r": true })));
        assert_eq!(change(&mut changes).await.key, Key::stored(Bson::Double(1.5)));
        assert_eq!(change(&mut changes).await.operation, Operation::Delete);
        assert_eq!(shared.all().await.len(), 1);

        // What we write there is what anybody would have written.
        let write = Write { source: Some("us".into()), ..Write::new(id_of(id), Action::Put(doc! { "ours": 1 })) };
        let written = shared.write(write).await.unwrap();
        let found = shared.others.find_one(doc! { "_id": id }).await.unwrap();
        assert_eq!(found, Some(doc! { "_id": id, "ours": 1 }));
        let revision = written.revision.unwrap();
        shared.others.update_one(doc! { "_id": id }, doc! { "$set": { "theirs": 1 } }).await.unwrap();
        let stale = Write { condition: Condition::Revision(revision), ..Write::new(id_of(id), Action::Delete) };
        assert_eq!(shared.write(stale).await.unwrap_err().code(), Code::Conflict, "others' writes count");
        let known = Condition::Document(doc! { "ours": 1, "theirs": 1 });
        let write = Write { condition: known, ..Write::new(id_of(id), Action::Replace(doc! { "ours": 2 })) };
        shared.write(write).await.unwrap();

        // A view is read as a collection is, and has no changes.
        let (name, database) = (format!("{}view", prefix()), shared.others.client().database("elsewhere"));
        database.create_collection(&name).view_on(shared.others.name()).pipeline([]).await.unwrap();
        let view = TableName::parse(&format!("elsewhere.{name}")).unwrap();
        assert_eq!(shared.documents().count(&view, Filter::default()).await.unwrap(), 2);
        let refused = shared.documents().watch(&view, WatchOptions::default()).await.map(drop).unwrap_err();
        assert!(refused.code() == Code::Unsupported && refused.message().contains("it is a view"), "{refused}");
        database.collection::<Document>(&name).drop().await.unwrap();
        shared.close().await;
    });
}

#[test]
fn our_own_tables_name_who_wrote_until_somebody_else_does() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let prefix = prefix();
        let store = MongoStore::open(&uri, &prefix, 20, TTL, env()).await.unwrap();
        let documents = store.documents().unwrap();
        let table = TableName::parse("orders").unwrap();
        let plain: Collection<Document> =
            Client::with_uri_str(&uri).await.unwrap().database("coord").collection(&format!("{prefix}t_orders"));
        let mut changes = documents.watch(&table, WatchOptions::default()).await.unwrap();
        assert!(matches!(next(&mut changes).await, Event::Gap(_)));
        let ours = |action| Write { source: Some("billing app".into()), ..Write::new(Key::from(1), action) };
        documents.write(&table, ours(Action::Insert(doc! { "n": 1 }))).await.unwrap();
        documents.write(&table, ours(Action::Update(set(doc! { "n": 2 })))).await.unwrap();
        plain.update_one(doc! { "_id": 1 }, doc! { "$set": { "n": 3 } }).await.unwrap();
        documents.write(&table, ours(Action::Update(set(doc! { "n": 3 })))).await.unwrap();
        let mut sources = Vec::new();
        for _ in 0..4 {
            sources.push(change(&mut changes).await.source);
        }
        let us = Some("billing app".to_owned());
        assert_eq!(sources, [us.clone(), us.clone(), None, us]);
        let raw = plain.find_one(doc! {}).await.unwrap().unwrap();
        assert!(raw.get_str("_by").unwrap().starts_with("billing app "), "{raw}");
        documents.drop_table(&table).await.unwrap();
        store.close().await;
    });
}

#[test]
fn fences_hold_in_collections_that_others_write() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let shared = Shared::new(&uri).await;
        let (stale, current) = holds(&shared.store, "fenced").await;
        shared.others.insert_one(doc! { "_id": "a", "n": 0 }).await.unwrap();
        let fenced = |action, fence: &Fence| {
            shared.write(Write { fence: Some(fence.clone()), ..Write::new(Key::new("a").unwrap(), action) })
        };
        let by = |who: &str| Action::Update(set(doc! { "by": who }));
        // Nobody later has written yet: this is what a fence does not stop.
        fenced(by("stale"), &stale).await.unwrap();
        fenced(by("current"), &current).await.unwrap();
        assert_eq!(fenced(by("stale"), &stale).await.unwrap_err().code(), Code::Fenced);
        shared.others.update_one(doc! { "_id": "a" }, doc! { "$inc": { "n": 1 } }).await.unwrap();
        assert_eq!(fenced(by("stale"), &stale).await.unwrap_err().code(), Code::Fenced);
        // Others remove the document, fences and all, and make it anew.
        shared.others.delete_one(doc! { "_id": "a" }).await.unwrap();
        assert_eq!(fenced(Action::Upsert(set(doc! { "by": "stale" })), &stale).await.unwrap_err().code(), Code::Fenced);
        shared.others.insert_one(doc! { "_id": "a", "n": 5 }).await.unwrap();
        for action in [by("stale"), Action::Put(doc! {}), Action::Replace(doc! {}), Action::Delete] {
            assert_eq!(fenced(action, &stale).await.unwrap_err().code(), Code::Fenced);
        }
        assert_eq!(shared.all().await.into_values().collect::<Vec<_>>(), [doc! { "_id": "a", "n": 5 }]);
        let strict = Fence { strict: true, ..current.clone() };
        fenced(by("strict"), &strict).await.unwrap();
        release(&shared.store, &current.lock, current.holder).await;
        fenced(by("late, but nobody else has written"), &current).await.unwrap();
        assert_eq!(fenced(by("late"), &strict).await.unwrap_err().code(), Code::Fenced);
        shared.close().await;
    });
}

/// Writers with their tokens in a random order, on documents that come and go: each document's writes have tokens that
/// never fall.
#[test]
fn tokens_never_fall_on_a_document() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let shared = Arc::new(Shared::new(&uri).await);
        let lock = key("rising");
        let mut fences = Vec::new();
        for attempt in 1..=6 {
            let holder = entry(session(), attempt);
            let token = acquire(&shared.store, &lock, holder).await.token;
            fences.push(Fence { lock: lock.clone(), holder, token, strict: false });
            release(&shared.store, &lock, holder).await;
        }
        let mut changes = shared.documents().watch(&shared.table, WatchOptions::default()).await.unwrap();
        assert!(matches!(next(&mut changes).await, Event::Gap(_)));
        let writers = fences.into_iter().map(|fence| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                for n in 0..40_u64 {
                    let key = Key::from((n % 3) as i64);
                    let action = match env().rng.bits() % 5 {
                        0 => Action::Delete,
                        1 => Action::Insert(doc! { "token": fence.token }),
                        2 => Action::Put(doc! { "token": fence.token }),
                        _ => Action::Upsert(set(doc! { "token": fence.token })),
                    };
                    let write = Write { fence: Some(fence.clone()), ..Write::new(key, action) };
                    match shared.write(write).await {
                        Ok(_) => {}
                        Err(error) => assert!(
                            matches!(error.code(), Code::Fenced | Code::NotFound | Code::AlreadyExists),
                            "{error}"
                        ),
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        shared.others.insert_one(doc! { "_id": "end" }).await.unwrap();
        let mut highest: BTreeMap<Key, i64> = BTreeMap::new();
        loop {
            let change = change(&mut changes).await;
            if change.key == Key::new("end").unwrap() {
                break;
            }
            // An update shows the document as of later, and an insert or a replacement as of then.
            if let (Operation::Insert | Operation::Replace, Some(document)) = (change.operation, change.document) {
                let token = document.get_i64("token").unwrap();
                let before = highest.entry(change.key.clone()).or_insert(token);
                assert!(token >= *before, "{} fell from {before} to {token}", change.key);
                *before = token;
            }
        }
        let last = Arc::try_unwrap(shared).ok().expect("the only user");
        last.close().await;
    });
}

#[test]
fn many_are_written_whoever_made_them() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let shared = Shared::new(&uri).await;
        let (stale, current) = holds(&shared.store, "many").await;
        let made: Vec<Document> = (0..50_i64).map(|n| doc! { "_id": n, "n": n }).collect();
        shared.others.insert_many(made).await.unwrap();
        let many = |which, action, fence: Option<&Fence>| {
            let filter = Filter::parse(which).unwrap();
            let write = WriteMany { filter, action, fence: fence.cloned(), source: None };
            shared.documents().write_many(&shared.table, write)
        };
        let half = doc! { "$expr": { "$lt": ["$n", 25] } };
        let update = |who: &str| ManyAction::Update(set(doc! { "by": who }));
        assert_eq!(many(half.clone(), update("current"), Some(&current)).await.unwrap().count, 25);
        let error = many(doc! {}, update("stale"), Some(&stale)).await.unwrap_err();
        assert_eq!(error.code(), Code::Fenced);
        assert!(error.message().contains("25"), "{error}");
        let count = async |which| shared.documents().count(&shared.table, Filter::parse(which).unwrap()).await.unwrap();
        assert_eq!((count(doc! { "by": "current" }).await, count(doc! { "by": "stale" }).await), (25, 25));
        let pipeline = ManyAction::Update(Update::pipeline(vec![doc! { "$set": { "n": 0 } }]).unwrap());
        assert_eq!(
            many(doc! {}, pipeline, None).await.unwrap_err().code(),
            Code::Unsupported,
            "it may drop the fences"
        );
        assert_eq!(many(half, ManyAction::Delete, None).await.unwrap().count, 25);
        assert_eq!(many(doc! {}, ManyAction::Delete, Some(&current)).await.unwrap().count, 25);
        let put = Write { fence: Some(stale), ..Write::new(Key::from(3), Action::Put(doc! {})) };
        assert_eq!(shared.write(put).await.unwrap_err().code(), Code::Fenced);
        shared.close().await;
    });
}

#[test]
fn what_only_the_server_knows_it_answers_and_refuses() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let shared = Shared::new(&uri).await;
        shared.others.insert_many((0..5_i64).map(|n| doc! { "_id": n, "n": n })).await.unwrap();
        let documents = shared.documents();
        let pipeline = vec![doc! { "$group": { "_id": null, "sum": { "$sum": "$n" } } }];
        let found: Vec<Document> =
            documents.aggregate(&shared.table, pipeline).await.unwrap().try_collect().await.unwrap();
        assert_eq!(found, [doc! { "_id": null, "sum": 10_i64 }]);
        for wrong in
            [vec![doc! { "$out": "x" }], vec![doc! { "$nothing": 1 }], vec![doc! { "$merge": { "into": "x" } }]]
        {
            let answer = documents.aggregate(&shared.table, wrong).await.map(drop);
            assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
        }
        for wrong in [
            doc! { "$where": 1 },
            doc! { "$where": "(" },
            doc! { "n": { "$nothing": 1 } },
            doc! { "n": { "$elemMatch": 1 } },
            // There is no index for it.
            doc! { "$text": { "$search": "x" } },
        ] {
            let answer = documents.count(&shared.table, Filter::parse(wrong.clone()).unwrap()).await;
            assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument, "{wrong}");
        }
        let pipeline = Update::pipeline(vec![doc! { "$set": { "n": { "$add": ["$n", 10] } } }]).unwrap();
        let written = shared.write(Write::new(Key::from(1), Action::Update(pipeline))).await.unwrap();
        assert_eq!(written.document, doc! { "_id": 1_i64, "n": 11_i64 });
        let update = Update::parse(doc! { "$mul": { "n": 2 } }).unwrap();
        let written = shared.write(Write::new(Key::from(1), Action::Upsert(update))).await.unwrap();
        assert_eq!(written.document, doc! { "_id": 1_i64, "n": 22_i64 });
        shared.close().await;
    });
}

/// In a set in which nothing else happens the next change stands at the very place from which a stream was asked for.
#[test]
fn no_place_is_told_before_what_comes_to_stand_there() {
    let Some(set) = ReplicaSet::with(SetOptions::of(1)) else { return };
    run(async move {
        let shared = Shared::new(&set.uri()).await;
        for n in 0..5 {
            let mut changes = shared.documents().watch(&shared.table, WatchOptions::default()).await.unwrap();
            assert!(matches!(next(&mut changes).await, Event::Gap(_)));
            let Event::Progress(place) = next(&mut changes).await else { panic!("nothing has changed") };
            let other = TableName::parse("elsewhere.another").unwrap();
            let insert = || Write::new(Key::from(n), Action::Insert(doc! {}));
            let written = shared.write(insert()).await.unwrap().position;
            assert!(place < written, "{place} was told, and then came {written}");
            let from = WatchOptions { from: From::After(place), previous: false };
            let mut changes = shared.documents().watch(&shared.table, from).await.unwrap();
            while !matches!(next(&mut changes).await, Event::Change(change) if change.position == written) {}
            // What was written elsewhere is passed although nothing comes after it.
            let passed = shared.documents().write(&other, insert()).await.unwrap().position;
            while !matches!(next(&mut changes).await, Event::Progress(place) if place >= passed) {}
        }
        shared.close().await;
    });
}

/// The oplog rolls over while a slow reader does not read: it is told of the gap, and misses nothing by reading anew.
#[test]
fn a_watch_whose_history_is_lost_has_a_gap() {
    let Some(set) = ReplicaSet::with(SetOptions { oplog_mb: 4, ..SetOptions::of(1) }) else { return };
    run(async move {
        let shared = Shared::new(&set.uri()).await;
        let mut changes = shared.documents().watch(&shared.table, WatchOptions::default()).await.unwrap();
        let Event::Gap(start) = next(&mut changes).await else { panic!("a stream begins with a gap") };
        let large = "x".repeat(100_000);
        for n in 0..900_i64 {
            shared.others.insert_one(doc! { "_id": n, "large": &large }).await.unwrap();
        }
        let end = shared.write(Write::new(Key::from(900), Action::Insert(doc! {}))).await.unwrap().position;
        let oplog: Collection<Document> = shared.others.client().database("local").collection("oplog.rs");
        until("the oplog has rolled over", async || {
            // It keeps what came after the last checkpoint, which this makes.
            set.command(doc! { "fsync": 1 }).unwrap();
            shared.others.replace_one(doc! { "_id": 900 }, doc! { "large": &large }).await.unwrap();
            let oldest = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await.unwrap().unwrap();
            let oldest = oldest.get_timestamp("ts").unwrap();
            (Position(u64::from(oldest.time) << 32 | u64::from(oldest.increment)) > end).then_some(())
        })
        .await;
        let late = WatchOptions { from: From::After(start), previous: false };
        let answer = shared.documents().watch(&shared.table, late).await.map(drop);
        assert_eq!(answer.unwrap_err().code(), Code::Compacted);
        let mut seen = 0;
        let gap = loop {
            match next(&mut changes).await {
                Event::Change(_) => seen += 1,
                Event::Gap(place) => break place,
                Event::Progress(_) => {}
            }
        };
        assert!(seen < 900, "history was lost");
        assert_eq!(shared.all().await.len(), 901, "reading anew finds what was missed");
        shared.others.insert_one(doc! { "_id": "after" }).await.unwrap();
        let after = loop {
            let change = change(&mut changes).await;
            if change.key == Key::new("after").unwrap() {
                break change;
            }
        };
        assert!(after.position > gap);
        shared.close().await;
    });
}

#[test]
fn what_has_expired_goes_by_the_servers_date_and_who_watches_sees_it() {
    let Some(set) = ReplicaSet::start(1) else { return };
    run(async move {
        let mut shared = Shared::new(&set.uri()).await;
        let index = Index {
            fields: vec![("at".into(), false)],
            expire_after: Some(Duration::from_secs(1)),
            ..Index::default()
        };
        shared.documents().ensure_indexes(&shared.table, vec![index]).await.unwrap();

        // A tombstone is kept for 30 days; to this client that was yesterday.
        let (old, current) = holds(&shared.store, "job").await;
        let behind = env_behind(Duration::from_secs(31 * 24 * 3_600));
        let prefix = prefix();
        let ours = MongoStore::open(&set.uri(), &prefix, 20, TTL, env()).await.unwrap();
        shared.store.close().await;
        shared.store = Arc::new(MongoStore::open(&set.uri(), &prefix, 20, TTL, behind).await.unwrap());
        let apart = ours.date().await.unwrap().0.abs_diff(shared.store.date().await.unwrap().0);
        assert!(apart < 3_600_000, "both say the server's date, not {apart} ms apart");
        let fenced = |action, fence: &Fence| Write { fence: Some(fence.clone()), ..Write::new(Key::from(0), action) };
        shared.write(fenced(Action::Put(doc! { "n": 1 }), &current)).await.unwrap();
        shared.write(fenced(Action::Delete, &current)).await.unwrap();

        // The second of them expires in a round that began after the tombstone was there.
        let mut changes = shared.documents().watch(&shared.table, WatchOptions::default()).await.unwrap();
        let date = coord_core::bson::DateTime::from_millis(1_000_000_000_000);
        shared.write(Write::new(Key::from(9), Action::Insert(doc! { "at": "no date" }))).await.unwrap();
        for key in [1, 2] {
            shared.write(Write::new(Key::from(key), Action::Insert(doc! { "at": date }))).await.unwrap();
            loop {
                if let Event::Change(change) = next(&mut changes).await
                    && change.operation == Operation::Delete
                {
                    assert_eq!(change.key, Key::from(key));
                    break;
                }
            }
        }
        assert_eq!(shared.all().await.into_keys().collect::<Vec<_>>(), [Key::from(9)]);
        let late = shared.write(fenced(Action::Put(doc! { "n": 0 }), &old)).await.unwrap_err();
        assert_eq!(late.code(), Code::Fenced, "{late}");
        ours.close().await;
        shared.close().await;
    });
}

/// Primaries step down while we and others write: no change is missing from what one has who watches.
#[test]
fn a_watch_survives_failovers_without_a_loss() {
    let Some(set) = ReplicaSet::start(3) else { return };
    run(async move {
        let set = Arc::new(set);
        let shared = Arc::new(Shared::new(&set.uri()).await);
        shared.documents().configure(&shared.table, TableOptions { previous: true }).await.unwrap();
        let snapshot = shared.documents().snapshot(&shared.table, Filter::default()).await.unwrap();
        assert!(snapshot.exact);
        let options = WatchOptions { from: From::After(snapshot.position), previous: true };
        let mut changes = shared.documents().watch(&shared.table, options).await.unwrap();
        let writing = {
            let (shared, set) = (Arc::clone(&shared), Arc::clone(&set));
            async move {
                for round in 0..120_i64 {
                    if round % 40 == 20 {
                        let set = Arc::clone(&set);
                        super::support::blocking(move || set.step_down()).await;
                    }
                    let action = if round % 7 == 0 { Action::Delete } else { Action::Put(doc! { "round": round }) };
                    let write = Write::new(Key::from(round % 10), action);
                    // What it is after an unknown outcome is for the watch to tell.
                    until("a write", async || match shared.write(write.clone()).await {
                        Ok(_) => Some(()),
                        Err(error) if error.code() == Code::NotFound => Some(()),
                        Err(error) => {
                            assert_eq!(error.code(), Code::Unavailable, "{error}");
                            None
                        }
                    })
                    .await;
                    until("another's write", async || {
                        let filter = doc! { "_id": 100 + round % 5 };
                        let update = doc! { "$set": { "round": round } };
                        shared.others.update_one(filter, update).upsert(true).await.ok()
                    })
                    .await;
                }
                until("the end", async || shared.others.insert_one(doc! { "_id": "end" }).await.ok()).await;
            }
        };
        let mirroring = async {
            let mut mirror: BTreeMap<Key, Document> = BTreeMap::new();
            loop {
                let Change { key, document, operation, .. } = change(&mut changes).await;
                let end = key == Key::new("end").unwrap();
                match document {
                    Some(document) => drop(mirror.insert(key, document)),
                    None if operation == Operation::Delete => drop(mirror.remove(&key)),
                    None => {}
                }
                if end {
                    return mirror;
                }
            }
        };
        let ((), mirror) = futures::join!(writing, mirroring);
        assert_eq!(mirror, shared.all().await);
        shared.store.close().await;
    });
}

#[test]
fn a_held_lock_is_granted_on_while_strict_writes_look_at_it() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async move {
        let shared = Shared::new(&uri).await;
        let (_, current) = holds(&shared.store, "busy").await;
        let strict = Fence { strict: true, ..current.clone() };
        let writes = (0..20_i64).map(|n| {
            let put = Action::Put(doc! { "n": n });
            shared.write(Write { fence: Some(strict.clone()), ..Write::new(Key::from(n), put) })
        });
        let waiter = entry(session(), 9);
        let queueing = super::support::step(&shared.store, &current.lock, Step::acquire(waiter, true, 256, Vec::new()));
        let (written, queued) = futures::join!(futures::future::join_all(writes), queueing);
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        assert!(queued.unwrap().waiting);
        let handed = release(&shared.store, &current.lock, current.holder).await.unwrap();
        assert_eq!(handed.holder, Some(waiter));
        shared.close().await;
    });
}
