//! Fenced writes and deletions: after a write with a token no write with a lower one of the same lock touches the
//! document, although it is deleted and made anew in between, also by who knows of no fences.
//!
//! Modelled: one document and one lock, two holders whose writes arrive in any order, and another program, which knows of no
//! fences and takes them along when it removes the document.
//! What a write makes of a document and its fences is the code itself. As on MongoDB a write first tries the short way,
//! one command that sees the document alone, and then the long one, a transaction that sees the tombstone as well;
//! anything may happen between the two. SQLite and memory always go the long way, which is a part of this.
//!
//! Abstracted: what the document holds; other locks; strict writes, which the lock itself refuses.
//!
//! Bounds: 2 writes of each holder and 2 without a fence, of any kind.

use coord_core::protocol::claim::{ClaimKey, Entry, Priority};
use coord_core::protocol::document::write::{Action as Change, Before, Outcome, Write, apply};
use coord_core::protocol::document::{Fence, Fences, Key, Update};
use coord_core::protocol::session::SessionId;
use stateright::{Model, Property};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A deletion takes the fences with it.
    FencesDieWithTheDocument,
    /// An upsert that finds nothing makes the document without a look at the tombstone.
    UpsertWithoutTombstone,
    /// A document without a fence takes the short way.
    FirstFenceIsShort,
    /// A later hold than the document knows takes the short way, past the tombstone.
    LaterHoldIsShort,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// How many writes each holder sends.
    pub fenced: u8,
    /// How many writes are sent without a fence.
    pub unfenced: u8,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Makes the document.
    Insert,
    /// Changes it.
    Update,
    /// Changes it or makes it.
    Upsert,
    /// Removes it.
    Delete,
}

/// A write that is under way: by the holder of this token, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sent {
    token: i64,
    kind: Kind,
    /// It has found that the short way will not do.
    long: bool,
}

/// One state of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    exists: bool,
    on_document: Fences,
    tombstone: Fences,
    under_way: Vec<Sent>,
    sent: [u8; 3],
    highest: i64,
    overtaken: bool,
    refused: bool,
    made_anew: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The holder of this token, or of none, sends a write.
    Send(i64, Kind),
    /// A write arrives.
    Arrive(Sent),
}

const KINDS: [Kind; 4] = [Kind::Insert, Kind::Update, Kind::Upsert, Kind::Delete];

impl Tombstone {
    fn fence(token: i64) -> Option<Fence> {
        let holder = Entry { session: SessionId::from_random(1), attempt: 1, priority: Priority::default() };
        (token > 0).then(|| Fence { lock: ClaimKey::new("lock/a"), holder, token, strict: false })
    }

    /// The write as one command. False if it has to go the long way.
    fn arrive_shortly(&self, world: &mut World, sent: Sent) -> bool {
        let fence = Self::fence(sent.token);
        let known = fence.as_ref().and_then(|fence| world.on_document.0.get(&fence.key()).copied());
        match (sent.kind, &fence) {
            (Kind::Insert, None) | (Kind::Upsert, None) if !world.exists => {
                world.exists = true;
                true
            }
            (Kind::Insert | Kind::Update | Kind::Upsert, None) => true,
            // By another program, which knows of no tombstone.
            (Kind::Delete, None) => {
                world.exists = false;
                world.on_document = Fences::default();
                true
            }
            (Kind::Update | Kind::Upsert, Some(fence)) if world.exists => {
                let admitted = match known {
                    Some(highest) if self.mutant == Some(Mutant::LaterHoldIsShort) => highest <= fence.token,
                    Some(highest) => highest == fence.token,
                    None => self.mutant == Some(Mutant::FirstFenceIsShort),
                };
                if admitted {
                    world.on_document.raise(fence);
                    world.applied(sent);
                }
                admitted
            }
            (Kind::Upsert, Some(fence)) if self.mutant == Some(Mutant::UpsertWithoutTombstone) => {
                world.exists = true;
                world.on_document.raise(fence);
                world.applied(sent);
                true
            }
            _ => false,
        }
    }

    /// The write as a transaction over the document and its tombstone.
    fn arrive_wholly(&self, world: &mut World, sent: Sent) {
        let mut fences = world.on_document.clone();
        for (key, token) in &world.tombstone.0 {
            let highest = fences.0.entry(key.clone()).or_insert(*token);
            *highest = (*highest).max(*token);
        }
        let key = Key::from(1);
        let document = bson_document(&key);
        let update = Update::parse(one_field()).expect("an update");
        let change = match sent.kind {
            Kind::Insert => Change::Insert(document.clone()),
            Kind::Update => Change::Update(update),
            Kind::Upsert => Change::Upsert(update),
            Kind::Delete => Change::Delete,
        };
        let write = Write { fence: Self::fence(sent.token), ..Write::new(key, change) };
        let before = Before { document: world.exists.then_some(document), fences, ..Before::default() };
        match apply(before, &write) {
            Ok(Outcome { document, fences, .. }) => {
                world.exists = document.is_some();
                world.on_document = if world.exists { fences.clone() } else { Fences::default() };
                let forgets = self.mutant == Some(Mutant::FencesDieWithTheDocument) && !world.exists;
                world.tombstone = if forgets { Fences::default() } else { fences };
                world.applied(sent);
            }
            Err(error) => world.refused |= error.code() == coord_core::Code::Fenced,
        }
    }
}

fn bson_document(key: &Key) -> coord_core::bson::Document {
    coord_core::bson::doc! { "_id": key.value() }
}

fn one_field() -> coord_core::bson::Document {
    coord_core::bson::doc! { "$set": { "a": 1 } }
}

impl World {
    fn applied(&mut self, sent: Sent) {
        if sent.token > 0 {
            self.overtaken |= sent.token < self.highest;
            self.made_anew |= self.exists && sent.kind != Kind::Update && !self.tombstone.0.is_empty();
            self.highest = self.highest.max(sent.token);
        }
    }
}

impl Model for Tombstone {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (token, sent) in world.sent.iter().enumerate() {
            let most = if token == 0 { self.unfenced } else { self.fenced };
            if *sent < most {
                actions.extend(KINDS.map(|kind| Action::Send(token as i64, kind)));
            }
        }
        actions.extend(world.under_way.iter().copied().map(Action::Arrive));
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Send(token, kind) => {
                world.sent[token as usize] += 1;
                world.under_way.push(Sent { token, kind, long: false });
            }
            Action::Arrive(sent) => {
                let place = world.under_way.iter().position(|other| *other == sent)?;
                world.under_way.remove(place);
                if sent.long {
                    self.arrive_wholly(&mut world, sent);
                } else if !self.arrive_shortly(&mut world, sent) {
                    world.under_way.push(Sent { long: true, ..sent });
                }
            }
        }
        // In which order they were sent does not matter.
        world.under_way.sort_unstable();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a lower token never comes after a higher one", |_, world: &World| !world.overtaken),
            Property::sometimes("a stale write is refused", |_, world: &World| world.refused),
            Property::sometimes("a document is made anew", |_, world: &World| world.made_anew),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Tombstone {
        Tombstone { fenced: 2, unfenced: 2 + extra(), mutant }
    }

    #[test]
    fn no_stale_write_comes_late() {
        holds("tombstone", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        for mutant in [
            Mutant::FencesDieWithTheDocument,
            Mutant::UpsertWithoutTombstone,
            Mutant::FirstFenceIsShort,
            Mutant::LaterHoldIsShort,
        ] {
            refuted(
                &format!("tombstone {mutant:?}"),
                model(Some(mutant)),
                "a lower token never comes after a higher one",
            );
        }
    }
}
