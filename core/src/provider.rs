//! Providers: a process says that it offers a service, for as long as its session lives.
//!
//! A provider is a part of its session's record, not a record of its own: when the session ends, cleanly or by death,
//! all that it provided is gone in that same write, and a request that comes after it is refused. So nobody is ever
//! told of a provider whose process is known to be dead.
//!
//! After a lost session the client registers what is still wanted under its next session by itself.

use std::fmt;
use std::sync::Arc;

use crate::client::Client;
use crate::driver::Runtime;
use crate::error::{Error, LossReason, Result};
use crate::name::{MAX_NAME, Name, check_part};
use crate::protocol::roster::MAX_METADATA;
use crate::session::providers::{Happened, Offer};

/// How a service is provided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProvideOptions {
    /// Tells the providers of one service in one session apart; random by default. Made like a part of a name.
    pub instance_id: Option<String>,
    /// Whether the provider is registered again under the client's next session after one was lost. It is by default.
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
    client: Client,
    offer: Arc<Offer>,
}

impl Client {
    /// Says that this process provides a service, with metadata for those who look for one (an address, say; at most
    /// 4 KiB). Returns when observers can see it; waits for as long as that takes, also through outages of the store. One
    /// write.
    ///
    /// Dropping the future withdraws it.
    ///
    /// # Errors
    /// `InvalidArgument` for the name, the metadata or the instance id; `AlreadyExists` if this client provides the
    /// service as this instance already; `QueueFull` beyond 1,000 providers or 1 MiB of metadata in one session;
    /// `Closed`, `Forked`; those of the store that waiting cannot cure.
    pub async fn provide(&self, service: &str, metadata: &str, options: ProvideOptions) -> Result<Provider> {
        let core = self.core();
        core.check_open()?;
        let service: Name = self.name(service)?;
        check_metadata(metadata)?;
        let instance = match options.instance_id {
            None => format!("{:016x}", core.setup().env.rng.bits()),
            Some(id) => {
                check_instance(&id)?;
                id
            }
        };
        let (offer, version) =
            core.setup().providers.offer(service.as_str(), &instance, metadata, options.reregister)?;
        let provider = Provider { client: self.clone(), offer: offer.clone() };
        // Closed in between: nobody looks after the table any more.
        core.check_open()?;
        core.drive(async move { offer.registered(version).await }).await?;
        Ok(provider)
    }
}

impl Provider {
    /// The service's full name, `namespace/scope/name`.
    pub fn service(&self) -> &str {
        self.offer.service()
    }

    /// What tells it apart from other providers of the service in this session.
    pub fn instance_id(&self) -> &str {
        self.offer.instance()
    }

    /// The metadata that was given last.
    pub fn metadata(&self) -> String {
        self.offer.metadata()
    }

    /// Whether it is registered under a session that is not lost. No I/O.
    pub fn is_registered(&self) -> bool {
        self.offer.is_registered(self.client.core().current_session().id())
    }

    /// Replaces the metadata. Returns when observers can see it; waits through outages of the store. One write. Goes on in
    /// the background when the future is dropped.
    ///
    /// # Errors
    /// `InvalidArgument`, `QueueFull` as [`Client::provide`], and then nothing has changed; `Closed` after
    /// [`Provider::close`] or when the client is closed; `Forked`; those of the store that waiting cannot cure.
    pub async fn update(&self, metadata: &str) -> Result<()> {
        check_metadata(metadata)?;
        let core = self.client.core();
        core.check_open()?;
        let version = core.setup().providers.update(&self.offer, metadata)?;
        let offer = self.offer.clone();
        core.drive(async move { offer.registered(version).await }).await
    }

    /// The next event; waits for it. The first is `Registered`. Dropping the future loses none; of more than 64 that
    /// nobody has taken the oldest are forgotten.
    ///
    /// # Errors
    /// `Closed` after the event `Closed`; `Forked`.
    pub async fn next(&self) -> Result<ProviderEvent> {
        loop {
            if !Runtime::is_ours() {
                return Err(Error::forked());
            }
            // Taken here and not in the task that waits, so that none is lost with a future that is dropped.
            if let Some(event) = self.offer.take_event()? {
                return Ok(match event {
                    Happened::Registered => ProviderEvent::Registered,
                    Happened::Lost(reason) => ProviderEvent::Lost(reason),
                    Happened::Reregistered => ProviderEvent::Reregistered,
                    Happened::Closed => ProviderEvent::Closed,
                });
            }
            let offer = self.offer.clone();
            self.client.core().drive(async move { offer.has_event().await }).await?;
        }
    }

    /// Withdraws it. Returns when observers can see that; waits through outages of the store. Goes on in the background
    /// when the future is dropped. Closing twice is no error.
    ///
    /// # Errors
    /// `Forked`; those of the store that waiting cannot cure: then it ends with the session.
    pub async fn close(&self) -> Result<()> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        let version = self.client.core().setup().providers.withdraw(&self.offer);
        let offer = self.offer.clone();
        self.client.core().drive(async move { offer.gone(version).await }).await
    }

    /// The client that provides it.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // In a forked child everything belongs to the parent.
        if Runtime::is_ours() {
            self.client.core().setup().providers.withdraw(&self.offer);
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Provider({}, {})", self.service(), self.instance_id())
    }
}

fn check_metadata(metadata: &str) -> Result<()> {
    if metadata.len() > MAX_METADATA {
        return Err(Error::invalid(format!(
            "the metadata of a provider has at most {MAX_METADATA} bytes; these have {}; say where the rest can be found",
            metadata.len()
        )));
    }
    Ok(())
}

fn check_instance(id: &str) -> Result<()> {
    if id.len() > MAX_NAME {
        return Err(Error::invalid(format!("an instance id has at most {MAX_NAME} bytes; this one has {}", id.len())));
    }
    check_part(id)
}
