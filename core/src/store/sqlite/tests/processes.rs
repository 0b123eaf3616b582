//! Several processes: the test binary runs itself, and [`helper`] plays the part that it is told.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::protocol::session::KillProof;
use crate::store::ClaimQuery;

const ROLE: &str = "COORD_SQLITE_TEST_ROLE";
const FILE: &str = "COORD_SQLITE_TEST_FILE";
const NUMBER: &str = "COORD_SQLITE_TEST_NUMBER";

/// What helpers say begins with it; the test runner prints lines of its own.
const SAYS: &str = "helper says: ";

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{SAYS}{what}").unwrap();
    out.flush().unwrap();
}

#[test]
#[ignore = "run by other tests, in a process of its own"]
fn helper() {
    let setting = |name: &str| std::env::var(name).unwrap_or_default();
    let path = PathBuf::from(setting(FILE));
    let number: u128 = setting(NUMBER).parse().unwrap_or_default();
    match setting(ROLE).as_str() {
        "wait" => runtime().block_on(wait_for_grant(&path)),
        "hammer" => hammer(&path, number),
        "open" => {
            match runtime().block_on(async { SqliteStore::open(&path, Durability::Normal, env()).await.map(drop) }) {
                Ok(()) => say("opened"),
                Err(error) => say(error.code().name()),
            }
        }
        "leak" => look_for_leaks(&path),
        other => panic!("no such part: '{other}'"),
    }
}

/// A process that plays a part.
struct Helper {
    child: Child,
    says: mpsc::Receiver<String>,
    orders: Option<ChildStdin>,
}

impl Helper {
    fn start(role: &str, path: &Path, number: u128) -> Self {
        Self::start_as(role, path, number, None)
    }

    fn start_as(role: &str, path: &Path, number: u128, user: Option<u32>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "store::sqlite::tests::processes::helper", "--ignored", "--nocapture"]);
        command.env(ROLE, role).env(FILE, path).env(NUMBER, number.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, says) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix(SAYS) {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        let orders = child.stdin.take();
        Self { child, says, orders }
    }

    fn hear(&self) -> String {
        self.says.recv_timeout(Duration::from_secs(30)).expect("the helper says nothing")
    }

    fn hear_words(&self, first: &str) -> Vec<String> {
        let said = self.hear();
        let words: Vec<String> = said.split(' ').map(str::to_owned).collect();
        assert_eq!(words[0], first, "{said}");
        words
    }

    fn order(&mut self, what: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{what}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to stop, and reads what it says last.
    fn finish(mut self) -> Vec<String> {
        drop(self.orders.take());
        loop {
            let said = self.hear();
            if let Some(rest) = said.strip_prefix("finished") {
                assert!(self.child.wait().unwrap().success());
                return rest.split_whitespace().map(str::to_owned).collect();
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn wait_for_grant(path: &Path) {
    let store = open(path).await;
    let mut notices = store.notices(id(2)).await.unwrap();
    assert!(acquire(&store, "x", entry(2, 1)).await.waiting);
    say("waiting");
    match next_notice(&mut notices).await {
        Notice::Granted { entry: granted, token, .. } if granted == entry(2, 1) => say(&format!("granted {token}")),
        other => panic!("{other:?}"),
    }
    match next_notice(&mut notices).await {
        Notice::Breaking { token, .. } => say(&format!("breaking {token}")),
        other => panic!("{other:?}"),
    }
    store.close().await;
}

/// Takes and releases a lock that all want, and one of its own, until its orders end.
fn hammer(path: &Path, number: u128) {
    let runtime = runtime();
    let stopping = Arc::new(AtomicBool::new(false));
    let store = runtime.block_on(async { open(path).await });
    runtime.block_on(open_session(&store, number));
    say("ready");
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).unwrap();
    let watcher = stopping.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        watcher.store(true, SeqCst);
    });
    let mut rounds = 0;
    while !stopping.load(SeqCst) {
        runtime.block_on(async {
            // Leaves the queue again at once if it is not granted.
            acquire(&store, "shared", entry(number, rounds)).await;
            release(&store, "shared", entry(number, rounds)).await;
            acquire(&store, &number.to_string(), entry(number, rounds)).await;
            release(&store, &number.to_string(), entry(number, rounds)).await;
        });
        rounds += 1;
        if rounds.is_multiple_of(50) {
            say(&format!("rounds {rounds}"));
        }
    }
    runtime.block_on(store.close());
    say(&format!("finished {rounds}"));
}

#[test]
fn a_waiter_in_another_process_is_woken_by_a_datagram_alone() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        acquire(&store, "x", entry(1, 1)).await;
        let helper = Helper::start("wait", &scratch.db(), 0);
        helper.hear_words("waiting");
        let token = release(&store, "x", entry(1, 1)).await.unwrap().token;
        assert_eq!(helper.hear_words("granted")[1], token.to_string());
        store.apply_claim(key("x"), ClaimStep::AnnounceBreak { token }).await.unwrap();
        assert_eq!(helper.hear_words("breaking")[1], token.to_string());
    });
}

#[test]
fn every_process_gets_its_share() {
    const PROCESSES: u128 = 4;
    let scratch = Scratch::new();
    let mut helpers: Vec<Helper> = (1..=PROCESSES).map(|n| Helper::start("hammer", &scratch.db(), n)).collect();
    for helper in &mut helpers {
        helper.hear_words("ready");
    }
    for helper in &mut helpers {
        helper.order("go");
    }
    // Until each has had a good deal: one that is starved keeps the test from ending.
    for helper in &helpers {
        while helper.hear_words("rounds")[1].parse::<u64>().unwrap() < 500 {}
    }
    let shares: Vec<u64> = helpers.into_iter().map(|helper| helper.finish()[0].parse().unwrap()).collect();
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most / least < 8, "{shares:?}");
}

#[test]
fn a_process_that_is_killed_at_any_moment_leaves_a_whole_file() {
    const KILLS: u128 = 12;
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let mut steady = Helper::start("hammer", &scratch.db(), 1);
        steady.hear_words("ready");
        steady.order("go");
        let mut latest = 0;
        for victim in 2..2 + KILLS {
            let mut helper = Helper::start("hammer", &scratch.db(), victim);
            helper.hear_words("ready");
            helper.order("go");
            helper.hear_words("rounds");
            helper.kill();
            let proof = KillProof::Observed(Some(Nonce(1)));
            store.apply_session(id(victim), SessionStep::Kill(proof)).await.unwrap().unwrap();
            let held = store.claims(ClaimQuery::Of(id(victim))).await.unwrap();
            assert!(held.len() <= 2, "{held:?}");
            for name in ["shared".to_owned(), victim.to_string()] {
                let view =
                    store.apply_claim(key(&name), ClaimStep::Step(Step::sweep(id(victim)))).await.unwrap().unwrap();
                assert!(view.holder.is_none_or(|holder| holder.session != id(victim)));
                if name == "shared" {
                    assert!(view.token >= latest);
                    latest = view.token;
                }
            }
            assert_eq!(store.claims(ClaimQuery::Of(id(victim))).await.unwrap(), []);
        }
        let done: u64 = steady.finish()[0].parse().unwrap();
        assert!(done > 0);
        for claim in store.claims(ClaimQuery::Prefix(String::new())).await.unwrap() {
            assert_eq!((claim.holder, claim.waiters.len()), (None, 0), "{claim:?}");
        }
        let whole =
            store.inner().unwrap().writer.with_connection(|db| {
                db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap()
            });
        assert_eq!(whole, "ok");
    });
}

#[test]
fn a_process_that_is_stopped_stops_the_others_at_most_as_long_as_it_holds_the_file() {
    runtime().block_on(async {
        let scratch = Scratch::new();
        let store = open(&scratch.db()).await;
        let mut helpers: Vec<Helper> = (1..=3).map(|n| Helper::start("hammer", &scratch.db(), n)).collect();
        for helper in &mut helpers {
            helper.hear_words("ready");
            helper.order("go");
        }
        for round in 0..15 {
            let victim = &helpers[round % 3];
            victim.hear_words("rounds");
            victim.signal(Signal::STOP);
            let mut step = std::pin::pin!(acquire(&store, "mine", entry(9, 1)));
            // In a third of the cases it is in the middle of a transaction, and has to go on first.
            let patience = Duration::from_millis(500);
            if tokio::time::timeout(patience, step.as_mut()).await.is_err() {
                victim.signal(Signal::CONT);
                soon(step).await;
            }
            victim.signal(Signal::CONT);
            release(&store, "mine", entry(9, 1)).await.unwrap();
        }
        for helper in helpers {
            helper.finish();
        }
    });
}

#[test]
fn without_the_right_to_write_nothing_is_opened() {
    const NOBODY: u32 = 65_534;
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let user = rustix::process::geteuid().is_root().then_some(NOBODY);
    let allow = |name: &str, mode: u32| {
        chown(scratch.path(name), user, user).unwrap();
        std::fs::set_permissions(scratch.path(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    for (directory, directory_mode, file_mode, expected) in [
        ("both", 0o700, 0o600, "opened"),
        ("file", 0o700, 0o400, "Forbidden"),
        ("directory", 0o500, 0o600, "Forbidden"),
        ("neither", 0o500, 0o400, "Forbidden"),
    ] {
        std::fs::create_dir(scratch.path(directory)).unwrap();
        let file = format!("{directory}/t.db");
        runtime().block_on(async { open(&scratch.path(&file)).await.close().await });
        std::fs::remove_dir_all(scratch.path(&format!("{directory}/t.db-run"))).unwrap();
        allow(&file, file_mode);
        allow(directory, directory_mode);
        let helper = Helper::start_as("open", &scratch.path(&file), 0, user);
        assert_eq!(helper.hear(), expected, "{directory}");
    }
    // Neither can a file be made where it may not be.
    allow("neither", 0o500);
    let helper = Helper::start_as("open", &scratch.path("neither/new/t.db"), 0, user);
    assert_eq!(helper.hear(), "Forbidden");
}

#[test]
fn nothing_is_left_of_a_closed_or_dropped_store() {
    let scratch = Scratch::new();
    let helper = Helper::start("leak", &scratch.db(), 0);
    assert_eq!(helper.hear(), "nothing is left");
}

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

fn look_for_leaks(path: &Path) {
    let threads = entries("/proc/self/task");
    for closing in [true, false, true] {
        let runtime = runtime();
        let files = runtime.block_on(async { tokio::task::spawn_blocking(|| entries("/proc/self/fd")).await.unwrap() });
        let store = runtime.block_on(use_everything(path));
        assert!(entries("/proc/self/fd") > files);
        if closing {
            runtime.block_on(store.close());
            assert_eq!(entries("/proc/self/fd"), files, "after the closing");
        }
        drop(store);
        let run = PathBuf::from(format!("{}-run", path.display()));
        assert_eq!(entries(run.to_str().unwrap()), 1, "only the gate is left");
        drop(runtime);
        assert_eq!(entries("/proc/self/task"), threads);
    }
    assert!(!PathBuf::from(format!("{}-wal", path.display())).exists(), "the connections were closed");
    say("nothing is left");
}

async fn use_everything(path: &Path) -> SqliteStore {
    let store = open(path).await;
    let other = open(path).await;
    let _dropped = store.notices(id(1)).await.unwrap();
    let mut notices = store.notices(id(2)).await.unwrap();
    for attempt in 0..1_500 {
        acquire(&other, "x", entry(1, attempt)).await;
        acquire(&store, "x", entry(2, attempt)).await;
        release(&other, "x", entry(1, attempt)).await;
        assert!(matches!(next_notice(&mut notices).await, Notice::Granted { .. }));
        release(&store, "x", entry(2, attempt)).await;
    }
    store.claims(ClaimQuery::Prefix(String::new())).await.unwrap();
    store.health().await.unwrap();
    other.close().await;
    // The stream outlives its store.
    std::mem::forget(notices);
    store
}
