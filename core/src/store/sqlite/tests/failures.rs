//! Everything that can be wrong with the file, or become so.

use std::os::unix::fs::PermissionsExt;

use bson::doc;
use futures::TryStreamExt;

use super::*;
use crate::error::{Code, Error, LossReason};
use crate::protocol::document::{Action, Filter, Key, TableName, Write};
use crate::store::changes::{Change, Interest};
use crate::store::documents::{Documents, Query, WatchOptions};
use crate::store::{ClaimQuery, SessionQuery};
use crate::time::{Clock, ManualClock, Timestamp, WallTime};

async fn refused(path: &Path) -> Error {
    SqliteStore::open(path, Durability::Normal, env()).await.map(drop).unwrap_err()
}

fn renewal() -> SessionStep {
    SessionStep::Renew { accept: vec![Nonce(1)], nonce: Nonce(2) }
}

fn spoil(store: &SqliteStore, sql: &str) {
    store.inner().unwrap().writer.with_connection(|db| db.execute_batch(sql).unwrap());
}

#[test]
fn what_cannot_be_opened_says_why() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        assert_eq!(refused(&scratch.path("")).await.code(), Code::InvalidArgument);
        assert_eq!(refused(Path::new("/proc/x.db")).await.code(), Code::Unsupported);
        let text = scratch.path("text");
        std::fs::write(&text, "no database ".repeat(500)).unwrap();
        assert_eq!(refused(&text).await.code(), Code::InvalidArgument);
        rusqlite::Connection::open(scratch.path("other")).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        assert_eq!(refused(&scratch.path("other")).await.code(), Code::InvalidArgument);
        assert!(!scratch.path("other-run").exists() && !scratch.path("text-run").exists(), "nothing was left behind");
    });
}

#[test]
fn files_are_for_their_user_only() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.path("new/t.db")).await;
        let _notices = store.notices(id(1)).await.unwrap();
        acquire(&store, "x", entry(1, 1)).await;
        let mode = |name: &str| std::fs::metadata(scratch.path(name)).unwrap().permissions().mode() & 0o777;
        for file in ["new/t.db", "new/t.db-wal", "new/t.db-shm", "new/t.db-run/gate"] {
            assert_eq!(mode(file), 0o600, "{file}");
        }
        assert_eq!((mode("new"), mode("new/t.db-run")), (0o700, 0o700));
    });
}

#[test]
fn a_file_that_was_deleted_or_replaced_ends_the_session() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        open_session(&store, 1).await;
        assert!(store.apply_session(id(1), renewal()).await.unwrap().is_some());
        store.health().await.unwrap();
        std::fs::rename(scratch.db(), scratch.path("away")).unwrap();
        for round in 0..2 {
            let error = store.apply_session(id(1), renewal()).await.unwrap_err();
            assert_eq!((error.code(), error.loss()), (Code::Lost, Some(LossReason::StoreReplaced)), "round {round}");
            assert_eq!(store.health().await.unwrap_err().code(), Code::Lost);
            std::fs::copy(scratch.path("away"), scratch.db()).unwrap();
        }
    });
}

#[test]
fn nothing_is_acknowledged_or_told_from_a_file_that_was_moved_away() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let table = TableName::parse("t").unwrap();
        let put = |n: i64| store.write(&table, Write::new(Key::from(n), Action::Put(doc! { "n": n })));
        let find = || async { store.find(&table, Query::default()).await?.try_collect::<Vec<_>>().await };
        let watch = || store.watch(&table, WatchOptions::default());
        put(1).await.unwrap();
        assert_eq!(find().await.unwrap().len(), 1);
        let mut watched = watch().await.unwrap();
        soon(watched.next()).await.unwrap().unwrap();
        let interest = Interest { claims: vec!["lock/".into()], sessions: false };
        let mut changes = store.changes(interest.clone()).await.unwrap();
        assert!(matches!(soon(changes.next()).await, Some(Change::Snapshot(_))));

        // One write waits for another connection while the file is moved.
        let other = rusqlite::Connection::open(scratch.db()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut waiting = put(2);
        assert!(futures::poll!(&mut waiting).is_pending());
        std::fs::rename(scratch.db(), scratch.path("away")).unwrap();
        other.execute_batch("COMMIT").unwrap();
        let is_lost = |error: Error| assert_eq!(error.loss(), Some(LossReason::StoreReplaced), "{error}");
        is_lost(soon(waiting).await.unwrap_err());
        for _ in ["gone", "another one"] {
            is_lost(put(3).await.unwrap_err());
            is_lost(find().await.unwrap_err());
            is_lost(store.count(&table, Filter::default()).await.unwrap_err());
            is_lost(store.snapshot(&table, Filter::default()).await.map(drop).unwrap_err());
            is_lost(watch().await.map(drop).unwrap_err());
            is_lost(store.changes(interest.clone()).await.map(drop).unwrap_err());
            std::fs::write(scratch.db(), "another one").unwrap();
        }
        // The watch ends, and the mirror says that it waits.
        is_lost(soon(watched.next()).await.unwrap().unwrap_err());
        assert_eq!(soon(changes.next()).await, Some(Change::Interrupted));

        std::fs::rename(scratch.path("away"), scratch.db()).unwrap();
        assert!(matches!(soon(changes.next()).await, Some(Change::Snapshot(_))), "also where nothing changes");
        put(3).await.unwrap();
        assert_eq!(find().await.unwrap().len(), 3, "what it was given back has all that was written into it");
        acquire(&store, "x", entry(1, 1)).await;
        while !matches!(soon(changes.next()).await, Some(Change::Claim(_))) {}
        store.close().await;
    });
}

#[test]
fn a_full_disk_is_an_error_that_passes() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        acquire(&store, "x", entry(1, 1)).await;
        spoil(&store, "PRAGMA max_page_count = 1");
        let mut refused = None;
        for attempt in 0..10_000 {
            let step = Step::acquire(entry(2, attempt), true, 100_000, Vec::new());
            match store.apply_claim(key("x"), ClaimStep::Step(step)).await {
                Ok(_) => {}
                Err(error) => {
                    refused = Some((attempt, error));
                    break;
                }
            }
        }
        let (attempt, error) = refused.expect("it never became full");
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains("no space left"), "{error}");
        spoil(&store, "PRAGMA max_page_count = 1000000");
        let found = store.claims(ClaimQuery::Keys(vec![key("x")])).await.unwrap();
        assert_eq!(found[0].waiters.len() as u64, attempt, "nothing of the refused step is left");
        acquire(&store, "x", entry(2, attempt)).await;
        store.health().await.unwrap();
    });
}

#[test]
fn a_record_that_nobody_can_have_written_is_reported_and_harms_no_other() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        for name in ["a", "b", "c", "d"] {
            acquire(&store, name, entry(1, 1)).await;
            acquire(&store, name, entry(1, 2)).await;
        }
        open_session(&store, 1).await;
        open_session(&store, 2).await;
        spoil(&store, "UPDATE lock SET own = 'nonsense' WHERE name LIKE '%/a'");
        spoil(&store, "UPDATE lock SET tok = 'x' WHERE name LIKE '%/b'");
        spoil(&store, "DELETE FROM q WHERE name LIKE '%/c'");
        spoil(&store, &format!("UPDATE sess SET info = '[' WHERE id = '{}'", id(2)));
        for name in ["a", "b", "c"] {
            let step = ClaimStep::Step(Step::remove(entry(1, 1), Vec::new()));
            let error = store.apply_claim(key(name), step).await.unwrap_err();
            assert_eq!(error.code(), Code::CorruptState, "{name}: {error}");
        }
        assert_eq!(store.apply_session(id(2), renewal()).await.unwrap_err().code(), Code::CorruptState);
        let found = store.claims(ClaimQuery::Prefix("lock/".into())).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|claim| claim.key).collect();
        assert_eq!(found, [key("c"), key("d")], "those that cannot be read are left out");
        assert_eq!(store.sessions(SessionQuery::Live).await.unwrap().len(), 1);
        assert_eq!(release(&store, "d", entry(1, 1)).await.unwrap().holder, Some(entry(1, 2)));
    });
}

#[test]
fn one_bad_step_of_a_batch_does_not_take_the_others_with_it() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = Arc::new(SqliteStore::open(&scratch.db(), Durability::Full, env()).await.unwrap());
        acquire(&store, "bad", entry(1, 1)).await;
        spoil(&store, "UPDATE lock SET own = 'nonsense'");
        // While another connection writes, they collect in the queue.
        let other = rusqlite::Connection::open(scratch.db()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let tasks: Vec<_> = (0..20)
            .map(|number: u64| {
                let store = store.clone();
                let name = if number == 7 { "bad".to_owned() } else { number.to_string() };
                let step = ClaimStep::Step(Step::acquire(entry(1, number), true, 9, Vec::new()));
                tokio::spawn(async move { store.apply_claim(key(&name), step).await })
            })
            .collect();
        tokio::task::yield_now().await;
        other.execute_batch("COMMIT").unwrap();
        for (number, task) in tasks.into_iter().enumerate() {
            match soon(task).await.unwrap() {
                Ok(view) => assert_eq!(view.unwrap().holder, Some(entry(1, number as u64))),
                Err(error) => assert_eq!((number, error.code()), (7, Code::CorruptState)),
            }
        }
    });
}

#[test]
fn a_lock_that_another_process_keeps_is_waited_for_and_then_reported() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(Timestamp::from_nanos(1), WallTime(1_750_000_000_000)));
        let env = Env { clock: clock.clone(), ..env() };
        let store = SqliteStore::open(&scratch.db(), Durability::Normal, env).await.unwrap();
        let other = rusqlite::Connection::open(scratch.db()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = clock.now();
        let moving = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                clock.advance(Duration::from_millis(100));
            }
        };
        let error = tokio::select! {
            result = store.apply_session(id(1), opening()) => result.unwrap_err(),
            () = moving => unreachable!(),
        };
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(clock.now().since(began) >= Duration::from_secs(5));
        // Reads do not wait for writers, and the next step succeeds once the lock is free.
        assert_eq!(store.sessions(SessionQuery::Live).await.unwrap(), []);
        other.execute_batch("COMMIT").unwrap();
        open_session(&store, 1).await;
    });
}

#[test]
fn who_opens_the_file_removes_lock_files_of_sessions_that_never_were() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        open_session(&store, 1).await;
        let directory = store.run_directory().unwrap();
        let file = |number: u128| directory.join(format!("{}.lk", id(number)));
        // A session without process, which others still have to bury; and three that are not in the database: of a process
        // that is gone, of one that lives, and of one that has not come to lock it.
        for number in [1, 2, 3] {
            std::fs::write(file(number), [0; 128]).unwrap();
        }
        std::fs::write(file(4), "").unwrap();
        let lived = std::fs::File::open(file(3)).unwrap();
        rustix::fs::flock(&lived, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        open(&scratch.db()).await.close().await;
        assert_eq!([1, 2, 3, 4].map(|number| file(number).exists()), [true, false, true, true]);
        drop(lived);
        open(&scratch.db()).await.close().await;
        assert_eq!([1, 2, 3, 4].map(|number| file(number).exists()), [true, false, false, true]);
        store.close().await;
    });
}
