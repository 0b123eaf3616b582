//! Mail: a client that is right, and an outbox that loses nothing.
//!
//! ```no_run
//! # async fn doc() -> coord_core::Result<()> {
//! use coord_core::mail::{Mailer, Message};
//!
//! let mailer = Mailer::open("smtp://shop:secret@mail.example.org?sender=shop@example.org")?;
//! let report = mailer.send(&Message::new().to("ann@example.org").subject("Hello").text("Hello, Ann.")).await?;
//! for recipient in &report.recipients {
//!     println!("{}: {} {}", recipient.address, recipient.code, recipient.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A send that fails before the final dot of the dialogue was certainly not delivered, and is tried again within the
//! bounds of the options. Once the dot may have left, nothing is sent again: without the server's reply the outcome is
//! unknown, and [`Report`] says so.

mod address;
mod json;
mod message;
mod mime;
mod options;
pub mod outbox;
mod pool;
mod report;
mod send;
mod smtp;
mod stream;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::Semaphore;

pub use address::{MAX_ADDRESS, MAX_MAILBOX_NAME, Mailbox};
pub use message::{Address, Attachment, Message};
pub use options::{Auth, MailerOptions, Tls};
pub use outbox::{
    EnqueueOptions, Enqueued, Mail, MailState, OnDoubt, Outbox, OutboxEvent, OutboxOptions, OutboxStats, OutboxWatch,
    Rate, Senders,
};
pub use report::{Recipient, Report, Status};
pub use send::{Batch, Sent};

use crate::client::Client;
use crate::driver::Runtime;
use crate::env::Env;
use crate::error::{Error, Result};
use message::Defaults;
use pool::Pool;

/// A mail server to send through. Cheap to clone; all clones share its connections.
#[derive(Clone)]
pub struct Mailer(Arc<Shared>);

struct Shared {
    runtime: Option<Runtime>,
    env: Env,
    options: Arc<MailerOptions>,
    defaults: Defaults,
    pool: Arc<Pool>,
    /// How many messages may be read and encoded at a time besides: as many as can be sent.
    readers: Arc<Semaphore>,
}

impl Mailer {
    /// A mailer for the server at this URL; see [`MailerOptions::parse`]. No I/O: [`Mailer::health`] asks the server.
    ///
    /// # Errors
    /// `InvalidArgument` for the URL; `Unavailable` when the system gives no threads; `Forked`.
    pub fn open(url: &str) -> Result<Self> {
        Self::new(MailerOptions::parse(url)?)
    }

    /// A mailer with these options. No I/O.
    ///
    /// # Errors
    /// As [`Mailer::open`].
    pub fn new(options: MailerOptions) -> Result<Self> {
        let defaults = options.defaults()?;
        let runtime = Runtime::shared()?;
        let env = Env::system(runtime.handle().clone());
        Ok(Self::start(Some(runtime), env, options, defaults))
    }

    fn start(runtime: Option<Runtime>, env: Env, options: MailerOptions, defaults: Defaults) -> Self {
        let options = Arc::new(options);
        let pool = Pool::new(options.clone(), env.clone());
        let readers = Arc::new(Semaphore::new(options.pool as usize));
        Self(Arc::new(Shared { runtime, env, options, defaults, pool, readers }))
    }

    /// Connects, logs in, and asks the server whether it answers.
    ///
    /// # Errors
    /// `Unavailable` when it does not, within the mailer's `timeout`; `Unauthorized` for the login or the server's
    /// certificate; `Unsupported` when it offers no encryption or no login that is wanted; `Closed`.
    pub async fn health(&self) -> Result<()> {
        let mailer = self.clone();
        self.drive(async move { mailer.ask().await }).await
    }

    /// Ends what it has open: refuses new messages, waits for those that are being sent, and says goodbye to the
    /// server. Closing twice is no error. The senders of its outboxes end, see [`Senders::stop`].
    ///
    /// # Errors
    /// `Forked`.
    pub async fn close(&self) -> Result<()> {
        let pool = self.0.pool.clone();
        self.drive(async move {
            pool.close().await;
            Ok(())
        })
        .await
    }

    /// Where the server is, without user and password: `smtp://host:port`.
    pub fn location(&self) -> String {
        let options = &self.0.options;
        let scheme = if options.tls == Tls::Implicit { "smtps" } else { "smtp" };
        let host = if options.host.contains(':') { format!("[{}]", options.host) } else { options.host.clone() };
        format!("{scheme}://{host}:{}", options.port())
    }

    /// The runtime that it sends on; none if its client was connected by [`Client::with_store`].
    pub fn runtime(&self) -> Option<&Runtime> {
        self.0.runtime.as_ref()
    }

    /// How long a whole send may take.
    fn timeout(&self) -> std::time::Duration {
        self.0.options.timeout
    }

    fn check_open(&self) -> Result<()> {
        if !Runtime::is_ours() {
            return Err(Error::forked());
        }
        if self.0.pool.is_closed() { Err(Error::closed("the mailer")) } else { Ok(()) }
    }

    fn drive<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        future: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F> {
        match &self.0.runtime {
            Some(runtime) => runtime.drive(future).left_future(),
            None => future.boxed().right_future(),
        }
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailer({})", self.location())
    }
}

impl Client {
    /// A mailer for the server at this URL; see [`MailerOptions::parse`]. No I/O. It outlives the client.
    ///
    /// # Errors
    /// As [`Mailer::open`]; `Closed`.
    pub fn mailer(&self, url: &str) -> Result<Mailer> {
        self.mailer_with(MailerOptions::parse(url)?)
    }

    /// A mailer with these options. No I/O.
    ///
    /// # Errors
    /// As [`Client::mailer`].
    pub fn mailer_with(&self, options: MailerOptions) -> Result<Mailer> {
        self.core().check_open()?;
        let defaults = options.defaults()?;
        let env = self.core().setup().env.clone();
        Ok(Mailer::start(self.runtime().cloned(), env, options, defaults))
    }
}
