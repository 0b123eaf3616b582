//! The one tokio runtime of this process, shared by all clients, alive while somebody has a handle.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::{Builder, Handle};

use super::sys;
use crate::error::{Code, Error, Result};

/// A handle of the shared runtime; cheap to clone.
///
/// The runtime starts with the first handle and ends, in the background, with the last; after that a new one may
/// start. Dropping a handle never waits, on whatever thread. Futures that still run then are dropped.
///
/// In a process forked from the one that started it every call gives `Forked`, and dropping a handle does nothing.
#[derive(Clone)]
pub struct Runtime(Arc<Shared>);

struct Shared {
    /// Taken only by `drop`.
    tokio: Option<tokio::runtime::Runtime>,
    handle: Handle,
}

struct Current {
    hooked: bool,
    runtime: Weak<Shared>,
}

static CURRENT: Mutex<Current> = Mutex::new(Current { hooked: false, runtime: Weak::new() });

/// The process that started a runtime, or 0. Set before anything else is touched, so that a child of a fork in the
/// midst of that never waits for a mutex whose holder it does not have.
static STARTED_BY: AtomicU32 = AtomicU32::new(0);

pub(super) static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The shared runtime serves I/O and timers; what computes belongs elsewhere.
const WORKERS: usize = 2;

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// How many threads the library has at this moment: zero some time after the last handle is gone. For tests.
pub fn thread_count() -> usize {
    THREADS.load(Ordering::SeqCst)
}

impl Runtime {
    /// A handle of the shared runtime, which is started if there is none. Does not block on the network.
    ///
    /// # Errors
    /// `Forked` in a child of a process that had started a runtime (tokio cannot be used there, not even anew);
    /// `Unavailable` when the system gives no threads or descriptors.
    pub fn shared() -> Result<Self> {
        check_starter()?;
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = current.runtime.upgrade() {
            return Ok(Self(runtime));
        }
        let cannot =
            |error| Error::with_source(Code::Unavailable, "the system cannot run the library's threads", error);
        if !current.hooked {
            sys::install_fork_hook().map_err(cannot)?;
            current.hooked = true;
        }
        let tokio = build().map_err(cannot)?;
        let handle = tokio.handle().clone();
        let runtime = Arc::new(Shared { tokio: Some(tokio), handle });
        current.runtime = Arc::downgrade(&runtime);
        Ok(Self(runtime))
    }

    /// tokio's handle, for spawning. It does not keep the runtime alive.
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Whether this process may use the runtime.
    ///
    /// # Errors
    /// `Forked` in a child of the process that started it.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if Self::is_ours() { Ok(()) } else { Err(Error::forked()) }
    }

    /// Whether this process may touch what belongs to a runtime: false in every child forked from a process that
    /// had started one.
    #[inline]
    pub fn is_ours() -> bool {
        !sys::forked()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("ours", &Self::is_ours()).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A child has none of the threads, and shares the parent's descriptors: anything but a leak would hang or harm.
        match self.tokio.take() {
            Some(tokio) if Runtime::is_ours() => tokio.shutdown_background(),
            tokio => std::mem::forget(tokio),
        }
    }
}

/// Whether this thread belongs to a runtime of ours, so that waiting on it could wait for itself.
#[inline]
pub(super) fn on_runtime_thread() -> bool {
    OURS.get()
}

/// The error for a task that the runtime gave up because its last handle is gone.
pub(super) fn shut_down() -> Error {
    Error::closed("the runtime of this library")
}

/// # Errors
/// `Forked` in a child of the process that has started a runtime, or is about to.
fn check_starter() -> Result<()> {
    // Every child knows what it is, and nobody has to ask the kernel who he is.
    if sys::tells_every_child() {
        return if Runtime::is_ours() { Ok(()) } else { Err(Error::forked()) };
    }
    let me = std::process::id();
    match STARTED_BY.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Err(starter) if starter != me => Err(Error::forked()),
        _ => Ok(()),
    }
}

fn build() -> std::io::Result<tokio::runtime::Runtime> {
    // Threads inherit the mask of the one that starts them; those started later set their own.
    let _blocked = sys::SignalsBlocked::new();
    let next = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name_fn(move || format!("coord-rt-{}", next.fetch_add(1, Ordering::Relaxed)))
        .on_thread_start(|| {
            sys::block_signals();
            OURS.set(true);
            THREADS.fetch_add(1, Ordering::SeqCst);
        })
        .on_thread_stop(|| {
            THREADS.fetch_sub(1, Ordering::SeqCst);
        })
        .enable_all()
        .build()
}
