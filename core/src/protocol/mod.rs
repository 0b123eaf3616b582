//! The protocol: records, and the steps that change them, as pure functions.
//!
//! Architecture invariant: nothing here is async, reads a clock, draws a random number or does I/O. Time is an
//! argument (`now`), and what a store does to a record is a function from the old record to the new one. Memory
//! calls these functions; SQLite and MongoDB are tested equal to them.
//!
//! - [`session`]: who is alive. The record in the store, the holder's own view of it, and what an observer may
//!   conclude from watching it.
//! - [`claim`]: who holds what. One record per name with a holder, waiters in order, and a fencing token.
//! - [`document`]: what users keep in tables, and what may be done to one of it.
//! - [`leadership`]: the story of an election, as an observer tells it. [`candidacy`]: the functions of one client that
//!   share a campaign.
//! - [`roster`]: who provides what. Part of the sessions' records, and the view that an observer has of all of them.

pub mod candidacy;
pub mod claim;
pub mod document;
pub mod leadership;
pub mod roster;
pub mod session;
