//! The MongoDB store against real servers.

mod conformance;
mod connecting;
mod corrupt;
mod differential;
mod elections;
mod failover;
mod faults;
mod fixture;
mod steps;
mod support;
