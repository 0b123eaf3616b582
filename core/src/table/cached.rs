//! A table with a copy in memory: its reads need no I/O, but [`CachedTable::find`] and [`CachedTable::count`] look at each
//! document.
//!
//! The copy follows the table by its watch. What it shows is what the table was at one moment, a little ago; never half
//! of a snapshot. While the store cannot be reached it shows what was there before ([`CachedTable::synced`] says so), and
//! catches up afterwards.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use bson::Document;
use serde::de::DeserializeOwned;

use super::follow::{Follow, Version};
use super::given::{self, Given};
use super::{
    Filter, FindOptions, Key, ManyWritten, Position, Revision, Stored, Table, Update, WriteOptions, Written, not_found,
};
use crate::client::Core;
use crate::driver::Watched;
use crate::env::Task;
use crate::error::{Error, Result};
use crate::protocol::mirror::{Event, Mirror};

/// How a table is kept in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheOptions {
    /// Keep those that match only; all by default.
    pub filter: Filter,
    /// The most that the documents may take, in bytes of BSON; 256 MiB by default. While a snapshot is read anew there
    /// may be as much again.
    pub max_bytes: usize,
    /// Whether a write through the cached table returns only when the copy shows it. When the copy has ended, a write
    /// returns as that of the table itself; only reads of the copy fail.
    pub read_your_writes: bool,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { filter: Filter::default(), max_bytes: 256 * 1024 * 1024, read_your_writes: true }
    }
}

/// A table with a copy in memory. All clones are one; the copy ends with the last.
#[derive(Clone)]
pub struct CachedTable {
    table: Table,
    shared: Arc<Shared>,
}

struct Shared {
    copy: Arc<Copy>,
    read_your_writes: bool,
    /// Whether changes come in.
    flowing: Arc<AtomicBool>,
    task: Task,
}

struct Copy {
    options: CacheOptions,
    table: String,
    documents: RwLock<Documents>,
    progress: Watched<Progress>,
}

#[derive(Default)]
struct Documents {
    mirror: Mirror<Key, Arc<Cached>>,
    bytes: usize,
    /// Of the snapshot that is being read.
    filling: usize,
}

struct Cached {
    stored: Stored,
    bytes: usize,
}

impl PartialEq for Cached {
    fn eq(&self, other: &Self) -> bool {
        self.stored.document == other.stored.document && self.stored.revision == other.stored.revision
    }
}

#[derive(Clone, Debug, Default)]
struct Progress {
    position: Position,
    synced: bool,
    /// Why the copy has ended.
    failure: Option<Error>,
}

impl CachedTable {
    pub(super) async fn open(table: Table, options: CacheOptions) -> Result<Self> {
        let core = table.client().core().clone();
        core.check_open()?;
        let follow = Follow::new(core.clone(), table.table_name().clone(), options.filter.clone(), None);
        let copy = Arc::new(Copy {
            table: table.name().to_owned(),
            options: options.clone(),
            documents: RwLock::default(),
            progress: Watched::new(Progress::default()),
        });
        let flowing = follow.flowing();
        let task = core.setup().env.spawn(keep(core.clone(), follow, copy.clone()));
        let shared = Arc::new(Shared { copy, read_your_writes: options.read_your_writes, flowing, task });
        let cached = Self { table, shared };
        cached.wait_for(|progress| progress.synced).await?;
        Ok(cached)
    }

    /// The table itself: what is asked of it is asked of the store.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The document of a key, from memory.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidArgument` when the documents have become more than
    /// [`CacheOptions::max_bytes`]; `Closed`.
    pub fn get(&self, key: impl Given<Key>) -> Result<Stored> {
        let key = key.given()?;
        self.read(|documents| documents.mirror.get(&key).map(|cached| cached.stored.clone()))?
            .ok_or_else(|| not_found(self.table.name(), &key))
    }

    /// Whether there is a document of this key, in memory.
    ///
    /// # Errors
    /// As [`CachedTable::get`], but for `NotFound`.
    pub fn contains(&self, key: impl Given<Key>) -> Result<bool> {
        let key = key.given()?;
        self.read(|documents| documents.mirror.get(&key).is_some())
    }

    /// [`CachedTable::get`] as a value.
    ///
    /// # Errors
    /// `CorruptState` if the document is no such value; as [`CachedTable::get`].
    pub fn get_as<T: DeserializeOwned>(&self, key: impl Given<Key>) -> Result<T> {
        given::value_of(self.get(key)?.document)
    }

    /// The document of a key, from the store.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub async fn get_fresh(&self, key: impl Given<Key>) -> Result<Stored> {
        self.table.get(key).await
    }

    /// The documents that match, from memory: looks at each.
    ///
    /// # Errors
    /// `Unsupported` for what only MongoDB knows, also there: ask [`CachedTable::table`] then. As [`CachedTable::get`].
    pub fn find(&self, filter: impl Given<Filter>, options: FindOptions) -> Result<Vec<Stored>> {
        let filter = filter.given()?;
        let mut found = Vec::new();
        for cached in self.all()? {
            if filter.matches(&cached.stored.document)? {
                found.push(cached);
            }
        }
        if let Some(sort) = &options.sort {
            let placed: Result<Vec<_>> =
                found.into_iter().map(|cached| Ok((sort.key(&cached.stored.document)?, cached))).collect();
            let mut placed = placed?;
            placed.sort_by(|(left, _), (right, _)| left.compare(right));
            found = placed.into_iter().map(|(_, cached)| cached).collect();
        }
        let skip = usize::try_from(options.skip).unwrap_or(usize::MAX);
        let limit = options.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let wanted = found.iter().skip(skip).take(limit);
        wanted
            .map(|cached| {
                let stored = cached.stored.clone();
                Ok(match &options.projection {
                    Some(projection) => Stored { document: projection.apply(stored.document)?, ..stored },
                    None => stored,
                })
            })
            .collect()
    }

    /// How many documents match, from memory.
    ///
    /// # Errors
    /// As [`CachedTable::find`].
    pub fn count(&self, filter: impl Given<Filter>) -> Result<u64> {
        let filter = filter.given()?;
        let mut count = 0;
        for cached in self.all()? {
            count += u64::from(filter.matches(&cached.stored.document)?);
        }
        Ok(count)
    }

    /// Up to which place in the history the copy shows everything. No I/O.
    pub fn position(&self) -> Position {
        self.shared.copy.progress.get().position
    }

    /// Whether the copy follows the store at this moment; false while the store cannot be reached, when it shows what
    /// was there before. No I/O.
    pub fn synced(&self) -> bool {
        let progress = self.shared.copy.progress.get();
        progress.synced && progress.failure.is_none() && self.shared.flowing.load(Relaxed)
    }

    /// How many bytes of BSON the copy takes. No I/O.
    pub fn bytes(&self) -> usize {
        let documents = self.shared.copy.documents.read().unwrap_or_else(PoisonError::into_inner);
        documents.bytes + documents.filling
    }

    /// Waits until the copy shows everything up to this place.
    ///
    /// # Errors
    /// As [`CachedTable::get`].
    pub async fn wait_until(&self, position: Position) -> Result<()> {
        self.wait_for(move |progress| progress.position >= position).await
    }

    /// [`Table::insert`].
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub async fn insert(&self, key: impl Given<Key>, document: Document, options: WriteOptions) -> Result<Written> {
        self.shown(self.table.insert(key, document, options).await?).await
    }

    /// [`Table::put`].
    ///
    /// # Errors
    /// As [`Table::put`].
    pub async fn put(&self, key: impl Given<Key>, document: Document, options: WriteOptions) -> Result<Written> {
        self.shown(self.table.put(key, document, options).await?).await
    }

    /// [`Table::update`].
    ///
    /// # Errors
    /// As [`Table::update`].
    pub async fn update(
        &self,
        key: impl Given<Key>,
        update: impl Given<Update>,
        options: WriteOptions,
    ) -> Result<Written> {
        self.shown(self.table.update(key, update, options).await?).await
    }

    /// [`Table::upsert`].
    ///
    /// # Errors
    /// As [`Table::upsert`].
    pub async fn upsert(
        &self,
        key: impl Given<Key>,
        update: impl Given<Update>,
        options: WriteOptions,
    ) -> Result<Written> {
        self.shown(self.table.upsert(key, update, options).await?).await
    }

    /// [`Table::locate`].
    ///
    /// # Errors
    /// As [`Table::locate`].
    pub async fn locate(&self, key: impl Given<Key>, fields: Document, options: WriteOptions) -> Result<Written> {
        self.shown(self.table.locate(key, fields, options).await?).await
    }

    /// [`Table::replace`].
    ///
    /// # Errors
    /// As [`Table::replace`].
    pub async fn replace(&self, key: impl Given<Key>, document: Document, options: WriteOptions) -> Result<Written> {
        self.shown(self.table.replace(key, document, options).await?).await
    }

    /// [`Table::replace_if`].
    ///
    /// # Errors
    /// As [`Table::replace_if`].
    pub async fn replace_if(
        &self,
        key: impl Given<Key>,
        document: Document,
        revision: Revision,
        options: WriteOptions,
    ) -> Result<Written> {
        self.shown(self.table.replace_if(key, document, revision, options).await?).await
    }

    /// [`Table::delete`].
    ///
    /// # Errors
    /// As [`Table::delete`].
    pub async fn delete(&self, key: impl Given<Key>, options: WriteOptions) -> Result<Written> {
        self.shown(self.table.delete(key, options).await?).await
    }

    /// [`Table::delete_if`].
    ///
    /// # Errors
    /// As [`Table::delete_if`].
    pub async fn delete_if(&self, key: impl Given<Key>, revision: Revision, options: WriteOptions) -> Result<Written> {
        self.shown(self.table.delete_if(key, revision, options).await?).await
    }

    /// [`Table::update_many`].
    ///
    /// # Errors
    /// As [`Table::update_many`].
    pub async fn update_many(
        &self,
        filter: impl Given<Filter>,
        update: impl Given<Update>,
        options: WriteOptions,
    ) -> Result<ManyWritten> {
        self.all_shown(self.table.update_many(filter, update, options).await?).await
    }

    /// [`Table::delete_many`].
    ///
    /// # Errors
    /// As [`Table::delete_many`].
    pub async fn delete_many(&self, filter: impl Given<Filter>, options: WriteOptions) -> Result<ManyWritten> {
        self.all_shown(self.table.delete_many(filter, options).await?).await
    }

    async fn all_shown(&self, written: ManyWritten) -> Result<ManyWritten> {
        self.wait_for_write(written.position).await;
        Ok(written)
    }

    async fn shown(&self, written: Written) -> Result<Written> {
        self.wait_for_write(written.position).await;
        Ok(written)
    }

    /// The write is done; with `read_your_writes`, returns when the copy shows it, or has ended. That is no error of the
    /// write, which a caller would do again: the reads say it.
    async fn wait_for_write(&self, position: Position) {
        if self.shared.read_your_writes {
            let _ = self.wait_until(position).await;
        }
    }

    /// Every document at this moment. They are looked at without the lock: who waits to write has those wait that come to
    /// read, and is a task on one of few threads.
    fn all(&self) -> Result<Vec<Arc<Cached>>> {
        self.read(|documents| documents.mirror.iter().map(|(_, cached)| cached.clone()).collect())
    }

    fn read<T>(&self, read: impl FnOnce(&Documents) -> T) -> Result<T> {
        self.table.client().core().check_open()?;
        self.shared.copy.read(read)
    }

    async fn wait_for(&self, wanted: impl Fn(&Progress) -> bool + Send + Sync + 'static) -> Result<()> {
        let (copy, core) = (self.shared.copy.clone(), self.table.client().core().clone());
        self.table
            .client()
            .core()
            .drive(async move {
                let waited = copy.progress.wait_for(|progress| wanted(progress) || progress.failure.is_some());
                tokio::select! {
                    biased;
                    () = waited => {}
                    () = core.closing() => return Err(Error::closed("the client")),
                }
                copy.progress.get().failure.map_or(Ok(()), Err)
            })
            .await
    }
}

/// Keeps the copy fresh, until it cannot.
async fn keep(core: Arc<Core>, mut follow: Follow, copy: Arc<Copy>) {
    let failure = loop {
        let heard = tokio::select! {
            biased;
            () = core.closing() => Err(Error::closed("the client")),
            heard = follow.next() => heard,
        };
        let taken = heard.and_then(|event| copy.take_in(event, follow.position()));
        if let Err(failure) = taken {
            break failure;
        }
    };
    copy.end(failure);
}

impl Copy {
    /// Of what the documents are; not of a copy that has ended, also if it did meanwhile.
    fn read<T>(&self, read: impl FnOnce(&Documents) -> T) -> Result<T> {
        let documents = self.documents.read().unwrap_or_else(PoisonError::into_inner);
        let value = read(&documents);
        self.progress.get().failure.map_or(Ok(value), Err)
    }

    /// The failure is said before the documents are gone: a read that finds none would take them for deleted.
    fn end(&self, failure: Error) {
        self.progress.modify(|progress| progress.failure = Some(failure));
        *self.documents.write().unwrap_or_else(PoisonError::into_inner) = Documents::default();
    }

    fn take_in(&self, event: Option<Event<Key, Version>>, position: Position) -> Result<()> {
        let mut documents = self.documents.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = event {
            documents.apply(event);
        }
        if documents.bytes.max(documents.filling) > self.options.max_bytes {
            return Err(Error::invalid(format!(
                "the documents of table '{}' take more than the {} bytes of max_bytes, so its copy in memory has ended, \
                 and only the table itself goes on; open a copy anew with more max_bytes, or with a filter for a part \
                 of them",
                self.table, self.options.max_bytes
            )));
        }
        let synced = documents.mirror.is_synced();
        drop(documents);
        self.progress.modify(|progress| {
            progress.synced = synced;
            progress.position = position;
        });
        Ok(())
    }
}

impl Documents {
    fn apply(&mut self, event: Event<Key, Version>) {
        let event = match event {
            Event::Init => {
                self.filling = 0;
                Event::Init
            }
            Event::InitApply { key, value } => {
                let value = cached(&key, value);
                self.filling += value.bytes;
                Event::InitApply { key, value }
            }
            Event::InitDone => {
                self.bytes = std::mem::take(&mut self.filling);
                self.mirror.apply(Event::InitDone);
                return;
            }
            Event::Apply { key, value } => {
                let value = cached(&key, value);
                self.bytes += value.bytes;
                Event::Apply { key, value }
            }
            Event::Delete { key, .. } => Event::Delete { key, value: None },
        };
        let added = match &event {
            Event::Apply { value, .. } => value.bytes,
            _ => 0,
        };
        let differences = self.mirror.apply(event);
        if differences.is_empty() {
            // Nothing was put in.
            self.bytes -= added;
        }
        for difference in differences {
            self.bytes -= difference.before.map_or(0, |before| before.bytes);
        }
    }
}

fn cached(key: &Key, version: Version) -> Arc<Cached> {
    let bytes = key.bytes().len() + version.document.to_vec().map_or(0, |bytes| bytes.len());
    let stored = Stored { key: key.clone(), document: version.document, revision: version.revision };
    Arc::new(Cached { stored, bytes })
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for CachedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedTable").field("table", &self.table.name()).field("synced", &self.synced()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn copy() -> Copy {
        Copy {
            table: "t".into(),
            options: CacheOptions::default(),
            documents: RwLock::default(),
            progress: Watched::new(Progress::default()),
        }
    }

    #[test]
    fn a_copy_says_that_it_has_ended_before_its_documents_are_gone() {
        let copy = copy();
        std::thread::scope(|scope| {
            let looked_at = copy.documents.read().unwrap();
            scope.spawn(|| copy.end(Error::closed("the client")));
            let said = copy.progress.wait_for(|progress| progress.failure.is_some());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                tokio::time::timeout(std::time::Duration::from_secs(30), said).await.expect("the failure is said first")
            });
            drop(looked_at);
        });
    }

    #[test]
    fn a_read_of_a_copy_that_ends_meanwhile_finds_its_failure_and_no_missing_document() {
        let copy = copy();
        let read = copy.read(|documents| {
            copy.progress.modify(|progress| progress.failure = Some(Error::closed("the client")));
            documents.mirror.get(&Key::from(1)).is_some()
        });
        assert_eq!(read.unwrap_err().code(), Code::Closed);
    }
}
