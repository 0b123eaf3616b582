//! Values of Python as BSON, exactly, or with an error that names the place.
//!
//! What Python has built in is converted here. For anything else `coord._document.lower` says what it stands for: types
//! of BSON without a counterpart in Python, dates, dataclasses and models.

use std::fmt;

use coord_core::bson::spec::BinarySubtype;
use coord_core::bson::{self, Binary, Bson, Document};
use coord_core::error::Error;
use coord_core::table::{Filter, Given, Key, MAX_DOCUMENT, Update};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::args;
use crate::error::exception;
use crate::interpreter::Inside;

/// How deeply values may lie in one another, as in the core: what contains itself ends there.
const MAX_DEPTH: usize = 100;

/// A document, called `what` in errors.
///
/// # Errors
/// `InvalidArgument` for what is no document, or holds what none can; the message names the place.
pub(crate) fn document(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Document> {
    match Lowering::of(what).lower(value, Place::Top, 0)? {
        Bson::Document(document) => Ok(document),
        _ => Err(no_document(what, value)?),
    }
}

/// A list of documents.
///
/// # Errors
/// As [`document`], and for what is no list.
pub(crate) fn documents(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<Document>> {
    let values = value.extract::<Vec<Bound<'_, PyAny>>>();
    let Ok(values) = values else {
        let kind = value.get_type().fully_qualified_name()?;
        return Err(refused(value.py(), format!("{what} is a list of documents, not {kind}")));
    };
    values.iter().enumerate().map(|(index, value)| document(&format!("{what}[{index}]"), value)).collect()
}

/// The key of a document.
///
/// # Errors
/// `InvalidArgument` for what can be none.
pub(crate) fn key(value: &Bound<'_, PyAny>) -> PyResult<Key> {
    let lowered = Lowering::of("the key").lower(value, Place::Top, 0)?;
    Key::new(lowered).map_err(|error| exception(value.py(), &error))
}

/// A filter; none is everything.
///
/// # Errors
/// `InvalidArgument` for what is no document, or no filter.
pub(crate) fn filter(value: Option<&Bound<'_, PyAny>>) -> PyResult<Filter> {
    let Some(value) = value else { return Ok(Filter::default()) };
    Filter::parse(document("the filter", value)?).map_err(|error| exception(value.py(), &error))
}

/// An update: a document, or a pipeline.
///
/// # Errors
/// `InvalidArgument` for what is neither, or no update.
pub(crate) fn update(value: &Bound<'_, PyAny>) -> PyResult<Update> {
    let update = if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        documents("the update", value)?.given()
    } else {
        document("the update", value)?.given()
    };
    update.map_err(|error: Error| exception(value.py(), &error))
}

fn no_document(what: &str, value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let kind = value.get_type().fully_qualified_name()?;
    Ok(refused(value.py(), format!("{what} is a document, as a dict, not {kind}")))
}

fn refused(py: Python<'_>, message: String) -> PyErr {
    exception(py, &Error::invalid(message))
}

/// The conversion of one value.
struct Lowering<'a> {
    what: &'a str,
    /// How many bytes it may still take: it is not to fill the memory before it is refused.
    left: usize,
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Place<'a> {
    Top,
    Field(&'a Self, &'a str),
    Element(&'a Self, usize),
}

impl<'a> Lowering<'a> {
    fn of(what: &'a str) -> Self {
        Self { what, left: MAX_DOCUMENT }
    }

    fn lower(&mut self, value: &Bound<'_, PyAny>, place: Place<'_>, depth: usize) -> PyResult<Bson> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            return self.text(text, place).map(Bson::String);
        }
        if value.is_none() {
            return Ok(Bson::Null);
        }
        if let Ok(truth) = value.cast_exact::<PyBool>() {
            return Ok(Bson::Boolean(truth.is_true()));
        }
        if let Ok(number) = value.cast_exact::<PyInt>() {
            return self.integer(number, place);
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            return Ok(Bson::Double(number.value()));
        }
        if let Ok(fields) = value.cast_exact::<PyDict>() {
            return self.fields(fields, place, depth + 1).map(Bson::Document);
        }
        if let Ok(elements) = value.cast_exact::<PyList>() {
            return self.elements(elements.iter(), place, depth + 1);
        }
        if let Ok(elements) = value.cast_exact::<PyTuple>() {
            return self.elements(elements.iter(), place, depth + 1);
        }
        if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            return self.binary(bytes.as_bytes(), BinarySubtype::Generic, place, value.py());
        }
        self.special(value, place, depth)
    }

    fn fields(&mut self, fields: &Bound<'_, PyDict>, place: Place<'_>, depth: usize) -> PyResult<Document> {
        let py = fields.py();
        self.check_depth(py, place, depth)?;
        let mut document = Document::new();
        // A copy: values may run code of their own that changes the dict.
        for field in &fields.items() {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = field.extract()?;
            let Ok(name) = name.cast::<PyString>() else {
                let kind = name.get_type().fully_qualified_name()?;
                return Err(self.refused(py, place, format!("the name of a field is a str, not {kind}")));
            };
            let name = self.text(name, place)?;
            if name.contains('\0') {
                return Err(self.refused(py, place, format!("the name of a field has no zero byte, but {name:?} has")));
            }
            let value = self.lower(&value, Place::Field(&place, &name), depth)?;
            document.insert(name, value);
        }
        Ok(document)
    }

    fn elements<'py>(
        &mut self,
        elements: impl Iterator<Item = Bound<'py, PyAny>>,
        place: Place<'_>,
        depth: usize,
    ) -> PyResult<Bson> {
        let mut array = Vec::new();
        for (index, element) in elements.enumerate() {
            let place = Place::Element(&place, index);
            self.check_depth(element.py(), place, depth)?;
            // Its type, and its place as a name of one digit or more.
            self.spend(element.py(), place, 3)?;
            array.push(self.lower(&element, place, depth)?);
        }
        Ok(Bson::Array(array))
    }

    /// What is not built in.
    fn special(&mut self, value: &Bound<'_, PyAny>, place: Place<'_>, depth: usize) -> PyResult<Bson> {
        static LOWER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = value.py();
        // It may give another one of these.
        self.check_depth(py, place, depth)?;
        let inside = Inside::enter(py);
        let lowered = LOWER.import(py, "coord._document", "lower")?.call1((value,))?;
        drop(inside);
        let (kind, value): (String, Bound<'_, PyAny>) = lowered.extract()?;
        match kind.as_str() {
            "plain" => self.lower(&value, place, depth + 1),
            "int64" => self.integer(value.cast::<PyInt>()?, place).map(|number| match number {
                Bson::Int32(number) => Bson::Int64(number.into()),
                other => other,
            }),
            "date" => Ok(Bson::DateTime(bson::DateTime::from_millis(value.extract()?))),
            "object_id" => Ok(Bson::ObjectId(bson::oid::ObjectId::from_bytes(value.extract()?))),
            "decimal128" => Ok(Bson::Decimal128(bson::Decimal128::from_bytes(value.extract()?))),
            "binary" => {
                let (bytes, subtype): (Bound<'_, PyBytes>, u8) = value.extract()?;
                self.binary(bytes.as_bytes(), subtype.into(), place, py)
            }
            "timestamp" => {
                let (time, increment) = value.extract()?;
                Ok(Bson::Timestamp(bson::Timestamp { time, increment }))
            }
            "regex" => {
                let (pattern, options): (Bound<'_, PyString>, String) = value.extract()?;
                let pattern = self.text(&pattern, place)?;
                match (pattern.try_into(), options.try_into()) {
                    (Ok(pattern), Ok(options)) => Ok(Bson::RegularExpression(bson::Regex { pattern, options })),
                    _ => Err(self.refused(py, place, "a pattern has no zero byte".into())),
                }
            }
            "code" => self.text(value.cast::<PyString>()?, place).map(Bson::JavaScriptCode),
            "code_with_scope" => {
                let (code, scope): (Bound<'_, PyString>, Bound<'_, PyDict>) = value.extract()?;
                let (code, scope) = (self.text(&code, place)?, self.fields(&scope, place, depth + 1)?);
                Ok(Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code, scope }))
            }
            "symbol" => self.text(value.cast::<PyString>()?, place).map(Bson::Symbol),
            "undefined" => Ok(Bson::Undefined),
            "db_pointer" => {
                let (namespace, id): (Bound<'_, PyString>, [u8; 12]) = value.extract()?;
                let pointer = pointer(&self.text(&namespace, place)?, &id);
                pointer.ok_or_else(|| self.refused(py, place, "it is no pointer".into()))
            }
            "min_key" => Ok(Bson::MinKey),
            "max_key" => Ok(Bson::MaxKey),
            // "refused", with the reason.
            _ => Err(self.refused(py, place, value.extract()?)),
        }
    }

    fn text(&mut self, text: &Bound<'_, PyString>, place: Place<'_>) -> PyResult<String> {
        let py = text.py();
        let Ok(text) = text.to_cow() else {
            return Err(self.refused(py, place, "a text with a lone surrogate is not UTF-8".into()));
        };
        self.spend(py, place, text.len())?;
        Ok(text.into_owned())
    }

    /// 32 bits where that is enough, as other programs write it.
    fn integer(&self, number: &Bound<'_, PyInt>, place: Place<'_>) -> PyResult<Bson> {
        let Ok(number) = number.extract::<i64>() else {
            return Err(self.refused(number.py(), place, "an int has at most 64 bits".into()));
        };
        Ok(i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32))
    }

    fn binary(&mut self, bytes: &[u8], subtype: BinarySubtype, place: Place<'_>, py: Python<'_>) -> PyResult<Bson> {
        self.spend(py, place, bytes.len())?;
        Ok(Bson::Binary(Binary { subtype, bytes: bytes.to_vec() }))
    }

    fn spend(&mut self, py: Python<'_>, place: Place<'_>, bytes: usize) -> PyResult<()> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| self.refused(py, place, format!("more than {MAX_DOCUMENT} bytes")))?;
        Ok(())
    }

    fn check_depth(&self, py: Python<'_>, place: Place<'_>, depth: usize) -> PyResult<()> {
        if depth > MAX_DEPTH {
            return Err(self.refused(py, place, format!("values lie at most {MAX_DEPTH} deep in one another")));
        }
        Ok(())
    }

    fn refused(&self, py: Python<'_>, place: Place<'_>, why: String) -> PyErr {
        let what = self.what;
        let path = place.to_string();
        refused(py, if path.is_empty() { format!("{what}: {why}") } else { format!("{what}, at '{path}': {why}") })
    }
}

/// A pointer, whose type nobody else can make: by its bytes in a document.
fn pointer(namespace: &str, id: &[u8; 12]) -> Option<Bson> {
    let text = i32::try_from(namespace.len() + 1).ok()?.to_le_bytes();
    // Its type and an empty name.
    let body = [&[0x0c, 0], &text[..], namespace.as_bytes(), &[0], id, &[0]].concat();
    let length = i32::try_from(body.len() + 4).ok()?.to_le_bytes();
    let document = Document::from_reader([&length[..], &body[..]].concat().as_slice()).ok()?;
    document.into_iter().next().map(|(_, value)| value)
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Field(Self::Top, name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Element(Self::Top, index) => write!(f, "{index}"),
            Self::Element(above, index) => write!(f, "{above}.{index}"),
        }
    }
}

/// A decimal number of this text, in BSON's form.
///
/// # Errors
/// `InvalidArgument` for what is no number, or needs more than 34 digits.
#[pyfunction]
pub(crate) fn decimal128<'py>(py: Python<'py>, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let text = args::text("a decimal number", text)?;
    let number: Result<bson::Decimal128, _> = text.parse();
    match number {
        Ok(number) => Ok(PyBytes::new(py, &number.bytes())),
        Err(_) => Err(refused(py, format!("{text:?} is no decimal number of up to 34 digits"))),
    }
}

/// The text of a decimal number in BSON's form.
#[pyfunction]
pub(crate) fn decimal128_text(bytes: [u8; 16]) -> String {
    bson::Decimal128::from_bytes(bytes).to_string()
}
