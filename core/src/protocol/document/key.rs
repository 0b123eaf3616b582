//! What names a document: its table, and its key in it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bson::{Bson, Document, doc};

use crate::error::{Error, Result};

/// The longest key, in bytes of its BSON form.
pub const MAX_KEY: usize = 1_024;

/// The longest name of a table, in bytes.
pub const MAX_TABLE: usize = 180;

/// The key of a document: what its field `_id` holds. A text, an integer, or a document (a compound key); and
/// whatever else other programs may have chosen on MongoDB.
///
/// Two keys are equal when MongoDB would say so: integers are kept in 64 bits, also inside a compound key, and the order
/// of a compound key's fields counts.
#[derive(Clone)]
pub struct Key {
    value: Bson,
    encoded: Arc<[u8]>,
}

impl Key {
    /// Checks that a value can be a key: a text, an integer, an object id, a date, a binary value, or a document of
    /// those, of truth values, nulls and documents.
    ///
    /// # Errors
    /// `InvalidArgument` for another type (fractions, arrays, patterns …), for a field name that begins with `$`, and for
    /// more than [`MAX_KEY`] bytes.
    pub fn new(value: impl Into<Bson>) -> Result<Self> {
        let value = value.into();
        check(&value, true)?;
        let key = Self::stored(value);
        if key.encoded.len() > MAX_KEY {
            return Err(Error::invalid(format!(
                "a key has at most {MAX_KEY} bytes; this one has {}",
                key.encoded.len()
            )));
        }
        Ok(key)
    }

    /// A key as a store has it, whoever wrote it.
    pub fn stored(value: Bson) -> Self {
        let value = canonical(value);
        let encoded = doc! { "": &value }.to_vec().unwrap_or_default().into();
        Self { value, encoded }
    }

    /// The key of the documents whose `_id` equals this value. None if that takes more than to compare bytes.
    pub fn equal_to(value: &Bson) -> Option<Self> {
        fn plain(value: &Bson) -> bool {
            match value {
                Bson::Double(number) => number.abs() < 9e15,
                Bson::Decimal128(_) | Bson::Null | Bson::Undefined | Bson::Symbol(_) => false,
                Bson::Document(fields) => fields.values().all(plain),
                Bson::Array(_) => false,
                _ => true,
            }
        }
        plain(value).then(|| Self::stored(value.clone()))
    }

    /// The key as a value of BSON.
    pub fn value(&self) -> &Bson {
        &self.value
    }

    /// The key as bytes: equal for equal keys, and only for those.
    pub fn bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// The key that these bytes stand for.
    ///
    /// # Errors
    /// `CorruptState` if they are not those of a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = || Error::new(crate::error::Code::CorruptState, "the store holds a key that is no BSON value");
        let document = Document::from_reader(bytes).map_err(|_| corrupt())?;
        document.into_iter().next().map(|(_, value)| Self::stored(value)).ok_or_else(corrupt)
    }

    /// The key in the document's field `_id`.
    ///
    /// # Errors
    /// `CorruptState` if it has none.
    pub fn of(document: &Document) -> Result<Self> {
        let value = document
            .get("_id")
            .ok_or_else(|| Error::new(crate::error::Code::CorruptState, "the store holds a document without an _id"))?;
        Ok(Self::stored(value.clone()))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.encoded.hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        super::order::compare(&self.value, &other.value).then_with(|| self.encoded.cmp(&other.encoded))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Bson::String(text) => write!(f, "{text:?}"),
            Bson::Int64(number) => write!(f, "{number}"),
            other => write!(f, "{}", other.clone().into_relaxed_extjson()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for Key {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self::stored(Bson::Int64(number))
    }
}

impl TryFrom<Document> for Key {
    type Error = Error;

    fn try_from(document: Document) -> Result<Self> {
        Self::new(document)
    }
}

fn check(value: &Bson, top: bool) -> Result<()> {
    match value {
        Bson::String(_) | Bson::Int32(_) | Bson::Int64(_) | Bson::ObjectId(_) | Bson::DateTime(_) | Bson::Binary(_) => {
            Ok(())
        }
        Bson::Boolean(_) | Bson::Null if !top => Ok(()),
        Bson::Document(fields) => fields.iter().try_for_each(|(name, value)| {
            if name.starts_with('$') {
                return Err(Error::invalid(format!("a field of a key must not begin with '$', but '{name}' does")));
            }
            check(value, false)
        }),
        other => Err(Error::invalid(format!(
            "a key is a text, an integer or a document of such, not {}",
            super::order::type_name(other)
        ))),
    }
}

/// The one form of all values that MongoDB takes for the same key.
fn canonical(value: Bson) -> Bson {
    match value {
        Bson::Int32(number) => Bson::Int64(number.into()),
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::float_cmp,
            reason = "compared with what it came from"
        )]
        Bson::Double(number) if number.abs() < 9e15 && (number as i64) as f64 == number => Bson::Int64(number as i64),
        Bson::Document(fields) => {
            Bson::Document(fields.into_iter().map(|(name, value)| (name, canonical(value))).collect())
        }
        Bson::Array(values) => Bson::Array(values.into_iter().map(canonical).collect()),
        other => other,
    }
}

/// The name of a table: `name`, or `database.collection` for any collection of a MongoDB server. On other stores the
/// second form is a name like any other.
///
/// The collection of a plain `name` is `<prefix>t_<name>` in the client's database, with the prefix of `coord.prefix`
/// (`coord_` by default): `coord_t_orders`. Namespace and scope of the client do not matter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(Arc<str>);

impl TableName {
    /// Checks a table's name: letters, digits, `_` and `-`, and in a collection's name also `.`; at most [`MAX_TABLE`]
    /// bytes.
    ///
    /// # Errors
    /// `InvalidArgument` that says which rule is broken.
    pub fn parse(text: &str) -> Result<Self> {
        let shown = || text.chars().take(64).flat_map(char::escape_debug).collect::<String>();
        if text.is_empty() || text.len() > MAX_TABLE {
            return Err(Error::invalid(format!("a table's name has 1 to {MAX_TABLE} bytes, this one {}", text.len())));
        }
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))) {
            return Err(Error::invalid(format!(
                "a table's name has only ASCII letters, digits, '_' and '-', but '{}' has {bad:?}",
                shown()
            )));
        }
        if text.split('.').any(str::is_empty) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(Error::invalid(format!(
                "a table is 'name' or 'database.collection', and begins with a letter or a digit; '{}' does not fit",
                shown()
            )));
        }
        if text.split_once('.').is_some_and(|(database, collection)| {
            database.len() > 63 || collection.starts_with("system.") || matches!(database, "admin" | "local" | "config")
        }) {
            return Err(Error::invalid(format!("'{}' is not a collection for users' documents", shown())));
        }
        Ok(Self(text.into()))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Database and collection, if the name has two parts.
    pub fn foreign(&self) -> Option<(&str, &str)> {
        self.0.split_once('.')
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
