//! The native module of the Python package `coord`: checks arguments, calls `coord-core`, converts what it answers.
//!
//! In reading order: `call` is an operation that was described but not begun, which Python either waits for or
//! starts on a `queue`, and `feed` is a source of events, one after the other; `client`, `lock` and `held`, `election`,
//! `term` and `candidacy`, `provider`, `observer` and `owner` describe and make them; `loss` is that of a hold or a term;
//! `table`, `cached`, `cursor` and `table_watch` are of documents, which `lowered` and `lifted` convert, and `fence` is a
//! hold as the right to write one; `reconciler` asks for `work`; `answer` and `error` convert what comes back; `log` keeps
//! the library's log until Python fetches it.
//!
//! Invariants: no thread of the library ever attaches to the interpreter; the interpreter is let go around every
//! wait; every object may be used from any thread, and in a forked child it answers `Forked` and leaks what it has.
//!
//! Lacks on purpose: anything that can be written in Python. This module is private and changes without notice.
#![deny(unsafe_code)]

mod answer;
mod args;
mod cached;
mod call;
mod candidacy;
mod client;
mod cursor;
mod election;
mod error;
mod feed;
mod fence;
mod held;
mod interpreter;
mod lifted;
mod lock;
mod log;
mod loss;
mod lowered;
mod mail;
mod observer;
mod ours;
mod owner;
mod provider;
mod queue;
mod reconciler;
mod table;
mod table_watch;
mod term;
mod testing;
mod work;

use pyo3::prelude::*;

/// The private, native part of `coord`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::cached::CachedTable;
    #[pymodule_export]
    use crate::call::Call;
    #[pymodule_export]
    use crate::candidacy::{Candidacy, Elected};
    #[pymodule_export]
    use crate::client::{Client, connect, sanitize};
    #[pymodule_export]
    use crate::cursor::Cursor;
    #[pymodule_export]
    use crate::election::Election;
    #[pymodule_export]
    use crate::error::codes;
    #[pymodule_export]
    use crate::feed::Feed;
    #[pymodule_export]
    use crate::fence::Fence;
    #[pymodule_export]
    use crate::held::Held;
    #[pymodule_export]
    use crate::interpreter::{finish, forked, in_child, thread_count};
    #[pymodule_export]
    use crate::lock::Lock;
    #[pymodule_export]
    use crate::log::{log_start, log_take, log_wake};
    #[pymodule_export]
    use crate::loss::Loss;
    #[pymodule_export]
    use crate::lowered::{decimal128, decimal128_text};
    #[pymodule_export]
    use crate::mail::{Batch, Mailer, Outbox, Senders, mailer, outbox};
    #[pymodule_export]
    use crate::observer::Observer;
    #[pymodule_export]
    use crate::provider::Provider;
    #[pymodule_export]
    use crate::queue::{Op, Queue};
    #[pymodule_export]
    use crate::reconciler::{Reconciler, Source, reconcile};
    #[pymodule_export]
    use crate::table::Table;
    #[pymodule_export]
    use crate::table_watch::{Delivery, TableWatch};
    #[pymodule_export]
    use crate::term::Term;
    #[pymodule_export]
    use crate::testing::Control;
    #[pymodule_export]
    use crate::work::{Request, Work, checked_seconds};

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
