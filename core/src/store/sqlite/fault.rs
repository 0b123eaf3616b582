//! What SQLite reports, as errors of ours: the code says what a caller can do, the message which file and why.

use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::error::{Code, Error, LossReason};

/// Why a piece of work was not done. Whatever it had written in its transaction is rolled back.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite refused.
    Sql(rusqlite::Error),
    /// We refuse.
    Ours(Error),
    /// A grant would pass the durable ceiling of tokens; raise it above this token, then try again.
    CeilingTooLow(i64),
    /// Other processes kept the file locked for longer than a transaction waits. Nothing was begun.
    TimedOut,
}

impl Fault {
    /// Something in the file that this library cannot have written.
    pub(super) fn corrupt(message: impl Into<String>) -> Self {
        Self::Ours(Error::new(Code::CorruptState, message))
    }

    /// Whether another connection holds a lock that this one needs.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Sql(error) if is_busy(error))
    }

    /// The error for the caller.
    pub(super) fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Sql(error) => explain(path, error),
            Self::Ours(error) => error,
            Self::TimedOut => Error::unavailable(format!(
                "other processes keep '{}' locked; one of them may be stopped, or holds a transaction open",
                path.display()
            )),
            Self::CeilingTooLow(_) => Error::unavailable(format!(
                "the ceiling of tokens in '{}' is raised by somebody else at this moment; try again",
                path.display()
            )),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// Whether another connection holds a lock that this one needs.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether a value in the database is not what it should be.
pub(super) fn is_malformed(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows
    )
}

/// SQLite's error as one of ours.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> Error {
    let at = path.display();
    let (code, message) = match &error {
        rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code == ffi::SQLITE_READONLY_DBMOVED => {
            return Error::lost("the store", LossReason::StoreReplaced);
        }
        rusqlite::Error::SqliteFailure(failure, detail) => {
            let detail = detail.clone().unwrap_or_else(|| failure.to_string());
            explain_failure(failure.code, &at.to_string(), &detail)
        }
        malformed if is_malformed(malformed) => {
            (Code::CorruptState, format!("'{at}' holds a value that coord cannot have written: {error}"))
        }
        _ => (Code::Unknown, format!("SQLite failed on '{at}': {error}")),
    };
    Error::with_source(code, message, error)
}

fn explain_failure(code: ErrorCode, at: &str, detail: &str) -> (Code, String) {
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (
            Code::Unavailable,
            format!("another process keeps '{at}' locked ({detail}); it may be stopped or overloaded"),
        ),
        ErrorCode::DiskFull => {
            (Code::Unavailable, format!("there is no space left for '{at}' ({detail}); free some on its disk"))
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => (
            Code::Forbidden,
            format!(
                "'{at}' cannot be written ({detail}); this process needs write access to the file and its directory"
            ),
        ),
        ErrorCode::CannotOpen => (
            Code::Forbidden,
            format!("'{at}' or a file beside it cannot be opened ({detail}); check that the directory is writable"),
        ),
        ErrorCode::DatabaseCorrupt => (
            Code::CorruptState,
            format!(
                "'{at}' is damaged ({detail}); stop all users, then restore it or move it and the files beside it away"
            ),
        ),
        ErrorCode::NotADatabase => (
            Code::CorruptState,
            format!("'{at}' is not an SQLite database any more ({detail}); something has overwritten it"),
        ),
        ErrorCode::SystemIoFailure => (Code::Unavailable, format!("reading or writing '{at}' failed ({detail})")),
        ErrorCode::OutOfMemory => (Code::Unavailable, format!("SQLite has no memory left for '{at}'")),
        _ => (Code::Unknown, format!("SQLite failed on '{at}': {detail}")),
    }
}
