//! Values of BSON as Python's. What has no counterpart there is made by `coord._document`.

use coord_core::bson::spec::BinarySubtype;
use coord_core::bson::{Bson, Document, doc};
use coord_core::table::{Key, Stored};
use pyo3::IntoPyObjectExt;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::interpreter::Inside;

/// A document as a dict.
pub(crate) fn document<'py>(py: Python<'py>, document: &Document) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in document {
        dict.set_item(name, lift(py, value)?)?;
    }
    Ok(dict)
}

/// A key. How many bits an integer had is no part of it.
pub(crate) fn key<'py>(py: Python<'py>, key: &Key) -> PyResult<Bound<'py, PyAny>> {
    fn plain<'py>(py: Python<'py>, value: &Bson) -> PyResult<Bound<'py, PyAny>> {
        match value {
            Bson::Int64(number) => number.into_bound_py_any(py),
            Bson::Document(fields) => {
                let dict = PyDict::new(py);
                for (name, value) in fields {
                    dict.set_item(name, plain(py, value)?)?;
                }
                Ok(dict.into_any())
            }
            other => lift(py, other),
        }
    }
    plain(py, key.value())
}

/// What was read: the key, the document and the revision.
pub(crate) fn stored<'py>(py: Python<'py>, stored: &Stored) -> PyResult<Bound<'py, PyAny>> {
    let revision = stored.revision.map(|revision| revision.0);
    (key(py, &stored.key)?, document(py, &stored.document)?, revision).into_bound_py_any(py)
}

/// Several of these.
pub(crate) fn stored_list<'py>(py: Python<'py>, found: &[Stored]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for one in found {
        list.append(stored(py, one)?)?;
    }
    Ok(list)
}

fn lift<'py>(py: Python<'py>, value: &Bson) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Bson::String(text) => text.into_bound_py_any(py),
        Bson::Int32(number) => number.into_bound_py_any(py),
        // Written again it would take 32 bits, if nothing told that it had 64.
        Bson::Int64(number) if i32::try_from(*number).is_ok() => special(py, "int64", (*number,)),
        Bson::Int64(number) => number.into_bound_py_any(py),
        Bson::Double(number) => number.into_bound_py_any(py),
        Bson::Boolean(truth) => truth.into_bound_py_any(py),
        Bson::Null => Ok(py.None().into_bound(py)),
        Bson::Document(fields) => document(py, fields).map(Bound::into_any),
        Bson::Array(elements) => {
            let list = PyList::empty(py);
            for element in elements {
                list.append(lift(py, element)?)?;
            }
            Ok(list.into_any())
        }
        Bson::DateTime(date) => special(py, "date", (date.timestamp_millis(),)),
        Bson::ObjectId(id) => special(py, "object_id", (PyBytes::new(py, &id.bytes()),)),
        Bson::Binary(binary) if binary.subtype == BinarySubtype::Generic => {
            PyBytes::new(py, &binary.bytes).into_bound_py_any(py)
        }
        Bson::Binary(binary) => special(py, "binary", (PyBytes::new(py, &binary.bytes), u8::from(binary.subtype))),
        Bson::Decimal128(decimal) => special(py, "decimal128", (PyBytes::new(py, &decimal.bytes()),)),
        Bson::Timestamp(timestamp) => special(py, "timestamp", (timestamp.time, timestamp.increment)),
        Bson::RegularExpression(regex) => special(py, "regex", (regex.pattern.as_str(), regex.options.as_str())),
        Bson::JavaScriptCode(code) => special(py, "code", (code,)),
        Bson::JavaScriptCodeWithScope(code) => special(py, "code", (&code.code, document(py, &code.scope)?)),
        Bson::Symbol(text) => special(py, "symbol", (text,)),
        Bson::Undefined => special(py, "undefined", ()),
        Bson::MinKey => special(py, "min_key", ()),
        Bson::MaxKey => special(py, "max_key", ()),
        Bson::DbPointer(_) => {
            let (namespace, id) = pointer(value).unwrap_or_default();
            special(py, "db_pointer", (namespace, PyBytes::new(py, &id)))
        }
    }
}

/// The parts of a pointer, whose type shows them to nobody: the end of its bytes in a document.
fn pointer(value: &Bson) -> Option<(String, Vec<u8>)> {
    let bytes = doc! { "": value }.to_vec().ok()?;
    // The document's length, the type, an empty name, the text's length; at last two zero bytes around the id.
    let text = bytes.get(10..bytes.len().checked_sub(14)?)?;
    let id = bytes.get(bytes.len() - 13..bytes.len() - 1)?;
    Some((String::from_utf8(text.to_vec()).ok()?, id.to_vec()))
}

/// What `coord._document` makes of this kind of value.
fn special<'py>(py: Python<'py>, kind: &str, parts: impl PyCallArgs<'py>) -> PyResult<Bound<'py, PyAny>> {
    static LIFTED: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let _inside = Inside::enter(py);
    let lifted = LIFTED.import(py, "coord._document", "LIFTED")?;
    let make = lifted.get_item(kind)?.ok_or_else(|| pyo3::exceptions::PyKeyError::new_err(kind.to_owned()))?;
    make.call1(parts)
}
