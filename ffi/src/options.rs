//! Options of calls: names with values, which the call that gets them checks.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coord_core::bson::Document;
use coord_core::error::{Error, Result};

use crate::boundary::{fallible, quiet};
use crate::bytes::{Bytes, Out, Text};
use crate::error::{coord_error_t, coord_status_t};
use crate::format::Format;
use crate::handle::{self, object};

/// Options of a call, by name. Each call that takes some says which; NULL stands for none. Used by one thread at a
/// time; the call copies them.
pub struct coord_options_t;

pub(crate) struct OptionsObject(Mutex<BTreeMap<String, Value>>);

object!(OptionsObject, coord_options_t, 60, "options");

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    Document(Vec<u8>),
}

/// Makes options, none of which is set.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_options_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_options_new(
    out: *mut *mut coord_options_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (out, err) = unsafe { (Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        out.required("out")?.put(handle::issue(OptionsObject(Mutex::default())));
        Ok(())
    })
}

/// Sets an option that is a text. Whether there is one of this name is checked by the call that gets the options.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_options_set_text(
    options: *mut coord_options_t,
    name: *const c_char,
    name_len: usize,
    value: *const c_char,
    value_len: usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, value, err) = unsafe { (Text::lent(name, name_len), Text::lent(value, value_len), Out::lent(err)) };
    fallible(err, || set(options, name, |_| Ok(Value::Text(value.read("value")?))))
}

/// Sets an option that is a number, or a switch: 1 for on, 0 for off. Whether there is one of this name is checked by
/// the call that gets the options.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_options_set_number(
    options: *mut coord_options_t,
    name: *const c_char,
    name_len: usize,
    value: i64,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, err) = unsafe { (Text::lent(name, name_len), Out::lent(err)) };
    fallible(err, || set(options, name, |_| Ok(Value::Number(value))))
}

/// Sets an option that is a document, in the format of the table that the call is about. Whether there is one of this
/// name, and whether it is a document, is checked by the call that gets the options.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_options_set_document(
    options: *mut coord_options_t,
    name: *const c_char,
    name_len: usize,
    value: *const c_void,
    value_len: usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (name, value, err) = unsafe { (Text::lent(name, name_len), Bytes::lent(value, value_len), Out::lent(err)) };
    fallible(err, || set(options, name, |_| value.read("value", |bytes| Ok(Value::Document(bytes.to_vec())))))
}

fn set(options: *mut coord_options_t, name: Text, value: impl FnOnce(&str) -> Result<Value>) -> Result<()> {
    let options = handle::get::<OptionsObject>(options)?;
    let name = name.read("name")?;
    let value = value(&name)?;
    options.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, value);
    Ok(())
}

/// Destroys options. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `options`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_options_destroy(options: *mut coord_options_t) {
    quiet(|| handle::take::<OptionsObject>(options).map(drop));
}

/// The options of one call, taken out one by one; what is left at the end was not one of them.
pub(crate) struct Given {
    values: BTreeMap<String, Value>,
    known: Vec<&'static str>,
}

impl Given {
    /// Those behind a handle; none for NULL.
    pub(crate) fn read(options: *mut coord_options_t) -> Result<Self> {
        let options = handle::get_nullable::<OptionsObject>(options)?;
        let values = options.map(|options| options.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Ok(Self { values: values.unwrap_or_default(), known: Vec::new() })
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Error::invalid(format!("the option '{name}' is a text; use coord_options_set_text"))),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<i64>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => Err(Error::invalid(format!("the option '{name}' is a number; use coord_options_set_number"))),
        }
    }

    /// A number of an unsigned or smaller type.
    pub(crate) fn number_as<T: TryFrom<i64>>(&mut self, name: &'static str) -> Result<Option<T>> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        let fits =
            T::try_from(number).map_err(|_| Error::invalid(format!("the option '{name}' cannot be {number}")))?;
        Ok(Some(fits))
    }

    /// A number that may have a fraction: given as a number, or as a text.
    pub(crate) fn decimal(&mut self, name: &'static str) -> Result<Option<f64>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number as f64)),
            Some(Value::Text(text)) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Error::invalid(format!("the option '{name}' is a number, not '{text}'"))),
            },
            Some(Value::Document(_)) => Err(Error::invalid(format!("the option '{name}' is a number"))),
        }
    }

    pub(crate) fn switch(&mut self, name: &'static str) -> Result<Option<bool>> {
        match self.number(name)? {
            None => Ok(None),
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            Some(other) => Err(Error::invalid(format!("the option '{name}' is 1 or 0, not {other}"))),
        }
    }

    /// A document, in this format.
    pub(crate) fn document(&mut self, name: &'static str, format: Format) -> Result<Option<Document>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Document(bytes)) => format.parse(&bytes, &format!("the option '{name}'")).map(Some),
            Some(_) => {
                Err(Error::invalid(format!("the option '{name}' is a document; use coord_options_set_document")))
            }
        }
    }

    /// A time in milliseconds.
    pub(crate) fn milliseconds(&mut self, name: &'static str) -> Result<Option<Duration>> {
        Ok(self.number_as::<u64>(name)?.map(Duration::from_millis))
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// `InvalidArgument` that names the options there are.
    pub(crate) fn finish(self) -> Result<()> {
        let Some(unknown) = self.values.keys().next() else { return Ok(()) };
        let known = self.known.join(", ");
        Err(Error::invalid(format!("this call has no option '{unknown}'; it has: {known}")))
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use coord_core::error::Code;

    use super::*;

    fn given(values: &[(&str, Value)]) -> Given {
        Given {
            values: values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            known: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_asked_for_is_refused() {
        let mut options = given(&[("a", Value::Number(1)), ("b", Value::Text("x".into()))]);
        assert_eq!(options.switch("a").unwrap(), Some(true));
        assert_eq!(options.number("c").unwrap(), None);
        let error = options.finish().unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("no option 'b'; it has: a, c"), "{error}");
        given(&[]).finish().unwrap();
    }

    #[test]
    fn types_and_ranges_are_checked() {
        let number = |n| given(&[("n", Value::Number(n))]);
        let text = || given(&[("n", Value::Text("1".into()))]);
        assert_eq!(number(5).number_as::<u8>("n").unwrap(), Some(5));
        assert_eq!(number(1500).milliseconds("n").unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(text().text("n").unwrap().as_deref(), Some("1"));
        assert_eq!(number(5).decimal("n").unwrap(), Some(5.0));
        assert_eq!(given(&[("n", Value::Text("0.25".into()))]).decimal("n").unwrap(), Some(0.25));
        for error in [
            given(&[("n", Value::Text("1/2".into()))]).decimal("n").unwrap_err(),
            number(256).number_as::<u8>("n").unwrap_err(),
            number(-1).milliseconds("n").unwrap_err(),
            number(2).switch("n").unwrap_err(),
            number(2).text("n").unwrap_err(),
            text().number("n").unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    }
}
