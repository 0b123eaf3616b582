//! Every way in which connecting can fail, with an error that says what to do, and soon.

use std::time::Duration;

use coord_core::error::{Code, Error};
use coord_core::store::Store;
use coord_core::store::mongodb::MongoStore;
use coord_tests::servers::replica_set::ADMIN;
use coord_tests::servers::scratch::{Scratch, free_ports};
use coord_tests::servers::security::Certificates;
use coord_tests::servers::{self, Mongod, ReplicaSet, SetOptions};
use mongodb::bson::doc;

use super::support::*;

async fn refusal(uri: &str) -> Error {
    let prefix = prefix();
    let opening = MongoStore::open(uri, &prefix, 20, TTL, env());
    let result = tokio::time::timeout(PATIENCE, opening).await.expect("an answer in time");
    result.err().unwrap_or_else(|| panic!("{uri} was accepted"))
}

#[test]
fn a_server_that_stands_alone_is_refused() {
    let Some(server) = Mongod::standalone() else { return };
    run(async {
        let error = refusal(&server.plain_uri()).await;
        assert_eq!(error.code(), Code::Unsupported);
        assert!(error.message().contains("--replSet"), "{error}");
        let error = refusal(&(server.plain_uri() + "replicaSet=rs")).await;
        assert_eq!(error.code(), Code::Unsupported);
        assert!(error.message().contains("'rs'"), "{error}");
    });
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    run(async {
        let port = free_ports(1).unwrap()[0];
        let error = refusal(&format!("mongodb://user:s3cret@localhost:{port}/")).await;
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains(&port.to_string()) && error.message().contains("refused"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"));
        let error = refusal("mongodb://no-such-host.invalid/").await;
        assert_eq!(error.code(), Code::Unavailable, "{error}");
    });
}

#[test]
fn a_uri_that_is_wrong_is_named_without_its_secrets() {
    run(async {
        for uri in [
            "mongodb://",
            "mongodb://user:s3cret",
            "mongodb://us/er:s3cret@h/db",
            "mongodb://user:s3cret@h:port/db",
            "mongodb://user:s3cret@h:99999999/db",
            "mongodb://user:s3cret@@h/db",
            "mongodb://user:%s3cret@h/db",
            "mongodb://user:s3cret@h/db?w",
            "mongodb://user:s3cret@h/db?maxPoolSize=many",
            "mongodb://user:s3cret@h/db?tls=maybe",
            "mongodb://user:s3cret@h/db?authMechanism=s3cret",
            "mongodb://user:s3cret@h/db?directConnection=true&loadBalanced=true",
            "mongodb://h/db?tlsCertificateKeyFilePassword=s3cret",
            "mongodb://h/d.b",
            "mongo://user:s3cret@h",
        ] {
            let error = refusal(uri).await;
            assert_eq!(error.code(), Code::InvalidArgument, "{uri}: {error}");
            assert!(!format!("{error:?} {error}").contains("s3cret"), "{uri}: {error}");
        }
        let error = refusal("mongodb://h/db?maxPoolSize=many").await;
        assert!(error.message().to_lowercase().contains("maxpoolsize"), "{error}");
    });
}

#[test]
fn credentials_rights_and_certificates_are_told_apart() {
    let Some(set) = ReplicaSet::with(SetOptions { auth: true, tls: true, ..SetOptions::of(1) }) else { return };
    let user = |name: &str, roles: mongodb::bson::Bson| {
        set.command(doc! { "createUser": name, "pwd": "p", "roles": [roles] }).unwrap();
        set.uri_as(&format!("{name}:p@"))
    };
    let reader = user("reader", doc! { "role": "read", "db": "coord" }.into());
    let writer = user("writer", doc! { "role": "readWrite", "db": "coord" }.into());
    let actions =
        ["find", "insert", "update", "remove", "createCollection", "createIndex", "listCollections", "listIndexes"];
    let privilege = doc! { "resource": { "db": "coord", "collection": "" }, "actions": actions.to_vec() };
    set.command(doc! { "createRole": "blind", "privileges": [privilege], "roles": [] }).unwrap();
    let blind = user("blind", "blind".into());
    run(async {
        let store = open(&writer).await;
        store.health().await.unwrap();
        acquire(&store, &key("a"), entry(session(), 1)).await;
        store.close().await;

        let error = refusal(&set.uri_as(&format!("{}:wr0ng@", ADMIN.0))).await;
        assert_eq!(error.code(), Code::Unauthorized);
        assert!(error.message().contains("authSource"), "{error}");
        assert!(!format!("{error:?}").contains("wr0ng"));
        let error = refusal(&set.uri_as("")).await;
        assert_eq!(error.code(), Code::Unauthorized, "{error}");
        let error = refusal(&reader).await;
        assert_eq!(error.code(), Code::Forbidden);
        assert!(error.message().contains("createCollection"), "{error}");
        let error = refusal(&blind).await;
        assert_eq!(error.code(), Code::Forbidden);
        assert!(error.message().contains("changeStream"), "{error}");

        let folder = Scratch::new().unwrap();
        let other = Certificates::make(folder.path(), "other").unwrap();
        let ours = set.certificates().unwrap().ca.display().to_string();
        let error = refusal(&set.uri().replace(&ours, &other.ca.display().to_string())).await;
        assert_eq!(error.code(), Code::Unauthorized);
        assert!(error.message().contains("certificate") && error.message().contains("tlsCAFile"), "{error}");
        let error = refusal(&set.uri().replace(&ours, "/no/such/file")).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        // Without TLS the server closes the connection and says nothing.
        let error =
            refusal(&set.uri().replace("tls=true", "tls=false").replace(&format!("&tlsCAFile={ours}"), "")).await;
        assert_eq!(error.code(), Code::Unavailable, "{error}");
    });
}

#[test]
fn a_connection_to_one_member_becomes_one_to_the_set() {
    let Some(set) = ReplicaSet::start(3) else { return };
    run(async {
        let secondary = set.secondaries()[0].uri();
        assert!(secondary.contains("directConnection=true"));
        let store = open(&secondary).await;
        acquire(&store, &key("a"), entry(session(), 1)).await;
        assert_eq!(warnings("directConnection=true").len(), 1);
        store.close().await;

        let before = warnings("of the MongoDB URI").len();
        open(&(set.uri() + "&w=majority&journal=true&retryWrites=true&readPreference=primary")).await.close().await;
        assert_eq!(warnings("of the MongoDB URI").len(), before, "what we want anyway needs no warning");
    });
}

#[test]
fn a_cluster_time_far_ahead_of_our_clock_is_told() {
    let Some(uri) = servers::shared_uri() else { return };
    run(async {
        let env = env_behind(Duration::from_secs(7_200));
        let store = MongoStore::open(&uri, &prefix(), 20, Duration::from_secs(30), env).await.unwrap();
        assert_eq!(warnings("cluster time").len(), 1);
        store.close().await;
    });
}
