//! A copy of what a watch shows: a snapshot in brackets, then changes.
//!
//! - [`Sequence`] puts a listing and the changes beside it in one order, without a gap: the stream of changes is opened
//!   *before* the listing is read, what comes meanwhile is kept, and what the listing shows already is left out
//!   (pitfalls of ligato and kubespawner, which listed first and watched then).
//! - [`Mirror`] keeps the copy. A snapshot is swapped in at once when it is complete: nobody ever sees half of one.
//!
//! The names of the events are kube-runtime's. No I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::protocol::document::Position;

/// What a watch shows, in this order: `Init`, any number of `InitApply`, `InitDone`, then changes; and from the start
/// again whenever changes are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<K, V> {
    /// A snapshot begins. What it does not show up to `InitDone` is not there any more.
    Init,
    /// Something is there.
    InitApply {
        /// Its key.
        key: K,
        /// What it is.
        value: V,
    },
    /// The snapshot is complete.
    InitDone,
    /// Something was made or has changed.
    Apply {
        /// Its key.
        key: K,
        /// What it is now.
        value: V,
    },
    /// Something is gone.
    Delete {
        /// Its key.
        key: K,
        /// What it was, where that is known.
        value: Option<V>,
    },
}

/// A change as the stream tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed<V> {
    /// It was made or has changed.
    Apply(V),
    /// It is gone.
    Delete(Option<V>),
}

impl<V> Changed<V> {
    fn event<K>(self, key: K) -> Event<K, V> {
        match self {
            Self::Apply(value) => Event::Apply { key, value },
            Self::Delete(value) => Event::Delete { key, value },
        }
    }
}

/// A place in the history of changes, as the stream has come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The place.
    pub position: Position,
    /// Whether no other change of it follows. Those that were made as one have one place.
    pub last: bool,
}

impl Place {
    /// All of it was told.
    const fn whole(position: Position) -> Self {
        Self { position, last: true }
    }

    /// Up to where everything was told that was told up to here.
    fn told(self) -> Position {
        if self.last { self.position } else { self.position.before() }
    }
}

/// Puts listings and changes in order.
///
/// Invariants: after an `InitDone` the copy that the events make is what there was at [`Sequence::position`], which never
/// goes back; a listing counts from its own place on, however long it took to read.
#[derive(Debug)]
pub struct Sequence<K, V> {
    state: State<K, V>,
    /// What is to be told, and up to which place all is told with it.
    out: VecDeque<(Place, Event<K, V>)>,
    told: Place,
    heard: Place,
    /// The latest place of what came beside a listing, or before it, and need not be told.
    beside: Place,
    /// What is told of up to here was not told by the stream.
    known: Position,
}

#[derive(Debug)]
enum State<K, V> {
    /// A listing is wanted: one from this place or later has all that may be missing.
    Wanted { since: Position, kept: Kept<K, V> },
    /// One is being read, as of a place.
    Listing { at: Position, kept: Kept<K, V> },
    /// All that there is was put out up to the position.
    Following,
}

/// The latest change of each key that came beside a listing: of one key only the last counts, so that a listing that
/// takes long needs no more memory than the table has keys.
type Kept<K, V> = HashMap<K, (Place, Changed<V>)>;

impl<K: Clone + Eq + Hash, V> Sequence<K, V> {
    /// From the very beginning: a listing is wanted as soon as the stream says where it begins.
    pub fn new() -> Self {
        let state = State::Wanted { since: Position::default(), kept: HashMap::new() };
        Self {
            state,
            out: VecDeque::new(),
            told: Place::whole(Position::default()),
            heard: Place::whole(Position::default()),
            beside: Place::whole(Position::default()),
            known: Position::default(),
        }
    }

    /// From a place up to which everything is known.
    pub fn after(position: Position) -> Self {
        let place = Place::whole(position);
        let (told, heard, beside) = (place, place, place);
        Self { state: State::Following, out: VecDeque::new(), told, heard, beside, known: position }
    }

    /// The next event, if one can be told.
    pub fn pop(&mut self) -> Option<Event<K, V>> {
        let (place, event) = self.out.pop_front()?;
        self.told = place;
        Some(event)
    }

    /// Whether there are events that were not popped.
    pub fn has_events(&self) -> bool {
        !self.out.is_empty()
    }

    /// Up to where the events are that were popped. Of the changes that were made as one, and have one place, the first is
    /// enough for that. The default value before the first snapshot is complete.
    pub fn position(&self) -> Position {
        self.place().position
    }

    /// Up to where everything is in the events that were popped, and nothing may be missing: where to go on after an
    /// interruption. The place before [`Sequence::position`] while other changes of that may follow.
    pub fn resume(&self) -> Position {
        self.place().told()
    }

    fn place(&self) -> Place {
        if self.out.is_empty() && matches!(self.state, State::Following) { self.heard } else { self.told }
    }

    /// Whether a listing is to be begun.
    pub fn wants_listing(&self) -> bool {
        matches!(self.state, State::Wanted { .. })
    }

    /// Whether a listing is being read.
    pub fn is_listing(&self) -> bool {
        matches!(self.state, State::Listing { .. })
    }

    /// The stream begins after this place, or changes up to it may be missing. Returns whether a listing that is being
    /// read is of no use any more.
    pub fn on_gap(&mut self, at: Position) -> bool {
        match &self.state {
            // What may be missing is in the listing, which is from later.
            State::Listing { at: listed, .. } if *listed >= at => false,
            state => {
                let useless = matches!(state, State::Listing { .. });
                self.state = State::Wanted { since: at, kept: HashMap::new() };
                self.beside = Place::whole(at);
                useless
            }
        }
    }

    /// A listing begins that shows all changes up to this place. Returns whether it is of use: otherwise it is from
    /// before what is missing, and another one must be begun.
    pub fn on_listing(&mut self, at: Position) -> bool {
        match &mut self.state {
            State::Wanted { since, kept } if *since <= at => {
                let kept = std::mem::take(kept);
                self.state = State::Listing { at, kept };
                self.out.push_back((self.heard, Event::Init));
                true
            }
            _ => false,
        }
    }

    /// The listing shows this.
    pub fn on_listed(&mut self, key: K, value: V) {
        if self.is_listing() {
            self.out.push_back((self.heard, Event::InitApply { key, value }));
        }
    }

    /// The listing is at its end.
    pub fn on_listing_done(&mut self) {
        let State::Listing { at, kept } = &mut self.state else { return };
        let beside = Some(self.beside).filter(|beside| beside.position > *at);
        let mut later: Vec<(Place, K, Changed<V>)> = std::mem::take(kept)
            .into_iter()
            .filter(|(_, (place, _))| place.position > *at)
            .map(|(key, (place, change))| (place, key, change))
            .collect();
        later.sort_unstable_by_key(|(place, ..)| place.position);
        if self.heard.position <= *at {
            self.heard = Place::whole(*at);
        }
        self.known = self.known.max(*at);
        self.state = State::Following;
        self.out.push_back((self.heard, Event::InitDone));
        for (place, key, change) in later {
            self.come_to(place);
            self.out.push_back((self.heard, change.event(key)));
        }
        // The stream may say nothing more for long, and somebody may wait for this place.
        if let Some(beside) = beside {
            self.come_to(beside);
        }
    }

    /// The listing broke off: another one is wanted.
    pub fn on_listing_failed(&mut self) {
        if let State::Listing { at, kept } = &mut self.state {
            let kept = std::mem::take(kept);
            self.state = State::Wanted { since: *at, kept };
        }
    }

    /// Something has changed.
    pub fn on_change(&mut self, place: Place, key: K, change: Changed<V>) {
        match &mut self.state {
            State::Wanted { kept, .. } | State::Listing { kept, .. } => {
                kept.insert(key, (place, change));
            }
            // A stream that was opened anew may repeat what it has told.
            State::Following if place.position <= self.known || place.position < self.heard.position => {}
            State::Following => {
                self.heard = place;
                self.out.push_back((place, change.event(key)));
            }
        }
    }

    /// Something has changed that need not be told.
    pub fn on_place(&mut self, place: Place) {
        if matches!(self.state, State::Following) {
            self.come_to(place);
        } else if place.position >= self.beside.position {
            self.beside = place;
        }
    }

    /// There are no other changes up to this place.
    pub fn on_progress(&mut self, position: Position) {
        self.on_place(Place::whole(position));
    }

    fn come_to(&mut self, place: Place) {
        if place.position >= self.heard.position {
            self.heard = place;
        }
    }
}

impl<K: Clone + Eq + Hash, V> Default for Sequence<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// The copy of what a watch shows.
#[derive(Clone, Debug)]
pub struct Mirror<K, V> {
    live: HashMap<K, V>,
    /// The snapshot that is being read.
    filling: Option<HashMap<K, V>>,
    synced: bool,
}

impl<K, V> Default for Mirror<K, V> {
    fn default() -> Self {
        Self { live: HashMap::new(), filling: None, synced: false }
    }
}

/// What an event has changed in a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<K, V> {
    /// The key.
    pub key: K,
    /// What was there.
    pub before: Option<V>,
}

impl<K: Clone + Eq + Hash, V: PartialEq> Mirror<K, V> {
    /// An empty copy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in an event, and returns what is different now: at the end of a snapshot that may be much. An `Apply` of
    /// what is there already is no difference.
    pub fn apply(&mut self, event: Event<K, V>) -> Vec<Difference<K, V>> {
        match event {
            Event::Init => {
                self.filling = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply { key, value } => {
                if let Some(filling) = &mut self.filling {
                    filling.insert(key, value);
                }
                Vec::new()
            }
            Event::InitDone => self.swap_in(),
            Event::Apply { key, value } => {
                if self.live.get(&key) == Some(&value) {
                    return Vec::new();
                }
                let before = self.live.insert(key.clone(), value);
                vec![Difference { key, before }]
            }
            Event::Delete { key, .. } => {
                let before = self.live.remove(&key);
                before.map(|before| Difference { key, before: Some(before) }).into_iter().collect()
            }
        }
    }

    fn swap_in(&mut self) -> Vec<Difference<K, V>> {
        let Some(filling) = self.filling.take() else { return Vec::new() };
        self.synced = true;
        let mut gone = std::mem::replace(&mut self.live, filling);
        let mut differences = Vec::new();
        for (key, value) in &self.live {
            let before = gone.remove(key);
            if before.as_ref() != Some(value) {
                differences.push(Difference { key: key.clone(), before });
            }
        }
        differences.extend(gone.into_iter().map(|(key, before)| Difference { key, before: Some(before) }));
        differences
    }

    /// What is there.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.live.get(key)
    }

    /// All that is there, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.live.iter()
    }

    /// How much is there.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether a snapshot was complete.
    pub fn is_synced(&self) -> bool {
        self.synced
    }
}

#[cfg(test)]
mod tests;
