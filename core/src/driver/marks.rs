//! What a client has in hand, by name, for those of its tasks that did not take it in hand themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that are marked for as long as anybody has a mark of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Arc<Mutex<BTreeMap<String, usize>>>);

/// One mark of a name. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Mark {
    marks: Marks,
    name: String,
}

impl Marks {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mark(&self, name: String) -> Mark {
        *self.counts().entry(name.clone()).or_default() += 1;
        Mark { marks: self.clone(), name }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.counts().contains_key(name)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut counts = self.marks.counts();
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}
