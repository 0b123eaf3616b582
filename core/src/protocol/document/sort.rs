//! Sorting: by several fields, each ascending or descending, in the order of [`compare`].
//!
//! As in MongoDB an array counts as its least element, or its greatest if descending; a field that is not there counts
//! as null, and an empty array as less than that.

use std::cmp::Ordering;

use bson::{Bson, Document};

use super::order::compare;
use super::{RESERVED, path};
use crate::error::{Code, Error, Result};

/// At most so many fields, as in MongoDB.
const MAX_FIELDS: usize = 32;

/// An order of documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Sort {
    document: Document,
    /// None if only MongoDB knows.
    fields: Option<Vec<(String, bool)>>,
}

/// Where a document stands in an order.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey(Vec<(Bson, bool)>);

impl Sort {
    /// Reads an order: `{a: 1, "b.c": -1}`.
    ///
    /// # Errors
    /// `InvalidArgument` for another direction than 1 and -1, and for a field of ours.
    pub fn parse(document: Document) -> Result<Self> {
        if document.is_empty() || document.len() > MAX_FIELDS {
            return Err(Error::invalid(format!("an order names 1 to {MAX_FIELDS} fields, not {}", document.len())));
        }
        let mut fields = Some(Vec::new());
        for (path, direction) in &document {
            let root = path.split('.').next().unwrap_or(path);
            if RESERVED.contains(&root) {
                return Err(Error::invalid(format!("the field '{root}' is the library's own, and nothing to sort by")));
            }
            let descending = match direction {
                Bson::Int32(1) | Bson::Int64(1) => false,
                Bson::Int32(-1) | Bson::Int64(-1) => true,
                Bson::Double(number) if *number == 1.0 => false,
                Bson::Double(number) if *number == -1.0 => true,
                Bson::Document(_) => {
                    fields = None;
                    continue;
                }
                _ => return Err(Error::invalid(format!("the direction of '{path}' in an order is 1 or -1"))),
            };
            if path.is_empty() || path.split('.').any(|part| part.is_empty() || part.starts_with('$')) {
                return Err(Error::invalid(format!("'{path}' is no path to sort by")));
            }
            if let Some(fields) = &mut fields {
                fields.push((path.clone(), descending));
            }
        }
        Ok(Self { document, fields })
    }

    /// The order as it was given.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Checks that every store knows what it means.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn require_shared(&self) -> Result<()> {
        self.fields().map(|_| ())
    }

    /// Where a document stands.
    ///
    /// # Errors
    /// `InvalidArgument` if two of the fields lead through different arrays, which MongoDB refuses, too; `Unsupported`.
    pub fn key(&self, document: &Document) -> Result<SortKey> {
        let fields = self.fields()?;
        let paths: Vec<&str> = fields.iter().map(|(path, _)| path.as_str()).collect();
        let directions = || fields.iter().map(|(_, descending)| *descending);
        let rows = rows(document, &paths)?;
        let keys = rows.into_iter().map(|row| SortKey(row.into_iter().zip(directions()).collect()));
        keys.min_by(SortKey::compare).ok_or_else(|| Error::new(Code::Panic, "a document without a place in an order"))
    }

    fn fields(&self) -> Result<&[(String, bool)]> {
        self.fields.as_deref().ok_or_else(|| {
            Error::new(Code::Unsupported, "only MongoDB can sort by what is not a field; this store cannot")
        })
    }
}

impl SortKey {
    /// Which of two stands first.
    pub fn compare(&self, other: &Self) -> Ordering {
        let pairs = self.0.iter().zip(&other.0);
        pairs.fold(Ordering::Equal, |order, ((left, descending), (right, _))| {
            order.then_with(|| if *descending { compare(right, left) } else { compare(left, right) })
        })
    }
}

/// What is known of one path: its value, or the part of it that is still to be walked.
#[derive(Clone)]
enum Walk<'a> {
    Done(Bson),
    At(Option<&'a Bson>, &'a str),
    /// An array that a path names by its place in another one. It is not taken apart.
    Whole(&'a Bson),
}

/// The combinations of values that these paths have in a document: one, or one for each element of an array that they
/// lead through or end in. As entries of an index they are what makes it unique.
///
/// # Errors
/// `InvalidArgument` for paths through different arrays.
pub fn rows(document: &Document, paths: &[&str]) -> Result<Vec<Vec<Bson>>> {
    let mut found = Vec::new();
    let mut walks = Vec::new();
    for path in paths {
        let (part, rest) = path.split_once('.').unwrap_or((path, ""));
        walks.push(Walk::At(document.get(part), rest));
    }
    expand(walks, &mut found)?;
    Ok(found)
}

fn expand(mut walks: Vec<Walk<'_>>, found: &mut Vec<Vec<Bson>>) -> Result<()> {
    let mut array: Option<&Vec<Bson>> = None;
    for walk in &mut walks {
        if let Walk::Whole(Bson::Array(elements)) = walk {
            if array.is_some_and(|other| !std::ptr::eq(other, elements)) {
                return Err(parallel());
            }
            array = Some(elements);
        }
        while let Walk::At(value, path) = *walk {
            *walk = match value {
                Some(Bson::Array(elements)) => {
                    if array.is_some_and(|other| !std::ptr::eq(other, elements)) {
                        return Err(parallel());
                    }
                    array = Some(elements);
                    break;
                }
                value if path.is_empty() => Walk::Done(value.cloned().unwrap_or(Bson::Null)),
                Some(Bson::Document(document)) => {
                    let (part, rest) = path.split_once('.').unwrap_or((path, ""));
                    Walk::At(document.get(part), rest)
                }
                _ => Walk::Done(Bson::Null),
            };
        }
    }
    let Some(elements) = array else {
        let row = walks.into_iter().map(|walk| match walk {
            Walk::Done(value) => value,
            Walk::At(..) | Walk::Whole(_) => Bson::Null,
        });
        found.push(row.collect());
        return Ok(());
    };
    if elements.is_empty() {
        let past = walks.into_iter().map(|walk| match walk {
            Walk::At(_, "") | Walk::Whole(_) => Walk::Done(Bson::Undefined),
            Walk::At(..) => Walk::Done(Bson::Null),
            done => done,
        });
        return expand(past.collect(), found);
    }
    for element in elements {
        let walks: Result<Vec<Walk<'_>>> = walks.iter().map(|walk| into_element(walk, elements, element)).collect();
        expand(walks?, found)?;
    }
    Ok(())
}

/// A walk that stands at an array goes on into this element; or into the one that its path names by its place.
fn into_element<'a>(walk: &Walk<'a>, elements: &'a [Bson], element: &'a Bson) -> Result<Walk<'a>> {
    let path = match walk {
        Walk::Done(_) => return Ok(walk.clone()),
        Walk::Whole(value) => return Ok(Walk::Done((*value).clone())),
        Walk::At(_, path) => *path,
    };
    if path.is_empty() {
        return Ok(Walk::Done(element.clone()));
    }
    let (part, rest) = path.split_once('.').unwrap_or((path, ""));
    if let Some(chosen) = path::index(part).and_then(|place| elements.get(place)) {
        if matches!(element, Bson::Document(document) if document.contains_key(part)) {
            return Err(Error::invalid(format!("'{part}' is both a place in an array and a field of its elements")));
        }
        let whole = rest.is_empty() && matches!(chosen, Bson::Array(_));
        return Ok(if whole { Walk::Whole(chosen) } else { Walk::At(Some(chosen), rest) });
    }
    Ok(match element {
        Bson::Document(_) => Walk::At(Some(element), path),
        _ => Walk::Done(Bson::Null),
    })
}

fn parallel() -> Error {
    Error::invalid("a document has arrays in two of the fields of an order or index; one is the most there can be")
}
