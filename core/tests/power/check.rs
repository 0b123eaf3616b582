//! What must be so when the power is back.

use std::path::Path;

use coord_core::config::Durability;
use coord_core::error::Code;
use coord_core::protocol::claim::{ClaimStep, Step};
use coord_core::protocol::document::Position;
use coord_core::protocol::session::{KillProof, SessionStep};
use coord_core::store::documents::{Documents, Event, From, WatchOptions};
use coord_core::store::sqlite::SqliteStore;
use coord_core::store::{ClaimQuery, SessionQuery, Store};
use futures::StreamExt;

use crate::commits::Commits;
use crate::dice::Dice;
use crate::disk::{Image, lay_down};
use crate::story::{Counters, Date, Note, count_up, entry, env, follow, locks, look, opening, table};

/// What is wrong, in words.
pub(crate) type Verdict<T = ()> = Result<T, String>;

/// What was told to whom before the power was lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    ready: bool,
    written: u64,
    token: i64,
    /// The highest token that was acknowledged by a store that syncs grants, of each lock.
    synced: Vec<(String, i64)>,
    seen: Vec<(u64, Counters)>,
}

impl Past {
    pub(crate) fn apply(&mut self, note: &Note) {
        match note {
            Note::Ready => self.ready = true,
            Note::Wrote(position) => self.written = self.written.max(*position),
            Note::Granted { key, token, synced } => {
                self.token = self.token.max(*token);
                if *synced {
                    self.synced.retain(|(name, _)| name != key.as_str());
                    self.synced.push((key.as_str().to_owned(), *token));
                }
            }
            Note::Saw(position, counters) => self.seen.push((*position, counters.clone())),
        }
    }

    /// The last place that anybody knows.
    fn last_place(&self) -> u64 {
        self.seen.iter().map(|(position, _)| *position).max().unwrap_or(0).max(self.written)
    }
}

/// What the images had in them, so that one can see what was tried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    pub(crate) images: u64,
    /// Commits that were lost, of all images.
    pub(crate) commits_lost: u64,
    /// Images in which a token that was granted is not to be found.
    pub(crate) tokens_lost: u64,
    /// Places that readers went on from, and those whose history was lost, as they were told.
    pub(crate) resumed: u64,
    pub(crate) told_lost: u64,
}

impl Tried {
    /// Whether it was seen that something is lost, and that readers are told so where it matters, and only there.
    pub(crate) fn has_power(&self) -> bool {
        self.commits_lost > 0 && self.tokens_lost > 0 && self.told_lost > 0 && self.resumed > self.told_lost
    }
}

/// Looks at the files alone: SQLite takes them for whole, and they are what the database was after some commit, and at
/// least after the last that was synced.
pub(crate) fn check_file(
    image: &Image,
    directory: &Path,
    commits: &Commits,
    past: &Past,
    tried: &mut Tried,
) -> Verdict {
    lay_down(image, directory);
    let file = directory.join("t.db");
    let fault = |error: rusqlite::Error| format!("SQLite: {error}");
    {
        let db = rusqlite::Connection::open(&file).map_err(fault)?;
        let whole: String = db.query_row("PRAGMA integrity_check(3)", [], |row| row.get(0)).map_err(fault)?;
        if whole != "ok" {
            return Err(format!("the database is damaged: {whole}"));
        }
        if past.written > 0 {
            let there = "SELECT count(*) FROM log WHERE seq = ?1";
            let there: i64 = db.query_row(there, [past.written.cast_signed()], |row| row.get(0)).map_err(fault)?;
            if there != 1 {
                return Err(format!("the acknowledged write at {} is lost", past.written));
            }
        }
        for (name, token) in &past.synced {
            let found = "SELECT coalesce(max(tok), 0) FROM lock WHERE name = ?1";
            let found: i64 = db.query_row(found, [name], |row| row.get(0)).map_err(fault)?;
            if found < *token {
                return Err(format!("the acknowledged grant of {token} of '{name}' is lost: it has {found}"));
            }
        }
        if past.token > 0 {
            let known: i64 = db.query_row("SELECT max(tok) FROM lock", [], |row| row.get(0)).map_err(fault)?;
            tried.tokens_lost += u64::from(known < past.token);
        }
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fault)?;
    }
    if commits.count() > 0 {
        let found = match std::fs::read(&file).unwrap() {
            // A file that nothing was synced to yet: not laid out, perhaps with the head that says what it will be.
            database if commits.synced() == 0 && database.len() <= 1_024 => 0,
            database => commits.find(&database).ok_or("the database is as it never was")?,
        };
        if found < commits.synced() {
            return Err(format!("it is as after commit {found}, and {} were synced", commits.synced()));
        }
        tried.commits_lost += (commits.count() - found) as u64;
    }
    Ok(())
}

/// Opens the files as a process does after the boot, and goes on.
pub(crate) async fn check_store(
    image: &Image,
    directory: &Path,
    past: &Past,
    dice: &mut Dice,
    tried: &mut Tried,
) -> Verdict {
    lay_down(image, directory);
    let file = directory.join("t.db");
    let date = Date::before_stories();
    let open = || SqliteStore::open(&file, Durability::Normal, env(&date));
    let store = open().await.map_err(|error| format!("it cannot be opened: {error}"))?;
    let other = open().await.map_err(|error| format!("it cannot be opened twice: {error}"))?;
    take_all_locks(&store, past).await?;
    if past.ready {
        // Some come back at once, and others when much has been written by those who came first.
        resume_some(&store, &other, past, dice, tried).await?;
        for n in 0..dice.below(40) {
            write(&other, n as i64 % 6).await?;
        }
        resume_some(&store, &other, past, dice, tried).await?;
    }
    other.close().await;
    store.close().await;
    Ok(())
}

async fn take_all_locks(store: &SqliteStore, past: &Past) -> Verdict {
    let text = |error: coord_core::error::Error| error.to_string();
    for dead in store.sessions(SessionQuery::Live).await.map_err(text)? {
        let kill = SessionStep::Kill(KillProof::Observed(dead.nonce));
        store.apply_session(dead.id, kill).await.map_err(text)?;
    }
    let own = entry(99, 1);
    store.apply_session(own.session, opening()).await.map_err(text)?;
    for key in locks() {
        let step = ClaimStep::Step(Step::acquire(own, true, 1_000, Vec::new()));
        let view = store.apply_claim(key.clone(), step).await.map_err(text)?.ok_or("no answer")?;
        if view.holder != Some(own) {
            return Err(format!("'{}' is not granted: {view:?}", key.as_str()));
        }
        if view.token <= past.token {
            return Err(format!("'{}' is granted with {}, after {}", key.as_str(), view.token, past.token));
        }
    }
    let held = store.claims(ClaimQuery::Of(own.session)).await.map_err(text)?;
    if held.len() != locks().count() { Err(format!("it holds {held:?}")) } else { Ok(()) }
}

async fn write(store: &SqliteStore, key: i64) -> Verdict<u64> {
    let written = store.write(&table(), count_up(key, 0)).await.map_err(|error| error.to_string())?;
    Ok(written.position.0)
}

/// Readers go on from places that they have kept: each sees what the table is in the end, or is told that it cannot.
async fn resume_some(
    store: &SqliteStore,
    writer: &SqliteStore,
    past: &Past,
    dice: &mut Dice,
    tried: &mut Tried,
) -> Verdict {
    for n in 0..3 {
        // The last ones are the most interesting.
        let back = if n == 0 { dice.below(3) } else { dice.below(past.seen.len()) };
        let Some((place, counters)) = past.seen.iter().rev().nth(back) else { continue };
        tried.resumed += 1;
        let options = WatchOptions { from: From::After(Position(*place)), previous: false };
        let mut changes = match store.watch(&table(), options).await {
            Ok(changes) => changes,
            Err(error) if error.code() == Code::Compacted => {
                tried.told_lost += 1;
                continue;
            }
            Err(error) => return Err(format!("going on from {place}: {error}")),
        };
        let end = write(writer, dice.below(6) as i64).await?;
        if end <= past.last_place() {
            return Err(format!("the place {end} is used again: {} was told before", past.last_place()));
        }
        let mut seen = counters.clone();
        loop {
            match changes.next().await.ok_or("the watch has ended")?.map_err(|error| error.to_string())? {
                Event::Change(change) => {
                    follow(&mut seen, &change);
                    if change.position.0 >= end {
                        break;
                    }
                }
                Event::Gap(at) => return Err(format!("going on from {place} there is a gap at {at:?}")),
                Event::Progress(_) => {}
            }
        }
        let (_, there) = look(store).await;
        if seen != there {
            return Err(format!("who went on from {place} has {seen:?}, and the table is {there:?}"));
        }
    }
    Ok(())
}
