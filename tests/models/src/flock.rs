//! How a session's lock file comes and goes on one machine, and what an observer may conclude from it.
//!
//! Modelled: a process that creates its file, locks it, and then opens its session; its crash or standstill at any
//! moment; a forked child that inherits the descriptor; somebody who deletes the file; another process whose new
//! file gets the same path and inode number, but not the same birth; an observer that looks in steps, between which
//! all of this happens.
//!
//! Abstracted: the ring (the kernel-lock model has it: here it is always the owner's), time, renewals.
//!
//! Bounds: 1 process, 1 child, 1 replacement of the file, any number of looks.

use coord_core::protocol::session::{KillProof, LockFile, SessionInfo, SessionRecord, SessionStep, Vitality};
use stateright::{Model, Property};

use crate::world::{TTL, apply_session, nonce, session};

/// A known-bad variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A file that is not there counts as a free lock.
    MissingIsFree,
    /// The inode number alone identifies the file.
    InodeOnly,
    /// The session is opened before its file is locked.
    OpenBeforeLock,
    /// The child unlocks what it inherited instead of leaving it alone.
    ChildUnlocks,
    /// A process that stands still is taken for one that has ended.
    StoppedIsDead,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Flock {
    /// What is wrong, if anything.
    pub mutant: Option<Mutant>,
}

/// A file under the path of the session's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File {
    identity: LockFile,
    /// How many hold its lock: the process and its child share one lock.
    process_holds: bool,
    child_holds: bool,
}

/// The life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Life {
    /// It has nothing yet.
    Born,
    /// Its file is there.
    Created,
    /// It has done the first of locking and opening.
    Half,
    /// Its file is locked and its session open.
    Up,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    life: Life,
    crashed: bool,
    stopped: bool,
    /// Whether a child lives that was forked off.
    child: Option<bool>,
    /// The process's own file, which lives on as long as a descriptor of it is open.
    own: Option<File>,
    /// Whether the path still leads to it.
    linked: bool,
    /// The file of another process under the same path.
    other: Option<File>,
    record: Option<SessionRecord>,
    /// What the observer has read of the session and which file it has open.
    opened: Option<(LockFile, bool)>,
    missed: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process takes its next step.
    Step,
    /// The process ends, at any point.
    Crash,
    /// It is stopped, or goes on.
    StopOrGo,
    /// It forks.
    Fork,
    /// The child unlocks.
    ChildUnlocks,
    /// The child ends.
    ChildEnds,
    /// Somebody deletes the file.
    Delete,
    /// Another process creates a file under the same path.
    Replace,
    /// The observer opens the path and compares identities.
    Open,
    /// It tries the lock, and kills if it gets it.
    Try,
}

const PROCESS: u8 = 1;
const OURS: LockFile = LockFile { dev: 1, ino: 7, btime: 100 };
const THEIRS: LockFile = LockFile { dev: 1, ino: 7, btime: 200 };

impl Flock {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn lock(world: &mut World) {
        if let Some(own) = world.own.as_mut() {
            own.process_holds = true;
        }
    }

    fn open(world: &mut World) {
        let info = SessionInfo { lk: Some(OURS), ..SessionInfo::default() };
        let step = SessionStep::Open { nonce: nonce(0), ttl: TTL, info };
        apply_session(&mut world.record, session(PROCESS), &step);
    }

    fn kill(world: &mut World) {
        let step = SessionStep::Kill(KillProof::KernelLock(vec![nonce(0)]));
        apply_session(&mut world.record, session(PROCESS), &step);
    }

    fn same(&self, a: LockFile, b: LockFile) -> bool {
        if self.is(Mutant::InodeOnly) { (a.dev, a.ino) == (b.dev, b.ino) } else { a == b }
    }

    /// The observer's first step.
    fn look(&self, world: &mut World) -> Option<()> {
        let recorded = world.record.as_ref()?.info.lk?;
        let at_path = if world.linked { world.own } else { world.other };
        match at_path {
            None if self.is(Mutant::MissingIsFree) => Self::kill(world),
            None => return None,
            Some(file) => {
                let own = file.identity == OURS;
                world.opened = self.same(file.identity, recorded).then_some((file.identity, own));
            }
        }
        Some(())
    }

    fn dead(world: &World) -> bool {
        world.record.as_ref().is_some_and(|r| r.vitality == Vitality::Dead)
    }
}

impl Model for Flock {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            life: Life::Born,
            crashed: false,
            stopped: false,
            child: None,
            own: None,
            linked: false,
            other: None,
            record: None,
            opened: None,
            missed: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if !world.crashed {
            actions.push(Action::Crash);
            actions.push(Action::StopOrGo);
            if !world.stopped {
                if world.life < Life::Up {
                    actions.push(Action::Step);
                } else if world.child.is_none() {
                    actions.push(Action::Fork);
                }
            }
        }
        if world.child == Some(true) {
            actions.push(Action::ChildEnds);
            if self.is(Mutant::ChildUnlocks) {
                actions.push(Action::ChildUnlocks);
            }
        }
        if world.linked {
            actions.push(Action::Delete);
        } else if world.own.is_some() && world.other.is_none() {
            actions.push(Action::Replace);
        }
        if world.record.is_some() && !Self::dead(world) {
            actions.push(Action::Open);
            if world.opened.is_some() {
                actions.push(Action::Try);
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Step => match world.life {
                Life::Born => {
                    world.life = Life::Created;
                    world.own = Some(File { identity: OURS, process_holds: false, child_holds: false });
                    world.linked = true;
                }
                Life::Created => {
                    world.life = Life::Half;
                    if self.is(Mutant::OpenBeforeLock) { Self::open(&mut world) } else { Self::lock(&mut world) }
                }
                Life::Half => {
                    world.life = Life::Up;
                    if self.is(Mutant::OpenBeforeLock) { Self::lock(&mut world) } else { Self::open(&mut world) }
                }
                Life::Up => return None,
            },
            Action::Crash => {
                world.crashed = true;
                world.own.as_mut().into_iter().for_each(|own| own.process_holds = false);
            }
            Action::StopOrGo => world.stopped = !world.stopped,
            Action::Fork => {
                world.child = Some(true);
                world.own.as_mut()?.child_holds = true;
            }
            Action::ChildUnlocks => {
                let own = world.own.as_mut()?;
                (own.process_holds, own.child_holds) = (false, false);
            }
            Action::ChildEnds => {
                world.child = Some(false);
                world.own.as_mut()?.child_holds = false;
            }
            Action::Delete => world.linked = false,
            // The owner of that one is gone already.
            Action::Replace => {
                world.other = Some(File { identity: THEIRS, process_holds: false, child_holds: false });
            }
            Action::Open => self.look(&mut world)?,
            Action::Try => {
                let (_, own) = world.opened?;
                let file = if own { world.own? } else { world.other? };
                let mut held = file.process_holds || file.child_holds;
                if self.is(Mutant::StoppedIsDead) && own && world.stopped {
                    held = false;
                }
                if held {
                    return None;
                }
                Self::kill(&mut world);
                world.missed |= !Self::dead(&world);
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONLY_THE_DEAD, |_, world: &World| !Self::dead(world) || world.crashed),
            Property::always("a free lock is enough", |_, world: &World| !world.missed),
            Property::always("a crash is proven while the file is there", |model: &Self, world: &World| {
                let provable = world.crashed && world.linked && world.record.is_some() && world.child != Some(true);
                !provable || Self::dead(world) || {
                    let looked = model.next_state(world, Action::Open).unwrap_or_else(|| world.clone());
                    model.next_state(&looked, Action::Try).is_some_and(|after| Self::dead(&after))
                }
            }),
            Property::sometimes("a child keeps the dead alive", |_, world: &World| {
                world.crashed && world.child == Some(true) && world.opened.is_some() && !Self::dead(world)
            }),
            Property::sometimes("killed though the path is gone", |_, world: &World| {
                Self::dead(world) && !world.linked
            }),
        ]
    }
}

/// Who is killed has crashed.
pub const ONLY_THE_DEAD: &str = "only the dead are killed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{holds, refuted};

    #[test]
    fn a_lock_file_proves_death_and_nothing_else_does() {
        holds("flock", Flock { mutant: None });
    }

    #[test]
    fn mutants_are_refuted() {
        for mutant in [
            Mutant::MissingIsFree,
            Mutant::InodeOnly,
            Mutant::OpenBeforeLock,
            Mutant::ChildUnlocks,
            Mutant::StoppedIsDead,
        ] {
            refuted(&format!("flock, {mutant:?}"), Flock { mutant: Some(mutant) }, ONLY_THE_DEAD);
        }
    }
}
