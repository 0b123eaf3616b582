//! Row 7: what holding costs, in writes and in memory.

use std::time::Duration;

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit};
use crate::proc;
use crate::process::{PATIENCE, Worker};
use crate::stage::Player::OursSqlite;

const LOCKS: usize = 10_000;
/// A third of the ttl.
const RENEWAL: Duration = Duration::from_secs(1);
const RENEWALS: u32 = 5;

pub(super) fn holding(round: &mut Round<'_>) -> Result<()> {
    if !round.first {
        return Ok(());
    }
    round.each(&[OursSqlite], |round, player| {
        let Some(mut worker) = round.stage.ours_with(player, "coord.ttl=3s", round.book)? else { return Ok(None) };
        worker.ask("many one- 1", "many", PATIENCE)?;
        let (one, _) = writes(&mut worker)?;
        let before = proc::resident(worker.pid())?;
        worker.ask(&format!("many held- {LOCKS}"), "many", PATIENCE)?;
        let memory = (proc::resident(worker.pid())?.saturating_sub(before)) as f64 / LOCKS as f64;
        let (many, claims) = writes(&mut worker)?;
        // The window may begin just before or just after a renewal.
        let most = Goal::AtMost(1.0 + 1.0 / f64::from(RENEWALS));
        round.book.figure(7, format!("writes in {RENEWALS} renewal intervals, 1 lock held"), Unit::Count, one);
        round.book.figure(7, format!("writes in {RENEWALS} renewal intervals, 10,000 held"), Unit::Count, many);
        round.book.ratio(7, "writes with 10,000 locks / with one", Some(many), Some(one), most);
        round.book.goal(7, "writes to claims while they are held", Unit::Count, claims, Goal::AtMost(0.0));
        round.book.goal(7, "memory per held lock", Unit::Bytes, memory, Goal::AtMost(1024.0));
        Ok(Some(memory))
    });
    Ok(())
}

/// Writes to sessions and to claims within some renewal intervals.
fn writes(worker: &mut Worker) -> Result<(f64, f64)> {
    let mut count = || -> Result<[u64; 2]> {
        let counts = worker.ask("stats", "stats", PATIENCE)?;
        Ok([counts[0], counts[1]])
    };
    let before = count()?;
    std::thread::sleep(RENEWAL * RENEWALS);
    let after = count()?;
    Ok(((after[0] - before[0]) as f64, (after[1] - before[1]) as f64))
}
