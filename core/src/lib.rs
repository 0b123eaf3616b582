//! Coordination between processes of one machine or of many: who holds a lock, who leads, and whether they still do.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> coord_core::Result<()> {
//! let client = coord_core::connect("memory:").await?;
//! let held = client.lock("a")?.acquire().await?;
//! println!("token {}, valid for another {:?}", held.token(), held.remaining());
//! held.check()?; // before each effect
//! held.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! One idea carries the crate: the protocol is pure data and pure functions, a store applies one step to one record
//! atomically, and everything else is a thin driver around that.
//!
//! In reading order:
//! - [`protocol`]: the records and the steps that change them. No I/O, no clock, no async.
//! - [`store`]: what a store must be able to do, and those that can: memory, SQLite, MongoDB.
//! - `session` and `claims`: one process's side of the protocol: staying alive, holding and waiting.
//! - [`lock`] and [`election`]: what users hold. [`table`]: what they keep; [`reconciler`]: what acts on it. `mail`: what
//!   they send. [`client`]: what they connect.
//! - [`provider`], [`observer`], [`owner`]: who offers a service, who looks for one, and who is there at all.
//! - [`driver`]: the runtime, blocking waits and the event queue that C, Go and Python poll.
//! - [`testing`]: who leads, who dies and what time it is, for tests of users' code.
//! - [`error`], [`name`], [`config`], [`time`], [`mod@env`]: what all of them use.
//!
//! Everything public may be called from any thread and any executor: the crate has a runtime of its own.
//!
//! # Features
//! `sqlite` and `mongodb` (both on by default) each bring a store; without them there is only memory. `mail` (on by
//! default) brings the mailer. `testing` brings
//! the suite that every store passes and a store behind a bad network. `mutants` and `failpoints` are for this
//! project's own campaigns.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests have clocks and threads of their own"))]

#[cfg(not(target_os = "linux"))]
compile_error!("coord supports Linux on x86-64 and aarch64 only, so far");

mod acquire;
mod claims;
pub mod client;
pub mod config;
#[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
pub mod driver;
pub mod election;
#[allow(clippy::disallowed_methods, reason = "the real world: what the driver spawns on")]
pub mod env;
pub mod error;
pub mod failpoints;
pub mod lock;
#[cfg(feature = "mail")]
pub mod mail;
pub mod mutants;
pub mod name;
pub mod observer;
pub mod owner;
pub mod protocol;
pub mod provider;
pub mod reconciler;
mod session;
pub mod stats;
pub mod store;
pub mod table;
pub mod testing;
#[allow(clippy::disallowed_methods, reason = "the one place that reads a clock")]
pub mod time;

pub use bson;
pub use client::{Client, SessionStatus, connect};
pub use config::Options;
pub use election::{Election, Term};
pub use error::{Code, Error, Result};
pub use lock::{Held, Lock, LockInfo};
pub use observer::{ObserveOptions, Observer, ObserverEvent, ProviderInfo};
pub use owner::{Owner, OwnerEvent, OwnerWatch};
pub use protocol::session::{SessionId, SessionState};
pub use provider::{ProvideOptions, Provider, ProviderEvent};
pub use reconciler::Reconciler;
pub use table::{CachedTable, Table};
