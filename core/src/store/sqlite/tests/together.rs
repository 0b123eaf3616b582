//! Many users of one file in one process: order, wake-ups, tokens, closing.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::error::Code;
use crate::protocol::session::KillProof;
use crate::store::ClaimQuery;
use crate::time::{ManualClock, Timestamp, WallTime};

#[test]
fn whoever_waits_is_granted_and_told_in_the_same_and_in_another_store() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let (here, there) = (open(&scratch.db()).await, open(&scratch.db()).await);
        let mut first = here.notices(id(1)).await.unwrap();
        let mut second = there.notices(id(2)).await.unwrap();
        let mut third = here.notices(id(3)).await.unwrap();
        for notices in [&mut first, &mut second, &mut third] {
            assert_eq!(soon(notices.next()).await, Some(Notice::Gap));
        }
        let granted = acquire(&here, "x", entry(1, 1)).await;
        assert_eq!(granted.holder, Some(entry(1, 1)));
        assert!(acquire(&there, "x", entry(2, 1)).await.waiting);
        assert_eq!(acquire(&here, "x", entry(3, 1)).await.queue_len, 2);
        let mut token = granted.token;
        for (leaver, next, notices) in [(1, 2, &mut second), (2, 3, &mut third)] {
            let view = release(&here, "x", entry(leaver, 1)).await.unwrap();
            assert_eq!(view.holder, Some(entry(next, 1)));
            assert!(view.token > token);
            token = view.token;
            let notice = next_notice(notices).await;
            assert_eq!(notice, Notice::Granted { key: key("x"), entry: entry(next, 1), token });
        }
        let announce = ClaimStep::AnnounceBreak { token };
        there.apply_claim(key("x"), announce).await.unwrap().unwrap();
        assert_eq!(next_notice(&mut third).await, Notice::Breaking { key: key("x"), entry: entry(3, 1), token });
    });
}

#[test]
fn a_forged_or_late_datagram_grants_nothing() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let mut notices = store.notices(id(2)).await.unwrap();
        let held = acquire(&store, "x", entry(1, 1)).await;
        acquire(&store, "x", entry(2, 1)).await;
        let socket = store.inner().unwrap().run.socket(id(2));
        let forger = UnixDatagram::unbound().unwrap();
        let forge = |text: String| forger.send_to(text.as_bytes(), &socket).unwrap();
        forge(String::new());
        forge("coord1".into());
        forge(format!("coord1\ngranted\n{}\n{}\n{}", key("x"), entry(2, 1), held.token));
        forge(format!("coord1\ngranted\n{}\n{}\n{}", key("x"), entry(1, 1), held.token));
        forge(format!("coord1\nbreaking\n{}\n{}\n{}", key("x"), entry(2, 1), held.token));
        forge(format!("coord1\ngranted\n{}\n{}\n{}", key("none"), entry(2, 1), 1));
        // What is true comes through, also when it was not we who sent it: so the forged ones have been read before.
        let other = open(&scratch.db()).await;
        let token = release(&other, "x", entry(1, 1)).await.unwrap().token;
        assert_eq!(next_notice(&mut notices).await, Notice::Granted { key: key("x"), entry: entry(2, 1), token });
    });
}

#[test]
fn a_socket_that_was_full_gets_the_rest_later() {
    const MANY: usize = 2_000;
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        // A process that listens, and does not read yet.
        let socket = UnixDatagram::bind(store.inner().unwrap().run.socket(id(2))).unwrap();
        for number in 0..MANY {
            // Handed over: who is granted what it asks for is not told.
            let name = number.to_string();
            acquire(&store, &name, entry(1, 1)).await;
            acquire(&store, &name, entry(2, 1)).await;
            release(&store, &name, entry(1, 1)).await;
        }
        let reading = tokio::task::spawn_blocking(move || {
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut buffer = [0; 1_024];
            for number in 0..MANY {
                let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("hint {number}: {error}"));
                assert!(buffer[..length].starts_with(b"coord1\ngranted\n"));
            }
        });
        reading.await.unwrap();
    });
}

#[test]
fn a_path_beyond_a_sockets_limit_works_as_any_other() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let path = scratch.path(&"d".repeat(120)).join("t.db");
        let (here, there) = (open(&path).await, open(&path).await);
        assert!(here.run_directory().unwrap().join(format!("{}.sock", id(2))).as_os_str().len() > 107);
        let mut notices = there.notices(id(2)).await.unwrap();
        acquire(&here, "x", entry(1, 1)).await;
        acquire(&there, "x", entry(2, 1)).await;
        release(&here, "x", entry(1, 1)).await;
        assert!(matches!(next_notice(&mut notices).await, Notice::Granted { .. }));
    });
}

#[test]
fn many_tasks_exclude_one_another_with_either_durability() {
    const TASKS: u128 = 16;
    const ROUNDS: u64 = 20;
    for durability in [Durability::Normal, Durability::Full] {
        let runtime = runtime();
        runtime.block_on(async {
            let scratch = Scratch::new();
            let store = Arc::new(SqliteStore::open(&scratch.db(), durability, env()).await.unwrap());
            let inside = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (1..=TASKS)
                .map(|task| {
                    let (store, inside) = (store.clone(), inside.clone());
                    tokio::spawn(async move {
                        let mut notices = store.notices(id(task)).await.unwrap();
                        let mut tokens = Vec::new();
                        for attempt in 0..ROUNDS {
                            let me = entry(task, attempt);
                            let view = acquire(&store, "x", me).await;
                            let mut token = view.token;
                            while view.holder != Some(me) {
                                if let Notice::Granted { entry, token: granted, .. } = next_notice(&mut notices).await
                                    && entry == me
                                {
                                    token = granted;
                                    break;
                                }
                            }
                            assert_eq!(inside.fetch_add(1, SeqCst), 0);
                            tokio::task::yield_now().await;
                            inside.fetch_sub(1, SeqCst);
                            tokens.push(token);
                            release(&store, "x", me).await.unwrap();
                        }
                        tokens
                    })
                })
                .collect();
            let mut all = Vec::new();
            for task in tasks {
                let tokens = soon(task).await.unwrap();
                assert!(tokens.is_sorted());
                all.extend(tokens);
            }
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len() as u64, u64::try_from(TASKS).unwrap() * ROUNDS, "no token was granted twice");
            store.close().await;
        });
    }
}

#[test]
fn the_ceiling_is_durably_above_every_token() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
        let env = Env { clock: clock.clone(), ..env() };
        let store = SqliteStore::open(&scratch.db(), Durability::Normal, env).await.unwrap();
        let writer = store.inner().unwrap().writer.clone();
        let ceiling = || -> i64 {
            writer.with_connection(|db| db.query_row("SELECT ceil FROM meta", [], |row| row.get(0)).unwrap())
        };
        let mut latest = 0;
        for seconds in [0, 1, 10, 25, 40, 100_000, 0] {
            clock.advance(Duration::from_secs(seconds));
            let view = acquire(&store, "x", entry(1, seconds)).await;
            assert!(view.token > latest && view.token <= ceiling(), "{} and {}", view.token, ceiling());
            latest = view.token;
            release(&store, "x", entry(1, seconds)).await.unwrap();
        }
        // A date that falls back takes nothing back; neither does one that is years ahead count.
        for wall in [WallTime(0), WallTime(9_750_000_000_000)] {
            clock.set_wall(wall);
            let view = acquire(&store, "x", entry(1, 99)).await;
            assert!(view.token > latest && view.token < latest + 10);
            latest = view.token;
            release(&store, "x", entry(1, 99)).await.unwrap();
        }
    });
}

#[test]
fn long_queues_cost_no_more_than_short_ones() {
    const WAITERS: u64 = 1_000;
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        for attempt in 0..=WAITERS {
            acquire(&store, "x", entry(1, attempt)).await;
        }
        // Nothing in the way of a hand-over scans a table or sorts: counted, since time says little here.
        let plans = store.inner().unwrap().writer.with_connection(|db| {
            let mut plans = Vec::new();
            for sql in super::super::claims::STATEMENTS {
                let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let bound = vec![rusqlite::types::Value::Null; statement.parameter_count()];
                let mut rows = statement.query(rusqlite::params_from_iter(bound)).unwrap();
                while let Some(row) = rows.next().unwrap() {
                    plans.push((*sql, row.get::<_, String>(3).unwrap()));
                }
            }
            plans
        });
        assert!(!plans.is_empty());
        for (sql, plan) in plans {
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
        for attempt in 0..WAITERS {
            let view = release(&store, "x", entry(1, attempt)).await.unwrap();
            assert_eq!(view.holder, Some(entry(1, attempt + 1)));
            assert_eq!(u64::from(view.queue_len), WAITERS - attempt - 1);
        }
    });
}

#[test]
fn what_the_dead_leave_is_removed() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let run = store.run_directory().unwrap();
        let leave = |number: u128| {
            std::fs::write(run.join(format!("{}.lk", id(number))), "").unwrap();
            std::fs::write(run.join(format!("{}.sock", id(number))), "").unwrap();
        };
        let left = |number: u128| run.join(format!("{}.lk", id(number))).exists();
        for number in 1..=4 {
            open_session(&store, number).await;
            leave(number);
        }
        leave(5);
        store.apply_session(id(1), SessionStep::Close).await.unwrap();
        let kill = |nonce| SessionStep::Kill(KillProof::Observed(Some(Nonce(nonce))));
        store.apply_session(id(2), kill(1)).await.unwrap();
        store.apply_session(id(3), kill(999)).await.unwrap();
        assert!(!left(1) && !left(2) && left(3) && left(4) && left(5));
        // Left by somebody who was killed between the commit and the removal.
        leave(1);
        store.close().await;
        let store = open(&scratch.db()).await;
        assert!(!left(1), "dead");
        assert!(left(4), "live");
        assert!(left(5), "perhaps about to open its session");
        store.close().await;
    });
}

#[test]
fn old_tombstones_go_when_nothing_mentions_them() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
        let env = Env { clock: clock.clone(), ..env() };
        let store = SqliteStore::open(&scratch.db(), Durability::Normal, env).await.unwrap();
        for number in 1..=4 {
            open_session(&store, number).await;
        }
        acquire(&store, "x", entry(2, 1)).await;
        acquire(&store, "x", entry(3, 1)).await;
        for number in 1..=3 {
            store.apply_session(id(number), SessionStep::Close).await.unwrap();
        }
        let writer = store.inner().unwrap().writer.clone();
        let ids: Vec<SessionId> = (1..=4).map(id).collect();
        let known = async || {
            let found = store.sessions(crate::store::SessionQuery::Ids(ids.clone())).await.unwrap();
            found.into_iter().map(|session| session.id).collect::<Vec<_>>()
        };
        writer.run(super::super::Work::Purge).await.unwrap();
        assert_eq!(known().await, ids);
        // The date was set forward; in truth no time has passed.
        clock.set_wall(WallTime(1_760_000_000_000));
        writer.run(super::super::Work::Purge).await.unwrap();
        assert_eq!(known().await, ids);
        clock.advance(Duration::from_secs(90_000));
        writer.run(super::super::Work::Purge).await.unwrap();
        assert_eq!(known().await, [id(2), id(3), id(4)]);
    });
}

#[test]
fn tombstones_go_in_parts_until_none_is_left() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(Timestamp::ZERO, WallTime(1_750_000_000_000)));
        let env = Env { clock: clock.clone(), ..env() };
        let store = SqliteStore::open(&scratch.db(), Durability::Normal, env).await.unwrap();
        for number in 1..=2_500 {
            open_session(&store, number).await;
            store.apply_session(id(number), SessionStep::Close).await.unwrap();
        }
        clock.set_wall(WallTime(1_760_000_000_000));
        clock.advance(Duration::from_secs(90_000));
        let writer = store.inner().unwrap().writer.clone();
        let left = || {
            writer.with_connection(|db| {
                db.query_row("SELECT count(*) FROM sess", [], |row| row.get::<_, i64>(0)).unwrap()
            })
        };
        writer.run(super::super::Work::Purge).await.unwrap();
        soon(async {
            while left() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        store.close().await;
    });
}

#[test]
fn a_closed_store_says_so_and_its_streams_end() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = Arc::new(open(&scratch.db()).await);
        let mut notices = store.notices(id(1)).await.unwrap();
        let busy: Vec<_> = (0..50)
            .map(|number: u64| {
                let store = store.clone();
                let step = ClaimStep::Step(Step::acquire(entry(1, number), true, 1_000, Vec::new()));
                tokio::spawn(async move { store.apply_claim(key("x"), step).await })
            })
            .collect();
        soon(store.close()).await;
        let mut applied = 0;
        for task in busy {
            match soon(task).await.unwrap() {
                Ok(view) => applied += usize::from(view.is_some()),
                Err(error) => assert_eq!(error.code(), Code::Closed),
            }
        }
        while soon(notices.next()).await.is_some() {}
        assert_eq!(store.apply_session(id(1), opening()).await.unwrap_err().code(), Code::Closed);
        assert_eq!(store.claims(ClaimQuery::Of(id(1))).await.unwrap_err().code(), Code::Closed);
        assert_eq!(store.health().await.unwrap_err().code(), Code::Closed);
        assert_eq!(store.notices(id(1)).await.err().unwrap().code(), Code::Closed);
        soon(store.close()).await;
        // What was acknowledged is there, and nothing else.
        let store = open(&scratch.db()).await;
        let found = store.claims(ClaimQuery::Keys(vec![key("x")])).await.unwrap();
        let there = found.first().map_or(0, |record| record.waiters.len() + usize::from(record.holder.is_some()));
        assert_eq!(there, applied);
    });
}

#[test]
fn the_log_begins_anew_also_when_all_write_without_a_pause() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let log = scratch.path("t.db-wal");
        // The salts in the log's header, new each time that it begins anew.
        let salts = || std::fs::read(&log).unwrap()[16..24].to_vec();
        acquire(&store, "x", entry(1, 0)).await;
        let first = salts();
        let writing = async {
            for attempt in 1.. {
                acquire(&store, "x", entry(2, attempt)).await;
                release(&store, "x", entry(2, attempt)).await;
                if attempt % 1_000 == 0 && salts() != first {
                    return;
                }
            }
        };
        soon(writing).await;
        store.close().await;
        assert!(!log.exists(), "the last to close leaves no log");
    });
}
