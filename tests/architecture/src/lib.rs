//! Checks of the tree itself. Its tests read the sources as text, so that they see every feature and platform at
//! once, and fail with the line that breaks a rule.
//!
//! - [`tokens`]: Rust source as tokens, without comments, texts and test code.
//! - [`paths`]: every path that a Rust file names, resolved to a module of its crate or to another crate.
//! - [`rules`]: who may use whom, as the table that ARCHITECTURE.md shows.
//! - [`golang`]: the same for Go's import lines.
//! - [`tree`]: finding and reading files.
//!
//! Deliberately absent: types and macro expansion. A path that only a macro builds is not seen; reviews see it.

pub mod golang;
pub mod paths;
pub mod rules;
pub mod tokens;
pub mod tree;

/// A rule that a line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The file, from the top of the tree.
    pub file: String,
    /// The line, counted from one.
    pub line: usize,
    /// What is wrong and what the rule says.
    pub message: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// All violations as the text of a failed test: one a line.
pub fn report(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("\n{violation}")).collect()
}
