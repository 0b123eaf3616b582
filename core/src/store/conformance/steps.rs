//! The rarer steps of a claim: transfer, eviction, announced breaks, published values, the dead, collection.

use super::{Bench, Calls, ClaimStep, MAX_QUEUE, Step, cases, eventually};
use crate::protocol::claim::Entry;

cases![
    transfer_goes_to_the_chosen,
    transfer_to_nobody_is_refused,
    eviction_is_of_one_hold,
    break_is_announced_to_one_hold,
    value_belongs_to_one_grant,
    dead_sessions_entries_go,
    step_removes_and_adds_at_once,
    refused_steps_create_nothing,
    collection_spares_what_is_used,
    collection_never_brings_a_token_back,
];

async fn transfer_goes_to_the_chosen(bench: &Bench) {
    let (key, [holder, a, b, c]) = (bench.key("transfer"), four(bench));
    let mut last = 0;
    for entry in [holder, a, b, c] {
        last = bench.first.acquire(&key, entry).await.token;
    }
    let view = bench.second.step(&key, Step::transfer(holder, b)).await.expect("applies");
    assert_eq!((view.holder, view.head), (Some(b), vec![a, c]), "the others keep their order");
    assert!(view.token > last);
    let again = bench.second.step(&key, Step::transfer(holder, b)).await;
    assert_eq!(again, None, "it is handed over already");
    assert_eq!(bench.first.release(&key, b).await.expect("released").holder, Some(a));
}

async fn transfer_to_nobody_is_refused(bench: &Bench) {
    let (key, [holder, waiter, absent, _]) = (bench.key("transfer-refused"), four(bench));
    let granted = bench.first.acquire(&key, holder).await;
    bench.first.acquire(&key, waiter).await;
    for step in [Step::transfer(holder, absent), Step::transfer(waiter, holder), Step::transfer(holder, holder)] {
        assert_eq!(bench.second.step(&key, step).await, None);
    }
    let view = bench.first.acquire(&key, waiter).await;
    assert_eq!((view.holder, view.token, view.queue_len), (Some(holder), granted.token, 1), "still the leader");
}

async fn eviction_is_of_one_hold(bench: &Bench) {
    let (key, [holder, waiter, ..]) = (bench.key("evict"), four(bench));
    let token = bench.first.acquire(&key, holder).await.token;
    bench.first.acquire(&key, waiter).await;
    for step in [Step::evict(holder, token - 1), Step::evict(holder, token + 1), Step::evict(waiter, token)] {
        assert_eq!(bench.second.step(&key, step).await, None, "another hold than the one that was read");
    }
    let view = bench.second.step(&key, Step::evict(holder, token)).await.expect("applies");
    assert_eq!(view.holder, Some(waiter));
    assert!(view.token > token);
    assert_eq!(bench.second.step(&key, Step::evict(holder, token)).await, None, "it is evicted already");
}

async fn break_is_announced_to_one_hold(bench: &Bench) {
    let (key, [holder, waiter, ..]) = (bench.key("break"), four(bench));
    let announce = |token| ClaimStep::AnnounceBreak { token };
    let token = bench.first.acquire(&key, holder).await.token;
    bench.first.acquire(&key, waiter).await;
    assert_eq!(bench.second.step(&key, announce(token + 1)).await, None);
    for _ in 0..2 {
        let view = bench.second.step(&key, announce(token)).await.expect("applies");
        assert_eq!((view.holder, view.token), (Some(holder), token), "announced is not yet broken");
    }
    let reads = |breaking: Option<Entry>| {
        let key = key.clone();
        async move {
            eventually(
                "the announced break",
                || bench.second.read(&key),
                |read| read.as_ref().is_some_and(|r| r.breaking == breaking),
            )
            .await
        }
    };
    reads(Some(holder)).await;
    let handed = bench.first.release(&key, holder).await.expect("released");
    let record = reads(None).await.expect("is there");
    assert_eq!((record.holder, record.token), (Some(waiter), handed.token), "a grant ends the announcement");

    let freed = bench.first.release(&key, waiter).await.expect("released");
    assert_eq!(bench.second.step(&key, announce(freed.token)).await, None, "a free claim has nobody to ask");
}

async fn value_belongs_to_one_grant(bench: &Bench) {
    let (key, [holder, waiter, ..]) = (bench.key("value"), four(bench));
    let publish = |holder, token, value: &str| ClaimStep::Publish { holder, token, value: value.to_owned() };
    let token = bench.first.acquire(&key, holder).await.token;
    bench.first.acquire(&key, waiter).await;
    let view = bench.first.step(&key, publish(holder, token, "one")).await.expect("applies");
    assert_eq!((view.holder, view.token, view.queue_len), (Some(holder), token, 1));
    bench.first.step(&key, publish(holder, token, "two")).await.expect("applies again");
    for refused in [publish(waiter, token, "x"), publish(holder, token + 1, "x"), publish(holder, token - 1, "x")] {
        assert_eq!(bench.second.step(&key, refused).await, None);
    }
    let value = |expected: Option<&'static str>| {
        let key = key.clone();
        async move {
            eventually(
                "the value",
                || bench.second.read(&key),
                |read| read.as_ref().is_some_and(|r| r.value.as_deref() == expected),
            )
            .await;
        }
    };
    value(Some("two")).await;
    bench.first.release(&key, holder).await.expect("released");
    value(None).await;
    assert_eq!(bench.first.step(&key, publish(holder, token, "late")).await, None, "its term has ended");
}

async fn dead_sessions_entries_go(bench: &Bench) {
    let (key, dead, other) = (bench.key("dead"), Bench::session_id(), Bench::session_id());
    let [held, queued] = [bench.entry(dead), bench.entry(dead)];
    let [first, gone, last] = [bench.stranger(), bench.entry(other), bench.stranger()];
    for entry in [held, queued, first, gone, last] {
        bench.first.acquire(&key, entry).await;
    }
    let view = bench.second.step(&key, Step::sweep(dead)).await.expect("applies");
    assert_eq!((view.holder, view.head), (Some(first), vec![gone, last]), "every entry of it, and no other");
    let again = bench.second.step(&key, Step::sweep(dead)).await.expect("applies");
    assert_eq!((again.holder, again.token), (Some(first), view.token), "a second sweep finds nothing");

    let released = bench.first.step(&key, Step::remove(first, vec![other])).await.expect("released");
    assert_eq!((released.holder, released.queue_len), (Some(last), 0), "not handed to one known to be dead");
}

async fn step_removes_and_adds_at_once(bench: &Bench) {
    let (key, [old, waiter, new, _]) = (bench.key("replace"), four(bench));
    bench.first.acquire(&key, old).await;
    let replace = |old, new| Step { remove: vec![old], ..Step::acquire(new, true, MAX_QUEUE, Vec::new()) };
    let renewed = bench.first.step(&key, replace(old, new)).await.expect("applies");
    assert_eq!(renewed.holder, Some(new), "alone, it gets it back at once");
    bench.first.acquire(&key, waiter).await;
    let behind = bench.first.step(&key, replace(new, old)).await.expect("applies");
    assert_eq!((behind.holder, behind.head, behind.waiting), (Some(waiter), vec![old], true), "behind who waits");
}

async fn refused_steps_create_nothing(bench: &Bench) {
    let (key, [me, other, ..]) = (bench.key("nothing"), four(bench));
    let refused = [
        ClaimStep::from(Step::remove(me, Vec::new())),
        Step::remove(me, vec![other.session]).into(),
        Step::transfer(me, other).into(),
        Step::evict(me, 0).into(),
        ClaimStep::AnnounceBreak { token: 0 },
        ClaimStep::Publish { holder: me, token: 0, value: String::new() },
        ClaimStep::Collect,
    ];
    for step in refused {
        assert_eq!(bench.first.step(&key, step.clone()).await, None, "{step:?}");
        assert_eq!(bench.first.read(&key).await, None, "{step:?}");
    }
}

async fn collection_spares_what_is_used(bench: &Bench) {
    let (key, [holder, waiter, ..]) = (bench.key("collect-used"), four(bench));
    bench.first.acquire(&key, holder).await;
    assert_eq!(bench.second.step(&key, ClaimStep::Collect).await, None, "it is held");
    bench.first.acquire(&key, waiter).await;
    assert_eq!(bench.second.step(&key, ClaimStep::Collect).await, None, "it is waited for");
    let handed = bench.first.release(&key, holder).await.expect("released");
    assert_eq!(handed.holder, Some(waiter));
}

/// A store may refuse to collect while its floor has not passed the token; it must not do so for ever.
async fn collection_never_brings_a_token_back(bench: &Bench) {
    let key = bench.key("collect");
    let mut last = 0;
    for _ in 0..2 {
        let me = bench.stranger();
        let granted = bench.first.acquire(&key, me).await.token;
        assert!(granted > last, "{granted} after {last}, with a collection between");
        bench.first.release(&key, me).await.expect("released");
        let collect = || async {
            let collected = bench.second.step(&key, ClaimStep::Collect).await;
            if collected.is_none() {
                // Moves the logical clock of a store that has one.
                bench.second.acquire(&bench.key("clock"), bench.stranger()).await;
            }
            collected
        };
        eventually("the collection of a free claim", collect, |collected| collected.is_some()).await;
        eventually("no record", || bench.first.read(&key), |read| read.is_none()).await;
        assert_eq!(bench.first.step(&key, ClaimStep::Collect).await, None, "it is gone already");
        last = granted;
    }
}

fn four(bench: &Bench) -> [Entry; 4] {
    std::array::from_fn(|_| bench.stranger())
}
