//! The library's log, given to a function of the caller's.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use coord_core::error::{Code, Error, Result};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::boundary::{Inside, call_out, fallible, inside};
use crate::bytes::{Lent, Out};
use crate::error::{coord_error_t, coord_status_t};
use crate::sys::{UserData, coord_destroy_cb};

/// Nothing is logged.
pub const COORD_LOG_OFF: i32 = 0;
/// Something failed that the library cannot cure.
pub const COORD_LOG_ERROR: i32 = 1;
/// Something needs attention: a hold was lost, the store cannot be reached.
pub const COORD_LOG_WARN: i32 = 2;
/// What an operator wants to know in normal times.
pub const COORD_LOG_INFO: i32 = 3;
/// What helps to find a mistake.
pub const COORD_LOG_DEBUG: i32 = 4;
/// Everything.
pub const COORD_LOG_TRACE: i32 = 5;

/// Gets one line of the log: its level (COORD_LOG_...), where it comes from, and what it says. The texts are valid for
/// the length of the call.
///
/// Comes from any thread, also from several at once. MUST return soon, MUST NOT throw, and MUST NOT call this library,
/// which answers COORD_E_REENTRANT.
pub type coord_log_cb =
    Option<unsafe extern "C" fn(level: i32, target: *const c_char, message: *const c_char, user_data: *mut c_void)>;

/// Gives every line of the library's log up to `level` to `callback`; NULL or COORD_LOG_OFF ends that. One callback
/// serves the whole process: a later one replaces it. `destroy`, which may be NULL, gets `user_data` exactly once:
/// after the last call of the callback has returned, or before this call returns if it fails.
///
/// The log never contains secrets, and its wording is not part of this interface.
///
/// @threadsafe yes
/// @blocks no
/// @callback_safe yes
/// @owns the library owns `user_data` until it calls `destroy`
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn coord_log_set_callback(
    level: i32,
    callback: coord_log_cb,
    user_data: *mut c_void,
    destroy: coord_destroy_cb,
    err: *mut *mut coord_error_t,
) -> coord_status_t {
    // SAFETY: as every export, see lib.rs.
    let (user_data, err) = unsafe { (UserData::new(user_data, destroy), Out::lent(err)) };
    fallible(err, move || {
        if !(COORD_LOG_OFF..=COORD_LOG_TRACE).contains(&level) {
            return Err(Error::invalid(format!("level is from COORD_LOG_OFF (0) to COORD_LOG_TRACE (5), not {level}")));
        }
        let sink = match callback {
            Some(callback) if level != COORD_LOG_OFF => {
                install()?;
                Some(Arc::new(Sink { callback, user_data }))
            }
            _ => None,
        };
        let before = {
            let mut current = SINK.write().unwrap_or_else(PoisonError::into_inner);
            // Under its lock: of two calls at once, one sets both.
            MAX_LEVEL.store(if sink.is_some() { level } else { COORD_LOG_OFF }, Relaxed);
            std::mem::replace(&mut *current, sink)
        };
        tracing::callsite::rebuild_interest_cache();
        // Outside the lock: this may run the caller's destructor.
        drop(before);
        Ok(())
    })
}

static SINK: RwLock<Option<Arc<Sink>>> = RwLock::new(None);
static MAX_LEVEL: AtomicI32 = AtomicI32::new(COORD_LOG_OFF);

struct Sink {
    callback: unsafe extern "C" fn(i32, *const c_char, *const c_char, *mut c_void),
    user_data: UserData,
}

/// Makes the process's log ours, once; without a callback it costs one comparison per line.
fn install() -> Result<()> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if *INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(Forwarder).is_ok()) {
        return Ok(());
    }
    let message =
        "the program that this library is linked into has a tracing subscriber of its own, which gets the log";
    Err(Error::new(Code::AlreadyExists, message))
}

struct Forwarder;

impl Subscriber for Forwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) <= MAX_LEVEL.load(Relaxed) && metadata.target().starts_with("coord")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match MAX_LEVEL.load(Relaxed) {
            COORD_LOG_OFF => LevelFilter::OFF,
            COORD_LOG_ERROR => LevelFilter::ERROR,
            COORD_LOG_WARN => LevelFilter::WARN,
            COORD_LOG_INFO => LevelFilter::INFO,
            COORD_LOG_DEBUG => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        // What a callback causes to be logged in spite of the rule would come back to it for ever.
        if inside() == Inside::LogCallback {
            return;
        }
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sink) = sink else { return };
        let mut line = Line::default();
        event.record(&mut line);
        let (target, message) = (Lent::new(event.metadata().target()), Lent::new(&line.finish()));
        let level = number(*event.metadata().level());
        // SAFETY: the caller registered the function for calls on any thread, with this data.
        call_out(Inside::LogCallback, || unsafe {
            (sink.callback)(level, target.start(), message.start(), sink.user_data.get());
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn number(level: Level) -> i32 {
    match level {
        Level::ERROR => COORD_LOG_ERROR,
        Level::WARN => COORD_LOG_WARN,
        Level::INFO => COORD_LOG_INFO,
        Level::DEBUG => COORD_LOG_DEBUG,
        Level::TRACE => COORD_LOG_TRACE,
    }
}

/// A line of text from an event's message and fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        self.message
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
