//! The store's calls on a healthy replica set.

use std::time::Duration;

use coord_core::error::Code;
use coord_core::protocol::claim::{ClaimRecord, ClaimStep, HEAD, Step};
use coord_core::protocol::session::{KillProof, LockFile, Nonce, SessionInfo, SessionStep, Vitality};
use coord_core::store::mongodb::testing::known_time;
use coord_core::store::{ClaimQuery, Notice, SessionQuery, Store};
use coord_tests::servers;
use mongodb::Client;
use mongodb::bson::{Document, doc};

use super::support::*;

#[test]
fn a_claim_goes_from_holder_to_waiter_and_both_are_told() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let store = open(&uri).await;
        let (first, second) = (entry(session(), 1), entry(session(), 1));
        let mut notices = store.notices(second.session).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        let key = key("a");

        let held = acquire(&store, &key, first).await;
        assert_eq!((held.holder, held.waiting), (Some(first), false));
        let waiting = acquire(&store, &key, second).await;
        assert_eq!((waiting.holder, waiting.waiting, waiting.queue_len), (Some(first), true, 1));
        assert_eq!(acquire(&store, &key, second).await, waiting, "an acquire may be sent again");

        let freed = release(&store, &key, first).await.unwrap();
        assert_eq!(freed.holder, Some(second));
        assert!(freed.token > held.token);
        let granted = Notice::Granted { key: key.clone(), entry: second, token: freed.token };
        assert_eq!(next_notice(&mut notices).await, granted);
        assert_eq!(release(&store, &key, first).await, None, "it holds nothing any more");

        store.apply_claim(key.clone(), ClaimStep::AnnounceBreak { token: freed.token }).await.unwrap().unwrap();
        let breaking = Notice::Breaking { key: key.clone(), entry: second, token: freed.token };
        assert_eq!(next_notice(&mut notices).await, breaking);

        let publish = ClaimStep::Publish { holder: second, token: freed.token, value: "$x".into() };
        store.apply_claim(key.clone(), publish).await.unwrap().unwrap();
        let read = store.claims(ClaimQuery::Keys(vec![key.clone()])).await.unwrap();
        let expected = ClaimRecord {
            holder: Some(second),
            token: freed.token,
            granted_at: read[0].granted_at,
            value: Some("$x".into()),
            breaking: Some(second),
            ..ClaimRecord::new(key)
        };
        assert_eq!(read, [expected]);
        store.close().await;
    });
}

/// Otherwise an audit that reads from the next primary could miss a grant that is known here.
#[test]
fn nothing_is_read_that_is_older_than_a_grant_that_was_heard_of() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let prefix = prefix();
        let open = async || coord_core::store::mongodb::MongoStore::open(&uri, &prefix, 20, TTL, env()).await.unwrap();
        let (ours, others) = (open().await, open().await);
        let (first, second, key) = (entry(session(), 1), entry(session(), 1), key("a"));
        let mut notices = ours.notices(second.session).await.unwrap();
        acquire(&others, &key, first).await;
        acquire(&ours, &key, second).await;
        let before = known_time(&ours).expect("the answer to the acquire told it");
        let token = release(&others, &key, first).await.expect("it was held").token;
        assert_eq!(next_notice(&mut notices).await, Notice::Granted { key, entry: second, token });
        assert!(known_time(&ours).is_some_and(|known| known > before), "and nothing was asked since");
        ours.close().await;
        others.close().await;
    });
}

/// What a client remembers of a claim lets it try a shorter form of the step first. Others may have come in between.
#[test]
fn what_was_remembered_wrongly_changes_no_answer() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let prefix = prefix();
        let open = async || coord_core::store::mongodb::MongoStore::open(&uri, &prefix, 20, TTL, env()).await.unwrap();
        let (one, other) = (open().await, open().await);
        let (me, you, key) = (session(), session(), key("a"));
        let mut notices = other.notices(you).await.unwrap();
        assert_eq!(next(&mut notices).await, Notice::Gap);
        let mut token = 0;
        for round in 0..40 {
            // Nobody else: taken and given up as remembered, with tokens that grow and the whole view in each answer.
            let mine = entry(me, 4 * round);
            let held = acquire(&one, &key, mine).await;
            assert_eq!((held.holder, held.waiting, held.queue_len), (Some(mine), false, 0));
            let granted_at = held.granted_at;
            assert!(held.token > token && granted_at.0 > 0);
            token = held.token;
            let free = release(&one, &key, mine).await.unwrap();
            assert_eq!((free.holder, free.token, free.granted_at), (None, token, granted_at));
            assert_eq!(release(&one, &key, mine).await, None);

            // The other one has it: not taken. It is waited for, and handed over.
            let yours = entry(you, 4 * round);
            token = acquire(&other, &key, yours).await.token;
            let refused = step(&one, &key, Step::acquire(entry(me, 4 * round + 1), false, 256, Vec::new())).await;
            assert_eq!(refused.map(|view| view.holder), Some(Some(yours)));
            assert!(release(&other, &key, yours).await.is_some());
            let (mine, yours) = (entry(me, 4 * round + 2), entry(you, 4 * round + 2));
            token = acquire(&one, &key, mine).await.token.max(token);
            assert!(acquire(&other, &key, yours).await.waiting);
            let handed = release(&one, &key, mine).await.unwrap();
            assert_eq!(handed.holder, Some(yours));
            let granted = Notice::Granted { key: key.clone(), entry: yours, token: handed.token };
            while next_notice(&mut notices).await != granted {}
            assert!(handed.token > token);
            token = handed.token;
            release(&other, &key, yours).await.unwrap();
        }
        one.close().await;
        other.close().await;
    });
}

#[test]
fn the_answer_is_small_however_long_the_queue_is() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let prefix = prefix();
        let store = coord_core::store::mongodb::MongoStore::open(&uri, &prefix, 20, TTL, env()).await.unwrap();
        let (key, me) = (key("long"), session());
        let waiters: Vec<String> = (2..=1_000).map(|attempt| entry(session(), attempt).to_string()).collect();
        let client = Client::with_uri_str(&uri).await.unwrap();
        let long = doc! { "_id": key.as_str(), "own": entry(session(), 1).to_string(), "q": waiters, "tok": 5_i64 };
        client.database("coord").collection::<Document>(&format!("{prefix}locks")).insert_one(long).await.unwrap();

        let full = step(&store, &key, Step::acquire(entry(me, 1), true, 999, Vec::new())).await.unwrap();
        assert_eq!((full.waiting, full.queue_len, full.head.len()), (false, 999, HEAD));
        let last = step(&store, &key, Step::acquire(entry(me, 1), true, 1_000, Vec::new())).await.unwrap();
        assert_eq!((last.waiting, last.queue_len, last.head.len()), (true, 1_000, HEAD));
        assert_eq!(last.head[0].attempt, 2);
        store.close().await;
    });
}

#[test]
fn claims_are_found_by_session_key_and_prefix() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let store = open(&uri).await;
        let (me, other) = (session(), session());
        acquire(&store, &key("held"), entry(me, 1)).await;
        acquire(&store, &key("wanted"), entry(other, 1)).await;
        acquire(&store, &key("wanted"), entry(me, 2)).await;
        acquire(&store, &key("not mine"), entry(other, 2)).await;
        let names = async |query| -> Vec<String> {
            store.claims(query).await.unwrap().iter().map(|claim| claim.key.name().to_owned()).collect()
        };
        assert_eq!(names(ClaimQuery::Of(me)).await, ["default/default/held", "default/default/wanted"]);
        assert_eq!(names(ClaimQuery::HeldBy(me)).await, ["default/default/held"]);
        assert_eq!(names(ClaimQuery::Prefix("lock/default/default/n".into())).await, ["default/default/not mine"]);
        assert_eq!(names(ClaimQuery::Prefix("lock/".into())).await.len(), 3);
        assert!(names(ClaimQuery::Prefix("lock/.".into())).await.is_empty(), "a prefix is text, not a pattern");
        let keys = vec![key("wanted"), key("missing")];
        assert_eq!(names(ClaimQuery::Keys(keys)).await, ["default/default/wanted"]);
        assert!(names(ClaimQuery::Keys(Vec::new())).await.is_empty());
        store.close().await;
    });
}

#[test]
fn a_session_lives_renews_and_dies_once() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let store = open(&uri).await;
        let mut info = SessionInfo { name: "n".into(), host: "h".into(), pid: 1, pv: 1, ..SessionInfo::default() };
        info.labels.insert("$k.x".into(), "v".into());
        info.lk = Some(LockFile { dev: 1, ino: u64::MAX, btime: 3 });
        let id = session();
        let open = SessionStep::Open { nonce: Nonce(1), ttl: Duration::from_millis(1_500), info: info.clone() };
        let opened = store.apply_session(id, open).await.unwrap().unwrap();
        assert_eq!((opened.nonce, opened.ttl, &opened.info), (Some(Nonce(1)), Duration::from_millis(1_500), &info));
        let renew = |nonce| SessionStep::Renew { accept: vec![Nonce(1), Nonce(nonce)], nonce: Nonce(nonce) };
        let renewed = store.apply_session(id, renew(2)).await.unwrap().unwrap();
        assert_eq!((renewed.nonce, &renewed.info), (Some(Nonce(2)), &info));
        assert_eq!(store.apply_session(id, renew(3)).await.unwrap(), None, "1 is not current any more");

        let kill = |nonce| SessionStep::Kill(KillProof::Observed(Some(Nonce(nonce))));
        let spared = store.apply_session(id, kill(1)).await.unwrap().unwrap();
        assert_eq!(spared.vitality, Vitality::Live);
        let killed = store.apply_session(id, kill(2)).await.unwrap().unwrap();
        assert_eq!(killed.vitality, Vitality::Dead);
        assert!(killed.died.is_some());
        assert_eq!(store.apply_session(id, renew(2)).await.unwrap(), None);
        assert_eq!(store.apply_session(id, SessionStep::Close).await.unwrap(), None);

        let live = opened_ids(&store).await;
        assert!(!live.contains(&id));
        let missing = session();
        let read = store.sessions(SessionQuery::Ids(vec![id, missing])).await.unwrap();
        assert_eq!(read, [killed]);
        let tombstone = store.apply_session(missing, SessionStep::Kill(KillProof::Observed(None))).await.unwrap();
        assert_eq!(tombstone.unwrap().vitality, Vitality::Dead);
        let refused = store.apply_session(missing, open_step(1)).await.unwrap().unwrap();
        assert_eq!(refused.vitality, Vitality::Dead, "a session that was buried is never opened");
        store.close().await;
    });
}

async fn opened_ids(store: &dyn Store) -> Vec<coord_core::protocol::session::SessionId> {
    store.sessions(SessionQuery::Live).await.unwrap().iter().map(|record| record.id).collect()
}

#[test]
fn a_closed_store_gives_everything_back() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let client = Client::with_uri_str(&uri).await.unwrap();
        let name = prefix();
        let ours = async || -> usize {
            let status = doc! { "currentOp": 1, "$all": true, "appName": &name };
            client.database("admin").run_command(status).await.unwrap().get_array("inprog").unwrap().len()
        };
        assert_eq!(ours().await, 0);
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let separator = if uri.contains('?') { '&' } else { '?' };
        let store = open(&format!("{uri}{separator}appName={name}")).await;
        let mut notices = store.notices(session()).await.unwrap();
        acquire(&store, &key("a"), entry(session(), 1)).await;
        store.health().await.unwrap();
        assert!(ours().await > 0, "the server knows our connections by name");

        store.close().await;
        for call in [
            store.health().await.unwrap_err(),
            store.claims(ClaimQuery::Keys(Vec::new())).await.unwrap_err(),
            store.apply_session(session(), open_step(1)).await.unwrap_err(),
            store.notices(session()).await.err().unwrap(),
        ] {
            assert_eq!(call.code(), Code::Closed);
        }
        store.close().await;
        until("the end of the stream", async || futures::StreamExt::next(&mut notices).await.is_none().then_some(()))
            .await;
        drop(store);
        until("the end of every connection", async || (ours().await == 0).then_some(())).await;
        until("the end of every task", async || (tasks() <= before).then_some(())).await;
    });
}

#[test]
fn a_close_waits_for_no_stream_that_was_left_before() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        // As long as the server waits for an event before it says that there is none.
        let quiet = Duration::from_secs(1);
        until("an end before the server's answer", async || {
            let store = open(&uri).await;
            let begin = tokio::time::Instant::now();
            let mut notices = store.notices(session()).await.unwrap();
            assert_eq!(next(&mut notices).await, Notice::Gap);
            // By the end of each, the stream's tasks have begun to read it, and to leave it.
            store.health().await.unwrap();
            drop(notices);
            store.health().await.unwrap();
            store.close().await;
            (begin.elapsed() < quiet).then_some(())
        })
        .await;
    });
}

#[test]
fn a_dropped_stream_ends_its_tasks_while_the_store_goes_on() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let store = open(&uri).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        // The pool is as large as it will be.
        let mut warm = store.notices(session()).await.unwrap();
        next(&mut warm).await;
        store.health().await.unwrap();
        let before = tasks();
        let streams: Vec<_> = futures::future::join_all((0..5).map(|_| store.notices(session()))).await;
        assert!(tasks() >= before + 10);
        drop(streams);
        until("the end of the streams' tasks", async || (tasks() <= before + 8).then_some(())).await;
        drop(warm);
        store.health().await.unwrap();
        store.close().await;
    });
}
