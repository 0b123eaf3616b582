//! Fences: after a write with the token of a hold, no write with a lower token of the same lock touches the document.
//!
//! Tokens of different locks cannot be compared, so a document remembers the highest token of each lock that has
//! written it, under a short hash of the lock's name. What is deleted, or not yet there, remembers it in a *tombstone*
//! beside the table: else a late upsert of a stale holder would bring the document back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bson::{Bson, Document};
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::protocol::claim::{ClaimKey, Entry};

/// How many locks may have fenced one document.
pub const MAX_FENCES: usize = 8;

/// How long the fences of a document that is gone are kept.
pub const FENCES_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A hold as the condition of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The claim that is held.
    pub lock: ClaimKey,
    /// The holder's entry.
    pub holder: Entry,
    /// The token of the hold.
    pub token: i64,
    /// Also refuse the write if the hold has ended, although nobody has written since. Memory and SQLite always do.
    pub strict: bool,
}

impl Fence {
    /// Under which name documents remember this lock.
    pub fn key(&self) -> FenceKey {
        FenceKey::of(&self.lock)
    }

    /// The refusal of a write with this fence: a later holder has written, or the hold has ended.
    pub fn refused(&self, highest: Option<i64>) -> Error {
        let why = match highest {
            Some(highest) => format!("a later holder, with token {highest}, has written already"),
            None => "the hold has ended".into(),
        };
        Error::new(Code::Fenced, format!("the write with token {} of '{}' is refused: {why}", self.token, self.lock))
    }
}

/// A lock's name in a document's fences: 16 letters and digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FenceKey(String);

impl FenceKey {
    /// The first 16 characters of the lower-case base 32 (RFC 4648) of the SHA-256 of the full name.
    pub fn of(lock: &ClaimKey) -> Self {
        let digest = Sha256::digest(lock.as_str().as_bytes());
        let bits = digest.iter().take(10).fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
        let letter = |index: u32| ALPHABET[((bits >> (75 - 5 * index)) & 31) as usize] as char;
        Self((0..16).map(letter).collect())
    }

    /// A key as a store has it.
    pub fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The highest token of each lock that has written a document, or a document that was in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fences(pub BTreeMap<FenceKey, i64>);

impl Fences {
    /// Those that a document of MongoDB has in its field.
    pub fn of(document: &Document) -> Self {
        let Ok(fields) = document.get_document(super::FENCES) else { return Self::default() };
        let token = |value: &Bson| value.as_i64().or_else(|| value.as_i32().map(i64::from));
        Self(fields.iter().filter_map(|(key, value)| Some((FenceKey::stored(key), token(value)?))).collect())
    }

    /// Whether a write with this fence may come, as far as tokens say.
    ///
    /// # Errors
    /// `Fenced` if a later holder has written; `InvalidArgument` if too many other locks have.
    pub fn admit(&self, fence: &Fence) -> Result<()> {
        match self.0.get(&fence.key()) {
            Some(highest) if *highest > fence.token => Err(fence.refused(Some(*highest))),
            None if self.0.len() >= MAX_FENCES => Err(too_many()),
            _ => Ok(()),
        }
    }

    /// Remembers the write.
    pub fn raise(&mut self, fence: &Fence) {
        let highest = self.0.entry(fence.key()).or_insert(fence.token);
        *highest = (*highest).max(fence.token);
    }
}

/// The refusal of one lock too many.
pub fn too_many() -> Error {
    Error::invalid(format!("a document can be fenced by at most {MAX_FENCES} locks, and this one is already"))
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_the_first_letters_of_its_hash() {
        // printf 'lock/default/default/a' | sha256sum | xxd -r -p | base32
        let key = FenceKey::of(&ClaimKey::new("lock/default/default/a"));
        assert_eq!(key.as_str(), "omy3nru2zbqgqe34");
    }
}
