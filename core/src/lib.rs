//! Coordination between processes: who holds a lock, who leads, which services are up.
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("coord supports Linux on x86-64 and aarch64 only, so far");

mod claims;
pub mod client;
pub mod config;
pub mod driver;
pub mod env;
pub mod error;
pub mod lock;
pub mod name;
pub mod protocol;
pub mod session;
pub mod stats;
pub mod store;
pub mod time;
