//! What workers and the campaign write down: one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A moment on the host's boot-time clock, in nanoseconds.
pub type Nanos = u64;

/// The present moment.
pub fn now() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When. Of `granted` the moment after the call returned, of `ok` the one before the check: so what lies between
    /// them was believed without doubt.
    pub t: Nanos,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What a worker did or learnt. A term of an election is told as a hold of a lock is: its name says which it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "kebab-case")]
pub enum Event {
    /// It begins to acquire; `n` numbers its attempts.
    Attempt {
        /// The lock.
        lock: String,
        /// Which attempt.
        n: u64,
        /// Whether it waits.
        wait: bool,
        /// For how long at most, in milliseconds: 0 where it does not wait. None in histories from before it was told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        patience_ms: Option<u64>,
    },
    /// It was granted.
    Granted {
        /// The lock.
        lock: String,
        /// Which attempt.
        n: u64,
        /// The token.
        token: i64,
    },
    /// It was not granted.
    Refused {
        /// The lock.
        lock: String,
        /// Which attempt.
        n: u64,
        /// The error's name.
        code: String,
        /// The token of who held it, where the error tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<i64>,
    },
    /// A check found the hold valid.
    Ok {
        /// The lock.
        lock: String,
        /// The token.
        token: i64,
    },
    /// A check failed.
    Lost {
        /// The lock.
        lock: String,
        /// The token.
        token: i64,
    },
    /// It has released it; `clean` if the release found the hold valid.
    Released {
        /// The lock.
        lock: String,
        /// The token.
        token: i64,
        /// Whether the release succeeded.
        clean: bool,
    },
    /// Its watch of an election was told who leads, or that nobody does.
    Watched {
        /// The election.
        lock: String,
        /// The term's token.
        token: Option<i64>,
    },
    /// It asks something of a document; `n` numbers what it asks of documents.
    Asked {
        /// The document.
        lock: String,
        /// Which question.
        n: u64,
        /// What.
        ask: Ask,
    },
    /// It was answered.
    Answered {
        /// The document.
        lock: String,
        /// Which question.
        n: u64,
        /// What.
        answer: Answer,
    },
    /// It wrote to the resource that the lock protects, which accepts no token below the highest it has seen.
    Wrote {
        /// The lock.
        lock: String,
        /// The token.
        token: i64,
        /// Whether it was accepted.
        accepted: bool,
    },
}

/// What is asked of a document. It has a value `v` that no other write has, and counts in `n` how often it was updated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the values that are written, and those that were seen before")]
pub enum Ask {
    Get,
    Insert { v: u64 },
    Put { v: u64 },
    Update { v: u64 },
    ReplaceIf { seen: u64, v: u64 },
    DeleteIf { seen: u64 },
    Delete,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Answer {
    /// This is the document: as it was read, as an update made it, as it was before it was deleted.
    Document {
        /// Its value.
        v: u64,
        /// How often it was updated.
        n: u64,
    },
    /// It was done.
    Done,
    /// There is none.
    Nothing,
    /// There is one already.
    Exists,
    /// It is not what was seen.
    Conflict,
    /// It failed, and may have been done all the same.
    Unknown,
}

/// One fault, or a time without any (`healed`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it began.
    pub t: Nanos,
    /// When it was over.
    pub until: Nanos,
    /// What it was.
    pub kind: String,
    /// The worker it hit (its file's name begins with that and a dot), or `servers`.
    pub target: String,
}

/// The name of the faults' file, in the folder of the histories.
pub const FAULTS: &str = "faults.jsonl";

/// The kind of a time without faults.
pub const HEALED: &str = "healed";

/// A file to which lines are appended, each by one write, so that a killed process leaves whole lines.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Appends a value as a line.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// Reads all lines of a file. A last line without its end is left out: its writer was killed in the middle.
///
/// # Errors
/// What the operating system says, or which line is not one of ours.
pub fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<Vec<T>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| io::Error::other(format!("{line}: {error}"))))
        .collect()
}
