//! Tables in memory: documents in maps, changed by the pure functions under the store's mutex, and a history of the last
//! changes, which whoever watches reads at its own pace.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, Weak};

use bson::Document;
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::{MemoryStore, Records, Shared};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::protocol::claim::ClaimRecord;
use crate::protocol::document::fence::{FENCES_KEPT, Fences};
use crate::protocol::document::write::{Action, Before, Condition, Outcome, Write, apply};
use crate::protocol::document::{Fence, Filter, Key, Position, Revision, TableName};
use crate::store::documents::{
    Aggregated, Change, Changes, Documents, Event, Found, From, Index, ManyAction, ManyWritten, Query, Snapshot,
    Stored, TableOptions, WatchOptions, WriteMany, Written, local,
};
use crate::time::{Timestamp, WallTime};

/// How many changes of a table are kept for those who watch.
const HISTORY: usize = 10_000;

/// All tables of a store.
#[derive(Debug)]
pub(super) struct Tables {
    tables: BTreeMap<TableName, Table>,
    last: Position,
    /// Wakes who watches.
    changed: watch::Sender<Position>,
    sweeping: bool,
}

/// When a write comes: as people read it, and as what decides.
type Dates = (WallTime, Timestamp);

/// The entries of an index, and which documents have each.
type Entries = BTreeMap<Vec<u8>, Vec<Key>>;

#[derive(Debug, Default)]
struct Table {
    documents: BTreeMap<Key, (Document, Revision, Fences)>,
    /// Fences of documents that are not there any more, and when those went.
    tombstones: HashMap<Key, (Timestamp, Fences)>,
    /// The tombstones in the order of time.
    gone: BTreeSet<(Timestamp, Key)>,
    indexes: Vec<(Index, Entries)>,
    history: VecDeque<(Position, Option<Change>)>,
    /// What came at this place or before it is no longer in the history.
    forgotten: Position,
    /// The latest date of a change that was in the history, and is not any more.
    forgotten_at: Option<WallTime>,
}

impl Default for Tables {
    fn default() -> Self {
        Self { tables: BTreeMap::new(), last: Position(0), changed: watch::Sender::new(Position(0)), sweeping: false }
    }
}

impl Tables {
    fn next(&mut self) -> Position {
        self.last = Position(self.last.0 + 1);
        self.last
    }

    fn table(&mut self, name: &TableName) -> &mut Table {
        let last = self.last;
        self.tables.entry(name.clone()).or_insert_with(|| Table { forgotten: last, ..Table::default() })
    }
}

impl Table {
    fn before(&self, key: &Key) -> Before {
        match self.documents.get(key) {
            Some((document, revision, fences)) => {
                Before { document: Some(document.clone()), revision: *revision, fences: fences.clone() }
            }
            None => {
                let fences = self.tombstones.get(key).map(|(_, fences)| fences.clone()).unwrap_or_default();
                Before { fences, ..Before::default() }
            }
        }
    }

    fn save(&mut self, key: &Key, outcome: &Outcome, position: Position, now: Timestamp) -> Result<()> {
        let mut entries = Vec::new();
        for (index, there) in &self.indexes {
            let new = match &outcome.document {
                Some(document) => local::entries_of(index, document)?,
                None => Vec::new(),
            };
            let taken = |entry| there.get(entry).is_some_and(|keys: &Vec<Key>| keys.iter().any(|other| other != key));
            if index.unique && new.iter().any(taken) {
                return Err(local::not_unique(index, key));
            }
            entries.push(new);
        }
        self.forget_entries(key);
        for ((_, there), new) in self.indexes.iter_mut().zip(entries) {
            for entry in new {
                there.entry(entry).or_default().push(key.clone());
            }
        }
        if let Some((since, _)) = self.tombstones.remove(key) {
            self.gone.remove(&(since, key.clone()));
        }
        match &outcome.document {
            Some(document) => {
                let stored = (document.clone(), Revision(position.0), outcome.fences.clone());
                self.documents.insert(key.clone(), stored);
            }
            None => {
                self.documents.remove(key);
                if !outcome.fences.0.is_empty() {
                    self.tombstones.insert(key.clone(), (now, outcome.fences.clone()));
                    self.gone.insert((now, key.clone()));
                }
            }
        }
        Ok(())
    }

    /// Forgets the fences of what has been gone for as long as the other stores keep them. By the clock that never jumps.
    fn forget_fences(&mut self, now: Timestamp) {
        while let Some((since, _)) = self.gone.first()
            && now.since(*since) > FENCES_KEPT
            && let Some((_, key)) = self.gone.pop_first()
        {
            self.tombstones.remove(&key);
        }
    }

    fn forget_entries(&mut self, key: &Key) {
        let Some((document, ..)) = self.documents.get(key) else { return };
        for (index, there) in &mut self.indexes {
            for entry in local::entries_of(index, document).unwrap_or_default() {
                if let Some(keys) = there.get_mut(&entry) {
                    keys.retain(|other| other != key);
                    if keys.is_empty() {
                        there.remove(&entry);
                    }
                }
            }
        }
    }

    fn remember(&mut self, position: Position, change: Option<Change>) {
        self.history.push_back((position, change));
        if self.history.len() > HISTORY
            && let Some((position, change)) = self.history.pop_front()
        {
            self.forgotten = position;
            self.forgotten_at = self.forgotten_at.max(change.map(|change| change.at));
        }
    }

    fn matching(&self, filter: &Filter) -> Result<Vec<Key>> {
        let mut found = Vec::new();
        let mut look = |key: &Key| -> Result<()> {
            if let Some((document, ..)) = self.documents.get(key)
                && filter.matches(document)?
            {
                found.push(key.clone());
            }
            Ok(())
        };
        if let Some(keys) = local::keys_of(filter) {
            keys.iter().try_for_each(&mut look)?;
        } else if let Some(keys) = self.indexed(filter) {
            keys.iter().try_for_each(&mut look)?;
        } else {
            self.documents.keys().try_for_each(&mut look)?;
        }
        Ok(found)
    }

    fn indexed(&self, filter: &Filter) -> Option<Vec<Key>> {
        let able =
            self.indexes.iter().filter_map(|(index, there)| Some((local::beginnings_for(index, filter)?, there)));
        let (beginnings, there) = able.max_by_key(|(beginnings, _)| beginnings.rank)?;
        let entries = beginnings.of.iter().flat_map(|beginning| {
            there.range(beginning.clone()..).take_while(move |(entry, _)| entry.starts_with(beginning))
        });
        let mut keys: Vec<Key> = entries.flat_map(|(_, keys)| keys).cloned().collect();
        keys.sort();
        keys.dedup();
        Some(keys)
    }

    fn stored(&self, key: &Key) -> Option<Stored> {
        let (document, revision, _) = self.documents.get(key)?;
        Some(Stored { key: key.clone(), document: document.clone(), revision: Some(*revision) })
    }
}

impl Records {
    fn write_document(&mut self, name: &TableName, write: &Write, (at, now): Dates) -> Result<Written> {
        if let Some(fence) = &write.fence {
            self.check_hold(fence)?;
        }
        let tables = &mut self.tables;
        tables.table(name).forget_fences(now);
        let before = tables.table(name).before(&write.key);
        let old = before.document.clone();
        let outcome = apply(before, write)?;
        let position = Position(tables.last.0 + 1);
        let table = tables.table(name);
        table.save(&write.key, &outcome, position, now)?;
        table.remember(position, Some(local::change_of(write, old.clone(), &outcome, position, at)));
        tables.last = position;
        tables.changed.send_replace(position);
        Ok(Written {
            revision: outcome.document.as_ref().map(|_| Revision(position.0)),
            document: outcome.document.or(old).unwrap_or_default(),
            position,
            created: outcome.created,
        })
    }

    fn check_hold(&self, fence: &Fence) -> Result<()> {
        let held = |claim: &ClaimRecord| claim.holder == Some(fence.holder) && claim.token == fence.token;
        if self.claims.get(&fence.lock).is_some_and(held) { Ok(()) } else { Err(fence.refused(None)) }
    }

    fn write_documents(&mut self, name: &TableName, many: &WriteMany, dates: Dates) -> Result<ManyWritten> {
        let action = match &many.action {
            ManyAction::Update(update) => Action::Update(update.clone()),
            ManyAction::Delete => Action::Delete,
        };
        local::require_shared_action(&action)?;
        many.filter.require_shared()?;
        let (mut written, mut left_out, mut refusal) = (0, 0, None);
        for key in self.tables.table(name).matching(&many.filter)? {
            let write = Write {
                key,
                action: action.clone(),
                condition: Condition::None,
                fence: many.fence.clone(),
                source: many.source.clone(),
            };
            match self.write_document(name, &write, dates) {
                Ok(_) => written += 1,
                Err(error) if error.code() == Code::Fenced => {
                    left_out += 1;
                    refusal = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(refusal) = refusal {
            return Err(local::partly_fenced(written, left_out, &refusal));
        }
        Ok(ManyWritten { count: written, position: self.tables.last })
    }

    fn sweep(&mut self, dates: Dates) {
        let mut expired = Vec::new();
        for (name, table) in &self.tables.tables {
            let indexes: Vec<Index> = table.indexes.iter().map(|(index, _)| index.clone()).collect();
            for (key, (document, ..)) in &table.documents {
                if local::has_expired(&indexes, document, dates.0) {
                    expired.push((name.clone(), Write::new(key.clone(), Action::Delete)));
                }
            }
        }
        for (name, write) in expired {
            // It was there a moment ago, under the same lock.
            let _ = self.write_document(&name, &write, dates);
        }
    }

    fn expires(&self) -> bool {
        let mut indexes = self.tables.tables.values().flat_map(|table| &table.indexes);
        indexes.any(|(index, _)| index.expire_after.is_some())
    }
}

impl MemoryStore {
    fn begin_sweeping(&self, shared: &Arc<Shared>) {
        self.env.spawn(sweep_while_it_exists(self.env.clone(), Arc::downgrade(shared)));
    }

    fn dates(&self) -> Dates {
        (self.env.clock.wall(), self.env.now())
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.clone().ok_or_else(|| Error::closed("the store"))
    }

    fn query(&self, table: &TableName, query: &Query) -> Result<Vec<Stored>> {
        local::require_shared(query)?;
        self.with(|records| {
            let table = records.tables.table(table);
            let mut arranged = local::Arranged::new(query);
            for stored in table.matching(&query.filter)?.iter().filter_map(|key| table.stored(key)) {
                if !arranged.take(stored) {
                    break;
                }
            }
            arranged.answer()
        })?
    }
}

/// Removes what has expired, for as long as anybody uses the store and something in it can expire.
async fn sweep_while_it_exists(env: Env, shared: Weak<Shared>) {
    loop {
        let Some(alive) = shared.upgrade() else { return };
        {
            let mut records = alive.lock().unwrap_or_else(PoisonError::into_inner);
            if !records.expires() {
                records.tables.sweeping = false;
                return;
            }
            records.sweep((env.clock.wall(), env.now()));
        }
        drop(alive);
        env.sleep(local::SWEEP_EVERY).await;
    }
}

impl Documents for MemoryStore {
    fn write(&self, table: &TableName, write: Write) -> BoxFuture<'_, Result<Written>> {
        let result = write.prepared().and_then(|write| {
            local::require_shared_action(&write.action)?;
            let dates = self.dates();
            self.with(|records| records.write_document(table, &write, dates))?
        });
        future::ready(result).boxed()
    }

    fn write_many(&self, table: &TableName, write: WriteMany) -> BoxFuture<'_, Result<ManyWritten>> {
        let dates = self.dates();
        let result = self.with(|records| records.write_documents(table, &write, dates));
        future::ready(result.flatten()).boxed()
    }

    fn find(&self, table: &TableName, query: Query) -> BoxFuture<'_, Result<Found>> {
        let found = self.query(table, &query);
        future::ready(found.map(|found| stream::iter(found.into_iter().map(Ok)).boxed())).boxed()
    }

    fn date(&self) -> BoxFuture<'_, Result<WallTime>> {
        future::ready(Ok(self.env.clock.wall())).boxed()
    }

    fn count(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<u64>> {
        let count = self.with(|records| {
            filter.require_shared()?;
            Ok(records.tables.table(table).matching(&filter)?.len() as u64)
        });
        future::ready(count.flatten()).boxed()
    }

    fn aggregate(&self, _: &TableName, _: Vec<Document>) -> BoxFuture<'_, Result<Aggregated>> {
        future::ready(Err(crate::store::documents::no_aggregation())).boxed()
    }

    fn snapshot(&self, table: &TableName, filter: Filter) -> BoxFuture<'_, Result<Snapshot>> {
        let found = self.with(|records| {
            filter.require_shared()?;
            let position = records.tables.last;
            let table = records.tables.table(table);
            let found: Vec<_> = table.matching(&filter)?.iter().filter_map(|key| table.stored(key)).map(Ok).collect();
            Ok(Snapshot { position, exact: true, documents: stream::iter(found).boxed() })
        });
        future::ready(found.flatten()).boxed()
    }

    fn watch(&self, table: &TableName, options: WatchOptions) -> BoxFuture<'_, Result<Changes>> {
        let result = self.shared().and_then(|shared| Watch::open(shared, table.clone(), options));
        future::ready(result.map(Watch::stream)).boxed()
    }

    fn ensure_indexes(&self, table: &TableName, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        let result = self.shared().and_then(|shared| {
            let begin = {
                let mut records = shared.lock().unwrap_or_else(PoisonError::into_inner);
                records.tables.table(table).add_indexes(indexes)?;
                let begin = records.expires() && !records.tables.sweeping;
                records.tables.sweeping |= begin;
                begin
            };
            if begin {
                self.begin_sweeping(&shared);
            }
            Ok(())
        });
        future::ready(result).boxed()
    }

    fn configure(&self, table: &TableName, _: TableOptions) -> BoxFuture<'_, Result<()>> {
        // What was before a change is kept with it in any case.
        future::ready(self.with(|records| {
            records.tables.table(table);
        }))
        .boxed()
    }

    fn drop_table(&self, table: &TableName) -> BoxFuture<'_, Result<()>> {
        let result = self.with(|records| {
            let position = records.tables.next();
            let gone = records.tables.table(table);
            let history = std::mem::take(&mut gone.history);
            let (forgotten, forgotten_at) = (gone.forgotten, gone.forgotten_at);
            *gone = Table { history, forgotten, forgotten_at, ..Table::default() };
            gone.remember(position, None);
            records.tables.changed.send_replace(position);
        });
        future::ready(result).boxed()
    }
}

impl Table {
    fn add_indexes(&mut self, wanted: Vec<Index>) -> Result<()> {
        let there: Vec<Index> = self.indexes.iter().map(|(index, _)| index.clone()).collect();
        let mut new = Vec::new();
        for index in local::missing_indexes(&there, wanted)? {
            let mut entries = Entries::new();
            for (key, (document, ..)) in &self.documents {
                for entry in local::entries_of(&index, document)? {
                    let keys = entries.entry(entry).or_default();
                    keys.push(key.clone());
                    if index.unique && keys.len() > 1 {
                        return Err(local::not_unique(&index, key));
                    }
                }
            }
            new.push((index, entries));
        }
        self.indexes.extend(new);
        Ok(())
    }
}

/// One who watches a table: reads the history from its place on, and waits at its end.
struct Watch {
    shared: Arc<Shared>,
    table: TableName,
    previous: bool,
    place: Position,
    changed: watch::Receiver<Position>,
    waiting: VecDeque<Event>,
}

impl Watch {
    fn open(shared: Arc<Shared>, table: TableName, options: WatchOptions) -> Result<Self> {
        let (place, waiting, changed) = {
            let mut records = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let last = records.tables.last;
            let changed = records.tables.changed.subscribe();
            let history = records.tables.table(&table);
            match options.from {
                From::Now => (last, VecDeque::from([Event::Gap(last)]), changed),
                From::After(place) if place < history.forgotten => return Err(crate::store::documents::compacted()),
                From::After(place) if place > last => {
                    return Err(Error::invalid(format!(
                        "the position {place} lies beyond the end of the history, {last}"
                    )));
                }
                From::After(place) => (place, VecDeque::new(), changed),
                From::Time(time) => (history.place_before(time)?, VecDeque::new(), changed),
            }
        };
        Ok(Self { shared, table, previous: options.previous, place, changed, waiting })
    }

    fn stream(self) -> Changes {
        stream::unfold(self, async |mut watch| watch.next().await.map(|event| (Ok(event), watch))).boxed()
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            self.changed.borrow_and_update();
            self.fill();
            if self.waiting.is_empty() && self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    fn fill(&mut self) {
        let mut records = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let last = records.tables.last;
        let table = records.tables.table(&self.table);
        if self.place < table.forgotten {
            self.waiting.push_back(Event::Gap(last));
        } else if self.place < last {
            let begin = table.history.partition_point(|(position, _)| *position <= self.place);
            for (position, change) in table.history.range(begin..) {
                self.waiting.push_back(match change {
                    None => Event::Gap(*position),
                    Some(change) => {
                        let previous = change.previous.clone().filter(|_| self.previous);
                        Event::Change(Box::new(Change { previous, ..change.clone() }))
                    }
                });
            }
            self.waiting.push_back(Event::Progress(last));
        }
        self.place = last;
    }
}

impl Table {
    /// The place before the first change at this date.
    fn place_before(&self, time: WallTime) -> Result<Position> {
        if self.forgotten_at.is_some_and(|at| at >= time) {
            return Err(crate::store::documents::compacted());
        }
        let mut before = self.forgotten;
        for (position, change) in &self.history {
            if change.as_ref().is_some_and(|change| change.at >= time) {
                return Ok(before);
            }
            before = *position;
        }
        Ok(before)
    }
}

#[cfg(test)]
mod tests;
