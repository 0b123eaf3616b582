//! Real faults: workers as processes of their own, on SQLite and on a replica set of three, killed, stopped and cut
//! off; and a checker that reads what each of them believed, and when.
//!
//! - [`history`]: what a worker writes down. A worker in any language is a program with four arguments: the store's
//!   URL, the file to write its history to, a seed, and the ttl in milliseconds. It works until its standard input ends.
//!   Those in C, Go and Python are in `tests/faults/workers`.
//! - [`check`]: the rules that all histories together must keep.
//! - [`linear`], with [`calls`] and [`document`]: whether one lock, election or document could have answered all calls
//!   as they were answered.
//! - [`workers`]: starting, stopping and killing them; [`dates`]: letting their dates jump.
//! - [`servers`]: the replica set behind [`proxy`], and what happens to it; [`links`]: networks of its members' own, from
//!   which they can be cut off; [`disk`]: SQLite's, which can be full.
//! - [`roster`]: a campaign of its own for providers and observers.
//! - [`campaign`]: faults and pauses in turn, and what must be left in the end.
//!
//! All times are of the host's boot-time clock, so that the histories of several processes can be put side by side.
//!
//! Deliberately absent: several hosts. There, tokens and the register stand for the order of time.
#![deny(unsafe_code)]

pub mod calls;
pub mod campaign;
pub mod check;
pub mod dates;
pub mod disk;
pub mod document;
pub mod history;
pub mod linear;
pub mod links;
pub mod proxy;
pub mod random;
pub mod roster;
pub mod servers;
pub mod workers;
