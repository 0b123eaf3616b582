//! The parts of the keys that this replica may run: they come with a claim and go with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use super::super::Mode;
use super::super::rights::Right;
use super::Engine;
use super::graves::Graves;
use crate::error::Result;
use crate::protocol::document::Key;
use crate::protocol::shards;
use crate::protocol::work_queue::KeyState;

/// The parts that this replica holds, and what the next holder of a part cannot find in the source.
#[derive(Default)]
pub(super) struct Rights {
    held: HashMap<u32, Part>,
    graves: Graves,
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

    /// This replica holds a part now. First it runs the deletions that it has heard of, the last one first: it may not be
    /// there for long, and nobody who comes after them can find them.
    pub(in crate::reconciler) fn grant(&self, part: u32, right: Arc<Right>) {
        let Some(rights) = &self.rights else { return };
        let now = self.now();
        let mut queue = self.queue();
        let mut rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
        rights.held.insert(part, Part { right, listed: false });
        let graves = rights.graves.of(part);
        drop(rights);
        for key in graves {
            queue.add(key, now);
        }
        drop(queue);
        self.wake();
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
            let graves = rights.lock().unwrap_or_else(PoisonError::into_inner).graves.of(part);
            let queue = engine.queue();
            let open =
                |key: &Arc<Key>| !matches!(queue.state(key), KeyState::Idle | KeyState::Parked | KeyState::Cancelled);
            (!graves.iter().any(open)).then_some(())
        };
        self.settled(run).await;
    }

    /// Remembers a deletion: whoever holds its part may take any time for it, and die before it is run. Whether an older one
    /// was forgotten for it, for the first time.
    pub(super) fn bury(&self, key: &Arc<Key>) -> bool {
        let Some(rights) = &self.rights else { return false };
        let part = self.part_of(key);
        rights.lock().unwrap_or_else(PoisonError::into_inner).graves.bury(part, key)
    }

    /// This replica has run the key as it is: if it gets the part again, a deletion is nothing to be done.
    pub(super) fn forget_deletion(&self, key: &Arc<Key>) {
        let Some(rights) = &self.rights else { return };
        let part = self.part_of(key);
        rights.lock().unwrap_or_else(PoisonError::into_inner).graves.forget(part, key);
    }

    /// The parts that this replica holds.
    pub(in crate::reconciler) fn parts(&self) -> Vec<u32> {
        let Some(rights) = &self.rights else { return Vec::new() };
        let mut parts: Vec<u32> = rights.lock().unwrap_or_else(PoisonError::into_inner).held.keys().copied().collect();
        parts.sort_unstable();
        parts
    }

    /// Lists the keys of a part that was granted by this right, and adds them; together with those of every other part that
    /// is not listed yet, since a listing reads all keys. Tries until that is done.
    ///
    /// # Errors
    /// Those that waiting does not cure.
    pub(in crate::reconciler) async fn list_part(&self, part: u32, right: &Arc<Right>) -> Result<()> {
        let Some(rights) = &self.rights else { return Ok(()) };
        let _one_at_a_time = self.listing.lock().await;
        let open: BTreeMap<u32, Arc<Right>> = {
            let rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
            let open = rights.held.iter().filter(|(_, held)| !held.listed);
            open.map(|(part, held)| (*part, held.right.clone())).collect()
        };
        if !open.get(&part).is_some_and(|held| Arc::ptr_eq(held, right)) {
            return Ok(());
        }
        self.list(|key| open.contains_key(&self.part_of(key))).await?;
        let mut rights = rights.lock().unwrap_or_else(PoisonError::into_inner);
        for (part, right) in &open {
            // One that was lost and granted anew meanwhile is listed anew.
            if let Some(held) = rights.held.get_mut(part).filter(|held| Arc::ptr_eq(&held.right, right)) {
                held.listed = true;
            }
        }
        drop(rights);
        self.settled.notify_waiters();
        Ok(())
    }
}
