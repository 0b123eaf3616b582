//! The processes of a campaign, and what they say, a line at a time. No wait for one is without a bound: one that hangs
//! must be reported, and must not hang the campaign.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use coord_tests::servers::process;
use rustix::process::Signal;

/// How long any answer, and any end, may take, on a machine that others use, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A program that is told lines and says lines. Ends with this process.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// What came of asking for a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// This line, without its end.
    Line(String),
    /// Nothing, and nothing will be: it has ended, or closed its output.
    End,
    /// Nothing in time.
    Late,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn(command, Signal::KILL)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(|| io::Error::other("no output"))?);
        let input = child.stdin.take();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(io::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or_else(|| io::Error::other("its input has been closed"))?;
        writeln!(input, "{line}").and_then(|()| input.flush())
    }

    /// The next line that it says until then.
    pub(crate) fn line(&self, until: Instant) -> Said {
        match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => Said::Line(line),
            Err(RecvTimeoutError::Disconnected) => Said::End,
            Err(RecvTimeoutError::Timeout) => Said::Late,
        }
    }

    /// Closes its input, which is how it is asked to end.
    pub(crate) fn close_input(&mut self) {
        drop(self.input.take());
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

/// How a process ended that nobody had asked to; none if it goes on.
pub(crate) fn ended_by_itself(name: &str, child: &mut Child) -> io::Result<Option<String>> {
    Ok(child.try_wait()?.map(|status| format!("{name} had ended by itself, with {status}")))
}

/// Waits for the end of a process that was asked to end, and kills it when that takes too long. None then.
pub(crate) fn end_of(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        // There is no wait for a child with a bound.
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Asks a process to end that should still be there, by its input's end, which its caller has seen to. What is wrong
/// with how it does.
pub(crate) fn bad_end(name: &str, child: &mut Child, patience: Duration) -> io::Result<Option<String>> {
    Ok(match end_of(child, patience)? {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{name} ended with {status}")),
        None => Some(format!("{name} did not end within {patience:?} of being asked to")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start(command).expect("a shell")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn what_is_said_is_told_from_an_end_and_from_silence() {
        let mut program = shell("read line; echo \"said $line\"; read line");
        assert_eq!(program.line(Instant::now()), Said::Late);
        program.tell("it").expect("it reads");
        assert_eq!(program.line(soon()), Said::Line("said it".into()));
        program.close_input();
        assert_eq!(program.line(soon()), Said::End);
    }

    #[test]
    fn ends_that_nobody_asked_for_and_bad_ones_are_told() {
        let mut program = shell("read line; exit 3");
        assert_eq!(ended_by_itself("it", program.child()).expect("a child"), None);
        program.close_input();
        let bad = bad_end("it", program.child(), Duration::from_secs(30)).expect("a child");
        assert!(bad.is_some_and(|bad| bad.contains("exit status: 3")));
        let ended = ended_by_itself("it", program.child()).expect("a child");
        assert!(ended.is_some_and(|ended| ended.contains("by itself, with exit status: 3")));
        let mut good = shell("read line; exit 0");
        good.close_input();
        assert_eq!(bad_end("it", good.child(), Duration::from_secs(30)).expect("a child"), None);
        // One that does not end is killed.
        let mut hangs = shell("exec sleep 1000");
        let bad = bad_end("it", hangs.child(), Duration::ZERO).expect("a child");
        assert!(bad.is_some_and(|bad| bad.contains("did not end")));
        assert!(hangs.child().try_wait().expect("a child").is_some());
    }
}
