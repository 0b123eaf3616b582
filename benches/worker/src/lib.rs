//! The process that a benchmark drives: one client of one lock service, which is told by lines on its standard input
//! what to do, and answers each with one line on its standard output. Peers in other languages speak the same lines.
//!
//! | line | answer |
//! |---|---|
//! | (start) | `ready` |
//! | `pairs PREFIX TASKS MILLIS` | `pairs COUNT ELAPSED SAMPLE…`: each task acquires and releases a lock of its own |
//! | `loop LOCK TASKS HOLD_MICROS UNTIL` | `loop ASKED:ACQUIRED:RELEASING:RELEASED …`: all want the same lock, again and again |
//! | `drain LOCK TASKS` | `drain ASKED:ACQUIRED:RELEASING:RELEASED …`: each task takes the same lock once |
//! | `hold LOCK` | `held ASKED ACQUIRED` |
//! | `release` | `released RELEASING RELEASED` |
//! | `many PREFIX COUNT` | `many ELAPSED`: holds that many locks, until the process ends |
//! | `sessions COUNT` | `sessions ELAPSED`: opens that many further sessions |
//! | `listen KIND NAME` | `listening`: who listens is told of what others write to this name |
//! | `write KIND NAME COUNT MICROS` | `wrote BEFORE:DONE…`: so many times, with a pause; the moments before and after each |
//! | `heard COUNT` | `heard NUMBER MOMENT…`: which writes who listens was told of, and when; of some, perhaps, only with a later one |
//! | `stats` | `stats SESSION_STEPS CLAIM_STEPS READS WAITING` |
//!
//! Times are nanoseconds, moments are those of `CLOCK_MONOTONIC`, which all processes of a machine share. An error is
//! `error MESSAGE`. The process ends with its standard input.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::io::{BufRead, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What went wrong, in words.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A client of a lock service.
pub trait Subject: Send + Sync + Sized + 'static {
    /// A lock by its name, before it is acquired.
    type Lock: Send + Sync + 'static;
    /// A lock that is held.
    type Held: Send + 'static;

    /// The lock of this name; no I/O.
    fn lock(&self, name: &str) -> Result<Self::Lock>;

    /// Waits until the lock is held.
    fn acquire(&self, lock: &Self::Lock) -> impl Future<Output = Result<Self::Held>> + Send;

    /// Gives it up.
    fn release(&self, held: Self::Held) -> impl Future<Output = Result<()>> + Send;

    /// Leaves the service in order, before the process ends.
    fn close(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Opens further sessions, which stay open.
    fn open_sessions(&self, _count: usize) -> impl Future<Output = Result<()>> + Send {
        async { Err("this subject has no sessions".into()) }
    }

    /// Notes from now on when it is told of what others write to this name.
    fn listen(&self, _kind: &str, _name: &str, _heard: Arc<Heard>) -> impl Future<Output = Result<()>> + Send {
        async { Err("this subject does not listen".into()) }
    }

    /// Writes this number to a name.
    fn write(&self, _kind: &str, _name: &str, _number: u64) -> impl Future<Output = Result<()>> + Send {
        async { Err("this subject does not write".into()) }
    }

    /// Steps on sessions, steps on claims, reads, and acquires that wait now.
    fn stats(&self) -> Result<[u64; 4]> {
        Err("this subject counts nothing".into())
    }
}

/// Connects, and does what the lines say until they end.
///
/// # Errors
/// Those of connecting, and of the standard streams.
pub fn serve<S: Subject>(connect: impl Future<Output = Result<S>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let mut worker = Worker { subject: Arc::new(runtime.block_on(connect)?), held: Vec::new(), heard: Arc::default() };
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match runtime.block_on(worker.obey(&words)) {
            Ok(answer) => say(&answer)?,
            Err(error) => say(&format!("error {}", error.to_string().replace('\n', " ")))?,
        }
    }
    runtime.block_on(worker.subject.close())
}

/// The present moment on the clock that all processes share.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

const WORKERS: usize = 2;

/// How long the last of what was written may be on its way.
const HEARING: Duration = Duration::from_secs(10);

/// The most latencies that one answer carries; more would measure the pipe.
const MOST_SAMPLES: usize = 20_000;

struct Worker<S: Subject> {
    subject: Arc<S>,
    held: Vec<S::Held>,
    heard: Arc<Heard>,
}

/// When who listens was first told of each number.
#[derive(Default)]
pub struct Heard(Mutex<BTreeMap<u64, u64>>);

impl Heard {
    /// It is told of this number now.
    pub fn note(&self, number: u64) {
        let moment = now();
        self.moments().entry(number).or_insert(moment);
    }

    fn moments(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When one task asked for a lock, had it, began to release it, and had released it.
type Turn = [u64; 4];

impl<S: Subject> Worker<S> {
    async fn obey(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["pairs", prefix, tasks, millis] => self.pairs(prefix, tasks.parse()?, millis.parse()?).await,
            ["loop", lock, tasks, hold, until] => {
                let (until, hold) = (until.parse()?, Duration::from_micros(hold.parse()?));
                self.turns("loop", lock, tasks.parse()?, hold, until).await
            }
            ["drain", lock, tasks] => self.turns("drain", lock, tasks.parse()?, Duration::ZERO, 0).await,
            ["hold", lock] => {
                let asked = now();
                let held = self.subject.acquire(&self.subject.lock(lock)?).await?;
                let acquired = now();
                self.held.push(held);
                Ok(format!("held {asked} {acquired}"))
            }
            ["release"] => {
                let held = self.held.pop().ok_or("nothing is held")?;
                let releasing = now();
                self.subject.release(held).await?;
                Ok(format!("released {releasing} {}", now()))
            }
            ["many", prefix, count] => {
                let begun = now();
                for number in 0..count.parse::<usize>()? {
                    let lock = self.subject.lock(&format!("{prefix}{number}"))?;
                    self.held.push(self.subject.acquire(&lock).await?);
                }
                Ok(format!("many {}", now() - begun))
            }
            ["sessions", count] => {
                let begun = now();
                self.subject.open_sessions(count.parse()?).await?;
                Ok(format!("sessions {}", now() - begun))
            }
            ["listen", kind, name] => {
                self.subject.listen(kind, name, self.heard.clone()).await?;
                Ok("listening".to_owned())
            }
            ["write", kind, name, count, micros] => {
                let pause = Duration::from_micros(micros.parse()?);
                let mut answer = "wrote".to_owned();
                for number in 0..count.parse()? {
                    let before = now();
                    self.subject.write(kind, name, number).await?;
                    write!(answer, " {before}:{}", now())?;
                    tokio::time::sleep(pause).await;
                }
                Ok(answer)
            }
            ["heard", count] => {
                let (count, until) = (count.parse()?, now() + HEARING.as_nanos() as u64);
                while self.heard.moments().keys().last().is_none_or(|last| last + 1 < count) && now() < until {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let mut answer = "heard".to_owned();
                for (number, moment) in std::mem::take(&mut *self.heard.moments()) {
                    write!(answer, " {number} {moment}")?;
                }
                Ok(answer)
            }
            ["stats"] => {
                let [sessions, claims, reads, waiting] = self.subject.stats()?;
                Ok(format!("stats {sessions} {claims} {reads} {waiting}"))
            }
            _ => Err(format!("'{}' is nothing that a worker does", words.join(" ")).into()),
        }
    }

    async fn pairs(&self, prefix: &str, tasks: usize, millis: u64) -> Result<String> {
        let begun = now();
        let until = begun + millis * 1_000_000;
        let each = MOST_SAMPLES / tasks;
        let work = |number: usize| {
            let (subject, name) = (self.subject.clone(), format!("{prefix}{number}"));
            async move {
                let lock = subject.lock(&name)?;
                let mut samples = Vec::with_capacity(each);
                let mut count = 0u64;
                let mut before = now();
                while before < until {
                    let held = subject.acquire(&lock).await?;
                    subject.release(held).await?;
                    let after = now();
                    count += 1;
                    // Beyond what fits, every further one takes a place that moves on: the run's whole length is shown.
                    if samples.len() < each {
                        samples.push(after - before);
                    } else {
                        samples[count as usize % each] = after - before;
                    }
                    before = after;
                }
                Ok::<_, Error>((count, samples))
            }
        };
        let mut count = 0;
        let mut answer = String::new();
        let results = if tasks == 1 { vec![work(0).await?] } else { all((0..tasks).map(work)).await? };
        let elapsed = now() - begun;
        for (of_one, samples) in results {
            count += of_one;
            for sample in samples {
                write!(answer, " {sample}")?;
            }
        }
        Ok(format!("pairs {count} {elapsed}{answer}"))
    }

    /// Takes one lock in turns: once each if `until` is in the past.
    async fn turns(&self, what: &str, lock: &str, tasks: usize, hold: Duration, until: u64) -> Result<String> {
        let work = |_| {
            let (subject, name) = (self.subject.clone(), lock.to_owned());
            async move {
                let lock = subject.lock(&name)?;
                let mut turns: Vec<Turn> = Vec::new();
                loop {
                    let asked = now();
                    let held = subject.acquire(&lock).await?;
                    let acquired = now();
                    if !hold.is_zero() {
                        tokio::time::sleep(hold).await;
                    }
                    let releasing = now();
                    subject.release(held).await?;
                    let released = now();
                    turns.push([asked, acquired, releasing, released]);
                    if released >= until {
                        return Ok::<_, Error>(turns);
                    }
                }
            }
        };
        let mut answer = what.to_owned();
        for turns in all((0..tasks).map(work)).await? {
            for [asked, acquired, releasing, released] in turns {
                write!(answer, " {asked}:{acquired}:{releasing}:{released}")?;
            }
        }
        Ok(answer)
    }
}

async fn all<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    let tasks: Vec<_> = tasks.map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await??);
    }
    Ok(results)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
