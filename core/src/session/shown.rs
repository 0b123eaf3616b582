//! The sessions that somebody in this client shows to its user: those whose providers an observer has, a leader, or those
//! that a watch of owners has told of. Whoever shows a session must learn of its death, so the client looks after them (see `observer`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::protocol::session::{SessionId, SessionInfo};

/// Who they are.
pub(crate) type Sessions = BTreeMap<SessionId, Arc<SessionInfo>>;

/// What all of a client show.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    by: BTreeMap<u64, Sessions>,
}

impl Shown {
    /// Somebody begins to show sessions: none at first.
    pub(crate) fn begin(self: &Arc<Self>) -> Showing {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.by.insert(number, Sessions::new());
        Showing { shown: self.clone(), number }
    }

    /// The sessions that anybody shows: the first so many, which are the same ones for all who show the same.
    pub(crate) fn sessions(&self, most: usize) -> Sessions {
        let state = self.state();
        let all = state.by.values().flat_map(|sessions| sessions.iter().take(most));
        let mut sessions: Sessions = all.map(|(id, info)| (*id, info.clone())).collect();
        while sessions.len() > most {
            sessions.pop_last();
        }
        sessions
    }

    /// The next change after this call. Take it before looking at the sessions.
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who shows sessions, until it is dropped.
#[derive(Debug)]
pub(crate) struct Showing {
    shown: Arc<Shown>,
    number: u64,
}

impl Showing {
    /// These are shown now, and no others.
    pub(crate) fn set(&self, sessions: Sessions) {
        self.change(|shown| {
            let news = !shown.keys().eq(sessions.keys());
            *shown = sessions;
            news
        });
    }

    /// This one is shown from now on.
    pub(crate) fn add(&self, id: SessionId, info: &Arc<SessionInfo>) {
        self.change(|shown| shown.insert(id, info.clone()).is_none());
    }

    /// This one is not shown any more.
    pub(crate) fn remove(&self, id: SessionId) {
        self.change(|shown| shown.remove(&id).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut Sessions) -> bool) {
        if self.shown.state().by.get_mut(&self.number).is_some_and(change) {
            self.shown.changed.notify_waiters();
        }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that is not there.
        if crate::driver::Runtime::is_ours() {
            self.shown.state().by.remove(&self.number);
        }
    }
}
