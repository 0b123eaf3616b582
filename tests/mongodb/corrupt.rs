//! Documents that this version did not write: of later versions, and edited by hand.

use coord_core::error::Code;
use coord_core::protocol::claim::{ClaimStep, Step};
use coord_core::protocol::session::{KillProof, Nonce, SessionStep};
use coord_core::store::mongodb::MongoStore;
use coord_core::store::{ClaimQuery, SessionQuery, Store};
use coord_tests::servers;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Collection};

use super::support::*;

async fn store_and(collection: &str, uri: &str) -> (MongoStore, Collection<Document>) {
    let prefix = prefix();
    let store = MongoStore::open(uri, &prefix, 20, TTL, env()).await.unwrap();
    let client = Client::with_uri_str(uri).await.unwrap();
    (store, client.database("coord").collection(&format!("{prefix}{collection}")))
}

#[test]
fn a_corrupt_lock_is_an_error_and_is_not_granted() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let (store, locks) = store_and("locks", &uri).await;
        let (me, other) = (entry(session(), 1), entry(session(), 1).to_string());
        let free = doc! { "own": null, "q": [], "tok": 5_i64 };
        let edits = [
            doc! { "tok": 5.5 },
            doc! { "tok": "5" },
            doc! { "tok": null },
            doc! { "tok": i64::MAX },
            doc! { "own": [other.clone()] },
            doc! { "own": 7 },
            doc! { "own": "somebody" },
            doc! { "own": { "a": 1 } },
            doc! { "q": other.clone() },
            doc! { "q": null },
            doc! { "q": [7] },
            doc! { "q": ["somebody"] },
            doc! { "q": [null] },
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let key = key(&format!("corrupt{number}"));
            let mut document = doc! { "_id": key.as_str() };
            document.extend(free.clone());
            document.extend(edit.clone());
            locks.insert_one(&document).await.unwrap();
            for step in [
                Step::acquire(me, true, 256, Vec::new()),
                Step::acquire(me, false, 256, vec![session()]),
                Step::sweep(session()),
            ] {
                let adds = step.add.is_some();
                match store.apply_claim(key.clone(), ClaimStep::Step(step)).await {
                    Err(error) => assert_eq!(error.code(), Code::CorruptState, "{edit}: {error}"),
                    // Whoever does not look at the wrong element may do without it.
                    Ok(view) => assert!(!adds, "{edit}: {view:?}"),
                }
            }
            let now = locks.find_one(doc! { "_id": key.as_str() }).await.unwrap().unwrap();
            assert_eq!(now.get("own"), document.get("own"), "{edit}: nobody was granted it");
            assert!(!now.get_array("q").is_ok_and(|q| q.contains(&Bson::String(me.to_string()))), "{edit}: {now}");
            // A reader that only looks can make sense of these.
            let legible = [doc! { "tok": null }, doc! { "tok": i64::MAX }, doc! { "q": null }].contains(&edit);
            let read = store.claims(ClaimQuery::Keys(vec![key.clone()])).await.unwrap();
            assert_eq!(read.len(), usize::from(legible), "{edit}");
            assert_eq!(warnings(&format!("'{key}'")).len(), usize::from(!legible), "the log names it");
        }
        store.close().await;
    });
}

#[test]
fn what_is_missing_is_empty_and_what_is_unknown_stays() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let (store, locks) = store_and("locks", &uri).await;
        let (key, me) = (key("later"), entry(session(), 1));
        let id = doc! { "_id": key.as_str() };
        let unknown = doc! { "_id": key.as_str(), "tok": 9, "later": { "a": [1, "$own"] } };
        locks.insert_one(unknown).await.unwrap();
        let held = acquire(&store, &key, me).await;
        assert_eq!(held.holder, Some(me));
        assert!(held.token > 9);
        release(&store, &key, me).await.unwrap();
        let now = locks.find_one(id).await.unwrap().unwrap();
        assert_eq!(now.get_document("later").unwrap(), &doc! { "a": [1, "$own"] });
        store.close().await;
    });
}

#[test]
fn a_corrupt_session_is_an_error_and_is_not_killed() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let (store, sessions) = store_and("sessions", &uri).await;
        let edits = [
            doc! { "st": "asleep" },
            doc! { "st": 1 },
            doc! { "n": "1" },
            doc! { "n": null },
            doc! { "ttl": -1_i64 },
            doc! { "ttl": "long" },
            doc! { "info": 3 },
            doc! { "info": { "labels": { "a": "b" } } },
            doc! { "seen": "yesterday" },
        ];
        for edit in edits {
            let id = session();
            let mut document = doc! { "_id": id.to_string(), "st": "live", "n": 1_i64, "ttl": 9_i64, "later": 1 };
            document.extend(edit.clone());
            sessions.insert_one(&document).await.unwrap();
            let error = store.apply_session(id, open_step(1)).await.unwrap_err();
            assert_eq!(error.code(), Code::CorruptState, "{edit}: {error}");
            let kill = SessionStep::Kill(KillProof::Observed(Some(Nonce(2))));
            let error = store.apply_session(id, kill).await.unwrap_err();
            assert_eq!(error.code(), Code::CorruptState, "{edit}: {error}");
            assert_eq!(store.sessions(SessionQuery::Ids(vec![id])).await.unwrap(), [], "{edit}");
            let now = sessions.find_one(doc! { "_id": id.to_string() }).await.unwrap().unwrap();
            assert_eq!(now, document, "nothing was written");
        }
        store.close().await;
    });
}
