//! Rows 3 and 4: several processes that want one lock.

use std::collections::BTreeMap;

use coord_bench_worker::{Result, now};

use super::Round;
use crate::book::{Goal, Unit, quantile};
use crate::floors;
use crate::process::{PATIENCE, Turn};
use crate::stage::Player::{self, *};

const PROCESSES: usize = 16;
const SECONDS: f64 = 2.0;
/// Until every worker has read its line.
const LEAD_MILLIS: u64 = 50;

const LOOPING: [Player; 12] = [
    OursSqlite,
    FileLock,
    Fasteners,
    Redis,
    OursMongo(1),
    PlainMongo(1),
    Etcd(1),
    Kazoo,
    OursMongo(3),
    PlainMongo(3),
    Etcd(3),
    OursSqliteFull,
];

/// Row 3.
pub(super) fn again_and_again(round: &mut Round<'_>) -> Result<()> {
    let mut longest = BTreeMap::new();
    let rates = round.each(&LOOPING, |round, player| {
        let Some(turns) = take_turns(round, player, PROCESSES, 0)? else { return Ok(None) };
        let shape = Shape::of(&turns)?;
        let name = player.name();
        round.book.figure(3, format!("{name}, hand-overs"), Unit::PerSecond, shape.rate);
        round.book.figure(3, format!("{name}, longest wait"), Unit::Time, shape.longest_wait);
        let ours = matches!(player, OursSqlite | OursSqliteFull | OursMongo(_));
        if ours {
            let fair = 2.0 * PROCESSES as f64 * shape.median_period;
            round.book.ratio(
                3,
                format!("{name}, longest wait / (2 × waiters × median hand-over)"),
                Some(shape.longest_wait),
                Some(fair),
                Goal::AtMost(1.0),
            );
        }
        longest.insert(player, shape.longest_wait);
        Ok(Some(shape.rate))
    });
    let mut writes = |n| one_document(round, n);
    let (writes_1, writes_3) = (writes(1), writes(3));
    let of = |player| rates.get(&player).copied();
    let mut ratio = |what: &str, ours, theirs, goal| round.book.ratio(3, what, ours, theirs, goal);
    ratio("coord SQLite NORMAL / filelock, rate", of(OursSqlite), of(FileLock), Goal::AtLeast(10.0));
    let wait = |player| longest.get(&player).copied();
    ratio("coord SQLite NORMAL / filelock, longest wait", wait(OursSqlite), wait(FileLock), Goal::AtMost(0.1));
    ratio("coord MongoDB 3 / etcd 3, rate", of(OursMongo(3)), of(Etcd(3)), Goal::AtLeast(1.5));
    ratio("coord MongoDB 1 / etcd 1, rate", of(OursMongo(1)), of(Etcd(1)), Goal::AtLeast(3.0));
    ratio("coord / plain change-stream lock, MongoDB 3, rate", of(OursMongo(3)), of(PlainMongo(3)), Goal::AtLeast(2.0));
    ratio("coord / plain change-stream lock, MongoDB 1, rate", of(OursMongo(1)), of(PlainMongo(1)), Goal::None);
    ratio("coord MongoDB 1 / kazoo, rate", of(OursMongo(1)), of(Kazoo), Goal::None);
    let half = |writes: Option<f64>| writes.map(|rate| rate / 2.0);
    ratio("coord / half the one-document writes, MongoDB 1", of(OursMongo(1)), half(writes_1), Goal::None);
    ratio("coord / half the one-document writes, MongoDB 3", of(OursMongo(3)), half(writes_3), Goal::AtLeast(0.7));
    Ok(())
}

/// How many writes to one document a set of this size takes from as many clients.
fn one_document(round: &mut Round<'_>, members: usize) -> Option<f64> {
    let player = OneDocument(members);
    let rates = round.each(&[player], |round, player| {
        let Some(mut worker) = round.stage.worker(player, round.book)? else { return Ok(None) };
        let numbers = worker.ask(&format!("pairs one- {PROCESSES} 1000"), "pairs", PATIENCE)?;
        let [count, elapsed, ..] = numbers.as_slice() else { return Err("a worker's answer is too short".into()) };
        let rate = *count as f64 * 1e9 / *elapsed as f64;
        round.book.figure(3, player.name(), Unit::PerSecond, rate);
        Ok(Some(rate))
    });
    rates.get(&player).copied()
}

const HANDING_OVER: [Player; 10] =
    [OursSqlite, FileLock, Fasteners, Redis, OursMongo(1), PlainMongo(1), Etcd(1), Kazoo, OursMongo(3), Etcd(3)];

/// Row 4: two processes; the one that waits is asleep when the other releases.
pub(super) fn handed_over(round: &mut Round<'_>) -> Result<()> {
    let sqlite = |round: &mut Round<'_>| floors::sqlite_wake(round, "normal");
    let floors = [(OursSqlite, note_floor(round, OursSqlite, "SQLite commit + datagram", sqlite))];
    let mongo = [1, 3].map(|n| (OursMongo(n), note_mongo_floor(round, n)));
    round.each(&HANDING_OVER, |round, player| {
        let hold_micros = if matches!(player, OursSqlite | FileLock | Fasteners) { 3_000 } else { 8_000 };
        let Some(turns) = take_turns(round, player, 2, hold_micros)? else { return Ok(None) };
        let mut gaps = Shape::of(&turns)?.gaps;
        let name = player.name();
        let (p50, p99) = (quantile(&mut gaps, 0.5) as f64, quantile(&mut gaps, 0.99) as f64);
        round.book.figure(4, format!("{name}, p50"), Unit::Time, p50);
        round.book.figure(4, format!("{name}, p99"), Unit::Time, p99);
        round.book.draw("handover", name.clone(), &gaps);
        let floor = floors.iter().chain(&mongo).find(|(of, _)| *of == player).map(|(_, floor)| *floor);
        if let Some(floor) = floor {
            round.book.ratio(4, format!("{name}, p50 / write + event"), Some(p50), floor, Goal::AtMost(1.25));
            round.book.ratio(4, format!("{name}, p99 / p50"), Some(p99), Some(p50), Goal::AtMost(3.0));
        }
        Ok(Some(p50))
    });
    Ok(())
}

fn note_mongo_floor(round: &mut Round<'_>, members: usize) -> Option<f64> {
    let what = format!("MongoDB {members}, one write + its change event");
    note_floor(round, OursMongo(members), &what, |round| floors::change_event(round, members))
}

fn note_floor(
    round: &mut Round<'_>,
    player: Player,
    what: &str,
    floor: impl Fn(&mut Round<'_>) -> Result<Vec<u64>>,
) -> Option<f64> {
    let p50 = round.each(&[player], |round, _| {
        let mut samples = floor(round)?;
        let p50 = quantile(&mut samples, 0.5) as f64;
        round.book.figure(4, format!("{what}, p50"), Unit::Time, p50);
        round.book.draw("handover", what, &samples);
        Ok(Some(p50))
    });
    p50.get(&player).copied()
}

/// Lets so many processes take one lock in turns.
fn take_turns(round: &mut Round<'_>, player: Player, processes: usize, hold: u64) -> Result<Option<Vec<Turn>>> {
    let Some(mut workers) = round.stage.workers(player, processes, round.book)? else { return Ok(None) };
    let until = now() + LEAD_MILLIS * 1_000_000 + (SECONDS * 1e9) as u64;
    for worker in &mut workers {
        worker.tell(&format!("loop turns-{hold} 1 {hold} {until}"))?;
    }
    let mut turns = Vec::new();
    for (number, worker) in workers.iter().enumerate() {
        turns.extend(worker.turns("loop", PATIENCE)?.into_iter().map(|turn| Turn { worker: number, ..turn }));
    }
    Ok(Some(turns))
}

/// What the turns of several processes amount to. Only changes of the owner count: taking a lock again that one has
/// just released hands nothing over.
struct Shape {
    /// Changes per second.
    rate: f64,
    longest_wait: f64,
    median_period: f64,
    /// From the beginning of a release to the next process's hold.
    gaps: Vec<u64>,
}

impl Shape {
    fn of(turns: &[Turn]) -> Result<Self> {
        let mut turns = turns.to_vec();
        turns.sort_unstable_by_key(|turn| turn.acquired);
        if let Some(pair) = turns.windows(2).find(|pair| pair[1].acquired < pair[0].releasing) {
            return Err(format!("two processes held the lock at once: {pair:?}").into());
        }
        let changes: Vec<&[Turn]> = turns.windows(2).filter(|pair| pair[0].worker != pair[1].worker).collect();
        let (Some(first), Some(last)) = (turns.first(), turns.last()) else { return Err("nobody had the lock".into()) };
        let mut periods: Vec<u64> = changes.iter().map(|pair| pair[1].acquired - pair[0].acquired).collect();
        let seconds = (last.released - first.acquired) as f64 / 1e9;
        Ok(Self {
            rate: changes.len() as f64 / seconds,
            longest_wait: turns.iter().map(|turn| turn.acquired - turn.asked).max().unwrap_or(0) as f64,
            median_period: quantile(&mut periods, 0.5) as f64,
            gaps: changes.iter().map(|pair| pair[1].acquired - pair[0].releasing).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(worker: usize, asked: u64, acquired: u64, releasing: u64) -> Turn {
        Turn { worker, asked, acquired, releasing, released: releasing + 1 }
    }

    #[test]
    fn only_changes_of_the_owner_count() {
        let turns = [turn(0, 0, 1, 2), turn(0, 2, 3, 4), turn(1, 0, 6, 7), turn(0, 4, 9, 999_999_999)];
        let shape = Shape::of(&turns).unwrap();
        assert_eq!(shape.gaps, [2, 2]);
        assert_eq!(shape.longest_wait, 6.0);
        assert!((shape.rate - 2.0).abs() < 0.01, "{}", shape.rate);
    }

    #[test]
    fn a_lock_that_two_have_at_once_is_no_result() {
        assert!(Shape::of(&[turn(0, 0, 1, 5), turn(1, 0, 4, 6)]).is_err());
    }
}
