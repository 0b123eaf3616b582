//! What a reconciler's queue costs by itself: keys per second with 8 workers, and how long a key waits that is added while
//! nothing else is to do.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::disallowed_methods, reason = "a benchmark is a program of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use coord_core::client::{Client, connect};
use coord_core::reconciler::{Outcome, ReconcileOptions, Reconciler, Source};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::Notify;

const WORKERS: usize = 8;

/// A reconciler whose function does nothing but say when it has been called so often.
struct Bench {
    runtime: tokio::runtime::Runtime,
    _client: Client,
    reconciler: Reconciler,
    wanted: Arc<Wanted>,
}

#[derive(Default)]
struct Wanted {
    calls: AtomicU64,
    until: AtomicU64,
    reached: Notify,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        let (client, reconciler) = runtime.block_on(async {
            let client = connect("memory:").await.expect("the memory store opens");
            let mut options = ReconcileOptions::default();
            options.workers = WORKERS;
            let reconciler = client.reconcile("bench", Source::Manual, options).await.expect("a reconciler");
            (client, reconciler)
        });
        let wanted = Arc::new(Wanted::default());
        let (running, told) = (reconciler.clone(), wanted.clone());
        runtime.spawn(async move {
            let called = |_| {
                if told.calls.fetch_add(1, SeqCst) + 1 == told.until.load(SeqCst) {
                    told.reached.notify_one();
                }
                async { Outcome::Done }
            };
            running.run(called).await
        });
        Self { runtime, _client: client, reconciler, wanted }
    }

    /// Adds these keys, each of which is new, and waits until all have been run.
    fn run(&self, keys: std::ops::Range<i64>) {
        let until = self.wanted.calls.load(SeqCst) + keys.clone().count() as u64;
        self.wanted.until.store(until, SeqCst);
        for key in keys {
            self.reconciler.add(key).expect("open");
        }
        self.runtime.block_on(self.wanted.reached.notified());
    }
}

fn queue(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("reconciler");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a key of many, 8 workers", |b| {
        b.iter_custom(|count| {
            let begun = Instant::now();
            bench.run(0..count as i64);
            begun.elapsed()
        });
    });
    group.bench_function("one key, added while idle, until it is called", |b| b.iter(|| bench.run(0..1)));
    group.finish();
}

criterion_group!(benches, queue);
criterion_main!(benches);
