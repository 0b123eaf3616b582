//! Addresses: a mailbox is a name for people and an address for servers. Pure.
//!
//! Invariant: what is in a [`Mailbox`] has no control character, so neither a header nor a command can be broken by it.
//! Its domain is ASCII, by IDNA where it was written in another script; its local part may be any Unicode, and then
//! every server on the way needs SMTPUTF8 (RFC 6531).

use std::fmt;
use std::str::FromStr;

use lettre::Address;

use crate::error::{Error, Result};

/// The longest address in bytes, its domain in ASCII (RFC 5321, 4.5.3.1.3, less the angle brackets).
pub const MAX_ADDRESS: usize = 254;

/// The longest name of a mailbox, in characters.
pub const MAX_MAILBOX_NAME: usize = 256;

/// A mailbox: `ann@example.org` or `Ann Lee <ann@example.org>`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    name: String,
    address: Address,
}

impl Mailbox {
    /// The mailbox with this address and this name, which may be empty.
    ///
    /// # Errors
    /// `InvalidArgument` that says what is wrong with which of them.
    pub fn new(name: &str, address: &str) -> Result<Self> {
        if let Some(bad) = name.chars().find(|c| c.is_control()) {
            return Err(Error::invalid(format!("the name of a mailbox has no control characters, not {bad:?}")));
        }
        if name.chars().count() > MAX_MAILBOX_NAME {
            return Err(Error::invalid(format!("the name of a mailbox has at most {MAX_MAILBOX_NAME} characters")));
        }
        Ok(Self { name: name.trim().to_owned(), address: parse_address(address)? })
    }

    /// The name for people; may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address, its domain in ASCII.
    pub fn address(&self) -> &str {
        self.address.as_ref()
    }

    /// The domain, in ASCII and lower case.
    pub fn domain(&self) -> &str {
        self.address.domain()
    }

    /// Whether the address can be used only where every server knows SMTPUTF8.
    pub fn needs_utf8(&self) -> bool {
        !self.address().is_ascii()
    }

    pub(super) fn lettre_address(&self) -> &Address {
        &self.address
    }

    pub(super) fn lettre(&self) -> lettre::message::Mailbox {
        let name = (!self.name.is_empty()).then(|| self.name.clone());
        lettre::message::Mailbox::new(name, self.address.clone())
    }
}

impl FromStr for Mailbox {
    type Err = Error;

    /// Parses `address`, `<address>`, `Name <address>` or `"Name" <address>`.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim_matches([' ', '\t']);
        let Some(inner) = text.strip_suffix('>') else { return Self::new("", text) };
        let Some((name, address)) = inner.rsplit_once('<') else {
            return Err(Error::invalid(format!("'{}' has a '>' without its '<'", shown(text))));
        };
        Self::new(&unquoted(name.trim_matches([' ', '\t'])), address)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str(self.address());
        }
        let name = self.name.replace('\\', "\\\\").replace('"', "\\\"");
        write!(f, "\"{name}\" <{}>", self.address())
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({self})")
    }
}

fn parse_address(text: &str) -> Result<Address> {
    let refuse = |why: &str| Err(Error::invalid(format!("'{}' is not an address: {why}", shown(text))));
    if text.is_empty() {
        return Err(Error::invalid("an address must not be empty"));
    }
    // Four times what is allowed: a domain may get shorter in ASCII, and nothing here should look at megabytes.
    if text.len() > 4 * MAX_ADDRESS {
        return refuse(&format!("it has more than {MAX_ADDRESS} bytes"));
    }
    if text.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}') {
        return refuse("it has a control character");
    }
    let Some((local, domain)) = text.rsplit_once('@') else {
        return refuse("an address is local-part@domain");
    };
    if !local.starts_with('"') && local.chars().any(char::is_whitespace) {
        return refuse("it has a space before the '@'");
    }
    let domain = match ascii_domain(domain) {
        Ok(domain) => domain,
        Err(why) => return refuse(&why),
    };
    let address = match Address::new(local, &domain) {
        Ok(address) => address,
        Err(lettre::address::AddressError::InvalidDomain) => return refuse("its domain is not valid"),
        Err(_) => return refuse("what is before the '@' is not valid"),
    };
    let length = address.as_ref() as &str;
    if length.len() > MAX_ADDRESS {
        return refuse(&format!("it has more than {MAX_ADDRESS} bytes"));
    }
    Ok(address)
}

fn ascii_domain(domain: &str) -> Result<String, String> {
    if domain.starts_with('[') {
        return Ok(domain.to_owned());
    }
    let ascii = idna::domain_to_ascii_strict(domain).map_err(|_| "its domain is not valid".to_owned())?;
    // Without a dot at its end: addresses have none (RFC 5321, 2.3.5).
    if ascii.is_empty() || ascii.ends_with('.') {
        return Err("its domain is not valid".to_owned());
    }
    Ok(ascii)
}

fn unquoted(name: &str) -> String {
    let Some(inner) = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return name.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

/// A text of the user's in an error message: short, and on one line.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_are_read_as_people_write_them() {
        for (text, name, address) in [
            ("ann@example.org", "", "ann@example.org"),
            (" <ann@example.org> ", "", "ann@example.org"),
            ("Ann Lee <ann@example.org>", "Ann Lee", "ann@example.org"),
            ("\"Lee, \\\"Ann\\\"\" <ann@example.org>", "Lee, \"Ann\"", "ann@example.org"),
            ("Анна <anna@пример.рф>", "Анна", "anna@xn--e1afmkfd.xn--p1ai"),
            ("анна@Bücher.example", "", "анна@xn--bcher-kva.example"),
            ("x@[192.0.2.1]", "", "x@[192.0.2.1]"),
        ] {
            let mailbox: Mailbox = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((mailbox.name(), mailbox.address()), (name, address), "{text}");
            assert_eq!(mailbox.to_string().parse::<Mailbox>().unwrap(), mailbox, "{text}");
        }
        assert!("анна@example.org".parse::<Mailbox>().unwrap().needs_utf8());
        assert!(!"anna@пример.рф".parse::<Mailbox>().unwrap().needs_utf8());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@example.org, bob@example.org",
            "ann lee@example.org",
            "ann@exa mple.org",
            "ann@example.org>",
            "ann@example.org\r\nBcc: x@y.z",
            "Ann\r\nBcc: x@y.z <ann@example.org>",
            "ann\n@example.org",
            "\"a\r\nb\"@example.org",
            "ann@example.org.",
            "ann@-x.org",
            "a@b@c.org",
            "ann@example.org> SIZE=1",
        ] {
            assert!(text.parse::<Mailbox>().is_err(), "{text:?}");
        }
        assert!(format!("{}@example.org", "a".repeat(65)).parse::<Mailbox>().is_err());
        assert!(format!("a@{}.org", "a.".repeat(200)).parse::<Mailbox>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_a_line(text in ".*@?.*") {
            if let Ok(mailbox) = text.parse::<Mailbox>() {
                assert!(!mailbox.to_string().contains(['\r', '\n', '\0']));
            }
        }
    }
}
