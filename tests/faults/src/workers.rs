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
