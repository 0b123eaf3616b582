//! Names: what is accepted is valid to the letter, and what is sanitized is accepted.

use coord_core::name::{MAX_NAME, Name, check_part, sanitize};

use crate::input::Input;

/// What names are made of.
pub const WORDS: &[&str] =
    &["default", "/", "//", ".", "..", "-", "_", ":", "@", "+", "=", "$", "\0", "é", "😀", "%2F", "\u{202e}"];

/// Parses and sanitizes.
pub fn play(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (namespace, scope) = (input.text(), input.text());
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    for (namespace, scope) in [("default", "default"), (&*namespace, &*scope)] {
        let Ok(name) = Name::parse(&text, namespace, scope) else { continue };
        assert!(name.as_str().len() <= MAX_NAME, "{name} is too long");
        assert_eq!(name.as_str().split('/').count(), 3, "{name} has another number of parts");
        for part in name.as_str().split('/') {
            assert!(check_part(part).is_ok(), "{name} has a part that is not valid");
        }
        assert_eq!(Name::parse(name.as_str(), "x", "y").as_ref(), Ok(&name), "a whole name means itself");
    }
    let clean = sanitize(&text);
    assert!(check_part(&clean).is_ok(), "{text:?} became {clean:?}");
    assert!(Name::parse(&format!("{clean}/{clean}/{clean}"), "x", "y").is_ok(), "{clean:?} is too long");
    assert_eq!(sanitize(&clean), clean, "what is clean stays as it is");
}
