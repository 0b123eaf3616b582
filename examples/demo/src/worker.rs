//! The workers' processes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::time::{ClockId, clock_gettime};

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) pid: u32,
    child: Child,
}

/// When the worker begins and ends, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) until: u64,
    /// From then on it stops in the middle of an entry.
    pub(crate) stuck: Option<u64>,
}

impl Worker {
    /// Starts a worker: `command` is words between spaces.
    pub(crate) fn start(name: &str, command: &str, url: &str, ledger: &Path, times: Times) -> Result<Self, String> {
        let mut words = command.split(' ');
        let mut process = Command::new(words.next().unwrap_or_default());
        process.args(words).arg(url).arg(ledger).arg(times.until.to_string());
        process.args(times.stuck.map(|stuck| stuck.to_string())).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = process.spawn().map_err(|error| format!("{name}: {command}: {error}"))?;
        Ok(Self { name: name.to_owned(), pid: child.id(), child })
    }

    /// Waits until the worker is stuck in the middle of an entry, and kills it there. Returns when that was.
    pub(crate) fn kill_when_stuck(&mut self) -> Result<u64, String> {
        let output = self.child.stdout.take().ok_or("the worker's output is gone")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        if line.trim() != "stuck" {
            return Err(format!("{} ended before it could be killed", self.name));
        }
        let killed = now();
        self.child.kill().and_then(|()| self.child.wait()).map_err(|error| error.to_string())?;
        Ok(killed)
    }

    /// Waits until the worker has ended well.
    pub(crate) fn join(mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.name)) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended, unless something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nanoseconds of the monotonic clock, as the workers write them.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
