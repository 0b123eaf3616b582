//! What the histories say of calls: to locks and elections, and to documents. With them [`linear`](crate::linear) looks
//! for an order.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::Histories;
use crate::document::DocumentOp;
use crate::history::{Answer, Ask, Event, Line, Nanos};
use crate::linear::{Call, LockOp};

/// Within this time after a wait was given up its entry has left the store, and if not, its session ends.
const TAKEN_BACK: Nanos = 60_000_000_000;

/// How old what a read of MongoDB's shows may be. A primary that has lost its office without knowing it answers until it
/// hears of its successor: one that is frozen or cut off, for 6 s at most, when the next heartbeats have passed, of which
/// there are two in a second. The rest is for a busy machine.
pub const STALE: Duration = Duration::from_secs(10);

/// How long the same documents are asked for. Then come others, so that each has a history of a length that can be
/// searched.
pub const GENERATION: Duration = Duration::from_secs(30);

// A read in the first `STALE` of a generation may show that there is no document yet, whatever was written: only later
// ones can show that a write was lost. The generations are not longer, since the search takes the longer, and this is
// not the 30 s that users are told of, since the set of a campaign elects after one second.
const _: () = assert!(GENERATION.as_secs() >= 3 * STALE.as_secs());

/// The calls to each lock, and to each election, whose terms are granted as holds are.
pub fn of_locks(histories: &Histories) -> BTreeMap<&str, Vec<Call<LockOp>>> {
    let mut calls: BTreeMap<&str, Vec<Call<LockOp>>> = BTreeMap::new();
    let mut contended: Vec<(&str, Nanos, Nanos, Option<i64>)> = Vec::new();
    // Attempts that may have been granted for a moment, or for as long as it takes to bury a session: in such a
    // time a refusal that names no holder says nothing. Nor does one that names a holder who never told of his grant.
    let mut doubts: BTreeMap<&str, Vec<(Nanos, Nanos)>> = BTreeMap::new();
    for lines in histories.workers.values() {
        let mut attempt = None;
        let mut hold: Option<(&str, i64, Nanos)> = None;
        let end = |hold: &mut Option<(&str, i64, Nanos)>, ended| {
            if let Some((_, token, last_ok)) = hold.take() {
                return Some(Call { op: LockOp::End(token), begun: last_ok, ended });
            }
            None
        };
        for Line { t, event } in lines {
            match event {
                Event::Attempt { lock, .. } => attempt = Some((lock.as_str(), *t)),
                Event::Granted { lock, token, .. } => {
                    if let Some((_, begun)) = attempt.take() {
                        let grant = Call { op: LockOp::Grant(*token), begun, ended: Some(*t) };
                        calls.entry(lock).or_default().push(grant);
                        hold = Some((lock, *token, *t));
                    }
                }
                Event::Refused { code, holder, .. } => match attempt.take() {
                    Some((lock, begun)) if code == "Contended" => contended.push((lock, begun, *t, *holder)),
                    // Given up, and taken back soon after.
                    Some((lock, begun)) if code == "Timeout" => {
                        doubts.entry(lock).or_default().push((begun, t + TAKEN_BACK));
                    }
                    Some((lock, begun)) => doubts.entry(lock).or_default().push((begun, Nanos::MAX)),
                    None => {}
                },
                Event::Ok { .. } => {
                    if let Some((_, _, last_ok)) = &mut hold {
                        *last_ok = *t;
                    }
                }
                Event::Released { lock, clean, .. } => {
                    calls.entry(lock).or_default().extend(end(&mut hold, clean.then_some(*t)));
                }
                Event::Lost { .. }
                | Event::Wrote { .. }
                | Event::Watched { .. }
                | Event::Asked { .. }
                | Event::Answered { .. } => {}
            }
        }
        if let Some((lock, ..)) = hold {
            calls.entry(lock).or_default().extend(end(&mut hold, None));
        }
        if let Some((lock, begun)) = attempt {
            doubts.entry(lock).or_default().push((begun, Nanos::MAX));
        }
    }
    for (lock, begun, ended, holder) in contended {
        let calls = calls.entry(lock).or_default();
        let told = |token: &i64| calls.iter().any(|call| call.op == LockOp::Grant(*token));
        let sure = match holder {
            Some(token) => told(&token),
            None => !doubts.get(lock).into_iter().flatten().any(|(from, to)| *from < ended && begun < *to),
        };
        if sure {
            calls.push(Call { op: LockOp::Contended(holder), begun, ended: Some(ended) });
        }
    }
    calls
}

/// The calls to each document. A read may show what was there up to `stale` before it was asked for.
pub fn of_documents(histories: &Histories, stale: Duration) -> BTreeMap<&str, Vec<Call<DocumentOp>>> {
    let stale = stale.as_nanos() as u64;
    let mut calls: BTreeMap<&str, Vec<Call<DocumentOp>>> = BTreeMap::new();
    for lines in histories.workers.values() {
        let mut open: BTreeMap<u64, (&str, &Ask, Nanos)> = BTreeMap::new();
        for Line { t, event } in lines {
            match event {
                Event::Asked { lock, n, ask } => {
                    open.insert(*n, (lock, ask, *t));
                }
                Event::Answered { n, answer, .. } => {
                    let Some((key, ask, begun)) = open.remove(n) else { continue };
                    let begun = if *ask == Ask::Get { begun.saturating_sub(stale) } else { begun };
                    let ended = (*answer != Answer::Unknown).then_some(*t);
                    let op = DocumentOp { ask: ask.clone(), answer: answer.clone() };
                    calls.entry(key).or_default().push(Call { op, begun, ended });
                }
                _ => {}
            }
        }
        // Whoever asked was killed before the answer.
        for (key, ask, begun) in open.into_values() {
            let op = DocumentOp { ask: ask.clone(), answer: Answer::Unknown };
            calls.entry(key).or_default().push(Call { op, begun, ended: None });
        }
    }
    // What nobody was told, and what changes nothing, says nothing.
    for calls in calls.values_mut() {
        calls.retain(|call| call.op.answer != Answer::Unknown || call.op.ask != Ask::Get);
    }
    calls
}
