//! What the processes of a story say on their standard output, a line each, before they go on: what a process had been
//! told when it died is known for certain.

use std::collections::BTreeMap;

use coord_faults::history::Nanos;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "kebab-case")]
pub enum Said {
    /// A lock or a term was granted.
    Granted {
        /// The lock's or the election's name.
        claim: String,
        /// The token.
        token: i64,
        /// The moment after the call returned.
        t: Nanos,
    },
    /// A check found it valid.
    Ok {
        /// The lock's or the election's name.
        claim: String,
        /// The token.
        token: i64,
        /// The moment before the check.
        t: Nanos,
    },
    /// A document is about to be written; none deletes it.
    Writing {
        /// The document.
        key: String,
        /// Its number.
        n: Option<i64>,
    },
    /// That was acknowledged.
    Wrote {
        /// The document.
        key: String,
    },
    /// A mail is about to be put into the outbox.
    Enqueuing {
        /// Its key.
        key: String,
    },
    /// That was acknowledged.
    Enqueued {
        /// Its key.
        key: String,
    },
    /// A part of the story could not be played.
    Failed {
        /// Which.
        step: String,
        /// Why.
        why: String,
    },
    /// The thread is at the point that was chosen: what comes now, comes at once.
    Struck,
    /// It goes on after a delay.
    Resumed,
    /// The story is over.
    Done {
        /// How often each point was passed.
        passed: BTreeMap<String, u64>,
    },
}

/// Says a line, by one write: a process that is killed leaves whole lines.
///
/// # Panics
/// Where nobody listens any more: the story is of no use then.
pub fn say(said: &Said) {
    let mut line = serde_json::to_vec(said).expect("it can be written as JSON");
    line.push(b'\n');
    let mut rest = &line[..];
    while !rest.is_empty() {
        match rustix::io::write(std::io::stdout(), rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("nobody listens: {error}"),
        }
    }
}
