//! Sessions: opened once, renewed along their chain of nonces, killed only on proof, dead for good.

use std::time::Duration;

use super::{Bench, Calls, SessionInfo, SessionStep, TTL, Vitality, cases, eventually};
use crate::protocol::session::{KillProof, LockFile, Nonce, SessionId, SessionRecord};

cases![
    session_opens_once,
    session_keeps_what_it_was_opened_with,
    session_renews_along_its_chain,
    session_renewal_resent_is_accepted,
    session_renewal_of_a_stranger_is_refused,
    session_renewal_of_a_missing_is_refused,
    session_kill_needs_the_current_nonce,
    session_kill_of_a_missing_leaves_a_tombstone,
    session_seen_missing_is_not_killed_when_there,
    session_kill_by_kernel_lock_needs_the_ring,
    session_closes_once,
    session_dead_is_dead_for_good,
    session_is_decided_once_among_rivals,
];

async fn session_opens_once(bench: &Bench) {
    let (id, nonce) = (Bench::session_id(), Bench::nonce());
    let opened = bench.first.open(id, nonce).await;
    assert_eq!(
        (opened.id, opened.vitality, opened.nonce, opened.ttl, opened.died),
        (id, Vitality::Live, Some(nonce), TTL, None)
    );
    let again = bench.second.open(id, Bench::nonce()).await;
    assert_eq!(again, opened, "an opening that is sent again changes nothing");
}

async fn session_keeps_what_it_was_opened_with(bench: &Bench) {
    let id = Bench::session_id();
    let info = SessionInfo {
        name: "billing \"7\" $own \u{1f512}".into(),
        labels: [("a.b", "$seen"), ("$x", ""), ("zone", "\u{5d0}\u{5d1} \\ '")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        host: "web-1.example".into(),
        boot: "3b0c8a4e-0000-4000-8000-000000000000".into(),
        pid: u32::MAX,
        start: 1 << 60,
        lk: Some(LockFile { dev: 64_768, ino: 1 << 62, btime: 1_700_000_000_123_456_789 }),
        pv: 1,
    };
    let ttl = Duration::from_millis(86_399_999);
    let step = SessionStep::Open { nonce: Nonce(i64::MAX), ttl, info: info.clone() };
    let opened = bench.first.session(id, step).await.expect("opened");
    let read =
        eventually("the session as it was opened", || bench.second.read_session(id), |read| read.is_some()).await;
    assert_eq!(read, Some(opened.clone()));
    assert_eq!((opened.nonce, opened.ttl, opened.info), (Some(Nonce(i64::MAX)), ttl, info));
}

async fn session_renews_along_its_chain(bench: &Bench) {
    let (id, n0, n1, n2) = (Bench::session_id(), Bench::nonce(), Bench::nonce(), Bench::nonce());
    let opened = bench.first.open(id, n0).await;
    let renewed = bench.first.session(id, renew(&[n0], n1)).await.expect("renewed");
    assert_eq!(renewed.nonce, Some(n1));
    assert_eq!(SessionRecord { nonce: opened.nonce, seen: opened.seen, ..renewed }, opened, "nothing else changes");
    let later = bench.second.session(id, renew(&[n0, n1], n2)).await.expect("renewed again");
    assert_eq!(later.nonce, Some(n2));
    eventually(
        "the new nonce",
        || bench.second.read_session(id),
        |read| read.as_ref().is_some_and(|r| r.nonce == Some(n2)),
    )
    .await;
}

async fn session_renewal_resent_is_accepted(bench: &Bench) {
    let (id, n0, n1) = (Bench::session_id(), Bench::nonce(), Bench::nonce());
    bench.first.open(id, n0).await;
    for _ in 0..2 {
        let renewed = bench.first.session(id, renew(&[n0], n1)).await.expect("its own nonce is acceptable");
        assert_eq!(renewed.nonce, Some(n1));
    }
}

async fn session_renewal_of_a_stranger_is_refused(bench: &Bench) {
    let (id, n0, copy) = (Bench::session_id(), Bench::nonce(), Bench::nonce());
    bench.first.open(id, n0).await;
    bench.second.session(id, renew(&[n0], copy)).await.expect("the copy is first");
    let refused = bench.first.session(id, renew(&[n0], Bench::nonce())).await;
    assert_eq!(refused, None, "the chain has gone on with another nonce");
    assert_eq!(live_nonce(bench, id).await, Some(copy), "a refusal writes nothing");
}

async fn session_renewal_of_a_missing_is_refused(bench: &Bench) {
    let (id, nonce) = (Bench::session_id(), Bench::nonce());
    assert_eq!(bench.first.session(id, renew(&[nonce], Bench::nonce())).await, None);
    let opened = bench.first.open(id, nonce).await;
    assert_eq!((opened.vitality, opened.nonce), (Vitality::Live, Some(nonce)), "a refusal creates nothing");
}

async fn session_kill_needs_the_current_nonce(bench: &Bench) {
    let (id, n0, n1) = (Bench::session_id(), Bench::nonce(), Bench::nonce());
    bench.first.open(id, n0).await;
    bench.first.session(id, renew(&[n0], n1)).await.expect("renewed");

    let spared = bench.second.session(id, observed(Some(n0))).await.expect("a kill answers with the record");
    assert_eq!((spared.vitality, spared.nonce, spared.died), (Vitality::Live, Some(n1), None), "it had renewed");
    let killed = bench.second.session(id, observed(Some(n1))).await.expect("killed");
    assert_eq!((killed.vitality, killed.nonce), (Vitality::Dead, Some(n1)));
    assert!(killed.died.is_some());
}

async fn session_kill_of_a_missing_leaves_a_tombstone(bench: &Bench) {
    for seen in [None, Some(Bench::nonce())] {
        let id = Bench::session_id();
        let killed = bench.first.session(id, observed(seen)).await.expect("a tombstone");
        assert_eq!((killed.id, killed.vitality, killed.nonce), (id, Vitality::Dead, None));
        assert!(killed.died.is_some());
        let opened = bench.second.open(id, Bench::nonce()).await;
        assert_eq!(opened, killed, "a session that was declared dead before it opened stays dead");
        assert_eq!(bench.second.session(id, renew(&[Bench::nonce()], Bench::nonce())).await, None);
    }
}

async fn session_seen_missing_is_not_killed_when_there(bench: &Bench) {
    let (id, nonce) = (Bench::session_id(), Bench::nonce());
    bench.first.open(id, nonce).await;
    let spared = bench.second.session(id, observed(None)).await.expect("a kill answers with the record");
    assert_eq!((spared.vitality, spared.nonce), (Vitality::Live, Some(nonce)));
}

async fn session_kill_by_kernel_lock_needs_the_ring(bench: &Bench) {
    let by_lock = |ring: &[Nonce]| SessionStep::Kill(KillProof::KernelLock(ring.to_vec()));
    let (id, n0, n1) = (Bench::session_id(), Bench::nonce(), Bench::nonce());
    assert_eq!(bench.first.session(id, by_lock(&[n0])).await, None, "a missing record leaves nothing to conclude");
    let opened = bench.first.open(id, n0).await;
    assert_eq!(opened.vitality, Vitality::Live, "that kill left no tombstone");
    bench.first.session(id, renew(&[n0], n1)).await.expect("renewed");

    for old in [&[][..], &[n0], &[n0, Bench::nonce()]] {
        let spared = bench.second.session(id, by_lock(old)).await.expect("a kill answers with the record");
        assert_eq!(spared.vitality, Vitality::Live, "the ring is that of a copy that has not renewed last");
    }
    let killed = bench.second.session(id, by_lock(&[n0, n1, Bench::nonce()])).await.expect("killed");
    assert_eq!(killed.vitality, Vitality::Dead);
    let again = bench.first.session(id, by_lock(&[Bench::nonce()])).await.expect("the record");
    assert_eq!(again, killed, "it is dead already, whatever the ring");
}

async fn session_closes_once(bench: &Bench) {
    let (id, nonce) = (Bench::session_id(), Bench::nonce());
    assert_eq!(bench.first.session(id, SessionStep::Close).await, None, "a missing session cannot be closed");
    bench.first.open(id, nonce).await;
    let closed = bench.first.session(id, SessionStep::Close).await.expect("closed");
    assert_eq!(closed.vitality, Vitality::Dead);
    assert!(closed.died.is_some());
    assert_eq!(bench.first.session(id, SessionStep::Close).await, None, "it is closed already");
}

async fn session_dead_is_dead_for_good(bench: &Bench) {
    let (id, nonce) = (Bench::session_id(), Bench::nonce());
    bench.first.open(id, nonce).await;
    let dead = bench.first.session(id, observed(Some(nonce))).await.expect("killed");
    assert_eq!(bench.first.session(id, renew(&[nonce], nonce)).await, None);
    assert_eq!(bench.second.session(id, SessionStep::Close).await, None);
    assert_eq!(bench.second.open(id, nonce).await, dead);
    for proof in [observed(Some(nonce)), observed(None), observed(Some(Bench::nonce()))] {
        assert_eq!(bench.second.session(id, proof).await.as_ref(), Some(&dead), "a second kill changes nothing");
    }
    eventually("the death", || bench.second.read_session(id), |read| read.as_ref() == Some(&dead)).await;
}

/// Many renewals and one kill at once, all of the same nonce: whatever the order, exactly one has won.
async fn session_is_decided_once_among_rivals(bench: &Bench) {
    let (id, n0) = (Bench::session_id(), Bench::nonce());
    bench.first.open(id, n0).await;
    let rivals: Vec<Nonce> = (0..16).map(|_| Bench::nonce()).collect();
    let renewals = futures::future::join_all(rivals.iter().enumerate().map(|(place, nonce)| {
        let store = if place % 2 == 0 { &bench.first } else { &bench.second };
        store.session(id, renew(&[n0], *nonce))
    }));
    let (renewed, killed) = futures::join!(renewals, bench.second.session(id, observed(Some(n0))));
    let winners: Vec<SessionRecord> = renewed.into_iter().flatten().collect();
    let killed = killed.expect("a kill answers with the record").vitality == Vitality::Dead;
    assert_eq!(winners.len() + usize::from(killed), 1, "each was conditional on the same nonce");
    if let [winner] = &winners[..] {
        assert_eq!(live_nonce(bench, id).await, winner.nonce);
    }
}

fn renew(acknowledged: &[Nonce], nonce: Nonce) -> SessionStep {
    SessionStep::Renew { accept: acknowledged.iter().copied().chain([nonce]).collect(), nonce }
}

fn observed(nonce: Option<Nonce>) -> SessionStep {
    SessionStep::Kill(KillProof::Observed(nonce))
}

/// The nonce of a live session by a step that changes nothing and sees everything.
async fn live_nonce(bench: &Bench, id: SessionId) -> Option<Nonce> {
    let record = bench.first.open(id, Bench::nonce()).await;
    assert_eq!(record.vitality, Vitality::Live);
    record.nonce
}
