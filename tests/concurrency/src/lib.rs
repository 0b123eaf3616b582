//! The core's own synchronization, played in the orders that a scheduler could choose: with loom, which tries all of
//! them and all that the memory model allows; and with shuttle, which draws many by chance, where all are too many.
//!
//! The files of the core are played as they are. They name their locks, conditions and atomics through the module
//! that contains them, and here that module has loom's or shuttle's. Each check is also made to fail, by a variant that
//! is known to be wrong: one that cannot fail proves nothing.
//!
//! `COORD_SCHEDULES` says how many schedules shuttle plays of each test (20,000).
//!
//! Of tokio the files of claims use channels and notifications, which need no runtime. Each of their calls is one step
//! here: what happens inside of them is tokio's own to test.
#![cfg(test)]
#![deny(unsafe_code)]
#![allow(
    dead_code,
    unused_imports,
    clippy::duplicate_mod,
    reason = "the core's files have more than is played here, and are played twice"
)]
#![allow(unused_qualifications, unreachable_pub, missing_docs, reason = "they are other crates' items there")]

// What the core's files name.
use coord_core::{error, failpoints, protocol, store, time};

#[path = "../../../core/src/claims/mod.rs"]
mod claims;
mod deaf;
mod driver;
mod grants;
mod mutants;
mod queue;
mod session;
mod validity;

fn schedules() -> usize {
    std::env::var("COORD_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}
