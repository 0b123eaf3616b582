//! The campaign: many mails, several processes in several languages, of which one is killed all the time. Every mail
//! arrives; a second copy only where a sender died between the dot and its record, and with the same Message-ID.
//!
//! By itself it is small, and all processes are Rust's. `tests/mail/campaign` runs it with senders in C, Go and Python:
//! `COORD_MAIL_SENDERS` has their commands, one per line, each to be followed by STORE MAILSERVER OUTBOX;
//! `COORD_MAIL_CAMPAIGN` the number of mails.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coord_core::mail::{EnqueueOptions, MailState, Mailer, Message, OutboxOptions};
use coord_tests::servers::{Smtp, SmtpOptions, process};
use rustix::process::Signal;
use serde_json::json;

use crate::place::places;

const MAILS: usize = 100;
const PROCESSES: usize = 4;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

struct Fleet {
    commands: Vec<Vec<String>>,
    arguments: [String; 3],
    children: Vec<Child>,
}

impl Fleet {
    fn start(&self, index: usize) -> Child {
        let words = &self.commands[index % self.commands.len()];
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.arguments).stdout(Stdio::piped());
        let mut child = process::spawn(command, Signal::KILL).expect("the sender starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{words:?}");
        child
    }

    fn replace(&mut self, index: usize) {
        // A crash must not pass for the kill.
        assert_eq!(self.children[index].try_wait().unwrap(), None, "a sender has ended by itself");
        self.children[index].kill().unwrap();
        self.children[index].wait().unwrap();
        self.children[index] = self.start(index);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn every_mail_arrives_although_senders_are_killed() {
    let mails = setting("COORD_MAIL_CAMPAIGN").map_or(MAILS, |text| text.parse().expect("a number"));
    let own = vec![env!("CARGO_BIN_EXE_mail-sender").to_owned()];
    let commands = setting("COORD_MAIL_SENDERS").map_or_else(
        || vec![own],
        |text| text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect(),
    );
    // Ten kills at least, and one every 3 s in the large one.
    let every = Duration::from_millis((mails as u64 * 3).clamp(300, 3_000));
    for place in places(true) {
        let options = SmtpOptions { more: vec!["--pause".into(), "100".into()], ..SmtpOptions::default() };
        let Some(server) = Smtp::start(&options) else { return };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = coord_core::connect(&place.url).await.unwrap();
            let url = format!("smtp://127.0.0.1:{}?tls=none&sender=shop@example.org", server.port());
            let outbox = client.outbox("letters", &Mailer::open(&url).unwrap(), OutboxOptions::default()).unwrap();
            let separator = if place.url.contains('?') { '&' } else { '?' };
            let arguments = [format!("{}{separator}coord.ttl=2s", place.url), url, "letters".to_owned()];
            let mut fleet = Fleet { commands: commands.clone(), arguments, children: Vec::new() };
            for index in 0..PROCESSES {
                let child = fleet.start(index);
                fleet.children.push(child);
            }
            for number in 0..mails {
                let key = EnqueueOptions { key: Some(number.to_string()), ..EnqueueOptions::default() };
                let message = Message::new().to(format!("r{number}@example.org")).subject(number.to_string());
                assert!(outbox.enqueue(&message, key).await.unwrap().new);
            }
            let (mut kills, end) = (0, Instant::now() + Duration::from_secs(60 + mails as u64));
            let mut next = Instant::now() + every;
            while outbox.stats().await.unwrap().of(MailState::Sent) < mails as u64 {
                assert!(Instant::now() < end, "{:?}", outbox.stats().await.unwrap());
                tokio::time::sleep(Duration::from_millis(50)).await;
                if Instant::now() >= next {
                    fleet.replace(kills % PROCESSES);
                    kills += 1;
                    next = Instant::now() + every;
                }
            }
            drop(fleet);
            check(&server, &outbox.list(None, u64::MAX >> 1).await.unwrap(), mails, kills);
        });
    }
}

fn check(server: &Smtp, kept: &[coord_core::mail::Mail], mails: usize, kills: usize) {
    let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in server.messages() {
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        copies.entry(text("subject")).or_default().push(text("message_id"));
    }
    assert_eq!(copies.len(), mails, "different keys arrived");
    assert_eq!(kept.len(), mails);
    let mut seconds = 0;
    for mail in kept {
        let ids = &copies[&mail.key];
        assert!(ids.iter().all(|id| *id == mail.message_id), "{mail:?}: {ids:?}");
        assert!(ids.len() == 1 || mail.maybe_sent, "a second copy that nobody knows of: {mail:?}");
        assert!(mail.state == MailState::Sent, "{mail:?}");
        seconds += ids.len() - 1;
    }
    assert!(kills > 0, "nobody was killed");
    assert!(seconds <= kills * 2, "{seconds} second copies after {kills} deaths of senders with 2 connections");
    eprintln!("{mails} mails, {kills} kills, {seconds} second copies");
    assert_eq!(server.ask(&json!({"forget": true})), json!({}));
}
