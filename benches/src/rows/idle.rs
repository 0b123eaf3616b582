//! Row 11: what a process costs that leads, observes and does nothing. The host is an empty process of the same program.

use std::process::Command;
use std::time::Duration;

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit};
use crate::proc;
use crate::process::Worker;
use crate::stage::Player::{OursMongo, OursSqlite};

const SECONDS: u64 = 10;

pub(super) fn idle(round: &mut Round<'_>) -> Result<()> {
    if !round.first {
        return Ok(());
    }
    round.each(&[OursSqlite, OursMongo(1)], |round, player| {
        let url = round.stage.address(player, "")?;
        let (empty, ours) = (start(&[])?, start(&[&url])?);
        let host = proc::resident(empty.pid())?;
        // What connecting still does in the background is not idling.
        std::thread::sleep(Duration::from_secs(2));
        let before = proc::cpu_nanos(ours.pid())?;
        std::thread::sleep(Duration::from_secs(SECONDS));
        let used = proc::cpu_nanos(ours.pid())? - before;
        let share = used as f64 / (SECONDS as f64 * 1e9) * 100.0;
        let memory = proc::resident(ours.pid())?.saturating_sub(host) as f64;
        let threads = (proc::threads(ours.pid())? - proc::threads(empty.pid())?) as f64;
        let name = player.name();
        round.book.goal(11, format!("{name}, share of a core"), Unit::Percent, share, Goal::AtMost(0.1));
        let most = Goal::AtMost(15.0 * 1024.0 * 1024.0);
        round.book.goal(11, format!("{name}, resident above the empty process"), Unit::Bytes, memory, most);
        round.book.goal(11, format!("{name}, threads"), Unit::Count, threads, Goal::AtMost(4.0));
        Ok(Some(share))
    });
    Ok(())
}

fn start(arguments: &[&str]) -> Result<Worker> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("idle").args(arguments);
    let worker = Worker::start("an idle process", command)?;
    worker.ready()?;
    Ok(worker)
}
