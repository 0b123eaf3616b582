//! The deletions that are remembered for whoever gets a part next: he cannot find them in the source.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::protocol::document::Key;

/// Keys that are gone from the source, each once, by the part that they belong to.
///
/// None is too old: how long the holder of its part takes for it nobody else knows. When there are too many the oldest goes.
#[derive(Default)]
pub(super) struct Graves {
    parts: HashMap<u32, HashMap<Arc<Key>, u64>>,
    /// In the order of the deletions.
    order: BTreeMap<u64, (u32, Arc<Key>)>,
    next: u64,
    /// One was given up.
    overflowed: bool,
}

impl Graves {
    /// Remembers a deletion. Whether another one was given up for it, for the first time.
    pub(super) fn bury(&mut self, part: u32, key: &Arc<Key>) -> bool {
        let number = self.next;
        self.next += 1;
        if let Some(before) = self.parts.entry(part).or_default().insert(key.clone(), number) {
            self.order.remove(&before);
        }
        self.order.insert(number, (part, key.clone()));
        if self.order.len() <= MAX_GRAVES {
            return false;
        }
        if let Some((_, (part, key))) = self.order.pop_first() {
            self.forget(part, &key);
        }
        !std::mem::replace(&mut self.overflowed, true)
    }

    /// The deletion was run, or there was none.
    pub(super) fn forget(&mut self, part: u32, key: &Arc<Key>) {
        if let Some(number) = self.parts.get_mut(&part).and_then(|keys| keys.remove(key)) {
            self.order.remove(&number);
        }
    }

    /// Those of a part, the last one first: the longer ago, the likelier it was run.
    pub(super) fn of(&self, part: u32) -> Vec<Arc<Key>> {
        let mut keys: Vec<_> = self.parts.get(&part).into_iter().flatten().collect();
        keys.sort_unstable_by_key(|(_, number)| std::cmp::Reverse(**number));
        keys.into_iter().map(|(key, _)| key.clone()).collect()
    }
}

/// How many deletions are remembered: whoever takes over runs as many before anything else.
pub(super) const MAX_GRAVES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_remembered_once_until_it_was_run_or_there_are_too_many() {
        let key = |n: usize| Arc::new(Key::from(i64::try_from(n).unwrap()));
        let mut graves = Graves::default();
        for n in [1, 2, 1, 3] {
            assert!(!graves.bury(7, &key(n)));
        }
        assert!(!graves.bury(8, &key(4)));
        assert_eq!(graves.of(7), [key(3), key(1), key(2)]);
        graves.forget(7, &key(1));
        graves.forget(7, &key(4));
        assert_eq!((graves.of(7), graves.of(8)), (vec![key(3), key(2)], vec![key(4)]));

        // The oldest goes, of whichever part; that is told once.
        for n in 3..MAX_GRAVES {
            assert!(!graves.bury(9, &key(n)));
        }
        assert!(graves.bury(9, &key(0)));
        assert!(!graves.bury(9, &key(1)));
        assert_eq!((graves.of(7).len(), graves.of(8).len(), graves.of(9).len()), (0, 1, MAX_GRAVES - 1));
        assert_eq!(graves.order.len(), MAX_GRAVES);
    }
}
