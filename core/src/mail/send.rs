//! Sending: a message is checked as a whole, then tried until each recipient's fate is known, or time is up.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::Mailer;
use super::message::{Checked, Message};
use super::mime::{LIGHT, Wire};
use super::report::{Recipient, Report, Status};
use super::smtp::{Always, Failure, Fate, Gate, Ledger, Reply};
use crate::driver::{self, CancelToken, Runtime};
use crate::env::{Env, Task};
use crate::error::{Code, Error, Result};
use crate::time::{Timestamp, WallTime};

impl Mailer {
    /// Sends a message: the whole of it within the mailer's `timeout`, with what is temporary tried again in between.
    ///
    /// Returns what the server said about each recipient, also where it refused all of them: look at
    /// [`Report::all_accepted`]. Nothing is sent twice: once all of a message has left, a connection that breaks before
    /// the server has answered makes its outcome [`Status::Unknown`].
    ///
    /// Dropping the future drops the connection; whether the message was sent is then not known, nor to whom. Use
    /// [`Mailer::send_within`] to give up and be told.
    ///
    /// # Errors
    /// Those that are nobody's answer about a recipient. Before anything is sent: `InvalidArgument` that names the
    /// field. Nothing was sent: `Unavailable` (the server cannot be reached, or breaks off), `Timeout`, `Unauthorized`
    /// (the login, or the server's certificate), `Unsupported` (no encryption, login or SMTPUTF8 there), `Closed`.
    /// `OutcomeUnknown` when that is the outcome for everybody.
    pub async fn send(&self, message: &Message) -> Result<Report> {
        self.send_within(message, None, None).await
    }

    /// As [`Mailer::send`], within `limit` as well, and until `cancel` is fired. Whichever comes first, what is known then
    /// is returned: the report where the server has answered for somebody.
    ///
    /// # Errors
    /// As [`Mailer::send`]; `Cancelled`. `Timeout` and `Cancelled` say that nothing was sent: once all of the message has
    /// left, it is `OutcomeUnknown`.
    pub async fn send_within(
        &self,
        message: &Message,
        limit: Option<Duration>,
        cancel: Option<&CancelToken>,
    ) -> Result<Report> {
        let (mailer, message, cancel) = (self.clone(), message.clone(), cancel.cloned());
        self.drive(async move { mailer.send_now(message, limit, cancel).await }).await
    }

    async fn send_now(self, message: Message, limit: Option<Duration>, cancel: Option<CancelToken>) -> Result<Report> {
        self.check_open()?;
        if cancel.as_ref().is_some_and(CancelToken::is_fired) {
            return Err(driver::cancelled());
        }
        let limit = limit.map_or(self.0.options.timeout, |limit| limit.min(self.0.options.timeout));
        let end = End::new(&self.0.env, limit, cancel);
        let mut begun = Some(self.0.pool.begin()?);
        let wire = tokio::select! {
            biased;
            wire = self.encode(message) => wire?,
            why = end.comes(&self.0.env) => return Err(why),
        };
        let mut ledger = Ledger::new(wire.recipients.len());
        let mut attempts = 0;
        let outcome = {
            let mut sending = std::pin::pin!(self.attempt_all(&wire, &mut ledger, &mut attempts, &end));
            std::future::poll_fn(|context| {
                let polled = sending.as_mut().poll(context);
                // Its first step has asked for a connection.
                begun = None;
                polled
            })
            .await
        };
        report(&wire, &ledger, attempts, outcome)
    }

    /// Checks a message, reads its files, and gives it what it needs: an id, and a date.
    async fn encode(&self, message: Message) -> Result<Wire> {
        let draft = self.draft(&message)?;
        self.apart(message, |message| draft.wire(message)).await
    }

    /// The same of one that was made complete before, and waits for no files that others read.
    pub(super) async fn encode_complete(&self, json: String) -> Result<Wire> {
        if json.len() <= LIGHT {
            let message = Message::from_json(&json)?;
            return self.draft(&message)?.wire(message);
        }
        let message = self.on_a_thread(move || Message::from_json(&json)).await?;
        let draft = self.draft(&message)?;
        self.on_a_thread(move || draft.wire(message)).await
    }

    /// Makes a message complete, so that it is the same whoever sends it, and when: with a sender, an id and a date, and
    /// its files in it. Returns the id, and the message as JSON.
    pub(super) async fn complete(&self, mut message: Message) -> Result<(String, String)> {
        let draft = self.draft(&message)?;
        let id = draft.message_id.clone();
        message.from = Some(draft.checked.from.clone().into());
        message.reply_to = draft.checked.reply_to.iter().cloned().map(Into::into).collect();
        message.message_id = Some(id.clone());
        message.date_ms = Some(draft.date.0);
        let text = self.apart(message, |mut message| {
            message.load_files(draft.max_size)?;
            let text = message.to_json();
            // As it will be sent, so that what is too large is said now.
            draft.wire(message)?;
            Ok(text)
        });
        Ok((id, text.await?))
    }

    /// Checks a message, but for its files.
    fn draft(&self, message: &Message) -> Result<Draft> {
        let checked = message.check(&self.0.defaults)?;
        let message_id = match &checked.message_id {
            Some(id) => id.clone(),
            None => self.new_message_id(checked.from.domain()),
        };
        let date = message.date_ms.map_or_else(|| self.0.env.clock.wall(), WallTime);
        Ok(Draft { checked, message_id, date, max_size: self.0.options.max_size })
    }

    /// Does what reads and encodes a message: on a thread for blocking work, since a file may be on a network that hangs,
    /// and much takes long to encode; what is light, at once. Whoever drops the future does not wait for that thread, which
    /// counts as busy until it is done: so what hangs leaves threads to others.
    async fn apart<T: Send + 'static>(
        &self,
        message: Message,
        work: impl FnOnce(Message) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if message.is_light() {
            return work(message);
        }
        let turn = self.0.readers.clone().acquire_owned().await.map_err(|_| Error::closed("the mailer"))?;
        self.on_a_thread(move || {
            let _turn = turn;
            work(message)
        })
        .await
    }

    async fn on_a_thread<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let working = self.0.env.tasks.runtime().spawn_blocking(work);
        working.await.unwrap_or_else(|failure| match failure.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            Err(_) => Err(Error::closed("the runtime of this library")),
        })
    }

    /// An id that nobody else makes.
    fn new_message_id(&self, domain: &str) -> String {
        let rng = &self.0.env.rng;
        let domain = if domain.starts_with('[') { "localhost" } else { domain };
        format!("<{:016x}{:016x}@{domain}>", rng.bits(), rng.bits())
    }

    async fn attempt_all(&self, wire: &Wire, ledger: &mut Ledger, attempts: &mut u32, end: &End) -> Result<()> {
        let env = &self.0.env;
        let mut wait = self.0.options.retry_min;
        loop {
            ledger.reopen();
            *attempts += 1;
            let last = self.attempt(wire, ledger, &Always, end).await?;
            let again = ledger.fates.iter().any(Fate::may_retry);
            let pause = env.jittered(wait);
            // Not when the wait would use up what is left.
            if !again || *attempts > self.0.options.retries || env.now() + pause >= end.deadline {
                return last.map_or(Ok(()), Err);
            }
            tracing::debug!(attempt = *attempts, message_id = wire.message_id, "a message is tried again");
            tokio::select! {
                biased;
                () = env.sleep(pause) => {}
                why = end.comes(env) => return Err(why),
            }
            wait = (wait * 2).min(self.0.options.retry_max);
        }
    }

    /// Tries once to send to all whose fate is open. Every fate is settled then; the error that is returned inside is
    /// why nothing was sent, if that was no answer of the server's.
    ///
    /// # Errors
    /// What makes every further attempt useless.
    pub(super) async fn attempt(
        &self,
        wire: &Wire,
        ledger: &mut Ledger,
        gate: &dyn Gate,
        end: &End,
    ) -> Result<Option<Error>> {
        let outcome = {
            let mut attempt = std::pin::pin!(self.attempt_on_a_connection(wire, ledger, gate));
            tokio::select! {
                biased;
                outcome = &mut attempt => Ok(outcome),
                why = end.comes(&self.0.env) => Err(why),
            }
        };
        let (error, useless) = match outcome {
            Ok(Ok(())) => (None, false),
            Ok(Err(Failure::Fatal(error))) => (Some(error), true),
            Ok(Err(failure)) => (Some(failure.into_error()), false),
            Err(why) => (Some(why), true),
        };
        ledger.broken(error.as_ref().map_or("the dialogue ended too early", Error::message));
        match error {
            Some(error) if useless => Err(error),
            error => Ok(error),
        }
    }

    async fn attempt_on_a_connection(&self, wire: &Wire, ledger: &mut Ledger, gate: &dyn Gate) -> Result<(), Failure> {
        let pool = &self.0.pool;
        let permit = pool.permit().await.map_err(Failure::Fatal)?;
        let mut connection = pool.get(&permit).await?;
        loop {
            let used = connection.used;
            let left = connection.deliver(wire, ledger, gate, &self.0.options, &self.0.env).await;
            if let Some(connection) = left.map_err(Failure::Fatal)? {
                pool.put(connection);
                return Ok(());
            }
            // One that the server closed after the check: a new one, at once, if nothing was said on it.
            let untouched = ledger.fates.iter().all(|fate| matches!(fate, Fate::Failed(_)));
            if !(used && untouched) {
                return match ledger.fates.iter().find_map(|fate| match fate {
                    Fate::Failed(reply) => Some(reply.text.clone()),
                    _ => None,
                }) {
                    Some(text) => Err(Failure::Broken(text)),
                    None => Ok(()),
                };
            }
            ledger.reopen();
            connection = pool.fresh().await?;
        }
    }

    pub(super) async fn ask(&self) -> Result<()> {
        self.check_open()?;
        let pool = &self.0.pool;
        let (options, env) = (&self.0.options, &self.0.env);
        let asking = async {
            let _permit = pool.permit().await?;
            let mut connection = pool.fresh().await.map_err(Failure::into_error)?;
            if !connection.answers(options.step_timeout, options, env).await {
                return Err(Error::unavailable("the mail server does not answer"));
            }
            connection.quit(options, env).await;
            Ok(())
        };
        tokio::select! {
            biased;
            asked = asking => asked,
            () = env.sleep(options.timeout) => Err(Error::new(
                Code::Timeout,
                format!("the mail server did not answer within {} s", options.timeout.as_secs_f64()),
            )),
        }
    }

    /// Sends messages, up to `pool` of them at a time; what becomes of each is taken with [`Batch::next`] in the order
    /// in which they end. Begins at once. Dropping the batch ends it: what has not begun is not sent.
    pub fn send_many(&self, messages: Vec<Message>) -> Batch {
        let total = messages.len();
        let (told, results) = unbounded_channel();
        let mailer = self.clone();
        let task = self.0.env.spawn(async move {
            let mut rest: VecDeque<_> = messages.into_iter().enumerate().collect();
            let mut running = FuturesUnordered::new();
            loop {
                while running.len() < mailer.0.options.pool as usize
                    && let Some((index, message)) = rest.pop_front()
                {
                    let sending = mailer.clone().send_now(message, None, None);
                    running.push(async move { Sent { index, result: sending.await } });
                }
                let Some(sent) = running.next().await else { return };
                if told.send(sent).is_err() {
                    return;
                }
            }
        });
        Batch { mailer: self.clone(), results: Arc::new(Mutex::new(results)), total, task }
    }
}

/// What a message is given before its files are read.
struct Draft {
    checked: Checked,
    message_id: String,
    date: WallTime,
    max_size: usize,
}

impl Draft {
    /// Reads the files, and makes the bytes. Blocks.
    fn wire(self, mut message: Message) -> Result<Wire> {
        message.load_files(self.max_size)?;
        message.wire(self.checked, &self.message_id, self.date, self.max_size)
    }
}

/// When a send is given up. It goes through the ledger, which knows what the server has by then: a future that is dropped
/// could not say that.
pub(super) struct End {
    deadline: Timestamp,
    /// How long that is after the beginning.
    limit: Duration,
    cancel: Option<CancelToken>,
}

impl End {
    pub(super) fn new(env: &Env, limit: Duration, cancel: Option<CancelToken>) -> Self {
        Self { deadline: env.now() + limit, limit, cancel }
    }

    /// Waits for it, and says why it has come.
    async fn comes(&self, env: &Env) -> Error {
        tokio::select! {
            biased;
            () = driver::fired(self.cancel.as_ref()) => driver::cancelled(),
            () = env.sleep_until(self.deadline) => {
                Error::new(Code::Timeout, format!("the message was not sent within {} s", self.limit.as_secs_f64()))
            }
        }
    }
}

/// Messages that are being sent.
pub struct Batch {
    mailer: Mailer,
    results: Arc<Mutex<UnboundedReceiver<Sent>>>,
    total: usize,
    task: Task,
}

/// What became of one message of a batch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sent {
    /// Which one: its place in the list, from 0.
    pub index: usize,
    /// As [`Mailer::send`].
    pub result: Result<Report>,
}

impl Batch {
    /// What became of the next message that has ended; none when all have.
    ///
    /// # Errors
    /// `Forked`; `Closed` when the runtime ended.
    pub async fn next(&self) -> Result<Option<Sent>> {
        let results = self.results.clone();
        self.mailer.drive(async move { Ok(results.lock().await.recv().await) }).await
    }

    /// How many messages it has.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The mailer that sends it.
    pub fn mailer(&self) -> &Mailer {
        &self.mailer
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("mailer", &self.mailer).field("total", &self.total).finish_non_exhaustive()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if Runtime::is_ours() {
            self.task.abort();
        }
    }
}

/// The report, or the error where the server has said nothing about anybody.
fn report(wire: &Wire, ledger: &Ledger, attempts: u32, outcome: Result<()>) -> Result<Report> {
    if ledger.fates.iter().all(|fate| matches!(fate, Fate::Unknown(_))) {
        let why = ledger.fates.first().map_or("", |fate| fate.reply().map_or("", |reply| &reply.text));
        return Err(Error::new(
            Code::OutcomeUnknown,
            format!("all of the message was sent, but whether the mail server has taken it is not known: {why}"),
        ));
    }
    let silent = |fate: &Fate| matches!(fate, Fate::Open | Fate::Willing | Fate::Failed(_));
    if ledger.fates.iter().all(silent) {
        outcome?;
    }
    let recipients = wire.recipients.iter().zip(&ledger.fates);
    let recipients = recipients.map(|(mailbox, fate)| fate.recipient(mailbox.address())).collect();
    Ok(Report { message_id: wire.message_id.clone(), attempts, recipients })
}

impl Fate {
    fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Open | Self::Willing => None,
            Self::Accepted(reply) | Self::Failed(reply) | Self::Unknown(reply) | Self::Refused { reply, .. } => {
                Some(reply)
            }
        }
    }

    pub(super) fn recipient(&self, address: &str) -> Recipient {
        let (status, permanent) = match self {
            Self::Accepted(_) => (Status::Accepted, false),
            Self::Unknown(_) => (Status::Unknown, false),
            Self::Refused { permanent, .. } => (Status::Rejected, *permanent),
            Self::Open | Self::Willing | Self::Failed(_) => (Status::Rejected, false),
        };
        let Reply { code, text } = self.reply().cloned().unwrap_or(Reply { code: 0, text: String::new() });
        Recipient { address: address.to_owned(), status, code, text, permanent }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc;

    use futures::{FutureExt, poll};

    use super::super::message::Attachment;
    use super::super::options::MailerOptions;
    use super::super::outbox::{EnqueueOptions, OutboxOptions};
    use super::*;
    use crate::client::Client;
    use crate::config::Options;
    use crate::store::memory::MemoryStore;

    /// What is done by the only thread for blocking work hangs until this is dropped.
    type Hangs = mpsc::Sender<()>;

    /// Runs a test in a world where every read hangs, with a mailer whose server is not there.
    fn where_reads_hang<F: Future<Output = ()>>(test: impl FnOnce(Mailer, Hangs) -> F) {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(1).build().unwrap();
        let (hangs, told) = mpsc::channel();
        runtime.spawn_blocking(move || {
            let _ = told.recv();
        });
        let url = "smtp://127.0.0.1:1?tls=none&sender=a@example.org&retries=0&pool=1";
        let options = MailerOptions::parse(url).unwrap();
        let defaults = options.defaults().unwrap();
        let mailer = Mailer::start(None, Env::system(runtime.handle().clone()), options, defaults);
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test(mailer, hangs)).await.unwrap() });
    }

    /// A file that is not there yet: who reads it too early finds none.
    struct Late(PathBuf);

    impl Late {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("coord-{}-{name}", std::process::id())))
        }

        fn comes(&self) {
            std::fs::write(&self.0, "content").unwrap();
        }
    }

    impl Drop for Late {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn hello() -> Message {
        Message::new().to("b@example.org").subject("Hello").text("Hello.")
    }

    #[test]
    fn a_file_that_cannot_be_read_now_keeps_no_thread_and_no_send_that_is_given_up() {
        where_reads_hang(|mailer, hangs| async move {
            let file = Late::new("sent");
            let message = hello().attach(Attachment::path(&file.0));
            let mut sending = std::pin::pin!(mailer.send(&message));
            assert!(poll!(&mut sending).is_pending());
            let error = mailer.send_within(&message, Some(Duration::ZERO), None).await.unwrap_err();
            assert_eq!(error.code(), Code::Timeout, "{error}");
            let cancel = CancelToken::new();
            let mut cancelled = std::pin::pin!(mailer.send_within(&message, None, Some(&cancel)));
            assert!(poll!(&mut cancelled).is_pending());
            cancel.fire();
            assert_eq!(cancelled.await.unwrap_err().code(), Code::Cancelled);
            file.comes();
            drop(hangs);
            let error = sending.await.unwrap_err();
            assert_eq!(
                error.code(),
                Code::Unavailable,
                "the file is read now, and only the server is not there: {error}"
            );
        });
    }

    #[test]
    fn a_file_is_read_for_an_outbox_on_a_thread_for_that() {
        where_reads_hang(|mailer, hangs| async move {
            let env = mailer.0.env.clone();
            let store = Arc::new(MemoryStore::open("", env.clone()));
            let client = Client::with_store(store, Options::parse("memory:").unwrap(), env).await.unwrap();
            let outbox = client.outbox("letters", &mailer, OutboxOptions::default()).unwrap();
            let file = Late::new("enqueued");
            let message = hello().attach(Attachment::path(&file.0));
            let mut putting = std::pin::pin!(outbox.enqueue(&message, EnqueueOptions::default()));
            assert!(poll!(&mut putting).is_pending());
            file.comes();
            drop(hangs);
            assert!(putting.await.unwrap().new);
        });
    }

    #[test]
    fn what_is_light_is_sent_at_once_and_what_is_not_waits_for_a_thread() {
        where_reads_hang(|mailer, hangs| async move {
            let light = hello().attach(Attachment::bytes("a", vec![0; 60 << 10]));
            assert_eq!(mailer.send(&light).await.unwrap_err().code(), Code::Unavailable);
            let message = hello().attach(Attachment::bytes("a", vec![0; 64 << 10]));
            let mut sending = std::pin::pin!(mailer.send(&message));
            assert!(poll!(&mut sending).is_pending());
            assert_eq!(mailer.0.readers.available_permits(), 0, "it is encoded elsewhere");
            drop(hangs);
            assert_eq!(sending.await.unwrap_err().code(), Code::Unavailable);
        });
    }

    #[test]
    fn reads_that_were_given_up_take_no_more_threads() {
        where_reads_hang(|mailer, hangs| async move {
            let message = hello().attach(Attachment::path("/nowhere"));
            for _ in 0..3 {
                let error = mailer.send_within(&message, Some(Duration::ZERO), None).await.unwrap_err();
                assert_eq!(error.code(), Code::Timeout, "{error}");
            }
            assert_eq!(mailer.0.readers.available_permits(), 0, "the one that hangs has the only one");
            drop(hangs);
            assert_eq!(mailer.send(&message).await.unwrap_err().code(), Code::InvalidArgument, "it was read");
        });
    }

    #[test]
    fn a_message_whose_file_is_being_read_is_sent_before_its_mailer_is_closed() {
        where_reads_hang(|mailer, hangs| async move {
            let file = Late::new("closing");
            let message = hello().attach(Attachment::path(&file.0));
            let mut sending = std::pin::pin!(mailer.send(&message));
            assert!(poll!(&mut sending).is_pending());
            let mut closing = std::pin::pin!(mailer.close());
            assert!(poll!(&mut closing).is_pending());
            assert_eq!(mailer.send(&hello()).await.unwrap_err().code(), Code::Closed);
            file.comes();
            drop(hangs);
            let (sent, closed) = tokio::join!(sending, closing);
            assert_eq!(sent.unwrap_err().code(), Code::Unavailable, "it was tried");
            closed.unwrap();
        });
    }

    #[test]
    fn a_panic_on_a_thread_for_that_is_told() {
        where_reads_hang(|mailer, hangs| async move {
            drop(hangs);
            let message = hello().attach(Attachment::path("/nowhere"));
            let planted = mailer.apart(message, |_| -> Result<()> { panic!("planted") });
            let payload = std::panic::AssertUnwindSafe(planted).catch_unwind().await.unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"planted"));
        });
    }
}
