//! Providers in processes of their own, which are killed: those who look on learn of it from the kernel, long before any ttl.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use coord_core::ProvideOptions;
use coord_core::client::connect;

use super::stories::{Place, Told, bounded, observe, truth};

/// What a child of this program is told to do, if it is one: the URL, and the services that it provides.
const URL: &str = "COORD_TEST_PROVIDER_URL";
const SERVICES: &str = "COORD_TEST_PROVIDER_SERVICES";

/// Not a test by itself: the child of the other.
#[test]
fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let client = connect(&url).await.unwrap();
        let mut providers = Vec::new();
        for service in std::env::var(SERVICES).unwrap().split(',') {
            providers.push(client.provide(service, "", ProvideOptions::default()).await.unwrap());
        }
        eprintln!("ready");
        // Until it is killed, or its parent is gone.
        let _ = std::io::stdin().read_line(&mut String::new());
    });
}

struct Process {
    child: Child,
    services: usize,
    _stdin: ChildStdin,
}

impl Process {
    fn start(url: &str, number: usize) -> Self {
        let services: Vec<String> = (0..4).map(|place| format!("s{}", (number + place * place) % 7)).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::child", "--nocapture"])
            // Nobody is to die of silence here.
            .env(URL, format!("{url}&coord.ttl=120&coord.name=p{number}"))
            .env(SERVICES, services.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let ready = said.lines().any(|line| line.unwrap() == "ready");
        assert!(ready, "the process has ended without having provided anything");
        let stdin = child.stdin.take().unwrap();
        Self { child, services: services.len(), _stdin: stdin }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn killed_processes_are_missed_at_once_and_by_all() {
    let place: Place = super::on_sqlite();
    let store = (place.open)().await;
    // So long that neither a silence nor the keeper's turn comes into it.
    let watchers = [place.connect_with("w1", "120").await, place.connect_with("w2", "120").await];
    let mut told = Vec::new();
    for watcher in &watchers {
        told.push(Told::of(observe(watcher, "*").await));
    }
    let mut processes: Vec<Process> = (0..6).map(|number| Process::start(&place.url, number)).collect();
    for round in 0..4 {
        let expected: usize = processes.iter().map(|process| process.services).sum();
        let quiet = async {
            loop {
                let found = truth(&store).await;
                if found.len() == expected {
                    return found;
                }
                // Not by an event: it is the events that are compared with what the store says by itself.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let found = bounded("a quiet moment", quiet).await;
        for told in &mut told {
            told.catch_up(&found).await;
        }
        assert_eq!(told[0].edges, told[1].edges, "round {round}");
        let sessions: BTreeSet<&String> = found.iter().map(|provider| &provider.0).collect();
        assert_eq!(sessions.len(), processes.len());
        // Two at once, without a word; and one comes.
        for _ in 0..2.min(processes.len() - 1) {
            drop(processes.swap_remove(round % processes.len()));
        }
        processes.push(Process::start(&place.url, 6 + round));
    }
    drop(processes);
    for told in &mut told {
        told.catch_up(&BTreeSet::new()).await;
        for (service, (up, down)) in &told.edges {
            assert_eq!(up, down, "{service} came and went");
        }
    }
    for watcher in watchers {
        watcher.close(super::stories::BOUND).await.unwrap();
    }
    store.close().await;
}
