//! The store's commands and its reading of documents, for tests that compare them with the pure steps: a test has to
//! run them itself, to set the server's date.

use mongodb::bson::{Document, doc};

use super::pipeline::{self, Write};
use super::quick::{self, Form};
use super::{COLLECT_MARGIN_MS, MongoStore, codec};
use crate::error::Result;
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep, ClaimView};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep};

/// How far cluster time must be beyond a token, in milliseconds, before the claim is collected.
pub const COLLECT_MARGIN: i64 = COLLECT_MARGIN_MS;

/// What this store knows to have happened: nothing that it reads of claims is older. Time and increment.
pub fn known_time(store: &MongoStore) -> Option<(u32, u32)> {
    store.0.highest_seen().map(|known| (known.time, known.increment))
}

/// The command that applies a claim's step and answers with the whole document.
pub fn claim_command(collection: &str, key: &ClaimKey, step: &ClaimStep) -> Document {
    command(collection, pipeline::claim(key, step, COLLECT_MARGIN_MS))
}

/// The command that applies a claim's step in its short form, if it has one for a claim that looked like this, and the
/// command after which it is not applied any more, if it takes the claim.
pub fn short_command(
    collection: &str,
    key: &ClaimKey,
    step: &ClaimStep,
    seen: &ClaimView,
) -> Option<(Document, Option<Document>)> {
    let form = Form::of(step, seen)?;
    let void = match form {
        Form::Take { last, .. } => Some(quick::void(collection, key, last)),
        Form::GiveUp { .. } => None,
    };
    Some((form.command(collection, key), void))
}

/// The command that applies a session's step and answers with the whole document.
pub fn session_command(collection: &str, id: SessionId, step: &SessionStep) -> Document {
    command(collection, pipeline::session(id, step))
}

/// A claim from its document.
///
/// # Errors
/// `CorruptState`.
pub fn claim(document: &Document) -> Result<ClaimRecord> {
    codec::claim(document)
}

/// A session from its document.
///
/// # Errors
/// `CorruptState`.
pub fn session(document: &Document) -> Result<SessionRecord> {
    codec::session(document)
}

fn command(collection: &str, write: Write) -> Document {
    match write {
        Write::Pipeline { filter, stages, upsert } => {
            doc! { "findAndModify": collection, "query": filter, "update": stages, "upsert": upsert, "new": true }
        }
        Write::Operators { filter, update } => {
            doc! { "findAndModify": collection, "query": filter, "update": update, "new": true }
        }
        Write::Remove { filter } => doc! { "findAndModify": collection, "query": filter, "remove": true },
    }
}
