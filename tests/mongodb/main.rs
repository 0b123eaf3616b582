//! The MongoDB store against real servers.

mod conformance;
mod connecting;
mod corrupt;
mod differential;
mod documents;
mod documents_random;
mod dropped;
mod elections;
mod failover;
mod faults;
mod fixture;
mod outages;
mod role;
mod roster;
mod steps;
mod support;
mod tables;
mod transactions;
