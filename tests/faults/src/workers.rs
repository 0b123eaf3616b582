//! The workers' processes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coord_tests::servers::process;
use rustix::process::Signal;

/// A program that works: its language, and its words, after which come the worker's arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// Letters.
    pub language: String,
    /// The program and its first arguments.
    pub words: Vec<String>,
}

impl Program {
    /// Those that are named in `COORD_FAULTS_WORKERS`, a line each: a language and the words; or this one, in Rust.
    ///
    /// # Errors
    /// A line that is not so.
    pub fn all(rust: &Path) -> Result<Vec<Self>, String> {
        let own = format!("rust {}", rust.display());
        let text = std::env::var("COORD_FAULTS_WORKERS").ok().filter(|text| !text.trim().is_empty()).unwrap_or(own);
        text.lines().map(|line| Self::parse(line).ok_or_else(|| format!("'{line}' names no worker"))).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let language = words.next().filter(|word| word.chars().all(|letter| letter.is_ascii_alphabetic()))?;
        let words: Vec<String> = words.collect();
        (!words.is_empty()).then_some(Self { language, words })
    }
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The store's URL.
    pub url: String,
    /// Where its histories go.
    pub folder: PathBuf,
    /// The ttl, by which it chooses how long it waits and holds.
    pub ttl: Duration,
    /// Beside its own.
    pub environment: Vec<(String, String)>,
}

/// One place for a worker: who dies is followed by another, with a history of its own.
#[derive(Debug)]
pub struct Worker {
    number: usize,
    name: String,
    program: Program,
    orders: Orders,
    generation: u64,
    child: Option<Child>,
    /// How many ended though nobody had asked them to: crashed, or stuck and given up by their own code.
    ended_by_themselves: usize,
}

impl Worker {
    /// Starts the first one in this place.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(number: usize, program: Program, orders: Orders) -> io::Result<Self> {
        let name = Self::name_of(number, &program);
        let mut worker = Self { number, name, program, orders, generation: 0, child: None, ended_by_themselves: 0 };
        worker.spawn()?;
        Ok(worker)
    }

    /// The name of the one in this place.
    pub fn name_of(number: usize, program: &Program) -> String {
        format!("{}{number}", program.language)
    }

    /// The beginning of its histories' names.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn history(&self) -> PathBuf {
        self.orders.folder.join(format!("{}.{}.jsonl", self.name, self.generation))
    }

    fn spawn(&mut self) -> io::Result<()> {
        self.generation += 1;
        let Orders { url, folder, ttl, environment } = &self.orders;
        let errors = File::options().create(true).append(true).open(folder.join(format!("{}.err", self.name)))?;
        let mut command = Command::new(&self.program.words[0]);
        command
            .args(&self.program.words[1..])
            .arg(url)
            .arg(self.history())
            .arg((self.generation * 1000 + self.number as u64).to_string())
            .arg(ttl.as_millis().to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors);
        self.child = Some(process::spawn(command, Signal::KILL)?);
        Ok(())
    }

    /// Whether the last thing that it wrote down is that it holds a lock.
    pub fn holds(&self) -> bool {
        let Ok(end) = end_of(&self.history()) else { return false };
        let last = end.trim_end().lines().last().unwrap_or_default();
        ["\"granted\"", "\"ok\"", "\"wrote\""].iter().any(|word| last.contains(word))
    }

    /// Kills it, and starts another. One that had ended before is counted: a crash must not pass for the kill.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.revive()? {
            return Ok(());
        }
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        self.spawn()
    }

    /// Stops it in its tracks, or lets it go on.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_stopped(&self, stopped: bool) -> io::Result<()> {
        match &self.child {
            Some(child) => process::signal(child, if stopped { Signal::STOP } else { Signal::CONT }),
            None => Ok(()),
        }
    }

    /// Lets it run for a twentieth of this time only, in short turns, as on a machine that has no time for it. It goes on
    /// afterwards.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn starve(&self, length: Duration) -> io::Result<()> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            self.set_stopped(true)?;
            std::thread::sleep(TURN * 19);
            self.set_stopped(false)?;
            std::thread::sleep(TURN);
        }
        Ok(())
    }

    /// Starts another if it has ended by itself, counts it and says so.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn revive(&mut self) -> io::Result<bool> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?.is_some(),
            None => true,
        };
        if ended {
            self.ended_by_themselves += 1;
            self.spawn()?;
        }
        Ok(ended)
    }

    /// How many in this place have ended by themselves.
    pub fn ended_by_themselves(&self) -> usize {
        self.ended_by_themselves
    }

    /// What those in this place said of a failure of their own: a panic of any thread, which the process survives where
    /// it is a task's.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn cries(&self) -> io::Result<Vec<String>> {
        let text = std::fs::read(self.orders.folder.join(format!("{}.err", self.name)))?;
        let text = String::from_utf8_lossy(&text);
        let loud = text.lines().filter(|line| CRIES.iter().any(|cry| line.contains(cry)));
        Ok(loud.map(|line| format!("{} said: {line}", self.name)).collect())
    }

    /// Asks it to end.
    pub fn ask_to_end(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
        }
    }

    /// Waits until it has ended. Returns whether it has, by itself and well.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn ended(&mut self, patience: Duration) -> io::Result<bool> {
        let Some(mut child) = self.child.take() else { return Ok(true) };
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill()?;
        child.wait()?;
        Ok(false)
    }
}

/// For how long one that starves runs at a time.
const TURN: Duration = Duration::from_millis(5);

/// What stands in the errors of a program that is broken: Rust's, Go's, Python's and the sanitizers' words for it.
const CRIES: [&str; 6] = ["panicked at", "panic:", "fatal error:", "Traceback", "Sanitizer", "Fatal Python error"];

/// The last lines of a file.
fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(300)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use coord_tests::servers::scratch::Scratch;

    use super::*;

    #[test]
    fn one_that_starves_runs_for_a_small_part_of_the_time_and_goes_on_afterwards() {
        let scratch = Scratch::new().expect("a folder");
        let words = ["sh", "-c", "while :; do :; done"].map(str::to_owned).into();
        let program = Program { language: "sh".into(), words };
        let (folder, ttl) = (scratch.path().to_owned(), Duration::from_secs(1));
        let orders = Orders { url: String::new(), folder, ttl, environment: Vec::new() };
        let worker = Worker::start(0, program, orders).expect("a shell");
        let id = worker.child.as_ref().expect("it runs").id();
        // In the kernel's ticks, a hundred a second.
        let used = || -> u64 {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
            let numbers = stat.rsplit_once(')').expect("a name in brackets").1;
            numbers.split_whitespace().nth(11).and_then(|ticks| ticks.parse().ok()).expect("a number")
        };
        let patience = Instant::now() + Duration::from_secs(30);
        let runs = |since: u64| {
            while used() < since + 5 {
                assert!(Instant::now() < patience, "it does not run");
                // The kernel's count tells nobody that it grows.
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        runs(0);
        let before = used();
        worker.starve(Duration::from_secs(2)).expect("a signal");
        let after = used();
        assert!(after - before < 60, "it ran for {} of 200 ticks", after - before);
        runs(after);
    }
}
