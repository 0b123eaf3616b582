//! What can go wrong, as one list of codes for all languages.
//!
//! A code says what the caller can do about it; the message says what was wrong and is not part of the
//! contract. Numbers are fixed once and never reused: C, Go and Python know them.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is.
///
/// The hundreds group the codes: 1xx the caller's mistake, 2xx an expected outcome, 3xx a hold or a
/// condition that is gone, 4xx the store, 9xx this library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(i32)]
pub enum Code {
    /// An argument is malformed or out of its documented range.
    InvalidArgument = 100,
    /// The handle was never issued, or is destroyed, or belongs to another kind.
    Handle = 101,
    /// The caller was built for another major version of the C interface.
    AbiMismatch = 102,
    /// The call is not allowed inside this callback; it would wait for itself.
    Reentrant = 103,
    /// The process was forked from one that had a client; fork before the first client of the process is created.
    Forked = 104,
    /// The client, the session or the hold was closed by its user.
    Closed = 105,
    /// The store cannot do this; `Capabilities` says what it can.
    Unsupported = 106,

    /// The time that the caller gave has passed.
    Timeout = 200,
    /// The caller cancelled the operation.
    Cancelled = 201,
    /// Somebody else holds it; the error names the holder.
    Contended = 202,
    /// The queue of waiters is at its limit.
    QueueFull = 203,
    /// There is no such thing.
    NotFound = 204,
    /// There is such a thing already.
    AlreadyExists = 205,

    /// The caller does not hold what the operation needs.
    NotHeld = 300,
    /// The hold, or the session that carried it, is lost; the error says why.
    Lost = 301,
    /// A later holder has written already: the caller's fencing token is too old.
    Fenced = 302,
    /// What the write was conditional on has changed in the meantime.
    Conflict = 303,
    /// The store no longer has the history that was asked for; take a new snapshot.
    Compacted = 304,

    /// The store cannot be reached, or does not answer in time.
    Unavailable = 400,
    /// The request may or may not have been applied, and could not be read back in time.
    OutcomeUnknown = 401,
    /// The store does not accept the credentials.
    Unauthorized = 402,
    /// The credentials are good, but lack a right; the message names it.
    Forbidden = 403,
    /// The store holds something that this library cannot have written.
    CorruptState = 404,

    /// A defect of this library, caught at its boundary.
    Panic = 900,
    /// Nothing of the above.
    Unknown = 901,
}

impl Code {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::InvalidArgument,
        Self::Handle,
        Self::AbiMismatch,
        Self::Reentrant,
        Self::Forked,
        Self::Closed,
        Self::Unsupported,
        Self::Timeout,
        Self::Cancelled,
        Self::Contended,
        Self::QueueFull,
        Self::NotFound,
        Self::AlreadyExists,
        Self::NotHeld,
        Self::Lost,
        Self::Fenced,
        Self::Conflict,
        Self::Compacted,
        Self::Unavailable,
        Self::OutcomeUnknown,
        Self::Unauthorized,
        Self::Forbidden,
        Self::CorruptState,
        Self::Panic,
        Self::Unknown,
    ];

    /// The number that C, Go and Python see.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The code with this number, or none.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The name in the documentation, e.g. `InvalidArgument`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::Handle => "Handle",
            Self::AbiMismatch => "AbiMismatch",
            Self::Reentrant => "Reentrant",
            Self::Forked => "Forked",
            Self::Closed => "Closed",
            Self::Unsupported => "Unsupported",
            Self::Timeout => "Timeout",
            Self::Cancelled => "Cancelled",
            Self::Contended => "Contended",
            Self::QueueFull => "QueueFull",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::NotHeld => "NotHeld",
            Self::Lost => "Lost",
            Self::Fenced => "Fenced",
            Self::Conflict => "Conflict",
            Self::Compacted => "Compacted",
            Self::Unavailable => "Unavailable",
            Self::OutcomeUnknown => "OutcomeUnknown",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::CorruptState => "CorruptState",
            Self::Panic => "Panic",
            Self::Unknown => "Unknown",
        }
    }

    /// The class of the older Go library's codes that this one belongs to:
    /// 0 unknown, 1 not found, 2 already exists, 3 invalid argument, 4 unauthorized, 5 forbidden.
    pub const fn class(self) -> i32 {
        match self {
            Self::NotFound => 1,
            Self::AlreadyExists => 2,
            Self::InvalidArgument | Self::Handle | Self::AbiMismatch | Self::Unsupported => 3,
            Self::Unauthorized => 4,
            Self::Forbidden => 5,
            _ => 0,
        }
    }

    /// Whether trying again can help.
    ///
    /// It does not say that nothing was done: after `Unavailable` and `OutcomeUnknown`, and after the `Timeout` of a
    /// write, it may have been. After `Lost` acquire anew, after `Conflict` read anew. A mail whose outcome is unknown
    /// may be sent twice.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Contended
                | Self::QueueFull
                | Self::Conflict
                | Self::Compacted
                | Self::Unavailable
                | Self::OutcomeUnknown
                | Self::Lost
        )
    }
}

/// Why a hold, or the session that carried it, is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum LossReason {
    /// The session could not be renewed in time. Others may take over from now on.
    Expired = 1,
    /// Another process declared the session dead after it had seen no renewal for its whole TTL, or a copy
    /// of this process renewed in its place.
    Killed = 2,
    /// An operator broke the lock.
    Broken = 3,
    /// The store was replaced or lost what it had acknowledged.
    StoreReplaced = 4,
    /// The process was forked, and this is the child.
    Forked = 5,
    /// The client was closed while the hold was still in use.
    Closed = 6,
    /// The leader resigned, or handed its term over, by its own wish.
    Resigned = 7,
}

impl LossReason {
    /// The name in the documentation, e.g. `Expired`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "Expired",
            Self::Killed => "Killed",
            Self::Broken => "Broken",
            Self::StoreReplaced => "StoreReplaced",
            Self::Forked => "Forked",
            Self::Closed => "Closed",
            Self::Resigned => "Resigned",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Expired => "its session could not be renewed in time",
            Self::Killed => "its session was declared dead by another process, or renewed by a copy of this one",
            Self::Broken => "an operator broke it",
            Self::StoreReplaced => "the store was replaced, or has lost what it had acknowledged",
            Self::Forked => "this process is a forked child of the holder",
            Self::Closed => "its client was closed",
            Self::Resigned => "it was resigned or handed over by this client itself",
        }
    }
}

/// Whether the holder of a contended name still gives signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(i32)]
pub enum HolderState {
    /// It renewed its session while this client looked.
    Live = 0,
    /// No renewal was seen since this client began to look; the holder's `silent_for` says for how long.
    Silent = 1,
    /// Its session is dead; the next waiter takes over.
    Dead = 2,
}

/// Who holds a name, as the store and this client's observation know it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The name that the holder's client was given, or an empty text.
    pub name: String,
    /// The session's id: 32 hexadecimal digits, new at every start of a client.
    pub session: String,
    /// The host name that the holder reported.
    pub host: String,
    /// The holder's process id on that host.
    pub pid: u32,
    /// The fencing token of this hold.
    pub token: i64,
    /// When it was granted, in milliseconds since 1970 by the store's clock. For people, never for decisions.
    pub since_ms: i64,
    /// What this client has observed of the holder's session.
    pub state: HolderState,
    /// How long this client has seen no renewal.
    pub silent_for: Duration,
    /// Whether the holder is this very client: a lock is not re-entrant, and waits for its own release like anyone.
    pub is_self: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_self {
            f.write_str("this client itself (locks are not re-entrant)")?;
        } else if self.name.is_empty() {
            write!(f, "session {}", &self.session[..self.session.len().min(8)])?;
        } else {
            write!(f, "{}", self.name)?;
        }
        if !self.host.is_empty() {
            write!(f, " on {} (pid {})", self.host, self.pid)?;
        }
        match self.state {
            HolderState::Live => Ok(()),
            HolderState::Silent => write!(f, ", silent for {:.1} s", self.silent_for.as_secs_f64()),
            HolderState::Dead => f.write_str(", whose session is dead"),
        }
    }
}

/// A failure: a stable [`Code`], a message for people, and what the code promises beside it.
///
/// Cheap to clone, since one failure can end many waiting operations.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    message: String,
    holder: Option<Holder>,
    loss: Option<LossReason>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this code. The message says what was wrong and what to do.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::build(code, message.into(), None, None, None)
    }

    /// The same with the error that caused it.
    pub fn with_source(
        code: Code,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::build(code, message.into(), None, None, Some(source.into()))
    }

    /// An argument that is malformed or out of range.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The store cannot be reached or does not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// `what` (e.g. "lock 'a'") is lost, for this reason.
    pub fn lost(what: &str, reason: LossReason) -> Self {
        let message = format!("{what} is lost: {}", reason.sentence());
        Self::build(Code::Lost, message, None, Some(reason), None)
    }

    /// `what` (e.g. "lock 'a'") is held by somebody.
    pub fn contended(what: &str, holder: Holder) -> Self {
        let message = format!("{what} is held by {holder}");
        Self::build(Code::Contended, message, Some(holder), None, None)
    }

    /// `what` was not granted in time; `holder` is who had it last, where that is known.
    pub fn timeout(what: &str, after: Duration, holder: Option<Holder>) -> Self {
        let behind = holder.as_ref().map(|holder| format!("; it is held by {holder}")).unwrap_or_default();
        let message = format!("{what} was not granted within {} s{behind}", after.as_secs_f64());
        Self::build(Code::Timeout, message, holder, None, None)
    }

    /// The client was closed.
    pub fn closed(what: &str) -> Self {
        Self::new(Code::Closed, format!("{what} is closed"))
    }

    /// This process is a fork of the one that created the client.
    pub fn forked() -> Self {
        let message = "this process was forked from one that had a client, and can use nothing of this library; fork \
             before the first client of the process is created, or start processes by spawn or forkserver";
        Self::build(Code::Forked, message.into(), None, Some(LossReason::Forked), None)
    }

    fn build(
        code: Code,
        message: String,
        holder: Option<Holder>,
        loss: Option<LossReason>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { code, message, holder, loss, source }))
    }

    /// What kind of failure this is.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message for people; its wording may change at any time.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether trying again can help; what was tried may have been done already, see [`Code::retryable`].
    pub fn retryable(&self) -> bool {
        self.0.code.retryable()
    }

    /// Who holds it, for [`Code::Contended`], and for [`Code::Timeout`] where it is known.
    pub fn holder(&self) -> Option<&Holder> {
        self.0.holder.as_ref()
    }

    /// Why it is lost, for [`Code::Lost`] and [`Code::Forked`].
    pub fn loss(&self) -> Option<LossReason> {
        self.0.loss
    }

    /// Whether the request may have been applied although it failed.
    pub fn ambiguous(&self) -> bool {
        matches!(self.0.code, Code::Unavailable | Code::OutcomeUnknown | Code::Timeout | Code::Unknown)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("code", &self.0.code).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|e| e.as_ref() as &(dyn StdError + 'static))
    }
}

impl PartialEq for Error {
    /// Two errors are equal when their codes are: messages are not part of the contract.
    fn eq(&self, other: &Self) -> bool {
        self.code() == other.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed_and_unique() {
        let numbers: Vec<i32> = Code::ALL.iter().map(|c| c.number()).collect();
        assert_eq!(
            numbers,
            [
                100, 101, 102, 103, 104, 105, 106, 200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 304, 400, 401,
                402, 403, 404, 900, 901
            ],
            "numbers are part of the ABI: append, never change"
        );
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(7), None);
    }

    #[test]
    fn a_contended_error_names_the_holder() {
        let holder = Holder {
            name: "billing".into(),
            session: "0".repeat(32),
            host: "web1".into(),
            pid: 7,
            token: 3,
            since_ms: 0,
            state: HolderState::Silent,
            silent_for: Duration::from_millis(1500),
            is_self: false,
        };
        let error = Error::contended("lock 'a'", holder);
        assert_eq!(error.to_string(), "lock 'a' is held by billing on web1 (pid 7), silent for 1.5 s");
        assert!(error.retryable());
    }
}
