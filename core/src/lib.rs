//! Coordination between processes: who holds a lock, who leads, which services are up.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests have clocks and threads of their own"))]

#[cfg(not(target_os = "linux"))]
compile_error!("coord supports Linux on x86-64 and aarch64 only, so far");

mod claims;
pub mod client;
pub mod config;
#[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
pub mod driver;
#[allow(clippy::disallowed_methods, reason = "the real world: what the driver spawns on")]
pub mod env;
pub mod error;
pub mod lock;
pub mod name;
pub mod protocol;
pub mod session;
pub mod stats;
pub mod store;
#[allow(clippy::disallowed_methods, reason = "the one place that reads a clock")]
pub mod time;
