//! Answers: `ok`, `error` with everything that an error says, `fail` for what an agent cannot do.

use coord_core::election::{Leader, LeaderEvent};
use coord_core::error::{Error, Holder};
use coord_core::lock::LockInfo;
use coord_scenarios::words::Words;

use crate::actor::Grant;

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
pub(crate) fn granted(grant: &Grant) -> Words {
    match grant {
        Grant::Lock(held) => ok().with("lock", held.name()).with("token", held.token()),
        Grant::Term(term) => ok().with("election", term.name()).with("token", term.token()).with("value", term.value()),
    }
}

/// Who leads.
pub(crate) fn leader(words: Words, leader: &Leader) -> Words {
    let words = words
        .with("leader.name", &leader.name)
        .with("leader.session", &leader.session)
        .with("leader.pid", leader.pid)
        .with("leader.token", leader.token)
        .with("leader.is_self", leader.is_self);
    match &leader.value {
        Some(value) => words.with("leader.value", value),
        None => words,
    }
}

/// What an observer of an election is told.
pub(crate) fn leader_event(event: &LeaderEvent) -> Words {
    match event {
        LeaderEvent::Leader(now) => leader(ok().with("event", "leader"), now),
        // No leader; the agent is built with the library, so there is nothing else.
        _ => ok().with("event", "no_leader"),
    }
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
