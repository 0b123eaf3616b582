//! A replica set whose primary fails over: what was not acknowledged may be lost, and the date jumps.
//!
//! Modelled: the session of a holder from its opening, its claim, an observer that kills and takes over; writes that
//! are applied at once and committed later, in order; a failover that drops what is not committed; requests that
//! arrive late and twice; replies that come with the commit or never; reads of the committed state, or of
//! that before the opening (any other old read is what a late kill is); tokens from the primary's date and the cluster's logical time.
//!
//! Abstracted: time. The holder's deadline for a nonce passes at some moment; an observer can be patient enough for
//! a nonce only after that (this is what the lease model shows). Missing sessions may be declared dead at any time.
//!
//! Bounds: 1 renewal, 1 failover, 2 uncommitted writes.

use std::collections::BTreeSet;

use coord_core::protocol::claim::{ClaimRecord, ClaimStep, Step, StoreNow, token_floor};
use coord_core::protocol::session::{SessionRecord, SessionState, SessionStep, SessionView, Timing, Vitality};
use coord_core::time::{Timestamp, WallTime};
use stateright::{Model, Property};

use crate::world::{TICK, TTL, apply_claim_at, apply_session, entry, holder, nonce, observed, opening, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A write is acknowledged by the primary alone.
    LocalWrite,
    /// The observer reads what the primary alone has, and believes a death that it sees there.
    LocalRead,
    /// A session that a read does not show is dead, without a tombstone.
    MissingIsDead,
    /// Sessions are dead when the primary's date says so.
    ServerClock,
    /// A kill is sent without the nonce that was seen.
    KillWithoutNonce,
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub struct Failover {
    /// How many renewals the holder sends.
    pub renewals: u8,
    /// How many failovers.
    pub failovers: u8,
    /// How many writes may be uncommitted.
    pub lag: usize,
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// What the store keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Records {
    session: Option<SessionRecord>,
    claim: Option<ClaimRecord>,
}

/// A request; it may arrive at any time and any number of times after it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// The holder opens its session.
    Open,
    /// It renews, with this nonce.
    Renew(u8),
    /// It acquires.
    Acquire,
    /// The observer kills whom it saw with this nonce, or missing.
    Kill(Option<u8>),
    /// It takes the claim, clearing the holder away.
    TakeOver,
}

/// What the request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reply {
    /// The session as it is: live or not.
    Opened(bool),
    /// Renewed or refused.
    Renewed(u8, bool),
    /// Granted with this token, or waiting.
    Acquired(Option<i64>),
    /// The holder is dead, or was spared.
    Killed(bool),
    /// The observer's grant.
    Taken(Option<i64>),
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    committed: Records,
    /// Applied and not committed, each with its reply.
    log: Vec<(Records, Reply)>,
    sent: BTreeSet<Request>,
    accept: Vec<SessionStep>,
    replies: BTreeSet<Reply>,
    view: SessionView,
    /// The nonce of the latest renewal that is acknowledged, and that whose deadline has passed.
    acknowledged: Option<u8>,
    expired: Option<u8>,
    /// The token of the hold that the user was given.
    held: Option<i64>,
    suspended: bool,
    knows_dead: bool,
    taken: Option<i64>,
    failovers: u8,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A request is sent.
    Send(Request),
    /// It arrives at the primary.
    Apply(Request),
    /// The oldest uncommitted write is committed.
    Commit,
    /// Another primary takes over, without the uncommitted writes.
    Failover,
    /// A reply arrives.
    Answer(Reply),
    /// The deadline of the holder's latest renewal passes.
    Expire,
    /// The observer reads the committed state, or the empty one from before the opening.
    Read(bool),
}

const HOLDER: u8 = 1;
const OBSERVER: u8 = 2;

impl Failover {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn present(world: &World) -> Records {
        world.log.last().map_or(&world.committed, |(records, _)| records).clone()
    }

    /// The date is an hour ahead before the failover and right after it; logical time stands still meanwhile.
    fn now(world: &World) -> StoreNow {
        let date = WallTime(if world.failovers == 0 { 3_600_000 } else { 0 });
        StoreNow { wall: WallTime(0), floor: token_floor(date, WallTime(0)) }
    }

    fn apply(&self, world: &mut World, request: &Request) {
        let mut records = Self::present(world);
        let before = records.clone();
        let id = session(HOLDER);
        let alive = |r: &Option<SessionRecord>| r.as_ref().is_some_and(|r| r.vitality == Vitality::Live);
        let now = Self::now(world);
        let reply = match request {
            Request::Open => {
                let after = apply_session(&mut records.session, id, &opening(nonce(0)));
                Reply::Opened(alive(&after))
            }
            Request::Renew(number) => {
                let step = &world.accept[usize::from(*number) - 1];
                Reply::Renewed(*number, apply_session(&mut records.session, id, step).is_some())
            }
            Request::Acquire => {
                let step = Step::acquire(entry(HOLDER, 1), true, 10, vec![]);
                let after = apply_claim_at(&mut records.claim, ClaimStep::Step(step), now);
                Reply::Acquired(after.filter(|r| r.holder == Some(entry(HOLDER, 1))).map(|r| r.token))
            }
            Request::Kill(seen) => {
                let current = records.session.as_ref().and_then(|r| r.nonce);
                let proof = if self.is(Mutant::KillWithoutNonce) { current } else { seen.map(nonce) };
                let after = apply_session(&mut records.session, id, &observed(proof));
                Reply::Killed(!alive(&after))
            }
            Request::TakeOver => {
                let step = Step::acquire(entry(OBSERVER, 1), true, 10, vec![id]);
                let after = apply_claim_at(&mut records.claim, ClaimStep::Step(step), now);
                Reply::Taken(after.filter(|r| r.holder == Some(entry(OBSERVER, 1))).map(|r| r.token))
            }
        };
        if self.is(Mutant::LocalWrite) || (records == before && world.log.is_empty()) {
            world.replies.insert(reply);
        }
        if records != before || !world.log.is_empty() {
            world.log.push((records, reply));
        }
    }

    fn answer(world: &mut World, reply: Reply) {
        match reply {
            Reply::Opened(live) => {
                world.view.on_opened(Timestamp::ZERO, live);
                if live && world.acknowledged.is_none() {
                    world.acknowledged = Some(0);
                }
            }
            Reply::Renewed(number, true) => {
                world.view.on_renewed(Timestamp::ZERO, nonce(number));
                world.acknowledged = world.acknowledged.max(Some(number));
                world.suspended &= world.acknowledged <= world.expired;
            }
            Reply::Renewed(number, false) => world.view.on_refused(nonce(number)),
            Reply::Acquired(token) => {
                if world.lives() && world.held.is_none() {
                    world.held = token;
                }
            }
            Reply::Killed(dead) => world.knows_dead |= dead,
            Reply::Taken(token) => world.taken = world.taken.or(token),
        }
    }

    /// The nonces of which the observer may have been patient for long enough.
    fn provable(&self, world: &World, seen: u8) -> bool {
        world.expired.is_some_and(|expired| seen <= expired) || (self.is(Mutant::ServerClock) && world.failovers > 0)
    }

    fn read(&self, world: &mut World, stale: bool) -> Option<()> {
        let records = match stale {
            true => Records::default(),
            false if self.is(Mutant::LocalRead) => Self::present(world),
            false => world.committed.clone(),
        };
        match &records.session {
            None if self.is(Mutant::MissingIsDead) => world.knows_dead = true,
            None => {
                world.sent.insert(Request::Kill(None));
            }
            Some(record) if record.vitality == Vitality::Dead => world.knows_dead = true,
            Some(record) => {
                let seen = record.nonce?.0 as u8;
                if !self.provable(world, seen) {
                    return None;
                }
                world.sent.insert(Request::Kill(Some(seen)));
            }
        }
        Some(())
    }
}

impl World {
    /// Whether the holder's session is live by its own view and clock.
    fn lives(&self) -> bool {
        self.view.state() == SessionState::Live && self.acknowledged > self.expired && !self.suspended
    }

    fn believes(&self) -> bool {
        self.held.is_some() && self.lives()
    }
}

impl Model for Failover {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let timing = Timing { ttl: TTL, margin: std::time::Duration::ZERO, renew_every: TICK };
        vec![World {
            committed: Records::default(),
            log: Vec::new(),
            sent: BTreeSet::from([Request::Open]),
            accept: Vec::new(),
            replies: BTreeSet::new(),
            view: SessionView::begin_open(timing, nonce(0), Timestamp::ZERO),
            acknowledged: None,
            expired: None,
            held: None,
            suspended: false,
            knows_dead: false,
            taken: None,
            failovers: 0,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if matches!(world.view.state(), SessionState::Live) {
            if world.accept.len() < usize::from(self.renewals) {
                actions.push(Action::Send(Request::Renew(world.accept.len() as u8 + 1)));
            }
            if !world.sent.contains(&Request::Acquire) {
                actions.push(Action::Send(Request::Acquire));
            }
            if world.acknowledged > world.expired {
                actions.push(Action::Expire);
            }
        }
        if world.knows_dead && !world.sent.contains(&Request::TakeOver) {
            actions.push(Action::Send(Request::TakeOver));
        }
        if world.log.len() < self.lag {
            actions.extend(world.sent.iter().cloned().map(Action::Apply));
        }
        if !world.log.is_empty() {
            actions.push(Action::Commit);
        }
        if world.failovers < self.failovers {
            actions.push(Action::Failover);
        }
        actions.extend(world.replies.iter().copied().map(Action::Answer));
        if !world.knows_dead {
            actions.extend([Action::Read(false), Action::Read(true)]);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Send(request) => {
                if let Request::Renew(number) = request {
                    let step = world.view.begin_renewal(Timestamp::ZERO, nonce(number));
                    world.accept.push(step);
                }
                world.sent.insert(request);
            }
            Action::Apply(request) => self.apply(&mut world, &request),
            Action::Commit => {
                let (records, reply) = world.log.remove(0);
                world.committed = records;
                world.replies.insert(reply);
            }
            Action::Failover => {
                world.failovers += 1;
                world.log.clear();
            }
            Action::Answer(reply) => {
                world.replies.remove(&reply);
                Self::answer(&mut world, reply);
            }
            Action::Expire => {
                world.expired = world.acknowledged;
                // Holds are lost for good, even if the session comes back.
                world.held = None;
                world.suspended = true;
            }
            Action::Read(stale) => self.read(&mut world, stale)?,
        }
        (world != *last).then_some(world)
    }

    /// Once the observer holds, only a grant that the holder has yet to learn of can make it believe.
    fn within_boundary(&self, world: &World) -> bool {
        let late = world.replies.iter().chain(world.log.iter().map(|(_, reply)| reply));
        let hope = late.into_iter().any(|reply| matches!(reply, Reply::Acquired(Some(_))));
        let lost = matches!(world.view.state(), SessionState::Lost(_));
        world.taken.is_none() || world.believes() || (hope && !lost)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOLDER, |_, world: &World| !(world.believes() && world.taken.is_some())),
            Property::always("the later hold has the higher token", |_, world: &World| {
                let first = holder(&world.committed.claim) == Some(entry(OBSERVER, 1));
                !first || world.held.is_none() || world.held < world.committed.claim.as_ref().map(|r| r.token)
            }),
            Property::sometimes("taken over from the dead", |_, world: &World| {
                let taken = world.replies.iter().any(|reply| matches!(reply, Reply::Taken(Some(_))));
                taken && world.expired.is_some() && world.sent.contains(&Request::Acquire)
            }),
            Property::sometimes("held after a failover", |_, world: &World| world.believes() && world.failovers > 0),
            Property::sometimes("dead before it was born", |_, world: &World| {
                matches!(world.view.state(), SessionState::Lost(_)) && world.acknowledged.is_none()
            }),
        ]
    }
}

/// The property that everything is about.
pub const ONE_HOLDER: &str = "one holder";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{extra, holds, refuted};

    fn model(mutant: Option<Mutant>) -> Failover {
        Failover { renewals: 1 + extra(), failovers: 1 + extra(), lag: 2, mutant }
    }

    #[test]
    fn what_is_acknowledged_is_kept() {
        holds("failover", model(None));
    }

    #[test]
    fn mutants_are_refuted() {
        for mutant in [
            Mutant::LocalWrite,
            Mutant::LocalRead,
            Mutant::MissingIsDead,
            Mutant::ServerClock,
            Mutant::KillWithoutNonce,
        ] {
            refuted(&format!("failover, {mutant:?}"), model(Some(mutant)), ONE_HOLDER);
        }
    }
}
