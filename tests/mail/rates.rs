//! Rates of domains beside a long backlog, in memory, where a test moves the date: what is sent in each second, how often
//! mails are put back for that, and whom they keep waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_core::bson::doc;
use coord_core::mail::{Mail, MailState, Outbox, OutboxEvent, OutboxWatch};
use coord_core::table::WriteOptions;
use coord_core::testing::Control;
use coord_core::{Client, connect};

use crate::place::{open, put, quick, unique, until, until_state};
use crate::support::{PATIENCE, mailer, with_server};

const SECOND: Duration = Duration::from_secs(1);

/// A store whose date is a millisecond after the beginning of a second, so that what is enqueued then is due after what
/// has waited for that second.
async fn standing() -> (String, Client, Control) {
    let url = format!("memory:{}?coord.clock=manual", unique());
    let client = connect(&url).await.unwrap();
    let control = Control::of(&client).unwrap();
    let into = control.date().unwrap().0.rem_euclid(1_000).unsigned_abs();
    control.jump(Duration::from_millis(1_001 - into)).unwrap();
    (url, client, control)
}

/// What a watch tells of an outbox: how often a mail was put back, and when each was sent.
struct Told {
    watch: OutboxWatch,
    put_back: usize,
    sent: BTreeMap<String, i64>,
}

impl Told {
    async fn of(outbox: &Outbox) -> Self {
        let watch = outbox.watch();
        assert_eq!(watch.next().await.unwrap(), OutboxEvent::Gap);
        Self { watch, put_back: 0, sent: BTreeMap::new() }
    }

    async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        while !so(self) {
            let next = tokio::time::timeout(PATIENCE, self.watch.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{what}: {} put back, sent {:?}", self.put_back, self.sent));
            let OutboxEvent::Mail(mail) = next.unwrap() else { panic!("{what}: a mail") };
            match mail.state {
                MailState::Queued => self.put_back += usize::from(mail.sender.is_empty() && is_held(&mail)),
                MailState::Sent => {
                    self.sent.insert(mail.id, mail.finished_ms.unwrap());
                }
                _ => {}
            }
        }
    }
}

fn is_held(mail: &Mail) -> bool {
    mail.last.contains("rate limit")
}

/// Puts so many mails to one domain into the outbox.
async fn backlog(outbox: &Outbox, name: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(put(outbox, &format!("r{n}@example.org"), &format!("{name}{n}")).await);
    }
    ids
}

/// Moves the date by a second, and puts a mail to another domain into the outbox. That wakes the senders, too: the clock
/// stands still again, so a sender that has looked just before would sleep until it is moved once more.
async fn next_second(control: &Control, outbox: &Outbox) -> String {
    control.jump(SECOND).unwrap();
    put(outbox, "x@example.net", &format!("at {}", control.date().unwrap())).await
}

/// Those of these mails that are not sent, but held back.
async fn held(outbox: &Outbox, ids: &[String]) -> Vec<Mail> {
    let mut held = Vec::new();
    for id in ids {
        let mail = until(outbox, id, |mail| mail.state == MailState::Sent || is_held(mail)).await;
        held.extend((mail.state != MailState::Sent).then_some(mail));
    }
    held
}

#[test]
fn each_mail_of_a_backlog_is_put_back_about_once_and_others_do_not_wait_for_it() {
    with_server(|server| async move {
        let (url, one, control) = standing().await;
        let two = connect(&url).await.unwrap();
        let outbox =
            |client: &Client| open(client, &mailer(&server, ""), quick().with("per_domain_rate", "5/s").unwrap());
        let (first, second) = (outbox(&one), outbox(&two));
        let ids = backlog(&first, "a", 50).await;
        let mut told = Told::of(&first).await;
        let senders = [first.start(2).unwrap(), second.start(2).unwrap()];
        let sent = |told: &Told| ids.iter().filter(|id| told.sent.contains_key(*id)).count();
        for share in 1..=10 {
            told.until("its share", |told| sent(told) == 5 * share && told.put_back >= 45).await;
            if share < 10 {
                let before = told.put_back;
                let other = next_second(&control, &first).await;
                told.until("another domain", |told| told.sent.contains_key(&other)).await;
                assert!(told.put_back <= before + 5, "it has waited for {}", told.put_back - before);
            }
        }
        for one in senders {
            one.stop().await.unwrap();
        }
        assert_eq!(server.messages().len(), 50 + 9);
        assert!(told.put_back <= 60, "{} times", told.put_back);
        let mut seconds = BTreeMap::<i64, usize>::new();
        for id in &ids {
            *seconds.entry(told.sent[id] / 1_000).or_default() += 1;
        }
        assert!(seconds.values().all(|sent| *sent <= 5), "{seconds:?}");
    });
}

#[test]
fn places_that_nobody_takes_keep_nobody_waiting() {
    with_server(|server| async move {
        let (_, client, control) = standing().await;
        let outbox = open(&client, &mailer(&server, ""), quick().with("per_domain_rate", "5/s").unwrap());
        let senders = outbox.start(2).unwrap();
        let held = held(&outbox, &backlog(&outbox, "a", 50).await).await;
        assert_eq!(held.len(), 45);
        for mail in held {
            outbox.cancel(&mail.id).await.unwrap();
        }
        control.jump(SECOND).unwrap();
        for id in backlog(&outbox, "b", 5).await {
            until_state(&outbox, &id, MailState::Sent).await;
        }
        senders.stop().await.unwrap();
    });
}

/// Wherever a line was, and whatever the limit: a mail over it waits for the next second if no other does.
#[test]
fn a_line_begins_with_the_next_second_if_nobody_waits() {
    with_server(|server| async move {
        let (_, client, control) = standing().await;
        // In a second of its own: how long the one that is too many is to wait.
        let waits = async |name: &str, rate: &str, count: usize| {
            let outbox = open(&client, &mailer(&server, ""), quick().with("per_domain_rate", rate).unwrap());
            let senders = outbox.start(1).unwrap();
            let held = held(&outbox, &backlog(&outbox, name, count + 1).await).await;
            assert_eq!(held.len(), 1, "{name}: {held:?}");
            let wait = held[0].due_ms - control.date().unwrap().0;
            next_second(&control, &outbox).await;
            until_state(&outbox, &held[0].id, MailState::Sent).await;
            senders.stop().await.unwrap();
            control.jump(SECOND).unwrap();
            wait
        };
        assert_eq!(waits("new", "5/s", 5).await, 999);
        assert_eq!(waits("passed", "5/s", 5).await, 999);
        assert_eq!(waits("lowered", "1/s", 1).await, 999);
        assert_eq!(waits("raised", "5/s", 5).await, 999);
        // As if it had been used while the date was wrong by years. A window's own counter is small.
        let far = doc! { "$inc": { "n": 1_000_000_000_i64 } };
        let counters = client.table("outbox_rates").unwrap();
        let moved = counters.update_many(doc! { "n": { "$gt": 1_000 } }, far, WriteOptions::default()).await.unwrap();
        assert_eq!(moved.count, 2, "one line for each limit");
        assert_eq!(waits("far", "5/s", 5).await, 999);
    });
}
