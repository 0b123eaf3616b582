//! Row 12: whether an operation costs more where there are many sessions, or many locks.

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit, quantile};
use crate::process::{PATIENCE, Worker};
use crate::stage::Player::OursSqlite;

const SESSIONS: [usize; 3] = [10, 100, 1_000];
const LOCKS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

pub(super) fn growth(round: &mut Round<'_>) -> Result<()> {
    if !round.first {
        return Ok(());
    }
    grow(round, "sessions", &SESSIONS, |worker, more, _| {
        worker.ask(&format!("sessions {more}"), "sessions", PATIENCE * 2)?;
        Ok(())
    })?;
    grow(round, "locks held", &LOCKS, |worker, more, there| {
        worker.ask(&format!("many grown-{there}- {more}"), "many", PATIENCE * 2)?;
        Ok(())
    })
}

fn grow(
    round: &mut Round<'_>,
    what: &str,
    sizes: &[usize],
    more: impl Fn(&mut Worker, usize, usize) -> Result<()>,
) -> Result<()> {
    round.each(&[OursSqlite], |round, player| {
        // A store of its own, so that nothing else is in it.
        let url = round.stage.address(player, "")?.replace("normal.db", &format!("grown-{}.db", what.len()));
        let mut owner = round.stage.ours_at(&url)?;
        let mut client = round.stage.ours_at(&url)?;
        let mut there = 0;
        let mut costs = Vec::new();
        for size in sizes {
            more(&mut owner, size - there, there)?;
            there = *size;
            let numbers = client.ask("pairs grow- 1 500", "pairs", PATIENCE)?;
            let p50 = quantile(&mut numbers.get(2..).unwrap_or_default().to_vec(), 0.5) as f64;
            round.book.figure(12, format!("SQLite, acquire + release beside {size} {what}, p50"), Unit::Time, p50);
            costs.push(p50);
        }
        let (first, last) = (costs.first().copied(), costs.last().copied());
        let span = format!("SQLite, {} {what} / {}", sizes[sizes.len() - 1], sizes[0]);
        round.book.ratio(12, span, last, first, Goal::AtMost(1.5));
        Ok(last)
    });
    Ok(())
}
