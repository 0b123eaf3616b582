//! An outbox whose replicas disagree on the date: the store's counts.

use std::sync::Arc;
use std::time::Duration;

use coord_core::env::Env;
use coord_core::mail::{Mail, MailState};
use coord_core::store::mongodb::MongoStore;
use coord_core::time::{Clock, Timestamp, WallTime};
use coord_core::{Client, Options};
use coord_tests::servers;

use crate::place::{open, put, quick, unique, until};
use crate::support::{mailer, with_server};

/// Two replicas whose clocks are two hours apart fill the same hour.
#[test]
fn rates_hold_though_clocks_differ() {
    let Some(uri) = servers::shared_uri() else { return };
    with_server(|server| async move {
        let prefix = format!("{}_", unique());
        let replica = async |behind_ms: i64| {
            let mut env = Env::system(tokio::runtime::Handle::current());
            env.clock = Arc::new(Behind(env.clock.clone(), behind_ms));
            let ttl = Duration::from_secs(30);
            let store = MongoStore::open(&uri, &prefix, 20, ttl, env.clone()).await.unwrap();
            Client::with_store(Arc::new(store), Options::parse(&uri).unwrap(), env).await.unwrap()
        };
        let (one, two) = (replica(0).await, replica(7_200_000).await);
        let options = || quick().with("rate", "1/h").unwrap();
        let (first, second) =
            (open(&one, &mailer(&server, ""), options()), open(&two, &mailer(&server, ""), options()));
        let ids = [put(&first, "ann@example.org", "a").await, put(&second, "ben@example.org", "b").await];
        let senders = [first.start(1).unwrap(), second.start(1).unwrap()];
        // Each has its turn: what the first was refused the second may try, and the other way round.
        let mut mails = Vec::new();
        for id in &ids {
            let ended = |mail: &Mail| mail.state == MailState::Sent || mail.last.contains("rate limit");
            mails.push(until(&first, id, ended).await);
        }
        let hour = |mail: &Mail| mail.created_ms / 3_600_000;
        if hour(&mails[0]) == hour(&mails[1]) {
            let held: Vec<_> = mails.iter().filter(|mail| mail.state != MailState::Sent).collect();
            assert_eq!(held.len(), 1, "{mails:?}");
            assert_eq!(hour(held[0]) + 1, held[0].due_ms / 3_600_000, "to be tried in the next hour: {mails:?}");
        }
        for one in senders {
            one.stop().await.unwrap();
        }
    });
}

/// The machine's clocks, with a date that is behind by so many milliseconds.
#[derive(Debug)]
struct Behind(Arc<dyn Clock>, i64);

impl Clock for Behind {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn wall(&self) -> WallTime {
        WallTime(self.0.wall().0 - self.1)
    }
}
