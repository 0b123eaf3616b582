//! Reads: each query finds all that it asks for and nothing else.

use super::{Bench, Calls, ClaimQuery, SessionQuery, SessionStep, cases, eventually, unwrap};
use crate::protocol::claim::{ClaimKey, ClaimRecord};
use crate::protocol::session::SessionId;
use crate::time::WallTime;

cases![
    read_sessions_by_id,
    read_live_sessions,
    read_claims_by_key,
    read_claims_of_a_session_at_once,
    read_claims_by_prefix,
    read_prefix_is_no_pattern,
    read_unused_claims,
];

async fn read_sessions_by_id(bench: &Bench) {
    let [a, b, missing] = [Bench::session_id(), Bench::session_id(), Bench::session_id()];
    let opened = [bench.first.open(a, Bench::nonce()).await, bench.first.open(b, Bench::nonce()).await];
    let read = || async {
        let mut found = unwrap("sessions", bench.second.sessions(SessionQuery::Ids(vec![missing, b, a])).await);
        found.sort_by_key(|session| session.id != a);
        found
    };
    eventually("both sessions", read, |found| *found == opened).await;
    let none = unwrap("sessions", bench.first.sessions(SessionQuery::Ids(vec![])).await);
    assert_eq!(none, vec![], "no id asks for none, not for all");
}

async fn read_live_sessions(bench: &Bench) {
    let [live, closed] = [Bench::session_id(), Bench::session_id()];
    let opened = bench.first.open(live, Bench::nonce()).await;
    bench.first.open(closed, Bench::nonce()).await;
    bench.first.session(closed, SessionStep::Close).await.expect("closed");
    let read = || async {
        let all = unwrap("sessions", bench.second.sessions(SessionQuery::Live).await);
        let ours = all.into_iter().filter(|session| [live, closed].contains(&session.id));
        ours.collect::<Vec<_>>()
    };
    eventually("the live one alone", read, |found| *found == [opened.clone()]).await;
}

async fn read_claims_by_key(bench: &Bench) {
    let [a, b, missing] = [bench.key("a"), bench.key("b"), bench.key("missing")];
    let holder = bench.stranger();
    for key in [&a, &b] {
        bench.first.acquire(key, holder).await;
        bench.first.acquire(key, bench.stranger()).await;
    }
    let query = ClaimQuery::Keys(vec![missing, b.clone(), a.clone()]);
    let read = || async { sorted_keys(&unwrap("claims", bench.second.claims(query.clone()).await)) };
    eventually("both claims", read, |found| *found == [a.clone(), b.clone()]).await;
    let found = unwrap("claims", bench.first.claims(ClaimQuery::Keys(vec![a])).await);
    assert_eq!((found[0].holder, found[0].waiters.len()), (Some(holder), 1));
    let none = unwrap("claims", bench.first.claims(ClaimQuery::Keys(vec![])).await);
    assert_eq!(none, vec![], "no key asks for none, not for all");
}

/// The audit of a session stands on this: what its own store has acknowledged, it reads.
async fn read_claims_of_a_session_at_once(bench: &Bench) {
    let me = Bench::session_id();
    for round in 0..10 {
        let [held, waited, other] = ["held", "waited", "other"].map(|name| bench.key(&format!("{name}-{round}")));
        bench.first.acquire(&held, bench.entry(me)).await;
        bench.first.acquire(&waited, bench.stranger()).await;
        bench.first.acquire(&waited, bench.entry(me)).await;
        bench.first.acquire(&other, bench.stranger()).await;
        assert_eq!(keys_of(bench, ClaimQuery::Of(me)).await, [held.clone(), waited.clone()]);
        assert_eq!(keys_of(bench, ClaimQuery::HeldBy(me)).await, std::slice::from_ref(&held));
        for key in [&held, &waited] {
            bench.first.step(key, super::Step::sweep(me)).await.expect("swept");
        }
        assert_eq!(keys_of(bench, ClaimQuery::Of(me)).await, [], "nothing is left of it");
        assert_eq!(keys_of(bench, ClaimQuery::HeldBy(me)).await, []);
    }
    let neighbour = keys_of(bench, ClaimQuery::Of(Bench::session_id())).await;
    assert_eq!(neighbour, [], "a session that has nothing");
}

async fn read_claims_by_prefix(bench: &Bench) {
    let names = ["t/c", "t/a", "t/b/deep", "t", "u/a"];
    for name in names {
        bench.first.acquire(&bench.key(name), bench.stranger()).await;
    }
    let expected = ["t/a", "t/b/deep", "t/c"].map(|name| bench.key(name));
    let read = |prefix: &'static str| {
        let query = ClaimQuery::Prefix(format!("{}{prefix}", bench.prefix()));
        async move { keys(&unwrap("claims", bench.second.claims(query).await)) }
    };
    eventually("those below t/, in order", || read("t/"), |found| *found == expected).await;
    eventually("all", || read(""), |found| found.len() == names.len()).await;
    assert_eq!(read("t/b/deeper").await, []);
}

/// What means something in a regular expression or a `LIKE` is an ordinary character here; case counts.
async fn read_prefix_is_no_pattern(bench: &Bench) {
    let wanted = ["a_b/1", "a.b/1", "a+b/1"];
    for name in wanted.into_iter().chain(["axb/1", "A_B/1", "aab/1", "ab/1"]) {
        bench.first.acquire(&bench.key(name), bench.stranger()).await;
    }
    for name in wanted {
        let query = ClaimQuery::Prefix(bench.key(&name[..3]).as_str().to_owned());
        let read = || async { keys(&unwrap("claims", bench.second.claims(query.clone()).await)) };
        eventually(name, read, |found| *found == [bench.key(name)]).await;
    }
    let end = ClaimQuery::Prefix(format!("{}%", bench.prefix()));
    assert_eq!(unwrap("claims", bench.first.claims(end).await), vec![]);
}

async fn read_unused_claims(bench: &Bench) {
    let [free, held, waited, never] = ["free", "held", "waited", "never"].map(|name| bench.key(name));
    let me = bench.stranger();
    for key in [&free, &held, &waited] {
        bench.first.acquire(key, me).await;
    }
    bench.first.acquire(&waited, bench.stranger()).await;
    bench.first.release(&free, me).await.expect("released");
    bench.first.step(&never, super::Step::sweep(me.session)).await.expect("applies always");
    let read = |before, limit| {
        let query = ClaimQuery::Unused { before: WallTime(before), limit };
        async move { unwrap("claims", bench.second.claims(query).await) }
    };
    // Others may use the store, too.
    let ours = |before| {
        let found = read(before, usize::MAX);
        async move {
            let mut keys = sorted_keys(&found.await);
            keys.retain(|key| key.as_str().starts_with(&bench.prefix()));
            keys
        }
    };
    const FAR_FUTURE: i64 = 32_503_680_000_000;
    eventually("those that nobody uses", || ours(FAR_FUTURE), |found| *found == [free.clone(), never.clone()]).await;
    assert_eq!(ours(1_000_000).await, [never], "the other was granted after 1970");
    assert_eq!(read(FAR_FUTURE, 1).await.len(), 1, "as many as were asked for");
    assert_eq!(read(FAR_FUTURE, 0).await, []);
}

async fn keys_of(bench: &Bench, query: ClaimQuery) -> Vec<ClaimKey> {
    let session: SessionId = match &query {
        ClaimQuery::Of(id) | ClaimQuery::HeldBy(id) => *id,
        ClaimQuery::Keys(_) | ClaimQuery::Prefix(_) | ClaimQuery::Unused { .. } => {
            unreachable!("asked for by session only")
        }
    };
    let found = unwrap("claims", bench.first.claims(query).await);
    for record in &found {
        let involved = record.holder.iter().chain(&record.waiters).any(|entry| entry.session == session);
        assert!(involved, "{} does not involve {session}", record.key);
    }
    sorted_keys(&found)
}

fn keys(found: &[ClaimRecord]) -> Vec<ClaimKey> {
    found.iter().map(|record| record.key.clone()).collect()
}

fn sorted_keys(found: &[ClaimRecord]) -> Vec<ClaimKey> {
    let mut keys = keys(found);
    keys.sort();
    keys
}
