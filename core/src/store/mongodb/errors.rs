//! The driver's errors in this library's terms. Nothing of a URI, a password or a command's arguments gets into a
//! message.

use mongodb::bson::{self, Document};
use mongodb::error::{CommandError, ErrorKind, WriteFailure};

use crate::error::{Code, Error};

/// What was being done when an error came, for its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    /// The sentence's rest, e.g. "change a claim".
    pub(super) what: &'static str,
    /// The rights that it needs, as the server names them.
    pub(super) rights: &'static str,
}

/// An error of the driver, in our terms.
pub(super) fn from_driver(error: &mongodb::error::Error, doing: Doing, namespace: &str) -> Error {
    let what = doing.what;
    match &*error.kind {
        ErrorKind::Authentication { message, .. } => unauthorized(message),
        ErrorKind::Command(command) => from_command(command, doing, namespace),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Error::unavailable(format!(
            "cannot {what}: no majority of the replica set has acknowledged it ({}); it may still come into effect",
            short(&concern.message)
        )),
        ErrorKind::Write(WriteFailure::WriteError(write)) if write.code == 13 => forbidden(doing, namespace),
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            Error::unavailable(format!("cannot {what}: {} (code {})", short(&write.message), write.code))
        }
        ErrorKind::Io(io) => trust(&io.to_string())
            .unwrap_or_else(|| Error::unavailable(format!("cannot {what}: the connection failed: {io}"))),
        ErrorKind::ServerSelection { message, .. } => trust(message).unwrap_or_else(|| {
            Error::unavailable(format!("cannot {what}: the replica set has no primary that can be reached"))
        }),
        ErrorKind::ConnectionPoolCleared { .. } => {
            Error::unavailable(format!("cannot {what}: the connection was closed after another request failed"))
        }
        ErrorKind::DnsResolve { message, .. } => {
            Error::unavailable(format!("cannot {what}: a host name cannot be resolved: {}", short(message)))
        }
        ErrorKind::InvalidTlsConfig { message, .. } => {
            Error::invalid(format!("the TLS options of the MongoDB URI are wrong: {}", short(message)))
        }
        ErrorKind::IncompatibleServer { message, .. } => {
            Error::new(Code::Unsupported, format!("the server is not supported: {}", short(message)))
        }
        ErrorKind::InvalidResponse { message, .. } => Error::new(
            Code::CorruptState,
            format!("cannot {what}: the server's answer is malformed: {}", short(message)),
        ),
        ErrorKind::Bson(bson) => {
            Error::new(Code::CorruptState, format!("cannot {what}: a document cannot be read: {bson}"))
        }
        ErrorKind::Shutdown => Error::closed("the store"),
        other => Error::new(Code::Unknown, format!("cannot {what}: {}", short(&other.to_string()))),
    }
}

/// What the answer to a command that writes says of the write, which the driver leaves to whoever runs a command. What only
/// one server has acknowledged may be undone, so that is an error, too.
pub(super) fn of_a_write(answer: &Document) -> Option<mongodb::error::Error> {
    let first = answer.get_array("writeErrors").ok().and_then(|errors| errors.first());
    let failure = match (first, answer.get("writeConcernError")) {
        (Some(write), _) => bson::deserialize_from_bson(write.clone()).map(WriteFailure::WriteError),
        (None, Some(concern)) => bson::deserialize_from_bson(concern.clone()).map(WriteFailure::WriteConcernError),
        (None, None) => return None,
    };
    Some(failure.map(ErrorKind::Write).unwrap_or_else(ErrorKind::Bson).into())
}

fn from_command(command: &CommandError, doing: Doing, namespace: &str) -> Error {
    let what = doing.what;
    match command.code {
        NOT_AUTHORIZED if command.message.contains("requires authentication") => unauthorized(&command.message),
        NOT_AUTHORIZED => forbidden(doing, namespace),
        AUTHENTICATION_FAILED | ATLAS_ERROR => unauthorized(&command.message),
        code if CORRUPT.contains(&code) => Error::new(
            Code::CorruptState,
            format!("cannot {what}: a document in {namespace} is corrupt: {}", short(&command.message)),
        ),
        CHANGE_STREAM_UNSUPPORTED if doing.what == WATCH.what => standalone(),
        // Whoever tried the same place again would try for ever.
        code if HISTORY_LOST.contains(&code) => Error::new(
            Code::Compacted,
            format!("cannot {what}: the server's history does not reach back so far (code {code})"),
        ),
        _ => Error::unavailable(format!(
            "cannot {what}: the server says {} (code {}): {}",
            command.code_name,
            command.code,
            short(&command.message)
        )),
    }
}

fn unauthorized(message: &str) -> Error {
    Error::new(
        Code::Unauthorized,
        format!(
            "MongoDB does not accept the credentials ({}): check user, password and authSource of the URI",
            short(message)
        ),
    )
}

fn forbidden(doing: Doing, namespace: &str) -> Error {
    Error::new(
        Code::Forbidden,
        format!(
            "the MongoDB user may not {}: it lacks the right to {} on '{namespace}'; the role readWrite on the database \
             has all that is needed",
            doing.what, doing.rights
        ),
    )
}

/// A server that is not a member of a replica set.
pub(super) fn standalone() -> Error {
    Error::new(
        Code::Unsupported,
        "this MongoDB server stands alone; coord needs a replica set (one of a single member will do: start mongod with \
         --replSet and run rs.initiate())",
    )
}

/// The error of a server whose certificate is not trusted, if the text is about that.
pub(super) fn trust(text: &str) -> Option<Error> {
    let start = text.find("invalid peer certificate")?;
    let reason: String = text[start..].chars().take_while(|c| !matches!(c, ',' | '}' | '"' | '\n')).take(120).collect();
    Some(Error::new(
        Code::Unauthorized,
        format!("the server's certificate is not trusted ({reason}): check tlsCAFile and the host names of the URI"),
    ))
}

/// Whether a change stream cannot go on from its last token.
pub(super) fn history_is_lost(error: &mongodb::error::Error) -> bool {
    let fatal = |code| HISTORY_LOST.contains(&code) || code == CURSOR_KILLED;
    error.contains_label("NonResumableChangeStreamError")
        || matches!(&*error.kind, ErrorKind::Command(command) if fatal(command.code))
        || matches!(&*error.kind, ErrorKind::MissingResumeToken)
}

/// A message of bounded length on one line.
fn short(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// Opening the stream of changes.
pub(super) const WATCH: Doing = Doing { what: "watch the locks", rights: "changeStream and find" };

const NOT_AUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;
const ATLAS_ERROR: i32 = 8000;
const CHANGE_STREAM_UNSUPPORTED: i32 = 40573;
const CURSOR_KILLED: i32 = 237;

/// No stream goes on from the place that was given: it fell out of a capped collection, or out of the oplog, its token is
/// not valid, or names what is not there.
pub(super) const HISTORY_LOST: [i32; 4] = [136, 260, 280, 286];

/// What our pipelines and projections run into when a field is of a type that they cannot work with: type mismatch,
/// failed conversion, and `$size`, `$slice`, `$in`, `$split`, `$filter`, `$concatArrays`, `$regexMatch` of the wrong
/// type.
const CORRUPT: [i32; 10] = [14, 241, 17124, 28724, 40081, 40085, 40086, 28651, 28664, 51104];
