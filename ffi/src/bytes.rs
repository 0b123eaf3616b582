//! Text and results across the border: raw pointers are wrapped once, at the top of an export, and safe after that.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};

use coord_core::error::{Error, Result};
#[cfg(not(miri))]
use libc::strnlen;

/// The length of a text that ends with a zero byte; in the header by `cbindgen.toml`, which cannot translate it.
const COORD_NUL: usize = usize::MAX;

/// The longest text that is looked at. Everything that is asked for is far shorter; a longer one is a mistake such as
/// a negative length, and must not be read.
const MAX_TEXT: usize = 1 << 16;
/// The longest of those that carry documents: beyond every store's and every mail server's limit.
const MAX_LONG_TEXT: usize = 1 << 28;

/// Text that the caller lends for the length of a call.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    start: *const c_char,
    length: usize,
}

impl Text {
    /// # Safety
    /// Unless `start` is null, it points to `length` bytes, or to a text that ends with a zero byte if the length is
    /// `COORD_NUL`; for as long as the value is used.
    pub(crate) unsafe fn lent(start: *const c_char, length: usize) -> Self {
        Self { start, length }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.start.is_null()
    }

    /// A copy of the text.
    ///
    /// # Errors
    /// `InvalidArgument` if it is NULL, too long, or not UTF-8. `what` names the parameter.
    pub(crate) fn read(self, what: &str) -> Result<String> {
        self.read_within(what, MAX_TEXT)
    }

    /// The same for what may be longer, such as a message with its attachments.
    ///
    /// # Errors
    /// As [`Text::read`].
    pub(crate) fn read_long(self, what: &str) -> Result<String> {
        self.read_within(what, MAX_LONG_TEXT)
    }

    fn read_within(self, what: &str, most: usize) -> Result<String> {
        if self.start.is_null() {
            return Err(Error::invalid(format!("{what} is NULL")));
        }
        let too_long = || Error::invalid(format!("{what} has more than {most} bytes"));
        let length = match self.length {
            // SAFETY: by the contract of `lent`. At most the bytes up to the zero are looked at.
            COORD_NUL => unsafe { strnlen(self.start, most + 1) },
            length => length,
        };
        if length > most {
            return Err(too_long());
        }
        // SAFETY: by the contract of `lent`, there are that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), length) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(Error::invalid(format!("{what} is not UTF-8 (at byte {})", error.valid_up_to()))),
        }
    }
}

/// A document or a key that the caller lends for the length of a call: text, or bytes that are none.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    start: *const c_void,
    length: usize,
}

impl Bytes {
    /// # Safety
    /// As [`Text::lent`].
    pub(crate) unsafe fn lent(start: *const c_void, length: usize) -> Self {
        Self { start, length }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.start.is_null()
    }

    /// Looks at the bytes. With `COORD_NUL`, at those before the zero.
    ///
    /// # Errors
    /// `InvalidArgument` if they are NULL or too many; those of `look`. `what` names the parameter.
    pub(crate) fn read<T>(self, what: &str, look: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        if self.start.is_null() {
            return Err(Error::invalid(format!("{what} is NULL")));
        }
        let length = match self.length {
            // SAFETY: by the contract of `lent`. At most the bytes up to the zero are looked at.
            COORD_NUL => unsafe { strnlen(self.start.cast(), MAX_LONG_TEXT + 1) },
            length => length,
        };
        if length > MAX_LONG_TEXT {
            return Err(Error::invalid(format!("{what} has more than {MAX_LONG_TEXT} bytes")));
        }
        // SAFETY: by the contract of `lent`, there are that many bytes.
        look(unsafe { std::slice::from_raw_parts(self.start.cast(), length) })
    }
}

/// A number that the caller lends, or none for NULL.
///
/// # Safety
/// Unless it is null, a number can be read from `place`.
pub(crate) unsafe fn lent_number(place: *const u64) -> Option<u64> {
    // SAFETY: by the contract of this function. It need not be aligned.
    (!place.is_null()).then(|| unsafe { place.read_unaligned() })
}

/// Where the caller wants a result.
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// # Safety
    /// Unless it is null, a `T` can be written to `place` for as long as the value is used.
    pub(crate) unsafe fn lent(place: *mut T) -> Self {
        Self(place)
    }

    #[cfg(test)]
    pub(crate) fn null() -> Self {
        Self(std::ptr::null_mut())
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Checks before anything is done that the result can be delivered.
    ///
    /// # Errors
    /// `InvalidArgument` if it is NULL.
    pub(crate) fn required(self, what: &str) -> Result<Self> {
        if self.is_null() { Err(Error::invalid(format!("{what} is NULL"))) } else { Ok(self) }
    }

    /// Writes the result, unless the caller does not want it.
    pub(crate) fn put(self, value: T) {
        if !self.is_null() {
            // SAFETY: by the contract of `lent`.
            unsafe { self.0.write(value) }
        }
    }
}

/// Room for several results.
#[derive(Clone, Copy)]
pub(crate) struct Room<T> {
    start: *mut T,
    length: usize,
}

impl<T> Room<T> {
    /// # Safety
    /// Unless `start` is null, `length` values can be written there for as long as the value is used.
    pub(crate) unsafe fn lent(start: *mut T, length: usize) -> Self {
        Self { start, length }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.start.is_null()
    }

    pub(crate) fn length(self) -> usize {
        self.length
    }

    /// Writes as many values as there is room for; returns how many.
    pub(crate) fn fill(self, values: impl IntoIterator<Item = T>) -> usize {
        let mut count = 0;
        for value in values.into_iter().take(self.length) {
            // SAFETY: by the contract of `lent`, and `count` is less than the length.
            unsafe { self.start.add(count).write(value) }
            count += 1;
        }
        count
    }
}

/// Text that is lent to the caller for as long as its object lives.
pub(crate) struct Lent(CString);

impl Lent {
    /// A zero byte in it would end it early, and becomes U+FFFD.
    pub(crate) fn new(text: &str) -> Self {
        Self(CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default())
    }

    pub(crate) fn start(&self) -> *const c_char {
        self.0.as_ptr()
    }

    /// In bytes, without the zero at its end.
    pub(crate) fn length(&self) -> usize {
        self.0.as_bytes().len()
    }
}

/// A document or a key that is lent to the caller for as long as its object lives. A zero follows, which ends a text.
pub(crate) struct LentBytes(Vec<u8>);

impl LentBytes {
    pub(crate) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.push(0);
        Self(bytes)
    }

    pub(crate) fn start(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }

    /// In bytes, without the zero that follows.
    pub(crate) fn length(&self) -> usize {
        self.0.len() - 1
    }
}

/// The text that is lent where there is none.
pub(crate) fn empty() -> *const c_char {
    fixed(c"")
}

/// Text that is there for ever.
pub(crate) fn fixed(text: &'static CStr) -> *const c_char {
    text.as_ptr()
}

/// For Miri, which knows no `strnlen`.
///
/// # Safety
/// As of C's.
#[cfg(miri)]
unsafe fn strnlen(start: *const c_char, most: usize) -> usize {
    // SAFETY: the text goes on up to its end, or for as long as it is looked at.
    (0..most).find(|at| unsafe { *start.add(*at) } == 0).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(start: &[u8], length: usize) -> Result<String> {
        // SAFETY: the tests pass lengths of what they lend, or ones that are refused unread.
        unsafe { Text::lent(start.as_ptr().cast(), length) }.read("text")
    }

    #[test]
    fn text_is_checked_and_copied() {
        assert_eq!(read(b"abc", 3).unwrap(), "abc");
        assert_eq!(read(b"abc", 0).unwrap(), "");
        assert_eq!(read(b"abc\0def", COORD_NUL).unwrap(), "abc");
        for (bytes, length, message) in [
            (&b"a\xff"[..], 2, "not UTF-8 (at byte 1)"),
            (b"", usize::MAX - 1, "more than"),
            (b"", MAX_TEXT + 1, "more"),
        ] {
            let error = read(bytes, length).unwrap_err();
            assert!(error.message().contains(message), "{error}");
        }
    }

    #[test]
    fn results_stay_in_their_room() {
        let mut room = [0; 3];
        // SAFETY: the array outlives the use.
        let lent = unsafe { Room::lent(room.as_mut_ptr(), 2) };
        assert_eq!(lent.fill([7, 8, 9]), 2);
        assert_eq!(room, [7, 8, 0]);
    }

    #[test]
    fn lent_text_has_no_zero_inside() {
        let text = Lent::new("a\0b");
        assert_eq!(text.0.to_str().unwrap(), "a\u{fffd}b");
    }
}
