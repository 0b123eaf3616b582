//! The C interface of coord. `include/coord.h` is generated from it, and `README.md` is its contract.
//!
//! Five files of plumbing (`boundary`, `handle`, `error`, `bytes`, `queue`), and one per concept whose exports only
//! check, convert, call and convert. Every rule of coordination is in `coord-core`.
//!
//! Invariants:
//! - every export runs inside [`boundary`]: no panic leaves it, and a forked child is turned away before anything of
//!   the parent's is touched;
//! - a handle is a checked value ([`handle`]), so that a wrong one is an error and never an access;
//! - out-parameters are written on success only, an error object on failure only.
//!
//! SAFETY, for every export: the caller keeps what the header asks for, which is that non-null pointers to text,
//! out-parameters and functions are valid for the length of the call. Handles need no such promise.
#![deny(unsafe_code)]
#![allow(non_camel_case_types)]
// One paragraph above says it for all; in the header, whose text these comments are, it would be noise.
#![allow(clippy::missing_safety_doc)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a handle needs 64 bits");

mod boundary;
mod bytes;
mod handle;
mod labels;
mod shared;
pub mod sys;

pub mod version;

pub mod error;

pub mod config;

pub mod cancel;

pub mod options;

pub mod text;

pub mod client;

pub mod session;

pub mod stats;

pub mod lock;

pub mod held;

pub mod listing;

pub mod election;

pub mod term;

pub mod leader;

pub mod candidacy;

pub mod owners;

pub mod provider;

pub mod observer;

pub mod provided;

pub mod fence;

pub mod format;

pub mod table;

pub mod table_write;

pub mod table_read;

pub mod table_admin;

pub mod stored;

pub mod table_watch;

pub mod delivery;

pub mod table_log;

pub mod cached;
pub mod source;

pub mod reconciler;

pub mod reconciler_keys;

pub mod work;

pub mod reconciler_stats;

pub mod mail;

pub mod outbox;

pub mod senders;

pub mod queue;

pub mod event;

pub mod callback;

pub mod log;

pub mod testing;

pub mod debug;
