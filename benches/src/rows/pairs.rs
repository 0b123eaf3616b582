//! Rows 1 and 2: acquiring and releasing locks that nobody else wants, one at a time and many at once.

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit, quantile};
use crate::process::PATIENCE;
use crate::stage::Player::{self, *};

const PLAYERS: [Player; 15] = [
    OursMemory,
    FloorSqlite,
    OursSqlite,
    FloorSqliteFull,
    OursSqliteFull,
    FileLock,
    Fasteners,
    Redis,
    FloorMongo(1),
    OursMongo(1),
    Etcd(1),
    Kazoo,
    FloorMongo(3),
    OursMongo(3),
    Etcd(3),
];

const MILLIS: u64 = 1_000;
const WARM_UP_MILLIS: u64 = 150;
const MANY: usize = 64;

/// Row 1.
pub(super) fn one_at_a_time(round: &mut Round<'_>) -> Result<()> {
    let p50 = round.each(&PLAYERS, |round, player| {
        let Some((mut samples, _)) = pairs(round, player, 1)? else { return Ok(None) };
        let name = player.name();
        let p50 = quantile(&mut samples, 0.5) as f64;
        let goal = if player == OursMemory { Goal::AtMost(1_000.0) } else { Goal::None };
        round.book.goal(1, format!("{name}, p50"), Unit::Time, p50, goal);
        round.book.figure(1, format!("{name}, p99"), Unit::Time, quantile(&mut samples, 0.99) as f64);
        round.book.draw("pairs", name, &samples);
        Ok(Some(p50))
    });
    let mut ratio = |what: &str, ours: Player, theirs: Player, goal| {
        round.book.ratio(1, what, p50.get(&ours).copied(), p50.get(&theirs).copied(), goal);
    };
    ratio("coord / two bare transactions, SQLite NORMAL, p50", OursSqlite, FloorSqlite, Goal::AtMost(2.0));
    ratio("coord / two bare transactions, SQLite FULL, p50", OursSqliteFull, FloorSqliteFull, Goal::AtMost(1.3));
    ratio("coord / insert + delete, MongoDB 1, p50", OursMongo(1), FloorMongo(1), Goal::AtMost(1.1));
    ratio("coord / insert + delete, MongoDB 3, p50", OursMongo(3), FloorMongo(3), Goal::AtMost(1.1));
    ratio("coord SQLite NORMAL / fasteners, p50", OursSqlite, Fasteners, Goal::None);
    ratio("coord SQLite NORMAL / filelock, p50", OursSqlite, FileLock, Goal::None);
    ratio("coord SQLite FULL / redis-py, p50", OursSqliteFull, Redis, Goal::None);
    ratio("coord MongoDB 1 / etcd 1, p50", OursMongo(1), Etcd(1), Goal::None);
    ratio("coord MongoDB 3 / etcd 3, p50", OursMongo(3), Etcd(3), Goal::None);
    ratio("coord MongoDB 1 / kazoo, p50", OursMongo(1), Kazoo, Goal::None);
    Ok(())
}

/// Row 2.
pub(super) fn many_at_once(round: &mut Round<'_>) -> Result<()> {
    let rates = round.each(&PLAYERS, |round, player| {
        let Some((_, rate)) = pairs(round, player, MANY)? else { return Ok(None) };
        round.book.figure(2, player.name(), Unit::PerSecond, rate);
        Ok(Some(rate))
    });
    let mut ratio = |what: &str, ours: Player, theirs: Player, goal| {
        round.book.ratio(2, what, rates.get(&ours).copied(), rates.get(&theirs).copied(), goal);
    };
    ratio("coord / floor, SQLite NORMAL, pairs per second", OursSqlite, FloorSqlite, Goal::AtLeast(0.9));
    ratio("coord / floor, SQLite FULL, pairs per second", OursSqliteFull, FloorSqliteFull, Goal::AtLeast(0.9));
    ratio("coord / floor, MongoDB 1, pairs per second", OursMongo(1), FloorMongo(1), Goal::AtLeast(0.9));
    ratio("coord / floor, MongoDB 3, pairs per second", OursMongo(3), FloorMongo(3), Goal::AtLeast(0.9));
    ratio("coord MongoDB 3 / etcd 3, pairs per second", OursMongo(3), Etcd(3), Goal::None);
    Ok(())
}

/// Latencies of one round, and the rate.
fn pairs(round: &mut Round<'_>, player: Player, tasks: usize) -> Result<Option<(Vec<u64>, f64)>> {
    let Some(mut worker) = round.stage.worker(player, round.book)? else { return Ok(None) };
    worker.ask(&format!("pairs p{tasks}- {tasks} {WARM_UP_MILLIS}"), "pairs", PATIENCE)?;
    let numbers = worker.ask(&format!("pairs p{tasks}- {tasks} {MILLIS}"), "pairs", PATIENCE)?;
    match numbers.as_slice() {
        [count, elapsed, samples @ ..] => Ok(Some((samples.to_vec(), *count as f64 * 1e9 / *elapsed as f64))),
        _ => Err("a worker's answer is too short".into()),
    }
}
