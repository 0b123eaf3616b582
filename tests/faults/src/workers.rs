//! The workers' processes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coord_tests::servers::process;
use rustix::process::Signal;

/// One place for a worker: who dies is followed by another, with a history of its own.
#[derive(Debug)]
pub struct Worker {
    name: String,
    url: String,
    folder: PathBuf,
    program: PathBuf,
    environment: Vec<(String, String)>,
    generation: u64,
    child: Option<Child>,
}

impl Worker {
    /// Starts the first one in this place.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(
        number: usize,
        url: String,
        folder: &Path,
        program: &Path,
        environment: Vec<(String, String)>,
    ) -> io::Result<Self> {
        let (folder, program) = (folder.to_owned(), program.to_owned());
        let name = format!("w{number}");
        let mut worker = Self { name, url, folder, program, environment, generation: 0, child: None };
        worker.spawn()?;
        Ok(worker)
    }

    /// The beginning of its histories' names.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn history(&self) -> PathBuf {
        self.folder.join(format!("{}.{}.jsonl", self.name, self.generation))
    }

    fn spawn(&mut self) -> io::Result<()> {
        self.generation += 1;
        let number: u64 = self.name[1..].parse().unwrap_or(0);
        let errors = File::options().create(true).append(true).open(self.folder.join(format!("{}.err", self.name)))?;
        let mut command = Command::new(&self.program);
        command
            .arg(&self.url)
            .arg(self.history())
            .arg((self.generation * 1000 + number).to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors);
        self.child = Some(process::spawn(command, Signal::KILL)?);
        Ok(())
    }

    /// Whether the last thing that it wrote down is that it holds a lock.
    pub fn holds(&self) -> bool {
        let Ok(text) = std::fs::read(self.history()) else { return false };
        let end = String::from_utf8_lossy(&text[text.len().saturating_sub(300)..]).into_owned();
        let last = end.trim_end().lines().last().unwrap_or_default();
        ["\"granted\"", "\"ok\"", "\"wrote\""].iter().any(|word| last.contains(word))
    }

    /// Kills it, and starts another.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn kill(&mut self) -> io::Result<()> {
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

    /// Starts another if it has ended by itself, and says so.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn revive(&mut self) -> io::Result<bool> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?.is_some(),
            None => true,
        };
        if ended {
            self.spawn()?;
        }
        Ok(ended)
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
