//! The promises of the driver. What looks at threads, signals or forks runs in a process of its own: the test starts
//! its own binary again for just that test.

mod cancel;
mod drive;
mod operation;
mod queue;
mod runtime;
mod wait;

use std::future::pending;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::sys::testing::{in_bare_child, in_forked_child, let_sigpipe_kill, write_to_broken_pipe};
use super::*;
use crate::error::{Code, Error, Result};

/// How long an event may take on a busy machine before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

const ALONE: &str = "COORD_TEST_ALONE";

/// True in the process that is to run the test's body; else starts that process and checks that it succeeds.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = format!("driver::tests::{test}");
    let output = Command::new(std::env::current_exe().expect("own path"))
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .expect("own binary starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains("1 passed"), "no such test: {text}");
    false
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The threads of this process with our name: their ids and names, as the kernel knows them.
fn our_threads() -> Vec<(String, String)> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            name.starts_with("coord-rt-").then(|| (name.trim().to_owned(), status))
        })
        .collect()
}

fn blocked_signals(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
    u64::from_str_radix(line.trim(), 16).expect("a number")
}

fn own_mask() -> u64 {
    blocked_signals(&std::fs::read_to_string("/proc/thread-self/status").expect("/proc"))
}

fn code<T>(outcome: Result<T>) -> Code {
    outcome.err().expect("an error").code()
}

/// An executor that is not tokio's.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// Something that must not get lost: counts itself when it comes into being and when it goes.
#[derive(Debug)]
struct Owned(Arc<Balance>);

#[derive(Debug, Default)]
struct Balance {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl Owned {
    fn new(balance: &Arc<Balance>) -> Self {
        balance.made.fetch_add(1, Ordering::SeqCst);
        Self(balance.clone())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Balance {
    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

/// A future that owns something and never ends.
async fn stuck(owned: Owned) -> Result<()> {
    pending::<()>().await;
    drop(owned);
    Ok(())
}
