//! Outboxes on every store, and how their tests wait for what becomes of a mail.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coord_core::Client;
use coord_core::mail::{EnqueueOptions, Mail, MailState, Mailer, Message, Outbox, OutboxEvent, OutboxOptions};
use coord_tests::servers::scratch::Scratch;
use coord_tests::servers::{self, Smtp};

use crate::support::PATIENCE;

/// A store of the test's own: its URL, and what keeps it there.
pub(crate) struct Place {
    pub(crate) url: String,
    /// Where its file is, if it is one.
    pub(crate) folder: Option<Scratch>,
}

pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("m{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn places(shared: bool) -> Vec<Place> {
    let folder = Scratch::new().unwrap();
    let sqlite = format!("sqlite:///{}/t.db", folder.path().display());
    let mut places = vec![Place { url: sqlite, folder: Some(folder) }];
    if !shared {
        places.push(Place { url: format!("memory:{}", unique()), folder: None });
    }
    if let Some(uri) = servers::shared_uri() {
        let separator = if uri.contains('?') { '&' } else { '?' };
        places.push(Place { url: format!("{uri}{separator}coord.prefix={}_", unique()), folder: None });
    }
    places
}

impl Place {
    /// Its URL for a session with this ttl.
    pub(crate) fn with_ttl(&self, ttl: &str) -> String {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}coord.ttl={ttl}", self.url)
    }
}

pub(crate) async fn connect(place: &Place) -> Client {
    coord_core::connect(&place.url).await.unwrap()
}

pub(crate) fn quick() -> OutboxOptions {
    let options = OutboxOptions::default();
    [("poll", "50ms"), ("retry_min", "20ms"), ("retry_max", "50ms")]
        .into_iter()
        .fold(options, |options, (key, value)| options.with(key, value).unwrap())
}

pub(crate) fn open(client: &Client, mailer: &Mailer, options: OutboxOptions) -> Outbox {
    client.outbox("letters", mailer, options).unwrap()
}

pub(crate) fn key(key: &str) -> EnqueueOptions {
    EnqueueOptions { key: Some(key.to_owned()), ..EnqueueOptions::default() }
}

pub(crate) fn letter(to: &str) -> Message {
    Message::new().to(to).subject("Hello").text("Hello.")
}

pub(crate) async fn put(outbox: &Outbox, to: &str, name: &str) -> String {
    let enqueued = outbox.enqueue(&letter(to), key(name)).await.unwrap();
    assert!(enqueued.new);
    enqueued.id
}

pub(crate) async fn until(outbox: &Outbox, id: &str, what: impl Fn(&Mail) -> bool) -> Mail {
    let watch = outbox.watch();
    let mut last = None;
    let found = async {
        loop {
            let mail = match watch.next().await.unwrap() {
                OutboxEvent::Gap => outbox.get(id).await.unwrap().expect("the mail is there"),
                OutboxEvent::Mail(mail) if mail.id == id => *mail,
                OutboxEvent::Purged { id: purged } if purged == id => panic!("{id} was purged"),
                _ => continue,
            };
            if what(&mail) {
                return mail;
            }
            last = Some(mail);
        }
    };
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(found) => found,
        Err(_) => panic!("it was told of {last:?}, and finds {:?}", outbox.get(id).await),
    }
}

pub(crate) async fn until_state(outbox: &Outbox, id: &str, state: MailState) -> Mail {
    until(outbox, id, |mail| mail.state == state).await
}

/// Waits until the server was given this command so often, looking again and again as `arrived` does.
pub(crate) async fn asked(server: &Smtp, command: &str, times: usize) {
    let end = Instant::now() + PATIENCE;
    while server.log().iter().filter(|(_, said)| said == command).count() < times {
        assert!(Instant::now() < end, "nobody has said {command} {times} times: {:?}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Looks again and again: the server's own `wait` has no bound, and would keep the thread on which the test runs.
pub(crate) async fn arrived(server: &Smtp, count: usize) -> usize {
    let end = Instant::now() + PATIENCE;
    while server.messages().len() < count {
        assert!(Instant::now() < end, "only {} of {count} have arrived", server.messages().len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.messages().len()
}
