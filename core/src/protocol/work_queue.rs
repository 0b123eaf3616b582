//! The queue of keys behind a reconciler: what is to be run, when, and how often again. No clock, no chance, no I/O.
//!
//! Invariants:
//! - a key is in the queue once, in one [`KeyState`]; the same key is never taken twice at once;
//! - whatever comes in while a key runs leads to exactly one more run, after it;
//! - of two moments at which a key is due the earlier one counts: a key that is added is due now, whatever was planned;
//! - a key that fails waits twice as long each time, until it succeeds;
//! - a key whose function said that it will never succeed is parked, and runs again only when it is added again;
//! - a key that was cancelled with something still to be run is remembered as such until it is added again, so that
//!   nobody takes it for done; so is a parked one, and both also while they are only planned for later;
//! - an idle key takes no memory.
//!
//! The rules are those of Kubernetes' client-go work queue, with what its users miss (kubernetes/client-go#131:
//! planned runs cannot be cancelled) and what controller-runtime added (terminal errors). The rate limit is the
//! generic cell rate algorithm (ITU-T I.371).
//!
//! Adding, taking and finishing a key cost two look-ups in a hash table together: everything between goes by slot.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::time::Timestamp;

mod limits;

pub use limits::{Backoff, Gate, Rate};

/// Keys that are to be run, each at most once at a time.
#[derive(Debug)]
pub struct WorkQueue<K> {
    options: QueueOptions,
    mode: Mode,
    index: HashMap<K, u32>,
    items: Vec<Slot<K>>,
    free: Vec<u32>,
    /// Ready keys in the order in which they came. A ticket that is not its slot's any more is skipped.
    ready: VecDeque<Ticket>,
    ready_count: usize,
    /// Keys that are due later, in the order in which they will be ready.
    delayed: BTreeMap<Plan, u32>,
    plans: u64,
    running: usize,
    parked: usize,
    gate: Gate,
}

/// What a queue keeps to.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueOptions {
    /// How many keys may run at once.
    pub workers: usize,
    /// How long a key waits after an error.
    pub backoff: Backoff,
    /// How many runs may begin in a second, all keys together; none: as many as can.
    pub rate: Option<Rate>,
}

#[derive(Debug)]
struct Slot<K> {
    /// Of whatever is in it now: goes up when that leaves.
    generation: u32,
    item: Option<Item<K>>,
}

#[derive(Debug)]
struct Item<K> {
    key: K,
    /// How often in a row it has failed.
    failures: u32,
    /// While it is delayed: something that was to be run before has not been run without an error.
    owed: bool,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Ready { since: Timestamp },
    Delayed(Plan),
    Running { since: Timestamp, again: Again, cancelled: bool },
    Parked { since: Timestamp, reason: Box<str> },
    Cancelled,
}

/// When a key is due, and which of those due then it is: the one that was planned first comes first.
type Plan = (Timestamp, u64);

/// What comes after the run that goes on, whatever that returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    No,
    At(Timestamp),
    AtOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Paused,
    Draining,
    Closed,
}

/// A key that was taken: gives it back through [`WorkQueue::finish`], once.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    slot: u32,
    generation: u32,
}

/// A key to be run now.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<K> {
    /// The key.
    pub key: K,
    /// 1, and one more for each error in a row before.
    pub attempt: u32,
    /// How long it was ready.
    pub waited: Duration,
    /// What finishes the run.
    pub ticket: Ticket,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to be done until the key is added again.
    Done,
    /// To be run again after this time, although nothing failed.
    RequeueAfter(Duration),
    /// To be tried again, after the back-off's time or this one.
    Failed {
        /// Instead of the back-off's time.
        after: Option<Duration>,
    },
    /// Not to be tried again before the key is added again.
    Terminal {
        /// Why, for people.
        reason: String,
    },
    /// Its result does not count: the key is no more this queue's.
    Forgotten,
    /// It was not run after all: to be run as soon as can be, as the same attempt.
    Returned,
}

/// What became of a key after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is not to be run before it is added again.
    Idle,
    /// It is to be run again, at once.
    AtOnce,
    /// It is to be run again then.
    At(Timestamp),
    /// It is parked.
    Parked,
}

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Not in the queue.
    Idle,
    /// To be run as soon as a worker is free.
    Ready,
    /// To be run at this moment.
    Delayed {
        /// When.
        due: Timestamp,
        /// How often in a row it has failed; 0 for a run that was planned.
        failures: u32,
        /// Whether it is not done until then: it failed, or was parked or cancelled before it was planned.
        owed: bool,
    },
    /// Running.
    Running {
        /// Whether it was added since the run began.
        again: bool,
    },
    /// Parked after a terminal error.
    Parked,
    /// Cancelled before it was done: not to be run before it is added again.
    Cancelled,
}

/// A key that will not be run before it is added again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedKey<K> {
    /// The key.
    pub key: K,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Keys that wait for a worker.
    pub ready: usize,
    /// Keys that are due later.
    pub delayed: usize,
    /// Keys that are being run.
    pub running: usize,
    /// Keys that are parked.
    pub parked: usize,
    /// How long the first of the ready keys has been ready.
    pub oldest: Duration,
    /// How long the longest run has been going on.
    pub longest_run: Duration,
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue.
    pub fn new(options: QueueOptions) -> Self {
        Self {
            gate: Gate::new(options.rate),
            options,
            mode: Mode::Open,
            index: HashMap::new(),
            items: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            ready_count: 0,
            delayed: BTreeMap::new(),
            plans: 0,
            running: 0,
            parked: 0,
        }
    }

    /// The key has changed, or somebody wants it run: it is due now. Returns whether that is news to the queue.
    pub fn add(&mut self, key: K, now: Timestamp) -> bool {
        self.schedule(key, now, now)
    }

    /// The key is to be run after this time, or earlier if that is planned already. Returns whether that is news.
    pub fn add_after(&mut self, key: K, delay: Duration, now: Timestamp) -> bool {
        self.schedule(key, now + delay, now)
    }

    /// The key exists, and its source is gone through once more: run it, unless it waits after an error, or is parked.
    pub fn refresh(&mut self, key: K, now: Timestamp) -> bool {
        match self.state(&key) {
            KeyState::Parked | KeyState::Delayed { failures: 1.., .. } => false,
            _ => self.add(key, now),
        }
    }

    fn schedule(&mut self, key: K, due: Timestamp, now: Timestamp) -> bool {
        if matches!(self.mode, Mode::Draining | Mode::Closed) {
            return false;
        }
        self.wake_due(now);
        let Some(&slot) = self.index.get(&key) else {
            let slot = self.insert(key);
            self.place(slot, due, now);
            return true;
        };
        match &mut self.item_mut(slot).place {
            Place::Ready { .. } => false,
            Place::Running { again, .. } => {
                let earlier = again.sooner(Again::at(due, now));
                std::mem::replace(again, earlier) != earlier
            }
            &mut Place::Delayed((planned, _)) if planned <= due => false,
            &mut Place::Delayed(plan) => {
                self.delayed.remove(&plan);
                self.place(slot, due, now);
                true
            }
            Place::Parked { .. } | Place::Cancelled => {
                self.lift(slot);
                self.item_mut(slot).owed = true;
                self.place(slot, due, now);
                true
            }
        }
    }

    /// Forgets what is planned for the key, errors included, but not that it was cancelled: [`KeyState::Cancelled`]. A run
    /// that goes on is not stopped, but leads to nothing more; [`WorkQueue::is_cancelled`] tells it. Returns whether there
    /// was anything.
    pub fn cancel(&mut self, key: &K) -> bool {
        let Some(&slot) = self.index.get(key) else { return false };
        let item = self.item_mut(slot);
        match &mut item.place {
            Place::Cancelled => return false,
            Place::Running { again, cancelled, .. } => {
                *again = Again::No;
                *cancelled = true;
            }
            // Whatever has changed has been run.
            Place::Delayed(_) if !item.owed => self.remove(slot),
            _ => {
                self.lift(slot);
                let item = self.item_mut(slot);
                (item.failures, item.place) = (0, Place::Cancelled);
            }
        }
        true
    }

    /// Forgets what is planned for every key that is not to be kept. Those that run are not told.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        let gone: Vec<u32> = self.index.iter().filter(|(key, _)| !keep(key)).map(|(_, slot)| *slot).collect();
        for slot in gone {
            match &mut self.item_mut(slot).place {
                Place::Running { again, .. } => *again = Again::No,
                _ => self.remove(slot),
            }
        }
    }

    /// The next key to be run, if there is one now and a worker may run it.
    pub fn take(&mut self, now: Timestamp) -> Option<Taken<K>> {
        self.wake_due(now);
        if !matches!(self.mode, Mode::Open | Mode::Draining) || self.running >= self.options.workers {
            return None;
        }
        if self.ready_count == 0 || !self.gate.pass(now) {
            return None;
        }
        let ticket = self.pop_ready()?;
        self.running += 1;
        let item = self.item_mut(ticket.slot);
        let place = Place::Running { since: now, again: Again::No, cancelled: false };
        let waited = match std::mem::replace(&mut item.place, place) {
            Place::Ready { since } => now.since(since),
            _ => Duration::ZERO,
        };
        Some(Taken { key: item.key.clone(), attempt: item.failures.saturating_add(1), waited, ticket })
    }

    /// When [`WorkQueue::take`] may give something that it does not give now, without anything else happening.
    pub fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        if !matches!(self.mode, Mode::Open | Mode::Draining) || self.running >= self.options.workers {
            return None;
        }
        let due = if self.ready_count > 0 { now } else { self.delayed.first_key_value()?.0.0 };
        Some(due.max(self.gate.opens(now)))
    }

    /// A run has ended. `jitter`, from 0 to 1, is chance's part in the wait after an error.
    pub fn finish(&mut self, ticket: Ticket, verdict: Verdict, now: Timestamp, jitter: f64) -> Next {
        self.wake_due(now);
        let Ticket { slot, generation } = ticket;
        let current = self.items.get_mut(slot as usize).filter(|s| s.generation == generation);
        // Tickets are made by `take` and used up here, so there is an item, and it runs.
        let Some(item) = current.and_then(|s| s.item.as_mut()) else { return Next::Idle };
        let Place::Running { again, cancelled, .. } = item.place else { return Next::Idle };
        self.running -= 1;
        item.failures = match verdict {
            Verdict::Failed { .. } if !cancelled => item.failures.saturating_add(1),
            Verdict::Returned if !cancelled => item.failures,
            _ => 0,
        };
        item.owed = cancelled || !matches!(verdict, Verdict::Done | Verdict::RequeueAfter(_));
        let wanted = match verdict {
            // Neither is it known what was forgotten by the cancel, nor does the run's end count.
            _ if cancelled && again == Again::No && verdict != Verdict::Forgotten => {
                item.place = Place::Cancelled;
                return Next::Idle;
            }
            _ if cancelled => Again::No,
            Verdict::Done | Verdict::Forgotten => Again::No,
            Verdict::Returned => Again::AtOnce,
            Verdict::RequeueAfter(delay) => Again::at(now + delay, now),
            Verdict::Failed { after } => {
                let delay = after.unwrap_or_else(|| self.options.backoff.delay(item.failures, jitter));
                Again::at(now + delay, now)
            }
            Verdict::Terminal { reason } if again == Again::No => {
                item.place = Place::Parked { since: now, reason: reason.into() };
                self.parked += 1;
                return Next::Parked;
            }
            Verdict::Terminal { .. } => Again::No,
        };
        match again.sooner(wanted) {
            Again::No => {
                self.remove_running(slot);
                Next::Idle
            }
            Again::At(due) => {
                self.place(slot, due, now);
                Next::At(due)
            }
            Again::AtOnce => {
                self.place(slot, now, now);
                Next::AtOnce
            }
        }
    }

    /// Whether [`WorkQueue::cancel`] was called for this run's key since it was taken.
    pub fn is_cancelled(&self, ticket: &Ticket) -> bool {
        let slot = self.items.get(ticket.slot as usize).filter(|slot| slot.generation == ticket.generation);
        slot.and_then(|slot| slot.item.as_ref())
            .is_some_and(|item| matches!(item.place, Place::Running { cancelled: true, .. }))
    }

    /// Begins no run until [`WorkQueue::resume`]; keys are still taken in.
    pub fn pause(&mut self) {
        if self.mode == Mode::Open {
            self.mode = Mode::Paused;
        }
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        if self.mode == Mode::Paused {
            self.mode = Mode::Open;
        }
    }

    /// Takes in no more keys; what is ready is still run. What is due later is not waited for.
    pub fn drain(&mut self) {
        if self.mode != Mode::Closed {
            self.mode = Mode::Draining;
        }
    }

    /// Takes in no more keys, and begins no more runs.
    pub fn close(&mut self) {
        self.mode = Mode::Closed;
    }

    /// Whether runs are held back by [`WorkQueue::pause`].
    pub fn is_paused(&self) -> bool {
        self.mode == Mode::Paused
    }

    /// Whether keys that are added are run: it was neither closed nor told to drain.
    pub fn takes_in(&self) -> bool {
        matches!(self.mode, Mode::Open | Mode::Paused)
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.mode == Mode::Closed
    }

    /// Whether it drains, and nothing is left to be run.
    pub fn is_drained(&self) -> bool {
        self.mode == Mode::Draining && self.ready_count == 0 && self.running == 0
    }

    /// How many keys are being run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Whether a key is being run for which this is true.
    pub fn any_running(&self, mut matching: impl FnMut(&K) -> bool) -> bool {
        self.running > 0 && self.items().any(|i| matches!(i.place, Place::Running { .. }) && matching(&i.key))
    }

    /// Where this key is.
    pub fn state(&self, key: &K) -> KeyState {
        let item = self.index.get(key).and_then(|slot| self.items[*slot as usize].item.as_ref());
        let Some(item) = item else { return KeyState::Idle };
        match item.place {
            Place::Ready { .. } => KeyState::Ready,
            Place::Delayed((due, _)) => KeyState::Delayed { due, failures: item.failures, owed: item.owed },
            Place::Running { again, .. } => KeyState::Running { again: again != Again::No },
            Place::Parked { .. } => KeyState::Parked,
            Place::Cancelled => KeyState::Cancelled,
        }
    }

    /// The parked keys.
    pub fn parked(&self) -> Vec<ParkedKey<K>> {
        let parked = |item: &Item<K>| match &item.place {
            Place::Parked { since, reason } => {
                Some(ParkedKey { key: item.key.clone(), reason: reason.to_string(), since: *since })
            }
            _ => None,
        };
        self.items().filter_map(parked).collect()
    }

    /// How much there is.
    pub fn depth(&self, now: Timestamp) -> Depth {
        let mut depth = Depth {
            ready: self.ready_count,
            delayed: self.delayed.len(),
            running: self.running,
            parked: self.parked,
            ..Depth::default()
        };
        for item in self.items() {
            match item.place {
                Place::Ready { since } => depth.oldest = depth.oldest.max(now.since(since)),
                Place::Running { since, .. } => depth.longest_run = depth.longest_run.max(now.since(since)),
                _ => {}
            }
        }
        depth
    }

    fn items(&self) -> impl Iterator<Item = &Item<K>> {
        self.items.iter().filter_map(|slot| slot.item.as_ref())
    }

    fn item_mut(&mut self, slot: u32) -> &mut Item<K> {
        self.items[slot as usize].item.as_mut().expect("the index names slots that are in use")
    }

    /// A slot for a key that is in none. Its place is set next.
    fn insert(&mut self, key: K) -> u32 {
        let item = Item { key: key.clone(), failures: 0, owed: false, place: Place::Ready { since: Timestamp::ZERO } };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.items[slot as usize].item = Some(item);
                slot
            }
            None => {
                let slot = u32::try_from(self.items.len()).expect("keys of 4 billion do not fit into memory");
                self.items.push(Slot { generation: 0, item: Some(item) });
                slot
            }
        };
        self.index.insert(key, slot);
        slot
    }

    /// Puts an item that is nowhere to where it belongs at `now`.
    fn place(&mut self, slot: u32, due: Timestamp, now: Timestamp) {
        if due > now {
            let plan = (due, self.plans);
            self.plans += 1;
            self.item_mut(slot).place = Place::Delayed(plan);
            self.delayed.insert(plan, slot);
        } else {
            self.item_mut(slot).place = Place::Ready { since: now };
            let generation = self.items[slot as usize].generation;
            self.ready.push_back(Ticket { slot, generation });
            self.ready_count += 1;
        }
    }

    /// What has become due stands in line before whatever comes in now.
    fn wake_due(&mut self, now: Timestamp) {
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let slot = first.remove();
            self.place(slot, now, now);
        }
    }

    fn pop_ready(&mut self) -> Option<Ticket> {
        loop {
            let ticket = self.ready.pop_front()?;
            let slot = &self.items[ticket.slot as usize];
            if slot.generation == ticket.generation {
                self.ready_count -= 1;
                return Some(ticket);
            }
        }
    }

    /// Takes an item that does not run out of the queue.
    fn remove(&mut self, slot: u32) {
        self.lift(slot);
        self.remove_running(slot);
    }

    /// Takes an item that does not run out of its place. The next one is set next.
    fn lift(&mut self, slot: u32) {
        match self.item_mut(slot).place {
            Place::Ready { .. } => {
                self.ready_count -= 1;
                let place = &mut self.items[slot as usize];
                place.generation = place.generation.wrapping_add(1);
            }
            Place::Delayed(plan) => {
                self.delayed.remove(&plan);
            }
            Place::Parked { .. } => self.parked -= 1,
            Place::Running { .. } | Place::Cancelled => {}
        }
        // What was cancelled stays in line until its turn; not for ever when nothing is taken.
        if self.ready.len() > 2 * self.ready_count + STALE {
            let items = &self.items;
            self.ready.retain(|ticket| items[ticket.slot as usize].generation == ticket.generation);
        }
    }

    fn remove_running(&mut self, slot: u32) {
        let place = &mut self.items[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        if let Some(item) = place.item.take() {
            self.index.remove(&item.key);
        }
        self.free.push(slot);
    }
}

impl Again {
    fn at(due: Timestamp, now: Timestamp) -> Self {
        if due > now { Self::At(due) } else { Self::AtOnce }
    }

    fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::AtOnce, _) | (_, Self::AtOnce) => Self::AtOnce,
            (Self::At(a), Self::At(b)) => Self::At(a.min(b)),
            (Self::No, planned) | (planned, Self::No) => planned,
        }
    }
}

/// How many cancelled keys may stand in line beyond those that wait.
const STALE: usize = 64;

#[cfg(test)]
mod tests;
