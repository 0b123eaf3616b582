//! What the process does that is struck: everything that the library can do, one after the other, with another process
//! to lend it a lock and to die before it.
//!
//! A part that fails is told, and the story goes on: after a delay much of it may be lost, and none of it may be wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::bson::doc;
use coord_core::election::CandidacyOptions;
use coord_core::mail::{EnqueueOptions, MailState, Mailer, Message, Outbox, OutboxOptions};
use coord_core::reconciler::{Mode, Outcome, ReconcileOptions, Reconciler, Source};
use coord_core::table::{Position, Table, WriteOptions};
use coord_core::{Client, Code, Error, Held, ObserveOptions, ProvideOptions, Result, Term, connect};
use coord_faults::history::now;

use crate::place::OLD;
use crate::post::{Post, STALLED};
use crate::said::{Said, say};
use crate::strike;
use crate::victim::{Victim, ready};

/// The locks of the story, all of which are free in the end.
pub const LOCKS: [&str; 11] =
    [LONG, "tried", "handed", "given-up", "broken", FORCED, FENCE, LENT, ORPHAN, ORPHAN_TOO, OLD];
/// Its elections, all of which are free in the end.
pub const ELECTIONS: [&str; 3] = ["led", "managed", ORPHAN_TERM];
/// Its services, which nobody provides in the end.
pub const SERVICES: [&str; 3] = ["offered", "kept", ORPHANED];

/// Held from the beginning to the end, and waited for as long.
pub const LONG: &str = "long";
/// Broken by force: its holder may believe in it for a while.
pub const FORCED: &str = "forced";
/// Held for fenced writes.
pub const FENCE: &str = "fence";
/// Held by the victim, which releases it.
pub const LENT: &str = "lent";
/// Held by the victim to its end, and waited for then.
pub const ORPHAN: &str = "orphan";
/// Held by the victim to its end, and waited for by nobody.
pub const ORPHAN_TOO: &str = "orphan-too";
/// Led by the victim to its end.
pub const ORPHAN_TERM: &str = "orphan-term";
/// Provided by the victim to its end.
pub const ORPHANED: &str = "orphaned";
/// The outbox.
pub const LETTERS: &str = "letters";
/// The table that is written.
pub const NOTES: &str = "notes";
/// The table that is reconciled.
pub const WORK: &str = "work";
/// Its keys.
pub const WORK_KEYS: [&str; 3] = ["w1", "w2", "w3"];
/// The reconciler, and how many shards it has.
pub const RECONCILER: (&str, u32) = ("work", 2);

/// How long a part may take that nothing is in the way of.
const PART: Duration = Duration::from_secs(30);

/// What is believed in at the moment.
#[derive(Clone, Default)]
struct Beliefs(Arc<Mutex<Vec<Belief>>>);

type Check = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Clone)]
struct Belief {
    claim: &'static str,
    token: i64,
    check: Check,
}

impl Beliefs {
    /// A claim was granted: that is said, and said again for as long as a check finds it valid.
    fn granted(&self, claim: &'static str, token: i64, check: impl Fn() -> bool + Send + Sync + 'static) {
        say(&Said::Granted { claim: claim.to_owned(), token, t: now() });
        let belief = Belief { claim, token, check: Arc::new(check) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(belief);
    }

    /// It is given up.
    fn end(&self, token: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|belief| belief.token != token);
    }

    /// Says what is believed in, in a thread of its own, whatever becomes of the others.
    fn watch(&self) {
        let beliefs = self.clone();
        std::thread::spawn(move || {
            loop {
                let all = beliefs.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for Belief { claim, token, check } in all {
                    let t = now();
                    if check() {
                        say(&Said::Ok { claim: claim.to_owned(), token, t });
                    }
                }
                // A check is asked, and tells nothing by itself.
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }

    async fn lock(&self, client: &Client, name: &'static str) -> Result<Arc<Held>> {
        Ok(self.held(name, client.lock(name)?.acquire().await?))
    }

    fn held(&self, name: &'static str, held: Held) -> Arc<Held> {
        let held = Arc::new(held);
        let checked = held.clone();
        self.granted(name, held.token(), move || checked.check().is_ok());
        held
    }

    fn term(&self, name: &'static str, term: Arc<Term>) -> Arc<Term> {
        let checked = term.clone();
        self.granted(name, term.token(), move || checked.check().is_ok());
        term
    }

    async fn release(&self, held: Arc<Held>) -> Result<()> {
        let released = held.release().await;
        self.end(held.token());
        released
    }
}

/// Plays it.
///
/// # Errors
/// What the process cannot do without.
pub async fn play(url: &str, fresh: &str, post: u16) -> std::result::Result<(), String> {
    let beliefs = Beliefs::default();
    beliefs.watch();
    part("fresh", first_use(fresh)).await;
    let Some((a, b)) = part("connect", async { Ok((client(url).await?, client(url).await?)) }).await else {
        return Err("nothing can be played without a client".into());
    };
    let long = part("long", beliefs.lock(&a, LONG)).await;
    let waiting = tokio::spawn({
        let (b, beliefs) = (b.clone(), beliefs.clone());
        // For as long as the story is.
        async move { beliefs.lock(&b, LONG).await }
    });
    part("try", try_and_hand_over(&beliefs, &a, &b)).await;
    part("give up", give_up(&beliefs, &a, &b)).await;
    part("break", be_broken(&beliefs, &a, &b)).await;
    part("force", be_forced(&beliefs, &a, &b)).await;
    part("lead", lead(&beliefs, &a, &b)).await;
    part("manage", run_as_leader(&beliefs, &a)).await;
    part("provide", provide(&a, &b)).await;
    // Provided to the end, whatever that is.
    let kept = part("keep", a.provide("kept", "", ProvideOptions::default())).await;
    part("write", write_notes(&beliefs, &a)).await;
    part("reconcile", reconcile(&a)).await;
    // Not before: it lives for too short a time to become the keeper.
    let (mut victim, news) = Victim::start(url, post).map_err(|error| error.to_string())?;
    let prepared =
        async { tokio::task::spawn_blocking(move || ready(news)).await.map_err(unavailable)?.map_err(unavailable) };
    if part("victim", prepared).await.is_some() {
        part("borrow", borrow(&beliefs, &a, &mut victim)).await;
        part("orphans", inherit(&beliefs, &a, &b, victim)).await;
    }
    part("mail", send_mails(&a, post)).await;
    part("collect", until_collected(&a)).await;
    if let Some(long) = long {
        part("end long", beliefs.release(long)).await;
    }
    part("end long too", async { beliefs.release(waiting.await.map_err(unavailable)??).await }).await;
    drop(kept);
    part("close", async { b.close(PART).await.and(a.close(PART).await) }).await;
    Ok(())
}

/// Plays a part. None if it failed, which is told; a defect ends the process.
async fn part<T>(step: &str, part: impl Future<Output = Result<T>>) -> Option<T> {
    let error = match tokio::time::timeout(PART * 2, part).await {
        Ok(Ok(done)) => return Some(done),
        Ok(Err(error)) => error,
        Err(_) => Error::new(Code::Panic, "it has not come to its end, nor to an error"),
    };
    say(&Said::Failed { step: step.to_owned(), why: error.to_string() });
    let defect = matches!(error.code(), Code::Panic | Code::Unknown | Code::CorruptState | Code::InvalidArgument);
    assert!(!defect, "{step}: {error}");
    None
}

fn unavailable(error: impl std::fmt::Display) -> Error {
    Error::unavailable(error.to_string())
}

/// A client; whoever is held up while it opens tries again.
async fn client(url: &str) -> Result<Client> {
    let mut tries = 5;
    loop {
        tries -= 1;
        match connect(url).await {
            Err(error) if tries > 0 => say(&Said::Failed { step: "connect".into(), why: error.to_string() }),
            done => return done,
        }
    }
}

/// A store that nobody has used, from its making to its end.
async fn first_use(url: &str) -> Result<()> {
    let client = client(url).await?;
    client.lock("first")?.acquire().await?.release().await?;
    client.close(PART).await
}

// Where one waits for what another is to give, that is given also when a look at the queue has failed: it would wait for
// ever.

async fn try_and_hand_over(beliefs: &Beliefs, a: &Client, b: &Client) -> Result<()> {
    let tried = beliefs.held("tried", a.lock("tried")?.try_acquire().await?);
    beliefs.release(tried).await?;
    let first = beliefs.lock(a, "handed").await?;
    let next = beliefs.lock(b, "handed");
    let hand_over = async {
        let queued = until_queued(a, "handed").await;
        let released = beliefs.release(first).await;
        queued.and(released)
    };
    let (next, handed) = futures::join!(next, hand_over);
    beliefs.release(next?).await?;
    handed
}

/// Waits until somebody stands in the queue of a lock.
async fn until_queued(client: &Client, name: &str) -> Result<()> {
    let queued = async || Ok(client.lock_info(name).await?.is_some_and(|info| !info.waiters.is_empty()));
    until("nobody waits", queued).await
}

async fn until(what: &str, so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    if crate::until(PART, so).await? { Ok(()) } else { Err(Error::new(Code::Timeout, what)) }
}

async fn give_up(beliefs: &Beliefs, a: &Client, b: &Client) -> Result<()> {
    let held = beliefs.lock(a, "given-up").await?;
    match b.lock("given-up")?.acquire_timeout(Duration::from_millis(100)).await {
        Ok(held) => drop(beliefs.held("given-up", held)),
        Err(error) if error.code() == Code::Timeout => {}
        Err(error) => return Err(error),
    }
    beliefs.release(held).await
}

async fn be_broken(beliefs: &Beliefs, a: &Client, b: &Client) -> Result<()> {
    let held = beliefs.lock(a, "broken").await?;
    let breaking = b.break_lock("broken", held.token(), false);
    let giving_way = async {
        held.lost().await;
        // It says that the hold was lost, which is so.
        let _ = beliefs.release(held.clone()).await;
        Ok(())
    };
    // Nothing is lost where the break has failed.
    futures::try_join!(breaking, giving_way).map(drop)
}

async fn be_forced(beliefs: &Beliefs, a: &Client, b: &Client) -> Result<()> {
    let held = beliefs.lock(a, FORCED).await?;
    b.break_lock(FORCED, held.token(), true).await?;
    held.lost().await;
    let _ = beliefs.release(held).await;
    Ok(())
}

async fn lead(beliefs: &Beliefs, a: &Client, b: &Client) -> Result<()> {
    let (first, second) = (a.election("led")?, b.election("led")?);
    let term = beliefs.term("led", Arc::new(first.campaign("a").await?));
    let next = second.campaign("b");
    let hand_over = async {
        let candidate = until("nobody is a candidate", async || Ok(!first.candidates().await?.is_empty())).await;
        let transferred = term.transfer_to(&b.session().id.to_string()).await;
        if transferred.is_err() {
            // To whoever is next, then.
            term.resign().await?;
        }
        beliefs.end(term.token());
        candidate.and(transferred)
    };
    let (next, handed) = futures::join!(next, hand_over);
    let next = beliefs.term("led", Arc::new(next?));
    next.proclaim("b too").await?;
    let resigned = next.resign().await;
    beliefs.end(next.token());
    handed.and(resigned)
}

async fn run_as_leader(beliefs: &Beliefs, a: &Client) -> Result<()> {
    let candidacy = a.election("managed")?.when_elected("a", CandidacyOptions::default())?;
    let elected = candidacy.next().await?;
    let term = beliefs.term("managed", elected.term().clone());
    candidacy.close();
    elected.complete(Ok(()))?;
    candidacy.closed().await;
    beliefs.end(term.token());
    Ok(())
}

async fn provide(a: &Client, b: &Client) -> Result<()> {
    let observer = b.observe("offered", ObserveOptions::default()).await?;
    let provider = a.provide("offered", "here", ProvideOptions::default()).await?;
    observer.wait_available("offered", Some(PART)).await?;
    provider.close().await?;
    observer.wait_unavailable("offered", Some(PART)).await
}

/// Writes a document, and says so before and after.
async fn write<T>(table: &Table, key: &str, n: Option<i64>, write: impl Future<Output = Result<T>>) -> Result<T> {
    let key = format!("{}/{key}", table.name());
    say(&Said::Writing { key: key.clone(), n });
    let done = write.await?;
    say(&Said::Wrote { key });
    Ok(done)
}

async fn write_notes(beliefs: &Beliefs, a: &Client) -> Result<()> {
    let notes = a.table(NOTES)?;
    let plain = WriteOptions::default;
    write(&notes, "k1", Some(1), notes.insert("k1", doc! { "n": 1_i64 }, plain())).await?;
    write(&notes, "k1", Some(2), notes.put("k1", doc! { "n": 2_i64 }, plain())).await?;
    write(&notes, "k1", Some(3), notes.update("k1", doc! { "$set": { "n": 3_i64 } }, plain())).await?;
    write(&notes, "k2", Some(4), notes.insert("k2", doc! { "n": 4_i64 }, plain())).await?;
    let many = notes.update_many(doc! { "n": 4_i64 }, doc! { "$set": { "n": 5_i64 } }, plain());
    write(&notes, "k2", Some(5), many).await?;
    write(&notes, "k2", None, notes.delete("k2", plain())).await?;
    let held = beliefs.lock(a, FENCE).await?;
    let fenced = || WriteOptions::fenced(&held);
    write(&notes, "k3", Some(6), notes.insert("k3", doc! { "n": 6_i64 }, fenced()?)).await?;
    write(&notes, "k3", Some(7), notes.update("k3", doc! { "$set": { "n": 7_i64 } }, fenced()?.strict())).await?;
    write(&notes, "k4", Some(8), notes.put("k4", doc! { "n": 8_i64 }, fenced()?.strict())).await?;
    write(&notes, "k4", None, notes.delete("k4", fenced()?)).await?;
    beliefs.release(held).await
}

async fn reconcile(a: &Client) -> Result<()> {
    let work = a.table(WORK)?;
    let (reconciler, running) = start_reconciler(a, |_| {}).await?;
    let mut last = Vec::new();
    for (n, key) in WORK_KEYS.into_iter().enumerate() {
        let document = doc! { "n": n as i64 };
        let written = write(&work, key, Some(n as i64), work.put(key, document, WriteOptions::default())).await?;
        last.push((key, written.position));
    }
    for (key, position) in last {
        until_run(&reconciler, key, position).await?;
    }
    let closed = reconciler.close(PART).await;
    running.abort();
    closed
}

/// Waits until a key is run, also by a replica that has no part of it yet.
async fn until_run(reconciler: &Reconciler, key: &'static str, position: Position) -> Result<()> {
    let run = async || match reconciler.wait_until_reconciled(key, position, Duration::from_secs(5)).await {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.code(), Code::NotHeld | Code::Timeout) => Ok(false),
        Err(error) => Err(error),
    };
    until("it was not run", run).await
}

/// Starts a replica of the story's reconciler, which writes down under its shard's token what it has run.
///
/// # Errors
/// Those of the library.
pub async fn start_reconciler(
    client: &Client,
    told: impl Fn(&str) + Send + 'static,
) -> Result<(Reconciler, tokio::task::JoinHandle<()>)> {
    let (name, shards) = RECONCILER;
    let options = ReconcileOptions { mode: Mode::Sharded { shards }, ..ReconcileOptions::default() };
    let source = Source::table(&client.table(WORK)?, ())?;
    let reconciler = client.reconcile(name, source, options).await?;
    let results = client.table("results")?;
    let running = reconciler.clone();
    let task = tokio::spawn(async move {
        while let Ok(request) = running.next().await {
            let Some(key) = request.key().value().as_str().map(str::to_owned) else { continue };
            let run = async {
                let options = WriteOptions { fence: Some(request.fence()?), strict: false };
                results.put(key.as_str(), doc! { "token": request.token() }, options).await
            };
            let outcome = match run.await {
                Ok(_) => Outcome::Done,
                Err(error) => Outcome::Error(error.to_string()),
            };
            let done = outcome == Outcome::Done;
            if request.complete(outcome).is_ok() && done {
                told(&key);
            }
        }
    });
    Ok((reconciler, task))
}

/// A lock that another process releases while this one waits for it.
async fn borrow(beliefs: &Beliefs, a: &Client, victim: &mut Victim) -> Result<()> {
    let mine = beliefs.lock(a, LENT);
    let order = async {
        let queued = until_queued(a, LENT).await;
        let asked = victim.ask_to_release().map_err(unavailable);
        queued.and(asked)
    };
    let (mine, ordered) = futures::join!(mine, order);
    beliefs.release(mine?).await?;
    ordered
}

/// Takes over from a process that is killed.
async fn inherit(beliefs: &Beliefs, a: &Client, b: &Client, victim: Victim) -> Result<()> {
    let orphan = beliefs.lock(a, ORPHAN);
    let term =
        async { Ok::<_, Error>(beliefs.term(ORPHAN_TERM, Arc::new(b.election(ORPHAN_TERM)?.campaign("b").await?))) };
    let blow = async {
        let queued = until_queued(a, ORPHAN).await;
        // Else its death is found out by its silence, which is as good, but takes another way.
        let watched = async || Ok(a.stats().watched > 0);
        let watches = until("nobody watches the other process", watched).await;
        let killed = victim.kill().map_err(unavailable);
        queued.and(watches).and(killed)
    };
    let (orphan, term, blow) = futures::join!(orphan, term, blow);
    beliefs.release(orphan?).await?;
    let term = term?;
    let resigned = term.resign().await;
    beliefs.end(term.token());
    blow.and(resigned)
}

/// The outbox of the story, by this mail server.
///
/// # Errors
/// Those of the library.
pub fn outbox(client: &Client, post: u16) -> Result<Outbox> {
    let options = [("poll", "50ms"), ("retry_min", "20ms"), ("retry_max", "50ms")];
    let options =
        options.iter().try_fold(OutboxOptions::default(), |options, (key, value)| options.with(key, value))?;
    client.outbox(LETTERS, &Mailer::open(&Post::url(post))?, options)
}

async fn send_mails(a: &Client, post: u16) -> Result<()> {
    let outbox = outbox(a, post)?;
    let mut ids = Vec::new();
    for key in ["m1", "m2", "m3"] {
        say(&Said::Enqueuing { key: key.to_owned() });
        let message = Message::new().to("ann@example.org").subject(key).text("Hello.");
        let options = EnqueueOptions { key: Some(key.to_owned()), ..EnqueueOptions::default() };
        ids.push(outbox.enqueue(&message, options).await?.id);
        say(&Said::Enqueued { key: key.to_owned() });
    }
    let senders = outbox.start(1)?;
    // With that of the dead.
    let all_sent = ids.len() as u64 + 1;
    until("not every mail is sent", async || Ok(outbox.stats().await?.of(MailState::Sent) == all_sent)).await?;
    senders.stop().await
}

/// Waits until the keeper has removed the record of the old lock.
async fn until_collected(a: &Client) -> Result<()> {
    until("the record of an old lock is not removed", async || Ok(a.lock_info(OLD).await?.is_none())).await
}

/// Says that the story is over, and what was passed.
pub fn over() {
    say(&Said::Done { passed: strike::passed() });
}

/// The keys of the story's mails.
pub const MAILS: [&str; 4] = ["m1", "m2", "m3", STALLED];
