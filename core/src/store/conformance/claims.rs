//! Claims: one holder, waiters in order, direct hand-over, tokens that grow.

use super::{Bench, Calls, ClaimStep, MAX_QUEUE, Step, cases, eventually};
use crate::protocol::claim::{ClaimView, Entry, HEAD};

cases![
    claim_is_granted_when_free,
    claim_waiters_are_granted_in_order,
    claim_priority_comes_before_arrival,
    claim_try_is_granted_or_leaves_no_trace,
    claim_try_never_queues_behind_the_dead,
    claim_acquire_resent_changes_nothing,
    claim_release_resent_changes_nothing,
    claim_waiter_cancels,
    claim_release_of_a_stale_entry_has_no_effect,
    claim_two_attempts_of_a_session_are_two_entries,
    claim_queue_has_a_limit,
    claim_tokens_strictly_increase,
    claim_has_one_holder_among_rivals,
    claim_many_waiters,
];

async fn claim_is_granted_when_free(bench: &Bench) {
    let (key, me) = (bench.key("free"), bench.stranger());
    let view = bench.first.acquire(&key, me).await;
    assert_eq!((view.holder, view.waiting, view.queue_len, view.head), (Some(me), false, 0, vec![]));
    assert!(view.token > 0, "the first token is above that of a claim that was never granted");
    let record = eventually("the grant", || bench.second.read(&key), |read| read.is_some()).await.expect("is there");
    assert_eq!((record.key, record.holder, record.token), (key, Some(me), view.token));
    assert_eq!((record.granted_at, record.value, record.breaking), (view.granted_at, None, None));
}

async fn claim_waiters_are_granted_in_order(bench: &Bench) {
    let key = bench.key("fifo");
    let entries: Vec<Entry> = (0..HEAD + 3).map(|_| bench.stranger()).collect();
    for (place, entry) in entries.iter().enumerate() {
        let store = if place % 2 == 0 { &bench.first } else { &bench.second };
        let view = store.acquire(&key, *entry).await;
        assert_eq!((view.holder, view.waiting), (Some(entries[0]), place > 0));
        assert_eq!(view.queue_len as usize, place);
        assert_eq!(view.head, entries[1..=place].iter().take(HEAD).copied().collect::<Vec<_>>());
    }
    for pair in entries.windows(2) {
        let view = bench.first.release(&key, pair[0]).await.expect("the holder releases");
        assert_eq!(view.holder, Some(pair[1]), "handed over in the same step");
    }
    let last = bench.second.release(&key, entries[entries.len() - 1]).await.expect("the last releases");
    assert_eq!((last.holder, last.queue_len), (None, 0));
}

async fn claim_priority_comes_before_arrival(bench: &Bench) {
    let key = bench.key("priority");
    let with = |priority| bench.entry_with(Bench::session_id(), priority);
    let holder = with(-2048);
    bench.first.acquire(&key, holder).await;
    let arrivals = [with(0), with(-7), with(2047), with(0), with(-2048), with(1), with(2047)];
    for entry in arrivals {
        assert_eq!(bench.second.acquire(&key, entry).await.holder, Some(holder), "a priority does not pre-empt");
    }
    let [a, b, c, d, e, f, g] = arrivals;
    let mut current = holder;
    for next in [c, g, f, a, d, b, e] {
        let view = bench.first.release(&key, current).await.expect("the holder releases");
        assert_eq!(view.holder, Some(next), "the highest priority, and of these the first to come");
        current = next;
    }
}

async fn claim_try_is_granted_or_leaves_no_trace(bench: &Bench) {
    let (key, holder, waiter, me) = (bench.key("try"), bench.stranger(), bench.stranger(), bench.stranger());
    assert_eq!(bench.first.step(&key, try_acquire(holder)).await.expect("applies").holder, Some(holder));
    let busy = bench.second.step(&key, try_acquire(me)).await.expect("applies");
    assert_eq!((busy.holder, busy.waiting, busy.queue_len), (Some(holder), false, 0));
    bench.first.acquire(&key, waiter).await;
    let busy = bench.second.step(&key, try_acquire(me)).await.expect("applies");
    assert_eq!((busy.waiting, busy.head), (false, vec![waiter]));
    let own = bench.second.step(&key, try_acquire(waiter)).await.expect("applies");
    assert_eq!((own.waiting, own.queue_len), (true, 1), "one that waits already keeps its place");
}

/// The step that clears a dead holder away grants to the head of the queue: whoever only tried must not stay in it.
async fn claim_try_never_queues_behind_the_dead(bench: &Bench) {
    let (key, holder, waiter, me) = (bench.key("try-dead"), bench.stranger(), bench.stranger(), bench.stranger());
    let before = bench.first.acquire(&key, holder).await;
    bench.first.acquire(&key, waiter).await;
    let purge = Step::acquire(me, false, MAX_QUEUE, vec![holder.session]);
    let view = bench.second.step(&key, purge).await.expect("applies");
    assert_eq!((view.holder, view.waiting, view.queue_len), (Some(waiter), false, 0));
    assert!(view.token > before.token);
    let freed = bench.first.release(&key, waiter).await.expect("released");
    assert_eq!(freed.holder, None, "nobody was left behind in the queue");

    bench.first.acquire(&key, holder).await;
    let alone = Step::acquire(me, false, MAX_QUEUE, vec![holder.session]);
    assert_eq!(bench.second.step(&key, alone).await.expect("applies").holder, Some(me), "nobody waited");
}

async fn claim_acquire_resent_changes_nothing(bench: &Bench) {
    let (key, holder, waiter, last) = (bench.key("resend"), bench.stranger(), bench.stranger(), bench.stranger());
    let granted = bench.first.acquire(&key, holder).await;
    assert_eq!(bench.second.acquire(&key, holder).await, granted, "the holder asks again");
    assert_eq!(bench.second.step(&key, try_acquire(holder)).await, Some(granted), "even with a try");
    bench.first.acquire(&key, waiter).await;
    let queued = bench.first.acquire(&key, last).await;
    let again = bench.second.acquire(&key, waiter).await;
    assert_eq!((again.head, again.queue_len, again.waiting), (queued.head, 2, true), "a waiter keeps its place");
}

async fn claim_release_resent_changes_nothing(bench: &Bench) {
    let (key, holder, waiter) = (bench.key("release"), bench.stranger(), bench.stranger());
    assert_eq!(bench.first.release(&key, holder).await, None, "nothing is there to release");
    bench.first.acquire(&key, holder).await;
    bench.first.acquire(&key, waiter).await;
    let handed = bench.first.release(&key, holder).await.expect("released");
    assert_eq!(bench.second.release(&key, holder).await, None, "it is released already");
    let record = eventually(
        "the hand-over",
        || bench.second.read(&key),
        |read| read.as_ref().is_some_and(|r| r.holder == Some(waiter)),
    )
    .await
    .expect("is there");
    assert_eq!((record.token, record.waiters), (handed.token, vec![]));
}

async fn claim_waiter_cancels(bench: &Bench) {
    let key = bench.key("cancel");
    let [holder, first, second] = [bench.stranger(), bench.stranger(), bench.stranger()];
    let granted = bench.first.acquire(&key, holder).await;
    bench.first.acquire(&key, first).await;
    bench.second.acquire(&key, second).await;
    let view = bench.first.release(&key, first).await.expect("a waiter is involved");
    assert_eq!((view.holder, view.token, view.head), (Some(holder), granted.token, vec![second]));
    assert_eq!(bench.first.release(&key, holder).await.expect("released").holder, Some(second));
}

async fn claim_release_of_a_stale_entry_has_no_effect(bench: &Bench) {
    let (key, session) = (bench.key("stale"), Bench::session_id());
    let (old, new) = (bench.entry(session), bench.entry(session));
    bench.first.acquire(&key, old).await;
    bench.first.release(&key, old).await.expect("released");
    let granted = bench.first.acquire(&key, new).await;
    assert_eq!(bench.second.release(&key, old).await, None, "a late release of an earlier attempt");
    assert_eq!(bench.second.acquire(&key, new).await, granted);
}

async fn claim_two_attempts_of_a_session_are_two_entries(bench: &Bench) {
    let (key, session) = (bench.key("attempts"), Bench::session_id());
    let (one, two) = (bench.entry(session), bench.entry(session));
    bench.first.acquire(&key, one).await;
    let view = bench.first.acquire(&key, two).await;
    assert_eq!((view.holder, view.waiting), (Some(one), true), "a claim is not re-entrant");
    assert_eq!(bench.first.release(&key, one).await.expect("released").holder, Some(two));
}

async fn claim_queue_has_a_limit(bench: &Bench) {
    let (key, holder) = (bench.key("limit"), bench.stranger());
    let limited = |entry| Step::acquire(entry, true, 2, Vec::new());
    let [a, b, c] = [bench.stranger(), bench.stranger(), bench.stranger()];
    for (entry, waits) in [(holder, false), (a, true), (b, true), (c, false)] {
        let view = bench.first.step(&key, limited(entry)).await.expect("applies");
        assert_eq!((view.holder, view.waiting), (Some(holder), waits));
    }
    let again = bench.first.step(&key, limited(a)).await.expect("applies");
    assert_eq!((again.waiting, again.head), (true, vec![a, b]), "who waits already is not refused");
    bench.second.release(&key, a).await.expect("cancelled");
    assert!(bench.first.step(&key, limited(c)).await.expect("applies").waiting, "there is room again");
}

async fn claim_tokens_strictly_increase(bench: &Bench) {
    let key = bench.key("tokens");
    let mut last = 0;
    for round in 0..20 {
        let (me, next) = (bench.stranger(), bench.stranger());
        let store = if round % 2 == 0 { &bench.first } else { &bench.second };
        let granted = store.acquire(&key, me).await.token;
        assert!(granted > last, "{granted} after {last}");
        assert_eq!(store.acquire(&key, next).await.token, granted, "a waiter is no grant");
        let handed = store.release(&key, me).await.expect("released").token;
        assert!(handed > granted, "{handed} after {granted}");
        let freed = store.release(&key, next).await.expect("released").token;
        assert_eq!(freed, handed, "a free claim keeps the token of its last grant");
        last = handed;
    }
}

async fn claim_has_one_holder_among_rivals(bench: &Bench) {
    let key = bench.key("rivals");
    let entries: Vec<Entry> = (0..24).map(|_| bench.stranger()).collect();
    let tries = entries.iter().enumerate().map(|(place, entry)| {
        let store = if place % 2 == 0 { &bench.first } else { &bench.second };
        store.step(&key, try_acquire(*entry))
    });
    let views: Vec<ClaimView> = futures::future::join_all(tries).await.into_iter().flatten().collect();
    assert_eq!(views.len(), entries.len());
    let winner = views[0].holder.expect("somebody won");
    assert!(entries.contains(&winner));
    for view in views {
        assert_eq!((view.holder, view.queue_len), (Some(winner), 0), "all saw the same winner");
    }
}

async fn claim_many_waiters(bench: &Bench) {
    use futures::stream::{StreamExt, iter};

    let (key, holder) = (bench.key("many"), bench.stranger());
    bench.first.acquire(&key, holder).await;
    let entries: Vec<Entry> = (0..MAX_QUEUE).map(|_| bench.stranger()).collect();
    iter(entries.iter().enumerate())
        .for_each_concurrent(16, |(place, entry)| {
            let store = if place % 2 == 0 { bench.first.clone() } else { bench.second.clone() };
            let key = key.clone();
            async move { assert!(store.acquire(&key, *entry).await.waiting) }
        })
        .await;
    let full = bench.first.acquire(&key, bench.stranger()).await;
    assert_eq!((full.holder, full.waiting, full.queue_len), (Some(holder), false, MAX_QUEUE));

    let record = eventually(
        "all waiters",
        || bench.second.read(&key),
        |read| read.as_ref().is_some_and(|r| r.waiters.len() == entries.len()),
    )
    .await
    .expect("is there");
    let mut queue = record.waiters;
    assert_eq!(full.head, queue[..HEAD]);
    let handed = bench.second.release(&key, holder).await.expect("released");
    assert_eq!((handed.holder, handed.queue_len), (Some(queue[0]), MAX_QUEUE - 1));
    assert_eq!(handed.head, queue[1..=HEAD]);

    // The second half of those that are left dies at once, with the holder.
    let dead = queue.iter().take(1).chain(&queue[500..]).map(|entry| entry.session).collect();
    let step = Step { dead, ..Step::sweep(holder.session) };
    let swept = bench.first.step(&key, step).await.expect("applies");
    assert_eq!((swept.holder, swept.queue_len), (Some(queue[1]), 498));

    queue.sort_unstable();
    let mut sent = entries;
    sent.sort_unstable();
    assert_eq!(queue, sent, "nobody was lost, nobody came twice");
}

fn try_acquire(entry: Entry) -> ClaimStep {
    ClaimStep::Step(Step::acquire(entry, false, MAX_QUEUE, Vec::new()))
}
