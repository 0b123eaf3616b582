//! The second part: processes of several languages provide one service and want to lead. Whoever leads is killed, again
//! and again, while an observer tells what it sees. What must be true: at each moment at most one leads, nobody leads
//! between two terms, tokens grow, and the observer hears of every end.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::worker::now;
use crate::{LIMIT, show};

/// Plays with these members, each a name and the words of its command.
///
/// # Errors
/// What was not as it must be.
pub(crate) fn play(url: &str, observer: &str, commands: &[(&str, &str)]) -> Result<(), String> {
    let names: Vec<&str> = commands.iter().map(|(name, _)| *name).collect();
    println!("demo: {} want to lead and provide a service; whoever leads is killed with SIGKILL", names.join(", "));
    let (tell, told) = channel();
    let _observer = Process::start("observer", observer, &[url], &tell)?;
    let mut observer = Observer { told, seen: Vec::new() };
    observer.until("nobody", |line| line.words == ["nobody"])?;
    let mut members = Vec::new();
    for (name, command) in commands {
        members.push(Process::start(name, command, &[url, name], &tell)?);
        // One after the other, so that the table shows each of them leading.
        observer.until("a member that joins", |line| line.words == ["joined", name])?;
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut killed = None;
    while !members.is_empty() {
        let leader = observer.until("a leader", |line| line.words.first().is_some_and(|word| word == "leader"))?;
        let [_, name, token] = &leader.words[..] else { return Err(format!("the observer said {:?}", leader.words)) };
        let token: i64 = token.parse().map_err(|_| format!("'{token}' is no token"))?;
        let began = observer.own_word(name, token)?;
        if let (Some(killed), Some(row)) = (killed, rows.last_mut()) {
            check(row, began, token, killed)?;
        }
        let index = members.iter().position(|member| member.name == *name).ok_or("a dead member leads")?;
        let victim = members.swap_remove(index);
        let at = now();
        victim.kill()?;
        killed = Some(at);
        let gone = observer.until("its provider's end", |line| line.words == ["left", name])?;
        let nobody = observer.until("nobody", |line| line.words == ["nobody"])?;
        let after = |line: &Line| Duration::from_nanos(line.at.saturating_sub(at));
        let row = Row { name: name.clone(), token, gone: after(&gone), nobody: after(&nobody), next: None };
        // Also of the last one, whom only the observer can miss.
        if row.gone.max(row.nobody) > LIMIT {
            return Err(format!("{name} was missed after {}; at most {} are right", show(row.gone), show(LIMIT)));
        }
        rows.push(row);
    }
    observer.until("the last provider's end", |line| line.words == ["last_down"])?;
    report(&rows);
    Ok(())
}

struct Row {
    name: String,
    token: i64,
    /// From the kill until the observer heard that its provider is gone, and that nobody leads.
    gone: Duration,
    nobody: Duration,
    /// From the kill until the next one led.
    next: Option<Duration>,
}

fn check(before: &mut Row, began: u64, token: i64, killed: u64) -> Result<(), String> {
    if token <= before.token {
        return Err(format!("the token {token} is not above {}, the one before", before.token));
    }
    let next = began.checked_sub(killed).ok_or("somebody led while the killed process did")?;
    let next = Duration::from_nanos(next);
    if next > LIMIT {
        return Err(format!("nobody led for {}; at most {} are right", show(next), show(LIMIT)));
    }
    before.next = Some(next);
    Ok(())
}

fn report(rows: &[Row]) {
    println!("\n  {:<10} {:>18} {:>16} {:>20} {:>18}", "leader", "token", "", "after it was killed", "");
    println!("  {:<10} {:>18} {:>16} {:>20} {:>18}", "", "", "service gone", "nobody leads", "the next one leads");
    for row in rows {
        let next = row.next.map_or_else(|| "nobody is left".to_owned(), show);
        println!("  {:<10} {:>18} {:>16} {:>20} {:>18}", row.name, row.token, show(row.gone), show(row.nobody), next);
    }
    println!(
        "\n  one leader at a time, nobody between two of them, tokens strictly increasing; the observer was told of all"
    );
}

/// A line that a process has said.
#[derive(Clone, Debug)]
struct Line {
    who: String,
    words: Vec<String>,
    /// On the monotonic clock: the last word.
    at: u64,
}

/// What was said so far, and what is still to come.
struct Observer {
    told: Receiver<Line>,
    seen: Vec<Line>,
}

impl Observer {
    /// Waits until the observer says this, and takes it out of what was said.
    fn until(&mut self, what: &str, wanted: impl Fn(&Line) -> bool) -> Result<Line, String> {
        self.take(what, |line| line.who == "observer" && wanted(line))
    }

    /// Waits until the leader itself says so; when it began.
    fn own_word(&mut self, name: &str, token: i64) -> Result<u64, String> {
        let token = token.to_string();
        let line = self.take("the leader's own word", |line| {
            line.who == name && line.words.first().is_some_and(|word| word == "leads") && line.words.contains(&token)
        })?;
        Ok(line.at)
    }

    fn take(&mut self, what: &str, wanted: impl Fn(&Line) -> bool) -> Result<Line, String> {
        if let Some(index) = self.seen.iter().position(&wanted) {
            return Ok(self.seen.remove(index));
        }
        loop {
            let line = self.told.recv_timeout(LIMIT).map_err(|_| format!("{what} has not come"))?;
            if wanted(&line) {
                return Ok(line);
            }
            self.seen.push(line);
        }
    }
}

/// A running process, killed when dropped.
struct Process {
    name: String,
    child: Child,
    _input: Option<ChildStdin>,
}

impl Process {
    fn start(name: &str, command: &str, arguments: &[&str], tell: &Sender<Line>) -> Result<Self, String> {
        let mut words = command.split(' ');
        let mut process = Command::new(words.next().unwrap_or_default());
        process.args(words).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn().map_err(|error| format!("{name}: {command}: {error}"))?;
        let output = child.stdout.take().ok_or("the output is gone")?;
        let (who, tell) = (name.to_owned(), tell.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
                let at = words.pop().and_then(|word| word.parse().ok()).unwrap_or_default();
                if tell.send(Line { who: who.clone(), words, at }).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, _input: input })
    }

    fn kill(mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(|_| ()).map_err(|error| error.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, unless this is the observer or something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
