//! The edges: unusual names, large values, extreme numbers, health, and the end.

use super::{Bench, Calls, ClaimQuery, ClaimStep, Entry, SessionQuery, SessionStep, Step, cases, eventually};
use crate::error::Code;
use crate::protocol::claim::{ClaimKey, Priority};
use crate::protocol::session::SessionInfo;

cases![
    odd_names_are_names,
    values_are_kept_exactly,
    extreme_numbers_are_kept,
    health_is_reported,
    closed_is_closed,
    abandoned_calls_do_no_harm,
];

async fn odd_names_are_names(bench: &Bench) {
    let long = "n".repeat(200);
    let names = [
        "a.b",
        "a:b",
        "a@b",
        "a+b",
        "a=b",
        "a-b",
        "a_b",
        "A_B",
        "0",
        "a..b",
        "1e9",
        "null",
        "true",
        "_id",
        "N",
        long.as_str(),
    ];
    let mut granted = Vec::new();
    for name in names {
        let (key, entry) = (bench.key(name), bench.stranger());
        let view = bench.first.acquire(&key, entry).await;
        assert_eq!(view.holder, Some(entry), "'{name}' is a claim of its own");
        granted.push((key, entry));
    }
    for (key, entry) in granted {
        let read = eventually(key.as_str(), || bench.second.read(&key), |read| read.is_some()).await.expect("read");
        assert_eq!((&read.key, read.holder), (&key, Some(entry)));
        assert_eq!(bench.second.release(&key, entry).await.expect("released").holder, None);
    }
    let elsewhere = ClaimKey::new(bench.key("a.b").as_str().replacen("lock/", "election/", 1));
    let me = bench.stranger();
    assert_eq!(bench.first.acquire(&elsewhere, me).await.holder, Some(me), "the kind is part of the key");
}

async fn values_are_kept_exactly(bench: &Bench) {
    let (key, holder) = (bench.key("values"), bench.stranger());
    let token = bench.first.acquire(&key, holder).await.token;
    let large: String = "0123456789abcd\u{e9}".chars().cycle().take(60_000).collect();
    let full = "v".repeat(64 * 1024);
    for value in [
        "",
        "$own",
        "$$NOW",
        "{\"$set\":1}",
        "'; DROP TABLE claims; --",
        "a\nb\t\"\\",
        "\u{1f512}\u{5d0}",
        &large,
        &full,
    ] {
        let publish = ClaimStep::Publish { holder, token, value: value.to_owned() };
        bench.first.step(&key, publish).await.expect("published");
        eventually(
            "the value that was published",
            || bench.second.read(&key),
            |read| read.as_ref().is_some_and(|record| record.value.as_deref() == Some(value)),
        )
        .await;
    }
}

async fn extreme_numbers_are_kept(bench: &Bench) {
    let key = bench.key("numbers");
    let entry = |attempt, priority| Entry { session: Bench::session_id(), attempt, priority };
    let entries = [
        entry(u64::MAX, Priority::MIN),
        entry(1 << 63, Priority::MAX),
        entry(0, Priority::default()),
        entry(u64::MAX, Priority::MIN),
    ];
    for entry in entries {
        bench.first.acquire(&key, entry).await;
    }
    let read = eventually(
        "all entries",
        || bench.second.read(&key),
        |read| read.as_ref().is_some_and(|record| record.waiters.len() == 3),
    )
    .await
    .expect("read");
    assert_eq!((read.holder, read.waiters), (Some(entries[0]), entries[1..].to_vec()));
    assert_eq!(bench.first.step(&key, Step::evict(entries[0], i64::MAX)).await, None);
    assert_eq!(bench.first.step(&key, Step::evict(entries[0], i64::MIN)).await, None);
}

async fn health_is_reported(bench: &Bench) {
    super::unwrap("health", bench.first.health().await);
    let can = bench.first.capabilities();
    assert_eq!(can, bench.second.capabilities(), "two handles on one store");
    assert!(can.multi_process || !can.multi_host, "what many hosts can use, many processes can");
}

async fn closed_is_closed(bench: &Bench) {
    let (store, key, id) = (&bench.spare, bench.key("closed"), Bench::session_id());
    let holder = bench.entry(id);
    let granted = store.acquire(&key, holder).await;
    store.close().await;
    store.close().await;

    let open = SessionStep::Open { nonce: Bench::nonce(), ttl: super::TTL, info: SessionInfo::default() };
    let remove = Step::remove(holder, Vec::new()).into();
    let codes = [
        ("apply_session", store.apply_session(id, open).await.err()),
        ("apply_claim", store.apply_claim(key.clone(), remove).await.err()),
        ("sessions", store.sessions(SessionQuery::Live).await.err()),
        ("claims", store.claims(ClaimQuery::Of(id)).await.err()),
        ("notices", store.notices(id).await.err()),
        ("health", store.health().await.err()),
    ];
    for (call, error) in codes {
        assert_eq!(error.map(|error| error.code()), Some(Code::Closed), "{call} after close");
    }
    let still = bench.first.acquire(&key, holder).await;
    assert_eq!((still.holder, still.token), (granted.holder, granted.token), "the others and the records stay");
}

/// What a dropped future began may happen or not, once or not at all; the store goes on either way.
async fn abandoned_calls_do_no_harm(bench: &Bench) {
    let key = bench.key("abandoned");
    for round in 0..20 {
        let (me, next) = (bench.stranger(), bench.stranger());
        let abandoned = bench.first.apply_claim(key.clone(), Step::acquire(me, true, 10, Vec::new()).into());
        if round % 2 == 0 {
            drop(abandoned);
        } else {
            // Polled once, then dropped.
            let _ = futures::FutureExt::now_or_never(abandoned);
        }
        let resent = bench.first.acquire(&key, me).await;
        assert_eq!((resent.holder, resent.queue_len), (Some(me), 0), "sent again, it is the same attempt");
        assert!(bench.second.acquire(&key, next).await.waiting);
        assert_eq!(bench.first.release(&key, me).await.expect("released").holder, Some(next));
        bench.first.release(&key, next).await.expect("released");
    }
}
