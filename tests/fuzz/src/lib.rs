//! Targets for random input, one per concept that takes bytes from strangers. Each takes any bytes, makes of them what
//! it is about, and must neither panic nor hang; most check more than that.
//!
//! - `coord-fuzz` (see `main.rs`) plays them on stable Rust: the corpus, and then what [`mutate`] makes of it. It is
//!   what CI runs.
//! - `campaign/` plays the same targets with libFuzzer under the address sanitizer: `make fuzz MINUTES=n`.
//!
//! At most twelve. A new concept that takes bytes gets a line in [`TARGETS`], a file here, one in
//! `campaign/fuzz_targets`, and some examples in `corpus/<name>`.
#![deny(unsafe_code)]

pub mod calls;
pub mod database;
pub mod documents;
pub mod entries;
pub mod input;
pub mod mail;
pub mod mutate;
pub mod names;
pub mod options;
pub mod server;
pub mod smtp;
mod sys;
pub mod tables;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What it does with bytes.
    pub play: fn(&[u8]),
    /// Words that its inputs are made of.
    pub words: &'static [&'static str],
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "options", play: options::play, words: options::WORDS },
    Target { name: "names", play: names::play, words: names::WORDS },
    Target { name: "entries", play: entries::play, words: entries::WORDS },
    Target { name: "documents", play: documents::play, words: documents::WORDS },
    Target { name: "calls", play: calls::play, words: &[] },
    Target { name: "database", play: database::play, words: &["SQLite format 3\0", "locks", "CREATE TABLE"] },
    Target { name: "server", play: server::play, words: server::WORDS },
    Target { name: "tables", play: tables::play, words: tables::WORDS },
    Target { name: "mail", play: mail::play, words: mail::WORDS },
    Target { name: "smtp", play: smtp::play, words: smtp::WORDS },
];
