//! Answers: `ok`, `error` with everything that an error says, `fail` for what an agent cannot do.

use coord_core::error::{Error, Holder};
use coord_core::lock::{Held, LockInfo};
use coord_scenarios::words::Words;

/// Success.
pub(crate) fn ok() -> Words {
    Words::new(["ok"])
}

/// The command makes no sense here.
pub(crate) fn fail(message: &str) -> Words {
    Words::new(["fail"]).with("message", message)
}

/// An error of the library.
pub(crate) fn error(error: &Error) -> Words {
    let mut words = Words::new(["error", error.code().name()])
        .with("message", error.message())
        .with("retryable", error.retryable());
    if let Some(reason) = error.loss() {
        words = words.with("reason", reason.name());
    }
    match error.holder() {
        Some(holder) => with_holder(words, holder),
        None => words,
    }
}

/// A grant.
pub(crate) fn granted(held: &Held) -> Words {
    ok().with("lock", held.name()).with("token", held.token())
}

/// Who holds a lock and who waits.
pub(crate) fn info(info: Option<&LockInfo>) -> Words {
    let Some(info) = info else { return ok().with("exists", false) };
    let waiters: Vec<&str> = info.waiters.iter().map(|waiter| waiter.name.as_str()).collect();
    let words = ok()
        .with("exists", true)
        .with("lock", &info.name)
        .with("token", info.token)
        .with("breaking", info.breaking)
        .with("held", info.holder.is_some())
        .with("waiting", waiters.len())
        .with("waiters", waiters.join(","));
    match &info.holder {
        Some(holder) => with_holder(words, holder),
        None => words,
    }
}

fn with_holder(words: Words, holder: &Holder) -> Words {
    words
        .with("holder.name", &holder.name)
        .with("holder.session", &holder.session)
        .with("holder.pid", holder.pid)
        .with("holder.token", holder.token)
        .with("holder.state", format!("{:?}", holder.state).to_lowercase())
        .with("holder.is_self", holder.is_self)
}
