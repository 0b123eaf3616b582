//! A table in the file: its rows, its fences, its indexes. All inside a transaction, or a read of one state.

use bson::{Bson, Document, doc};
use rusqlite::{Connection, OptionalExtension, params};

use super::super::fault::Fault;
use crate::error::{Error, Result};
use crate::protocol::document::fence::{Fence, FenceKey, Fences};
use crate::protocol::document::write::{Before, Outcome};
use crate::protocol::document::{Filter, Key, Position, Revision, TableName};
use crate::store::documents::{Index, Stored, local};
use crate::time::WallTime;

type Faulty<T> = std::result::Result<T, Fault>;

/// A table as the file has it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) id: i64,
    /// The log keeps what was before a change.
    pub(super) previous: bool,
    pub(super) indexes: Vec<Indexed>,
}

/// An index in the file.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) id: i64,
    pub(super) index: Index,
    /// It has the entries of all documents.
    pub(super) ready: bool,
}

impl Table {
    /// The table of this name, if it was ever written.
    pub(super) fn find(db: &Connection, name: &TableName) -> Faulty<Option<Self>> {
        let mut statement = db.prepare_cached("SELECT id, prev FROM tab WHERE name = ?1")?;
        let found = statement.query_row([name.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((id, previous)) = found else { return Ok(None) };
        let mut statement = db.prepare_cached("SELECT id, ready, def FROM ix WHERE tab = ?1 ORDER BY id")?;
        let mut rows = statement.query([id])?;
        let mut indexes = Vec::new();
        while let Some(row) = rows.next()? {
            let definition: Vec<u8> = row.get(2)?;
            indexes.push(Indexed { id: row.get(0)?, ready: row.get(1)?, index: decode_index(&definition)? });
        }
        Ok(Some(Self { id, previous, indexes }))
    }

    /// The table of this name, made if it is missing.
    pub(super) fn make(db: &Connection, name: &TableName) -> Faulty<Self> {
        if let Some(table) = Self::find(db, name)? {
            return Ok(table);
        }
        db.prepare_cached("INSERT INTO tab(name, prev) VALUES(?1, 0)")?.execute([name.as_str()])?;
        Ok(Self { id: db.last_insert_rowid(), previous: false, indexes: Vec::new() })
    }

    /// What is there at a key.
    pub(super) fn before(&self, db: &Connection, key: &Key) -> Faulty<Before> {
        let mut statement = db.prepare_cached("SELECT rev, body FROM doc WHERE tab = ?1 AND key = ?2")?;
        let found = statement
            .query_row(params![self.id, key.bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let fences = self.fences(db, key)?;
        Ok(match found {
            Some((revision, body)) => {
                Before { document: Some(decode(&body)?), revision: Revision(revision.cast_unsigned()), fences }
            }
            None => Before { fences, ..Before::default() },
        })
    }

    fn fences(&self, db: &Connection, key: &Key) -> Faulty<Fences> {
        let mut statement = db.prepare_cached("SELECT lock, tok FROM fence WHERE tab = ?1 AND key = ?2")?;
        let rows = statement.query_map(params![self.id, key.bytes()], |row| {
            Ok((FenceKey::stored(row.get::<_, String>(0)?), row.get(1)?))
        })?;
        Ok(Fences(rows.collect::<rusqlite::Result<_>>()?))
    }

    /// Why the document may not have this state: the unique index that another one stands in.
    pub(super) fn check_unique(&self, db: &Connection, key: &Key, document: &Document) -> Faulty<Result<()>> {
        for Indexed { id, index, .. } in self.indexes.iter() {
            let entries = match local::entries_of(index, document) {
                Ok(entries) => entries,
                Err(error) => return Ok(Err(error)),
            };
            if !index.unique {
                continue;
            }
            let mut statement =
                db.prepare_cached("SELECT 1 FROM entry WHERE ix = ?1 AND val = ?2 AND key != ?3 LIMIT 1")?;
            for entry in entries {
                if statement.exists(params![id, entry, key.bytes()])? {
                    return Ok(Err(local::not_unique(index, key)));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Writes what a write has made of what was there.
    pub(super) fn save(
        &self,
        db: &Connection,
        key: &Key,
        before: Option<&Document>,
        outcome: &Outcome,
        position: Position,
        at: WallTime,
    ) -> Faulty<()> {
        for Indexed { id, index, .. } in &self.indexes {
            let entries = |document: Option<&Document>| {
                document.map_or_else(Vec::new, |document| local::entries_of(index, document).unwrap_or_default())
            };
            let (old, new) = (entries(before), entries(outcome.document.as_ref()));
            for entry in old.iter().filter(|entry| !new.contains(entry)) {
                db.prepare_cached("DELETE FROM entry WHERE ix = ?1 AND val = ?2 AND key = ?3")?.execute(params![
                    id,
                    entry,
                    key.bytes()
                ])?;
            }
            for entry in new.iter().filter(|entry| !old.contains(entry)) {
                self.add_entry(db, *id, entry, key)?;
            }
        }
        match &outcome.document {
            Some(document) => {
                db.prepare_cached(
                    "INSERT INTO doc(tab, key, rev, body) VALUES(?1, ?2, ?3, ?4) \
                     ON CONFLICT(tab, key) DO UPDATE SET rev = excluded.rev, body = excluded.body",
                )?
                .execute(params![
                    self.id,
                    key.bytes(),
                    position.0.cast_signed(),
                    encode(document)?
                ])?;
            }
            None => {
                db.prepare_cached("DELETE FROM doc WHERE tab = ?1 AND key = ?2")?
                    .execute(params![self.id, key.bytes()])?;
            }
        }
        let gone = outcome.document.is_none().then_some(at.0);
        for (lock, token) in &outcome.fences.0 {
            db.prepare_cached(
                "INSERT INTO fence(tab, key, lock, tok, gone) VALUES(?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT(tab, key, lock) DO UPDATE SET tok = excluded.tok, gone = excluded.gone",
            )?
            .execute(params![self.id, key.bytes(), lock.as_str(), token, gone])?;
        }
        Ok(())
    }

    fn add_entry(&self, db: &Connection, index: i64, entry: &[u8], key: &Key) -> Faulty<()> {
        db.prepare_cached("INSERT OR IGNORE INTO entry(ix, val, key) VALUES(?1, ?2, ?3)")?.execute(params![
            index,
            entry,
            key.bytes()
        ])?;
        Ok(())
    }

    /// Adds a document's entries to an index that is being filled.
    pub(super) fn fill(
        &self,
        db: &Connection,
        indexed: &Indexed,
        key: &Key,
        document: &Document,
    ) -> Faulty<Result<()>> {
        let entries = match local::entries_of(&indexed.index, document) {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = self.check_unique(db, key, document)? {
            return Ok(Err(error));
        }
        for entry in entries {
            self.add_entry(db, indexed.id, &entry, key)?;
        }
        Ok(Ok(()))
    }

    /// Hands every document that matches to `take`, in the order of their keys, until it says stop.
    pub(super) fn each(&self, db: &Connection, filter: &Filter, mut take: impl FnMut(Stored) -> bool) -> Faulty<()> {
        let keys = match local::keys_of(filter) {
            None => self.indexed(db, filter)?,
            keys => keys,
        };
        if let Some(keys) = keys {
            for key in keys {
                let before = self.row(db, &key)?;
                if let Some(stored) = before
                    && filter.matches(&stored.document)?
                    && !take(stored)
                {
                    return Ok(());
                }
            }
            return Ok(());
        }
        let mut statement = db.prepare_cached("SELECT key, rev, body FROM doc WHERE tab = ?1 ORDER BY key")?;
        let mut rows = statement.query([self.id])?;
        while let Some(row) = rows.next()? {
            let document = decode(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?;
            if filter.matches(&document)? {
                let key = Key::from_bytes(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
                let revision = Some(Revision(row.get::<_, i64>(1)?.cast_unsigned()));
                if !take(Stored { key, document, revision }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The document of a key, with its revision.
    fn row(&self, db: &Connection, key: &Key) -> Faulty<Option<Stored>> {
        let mut statement = db.prepare_cached("SELECT rev, body FROM doc WHERE tab = ?1 AND key = ?2")?;
        let found = statement
            .query_row(params![self.id, key.bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        found
            .map(|(revision, body)| {
                let revision = Some(Revision(revision.cast_unsigned()));
                Ok(Stored { key: key.clone(), document: decode(&body)?, revision })
            })
            .transpose()
    }

    fn indexed(&self, db: &Connection, filter: &Filter) -> Faulty<Option<Vec<Key>>> {
        let usable = self.indexes.iter().filter(|indexed| indexed.ready);
        let able = usable.filter_map(|indexed| Some((indexed.id, local::beginnings_for(&indexed.index, filter)?)));
        let Some((index, beginnings)) = able.max_by_key(|(_, beginnings)| beginnings.rank) else { return Ok(None) };
        let mut statement =
            db.prepare_cached("SELECT val, key FROM entry WHERE ix = ?1 AND val >= ?2 ORDER BY val, key")?;
        let mut keys = Vec::new();
        for beginning in beginnings.of {
            let mut rows = statement.query(params![index, beginning])?;
            while let Some(row) = rows.next()? {
                if !row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?.starts_with(&beginning) {
                    break;
                }
                keys.push(Key::from_bytes(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?);
            }
        }
        keys.sort();
        keys.dedup();
        Ok(Some(keys))
    }
}

/// Whether the fence's hold is there.
pub(super) fn is_held(db: &Connection, fence: &Fence) -> Faulty<bool> {
    let mut statement = db.prepare_cached("SELECT 1 FROM lock WHERE name = ?1 AND own = ?2 AND tok = ?3")?;
    Ok(statement.exists(params![fence.lock.as_str(), fence.holder.to_string(), fence.token])?)
}

/// A document from its row.
pub(super) fn decode(body: &[u8]) -> Faulty<Document> {
    Document::from_reader(body).map_err(|error| Fault::corrupt(format!("a document in the file is no BSON: {error}")))
}

/// A document's row.
pub(super) fn encode(document: &Document) -> Faulty<Vec<u8>> {
    document.to_vec().map_err(|error| Error::invalid(format!("the document is no BSON: {error}")).into())
}

/// An index's row.
pub(super) fn encode_index(index: &Index) -> Faulty<Vec<u8>> {
    let fields: Vec<Bson> =
        index.fields.iter().map(|(path, descending)| Bson::Array(vec![path.into(), (*descending).into()])).collect();
    let after = index.expire_after.map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
    encode(&doc! { "n": &index.name, "f": fields, "u": index.unique, "s": index.sparse, "e": after })
}

fn decode_index(definition: &[u8]) -> Faulty<Index> {
    let read = |document: &Document| -> Option<Index> {
        let fields = document.get_array("f").ok()?.iter().map(|field| {
            let field = field.as_array()?;
            Some((field.first()?.as_str()?.to_owned(), field.get(1)?.as_bool()?))
        });
        Some(Index {
            name: document.get_str("n").ok()?.to_owned(),
            fields: fields.collect::<Option<_>>()?,
            unique: document.get_bool("u").ok()?,
            sparse: document.get_bool("s").ok()?,
            expire_after: document
                .get_i64("e")
                .ok()
                .map(|after| std::time::Duration::from_millis(after.cast_unsigned())),
        })
    };
    read(&decode(definition)?).ok_or_else(|| Fault::corrupt("an index in the file is not described as it should be"))
}

#[cfg(test)]
mod tests {
    use super::super::work::{DocumentWork, perform};
    use super::*;
    use crate::env::Env;
    use crate::protocol::document::write::{Action, Write};
    use crate::store::sqlite::schema;
    use crate::store::sqlite::tests::Scratch;

    #[tokio::test]
    async fn an_index_of_several_fields_leads_to_what_has_its_first_values() {
        let scratch = Scratch::new();
        let path = scratch.path("t.db");
        std::fs::File::create(&path).unwrap();
        let db = schema::open(&path, "b").unwrap();
        let name = TableName::parse("t").unwrap();
        let env = Env::system(tokio::runtime::Handle::current());
        db.execute_batch("BEGIN").unwrap();
        let work = |work| perform(&db, &work, WallTime(0), &env).map(drop).unwrap();
        let fields = ["box", "st", "due"].map(|field| (field.to_owned(), false)).to_vec();
        work(DocumentWork::AddIndexes(name.clone(), vec![Index { fields, ..Index::default() }]));
        let index = Table::find(&db, &name).unwrap().unwrap().indexes[0].id;
        work(DocumentWork::Fill(name.clone(), vec![index], None));
        for n in 0..110 {
            let state = if n < 100 { "sent" } else { "queued" };
            let write = Write::new(Key::from(n), Action::Put(doc! { "box": "b", "st": state, "due": n }));
            work(DocumentWork::Write(name.clone(), Box::new(write)));
        }
        let table = Table::find(&db, &name).unwrap().unwrap();
        let due = Filter::parse(doc! { "box": "b", "st": "queued", "due": { "$lte": 105 } }).unwrap();
        let looked_at = table.indexed(&db, &due).unwrap();
        assert_eq!(looked_at.expect("an index for it").len(), 10);
        let mut found = 0;
        table
            .each(&db, &due, |_| {
                found += 1;
                true
            })
            .unwrap();
        assert_eq!(found, 6);
    }
}
