//! Arguments from Python: anything may come, and what is wrong is said.

use std::time::Duration;

use coord_core::error::{Error, Result};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyString};

use crate::error::raised;

/// A hundred years: the longest time that may be said, since beyond it the clocks' own range would end.
pub(crate) const FOREVER: Duration = Duration::from_secs(3_155_760_000);

/// A number of seconds: int, float, or what converts itself to a float.
///
/// # Errors
/// `TypeError` for what is not a number, and for a bool; `InvalidArgument` for one that is no length of time.
pub(crate) fn seconds(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let not_a_number = || -> PyResult<PyErr> {
        let kind = value.get_type().name()?;
        Ok(PyTypeError::new_err(format!("{what} is a number of seconds, not {kind}")))
    };
    if value.is_instance_of::<PyBool>() {
        return Err(not_a_number()?);
    }
    match value.extract::<f64>() {
        Ok(number) => raised(value.py(), length_of_time(what, number)),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => Err(not_a_number()?),
        // An integer without a float near it.
        Err(_) => raised(value.py(), length_of_time(what, f64::INFINITY)),
    }
}

/// The same, where None means: without limit.
pub(crate) fn seconds_or_none(what: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    value.map(|value| seconds(what, value)).transpose()
}

fn length_of_time(what: &str, number: f64) -> Result<Duration> {
    if (0.0..=FOREVER.as_secs_f64()).contains(&number) {
        return Ok(Duration::from_secs_f64(number));
    }
    Err(Error::invalid(format!("{what} is a number of seconds from 0 to 100 years, not {number}")))
}

/// Two numbers of seconds: from, to.
///
/// # Errors
/// `TypeError` for what is no pair; those of [`seconds`].
pub(crate) fn range(what: &str, value: &Bound<'_, PyAny>) -> PyResult<(Duration, Duration)> {
    let Ok((from, to)) = value.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{what} is a pair of seconds, not {kind} {value}")));
    };
    Ok((seconds(what, &from)?, seconds(what, &to)?))
}

/// A text.
///
/// # Errors
/// `TypeError` for what is not a str; `InvalidArgument` for lone surrogates, which are no text.
pub(crate) fn text(what: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(string) = value.cast::<PyString>() else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{what} is a str, not {kind}")));
    };
    let text = string.to_cow().map(|text| text.into_owned());
    raised(value.py(), text.map_err(|_| Error::invalid(format!("{what} has a lone surrogate, so it is not UTF-8"))))
}

/// A number of 32 bits.
///
/// # Errors
/// `TypeError` for what is not an int, and for a bool; `InvalidArgument` for a longer one.
pub(crate) fn small(what: &str, value: &Bound<'_, PyAny>) -> PyResult<i32> {
    let Some(number) = integer(value) else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{what} is an int, not {kind}")));
    };
    raised(value.py(), number.extract().map_err(|_| Error::invalid(format!("{what} is out of range"))))
}

/// An int, and no bool.
fn integer<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyInt>> {
    value.cast::<PyInt>().ok().filter(|value| !value.is_instance_of::<PyBool>())
}

/// A number that is not negative: a count, a revision, a position.
///
/// # Errors
/// `TypeError` for what is not an int, and for a bool; `InvalidArgument` for a negative one, or of more than 64 bits.
pub(crate) fn unsigned(what: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let Some(number) = integer(value) else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{what} is an int, not {kind}")));
    };
    raised(
        value.py(),
        number.extract().map_err(|_| Error::invalid(format!("{what} is an int of 0 or more, of 64 bits"))),
    )
}

/// A fencing token.
///
/// # Errors
/// `TypeError` for what is not an int, and for a bool; `InvalidArgument` for one that was never issued.
pub(crate) fn token(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    let Some(number) = integer(value) else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("a token is an int, not {kind}")));
    };
    let token = number.extract::<i64>().map_err(|_| Error::invalid("a token has at most 64 bits"));
    raised(value.py(), token)
}

/// A whole number from zero, of 32 bits.
///
/// # Errors
/// `TypeError` for what is not an int, and for a bool; `InvalidArgument` for a negative or longer one.
pub(crate) fn count(what: &str, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    let narrow = |number| u32::try_from(number).map_err(|_| Error::invalid(format!("{what} has at most 32 bits")));
    raised(value.py(), narrow(unsigned(what, value)?))
}

/// A number.
///
/// # Errors
/// `TypeError` for what is none, and for a bool; `InvalidArgument` for an int without a float near it.
pub(crate) fn number(what: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let kind = value.get_type().name()?;
    let none = || PyTypeError::new_err(format!("{what} is a number, not {kind}"));
    if value.is_instance_of::<PyBool>() {
        return Err(none());
    }
    match value.extract::<f64>() {
        Ok(number) => Ok(number),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => Err(none()),
        Err(_) => raised(value.py(), Err(Error::invalid(format!("{what} is too large")))),
    }
}
