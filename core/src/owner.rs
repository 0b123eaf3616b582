//! Owners: the sessions that are alive, who they are, what they hold and what they provide.

use std::collections::BTreeMap;
use std::fmt;

use crate::client::Client;
use crate::error::{HolderState, Result};

/// A session that is alive, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// Its id, new at every start of a client and after every loss.
    pub session: String,
    /// The name that its client was given.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// The labels that its client was given.
    pub labels: BTreeMap<String, String>,
    /// When it was opened, in milliseconds since 1970 by the store's clock. For people.
    pub since_ms: i64,
    /// When it was renewed last, as far as this client has read, likewise.
    pub last_renewal_ms: i64,
    /// Whether this client has seen it renew: see [`HolderState`].
    pub state: HolderState,
    /// The full keys of the claims that it holds, `kind/namespace/scope/name`, in order.
    pub holds: Vec<String>,
    /// The full names of the services that it provides, in order, once each.
    pub provides: Vec<String>,
}

/// What a watch of owners tells.
///
/// The first events are a bracket: `SnapshotStart`, a `Joined` for each that is there, `SnapshotEnd`. After an interruption there
/// is another one, with the difference between what was known and what is true now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerEvent {
    /// What follows, up to `SnapshotEnd`, leads from what was known to what is true now.
    SnapshotStart,
    /// The view is complete and up to date.
    SnapshotEnd,
    /// A session is there.
    Joined(Owner),
    /// A session was closed by its owner.
    Left(Owner),
    /// A session is dead: it was declared so by another, who had seen it silent for its ttl or knew that its process
    /// had ended.
    Expired(Owner),
}

/// The sessions of a store as they come and go. Dropping it ends it.
pub struct OwnerWatch {
    client: Client,
}

impl Client {
    /// The sessions that are alive, in the order of their ids. Two reads.
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn owners(&self) -> Result<Vec<Owner>> {
        todo!()
    }

    /// Watches sessions come and go. In its events `holds` is what the session held when the watch read it: nothing,
    /// for one that has just joined. `provides` is up to date.
    ///
    /// # Errors
    /// Those of the store; `Closed`.
    pub async fn watch_owners(&self) -> Result<OwnerWatch> {
        todo!()
    }
}

impl OwnerWatch {
    /// The next event; waits for it.
    ///
    /// # Errors
    /// `Closed` when the watch or the client is closed.
    pub async fn next(&self) -> Result<OwnerEvent> {
        todo!()
    }

    /// Ends the watch: a wait for its next event ends with `Closed`.
    pub fn close(&self) {
        todo!()
    }
}

impl fmt::Debug for OwnerWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerWatch({:?})", self.client)
    }
}
