//! Deterministic simulation: the real clients, on a simulated store behind a bad network, in one thread.
//!
//! Everything that could differ from run to run comes from one seed: time is virtual and moves only when every task
//! waits, clocks run at different rates, and the store (see [`server`]) delays its commits, loses what it had not
//! committed when it fails over, and answers reads from the past. Clients are paused, crashed and cut off. One seed
//! reproduces one history exactly.
//!
//! Two modes: with [`Mode::Safety`] faults never stop, and the checks are about what must never happen; with
//! [`Mode::Liveness`] everything heals in the end, and everybody who waits must be served within a bound, and
//! nothing may be left behind.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

pub mod checks;
pub mod host;
pub mod random;
pub mod server;
pub mod story;

pub use story::{Mode, Report, run};
