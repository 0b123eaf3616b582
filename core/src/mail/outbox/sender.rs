//! Senders: claim, send, record; and take over what the dead have left.
//!
//! Invariants:
//! - a claim carries the name of a session, and every later change of the mail is conditional on it; a dead session's
//!   name is cleared, so nothing of its process can change the mail any more;
//! - `sending` is acknowledged before anything of the message is sent, and the dot is not sent past the deadline of the
//!   session;
//! - what the server said is recorded until that is acknowledged, or the mail turns out to be somebody else's: then as
//!   `late`.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Document, doc};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::super::mime::Wire;
use super::super::report::{Recipient, Status};
use super::super::send::End;
use super::super::smtp::{Fate, Gate, Ledger, Reply};
use super::claim::mark_of;
use super::options::OnDoubt;
use super::record::{CLAIMED, MailState, Next, QUEUED, Record, SENDING, next, recipients_bson};
use super::{Inner, Outbox, Part};
use crate::driver::Watched;
use crate::error::{Code, Error, HolderState, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::session::SessionId;
use crate::session::Session;
use crate::store::documents::{Event, WatchOptions};
use crate::time::Timestamp;

/// The most mails that one process sends at a time.
pub(super) const MOST: usize = 32;

/// What sends an outbox's mails in this process. Dropping it, or [`Senders::stop`], ends it: what has begun is finished,
/// and nothing new is begun.
pub struct Senders {
    outbox: Outbox,
    shared: Arc<Shared>,
}

struct Shared {
    stopping: AtomicBool,
    /// How they have ended.
    ended: Watched<Option<Result<()>>>,
    inner: Arc<Inner>,
}

impl Senders {
    pub(super) fn start(outbox: Outbox, inner: Arc<Inner>, senders: usize) -> Self {
        let shared = Arc::new(Shared { stopping: AtomicBool::new(false), ended: Watched::new(None), inner });
        let env = shared.inner.core.setup().env.clone();
        let listening = env.spawn(listen(shared.inner.clone()));
        let working = shared.clone();
        env.spawn(async move {
            work(&working, senders).await;
            listening.abort();
            // A client that is being closed takes no more records, so that a reply may be missing among them.
            let inner = &working.inner;
            working.ended.replace(Some(inner.mailer.check_open().and_then(|()| inner.core.check_open())));
        });
        Self { outbox, shared }
    }

    /// Begins nothing new, and waits until what has begun is finished and recorded.
    ///
    /// # Errors
    /// `Closed` if the mailer or the client was closed before: then they had ended without it, and the mails wait in the
    /// outbox for other senders; what was being sent when the client was closed may not be recorded, and counts as that of
    /// a sender that died. They have ended also then. `Forked`.
    pub async fn stop(&self) -> Result<()> {
        self.shared.stop();
        let shared = self.shared.clone();
        self.outbox
            .inner
            .core
            .drive(async move {
                shared.ended.wait_for(Option::is_some).await;
                shared.ended.get().unwrap_or(Ok(()))
            })
            .await
    }

    /// The outbox whose mails they send.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl Shared {
    fn stop(&self) {
        self.stopping.store(true, SeqCst);
        self.inner.news.notify_one();
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        if crate::driver::Runtime::is_ours() {
            self.shared.stop();
        }
    }
}

impl fmt::Debug for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Senders({})", self.outbox.inner.name)
    }
}

/// Wakes the senders when a mail is to be sent, whoever has enqueued it. Polling finds what is missed here.
async fn listen(inner: Arc<Inner>) {
    loop {
        let watched = async { inner.documents()?.watch(&inner.table, WatchOptions::default()).await };
        if let Ok(mut changes) = watched.await {
            while let Some(Ok(event)) = changes.next().await {
                let queued = |document: &Document| document.get_str("st").is_ok_and(|state| state == QUEUED);
                match event {
                    Event::Change(change) if !change.document.as_ref().is_some_and(queued) => {}
                    Event::Progress(_) => {}
                    _ => inner.news.notify_one(),
                }
            }
        }
        if inner.core.check_open().is_err() {
            return;
        }
        inner.core.setup().env.sleep(LISTEN_AGAIN).await;
    }
}

/// How long after the stream of changes has ended it is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

async fn work(shared: &Shared, senders: usize) {
    let inner = &shared.inner;
    let env = inner.core.setup().env.clone();
    let mut running = FuturesUnordered::new();
    let mut indexed = false;
    let mut sweep_at = Timestamp::ZERO;
    let mut claims = 0;
    let mut ahead = VecDeque::new();
    while !shared.stopping.load(SeqCst) {
        if let Err(error) = inner.mailer.check_open() {
            tracing::warn!(outbox = %inner.name, %error, "the senders of an outbox end; its mails wait for others");
            break;
        }
        let Ok(session) = inner.core.live_session().await else { break };
        if !indexed {
            indexed = logged("an index of the outbox", inner.ensure_indexes().await).is_some();
        }
        if env.now() >= sweep_at {
            logged("looking after the outbox", inner.sweep(&session).await);
            sweep_at = env.now() + inner.options.poll;
        }
        let mut hungry = false;
        let full = inner.full.after(env.now());
        if running.len() < senders && full.is_none() {
            claims += 1;
            let by = format!("{}/{}/{claims}", session.id(), inner.stamp());
            let claimed = inner.claim(&session, &by, senders - running.len(), &mut ahead).await;
            for (record, mark) in logged("choosing mails to send", claimed).unwrap_or_default() {
                let (inner, session) = (inner.clone(), session.clone());
                running.push(async move {
                    let _mark = mark;
                    inner.deliver(&session, record).await;
                });
                hungry = true;
            }
        }
        if hungry && running.len() < senders {
            continue;
        }
        let poll = env.now() + inner.options.poll;
        let news = inner.news.notified();
        tokio::select! {
            biased;
            Some(()) = running.next() => {}
            () = news => {}
            () = env.sleep_until(full.map_or(poll, |end| end.min(poll))) => {}
        }
    }
    while running.next().await.is_some() {}
}

fn logged<T>(what: &str, result: Result<T>) -> Option<T> {
    result.map_err(|error| tracing::warn!(%error, "{what} failed; it is tried again")).ok()
}

impl Inner {
    /// Sends one claimed mail, and records what became of it.
    async fn deliver(self: &Arc<Self>, session: &Arc<Session>, record: Record) {
        let by = doc! { "_id": &record.document_id, "by": &record.by };
        match self.attempt(session, &record).await {
            Ok(Attempted::Later { due, why }) => {
                let back = |now: i64| {
                    let due = due.unwrap_or(now + RETRY_MS);
                    doc! { "st": QUEUED, "by": "", "sid": "", "due": due, "last": &why }
                };
                self.record_until_known(&record, by, back, None).await;
            }
            Ok(Attempted::TooLate) => self.record_until_known(&record, by, expired, None).await,
            Ok(Attempted::Done { recipients, attempts, text }) => {
                let last = attempts >= self.options.attempts;
                let Next { state, maybe } = next(&recipients, self.options.on_doubt == OnDoubt::Park, last);
                let pause = self.core.setup().env.jittered(self.options.pause(attempts));
                let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                let outcome = |now: i64| {
                    let mut fields = doc! {
                        "st": state.name(), "by": "", "sid": "", "att": i64::from(attempts),
                        "due": now.saturating_add(pause), "to": recipients_bson(&recipients), "last": &text,
                        "maybe": maybe || record.mail.maybe_sent, "again": false,
                    };
                    if state.is_final() {
                        fields.insert("done", now);
                        if state == MailState::Sent {
                            fields.insert("msg", "");
                        }
                    }
                    fields
                };
                let accepted = recipients.iter().any(|one| one.status == Status::Accepted);
                self.record_until_known(&record, by, outcome, accepted.then_some(&recipients)).await;
            }
            Err(error) => {
                let failed = |now: i64| {
                    doc! {
                        "st": MailState::Failed.name(), "by": "", "sid": "", "done": now, "last": error.message(),
                    }
                };
                self.record_until_known(&record, by, failed, None).await;
            }
        }
    }

    /// One attempt to send.
    ///
    /// # Errors
    /// What no attempt can change: the mail has failed.
    async fn attempt(self: &Arc<Self>, session: &Arc<Session>, record: &Record) -> Result<Attempted> {
        // Its time may have ended since somebody looked for such.
        match self.now().await {
            Ok(now) if record.mail.expires_ms.is_some_and(|expires| expires <= now) => return Ok(Attempted::TooLate),
            Ok(_) => {}
            Err(error) => return Ok(Attempted::Later { due: None, why: error.message().to_owned() }),
        }
        let json = record
            .message
            .clone()
            .ok_or_else(|| Error::new(Code::CorruptState, "the mail's message is gone from the outbox"))?;
        if let Err(error) = self.mailer.check_open() {
            return Ok(Attempted::unsent(record, &error));
        }
        let wire = self.mailer.encode_complete(json).await?;
        let mut ledger = Ledger::new(wire.recipients.len());
        settle(&mut ledger, &wire, record);
        let open = wire.recipients.iter().zip(&ledger.fates).filter(|(_, fate)| **fate == Fate::Open);
        let domains: BTreeSet<String> = open.map(|(mailbox, _)| mailbox.domain().to_ascii_lowercase()).collect();
        let later = |error: &Error| Attempted::Later { due: None, why: error.message().to_owned() };
        match self.count(&domains).await {
            Ok(None) => {}
            Ok(Some(due)) => return Ok(Attempted::Later { due: Some(due), why: "held back by a rate limit".into() }),
            Err(error) => return Ok(later(&error)),
        }
        // A renewal gives a little less than that; while the message is sent, the session is renewed on.
        let timing = session.timing();
        let limit = self.mailer.timeout().min((timing.ttl - timing.margin) / 2);
        if let Err(error) = session.ensure(limit).await {
            return Ok(later(&error));
        }
        let attempts = record.mail.attempts + 1;
        let gate =
            Marking { inner: self.clone(), session: session.clone(), record, attempts, failure: Mutex::new(None) };
        let end = End::new(&self.core.setup().env, self.mailer.timeout(), None);
        let outcome = self.mailer.attempt(&wire, &mut ledger, &gate, &end).await;
        let failure = gate.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            // Nothing was sent, since the gate stayed shut.
            return Ok(later(&error));
        }
        if let Err(error) = &outcome
            && error.code() == Code::Closed
        {
            return Ok(Attempted::unsent(record, error));
        }
        let recipients: Vec<Recipient> = wire
            .recipients
            .iter()
            .zip(&ledger.fates)
            .map(|(mailbox, fate)| fate.recipient(mailbox.address()))
            .collect();
        let text = match outcome {
            Ok(None) => String::new(),
            Ok(Some(error)) => error.message().to_owned(),
            // Also where this server will never do it: a person can set that right in the meantime.
            Err(error) => error.message().to_owned(),
        };
        Ok(Attempted::Done { recipients, attempts, text })
    }

    /// Writes a mail's next state, as of the store's date, until the store has acknowledged it, or the mail is somebody
    /// else's; then what was found out is kept as `late`.
    async fn record_until_known(
        &self,
        record: &Record,
        mut by: Document,
        fields: impl Fn(i64) -> Document,
        accepted: Option<&Vec<Recipient>>,
    ) {
        let env = self.core.setup().env.clone();
        let stamp = self.stamp();
        by.insert("st", doc! { "$in": Self::with_a_sender() });
        loop {
            let written = async {
                let mut fields = fields(self.now().await?);
                fields.insert("stamp", &stamp);
                failpoints::at(Point::MailRecord);
                self.update(by.clone(), doc! { "$set": fields }).await
            };
            let error = match written.await {
                Ok(1..) => {
                    failpoints::at(Point::MailRecorded);
                    return;
                }
                Ok(0) => match self.read(&record.document_id).await {
                    Ok(Some(found)) if found.stamp == stamp => return,
                    Ok(None) => return,
                    Ok(Some(found)) => {
                        tracing::warn!(mail = record.mail.id, state = found.stored_state, "a mail was taken over");
                        let Some(recipients) = accepted else { return };
                        match self.push_late(record, recipients).await {
                            Ok(()) => return,
                            Err(error) => error,
                        }
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if self.core.check_open().is_err() {
                return;
            }
            tracing::warn!(%error, mail = record.mail.id, "what became of a mail is not recorded yet");
            env.sleep(super::PAUSE).await;
        }
    }

    async fn push_late(&self, record: &Record, recipients: &[Recipient]) -> Result<()> {
        let taken: Vec<_> =
            recipients.iter().filter(|one| one.status == Status::Accepted).map(|one| &*one.address).collect();
        let text = format!("{} sent a copy to {}", record.by, taken.join(", "));
        let push = doc! { "$addToSet": { "late": text }, "$set": { "maybe": true } };
        self.update(doc! { "_id": &record.document_id }, push).await.map(|_| ())
    }

    /// Marks what is too late, takes over from the dead, and finds what this client has claimed without knowing it.
    async fn sweep(&self, session: &Arc<Session>) -> Result<()> {
        self.forget_rates().await?;
        let now = self.now().await?;
        let too_late = doc! {
            "box": self.name.as_str(), "st": QUEUED, "exp": { "$gt": 0_i64, "$lte": now },
        };
        self.update(too_late, doc! { "$set": expired(now) }).await?;
        let (mut senders, mut after) = (BTreeSet::new(), String::new());
        loop {
            let filter = doc! {
                "box": self.name.as_str(), "st": { "$in": Self::with_a_sender() }, "_id": { "$gt": after },
            };
            let held = self.find(filter, doc! { "_id": 1 }, SWEPT, Part::State).await?;
            for record in &held {
                if record.mail.sender != session.id().to_string() {
                    senders.insert(record.mail.sender.clone());
                } else if record.stored_state == CLAIMED
                    && !self.core.mails().has(&mark_of(&record.by, &record.document_id))
                {
                    self.give_back(doc! { "_id": &record.document_id, "by": &record.by }).await?;
                }
            }
            match held.last() {
                Some(last) if held.len() as u64 == SWEPT => after = last.document_id.clone(),
                _ => break,
            }
        }
        for sender in senders {
            if self.is_dead(session, &sender).await? && !mutants::on(Mutant::MailsStay) {
                tracing::info!(session = sender, "taking over the mails of a sender that died");
                self.take_over(&sender).await?;
            }
        }
        Ok(())
    }

    /// Whether a sender can do nothing any more: its session is dead, or was never one.
    async fn is_dead(&self, session: &Arc<Session>, sender: &str) -> Result<bool> {
        let Ok(id) = sender.parse::<SessionId>() else { return Ok(true) };
        Ok(session.look_at(id).await?.1 == HolderState::Dead)
    }

    async fn give_back(&self, mut filter: Document) -> Result<()> {
        filter.insert("st", CLAIMED);
        let back = doc! { "$set": { "st": QUEUED, "by": "", "sid": "" } };
        self.update(filter, back).await.map(|_| ())
    }

    async fn take_over(&self, sender: &str) -> Result<()> {
        self.give_back(doc! { "box": self.name.as_str(), "sid": sender }).await?;
        failpoints::at(Point::MailsGivenBack);
        let due = self.now().await?;
        let last = "its sender died, and may have sent it";
        let maybe = !mutants::on(Mutant::MailDoubtForgotten);
        let doubt = |state: MailState| {
            doc! { "$set": { "st": state.name(), "by": "", "sid": "", "maybe": maybe, "due": due, "last": last } }
        };
        let in_doubt = doc! { "box": self.name.as_str(), "sid": sender, "st": SENDING };
        if self.options.on_doubt == OnDoubt::Send {
            let mut again = in_doubt.clone();
            again.insert("att", doc! { "$lt": i64::from(self.options.attempts) });
            self.update(again, doubt(MailState::Queued)).await?;
        }
        // Also what was tried as often as may be: a mail whose senders die of it is not sent for ever.
        self.update(in_doubt, doubt(MailState::Parked)).await?;
        failpoints::at(Point::MailsTakenOver);
        Ok(())
    }
}

/// What came of an attempt.
enum Attempted {
    /// Nothing was sent, and its time is over.
    TooLate,
    /// Nothing was sent: to be looked at again at this moment, or soon.
    Later {
        due: Option<i64>,
        why: String,
    },
    Done {
        recipients: Vec<Recipient>,
        attempts: u32,
        text: String,
    },
}

impl Attempted {
    /// The mailer is closed, so that another's senders are to send it: it is due as before.
    fn unsent(record: &Record, error: &Error) -> Self {
        Self::Later { due: Some(record.mail.due_ms), why: error.message().to_owned() }
    }
}

/// What becomes of a mail whose time is over.
fn expired(now: i64) -> Document {
    doc! { "st": MailState::Expired.name(), "by": "", "sid": "", "done": now, "msg": "" }
}

/// Those who have the message are not sent to again, nor are those who were refused it for good, unless a person wants it.
fn settle(ledger: &mut Ledger, wire: &Wire, record: &Record) {
    for (mailbox, fate) in wire.recipients.iter().zip(&mut ledger.fates) {
        let known = record.mail.recipients.iter().find(|one| one.address == mailbox.address());
        let Some(one) = known else { continue };
        let reply = Reply { code: one.code, text: one.text.clone() };
        match one.status {
            Status::Accepted => *fate = Fate::Accepted(reply),
            Status::Rejected if one.permanent && !record.again => *fate = Fate::Refused { reply, permanent: true },
            _ => {}
        }
    }
}

/// The gate of a claimed mail: writes `sending` before anything of it is sent.
struct Marking<'a> {
    inner: Arc<Inner>,
    session: Arc<Session>,
    record: &'a Record,
    attempts: u32,
    /// Why it stayed shut.
    failure: Mutex<Option<Error>>,
}

impl Marking<'_> {
    async fn mark(&self) -> Result<()> {
        if !self.session.is_live() {
            return Err(Error::unavailable("the session that sends could not be renewed in time"));
        }
        // Its turn at the mailer may have come late.
        if let Some(expires) = self.record.mail.expires_ms
            && expires <= self.inner.now().await?
        {
            return Err(Error::new(Code::Timeout, "its time was over when its turn came"));
        }
        let mine = doc! { "_id": &self.record.document_id, "by": &self.record.by, "st": CLAIMED };
        let mark = doc! { "$set": { "st": SENDING, "att": i64::from(self.attempts) } };
        failpoints::at(Point::MailMark);
        let marked = self.inner.update(mine, mark).await;
        failpoints::at(Point::MailMarked);
        if matches!(marked, Ok(1..)) {
            return Ok(());
        }
        // Taken from us, or written by a request whose answer was lost.
        let found = self.inner.read(&self.record.document_id).await?;
        if found.is_some_and(|found| found.by == self.record.by && found.stored_state == SENDING) {
            return Ok(());
        }
        marked?;
        Err(Error::new(Code::Conflict, "the mail is no longer this sender's"))
    }
}

impl Gate for Marking<'_> {
    fn open(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let marked = self.mark().await;
            if let Err(error) = &marked {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            }
            marked
        }
        .boxed()
    }

    fn until(&self) -> Option<Timestamp> {
        Some(self.session.deadline())
    }
}

/// How soon a mail is looked at again that the store kept from being sent.
const RETRY_MS: i64 = 500;
/// How many mails with a sender a sweep reads at once.
const SWEPT: u64 = 1_000;
