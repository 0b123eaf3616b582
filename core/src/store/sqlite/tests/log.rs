//! The log and those who listen to it.

use bson::doc;

use super::*;
use crate::protocol::document::{Action, Key, TableName, Write};
use crate::store::changes::{Change, Changes, Interest};
use crate::store::documents::{Documents, Event, WatchOptions};
use crate::store::sqlite::{Work, places};
use crate::time::{ManualClock, Timestamp, WallTime};

fn locks() -> Interest {
    Interest { claims: vec!["lock/".into()], sessions: false }
}

async fn next(changes: &mut Changes) -> Change {
    soon(changes.next()).await.expect("a stream of changes never ends")
}

fn rows(store: &SqliteStore) -> i64 {
    let count = |db: &rusqlite::Connection| db.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
    store.inner().unwrap().writer.with_connection(count)
}

fn listeners(store: &SqliteStore) -> i64 {
    count_listeners(store, "topic != ''")
}

/// How many rows of the listeners are such.
fn count_listeners(store: &SqliteStore, which: &str) -> i64 {
    let statement = format!("SELECT count(*) FROM listener WHERE {which}");
    let count = |db: &rusqlite::Connection| db.query_row(&statement, [], |row| row.get(0)).unwrap();
    store.inner().unwrap().writer.with_connection(count)
}

#[test]
fn nothing_is_logged_while_nobody_listens() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let (store, other) = (open(&scratch.db()).await, open(&scratch.db()).await);
        acquire(&store, "x", entry(1, 1)).await;
        open_session(&store, 1).await;
        assert_eq!(rows(&store), 0);
        let mut changes = other.changes(locks()).await.unwrap();
        assert!(matches!(next(&mut changes).await, Change::Snapshot(_)));
        open_session(&store, 2).await;
        assert_eq!(rows(&store), 0, "nobody listens to sessions");
        release(&store, "x", entry(1, 1)).await;
        assert_eq!(rows(&store), 1);
        assert!(matches!(next(&mut changes).await, Change::Claim(_)));
        drop(changes);
        // The farewell is written in the background; a step that follows it in the queue knows it.
        other.inner().unwrap().writer.run(Work::RaiseCeiling(0)).await.unwrap();
        soon(async {
            while listeners(&store) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        acquire(&store, "x", entry(1, 2)).await;
        assert_eq!(rows(&store), 1);
        store.close().await;
        other.close().await;
    });
}

#[test]
fn a_listener_that_died_is_removed_by_whoever_finds_it() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let (gone, deserted) = (id(77), id(78));
        let topics = vec![crate::store::sqlite::log::Topic::new("claim", "lock/")];
        let inner = store.inner().unwrap();
        for id in [gone, deserted] {
            inner.writer.run(Work::Listen { id, topics: topics.clone(), is_new: true }).await.unwrap();
        }
        // One left a socket that nobody reads, the other not even that.
        drop(std::os::unix::net::UnixDatagram::bind(inner.run.ear(deserted)).unwrap());
        acquire(&store, "x", entry(1, 1)).await;
        soon(async {
            while count_listeners(&store, "true") > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(!inner.run.ear(deserted).exists());
        assert_eq!(rows(&store), 1);
        release(&store, "x", entry(1, 1)).await;
        assert_eq!(rows(&store), 1);
        drop(inner);
        store.close().await;
    });
}

#[test]
fn who_opens_the_file_removes_listeners_that_died() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let mut changes = store.changes(locks()).await.unwrap();
        next(&mut changes).await;
        let inner = store.inner().unwrap();
        let [deaf, silent, unlisted] = [77, 78, 79].map(id);
        // One listened to nothing any more, one to what has no news, and one had not been listed yet.
        let topics = vec![crate::store::sqlite::log::Topic::new("doc/never", "")];
        inner.writer.run(Work::Listen { id: deaf, topics: Vec::new(), is_new: true }).await.unwrap();
        inner.writer.run(Work::Listen { id: silent, topics, is_new: true }).await.unwrap();
        for id in [deaf, silent, unlisted] {
            drop(std::os::unix::net::UnixDatagram::bind(inner.run.ear(id)).unwrap());
        }
        let others = open(&scratch.db()).await;
        soon(async {
            while count_listeners(&store, "true") > 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(inner.run.ears().len(), 1, "the one who lives has kept his");
        acquire(&others, "x", entry(1, 1)).await;
        assert!(matches!(next(&mut changes).await, Change::Claim(_)));
        drop((changes, inner));
        others.close().await;
        store.close().await;
    });
}

#[test]
fn a_lost_datagram_costs_a_second_at_most() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let (store, other) = (open(&scratch.db()).await, open(&scratch.db()).await);
        let mut changes = other.changes(locks()).await.unwrap();
        next(&mut changes).await;
        for socket in std::fs::read_dir(other.run_directory().unwrap()).unwrap() {
            let path = socket.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "ear") {
                // Still bound, and nobody finds it any more: as if every datagram were lost.
                std::fs::rename(&path, path.with_extension("lost")).unwrap();
                std::os::unix::net::UnixDatagram::bind(&path).map(std::mem::forget).unwrap();
            }
        }
        acquire(&store, "x", entry(1, 1)).await;
        assert!(matches!(next(&mut changes).await, Change::Claim(_)));
        store.close().await;
        other.close().await;
    });
}

/// Removes the sockets of those who listen, as whatever cleans up directories may do. Says whose they were.
fn remove_ears(store: &SqliteStore) -> Vec<String> {
    let files = std::fs::read_dir(store.run_directory().unwrap()).unwrap().map(|file| file.unwrap().path());
    let ears: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "ear")).collect();
    ears.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    ears.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Waits until others have taken this one off the listeners.
async fn taken_off(store: &SqliteStore, listener: &str) {
    soon(async {
        while count_listeners(store, &format!("id = '{listener}'")) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The claim is shown as held, by itself or in a snapshot.
async fn shows(changes: &mut Changes, name: &str) {
    loop {
        let claims = match next(changes).await {
            Change::Claim(claim) => vec![claim],
            Change::Snapshot(snapshot) => snapshot.claims,
            _ => continue,
        };
        if claims.iter().any(|claim| claim.key == key(name) && claim.holder.is_some()) {
            return;
        }
    }
}

#[test]
fn a_listener_whose_socket_was_removed_listens_anew() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let (store, other) = (open(&scratch.db()).await, open(&scratch.db()).await);
        let mut first = other.changes(locks()).await.unwrap();
        let mut second = other.changes(locks()).await.unwrap();
        for round in ["a", "b"] {
            let ears = remove_ears(&other);
            assert_eq!(ears.len(), 1, "{ears:?}");
            // Still logged; and with it the listener is found to be gone.
            acquire(&store, &format!("{round}1"), entry(1, 1)).await;
            taken_off(&store, &ears[0]).await;
            // Not logged, unless the listener was quick. Who comes now does not hide from the others that they missed it.
            acquire(&store, &format!("{round}2"), entry(1, 1)).await;
            let mut third = other.changes(locks()).await.unwrap();
            for changes in [&mut first, &mut second, &mut third] {
                shows(changes, &format!("{round}2")).await;
            }
            acquire(&store, &format!("{round}3"), entry(1, 1)).await;
            for changes in [&mut first, &mut second, &mut third] {
                shows(changes, &format!("{round}3")).await;
            }
        }
        assert_eq!(count_listeners(&store, "topic = ''"), 1, "each name but the last was taken off");
        other.close().await;
        assert_eq!(count_listeners(&store, "true"), 0);
        store.close().await;
    });
}

#[test]
fn who_watches_documents_misses_none_when_the_socket_was_removed() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let (store, other) = (open(&scratch.db()).await, open(&scratch.db()).await);
        let table = TableName::parse("t").unwrap();
        let put = |n: i64| store.write(&table, Write::new(Key::from(n), Action::Put(doc! {})));
        let mut watch = other.watch(&table, WatchOptions::default()).await.unwrap();
        assert!(matches!(soon(watch.next()).await, Some(Ok(Event::Gap(_)))));
        let ears = remove_ears(&other);
        put(1).await.unwrap();
        taken_off(&store, &ears[0]).await;
        put(2).await.unwrap();
        for n in [1, 2] {
            let Some(Ok(Event::Change(change))) = soon(watch.next()).await else { panic!("all changes are logged") };
            assert_eq!(change.key, Key::from(n));
        }
        store.close().await;
        other.close().await;
    });
}

#[test]
fn who_comes_after_the_log_was_trimmed_begins_anew() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
        let env = Env { clock: clock.clone(), ..env() };
        let store = SqliteStore::open(&scratch.db(), Durability::Normal, env).await.unwrap();
        let mut changes = store.changes(locks()).await.unwrap();
        next(&mut changes).await;
        let trim = || async { store.inner().unwrap().writer.run(Work::Trim).await.unwrap() };
        for round in 0..700 {
            acquire(&store, "x", entry(1, round)).await;
            release(&store, "x", entry(1, round)).await;
        }
        trim().await;
        assert_eq!(rows(&store), 1_400, "they are young");
        clock.set_wall(WallTime(1_750_000_000_000 + 2 * 3_600_000));
        acquire(&store, "y", entry(1, 1)).await;
        trim().await;
        soon(async {
            // It goes on by itself until only what is young is left.
            while rows(&store) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // The reader stands at the beginning: what it has not read is gone.
        assert_eq!(next(&mut changes).await, Change::Interrupted);
        let Change::Snapshot(snapshot) = next(&mut changes).await else { panic!("it begins anew") };
        assert_eq!(snapshot.claims.iter().map(|claim| claim.key.clone()).collect::<Vec<_>>(), [key("y")]);
        release(&store, "y", entry(1, 1)).await;
        assert!(matches!(next(&mut changes).await, Change::Claim(claim) if claim.holder.is_none()));
        store.close().await;
        assert_eq!(soon(changes.next()).await, None, "the store is closed");
    });
}

/// After a boot the numbers begin far beyond the last: that makes no rows old.
#[test]
fn numbers_that_were_skipped_are_no_rows() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
        let env = Env { clock: clock.clone(), ..env() };
        let store = SqliteStore::open(&scratch.db(), Durability::Normal, env).await.unwrap();
        let _changes = store.changes(locks()).await.unwrap();
        let trim = || async { store.inner().unwrap().writer.run(Work::Trim).await.unwrap() };
        let stretches = || {
            let open = store.inner().unwrap();
            open.writer.with_connection(|db| {
                db.query_row("SELECT count(*) FROM lost", [], |row| row.get::<_, i64>(0)).unwrap()
            })
        };
        for round in 0..3 {
            acquire(&store, "x", entry(1, round)).await;
            store.inner().unwrap().writer.with_connection(|db| places::skip_lost(db).unwrap());
            release(&store, "x", entry(1, round)).await;
        }
        trim().await;
        assert_eq!((rows(&store), stretches()), (6, 3));
        clock.set_wall(WallTime(1_750_000_000_000 + 2 * 3_600_000));
        acquire(&store, "y", entry(1, 1)).await;
        trim().await;
        assert_eq!((rows(&store), stretches()), (1, 0), "whoever stands in one of them stands before what was removed");
        store.close().await;
    });
}

#[test]
fn a_file_of_the_first_version_is_brought_up_to_date() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        acquire(&store, "x", entry(1, 1)).await;
        open_session(&store, 1).await;
        let undo = "DROP TABLE log; DROP TABLE listener; DROP TABLE prov; DROP TABLE tab; DROP TABLE doc; DROP TABLE fence;
            DROP TABLE ix; DROP TABLE entry; DROP TABLE lost; ALTER TABLE meta DROP COLUMN listeners;
            ALTER TABLE meta DROP COLUMN trimmed; ALTER TABLE sess DROP COLUMN clean; ALTER TABLE sess DROP COLUMN opened;
            ALTER TABLE sess DROP COLUMN rv; PRAGMA user_version = 1";
        store.close().await;
        rusqlite::Connection::open(scratch.db()).unwrap().execute_batch(undo).unwrap();
        let store = open(&scratch.db()).await;
        let mut changes = store.changes(locks()).await.unwrap();
        let Change::Snapshot(snapshot) = next(&mut changes).await else { panic!() };
        assert_eq!(snapshot.claims.len(), 1, "with what was in it");
        store.close().await;
    });
}
