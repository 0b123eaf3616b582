//! Second copies: each case in which there can be one, as `docs/mail.md` lists them, on every store; and what looks like
//! one of them, and is none.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coord_core::bson::Document;
use coord_core::mail::{MailState, Senders, Status};
use coord_core::table::{FindOptions, WriteOptions};
use coord_tests::servers::{Smtp, process};
use rustix::process::Signal;

use crate::place::{Place, arrived, asked, connect, key, letter, open, places, put, quick, until, until_state};
use crate::support::{PATIENCE, mailer, with_server};

/// Another process that sends, with a session that is soon seen to be dead.
struct Sender(Child);

impl Sender {
    fn start(place: &Place, server: &Smtp, on_doubt: &str) -> Self {
        Self::start_with(place, server, on_doubt, "")
    }

    /// One that stops itself, as by a signal, when it has looked a last time and before the final dot leaves.
    fn start_to_stop(place: &Place, server: &Smtp, on_doubt: &str) -> Self {
        Self::start_with(place, server, on_doubt, "stop-before-the-dot")
    }

    fn start_with(place: &Place, server: &Smtp, on_doubt: &str, how: &str) -> Self {
        let store = place.with_ttl("2s");
        let mail = format!("smtp://127.0.0.1:{}?tls=none&sender=shop@example.org", server.port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_mail-sender"));
        command.args([&store, &mail, "letters", on_doubt, how]).stdout(Stdio::piped());
        let mut child = process::spawn(command, Signal::KILL).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        process::signal(&self.0, signal).unwrap();
    }

    /// Waits until it stands still. The kernel's own wait for that has no bound.
    async fn stopped(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            // Behind the name, which is in parentheses.
            if status.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")) {
                return;
            }
            assert!(Instant::now() < end, "it goes on: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_broken_connection_after_the_dot_is_case_b() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            server.rule("dot", "taken drop", Some(1));
            let outbox = open(&client, &mailer(&server, ""), quick());
            let id = put(&outbox, "ann@example.org", "twice").await;
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            assert!(sent.maybe_sent && sent.attempts == 2, "{sent:?}");
            senders.stop().await.unwrap();
            let got = server.messages();
            assert_eq!(got.len(), 2);
            assert_eq!(got[0]["message_id"], got[1]["message_id"]);
            assert_eq!(got[0]["raw"], got[1]["raw"].clone(), "the same but for what lies between the parts");
        });
    }
}

#[test]
fn parked_instead_of_case_b_and_retried_is_case_d() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            server.rule("dot", "taken drop", Some(1));
            let outbox = open(&client, &mailer(&server, ""), quick().with("on_doubt", "park").unwrap());
            let id = put(&outbox, "ann@example.org", "once").await;
            let senders = outbox.start(1).unwrap();
            let parked = until_state(&outbox, &id, MailState::Parked).await;
            assert_eq!((parked.recipients[0].status, parked.maybe_sent), (Status::Unknown, true));
            assert_eq!(server.messages().len(), 1);
            outbox.retry(&id).await.unwrap();
            until_state(&outbox, &id, MailState::Sent).await;
            senders.stop().await.unwrap();
            let got = server.messages();
            assert_eq!((got.len(), &got[0]["message_id"]), (2, &got[1]["message_id"]));
        });
    }
}

#[test]
fn a_killed_sender_whose_record_is_missing_is_case_a() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            server.rule("dot", "taken stall", Some(1));
            let id = put(&outbox, "ann@example.org", "a").await;
            let sender = Sender::start(&place, &server, "send");
            arrived(&server, 1).await;
            assert_eq!(outbox.get(&id).await.unwrap().unwrap().state, MailState::Sending);
            sender.signal(Signal::KILL);
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            assert!(sent.maybe_sent, "{sent:?}");
            let got = server.messages();
            assert_eq!((got.len(), &got[0]["message_id"]), (2, &got[1]["message_id"]));
            senders.stop().await.unwrap();
        });
    }
}

#[test]
fn a_mail_whose_senders_die_is_parked_when_it_was_tried_as_often_as_may_be() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("attempts", "1").unwrap());
            server.rule("dot", "taken stall", Some(1));
            let id = put(&outbox, "ann@example.org", "a").await;
            let sender = Sender::start(&place, &server, "send");
            arrived(&server, 1).await;
            sender.signal(Signal::KILL);
            let senders = outbox.start(1).unwrap();
            let parked = until_state(&outbox, &id, MailState::Parked).await;
            assert!(parked.maybe_sent && parked.attempts == 1, "{parked:?}");
            senders.stop().await.unwrap();
            assert_eq!(server.messages().len(), 1);
        });
    }
}

#[test]
fn a_killed_sender_that_had_not_begun_leaves_no_doubt() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            // Whatever is said here: what was certainly not sent is sent.
            let outbox = open(&client, &mailer(&server, ""), quick().with("on_doubt", "park").unwrap());
            server.rule("rcpt", "stall", Some(1));
            let id = put(&outbox, "ann@example.org", "a").await;
            let sender = Sender::start(&place, &server, "park");
            let end = Instant::now() + PATIENCE;
            // The server tells by itself of messages only, not of commands.
            while !server.log().iter().any(|(_, command)| command.starts_with("rcpt")) {
                assert!(Instant::now() < end);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            sender.signal(Signal::KILL);
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            assert!(!sent.maybe_sent, "{sent:?}");
            assert_eq!(server.messages().len(), 1);
            senders.stop().await.unwrap();
        });
    }
}

#[test]
fn a_killed_sender_in_doubt_is_parked_where_that_is_wanted() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("on_doubt", "park").unwrap());
            server.rule("dot", "taken stall", Some(1));
            let id = put(&outbox, "ann@example.org", "a").await;
            let sender = Sender::start(&place, &server, "park");
            arrived(&server, 1).await;
            sender.signal(Signal::KILL);
            let senders: Senders = outbox.start(1).unwrap();
            until_state(&outbox, &id, MailState::Parked).await;
            senders.stop().await.unwrap();
            assert_eq!(server.messages().len(), 1);
        });
    }
}

#[test]
fn a_sender_whose_session_died_before_its_record_is_case_a_and_says_so_late() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            // Its reply comes when the second copy is there.
            server.rule("dot", "taken until 2", Some(1));
            let id = put(&outbox, "ann@example.org", "a").await;
            let sender = Sender::start(&place, &server, "send");
            arrived(&server, 1).await;
            sender.signal(Signal::STOP);
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            assert!(sent.maybe_sent && sent.late.is_empty(), "{sent:?}");
            sender.signal(Signal::CONT);
            let late = until(&outbox, &id, |mail| !mail.late.is_empty()).await;
            assert!(late.late[0].contains("ann@example.org") && late.state == MailState::Sent, "{late:?}");
            assert_eq!(server.messages().len(), 2);
            senders.stop().await.unwrap();
        });
    }
}

#[test]
fn a_sender_that_was_stopped_between_its_last_check_and_the_dot_is_case_c() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            let id = put(&outbox, "ann@example.org", "a").await;
            let sender = Sender::start_to_stop(&place, &server, "send");
            sender.stopped().await;
            assert_eq!(server.messages().len(), 0);
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            assert!(sent.maybe_sent && sent.late.is_empty(), "{sent:?}");
            sender.signal(Signal::CONT);
            let late = until(&outbox, &id, |mail| !mail.late.is_empty()).await;
            assert!(late.late[0].contains("ann@example.org") && late.state == MailState::Sent, "{late:?}");
            senders.stop().await.unwrap();
            let got = server.messages();
            assert_eq!((got.len(), &got[0]["message_id"]), (2, &got[1]["message_id"]));
        });
    }
}

#[test]
fn case_c_is_parked_where_that_is_wanted() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("on_doubt", "park").unwrap());
            let id = put(&outbox, "ann@example.org", "a").await;
            let sender = Sender::start_to_stop(&place, &server, "park");
            sender.stopped().await;
            let senders = outbox.start(1).unwrap();
            until_state(&outbox, &id, MailState::Parked).await;
            sender.signal(Signal::CONT);
            let late = until(&outbox, &id, |mail| !mail.late.is_empty()).await;
            assert!(late.state == MailState::Parked && late.maybe_sent, "{late:?}");
            senders.stop().await.unwrap();
            assert_eq!(server.messages().len(), 1);
        });
    }
}

#[test]
fn a_sender_that_was_stopped_before_the_dot_does_not_send_it_any_more() {
    for place in places(true) {
        with_server(|server| async move {
            // Who looks after others does so by a ttl of his own.
            let client = coord_core::connect(&place.with_ttl("5s")).await.unwrap();
            let outbox = open(&client, &mailer(&server, ""), quick());
            // It is so large that its end waits for the server, which does not read.
            server.rule("content", "stall", Some(1));
            let large = letter("ann@example.org").text(format!("{}\n", "x".repeat(900)).repeat(9_000));
            let id = outbox.enqueue(&large, key("a")).await.unwrap().id;
            let sender = Sender::start(&place, &server, "send");
            // In the midst of it, or the stall would be for who takes over.
            asked(&server, "data", 1).await;
            sender.signal(Signal::STOP);
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            assert_eq!(sent.attempts, 2, "the first one was in the midst of it");
            sender.signal(Signal::CONT);
            // It gives the connection up long before a step's time is over, since the mail is not its any more, and sends
            // the next one: nothing of the first came twice.
            senders.stop().await.unwrap();
            let next = put(&outbox, "bob@example.org", "b").await;
            until_state(&outbox, &next, MailState::Sent).await;
            assert_eq!(server.messages().len(), 2);
        });
    }
}

/// What a place has kept of an outbox, to be put back later.
enum Backup {
    File(Vec<u8>),
    Documents(Vec<(coord_core::table::Key, Document)>),
}

/// Where the mails are.
const TABLE: &str = "outbox";

impl Backup {
    /// Of a store that nobody uses any more; of a server, while it runs.
    async fn of(place: &Place) -> Self {
        if let Some(folder) = &place.folder {
            return Self::File(std::fs::read(folder.path().join("t.db")).unwrap());
        }
        let client = connect(place).await;
        let found = client.table(TABLE).unwrap().find((), FindOptions::default()).await.unwrap();
        client.close(PATIENCE).await.unwrap();
        Self::Documents(found.into_iter().map(|stored| (stored.key, stored.document)).collect())
    }

    async fn restore(&self, place: &Place) {
        match (self, &place.folder) {
            (Self::File(bytes), Some(folder)) => {
                for left in ["t.db-wal", "t.db-shm"] {
                    let _ = std::fs::remove_file(folder.path().join(left));
                }
                std::fs::write(folder.path().join("t.db"), bytes).unwrap();
            }
            (Self::Documents(documents), _) => {
                let client = connect(place).await;
                let table = client.table(TABLE).unwrap();
                for (key, document) in documents {
                    table.put(key.clone(), document.clone(), WriteOptions::default()).await.unwrap();
                }
                client.close(PATIENCE).await.unwrap();
            }
            (Self::File(_), None) => unreachable!("a file is in a folder"),
        }
    }
}

async fn send_all(place: &Place, server: &Smtp, id: &str) {
    let client = connect(place).await;
    let outbox = open(&client, &mailer(server, ""), quick());
    assert_eq!(outbox.get(id).await.unwrap().unwrap().state, MailState::Queued);
    let senders = outbox.start(1).unwrap();
    let sent = until_state(&outbox, id, MailState::Sent).await;
    // Nothing in the store knows of another copy.
    assert_eq!((sent.attempts, sent.maybe_sent), (1, false));
    senders.stop().await.unwrap();
    client.close(PATIENCE).await.unwrap();
}

#[test]
fn a_store_that_was_restored_to_an_earlier_state_is_case_d() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            let id = put(&outbox, "ann@example.org", "a").await;
            client.close(PATIENCE).await.unwrap();
            let backup = Backup::of(&place).await;
            send_all(&place, &server, &id).await;
            backup.restore(&place).await;
            send_all(&place, &server, &id).await;
            let got = server.messages();
            assert_eq!((got.len(), &got[0]["message_id"]), (2, &got[1]["message_id"]));
        });
    }
}

#[test]
fn a_key_that_was_purged_and_enqueued_again_is_case_d() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            let senders = outbox.start(1).unwrap();
            for message in [letter("ann@example.org"), letter("ann@example.org").message_id("own@example.org")] {
                for _ in 0..2 {
                    let enqueued = outbox.enqueue(&message, key("a")).await.unwrap();
                    assert!(enqueued.new);
                    until_state(&outbox, &enqueued.id, MailState::Sent).await;
                    assert_eq!(outbox.purge(Duration::ZERO).await.unwrap(), 1);
                }
            }
            senders.stop().await.unwrap();
            let got = server.messages();
            assert_eq!(got.len(), 4);
            // To the outbox it is another mail, unless it says itself which one it is.
            assert_ne!(got[0]["message_id"], got[1]["message_id"]);
            assert_eq!(got[2]["message_id"], got[3]["message_id"]);
        });
    }
}
