//! Waiting without the interpreter, and coming back to it: signals on the main thread, and its end.
//!
//! Before Python 3.14 a thread that comes back to an interpreter that is ending is unwound by force, which no Rust
//! frame survives. A thread comes back when it has waited here, and also whenever Python's code runs, which gives others
//! a turn. So whoever does either is counted until it is through; and once the interpreter ends, nobody comes back from a
//! wait and nobody begins to run Python's code from here: such threads stay here.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::thread::{self, ThreadId};
use std::time::Duration;

use coord_core::driver::Runtime;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// How often a wait on the main thread looks for signals: Python runs their handlers there and nowhere else.
pub(crate) const SIGNALS: Duration = Duration::from_millis(50);

/// How long the end of the interpreter waits for threads that are inside.
const THROUGH: Duration = Duration::from_secs(2);

/// The main thread, once it ends the interpreter.
static FINISHER: OnceLock<ThreadId> = OnceLock::new();
/// How many threads are inside.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How often this thread is.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Whether this is Python's main thread, once it was asked: that takes longer than many a wait.
    static MAIN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// This thread runs Python's code, or comes back from a wait: the end of the interpreter waits until this is dropped.
pub(crate) struct Inside(());

impl Inside {
    /// Before anything that runs Python's code. It does not return when the interpreter ends on another thread.
    pub(crate) fn enter(py: Python<'_>) -> Self {
        Self::count().unwrap_or_else(|| py.detach(|| stay()))
    }

    fn count() -> Option<Self> {
        let outer = DEPTH.get();
        DEPTH.set(outer + 1);
        let inside = Self(());
        if outer > 0 {
            // It is waited for already.
            return Some(inside);
        }
        INSIDE.fetch_add(1, Ordering::SeqCst);
        // Counted before it looks, so that `finish` sees this thread, or this thread sees `finish`.
        fence(Ordering::SeqCst);
        FINISHER.get().is_none_or(|main| *main == thread::current().id()).then_some(inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() == 0 {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// Runs `wait` without the interpreter. Who waits is not inside, and is again afterwards.
pub(crate) fn detached<T: Send>(py: Python<'_>, wait: impl Send + FnOnce() -> T) -> (T, Inside) {
    py.detach(|| {
        let value = wait();
        (value, Inside::count().unwrap_or_else(|| stay()))
    })
}

/// The last call before the interpreter ends, on its main thread: from now on no other thread comes inside. Nothing that
/// waits for other threads may follow, so this is the first handler that `import coord` registers, and runs as its last.
#[pyfunction]
pub(crate) fn finish(py: Python<'_>) {
    FINISHER.get_or_init(|| thread::current().id());
    fence(Ordering::SeqCst);
    py.detach(|| {
        let pause = Duration::from_millis(1);
        for _ in 0..THROUGH.as_millis() {
            if INSIDE.load(Ordering::SeqCst) == 0 {
                return;
            }
            thread::sleep(pause);
        }
    });
}

/// After a fork, in the child: of the threads that were inside it has at most this one.
#[pyfunction]
pub(crate) fn in_child() {
    INSIDE.store(usize::from(DEPTH.get() > 0), Ordering::SeqCst);
    // Whoever forked is the child's main thread.
    MAIN.set(None);
}

/// Whether this is Python's main thread.
pub(crate) fn is_main(py: Python<'_>) -> PyResult<bool> {
    if let Some(known) = MAIN.get() {
        return Ok(known);
    }
    let _inside = Inside::enter(py);
    static THREADING: PyOnceLock<[Py<PyAny>; 2]> = PyOnceLock::new();
    let [main_thread, get_ident] = THREADING.get_or_try_init(py, || {
        let threading = py.import("threading")?;
        PyResult::Ok([threading.getattr("main_thread")?.unbind(), threading.getattr("get_ident")?.unbind()])
    })?;
    let main = main_thread.bind(py).call0()?.getattr(pyo3::intern!(py, "ident"))?;
    let main = main.eq(get_ident.bind(py).call0()?)?;
    MAIN.set(Some(main));
    Ok(main)
}

/// Whether this process is a forked child of the one that connected, where nothing of the library works.
#[pyfunction]
pub(crate) fn forked() -> bool {
    !Runtime::is_ours()
}

/// How many threads the library has: zero some time after the last client is closed and gone.
#[pyfunction]
pub(crate) fn thread_count() -> usize {
    coord_core::driver::thread_count()
}
