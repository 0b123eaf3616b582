//! A store in one SQLite file, for the processes of one machine.
//!
//! - [`file`], `run`, `schema`: the file and what lies beside it: where it may be, whose it is, its layout.
//! - `claims`, `sessions`, `tokens`: the protocol's steps as statements.
//! - `writer`, `gate`, `checkpoint`: who writes when, in this process and among all.
//! - `reader`, `wake`: reading, and being told of one's own grants.
//! - `documents`: tables.
//! - `log`, `places`, `changes`: what has changed, for those who look on.
//!
//! Invariants:
//! - a step is one transaction of the only writing connection of the process, and SQLite's own lock alone excludes
//!   others. The gate only keeps order, and a wake-up is only a hint; both may fail in any way without harm;
//! - the connection is in WAL mode. Coordination is synced to the disk only with `durability=full`: after a power
//!   loss every holder on this machine is dead anyway, and the ceiling of tokens, which is always synced, keeps
//!   tokens growing;
//! - no wall clock decides anything;
//! - nothing is acknowledged, read or told of tables from a file that others do not find under its path any more, and no
//!   session lives in one: SQLite in WAL mode does not notice when the file was moved away.
//!
//! Deliberately absent: network file systems (refused), several users for one file (it is private to its creator).

mod changes;
mod checkpoint;
mod claims;
mod documents;
mod fault;
mod file;
mod gate;
mod log;
mod places;
mod reader;
mod run;
mod schema;
mod sessions;
mod sys;
#[cfg(test)]
mod tests;
mod tokens;
mod wake;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};

use self::checkpoint::Checkpoints;
use self::file::DatabaseFile;
use self::gate::Gate;
use self::log::Log;
use self::reader::Reader;
use self::run::RunDirectory;
use self::wake::Wakes;
use self::writer::{Done, Surroundings, Work, Writer};
use super::changes::{Changes, Interest};
use super::documents::Documents;
use super::{Applied, Capabilities, ClaimQuery, Notices, SessionQuery, Store};
use crate::config::Durability;
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep, Vitality};

/// A store in an SQLite file. Each value has connections of its own.
///
/// Dropping it without [`Store::close`] gives everything back too, but later: when what runs has ended.
#[derive(Debug)]
pub struct SqliteStore {
    run_directory: PathBuf,
    /// None once it is closed.
    open: Mutex<Option<Arc<Open>>>,
}

#[derive(Debug)]
struct Open {
    env: Env,
    file: Arc<DatabaseFile>,
    run: Arc<RunDirectory>,
    reader: Arc<Reader>,
    wakes: Arc<Wakes>,
    log: Arc<Log>,
    checkpoints: Arc<Checkpoints>,
    writer: Arc<Writer>,
    /// Reads tables. Opened when it is needed first.
    tables: tokio::sync::OnceCell<Arc<Reader>>,
}

impl SqliteStore {
    /// Opens the file; creates it if it is missing, and missing directories above it, for this user only. What
    /// processes need to find one another goes into a directory `<path>-run` beside it.
    ///
    /// With [`Durability::Full`] every acknowledged write survives a power loss; otherwise the last moments may not.
    ///
    /// # Errors
    /// `InvalidArgument` if the path names something else than a database of ours, or a file that has other hard links or
    /// is mounted by itself; `Unsupported` if the file is not on a local file system, or was written by a newer version; `Forbidden` if it or its directory cannot be
    /// written; `CorruptState` if it is damaged; `Unavailable` if others keep it locked, or if there is no space.
    pub async fn open(path: &Path, durability: Durability, env: Env) -> Result<Self> {
        let path = path.to_owned();
        let runtime = env.tasks.runtime().clone();
        let opening = runtime.spawn_blocking(move || Open::new(&path, durability, env));
        let open =
            opening.await.map_err(|_| Error::unavailable("the runtime was shut down while a file was opened"))??;
        open.sweep().await?;
        Ok(Self { run_directory: open.run.path().to_owned(), open: Mutex::new(Some(Arc::new(open))) })
    }

    fn inner(&self) -> Result<Arc<Open>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| Error::closed("the store"))
    }

    fn take(&self) -> Option<Arc<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Open {
    fn new(path: &Path, durability: Durability, env: Env) -> Result<Self> {
        let file = Arc::new(DatabaseFile::prepare(path)?);
        let path = file.path().to_owned();
        let boot = boot_id();
        failpoints::at(Point::SqliteFileMade);
        let writing = schema::open(&path, &boot)?;
        let reading = schema::connect(&path).map_err(|error| fault::explain(&path, error))?;
        // SQLite opens the path by itself; what it found is the pinned file only if that is still there.
        file.check_in_place()?;
        let run = Arc::new(RunDirectory::open(&file)?);
        let system = |error: std::io::Error| {
            Error::with_source(Code::Unavailable, format!("'{}' cannot be opened: {error}", path.display()), error)
        };
        let gate = Arc::new(Gate::new(&run.open_gate()?, env.clone()).map_err(system)?);
        let reader = Arc::new(Reader::new(env.clone(), path.clone(), reading));
        let wakes = Arc::new(Wakes::new(env.clone(), run.clone(), reader.clone()).map_err(system)?);
        let log = Arc::new(Log::new(env.clone(), file.clone(), run.clone(), reader.clone()).map_err(system)?);
        let checkpoints = Arc::new(Checkpoints::new(env.clone(), path.clone(), gate.clone()));
        let around =
            Surroundings { run: run.clone(), wakes: wakes.clone(), log: log.clone(), checkpoints: checkpoints.clone() };
        let writer = Arc::new(Writer::new(env.clone(), path.clone(), durability, gate, around, writing, boot));
        log.set_writer(&writer);
        let tables = tokio::sync::OnceCell::new();
        Ok(Self { env, file, run, reader, wakes, log, checkpoints, writer, tables })
    }

    /// Removes what dead processes have left: in the run directory, among the listeners, and old tombstones.
    async fn sweep(&self) -> Result<()> {
        let remains = self.run.sessions();
        // Before the read: what a process that is gone has written is there.
        let mut unborn: Vec<SessionId> = remains.iter().copied().filter(|id| self.run.is_deserted(*id)).collect();
        for session in self.reader.sessions(SessionQuery::Ids(remains)).await? {
            unborn.retain(|id| *id != session.id);
            if session.vitality == Vitality::Dead {
                self.run.remove_remains(session.id);
            }
        }
        for id in unborn {
            // Its process died before the session was opened.
            if !mutants::on(Mutant::UnbornStay) {
                self.run.remove_remains(id);
            }
        }
        // Who listens to nothing any more is never told anything, and of some topics there may be no news for ever.
        let mut listeners = self.reader.read(true, |db| Ok(log::listeners(db)?)).await?;
        listeners.extend(self.run.ears());
        if !mutants::on(Mutant::ListenersStay) {
            self.log.tell(&listeners);
        }
        self.writer.run_later(Work::Purge);
        self.writer.run_later(Work::Trim);
        Ok(())
    }

    async fn close(self: Arc<Self>) {
        if let Some(farewell) = self.log.farewell() {
            self.writer.run_later(farewell);
        }
        self.writer.finish().await;
        self.log.close().await;
        self.wakes.close().await;
        let runtime = self.env.tasks.runtime().clone();
        // Waits for reads and for a checkpoint, and may make one itself. Fails only if the runtime is shut down; the
        // connections are closed with the last user then.
        let _ = runtime.spawn_blocking(move || self.close_connections()).await;
    }

    fn close_connections(&self) {
        self.reader.close();
        if let Some(tables) = self.tables.get() {
            tables.close();
        }
        self.checkpoints.close();
        self.writer.close();
    }
}

impl Store for SqliteStore {
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>> {
        async move {
            let open = self.inner()?;
            if matches!(step, SessionStep::Open { .. } | SessionStep::Renew { .. }) {
                // Who renews in a file that nobody else can find any more does not live for anybody else.
                open.file.check_in_place()?;
            }
            match open.writer.run(Work::Session(id, step)).await? {
                Done::Session(record) => Ok(record),
                other => Err(mismatched(&other)),
            }
        }
        .boxed()
    }

    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>> {
        async move {
            match self.inner()?.writer.run(Work::Claim(key, step)).await? {
                Done::Claim(applied) => Ok(applied),
                other => Err(mismatched(&other)),
            }
        }
        .boxed()
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        async move { self.inner()?.reader.sessions(query).await }.boxed()
    }

    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>> {
        async move { self.inner()?.reader.claims(query).await }.boxed()
    }

    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>> {
        async move { self.inner()?.wakes.subscribe(id) }.boxed()
    }

    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>> {
        async move {
            let open = self.inner()?;
            open.file.check_in_place()?;
            changes::open(open.env.clone(), &open.log, &open.reader, interest).await
        }
        .boxed()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { multi_process: true, multi_host: false, kernel_locks_trusted: true }
    }

    fn run_directory(&self) -> Option<PathBuf> {
        Some(self.run_directory.clone())
    }

    fn documents(&self) -> Option<&dyn Documents> {
        Some(self)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let open = self.inner()?;
            open.file.check_in_place()?;
            open.writer.run(Work::Probe).await.map(|_| ())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(open) = self.take() {
                open.close().await;
            }
        }
        .boxed()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        let Some(open) = self.take() else { return };
        open.writer.stop();
        open.log.stop();
        open.wakes.stop();
        // Closing the last connection makes a checkpoint, with a sync: not on a thread of the runtime. What the writer
        // is doing ends first.
        let runtime = open.env.tasks.runtime().clone();
        runtime.spawn_blocking(move || drop(open));
    }
}

fn mismatched(done: &Done) -> Error {
    Error::new(Code::Panic, format!("the writer answered another question: {done:?}"))
}

/// The kernel's id of this boot, or nothing if it does not tell.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
