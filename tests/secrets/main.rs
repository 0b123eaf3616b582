//! A password is told to nobody but the server: not to a log of any level, not in an error, not by what is printed of
//! a client, and not in a record of the store. The same for a mail server's, also where that says it back.
//!
//! A program of its own, since it listens to every log of the process.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use coord_core::config::Options;
use coord_core::error::Code;
use coord_core::mail::{EnqueueOptions, MailState, Message, OutboxEvent, OutboxOptions};
use coord_tests::servers::{ReplicaSet, SetOptions, Smtp, SmtpOptions};
use futures::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};

const PASSWORD: &str = "pl41n-s3cret";
const WRONG: &str = "wr0ng-s3cret";
const MAIL: &str = "m41l-s3cret";
const PATIENCE: Duration = Duration::from_secs(60);

/// All that is logged, by anybody, at any level.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

impl Everything {
    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a text");
    }
}

impl tracing::Subscriber for Everything {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Fields(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(text, "\n{}", event.metadata().target()).expect("a text");
        event.record(&mut Fields(&mut text));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The login as AUTH PLAIN has it.
fn encoded() -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("\0shop\0{MAIL}"))
}

/// A message, and a mail of an outbox, by a server that refuses the login at first and says back what it was told.
async fn mail(client: &coord_core::Client, server: &Smtp, shown: &mut String) {
    let url = format!("smtp://shop:{MAIL}@127.0.0.1:{}?tls=none&sender=shop@example.org&retry_min=10ms", server.port());
    let mailer = client.mailer(&url).expect("a URL");
    for code in ["454", "535", "535"] {
        server.rule("auth", &format!("{code} not {MAIL}, nor {}", encoded()), Some(1));
    }
    let message = Message::new().to("ann@example.org").subject("Hello");
    let error = mailer.send(&message).await.expect_err("a refusal");
    assert_eq!(error.code(), Code::Unauthorized);
    write!(shown, "{mailer:?} {error:?} {error}").expect("a text");

    let options = [("poll", "50ms"), ("retry_min", "20ms")];
    let options =
        options.into_iter().try_fold(OutboxOptions::default(), |options, (key, value)| options.with(key, value));
    let outbox = client.outbox("letters", &mailer, options.expect("options")).expect("an outbox");
    let id = outbox.enqueue(&message, EnqueueOptions::default()).await.expect("a mail").id;
    let watch = outbox.watch();
    write!(shown, "{outbox:?} {:?}", watch.next().await.expect("a gap")).expect("a text");
    let senders = outbox.start(1).expect("a sender");
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.expect("it is sent").expect("an event");
        write!(shown, "{event:?}").expect("a text");
        if matches!(event, OutboxEvent::Mail(mail) if mail.id == id && mail.state == MailState::Sent) {
            break;
        }
    }
    assert!(shown.contains("***"), "the refusal is among what happened: {shown}");
    senders.stop().await.expect("stopped");
}

#[test]
fn a_password_is_told_to_nobody() {
    let Some(set) = ReplicaSet::with(SetOptions { auth: true, ..SetOptions::of(1) }) else { return };
    set.command(doc! { "createUser": "alice", "pwd": PASSWORD, "roles": [{ "role": "readWrite", "db": "coord" }] })
        .expect("a user");
    let login = SmtpOptions { login: Some(format!("shop:{MAIL}")), ..SmtpOptions::default() };
    let Some(server) = Smtp::start(&login) else { return };
    let logged = Everything::default();
    tracing::subscriber::set_global_default(logged.clone()).expect("the only subscriber");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let shown = runtime.block_on(async {
        let mut shown = String::new();
        let url = set.uri_as(&format!("alice:{PASSWORD}@"));
        let options = Options::parse(&url).expect("a URL");
        write!(shown, "{options:?} {}", options.location()).expect("a text");
        let client = coord_core::connect(&url).await.expect("the right password");
        let lock = client.lock("a").expect("a name");
        let held = lock.acquire().await.expect("a free lock");
        let contended = lock.try_acquire().await.expect_err("it is held");
        let infos = client.locks("").await.expect("a list");
        write!(shown, "{client:?} {lock:?} {held:?} {contended:?} {contended} {infos:?}").expect("a text");
        write!(shown, "{:?} {:?}", client.session(), client.stats()).expect("a text");
        held.release().await.expect("released");
        mail(&client, &server, &mut shown).await;
        client.close(PATIENCE).await.expect("closed");

        let error = coord_core::connect(&set.uri_as(&format!("alice:{WRONG}@"))).await.expect_err("a wrong password");
        assert_eq!(error.code(), Code::Unauthorized);
        write!(shown, "{error:?} {error}").expect("a text");
        for url in [
            format!("mongodb://alice:{WRONG}@"),
            format!("mongodb://alice:{WRONG}@h:port/"),
            format!("mongodb://alice:{WRONG}"),
        ] {
            let error = coord_core::connect(&url).await.expect_err("no URL");
            write!(shown, "{error:?} {error}").expect("a text");
        }

        let database = Client::with_uri_str(set.uri()).await.expect("a client").database("coord");
        for collection in database.list_collection_names().await.expect("names") {
            let all = database.collection::<Document>(&collection).find(doc! {}).await.expect("documents");
            for document in all.try_collect::<Vec<_>>().await.expect("documents") {
                write!(shown, "{document}").expect("a text");
            }
        }
        shown
    });
    let logged = logged.text();
    assert!(logged.contains("coord_core") && logged.contains("mongodb::"), "the test hears everybody");
    assert!(logged.contains("tried again"), "it hears of mails");
    for secret in [PASSWORD, WRONG, MAIL, &encoded()] {
        assert!(!shown.contains(secret), "it is shown: {shown}");
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "it is logged");
    }
}
