//! Row 6: how long a lock stays with a process that was killed.

use std::time::Duration;

use coord_bench_worker::{Result, now};

use super::Round;
use super::waiters::queue_of;
use crate::book::{Goal, Unit, quantile};
use crate::process::PATIENCE;
use crate::stage::Player::{self, *};

/// How often within a round.
const KILLS: usize = 5;

/// Those whose lock ends with the process, by the kernel.
const SOON: [Player; 4] = [OursSqlite, OursMongo(1), FileLock, Fasteners];

/// Those who wait for a ttl of 10 s.
const LATE: [Player; 3] = [Etcd(1), Kazoo, Redis];

const TTL_SECONDS: u32 = 5;

pub(super) fn killed(round: &mut Round<'_>) -> Result<()> {
    round.each(&SOON, |round, player| {
        let mut times = Vec::new();
        for number in 0..KILLS {
            let Some(time) = kill(round, player, "", number)? else { return Ok(None) };
            times.push(time);
        }
        let name = player.name();
        let (p50, most) = (quantile(&mut times, 0.5) as f64, quantile(&mut times, 1.0) as f64);
        let ours = matches!(player, OursSqlite | OursMongo(_));
        let goal = |limit: f64| if ours { Goal::AtMost(limit) } else { Goal::None };
        round.book.goal(6, format!("{name}, same host, p50"), Unit::Time, p50, goal(20e6));
        round.book.goal(6, format!("{name}, same host, longest"), Unit::Time, most, goal(100e6));
        Ok(Some(p50))
    });
    if !round.first {
        return Ok(());
    }
    round.each(&[OursMongo(1)], |round, player| {
        // Without the kernel's word, as for a waiter on another host.
        let options = format!("coord.ttl={TTL_SECONDS}s&coord.host_liveness=off");
        let Some(time) = kill(round, player, &options, KILLS)? else { return Ok(None) };
        let what = format!("{}, as from another host, ttl {TTL_SECONDS} s", player.name());
        let limit = (1.1 * f64::from(TTL_SECONDS) + 2.0) * 1e9;
        round.book.goal(6, what, Unit::Time, time as f64, Goal::AtMost(limit));
        Ok(Some(time as f64))
    });
    round.each(&LATE, |round, player| {
        let Some(time) = kill(round, player, "", KILLS)? else { return Ok(None) };
        round.book.figure(6, format!("{}, ttl 10 s", player.name()), Unit::Time, time as f64);
        Ok(Some(time as f64))
    });
    Ok(())
}

/// Kills a holder and returns how long the waiter waited from then on.
fn kill(round: &mut Round<'_>, player: Player, options: &str, number: usize) -> Result<Option<u64>> {
    let ours = matches!(player, OursSqlite | OursMongo(_));
    let workers = if ours {
        let mut pair = Vec::new();
        for _ in 0..2 {
            pair.extend(round.stage.ours_with(player, options, round.book)?);
        }
        pair
    } else {
        round.stage.workers(player, 2, round.book)?.unwrap_or_default()
    };
    let mut workers = workers.into_iter();
    let (Some(mut holder), Some(mut waiter)) = (workers.next(), workers.next()) else { return Ok(None) };
    let lock = format!("killed-{number}");
    holder.ask(&format!("hold {lock}"), "held", PATIENCE)?;
    waiter.tell(&format!("hold {lock}"))?;
    if ours {
        queue_of(round, player, &lock, 1)?;
    } else {
        // Peers do not tell who waits.
        std::thread::sleep(Duration::from_millis(300));
    }
    let killed = now();
    holder.kill()?;
    let [_, acquired] = waiter.numbers("held", PATIENCE)?[..] else { return Err("two moments".into()) };
    Ok(Some(acquired.saturating_sub(killed)))
}
