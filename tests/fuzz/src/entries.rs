//! The texts of sessions and entries in a store: one text per value, so that stores may compare texts.

use coord_core::protocol::claim::Entry;
use coord_core::protocol::session::SessionId;

/// What entries are made of.
pub const WORDS: &[&str] = &[
    "00000000000000000000000000000000",
    "0123456789abcdef",
    "/",
    "0",
    "1",
    "800",
    "18446744073709551615",
    "+",
    "-",
    "A",
];

/// Reads both.
pub fn play(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(entry) = text.parse::<Entry>() {
        assert_eq!(entry.to_string(), text, "another text is the same entry");
    }
    if let Ok(session) = text.parse::<SessionId>() {
        assert_eq!(session.to_string(), text, "another text is the same session");
    }
}
