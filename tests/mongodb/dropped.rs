//! Collections that somebody drops or renames while they are in use: what was held there is lost, and known to be, and
//! whoever is granted it next has a higher token.

use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::error::{Code, LossReason};
use coord_core::lock::Held;
use coord_tests::servers::ReplicaSet;
use mongodb::Database;
use mongodb::bson::{Document, doc};

use super::support::*;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    LocksDropped,
    LocksRenamed,
    SessionsDropped,
    SessionsRenamed,
    EverythingDropped,
}

impl Harm {
    const ALL: [Self; 5] =
        [Self::LocksDropped, Self::LocksRenamed, Self::SessionsDropped, Self::SessionsRenamed, Self::EverythingDropped];

    async fn done(self, database: &Database) {
        let rename = async |name: &str| {
            let (from, to) = (format!("{}.{name}", database.name()), format!("{}.old_{name}", database.name()));
            let admin = database.client().database("admin");
            admin.run_command(doc! { "renameCollection": from, "to": to }).await.map(drop)
        };
        let done = match self {
            Self::LocksDropped => database.collection::<Document>("coord_locks").drop().await,
            Self::SessionsDropped => database.collection::<Document>("coord_sessions").drop().await,
            Self::LocksRenamed => rename("coord_locks").await,
            Self::SessionsRenamed => rename("coord_sessions").await,
            Self::EverythingDropped => database.drop().await,
        };
        done.unwrap();
    }

    /// Why what was held is lost.
    fn explains(self, reason: LossReason) -> bool {
        match self {
            // Its session renews as before: to its holder it is as if somebody had taken it away.
            Self::LocksDropped | Self::LocksRenamed => reason == LossReason::Broken,
            Self::SessionsDropped | Self::SessionsRenamed => reason == LossReason::Killed,
            Self::EverythingDropped => matches!(reason, LossReason::Broken | LossReason::Killed),
        }
    }

    fn ends_sessions(self) -> bool {
        !matches!(self, Self::LocksDropped | Self::LocksRenamed)
    }
}

async fn connect(uri: &str, name: &str) -> Client {
    let options = Options::parse(uri).and_then(|options| options.name(name));
    let options = options.and_then(|options| options.ttl(Duration::from_secs(6))).unwrap();
    until("a connection", async || Client::connect(options.clone()).await.ok()).await
}

async fn acquired(client: &Client) -> Held {
    until("a grant", async || client.lock("l").unwrap().acquire_timeout(PATIENCE).await.ok()).await
}

#[test]
fn what_was_held_in_a_collection_that_goes_is_lost_and_granted_with_a_higher_token() {
    let Some(set) = ReplicaSet::start(1) else { return };
    run(async {
        let plain = mongodb::Client::with_uri_str(set.uri()).await.unwrap();
        for harm in Harm::ALL {
            let database = plain.database(&format!("{harm:?}"));
            let uri = set.uri().replacen("/?", &format!("/{}?", database.name()), 1);
            let (holder, waiter) = (connect(&uri, "holder").await, connect(&uri, "waiter").await);
            let held = holder.lock("l").unwrap().acquire().await.unwrap();
            let waiting = tokio::spawn({
                let waiter = waiter.clone();
                async move { waiter.lock("l").unwrap().acquire().await }
            });
            until("a queue", async || {
                let info = holder.lock_info("l").await.ok()??;
                (!info.waiters.is_empty()).then_some(())
            })
            .await;

            harm.done(&database).await;
            let reason = tokio::time::timeout(PATIENCE, held.lost()).await.expect("the holder is told");
            assert!(harm.explains(reason), "{harm:?}: {reason:?}");
            assert_eq!(held.check().unwrap_err().code(), Code::Lost, "{harm:?}");
            let next = match tokio::time::timeout(PATIENCE, waiting).await.expect("the waiter is told").unwrap() {
                Ok(next) => next,
                Err(error) => {
                    assert!(error.code() == Code::Lost && harm.ends_sessions(), "{harm:?}: {error}");
                    acquired(&waiter).await
                }
            };
            assert!(next.token() > held.token(), "{harm:?}: {} after {}", next.token(), held.token());
            // What comes late of the first one harms nobody.
            assert_eq!(held.release().await.unwrap_err().code(), Code::Lost, "{harm:?}");
            next.check().unwrap_or_else(|error| panic!("{harm:?}: {error}"));
            next.release().await.unwrap_or_else(|error| panic!("{harm:?}: {error}"));
            let again = acquired(&holder).await;
            assert!(again.token() > next.token(), "{harm:?}: {} after {}", again.token(), next.token());
            again.release().await.unwrap_or_else(|error| panic!("{harm:?}: {error}"));
            for client in [holder, waiter] {
                client.close(PATIENCE).await.unwrap_or_else(|error| panic!("{harm:?}: {error}"));
            }
        }
    });
}
