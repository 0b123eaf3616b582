//! The driver's errors about documents, in our terms. Unlike commands of our own making, a command with a user's filter
//! or update can be wrong.

use bson::Document;
use mongodb::error::{ErrorKind, WriteFailure};

use super::super::errors::{self, Doing};
use crate::error::{Code, Error};
use crate::protocol::document::Key;
use crate::protocol::document::write::already_exists;

/// An error of the driver, in our terms.
pub(super) fn explain(error: &mongodb::error::Error, doing: Doing, namespace: &str) -> Error {
    let Some(code) = code_of(error) else {
        return match &*error.kind {
            ErrorKind::BsonSerialization(_) | ErrorKind::InvalidArgument { .. } => {
                Error::invalid(format!("cannot {}: {}", doing.what, short(&error.kind.to_string())))
            }
            _ => errors::from_driver(error, doing, namespace),
        };
    };
    let message = format!("cannot {} in {namespace}: {}", doing.what, short(&message_of(error)));
    match code {
        DUPLICATE_KEY => Error::new(Code::AlreadyExists, message),
        code if WRONG.contains(&code) => Error::invalid(message),
        NO_REPLICA_SET => Error::new(Code::Unsupported, format!("{message}; coord needs a replica set to watch")),
        IS_A_VIEW => Error::new(
            Code::Unsupported,
            format!(
                "cannot {} in {namespace}: it is a view, which can only be read; take the collection behind it",
                doing.what
            ),
        ),
        code if UNSUPPORTED.contains(&code) => Error::new(Code::Unsupported, message),
        code if errors::HISTORY_LOST.contains(&code) => {
            Error::with_source(Code::Compacted, crate::store::documents::compacted().message(), error.clone())
        }
        code if SERVER.contains(&code) => Error::unavailable(message),
        // Numbers without a name are those of the places in the server's source that refuse what a user gave.
        code if code >= FIRST_UNNAMED => Error::invalid(message),
        _ => errors::from_driver(error, doing, namespace),
    }
}

/// The server's number of what is wrong.
pub(super) fn code_of(error: &mongodb::error::Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::InsertMany(many) => many.write_errors.as_ref()?.first().map(|write| write.code),
        _ => None,
    }
}

fn message_of(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => command.message.clone(),
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.message.clone(),
        other => other.to_string(),
    }
}

/// Whether there is a document of this key already, and not only one with the same value in another unique index.
pub(super) fn is_key_taken(error: &mongodb::error::Error) -> bool {
    if code_of(error) != Some(DUPLICATE_KEY) {
        return false;
    }
    let pattern = error.server_response().and_then(|response| {
        let response = Document::try_from(response.as_ref()).ok()?;
        if let Ok(pattern) = response.get_document("keyPattern") {
            return Some(pattern.clone());
        }
        let errors = response.get_array("writeErrors").ok()?;
        errors.first()?.as_document()?.get_document("keyPattern").ok().cloned()
    });
    match pattern {
        Some(pattern) => pattern.len() == 1 && pattern.contains_key("_id"),
        None => message_of(error).contains("index: _id_ "),
    }
}

/// What an insert that found its key taken has to say, or else what the error is.
pub(super) fn of_insert(error: &mongodb::error::Error, key: &Key, doing: Doing, namespace: &str) -> Error {
    if is_key_taken(error) { already_exists(key) } else { explain(error, doing, namespace) }
}

fn short(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

const DUPLICATE_KEY: i32 = 11_000;

/// What a user gave that no server takes: bad values, paths, types, documents that are too large or not as the
/// collection's validator wants them, filters that need an index that is not there, indexes that differ from those that
/// are, scripts that fail.
const WRONG: [i32; 36] = [
    2, 9, 14, 15, 16, 22, 27, 28, 40, 51, 52, 53, 54, 55, 56, 57, 58, 59, 66, 67, 73, 85, 86, 121, 139, 168, 171, 197,
    241, 291, 292, 10_334, 17_280, 17_419, 17_420, 31_249,
];

/// What this server cannot do.
const UNSUPPORTED: [i32; 4] = [20, 115, 224, 238];

/// A command that a view does not have: to write, and to watch.
const IS_A_VIEW: i32 = 166;

/// A change stream on a server that stands alone.
const NO_REPLICA_SET: i32 = 40_573;

/// Numbers above the first unnamed that have a name, or speak of the server's state.
const SERVER: [i32; 11] = [10_003, 10_058, 10_107, 11_600, 11_601, 11_602, 13_388, 13_435, 13_436, 16_500, 13_297];

const FIRST_UNNAMED: i32 = 10_000;
