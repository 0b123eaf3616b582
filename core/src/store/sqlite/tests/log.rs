//! The log and those who listen to it.

use super::*;
use crate::store::changes::{Change, Changes, Interest};
use crate::store::sqlite::Work;
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
    let count =
        |db: &rusqlite::Connection| db.query_row("SELECT count(*) FROM listener", [], |row| row.get(0)).unwrap();
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
        for listener in [gone, deserted] {
            inner.writer.run(Work::Listen(listener, topics.clone())).await.unwrap();
        }
        // One left a socket that nobody reads, the other not even that.
        drop(std::os::unix::net::UnixDatagram::bind(inner.run.ear(deserted)).unwrap());
        acquire(&store, "x", entry(1, 1)).await;
        soon(async {
            while listeners(&store) > 0 {
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

#[test]
fn a_file_of_the_first_version_is_brought_up_to_date() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        acquire(&store, "x", entry(1, 1)).await;
        open_session(&store, 1).await;
        let undo = "DROP TABLE log; DROP TABLE listener; DROP TABLE prov; DROP TABLE tab; DROP TABLE doc; DROP TABLE fence;
            DROP TABLE ix; DROP TABLE entry; ALTER TABLE meta DROP COLUMN listeners;
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
