//! Errors: status numbers, and the object that says more.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use coord_core::driver::Runtime;
use coord_core::error::{Code, Error, LossReason};

use crate::boundary::unchecked;
use crate::bytes::{Lent, empty, fixed};
use crate::handle::{self, Owned, object};
use crate::listing::{HolderObject, coord_holder_t};

/// The outcome of a call: `COORD_OK`, or the number of an error. New numbers may be added at any time.
pub type coord_status_t = i32;

/// The call did what it was asked for.
pub const COORD_OK: i32 = 0;
/// An argument is malformed or out of its documented range.
pub const COORD_E_INVALID_ARGUMENT: i32 = 100;
/// The handle was never issued, or is destroyed, or belongs to another kind.
pub const COORD_E_HANDLE: i32 = 101;
/// The caller was built for another version of this interface.
pub const COORD_E_ABI_MISMATCH: i32 = 102;
/// The call is not allowed inside this callback; it would wait for itself.
pub const COORD_E_REENTRANT: i32 = 103;
/// The process was forked from one that had a client; fork before the first client of the process is created.
pub const COORD_E_FORKED: i32 = 104;
/// The client, the session or the hold was closed by its user.
pub const COORD_E_CLOSED: i32 = 105;
/// The store, or this build, cannot do this.
pub const COORD_E_UNSUPPORTED: i32 = 106;
/// The time that the caller gave has passed.
pub const COORD_E_TIMEOUT: i32 = 200;
/// The caller cancelled the operation.
pub const COORD_E_CANCELLED: i32 = 201;
/// Somebody else holds it; `coord_error_holder` says who.
pub const COORD_E_CONTENDED: i32 = 202;
/// The queue of waiters is at its limit.
pub const COORD_E_QUEUE_FULL: i32 = 203;
/// There is no such thing.
pub const COORD_E_NOT_FOUND: i32 = 204;
/// There is such a thing already.
pub const COORD_E_ALREADY_EXISTS: i32 = 205;
/// The caller does not hold what the operation needs.
pub const COORD_E_NOT_HELD: i32 = 300;
/// The hold, or the session that carried it, is lost; `coord_error_loss` says why.
pub const COORD_E_LOST: i32 = 301;
/// A later holder has written already: the caller's fencing token is too old.
pub const COORD_E_FENCED: i32 = 302;
/// What the write was conditional on has changed in the meantime.
pub const COORD_E_CONFLICT: i32 = 303;
/// The store no longer has the history that was asked for; take a new snapshot.
pub const COORD_E_COMPACTED: i32 = 304;
/// The store cannot be reached, or does not answer in time.
pub const COORD_E_UNAVAILABLE: i32 = 400;
/// The request may or may not have been applied, and could not be read back in time.
pub const COORD_E_OUTCOME_UNKNOWN: i32 = 401;
/// The store does not accept the credentials.
pub const COORD_E_UNAUTHORIZED: i32 = 402;
/// The credentials are good, but lack a right; the message names it.
pub const COORD_E_FORBIDDEN: i32 = 403;
/// The store holds something that this library cannot have written.
pub const COORD_E_CORRUPT_STATE: i32 = 404;
/// A defect of this library, caught at its boundary.
pub const COORD_E_PANIC: i32 = 900;
/// Nothing of the above.
pub const COORD_E_UNKNOWN: i32 = 901;

/// Nothing is lost.
pub const COORD_LOSS_NONE: i32 = 0;
/// The session could not be renewed in time.
pub const COORD_LOSS_EXPIRED: i32 = 1;
/// Another process declared the session dead, or a copy of this process renewed in its place.
pub const COORD_LOSS_KILLED: i32 = 2;
/// An operator broke the lock.
pub const COORD_LOSS_BROKEN: i32 = 3;
/// The store was replaced or lost what it had acknowledged.
pub const COORD_LOSS_STORE_REPLACED: i32 = 4;
/// The process was forked, and this is the child.
pub const COORD_LOSS_FORKED: i32 = 5;
/// The client was closed while the hold was still in use.
pub const COORD_LOSS_CLOSED: i32 = 6;
/// The leader resigned, or handed its term over, by its own wish.
pub const COORD_LOSS_RESIGNED: i32 = 7;

/// What went wrong in one call. Every text lent by it is valid until it is destroyed.
pub struct coord_error_t;

pub(crate) struct ErrorObject {
    error: Error,
    message: Lent,
    holder: OnceLock<Option<Owned<HolderObject>>>,
}

object!(ErrorObject, coord_error_t, 1, "error");

impl ErrorObject {
    pub(crate) fn new(error: Error) -> Self {
        let message = Lent::new(error.message());
        Self { error, message, holder: OnceLock::new() }
    }

    fn holder(&self) -> *const coord_holder_t {
        let holder = self.holder.get_or_init(|| self.error.holder().map(|h| Owned::new(HolderObject::new(h))));
        holder.as_ref().map_or(std::ptr::null(), Owned::handle)
    }
}

/// Makes an error the caller's.
pub(crate) fn hand_out(error: Error) -> *mut coord_error_t {
    // A forked child takes no lock of a table: its holder may not exist here.
    if error.code() == Code::Forked && !Runtime::is_ours() {
        return FORKED as *mut coord_error_t;
    }
    handle::issue(ErrorObject::new(error))
}

/// The error of every call in a forked child. Issued never, so that it cannot be anyone else's.
const FORKED: u64 = (1 << 7) - 1;
const FORKED_MESSAGE: &CStr = c"this process was forked from one that had a client, and can use nothing of this \
    library; fork before the first client of the process is created, or start a new program";

/// Reads something of an error; `neutral` for NULL and for what is no error.
fn read<T>(error: *const coord_error_t, neutral: T, forked: T, body: impl FnOnce(&ErrorObject) -> T) -> T
where
    T: Copy,
{
    if error as u64 == FORKED {
        return forked;
    }
    unchecked(neutral, || {
        if error.is_null() || !Runtime::is_ours() {
            return neutral;
        }
        handle::get::<ErrorObject>(error).map_or(neutral, |error| body(&error))
    })
}

/// The status that belongs to this error; `COORD_OK` for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_code(error: *const coord_error_t) -> coord_status_t {
    read(error, COORD_OK, COORD_E_FORKED, |e| e.error.code().number())
}

/// The name of the error's code, e.g. "Timeout"; valid for ever, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_name(error: *const coord_error_t) -> *const c_char {
    match coord_error_code(error) {
        COORD_OK => empty(),
        status => coord_status_name(status),
    }
}

/// What was wrong and what to do, for people; valid until the error is destroyed, empty for NULL.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_message(error: *const coord_error_t) -> *const c_char {
    read(error, empty(), fixed(FORKED_MESSAGE), |e| e.message.start())
}

/// 1 if trying again can help, else 0.
///
/// It does not say that nothing was done: after `COORD_E_UNAVAILABLE` and `COORD_E_OUTCOME_UNKNOWN`, and after the
/// `COORD_E_TIMEOUT` of a write, it may have been. After `COORD_E_LOST` acquire anew, after `COORD_E_CONFLICT` read
/// anew. A mail whose outcome is unknown may be sent twice.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_is_retryable(error: *const coord_error_t) -> i32 {
    read(error, 0, 0, |e| i32::from(e.error.retryable()))
}

/// Why it is lost (`COORD_LOSS_...`), for `COORD_E_LOST` and `COORD_E_FORKED`; else `COORD_LOSS_NONE`.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_loss(error: *const coord_error_t) -> i32 {
    read(error, COORD_LOSS_NONE, COORD_LOSS_FORKED, |e| e.error.loss().map_or(COORD_LOSS_NONE, |l| l as i32))
}

/// Who holds it, for `COORD_E_CONTENDED` and wherever else it is known; else NULL. It belongs to the error and ends
/// with it.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_holder(error: *const coord_error_t) -> *const coord_holder_t {
    let none = std::ptr::null();
    read(error, none, none, ErrorObject::holder)
}

/// Destroys an error and all that it lent. NULL is allowed.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns frees `error`
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_destroy(error: *mut coord_error_t) {
    unchecked((), || {
        if error as u64 != FORKED && Runtime::is_ours() {
            drop(handle::take::<ErrorObject>(error));
        }
    });
}

/// The name of a status, e.g. "Timeout"; "Ok" for `COORD_OK`, "Unknown" for a number that this library does not know.
/// Valid for ever.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_status_name(status: coord_status_t) -> *const c_char {
    if status == COORD_OK {
        return fixed(c"Ok");
    }
    fixed(match Code::from_number(status) {
        Some(Code::InvalidArgument) => c"InvalidArgument",
        Some(Code::Handle) => c"Handle",
        Some(Code::AbiMismatch) => c"AbiMismatch",
        Some(Code::Reentrant) => c"Reentrant",
        Some(Code::Forked) => c"Forked",
        Some(Code::Closed) => c"Closed",
        Some(Code::Unsupported) => c"Unsupported",
        Some(Code::Timeout) => c"Timeout",
        Some(Code::Cancelled) => c"Cancelled",
        Some(Code::Contended) => c"Contended",
        Some(Code::QueueFull) => c"QueueFull",
        Some(Code::NotFound) => c"NotFound",
        Some(Code::AlreadyExists) => c"AlreadyExists",
        Some(Code::NotHeld) => c"NotHeld",
        Some(Code::Lost) => c"Lost",
        Some(Code::Fenced) => c"Fenced",
        Some(Code::Conflict) => c"Conflict",
        Some(Code::Compacted) => c"Compacted",
        Some(Code::Unavailable) => c"Unavailable",
        Some(Code::OutcomeUnknown) => c"OutcomeUnknown",
        Some(Code::Unauthorized) => c"Unauthorized",
        Some(Code::Forbidden) => c"Forbidden",
        Some(Code::CorruptState) => c"CorruptState",
        Some(Code::Panic) => c"Panic",
        _ => c"Unknown",
    })
}

/// 1 if trying again can help after a call that ended with this status, else 0; see coord_error_is_retryable.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_status_is_retryable(status: coord_status_t) -> i32 {
    i32::from(Code::from_number(status).is_some_and(Code::retryable))
}

/// The class of the older Go library's codes that a status belongs to: 0 unknown, 1 not found, 2 already exists,
/// 3 invalid argument, 4 unauthorized, 5 forbidden.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_error_class(status: coord_status_t) -> i32 {
    Code::from_number(status).map_or(0, Code::class)
}

/// The name of a loss (`COORD_LOSS_...`), e.g. "Expired"; "None" for `COORD_LOSS_NONE` and for an unknown number.
/// Valid for ever.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns nothing
/// @since 0.1
#[unsafe(no_mangle)]
pub extern "C" fn coord_loss_name(loss: i32) -> *const c_char {
    fixed(match loss {
        COORD_LOSS_EXPIRED => c"Expired",
        COORD_LOSS_KILLED => c"Killed",
        COORD_LOSS_BROKEN => c"Broken",
        COORD_LOSS_STORE_REPLACED => c"StoreReplaced",
        COORD_LOSS_FORKED => c"Forked",
        COORD_LOSS_CLOSED => c"Closed",
        COORD_LOSS_RESIGNED => c"Resigned",
        _ => c"None",
    })
}

/// The number of a loss, or of none.
pub(crate) fn loss_number(loss: Option<LossReason>) -> i32 {
    loss.map_or(COORD_LOSS_NONE, |reason| reason as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(start: *const c_char) -> String {
        // SAFETY: every text of this file ends with a zero and outlives the tests' use.
        unsafe { CStr::from_ptr(start) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn every_code_has_a_constant_and_its_name() {
        let source = include_str!("error.rs");
        for code in Code::ALL {
            assert_eq!(text(coord_status_name(code.number())), code.name());
            let constant = format!("COORD_E_{}: i32 = {};", shouted(code.name()), code.number());
            assert!(source.contains(&constant), "{constant}");
        }
        assert_eq!(text(coord_status_name(0)), "Ok");
        assert_eq!(text(coord_status_name(i32::MIN)), "Unknown");
    }

    #[test]
    fn every_loss_has_its_name() {
        for reason in [
            LossReason::Expired,
            LossReason::Killed,
            LossReason::Broken,
            LossReason::StoreReplaced,
            LossReason::Forked,
            LossReason::Closed,
            LossReason::Resigned,
        ] {
            assert_eq!(text(coord_loss_name(reason as i32)), reason.name());
        }
        assert_eq!(text(coord_loss_name(77)), "None");
    }

    #[test]
    fn an_error_lends_its_text_until_it_is_destroyed() {
        let error = hand_out(Error::lost("lock 'a'", LossReason::Broken));
        assert_eq!(coord_error_code(error), COORD_E_LOST);
        assert_eq!(text(coord_error_name(error)), "Lost");
        assert!(text(coord_error_message(error)).starts_with("lock 'a' is lost"));
        assert_eq!(coord_error_loss(error), COORD_LOSS_BROKEN);
        assert_eq!(coord_error_is_retryable(error), 1);
        assert!(coord_error_holder(error).is_null());
        coord_error_destroy(error);
        assert_eq!(coord_error_code(error), COORD_OK);
        assert_eq!(text(coord_error_message(error)), "");
        coord_error_destroy(error);
        coord_error_destroy(std::ptr::null_mut());
    }

    #[test]
    fn the_error_of_a_forked_child_needs_no_table() {
        let error = FORKED as *mut coord_error_t;
        assert_eq!(coord_error_code(error), COORD_E_FORKED);
        assert_eq!(coord_error_loss(error), COORD_LOSS_FORKED);
        assert_eq!(
            text(coord_error_message(error)),
            Error::forked().message().replace("processes by spawn or forkserver", "a new program")
        );
        coord_error_destroy(error);
        assert_eq!(coord_error_code(error), COORD_E_FORKED);
    }

    /// `AbiMismatch` as `ABI_MISMATCH`.
    fn shouted(name: &str) -> String {
        let mut out = String::new();
        for c in name.chars() {
            if c.is_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_uppercase());
        }
        out
    }
}
