//! The border between C and Rust: what every export does before and after its own few lines.
//!
//! - A panic ends here, as `COORD_E_PANIC` or as the export's neutral value.
//! - A forked child gets `COORD_E_FORKED` from an atomic comparison: no lock of the parent's is taken, since another
//!   thread of the parent may have held it at the moment of the fork.
//! - Inside a log callback everything is refused, since the caller may hold what the call would need.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use coord_core::driver::Runtime;
use coord_core::error::{Code, Error, Result};

use crate::bytes::Out;
use crate::error::{coord_error_t, coord_status_t, hand_out};

/// Where the caller is, when it is inside one of its own functions that this library has called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    Nothing,
    /// The function of `coord_lock_run`.
    Run,
    /// An event callback.
    EventCallback,
    /// The log callback.
    LogCallback,
}

thread_local! {
    static INSIDE: Cell<Inside> = const { Cell::new(Inside::Nothing) };
}

/// Runs the body of an export that can fail.
pub(crate) fn fallible(err: Out<*mut coord_error_t>, body: impl FnOnce() -> Result<()>) -> coord_status_t {
    match guarded(body) {
        Ok(()) => 0,
        Err(error) => {
            let status = error.code().number();
            if !err.is_null() {
                err.put(unchecked(std::ptr::null_mut(), || hand_out(error)));
            }
            status
        }
    }
}

/// Runs the body of an export that returns a value; `neutral` when that is not possible.
pub(crate) fn value<T>(neutral: T, body: impl FnOnce() -> Result<T>) -> T {
    guarded(body).unwrap_or(neutral)
}

/// Runs the body of an export that returns nothing.
pub(crate) fn quiet(body: impl FnOnce() -> Result<()>) {
    value((), body);
}

/// Runs the body of an export that touches nothing but static data and errors, which is allowed everywhere.
pub(crate) fn unchecked<T>(neutral: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(neutral)
}

fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    if !Runtime::is_ours() {
        return Err(Error::forked());
    }
    if inside() == Inside::LogCallback {
        return Err(Error::new(Code::Reentrant, "a log callback must not call this library"));
    }
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::new(Code::Panic, format!("a defect of coord was caught at its boundary, please report it: {text}"))
}

/// Runs one of the caller's functions, and remembers where it is.
pub(crate) fn call_out<T>(place: Inside, call: impl FnOnce() -> T) -> T {
    struct Restore(Inside);
    impl Drop for Restore {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let _restore = Restore(INSIDE.replace(place));
    call()
}

/// Which of its own functions the caller is in.
pub(crate) fn inside() -> Inside {
    INSIDE.try_with(Cell::get).unwrap_or(Inside::Nothing)
}

/// Refuses what would wait for the function that it is called from.
///
/// # Errors
/// `Reentrant`.
pub(crate) fn refuse_inside_callbacks(what: &str) -> Result<()> {
    match inside() {
        Inside::Nothing => Ok(()),
        _ => Err(Error::new(
            Code::Reentrant,
            format!("{what} is not allowed inside a callback: it could wait for the callback itself"),
        )),
    }
}

/// A time limit in milliseconds: -1 for none, 0 for not waiting.
///
/// # Errors
/// `InvalidArgument` for other negative numbers.
pub(crate) fn timeout(milliseconds: i64) -> Result<Option<Duration>> {
    match milliseconds {
        -1 => Ok(None),
        ms if ms >= 0 => Ok(Some(Duration::from_millis(ms.unsigned_abs())).filter(|t| *t < FOR_EVER)),
        ms => Err(Error::invalid(format!("timeout_ms is -1 (no limit), 0 (do not wait) or more, not {ms}"))),
    }
}

/// A hundred years: longer limits are none, so that no clock overflows.
const FOR_EVER: Duration = Duration::from_secs(3_155_760_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(fallible(Out::null(), || panic!("on purpose")), Code::Panic.number());
        assert_eq!(value(7, || panic!("on purpose")), 7);
        assert_eq!(unchecked(7, || panic!("on purpose")), 7);
    }

    #[test]
    fn the_log_callback_calls_nothing() {
        let status = call_out(Inside::LogCallback, || fallible(Out::null(), || Ok(())));
        assert_eq!(status, Code::Reentrant.number());
        assert_eq!(fallible(Out::null(), || Ok(())), 0);
    }

    #[test]
    fn limits_are_read_as_documented() {
        assert_eq!(timeout(-1).unwrap(), None);
        assert_eq!(timeout(0).unwrap(), Some(Duration::ZERO));
        assert_eq!(timeout(1500).unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(timeout(i64::MAX).unwrap(), None);
        assert_eq!(timeout(-2).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(timeout(i64::MIN).unwrap_err().code(), Code::InvalidArgument);
    }
}
