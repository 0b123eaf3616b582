//! Real faults: workers as processes of their own, on SQLite and on a replica set of three, killed, stopped and cut
//! off; and a checker that reads what each of them believed, and when.
//!
//! - [`history`]: what a worker writes down. A worker in any language is a program with three arguments: the store's
//!   URL, the file to write its history to, and a seed. It works until its standard input ends.
//! - [`check`]: the rules that all histories together must keep.
//! - [`linear`]: whether one lock could have answered all calls as they were answered.
//! - [`workers`]: starting, stopping and killing them.
//! - [`servers`]: the replica set behind [`proxy`], and what happens to it.
//! - [`roster`]: a campaign of its own for providers and observers.
//! - [`campaign`]: faults and pauses in turn, and what must be left in the end.
//!
//! All times are of the host's boot-time clock, so that the histories of several processes can be put side by side.
//!
//! Deliberately absent: several hosts. There, tokens and the register stand for the order of time.
#![deny(unsafe_code)]

pub mod campaign;
pub mod check;
pub mod history;
pub mod linear;
pub mod proxy;
pub mod random;
pub mod roster;
pub mod servers;
pub mod workers;
