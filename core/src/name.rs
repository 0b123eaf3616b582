//! Names of what is coordinated: `namespace/scope/name`.
//!
//! Invariant: a [`Name`] is valid, so everything behind the public calls trusts it. A text with one or two parts
//! gets the client's namespace and scope in front.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest name in bytes, slashes included. As long as a DNS name, so that host names fit.
pub const MAX_NAME: usize = 253;

/// A validated `namespace/scope/name`.
///
/// Each part begins with a letter or a digit, and goes on with letters, digits and `. _ - : @ + =`; all ASCII,
/// case-sensitive. Together 1 to 253 bytes. So a name means the same in a file name, a URL, a log line and every
/// store. [`sanitize`] makes such a part from any text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Parses `name`, `scope/name` or `namespace/scope/name`; `namespace` and `scope` fill in what is missing.
    ///
    /// # Errors
    /// `InvalidArgument` that says which part breaks which rule.
    pub fn parse(text: &str, namespace: &str, scope: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("a name must not be empty"));
        }
        if text.len() > MAX_NAME {
            return Err(Error::invalid(format!("a name has at most {MAX_NAME} bytes; this one has {}", text.len())));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, scope, name) = match parts[..] {
            [name] => (namespace, scope, name),
            [scope, name] => (namespace, scope, name),
            [namespace, scope, name] => (namespace, scope, name),
            _ => {
                return Err(Error::invalid(format!(
                    "a name has at most three parts, 'namespace/scope/name'; '{}' has {}",
                    printable(text),
                    parts.len()
                )));
            }
        };
        for part in [namespace, scope, name] {
            check_part(part)?;
        }
        let full = format!("{namespace}/{scope}/{name}");
        if full.len() > MAX_NAME {
            return Err(Error::invalid(format!(
                "a name has at most {MAX_NAME} bytes together with its namespace and scope; this one has {}",
                full.len()
            )));
        }
        Ok(Self(full.into()))
    }

    /// What the full names begin with of those that begin with `text`: the beginning of `name`, `scope/name` or
    /// `namespace/scope/name`; empty for all of the namespace.
    ///
    /// # Errors
    /// `InvalidArgument` if no name begins so.
    pub fn prefix(text: &str, namespace: &str, scope: &str) -> Result<String> {
        if text.is_empty() {
            return Ok(format!("{namespace}/"));
        }
        // What may be a name with one more letter behind it begins one.
        let whole = if text.ends_with('/') { format!("{text}x") } else { text.to_owned() };
        let mut full = Self::parse(&whole, namespace, scope)?.as_str().to_owned();
        full.truncate(full.len() - (whole.len() - text.len()));
        Ok(full)
    }

    /// The whole name, `namespace/scope/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn short(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Checks one part of a name.
///
/// # Errors
/// `InvalidArgument` that says which rule it breaks.
pub fn check_part(part: &str) -> Result<()> {
    let Some(first) = part.chars().next() else {
        return Err(Error::invalid("a part of a name must not be empty"));
    };
    if let Some(bad) = part.chars().find(|c| !part_char(*c)) {
        return Err(Error::invalid(format!(
            "a name has only ASCII letters, digits and . _ - : @ + =, but '{}' has {:?}; coord's sanitize makes a name \
             of any text",
            printable(part),
            bad
        )));
    }
    if !first.is_ascii_alphanumeric() {
        return Err(Error::invalid(format!(
            "each part of a name begins with a letter or a digit, but '{}' does not",
            printable(part)
        )));
    }
    Ok(())
}

/// Makes a valid part of a name from any text, of at most 83 bytes: three of them are a name.
///
/// A text that is valid and not longer stays as it is. Any other has its bad characters replaced by `-` and a hash of the
/// original appended, so that different texts stay different (but for a chance of 2⁻⁶⁴).
pub fn sanitize(text: &str) -> String {
    // With a first letter and the hash as long as what is left alone, so that what is sanitized stays as it is.
    const KEPT: usize = MAX_PART - 18;
    if !text.is_empty() && text.len() <= MAX_PART && check_part(text).is_ok() {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(KEPT).map(|c| if part_char(c) { c } else { '-' }).collect();
    if !out.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        out.insert(0, 'x');
    }
    out.push_str(&format!("-{:016x}", fnv1a(text.as_bytes())));
    out
}

/// Longest part that `sanitize` leaves alone: three of them and two slashes fit into a name.
const MAX_PART: usize = 83;

fn part_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '@' | '+' | '=')
}

/// 64-bit FNV-1a, as published by Fowler, Noll and Vo: stable across releases, which std's hasher is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A short form of a text that is safe in a message: control characters escaped, long ones cut.
fn printable(text: &str) -> String {
    let mut out: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Name> {
        Name::parse(text, "ns", "sc")
    }

    #[test]
    fn missing_parts_come_from_the_client() {
        assert_eq!(parse("a").unwrap().as_str(), "ns/sc/a");
        assert_eq!(parse("b/a").unwrap().as_str(), "ns/b/a");
        assert_eq!(parse("c/b/a").unwrap().as_str(), "c/b/a");
    }

    #[test]
    fn prefixes_are_resolved_as_names_are() {
        for (text, full) in
            [("", "ns/"), ("a", "ns/sc/a"), ("b/", "ns/b/"), ("b/a", "ns/b/a"), ("c/b/", "c/b/"), ("c/b/a", "c/b/a")]
        {
            assert_eq!(Name::prefix(text, "ns", "sc").unwrap(), full);
        }
        for bad in ["/", "a b", "*", "a//", "a/b/c/", "-"] {
            Name::prefix(bad, "ns", "sc").unwrap_err();
        }
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        for (text, needle) in [
            ("", "empty"),
            ("a//b", "empty"),
            ("a/b/c/d", "at most three parts"),
            ("-a", "begins with"),
            ("a b", "' '"),
            ("a\0b", "'\\0'"),
            ("smile☺", "'☺'"),
            ("$a", "'$'"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(needle), "{text:?}: {error}");
        }
        assert!(parse(&"a".repeat(10_000)).unwrap_err().message().contains("253"));
        assert!(parse(&"a".repeat(250)).unwrap_err().message().contains("together"));
    }

    proptest::proptest! {
        #[test]
        fn sanitize_makes_valid_parts_of_anything(text in ".{0,300}") {
            let part = sanitize(&text);
            proptest::prop_assert!(check_part(&part).is_ok());
            let whole = format!("{part}/{part}/{part}");
            proptest::prop_assert!(Name::parse(&whole, "a", "b").is_ok());
            proptest::prop_assert_eq!(sanitize(&part), part);
        }

        #[test]
        fn parse_never_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
