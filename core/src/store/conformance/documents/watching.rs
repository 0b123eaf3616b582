//! Watching a table: every change once it is there, in order, and from any place.

use std::collections::BTreeMap;

use bson::{Document, doc};
use futures::{StreamExt, TryStreamExt};

use super::super::{Bench, PATIENCE, cases};
use super::{tables, unwrap, update};
use crate::error::Code;
use crate::protocol::document::{Action, Filter, Key, Position, Write};
use crate::store::documents::{
    Change, Changes, Documents, Event, From, ManyAction, Operation, TableOptions, WatchOptions, WriteMany,
};
use crate::time::WallTime;

cases![
    changes_come_in_order,
    a_watch_goes_on_from_a_place_or_a_date,
    snapshot_and_changes_miss_nothing,
    what_was_before_is_shown_where_it_is_kept,
    who_watches_hears_of_the_end_of_a_table,
    many_changes_are_all_told,
    a_watch_comes_to_the_places_of_other_tables,
];

async fn next(changes: &mut Changes) -> Event {
    let next = tokio::time::timeout(PATIENCE, changes.next()).await.expect("an event in time");
    unwrap("an event", next.expect("a stream without an end"))
}

async fn change(changes: &mut Changes) -> Change {
    loop {
        match next(changes).await {
            Event::Change(change) => return *change,
            Event::Progress(_) => {}
            Event::Gap(place) => panic!("a gap at {place} that nobody has made"),
        }
    }
}

async fn begin(documents: &dyn Documents, table: &crate::protocol::document::TableName) -> (Changes, Position) {
    let mut changes = unwrap("watch", documents.watch(table, WatchOptions::default()).await);
    match next(&mut changes).await {
        Event::Gap(place) => (changes, place),
        other => panic!("a stream begins with a gap, not {other:?}"),
    }
}

async fn changes_come_in_order(bench: &Bench) {
    let tables = tables!(bench, "order");
    tables.insert("before", doc! {}).await;
    let (mut changes, start) = begin(tables.second, &tables.name).await;
    let write = |action| Write { source: Some("tester".into()), ..Write::new(Key::new("a").expect("a key"), action) };
    let actions = [
        Action::Insert(doc! { "n": 1, "m": 1 }),
        Action::Update(update(doc! { "$set": { "n": 2 }, "$unset": { "m": "" } })),
        Action::Replace(doc! { "n": 3 }),
        Action::Delete,
    ];
    let mut places = vec![start];
    for action in actions {
        let written = unwrap("write", tables.first.write(&tables.name, write(action)).await);
        places.push(written.position);
    }
    assert!(places.is_sorted_by(|left, right| left < right), "{places:?}");
    for (operation, changed) in [
        (Operation::Insert, vec![]),
        (Operation::Update, vec!["m".to_owned(), "n".to_owned()]),
        (Operation::Replace, vec![]),
        (Operation::Delete, vec![]),
    ] {
        let change = change(&mut changes).await;
        assert_eq!((change.operation, change.changed), (operation, changed));
        assert_eq!(change.key, Key::new("a").expect("a key"));
        assert!(change.position > places[0] && places.contains(&change.position), "{} in {places:?}", change.position);
        places[0] = change.position;
        if operation == Operation::Insert {
            assert_eq!(change.document, Some(doc! { "_id": "a", "n": 1, "m": 1 }));
        }
        match operation {
            // Whose it was is not known everywhere.
            Operation::Delete => assert_eq!((change.document, change.revision), (None, None)),
            _ => assert_eq!(change.source.as_deref(), Some("tester")),
        }
        assert!(change.at > WallTime(1_600_000_000_000));
    }
    tables.drop_table().await;
}

async fn a_watch_goes_on_from_a_place_or_a_date(bench: &Bench) {
    let tables = tables!(bench, "places");
    let mut places = Vec::new();
    for n in 0..5_i64 {
        places.push(tables.insert(n, doc! { "n": n }).await.position);
    }
    let watch = |from| tables.second.watch(&tables.name, WatchOptions { from, previous: false });
    let mut changes = unwrap("watch", watch(From::After(places[1])).await);
    let mut next = change(&mut changes).await;
    if next.position == places[1] {
        // At least what comes after it; the place itself may come again.
        next = change(&mut changes).await;
    }
    assert_eq!(next.key, Key::from(2));
    let date = next.at;
    assert_eq!(change(&mut changes).await.key, Key::from(3));
    let mut changes = unwrap("watch", watch(From::Time(date)).await);
    loop {
        let change = change(&mut changes).await;
        assert!(change.at >= date);
        if change.key == Key::from(2) {
            break;
        }
    }
    tables.insert(5_i64, doc! {}).await;
    while change(&mut changes).await.key != Key::from(5) {}
    tables.drop_table().await;
}

async fn snapshot_and_changes_miss_nothing(bench: &Bench) {
    let tables = tables!(bench, "snapshot");
    for n in 0..20_i64 {
        tables.insert(n, doc! { "n": 0 }).await;
    }
    let writing = async {
        for round in 1..=10 {
            for n in 0..20_i64 {
                let action = match (n + round) % 4 {
                    0 => Action::Delete,
                    _ => Action::Put(doc! { "n": round }),
                };
                match tables.first.write(&tables.name, Write::new(Key::from(n), action)).await {
                    Err(error) if error.code() == Code::NotFound => {}
                    done => drop(unwrap("write", done)),
                }
            }
        }
        tables.insert("end", doc! {}).await
    };
    let mirroring = async {
        let snapshot = unwrap("snapshot", tables.second.snapshot(&tables.name, Filter::default()).await);
        let mut mirror: BTreeMap<Key, Document> = BTreeMap::new();
        let found: Vec<_> = unwrap("snapshot", snapshot.documents.try_collect().await);
        mirror.extend(found.into_iter().map(|stored| (stored.key, stored.document)));
        if mirror.contains_key(&Key::new("end").expect("a key")) {
            return mirror;
        }
        let options = WatchOptions { from: From::After(snapshot.position), previous: false };
        let mut changes = unwrap("watch", tables.second.watch(&tables.name, options).await);
        loop {
            let Change { key, document, operation, .. } = change(&mut changes).await;
            let end = key == Key::new("end").expect("a key");
            match document {
                Some(document) => drop(mirror.insert(key, document)),
                None if operation == Operation::Delete => drop(mirror.remove(&key)),
                // It is deleted by now, which comes later.
                None => {}
            }
            if end {
                return mirror;
            }
        }
    };
    let (mirror, _) = futures::future::join(mirroring, writing).await;
    let found = unwrap("find", tables.second.find(&tables.name, super::Query::default()).await);
    let found: Vec<_> = unwrap("find", found.try_collect().await);
    let truth: BTreeMap<Key, Document> = found.into_iter().map(|stored| (stored.key, stored.document)).collect();
    assert_eq!(mirror, truth);
    tables.drop_table().await;
}

async fn what_was_before_is_shown_where_it_is_kept(bench: &Bench) {
    let tables = tables!(bench, "previous");
    match tables.first.configure(&tables.name, TableOptions { previous: true }).await {
        Err(error) if error.code() == Code::Unsupported => return,
        done => unwrap("configure", done),
    }
    tables.insert("a", doc! { "n": 1 }).await;
    let options = WatchOptions { previous: true, ..WatchOptions::default() };
    let mut changes = unwrap("watch", tables.second.watch(&tables.name, options).await);
    assert!(matches!(next(&mut changes).await, Event::Gap(_)));
    unwrap("update", tables.write("a", Action::Update(update(doc! { "$set": { "n": 2 } }))).await);
    unwrap("delete", tables.write("a", Action::Delete).await);
    assert_eq!(change(&mut changes).await.previous, Some(doc! { "_id": "a", "n": 1 }));
    assert_eq!(change(&mut changes).await.previous, Some(doc! { "_id": "a", "n": 2 }));
    tables.drop_table().await;
}

async fn who_watches_hears_of_the_end_of_a_table(bench: &Bench) {
    let tables = tables!(bench, "end");
    tables.insert("a", doc! {}).await;
    let (mut changes, _) = begin(tables.second, &tables.name).await;
    tables.drop_table().await;
    while !matches!(next(&mut changes).await, Event::Gap(_)) {}
    tables.insert("b", doc! {}).await;
    loop {
        // A store that opens another stream after the end may find the new document only by reading.
        match next(&mut changes).await {
            Event::Change(change) if change.key == Key::new("b").expect("a key") => break,
            Event::Gap(_) if tables.read("b").await.is_some() => break,
            _ => {}
        }
    }
    tables.drop_table().await;
}

async fn many_changes_are_all_told(bench: &Bench) {
    let tables = tables!(bench, "told");
    let (mut changes, _) = begin(tables.second, &tables.name).await;
    for n in 0..100_i64 {
        tables.insert(n, doc! { "n": n }).await;
    }
    let many = WriteMany {
        filter: Filter::default(),
        action: ManyAction::Update(update(doc! { "$set": { "seen": true } })),
        fence: None,
        source: Some("many".into()),
    };
    let done = unwrap("update", tables.first.write_many(&tables.name, many).await);
    assert_eq!(done.count, 100);
    let mut told = BTreeMap::new();
    while told.len() < 100 {
        let change = change(&mut changes).await;
        if change.operation == Operation::Update {
            assert_eq!(change.source.as_deref(), Some("many"));
            told.insert(change.key, change.changed);
        }
    }
    assert!(told.values().all(|changed| changed == &["seen".to_owned()]));
    tables.drop_table().await;
}

/// Else the place that a quiet reader keeps would be removed with what was written elsewhere.
async fn a_watch_comes_to_the_places_of_other_tables(bench: &Bench) {
    let (tables, other) = (tables!(bench, "quiet"), tables!(bench, "busy"));
    let own = tables.insert("a", doc! {}).await.position;
    let (mut changes, _) = begin(tables.second, &tables.name).await;
    let there = other.insert("b", doc! {}).await.position;
    assert!(there > own);
    let reached = loop {
        match next(&mut changes).await {
            Event::Progress(place) if place >= there => break place,
            Event::Progress(_) => {}
            event => panic!("{event:?} of a table that nobody has changed"),
        }
    };
    let options = WatchOptions { from: From::After(reached), previous: false };
    let mut changes = unwrap("watch", tables.second.watch(&tables.name, options).await);
    tables.insert("c", doc! {}).await;
    assert_eq!(change(&mut changes).await.key, Key::new("c").expect("a key"));
    other.drop_table().await;
    tables.drop_table().await;
}
