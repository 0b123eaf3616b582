//! The outbox, on every store: what is enqueued arrives; and each case in which a second copy can, as the documentation
//! lists them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coord_core::env::Env;
use coord_core::mail::{
    EnqueueOptions, Mail, MailState, Mailer, Message, Outbox, OutboxEvent, OutboxOptions, Senders, Status,
};
use coord_core::store::mongodb::MongoStore;
use coord_core::time::{Clock, Timestamp, WallTime};
use coord_core::{Client, Code, Options};
use coord_tests::servers::scratch::Scratch;
use coord_tests::servers::{self, Smtp, process};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{PATIENCE, mailer, with_server};

/// A store of the test's own: its URL, and what keeps it there.
pub(crate) struct Place {
    pub(crate) url: String,
    _folder: Option<Scratch>,
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("m{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn places(shared: bool) -> Vec<Place> {
    let folder = Scratch::new().unwrap();
    let sqlite = format!("sqlite:///{}/t.db", folder.path().display());
    let mut places = vec![Place { url: sqlite, _folder: Some(folder) }];
    if !shared {
        places.push(Place { url: format!("memory:{}", unique()), _folder: None });
    }
    if let Ok(uri) = std::env::var(servers::URI_VARIABLE) {
        let separator = if uri.contains('?') { '&' } else { '?' };
        places.push(Place { url: format!("{uri}{separator}coord.prefix={}_", unique()), _folder: None });
    }
    places
}

async fn connect(place: &Place) -> Client {
    coord_core::connect(&place.url).await.unwrap()
}

fn quick() -> OutboxOptions {
    let options = OutboxOptions::default();
    [("poll", "50ms"), ("retry_min", "20ms"), ("retry_max", "50ms")]
        .into_iter()
        .fold(options, |options, (key, value)| options.with(key, value).unwrap())
}

fn open(client: &Client, mailer: &Mailer, options: OutboxOptions) -> Outbox {
    client.outbox("letters", mailer, options).unwrap()
}

fn key(key: &str) -> EnqueueOptions {
    EnqueueOptions { key: Some(key.to_owned()), ..EnqueueOptions::default() }
}

fn letter(to: &str) -> Message {
    Message::new().to(to).subject("Hello").text("Hello.")
}

async fn put(outbox: &Outbox, to: &str, name: &str) -> String {
    let enqueued = outbox.enqueue(&letter(to), key(name)).await.unwrap();
    assert!(enqueued.new);
    enqueued.id
}

async fn until(outbox: &Outbox, id: &str, what: impl Fn(&Mail) -> bool) -> Mail {
    let end = Instant::now() + PATIENCE;
    loop {
        let mail = outbox.get(id).await.unwrap().expect("the mail is there");
        if what(&mail) {
            return mail;
        }
        assert!(Instant::now() < end, "still {mail:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_state(outbox: &Outbox, id: &str, state: MailState) -> Mail {
    until(outbox, id, |mail| mail.state == state).await
}

/// Waits in a thread, so that the test's own runtime goes on.
async fn arrived(server: &Smtp, count: usize) -> usize {
    let end = Instant::now() + PATIENCE;
    while server.messages().len() < count {
        assert!(Instant::now() < end, "only {} of {count} have arrived", server.messages().len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.messages().len()
}

#[test]
fn what_is_enqueued_is_sent_once_per_key() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            let watch = outbox.watch();
            assert_eq!(watch.next().await.unwrap(), OutboxEvent::Gap);
            let first = outbox.enqueue(&letter("ann@example.org"), key("a")).await.unwrap();
            let again = outbox.enqueue(&letter("bob@example.org"), key("a")).await.unwrap();
            assert!(first.new && !again.new && first.id == again.id);
            let waiting = outbox.get(&first.id).await.unwrap().unwrap();
            assert_eq!((waiting.state, waiting.key.as_str(), waiting.attempts), (MailState::Queued, "a", 0));
            let senders = outbox.start(2).unwrap();
            let sent = until_state(&outbox, &first.id, MailState::Sent).await;
            assert_eq!(sent.recipients[0].address, "ann@example.org");
            assert_eq!((sent.recipients[0].status, sent.attempts), (Status::Accepted, 1));
            assert!(!sent.maybe_sent && sent.finished_ms.is_some() && sent.sender.is_empty());
            let other = put(&outbox, "eve@example.org", "b").await;
            until_state(&outbox, &other, MailState::Sent).await;
            senders.stop().await.unwrap();
            let got = server.messages();
            assert_eq!(got.len(), 2);
            assert_eq!(got[0]["message_id"], json!(sent.message_id));
            assert_eq!(got[0]["text"], json!("Hello.\r\n"));
            let stats = outbox.stats().await.unwrap();
            assert_eq!((stats.of(MailState::Sent), stats.of(MailState::Queued)), (2, 0));
            assert_eq!(outbox.list(Some(MailState::Sent), 10).await.unwrap().len(), 2);
            assert_eq!(outbox.list(None, 1).await.unwrap().len(), 1);
            let mut states = Vec::new();
            while states.last() != Some(&MailState::Sent) {
                let OutboxEvent::Mail(mail) = watch.next().await.unwrap() else { panic!("a mail") };
                if mail.id == other {
                    states.push(mail.state);
                }
            }
            // A store that shows the document as it is now may show a later state.
            assert!(states.len() >= 2, "{states:?}");
            assert_eq!(outbox.purge(Duration::ZERO).await.unwrap(), 2);
            assert!(outbox.enqueue(&letter("ann@example.org"), key("a")).await.unwrap().new);
        });
    }
}

#[test]
fn a_mail_waits_for_its_time_and_not_beyond_it() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("attempts", "10000").unwrap());
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
            let at = |not_before: i64, expires: Option<i64>| EnqueueOptions {
                not_before_ms: Some(not_before),
                expires_ms: expires,
                ..EnqueueOptions::default()
            };
            let later = outbox.enqueue(&letter("a@example.org"), at(now + 3_600_000, None)).await.unwrap();
            let soon = outbox.enqueue(&letter("b@example.org"), at(now + 300, None)).await.unwrap();
            let error = outbox.enqueue(&letter("c@example.org"), at(now + 10, Some(now))).await.unwrap_err();
            assert!(error.message().starts_with("expires:"), "{error}");
            let over = outbox.enqueue(&letter("d@example.org"), at(now + 200, Some(now + 5_000))).await.unwrap();
            server.rule_for("rcpt", "d@", "450 later", None);
            let senders = outbox.start(1).unwrap();
            until_state(&outbox, &soon.id, MailState::Sent).await;
            until_state(&outbox, &over.id, MailState::Expired).await;
            until_state(&outbox, &later.id, MailState::Queued).await;
            outbox.cancel(&later.id).await.unwrap();
            assert_eq!(outbox.cancel(&later.id).await.unwrap_err().code(), Code::Conflict);
            assert_eq!(outbox.retry(&soon.id).await.unwrap_err().code(), Code::Conflict);
            assert_eq!(outbox.cancel("nobody").await.unwrap_err().code(), Code::NotFound);
            senders.stop().await.unwrap();
            assert_eq!(server.messages().len(), 1);
        });
    }
}

#[test]
fn results_are_per_recipient_and_only_the_temporary_is_tried_again() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick().with("attempts", "3").unwrap());
            server.rule_for("rcpt", "bob@", "550 5.1.1 never", None);
            server.rule_for("rcpt", "eve@", "450 4.2.1 later", Some(1));
            server.rule_for("rcpt", "joe@", "450 4.2.1 later", None);
            let message = letter("ann@example.org").cc("bob@example.org").cc("eve@example.org");
            let id = outbox.enqueue(&message, key("all")).await.unwrap().id;
            let failing = put(&outbox, "joe@example.org", "joe").await;
            let refused = put(&outbox, "bob@example.org", "bob").await;
            let senders = outbox.start(1).unwrap();
            let sent = until_state(&outbox, &id, MailState::Sent).await;
            let statuses: Vec<_> = sent.recipients.iter().map(|one| (one.status, one.code)).collect();
            assert_eq!(statuses, [(Status::Accepted, 250), (Status::Rejected, 550), (Status::Accepted, 250)]);
            assert_eq!(sent.attempts, 2);
            assert_eq!(until_state(&outbox, &failing, MailState::Failed).await.attempts, 3);
            assert_eq!(until_state(&outbox, &refused, MailState::Failed).await.attempts, 1);
            let to: Vec<_> = server.messages().iter().map(|one| one["rcpt"].to_string()).collect();
            assert_eq!(to, [r#"["ann@example.org"]"#, r#"["eve@example.org"]"#]);
            server.ask(&json!({"forget": true}));
            outbox.retry(&failing).await.unwrap();
            until_state(&outbox, &failing, MailState::Sent).await;
            senders.stop().await.unwrap();
        });
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

/// Another process that sends, with a session that is soon seen to be dead.
struct Sender(Child);

impl Sender {
    fn start(place: &Place, server: &Smtp, on_doubt: &str) -> Self {
        let separator = if place.url.contains('?') { '&' } else { '?' };
        let store = format!("{}{separator}coord.ttl=2s", place.url);
        let mail = format!("smtp://127.0.0.1:{}?tls=none&sender=shop@example.org", server.port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_mail-sender"));
        command.args([&store, &mail, "letters", on_doubt]).stdout(Stdio::piped());
        let mut child = process::spawn(command, Signal::KILL).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        process::signal(&self.0, signal).unwrap();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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
fn a_sender_that_was_stopped_after_its_last_check_is_case_c_and_says_so_late() {
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
fn a_sender_that_was_stopped_before_the_dot_does_not_send_it_any_more() {
    for place in places(true) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            // It is so large that its end waits for the server, which does not read.
            server.rule("content", "stall", Some(1));
            let large = letter("ann@example.org").attach(coord_core::mail::Attachment::bytes("x", vec![7; 6 << 20]));
            let id = outbox.enqueue(&large, key("a")).await.unwrap().id;
            let sender = Sender::start(&place, &server, "send");
            until_state(&outbox, &id, MailState::Sending).await;
            sender.signal(Signal::STOP);
            let senders = outbox.start(1).unwrap();
            until_state(&outbox, &id, MailState::Sent).await;
            sender.signal(Signal::CONT);
            // It gives the connection up, and sends the next one: nothing of the first came twice.
            senders.stop().await.unwrap();
            let next = put(&outbox, "bob@example.org", "b").await;
            until_state(&outbox, &next, MailState::Sent).await;
            assert_eq!(server.messages().len(), 2);
        });
    }
}

#[test]
fn two_replicas_send_each_mail_once() {
    for place in places(false) {
        with_server(|server| async move {
            let (one, two) = (connect(&place).await, connect(&place).await);
            let first = open(&one, &mailer(&server, ""), quick());
            let second = open(&two, &mailer(&server, ""), quick());
            let senders = [first.start(4).unwrap(), second.start(4).unwrap()];
            let mut ids = Vec::new();
            for n in 0..60 {
                ids.push(put(&first, &format!("r{n}@example.org"), &n.to_string()).await);
            }
            for id in &ids {
                let sent = until_state(&second, id, MailState::Sent).await;
                assert_eq!((sent.attempts, sent.maybe_sent), (1, false), "{sent:?}");
            }
            assert_eq!(server.messages().len(), 60);
            for one in senders {
                one.stop().await.unwrap();
            }
        });
    }
}

#[test]
fn rates_hold_across_replicas() {
    for place in places(false) {
        with_server(|server| async move {
            let (one, two) = (connect(&place).await, connect(&place).await);
            let options = || quick().with("per_domain_rate", "1/h").unwrap();
            let first = open(&one, &mailer(&server, ""), options());
            let second = open(&two, &mailer(&server, ""), options());
            let mut ids = Vec::new();
            for n in 0..4 {
                ids.push(put(&first, &format!("r{n}@example.org"), &n.to_string()).await);
            }
            let other = put(&first, "x@example.net", "other").await;
            let senders = [first.start(2).unwrap(), second.start(2).unwrap()];
            until_state(&first, &other, MailState::Sent).await;
            for id in &ids {
                until(&first, id, |mail| mail.state == MailState::Sent || mail.last.contains("rate limit")).await;
            }
            for one in senders {
                one.stop().await.unwrap();
            }
            // Two if the hour has just changed.
            let sent = first.stats().await.unwrap().of(MailState::Sent);
            assert!((2..=3).contains(&sent), "{sent} sent");
        });
    }
}

/// Two replicas whose clocks are two hours apart fill the same hour.
#[test]
fn rates_hold_though_clocks_differ() {
    let Some(uri) = servers::shared_uri() else { return };
    with_server(|server| async move {
        let prefix = format!("{}_", unique());
        let replica = async |behind_ms: i64| {
            let mut env = Env::system(tokio::runtime::Handle::current());
            env.clock = Arc::new(Behind(env.clock.clone(), behind_ms));
            let ttl = Duration::from_secs(30);
            let store = MongoStore::open(&uri, &prefix, 20, ttl, env.clone()).await.unwrap();
            Client::with_store(Arc::new(store), Options::parse(&uri).unwrap(), env).await.unwrap()
        };
        let (one, two) = (replica(0).await, replica(7_200_000).await);
        let options = || quick().with("rate", "1/h").unwrap();
        let (first, second) =
            (open(&one, &mailer(&server, ""), options()), open(&two, &mailer(&server, ""), options()));
        let ids = [put(&first, "ann@example.org", "a").await, put(&second, "ben@example.org", "b").await];
        let senders = [first.start(1).unwrap(), second.start(1).unwrap()];
        // Each has its turn: what the first was refused the second may try, and the other way round.
        let mut mails = Vec::new();
        for id in &ids {
            let ended = |mail: &Mail| mail.state == MailState::Sent || mail.last.contains("rate limit");
            mails.push(until(&first, id, ended).await);
        }
        let hour = |mail: &Mail| mail.created_ms / 3_600_000;
        if hour(&mails[0]) == hour(&mails[1]) {
            let held: Vec<_> = mails.iter().filter(|mail| mail.state != MailState::Sent).collect();
            assert_eq!(held.len(), 1, "{mails:?}");
            assert_eq!(hour(held[0]) + 1, held[0].due_ms / 3_600_000, "to be tried in the next hour: {mails:?}");
        }
        for one in senders {
            one.stop().await.unwrap();
        }
    });
}

/// The machine's clocks, with a date that is behind by so many milliseconds.
#[derive(Debug)]
struct Behind(Arc<dyn Clock>, i64);

impl Clock for Behind {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn wall(&self) -> WallTime {
        WallTime(self.0.wall().0 - self.1)
    }
}

#[test]
fn what_can_not_be_sent_by_this_mailer_fails_and_says_why() {
    for place in places(false) {
        with_server(|server| async move {
            let client = connect(&place).await;
            let outbox = open(&client, &mailer(&server, ""), quick());
            let error = outbox.enqueue(&Message::new(), EnqueueOptions::default()).await.unwrap_err();
            assert!(error.code() == Code::InvalidArgument && error.message().starts_with("to:"), "{error}");
            let id = outbox.enqueue(&letter("ann@example.org").text("x".repeat(9_000)), key("a")).await.unwrap().id;
            let small = open(&client, &mailer(&server, "&max_size=2000"), quick());
            let senders = small.start(1).unwrap();
            let failed = until_state(&outbox, &id, MailState::Failed).await;
            assert!(failed.last.contains("max_size"), "{failed:?}");
            senders.stop().await.unwrap();
        });
    }
}
