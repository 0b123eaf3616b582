//! The forms in which documents and keys cross: JSON text, or the bytes of BSON.
//!
//! JSON is MongoDB's Extended JSON, version 2. Any form of it is read, the relaxed one is written. BSON keeps every type;
//! JSON does not tell integers of 32 bits from those of 64. An integer of more bits, and a
//! field that is there twice, are errors.

use std::collections::HashSet;

use coord_core::bson::raw::{RawArray, RawBsonRef, RawDocument};
use coord_core::bson::{Bson, Document, doc};
use coord_core::error::{Error, Result};
use coord_core::table::{Key, Update};
use serde_json::{Value, json as value_of};

use crate::bytes::{Bytes, LentBytes};

/// Documents are JSON text: MongoDB's Extended JSON, version 2. A key is its value: `"ann"`, `42`, `{"a": 1}`,
/// `{"$oid": "..."}`. An integer that 64 bits do not hold, and a field that is there twice, are
/// COORD_E_INVALID_ARGUMENT.
pub const COORD_FORMAT_JSON: i32 = 0;
/// Documents are the bytes of BSON. A key is a document with the one field `_id`; a list (an aggregation, indexes) is a
/// document with the one field `pipeline` or `indexes`.
pub const COORD_FORMAT_BSON: i32 = 1;

/// How the documents of a table cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Bson,
}

impl Format {
    /// The format of this number.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn numbered(number: i32) -> Result<Self> {
        match number {
            COORD_FORMAT_JSON => Ok(Self::Json),
            COORD_FORMAT_BSON => Ok(Self::Bson),
            other => Err(Error::invalid(format!("format is COORD_FORMAT_JSON or COORD_FORMAT_BSON, not {other}"))),
        }
    }

    /// A document.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none. `what` names the parameter.
    pub(crate) fn document(self, given: Bytes, what: &str) -> Result<Document> {
        given.read(what, |bytes| self.parse(bytes, what))
    }

    /// The same for bytes that are here already.
    ///
    /// # Errors
    /// As [`Format::document`].
    pub(crate) fn parse(self, bytes: &[u8], what: &str) -> Result<Document> {
        match self {
            Self::Json => match json(bytes, what)? {
                Value::Object(fields) => {
                    Document::try_from(fields).map_err(|error| Error::invalid(format!("{what}: {error}")))
                }
                other => Err(Error::invalid(format!("{what} is {}, not a document", kind(&other)))),
            },
            Self::Bson => bson(bytes, what),
        }
    }

    /// The same; an empty one for NULL.
    ///
    /// # Errors
    /// As [`Format::document`].
    pub(crate) fn filter(self, given: Bytes) -> Result<Document> {
        if given.is_null() { Ok(Document::new()) } else { self.document(given, "filter") }
    }

    /// A list of documents: a JSON array, or a BSON document with the list in its one field of this name.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none.
    pub(crate) fn list(self, given: Bytes, field: &str) -> Result<Vec<Document>> {
        let list = match self {
            Self::Json => to_bson(parsed(given, field)?, field)?,
            Self::Bson => only(self.document(given, field)?, field)
                .ok_or_else(|| Error::invalid(format!("a list in BSON is a document with the one field '{field}'")))?,
        };
        documents(list, field)
    }

    /// An update: operators, or a pipeline, which is a list.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none.
    pub(crate) fn update(self, given: Bytes, what: &str) -> Result<Update> {
        let given = match self {
            Self::Json => to_bson(parsed(given, what)?, what)?,
            Self::Bson => {
                let document = self.document(given, what)?;
                only(document.clone(), "pipeline").unwrap_or(Bson::Document(document))
            }
        };
        match given {
            Bson::Document(operators) => Update::parse(operators),
            list => Update::pipeline(documents(list, what)?),
        }
    }

    /// A key.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none, or none that a document can have.
    pub(crate) fn key(self, given: Bytes) -> Result<Key> {
        match self {
            Self::Json => Key::new(to_bson(parsed(given, "key")?, "key")?),
            Self::Bson => only(self.document(given, "key")?, "_id")
                .ok_or_else(|| Error::invalid("a key in BSON is a document with the one field '_id'"))
                .and_then(Key::new),
        }
    }

    /// A document as it is lent.
    ///
    /// # Errors
    /// `InvalidArgument` for one that BSON cannot hold, which no store gives.
    pub(crate) fn lend(self, document: Document) -> Result<LentBytes> {
        match self {
            Self::Json => text(Bson::Document(document)),
            Self::Bson => document
                .to_vec()
                .map(LentBytes::new)
                .map_err(|error| Error::invalid(format!("the document is no BSON: {error}"))),
        }
    }

    /// A key as it is lent.
    ///
    /// # Errors
    /// As [`Format::lend`].
    pub(crate) fn lend_key(self, key: &Key) -> Result<LentBytes> {
        match self {
            Self::Json => text(key.value().clone()),
            Self::Bson => self.lend(doc! { "_id": key.value() }),
        }
    }
}

fn text(value: Bson) -> Result<LentBytes> {
    serde_json::to_vec(&relaxed(value))
        .map(LentBytes::new)
        .map_err(|error| Error::invalid(format!("the document is no JSON: {error}")))
}

/// The relaxed form. A date after the year 9999 has no text in it; the library would write another date.
fn relaxed(value: Bson) -> Value {
    match value {
        Bson::Document(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, relaxed(value))).collect())
        }
        Bson::Array(values) => Value::Array(values.into_iter().map(relaxed).collect()),
        Bson::DateTime(date) if date.timestamp_millis() > LAST_DATE_WITH_TEXT => {
            value_of!({ "$date": { "$numberLong": date.timestamp_millis().to_string() } })
        }
        other => other.into_relaxed_extjson(),
    }
}

fn parsed(given: Bytes, what: &str) -> Result<Value> {
    given.read(what, |bytes| json(bytes, what))
}

fn json(bytes: &[u8], what: &str) -> Result<Value> {
    let value = serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("{what} is no JSON: {error}")))?;
    check_exact(bytes).map_err(|why| Error::invalid(format!("{what}: {why}")))?;
    Ok(value)
}

/// Refuses what the parser would change silently: an integer of more than 64 bits, and a field that is there twice. The
/// text is valid JSON.
fn check_exact(text: &[u8]) -> std::result::Result<(), String> {
    // The fields so far of each object that is open; none for a list.
    let mut open: Vec<Option<HashSet<String>>> = Vec::new();
    let mut name_next = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let begin = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                open.push((byte == b'{').then(HashSet::new));
                name_next = byte == b'{';
            }
            b'}' | b']' => drop(open.pop()),
            b',' => name_next = matches!(open.last(), Some(Some(_))),
            b'"' => {
                while text.get(at).is_some_and(|&byte| byte != b'"') {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                if std::mem::take(&mut name_next)
                    && let Some(Some(fields)) = open.last_mut()
                    && let Ok(name) = serde_json::from_slice::<String>(&text[begin..at])
                    && let Some(name) = fields.replace(name)
                {
                    return Err(format!("it has the field '{name}' twice"));
                }
            }
            b'-' | b'0'..=b'9' => {
                let more = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                at += text[at..].iter().take_while(|byte| more(byte)).count();
                let number = std::str::from_utf8(&text[begin..at]).unwrap_or_default();
                let integer = !number.contains(['.', 'e', 'E']);
                if integer && number.parse::<i64>().is_err() {
                    return Err(format!("{number} does not fit into the 64 bits of an integer"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn to_bson(value: Value, what: &str) -> Result<Bson> {
    Bson::try_from(value).map_err(|error| Error::invalid(format!("{what}: {error}")))
}

fn bson(bytes: &[u8], what: &str) -> Result<Document> {
    let wrong = |error: &dyn std::fmt::Display| Error::invalid(format!("{what} is no BSON document: {error}"));
    let raw = RawDocument::from_bytes(bytes).map_err(|error| wrong(&error))?;
    check_depth(raw).map_err(|why| wrong(&why))?;
    Document::try_from(raw).map_err(|error| wrong(&error))
}

/// Bounds how deeply values lie in one another before they are taken apart, which recurses.
fn check_depth(document: &RawDocument) -> std::result::Result<(), String> {
    enum Level<'a> {
        Document(&'a RawDocument),
        Array(&'a RawArray),
    }
    let mut open = vec![(1, Level::Document(document))];
    while let Some((depth, level)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        let mut look = |value| match value {
            RawBsonRef::Document(inner) => open.push((depth + 1, Level::Document(inner))),
            RawBsonRef::Array(inner) => open.push((depth + 1, Level::Array(inner))),
            RawBsonRef::JavaScriptCodeWithScope(code) => open.push((depth + 1, Level::Document(code.scope))),
            _ => {}
        };
        match level {
            Level::Document(document) => {
                for field in document {
                    look(field.map_err(|error| error.to_string())?.1);
                }
            }
            Level::Array(array) => {
                for value in array {
                    look(value.map_err(|error| error.to_string())?);
                }
            }
        }
    }
    Ok(())
}

/// The value of this field, if it is the only one.
fn only(mut document: Document, field: &str) -> Option<Bson> {
    let value = document.remove(field)?;
    document.is_empty().then_some(value)
}

fn documents(list: Bson, what: &str) -> Result<Vec<Document>> {
    let wrong = || Error::invalid(format!("{what} is a list of documents"));
    let Bson::Array(list) = list else { return Err(wrong()) };
    list.into_iter()
        .map(|element| match element {
            Bson::Document(document) => Ok(document),
            _ => Err(wrong()),
        })
        .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a document",
    }
}

/// The last millisecond of the year 9999.
const LAST_DATE_WITH_TEXT: i64 = 253_402_300_799_999;

/// More than any store takes, and far less than a thread's stack does.
const MAX_DEPTH: usize = 128;

#[cfg(test)]
#[path = "format/tests.rs"]
mod tests;
