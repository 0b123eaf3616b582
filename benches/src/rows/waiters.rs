//! Row 5: a long queue before one lock. Each hand-over should cost what it costs in a short one.

use std::time::{Duration, Instant};

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit};
use crate::process::{PATIENCE, Worker};
use crate::stage::Player::{self, *};

const PROCESSES: usize = 2;
const LENGTHS: [usize; 3] = [10, 256, 1_000];

pub(super) fn in_line(round: &mut Round<'_>) -> Result<()> {
    for player in [OursSqlite, OursMongo(1)] {
        let mut costs = Vec::new();
        for length in LENGTHS {
            let cost = round.each(&[player], |round, player| drain(round, player, length));
            costs.push(cost.get(&player).copied());
        }
        let what = format!("{}, 1,000 waiters / 10, per hand-over", player.name());
        round.book.ratio(5, what, costs[2], costs[0], Goal::AtMost(2.0));
    }
    Ok(())
}

/// Lets so many queue behind one holder, each to take the lock once, and returns the time per hand-over.
fn drain(round: &mut Round<'_>, player: Player, length: usize) -> Result<Option<f64>> {
    let options = "coord.max_queue=1000";
    let Some(mut holder) = round.stage.ours_with(player, options, round.book)? else { return Ok(None) };
    let mut waiting = Vec::new();
    for _ in 0..PROCESSES {
        waiting.extend(round.stage.ours_with(player, options, round.book)?);
    }
    let lock = format!("line-{length}");
    holder.ask(&format!("hold {lock}"), "held", PATIENCE)?;
    let before = operations(&mut waiting, &mut holder)?;
    for worker in &mut waiting {
        worker.tell(&format!("drain {lock} {}", length / PROCESSES))?;
    }
    queue_of(round, player, &lock, length / PROCESSES * PROCESSES)?;
    let begun = holder.ask("release", "released", PATIENCE)?[0];
    let mut last = begun;
    for worker in &waiting {
        last = worker.turns("drain", PATIENCE * 2)?.iter().map(|turn| turn.acquired).fold(last, u64::max);
    }
    let count = (length / PROCESSES * PROCESSES) as f64;
    let cost = (last - begun) as f64 / count;
    let asked = (operations(&mut waiting, &mut holder)? - before) as f64 / count;
    let name = player.name();
    round.book.figure(5, format!("{name}, {length} waiters, per hand-over"), Unit::Time, cost);
    round.book.goal(
        5,
        format!("{name}, {length} waiters, store operations each"),
        Unit::Count,
        asked,
        Goal::AtMost(4.0),
    );
    Ok(Some(cost))
}

/// What all have asked of their store for claims so far. Renewals are counted apart.
fn operations(waiting: &mut [Worker], holder: &mut Worker) -> Result<u64> {
    let mut sum = 0;
    for worker in waiting.iter_mut().chain(std::iter::once(holder)) {
        let [_, steps, reads, _] = worker.ask("stats", "stats", PATIENCE)?[..] else {
            return Err("four counts".into());
        };
        sum += steps + reads;
    }
    Ok(sum)
}

/// Waits until so many wait for the lock.
pub(super) fn queue_of(round: &Round<'_>, player: Player, lock: &str, length: usize) -> Result<()> {
    let url = round.stage.address(player, "")?;
    futures::executor::block_on(async {
        let client = coord_core::client::connect(&url).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let waiting = client.lock_info(lock).await?.map_or(0, |info| info.waiters.len());
            if waiting >= length {
                break;
            }
            if Instant::now() > until {
                return Err(format!("{waiting} of {length} waiters queued within {} s", PATIENCE.as_secs()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        client.close(Duration::from_secs(5)).await?;
        Ok(())
    })
}
