//! A line between conductor and agent: words between single spaces. A word with `=` is a named value, any other is
//! positional; `%XX` stands for a byte in both. Trivial to take apart in C.

use std::collections::BTreeMap;
use std::fmt;

/// A line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The words without a name, in order: the verb, or `ok`, `error` and a code, `fail`.
    pub positional: Vec<String>,
    /// The named values.
    pub named: BTreeMap<String, String>,
}

impl Words {
    /// A line of these positional words.
    pub fn new<'a>(positional: impl IntoIterator<Item = &'a str>) -> Self {
        Self { positional: positional.into_iter().map(str::to_owned).collect(), named: BTreeMap::new() }
    }

    /// The same with one more named value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.named.insert(name.to_owned(), value.to_string());
        self
    }

    /// Takes a line apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut words = Self::default();
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None => words.positional.push(decode(word)?),
                Some((name, value)) => {
                    if words.named.insert(decode(name)?, decode(value)?).is_some() {
                        return Err(format!("'{name}' is given twice"));
                    }
                }
            }
        }
        if words.positional.is_empty() {
            return Err("the line has no first word".into());
        }
        Ok(words)
    }

    /// The first positional word.
    pub fn head(&self) -> &str {
        self.positional.first().map_or("", String::as_str)
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }
}

impl fmt::Display for Words {
    /// The line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.positional.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", encode(word))?;
        }
        self.named.iter().try_for_each(|(name, value)| write!(f, " {}={}", encode(name), encode(value)))
    }
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-/:@,+".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode(text: &str) -> Result<String, String> {
    let bad = || format!("'{text}' is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(bad)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_was() {
        let line = Words::new(["acquire"]).with("lock", "a b=c%\n☺").with("empty", "");
        assert_eq!(line.to_string(), "acquire empty= lock=a%20b%3Dc%25%0A%E2%98%BA");
        assert_eq!(Words::parse(&line.to_string()), Ok(line));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for line in ["", " ", "a=b", "x a=1 a=2", "x a=%4", "x a=%zz", "x a=%FF"] {
            assert!(Words::parse(line).is_err(), "{line:?}");
        }
    }
}
