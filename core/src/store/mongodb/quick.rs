//! A short form of the two steps that most claims see and no others: taking what is free, and giving up what nobody waits
//! for. The whole step is a pipeline of some kilobytes, which costs the server twice as much to read and run.
//!
//! What was seen of a claim last is remembered. It is never trusted: a short form applies only to a record that is still as
//! it was seen, and if it does not apply, the whole step follows. So a wrong memory costs a round trip, and a claim that
//! others want is left to the whole step for a while.
//!
//! A taking is sent once, without the number by which a server knows a request again: remembering numbers is dear, too.
//! Held up on its way it could be applied after its own cancel. But it asks for the token that was seen, and every grant
//! raises that; so a cancel first raises the token of a claim that is still free (see [`void`]), and what comes later
//! finds another one. Tokens are one higher than the last, which keeps their order. The clock's floor under them, which is for
//! what a store has lost, is left to the whole step: hence nothing is remembered for longer than [`SOON`], in which no store
//! loses grants and is there again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};

use crate::protocol::claim::{ClaimKey, ClaimStep, ClaimView, Entry, Step, When};
use crate::time::{Timestamp, WallTime};

/// A step in its short form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// Takes the claim, if it is free and its last token was this one.
    Take {
        /// Who takes it.
        entry: Entry,
        /// The last token.
        last: i64,
    },
    /// Gives the claim up, if this entry holds it and nobody waits.
    GiveUp {
        /// Who holds it.
        entry: Entry,
        /// Since this grant.
        token: i64,
        /// Which was then.
        granted_at: WallTime,
    },
}

impl Form {
    /// The short form of a step, for a claim that looked like this.
    pub(super) fn of(step: &ClaimStep, seen: &ClaimView) -> Option<Self> {
        let ClaimStep::Step(step) = step else { return None };
        // A token that cannot grow is for the whole step to refuse. A record without a grant is a new one, perhaps of a
        // name whose record was collected: only the whole step knows what its tokens have to be above.
        if seen.queue_len > 0 || !step.dead.is_empty() || [0, i64::MAX].contains(&seen.token) {
            return None;
        }
        match (step, seen.holder) {
            (Step { when: When::Always, add: Some(entry), remove, wait, max_queue, .. }, None)
                if remove.is_empty() && (!wait || *max_queue > 0) =>
            {
                Some(Self::Take { entry: *entry, last: seen.token })
            }
            (Step { when: When::Involved(entry), add: None, remove, .. }, Some(holder))
                if *entry == holder && *remove == [holder] =>
            {
                Some(Self::GiveUp { entry: holder, token: seen.token, granted_at: seen.granted_at })
            }
            _ => None,
        }
    }

    /// The command, without what says how durable it is to be.
    pub(super) fn command(&self, collection: &str, key: &ClaimKey) -> Document {
        match self {
            // `qt` changes with each taking, so that its change event shows it and can be left out.
            Self::Take { entry, last } => doc! {
                "findAndModify": collection, "query": free_since(key, *last), "new": true,
                "update": {
                    "$set": { "own": entry.to_string(), "tok": last + 1, "qt": last + 1, "val": null },
                    "$unset": { "brk": "", "brt": "" },
                    "$currentDate": { "at": true },
                },
                "fields": { "tok": 1, "at": 1 },
            },
            // A queue of another type, and a holder in a list, are for the whole step to refuse.
            Self::GiveUp { entry, token, .. } => update_one(
                collection,
                doc! {
                    "_id": key.as_str(), "own": entry.to_string(), "tok": exactly(*token), "q": { "$size": 0 },
                },
                doc! { "$set": { "own": null } },
            ),
        }
    }

    /// What the claim is now, from the command's answer; none if it did not apply.
    pub(super) fn view(&self, answer: &Document) -> Option<ClaimView> {
        let (holder, token, granted_at) = match *self {
            Self::Take { entry, .. } => {
                let after = answer.get_document("value").ok()?;
                (Some(entry), after.get_i64("tok").ok()?, WallTime(after.get_datetime("at").ok()?.timestamp_millis()))
            }
            Self::GiveUp { token, granted_at, .. } => {
                (answer.get_i32("n").ok()? == 1).then_some((None, token, granted_at))?
            }
        };
        Some(ClaimView { holder, token, granted_at, waiting: false, head: Vec::new(), queue_len: 0 })
    }
}

/// The command after which no taking that asked for this token can be applied any more.
pub(super) fn void(collection: &str, key: &ClaimKey, last: i64) -> Document {
    update_one(collection, free_since(key, last), doc! { "$inc": { "tok": 1_i64 } })
}

fn free_since(key: &ClaimKey, last: i64) -> Document {
    doc! { "_id": key.as_str(), "own": { "$type": "null" }, "tok": exactly(last), "q": { "$size": 0 } }
}

fn exactly(token: i64) -> Bson {
    doc! { "$eq": token, "$type": "long" }.into()
}

fn update_one(collection: &str, filter: Document, update: Document) -> Document {
    doc! { "update": collection, "updates": [{ "q": filter, "u": update }] }
}

/// What one client has seen of claims.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<ClaimKey, Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// What the last answer showed, and when; none if others wanted it.
    last: Option<(ClaimView, Timestamp)>,
    /// For so many steps no short form is tried.
    doubt: u8,
}

impl Memory {
    /// The short form of the step, where that is promising.
    pub(super) fn suggest(&self, key: &ClaimKey, step: &ClaimStep, now: Timestamp) -> Option<Form> {
        let mut claims = self.lock();
        let seen = claims.get_mut(key)?;
        if seen.doubt > 0 {
            seen.doubt -= 1;
            return None;
        }
        let (view, since) = seen.last.as_ref()?;
        if now.since(*since) < SOON { Form::of(step, view) } else { None }
    }

    /// What was suggested did not apply.
    pub(super) fn was_wrong(&self, key: &ClaimKey) {
        if let Some(seen) = self.lock().get_mut(key) {
            *seen = Seen { last: None, doubt: DOUBT };
        }
    }

    /// A step was answered with this view, or with nothing.
    pub(super) fn learn(&self, key: &ClaimKey, step: &ClaimStep, view: Option<&ClaimView>, now: Timestamp) {
        let last = match (step, view) {
            (ClaimStep::Step(step), Some(view)) if view.queue_len == 0 => {
                (view.holder.is_none() || view.holder == step.add).then(|| (view.clone(), now))
            }
            _ => None,
        };
        let mut claims = self.lock();
        if claims.len() >= MOST && !claims.contains_key(key) {
            claims.clear();
        }
        match claims.get_mut(key) {
            Some(seen) => seen.last = last,
            None if last.is_some() => {
                claims.insert(key.clone(), Seen { last, doubt: 0 });
            }
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClaimKey, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For so long what was seen is believed. It is also how long nobody is likely to come to a claim that nobody wanted when it
/// was taken: the next holder is not to wait for two round trips.
const SOON: Duration = Duration::from_secs(1);

/// How many steps of a claim are not tried after one that was tried in vain.
const DOUBT: u8 = 32;

/// As many claims are remembered; then memory begins anew.
const MOST: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::claim::Priority;
    use crate::protocol::session::SessionId;

    fn entry(attempt: u64) -> Entry {
        Entry { session: SessionId::from_random(7), attempt, priority: Priority::default() }
    }

    fn view(holder: Option<Entry>, queue_len: u32) -> ClaimView {
        ClaimView { holder, token: 5, granted_at: WallTime::default(), waiting: false, head: Vec::new(), queue_len }
    }

    fn acquire(attempt: u64) -> ClaimStep {
        ClaimStep::Step(Step::acquire(entry(attempt), true, 256, Vec::new()))
    }

    fn release(attempt: u64) -> ClaimStep {
        ClaimStep::Step(Step::remove(entry(attempt), Vec::new()))
    }

    #[test]
    fn what_was_free_is_taken_and_what_nobody_wanted_is_given_up() {
        let (memory, key, now) = (Memory::default(), ClaimKey::new("lock/a/b/c"), Timestamp::ZERO);
        assert_eq!(memory.suggest(&key, &acquire(1), now), None, "nothing is known");
        memory.learn(&key, &acquire(1), Some(&view(Some(entry(1)), 0)), now);
        assert_eq!(memory.suggest(&key, &acquire(2), now), None);
        assert_eq!(memory.suggest(&key, &release(2), now), None);
        let give_up = Form::GiveUp { entry: entry(1), token: 5, granted_at: WallTime::default() };
        assert_eq!(memory.suggest(&key, &release(1), now), Some(give_up));
        assert_eq!(memory.suggest(&key, &release(1), now + SOON), None, "somebody may have come");
        memory.learn(&key, &release(1), Some(&view(None, 0)), now);
        assert_eq!(memory.suggest(&key, &acquire(2), now), Some(Form::Take { entry: entry(2), last: 5 }));
        assert_eq!(memory.suggest(&key, &acquire(2), now + SOON), None, "the store may have lost something");
        assert_eq!(memory.suggest(&key, &release(1), now), None);
        memory.learn(&key, &acquire(2), Some(&view(Some(entry(1)), 1)), now);
        assert_eq!(memory.suggest(&key, &acquire(3), now), None);
    }

    #[test]
    fn what_others_want_is_left_alone_for_a_while() {
        let (memory, key, now) = (Memory::default(), ClaimKey::new("lock/a/b/c"), Timestamp::ZERO);
        memory.learn(&key, &release(1), Some(&view(None, 0)), now);
        assert!(memory.suggest(&key, &acquire(2), now).is_some());
        memory.was_wrong(&key);
        for _ in 0..DOUBT {
            memory.learn(&key, &release(1), Some(&view(None, 0)), now);
            assert_eq!(memory.suggest(&key, &acquire(2), now), None);
        }
        assert!(memory.suggest(&key, &acquire(2), now).is_some());
    }

    #[test]
    fn other_steps_have_no_short_form() {
        let (me, dead) = (entry(1), SessionId::from_random(8));
        let steps = [
            Step::acquire(me, true, 0, Vec::new()),
            Step::acquire(me, true, 1, vec![dead]),
            Step::remove(me, Vec::new()),
            Step::sweep(dead),
            Step { remove: vec![entry(2)], ..Step::acquire(me, true, 1, Vec::new()) },
        ];
        for step in steps {
            assert_eq!(Form::of(&ClaimStep::Step(step.clone()), &view(None, 0)), None, "{step:?}");
        }
        let steps = [
            Step::acquire(me, true, 1, Vec::new()),
            Step::remove(entry(2), Vec::new()),
            Step::transfer(me, entry(2)),
            Step::evict(me, 5),
            Step { add: Some(entry(2)), ..Step::remove(me, Vec::new()) },
        ];
        for step in steps {
            assert_eq!(Form::of(&ClaimStep::Step(step.clone()), &view(Some(me), 0)), None, "{step:?}");
        }
        let release = ClaimStep::Step(Step::remove(me, Vec::new()));
        assert!(Form::of(&release, &view(Some(me), 0)).is_some());
        assert_eq!(Form::of(&release, &view(Some(me), 1)), None);
        let acquire = ClaimStep::Step(Step::acquire(me, false, 0, Vec::new()));
        assert!(Form::of(&acquire, &view(None, 0)).is_some());
        for token in [0, i64::MAX] {
            assert_eq!(Form::of(&acquire, &ClaimView { token, ..view(None, 0) }), None);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory::default();
        for number in 0..3 * MOST {
            let key = ClaimKey::new(format!("lock/a/b/{number}"));
            memory.learn(&key, &release(1), Some(&view(None, 0)), Timestamp::ZERO);
        }
        assert!(memory.lock().len() <= MOST);
    }
}
