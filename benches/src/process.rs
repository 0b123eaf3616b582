//! A worker process and the lines that go to it and come back, each within a time limit.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use coord_bench_worker::Result;
use coord_tests::servers::process;
use rustix::process::Signal;

/// How long an answer may take beyond the time that the work itself is given.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A worker process. Killed when dropped.
pub(crate) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    name: String,
}

impl Worker {
    /// Starts the command; [`Worker::ready`] waits until it is connected.
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            process::spawn(command, Signal::KILL).map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("a worker without output")?);
        let (send, answers) = mpsc::channel();
        std::thread::spawn(move || {
            // Ends with the process, or when nobody listens any more.
            let lines = BufReader::with_capacity(1 << 20, output).lines();
            lines.map_while(std::result::Result::ok).take_while(|line| send.send(line.clone()).is_ok()).for_each(drop);
        });
        Ok(Self { child, input, answers, name: name.to_owned() })
    }

    /// Waits until it is connected.
    pub(crate) fn ready(&self) -> Result<()> {
        self.answer("ready", PATIENCE).map(drop)
    }

    /// Sends a line without waiting for its answer.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or("the worker was told to end")?;
        writeln!(input, "{line}").map_err(|error| format!("{} does not listen: {error}", self.name))?;
        Ok(())
    }

    /// The words of the next answer, which must begin with this one; it is left out.
    pub(crate) fn answer(&self, first: &str, patience: Duration) -> Result<Vec<String>> {
        let until = Instant::now() + patience;
        let line = self
            .answers
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .map_err(|_| format!("{} gave no answer within {} s", self.name, patience.as_secs()))?;
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some(first) {
            return Err(format!("{}: {}", self.name, line.chars().take(200).collect::<String>()).into());
        }
        Ok(words.map(str::to_owned).collect())
    }

    /// The numbers of the next answer.
    pub(crate) fn numbers(&self, first: &str, patience: Duration) -> Result<Vec<u64>> {
        self.answer(first, patience)?.iter().map(|word| Ok(word.parse()?)).collect()
    }

    /// Sends a line and returns the numbers of its answer, which begins with the same word or with `first`.
    pub(crate) fn ask(&mut self, line: &str, first: &str, patience: Duration) -> Result<Vec<u64>> {
        self.tell(line)?;
        self.numbers(first, patience)
    }

    /// The turns of the next answer.
    pub(crate) fn turns(&self, first: &str, patience: Duration) -> Result<Vec<Turn>> {
        self.answer(first, patience)?.iter().map(|word| Turn::parse(word)).collect()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that ends by itself leaves its store in order; one that does not is killed.
        self.input = None;
        let until = Instant::now() + LEAVE;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LEAVE: Duration = Duration::from_secs(3);

/// One turn of a worker with a lock, in nanoseconds of the clock that all share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) worker: usize,
    pub(crate) asked: u64,
    pub(crate) acquired: u64,
    pub(crate) releasing: u64,
    pub(crate) released: u64,
}

impl Turn {
    fn parse(word: &str) -> Result<Self> {
        let mut parts = word.split(':').map(str::parse::<u64>);
        let mut next = || parts.next().ok_or("a turn has four moments")?.map_err(coord_bench_worker::Error::from);
        Ok(Self { worker: 0, asked: next()?, acquired: next()?, releasing: next()?, released: next()? })
    }
}
