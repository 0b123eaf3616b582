//! The reconcilers of the campaigns: each a process of its own, which ends with its input.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coord_core::bson::{Bson, Document};
use coord_core::client::connect;
use coord_core::error::{Error, Result};
use coord_core::reconciler::{Mode, Outcome, ReconcileOptions, Request, Source, Work};
use coord_core::table::Key;
use coord_faults::history::{Log, now};
use coord_faults::random::Random;

use crate::check::{Event, Line};

/// How long anything may take at the end.
const BOUND: Duration = Duration::from_secs(30);

/// A replica of a sharded reconciler, which writes down each run (see [`check`](crate::check)).
///
/// # Errors
/// Those of the library, or of the history's file.
pub async fn replica(url: &str, table: &str, history: &Path) -> Result<()> {
    let client = connect(url).await?;
    let log = Log::open(history).map_err(|error| Error::invalid(format!("{}: {error}", history.display())))?;
    let log = Arc::new(Mutex::new(log));
    let options = ReconcileOptions {
        mode: Mode::SHARDED,
        workers: WORKERS,
        move_grace: Duration::from_secs(2),
        ..ReconcileOptions::default()
    };
    let source = Source::table(&client.table(table)?, ())?;
    let reconciler = client.reconcile("replicas", source, options).await?;
    let count = Arc::new(AtomicU64::new(0));
    for worker in 0..WORKERS {
        let (reconciler, log, count) = (reconciler.clone(), log.clone(), count.clone());
        tokio::spawn(async move {
            let mut random = Random::new(now() ^ worker as u64);
            while let Ok(request) = reconciler.next().await {
                let run = count.fetch_add(1, Ordering::Relaxed);
                run_key(request, run, &log, &mut random).await;
            }
        });
    }
    input_ends().await;
    reconciler.close(BOUND).await?;
    client.close(BOUND).await
}

async fn run_key(request: Request, run: u64, log: &Mutex<Log>, random: &mut Random) {
    let key = request.key().value().as_i64().unwrap_or_default();
    let token = request.token().unwrap_or_default();
    let tell = |t, event| {
        let written = lock(log).write(&Line { t, key, token, run, event });
        // Without its history a replica proves nothing.
        written.unwrap_or_else(|error| panic!("the history cannot be written: {error}"));
    };
    let n = request.document().and_then(|document| number(document, "n"));
    let mut event = Event::Begin { n };
    for _ in 0..=random.below(6) {
        let t = now();
        if request.check().is_err() {
            break;
        }
        tell(t, event);
        event = Event::Ok;
        // So that the run lasts, and another one could meet it.
        tokio::time::sleep(random.between(Duration::from_millis(1), Duration::from_millis(8))).await;
    }
    let t = now();
    if request.complete(Outcome::Done).is_ok() {
        tell(t, Event::Done);
    }
}

/// A reconciler of every key of a table, which keeps of each key the `n` of the document that it was shown last. Its words
/// are those of `workers/worker.py`; its dump has no other fields.
///
/// # Errors
/// Those of the library, or what is wrong with a command.
pub async fn witness(url: &str, table: &str) -> Result<()> {
    let client = connect(url).await?;
    let options = ReconcileOptions { workers: WITNESSES, ..ReconcileOptions::default() };
    let source = Source::table(&client.table(table)?, ())?;
    let reconciler = client.reconcile("last-states", source, options).await?;
    let seen: Arc<Mutex<HashMap<Key, i64>>> = Arc::default();
    let (running, shown) = (reconciler.clone(), seen.clone());
    let task = tokio::spawn(async move {
        let run = |work: Arc<Work>| {
            let mut seen = lock(&shown);
            let n = work.document().and_then(|document| number(document, "n"));
            match n {
                Some(n) => seen.insert(work.key().clone(), n),
                None => seen.remove(work.key()),
            };
            // Some fail at first, and lose nothing by that.
            let fails = work.attempt() == 1 && n.is_some_and(|n| n % 50 == 7);
            async move { if fails { Outcome::Error("planted".into()) } else { Outcome::Done } }
        };
        running.run(run).await
    });
    let say = |text: String| {
        let mut output = io::stdout().lock();
        writeln!(output, "{text}").and_then(|()| output.flush()).map_err(|error| Error::invalid(error.to_string()))
    };
    say("ready".to_owned())?;
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        match line.split_once(' ') {
            Some(("dump", path)) => {
                let seen = lock(&seen).clone();
                dump(&seen, Path::new(path)).map_err(|error| Error::invalid(format!("{path}: {error}")))?;
                say(format!("dumped {}", seen.len()))?;
            }
            None if line == "stats" => say(format!("{{\"runs\": {}}}", reconciler.stats().runs))?,
            None if line == "end" => break,
            _ => return Err(Error::invalid(format!("there is no command '{line}'"))),
        }
    }
    reconciler.close(BOUND).await?;
    task.await.map_err(|error| Error::invalid(error.to_string()))??;
    client.close(BOUND).await?;
    say("ended".to_owned())
}

/// A whole number of either size: other programs choose by what fits.
fn number(document: &Document, field: &str) -> Option<i64> {
    whole(document.get(field)?)
}

pub(crate) fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}

fn dump(seen: &HashMap<Key, i64>, path: &Path) -> io::Result<()> {
    let text: String =
        seen.iter().map(|(key, n)| format!("{{\"key\": {key}, \"document\": {{\"n\": {n}}}}}\n")).collect();
    std::fs::write(path, text)
}

async fn input_ends() {
    let mut lines = lines();
    while lines.recv().await.is_some() {}
}

fn lines() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(io::Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const WORKERS: usize = 4;
const WITNESSES: usize = 16;
