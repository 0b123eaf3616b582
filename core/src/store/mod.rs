//! What a store must be able to do: apply one step of the protocol to one record, atomically; read; and tell.
//!
//! Architecture invariant: nothing here names a backend. A store never decides anything that `protocol` could
//! decide: memory calls the pure step, SQLite and MongoDB are tested equal to it, by [`conformance`] and by random
//! comparison.
//!
//! Backends: [`memory`] (one process), `sqlite` (one machine), `mongodb` (many).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::future::BoxFuture;

use self::changes::{Changes, Interest};
use self::documents::Documents;
use crate::error::Result;
use crate::protocol::claim::{ClaimKey, ClaimRecord, ClaimStep, ClaimView, Entry};
use crate::protocol::session::{SessionId, SessionRecord, SessionStep};
use crate::time::WallTime;

pub mod changes;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::disallowed_methods, reason = "a test's patience is not the protocol's time")]
pub mod conformance;
pub(crate) mod counted;
pub mod documents;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod memory;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "sqlite")]
#[allow(clippy::disallowed_methods, reason = "SQLite blocks, so it has threads of its own, which may sleep")]
pub mod sqlite;

/// What the core has to know about a store. Only flags on which it branches; each is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Several processes can use it, so the kernel lock of a process says something about its sessions.
    pub multi_process: bool,
    /// Several hosts can use it.
    pub multi_host: bool,
    /// A free kernel lock proves death even if this process never saw it held, because the store itself stands on
    /// working file locks.
    pub kernel_locks_trusted: bool,
}

/// Which sessions to read. What they provide may be much, and is left out unless it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionQuery {
    /// Those of the given ids that exist.
    Ids(Vec<SessionId>),
    /// All that are live.
    Live,
    /// All that are live, with what they provide.
    Roster,
}

/// Which claims to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimQuery {
    /// Those of the given keys that exist.
    Keys(Vec<ClaimKey>),
    /// All that this session holds or waits for. Shows every write that this client knows to be acknowledged.
    Of(SessionId),
    /// All that this session holds, with the same promise; waiters are not looked for.
    HeldBy(SessionId),
    /// All whose key begins with this text, in the order of their keys.
    Prefix(String),
    /// Free ones that were granted last before this date, or never; so many at most, in whichever order the store likes.
    /// The date is the store's own, and may be wrong.
    Unused {
        /// The date.
        before: WallTime,
        /// How many.
        limit: usize,
    },
}

/// What a store tells a session without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The stream begins here, or has a gap here: read what you wait for.
    Gap,
    /// This entry was granted the claim, with this token.
    Granted {
        /// The claim.
        key: ClaimKey,
        /// The session's entry.
        entry: Entry,
        /// The token.
        token: i64,
    },
    /// An operator asks this entry to give the claim up.
    Breaking {
        /// The claim.
        key: ClaimKey,
        /// The session's entry.
        entry: Entry,
        /// The token of the hold that is to end.
        token: i64,
    },
}

/// Notices for one session, for ever: the store reconnects behind it. Begins with [`Notice::Gap`].
pub type Notices = Pin<Box<dyn Stream<Item = Notice> + Send>>;

/// What a step on a claim did: the claim as it is now, or none if the step's condition did not hold.
pub type Applied = Option<ClaimView>;

/// A place where records live and steps are applied, one at a time per record.
///
/// Errors of every call: `Unavailable` (whether a write was applied, or still will be, is not known), `Unauthorized`,
/// `Forbidden`, `CorruptState`, `Closed`. Each call has a time limit of its own. A write is acknowledged only when it
/// is as durable as the store promises. A future may be dropped at any time: what it began may then still happen.
pub trait Store: Send + Sync + fmt::Debug {
    /// Applies one step to one session. None if the step's condition did not hold; nothing was written then. The answer
    /// leaves out what the session provides.
    fn apply_session(&self, id: SessionId, step: SessionStep) -> BoxFuture<'_, Result<Option<SessionRecord>>>;

    /// Applies one step to one claim, and tells the new holder, if there is one, through its notices. The entry that
    /// the step itself adds may be left out where a step is never applied after its caller has gone: the answer tells it,
    /// and a notice would wake a task for nothing. A store behind a network must send it, since nobody may hear the answer.
    fn apply_claim(&self, key: ClaimKey, step: ClaimStep) -> BoxFuture<'_, Result<Applied>>;

    /// Reads sessions. May be stale, unless it says otherwise.
    fn sessions(&self, query: SessionQuery) -> BoxFuture<'_, Result<Vec<SessionRecord>>>;

    /// Reads claims. May be stale, unless [`ClaimQuery`] says otherwise. A record that is corrupt is left out of a
    /// listing, with a warning in the log.
    fn claims(&self, query: ClaimQuery) -> BoxFuture<'_, Result<Vec<ClaimRecord>>>;

    /// Opens the stream of what concerns this session. One stream carries all that a client waits for.
    fn notices(&self, id: SessionId) -> BoxFuture<'_, Result<Notices>>;

    /// Opens a stream of changes (see [`changes`]). A client opens one for all in it who look on.
    fn changes(&self, interest: Interest) -> BoxFuture<'_, Result<Changes>>;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// The directory for the sessions' lock files, where the store has one of its own.
    fn run_directory(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// Its tables, if it keeps documents.
    fn documents(&self) -> Option<&dyn Documents> {
        None
    }

    /// Asks the store whether it could be written to now.
    fn health(&self) -> BoxFuture<'_, Result<()>>;

    /// Waits for what runs, and lets go of every connection, file and thread. Calls after it give `Closed`.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A store that many may use.
pub type SharedStore = Arc<dyn Store>;
