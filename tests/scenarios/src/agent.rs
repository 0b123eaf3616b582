//! An agent's process: what is asked of it and what it answers, with a bound on every answer.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use coord_tests::servers::process;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::stage::Program;
use crate::words::Words;

/// How long an agent may take for one answer. Its own bound for an event is shorter, so that its answer tells more.
pub const BOUND: Duration = Duration::from_secs(60);

/// A running agent. Killed when dropped, also while it is stopped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
    stopped: bool,
}

/// What an agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Success.
    Ok(Words),
    /// An error of the library; the code is in the named values, too.
    Error(Words),
}

impl Agent {
    /// Starts an agent.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(program: &Program) -> Result<Self, String> {
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn(command, Signal::KILL)
            .map_err(|error| format!("{} cannot be started: {error}", program.path.display()))?;
        let output = child.stdout.take().expect("the output is a pipe");
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { commands: child.stdin.take(), child, answers, stopped: false })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// No answer, or one that is no line of the protocol, or that the agent could not do what was asked.
    pub fn ask(&mut self, command: &Words) -> Result<Answer, String> {
        let line = command.to_string();
        let pipe = self.commands.as_mut().ok_or("the agent was told to quit")?;
        pipe.write_all(format!("{line}\n").as_bytes()).map_err(|error| format!("the agent is gone: {error}"))?;
        let answer = match self.answers.recv_timeout(BOUND) {
            Ok(answer) => Words::parse(&answer)?,
            Err(RecvTimeoutError::Timeout) => return Err(format!("no answer within {} s", BOUND.as_secs())),
            Err(RecvTimeoutError::Disconnected) => return Err("the agent ended without an answer".into()),
        };
        match answer.positional.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["ok"] => Ok(Answer::Ok(answer)),
            ["error", code] => {
                let code = code.to_owned();
                Ok(Answer::Error(answer.with("code", code)))
            }
            _ => Err(format!("the agent cannot do that: {}", answer.get("message").unwrap_or(&answer.to_string()))),
        }
    }

    /// Whether the agent is stopped, and cannot answer.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Kills the process, as a crash does, and waits until it is gone.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn kill(mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Stops the process, as a long pause does, and waits until all of it stands still.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn stop(&mut self) -> Result<(), String> {
        self.stopped = true;
        process::signal(&self.child, Signal::STOP).map_err(|error| error.to_string())?;
        let pid = Pid::from_child(&self.child);
        loop {
            match waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn go_on(&mut self) -> Result<(), String> {
        self.stopped = false;
        process::signal(&self.child, Signal::CONT).map_err(|error| error.to_string())
    }

    /// Ends the agent by the end of its input, and waits until its process has ended well.
    ///
    /// # Errors
    /// If it does not end, or not well.
    pub fn quit(mut self) -> Result<(), String> {
        if self.stopped {
            self.go_on()?;
        }
        self.commands = None;
        // The output ends with the process.
        match self.answers.recv_timeout(BOUND) {
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => return Err(format!("it does not end within {} s", BOUND.as_secs())),
            Ok(line) => return Err(format!("it says more than was asked: {line}")),
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}")) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
