//! What there is to play with: stores, and agents of each language.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use coord_tests::servers;
use coord_tests::servers::scratch::Scratch;
use serde::Deserialize;

/// A kind of store.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// In one process: there all clients of a story live in one agent.
    Memory,
    /// A file.
    Sqlite,
    /// A replica set.
    Mongodb,
}

impl Store {
    /// All kinds.
    pub fn all() -> Vec<Self> {
        vec![Self::Memory, Self::Sqlite, Self::Mongodb]
    }

    /// How often a story that is about races has one. More where a step costs less.
    pub fn races(self) -> u32 {
        match self {
            Self::Memory => 4_000,
            Self::Sqlite => 1_000,
            Self::Mongodb => 100,
        }
    }

    /// The URL of a store for one play: with a file of its own in `scratch`, or names of its own in what is shared.
    /// None, after one line that says so, where there is no such store.
    ///
    /// # Panics
    /// Where there is none and `CI` is `true`.
    pub fn url(self, scratch: &Scratch) -> Option<String> {
        Some(match self {
            Self::Memory => "memory:story".into(),
            Self::Sqlite => format!("sqlite:///{}/story.db", scratch.path().display()),
            Self::Mongodb => {
                let uri = servers::shared_uri()?;
                let separator = if uri.contains('?') { "&" } else { "?" };
                format!("{uri}{separator}coord.prefix=stories_")
            }
        })
    }
}

/// A language, or a manner of using one, that an agent is written in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Rust.
    Rust,
    /// C.
    C,
    /// Go.
    Go,
    /// Python, blocking.
    Python,
    /// Python with asyncio.
    Asyncio,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rust, Self::C, Self::Go, Self::Python, Self::Asyncio];

    /// The variable that names the agent's program, for those that cargo does not build.
    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Rust => None,
            Self::C => Some("COORD_AGENT_C"),
            Self::Go => Some("COORD_AGENT_GO"),
            Self::Python | Self::Asyncio => Some("COORD_AGENT_PYTHON"),
        }
    }
}

/// The programs of the agents.
#[derive(Clone, Debug)]
pub struct Agents {
    rust: PathBuf,
}

/// How to start an agent.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it is written in.
    pub language: Language,
    /// The executable file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<&'static str>,
}

impl Agents {
    /// The agents named by the environment, and this one for Rust.
    pub fn new(rust: impl Into<PathBuf>) -> Self {
        Self { rust: rust.into() }
    }

    /// The agent of a language. None, after one line that says so, where there is none.
    ///
    /// # Panics
    /// Where there is none and `CI` is `true`.
    pub fn of(&self, language: Language) -> Option<Program> {
        let path = match language.variable() {
            None => self.rust.clone(),
            Some(variable) => match std::env::var_os(variable).filter(|path| !path.is_empty()) {
                Some(path) => path.into(),
                None => {
                    servers::skip(&format!("the stories in {language:?}: {variable} names no agent"));
                    return None;
                }
            },
        };
        let arguments = if language == Language::Asyncio { vec!["--asyncio"] } else { Vec::new() };
        Some(Program { language, path, arguments })
    }
}

/// Who plays which process of a story.
pub type Cast = BTreeMap<String, Program>;

/// Gives the processes to these programs in turn, beginning with the one at `first`.
pub fn cast(processes: &[&str], programs: &[Program], first: usize) -> Cast {
    let turns = programs.iter().cycle().skip(first % programs.len());
    processes.iter().map(|process| (*process).to_owned()).zip(turns.cloned()).collect()
}

/// A namespace that no other play uses, also not one of another run on the same servers.
pub fn namespace(story: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{story}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
