//! What the tests share: a runtime, stores with names of their own, events with a bound, and the log.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_core::env::Env;
use coord_core::protocol::claim::{ClaimKey, ClaimStep, ClaimView, Entry, Priority, Step};
use coord_core::protocol::session::{Nonce, SessionId, SessionInfo, SessionRecord, SessionStep};
use coord_core::store::mongodb::MongoStore;
use coord_core::store::{Applied, Notice, Notices, Store};
use coord_core::time::{Clock, Timestamp, WallTime};
use futures::StreamExt;
use once_cell::sync::Lazy;

/// The bound of every wait for an event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough for a busy machine; failovers of these sets take a second or two.
pub(crate) const TTL: Duration = Duration::from_secs(30);

/// Runs a test's future on a runtime of its own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    Lazy::force(&LOG);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(test);
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

pub(crate) fn env() -> Env {
    Env::system(tokio::runtime::Handle::current())
}

/// An environment whose date is behind by so much.
pub(crate) fn env_behind(by: Duration) -> Env {
    let mut env = env();
    env.clock = Arc::new(Behind { clock: env.clock.clone(), by });
    env
}

#[derive(Debug)]
struct Behind {
    clock: Arc<dyn Clock>,
    by: Duration,
}

impl Clock for Behind {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn wall(&self) -> WallTime {
        WallTime(self.clock.wall().0 - i64::try_from(self.by.as_millis()).unwrap())
    }
}

/// A collection prefix that no other test uses, also not one of another run on the same servers.
pub(crate) fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}_", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn open(uri: &str) -> MongoStore {
    MongoStore::open(uri, &prefix(), 20, TTL, env()).await.expect("the store opens")
}

pub(crate) fn session() -> SessionId {
    env().session_id()
}

pub(crate) fn entry(session: SessionId, attempt: u64) -> Entry {
    Entry { session, attempt, priority: Priority::default() }
}

pub(crate) fn key(name: &str) -> ClaimKey {
    ClaimKey::new(format!("lock/default/default/{name}"))
}

pub(crate) fn open_step(nonce: i64) -> SessionStep {
    SessionStep::Open { nonce: Nonce(nonce), ttl: TTL, info: SessionInfo::default() }
}

pub(crate) async fn opened(store: &MongoStore) -> SessionRecord {
    store.apply_session(session(), open_step(1)).await.unwrap().expect("an opened session")
}

pub(crate) async fn step(store: &MongoStore, key: &ClaimKey, step: Step) -> Applied {
    store.apply_claim(key.clone(), ClaimStep::Step(step)).await.unwrap()
}

pub(crate) async fn acquire(store: &MongoStore, key: &ClaimKey, entry: Entry) -> ClaimView {
    step(store, key, Step::acquire(entry, true, 256, Vec::new())).await.expect("an acquire always applies")
}

pub(crate) async fn release(store: &MongoStore, key: &ClaimKey, entry: Entry) -> Applied {
    step(store, key, Step::remove(entry, Vec::new())).await
}

/// The next notice that is no gap.
pub(crate) async fn next_notice(notices: &mut Notices) -> Notice {
    loop {
        match next(notices).await {
            Notice::Gap => {}
            notice => return notice,
        }
    }
}

pub(crate) async fn next(notices: &mut Notices) -> Notice {
    tokio::time::timeout(PATIENCE, notices.next()).await.expect("a notice in time").expect("a stream without end")
}

/// Calls `attempt` until it gives something.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE * 2;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs what blocks beside the test's other tasks.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

/// The warnings of this library that this thread, which is this test, has logged and that contain this text.
pub(crate) fn warnings(text: &str) -> Vec<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let me = std::thread::current().id();
    log.iter().filter(|(thread, line)| *thread == me && line.contains(text)).map(|(_, line)| line.clone()).collect()
}

type Log = Arc<Mutex<Vec<(std::thread::ThreadId, String)>>>;

static LOG: Lazy<Log> = Lazy::new(|| {
    let lines = Arc::default();
    tracing::subscriber::set_global_default(Recorder(Arc::clone(&lines))).expect("the only subscriber");
    lines
});

struct Recorder(Log);

impl tracing::Subscriber for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("coord_core") && *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((std::thread::current().id(), message.0));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
