//! The parts of the keys that this replica may run: they come with a claim and go with it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use super::super::Mode;
use super::super::rights::Right;
use super::Engine;
use crate::protocol::document::Key;
use crate::protocol::shards;
use crate::protocol::work_queue::KeyState;
use crate::time::Timestamp;

/// The parts that this replica holds, and what the next holder of a part cannot find in the source.
#[derive(Default)]
pub(super) struct Rights {
    held: HashMap<u32, Part>,
    graves: VecDeque<(Timestamp, Arc<Key>)>,
}

struct Part {
    right: Arc<Right>,
    /// Every key of it that was there when it was granted is in the queue, or was run since.
    listed: bool,
}

impl Rights {
    /// By which right this part's keys are run; none when it is lost.
    pub(super) fn right(&self, part: u32) -> Option<&Arc<Right>> {
        self.held.get(&part).map(|part| &part.right).filter(|right| !right.is_lost())
    }
}

impl Engine {
    /// Whether this replica may run the key, as far as is known.
    pub(in crate::reconciler) fn is_ours(&self, key: &Key) -> bool {
        let Some(rights) = &self.rights else { return true };
        rights.lock().unwrap_or_else(PoisonError::into_inner).held.contains_key(&self.part_of(key))
    }

    /// Whether a key that does not wait in the queue has been run as it is, as far as is told; none if it is another's to
    /// run. What the holder before did not get to is in the queue only when the part is listed, and what is taken from it
    /// under a right that is lost is forgotten.
    pub(in crate::reconciler) fn is_complete(&self, key: &Key) -> Option<bool> {
        let Some(rights) = &self.rights else { return Some(true) };
        let rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
        let part = rights.held.get(&self.part_of(key))?;
        Some(part.listed && !part.right.is_lost())
    }

    /// The part that a key belongs to: its shard, or the whole.
    pub(super) fn part_of(&self, key: &Key) -> u32 {
        match self.options.mode {
            Mode::Sharded { shards } => shards::shard_of(key.bytes(), shards),
            Mode::All | Mode::Leader => 0,
        }
    }

    /// This replica holds a part now.
    pub(in crate::reconciler) fn grant(&self, part: u32, right: Arc<Right>) {
        let Some(rights) = &self.rights else { return };
        let mut rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
        rights.held.insert(part, Part { right, listed: false });
        let graves: Vec<_> = rights.graves.iter().map(|(_, key)| key.clone()).collect();
        drop(rights);
        for key in graves.into_iter().filter(|key| self.part_of(key) == part) {
            self.add(key);
        }
    }

    /// It begins none of the part's keys any more.
    pub(in crate::reconciler) fn revoke(&self, part: u32) {
        let Some(rights) = &self.rights else { return };
        rights.lock().unwrap_or_else(PoisonError::into_inner).held.remove(&part);
        self.queue().retain(|key| self.part_of(key) != part);
        self.settled.notify_waiters();
    }

    /// Waits until no deletion of the part waits to be run: its next holder may have come after it, and cannot list it.
    pub(in crate::reconciler) async fn deletions_run(&self, part: u32) {
        let run = |engine: &Self| {
            let rights = engine.rights.as_ref()?;
            let graves: Vec<_> = {
                let rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
                rights.graves.iter().map(|(_, key)| key.clone()).collect()
            };
            let queue = engine.queue();
            let open =
                |key: &Arc<Key>| !matches!(queue.state(key), KeyState::Idle | KeyState::Parked | KeyState::Cancelled);
            (!graves.iter().any(|key| engine.part_of(key) == part && open(key))).then_some(())
        };
        self.settled(run).await;
    }

    /// Remembers a deletion.
    pub(super) fn bury(&self, key: &Arc<Key>) {
        let Some(rights) = &self.rights else { return };
        let mut rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        rights.graves.push_back((now, key.clone()));
        let kept = self.core.setup().timing.ttl * GRAVES_FOR;
        while rights.graves.len() > MAX_GRAVES
            || rights.graves.front().is_some_and(|(since, _)| now.since(*since) > kept)
        {
            rights.graves.pop_front();
        }
    }

    /// The parts that this replica holds.
    pub(in crate::reconciler) fn parts(&self) -> Vec<u32> {
        let Some(rights) = &self.rights else { return Vec::new() };
        let mut parts: Vec<u32> = rights.lock().unwrap_or_else(PoisonError::into_inner).held.keys().copied().collect();
        parts.sort_unstable();
        parts
    }

    /// Lists the keys of a part that was granted by this right, and adds them. Tries until that is done.
    pub(in crate::reconciler) async fn list_part(&self, part: u32, right: &Arc<Right>) {
        self.list(|key| self.part_of(key) == part).await;
        let Some(rights) = &self.rights else { return };
        let mut rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = rights.held.get_mut(&part).filter(|held| Arc::ptr_eq(&held.right, right)) {
            held.listed = true;
        }
        drop(rights);
        self.settled.notify_waiters();
    }
}

/// For how many ttls a deletion is remembered for the next holder of its part, and how many are. Who holds the part is
/// dead for at most a little more than one ttl before somebody else has it.
const GRAVES_FOR: u32 = 10;
const MAX_GRAVES: usize = 100_000;
