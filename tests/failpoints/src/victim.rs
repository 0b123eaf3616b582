//! Another process of the story: it lends a lock, holds and offers and sends something, and is killed with it.

use std::io::BufRead;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};

use coord_core::mail::{EnqueueOptions, MailState, Mailer, Message, OutboxOptions};
use coord_core::{Code, Error, Held, ProvideOptions, Result};
use coord_faults::history::now;
use coord_tests::servers::process;
use rustix::process::Signal;

use crate::place::{PATIENCE, text};
use crate::post::{Post, STALLED};
use crate::said::{Said, say};
use crate::story::{LENT, LETTERS, ORPHAN, ORPHAN_TERM, ORPHAN_TOO, ORPHANED};

/// What a victim's program is given before the URL and the port.
pub const WORD: &str = "victim";

/// A victim, from outside.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    orders: ChildStdin,
}

impl Victim {
    /// Starts one. What it says goes where its parent's words go.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(url: &str, post: u16) -> std::io::Result<(Self, ChildStderr)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([WORD, url, &post.to_string()]).stdin(Stdio::piped()).stderr(Stdio::piped());
        // It dies with whoever started it.
        let mut child = process::spawn(command, Signal::KILL)?;
        let pipes = child.stdin.take().zip(child.stderr.take());
        let (orders, news) = pipes.ok_or_else(|| std::io::Error::other("it has no pipes"))?;
        Ok((Self { child, orders }, news))
    }

    /// Asks it to release what it has lent.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn ask_to_release(&mut self) -> std::io::Result<()> {
        std::io::Write::write_all(&mut self.orders, b"release\n")
    }

    /// Kills it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn kill(mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

/// Waits until it has everything that it is to be killed with. Blocks.
///
/// # Errors
/// What it has said instead.
pub fn ready(news: ChildStderr) -> std::result::Result<(), String> {
    let mut line = String::new();
    std::io::BufReader::new(news).read_line(&mut line).map_err(text)?;
    if line == "ready\n" { Ok(()) } else { Err(format!("the victim says: {line}")) }
}

/// Is one, until it is killed, or its input ends.
///
/// # Errors
/// Those of the library.
#[expect(clippy::print_stderr, reason = "its parent reads that")]
pub async fn be(url: &str, post: u16) -> Result<()> {
    let client = coord_core::connect(url).await?;
    let hold = async |name: &str| -> Result<Held> {
        let held = client.lock(name)?.acquire().await?;
        say(&Said::Granted { claim: name.to_owned(), token: held.token(), t: now() });
        Ok(held)
    };
    let lent = hold(LENT).await?;
    let (_orphan, _too) = (hold(ORPHAN).await?, hold(ORPHAN_TOO).await?);
    let term = client.election(ORPHAN_TERM)?.campaign("victim").await?;
    say(&Said::Granted { claim: ORPHAN_TERM.to_owned(), token: term.token(), t: now() });
    let _provider = client.provide(ORPHANED, "", ProvideOptions::default()).await?;
    let outbox = client.outbox(LETTERS, &Mailer::open(&Post::url(post))?, OutboxOptions::default())?;
    say(&Said::Enqueuing { key: STALLED.to_owned() });
    let message = Message::new().to("ann@example.org").subject(STALLED).text("Hello.");
    let options = EnqueueOptions { key: Some(STALLED.to_owned()), ..EnqueueOptions::default() };
    let id = outbox.enqueue(&message, options).await?.id;
    say(&Said::Enqueued { key: STALLED.to_owned() });
    let _senders = outbox.start(1)?;
    // The server does not answer, so it stays there.
    let sending = async || Ok(outbox.get(&id).await?.is_some_and(|mail| mail.state == MailState::Sending));
    if !crate::until(PATIENCE, sending).await? {
        return Err(Error::new(Code::Timeout, "its mail is not sent"));
    }
    eprintln!("ready");
    let mut lent = Some(lent);
    let (orders, mut heard) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(std::io::Result::ok).try_for_each(|line| orders.send(line))
    });
    while heard.recv().await.is_some() {
        if let Some(lent) = lent.take() {
            lent.release().await?;
        }
    }
    std::process::exit(0)
}
