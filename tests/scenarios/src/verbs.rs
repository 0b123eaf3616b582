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

/// What operations of tables take, each some of it.
const TABLE_ARGUMENTS: &[&str] =
    &["key", "document", "filter", "revision", "sort", "skip", "limit", "projection", "fence", "strict", "position"];

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
    of(Actor::Hold, "finish", &["hold"], &["failure"]),
    // A hold
    of(Actor::Hold, "held", &["hold"], &[]),
    of(Actor::Hold, "check", &["hold"], &[]),
    of(Actor::Hold, "ensure", &["hold", "ms"], &[]),
    of(Actor::Hold, "lost", &["hold"], &[]),
    of(Actor::Hold, "release", &["hold"], &[]),
    of(Actor::Hold, "drop", &["hold"], &["if_held"]),
    // Elections
    of(Actor::Client, "campaign", &["client", "election", "as"], &["value", "priority", "timeout_ms"]),
    of(Actor::Client, "try_campaign", &["client", "election", "as"], &["value"]),
    of(Actor::Client, "start_campaign", &["client", "election", "as"], &["value", "priority", "timeout_ms"]),
    of(Actor::Client, "leading", &["client", "election"], &[]),
    of(Actor::Client, "leader", &["client", "election"], &[]),
    of(Actor::Client, "candidates", &["client", "election"], &[]),
    of(Actor::Hold, "proclaim", &["hold", "value"], &[]),
    of(Actor::Hold, "resign", &["hold"], &[]),
    of(Actor::Hold, "transfer", &["hold", "to"], &[]),
    of(Actor::Client, "observe", &["client", "election", "as"], &[]),
    of(Actor::Client, "elect", &["client", "election", "as"], &["value", "priority", "keep_on_error", "backoff_ms"]),
    of(Actor::Hold, "calls", &["hold"], &[]),
    of(Actor::Hold, "retire", &["hold"], &[]),
    // Owners
    of(Actor::Client, "owners", &["client"], &[]),
    of(Actor::Client, "owner", &["client", "session"], &[]),
    of(Actor::Client, "watch_owners", &["client", "as"], &[]),
    // Providers and observers
    of(Actor::Client, "provide", &["client", "service", "as"], &["metadata", "instance", "reregister"]),
    of(Actor::Hold, "provider", &["hold"], &[]),
    of(Actor::Hold, "update", &["hold", "metadata"], &[]),
    of(Actor::Client, "watch", &["client", "service", "as"], &["down_grace_ms"]),
    of(Actor::Hold, "available", &["hold", "service"], &[]),
    of(Actor::Hold, "services", &["hold"], &[]),
    of(Actor::Hold, "providers", &["hold", "service"], &[]),
    of(Actor::Hold, "await_available", &["hold", "service"], &["timeout_ms"]),
    of(Actor::Hold, "await_unavailable", &["hold", "service"], &["timeout_ms"]),
    of(Actor::Hold, "synced", &["hold"], &[]),
    of(Actor::Hold, "next", &["hold"], &["keep"]),
    of(Actor::Hold, "end", &["hold"], &["timeout_ms"]),
    // Tables
    of(Actor::Client, "table", &["client", "table", "op"], TABLE_ARGUMENTS),
    of(Actor::Client, "watch_table", &["client", "table", "as"], &["filter", "from", "previous"]),
    of(Actor::Hold, "done", &["hold"], &["failure"]),
    of(Actor::Client, "log", &["client", "table", "as"], &["after", "since_ms"]),
    of(Actor::Client, "cache", &["client", "table", "as"], &["filter", "max_bytes", "read_your_writes"]),
    of(Actor::Hold, "cached", &["hold", "op"], TABLE_ARGUMENTS),
    // Reconcilers
    of(
        Actor::Client,
        "reconcile",
        &["client", "name", "source", "as"],
        &["filter", "mode", "shards", "workers", "backoff_ms", "resync_ms", "move_grace_ms", "serve"],
    ),
    of(Actor::Hold, "work", &["hold", "as"], &[]),
    of(Actor::Hold, "complete", &["hold"], &["outcome", "after_ms", "message"]),
    of(Actor::Hold, "cancelled", &["hold"], &[]),
    of(Actor::Hold, "reconciler", &["hold"], &[]),
    of(Actor::Hold, "ran", &["hold"], &[]),
    of(Actor::Hold, "add", &["hold", "key"], &["after_ms"]),
    of(Actor::Hold, "cancel_key", &["hold", "key"], &[]),
    of(Actor::Hold, "pause", &["hold"], &[]),
    of(Actor::Hold, "resume", &["hold"], &[]),
    of(Actor::Hold, "drain", &["hold"], &["timeout_ms"]),
    of(Actor::Hold, "parked", &["hold"], &[]),
    of(Actor::Hold, "reconciled", &["hold", "key"], &["position", "timeout_ms"]),
    // A store under control
    of(Actor::Client, "force_leader", &["client", "election", "session"], &[]),
    of(Actor::Client, "expire", &["client", "session"], &[]),
    of(Actor::Client, "advance", &["client", "ms"], &[]),
    // The world around
    of(Actor::Conductor, "kill", &["process"], &[]),
    of(Actor::Conductor, "stop", &["process"], &[]),
    of(Actor::Conductor, "continue", &["process"], &[]),
    of(Actor::Conductor, "pass", &["ms"], &[]),
    of(Actor::Conductor, "file", &["file"], &[]),
];

/// Verbs that begin something under the name in `as`.
pub const BEGINNING: &[&str] = &[
    "acquire",
    "try",
    "start",
    "run",
    "rounds",
    "campaign",
    "try_campaign",
    "start_campaign",
    "observe",
    "elect",
    "watch_owners",
    "provide",
    "watch",
    "watch_table",
    "log",
    "cache",
    "reconcile",
    "work",
];

/// Verbs whose success is a grant.
pub const GRANTING: &[&str] = &["acquire", "try", "campaign", "try_campaign", "await", "entered"];

/// Verbs whose success ends the hold that they name.
pub const ENDING: &[&str] = &["release", "drop", "resign", "transfer", "retire"];

/// Verbs that need processes of their own, which a store inside of one process does not have.
pub const NEEDS_PROCESSES: &[&str] = &["kill", "stop", "continue"];

/// Verbs that only a store inside of one process has.
pub const NEEDS_MEMORY: &[&str] = &["force_leader", "expire", "advance"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_and_the_readme_know_every_verb() {
        let (schema, readme) = (include_str!("../schema/story.json"), include_str!("../README.md"));
        for verb in VERBS {
            assert!(schema.contains(&format!("\"{}\"", verb.name)), "story.json lacks '{}'", verb.name);
            assert!(readme.contains(&format!("`{}`", verb.name)), "README.md lacks '{}'", verb.name);
        }
        let lists = [BEGINNING, GRANTING, ENDING, NEEDS_PROCESSES, NEEDS_MEMORY];
        for name in lists.into_iter().flatten() {
            assert!(verb(name).is_some(), "there is no '{name}'");
        }
    }
}
