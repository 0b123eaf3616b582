//! One write to one document.

use bson::{Bson, Document};

use super::fence::{Fence, Fences};
use super::key::Key;
use super::order::same;
use super::update::Update;
use super::{MAX_DOCUMENT, RESERVED, Revision};
use crate::error::{Code, Error, Result};

/// What a write does to the document of its key.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Makes it. `AlreadyExists` if there is one.
    Insert(Document),
    /// Makes it, or replaces what is there.
    Put(Document),
    /// Replaces it. `NotFound` if there is none.
    Replace(Document),
    /// Changes it. `NotFound` if there is none.
    Update(Update),
    /// Changes it, or changes an empty one into it.
    Upsert(Update),
    /// Removes it. `NotFound` if there is none.
    Delete,
}

/// What must be there for a write to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Condition {
    /// Nothing in particular.
    #[default]
    None,
    /// The document in the state of this revision. `Conflict` for another one, `NotFound` for none.
    Revision(Revision),
    /// This document, whole. `Conflict` for another one, `NotFound` for none.
    Document(Document),
}

/// One write to the document of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Whose document.
    pub key: Key,
    /// What happens to it.
    pub action: Action,
    /// On which condition.
    pub condition: Condition,
    /// By which hold's right.
    pub fence: Option<Fence>,
    /// Who writes, for the change log: the client's name. At most [`MAX_SOURCE`] bytes are kept.
    pub source: Option<String>,
}

/// How much of the name of who writes is kept, in bytes.
pub const MAX_SOURCE: usize = 120;

impl Write {
    /// A write without condition, fence and source.
    pub fn new(key: Key, action: Action) -> Self {
        Self { key, action, condition: Condition::None, fence: None, source: None }
    }

    /// Checks what can be checked without the store, and puts the key into the document.
    ///
    /// # Errors
    /// `InvalidArgument` for a document whose `_id` is not the key, that names a field of ours, or that is larger than
    /// [`MAX_DOCUMENT`]; and for an update of these fields.
    pub fn prepared(mut self) -> Result<Self> {
        match &mut self.action {
            Action::Insert(document) | Action::Put(document) | Action::Replace(document) => {
                *document = with_key(std::mem::take(document), &self.key)?;
                check_document(document)?;
            }
            Action::Update(_) | Action::Upsert(_) | Action::Delete => {}
        }
        if let Condition::Document(document) = &mut self.condition {
            *document = with_key(std::mem::take(document), &self.key)?;
        }
        if let Some(source) = &mut self.source {
            let end = (0..=MAX_SOURCE.min(source.len())).rev().find(|end| source.is_char_boundary(*end));
            source.truncate(end.unwrap_or(0));
        }
        Ok(self)
    }
}

/// What a store has at a key, before a write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Before {
    /// The document, if there is one.
    pub document: Option<Document>,
    /// Its revision.
    pub revision: Revision,
    /// The fences of the document, or of its tombstone.
    pub fences: Fences,
}

/// What a write makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The document, none after a deletion.
    pub document: Option<Document>,
    /// There was none before.
    pub created: bool,
    /// The fences to keep, with the document or without it.
    pub fences: Fences,
}

/// What a prepared write makes of what is there. Whether the fence's hold still exists is for the store to see.
///
/// # Errors
/// `NotFound`, `AlreadyExists`, `Conflict`, `Fenced`, each as [`Action`] and [`Condition`] say; `InvalidArgument` for an
/// update that does not fit the document, or makes it larger than [`MAX_DOCUMENT`]; `Unsupported` for an update that
/// only MongoDB knows.
pub fn apply(before: Before, write: &Write) -> Result<Outcome> {
    let Before { document, revision, mut fences } = before;
    if let Some(fence) = &write.fence {
        fences.admit(fence)?;
        fences.raise(fence);
    }
    let created = document.is_none();
    let missing = || not_found(&write.key);
    match (&write.condition, &document) {
        (Condition::None, _) => {}
        (_, None) => return Err(missing()),
        (Condition::Revision(wanted), Some(_)) if *wanted != revision => return Err(conflict(&write.key)),
        (Condition::Document(wanted), Some(found)) if !same(wanted, found) => return Err(conflict(&write.key)),
        _ => {}
    }
    let after = match (&write.action, document) {
        (Action::Insert(_), Some(_)) => return Err(already_exists(&write.key)),
        (Action::Replace(_) | Action::Update(_) | Action::Delete, None) => return Err(missing()),
        (Action::Insert(new) | Action::Put(new) | Action::Replace(new), _) => Some(new.clone()),
        (Action::Update(update), Some(old)) => Some(update.apply(old, false)?),
        (Action::Upsert(update), Some(old)) => Some(update.apply(old, false)?),
        (Action::Upsert(update), None) => {
            let empty = Document::from_iter([("_id".to_owned(), write.key.value().clone())]);
            Some(update.apply(empty, true)?)
        }
        (Action::Delete, Some(_)) => None,
    };
    if let Some(document) = &after {
        check_size(document)?;
    }
    Ok(Outcome { document: after, created, fences })
}

/// The document with the key as its first field.
///
/// # Errors
/// `InvalidArgument` if it has another one.
pub fn with_key(mut document: Document, key: &Key) -> Result<Document> {
    if let Some(given) = document.remove("_id")
        && Key::stored(given) != *key
    {
        return Err(Error::invalid(format!("the document has another _id than its key {key}; leave _id out")));
    }
    let id = ("_id".to_owned(), key.value().clone());
    Ok(std::iter::once(id).chain(document).collect())
}

/// Checks a whole document that a user gives.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_document(document: &Document) -> Result<()> {
    for name in document.keys() {
        if RESERVED.contains(&name.as_str()) {
            return Err(Error::invalid(format!("the field '{name}' is the library's own; name it otherwise")));
        }
        if name.starts_with('$') {
            return Err(Error::invalid(format!("a field of a document must not begin with '$', but '{name}' does")));
        }
    }
    check_depth(document.values(), 1)?;
    check_size(document)
}

/// Checks the size of a document.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_size(document: &Document) -> Result<()> {
    let size = document.to_vec().map_err(|error| Error::invalid(format!("the document is no BSON: {error}")))?.len();
    if size > MAX_DOCUMENT {
        return Err(Error::invalid(format!("a document has at most {MAX_DOCUMENT} bytes; this one has {size}")));
    }
    Ok(())
}

/// How deeply values may lie in one another: what MongoDB takes.
const MAX_DEPTH: usize = 100;

fn check_depth<'a>(values: impl Iterator<Item = &'a Bson>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!("a document is nested at most {MAX_DEPTH} deep")));
    }
    for value in values {
        match value {
            Bson::Document(document) => check_depth(document.values(), depth + 1)?,
            Bson::Array(array) => check_depth(array.iter(), depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}

/// There is no document of this key.
pub fn not_found(key: &Key) -> Error {
    Error::new(Code::NotFound, format!("there is no document {key}"))
}

/// There is a document of this key already.
pub fn already_exists(key: &Key) -> Error {
    Error::new(Code::AlreadyExists, format!("there is a document {key} already"))
}

/// The document is not as the write wants it.
pub fn conflict(key: &Key) -> Error {
    Error::new(Code::Conflict, format!("the document {key} has changed in the meantime; read it again"))
}
