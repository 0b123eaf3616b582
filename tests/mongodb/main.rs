//! The MongoDB store against real servers.

mod fixture;
