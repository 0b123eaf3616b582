//! What the stores that use the shared matcher themselves, memory and SQLite, have in common.

use std::cmp::Ordering;
use std::time::Duration;

use bson::{Bson, Document};

use super::{Change, Index, Operation, Query, Stored};
use crate::error::{Code, Error, Result};
use crate::protocol::document::key::Key;
use crate::protocol::document::order::encode;
use crate::protocol::document::sort::{SortKey, rows};
use crate::protocol::document::write::{Action, Outcome, Write};
use crate::protocol::document::{Filter, Position, Revision};
use crate::time::WallTime;

/// How often documents that have expired are looked for.
pub(in crate::store) const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The longest name of an index, in bytes.
const NAME_LIMIT: usize = 120;

/// At most so many indexes of a table, and fields of an index.
const MAX_INDEXES: usize = 64;
const MAX_INDEX_FIELDS: usize = 32;

/// Refuses a query that is not of the shared part.
///
/// # Errors
/// `Unsupported`.
pub(in crate::store) fn require_shared(query: &Query) -> Result<()> {
    query.filter.require_shared()?;
    query.sort.as_ref().map_or(Ok(()), |sort| sort.require_shared())?;
    query.projection.as_ref().map_or(Ok(()), |projection| projection.require_shared())
}

/// Refuses an update that is not of the shared part.
///
/// # Errors
/// `Unsupported`.
pub(in crate::store) fn require_shared_action(action: &Action) -> Result<()> {
    match action {
        Action::Update(update) | Action::Upsert(update) => update.require_shared(),
        _ => Ok(()),
    }
}

/// Orders, cuts and projects what is found. Of an ordered query with a limit it keeps little more than the answer, however
/// much is found.
pub(in crate::store) struct Arranged<'a> {
    query: &'a Query,
    /// As many of the first are in the answer, or left out before it.
    first: usize,
    found: Vec<(Option<SortKey>, Stored)>,
    error: Option<Error>,
}

impl<'a> Arranged<'a> {
    pub(in crate::store) fn new(query: &'a Query) -> Self {
        let first = query.limit.map(|limit| usize::try_from(limit.saturating_add(query.skip)).unwrap_or(usize::MAX));
        Self { query, first: first.unwrap_or(usize::MAX), found: Vec::new(), error: None }
    }

    /// Takes the next that was found. False if no more are needed.
    pub(in crate::store) fn take(&mut self, stored: Stored) -> bool {
        if self.found.len() < self.first || self.query.sort.is_some() {
            if let Err(error) = self.keep(stored) {
                self.error = Some(error);
                return false;
            }
            if self.query.sort.is_some() && self.found.len() >= self.first.saturating_mul(2).max(KEPT) {
                self.cut();
            }
        }
        self.query.sort.is_some() || self.found.len() < self.first
    }

    fn keep(&mut self, stored: Stored) -> Result<()> {
        let key = self.query.sort.as_ref().map(|sort| sort.key(&stored.document)).transpose()?;
        let stored = match &self.query.projection {
            None => stored,
            Some(projection) => Stored { document: projection.apply(stored.document)?, ..stored },
        };
        self.found.push((key, stored));
        Ok(())
    }

    /// Among equals those stay that were found first.
    fn cut(&mut self) {
        self.found.sort_by(|(left, _), (right, _)| match (left, right) {
            (Some(left), Some(right)) => left.compare(right),
            _ => Ordering::Equal,
        });
        self.found.truncate(self.first);
    }

    /// The answer.
    ///
    /// # Errors
    /// Those of the order and the projection.
    pub(in crate::store) fn answer(mut self) -> Result<Vec<Stored>> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.cut();
        let skip = usize::try_from(self.query.skip).unwrap_or(usize::MAX);
        Ok(self.found.into_iter().skip(skip).map(|(_, stored)| stored).collect())
    }
}

/// So many are kept in any case before they are cut.
const KEPT: usize = 64;

/// The keys that a document can have at most to match, if the filter names them.
pub(in crate::store) fn keys_of(filter: &Filter) -> Option<Vec<Key>> {
    let mut keys: Vec<Key> = filter.candidates("_id")?.iter().map(Key::equal_to).collect::<Option<_>>()?;
    keys.sort();
    keys.dedup();
    Some(keys)
}

/// What entries of an index begin with.
pub(in crate::store) struct Beginnings {
    /// A document has an entry with one of these if it matches. An entry of other values never begins so.
    pub(in crate::store) of: Vec<Vec<u8>>,
    /// Which of several indexes is to be asked: the greatest. First whether there is at most one document for each, then
    /// how many fields of the index they are made of.
    pub(in crate::store) rank: (bool, usize),
}

/// How the entries begin that matter to the filter: with the values that it names for the first fields of the index. None
/// if it names none for the first.
pub(in crate::store) fn beginnings_for(index: &Index, filter: &Filter) -> Option<Beginnings> {
    let mut of = vec![Vec::new()];
    let mut fields = 0;
    for (place, (path, _)) in index.fields.iter().enumerate() {
        // Of two fields in one array an entry has the values of the same element, and a filter may mean two.
        if index.fields[..place].iter().any(|(other, _)| root(other) == root(path)) {
            break;
        }
        let Some(values) = values_for(path, filter) else { break };
        if place > 0 && values.len().saturating_mul(of.len()) > MOST_BEGINNINGS {
            break;
        }
        let extended = of.iter().flat_map(|beginning: &Vec<u8>| {
            values.iter().map(|value| {
                let mut bytes = beginning.clone();
                encode(value, &mut bytes);
                bytes
            })
        });
        of = extended.collect();
        fields += 1;
    }
    let rank = (index.unique && fields == index.fields.len(), fields);
    (fields > 0).then_some(Beginnings { of, rank })
}

/// As many beginnings an index is asked for, rather than for fewer fields.
const MOST_BEGINNINGS: usize = 1_000;

fn root(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// The values at a path, one of which is an entry's in an index of it if the document matches.
fn values_for(path: &str, filter: &Filter) -> Option<Vec<Bson>> {
    // A number in a path may be a place in an array, where index and filter look differently.
    if path.split('.').any(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let values = filter.candidates(path)?;
    let unclear = |value: &Bson| matches!(value, Bson::Array(_) | Bson::Null | Bson::Undefined);
    (!values.iter().any(unclear)).then_some(values)
}

/// A document's entries in an index.
///
/// # Errors
/// `InvalidArgument` if it has arrays in two of the fields.
pub(in crate::store) fn entries_of(index: &Index, document: &Document) -> Result<Vec<Vec<u8>>> {
    let paths: Vec<&str> = index.fields.iter().map(|(path, _)| path.as_str()).collect();
    if index.sparse && !paths.iter().any(|path| has(document, path)) {
        return Ok(Vec::new());
    }
    let mut entries: Vec<Vec<u8>> = rows(document, &paths)?.iter().map(|row| entry(row)).collect();
    entries.sort();
    entries.dedup();
    Ok(entries)
}

fn has(document: &Document, path: &str) -> bool {
    let exists = Filter::parse(bson::doc! { path: { "$exists": true } });
    exists.and_then(|filter| filter.matches(document)).unwrap_or(false)
}

fn entry(values: &[Bson]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        encode(value, &mut bytes);
    }
    bytes
}

/// The entry of a date.
#[cfg(feature = "sqlite")]
pub(in crate::store) fn date_entry(millis: i64) -> Vec<u8> {
    entry(&[Bson::DateTime(bson::DateTime::from_millis(millis))])
}

/// Whether the document has expired by one of these indexes: by the earliest date in its field.
pub(in crate::store) fn has_expired(indexes: &[Index], document: &Document, now: WallTime) -> bool {
    indexes.iter().any(|index| {
        let (Some(after), [(path, _)]) = (index.expire_after, index.fields.as_slice()) else { return false };
        let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let Ok(rows) = rows(document, &[path]) else { return false };
        let dates = rows.iter().flatten().filter_map(|value| match value {
            Bson::DateTime(date) => Some(date.timestamp_millis()),
            _ => None,
        });
        dates.min().is_some_and(|earliest| earliest.saturating_add(after) <= now.0)
    })
}

/// Checks indexes, and names those without a name.
///
/// # Errors
/// `InvalidArgument`.
pub(in crate::store) fn checked_indexes(indexes: Vec<Index>) -> Result<Vec<Index>> {
    indexes.into_iter().map(checked_index).collect()
}

fn checked_index(mut index: Index) -> Result<Index> {
    if index.fields.is_empty() || index.fields.len() > MAX_INDEX_FIELDS {
        return Err(Error::invalid(format!("an index has 1 to {MAX_INDEX_FIELDS} fields, not {}", index.fields.len())));
    }
    for (position, (path, _)) in index.fields.iter().enumerate() {
        if path.split('.').any(|part| part.is_empty() || part.starts_with('$'))
            || crate::protocol::document::RESERVED.contains(&root(path))
        {
            return Err(Error::invalid(format!("'{path}' is no path for an index")));
        }
        if index.fields[..position].iter().any(|(other, _)| other == path) {
            return Err(Error::invalid(format!("an index names '{path}' twice")));
        }
    }
    if index.fields.iter().any(|(path, _)| path == "_id") && index.fields.len() == 1 {
        return Err(Error::invalid("every table has an index of its keys already"));
    }
    if let Some(after) = index.expire_after {
        if index.fields.len() != 1 {
            return Err(Error::invalid("documents expire by an index of one field, a date"));
        }
        if after > MAX_EXPIRY {
            return Err(Error::invalid("documents expire after 2147483647 seconds at most"));
        }
    }
    if index.name.is_empty() {
        let parts =
            index.fields.iter().map(|(path, descending)| format!("{path}_{}", if *descending { -1 } else { 1 }));
        index.name = parts.collect::<Vec<_>>().join("_");
    }
    if index.name.len() > NAME_LIMIT || index.name == "_id_" || index.name.contains(['\0', '*']) {
        return Err(Error::invalid(format!("an index's name has at most {NAME_LIMIT} bytes, and is not '_id_'")));
    }
    Ok(index)
}

/// What MongoDB takes.
const MAX_EXPIRY: Duration = Duration::from_secs(i32::MAX as u64);

/// Those of the wanted indexes that are not there.
///
/// # Errors
/// `InvalidArgument` if there is another one of the same name, or too many.
pub(in crate::store) fn missing_indexes(there: &[Index], wanted: Vec<Index>) -> Result<Vec<Index>> {
    let mut missing: Vec<Index> = Vec::new();
    for index in checked_indexes(wanted)? {
        match there.iter().chain(&missing).find(|other| other.name == index.name) {
            Some(other) if *other == index => {}
            Some(_) => {
                return Err(Error::invalid(format!(
                    "there is another index '{}' already; drop it, or choose another name",
                    index.name
                )));
            }
            None => missing.push(index),
        }
    }
    if there.len() + missing.len() > MAX_INDEXES {
        return Err(Error::invalid(format!("a table has at most {MAX_INDEXES} indexes")));
    }
    Ok(missing)
}

/// A unique index has the document's values already, from another document.
pub(in crate::store) fn not_unique(index: &Index, key: &Key) -> Error {
    Error::new(
        Code::AlreadyExists,
        format!("the document {key} has the values of another one in the unique index '{}'", index.name),
    )
}

/// The change that a write was.
pub(in crate::store) fn change_of(
    write: &Write,
    before: Option<Document>,
    outcome: &Outcome,
    position: Position,
    at: WallTime,
) -> Change {
    let operation = match (&write.action, &outcome.document) {
        (_, None) => Operation::Delete,
        (_, Some(_)) if outcome.created => Operation::Insert,
        (Action::Update(_) | Action::Upsert(_), _) => Operation::Update,
        _ => Operation::Replace,
    };
    let changed = match (&write.action, operation, &before, &outcome.document) {
        (Action::Update(update) | Action::Upsert(update), Operation::Update, Some(old), Some(new)) => {
            update.paths().into_iter().filter(|path| value_at(old, path) != value_at(new, path)).collect()
        }
        _ => Vec::new(),
    };
    Change {
        key: write.key.clone(),
        operation,
        document: outcome.document.clone(),
        previous: before,
        revision: outcome.document.as_ref().map(|_| Revision(position.0)),
        position,
        last: true,
        at,
        source: write.source.clone(),
        changed,
    }
}

fn value_at<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
    let mut parts = path.split('.');
    let first = document.get(parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Bson::Document(document) => document.get(part),
        Bson::Array(array) => array.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The end of a write to many of which some were left out, one of them by this refusal.
pub(in crate::store) fn partly_fenced(written: u64, left_out: u64, refusal: &Error) -> Error {
    let message =
        format!("{left_out} of the documents were left out, the other {written} written: {}", refusal.message());
    Error::new(Code::Fenced, message)
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::protocol::document::{Projection, Sort};

    #[test]
    fn an_ordered_query_with_a_limit_keeps_little_more_than_its_answer() {
        let query = Query {
            sort: Some(Sort::parse(doc! { "a": -1 }).unwrap()),
            skip: 1,
            limit: Some(3),
            projection: Some(Projection::parse(doc! { "_id": 1 }).unwrap()),
            ..Query::default()
        };
        let mut arranged = Arranged::new(&query);
        for n in 0..10_000_i64 {
            // Two of each, of which the one that was found first comes first.
            let document = doc! { "_id": n, "a": (n * 7) % 5_000, "text": "long" };
            assert!(arranged.take(Stored { key: Key::from(n), document, revision: None }));
            assert!(arranged.found.len() < KEPT);
            assert!(arranged.found.iter().all(|(_, stored)| !stored.document.contains_key("text")));
        }
        let keys: Vec<_> = arranged.answer().unwrap().into_iter().map(|stored| stored.key).collect();
        let of = |a: i64| (0..5_000).find(|n| (n * 7) % 5_000 == a).unwrap();
        assert_eq!(keys, [of(4_999) + 5_000, of(4_998), of(4_998) + 5_000].map(Key::from));
    }
}
