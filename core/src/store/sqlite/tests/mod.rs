//! Tests of the store as a whole.

mod differential;
mod documents;
mod failures;
mod log;
mod processes;
mod together;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::SqliteStore;
use crate::config::Durability;
use crate::env::{Env, Rng, SystemRng};
use crate::protocol::claim::{ClaimKey, ClaimStep, ClaimView, Entry, Priority, Step};
use crate::protocol::session::{Nonce, SessionId, SessionInfo, SessionRecord, SessionStep};
use crate::store::{Notice, Notices, SharedStore, Store};

/// A directory that goes with the test.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("coord-sqlite-{:016x}", SystemRng.bits()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn db(&self) -> PathBuf {
        self.path("t.db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A runtime of the test's own.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The real world, inside a runtime.
fn env() -> Env {
    Env::system(tokio::runtime::Handle::current())
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Durability::Normal, env()).await.unwrap()
}

/// Waits for an event, for as long as a busy machine may need.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), event).await.expect("nothing happened for 30 s")
}

fn key(name: &str) -> ClaimKey {
    ClaimKey::new(format!("lock/a/b/{name}"))
}

fn id(number: u128) -> SessionId {
    SessionId::from_random(number)
}

fn entry(session: u128, attempt: u64) -> Entry {
    Entry { session: id(session), attempt, priority: Priority::default() }
}

fn opening() -> SessionStep {
    SessionStep::Open { nonce: Nonce(1), ttl: Duration::from_secs(10), info: SessionInfo::default() }
}

async fn open_session(store: &SqliteStore, number: u128) -> SessionRecord {
    store.apply_session(id(number), opening()).await.unwrap().unwrap()
}

async fn acquire(store: &SqliteStore, name: &str, entry: Entry) -> ClaimView {
    let step = Step::acquire(entry, true, 1_000, Vec::new());
    store.apply_claim(key(name), ClaimStep::Step(step)).await.unwrap().unwrap()
}

async fn release(store: &SqliteStore, name: &str, entry: Entry) -> Option<ClaimView> {
    store.apply_claim(key(name), ClaimStep::Step(Step::remove(entry, Vec::new()))).await.unwrap()
}

/// The next notice that is not a gap.
async fn next_notice(notices: &mut Notices) -> Notice {
    loop {
        match soon(notices.next()).await.expect("the stream has ended") {
            Notice::Gap => {}
            notice => return notice,
        }
    }
}

#[test]
fn it_passes_the_suite_of_every_store() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let path = scratch.db();
        crate::store::conformance::run(move || {
            let path = path.clone();
            Box::pin(async move { Arc::new(open(&path).await) as SharedStore })
        })
        .await;
    });
}
