//! Filters: MongoDB's query documents, and the part of them that means the same on every store.
//!
//! The shared part: a field (also nested, `a.b.0`) equal to a value; `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`,
//! `$nin`, `$exists`, `$not`; `$regex` for texts that begin with something (`^abc`, no options); `$and`, `$or`, `$nor`.
//! Arrays, missing fields, nulls and types are treated as MongoDB does: a comparison is true only within one class of
//! types, a field that is not there equals null, and a condition on an array holds if it does for any element or for the
//! whole array.
//!
//! Deliberately absent, and so only on MongoDB: every other operator, patterns that are more than a beginning, and
//! comparisons with a value that has no place in data (regular expressions, code, `MinKey`, `MaxKey`, `undefined`).

use bson::{Bson, Document};

use super::order::{class, compare, is_nan, type_name};
use super::{RESERVED, path};
use crate::error::{Code, Error, Result};

/// How deeply conditions may lie in one another.
const MAX_DEPTH: usize = 50;

/// A condition on documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    document: Document,
    /// None if only MongoDB knows what it means.
    compiled: Option<Node>,
    /// What only MongoDB knows.
    beyond: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Field(String, Test),
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Compare(Comparison, Bson),
    In(Vec<Bson>),
    Exists,
    Begins(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Why a filter was not compiled.
enum Refusal {
    Wrong(Error),
    Beyond(String),
}

type Compiled<T> = std::result::Result<T, Refusal>;

impl Default for Filter {
    /// Every document.
    fn default() -> Self {
        Self { document: Document::new(), compiled: Some(Node::And(Vec::new())), beyond: String::new() }
    }
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no filter on any store, or names a field of ours.
    pub fn parse(document: Document) -> Result<Self> {
        match compile(&document, 0) {
            Ok(node) => Ok(Self { document, compiled: Some(node), beyond: String::new() }),
            Err(Refusal::Beyond(what)) => Ok(Self { document, compiled: None, beyond: what }),
            Err(Refusal::Wrong(error)) => Err(error),
        }
    }

    /// The document of one key.
    pub fn key(key: &super::Key) -> Self {
        Self::keys(std::slice::from_ref(key))
    }

    /// The documents of these keys.
    pub fn keys(keys: &[super::Key]) -> Self {
        let values: Vec<Bson> = keys.iter().map(|key| key.value().clone()).collect();
        let document = bson::doc! { "_id": { "$in": values.clone() } };
        Self { document, compiled: Some(Node::Field("_id".into(), Test::In(values))), beyond: String::new() }
    }

    /// The filter as it was given.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Whether every store knows what it means.
    pub fn is_shared(&self) -> bool {
        self.compiled.is_some()
    }

    /// Checks that every store knows what it means.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn require_shared(&self) -> Result<()> {
        self.node().map(|_| ())
    }

    /// Whether a document matches.
    ///
    /// # Errors
    /// `Unsupported` if only MongoDB knows.
    pub fn matches(&self, document: &Document) -> Result<bool> {
        Ok(self.node()?.matches(document))
    }

    /// Whether every document matches.
    pub fn is_everything(&self) -> bool {
        self.document.is_empty()
    }

    /// The values of this field that a document can have at most, if the filter names them one by one. For the use of
    /// indexes: what has none of them does not match.
    pub fn candidates(&self, field: &str) -> Option<Vec<Bson>> {
        self.compiled.as_ref()?.candidates(field)
    }

    fn node(&self) -> Result<&Node> {
        self.compiled.as_ref().ok_or_else(|| {
            Error::new(Code::Unsupported, format!("only MongoDB can filter by {}; this store cannot", self.beyond))
        })
    }
}

impl Node {
    fn matches(&self, document: &Document) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(document)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(document)),
            Self::Not(node) => !node.matches(document),
            Self::Field(name, test) => path::any(document, name, &mut |found| test.holds(found)),
        }
    }

    fn candidates(&self, field: &str) -> Option<Vec<Bson>> {
        match self {
            Self::And(nodes) => nodes.iter().find_map(|node| node.candidates(field)),
            Self::Field(name, Test::Compare(Comparison::Equal, value)) if name == field => Some(vec![value.clone()]),
            Self::Field(name, Test::In(values)) if name == field => Some(values.clone()),
            _ => None,
        }
    }
}

impl Test {
    fn holds(&self, found: Option<&Bson>) -> bool {
        match self {
            Self::Compare(comparison, value) => comparison.holds(found, value),
            Self::In(values) => values.iter().any(|value| Comparison::Equal.holds(found, value)),
            Self::Exists => found.is_some(),
            Self::Begins(text) => {
                matches!(found, Some(Bson::String(value) | Bson::Symbol(value)) if value.starts_with(text))
            }
        }
    }
}

impl Comparison {
    fn holds(self, found: Option<&Bson>, value: &Bson) -> bool {
        let includes_equal = matches!(self, Self::Equal | Self::GreaterOrEqual | Self::LessOrEqual);
        let Some(found) = found else { return *value == Bson::Null && includes_equal };
        if class(found) != class(value) {
            // Undefined is as good as null.
            let is_null = |value: &Bson| matches!(value, Bson::Null | Bson::Undefined);
            return includes_equal && is_null(found) && is_null(value);
        }
        if is_nan(found) || is_nan(value) {
            return includes_equal && is_nan(found) && is_nan(value);
        }
        let order = compare(found, value);
        match self {
            Self::Equal => order.is_eq(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

fn compile(document: &Document, depth: usize) -> Compiled<Node> {
    if depth > MAX_DEPTH {
        return Err(wrong(format!("a filter is nested at most {MAX_DEPTH} deep")));
    }
    // What is wrong everywhere is said also where something else is beyond a store.
    let mut beyond = None;
    let mut nodes = Vec::new();
    for (name, value) in document {
        let compiled = match name.as_str() {
            "$and" => compile_list(name, value, depth).map(Node::And),
            "$or" => compile_list(name, value, depth).map(Node::Or),
            "$nor" => compile_list(name, value, depth).map(|nodes| Node::Not(Box::new(Node::Or(nodes)))),
            "$comment" => continue,
            operator if operator.starts_with('$') => Err(Refusal::Beyond(format!("'{operator}'"))),
            _ => compile_field(name, value),
        };
        match compiled {
            Ok(node) => nodes.push(node),
            Err(Refusal::Beyond(what)) => beyond = beyond.or(Some(what)),
            Err(error) => return Err(error),
        }
    }
    match beyond {
        Some(what) => Err(Refusal::Beyond(what)),
        None if nodes.len() == 1 => Ok(nodes.remove(0)),
        None => Ok(Node::And(nodes)),
    }
}

fn compile_list(name: &str, value: &Bson, depth: usize) -> Compiled<Vec<Node>> {
    let malformed = || wrong(format!("'{name}' of a filter takes a list of filters, and not an empty one"));
    let Bson::Array(filters) = value else { return Err(malformed()) };
    if filters.is_empty() {
        return Err(malformed());
    }
    let one = |filter: &Bson| match filter {
        Bson::Document(filter) => compile(filter, depth + 1),
        _ => Err(malformed()),
    };
    filters.iter().map(one).collect()
}

fn compile_field(name: &str, value: &Bson) -> Compiled<Node> {
    let root = name.split('.').next().unwrap_or(name);
    if RESERVED.contains(&root) {
        return Err(wrong(format!("the field '{root}' is the library's own, and cannot be in a filter")));
    }
    if name.is_empty() || name.split('.').any(str::is_empty) {
        return Err(Refusal::Beyond(format!("the path '{name}'")));
    }
    match value {
        Bson::Document(tests) if tests.keys().next().is_some_and(|key| key.starts_with('$')) => {
            if matches!(tests.keys().next().map(String::as_str), Some("$ref" | "$id" | "$db")) {
                return Err(Refusal::Beyond("a reference".into()));
            }
            compile_tests(name, tests)
        }
        value => Ok(Node::Field(name.to_owned(), equal_to(value)?)),
    }
}

fn compile_tests(name: &str, tests: &Document) -> Compiled<Node> {
    let mut nodes = Vec::new();
    for (operator, value) in tests {
        let field = |test| Node::Field(name.to_owned(), test);
        let compared = |comparison| Ok::<_, Refusal>(field(Test::Compare(comparison, comparable(value)?.clone())));
        let node = match operator.as_str() {
            "$eq" => compared(Comparison::Equal)?,
            "$ne" => negated(compared(Comparison::Equal)?),
            "$gt" => compared(Comparison::Greater)?,
            "$gte" => compared(Comparison::GreaterOrEqual)?,
            "$lt" => compared(Comparison::Less)?,
            "$lte" => compared(Comparison::LessOrEqual)?,
            "$in" => field(one_of(operator, value)?),
            "$nin" => negated(field(one_of(operator, value)?)),
            "$exists" => {
                let wanted = match value {
                    Bson::Boolean(wanted) => *wanted,
                    Bson::Int32(number) => *number != 0,
                    Bson::Int64(number) => *number != 0,
                    other => return Err(Refusal::Beyond(format!("'$exists' with {}", type_name(other)))),
                };
                if wanted { field(Test::Exists) } else { negated(field(Test::Exists)) }
            }
            "$regex" => {
                if tests.contains_key("$options") {
                    return Err(Refusal::Beyond("'$options'".into()));
                }
                field(Test::Begins(beginning(value)?))
            }
            "$not" => match value {
                Bson::Document(tests) if !tests.is_empty() && tests.keys().all(|key| key.starts_with('$')) => {
                    negated(compile_tests(name, tests)?)
                }
                Bson::RegularExpression(_) => negated(field(Test::Begins(beginning(value)?))),
                _ => return Err(wrong("'$not' of a filter takes a document of operators".into())),
            },
            operator if operator.starts_with('$') => return Err(Refusal::Beyond(format!("'{operator}'"))),
            other => return Err(wrong(format!("'{other}' stands beside operators in the condition on '{name}'"))),
        };
        nodes.push(node);
    }
    Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::And(nodes) })
}

fn negated(node: Node) -> Node {
    Node::Not(Box::new(node))
}

fn one_of(operator: &str, value: &Bson) -> Compiled<Test> {
    let Bson::Array(values) = value else {
        return Err(wrong(format!("'{operator}' of a filter takes a list")));
    };
    for value in values {
        if matches!(value, Bson::Document(document) if document.keys().next().is_some_and(|key| key.starts_with('$'))) {
            return Err(wrong(format!("an operator cannot stand in the list of '{operator}'")));
        }
        comparable(value)?;
    }
    Ok(Test::In(values.clone()))
}

fn equal_to(value: &Bson) -> Compiled<Test> {
    match value {
        Bson::RegularExpression(_) => Ok(Test::Begins(beginning(value)?)),
        value => Ok(Test::Compare(Comparison::Equal, comparable(value)?.clone())),
    }
}

/// Refuses what has no place in data, at any depth.
fn comparable(value: &Bson) -> Compiled<&Bson> {
    match value {
        Bson::RegularExpression(_)
        | Bson::JavaScriptCode(_)
        | Bson::JavaScriptCodeWithScope(_)
        | Bson::MinKey
        | Bson::MaxKey
        | Bson::Undefined
        | Bson::DbPointer(_) => return Err(Refusal::Beyond(type_name(value).into())),
        Bson::Array(values) => values.iter().try_for_each(|value| comparable(value).map(drop))?,
        Bson::Document(document) => document.values().try_for_each(|value| comparable(value).map(drop))?,
        _ => {}
    }
    Ok(value)
}

/// The text that a pattern says a value begins with.
fn beginning(value: &Bson) -> Compiled<String> {
    let (pattern, options) = match value {
        Bson::String(pattern) => (pattern.as_str(), ""),
        Bson::RegularExpression(regex) => (regex.pattern.as_str(), regex.options.as_str()),
        _ => return Err(wrong("'$regex' of a filter takes a text".into())),
    };
    let beyond =
        || Refusal::Beyond(format!("the pattern '{}', which is more than a beginning", pattern.escape_debug()));
    let rest = pattern.strip_prefix('^').filter(|_| options.is_empty()).ok_or_else(beyond)?;
    let mut text = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => text.push(escaped),
                _ => return Err(beyond()),
            },
            '.' | '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '\0' => return Err(beyond()),
            plain => text.push(plain),
        }
    }
    Ok(text)
}

fn wrong(message: String) -> Refusal {
    Refusal::Wrong(Error::invalid(message))
}
