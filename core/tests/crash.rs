//! What happens to a lock when its holder's process dies, is stopped, or goes on: with real processes.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]
#![cfg(feature = "sqlite")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use coord_core::client::connect;
use coord_core::error::{Code, HolderState, LossReason};

const BOUND: Duration = Duration::from_secs(60);

/// What a child of this program is told to do, if it is one.
const ROLE: &str = "COORD_TEST_HOLDER_URL";

/// Not a test by itself: the child of the others, which takes the lock and says what it sees of it.
#[test]
fn holder() {
    let Ok(url) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let client = connect(&url).await.unwrap();
        let held = client.lock("x").unwrap().acquire().await.unwrap();
        eprintln!("held {}", held.token());
        let reason = held.lost().await;
        eprintln!("lost {}", reason.name());
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        eprintln!("check {}", held.check().is_ok());
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    });
}

/// Not a test by itself: a child that takes the lock with one client after the other, and goes on when it is told to.
#[test]
fn holder_of_many() {
    let Ok(url) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut line = String::new();
        loop {
            let client = connect(&url).await.unwrap();
            let held = client.lock("x").unwrap().acquire().await.unwrap();
            eprintln!("held {}", held.token());
            if std::io::stdin().read_line(&mut line).unwrap() == 0 {
                return;
            }
            client.close(BOUND).await.unwrap();
        }
    });
}

struct Holder {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
    _stdout: ChildStdout,
}

impl Holder {
    fn start(url: &str) -> Self {
        Self::start_as("holder", url)
    }

    fn start_as(role: &str, url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", role, "--nocapture"])
            .env(ROLE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let stdout = child.stdout.take().unwrap();
        Self { child, said, _stdout: stdout }
    }

    /// The rest of the next line that begins with this word.
    fn expect(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the holder ended before it said '{word}'");
            if let Some(rest) = line.trim().strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stores that several processes share, each with this ttl: an SQLite file, and a replica set where there is one.
fn urls(name: &str, ttl: &str) -> Vec<String> {
    let file = std::env::temp_dir().join(format!("coord-{name}-{}.db", std::process::id()));
    let mut urls = vec![format!("sqlite:///{}?coord.ttl={ttl}", file.display())];
    if cfg!(feature = "mongodb")
        && let Ok(uri) = std::env::var("COORD_TEST_MONGODB_URI")
    {
        let separator = if uri.contains('?') { '&' } else { '?' };
        urls.push(format!("{uri}{separator}coord.prefix={name}{}_&coord.ttl={ttl}", std::process::id()));
    }
    urls
}

/// With a ttl of five minutes only the kernel's lock can free it within the bound.
#[tokio::test]
async fn a_killed_holder_on_this_host_blocks_nobody() {
    for url in urls("killed", "300s") {
        let client = connect(&url).await.unwrap();
        let mut delays = Vec::new();
        for _ in 0..5 {
            let mut holder = Holder::start(&url);
            let token: i64 = holder.expect("held").parse().unwrap();
            let lock = client.lock("x").unwrap();
            let waiter = tokio::spawn(async move { (lock.acquire().await, Instant::now()) });
            // Watched from before its death: on a store of several hosts that is a condition.
            watched(&client).await;
            let killed = Instant::now();
            holder.signal("-KILL");
            let (held, at) = tokio::time::timeout(BOUND, waiter).await.expect("a grant").unwrap();
            let held = held.unwrap();
            assert!(held.token() > token);
            delays.push(at - killed);
            held.release().await.unwrap();
        }
        eprintln!("{}: killed to granted in {delays:?}", url.split(':').next().unwrap_or_default());
    }
}

/// Waits until the client has queued and has seen the holder alive.
async fn watched(client: &coord_core::client::Client) {
    let deadline = Instant::now() + BOUND;
    while client.stats().waiting == 0 || client.stats().watched == 0 {
        assert!(Instant::now() < deadline, "the holder is not watched");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A process lives for long, and its clients do not: who waits for them keeps nothing open of those that have gone.
#[tokio::test]
async fn a_neighbour_whose_clients_come_and_go_costs_no_descriptors() {
    for url in urls("neighbour", "30s").into_iter().take(1) {
        let client = connect(&url).await.unwrap();
        let mut holder = Holder::start_as("holder_of_many", &url);
        for _ in 0..50 {
            holder.expect("held");
            let lock = client.lock("x").unwrap();
            let waiter = tokio::spawn(async move { lock.acquire().await });
            waiting_and_watching(&client, &url).await;
            writeln!(holder.child.stdin.as_mut().unwrap(), "go").unwrap();
            let held = tokio::time::timeout(BOUND, waiter).await.expect("a grant").unwrap().unwrap();
            held.release().await.unwrap();
        }
        holder.expect("held");
        let begun = Instant::now();
        // Its own, and that of the neighbour's present client.
        while open_lock_files(&url).len() > 2 {
            assert!(begun.elapsed() < BOUND / 3, "still open: {:#?}", open_lock_files(&url));
            // The system tells nobody when a descriptor is closed.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The lock files of this store's sessions that this process has open.
fn open_lock_files(url: &str) -> Vec<String> {
    let file = url.trim_start_matches("sqlite:///").split('?').next().unwrap_or_default();
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let links = links.map(|link| link.to_string_lossy().into_owned());
    links.filter(|link| link.contains(file) && link.contains(".lk")).collect()
}

/// Waits until the client has queued and watches a session that has not ended.
async fn waiting_and_watching(client: &coord_core::client::Client, url: &str) {
    let (own, deadline) = (client.session().id.to_string(), Instant::now() + BOUND);
    let watches = || open_lock_files(url).iter().any(|link| !link.contains(&own) && !link.ends_with(" (deleted)"));
    while client.stats().waiting == 0 || !watches() {
        assert!(Instant::now() < deadline, "the holder is not watched");
        // Nor when one is opened.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_try_right_after_a_crash_succeeds_on_sqlite() {
    for url in urls("tried", "300s").into_iter().take(1) {
        let client = connect(&url).await.unwrap();
        let mut holder = Holder::start(&url);
        holder.expect("held");
        let error = client.lock("x").unwrap().try_acquire().await.unwrap_err();
        assert_eq!((error.code(), error.holder().unwrap().state), (Code::Contended, HolderState::Live));
        holder.signal("-KILL");
        holder.child.wait().unwrap();
        client.lock("x").unwrap().try_acquire().await.unwrap();
    }
}

/// An operator's client has just been opened, and nobody else looks after the dead holder.
#[tokio::test]
async fn a_hold_of_a_dead_process_is_broken() {
    // Before a keeper could have found it: on SQLite at once, elsewhere after a ttl.
    let (sqlite, others) = (urls("broken", "300s"), urls("broken", "5s"));
    for url in sqlite.iter().take(1).chain(others.iter().skip(1)) {
        let mut holder = Holder::start(url);
        let token: i64 = holder.expect("held").parse().unwrap();
        holder.signal("-KILL");
        holder.child.wait().unwrap();
        let client = connect(url).await.unwrap();
        let broken = client.break_lock("x", token, false);
        tokio::time::timeout(BOUND, broken).await.expect("it does not live").unwrap();
        client.lock("x").unwrap().try_acquire().await.unwrap();
    }
}

/// A stopped process loses its lock by its ttl, and knows it at its first check.
#[tokio::test]
async fn a_stopped_holder_is_passed_over_and_knows_it() {
    for url in urls("stopped", "5s") {
        let client = connect(&url).await.unwrap();
        let mut holder = Holder::start(&url);
        let token: i64 = holder.expect("held").parse().unwrap();
        let lock = client.lock("x").unwrap();
        holder.signal("-STOP");
        let held = tokio::time::timeout(BOUND, lock.acquire()).await.expect("a grant").unwrap();
        assert!(held.token() > token);
        holder.signal("-CONT");
        let reason = holder.expect("lost");
        assert!([LossReason::Expired.name(), LossReason::Killed.name()].contains(&reason.as_str()), "{reason}");
        drop(holder.child.stdin.take());
        assert_eq!(holder.expect("check"), "false");
        held.check().unwrap();
    }
}
