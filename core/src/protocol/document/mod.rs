//! Documents: what users keep in tables, and what may be done to one of them.
//!
//! Architecture invariant: pure, like all of the protocol. Memory and SQLite call [`apply`], [`Filter`], [`Update`],
//! [`Sort`] and [`Projection`]; MongoDB does the same on its server, and a test with random documents compares the
//! three, with MongoDB as the truth.
//!
//! - [`key`]: names of tables, and keys. [`fence`]: which holder's write may still come.
//! - [`filter`], [`update`], [`sort`], [`projection`]: the parts of MongoDB's language that mean the same everywhere.
//! - [`order`], `path`: how values compare, and how a dotted path finds them.
//! - [`write`](mod@write): one write to one document, as a pure function.

use std::fmt;

pub mod fence;
pub mod filter;
pub mod key;
pub mod order;
mod path;
pub mod projection;
pub mod sort;
#[cfg(test)]
mod tests;
pub mod update;
pub mod write;

pub use self::fence::{Fence, FenceKey, Fences};
pub use self::filter::Filter;
pub use self::key::{Key, TableName};
pub use self::projection::Projection;
pub use self::sort::Sort;
pub use self::update::Update;
pub use self::write::{Action, Before, Condition, Outcome, Write, apply};

/// The largest document, in bytes of BSON: what MongoDB takes.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// Fields that hold what the library keeps with a document on MongoDB. Nobody else may name them, and nobody is shown
/// them.
pub const RESERVED: [&str; 2] = [FENCES, WRITTEN_BY];

/// The field with the fences of a document.
pub const FENCES: &str = "_fence";

/// The field with the source of the last write.
pub const WRITTEN_BY: &str = "_by";

/// Which state of a document one has seen: for `replace_if`. Equal revisions of one key mean the same document. Only
/// for comparing.
///
/// On SQLite and memory it is the place of the document's last change in the table's history; on MongoDB, where others
/// write as well, a hash of what the document holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Revision(pub u64);

/// A place in the history of a store: grows with every change. On SQLite and memory it counts changes, on MongoDB it is
/// the server's operation time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The place before it.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
