//! The library's log, kept in a bounded queue until Python fetches it: no thread of the library waits for Python.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use coord_core::driver::EventQueue;
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::error::raised;
use crate::interpreter::detached;

/// A line: its level as Python's `logging` counts, its logger, its text.
type Line = (u32, String, String);

/// How many lines wait for Python before new ones are dropped, and counted.
const CAPACITY: usize = 1024;

static LINES: OnceLock<Arc<EventQueue<Line>>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Begins to keep the log. Once is enough, more do no harm.
#[pyfunction]
pub(crate) fn log_start(py: Python<'_>) -> PyResult<()> {
    if LINES.get().is_none() {
        let queue = raised(py, EventQueue::new())?;
        if LINES.set(queue).is_ok() {
            // The module has a copy of `tracing` of its own, so nobody can have been first.
            let _ = tracing::subscriber::set_global_default(Keeper);
        }
    }
    Ok(())
}

/// Takes lines: level, logger, text. Waits for one if it is to; nothing after `log_wake`.
#[pyfunction]
pub(crate) fn log_take(py: Python<'_>, wait: bool) -> PyResult<Vec<Line>> {
    let mut lines = Vec::new();
    let timeout = if wait { None } else { Some(Duration::ZERO) };
    if let Some(queue) = LINES.get() {
        detached(py, || queue.poll_batch(CAPACITY, timeout, &mut lines));
    }
    match DROPPED.swap(0, Ordering::Relaxed) {
        0 => {}
        count => lines.push((30, "coord".into(), format!("{count} lines of the log were dropped: too many at once"))),
    }
    Ok(lines)
}

/// Makes `log_take` return.
#[pyfunction]
pub(crate) fn log_wake() {
    if let Some(queue) = LINES.get() {
        queue.wake();
    }
}

struct Keeper;

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG && metadata.target().starts_with("coord")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(queue) = LINES.get() else { return };
        if queue.len() >= CAPACITY {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let logger = metadata.target().replace("coord_core", "coord").replace("::", ".");
        queue.push((number(*metadata.level()), logger, text.finish()));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The level in Python's `logging`.
fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    }
}

/// The text of an event: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        self.message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
