//! Follows a table without a gap: the stream of changes, listings where they are needed, reconnecting, and the filter.
//!
//! The order of it all is the [`Sequence`]'s; here is only the I/O. The stream is opened first, then the listing is read
//! beside it. What breaks off is opened anew after a pause, from where it was; when the history does not reach back so
//! far, everything is listed anew, and the position is never used again (meteor#14607: a dead resume token retried for
//! ever).
//!
//! A document that no longer matches the filter is as good as deleted. So that its deletion is told once, the keys of
//! those that match are kept.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bson::{Document, doc};
use futures::StreamExt;

use super::documents;
use crate::client::Core;
use crate::error::{Code, Error, Result};
use crate::protocol::document::{Filter, Key, Position, Revision, TableName};
use crate::protocol::mirror::{Changed, Event, Place, Sequence};
use crate::store::documents::{self as stored, Change, Changes, Found, From, Operation, Query, Stored};

/// A document as a watch shows it.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) document: Document,
    /// What it was before, where that was asked for and is known.
    pub(crate) previous: Option<Document>,
    pub(crate) revision: Option<Revision>,
}

pub(crate) struct Follow {
    core: Arc<Core>,
    table: TableName,
    filter: Filter,
    previous: bool,
    sequence: Sequence<Key, Version>,
    members: Members,
    changes: Option<Changes>,
    listing: Option<Found>,
    /// Taken from the stream, and not yet looked at.
    heard: Option<Box<Change>>,
    read: Read,
    pause: Duration,
    flowing: Arc<AtomicBool>,
}

/// How far a stream was read.
///
/// Changes that were made in one transaction have one place. Opened anew, MongoDB's stream begins with all of that place,
/// so those that were read already are counted.
#[derive(Default)]
pub(super) struct Read {
    /// The latest place that the stream has told: where it is opened anew.
    place: Option<Position>,
    /// How many changes of that place were read.
    changes: usize,
    /// How many of them come again.
    repeated: usize,
}

impl Read {
    pub(super) fn up_to(place: Option<Position>) -> Self {
        Self { place, ..Self::default() }
    }

    /// Where to open the stream.
    pub(super) fn from(&self) -> From {
        self.place.map_or(From::Now, From::After)
    }

    /// The stream is opened from there.
    pub(super) fn opened(&mut self) {
        self.repeated = self.changes;
    }

    /// Whether this change was read before the stream was opened anew.
    pub(super) fn knows(&mut self, place: Position) -> bool {
        let known = self.place == Some(place) && self.repeated > 0;
        self.repeated = if known { self.repeated - 1 } else { 0 };
        known
    }

    /// A change was read.
    pub(super) fn change(&mut self, place: Position) {
        self.progress(place);
        self.changes += 1;
    }

    /// There are no other changes up to this place.
    pub(super) fn progress(&mut self, place: Position) {
        if self.place != Some(place) {
            *self = Self::up_to(Some(place));
        }
    }
}

/// The keys of the documents that match.
enum Members {
    /// Every document matches.
    All,
    /// The watch began in the middle: any document may have matched.
    Unknown,
    Known {
        live: HashSet<Key>,
        filling: HashSet<Key>,
    },
}

impl Follow {
    /// Follows the documents that match: from a snapshot, or from the change after a place on.
    pub(crate) fn new(core: Arc<Core>, table: TableName, filter: Filter, after: Option<Position>) -> Self {
        let members = match after {
            _ if filter.is_everything() => Members::All,
            Some(_) => Members::Unknown,
            None => Members::Known { live: HashSet::new(), filling: HashSet::new() },
        };
        Self {
            core,
            table,
            filter,
            previous: false,
            sequence: after.map_or_else(Sequence::new, Sequence::after),
            members,
            changes: None,
            listing: None,
            heard: None,
            read: Read::up_to(after),
            pause: FIRST_PAUSE,
            flowing: Arc::default(),
        }
    }

    /// Also asks for what documents were before.
    pub(crate) fn with_previous(self, previous: bool) -> Self {
        Self { previous, ..self }
    }

    /// Whether changes come in at this moment; false while the stream is broken.
    pub(crate) fn flowing(&self) -> Arc<AtomicBool> {
        self.flowing.clone()
    }

    /// Up to where all is told.
    pub(crate) fn position(&self) -> Position {
        self.sequence.position()
    }

    /// Up to where all is told for sure: where a later one may begin, and misses nothing.
    pub(crate) fn resume(&self) -> Position {
        self.sequence.resume()
    }

    /// Waits for the next event, or for the position to grow without one (none). May be dropped at any time.
    ///
    /// # Errors
    /// Those that waiting does not cure: `Unauthorized`, `Forbidden`, `Unsupported`, `InvalidArgument`, `Closed`.
    pub(crate) async fn next(&mut self) -> Result<Option<Event<Key, Version>>> {
        let position = self.position();
        loop {
            while let Some(event) = self.sequence.pop() {
                if let Some(event) = self.members.admit(event) {
                    return Ok(Some(event));
                }
            }
            if self.position() > position {
                return Ok(None);
            }
            if let Err(error) = self.advance().await {
                self.recover(error).await?;
            }
        }
    }

    /// One step of I/O.
    async fn advance(&mut self) -> Result<()> {
        if self.heard.is_some() {
            return self.take_in().await;
        }
        if self.changes.is_none() {
            let options = stored::WatchOptions { from: self.read.from(), previous: self.previous };
            let changes = documents(&*self.core.setup().store)?.watch(&self.table, options).await?;
            self.changes = Some(changes);
            self.read.opened();
            self.flowing.store(true, Relaxed);
        }
        if self.listing.is_none() && self.sequence.wants_listing() && self.read.place.is_some() {
            let snapshot = documents(&*self.core.setup().store)?.snapshot(&self.table, self.filter.clone()).await?;
            if self.sequence.on_listing(snapshot.position) {
                self.listing = Some(snapshot.documents);
            } else {
                return Err(Error::unavailable("the store's snapshot is older than its stream of changes"));
            }
            return Ok(());
        }
        let Some(changes) = &mut self.changes else { return Ok(()) };
        let listed = async {
            match &mut self.listing {
                Some(listing) => listing.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = changes.next() => match event.transpose()? {
                Some(event) => self.on_event(event),
                None => return Err(Error::unavailable("the stream of changes has ended")),
            },
            document = listed => match document.transpose()? {
                Some(Stored { key, document, revision }) => {
                    self.sequence.on_listed(key, Version { document, previous: None, revision });
                }
                None => {
                    self.listing = None;
                    self.pause = FIRST_PAUSE;
                    self.sequence.on_listing_done();
                }
            },
        }
        Ok(())
    }

    fn on_event(&mut self, event: stored::Event) {
        match event {
            stored::Event::Gap(position) => {
                self.read.progress(position);
                if self.sequence.on_gap(position) {
                    self.listing = None;
                }
            }
            stored::Event::Progress(position) => {
                self.read.progress(position);
                self.sequence.on_progress(position);
            }
            stored::Event::Change(change) if self.read.knows(change.position) => {}
            stored::Event::Change(change) => self.heard = Some(change),
        }
        if self.listing.is_none() && !self.sequence.wants_listing() {
            self.pause = FIRST_PAUSE;
        }
    }

    /// Takes in the change that was heard, after a look at the store if only that can tell whether it matches.
    async fn take_in(&mut self) -> Result<()> {
        let Some(change) = self.heard.as_deref() else { return Ok(()) };
        let matches = match &change.document {
            None => false,
            Some(document) if self.filter.is_shared() => self.filter.matches(document)?,
            Some(_) => {
                ask_match(self.core.clone(), self.table.clone(), self.filter.clone(), change.key.clone()).await?
            }
        };
        let Some(change) = self.heard.take() else { return Ok(()) };
        let place = Place { position: change.position, last: change.last };
        let Change { key, operation, document, previous, revision, position, .. } = *change;
        self.read.change(position);
        match document {
            Some(document) if matches => {
                let version = Version { document, previous, revision };
                self.sequence.on_change(place, key, Changed::Apply(version));
            }
            // Deleted since: that will be told by itself.
            None if operation != Operation::Delete => self.sequence.on_place(place),
            _ => {
                let before = previous.map(|document| Version { document, previous: None, revision: None });
                self.sequence.on_change(place, key, Changed::Delete(before));
            }
        }
        Ok(())
    }

    /// Makes ready for another try, after a pause.
    async fn recover(&mut self, error: Error) -> Result<()> {
        match error.code() {
            Code::Unauthorized | Code::Forbidden | Code::Unsupported | Code::InvalidArgument | Code::Closed => {
                return Err(error);
            }
            Code::Compacted => {
                tracing::info!(table = %self.table, "the history of changes is gone; reading the table anew");
                self.read = Read::default();
            }
            _ => tracing::debug!(table = %self.table, %error, "watching the table again"),
        }
        self.flowing.store(false, Relaxed);
        self.changes = None;
        if self.listing.take().is_some() {
            self.sequence.on_listing_failed();
        }
        let env = &self.core.setup().env;
        let pause = env.jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        env.sleep(pause).await;
        Ok(())
    }
}

/// Whether the document of this key matches a filter that only the store understands.
async fn ask_match(core: Arc<Core>, table: TableName, filter: Filter, key: Key) -> Result<bool> {
    let both = doc! { "$and": [filter.document().clone(), { "_id": key.value().clone() }] };
    let query = Query { filter: Filter::parse(both)?, limit: Some(1), ..Query::default() };
    let mut found = documents(&*core.setup().store)?.find(&table, query).await?;
    Ok(found.next().await.transpose()?.is_some())
}

impl Members {
    /// The event as one who sees only what matches is told it; none if there is nothing to tell.
    fn admit(&mut self, event: Event<Key, Version>) -> Option<Event<Key, Version>> {
        match (&mut *self, &event) {
            (Self::All, _) => {}
            // From the first snapshot on it is known.
            (Self::Unknown, Event::Init) => *self = Self::Known { live: HashSet::new(), filling: HashSet::new() },
            (Self::Unknown, _) => {}
            (Self::Known { filling, .. }, Event::Init) => filling.clear(),
            (Self::Known { filling, .. }, Event::InitApply { key, .. }) => {
                filling.insert(key.clone());
            }
            (Self::Known { live, filling }, Event::InitDone) => *live = std::mem::take(filling),
            (Self::Known { live, .. }, Event::Apply { key, .. }) => {
                live.insert(key.clone());
            }
            (Self::Known { live, .. }, Event::Delete { key, .. }) => {
                if !live.remove(key) {
                    return None;
                }
            }
        }
        Some(event)
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_place_only_what_was_read_is_known_after_a_break() {
        let mut read = Read::up_to(None);
        for _ in 0..2 {
            assert!(!read.knows(Position(5)));
            read.change(Position(5));
        }
        read.progress(Position(5));
        read.opened();
        assert_eq!([5, 5, 5].map(|place| read.knows(Position(place))), [true, true, false]);
        read.change(Position(5));
        read.opened();
        // A store that does not show that place again.
        assert!(!read.knows(Position(6)) && !read.knows(Position(5)));
        read.change(Position(6));
        assert_eq!(read.from(), From::After(Position(6)));
        read.progress(Position(9));
        read.opened();
        assert!(!read.knows(Position(9)));
    }
}
