//! Damaged SQLite files: an error, or a store that works; never a panic, never a hang.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use coord_core::config::Durability;
use coord_core::env::Env;
use coord_core::protocol::claim::{ClaimKey, ClaimStep, Entry, Priority, Step};
use coord_core::protocol::session::{Nonce, SessionInfo, SessionStep};
use coord_core::store::sqlite::SqliteStore;
use coord_core::store::{ClaimQuery, SessionQuery, Store};
use once_cell::sync::Lazy;
use tokio::runtime::Runtime;

use crate::input::Input;
use crate::sys::scratch;

static RUNTIME: Lazy<Runtime> = Lazy::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// A good file, with a lock that is held and waited for.
static GOOD: Lazy<Vec<u8>> = Lazy::new(|| {
    let path = scratch().join("good.db");
    let opened = RUNTIME.block_on(use_it(&path));
    assert!(opened, "a new file works");
    std::fs::read(&path).expect("the file of a closed store")
});

/// Damages a copy of the good file, and uses it.
pub fn play(bytes: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut input = Input::new(bytes);
    let mut file = GOOD.clone();
    match input.below(8) {
        0 => file = input.rest().to_vec(),
        1 => file.truncate(usize::from(input.byte()) * file.len() / 256),
        2 => file.truncate(input.below(120)),
        // The header says which page is what.
        3 => damage(&mut file, &mut input, 100),
        _ => {}
    }
    let length = file.len();
    damage(&mut file, &mut input, length);
    let folder = scratch().join(format!("db{}", COUNT.fetch_add(1, Relaxed)));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("t.db");
    std::fs::write(&path, &file).expect("a file");
    if input.below(4) == 1 {
        std::fs::write(folder.join("t.db-wal"), input.rest()).expect("a file");
    }
    RUNTIME.block_on(use_it(&path));
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

fn damage(file: &mut [u8], input: &mut Input<'_>, within: usize) {
    for _ in 0..input.below(9) {
        let at = (usize::from(input.byte()) << 8 | usize::from(input.byte())) % within.max(1);
        let byte = input.byte();
        if let Some(place) = file.get_mut(at) {
            *place = byte;
        }
    }
}

/// Whether everything worked.
async fn use_it(path: &Path) -> bool {
    let env = Env::system(tokio::runtime::Handle::current());
    let id = env.session_id();
    let work = async {
        let store = SqliteStore::open(path, Durability::Normal, env.clone()).await?;
        let done = async {
            let open =
                SessionStep::Open { nonce: Nonce(1), ttl: Duration::from_secs(10), info: SessionInfo::default() };
            store.apply_session(id, open).await?;
            let key = ClaimKey::new("lock/default/default/a");
            let entry = |attempt| Entry { session: id, attempt, priority: Priority::default() };
            let acquire = |attempt| ClaimStep::Step(Step::acquire(entry(attempt), true, 256, Vec::new()));
            store.apply_claim(key.clone(), acquire(1)).await?;
            store.apply_claim(key, acquire(2)).await?;
            store.claims(ClaimQuery::Prefix(String::new())).await?;
            store.sessions(SessionQuery::Live).await?;
            store.health().await
        };
        let done = done.await;
        store.close().await;
        done
    };
    work.await.is_ok()
}
