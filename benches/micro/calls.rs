//! What calls cost that do no I/O: in-memory acquire and release, and what is asked of a hold again and again.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use coord_core::client::{Client, connect};
use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;

fn client() -> Client {
    block_on(connect("memory:")).expect("the memory store opens")
}

fn acquire_and_release(criterion: &mut Criterion) {
    let client = client();
    let lock = client.lock("calls").expect("a valid name");
    criterion.bench_function("memory: acquire + release", |b| {
        b.iter(|| block_on(async { lock.acquire().await.expect("free").release().await.expect("held") }));
    });
    criterion.bench_function("memory: try_acquire + release", |b| {
        b.iter(|| block_on(async { lock.try_acquire().await.expect("free").release().await.expect("held") }));
    });
}

fn questions(criterion: &mut Criterion) {
    let client = client();
    let lock = client.lock("calls").expect("a valid name");
    let held = block_on(lock.acquire()).expect("free");
    criterion.bench_function("Held::check", |b| b.iter(|| black_box(&held).check()));
    criterion.bench_function("Held::remaining", |b| b.iter(|| black_box(&held).remaining()));
    criterion.bench_function("Held::token", |b| b.iter(|| black_box(&held).token()));
    criterion.bench_function("Client::stats", |b| b.iter(|| black_box(&client).stats()));
    criterion.bench_function("Client::session", |b| b.iter(|| black_box(&client).session()));
    criterion.bench_function("Client::lock", |b| b.iter(|| black_box(&client).lock("another")));
}

criterion_group!(benches, acquire_and_release, questions);
criterion_main!(benches);
