//! Observers: who provides a service now, and the moments when the first provider comes and the last one goes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::client::Client;
use crate::error::Result;

/// How services are observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObserveOptions {
    /// How long a `LastDown` is held back. It is dropped, with the `FirstUp` that would follow it, when a provider is
    /// back in time. Zero by default.
    pub down_grace: Duration,
}

/// A provider as an observer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderInfo {
    /// The service's full name.
    pub service: String,
    /// What tells it apart from others of the service in the same session.
    pub instance_id: String,
    /// The id of its session, new at every start of a client.
    pub session: String,
    /// The name that its client was given.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// The labels that its client was given.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself.
    pub metadata: String,
}

/// What an observer is told.
///
/// The first events are a bracket: `SnapshotStart`, a `FirstUp` and a `Joined` for each that is there, `SnapshotEnd`. After an
/// interruption there is another one, with the difference between what was known and what is true now. Outside of a
/// bracket events are single changes, in the order in which the store made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObserverEvent {
    /// What follows, up to `SnapshotEnd`, leads from what was known to what is true now.
    SnapshotStart,
    /// The view is complete and up to date.
    SnapshotEnd,
    /// A service has a provider, this one, that had none. Comes before its `Joined`.
    FirstUp(ProviderInfo),
    /// A service has no provider any more. Comes after the last `Left`, or `down_grace` later.
    LastDown {
        /// The service's full name.
        service: String,
    },
    /// A provider has come.
    Joined(ProviderInfo),
    /// A provider has gone: withdrawn, or its session has ended.
    Left(ProviderInfo),
    /// A provider has other metadata.
    Changed(ProviderInfo),
}

/// The providers of some services, as the store has them. All clones are one observer.
#[derive(Clone)]
pub struct Observer {
    pattern: String,
}

impl Client {
    /// Observes a service, or all services of a scope: `name`, `scope/name`, `namespace/scope/name`; `*`, `scope/*`,
    /// `namespace/scope/*`. Returns when the first view is complete.
    ///
    /// However many observers a client has, they share one stream of changes from the store.
    ///
    /// # Errors
    /// `InvalidArgument` for the pattern; `Closed`; those of the store.
    pub async fn observe(&self, pattern: &str, options: ObserveOptions) -> Result<Observer> {
        todo!("{pattern} {options:?}")
    }
}

impl Observer {
    /// What is observed, in full: `namespace/scope/name` or `namespace/scope/*`.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether the service has a provider now, by the latest view (`down_grace` is not waited for). No I/O. An empty
    /// name is the one service that is observed.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is wrong or not observed; `Closed`.
    pub fn is_available(&self, service: &str) -> Result<bool> {
        todo!("{service}")
    }

    /// The full names of the services that have a provider now, in order. No I/O.
    ///
    /// # Errors
    /// `Closed`.
    pub fn services(&self) -> Result<Vec<String>> {
        todo!()
    }

    /// The providers of a service now, in the order of their sessions and instances. No I/O. An empty name is the one service
    /// that is observed.
    ///
    /// # Errors
    /// As [`Observer::is_available`].
    pub fn providers(&self, service: &str) -> Result<Vec<ProviderInfo>> {
        todo!("{service}")
    }

    /// Waits until the service has a provider; for ever without a timeout.
    ///
    /// # Errors
    /// `Timeout`; as [`Observer::is_available`].
    pub async fn wait_available(&self, service: &str, timeout: Option<Duration>) -> Result<()> {
        todo!("{service} {timeout:?}")
    }

    /// Waits until the service has no provider; for ever without a timeout.
    ///
    /// # Errors
    /// `Timeout`; as [`Observer::is_available`].
    pub async fn wait_unavailable(&self, service: &str, timeout: Option<Duration>) -> Result<()> {
        todo!("{service} {timeout:?}")
    }

    /// Whether the view follows the store at this moment; false during an interruption, when it shows what was true
    /// before it. No I/O.
    pub fn synced(&self) -> bool {
        todo!()
    }

    /// The next event; waits for it. One who is slow is told less: of each service what is true now, but never two
    /// `FirstUp` or two `LastDown` of one service in a row.
    ///
    /// # Errors
    /// `Closed` after [`Observer::close`] or when the client is closed.
    pub async fn next(&self) -> Result<ObserverEvent> {
        todo!()
    }

    /// Ends the observer: waits of all its clones end with `Closed`. Closing twice is no error.
    pub fn close(&self) {
        todo!()
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({})", self.pattern)
    }
}
