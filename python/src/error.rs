//! Errors of the core as exceptions, whose classes are Python's (`coord._errors`): they have two bases each.

use coord_core::error::{Code, Error, Result};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::answer::make_holder;
use crate::interpreter::Inside;

/// The value, or the exception for the error.
pub(crate) fn raised<T>(py: Python<'_>, result: Result<T>) -> PyResult<T> {
    result.map_err(|error| exception(py, &error))
}

/// The exception for this error.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    match make(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

fn make<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let holder = error.holder().map(|holder| make_holder(py, holder)).transpose()?;
    let reason = error.loss().map(|reason| reason as i32);
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let arguments = (error.code().number(), error.message(), holder, reason, cause);
    let _inside = Inside::enter(py);
    static FROM_CORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Kept, since an interpreter that is ending imports nothing any more.
    FROM_CORE.import(py, "coord._errors", "_from_core")?.call1(arguments)
}

/// Every code of the core: its number, its name, and whether a retry can help.
#[pyfunction]
pub(crate) fn codes() -> Vec<(i32, &'static str, bool)> {
    Code::ALL.iter().map(|code| (code.number(), code.name(), code.retryable())).collect()
}
