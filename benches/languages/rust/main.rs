//! What calls without I/O, and a reconciler's queue, cost a program in Rust. The programs in C, Go and Python beside
//! this one do the same by the same lines on their standard input, each answered by one on the standard output.
//!
//! | line | answer |
//! |---|---|
//! | (start) | `ready` |
//! | `checks BATCHES CALLS` | `checks ELAPSED…`: asks a hold whether it is valid; how long each batch of so many calls took |
//! | `pairs BATCHES CALLS` | `pairs ELAPSED…`: acquires and releases a lock of the memory store, in the same way |
//! | `keys COUNT` | `keys ELAPSED`: adds so many keys; until the function of 8 workers was called for the last |
//! | `idle COUNT MICROS` | `idle ELAPSED…`: adds one key, so many times, each after a pause; until the function was called |
//!
//! Times are nanoseconds. An error is `error MESSAGE`. The program ends with its standard input.

use std::hint::black_box;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use coord_bench_worker::{Result, now};
use coord_core::client::{Client, connect};
use coord_core::lock::Lock;
use coord_core::reconciler::{Outcome, ReconcileOptions, Reconciler, Source};
use futures::executor::block_on;

const WORKERS: usize = 8;

fn main() -> Result<()> {
    let program = Program::new()?;
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match program.obey(&words) {
            Ok(times) => say(&times.iter().fold(words[0].to_owned(), |answer, time| format!("{answer} {time}")))?,
            Err(error) => say(&format!("error {error}"))?,
        }
    }
    Ok(())
}

struct Program {
    _client: Client,
    lock: Lock,
    reconciler: Reconciler,
    /// Keys that are still to be run.
    left: Arc<AtomicU64>,
    /// When the function was called for the last of them.
    called: Receiver<u64>,
    _runtime: tokio::runtime::Runtime,
}

impl Program {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
        let client = block_on(connect("memory:"))?;
        let options = ReconcileOptions { workers: WORKERS, ..ReconcileOptions::default() };
        let reconciler = block_on(client.reconcile("bench", Source::Manual, options))?;
        let left = Arc::new(AtomicU64::default());
        let (tell, called) = mpsc::channel();
        let (running, counted) = (reconciler.clone(), left.clone());
        runtime.spawn(async move {
            let function = |_| {
                if counted.fetch_sub(1, SeqCst) == 1 {
                    // Nobody listens any more when the program ends.
                    let _ = tell.send(now());
                }
                async { Outcome::Done }
            };
            running.run(function).await
        });
        Ok(Self { lock: client.lock("bench")?, _client: client, reconciler, left, called, _runtime: runtime })
    }

    fn obey(&self, words: &[&str]) -> Result<Vec<u64>> {
        match words {
            ["checks", batches, calls] => {
                let held = block_on(self.lock.acquire())?;
                let times = batched(batches, calls, || Ok(black_box(&held).check()?));
                block_on(held.release())?;
                times
            }
            ["pairs", batches, calls] => {
                batched(batches, calls, || Ok(block_on(async { self.lock.acquire().await?.release().await })?))
            }
            ["keys", count] => Ok(vec![self.run(count.parse()?)?]),
            ["idle", count, micros] => {
                let pause = Duration::from_micros(micros.parse()?);
                (0..count.parse()?)
                    .map(|_: u32| {
                        std::thread::sleep(pause);
                        self.run(1)
                    })
                    .collect()
            }
            _ => Err(format!("'{}' is nothing that this program does", words.join(" ")).into()),
        }
    }

    /// How long it takes from before the first of so many keys is added until the function is called for the last.
    fn run(&self, count: u64) -> Result<u64> {
        self.left.store(count, SeqCst);
        let begun = now();
        for key in 0..i64::try_from(count)? {
            self.reconciler.add(key)?;
        }
        Ok(self.called.recv()? - begun)
    }
}

fn batched(batches: &str, calls: &str, call: impl Fn() -> Result<()>) -> Result<Vec<u64>> {
    let calls: u64 = calls.parse()?;
    let batch = |_: u32| {
        let begun = now();
        for _ in 0..calls {
            call()?;
        }
        Ok(now() - begun)
    };
    (0..batches.parse()?).map(batch).collect()
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
