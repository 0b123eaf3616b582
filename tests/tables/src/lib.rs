//! Reconcilers in many processes under real faults. Two campaigns:
//!
//! - [`everything`]: a table of many documents on a replica set with a small oplog, which a program writes with the plain
//!   driver while primaries step down and reconcilers are killed or stopped until their place in the oplog is gone. In
//!   the end the last state of each key that each reconciler has seen must be what the collection holds.
//! - [`shards`]: replicas of one sharded reconciler that are killed and stopped. Each run is written down with its token
//!   and the times at which its check succeeded; [`check`] reads that: no key is run by two at once by their own tokens,
//!   and every change is run within a bound.
//!
//! A campaign takes minutes, so it is no part of `make test`; the checker's own tests, with planted violations, are.

pub mod check;
pub mod everything;
mod program;
pub mod shards;
pub mod worker;
