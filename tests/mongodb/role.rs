//! The role of SECURITY.md is enough, and nothing of it is too much.

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::error::Code;
use coord_core::lock::Held;
use coord_core::protocol::claim::ClaimStep;
use coord_core::store::Store;
use coord_core::store::mongodb::MongoStore;
use coord_core::table::{FindOptions, Index, LogFrom, TableOptions, WatchOptions, WriteOptions};
use coord_core::{ObserveOptions, ProvideOptions};
use coord_tests::servers::{ReplicaSet, SetOptions};
use mongodb::bson::{Document, doc};

use super::support::*;

/// The actions of the role that SECURITY.md shows.
fn actions() -> Vec<String> {
    let text = include_str!("../../SECURITY.md");
    let (_, after) = text.split_once("<!-- example: role -->\n```json\n").expect("the role");
    let (json, _) = after.split_once("```").expect("its end");
    let role: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(role["createRole"], "coord");
    assert_eq!(role["privileges"][0]["resource"], serde_json::json!({ "db": "coord", "collection": "" }));
    let actions = role["privileges"][0]["actions"].as_array().expect("a list");
    actions.iter().map(|action| action.as_str().expect("a text").to_owned()).collect()
}

/// A URL of a user with these rights.
fn user(set: &ReplicaSet, name: &str, actions: &[String]) -> String {
    let privilege: Document = doc! { "resource": { "db": "coord", "collection": "" }, "actions": actions };
    set.command(doc! { "createRole": name, "privileges": [privilege], "roles": [] }).expect("a role");
    set.command(doc! { "createUser": name, "pwd": "p", "roles": [name] }).expect("a user");
    format!("{}&coord.prefix={}&coord.ttl=10s", set.uri_as(&format!("{name}:p@")), prefix())
}

/// Everything that a client does with its store, but what only `remove` allows.
async fn use_everything(url: &str) -> coord_core::Result<()> {
    let client = Client::connect(Options::parse(url)?).await?;
    let used = async {
        let lock = client.lock("a")?;
        let held: Held = lock.acquire().await?;
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await }
        });
        until("a waiter", async || (client.stats().waiting == 1).then_some(())).await;
        held.release().await?;
        waiting.await.expect("no panic")?.release().await?;
        client.locks("").await?;
        let observer = client.observe("b", ObserveOptions::default()).await?;
        let provider = client.provide("b", "", ProvideOptions::default()).await?;
        observer.wait_available("b", Some(PATIENCE)).await?;
        provider.close().await?;
        client.owners().await?;
        use_a_table(&client).await?;
        client.health().await
    };
    let used = used.await;
    let closed = client.close(PATIENCE).await;
    used.and(closed)
}

/// Everything that a table does in the client's own database, but configuring, dropping and deleting.
async fn use_a_table(client: &Client) -> coord_core::Result<()> {
    let table = client.table("orders")?;
    table.ensure_indexes(vec![Index { fields: vec![("n".into(), false)], ..Index::default() }]).await?;
    let watch = table.watch((), WatchOptions::default())?;
    watch.next().await?.done(Ok(()));
    let log = table.log(LogFrom::Now).await?;
    let held = client.lock("c")?.acquire().await?;
    table.insert("a", doc! { "n": 1 }, WriteOptions::default()).await?;
    log.next().await?;
    table.put("a", doc! { "n": 2 }, WriteOptions::fenced(&held)?).await?;
    table.update("a", doc! { "$inc": { "n": 1 } }, WriteOptions::fenced(&held)?.strict()).await?;
    table.update_many(doc! { "n": 3 }, doc! { "$inc": { "n": 1 } }, WriteOptions::default()).await?;
    assert_eq!(table.get("a").await?.document.get_i32("n").ok(), Some(4));
    assert_eq!(table.find(doc! { "n": 4 }, FindOptions::default()).await?.len(), 1);
    assert_eq!(table.count(()).await?, 1);
    table.aggregate(vec![doc! { "$match": { "n": 4 } }]).await?.collect().await?;
    held.release().await
}

/// What only `remove` allows: a deletion, the table's and a record's of the coordination.
async fn remove(url: &str) -> [coord_core::Result<()>; 2] {
    let client = Client::connect(Options::parse(url).expect("a URL")).await.expect("a client");
    let table = client.table("orders").expect("a table");
    let deleted = match table.put("b", doc! {}, WriteOptions::default()).await {
        Ok(_) => table.delete("b", WriteOptions::default()).await.map(drop),
        Err(error) => Err(error),
    };
    client.close(PATIENCE).await.expect("it closes");
    let uri = url.split("&coord.").next().unwrap_or_default();
    let store = MongoStore::open(uri, &prefix(), 2, TTL, env()).await.expect("the store opens");
    // Old records are removed by nobody's call.
    let collected = store.apply_claim(key("a"), ClaimStep::Collect).await.map(drop);
    store.close().await;
    [deleted, collected]
}

#[test]
fn the_least_role_is_enough_and_nothing_of_it_is_too_much() {
    let Some(set) = ReplicaSet::with(SetOptions { auth: true, ..SetOptions::of(1) }) else { return };
    let all = actions();
    let whole = user(&set, "whole", &all);
    let without: Vec<(String, String)> = all
        .iter()
        .map(|left_out| {
            let rest: Vec<String> = all.iter().filter(|action| *action != left_out).cloned().collect();
            (left_out.clone(), user(&set, &format!("no_{left_out}"), &rest))
        })
        .collect();
    run(async {
        use_everything(&whole).await.expect("the role is enough");
        assert!(remove(&whole).await.iter().all(Result::is_ok), "the role is enough");
        let uri = whole.split("&coord.").next().unwrap_or_default();
        super::transactions::let_one_die_in_a_transaction(&set, uri, &prefix()).await;
        for (left_out, url) in &without {
            let errors = match use_everything(url).await {
                Err(error) => vec![error],
                Ok(()) => remove(url).await.map(|removed| removed.expect_err(left_out)).into(),
            };
            for error in errors {
                assert_eq!(error.code(), Code::Forbidden, "without {left_out}: {error}");
                assert!(error.message().contains(left_out), "without {left_out}: {error}");
            }
        }
        administer(&set, &all, &whole).await;
    });
}

/// What the role does not allow, and the action that does.
async fn administer(set: &ReplicaSet, all: &[String], whole: &str) {
    for action in ["collMod", "dropCollection"] {
        let more: Vec<String> = all.iter().cloned().chain([action.to_owned()]).collect();
        let allowed = user(set, &format!("with_{action}"), &more);
        for (url, allowed) in [(whole, false), (allowed.as_str(), true)] {
            let client = Client::connect(Options::parse(url).expect("a URL")).await.expect("a client");
            let table = client.table("orders").expect("a table");
            let done = if action == "collMod" {
                table.configure(TableOptions::default()).await
            } else {
                table.drop_table().await
            };
            client.close(PATIENCE).await.expect("it closes");
            match done {
                Ok(()) => assert!(allowed, "{action} is allowed"),
                Err(error) => {
                    assert!(!allowed, "with {action}: {error}");
                    assert_eq!(error.code(), Code::Forbidden, "{error}");
                    assert!(error.message().contains(action), "{error}");
                }
            }
        }
    }
}
