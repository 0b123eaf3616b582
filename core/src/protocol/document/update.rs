//! Updates: MongoDB's operators, and the part of them that means the same on every store.
//!
//! The shared part: `$set`, `$unset`, `$setOnInsert`, `$inc` (not of decimals), `$min`, `$max`, `$push` and `$addToSet` of
//! one value or of several (`$each`), `$pull` of a value that is no document. New fields come after the others, in the
//! order of their names.
//!
//! Deliberately absent, and so only on MongoDB: other operators, positions (`a.$`), and pipelines.

use std::cmp::Ordering;

use bson::{Bson, Document};

use super::order::{compare, type_name};
use super::{RESERVED, path};
use crate::error::{Code, Error, Result};

/// How far an array may grow by naming a place behind its end.
const MAX_PADDING: usize = 1_500_000;

/// A change of some of a document's fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    form: Form,
    /// None if only MongoDB knows what it means.
    compiled: Option<Vec<Step>>,
    /// What only MongoDB knows.
    beyond: String,
}

/// An update as it was given.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Operators.
    Operators(Document),
    /// A pipeline.
    Pipeline(Vec<Document>),
}

#[derive(Clone, Debug, PartialEq)]
struct Step {
    path: Vec<String>,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Set(Bson),
    SetOnInsert(Bson),
    Unset,
    Increment(Bson),
    Least(Bson),
    Greatest(Bson),
    Push(Vec<Bson>),
    AddToSet(Vec<Bson>),
    Pull(Bson),
}

impl Update {
    /// Reads an update of operators: `{$set: {a: 1}, $inc: {"b.c": 2}}`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no update on any store, changes one path twice, or changes `_id` or a field of ours.
    pub fn parse(document: Document) -> Result<Self> {
        let (mut steps, mut beyond) = (Vec::new(), None);
        if document.is_empty() {
            return Err(Error::invalid("an update has at least one operator, such as {$set: {…}}"));
        }
        for (operator, fields) in &document {
            if !operator.starts_with('$') {
                return Err(Error::invalid(format!(
                    "an update has operators such as $set, but '{operator}' is none; to put a whole document in the place \
                     of another one, replace it"
                )));
            }
            let Bson::Document(fields) = fields else {
                return Err(Error::invalid(format!("'{operator}' of an update takes a document of fields")));
            };
            for (path, value) in fields {
                check_path(path)?;
                match step(operator, path, value)? {
                    Ok(step) => steps.push(step),
                    Err(what) => beyond = beyond.or(Some(what)),
                }
            }
        }
        steps.sort_by(|left: &Step, right: &Step| compare_paths(&left.path, &right.path));
        for pair in steps.windows(2) {
            if pair[1].path.starts_with(&pair[0].path) {
                return Err(Error::invalid(format!(
                    "an update changes '{}' and '{}', which is the same or lies in it",
                    pair[0].path.join("."),
                    pair[1].path.join(".")
                )));
            }
        }
        let form = Form::Operators(document);
        Ok(match beyond {
            None => Self { form, compiled: Some(steps), beyond: String::new() },
            Some(what) => Self { form, compiled: None, beyond: what },
        })
    }

    /// An update by an aggregation pipeline, which only MongoDB can do.
    ///
    /// # Errors
    /// `InvalidArgument` if it is empty, or has a stage that no update can have.
    pub fn pipeline(stages: Vec<Document>) -> Result<Self> {
        const ALLOWED: [&str; 6] = ["$set", "$addFields", "$unset", "$project", "$replaceRoot", "$replaceWith"];
        let is_stage = |stage: &Document| stage.len() == 1 && stage.keys().all(|key| ALLOWED.contains(&key.as_str()));
        if stages.is_empty() || !stages.iter().all(is_stage) {
            return Err(Error::invalid(format!(
                "a pipeline of an update has one or more stages of {}",
                ALLOWED.join(", ")
            )));
        }
        Ok(Self { form: Form::Pipeline(stages), compiled: None, beyond: "a pipeline".into() })
    }

    /// The update as it was given.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Checks that every store knows what it means.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn require_shared(&self) -> Result<()> {
        self.steps().map(|_| ())
    }

    /// The paths that it changes, in order; empty if only MongoDB knows.
    pub fn paths(&self) -> Vec<String> {
        self.compiled.iter().flatten().map(|step| step.path.join(".")).collect()
    }

    /// The document after the update. `inserted`: it is made by it.
    ///
    /// # Errors
    /// `InvalidArgument` if the update does not fit the document: a number is added to a text, a field is put into a
    /// number, a value is pushed to what is no array. `Unsupported` if only MongoDB knows.
    pub fn apply(&self, mut document: Document, inserted: bool) -> Result<Document> {
        for step in self.steps()? {
            let change = match &step.change {
                Change::SetOnInsert(_) if !inserted => continue,
                Change::SetOnInsert(value) => &Change::Set(value.clone()),
                change => change,
            };
            match change {
                Change::Unset => unset_in(&mut document, &step.path),
                Change::Pull(_) if !reaches(&document, &step.path)? => {}
                change => change_in(&mut document, &step.path, change)?,
            }
        }
        Ok(document)
    }

    fn steps(&self) -> Result<&[Step]> {
        self.compiled.as_deref().ok_or_else(|| {
            Error::new(Code::Unsupported, format!("only MongoDB can update by {}; this store cannot", self.beyond))
        })
    }
}

fn check_path(path: &str) -> Result<()> {
    let root = path.split('.').next().unwrap_or(path);
    if RESERVED.contains(&root) {
        return Err(Error::invalid(format!("the field '{root}' is the library's own, and cannot be updated")));
    }
    if root == "_id" {
        return Err(Error::invalid("the key of a document cannot be changed; insert it anew and delete the old one"));
    }
    if path.split('.').any(str::is_empty) {
        return Err(Error::invalid(format!("'{path}' of an update is no path: a part of it is empty")));
    }
    Ok(())
}

/// The step of an operator, or what of it only MongoDB knows.
fn step(operator: &str, path: &str, value: &Bson) -> Result<std::result::Result<Step, String>> {
    let change = match operator {
        "$set" => Change::Set(value.clone()),
        "$setOnInsert" => Change::SetOnInsert(value.clone()),
        "$unset" => Change::Unset,
        "$inc" => match value {
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => Change::Increment(value.clone()),
            Bson::Decimal128(_) => return Ok(Err("'$inc' of a decimal".into())),
            other => return Err(Error::invalid(format!("'$inc' adds a number to '{path}', not {}", type_name(other)))),
        },
        "$min" => Change::Least(value.clone()),
        "$max" => Change::Greatest(value.clone()),
        "$push" | "$addToSet" => match each(operator, value)? {
            Some(values) if operator == "$push" => Change::Push(values),
            Some(values) => Change::AddToSet(values),
            None => return Ok(Err(format!("modifiers of '{operator}'"))),
        },
        "$pull" => match value {
            Bson::Document(_) | Bson::RegularExpression(_) => return Ok(Err("'$pull' with a condition".into())),
            value => Change::Pull(value.clone()),
        },
        other => return Ok(Err(format!("'{other}'"))),
    };
    let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
    if parts.iter().any(|part| part.starts_with('$')) {
        return Ok(Err(format!("the path '{path}'")));
    }
    Ok(Ok(Step { path: parts, change }))
}

/// The values to add: one, or those of `$each`. None if there are other modifiers.
fn each(operator: &str, value: &Bson) -> Result<Option<Vec<Bson>>> {
    let Bson::Document(modifiers) = value else { return Ok(Some(vec![value.clone()])) };
    match modifiers.get("$each") {
        Some(Bson::Array(values)) if modifiers.len() == 1 => Ok(Some(values.clone())),
        Some(Bson::Array(_)) => Ok(None),
        Some(_) => Err(Error::invalid(format!("'$each' of '{operator}' takes a list"))),
        None => Ok(Some(vec![value.clone()])),
    }
}

fn compare_paths(left: &[String], right: &[String]) -> Ordering {
    // Places in arrays go by their number, and before names.
    let key = |part: &'_ String| path::index(part).map_or((1, 0), |place| (0, place));
    let parts = left.iter().zip(right).map(|(l, r)| key(l).cmp(&key(r)).then_with(|| l.as_bytes().cmp(r.as_bytes())));
    parts.fold(Ordering::Equal, Ordering::then).then(left.len().cmp(&right.len()))
}

/// Whether there is a value at a path.
fn reaches(document: &Document, path: &[String]) -> Result<bool> {
    let Some((first, rest)) = path.split_first() else { return Ok(false) };
    let mut found = document.get(first);
    for part in rest {
        found = match found {
            None => return Ok(false),
            Some(Bson::Document(document)) => document.get(part),
            Some(Bson::Array(array)) => array.get(path::index(part).ok_or_else(|| not_viable(part))?),
            Some(_) => return Err(not_viable(part)),
        };
    }
    Ok(found.is_some())
}

/// Where the value at a path is to be, in what is around it.
enum Place<'a> {
    Field(&'a mut Document, &'a str),
    Element(&'a mut Vec<Bson>, usize),
}

impl<'a> Place<'a> {
    fn value(&mut self) -> Option<&mut Bson> {
        match self {
            Self::Field(document, name) => document.get_mut(*name),
            Self::Element(array, place) => array.get_mut(*place),
        }
    }

    fn put(self, value: Bson) -> Result<&'a mut Bson> {
        match self {
            Self::Field(document, name) => {
                document.insert(name, value);
                document.get_mut(name).ok_or_else(|| Error::invalid("a field that cannot be set"))
            }
            Self::Element(array, place) => {
                if place > array.len() + MAX_PADDING {
                    return Err(Error::invalid(format!("an update puts a value {place} places into an array")));
                }
                while array.len() <= place {
                    array.push(Bson::Null);
                }
                array[place] = value;
                Ok(&mut array[place])
            }
        }
    }

    /// The place of `part` in the value here, which is made if it is missing.
    fn below(mut self, part: &'a str) -> Result<Self> {
        if self.value().is_none() {
            return match self.put(Bson::Document(Document::new()))? {
                Bson::Document(document) => Ok(Place::Field(document, part)),
                _ => Err(not_viable(part)),
            };
        }
        let value = match self {
            Self::Field(document, name) => document.get_mut(name),
            Self::Element(array, place) => array.get_mut(place),
        };
        match value {
            Some(Bson::Document(document)) => Ok(Place::Field(document, part)),
            Some(Bson::Array(array)) => {
                let place = path::index(part).ok_or_else(|| not_viable(part))?;
                Ok(Place::Element(array, place))
            }
            _ => Err(not_viable(part)),
        }
    }
}

fn not_viable(part: &str) -> Error {
    Error::invalid(format!("an update cannot make the field '{part}': what it would lie in is no document"))
}

fn change_in(document: &mut Document, path: &[String], change: &Change) -> Result<()> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    let mut place = Place::Field(document, first);
    for part in rest {
        place = place.below(part)?;
    }
    let name = || path.join(".");
    let Some(value) = place.value() else {
        return match change {
            Change::Set(new) | Change::Increment(new) | Change::Least(new) | Change::Greatest(new) => {
                place.put(new.clone()).map(drop)
            }
            Change::Push(values) => place.put(Bson::Array(values.clone())).map(drop),
            Change::AddToSet(values) => {
                let mut set = Vec::new();
                add_to_set(&mut set, values);
                place.put(Bson::Array(set)).map(drop)
            }
            Change::Pull(_) | Change::Unset | Change::SetOnInsert(_) => Ok(()),
        };
    };
    match change {
        Change::Set(new) => *value = new.clone(),
        Change::Increment(by) => *value = sum(value, by, &name())?,
        Change::Least(new) if compare(new, value).is_lt() => *value = new.clone(),
        Change::Greatest(new) if compare(new, value).is_gt() => *value = new.clone(),
        Change::Push(values) => array_of(value, &name())?.extend(values.iter().cloned()),
        Change::AddToSet(values) => add_to_set(array_of(value, &name())?, values),
        Change::Pull(unwanted) => array_of(value, &name())?.retain(|element| compare(element, unwanted).is_ne()),
        _ => {}
    }
    Ok(())
}

fn unset_in(document: &mut Document, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some((last, middle)) = rest.split_last() else {
        document.remove(first);
        return;
    };
    let mut value = document.get_mut(first);
    for part in middle {
        value = match value {
            Some(Bson::Document(document)) => document.get_mut(part),
            Some(Bson::Array(array)) => path::index(part).and_then(|place| array.get_mut(place)),
            _ => None,
        };
    }
    match value {
        Some(Bson::Document(document)) => {
            document.remove(last);
        }
        Some(Bson::Array(array)) => {
            // The other elements keep their places.
            if let Some(element) = path::index(last).and_then(|place| array.get_mut(place)) {
                *element = Bson::Null;
            }
        }
        _ => {}
    }
}

fn array_of<'a>(value: &'a mut Bson, name: &str) -> Result<&'a mut Vec<Bson>> {
    let kind = type_name(value);
    match value {
        Bson::Array(array) => Ok(array),
        _ => Err(Error::invalid(format!("an update adds to the array '{name}' or removes from it, but it is {kind}"))),
    }
}

fn add_to_set(set: &mut Vec<Bson>, values: &[Bson]) {
    for value in values {
        if !set.iter().any(|element| compare(element, value).is_eq()) {
            set.push(value.clone());
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "as everywhere, a sum with a double is one")]
fn sum(value: &Bson, by: &Bson, name: &str) -> Result<Bson> {
    let wide = |left: i64, right: i64| {
        let sum = left.checked_add(right);
        sum.ok_or_else(|| Error::invalid(format!("'{name}' would become larger than a 64-bit integer")))
    };
    Ok(match (value, by) {
        (Bson::Int32(l), Bson::Int32(r)) => match l.checked_add(*r) {
            Some(sum) => Bson::Int32(sum),
            None => Bson::Int64(i64::from(*l) + i64::from(*r)),
        },
        (Bson::Int32(l), Bson::Int64(r)) => Bson::Int64(wide((*l).into(), *r)?),
        (Bson::Int64(l), Bson::Int32(r)) => Bson::Int64(wide(*l, (*r).into())?),
        (Bson::Int64(l), Bson::Int64(r)) => Bson::Int64(wide(*l, *r)?),
        (Bson::Double(l), Bson::Int32(r)) => Bson::Double(l + f64::from(*r)),
        (Bson::Double(l), Bson::Int64(r)) => Bson::Double(l + *r as f64),
        (Bson::Double(l), Bson::Double(r)) => Bson::Double(l + r),
        (Bson::Int32(l), Bson::Double(r)) => Bson::Double(f64::from(*l) + r),
        (Bson::Int64(l), Bson::Double(r)) => Bson::Double(*l as f64 + r),
        (Bson::Decimal128(_), _) => {
            return Err(Error::new(Code::Unsupported, format!("only MongoDB can add to the decimal '{name}'")));
        }
        (other, _) => {
            return Err(Error::invalid(format!("'$inc' adds a number to '{name}', which is {}", type_name(other))));
        }
    })
}
