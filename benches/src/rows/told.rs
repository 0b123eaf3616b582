//! Row 8: how long it takes until another process is called because of a write.

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit, quantile};
use crate::floors;
use crate::process::PATIENCE;
use crate::stage::Player::{self, *};

/// Who listens, and what the table calls it.
const KINDS: [(&str, &str); 3] =
    [("observer", "an observer"), ("watch", "a watch of a table"), ("reconciler", "a reconciler")];

const WRITES: usize = 200;

/// Until both are asleep again.
const PAUSE_MICROS: u64 = 4_000;

/// Nanoseconds that the way from the store's own event to the user's function may take.
const ABOVE_EVENT: f64 = 0.3e6;
const ABOVE_DATAGRAM: f64 = 0.2e6;

pub(super) fn told(round: &mut Round<'_>) -> Result<()> {
    for (player, limit) in [(OursSqlite, ABOVE_DATAGRAM), (OursMongo(1), ABOVE_EVENT), (OursMongo(3), ABOVE_EVENT)] {
        let event = floor(round, player, "the store's own event after a write", "normal");
        // What users write to a table of SQLite is synced, other than who is there.
        let synced = match player {
            OursSqlite => floor(round, player, "the store's own event after a synced write", "full"),
            _ => event,
        };
        for (kind, who) in KINDS {
            let floor = if kind == "observer" { event } else { synced };
            round.each(&[player], |round, player| {
                let Some(Told { mut told, mut done }) = samples(round, player, kind)? else { return Ok(None) };
                let p50 = quantile(&mut told, 0.5) as f64;
                let what = format!("{}, until {who} is called", player.name());
                round.book.figure(8, format!("{what}, p50"), Unit::Time, p50);
                round.book.figure(8, format!("{what}, p99"), Unit::Time, quantile(&mut told, 0.99) as f64);
                let writing = format!("{}, until who writes for {who} is answered, p50", player.name());
                round.book.figure(8, writing, Unit::Time, quantile(&mut done, 0.5) as f64);
                if let Some(floor) = floor {
                    let above = (p50 - floor).max(0.0);
                    round.book.goal(
                        8,
                        format!("{what}, above the store's own event"),
                        Unit::Time,
                        above,
                        Goal::AtMost(limit),
                    );
                }
                Ok(Some(p50))
            });
        }
    }
    Ok(())
}

/// How fast the store's own event follows a write.
fn floor(round: &mut Round<'_>, player: Player, what: &str, synchronous: &str) -> Option<f64> {
    let measured = match player {
        OursMongo(members) => floors::change_event(round, members),
        _ => floors::sqlite_wake(round, synchronous),
    };
    match measured {
        Ok(mut samples) => {
            let p50 = quantile(&mut samples, 0.5) as f64;
            round.book.figure(8, format!("{}: {what}, p50", player.name()), Unit::Time, p50);
            Some(p50)
        }
        Err(error) => {
            round.book.absent(format!("the event of {}: {error}", player.name()));
            None
        }
    }
}

/// Times from before each write.
struct Told {
    /// Until who listens in another process was told of it.
    told: Vec<u64>,
    /// Until who wrote had the answer.
    done: Vec<u64>,
}

fn samples(round: &mut Round<'_>, player: Player, kind: &str) -> Result<Option<Told>> {
    let Some(mut workers) = round.stage.workers(player, 2, round.book)? else { return Ok(None) };
    let (Some(mut writer), Some(mut listener)) = (workers.pop(), workers.pop()) else { return Ok(None) };
    // A name of this round's own: what others wrote is not to be told.
    let name = format!("told-{kind}-{}", writer.pid());
    listener.ask(&format!("listen {kind} {name}"), "listening", PATIENCE)?;
    writer.tell(&format!("write {kind} {name} {WRITES} {PAUSE_MICROS}"))?;
    let mut wrote = Vec::new();
    for word in writer.answer("wrote", PATIENCE)? {
        let (before, done) = word.split_once(':').ok_or("two moments for each write")?;
        wrote.push((before.parse::<u64>()?, done.parse::<u64>()?));
    }
    let heard = listener.ask(&format!("heard {WRITES}"), "heard", PATIENCE)?;
    let since = |pair: &[u64]| Some(pair[1].saturating_sub(wrote.get(usize::try_from(pair[0]).ok()?)?.0));
    let told: Vec<u64> = heard.chunks_exact(2).filter_map(since).collect();
    if told.len() * 2 < wrote.len() {
        return Err(format!("only {} of {} writes were told", told.len(), wrote.len()).into());
    }
    Ok(Some(Told { told, done: wrote.iter().map(|(before, done)| done - before).collect() }))
}
