//! Waiting without the interpreter, and coming back to it: signals on the main thread, and its end.
//!
//! Before Python 3.14 a thread that comes back to an interpreter that is ending is unwound by force, which no Rust
//! frame survives. So threads that wait here when the interpreter ends stay here.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coord_core::driver::Runtime;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// How often a wait on the main thread looks for signals: Python runs their handlers there and nowhere else.
pub(crate) const SIGNALS: Duration = Duration::from_millis(50);

/// How long the end of the interpreter waits for threads that are on their way back to it.
const RETURN: Duration = Duration::from_secs(2);

static FINISHED: AtomicBool = AtomicBool::new(false);
static RETURNING: AtomicUsize = AtomicUsize::new(0);

/// Runs `wait` without the interpreter. `main` says whether this is the main thread, which must always come back.
pub(crate) fn detached<T: Send>(py: Python<'_>, main: bool, wait: impl Send + FnOnce() -> T) -> T {
    let (value, returned) = py.detach(|| {
        let value = wait();
        (value, Returning::begin(main))
    });
    drop(returned);
    value
}

/// A thread between the end of its wait and the interpreter.
struct Returning;

impl Returning {
    fn begin(main: bool) -> Self {
        RETURNING.fetch_add(1, Ordering::SeqCst);
        // Counted before it looks, so that `finish` sees this thread, or this thread sees `finish`.
        if FINISHED.load(Ordering::SeqCst) && !main {
            RETURNING.fetch_sub(1, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        }
        Self
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        RETURNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The last call before the interpreter ends, on its main thread: from now on no other thread comes back from a wait.
#[pyfunction]
pub(crate) fn finish(py: Python<'_>) {
    FINISHED.store(true, Ordering::SeqCst);
    py.detach(|| {
        let pause = Duration::from_millis(1);
        for _ in 0..RETURN.as_millis() {
            if RETURNING.load(Ordering::SeqCst) == 0 {
                return;
            }
            std::thread::sleep(pause);
        }
    });
}

/// Whether this is Python's main thread.
pub(crate) fn is_main(py: Python<'_>) -> PyResult<bool> {
    static THREADING: PyOnceLock<[Py<PyAny>; 2]> = PyOnceLock::new();
    let [main_thread, get_ident] = THREADING.get_or_try_init(py, || {
        let threading = py.import("threading")?;
        PyResult::Ok([threading.getattr("main_thread")?.unbind(), threading.getattr("get_ident")?.unbind()])
    })?;
    let main = main_thread.bind(py).call0()?.getattr(pyo3::intern!(py, "ident"))?;
    main.eq(get_ident.bind(py).call0()?)
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
