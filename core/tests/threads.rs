//! Threads and descriptors of the library are gone when its last client is.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

use std::time::{Duration, Instant};

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::driver::{Runtime, thread_count};

const PATIENCE: Duration = Duration::from_secs(30);

/// The pipe that tokio opens with the first runtime of a process and keeps for good, where some crate has enabled its
/// `process` feature, as MongoDB's driver does. There are more rounds below than this, so a leak in each shows.
const KEPT_BY_TOKIO: usize = 2;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: {} threads, {} descriptors", thread_count(), descriptors());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_is_left_of_the_last_client() {
    let before = descriptors();
    for close in [true, false, true, false, true, false, true] {
        let runtime = Runtime::shared().expect("a runtime");
        let options = Options::parse("memory:").expect("a URL");
        let client = runtime.wait(Client::connect(options), Some(PATIENCE), None).expect("connected");
        let lock = client.lock("a").expect("a name");
        let held = runtime.wait(async move { lock.acquire().await }, Some(PATIENCE), None).expect("free");
        if close {
            let closing = client.clone();
            runtime.wait(async move { closing.close(PATIENCE).await }, Some(PATIENCE), None).expect("closed");
        }
        // On a store without I/O everything so far may have happened before the threads had begun.
        until("the threads", || thread_count() > 0);
        drop((held, client, runtime));
        until("the end", || thread_count() == 0 && descriptors() <= before + KEPT_BY_TOKIO);
    }
}
