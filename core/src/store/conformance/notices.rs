//! Notices: a session hears of its own grants and breaks, whoever caused them, and of nobody else's.

use super::{Bench, Calls, ClaimStep, Listener, Notice, SharedStore, Step, cases};
use crate::protocol::claim::{ClaimKey, Entry};
use crate::protocol::session::SessionId;

cases![
    notice_of_a_grant_by_release,
    notice_of_a_hand_over_through_another_handle,
    notice_of_a_grant_by_sweep_transfer_and_eviction,
    notices_of_several_claims_in_one_stream,
    notice_of_an_announced_break,
    notices_reach_every_stream_of_a_session,
];

async fn notice_of_a_grant_by_release(bench: &Bench) {
    let (me, key) = (opened(&bench.first).await, bench.key("release"));
    let mut listener = Listener::new(&bench.first, me).await;
    let grant = granted(&bench.first, &key, bench.entry(me)).await;
    listener.expect(&bench.first, &grant, &[]).await;
}

async fn notice_of_a_hand_over_through_another_handle(bench: &Bench) {
    let (key, me, other) = (bench.key("hand-over"), opened(&bench.first).await, opened(&bench.second).await);
    let mut mine = Listener::new(&bench.first, me).await;
    let mut theirs = Listener::new(&bench.second, other).await;
    let (holder, waiter) = (bench.entry(other), bench.entry(me));
    let first = granted(&bench.second, &key, holder).await;
    bench.first.acquire(&key, waiter).await;
    let token = bench.second.release(&key, holder).await.expect("released").token;
    mine.expect(&bench.first, &Notice::Granted { key: key.clone(), entry: waiter, token }, &[]).await;

    // The other's next notice is its own next grant: it heard nothing of the hand-over.
    theirs.expect(&bench.second, &first, &[]).await;
    let second = granted(&bench.second, &bench.key("hand-over-2"), bench.entry(other)).await;
    theirs.expect(&bench.second, &second, &[first]).await;
}

async fn notice_of_a_grant_by_sweep_transfer_and_eviction(bench: &Bench) {
    let me = opened(&bench.first).await;
    let mut listener = Listener::new(&bench.first, me).await;
    let mut told = Vec::new();
    for name in ["swept", "transferred", "evicted"] {
        let (key, holder, waiter) = (bench.key(name), bench.stranger(), bench.entry(me));
        let token = bench.second.acquire(&key, holder).await.token;
        bench.first.acquire(&key, waiter).await;
        let step = match name {
            "swept" => Step::sweep(holder.session),
            "transferred" => Step::transfer(holder, waiter),
            _ => Step::evict(holder, token),
        };
        let token = bench.second.step(&key, step).await.expect("applies").token;
        let grant = Notice::Granted { key, entry: waiter, token };
        listener.expect(&bench.first, &grant, &told).await;
        told.push(grant);
    }
}

async fn notices_of_several_claims_in_one_stream(bench: &Bench) {
    let me = opened(&bench.first).await;
    let mut listener = Listener::new(&bench.first, me).await;
    let mut told = Vec::new();
    for round in 0..20 {
        let store = if round % 2 == 0 { &bench.first } else { &bench.second };
        let grant = granted(store, &bench.key(&format!("several-{round}")), bench.entry(me)).await;
        listener.expect(&bench.first, &grant, &told).await;
        told.push(grant);
    }
}

async fn notice_of_an_announced_break(bench: &Bench) {
    let (me, key) = (opened(&bench.first).await, bench.key("break"));
    let mut listener = Listener::new(&bench.first, me).await;
    let entry = bench.entry(me);
    let token = bench.first.acquire(&key, entry).await.token;
    let grant = Notice::Granted { key: key.clone(), entry, token };
    bench.second.step(&key, ClaimStep::AnnounceBreak { token }).await.expect("announced");
    listener.expect(&bench.first, &Notice::Breaking { key, entry, token }, &[grant]).await;
}

async fn notices_reach_every_stream_of_a_session(bench: &Bench) {
    let (me, key) = (opened(&bench.first).await, bench.key("streams"));
    let mut dropped = Listener::new(&bench.first, me).await;
    let mut kept = Listener::new(&bench.first, me).await;
    let first = granted(&bench.first, &key, bench.entry(me)).await;
    dropped.expect(&bench.first, &first, &[]).await;
    kept.expect(&bench.first, &first, &[]).await;
    drop(dropped);
    let second = granted(&bench.first, &bench.key("streams-2"), bench.entry(me)).await;
    kept.expect(&bench.first, &second, &[first]).await;
}

async fn opened(store: &SharedStore) -> SessionId {
    let id = Bench::session_id();
    store.open(id, Bench::nonce()).await;
    id
}

/// Lets a claim go from somebody else to this entry; the notice that this causes.
async fn granted(store: &SharedStore, key: &ClaimKey, entry: Entry) -> Notice {
    let before = Entry { session: Bench::session_id(), ..entry };
    store.acquire(key, before).await;
    store.acquire(key, entry).await;
    let token = store.release(key, before).await.expect("released").token;
    Notice::Granted { key: key.clone(), entry, token }
}
