//! What a step can do. README.md explains the words; this table is what stories are checked against.

/// Who carries a step out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The agent in which the client of the argument `client` lives.
    Client,
    /// The agent in which the hold or operation of the argument `hold` was begun.
    Hold,
    /// The conductor.
    Conductor,
}

/// One word of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// The word.
    pub name: &'static str,
    /// Who does it.
    pub actor: Actor,
    /// Arguments that must be given.
    pub required: &'static [&'static str],
    /// Arguments that may be given.
    pub optional: &'static [&'static str],
}

/// The verb of this name.
pub fn verb(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

const fn of(
    actor: Actor,
    name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
) -> Verb {
    Verb { name, actor, required, optional }
}

/// Every verb.
pub const VERBS: &[Verb] = &[
    // A client
    of(Actor::Client, "connect", &["client"], &["url"]),
    of(Actor::Client, "close", &["client"], &["timeout_ms"]),
    of(Actor::Client, "session", &["client"], &[]),
    of(Actor::Client, "info", &["client", "lock"], &[]),
    of(Actor::Client, "locks", &["client"], &["prefix"]),
    of(Actor::Client, "break", &["client", "lock", "token"], &["force"]),
    of(Actor::Client, "sanitize", &["client", "text"], &[]),
    // Taking a lock
    of(Actor::Client, "acquire", &["client", "lock", "as"], &["timeout_ms"]),
    of(Actor::Client, "try", &["client", "lock", "as"], &[]),
    of(Actor::Client, "start", &["client", "lock", "as"], &["timeout_ms"]),
    of(Actor::Client, "run", &["client", "lock", "as"], &[]),
    of(Actor::Client, "rounds", &["client", "lock", "as", "rounds", "file"], &[]),
    of(Actor::Client, "races", &["client", "lock", "rounds"], &[]),
    // What was started
    of(Actor::Hold, "await", &["hold"], &[]),
    of(Actor::Hold, "pending", &["hold"], &[]),
    of(Actor::Hold, "cancel", &["hold"], &[]),
    of(Actor::Hold, "entered", &["hold"], &[]),
    of(Actor::Hold, "finish", &["hold"], &[]),
    // A hold
    of(Actor::Hold, "held", &["hold"], &[]),
    of(Actor::Hold, "check", &["hold"], &[]),
    of(Actor::Hold, "ensure", &["hold", "ms"], &[]),
    of(Actor::Hold, "lost", &["hold"], &[]),
    of(Actor::Hold, "release", &["hold"], &[]),
    of(Actor::Hold, "drop", &["hold"], &["if_held"]),
    // The world around
    of(Actor::Conductor, "kill", &["process"], &[]),
    of(Actor::Conductor, "stop", &["process"], &[]),
    of(Actor::Conductor, "continue", &["process"], &[]),
    of(Actor::Conductor, "pass", &["ms"], &[]),
    of(Actor::Conductor, "file", &["file"], &[]),
];

/// Verbs that begin something under the name in `as`.
pub const BEGINNING: &[&str] = &["acquire", "try", "start", "run", "rounds"];

/// Verbs whose success is a grant.
pub const GRANTING: &[&str] = &["acquire", "try", "await", "entered"];

/// Verbs that need processes of their own, which a store inside of one process does not have.
pub const NEEDS_PROCESSES: &[&str] = &["kill", "stop", "continue"];
