//! Fixtures for the tests that need real servers and several processes. Not published.
#![deny(unsafe_code)]

pub mod servers;
