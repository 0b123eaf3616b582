//! The floor of SQLite: one bare transaction that inserts a row, one that deletes it, on one connection.

use std::sync::{Arc, Mutex, PoisonError};

use coord_bench_worker::{Result, Subject};
use rusqlite::{Connection, params};

/// When a commit is synced to the disk.
#[derive(Clone, Copy)]
pub(super) enum Synchronous {
    Normal,
    Full,
}

pub(super) struct Bare(Arc<Mutex<Connection>>);

// Not asynchronous inside: nothing but SQLite itself is to be measured.
pub(super) fn connect(path: &str, synchronous: Synchronous) -> impl Future<Output = Result<Bare>> {
    std::future::ready(open(path, synchronous))
}

fn open(path: &str, synchronous: Synchronous) -> Result<Bare> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(
        None,
        "synchronous",
        match synchronous {
            Synchronous::Normal => "normal",
            Synchronous::Full => "full",
        },
    )?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    connection.execute_batch("create table if not exists bare (name text primary key, owner text) without rowid")?;
    Ok(Bare(Arc::new(Mutex::new(connection))))
}

impl Subject for Bare {
    type Lock = String;
    type Held = String;

    fn lock(&self, name: &str) -> Result<String> {
        Ok(name.to_owned())
    }

    async fn acquire(&self, lock: &String) -> Result<String> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.prepare_cached("insert into bare values (?1, ?2)")?.execute(params![lock, "somebody"])?;
        Ok(lock.clone())
    }

    async fn release(&self, held: String) -> Result<()> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.prepare_cached("delete from bare where name = ?1")?.execute(params![held])?;
        Ok(())
    }
}
