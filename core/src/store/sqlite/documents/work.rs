//! What the writer does to tables: each piece in one transaction, synced to the disk, of at most [`MOST`] documents or
//! [`TIME`], so that coordination is never kept waiting.

use std::time::Duration;

use bson::{Bson, Document, doc};
use rusqlite::{Connection, params};

use super::super::fault::Fault;
use super::super::log;
use super::table::{Indexed, Table, encode, encode_index, is_held};
use crate::env::Env;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::document::fence::FENCES_KEPT;
use crate::protocol::document::write::{Action, Condition, Write, apply};
use crate::protocol::document::{Key, Position, Revision, TableName};
use crate::store::documents::{Change, Index, ManyAction, TableOptions, WriteMany, Written, local};
use crate::time::{Timestamp, WallTime};

/// As many documents are written in a transaction.
pub(in crate::store::sqlite) const MOST: usize = 500;

/// For as long a transaction goes on to the next document.
pub(in crate::store::sqlite) const TIME: Duration = Duration::from_millis(50);

/// The documents after a key, found by the key: a walk over those before it would make the filling of an index take
/// the square of their number, while nobody else writes.
const NEXT_DOCUMENTS: &str = "SELECT key, body FROM doc WHERE tab = ?1 AND key > ?2 ORDER BY key LIMIT ?3";

/// One piece of work.
#[derive(Clone, Debug)]
pub(in crate::store::sqlite) enum DocumentWork {
    /// One write.
    Write(TableName, Box<Write>),
    /// The same write to those of these that still match.
    Many(TableName, Vec<Key>, Box<WriteMany>),
    /// Add those of the indexes that are not there, without entries.
    AddIndexes(TableName, Vec<Index>),
    /// Enter the documents after this key into these indexes, as far as they are not ready. Who begins without a key and
    /// goes on to the end has entered them all; nobody goes on for another.
    Fill(TableName, Vec<i64>, Option<Key>),
    /// Set how the table is kept.
    Configure(TableName, TableOptions),
    /// Take the table's name from it. What it had is removed little by little.
    Drop(TableName),
    /// Remove some of what has expired or was dropped.
    Sweep,
}

/// What came of it. What is refused has written nothing.
#[derive(Debug)]
pub(in crate::store::sqlite) enum DocumentDone {
    Written(Result<Written>),
    Many(Progress),
    /// Those of the wanted indexes that have to be filled.
    Indexes(Result<Vec<i64>>),
    Filled(Result<Filled>),
    /// More may be left.
    Swept(bool),
    Nothing,
}

/// How far indexes are filled.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::sqlite) enum Filled {
    /// Up to this key.
    To(Key),
    /// They are ready.
    All,
    /// One of them is gone: somebody else has given it up, or dropped the table.
    Gone,
}

/// How far a write to many has come.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Progress {
    pub(super) written: u64,
    pub(super) left_out: u64,
    /// Why one of those was left out.
    pub(super) refusal: Option<Error>,
    pub(super) position: Position,
    /// Those that are still to be written.
    pub(super) rest: Vec<Key>,
    /// Why one of them cannot be: the others before it are written.
    pub(super) error: Option<Error>,
}

impl DocumentWork {
    /// How many documents it may write.
    pub(in crate::store::sqlite) fn weight(&self) -> usize {
        match self {
            Self::Write(..) => 1,
            _ => MOST,
        }
    }
}

/// What a piece of work has done, and which tables have changed.
#[derive(Debug)]
pub(in crate::store::sqlite) struct Performed {
    pub(in crate::store::sqlite) done: DocumentDone,
    pub(in crate::store::sqlite) changed: Vec<String>,
}

/// The log's topic of a table.
pub(super) fn topic(table: &str) -> String {
    format!("doc/{table}")
}

/// Does a piece of work in the transaction that was begun.
pub(in crate::store::sqlite) fn perform(
    db: &Connection,
    work: &DocumentWork,
    wall: WallTime,
    env: &Env,
) -> std::result::Result<Performed, Fault> {
    let until = env.now() + TIME;
    let of = |table: &TableName, done| Performed { done, changed: vec![topic(table.as_str())] };
    Ok(match work {
        DocumentWork::Write(name, write) => of(name, DocumentDone::Written(one(db, name, write, wall)?)),
        DocumentWork::Many(name, keys, many) => {
            let more = || env.now() < until;
            of(name, DocumentDone::Many(some(db, name, keys, many, wall, more)?))
        }
        DocumentWork::AddIndexes(name, wanted) => silent(DocumentDone::Indexes(add_indexes(db, name, wanted)?)),
        DocumentWork::Fill(name, indexes, after) => {
            silent(DocumentDone::Filled(fill(db, name, indexes, after.as_ref(), env, until)?))
        }
        DocumentWork::Configure(name, options) => {
            let table = Table::make(db, name)?;
            db.prepare_cached("UPDATE tab SET prev = ?2 WHERE id = ?1")?
                .execute(params![table.id, options.previous])?;
            silent(DocumentDone::Nothing)
        }
        DocumentWork::Drop(name) => {
            db.prepare_cached("UPDATE tab SET name = NULL WHERE name = ?1")?.execute([name.as_str()])?;
            log::append(db, &topic(name.as_str()), "", &[], "", wall)?;
            of(name, DocumentDone::Nothing)
        }
        DocumentWork::Sweep => sweep(db, wall)?,
    })
}

fn silent(done: DocumentDone) -> Performed {
    Performed { done, changed: Vec::new() }
}

/// One write. The inner error is a refusal.
fn one(
    db: &Connection,
    name: &TableName,
    write: &Write,
    wall: WallTime,
) -> std::result::Result<Result<Written>, Fault> {
    if let Some(fence) = &write.fence
        && !is_held(db, fence)?
    {
        return Ok(Err(fence.refused(None)));
    }
    let table = Table::make(db, name)?;
    let before = table.before(db, &write.key)?;
    let old = before.document.clone();
    let outcome = match apply(before, write) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(document) = &outcome.document
        && let Err(error) = table.check_unique(db, &write.key, document)?
    {
        return Ok(Err(error));
    }
    let mut change = local::change_of(write, old.clone(), &outcome, Position(0), wall);
    if !table.previous {
        change.previous = None;
    }
    let source = change.source.clone().unwrap_or_default();
    log::append(db, &topic(name.as_str()), "", &encode_change(&change)?, &source, wall)?;
    failpoints::at(Point::SqliteChangeLogged);
    let position = Position(db.last_insert_rowid().cast_unsigned());
    table.save(db, &write.key, old.as_ref(), &outcome, position, wall)?;
    Ok(Ok(Written {
        revision: outcome.document.as_ref().map(|_| Revision(position.0)),
        document: outcome.document.or(old).unwrap_or_default(),
        position,
        created: outcome.created,
    }))
}

fn some(
    db: &Connection,
    name: &TableName,
    keys: &[Key],
    many: &WriteMany,
    wall: WallTime,
    more: impl Fn() -> bool,
) -> std::result::Result<Progress, Fault> {
    let action = match &many.action {
        ManyAction::Update(update) => Action::Update(update.clone()),
        ManyAction::Delete => Action::Delete,
    };
    let (rest, position) = (Vec::new(), Position(0));
    let mut done = Progress { written: 0, left_out: 0, refusal: None, position, rest, error: None };
    let table = Table::make(db, name)?;
    for (place, key) in keys.iter().enumerate() {
        if place > 0 && !more() {
            done.rest = keys[place..].to_vec();
            break;
        }
        match table.before(db, key)?.document {
            Some(document) if many.filter.matches(&document)? => {}
            _ => continue,
        }
        let write = Write {
            key: key.clone(),
            action: action.clone(),
            condition: Condition::None,
            fence: many.fence.clone(),
            source: many.source.clone(),
        };
        match one(db, name, &write, wall)? {
            Ok(written) => {
                done.written += 1;
                done.position = written.position;
            }
            Err(error) if error.code() == Code::Fenced => {
                done.left_out += 1;
                done.refusal = Some(error);
            }
            Err(error) => {
                done.error = Some(error);
                break;
            }
        }
    }
    Ok(done)
}

/// Those of them that have to be filled, by their ids.
fn add_indexes(db: &Connection, name: &TableName, wanted: &[Index]) -> std::result::Result<Result<Vec<i64>>, Fault> {
    let table = Table::make(db, name)?;
    let there: Vec<Index> = table.indexes.iter().map(|indexed| indexed.index.clone()).collect();
    let checked = local::checked_indexes(wanted.to_vec())
        .and_then(|wanted| Ok((local::missing_indexes(&there, wanted.clone())?, wanted)));
    let (missing, wanted) = match checked {
        Ok(checked) => checked,
        Err(error) => return Ok(Err(error)),
    };
    let is_wanted = |indexed: &&Indexed| !indexed.ready && wanted.contains(&indexed.index);
    let mut unready: Vec<i64> = table.indexes.iter().filter(is_wanted).map(|indexed| indexed.id).collect();
    for index in &missing {
        let expires = index.expire_after.map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
        db.prepare_cached("INSERT INTO ix(tab, ready, expires, def) VALUES(?1, 0, ?2, ?3)")?.execute(params![
            table.id,
            expires,
            encode_index(index)?
        ])?;
        unready.push(db.last_insert_rowid());
    }
    Ok(Ok(unready))
}

/// Indexes of others are let alone: only who began to fill one at the first key knows when it is full.
fn fill(
    db: &Connection,
    name: &TableName,
    indexes: &[i64],
    after: Option<&Key>,
    env: &Env,
    until: Timestamp,
) -> std::result::Result<Result<Filled>, Fault> {
    let Some(mut table) = Table::find(db, name)? else { return Ok(Ok(Filled::Gone)) };
    table.indexes.retain(|indexed| indexes.contains(&indexed.id));
    if table.indexes.len() < indexes.len() {
        return Ok(Ok(Filled::Gone));
    }
    table.indexes.retain(|indexed| !indexed.ready);
    if table.indexes.is_empty() {
        return Ok(Ok(Filled::All));
    }
    let mut statement = db.prepare_cached(NEXT_DOCUMENTS)?;
    // No key has no bytes.
    let mut rows = statement.query(params![table.id, after.map_or(&[][..], Key::bytes), MOST as i64])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let key = Key::from_bytes(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let document = super::table::decode(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        for indexed in &table.indexes {
            if let Err(error) = table.fill(db, indexed, &key, &document)? {
                // They are given up as a whole; their entries go with the next sweep.
                for Indexed { id, .. } in &table.indexes {
                    db.prepare_cached("UPDATE ix SET tab = 0 WHERE id = ?1")?.execute([id])?;
                }
                return Ok(Err(error));
            }
        }
        last = Some(key);
        if env.now() >= until {
            break;
        }
    }
    if let Some(key) = last {
        return Ok(Ok(Filled::To(key)));
    }
    for Indexed { id, .. } in &table.indexes {
        db.prepare_cached("UPDATE ix SET ready = 1 WHERE id = ?1")?.execute([id])?;
    }
    Ok(Ok(Filled::All))
}

/// Removes some of what is no longer wanted: expired documents, what dropped tables had, old fences.
fn sweep(db: &Connection, wall: WallTime) -> std::result::Result<Performed, Fault> {
    let (mut left, mut changed) = (MOST, Vec::new());
    for (name, key) in expired(db, wall)? {
        let write = Write::new(key, Action::Delete);
        if one(db, &name, &write, wall)?.is_ok() {
            changed.push(topic(name.as_str()));
        }
        left = left.saturating_sub(1);
    }
    for statement in [
        "DELETE FROM entry WHERE (ix, val, key) IN (SELECT ix, val, key FROM entry WHERE ix IN \
         (SELECT id FROM ix WHERE tab = 0 OR tab IN (SELECT id FROM tab WHERE name IS NULL)) LIMIT ?1)",
        "DELETE FROM doc WHERE rowid IN \
         (SELECT rowid FROM doc WHERE tab IN (SELECT id FROM tab WHERE name IS NULL) LIMIT ?1)",
        "DELETE FROM fence WHERE (tab, key, lock) IN \
         (SELECT tab, key, lock FROM fence WHERE tab IN (SELECT id FROM tab WHERE name IS NULL) LIMIT ?1)",
    ] {
        if left > 0 {
            left -= db.prepare_cached(statement)?.execute([left as i64])?;
        }
    }
    if left > 0 {
        let kept = i64::try_from(FENCES_KEPT.as_millis()).unwrap_or(i64::MAX);
        left -= db
            .prepare_cached(
                "DELETE FROM fence WHERE (tab, key, lock) IN \
                 (SELECT tab, key, lock FROM fence WHERE gone < ?1 LIMIT ?2)",
            )?
            .execute(params![wall.0.saturating_sub(kept), left as i64])?;
    }
    if left > 0 {
        db.prepare_cached("DELETE FROM ix WHERE tab = 0 OR tab IN (SELECT id FROM tab WHERE name IS NULL)")?
            .execute([])?;
        db.prepare_cached("DELETE FROM tab WHERE name IS NULL")?.execute([])?;
    }
    changed.dedup();
    Ok(Performed { done: DocumentDone::Swept(left == 0), changed })
}

/// Some documents whose date is past, by the index that has it.
fn expired(db: &Connection, wall: WallTime) -> std::result::Result<Vec<(TableName, Key)>, Fault> {
    let mut found = Vec::new();
    let mut indexes = db.prepare_cached(
        "SELECT ix.id, ix.expires, tab.name FROM ix JOIN tab ON tab.id = ix.tab \
         WHERE ix.expires IS NOT NULL AND ix.ready = 1 AND tab.name IS NOT NULL",
    )?;
    let mut rows = indexes.query([])?;
    while let Some(row) = rows.next()? {
        let (index, after, name): (i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let bound = |millis: i64| local::date_entry(wall.0.saturating_sub(after).min(millis));
        let mut statement =
            db.prepare_cached("SELECT key FROM entry WHERE ix = ?1 AND val >= ?2 AND val <= ?3 LIMIT ?4")?;
        let keys = statement.query_map(
            params![index, bound(i64::MIN), bound(i64::MAX), (MOST - found.len().min(MOST)) as i64],
            |row| row.get::<_, Vec<u8>>(0),
        )?;
        let name = TableName::parse(&name)?;
        for key in keys {
            found.push((name.clone(), Key::from_bytes(&key?)?));
        }
    }
    Ok(found)
}

/// A change in the log. Its place is the row's number.
fn encode_change(change: &Change) -> std::result::Result<Vec<u8>, Fault> {
    let mut body = doc! { "k": change.key.value(), "o": change.operation.name() };
    if let Some(document) = &change.document {
        body.insert("d", document.clone());
    }
    if let Some(previous) = &change.previous {
        body.insert("p", previous.clone());
    }
    if !change.changed.is_empty() {
        body.insert("c", change.changed.iter().map(|path| Bson::String(path.clone())).collect::<Vec<_>>());
    }
    encode(&body)
}

/// A change from its row; none if the table was dropped there.
pub(super) fn decode_change(row: &log::Row) -> Option<Result<Change>> {
    if row.body.is_empty() {
        return None;
    }
    let read = |mut body: Document| -> Option<Change> {
        let position = Position(row.seq.cast_unsigned());
        let taken = |value: Option<Bson>| match value {
            Some(Bson::Document(document)) => Some(document),
            _ => None,
        };
        let document = taken(body.remove("d"));
        let changed =
            body.get_array("c").map(|paths| paths.iter().filter_map(|p| Some(p.as_str()?.to_owned())).collect());
        Some(Change {
            key: Key::stored(body.get("k")?.clone()),
            operation: crate::store::documents::Operation::named(body.get_str("o").ok()?)?,
            revision: document.as_ref().map(|_| Revision(position.0)),
            document,
            previous: taken(body.remove("p")),
            position,
            last: true,
            at: row.at,
            source: Some(row.source.clone()).filter(|source| !source.is_empty()),
            changed: changed.unwrap_or_default(),
        })
    };
    let corrupt = || Error::new(Code::CorruptState, "the log holds a change that coord cannot have written");
    Some(Document::from_reader(row.body.as_slice()).ok().and_then(read).ok_or_else(corrupt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;
    use crate::store::sqlite::tests::Scratch;

    #[test]
    fn each_part_of_a_filling_begins_at_its_key() {
        let scratch = Scratch::new();
        let path = scratch.path("t.db");
        std::fs::File::create(&path).unwrap();
        let db = schema::open(&path, "b").unwrap();
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {NEXT_DOCUMENTS}")).unwrap();
        let plan = statement.query_row(params![1, [0_u8; 1], 1], |row| row.get::<_, String>("detail")).unwrap();
        assert!(plan.starts_with("SEARCH") && plan.ends_with("(tab=? AND key>?)"), "{plan}");
    }
}
