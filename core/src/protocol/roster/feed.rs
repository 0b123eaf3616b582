//! What an observer is told, in order: steps of the view, the edges between "somebody" and "nobody", and the brackets
//! around snapshots.
//!
//! Invariants: for each service first-up and last-down alternate, and first-up comes first; nothing that is taken
//! contradicts what was taken before; whoever has taken everything knows what is true now. One who is slow is told less:
//! beyond [`KEPT`] events of one service they are replaced by what leads from what was told to what is true when it is taken.
//! Beyond [`KEPT_OF_ALL`] all is replaced by that, as a bracket: so what is kept for one who takes nothing does not grow with
//! the services that have come and gone. A last-down is held back for the grace, and dropped when somebody is back by then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::view::{Present, ProviderId, Roster, Step};
use crate::time::Timestamp;

/// As many events of one service are kept for an observer who is slow.
pub const KEPT: usize = 128;

/// As many are kept of all services together; more only where more is there.
pub const KEPT_OF_ALL: usize = 4_096;

/// What an observer is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// What follows, up to the end, leads from what was told to what is true now.
    SnapshotStart,
    /// The end of it.
    SnapshotEnd,
    /// The service of this provider had none.
    FirstUp(Arc<Present>),
    /// This service has none any more.
    LastDown(String),
    /// A provider has come.
    Joined(Arc<Present>),
    /// A provider has gone.
    Left(Arc<Present>),
    /// A provider has other metadata.
    Changed(Arc<Present>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    Bracket(Event),
    Event(String, Event),
    /// In place of all events of this service.
    Resync(String),
    /// In place of everything: what comes until it is taken adds nothing. Only a bracket's end comes after it.
    ResyncAll,
}

/// What the observer knows of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Told {
    up: bool,
    providers: BTreeMap<ProviderId, Arc<Present>>,
}

/// The events that an observer has not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Feed {
    grace: Duration,
    /// [`KEPT_OF_ALL`]; tests have less.
    pub(super) most: usize,
    /// What a resync of one service has found. Before the queue, and not of it: else a service with many providers would
    /// be too much again with its next event.
    found: VecDeque<(String, Event)>,
    queue: VecDeque<Item>,
    /// A bracket's start was taken, and not its end.
    in_bracket: bool,
    /// How many events of each service are in the queue; as many as none, when something stands for all of them.
    pending: BTreeMap<String, Option<usize>>,
    told: BTreeMap<String, Told>,
    /// How many provide each service, by what was taken in.
    counts: BTreeMap<String, usize>,
    /// The services that are up by what was queued.
    up: BTreeSet<String>,
    /// Those that will be down, and when.
    held: BTreeMap<String, Timestamp>,
}

impl Feed {
    /// With this grace for services that are down.
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            most: KEPT_OF_ALL,
            found: VecDeque::new(),
            queue: VecDeque::new(),
            in_bracket: false,
            pending: BTreeMap::new(),
            told: BTreeMap::new(),
            counts: BTreeMap::new(),
            up: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    /// Takes in a snapshot's steps.
    pub fn bracket(&mut self, steps: Vec<Step>, now: Timestamp) {
        let closed = matches!(self.queue.back(), Some(Item::Bracket(Event::SnapshotEnd)));
        if closed && steps.is_empty() {
            // The bracket that is there says the same: nobody has taken its end yet.
            return;
        }
        self.put(Item::Bracket(Event::SnapshotStart));
        self.take_in(steps, now);
        self.put(Item::Bracket(Event::SnapshotEnd));
        self.bound();
    }

    /// Takes in steps.
    pub fn extend(&mut self, steps: Vec<Step>, now: Timestamp) {
        self.take_in(steps, now);
        self.bound();
    }

    fn take_in(&mut self, steps: Vec<Step>, now: Timestamp) {
        self.on_time(now);
        for step in steps {
            let service = step.present().provider.service.clone();
            match step {
                Step::Joined(present) => {
                    *self.counts.entry(service.clone()).or_default() += 1;
                    self.held.remove(&service);
                    if self.up.insert(service.clone()) {
                        self.push(&service, Event::FirstUp(present.clone()));
                    }
                    self.push(&service, Event::Joined(present));
                }
                Step::Changed(present) => self.push(&service, Event::Changed(present)),
                Step::Left(present) => {
                    self.push(&service, Event::Left(present));
                    let count = self.counts.entry(service.clone()).or_default();
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.counts.remove(&service);
                        self.go_down(&service, now);
                    }
                }
            }
        }
    }

    /// Whether something waits to be taken.
    pub fn has_any(&self) -> bool {
        !self.found.is_empty() || !self.queue.is_empty()
    }

    /// When something happens by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.held.values().min().copied()
    }

    /// The next event, if there is one now. `roster` is the view.
    pub fn take(&mut self, roster: &Roster, now: Timestamp) -> Option<Event> {
        self.on_time(now);
        loop {
            if let Some((service, event)) = self.found.pop_front() {
                self.note(&service, &event);
                return Some(event);
            }
            match self.queue.pop_front()? {
                Item::Bracket(event) => {
                    self.in_bracket = event == Event::SnapshotStart;
                    return Some(event);
                }
                Item::Event(service, event) => {
                    if let Some(Some(count)) = self.pending.get_mut(&service) {
                        *count -= 1;
                        if *count == 0 {
                            self.pending.remove(&service);
                        }
                    }
                    self.note(&service, &event);
                    return Some(event);
                }
                Item::Resync(service) => self.resync(&service, roster),
                Item::ResyncAll => self.resync_all(),
            }
        }
    }

    fn on_time(&mut self, now: Timestamp) {
        let due: Vec<String> = self.held.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for service in due {
            self.held.remove(&service);
            self.up.remove(&service);
            self.push(&service.clone(), Event::LastDown(service));
        }
    }

    fn go_down(&mut self, service: &str, now: Timestamp) {
        if self.grace.is_zero() {
            self.up.remove(service);
            self.push(service, Event::LastDown(service.to_owned()));
        } else {
            self.held.entry(service.to_owned()).or_insert(now + self.grace);
        }
    }

    fn is_behind(&self) -> bool {
        self.queue.iter().rev().nth(1) == Some(&Item::ResyncAll)
    }

    fn put(&mut self, item: Item) {
        if !self.is_behind() {
            self.queue.push_back(item);
        }
    }

    fn push(&mut self, service: &str, event: Event) {
        if self.is_behind() {
            return;
        }
        match self.pending.entry(service.to_owned()).or_insert(Some(0)) {
            // What stands for all of them stands for this one, too.
            None => return,
            Some(count) if *count < KEPT => *count += 1,
            all => {
                *all = None;
                self.collapse(service);
                return;
            }
        }
        self.queue.push_back(Item::Event(service.to_owned(), event));
    }

    /// One item in the place of the first, so that a bracket's end still means what it says.
    fn collapse(&mut self, service: &str) {
        let ours = |item: &Item| matches!(item, Item::Event(of, _) if of == service);
        if let Some(first) = self.queue.iter_mut().find(|item| ours(item)) {
            *first = Item::Resync(service.to_owned());
        }
        self.queue.retain(|item| !ours(item));
    }

    /// Where too much waits, a bracket takes the place of everything. Never in the middle of one that is taken in.
    fn bound(&mut self) {
        // Twice what a resync of all puts there: not the next few events bring about another one.
        let most = self.most.max(2 * (self.told.len() + self.up.len()));
        if self.queue.len() <= most {
            return;
        }
        self.pending.clear();
        self.found.clear();
        self.queue = VecDeque::new();
        if !self.in_bracket {
            self.queue.push_back(Item::Bracket(Event::SnapshotStart));
        }
        self.queue.extend([Item::ResyncAll, Item::Bracket(Event::SnapshotEnd)]);
    }

    /// One service after the other, as they are taken. Of one that came and went meanwhile there is nothing to say.
    fn resync_all(&mut self) {
        let services: BTreeSet<String> = self.told.keys().chain(&self.up).cloned().collect();
        for service in services.into_iter().rev() {
            self.pending.insert(service.clone(), None);
            self.queue.push_front(Item::Resync(service));
        }
    }

    /// Finds what leads from what was told to what is true.
    fn resync(&mut self, service: &str, roster: &Roster) {
        let told = self.told.get(service).cloned().unwrap_or_default();
        let now: BTreeMap<ProviderId, Arc<Present>> = roster.providers(service).map(|p| (p.id(), p.clone())).collect();
        let mut events = Vec::new();
        if self.up.contains(service)
            && !told.up
            && let Some(first) = now.values().next()
        {
            events.push(Event::FirstUp(first.clone()));
        }
        for (id, present) in &now {
            match told.providers.get(id) {
                None => events.push(Event::Joined(present.clone())),
                Some(old) if old != present => events.push(Event::Changed(present.clone())),
                Some(_) => {}
            }
        }
        events.extend(
            told.providers.iter().filter(|(id, _)| !now.contains_key(*id)).map(|(_, p)| Event::Left(p.clone())),
        );
        if !self.up.contains(service) && told.up {
            events.push(Event::LastDown(service.to_owned()));
        }
        if self.up.contains(service) && !told.up && now.is_empty() {
            // Up and down again, and the down held back, while nothing was told of either.
            self.up.remove(service);
            self.held.remove(service);
        }
        self.pending.remove(service);
        self.found.extend(events.into_iter().map(|event| (service.to_owned(), event)));
    }

    fn note(&mut self, service: &str, event: &Event) {
        let told = self.told.entry(service.to_owned()).or_default();
        match event {
            Event::FirstUp(_) => told.up = true,
            Event::LastDown(_) => told.up = false,
            Event::Joined(present) | Event::Changed(present) => {
                told.providers.insert(present.id(), present.clone());
            }
            Event::Left(present) => {
                told.providers.remove(&present.id());
            }
            Event::SnapshotStart | Event::SnapshotEnd => {}
        }
        if !told.up && told.providers.is_empty() {
            self.told.remove(service);
        }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}
