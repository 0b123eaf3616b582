//! Linearizability: whether calls that overlapped in time can be put into one order, each at a moment between its
//! begin and its end, in which an object that does one thing at a time would have answered as they were answered.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993): the next call in the order
//! is one that began before any other that is left had ended. As Lowe added ("Testing for linearizability", 2017), a
//! pair of what was done and the state that came of it is looked at once.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use crate::history::Nanos;

/// What the calls are made to, with one at a time.
pub trait Object {
    /// A call with its answer.
    type Op: Debug;
    /// What it remembers between calls.
    type State: Clone + Eq + Hash;

    /// Before the first call.
    fn initial(&self) -> Self::State;

    /// The state after the call; none where the object would not have answered so.
    fn apply(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether a call that was answered so has left everything as it was, in whatever state.
    fn only_looked(&self, op: &Self::Op) -> bool;
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O> {
    /// What was asked and answered.
    pub op: O,
    /// When it began.
    pub begun: Nanos,
    /// When it was answered. None where nobody knows: then it happened at any time after its begin, or never.
    pub ended: Option<Nanos>,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linear,
    /// There is none. The text shows where the longest attempt got stuck.
    NotLinear(String),
    /// The search was given up.
    TooLong,
}

/// One step of the search: what was done, what came of it, and which call to try next.
struct Step<S> {
    state: S,
    /// The call that led here.
    by: Option<usize>,
    /// Those that may come next, best last.
    next: Vec<usize>,
}

/// Looks for an order, trying at most `budget` steps.
pub fn check<T: Object>(object: &T, mut calls: Vec<Call<T::Op>>, budget: u64) -> Verdict {
    calls.sort_by_key(|call| call.begun);
    let wanted = calls.iter().filter(|call| call.ended.is_some()).count();
    let mut done = vec![false; calls.len()];
    // All before this one are done.
    let mut first = 0;
    let mut answered = 0;
    let mut seen = HashSet::new();
    let mut best = (0, String::new());
    let start = object.initial();
    let next = candidates(object, &start, &calls, &done, first);
    let mut steps = vec![Step { state: start, by: None, next }];
    for _ in 0..budget {
        if answered == wanted {
            return Verdict::Linear;
        }
        let Some(step) = steps.last_mut() else { return Verdict::NotLinear(best.1) };
        if let Some(call) = step.next.pop() {
            let Some(state) = object.apply(&step.state, &calls[call].op) else { continue };
            done[call] = true;
            answered += usize::from(calls[call].ended.is_some());
            while done.get(first) == Some(&true) {
                first += 1;
            }
            let beyond: Vec<usize> = (first..calls.len()).filter(|at| done[*at]).collect();
            let fresh = seen.insert((first, beyond, state.clone()));
            let next = if fresh { candidates(object, &state, &calls, &done, first) } else { Vec::new() };
            if answered >= best.0 && fresh {
                let left: Vec<_> = next.iter().rev().take(5).map(|at| &calls[*at]).collect();
                best = (answered, format!("after {answered} of {wanted} calls, none of these can come next: {left:?}"));
            }
            steps.push(Step { state, by: Some(call), next });
        } else if let Some(call) = steps.pop().and_then(|step| step.by) {
            done[call] = false;
            answered -= usize::from(calls[call].ended.is_some());
            first = first.min(call);
        }
    }
    Verdict::TooLong
}

/// The calls that may come next: those that began before any other that is left had ended. Those that end first are
/// last, and so tried first. One that only looked, and sees here what it saw, comes now if it can come now: in any order
/// that has it later it can be drawn forward, and nobody else notices. So there is nothing else to be tried.
fn candidates<T: Object>(
    object: &T,
    state: &T::State,
    calls: &[Call<T::Op>],
    done: &[bool],
    first: usize,
) -> Vec<usize> {
    let mut earliest_end = Nanos::MAX;
    let mut found = Vec::new();
    for (at, call) in calls.iter().enumerate().skip(first).filter(|(at, _)| !done[*at]) {
        if call.begun > earliest_end {
            break;
        }
        earliest_end = earliest_end.min(call.ended.unwrap_or(Nanos::MAX));
        found.push(at);
    }
    found.retain(|at| calls[*at].begun <= earliest_end);
    let looked = |at: &&usize| object.only_looked(&calls[**at].op) && object.apply(state, &calls[**at].op).is_some();
    if let Some(now) = found.iter().find(looked) {
        return vec![*now];
    }
    found.sort_by_key(|at| std::cmp::Reverse(calls[*at].ended.unwrap_or(Nanos::MAX)));
    found
}

/// A lock, as its users see it: granted with tokens that grow, to one at a time.
#[derive(Clone, Copy, Debug)]
pub struct LockObject;

/// What is asked of a lock, and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOp {
    /// It was granted with this token.
    Grant(i64),
    /// The hold with this token ended: by a release, or because its session did.
    End(i64),
    /// It was not granted, since somebody held it: with this token, where that is known.
    Contended(Option<i64>),
}

impl Object for LockObject {
    type Op = LockOp;
    /// The token of the present hold, and the highest so far.
    type State = (Option<i64>, i64);

    fn initial(&self) -> Self::State {
        (None, i64::MIN)
    }

    fn apply(&self, (held, highest): &Self::State, op: &LockOp) -> Option<Self::State> {
        match op {
            LockOp::Grant(token) => (held.is_none() && token > highest).then_some((Some(*token), *token)),
            LockOp::End(token) => (*held == Some(*token)).then_some((None, *highest)),
            LockOp::Contended(holder) => {
                held.filter(|held| holder.is_none_or(|holder| holder == *held)).map(|_| (*held, *highest))
            }
        }
    }

    fn only_looked(&self, op: &LockOp) -> bool {
        matches!(op, LockOp::Contended(_))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::LockOp::{Contended, End, Grant};
    use super::*;

    fn call(op: LockOp, begun: Nanos, ended: impl Into<Option<Nanos>>) -> Call<LockOp> {
        Call { op, begun, ended: ended.into() }
    }

    fn verdict(calls: &[Call<LockOp>]) -> Verdict {
        check(&LockObject, calls.to_vec(), 100_000)
    }

    #[test]
    fn what_one_lock_could_have_answered_is_linear() {
        let contended_while_held =
            [call(Grant(1), 0, 10), call(Contended(None), 12, 14), call(End(1), 15, 20), call(Grant(2), 5, 22)];
        // The end of a hold whose process died is known by nobody.
        let killed =
            [call(Grant(1), 0, 10), call(End(1), 11, None), call(Grant(2), 5, 50), call(Contended(None), 20, 30)];
        // The refusal says whose hold it met.
        let by_another =
            [call(Grant(1), 0, 10), call(End(1), 11, 40), call(Grant(2), 5, 50), call(Contended(Some(2)), 12, 30)];
        // An answer may be late: the second was granted before the first had heard of its own release.
        let late = [call(Grant(1), 0, 10), call(End(1), 20, 90), call(Grant(2), 5, 22), call(End(2), 23, 24)];
        for calls in [&contended_while_held[..], &killed, &by_another, &late, &[]] {
            assert_eq!(verdict(calls), Verdict::Linear, "{calls:?}");
        }
    }

    #[test]
    fn what_no_lock_could_have_answered_is_not() {
        let two_hold = [call(Grant(1), 0, 10), call(Grant(2), 5, 20), call(End(1), 30, 40)];
        let token_falls = [call(Grant(2), 0, 10), call(End(2), 11, 12), call(Grant(1), 13, 20)];
        let token_repeats = [call(Grant(2), 0, 10), call(End(2), 11, 12), call(Grant(2), 13, 20)];
        let refused_while_free = [call(Grant(1), 0, 10), call(End(1), 11, 12), call(Contended(None), 13, 20)];
        let refused_by_another = [call(Grant(1), 0, 10), call(Contended(Some(2)), 12, 14), call(Grant(2), 13, 40)];
        let ended_without_a_hold = [call(End(1), 0, 10), call(Grant(1), 11, 12)];
        for calls in [
            &two_hold[..],
            &token_falls,
            &token_repeats,
            &refused_while_free,
            &refused_by_another,
            &ended_without_a_hold,
        ] {
            assert!(matches!(verdict(calls), Verdict::NotLinear(_)), "{calls:?}");
        }
    }

    /// Random histories of a real lock are linear; with one answer changed, most are not, and a slow search over all
    /// orders agrees each time.
    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut random = crate::random::Random::new(7);
        let mut not_linear = 0;
        for _ in 0..2_000 {
            let mut calls = Vec::new();
            let mut t = 0;
            for token in 1..=3 {
                // A point in time each, from which begin and end reach into those of the neighbours.
                for op in [Grant(token), Contended(None), Contended(Some(token)), End(token)] {
                    t += 10;
                    let begun = t - random.below(15).min(t as usize) as u64;
                    let ended = (!random.chance(0.1)).then(|| t + random.below(15) as u64);
                    calls.push(call(op, begun, ended));
                }
            }
            if random.chance(0.5) {
                let at = random.below(calls.len());
                calls[at].op = [Grant(2), Contended(None), Contended(Some(2)), End(1)][random.below(4)].clone();
            }
            let linear = verdict(&calls) == Verdict::Linear;
            assert_eq!(linear, any_order(&LockObject, &calls), "{calls:?}");
            not_linear += usize::from(!linear);
        }
        assert!((200..1_000).contains(&not_linear), "{not_linear} of 2000 were not linear");
    }

    /// Whether there is an order, of all that there can be.
    pub(crate) fn any_order<T: Object>(object: &T, calls: &[Call<T::Op>]) -> bool {
        order_of_the_rest(object, calls, &mut vec![false; calls.len()], &object.initial())
    }

    fn order_of_the_rest<T: Object>(object: &T, calls: &[Call<T::Op>], done: &mut Vec<bool>, state: &T::State) -> bool {
        let open: Vec<usize> = (0..calls.len()).filter(|at| !done[*at]).collect();
        if open.iter().all(|at| calls[*at].ended.is_none()) {
            return true;
        }
        open.iter().any(|at| {
            let first = open.iter().all(|other| calls[*other].ended.is_none_or(|end| end >= calls[*at].begun));
            let Some(after) = object.apply(state, &calls[*at].op).filter(|_| first) else { return false };
            done[*at] = true;
            let found = order_of_the_rest(object, calls, done, &after);
            done[*at] = false;
            found
        })
    }

    #[test]
    fn a_long_history_is_checked_in_time() {
        let mut calls = Vec::new();
        for n in 0..3_000_u64 {
            let token = n as i64;
            calls.push(call(Grant(token), n * 10, n * 10 + 15));
            calls.push(call(Contended(None), n * 10 + 8, n * 10 + 19));
            calls.push(call(End(token), n * 10 + 9, if n % 7 == 0 { None } else { Some(n * 10 + 13) }));
        }
        assert_eq!(check(&LockObject, calls, 1_000_000), Verdict::Linear);
    }
}
