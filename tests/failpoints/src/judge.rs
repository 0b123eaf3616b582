//! What must be so on the store when the process of a story has gone, seen by somebody who comes then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_core::config::Location;
use coord_core::election::CampaignOptions;
use coord_core::env::Env;
use coord_core::mail::MailState;
use coord_core::store::mongodb::MongoStore;
use coord_core::store::sqlite::SqliteStore;
use coord_core::store::{ClaimQuery, SessionQuery, Store};
use coord_core::table::FindOptions;
use coord_core::{Client, Code, Error, ObserveOptions, Result, connect};
use coord_faults::history::now;

use crate::check::Kept;
use crate::place::{Kind, PATIENCE, Place, text};
use crate::post::Post;
use crate::said::Said;
use crate::story::{self, ELECTIONS, LOCKS, NOTES, SERVICES, WORK, outbox, start_reconciler};
use crate::until;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Finds {
    /// What must not be so, and is.
    pub wrong: Vec<String>,
    /// What was granted.
    pub granted: Vec<Said>,
    /// How long that took at most.
    pub free_after: Duration,
    /// The documents that are there.
    pub documents: BTreeMap<String, i64>,
    /// The mails of the outbox.
    pub mails: Vec<Kept>,
}

/// Within what time what somebody waits for is free.
fn bound(kind: Kind) -> Duration {
    kind.ttl().mul_f64(1.1) + Duration::from_secs(5)
}

/// Within what time the keeper has cleared up what nobody waits for.
fn kept_bound(kind: Kind) -> Duration {
    kind.ttl() * 5 + Duration::from_secs(10)
}

/// Looks at everything. Begins anew where a busy server is in the way.
///
/// # Errors
/// Those of the library that should not be: the store is there, and nothing else is in the way.
pub async fn judge(place: &Place, post: &Post) -> std::result::Result<Finds, String> {
    post.answer_all();
    let mut tries = 5;
    loop {
        tries -= 1;
        let finds = Mutex::new(Finds::default());
        let (used, fresh) = futures::join!(used(place, post, &finds), first(place, &finds));
        match used.and(fresh) {
            Ok(()) => return Ok(finds.into_inner().unwrap_or_else(PoisonError::into_inner)),
            Err(error) if tries > 0 && BUSY.contains(&error.code()) => {}
            Err(error) => return Err(format!("a call failed: {error}")),
        }
    }
}

/// What a server that is too busy for the ttl comes to.
const BUSY: [Code; 4] = [Code::Unavailable, Code::OutcomeUnknown, Code::Lost, Code::Timeout];

/// The store that the process died in the making of, perhaps.
async fn first(place: &Place, finds: &Mutex<Finds>) -> Result<()> {
    let url = place.fresh_url();
    let client = connect(&url).await?;
    take(&client, place.kind(), "first", false, finds).await?;
    left(place, "fresh", &client, finds).await?;
    client.close(PATIENCE).await
}

async fn used(place: &Place, post: &Post, finds: &Mutex<Finds>) -> Result<()> {
    let (kind, url) = (place.kind(), place.url());
    let client = connect(&url).await?;
    let locks = LOCKS.iter().map(|name| take(&client, kind, name, false, finds));
    let terms = ELECTIONS.iter().map(|name| take(&client, kind, name, true, finds));
    futures::future::try_join(futures::future::try_join_all(locks), futures::future::try_join_all(terms)).await?;
    for service in SERVICES {
        let observer = client.observe(service, ObserveOptions::default()).await?;
        if let Err(error) = observer.wait_unavailable(service, Some(kept_bound(kind))).await {
            wrong(finds, format!("the service {service} is provided still: {error}"));
        }
    }
    reconciled(&client, kind, finds).await?;
    sent(&client, post, finds).await?;
    read(&client, finds).await?;
    left(place, "t", &client, finds).await?;
    client.close(PATIENCE).await
}

fn wrong(finds: &Mutex<Finds>, what: String) {
    finds.lock().unwrap_or_else(PoisonError::into_inner).wrong.push(what);
}

/// Takes what the dead may have had. What is busy is no find.
async fn take(client: &Client, kind: Kind, name: &str, term: bool, finds: &Mutex<Finds>) -> Result<()> {
    let begun = Instant::now();
    let patience = bound(kind);
    let taken = async {
        if term {
            let options = CampaignOptions { timeout: Some(patience), ..CampaignOptions::default() };
            let term = client.election(name)?.campaign_with("judge", options).await?;
            let (token, t) = (term.token(), now());
            term.resign().await?;
            return Ok::<_, Error>((token, t));
        }
        let held = client.lock(name)?.acquire_timeout(patience).await?;
        let (token, t) = (held.token(), now());
        held.release().await?;
        Ok((token, t))
    };
    match taken.await {
        Ok((token, t)) => {
            let mut finds = finds.lock().unwrap_or_else(PoisonError::into_inner);
            finds.free_after = finds.free_after.max(begun.elapsed());
            finds.granted.push(Said::Granted { claim: name.to_owned(), token, t });
        }
        Err(error) if error.code() != Code::Timeout && BUSY.contains(&error.code()) => return Err(error),
        Err(error) => wrong(finds, format!("{name} cannot be had: {error}")),
    }
    Ok(())
}

/// Every key is run by whoever comes.
async fn reconciled(client: &Client, kind: Kind, finds: &Mutex<Finds>) -> Result<()> {
    let found = client.table(WORK)?.find((), FindOptions::default()).await?;
    let keys: BTreeSet<String> =
        found.iter().filter_map(|stored| stored.key.value().as_str().map(str::to_owned)).collect();
    let run: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let told = run.clone();
    let told = move |key: &str| {
        told.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
    };
    let (reconciler, running) = start_reconciler(client, told).await?;
    let missing = || {
        let run = run.lock().unwrap_or_else(PoisonError::into_inner);
        keys.difference(&run).cloned().collect::<Vec<_>>()
    };
    let in_time = until(kept_bound(kind), async || Ok(missing().is_empty())).await?;
    if !in_time {
        wrong(finds, format!("keys were not run: {:?}", missing()));
    }
    reconciler.close(PATIENCE).await?;
    running.abort();
    Ok(())
}

/// Every mail comes to its end.
async fn sent(client: &Client, post: &Post, finds: &Mutex<Finds>) -> Result<()> {
    let outbox = outbox(client, post.port())?;
    let senders = outbox.start(2)?;
    let open = async || {
        let stats = outbox.stats().await?;
        Ok(stats.of(MailState::Queued) + stats.of(MailState::Sending) == 0)
    };
    if !until(Duration::from_secs(30), open).await? {
        wrong(finds, format!("mails are left: {:?}", outbox.stats().await?));
    }
    senders.stop().await?;
    let kept = outbox.list(None, 100).await?.into_iter().map(|mail| Kept {
        sent: mail.state == MailState::Sent,
        maybe: mail.maybe_sent,
        key: mail.key,
        id: mail.message_id,
    });
    finds.lock().unwrap_or_else(PoisonError::into_inner).mails = kept.collect();
    Ok(())
}

async fn read(client: &Client, finds: &Mutex<Finds>) -> Result<()> {
    for name in [NOTES, WORK] {
        for stored in client.table(name)?.find((), FindOptions::default()).await? {
            let key = stored.key.value().as_str().unwrap_or_default().to_owned();
            let n = stored.document.get_i64("n").unwrap_or(i64::MIN);
            finds.lock().unwrap_or_else(PoisonError::into_inner).documents.insert(format!("{name}/{key}"), n);
        }
    }
    Ok(())
}

/// Nothing but this client is left.
async fn left(place: &Place, name: &str, client: &Client, finds: &Mutex<Finds>) -> Result<()> {
    let kind = place.kind();
    let store = open_store(client.location(), &place.prefix(name), kind).await?;
    let own = client.session().id;
    let left = async || -> Result<Vec<String>> {
        let sessions = store.sessions(SessionQuery::Live).await?;
        let others = sessions.into_iter().filter(|session| session.id != own);
        let mut left: Vec<String> = others.map(|session| format!("session {} lives on", session.id)).collect();
        for claim in store.claims(ClaimQuery::Prefix(String::new())).await? {
            let mut entries = claim.holder.iter().chain(&claim.waiters);
            if entries.any(|entry| entry.session != own) {
                left.push(format!("{} is held or waited for by {:?} and {:?}", claim.key, claim.holder, claim.waiters));
            }
        }
        Ok(left)
    };
    if !until(kept_bound(kind), async || Ok(left().await?.is_empty())).await? {
        left().await?.into_iter().for_each(|what| wrong(finds, what));
    }
    store.close().await;
    Ok(())
}

async fn open_store(location: &Location, prefix: &str, kind: Kind) -> Result<Arc<dyn Store>> {
    let env = Env::system(tokio::runtime::Handle::current());
    Ok(match location {
        Location::MongoDb { uri } => Arc::new(MongoStore::open(uri, prefix, 10, kind.ttl(), env).await?),
        Location::Sqlite { path } => Arc::new(SqliteStore::open(path, Default::default(), env).await?),
        _ => return Err(Error::invalid("a story needs a store of several processes")),
    })
}

/// Stands beside a story whose process is held up: wants every lock, again and again, until it is told to stop. Returns
/// what was granted, and until when it was believed in. One that is busy with a server stands there for nothing.
///
/// # Errors
/// Those of the library that should not be.
pub async fn contend(url: &str, stop: tokio::sync::watch::Receiver<bool>) -> std::result::Result<Vec<Said>, String> {
    let said = Mutex::new(Vec::new());
    let contended = async {
        let client = connect(url).await?;
        let each = LOCKS.iter().filter(|name| **name != story::FORCED);
        let each = each.map(|name| want_again_and_again(&client, name, &stop, &said));
        futures::future::try_join_all(each).await?;
        client.close(PATIENCE).await
    };
    match contended.await {
        Err(error) if !BUSY.contains(&error.code()) => Err(text(error)),
        _ => Ok(said.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

async fn want_again_and_again(
    client: &Client,
    name: &str,
    stop: &tokio::sync::watch::Receiver<bool>,
    said: &Mutex<Vec<Said>>,
) -> Result<()> {
    let say = |one| said.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    let claim = || name.to_owned();
    while !*stop.borrow() {
        if let Ok(held) = client.lock(name)?.acquire_timeout(Duration::from_millis(500)).await {
            say(Said::Granted { claim: claim(), token: held.token(), t: now() });
            let t = now();
            if held.check().is_ok() {
                say(Said::Ok { claim: claim(), token: held.token(), t });
            }
            // Its own session may be the one that a busy store has cost.
            drop(held.release().await);
        }
        // The story is to have its turns, too.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
