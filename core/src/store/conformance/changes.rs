//! Changes: a snapshot, then every change in its order, and nothing that is none.

use futures::StreamExt;

use super::{Bench, Calls, ClaimStep, PATIENCE, SharedStore, cases, unwrap};
use crate::protocol::claim::Entry;
use crate::protocol::roster::ProviderRecord;
use crate::protocol::session::{KillProof, Nonce, SessionId, SessionRecord, SessionStep, Vitality};
use crate::store::changes::{Change, Changes, ClaimState, Interest, Snapshot};

cases![
    changes_begin_with_a_snapshot,
    changes_tell_every_term_in_order,
    changes_tell_of_values,
    changes_leave_out_what_happens_in_a_queue,
    changes_are_told_of_whom_they_are_asked_for,
    changes_follow_a_session_through_its_life,
    changes_of_providers_keep_their_order,
    changes_leave_out_renewals,
    changes_tell_of_a_kill,
    changes_reach_every_stream,
    changes_go_on_from_the_snapshot_without_a_gap,
];

async fn changes_begin_with_a_snapshot(bench: &Bench) {
    let (held, free, id) = (bench.key("held"), bench.key("free"), Bench::session_id());
    bench.first.open(id, Bench::nonce()).await;
    provide(&bench.first, id, "a/b/c#1", "m", 1).await;
    let entry = bench.entry(id);
    let token = bench.first.acquire(&held, entry).await.token;
    let gone = bench.entry(id);
    bench.first.acquire(&free, gone).await;
    bench.first.release(&free, gone).await;
    let look = Onlooker::new(&bench.second, Interest { claims: vec![bench.prefix()], sessions: true }).await;
    let claims: Vec<_> = look.snapshot.claims.iter().filter(|claim| claim.holder.is_some()).collect();
    let [claim] = claims[..] else { panic!("one claim is held, not {claims:?}") };
    assert_eq!((&claim.key, claim.holder, claim.token, &claim.value), (&held, Some(entry), token, &None));
    let session = look.snapshot.sessions.iter().find(|session| session.id == id).expect("the session is live");
    assert_eq!(session.vitality, Vitality::Live);
    assert_eq!(session.providers, [provider("a/b/c#1", "m")]);
    assert_eq!(session.revision, 1);
}

async fn changes_tell_every_term_in_order(bench: &Bench) {
    let key = bench.key("terms");
    let mut look = Onlooker::new(&bench.first, claims(bench)).await;
    let mut expected = Vec::new();
    for round in 0..10 {
        let store = if round % 2 == 0 { &bench.first } else { &bench.second };
        let (one, next) = (bench.stranger(), bench.stranger());
        expected.push((Some(one), store.acquire(&key, one).await.token));
        store.acquire(&key, next).await;
        expected.push((Some(next), store.release(&key, one).await.expect("handed over").token));
        let token = expected.last().expect("pushed").1;
        store.release(&key, next).await.expect("freed");
        expected.push((None, token));
    }
    for (number, (holder, token)) in expected.into_iter().enumerate() {
        let claim = look.claim().await;
        assert_eq!((claim.holder, claim.token), (holder, token), "change {number}");
        assert_eq!((claim.key, claim.value), (key.clone(), None));
    }
}

async fn changes_tell_of_values(bench: &Bench) {
    let key = bench.key("values");
    let mut look = Onlooker::new(&bench.second, claims(bench)).await;
    let holder = bench.stranger();
    let token = bench.first.acquire(&key, holder).await.token;
    assert_eq!(look.claim().await.value, None);
    for value in ["one", "two $own \"'", ""] {
        let step = ClaimStep::Publish { holder, token, value: value.to_owned() };
        bench.first.step(&key, step).await.expect("published");
        let claim = look.claim().await;
        assert_eq!((claim.holder, claim.token, claim.value.as_deref()), (Some(holder), token, Some(value)));
    }
    let next = bench.stranger();
    bench.first.acquire(&key, next).await;
    bench.first.release(&key, holder).await.expect("handed over");
    let claim = look.claim().await;
    assert_eq!((claim.holder, claim.value), (Some(next), None), "a value is its holder's alone");
    bench.first.release(&key, next).await.expect("freed");
    assert_eq!(look.claim().await.holder, None);
}

async fn changes_leave_out_what_happens_in_a_queue(bench: &Bench) {
    let (key, other) = (bench.key("queue"), bench.key("queue-2"));
    let (holder, waiter) = (bench.stranger(), bench.stranger());
    let token = bench.first.acquire(&key, holder).await.token;
    let mut look = Onlooker::new(&bench.first, claims(bench)).await;
    bench.first.acquire(&key, waiter).await;
    bench.first.acquire(&key, holder).await;
    bench.first.step(&key, ClaimStep::AnnounceBreak { token }).await.expect("announced");
    bench.first.release(&key, waiter).await.expect("withdrawn");
    bench.first.acquire(&other, waiter).await;
    assert_eq!(look.claim().await.key, other, "nothing was told of the queue");
}

async fn changes_are_told_of_whom_they_are_asked_for(bench: &Bench) {
    let (mine, not_mine) = (bench.key("mine/a"), bench.key("mind/a"));
    let interest = Interest { claims: vec![bench.key("mine/").to_string()], sessions: false };
    let mut look = Onlooker::new(&bench.second, interest).await;
    bench.first.open(Bench::session_id(), Bench::nonce()).await;
    bench.first.acquire(&not_mine, bench.stranger()).await;
    bench.first.acquire(&mine, bench.stranger()).await;
    assert!(matches!(look.next().await, Change::Claim(claim) if claim.key == mine));
}

async fn changes_follow_a_session_through_its_life(bench: &Bench) {
    let id = Bench::session_id();
    let mut look = Onlooker::of_sessions(&bench.second).await;
    bench.first.open(id, Bench::nonce()).await;
    let opened = look.session(id).await;
    assert_eq!((opened.vitality, opened.revision, opened.providers.len()), (Vitality::Live, 0, 0));
    // So many that a store which keeps lists by their differences has to show how it does.
    let (mut all, mut revision) = (Vec::new(), 0);
    for number in 0..12 {
        let said = provider(&format!("a/b/c#{number}"), "$k \"m\"");
        revision += 1;
        provide(&bench.first, id, &said.key, &said.metadata, revision).await;
        all.push(said);
        let session = look.session(id).await;
        assert_eq!((&session.providers, session.revision), (&all, revision));
    }
    for (number, metadata) in [(0, "new"), (11, "last"), (5, "")] {
        let said = provider(&format!("a/b/c#{number}"), metadata);
        revision += 1;
        provide(&bench.second, id, &said.key, metadata, revision).await;
        all.retain(|other| other.key != said.key);
        all.push(said);
        assert_eq!(look.session(id).await.providers, all);
    }
    for number in [3, 0, 11, 4] {
        revision += 1;
        let key = format!("a/b/c#{number}");
        bench.first.session(id, SessionStep::Withdraw { key: key.clone(), revision }).await.expect("withdrawn");
        all.retain(|other| other.key != key);
        let session = look.session(id).await;
        assert_eq!((&session.providers, session.revision), (&all, revision));
    }
    bench.first.session(id, SessionStep::Close).await.expect("closed");
    let closed = look.session(id).await;
    assert_eq!((closed.vitality, closed.clean, closed.providers.len()), (Vitality::Dead, true, 0));
    assert_eq!(closed.revision, revision + 1);
    let late = SessionStep::Provide { provider: provider("a/b/c#late", ""), revision: 100 };
    assert_eq!(bench.first.session(id, late).await, None, "a provider that comes after its session's end is refused");
}

async fn changes_of_providers_keep_their_order(bench: &Bench) {
    let id = Bench::session_id();
    bench.first.open(id, Bench::nonce()).await;
    provide(&bench.first, id, "a/b/c#1", "old", 4).await;
    provide(&bench.second, id, "a/b/c#1", "old", 4).await;
    let withdraw = |revision| SessionStep::Withdraw { key: "a/b/c#1".to_owned(), revision };
    bench.second.session(id, withdraw(6)).await.expect("withdrawn");
    let late = SessionStep::Provide { provider: provider("a/b/c#1", "late"), revision: 5 };
    assert_eq!(bench.first.session(id, late).await, None, "what was sent before a withdrawal is not applied after it");
    assert_eq!(bench.first.session(id, withdraw(5)).await, None);
    let look = Onlooker::new(&bench.first, Interest { claims: Vec::new(), sessions: true }).await;
    let session = look.snapshot.sessions.iter().find(|session| session.id == id).expect("the session is live");
    assert_eq!((session.providers.len(), session.revision), (0, 6));
}

async fn changes_leave_out_renewals(bench: &Bench) {
    let (id, n0, n1) = (Bench::session_id(), Bench::nonce(), Bench::nonce());
    bench.first.open(id, n0).await;
    let mut look = Onlooker::of_sessions(&bench.first).await;
    let renew = SessionStep::Renew { accept: vec![n0], nonce: n1 };
    bench.first.session(id, renew).await.expect("renewed");
    bench.first.session(id, SessionStep::Close).await.expect("closed");
    assert_eq!(look.session(id).await.vitality, Vitality::Dead);
}

async fn changes_tell_of_a_kill(bench: &Bench) {
    let (id, nonce) = (Bench::session_id(), Bench::nonce());
    bench.first.open(id, nonce).await;
    provide(&bench.first, id, "a/b/c#1", "", 1).await;
    let mut look = Onlooker::of_sessions(&bench.second).await;
    let kill = |nonce: Nonce| SessionStep::Kill(KillProof::Observed(Some(nonce)));
    bench.first.session(id, kill(Bench::nonce())).await.expect("spared");
    bench.first.session(id, kill(nonce)).await.expect("killed");
    let killed = look.session(id).await;
    assert_eq!((killed.vitality, killed.clean, killed.providers.len()), (Vitality::Dead, false, 0));
    assert_eq!(killed.revision, 2);
}

async fn changes_reach_every_stream(bench: &Bench) {
    let mut dropped = Onlooker::new(&bench.first, claims(bench)).await;
    let mut kept = Onlooker::new(&bench.first, claims(bench)).await;
    let mut elsewhere = Onlooker::new(&bench.second, claims(bench)).await;
    let (one, two) = (bench.key("one"), bench.key("two"));
    bench.first.acquire(&one, bench.stranger()).await;
    for look in [&mut dropped, &mut kept, &mut elsewhere] {
        assert_eq!(look.claim().await.key, one);
    }
    drop(dropped);
    bench.second.acquire(&two, bench.stranger()).await;
    for look in [&mut kept, &mut elsewhere] {
        assert_eq!(look.claim().await.key, two);
    }
}

/// While a claim changes hands without pause, streams are opened: each must show an unbroken story.
async fn changes_go_on_from_the_snapshot_without_a_gap(bench: &Bench) {
    const ROUNDS: usize = 120;
    let key = bench.key("story");
    let mut current = bench.stranger();
    let mut story: Vec<(Option<Entry>, i64)> = vec![(Some(current), bench.first.acquire(&key, current).await.token)];
    let mut looks = Vec::new();
    for round in 0..ROUNDS {
        let next = bench.stranger();
        bench.first.acquire(&key, next).await;
        let hand_over = async { bench.first.release(&key, current).await.expect("handed over").token };
        let token = if round % 20 == 10 {
            let (token, look) = futures::join!(hand_over, Onlooker::new(&bench.second, claims(bench)));
            looks.push(look);
            token
        } else {
            hand_over.await
        };
        story.push((Some(next), token));
        current = next;
    }
    for mut look in looks {
        let [first] = &look.snapshot.claims[..] else { panic!("one claim: {:?}", look.snapshot) };
        let begins = (first.holder, first.token);
        let place = story.iter().position(|term| *term == begins).expect("the snapshot is of a moment that was");
        for expected in &story[place + 1..] {
            let claim = look.claim().await;
            assert_eq!((claim.holder, claim.token), *expected);
        }
    }
}

fn claims(bench: &Bench) -> Interest {
    Interest { claims: vec![bench.prefix()], sessions: false }
}

fn provider(key: &str, metadata: &str) -> ProviderRecord {
    ProviderRecord { key: key.to_owned(), service: "a/b/c".to_owned(), metadata: metadata.to_owned() }
}

async fn provide(store: &SharedStore, id: SessionId, key: &str, metadata: &str, revision: i64) {
    let step = SessionStep::Provide { provider: provider(key, metadata), revision };
    let answer = store.session(id, step).await.expect("the session is live");
    assert_eq!(answer.providers, [], "answers leave out what may be much");
}

/// Somebody who looks on.
struct Onlooker {
    store: SharedStore,
    interest: Interest,
    snapshot: Snapshot,
    changes: Changes,
}

impl Onlooker {
    async fn new(store: &SharedStore, interest: Interest) -> Self {
        let mut changes = unwrap("changes", store.changes(interest.clone()).await);
        let first = changes.next().await.expect("a stream of changes never ends");
        let Change::Snapshot(snapshot) = first else { panic!("a stream begins with a snapshot, not with {first:?}") };
        Self { store: store.clone(), interest, snapshot, changes }
    }

    async fn of_sessions(store: &SharedStore) -> Self {
        Self::new(store, Interest { claims: Vec::new(), sessions: true }).await
    }

    /// The next change; an interruption, which any store may have, is no part of the suite, but must end with a snapshot.
    async fn next(&mut self) -> Change {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.changes.next()).await;
            let next = next.unwrap_or_else(|_| panic!("no change came from {:?} within {PATIENCE:?}", self.store));
            match next.expect("a stream of changes never ends") {
                Change::Interrupted | Change::Snapshot(_) => {}
                change => return change,
            }
        }
    }

    async fn claim(&mut self) -> ClaimState {
        match self.next().await {
            Change::Claim(claim) => {
                assert!(self.interest.in_claim(&claim.key), "nobody asked for {claim:?}");
                claim
            }
            other => panic!("a claim was to change, not {other:?}"),
        }
    }

    /// The next change of this session; others may live in the same store.
    async fn session(&mut self, id: SessionId) -> SessionRecord {
        loop {
            match self.next().await {
                Change::Session(session) if session.id == id => return session,
                Change::Session(_) => {}
                other => panic!("a session was to change, not {other:?}"),
            }
        }
    }
}
