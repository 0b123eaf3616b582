//! What the benchmarks run on: the servers, each started when it is first wanted, and who plays against whom.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use coord_bench_worker::Result;
use coord_tests::servers::ReplicaSet;
use coord_tests::servers::scratch::Scratch;

use crate::book::Book;
use crate::process::Worker;
use crate::servers::{Server, find};

/// Who is measured, on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Player {
    /// This project in memory, inside one process.
    OursMemory,
    OursSqlite,
    OursSqliteFull,
    OursMongo(usize),
    /// Bare transactions or writes.
    FloorSqlite,
    FloorSqliteFull,
    FloorMongo(usize),
    /// Writes to one document by all clients.
    OneDocument(usize),
    /// Insert, change stream, try again.
    PlainMongo(usize),
    Etcd(usize),
    Kazoo,
    Redis,
    FileLock,
    Fasteners,
}

/// Everything that a benchmark needs.
pub(crate) struct Stage {
    scratch: Scratch,
    mongodb: [OnceCell<Option<ReplicaSet>>; 2],
    etcd: [OnceCell<Option<Server>>; 2],
    redis: OnceCell<Option<Server>>,
    zookeeper: OnceCell<Option<Server>>,
}

impl Player {
    /// What the table calls it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::OursMemory => "coord memory".into(),
            Self::OursSqlite => "coord SQLite NORMAL".into(),
            Self::OursSqliteFull => "coord SQLite FULL".into(),
            Self::OursMongo(n) => format!("coord MongoDB {n}"),
            Self::FloorSqlite => "two bare transactions, SQLite NORMAL".into(),
            Self::FloorSqliteFull => "two bare transactions, SQLite FULL".into(),
            Self::FloorMongo(n) => format!("bare insert + delete, MongoDB {n}"),
            Self::OneDocument(n) => format!("one-document writes, MongoDB {n}"),
            Self::PlainMongo(n) => format!("plain change-stream lock, MongoDB {n}"),
            Self::Etcd(n) => format!("etcd {n} (etcd-client)"),
            Self::Kazoo => "kazoo, ZooKeeper 1".into(),
            Self::Redis => "redis-py, AOF always".into(),
            Self::FileLock => "filelock".into(),
            Self::Fasteners => "fasteners".into(),
        }
    }

    fn python(self) -> Option<&'static str> {
        match self {
            Self::Kazoo => Some("kazoo"),
            Self::Redis => Some("redis"),
            Self::FileLock => Some("filelock"),
            Self::Fasteners => Some("fasteners"),
            _ => None,
        }
    }
}

impl Stage {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            scratch: Scratch::new()?,
            mongodb: Default::default(),
            etcd: Default::default(),
            redis: OnceCell::new(),
            zookeeper: OnceCell::new(),
        })
    }

    /// A worker of this player, connected. None, and a line in the book, if it cannot be had.
    pub(crate) fn worker(&self, player: Player, book: &mut Book) -> Result<Option<Worker>> {
        Ok(self.workers(player, 1, book)?.and_then(|mut workers| workers.pop()))
    }

    /// So many workers, connected.
    pub(crate) fn workers(&self, player: Player, count: usize, book: &mut Book) -> Result<Option<Vec<Worker>>> {
        let command = match self.command(player, "") {
            Ok(command) => command,
            Err(error) => {
                book.absent(format!("{}: {error}", player.name()));
                return Ok(None);
            }
        };
        drop(command);
        let workers: Vec<Worker> =
            (0..count).map(|_| Worker::start(&player.name(), self.command(player, "")?)).collect::<Result<_>>()?;
        for worker in &workers {
            worker.ready()?;
        }
        Ok(Some(workers))
    }

    /// A worker of this project's with options of its own in the URL.
    pub(crate) fn ours_with(&self, player: Player, options: &str, book: &mut Book) -> Result<Option<Worker>> {
        let command = match self.command(player, options) {
            Ok(command) => command,
            Err(error) => {
                book.absent(format!("{}: {error}", player.name()));
                return Ok(None);
            }
        };
        let worker = Worker::start(&player.name(), command)?;
        worker.ready()?;
        Ok(Some(worker))
    }

    /// A worker of this project's on the store at this URL.
    pub(crate) fn ours_at(&self, url: &str) -> Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", "coord", url]);
        let worker = Worker::start("coord", command)?;
        worker.ready()?;
        Ok(worker)
    }

    /// How to start a worker of this player.
    fn command(&self, player: Player, options: &str) -> Result<Command> {
        let address = self.address(player, options)?;
        if let Some(subject) = player.python() {
            let python = find("python").ok_or("there is no python on the PATH (run by benches/run)")?;
            let mut command = Command::new(python);
            command.arg(here().join("peers/peer.py")).args([subject, &address]);
            return Ok(command);
        }
        if let Player::Etcd(_) = player {
            let mut command = Command::new(etcd_peer()?);
            command.arg(&address);
            return Ok(command);
        }
        let subject = match player {
            Player::FloorSqlite => "sqlite-normal",
            Player::FloorSqliteFull => "sqlite-full",
            Player::FloorMongo(_) => "mongodb-pair",
            Player::OneDocument(_) => "mongodb-one",
            Player::PlainMongo(_) => "mongodb-lock",
            _ => "coord",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", subject, &address]);
        Ok(command)
    }

    /// Where this player's store is, in its own words.
    pub(crate) fn address(&self, player: Player, options: &str) -> Result<String> {
        let folder = self.scratch.path().display();
        Ok(match player {
            Player::OursMemory => with_options("memory:".into(), options),
            Player::OursSqlite => with_options(format!("sqlite:///{folder}/normal.db"), options),
            Player::OursSqliteFull => {
                with_options(format!("sqlite:///{folder}/full.db?coord.durability=full"), options)
            }
            Player::OursMongo(n) => with_options(self.mongodb(n)?.replacen("/?", "/coord_bench?", 1), options),
            Player::FloorSqlite => format!("{folder}/bare-normal.db"),
            Player::FloorSqliteFull => format!("{folder}/bare-full.db"),
            Player::FloorMongo(n) | Player::OneDocument(n) | Player::PlainMongo(n) => self.mongodb(n)?,
            Player::Etcd(n) => of(&self.etcd[usize::from(n > 1)], "etcd", || Server::etcd(n))?,
            Player::Redis => of(&self.redis, "Redis", Server::redis)?,
            Player::Kazoo => of(&self.zookeeper, "ZooKeeper", Server::zookeeper)?,
            Player::FileLock | Player::Fasteners => {
                let files = self.scratch.path().join("files");
                std::fs::create_dir_all(&files)?;
                files.display().to_string()
            }
        })
    }

    /// The URI of a set of this many members.
    pub(crate) fn mongodb(&self, members: usize) -> Result<String> {
        let set = self.mongodb[usize::from(members > 1)].get_or_init(|| ReplicaSet::start(members));
        Ok(set.as_ref().ok_or("there is no mongod")?.uri())
    }

    /// A folder for files.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

fn of(cell: &OnceCell<Option<Server>>, what: &str, start: impl FnOnce() -> Result<Server>) -> Result<String> {
    let started = cell.get_or_init(|| start().inspect_err(|error| eprintln!("  {what}: {error}")).ok());
    Ok(started.as_ref().ok_or_else(|| format!("{what} could not be started"))?.address.clone())
}

fn with_options(url: String, options: &str) -> String {
    match (options, url.contains('?')) {
        ("", _) => url,
        (_, true) => format!("{url}&{options}"),
        (_, false) => format!("{url}?{options}"),
    }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

/// The peer that is built apart.
fn etcd_peer() -> Result<PathBuf> {
    let program = here().join("../target/peers/release/coord-bench-etcd");
    if program.is_file() { Ok(program) } else { Err("its worker is not built (Debian's protobuf-compiler)".into()) }
}
