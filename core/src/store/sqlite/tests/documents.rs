//! Tables in the file: what only SQLite does.

use bson::{DateTime, doc};
use futures::{FutureExt, TryStreamExt};

use super::*;
use crate::error::Code;
use crate::protocol::document::{Action, Filter, Key, Position, TableName, Update, Write};
use crate::store::changes::{Change, Interest};
use crate::store::documents::{Documents, Event, From, Index, ManyAction, Operation, Query, WatchOptions, WriteMany};
use crate::store::sqlite::documents::work::{DocumentDone, DocumentWork, Filled};
use crate::store::sqlite::{Done, Work, places};
use crate::time::{ManualClock, Timestamp, WallTime};

fn table() -> TableName {
    TableName::parse("t").unwrap()
}

fn insert(n: i64) -> Write {
    Write::new(Key::from(n), Action::Insert(doc! { "n": n }))
}

async fn next(changes: &mut crate::store::documents::Changes) -> Event {
    tokio::time::timeout(Duration::from_secs(30), changes.next()).await.expect("in time").expect("no end").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_synced_and_coordination_is_not() {
    let scratch = Scratch::new();
    let store = open(&scratch.path("t.db")).await;
    let level = || {
        let open = store.inner().unwrap();
        open.writer.with_connection(|db| db.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).unwrap())
    };
    // The store's own upkeep may write in between, so one look says little; a level that is never there says all.
    for round in 0..3 {
        let mut levels = Vec::new();
        for n in 0..100 {
            store.write(&table(), insert(round * 100 + n)).await.unwrap();
            levels.push(level());
        }
        assert!(levels.contains(&2), "FULL: {levels:?}");
        levels.clear();
        for _ in 0..100 {
            store.health().await.unwrap();
            levels.push(level());
        }
        assert!(levels.contains(&1), "NORMAL: {levels:?}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_is_told_and_reads_what_was_written() {
    let scratch = Scratch::new();
    let (first, second) = (open(&scratch.path("t.db")).await, open(&scratch.path("t.db")).await);
    let mut changes = second.watch(&table(), WatchOptions::default()).await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Gap(_)));
    for n in 0..1_200 {
        first.write(&table(), insert(n)).await.unwrap();
    }
    for n in 0..1_200 {
        let Event::Change(change) = next(&mut changes).await else { panic!("only changes") };
        assert_eq!(change.key, Key::from(n));
    }
    let all = WriteMany {
        filter: Filter::default(),
        action: ManyAction::Update(Update::parse(doc! { "$set": { "seen": 1 } }).unwrap()),
        fence: None,
        source: None,
    };
    assert_eq!(second.write_many(&table(), all).await.unwrap().count, 1_200, "in several transactions");
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_was_trimmed_is_told_so() {
    let scratch = Scratch::new();
    let store = open(&scratch.path("t.db")).await;
    let position = store.write(&table(), insert(1)).await.unwrap().position;
    store.write(&table(), insert(2)).await.unwrap();
    let watch = |from| store.watch(&table(), WatchOptions { from, previous: false });
    let mut changes = watch(From::After(position)).await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Change(change) if change.key == Key::from(2)));
    let beyond = watch(From::After(Position(1_000))).await.map(drop);
    assert_eq!(beyond.unwrap_err().code(), Code::InvalidArgument);
    store.inner().unwrap().writer.with_connection(|db| {
        db.execute_batch("UPDATE meta SET trimmed = (SELECT max(seq) FROM log); DELETE FROM log").unwrap();
    });
    assert_eq!(watch(From::After(position)).await.map(drop).unwrap_err().code(), Code::Compacted);
    assert_eq!(watch(From::Time(WallTime(0))).await.map(drop).unwrap_err().code(), Code::Compacted);
    store.close().await;
}

/// All rows are in one log: those of others are removed behind who has read all of his.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_of_other_tables_is_no_gap() {
    const HOUR: i64 = 3_600_000;
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
    let env = Env { clock: clock.clone(), ..env() };
    let store = SqliteStore::open(&scratch.path("t.db"), Durability::Normal, env).await.unwrap();
    let other = TableName::parse("other").unwrap();
    let mut changes = store.watch(&table(), WatchOptions::default()).await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Gap(_)));
    let interest = Interest { claims: vec!["lock/".into()], sessions: false };
    let mut claims = store.changes(interest).await.unwrap();
    assert!(matches!(claims.next().await, Some(Change::Snapshot(_))));
    let mut place = Position(0);
    for round in 1..=3 {
        for n in 0..10 {
            place = store.write(&other, insert(round * 10 + n)).await.unwrap().position;
        }
        // Nobody is told of what he does not follow: he looks each second.
        let second = async || clock.advance(Duration::from_secs(1));
        let (event, ()) = futures::join!(next(&mut changes), second());
        assert_eq!(event, Event::Progress(place));
        let (heard, ()) = futures::join!(tokio::time::timeout(Duration::from_millis(300), claims.next()), second());
        assert!(heard.is_err(), "{heard:?}");
        clock.set_wall(WallTime(1_750_000_000_000 + 2 * round * HOUR));
        store.write(&other, insert(round)).await.unwrap();
        store.inner().unwrap().writer.run(Work::Trim).await.unwrap();
        let trimmed = store.inner().unwrap().writer.with_connection(|db| places::trimmed(db).unwrap());
        assert_eq!(trimmed.cast_unsigned(), place.0);
    }
    store.write(&table(), insert(1)).await.unwrap();
    loop {
        match next(&mut changes).await {
            Event::Progress(_) => {}
            Event::Change(change) => break assert_eq!(change.key, Key::from(1)),
            Event::Gap(place) => panic!("a gap at {place}"),
        }
    }
    acquire(&store, "x", entry(1, 1)).await;
    assert!(matches!(soon(claims.next()).await, Some(Change::Claim(_))));
    // A place that was reached without a change of its own is one to go on from.
    let options = WatchOptions { from: From::After(place), previous: false };
    let mut changes = store.watch(&table(), options).await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Change(change) if change.key == Key::from(1)));
    store.close().await;
}

/// Grants are logged and not synced: a power loss takes their rows, and with them places that readers have kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_a_power_loss_took_is_no_place_any_more() {
    let scratch = Scratch::new();
    let (path, synced) = (scratch.path("t.db"), scratch.path("synced.db"));
    let store = open(&path).await;
    let first = store.write(&table(), insert(0)).await.unwrap().position;
    store.close().await;
    std::fs::copy(&path, &synced).unwrap();
    let mut last = first;
    for boot in 1..=2_i64 {
        let store = open(&path).await;
        let looking_on = store.changes(Interest { claims: vec![String::new()], sessions: false }).await.unwrap();
        for attempt in 0..5 {
            acquire(&store, "x", entry(1, attempt)).await;
            release(&store, "x", entry(1, attempt)).await;
        }
        let place = store.snapshot(&table(), Filter::default()).await.unwrap().position;
        assert!(place > last);
        drop(looking_on);
        store.close().await;
        // The power is lost, and comes again.
        std::fs::copy(&synced, &path).unwrap();
        rusqlite::Connection::open(&path).unwrap().execute("UPDATE meta SET boot = 'before'", []).unwrap();
        let store = open(&path).await;
        let watch = |place| store.watch(&table(), WatchOptions { from: From::After(place), previous: false });
        assert_eq!(watch(place).await.map(drop).unwrap_err().code(), Code::Compacted, "at once");
        for n in 0..20 {
            last = store.write(&table(), insert(boot * 100 + n)).await.unwrap().position;
            assert!(last > place, "a number is used twice");
        }
        assert_eq!(watch(place).await.map(drop).unwrap_err().code(), Code::Compacted, "and for ever");
        // What was synced is still known.
        let mut changes = watch(first).await.unwrap();
        assert!(matches!(next(&mut changes).await, Event::Change(change) if change.key == Key::from(100)));
        store.close().await;
        std::fs::copy(&path, &synced).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_is_searched_for_beside_coordination() {
    let scratch = Scratch::new();
    let store = open(&scratch.path("t.db")).await;
    store.write(&table(), insert(1)).await.unwrap();
    let reader = store.inner().unwrap().reader.clone();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (go_on, end) = std::sync::mpsc::channel::<()>();
    let (begin, end) = (std::sync::Mutex::new(Some(begin)), std::sync::Mutex::new(end));
    let reading = tokio::spawn(async move {
        let read = move |_: &rusqlite::Connection| {
            begin.lock().unwrap().take().unwrap().send(()).unwrap();
            // Until the test is over, whatever its end.
            let _ = end.lock().unwrap().recv();
            Ok(())
        };
        reader.read(false, read).await
    });
    begun.await.unwrap();
    let from = From::Time(WallTime(0));
    let mut changes = soon(store.watch(&table(), WatchOptions { from, previous: false })).await.unwrap();
    drop(go_on);
    assert!(matches!(next(&mut changes).await, Event::Change(change) if change.key == Key::from(1)));
    reading.await.unwrap().unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_dropped_documents_go() {
    let scratch = Scratch::new();
    let store = open(&scratch.path("t.db")).await;
    let old = |n: i64, millis| {
        let document = doc! { "at": DateTime::from_millis(millis) };
        store.write(&table(), Write::new(Key::from(n), Action::Insert(document))).boxed()
    };
    old(1, -5).await.unwrap();
    old(2, 1_000).await.unwrap();
    old(3, i64::MAX / 4).await.unwrap();
    store.write(&table(), insert(4)).await.unwrap();
    let mut changes = store.watch(&table(), WatchOptions::default()).await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Gap(_)));
    let index =
        Index { fields: vec![("at".into(), false)], expire_after: Some(Duration::from_secs(1)), ..Index::default() };
    store.ensure_indexes(&table(), vec![index]).await.unwrap();
    for _ in 0..2 {
        let Event::Change(change) = next(&mut changes).await else { panic!("only changes") };
        assert_eq!(change.operation, Operation::Delete);
        assert!([Key::from(1), Key::from(2)].contains(&change.key));
    }
    let left: Vec<_> = store.find(&table(), Query::default()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(left.len(), 2);

    store.drop_table(&table()).await.unwrap();
    assert!(matches!(next(&mut changes).await, Event::Gap(_)));
    assert_eq!(store.count(&table(), Filter::default()).await.unwrap(), 0);
    let remains = || {
        store.inner().unwrap().writer.with_connection(|db| {
            let count = |table: &str| {
                db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
            };
            count("doc") + count("entry") + count("ix") + count("tab")
        })
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while remains() > 0 {
        assert!(std::time::Instant::now() < deadline, "what a dropped table had is removed");
        tokio::task::yield_now().await;
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_over_many_documents_is_filled_in_parts() {
    let scratch = Scratch::new();
    let store = open(&scratch.path("t.db")).await;
    let writes = (0..1_300).map(|n| store.write(&table(), insert(n)));
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    let index = Index { fields: vec![("n".into(), false)], unique: true, ..Index::default() };
    store.ensure_indexes(&table(), vec![index]).await.unwrap();
    let query = Query { filter: Filter::parse(doc! { "n": { "$in": [7, 1_299.0] } }).unwrap(), ..Query::default() };
    let found: Vec<_> = store.find(&table(), query).await.unwrap().try_collect().await.unwrap();
    assert_eq!(found.len(), 2);
    let twice = Write::new(Key::from(-1), Action::Insert(doc! { "n": 1_000 }));
    assert_eq!(store.write(&table(), twice).await.unwrap_err().code(), Code::AlreadyExists);
    store.close().await;
}

fn index(field: &str, unique: bool) -> Index {
    Index { fields: vec![(field.into(), false)], unique, ..Index::default() }
}

async fn perform(store: &SqliteStore, work: DocumentWork) -> DocumentDone {
    match store.inner().unwrap().writer.run(Work::Document(work)).await.unwrap() {
        Done::Document(done) => done,
        other => panic!("{other:?}"),
    }
}

/// Adds indexes, and says which of them have to be filled.
async fn add(store: &SqliteStore, indexes: Vec<Index>) -> Vec<i64> {
    match perform(store, DocumentWork::AddIndexes(table(), indexes)).await {
        DocumentDone::Indexes(unready) => unready.unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn fill(store: &SqliteStore, indexes: &[i64], after: Option<Key>) -> crate::error::Result<Filled> {
    match perform(store, DocumentWork::Fill(table(), indexes.to_vec(), after)).await {
        DocumentDone::Filled(filled) => filled,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_ready_only_when_its_own_caller_has_filled_it() {
    let scratch = Scratch::new();
    let (store, other) = (open(&scratch.path("t.db")).await, open(&scratch.path("t.db")).await);
    store.write(&table(), Write::new(Key::from(1), Action::Insert(doc! { "a": 7, "b": 8 }))).await.unwrap();
    let by = |filter| store.count(&table(), Filter::parse(filter).unwrap());
    let a = add(&store, vec![index("a", false)]).await;
    assert_eq!(fill(&store, &a, None).await.unwrap(), Filled::To(Key::from(1)));
    let b = add(&other, vec![index("b", true)]).await;
    assert_eq!((a.len(), b.len()), (1, 1), "everybody fills what was asked for");
    assert_eq!(fill(&store, &a, Some(Key::from(1))).await.unwrap(), Filled::All);
    assert_eq!(by(doc! { "b": { "$gte": 8 } }).await.unwrap(), 1);
    assert_eq!(by(doc! { "b": 8 }).await.unwrap(), 1, "by an index that is not ready nobody looks");
    assert_eq!(fill(&other, &b, None).await.unwrap(), Filled::To(Key::from(1)));
    assert_eq!(fill(&other, &b, Some(Key::from(1))).await.unwrap(), Filled::All);
    assert_eq!(by(doc! { "a": 7 }).await.unwrap() + by(doc! { "b": 8 }).await.unwrap(), 2);
    let twice = Write::new(Key::from(2), Action::Insert(doc! { "b": 8 }));
    assert_eq!(store.write(&table(), twice).await.unwrap_err().code(), Code::AlreadyExists);
    // Both are filled by two at once: who comes second finds nothing to do.
    assert_eq!(fill(&store, &b, None).await.unwrap(), Filled::All);
    store.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_wanted_an_index_is_told_why_it_cannot_be() {
    let scratch = Scratch::new();
    let store = open(&scratch.path("t.db")).await;
    for n in 0..2 {
        store.write(&table(), Write::new(Key::from(n), Action::Insert(doc! { "a": n, "b": 8 }))).await.unwrap();
    }
    let (a, b) = (add(&store, vec![index("a", false)]).await, add(&store, vec![index("b", true)]).await);
    assert_eq!(add(&store, vec![index("b", true)]).await, b, "another one who wants it");
    assert_eq!(fill(&store, &a, None).await.unwrap(), Filled::To(Key::from(1)));
    assert_eq!(fill(&store, &b, None).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(fill(&store, &b, Some(Key::from(0))).await.unwrap(), Filled::Gone);
    let both = futures::join!(
        store.ensure_indexes(&table(), vec![index("b", true)]),
        store.ensure_indexes(&table(), vec![index("c", false), index("b", true)]),
    );
    assert_eq!(both.0.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(both.1.unwrap_err().code(), Code::AlreadyExists);
    store.ensure_indexes(&table(), vec![index("a", false)]).await.unwrap();
    assert!(add(&store, vec![index("a", false)]).await.is_empty());
    let c = add(&store, vec![index("c", false)]).await;
    store.drop_table(&table()).await.unwrap();
    assert_eq!(fill(&store, &c, None).await.unwrap(), Filled::Gone);
    store.close().await;
}
