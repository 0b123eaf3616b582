//! Row 13: how large the wheel is, and how long a fresh process needs to import what is in it.

use std::process::Stdio;
use std::time::Instant;

use coord_bench_worker::Result;

use super::Round;
use crate::book::{Goal, Unit, quantile};
use crate::languages::{built, python};

const STARTS: usize = 15;

pub(super) fn size(round: &mut Round<'_>) -> Result<()> {
    if round.is_over() {
        return Ok(());
    }
    if let Err(error) = wheel(round).and_then(|()| import(round)) {
        round.book.absent(format!("the wheel: {error}"));
    }
    Ok(())
}

fn wheel(round: &mut Round<'_>) -> Result<()> {
    if !round.first {
        return Ok(());
    }
    let file = std::fs::read_dir(built("wheel")?)?.next().ok_or("there is none")??;
    let bytes = file.metadata()?.len() as f64;
    round.book.goal(13, "wheel", Unit::Bytes, bytes, Goal::AtMost(12.0 * 1024.0 * 1024.0));
    Ok(())
}

fn import(round: &mut Round<'_>) -> Result<()> {
    // What is imported only when it is used is to be seen, too.
    let lines = ["pass", "import coord", "import coord; coord.connect('memory:').close()"];
    let mut took = lines.map(|_| Vec::new());
    // The first of each bring the files into memory.
    for number in 0..=STARTS {
        for (line, took) in lines.iter().zip(&mut took) {
            let time = start(line)?;
            if number > 0 {
                took.push(time);
            }
        }
    }
    let [bare, import, connect] = took.map(|mut times| quantile(&mut times, 0.5) as f64);
    round.book.figure(13, "python -c pass", Unit::Time, bare);
    round.book.goal(13, "import coord, above python -c pass", Unit::Time, import - bare, Goal::AtMost(30e6));
    round.book.figure(13, "import coord, connect and close, above python -c pass", Unit::Time, connect - bare);
    Ok(())
}

/// How long a process of this line takes, in nanoseconds.
fn start(line: &str) -> Result<u64> {
    let mut command = python()?;
    command.args(["-c", line]).stdin(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let took = begun.elapsed();
    if status.success() { Ok(took.as_nanos() as u64) } else { Err(format!("'{line}' fails").into()) }
}
