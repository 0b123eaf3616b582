//! Providers: a process says that it offers a service, for as long as its session lives.
//!
//! A provider is a part of its session's record, not a record of its own: when the session ends, cleanly or by death,
//! all that it provided is gone in that same write, and a request that comes after it is refused. So nobody is ever
//! told of a provider whose process is known to be dead.
//!
//! After a lost session the client registers what is still wanted under its next session by itself.

use std::fmt;

use crate::client::Client;
use crate::error::{LossReason, Result};

/// How a service is provided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvideOptions {
    /// Tells the providers of one service in one session apart; random by default. At most 253 bytes.
    pub instance_id: Option<String>,
    /// Whether the provider is registered again under the client's next session after one was lost.
    pub reregister: bool,
}

impl Default for ProvideOptions {
    fn default() -> Self {
        Self { instance_id: None, reregister: true }
    }
}

/// What happens to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderEvent {
    /// It is registered: observers see it.
    Registered,
    /// Its session is lost: observers see, or will see, it leave.
    Lost(LossReason),
    /// It is registered again, under a new session.
    Reregistered,
    /// It was closed, or its client was; or its session was lost and it was not to be registered again. The last event.
    Closed,
}

/// A service that this client provides. Dropping it withdraws it in the background.
pub struct Provider {
    service: String,
}

impl Client {
    /// Says that this process provides a service, with metadata for those who look for one (an address, say; at most
    /// 4 KiB). Returns when observers can see it. One write.
    ///
    /// # Errors
    /// `InvalidArgument` for the name, the metadata or the instance id; `AlreadyExists` if this client provides the
    /// service under this instance id already; `QueueFull` beyond 1,000 providers or 1 MiB of metadata in one session;
    /// `Lost`, `Unavailable`, `Closed`; those of the store.
    pub async fn provide(&self, service: &str, metadata: &str, options: ProvideOptions) -> Result<Provider> {
        todo!("{service} {metadata} {options:?}")
    }
}

impl Provider {
    /// The service's full name, `namespace/scope/name`.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// What tells it apart from other providers of the service in this session.
    pub fn instance_id(&self) -> &str {
        todo!()
    }

    /// The metadata that was given last.
    pub fn metadata(&self) -> String {
        todo!()
    }

    /// Whether it is registered under a session that is not lost. No I/O.
    pub fn is_registered(&self) -> bool {
        todo!()
    }

    /// Replaces the metadata. Returns when observers can see it. One write.
    ///
    /// # Errors
    /// `InvalidArgument`, `QueueFull` as [`Client::provide`]; `Closed` after [`Provider::close`]; those of the store.
    pub async fn update(&self, metadata: &str) -> Result<()> {
        todo!("{metadata}")
    }

    /// The next event; waits for it. The first is `Registered`.
    ///
    /// # Errors
    /// `Closed` after the event `Closed`.
    pub async fn next(&self) -> Result<ProviderEvent> {
        todo!()
    }

    /// Withdraws it. Returns when observers can see that. Closing twice is no error.
    ///
    /// # Errors
    /// Those of the store: then it is tried on in the background, until the session ends.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({}, {})", self.service(), self.instance_id())
    }
}
