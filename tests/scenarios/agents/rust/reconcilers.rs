//! What the agent does with reconcilers: takes their requests one by one as the story says, or serves them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::bson::Bson;
use coord_core::reconciler::{Backoff, Mode, Outcome, ParkedKey, ReconcileOptions, Reconciler, Source, Work};
use coord_core::table::{Key, Position};
use coord_scenarios::words::Words;

use crate::actor::{Actor, Answer, BOUND, Thing, Trouble, argument, bounded, number, timeout, unknown};
use crate::reply;
use crate::tables::{filter, key, text, with_revision};

/// A reconciler, and what has been run of it if it is served by itself.
pub(crate) struct Runner {
    reconciler: Reconciler,
    ran: Option<Arc<Mutex<BTreeMap<Key, u64>>>>,
}

impl Runner {
    fn new(reconciler: Reconciler, serve: bool) -> Self {
        if !serve {
            return Self { reconciler, ran: None };
        }
        let ran: Arc<Mutex<BTreeMap<Key, u64>>> = Arc::default();
        let (running, counts) = (reconciler.clone(), ran.clone());
        tokio::spawn(async move {
            let run = running.run(|work: Arc<Work>| {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                *counts.entry(work.key().clone()).or_default() += 1;
                async { Outcome::Done }
            });
            // Whatever ends it shows in what the story asks next.
            let _ = run.await;
        });
        Self { reconciler, ran: Some(ran) }
    }

    pub(crate) async fn close(&self, timeout: Option<Duration>) -> coord_core::error::Result<()> {
        self.reconciler.close(timeout.unwrap_or(BOUND)).await
    }
}

impl Actor {
    /// A command about reconcilers; none if it is not one.
    pub(crate) async fn reconcile(&mut self, command: &Words) -> Option<Answer> {
        Some(match command.head() {
            "reconcile" => self.start_reconciler(command).await,
            "work" => self.work(command).await,
            "complete" => self.complete(command),
            "cancelled" => self.cancelled(command).await,
            "check" if self.work_of(command).is_ok() => self.check_work(command),
            "reconciler" => self.runner(command).map(|runner| stats(&runner.reconciler)),
            "ran" => self.ran(command),
            "add" => self.add_key(command),
            "cancel_key" => self.cancel_key(command),
            "pause" => self.runner(command).map(|runner| {
                runner.reconciler.pause();
                reply::ok()
            }),
            "resume" => self.runner(command).map(|runner| {
                runner.reconciler.resume();
                reply::ok()
            }),
            "drain" => self.drain(command).await,
            "parked" => self.runner(command).map(|runner| parked(&runner.reconciler.parked())),
            "reconciled" => self.reconciled(command).await,
            _ => return None,
        })
    }

    async fn start_reconciler(&mut self, command: &Words) -> Answer {
        let client = self.client(command)?.clone();
        let source = argument(command, "source")?;
        let source = match source.split_once(':').unwrap_or((source, "")) {
            ("table", name) => Source::Table { table: client.table(name)?, filter: filter(command)? },
            ("observer", pattern) => Source::Observer(pattern.to_owned()),
            ("locks", prefix) => Source::ReleasedLocks { prefix: prefix.to_owned() },
            ("manual", "") => Source::Manual,
            _ => return Err(format!("there is no source '{source}'").into()),
        };
        let reconciler = client.reconcile(argument(command, "name")?, source, options(command)?).await?;
        self.add(command, Thing::Reconciler(Runner::new(reconciler, command.get("serve") == Some("true"))))
    }

    async fn work(&mut self, command: &Words) -> Answer {
        let request = bounded(self.runner(command)?.reconciler.next()).await??;
        let mut words = reply::ok().with("key", text(request.key().value().clone())).with("attempt", request.attempt());
        if let Some(document) = request.document() {
            words = words.with("document", text(document.clone()));
        }
        if let Some(token) = request.token() {
            words = words.with("token", token);
        }
        words = with_revision(words, request.revision());
        self.add(command, Thing::Work(request))?;
        Ok(words)
    }

    fn complete(&mut self, command: &Words) -> Answer {
        let name = argument(command, "hold")?;
        let message = command.get("message").unwrap_or("failed").to_owned();
        let outcome = match (command.get("outcome").unwrap_or("done"), command.get("after_ms").is_some()) {
            ("done", false) => Outcome::Done,
            ("requeue", true) => Outcome::RequeueAfter(Duration::from_millis(number(command, "after_ms")?)),
            ("error", false) => Outcome::Error(message),
            ("error", true) => Outcome::ErrorAfter(message, Duration::from_millis(number(command, "after_ms")?)),
            ("terminal", false) => Outcome::Terminal(message),
            (other, _) => return Err(format!("there is no such outcome as this '{other}'").into()),
        };
        match self.things.remove(name) {
            Some(Thing::Work(request)) => request.complete(outcome)?,
            _ => return Err(unknown(name)),
        }
        Ok(reply::ok())
    }

    async fn cancelled(&self, command: &Words) -> Answer {
        bounded(self.work_of(command)?.cancelled()).await?;
        Ok(reply::ok())
    }

    fn check_work(&self, command: &Words) -> Answer {
        self.work_of(command)?.check()?;
        Ok(reply::ok())
    }

    fn ran(&self, command: &Words) -> Answer {
        let ran = self.runner(command)?.ran.as_ref().ok_or_else(|| "it is not served".to_owned())?;
        let ran = ran.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Bson> = ran.keys().map(|key| key.value().clone()).collect();
        Ok(reply::ok().with("count", keys.len()).with("keys", text(keys)).with("runs", ran.values().sum::<u64>()))
    }

    fn add_key(&self, command: &Words) -> Answer {
        let (reconciler, key) = (&self.runner(command)?.reconciler, key(command)?);
        let news = match command.get("after_ms") {
            Some(_) => reconciler.add_after(key, Duration::from_millis(number(command, "after_ms")?))?,
            None => reconciler.add(key)?,
        };
        Ok(reply::ok().with("news", news))
    }

    fn cancel_key(&self, command: &Words) -> Answer {
        let news = self.runner(command)?.reconciler.cancel(key(command)?)?;
        Ok(reply::ok().with("news", news))
    }

    async fn drain(&self, command: &Words) -> Answer {
        self.runner(command)?.reconciler.drain(timeout(command)?.unwrap_or(BOUND)).await?;
        Ok(reply::ok())
    }

    async fn reconciled(&self, command: &Words) -> Answer {
        let position =
            command.get("position").map_or(Ok(Position(0)), |_| number(command, "position").map(Position))?;
        let reconciler = &self.runner(command)?.reconciler;
        reconciler.wait_until_reconciled(key(command)?, position, timeout(command)?.unwrap_or(BOUND)).await?;
        Ok(reply::ok())
    }

    fn runner(&self, command: &Words) -> Result<&Runner, Trouble> {
        let name = argument(command, "hold")?;
        match self.things.get(name) {
            Some(Thing::Reconciler(runner)) => Ok(runner),
            _ => Err(unknown(name)),
        }
    }

    fn work_of(&self, command: &Words) -> Result<&Arc<Work>, Trouble> {
        let name = argument(command, "hold")?;
        match self.things.get(name) {
            Some(Thing::Work(request)) => Ok(request.work()),
            _ => Err(unknown(name)),
        }
    }
}

fn options(command: &Words) -> Result<ReconcileOptions, Trouble> {
    let mut options = ReconcileOptions::default();
    if command.get("workers").is_some() {
        options.workers = number(command, "workers")?;
    }
    options.mode = match command.get("mode").unwrap_or("all") {
        "all" => Mode::All,
        "leader" => Mode::Leader,
        "sharded" => Mode::Sharded { shards: command.get("shards").map_or(Ok(64), |_| number(command, "shards"))? },
        other => return Err(format!("there is no mode '{other}'").into()),
    };
    let duration = |name: &str| -> Result<Option<Duration>, Trouble> {
        command.get(name).map(|_| Ok(Duration::from_millis(number(command, name)?))).transpose()
    };
    if let Some(pause) = duration("backoff_ms")? {
        options.backoff = Backoff { min: pause, max: pause };
    }
    if let Some(grace) = duration("move_grace_ms")? {
        options.move_grace = grace;
    }
    options.resync = duration("resync_ms")?;
    Ok(options)
}

fn stats(reconciler: &Reconciler) -> Words {
    let stats = reconciler.stats();
    let shards: Vec<String> = stats.shards.iter().map(u32::to_string).collect();
    let counts = [
        ("ready", stats.ready),
        ("delayed", stats.delayed),
        ("in_flight", stats.in_flight),
        ("parked", stats.parked),
        ("runs", stats.runs),
        ("errors", stats.errors),
        ("retries", stats.retries),
        ("terminal", stats.terminal),
        ("requeued", stats.requeued),
        ("fenced", stats.fenced),
        ("dropped", stats.dropped),
        ("holds", stats.shards.len() as u64),
    ];
    let words = reply::ok()
        .with("name", reconciler.name())
        .with("shards", shards.join(","))
        .with("synced", stats.synced)
        .with("paused", stats.paused);
    counts.into_iter().fold(words, |words, (name, count)| words.with(name, count))
}

fn parked(parked: &[ParkedKey]) -> Words {
    let mut parked: Vec<&ParkedKey> = parked.iter().collect();
    parked.sort_by(|left, right| left.key.cmp(&right.key));
    let keys: Vec<Bson> = parked.iter().map(|parked| parked.key.value().clone()).collect();
    let reasons: Vec<&str> = parked.iter().map(|parked| parked.reason.as_str()).collect();
    reply::ok().with("count", keys.len()).with("keys", text(keys)).with("reasons", reasons.join(","))
}
