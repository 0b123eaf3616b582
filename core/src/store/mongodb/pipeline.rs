//! The protocol's steps as MongoDB commands: each is one conditional write to one document.
//!
//! Invariants: what `protocol::claim::apply` and `protocol::session::apply` decide, the server decides here with the
//! same result, inside one `findAndModify`; a field of a type that this library never writes makes the command fail
//! and write nothing (see [`corrupt`]); no text of a user is ever read as an expression.
//!
//! Upserts carry no condition beside `_id`: the server refuses `$expr` there, and another field would turn a race
//! of two inserts into an error. So conditions of an upsert stand inside its pipeline.

use mongodb::bson::{Bson, Document, doc};

use super::codec;
use crate::protocol::claim::{ClaimKey, ClaimStep, Entry, HEAD, Step, TOKENS_PER_MS, WALL_AHEAD_MS, When};
use crate::protocol::session::{KillProof, SessionId, SessionStep};

/// One conditional write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// Change the document that matches, by stages of an aggregation.
    Pipeline {
        /// Which document.
        filter: Document,
        /// How.
        stages: Vec<Document>,
        /// Whether a missing document is created.
        upsert: bool,
    },
    /// Change the document that matches, by update operators.
    Operators {
        /// Which document.
        filter: Document,
        /// How.
        update: Document,
    },
    /// Remove the document that matches.
    Remove {
        /// Which document.
        filter: Document,
    },
}

/// The write of a claim's step. A free claim is collected when the cluster's time has passed its token by
/// `collect_margin_ms`.
pub(super) fn claim(key: &ClaimKey, step: &ClaimStep, collect_margin_ms: i64) -> Write {
    let id = key.as_str();
    match step {
        ClaimStep::Step(step) => universal(id, step),
        ClaimStep::AnnounceBreak { token } => Write::Pipeline {
            filter: doc! { "_id": id, "tok": *token, "own": { "$type": "string" } },
            // The token stands beside the holder so that the change event of this write carries both.
            stages: vec![doc! { "$set": { "brk": "$own", "brt": "$tok" } }],
            upsert: false,
        },
        ClaimStep::Publish { holder, token, value } => Write::Operators {
            filter: doc! { "_id": id, "own": holder.to_string(), "tok": *token },
            update: doc! { "$set": { "val": value } },
        },
        ClaimStep::Collect => {
            // Cluster time alone: unlike a date it never goes back over a failover, so no later floor is lower.
            let passed = doc! { "$multiply": [cluster_ms(), TOKENS_PER_MS] };
            let needed = doc! { "$add": ["$tok", collect_margin_ms * TOKENS_PER_MS] };
            Write::Remove { filter: doc! { "_id": id, "own": null, "q": [], "$expr": { "$gt": [passed, needed] } } }
        }
    }
}

/// What a claim's write answers with: small, however long the queue is.
pub(super) fn view_of(added: Option<Entry>) -> Document {
    let mut fields = doc! {
        "own": 1, "tok": 1, "at": 1, "head": { "$slice": ["$q", HEAD as i32] }, "len": { "$size": "$q" },
    };
    if let Some(entry) = added {
        fields.insert("waiting", doc! { "$in": [entry.to_string(), "$q"] });
    }
    fields
}

/// The write of a session's step.
pub(super) fn session(id: SessionId, step: &SessionStep) -> Write {
    let id = id.to_string();
    match step {
        SessionStep::Open { nonce, ttl, info } => {
            let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            let fresh = doc! {
                "_id": "$_id", "st": "live", "n": { "$literal": nonce.0 }, "ttl": { "$literal": ttl },
                "seen": "$$NOW", "info": { "$literal": codec::encode_info(info) }, "opened": "$$NOW", "rv": 0_i64,
            };
            Write::Pipeline {
                filter: doc! { "_id": id },
                stages: vec![doc! { "$replaceWith": { "$cond": [is_missing("$st"), fresh, "$$ROOT"] } }],
                upsert: true,
            }
        }
        // Not a pipeline: update operators always arrive at observers as a delta, which their filter can skip.
        SessionStep::Renew { accept, nonce } => Write::Operators {
            filter: doc! { "_id": id, "st": "live", "n": { "$in": accept.iter().map(|n| n.0).collect::<Vec<_>>() } },
            update: doc! { "$set": { "n": nonce.0 }, "$currentDate": { "seen": true } },
        },
        SessionStep::Kill(KillProof::Observed(seen)) => {
            let mut reasons = vec![Bson::from(is_missing("$st"))];
            if let Some(nonce) = seen {
                reasons.push(doc! { "$and": [is_live(), { "$eq": ["$n", nonce.0] }] }.into());
            }
            Write::Pipeline {
                filter: doc! { "_id": id },
                stages: bury_if(doc! { "$or": reasons }),
                // A missing record may be a stale read, so the tombstone is written where the truth is.
                upsert: true,
            }
        }
        SessionStep::Kill(KillProof::KernelLock(ring)) => {
            let ring: Vec<i64> = ring.iter().map(|nonce| nonce.0).collect();
            Write::Pipeline {
                filter: doc! { "_id": id },
                stages: bury_if(doc! { "$and": [is_live(), { "$in": ["$n", ring] }] }),
                upsert: false,
            }
        }
        SessionStep::Close => Write::Pipeline {
            filter: doc! { "_id": id, "st": "live" },
            stages: vec![doc! { "$set": {
                "st": "dead", "died": "$$NOW", "clean": true, "rv": next_revision(), "prov": "$$REMOVE",
            } }],
            upsert: false,
        },
        SessionStep::Provide { provider, revision } => {
            let others = providers_but(doc! { "$literal": &provider.key }.into());
            let provider = doc! { "$literal": codec::encode_provider(provider) };
            change_providers(id, *revision, doc! { "$concatArrays": [others, [provider]] })
        }
        SessionStep::Withdraw { key, revision } => {
            change_providers(id, *revision, providers_but(doc! { "$literal": key }.into()))
        }
    }
}

/// Only of a live session, and only forward: a request that comes after the kill, or after a later one, finds none.
fn change_providers(id: String, revision: i64, providers: Document) -> Write {
    Write::Pipeline {
        filter: doc! { "_id": id, "st": "live", "rv": { "$not": { "$gt": revision } } },
        stages: vec![doc! { "$set": { "prov": providers, "rv": { "$literal": revision } } }],
        upsert: false,
    }
}

fn providers_but(key: Bson) -> Document {
    doc! { "$filter": { "input": { "$ifNull": ["$prov", []] }, "as": "p", "cond": { "$ne": ["$$p.k", key] } } }
}

fn next_revision() -> Document {
    doc! { "$add": [{ "$ifNull": ["$rv", 0_i64] }, 1_i64] }
}

/// The fields of a session that this version reads, without what it provides.
pub(super) fn session_fields() -> Document {
    doc! { "st": 1, "n": 1, "ttl": 1, "seen": 1, "died": 1, "info": 1, "clean": 1, "opened": 1, "rv": 1 }
}

/// The same with what it provides.
pub(super) fn roster_fields() -> Document {
    let mut fields = session_fields();
    fields.insert("prov", 1);
    fields
}

/// The fields of a claim that those who look on may know.
pub(super) fn shown_claim_fields() -> Document {
    doc! { "own": 1, "tok": 1, "at": 1, "val": 1 }
}

fn bury_if(condition: Document) -> Vec<Document> {
    let died = doc! { "$and": [{ "$eq": ["$st", "dead"] }, is_missing("$died")] };
    vec![
        doc! { "$set": {
            "st": { "$cond": [condition.clone(), "dead", "$st"] },
            "rv": { "$cond": [condition.clone(), next_revision(), "$rv"] },
            "prov": { "$cond": [condition, "$$REMOVE", "$prov"] },
        } },
        doc! { "$set": { "died": { "$cond": [died, "$$NOW", "$died"] } } },
    ]
}

fn is_live() -> Document {
    doc! { "$eq": ["$st", "live"] }
}

fn is_missing(field: &str) -> Document {
    doc! { "$eq": [{ "$type": field }, "missing"] }
}

fn universal(id: &str, step: &Step) -> Write {
    let (filter, upsert) = match step.when {
        When::Always => (doc! { "_id": id }, true),
        When::Involved(entry) => {
            let entry = entry.to_string();
            (doc! { "_id": id, "$or": [{ "own": entry.clone() }, { "q": entry }] }, false)
        }
        When::Transfer { holder, to } => (doc! { "_id": id, "own": holder.to_string(), "q": to.to_string() }, false),
        When::Holding { holder, token } => (doc! { "_id": id, "own": holder.to_string(), "tok": token }, false),
    };
    let mut stages = vec![leave(step)];
    if let Some(entry) = step.add {
        stages.push(enter(step, entry));
    }
    stages.push(grant(step));
    Write::Pipeline { filter, stages, upsert }
}

/// Stage 1: entries that are gone leave, and every field that the step reads is of its type from here on.
fn leave(step: &Step) -> Document {
    let gone = |entry: Bson| -> Bson {
        let mut reasons = Vec::new();
        if !step.remove.is_empty() {
            let remove: Vec<String> = step.remove.iter().map(Entry::to_string).collect();
            reasons.push(doc! { "$in": [entry.clone(), remove] });
        }
        if !step.dead.is_empty() {
            let dead: Vec<String> = step.dead.iter().map(SessionId::to_string).collect();
            reasons.push(doc! { "$in": [part(entry, 0), dead] });
        }
        doc! { "$or": reasons }.into()
    };
    let holder = doc! { "$ifNull": ["$own", null] };
    let own = doc! { "$cond": [gone(holder.clone().into()), null, holder] };
    let all = doc! { "$ifNull": ["$q", []] };
    let q: Bson = if step.remove.is_empty() && step.dead.is_empty() {
        all.into()
    } else {
        doc! { "$filter": { "input": all, "as": "w", "cond": { "$not": [gone("$$w".into())] } } }.into()
    };
    let tok = doc! { "$toLong": { "$ifNull": ["$tok", 0_i64] } };
    // A token at the end of its range could not grow any more.
    let tok = doc! { "$cond": [{ "$lt": ["$tok", i64::MAX] }, tok, corrupt("tok") ] };
    // The head alone stands for the queue: it is what the next grant goes to, and the cost stays the same.
    let head = is_entry(doc! { "$arrayElemAt": ["$q", 0] });
    let sound_holder = doc! { "$or": [has_type("own", &["null", "missing"]), is_entry("$own")] };
    let sound_queue = doc! { "$or": [has_type("q", &["missing"]), { "$eq": ["$q", []] }, { "$and": [has_type("q", &["array"]), head] }] };
    doc! { "$set": {
        "own": { "$cond": [sound_holder, own, corrupt("own")] },
        "q": { "$cond": [sound_queue, q, corrupt("q")] },
        "tok": { "$cond": [has_type("tok", &["long", "int", "missing"]), tok, corrupt("tok")] },
    } }
}

/// Stage 2: the new entry takes its place, behind all of at least its priority.
fn enter(step: &Step, entry: Entry) -> Document {
    let text = entry.to_string();
    let refused = if step.wait {
        doc! { "$gte": [{ "$size": "$q" }, step.max_queue] }
    } else {
        // Also when somebody waits: the claim would go to the head of the queue, and the entry would be left in it.
        doc! { "$or": [{ "$ne": ["$own", null] }, { "$gt": [{ "$size": "$q" }, 0] }] }
    };
    let priority = text.rsplit('/').next().unwrap_or_default().to_owned();
    let those = |comparison: &str| {
        doc! { "$filter": { "input": "$q", "as": "w",
        "cond": { comparison: [part("$$w".into(), 2), priority.clone()] } } }
    };
    let stays = doc! { "$or": [{ "$eq": ["$own", text.clone()] }, { "$in": [text.clone(), "$q"] }, refused] };
    let inserted = doc! { "$concatArrays": [those("$gte"), [text], those("$lt")] };
    doc! { "$set": { "q": { "$cond": [stays, "$q", inserted] } } }
}

/// Stage 3: a free claim goes to the next waiter, with a new token.
fn grant(step: &Step) -> Document {
    let first = doc! { "$arrayElemAt": ["$q", 0] };
    let (next, rest): (Bson, Document) = match step.preferred() {
        None => (first.into(), doc! { "$slice": ["$q", 1, { "$max": [1, { "$size": "$q" }] }] }),
        Some(to) => {
            let next = doc! { "$cond": [{ "$in": [to.to_string(), "$q"] }, to.to_string(), first] };
            let rest = doc! { "$filter": { "input": "$q", "as": "w", "cond": { "$ne": ["$$w", next.clone()] } } };
            (next.into(), rest)
        }
    };
    let holder = doc! { "$cond": [is_entry(next.clone()), next, corrupt("q")] };
    let granted = doc! { "$and": [{ "$eq": ["$own", null] }, { "$gt": [{ "$size": "$q" }, 0] }] };
    let on_grant = |then: Bson, field: &str| doc! { "$cond": [granted.clone(), then, field] };
    doc! { "$set": {
        "own": on_grant(holder.into(), "$own"),
        "tok": on_grant(token().into(), "$tok"),
        "at": on_grant("$$NOW".into(), "$at"),
        "val": on_grant(Bson::Null, "$val"),
        "brk": on_grant("$$REMOVE".into(), "$brk"),
        "brt": on_grant("$$REMOVE".into(), "$brt"),
        "q": on_grant(rest.into(), "$q"),
    } }
}

/// The next token: see `protocol::claim::token_floor`.
fn token() -> Document {
    let capped = doc! { "$min": [{ "$toLong": "$$NOW" }, { "$add": [cluster_ms(), WALL_AHEAD_MS] }] };
    doc! { "$max": [
        { "$add": ["$tok", 1_i64] },
        { "$multiply": [capped, TOKENS_PER_MS] },
        { "$multiply": [cluster_ms(), TOKENS_PER_MS] },
    ] }
}

fn cluster_ms() -> Document {
    doc! { "$toLong": { "$toDate": "$$CLUSTER_TIME" } }
}

/// One part of an entry's text.
fn part(entry: Bson, index: i32) -> Document {
    doc! { "$arrayElemAt": [{ "$split": [entry, "/"] }, index] }
}

fn is_entry(value: impl Into<Bson>) -> Document {
    let value = value.into();
    doc! { "$and": [
        { "$eq": [{ "$type": value.clone() }, "string"] },
        { "$regexMatch": { "input": value, "regex": ENTRY } },
    ] }
}

fn has_type(field: &str, types: &[&str]) -> Document {
    doc! { "$in": [{ "$type": format!("${field}") }, types] }
}

/// An expression that fails whenever it is evaluated. Its text depends on the document, so that the server does not
/// evaluate it while it only prepares the command.
fn corrupt(field: &str) -> Document {
    doc! { "$toLong": { "$concat": [format!("corrupt field {field} of type "), { "$type": format!("${field}") }] } }
}

const ENTRY: &str = "^[0-9a-f]{32}/(0|[1-9][0-9]{0,19})/[0-9a-f]{3}$";
