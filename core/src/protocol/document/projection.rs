//! Projections: which fields of a document to read. Either the wanted ones or the unwanted ones, as in MongoDB; the key
//! comes along unless `_id` is unwanted. Deliberately absent, and so only on MongoDB: operators and expressions.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use super::RESERVED;
use crate::error::{Code, Error, Result};

/// Which fields to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    document: Document,
    compiled: Option<Tree>,
    wanted: bool,
    key: bool,
}

/// The fields that are named, each with those below it that are; none below means all of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tree(BTreeMap<String, Self>);

impl Projection {
    /// Reads a projection: `{a: 1, "b.c": 1}` or `{a: 0}`.
    ///
    /// # Errors
    /// `InvalidArgument` if it names wanted and unwanted fields at once, or a path and one below it, or a field of ours.
    pub fn parse(document: Document) -> Result<Self> {
        let (mut tree, mut wanted, mut key, mut shared) = (Tree::default(), None, None, true);
        for (path, value) in &document {
            let root = path.split('.').next().unwrap_or(path);
            if RESERVED.contains(&root) {
                return Err(Error::invalid(format!(
                    "the field '{root}' is the library's own, and cannot be projected"
                )));
            }
            let is_wanted = match value {
                Bson::Boolean(wanted) => *wanted,
                Bson::Int32(number) => *number != 0,
                Bson::Int64(number) => *number != 0,
                Bson::Double(number) => *number != 0.0,
                _ => {
                    shared = false;
                    continue;
                }
            };
            if path.is_empty() || path.split('.').any(|part| part.is_empty() || part.starts_with('$')) {
                shared = false;
            } else if path == "_id" {
                key = Some(is_wanted);
            } else if *wanted.get_or_insert(is_wanted) != is_wanted {
                return Err(Error::invalid(
                    "a projection names either the wanted fields or the unwanted ones, not both",
                ));
            } else {
                tree.add(path)?;
            }
        }
        // Nothing but the key is named: then that says which kind it is.
        let wanted = wanted.unwrap_or(matches!(key, Some(true)));
        let compiled = shared.then_some(tree);
        Ok(Self { document, compiled, wanted, key: key.unwrap_or(true) })
    }

    /// The projection as it was given.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Checks that every store knows what it means.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn require_shared(&self) -> Result<()> {
        self.tree().map(|_| ())
    }

    /// Whether the key is wanted.
    pub fn has_key(&self) -> bool {
        self.key
    }

    /// The part of a document that is wanted.
    ///
    /// # Errors
    /// `Unsupported` if only MongoDB knows.
    pub fn apply(&self, document: Document) -> Result<Document> {
        let tree = self.tree()?;
        if self.document.is_empty() {
            return Ok(document);
        }
        let (mut rest, mut id) = (document, None);
        if let Some(key) = rest.remove("_id") {
            id = self.key.then_some(("_id".to_owned(), key));
        }
        let rest = if self.wanted { tree.only(rest) } else { tree.without(rest) };
        Ok(id.into_iter().chain(rest).collect())
    }

    fn tree(&self) -> Result<&Tree> {
        self.compiled.as_ref().ok_or_else(|| {
            Error::new(Code::Unsupported, "only MongoDB knows operators in a projection; this store does not")
        })
    }
}

impl Tree {
    fn add(&mut self, path: &str) -> Result<()> {
        let collides = || Error::invalid(format!("the projection names '{path}' and a path above or below it"));
        let mut at = self;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let is_new = !at.0.contains_key(part);
            let is_last = parts.peek().is_none();
            let next = at.0.entry(part.to_owned()).or_default();
            if !is_new && (is_last || next.0.is_empty()) {
                return Err(collides());
            }
            at = next;
        }
        Ok(())
    }

    fn only(&self, document: Document) -> Document {
        let keep = |(name, value): (String, Bson)| {
            let below = self.0.get(&name)?;
            if below.0.is_empty() {
                return Some((name, value));
            }
            below.only_of(value).map(|value| (name, value))
        };
        document.into_iter().filter_map(keep).collect()
    }

    fn only_of(&self, value: Bson) -> Option<Bson> {
        match value {
            Bson::Document(document) => Some(Bson::Document(self.only(document))),
            Bson::Array(values) => Some(Bson::Array(values.into_iter().filter_map(|v| self.only_of(v)).collect())),
            _ => None,
        }
    }

    fn without(&self, document: Document) -> Document {
        let keep = |(name, value): (String, Bson)| match self.0.get(&name) {
            None => Some((name, value)),
            Some(below) if below.0.is_empty() => None,
            Some(below) => Some((name, below.without_of(value))),
        };
        document.into_iter().filter_map(keep).collect()
    }

    fn without_of(&self, value: Bson) -> Bson {
        match value {
            Bson::Document(document) => Bson::Document(self.without(document)),
            Bson::Array(values) => Bson::Array(values.into_iter().map(|value| self.without_of(value)).collect()),
            other => other,
        }
    }
}
