//! A store whose streams of changes break off and repeat what they told, as MongoDB's do, whose date cannot be had now and
//! then, and to which a step comes late: one in memory behind a stage.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bson::{Document, doc};
use coord_core::bson;
use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::election::LeaderEvent;
use coord_core::env::Env;
use coord_core::error::{Code, Error, Result};
use coord_core::mail::outbox::{EnqueueOptions, Mail, MailState, Outbox, OutboxEvent, OutboxOptions};
use coord_core::mail::{Mailer, Message};
use coord_core::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep};
use coord_core::protocol::document::{Action, Filter, TableName, Update, Write};
use coord_core::protocol::session::{SessionId, SessionRecord, SessionStep};
use coord_core::store::changes::Interest;
use coord_core::store::documents::{
    Aggregated, Change, Changes, Documents, Event, From, Index, ManyAction, ManyWritten, Query, Snapshot, WriteMany,
    Written,
};
use coord_core::store::memory::MemoryStore;
use coord_core::store::{Applied, Capabilities, ClaimQuery, Notices, SessionQuery, Store, changes, documents};
use coord_core::table::{Key, LogFrom, Operation, Position, WatchOptions, WriteOptions};
use coord_core::time::WallTime;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::{Notify, oneshot};

const BOUND: Duration = Duration::from_secs(30);

/// The date of the store, far from that of this machine.
const DATE: i64 = 5_000_000;

/// How long a write lasts that fails, by that date.
const LONG: i64 = 1_000_000;

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("an event within the bound")
}

#[derive(Debug)]
struct Staged {
    inner: MemoryStore,
    /// What the streams of changes tell that are opened next; then nothing more comes.
    streams: Mutex<VecDeque<Vec<Result<Event>>>>,
    /// From where each was opened.
    opened: Mutex<Vec<From>>,
    /// Whether the next questions for the date have an answer; those after these do.
    dates: Mutex<VecDeque<bool>>,
    /// The same from the moment at which mails are claimed.
    dates_then: Mutex<VecDeque<bool>>,
    /// What the date is.
    date: AtomicI64,
    /// How many writes of single documents fail, after a long time.
    slow: AtomicI64,
    /// How often the date was asked for.
    asked: AtomicI64,
    /// How often one has to ask for the answer to some questions.
    steps: AtomicI64,
    /// How often somebody has looked for mails that are due.
    looks: AtomicI64,
    /// To what date the mails are put off before the next that are claimed are.
    put_off: Mutex<Option<i64>>,
    /// Why the next writes of single documents are refused: nothing is written.
    refusals: Mutex<VecDeque<Code>>,
    /// The next attempt that would wait is kept until after its withdrawal.
    overtaken: Mutex<Option<oneshot::Sender<(ClaimKey, ClaimStep)>>>,
    /// Told when a step was refused.
    refused: Notify,
}

impl Staged {
    fn new(name: &str, streams: Vec<Vec<Result<Event>>>) -> Arc<Self> {
        let inner = MemoryStore::open(name, Env::system(tokio::runtime::Handle::current()));
        Arc::new(Self {
            inner,
            streams: Mutex::new(streams.into()),
            opened: Mutex::default(),
            dates: Mutex::default(),
            dates_then: Mutex::default(),
            date: DATE.into(),
            slow: 0.into(),
            asked: 0.into(),
            steps: 0.into(),
            looks: 0.into(),
            put_off: Mutex::default(),
            refusals: Mutex::default(),
            overtaken: Mutex::default(),
            refused: Notify::new(),
        })
    }

    async fn client(self: &Arc<Self>) -> Client {
        let env = Env::system(tokio::runtime::Handle::current());
        Client::with_store(self.clone(), Options::parse("memory:").unwrap(), env).await.unwrap()
    }

    fn documents(&self) -> &dyn Documents {
        self.inner.documents().unwrap()
    }

    fn steps(&self) -> impl Future<Output = ()> + use<> {
        let mut left = self.steps.load(SeqCst);
        std::future::poll_fn(move |context| {
            left -= 1;
            if left < 0 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

impl Store for Staged {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        self.inner.apply_session(id, step)
    }
    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        async move {
            if matches!(&step, ClaimStep::Step(step) if step.wait && !key.as_str().starts_with("keeper/")) {
                let kept = self.overtaken.lock().unwrap().take();
                if let Some(kept) = kept {
                    kept.send((key, step)).unwrap();
                    return std::future::pending().await;
                }
            }
            let applied = self.inner.apply_claim(key, step).await;
            if matches!(applied, Ok(None)) {
                self.refused.notify_one();
            }
            applied
        }
        .boxed()
    }
    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        self.steps().then(|()| self.inner.sessions(query)).boxed()
    }
    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        self.inner.claims(query)
    }
    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        self.inner.notices(id)
    }
    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<changes::Changes>> {
        self.inner.changes(interest)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn documents(&self) -> Option<&dyn Documents> {
        Some(self)
    }
    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

impl Documents for Staged {
    fn write(&self, table: &TableName, write: Write) -> BoxFuture<'_, Result<Written>> {
        if self.slow.fetch_sub(1, SeqCst) > 0 {
            self.date.fetch_add(LONG, SeqCst);
            return async { Err(Error::unavailable("nobody answers")) }.boxed();
        }
        if let Some(code) = self.refusals.lock().unwrap().pop_front() {
            return async move { Err(Error::new(code, "as the stage says")) }.boxed();
        }
        self.documents().write(table, write)
    }
    fn write_many(&self, table: &TableName, write: WriteMany) -> BoxFuture<'_, Result<ManyWritten>> {
        if format!("{:?}", write.action).contains("claimed") {
            *self.dates.lock().unwrap() = std::mem::take(&mut self.dates_then.lock().unwrap());
            let date = self.put_off.lock().unwrap().take();
            if let Some(date) = date {
                let update = Update::parse(doc! { "$set": { "due": date } }).unwrap();
                let action = ManyAction::Update(update);
                let all = WriteMany { filter: Filter::default(), action, fence: None, source: None };
                let table = table.clone();
                return async move {
                    self.documents().write_many(&table, all).await.unwrap();
                    self.documents().write_many(&table, write).await
                }
                .boxed();
            }
        }
        self.documents().write_many(table, write)
    }
    fn find(&self, table: &TableName, query: Query) -> BoxFuture<'_, Result<documents::Found>> {
        self.looks.fetch_add(i64::from(query.filter.document().contains_key("due")), SeqCst);
        self.documents().find(table, query)
    }
    fn count(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<u64>> {
        self.documents().count(table, filter)
    }
    fn date(&self) -> BoxFuture<'_, Result<WallTime>> {
        self.asked.fetch_add(1, SeqCst);
        let answer = match self.dates.lock().unwrap().pop_front() {
            Some(false) => Err(Error::unavailable("nobody knows the date")),
            _ => Ok(WallTime(self.date.load(SeqCst))),
        };
        async { answer }.boxed()
    }
    fn aggregate(&self, table: &TableName, pipeline: Vec<Document>) -> BoxFuture<'_, Result<Aggregated>> {
        self.documents().aggregate(table, pipeline)
    }
    fn snapshot(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<Snapshot>> {
        self.documents().snapshot(table, filter)
    }
    fn watch(&self, _: &TableName, options: documents::WatchOptions) -> BoxFuture<'_, Result<Changes>> {
        let told = self.streams.lock().unwrap().pop_front().unwrap_or_default();
        self.opened.lock().unwrap().push(options.from);
        self.steps().map(|()| Ok(stream::iter(told).chain(stream::pending()).boxed())).boxed()
    }
    fn ensure_indexes(&self, table: &TableName, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        self.documents().ensure_indexes(table, indexes)
    }
    fn configure(&self, table: &TableName, options: documents::TableOptions) -> BoxFuture<'_, Result<()>> {
        self.documents().configure(table, options)
    }
    fn drop_table(&self, table: &TableName) -> BoxFuture<'_, Result<()>> {
        self.documents().drop_table(table)
    }
}

/// A document of this key was made at this place, of which it is the last change or not.
fn made(key: i64, place: u64, last: bool) -> Result<Event> {
    Ok(Event::Change(Box::new(Change {
        key: Key::from(key),
        operation: Operation::Insert,
        document: Some(doc! { "_id": key }),
        previous: None,
        revision: None,
        position: Position(place),
        last,
        at: WallTime(DATE),
        source: None,
        changed: Vec::new(),
    })))
}

fn broken() -> Result<Event> {
    Err(Error::unavailable("the connection is lost"))
}

#[tokio::test]
async fn a_log_from_now_on_that_is_opened_anew_tells_nothing_from_before() {
    let store = Staged::new(
        "staged-now",
        vec![
            vec![Ok(Event::Gap(Position(10))), broken()],
            vec![made(1, 10, true), made(2, 11, true), Ok(Event::Gap(Position(20))), broken()],
            vec![made(3, 20, true), made(4, 21, true)],
        ],
    );
    let client = store.client().await;
    let log = client.table("t").unwrap().log(LogFrom::Now).await.unwrap();
    assert_eq!(bounded(log.next()).await.unwrap().key, Key::from(2), "the first one is from before");
    assert_eq!(bounded(log.next()).await.unwrap_err().code(), Code::Compacted);
    assert_eq!(bounded(log.next()).await.unwrap().key, Key::from(4), "so is what is older than what is missing");
    assert_eq!(*store.opened.lock().unwrap(), [From::Now, From::After(Position(10)), From::After(Position(20))]);
}

#[tokio::test]
async fn who_goes_on_from_the_first_of_several_changes_of_a_place_misses_none() {
    // What a stream of MongoDB's tells from any place up to 20 on.
    let told = || vec![made(1, 20, false), made(2, 20, false), made(3, 30, true)];
    let store = Staged::new("staged-transaction", vec![told(), told(), told(), told(), told(), told()]);
    let client = store.client().await;
    let table = client.table("t").unwrap();

    let mut position = Position(15);
    let mut keys = Vec::new();
    for _ in 0..3 {
        // Stops after each entry, and goes on from its place with the one that it has not seen.
        let log = table.log(LogFrom::After(position)).await.unwrap();
        let entry = loop {
            let entry = bounded(log.next()).await.unwrap();
            if !keys.contains(&entry.key) {
                break entry;
            }
        };
        keys.push(entry.key);
        position = entry.position;
    }
    assert_eq!(keys, [1, 2, 3].map(Key::from));
    assert_eq!(position, Position(30), "that is told whole");

    let (mut position, mut keys) = (Position(15), Vec::new());
    for _ in 0..3 {
        let watch = table.watch((), WatchOptions { from: Some(position), previous: false }).unwrap();
        loop {
            let delivery = bounded(watch.next()).await.unwrap();
            let place = delivery.position();
            let coord_core::table::TableEvent::Apply { key, .. } = delivery.take() else { panic!("a change") };
            if !keys.contains(&key) {
                keys.push(key);
                position = place;
                break;
            }
        }
    }
    assert_eq!(keys, [1, 2, 3].map(Key::from));
    assert_eq!(position, Position(30));
}

fn outbox(client: &Client, rate: Option<&str>) -> Outbox {
    let mailer = Mailer::open("smtp://127.0.0.1:9?sender=shop@example.org&tls=none").unwrap();
    let mut options = OutboxOptions::default();
    options.set("poll", "20ms").unwrap();
    if let Some(rate) = rate {
        options.set("rate", rate).unwrap();
    }
    client.outbox("o", &mailer, options).unwrap()
}

async fn until(outbox: &Outbox, id: &str, so: impl Fn(&Mail) -> bool) -> Mail {
    bounded(async {
        loop {
            let mail = outbox.get(id).await.unwrap().unwrap();
            if so(&mail) {
                return mail;
            }
            // The stage tells no changes of the outbox, so there is no event to wait for.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn the_date_of_this_machine_gets_into_no_mail() {
    let store = Staged::new("staged-date", Vec::new());
    let client = store.client().await;
    let outbox = outbox(&client, None);
    store.dates.lock().unwrap().push_back(false);
    let message = Message::new().to("a@example.org").subject("s").text("t");
    let refused = outbox.enqueue(&message, EnqueueOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let id = outbox.enqueue(&message, EnqueueOptions::default()).await.unwrap().id;
    let mail = outbox.get(&id).await.unwrap().unwrap();
    assert_eq!((mail.created_ms, mail.due_ms), (DATE, DATE));
    store.dates.lock().unwrap().push_back(false);
    assert_eq!(outbox.purge(Duration::ZERO).await.unwrap_err().code(), Code::Unavailable);

    // What becomes of a mail is recorded when the date is known again.
    let table = client.table("outbox").unwrap();
    let gone = table.update_many(doc! {}, doc! { "$set": { "msg": "" } }, WriteOptions::default()).await;
    assert_eq!(gone.unwrap().count, 1);
    *store.dates_then.lock().unwrap() = [true, false, false].into();
    let senders = outbox.start(1).unwrap();
    let mail = until(&outbox, &id, |mail| mail.state == MailState::Failed).await;
    assert!(store.dates.lock().unwrap().is_empty(), "it was asked for again");
    assert_eq!((mail.finished_ms, mail.due_ms), (Some(DATE), DATE));
    bounded(senders.stop()).await.unwrap();
}

#[tokio::test]
async fn a_mail_that_could_not_be_tried_comes_again_a_while_after_that_was_known() {
    let store = Staged::new("staged-later", Vec::new());
    let client = store.client().await;
    let outbox = outbox(&client, Some("1000/s"));
    let message = Message::new().to("a@example.org").subject("s").text("t");
    let id = outbox.enqueue(&message, EnqueueOptions::default()).await.unwrap().id;
    store.slow.store(1, SeqCst);
    let senders = outbox.start(1).unwrap();
    let mail = until(&outbox, &id, |mail| mail.due_ms != DATE).await;
    assert!((MailState::Queued, mail.attempts) == (mail.state, 0), "{mail:?}");
    assert!(mail.due_ms > DATE + LONG, "{mail:?}");
    bounded(senders.stop()).await.unwrap();
}

#[tokio::test]
async fn a_mail_is_in_the_outbox_only_if_it_was_acknowledged_or_found() {
    let store = Staged::new("staged-enqueue", Vec::new());
    let client = store.client().await;
    let outbox = outbox(&client, None);
    let enqueue = async |name: &str, refusals: &[Code]| {
        *store.refusals.lock().unwrap() = refusals.iter().copied().collect();
        let message = Message::new().to("a@example.org").subject("s").text("t");
        let options = EnqueueOptions { key: Some(name.to_owned()), ..EnqueueOptions::default() };
        outbox.enqueue(&message, options).await
    };
    // Written where no majority has it, so that it stands in its own way and is not found; then that is rolled back.
    let (nowhere, there) = (Code::Unavailable, Code::AlreadyExists);
    let first = enqueue("a", &[nowhere, there, there]).await.unwrap();
    assert!(first.new);
    assert_eq!(outbox.get(&first.id).await.unwrap().expect("it is there").key, "a");
    assert!(!enqueue("a", &[]).await.unwrap().new);
    // Another process's, which is not found either for as long as that is asked.
    assert_eq!(enqueue("b", &[there; 5]).await.unwrap_err().code(), Code::OutcomeUnknown);
    // What a later try is refused for says nothing about the first.
    let refused = Code::Forbidden;
    assert_eq!(enqueue("c", &[nowhere, refused]).await.unwrap_err().code(), Code::OutcomeUnknown);
    assert_eq!(enqueue("d", &[refused]).await.unwrap_err().code(), refused);
    assert!(store.refusals.lock().unwrap().is_empty());
}

#[tokio::test]
async fn not_every_claim_looks_through_all_mails_that_are_due() {
    const MAILS: usize = 100;
    let store = Staged::new("staged-ahead", Vec::new());
    let client = store.client().await;
    let outbox = outbox(&client, None);
    let message = Message::new().to("a@example.org").subject("s").text("t");
    for _ in 0..MAILS {
        outbox.enqueue(&message, EnqueueOptions::default()).await.unwrap();
    }
    // Without their messages they are not sent, but fail one after the other.
    let table = client.table("outbox").unwrap();
    table.update_many(doc! {}, doc! { "$set": { "msg": "" } }, WriteOptions::default()).await.unwrap();
    let senders = outbox.start(1).unwrap();
    bounded(async {
        while outbox.stats().await.unwrap().of(MailState::Failed) < MAILS as u64 {
            // The stage tells no changes of the outbox.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let looks = store.looks.load(SeqCst);
    assert!(looks < MAILS as i64 / 2, "{looks} times");
    bounded(senders.stop()).await.unwrap();
}

#[tokio::test]
async fn a_mail_that_was_put_off_before_it_was_claimed_is_not() {
    let store = Staged::new("staged-put-off", Vec::new());
    let client = store.client().await;
    let outbox = outbox(&client, None);
    let message = Message::new().to("a@example.org").subject("s").text("t");
    let id = outbox.enqueue(&message, EnqueueOptions::default()).await.unwrap().id;
    *store.put_off.lock().unwrap() = Some(DATE + LONG);
    let senders = outbox.start(1).unwrap();
    until(&outbox, &id, |mail| mail.due_ms == DATE + LONG).await;
    bounded(senders.stop()).await.unwrap();
    let mail = outbox.get(&id).await.unwrap().unwrap();
    assert_eq!((mail.state, mail.attempts, mail.last.as_str()), (MailState::Queued, 0, ""));
}

#[tokio::test]
async fn senders_whose_client_was_closed_say_so() {
    let store = Staged::new("staged-closed", Vec::new());
    let client = store.client().await;
    let senders = outbox(&client, None).start(1).unwrap();
    client.close(BOUND).await.unwrap();
    assert_eq!(bounded(senders.stop()).await.unwrap_err().code(), Code::Closed);
}

#[tokio::test]
async fn a_dead_sender_is_found_behind_all_those_that_live() {
    let store = Staged::new("staged-many", Vec::new());
    let client = store.client().await;
    let outbox = outbox(&client, None);
    let (table, own) = (TableName::parse("outbox").unwrap(), client.session().id.to_string());
    let put = async |id: &str, sender: &str| {
        let mail = doc! { "box": outbox.name().as_str(), "st": "sending", "by": "x", "sid": sender, "due": DATE };
        let key = Key::new(format!("{}/{id}", outbox.name())).unwrap();
        store.write(&table, Write::new(key, Action::Insert(mail))).await.unwrap();
    };
    for n in 0..1_000 {
        put(&n.to_string(), &own).await;
    }
    put("last", "dead").await;
    let senders = outbox.start(1).unwrap();
    until(&outbox, "last", |mail| mail.maybe_sent).await;
    assert_eq!(outbox.stats().await.unwrap().of(MailState::Sending), 1_000, "the others are let alone");
    bounded(senders.stop()).await.unwrap();
}

#[tokio::test]
async fn a_rate_that_is_used_up_is_not_asked_for_each_mail_that_waits() {
    let store = Staged::new("staged-rate", Vec::new());
    let client = store.client().await;
    let outbox = outbox(&client, Some("1/h"));
    let message = Message::new().to("a@example.org").subject("s").text("t");
    for _ in 0..50 {
        outbox.enqueue(&message, EnqueueOptions::default()).await.unwrap();
    }
    let held_back = async || {
        let mails = outbox.list(None, 50).await.unwrap();
        mails.iter().filter(|mail| mail.last.contains("rate limit")).count()
    };
    let senders = outbox.start(1).unwrap();
    bounded(async {
        while held_back().await == 0 {
            // The stage tells no changes of the outbox.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Each look and each mail asks for the date some times.
        let then = store.asked.load(SeqCst) + 60;
        while store.asked.load(SeqCst) < then {
            // The passing of looks is what is waited for.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(held_back().await, 1);
    bounded(senders.stop()).await.unwrap();
}

/// Calls `next` with no time at all, up to so many times.
async fn without_time<T, F: Future<Output = Result<T>>>(mut next: impl FnMut() -> F) -> Option<T> {
    for _ in 0..10 {
        if let Some(event) = next().now_or_never() {
            return Some(event.unwrap());
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn a_watch_of_an_outbox_opens_also_for_who_never_waits() {
    let store = Staged::new("staged-impatient", vec![vec![Ok(Event::Gap(Position(1)))]]);
    let client = store.client().await;
    let watch = outbox(&client, None).watch();
    store.steps.store(3, SeqCst);
    assert_eq!(without_time(|| watch.next()).await, Some(OutboxEvent::Gap));
    assert_eq!(store.opened.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_leader_is_described_also_to_who_never_waits() {
    let store = Staged::new("staged-leader", Vec::new());
    let (leader, other) = (store.client().await, store.client().await);
    let term = leader.election("e").unwrap().campaign("here").await.unwrap();
    let watch = other.election("e").unwrap().observe().await.unwrap();
    store.steps.store(3, SeqCst);
    let told = without_time(|| watch.next()).await;
    assert!(matches!(&told, Some(LeaderEvent::Leader(leader)) if leader.value.as_deref() == Some("here")), "{told:?}");
    store.steps.store(0, SeqCst);
    term.resign().await.unwrap();
}

#[tokio::test]
async fn an_acquire_that_comes_after_its_withdrawal_waits_for_nothing() {
    let store = Staged::new("staged-overtaken", Vec::new());
    let client = store.client().await;
    let lock = client.lock("l").unwrap();
    let held = lock.acquire().await.unwrap();
    let (sender, kept) = oneshot::channel();
    *store.overtaken.lock().unwrap() = Some(sender);
    let (key, step) = tokio::select! {
        _ = lock.acquire() => panic!("it is held"),
        kept = kept => kept.unwrap(),
    };
    bounded(store.refused.notified()).await;
    let view = store.inner.apply_claim(key, step).await.unwrap().unwrap();
    assert!(view.waiting, "{view:?}");
    bounded(async {
        while !client.lock_info("l").await.unwrap().unwrap().waiters.is_empty() {
            // Nobody is told of what becomes of an attempt that nobody knows.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    held.release().await.unwrap();
}
