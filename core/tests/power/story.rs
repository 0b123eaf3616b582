//! What happens before the power is lost: several stores on one file, as if each was another process, whose users take
//! locks, write documents and look on; and what each was told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use coord_core::bson::doc;
use coord_core::config::Durability;
use coord_core::env::Env;
use coord_core::protocol::claim::{ClaimKey, ClaimStep, Entry, Priority, Step};
use coord_core::protocol::document::{Action, Filter, Key, TableName, Update, Write};
use coord_core::protocol::session::{KillProof, Nonce, SessionId, SessionInfo, SessionStep};
use coord_core::store::Store;
use coord_core::store::changes::Interest;
use coord_core::store::documents::{Changes, Documents, Event, ManyAction, WatchOptions, WriteMany};
use coord_core::store::sqlite::SqliteStore;
use coord_core::time::{Clock, SystemClock, Timestamp, WallTime};
use futures::{StreamExt, TryStreamExt};

use crate::dice::Dice;
use crate::disk::Trace;

/// The numbers in a table's documents, by their keys.
pub(crate) type Counters = BTreeMap<i64, i64>;

/// What somebody was told, and may have told others before the power was lost.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// The file is ready, and says that this was before the boot.
    Ready,
    /// A write of a document was acknowledged.
    Wrote(u64),
    /// A lock was granted, by a store that syncs grants or by one that does not.
    Granted { key: ClaimKey, token: i64, synced: bool },
    /// The table was this at this place of its history.
    Saw(u64, Counters),
}

/// Sessions that hold and wait.
const SESSIONS: u128 = 3;

/// The locks, shared by all sessions.
pub(crate) fn locks() -> impl Iterator<Item = ClaimKey> {
    (0..4).map(|n| ClaimKey::new(format!("lock/a/b/{n}")))
}

pub(crate) fn table() -> TableName {
    TableName::parse("t").unwrap()
}

pub(crate) fn entry(session: u128, attempt: u64) -> Entry {
    Entry { session: SessionId::from_random(session), attempt, priority: Priority::default() }
}

pub(crate) fn opening() -> SessionStep {
    SessionStep::Open { nonce: Nonce(1), ttl: Duration::from_secs(10), info: SessionInfo::default() }
}

/// One more in the document of this key, which is made if it is missing.
pub(crate) fn count_up(key: i64, padding: usize) -> Write {
    let update = doc! { "$inc": { "n": 1_i64 }, "$set": { "padding": "x".repeat(padding) } };
    Write::new(Key::from(key), Action::Upsert(Update::parse(update).unwrap()))
}

/// The world, with a date that somebody sets.
pub(crate) fn env(date: &Arc<Date>) -> Env {
    Env { clock: date.clone(), ..Env::system(tokio::runtime::Handle::current()) }
}

/// The machine's clock, with another date.
#[derive(Debug)]
pub(crate) struct Date(AtomicI64);

impl Date {
    /// That of all stories.
    pub(crate) fn of_stories() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_800_000_000_000)))
    }

    /// A year before: the machine has lost its date with the power.
    pub(crate) fn before_stories() -> Arc<Self> {
        let date = Self::of_stories();
        date.pass(-365 * 86_400_000);
        date
    }

    fn pass(&self, milliseconds: i64) {
        self.0.fetch_add(milliseconds, SeqCst);
    }
}

impl Clock for Date {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn wall(&self) -> WallTime {
        WallTime(self.0.load(SeqCst))
    }
}

/// The documents now, and their place.
pub(crate) async fn look(store: &SqliteStore) -> (u64, Counters) {
    let snapshot = store.snapshot(&table(), Filter::default()).await.unwrap();
    let found: Vec<_> = snapshot.documents.try_collect().await.unwrap();
    let counter = |stored: &coord_core::store::documents::Stored| {
        (stored.key.value().as_i64().unwrap(), stored.document.get_i64("n").unwrap())
    };
    (snapshot.position.0, found.iter().map(counter).collect())
}

/// What a reader makes of a change.
pub(crate) fn follow(counters: &mut Counters, change: &coord_core::store::documents::Change) {
    let key = change.key.value().as_i64().unwrap();
    match &change.document {
        Some(document) => counters.insert(key, document.get_i64("n").unwrap()),
        None => counters.remove(&key),
    };
}

/// Plays for so many rounds, and leaves the file closed.
pub(crate) async fn play(file: &Path, trace: &Arc<Trace>, rounds: usize, dice: &mut Dice) {
    let date = Date::of_stories();
    let open = |durability| SqliteStore::open(file, durability, env(&date));
    let mut stores = Vec::new();
    for durability in [Durability::Normal, Durability::Normal, Durability::Full] {
        stores.push((Arc::new(open(durability).await.unwrap()), durability == Durability::Full));
    }
    stamp(file);
    trace.note(Note::Ready);
    // Claims and sessions are logged only for those who look on.
    let everything = Interest { claims: vec![String::new()], sessions: true };
    let mut looking_on = stores[0].0.changes(everything).await.unwrap();
    let looking_on = tokio::spawn(async move { while looking_on.next().await.is_some() {} });
    // The table is still empty.
    let changes = stores[1].0.watch(&table(), WatchOptions::default()).await.unwrap();
    let watching = tokio::spawn(watch(changes, trace.clone()));
    for session in 1..=SESSIONS {
        stores[0].0.apply_session(SessionId::from_random(session), opening()).await.unwrap();
    }
    let mut documents = true;
    for round in 0..rounds {
        // Tokens follow the date, and with them their ceiling.
        let at_most = if dice.one_in(16) { 90_000 } else { 30_000 };
        date.pass(dice.below(at_most) as i64);
        // Coordination alone for a while: nothing is synced then, but what the store has to sync by itself.
        if dice.one_in(10) {
            documents = !documents;
        }
        let mut players = Vec::new();
        for (store, synced) in &stores {
            if *synced && !documents {
                continue;
            }
            let (store, trace) = (store.clone(), trace.clone());
            let dice = Dice::new(dice.bits());
            if documents {
                players.push(tokio::spawn(write_documents(store.clone(), trace.clone(), dice.clone())));
            }
            players.push(tokio::spawn(use_locks(store, trace, *synced, round as u64, dice)));
        }
        for player in players {
            player.await.unwrap();
        }
        let (position, counters) = look(&stores[dice.below(stores.len())].0).await;
        trace.note(Note::Saw(position, counters));
    }
    for (store, _) in &stores {
        store.close().await;
    }
    looking_on.await.unwrap();
    watching.await.unwrap();
}

/// Makes the file one of another boot, as it will be when the machine has its power again.
fn stamp(file: &Path) {
    let db = rusqlite::Connection::open(file).unwrap();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    db.execute("UPDATE meta SET boot = 'the one before'", []).unwrap();
}

async fn use_locks(store: Arc<SqliteStore>, trace: Arc<Trace>, synced: bool, round: u64, mut dice: Dice) {
    for attempt in 0..1 + dice.below(6) as u64 {
        let entry = entry(1 + dice.below(SESSIONS as usize) as u128, round << 16 | dice.bits() & 0xff00 | attempt);
        let key = locks().nth(dice.below(4)).unwrap();
        let step = Step::acquire(entry, dice.one_in(2), 1_000, Vec::new());
        let view = store.apply_claim(key.clone(), ClaimStep::Step(step)).await.unwrap().unwrap();
        if view.holder == Some(entry) {
            trace.note(Note::Granted { key: key.clone(), token: view.token, synced });
        }
        // Whoever waits leaves again; now and then a hold stays, and with it its waiters.
        if view.waiting || !dice.one_in(8) {
            store.apply_claim(key, ClaimStep::Step(Step::remove(entry, Vec::new()))).await.unwrap();
        }
        if dice.one_in(10) {
            let id = SessionId::from_random(dice.bits().into());
            store.apply_session(id, opening()).await.unwrap();
            store.apply_session(id, SessionStep::Kill(KillProof::Observed(Some(Nonce(1))))).await.unwrap();
        }
        if dice.one_in(5) {
            let (position, counters) = look(&store).await;
            trace.note(Note::Saw(position, counters));
        }
        if dice.one_in(6) {
            for session in 1..=SESSIONS {
                let all = Step::sweep(SessionId::from_random(session));
                for key in locks() {
                    store.apply_claim(key, ClaimStep::Step(all.clone())).await.unwrap();
                }
            }
        }
    }
}

async fn write_documents(store: Arc<SqliteStore>, trace: Arc<Trace>, mut dice: Dice) {
    for _ in 0..1 + dice.below(6) {
        let (key, padding) = (dice.below(6) as i64, dice.below(3) * dice.below(1_500));
        let position = match dice.below(8) {
            0 => {
                let update = Update::parse(doc! { "$inc": { "n": 1_i64 } }).unwrap();
                let action = ManyAction::Update(update);
                let all = WriteMany { filter: Filter::default(), action, fence: None, source: None };
                Some(store.write_many(&table(), all).await.unwrap().position)
            }
            1 => {
                let written = store.write(&table(), Write::new(Key::from(key), Action::Delete)).await;
                written.ok().map(|written| written.position)
            }
            _ => Some(store.write(&table(), count_up(key, padding)).await.unwrap().position),
        };
        trace.note(Note::Wrote(position.map_or(0, |position| position.0)));
    }
}

/// Follows the table until the store is closed.
async fn watch(mut changes: Changes, trace: Arc<Trace>) {
    let mut counters = Counters::new();
    while let Some(event) = changes.next().await {
        if let Event::Change(change) = event.unwrap() {
            follow(&mut counters, &change);
            trace.note(Note::Saw(change.position.0, counters.clone()));
        }
    }
}
