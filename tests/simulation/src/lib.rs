//! Deterministic simulation: the real clients, on a simulated store behind a bad network, in one thread.
//!
//! Everything that could differ from run to run comes from one seed: time is virtual and moves only when every task
//! waits, clocks run at different rates, and the store (see [`server`]) delays its commits, loses what it had not
//! committed when it fails over, and answers reads from the past. Clients are paused, crashed and cut off. One seed
//! reproduces one history exactly.
//!
//! Five modes: with [`Mode::Safety`] faults never stop, and the checks are about what must never happen; with
//! [`Mode::Liveness`] everything heals in the end, and everybody who waits must be served within a bound, and
//! nothing may be left behind; with [`Mode::Quiet`] nothing is wrong but the notices, the ttl is long, and everybody
//! must learn soon what the store knows; [`Mode::Elections`] is liveness with elections and their observers instead of
//! locks, [`Mode::Providers`] with providers and theirs.
//!
//! That all this can fail is shown by `mutants`: bad variants of the core, each of which has to be caught.

pub mod checks;
pub mod host;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod panics;
pub mod random;
pub mod report;
pub mod rules;
pub mod server;
pub mod story;

pub use report::{LENGTH, Mode, Report};
pub use story::run;
