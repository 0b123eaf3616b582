//! How to connect: a URL and options.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use coord_core::config::Options;
use coord_core::error::{Code, Error, Result};
use coord_core::name;

use crate::boundary::{fallible, quiet};
use crate::bytes::{Out, Room, Text};
use crate::error::{coord_error_t, coord_status_t};
use crate::handle::{self, object};
use crate::version::COORD_ABI_VERSION;

/// How to connect. Used by one thread at a time; `coord_client_connect` copies it.
pub struct coord_config_t;

pub(crate) struct ConfigObject(Mutex<Options>);

object!(ConfigObject, coord_config_t, 2, "config");

impl ConfigObject {
    pub(crate) fn options(&self) -> Options {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes a configuration from a URL such as "sqlite:///t.db". With a NULL URL, from the variable COORD_URL, or else
/// for the default file in the user's state directory.
///
/// `abi_version` is always COORD_ABI_VERSION: it tells the library which header the caller was built with, and a
/// caller of another interface gets COORD_E_ABI_MISMATCH.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the caller owns `*out`, and ends it with coord_config_destroy
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_config_new(
    abi_version: u32,
    url: *const c_char,
    url_len: usize,
    out: *mut *mut coord_config_t,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (url, out, err) = unsafe { (Text::lent(url, url_len), Out::lent(out), Out::lent(err)) };
    fallible(err, || {
        check_abi(abi_version)?;
        let out = out.required("out")?;
        let options = if url.is_null() { Options::from_environment()? } else { Options::parse(&url.read("url")?)? };
        out.put(handle::issue(ConfigObject(Mutex::new(options))));
        Ok(())
    })
}

fn check_abi(theirs: u32) -> Result<()> {
    let (major, minor) = (COORD_ABI_VERSION >> 16, COORD_ABI_VERSION & 0xffff);
    if theirs >> 16 == major && theirs & 0xffff <= minor {
        return Ok(());
    }
    let (their_major, their_minor) = (theirs >> 16, theirs & 0xffff);
    Err(Error::new(
        Code::AbiMismatch,
        format!(
            "the program was built for version {their_major}.{their_minor} of this library's interface, and the library \
             speaks {major}.0 to {major}.{minor}: install the library that belongs to the program's header"
        ),
    ))
}

/// Sets one option by its name, as in the URL but without the prefix "coord.": "ttl" to "30s", "name" to "billing".
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_config_set(
    config: *mut coord_config_t,
    key: *const c_char,
    key_len: usize,
    value: *const c_char,
    value_len: usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (key, value, err) = unsafe { (Text::lent(key, key_len), Text::lent(value, value_len), Out::lent(err)) };
    fallible(err, || {
        let config = handle::get::<ConfigObject>(config)?;
        let (key, value) = (key.read("key")?, value.read("value")?);
        config.0.lock().unwrap_or_else(PoisonError::into_inner).set(&key, &value)
    })
}

/// Destroys a configuration. Clients made from it are not affected. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `config`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_config_destroy(config: *mut coord_config_t) {
    quiet(|| handle::take::<ConfigObject>(config).map(drop));
}

/// The room that every name fits into, with the zero at its end.
pub const COORD_NAME_SIZE: usize = 254;

/// Makes a valid part of a name from any text. Different texts stay different, and a valid text stays as it is.
/// Writes it to `buffer` with a zero at its end; `size` is the room there, at best COORD_NAME_SIZE.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_name_sanitize(
    text: *const c_char,
    text_len: usize,
    buffer: *mut c_char,
    size: usize,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (text, buffer, err) = unsafe { (Text::lent(text, text_len), Room::lent(buffer, size), Out::lent(err)) };
    fallible(err, || {
        let part = name::sanitize(&text.read("text")?);
        if buffer.is_null() || buffer.length() <= part.len() {
            return Err(Error::invalid(format!(
                "buffer needs {} bytes, and has {}; COORD_NAME_SIZE is always enough",
                part.len() + 1,
                if buffer.is_null() { 0 } else { buffer.length() }
            )));
        }
        buffer.fill(part.bytes().chain([0]).map(|byte| byte as c_char));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_library_speaks_is_accepted() {
        assert!(check_abi(COORD_ABI_VERSION).is_ok());
        for other in [0, COORD_ABI_VERSION + 1, COORD_ABI_VERSION + (1 << 16), 1, u32::MAX] {
            let error = check_abi(other).unwrap_err();
            assert_eq!(error.code(), Code::AbiMismatch, "{other:#x}");
        }
    }

    #[test]
    fn the_name_size_is_that_of_the_longest_name() {
        assert_eq!(COORD_NAME_SIZE, name::MAX_NAME + 1);
        assert!(name::sanitize(&"é".repeat(10_000)).len() < COORD_NAME_SIZE);
    }
}
