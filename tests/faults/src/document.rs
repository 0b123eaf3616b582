//! One document of a table, as its users see it: for [`linear`](crate::linear).

use crate::history::{Answer, Ask};
use crate::linear::Object;

/// A document that is written, compared and deleted.
#[derive(Clone, Copy, Debug)]
pub struct DocumentObject;

/// What was asked of it, and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentOp {
    /// What was asked.
    pub ask: Ask,
    /// What was answered. With [`Answer::Unknown`] it is what would have been done.
    pub answer: Answer,
}

impl Object for DocumentObject {
    type Op = DocumentOp;
    /// Its value, and how often it was updated since that was put there whole.
    type State = Option<(u64, u64)>;

    fn initial(&self) -> Self::State {
        None
    }

    fn apply(&self, state: &Self::State, op: &DocumentOp) -> Option<Self::State> {
        use Answer::{Conflict, Document, Done, Exists, Nothing, Unknown};
        let DocumentOp { ask, answer } = op;
        match (ask, answer, *state) {
            (Ask::Get, Document { v, n }, Some(now)) => (now == (*v, *n)).then_some(*state),
            (Ask::Insert { .. }, Exists, Some(_)) => Some(*state),
            (Ask::Insert { v }, Done | Unknown, None) => Some(Some((*v, 0))),
            (Ask::Put { v }, Done | Unknown, _) => Some(Some((*v, 0))),
            (Ask::Update { v }, Document { v: new, n }, Some((_, before))) => {
                (new == v && *n == before + 1).then_some(Some((*v, before + 1)))
            }
            (Ask::Update { v }, Unknown, Some((_, before))) => Some(Some((*v, before + 1))),
            (Ask::ReplaceIf { seen, v }, Done | Unknown, Some((now, _))) => (now == *seen).then_some(Some((*v, 0))),
            (Ask::DeleteIf { seen }, Document { .. } | Done | Unknown, Some((now, _))) => {
                (now == *seen).then_some(None)
            }
            (Ask::ReplaceIf { seen, .. } | Ask::DeleteIf { seen }, Conflict, Some((now, _))) => {
                (now != *seen).then_some(*state)
            }
            (Ask::Delete, Document { v, n }, Some(now)) => (now == (*v, *n)).then_some(None),
            (Ask::Delete, Unknown, Some(_)) => Some(None),
            // Whatever needs a document says that there is none.
            (Ask::Insert { .. } | Ask::Put { .. }, Nothing, _) => None,
            (_, Nothing, None) => Some(None),
            _ => None,
        }
    }

    fn only_looked(&self, op: &DocumentOp) -> bool {
        op.ask == Ask::Get || matches!(op.answer, Answer::Conflict | Answer::Exists | Answer::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Nanos;
    use crate::linear::tests::any_order;
    use crate::linear::{Call, Verdict, check};

    fn call(ask: Ask, answer: Answer, begun: Nanos, ended: impl Into<Option<Nanos>>) -> Call<DocumentOp> {
        Call { op: DocumentOp { ask, answer }, begun, ended: ended.into() }
    }

    fn is(v: u64, n: u64) -> Answer {
        Answer::Document { v, n }
    }

    fn verdict(calls: &[Call<DocumentOp>]) -> Verdict {
        check(&DocumentObject, calls.to_vec(), 100_000)
    }

    #[test]
    fn what_one_document_could_have_answered_is_linear() {
        let in_turn = [
            call(Ask::Get, Answer::Nothing, 0, 1),
            call(Ask::Insert { v: 1 }, Answer::Done, 2, 3),
            call(Ask::Insert { v: 2 }, Answer::Exists, 4, 5),
            call(Ask::Update { v: 3 }, is(3, 1), 6, 7),
            call(Ask::ReplaceIf { seen: 1, v: 4 }, Answer::Conflict, 8, 9),
            call(Ask::ReplaceIf { seen: 3, v: 5 }, Answer::Done, 10, 11),
            call(Ask::Get, is(5, 0), 12, 13),
            call(Ask::Delete, is(5, 0), 14, 15),
            call(Ask::DeleteIf { seen: 5 }, Answer::Nothing, 16, 17),
        ];
        // Nobody knows whether the first was done; the read says so, and that it was late.
        let late = [
            call(Ask::Put { v: 1 }, Answer::Unknown, 0, None),
            call(Ask::Put { v: 2 }, Answer::Done, 1, 2),
            call(Ask::Get, is(2, 0), 3, 4),
            call(Ask::Get, is(1, 0), 5, 6),
        ];
        let never = [call(Ask::Put { v: 1 }, Answer::Unknown, 0, None), call(Ask::Get, Answer::Nothing, 5, 6)];
        for calls in [&in_turn[..], &late, &never] {
            assert_eq!(verdict(calls), Verdict::Linear, "{calls:?}");
        }
    }

    #[test]
    fn what_no_document_could_have_answered_is_not() {
        let lost_update = [
            call(Ask::Put { v: 1 }, Answer::Done, 0, 1),
            call(Ask::Update { v: 2 }, is(2, 1), 2, 9),
            call(Ask::Update { v: 3 }, is(3, 1), 2, 9),
        ];
        let done_twice = [call(Ask::Put { v: 1 }, Answer::Done, 0, 1), call(Ask::Update { v: 2 }, is(2, 2), 2, 3)];
        let refused_by_its_own_retry = [call(Ask::Insert { v: 1 }, Answer::Exists, 0, 9)];
        let two_win = [
            call(Ask::Put { v: 1 }, Answer::Done, 0, 1),
            call(Ask::ReplaceIf { seen: 1, v: 2 }, Answer::Done, 2, 9),
            call(Ask::ReplaceIf { seen: 1, v: 3 }, Answer::Done, 2, 9),
        ];
        let stale_read = [
            call(Ask::Put { v: 1 }, Answer::Done, 0, 1),
            call(Ask::Put { v: 2 }, Answer::Done, 2, 3),
            call(Ask::Get, is(1, 0), 4, 5),
        ];
        let lost_write = [call(Ask::Put { v: 1 }, Answer::Done, 0, 1), call(Ask::Get, Answer::Nothing, 4, 5)];
        let made_up = [call(Ask::Get, is(7, 0), 4, 5)];
        for calls in
            [&lost_update[..], &done_twice, &refused_by_its_own_retry, &two_win, &stale_read, &lost_write, &made_up]
        {
            assert!(matches!(verdict(calls), Verdict::NotLinear(_)), "{calls:?}");
        }
    }

    type Now = Option<(u64, u64)>;

    /// What a document says and is then.
    fn answer(now: Now, ask: &Ask) -> (Answer, Now) {
        match (ask, now) {
            (Ask::Get, Some((v, n))) => (is(v, n), now),
            (Ask::Insert { v }, None) | (Ask::Put { v }, _) => (Answer::Done, Some((*v, 0))),
            (Ask::Insert { .. }, Some(_)) => (Answer::Exists, now),
            (_, None) => (Answer::Nothing, None),
            (Ask::Update { v }, Some((_, n))) => (is(*v, n + 1), Some((*v, n + 1))),
            (Ask::ReplaceIf { seen, v }, Some((there, _))) if there == *seen => (Answer::Done, Some((*v, 0))),
            (Ask::DeleteIf { seen }, Some((there, n))) if there == *seen => (is(there, n), None),
            (Ask::ReplaceIf { .. } | Ask::DeleteIf { .. }, Some(_)) => (Answer::Conflict, now),
            (Ask::Delete, Some((v, n))) => (is(v, n), None),
        }
    }

    /// As it is with locks, of reads that are as old as they may be, and of calls of which nobody knows.
    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut random = crate::random::Random::new(8);
        let mut not_linear = 0;
        for _ in 0..2_000 {
            let (mut calls, mut now, mut last) = (Vec::new(), None, 0);
            for at in 1..=8 {
                let (t, v) = (at * 10, at);
                let ask = match random.below(10) {
                    0..4 => Ask::Get,
                    4 => Ask::Insert { v },
                    5 => Ask::Put { v },
                    6 => Ask::Update { v },
                    7 => Ask::ReplaceIf { seen: last, v },
                    8 => Ask::DeleteIf { seen: last },
                    _ => Ask::Delete,
                };
                let before = if ask == Ask::Get { 40 } else { 15 };
                let begun = t - random.below(before).min(t as usize) as u64;
                let unknown = ask != Ask::Get && random.chance(0.2);
                let (answer, after) = answer(now, &ask);
                if !(unknown && random.chance(0.5)) {
                    now = after;
                }
                last = now.map_or(last, |(v, _)| v);
                calls.push(if unknown {
                    call(ask, Answer::Unknown, begun, None)
                } else {
                    call(ask, answer, begun, t + random.below(15) as u64)
                });
            }
            if random.chance(0.5) {
                let at = random.below(calls.len());
                if calls[at].ended.is_some() {
                    calls[at].op.answer = [Answer::Nothing, is(at as u64, 0), is(1, 0)][random.below(3)].clone();
                }
            }
            let linear = verdict(&calls) == Verdict::Linear;
            assert_eq!(linear, any_order(&DocumentObject, &calls), "{calls:?}");
            not_linear += usize::from(!linear);
        }
        assert!((200..1_000).contains(&not_linear), "{not_linear} of 2000 were not linear");
    }
}
