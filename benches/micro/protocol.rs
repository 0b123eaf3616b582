//! What the protocol's pure steps cost by themselves, in short and in long queues.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use coord_core::protocol::claim::{self, ClaimKey, ClaimRecord, ClaimStep, Entry, Priority, Step, Stepped, StoreNow};
use coord_core::protocol::session::SessionId;
use coord_core::time::WallTime;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

const NOW: StoreNow = StoreNow { wall: WallTime(1_790_000_000_000), floor: 1_832_960_000_000_000 };

fn entry(attempt: u64) -> Entry {
    Entry { session: SessionId::from_random(u128::from(attempt % 16)), attempt, priority: Priority::default() }
}

/// A claim that is held, with so many waiters.
fn queue(length: u64) -> ClaimRecord {
    let mut record = ClaimRecord::new(ClaimKey::new("lock/default/default/queue"));
    record.holder = Some(entry(0));
    record.waiters = (1..=length).map(entry).collect();
    record
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("claim");
    for length in [0, 10, 256, 1_000] {
        let record = queue(length);
        let enqueue = ClaimStep::Step(Step::acquire(entry(5_000), true, 2_000, Vec::new()));
        let release = ClaimStep::Step(Step::remove(entry(0), Vec::new()));
        for (name, step) in [("enqueue behind", enqueue), ("hand over to the first of", release)] {
            group.bench_function(BenchmarkId::new(name, length), |b| {
                let apply = |record: ClaimRecord| -> Stepped {
                    let key = record.key.clone();
                    claim::apply(&key, Some(record), black_box(&step), NOW)
                };
                b.iter_batched(|| record.clone(), apply, BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}

fn texts(criterion: &mut Criterion) {
    let text = entry(12_345).to_string();
    criterion.bench_function("entry: to text", |b| b.iter(|| black_box(entry(12_345)).to_string()));
    criterion.bench_function("entry: from text", |b| b.iter(|| black_box(text.as_str()).parse::<Entry>()));
}

criterion_group!(benches, steps, texts);
criterion_main!(benches);
