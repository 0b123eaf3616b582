//! What must be true of every step that the store applies, in words of their own: none of this computes a step.

use std::time::Duration;

use coord_core::protocol::claim::{ClaimRecord, ClaimStep, Entry, Step, When};
use coord_core::protocol::session::{KillProof, SessionRecord, SessionStep, Vitality};

/// The fastest of the simulation's clocks, against the time that goes by.
pub const FASTEST_CLOCK: f64 = 1.025;

/// The entries that waited before a step and were not told to go by it, in their order.
fn who_stays(before: Option<&ClaimRecord>, step: &ClaimStep) -> Vec<Entry> {
    let waiters = before.map(|record| record.waiters.clone()).unwrap_or_default();
    waiters.into_iter().filter(|waiter| !told_to_go(step, waiter)).collect()
}

fn told_to_go(step: &ClaimStep, entry: &Entry) -> bool {
    matches!(step, ClaimStep::Step(step) if step.remove.contains(entry) || step.dead.contains(&entry.session))
}

/// What is wrong with a claim after this step, if anything is.
pub fn of_claim(before: Option<&ClaimRecord>, step: &ClaimStep, after: &ClaimRecord) -> Option<String> {
    if after.holder.is_none() && !after.waiters.is_empty() {
        return Some(format!("free, and somebody waits: {after:?}"));
    }
    if let ClaimStep::Step(Step { add: Some(add), wait: false, .. }) = step
        && after.waiters.contains(add)
    {
        return Some(format!("{add} was not to wait: {after:?}"));
    }
    let stays = who_stays(before, step);
    let wrong = wrong_queue(&stays, step, after).or_else(|| wrong_holder(before, &stays, step, after));
    wrong.map(|wrong| format!("{wrong}: {step:?} made {after:?} of {before:?}"))
}

/// The queue is in the order of priorities and, within each, of arrival.
fn wrong_queue(stays: &[Entry], step: &ClaimStep, after: &ClaimRecord) -> Option<String> {
    if !after.waiters.is_sorted_by(|first, second| first.priority >= second.priority) {
        return Some("not in the order of priorities".into());
    }
    let old: Vec<&Entry> = after.waiters.iter().filter(|waiter| stays.contains(waiter)).collect();
    if old != stays.iter().filter(|waiter| after.waiters.contains(waiter)).collect::<Vec<_>>() {
        return Some("somebody was overtaken in the queue".into());
    }
    let place = after.waiters.iter().position(|waiter| !stays.contains(waiter))?;
    let (newcomer, behind) = (after.waiters[place], &after.waiters[place + 1..]);
    if added(step) != Some(newcomer) {
        return Some(format!("{newcomer} came from nowhere"));
    }
    let overtaken = behind.iter().find(|waiter| !stays.contains(waiter) || waiter.priority >= newcomer.priority);
    overtaken.map(|waiter| format!("{newcomer} has overtaken {waiter}"))
}

/// Whoever was granted a claim is the first of those who waited for it, or the one to whom it was handed over; and nobody
/// lost it who was not told to go.
fn wrong_holder(
    before: Option<&ClaimRecord>,
    stays: &[Entry],
    step: &ClaimStep,
    after: &ClaimRecord,
) -> Option<String> {
    let held = before.and_then(|record| record.holder);
    if after.holder == held {
        return None;
    }
    if let Some(held) = held.filter(|held| !told_to_go(step, held)) {
        return Some(format!("taken from {held}, who held it"));
    }
    let holder = after.holder?;
    if let ClaimStep::Step(Step { when: When::Transfer { to, .. }, .. }) = step {
        return (holder != *to).then(|| format!("handed over to {to}, and granted to {holder}"));
    }
    let first = if stays.contains(&holder) {
        stays.first().filter(|first| **first != holder)
    } else if added(step) == Some(holder) {
        stays.iter().find(|waiter| waiter.priority >= holder.priority)
    } else {
        return Some(format!("granted to {holder}, who came from nowhere"));
    };
    // Whoever came with this step may be before those who were there, by its priority.
    let first = first.or_else(|| after.waiters.iter().find(|waiter| waiter.priority > holder.priority));
    first.map(|first| format!("granted to {holder} before {first}"))
}

fn added(step: &ClaimStep) -> Option<Entry> {
    if let ClaimStep::Step(step) = step { step.add } else { None }
}

/// What is wrong with the death of a session that had renewed so long ago, if anything is: nobody else may end it before
/// its ttl has passed on the fastest clock, unless the kernel has proven that its process is gone.
pub fn of_death(
    before: &SessionRecord,
    step: &SessionStep,
    after: &SessionRecord,
    silent_for: Duration,
) -> Option<String> {
    let declared = matches!(step, SessionStep::Kill(KillProof::Observed(_)));
    let died = before.vitality == Vitality::Live && after.vitality == Vitality::Dead;
    let early = silent_for < before.ttl.div_f64(FASTEST_CLOCK);
    (declared && died && early)
        .then(|| format!("session {} was declared dead {silent_for:?} after it had renewed: {before:?}", before.id))
}

#[cfg(test)]
mod tests {
    use coord_core::protocol::claim::{ClaimKey, Priority};
    use coord_core::protocol::session::{Nonce, SessionId, SessionInfo};
    use coord_core::time::WallTime;

    use super::*;

    fn entry(session: u128, priority: i32) -> Entry {
        Entry { session: SessionId::from_random(session), attempt: 0, priority: Priority::new(priority).unwrap() }
    }

    fn record(holder: Option<Entry>, waiters: &[Entry]) -> ClaimRecord {
        ClaimRecord { holder, waiters: waiters.to_vec(), ..ClaimRecord::new(ClaimKey::new("lock/n/s/a")) }
    }

    #[test]
    fn a_free_claim_is_granted_to_whose_turn_it_is() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|session| entry(session, 0));
        let urgent = entry(5, 1);
        let before = record(Some(a), &[b, c, d]);
        let removed = |entry, dead: &[Entry]| {
            ClaimStep::Step(Step::remove(entry, dead.iter().map(|entry| entry.session).collect()))
        };
        let comes = |entry, wait, dead: Entry| ClaimStep::Step(Step::acquire(entry, wait, 9, vec![dead.session]));
        let handed = ClaimStep::Step(Step::transfer(a, d));
        for (step, holder, waiters, good) in [
            (removed(a, &[]), b, vec![c, d], true),
            (removed(a, &[]), d, vec![b, c], false),
            (removed(a, &[]), b, vec![d, c], false),
            // The dead are passed over, and nobody else.
            (removed(a, &[b]), c, vec![d], true),
            (removed(a, &[b]), d, vec![c], false),
            // A hand-over is to the chosen one.
            (handed.clone(), d, vec![b, c], true),
            (handed, b, vec![c, d], false),
            // Whoever comes is behind those of its priority, and before the others.
            (comes(urgent, true, a), urgent, vec![b, c, d], true),
            (comes(urgent, true, a), b, vec![urgent, c, d], false),
            (comes(entry(5, 0), true, a), entry(5, 0), vec![b, c, d], false),
            (comes(entry(5, 0), true, a), b, vec![c, d, entry(5, 0)], true),
            (comes(entry(5, 0), true, a), b, vec![c, entry(5, 0), d], false),
            (comes(entry(5, 0), false, a), b, vec![c, d, entry(5, 0)], false),
            // Nobody loses what he holds, and nobody comes from nowhere.
            (removed(b, &[]), c, vec![d], false),
            (removed(a, &[]), urgent, vec![b, c, d], false),
            (removed(b, &[]), a, vec![c, d, urgent], false),
        ] {
            let after = record(Some(holder), &waiters);
            let wrong = of_claim(Some(&before), &step, &after);
            assert_eq!(wrong.is_none(), good, "{wrong:?} of {step:?} to {after:?}");
        }
        assert!(of_claim(Some(&before), &removed(a, &[]), &record(None, &[b, c, d])).is_some());
        assert!(of_claim(None, &comes(a, true, b), &record(Some(a), &[])).is_none());
    }

    #[test]
    fn who_has_renewed_is_not_declared_dead() {
        let ttl = Duration::from_secs(6);
        let live = SessionRecord {
            id: SessionId::from_random(1),
            vitality: Vitality::Live,
            nonce: Some(Nonce(1)),
            ttl,
            seen: WallTime(0),
            died: None,
            clean: false,
            info: SessionInfo::default(),
            opened: WallTime(0),
            revision: 0,
            providers: Vec::new(),
        };
        let dead = SessionRecord { vitality: Vitality::Dead, ..live.clone() };
        let observed = SessionStep::Kill(KillProof::Observed(live.nonce));
        let proven = SessionStep::Kill(KillProof::KernelLock(vec![Nonce(1)]));
        let wrong = |step: &SessionStep, after, silent_for| of_death(&live, step, after, silent_for).is_some();
        assert!(wrong(&observed, &dead, ttl.mul_f64(0.97)));
        assert!(!wrong(&observed, &dead, ttl.mul_f64(0.98)));
        assert!(!wrong(&observed, &live, Duration::ZERO));
        assert!(!wrong(&proven, &dead, Duration::ZERO));
        assert!(!wrong(&SessionStep::Close, &dead, Duration::ZERO));
    }
}
