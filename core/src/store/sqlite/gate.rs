//! The gate: in which order processes write, so that none is starved.
//!
//! SQLite's own write lock decides who writes, but not who is next: it makes waiters poll, and a busy process takes
//! it again and again before a waiter looks. So a process that finds the file locked takes its *turn*, of which there
//! is one: whoever has it writes next, and everybody who finds it taken lines up behind it, also a process that has
//! just written. The kernel keeps that line (a futex wakes in the order of arrival).
//!
//! Invariant: the gate keeps order and nothing else. It may be wrong in every way (its words are lost, its holder is
//! killed or stopped) without harm to exclusion, and without a hang: every wait ends after a while, and looks for
//! itself.
//!
//! Not a file lock: a wait for one cannot be given a time limit, and whoever is stopped while it waits in the line
//! would stop everybody behind it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

use super::sys::SharedWords;
use crate::env::Env;
use crate::time::Timestamp;

/// Nobody waits.
const FREE: u32 = 0;
/// The turn was passed to the process that was woken, which has not taken it yet.
const PASSED: u32 = 1;

/// How long the one whose turn it is sleeps before it tries by itself: the bell is lost when a writer is killed.
const BELL_PATIENCE: Duration = Duration::from_millis(10);

/// How long those in the line sleep before they check that it moves: whose turn it is may have been killed or
/// stopped. Long, since they lose their place in the line with it.
const LINE_PATIENCE: Duration = Duration::from_millis(40);

/// One process's view of the gate of one database.
#[derive(Debug)]
pub(super) struct Gate {
    words: SharedWords,
    env: Env,
}

/// What became of an attempt to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The lock is ours.
    Entered,
    /// The deadline has passed.
    TimedOut,
}

impl Gate {
    /// The gate in this file. The file may be closed afterwards.
    pub(super) fn new(file: &OwnedFd, env: Env) -> io::Result<Self> {
        Ok(Self { words: SharedWords::map(file)?, env })
    }

    /// Whether nobody waits, so that taking the lock overtakes nobody.
    pub(super) fn is_quiet(&self) -> bool {
        self.turn().load(SeqCst) == FREE
    }

    /// Takes the lock in turn. `attempt` tries to take it without waiting. Blocks until the deadline, or a little
    /// longer.
    pub(super) fn enter<E>(
        &self,
        deadline: Timestamp,
        mut attempt: impl FnMut() -> Result<bool, E>,
    ) -> Result<Entry, E> {
        if self.is_quiet() && attempt()? {
            return Ok(Entry::Entered);
        }
        // Different from the two marks, and from what any other process has drawn, but for a chance without effect.
        let me = (self.env.rng.bits() as u32) | 2;
        match self.take_turn(me, deadline, &mut attempt)? {
            Turn::Taken => {}
            Turn::Bypassed => return Ok(Entry::Entered),
            Turn::TimedOut => return Ok(Entry::TimedOut),
        }
        let entered = self.wait_for_lock(deadline, &mut attempt);
        self.pass_turn(me);
        entered
    }

    /// Tells whose turn it is that the lock is free. To be called after each release.
    pub(super) fn leave(&self) {
        if self.bell().load(SeqCst) != 0 && self.bell().swap(0, SeqCst) != 0 {
            // All, since a bypassed process may sleep here too.
            let _ = futex::wake(self.bell(), futex::Flags::empty(), u32::MAX >> 1);
        }
    }

    fn take_turn<E>(
        &self,
        me: u32,
        deadline: Timestamp,
        attempt: &mut impl FnMut() -> Result<bool, E>,
    ) -> Result<Turn, E> {
        let mut woken = false;
        loop {
            let turn = self.turn().load(SeqCst);
            // Who was not woken lets a turn alone that was passed to somebody.
            if turn == FREE || (turn == PASSED && woken) {
                if self.turn().compare_exchange(turn, me, SeqCst, SeqCst).is_ok() {
                    return Ok(Turn::Taken);
                }
                continue;
            }
            // Here, since nothing below is reached while the line moves. Who was woken has tried to take the turn by now.
            if self.env.now() >= deadline {
                return Ok(Turn::TimedOut);
            }
            woken = sleep(self.turn(), turn, LINE_PATIENCE);
            if woken || self.turn().load(SeqCst) != turn {
                continue;
            }
            if attempt()? {
                // The lock was free, and whose turn it is did not take it: it is dead, stopped or very slow. If it
                // lives it finds its turn gone, and goes on without.
                if self.turn().compare_exchange(turn, PASSED, SeqCst, SeqCst).is_ok() {
                    self.wake_next();
                }
                return Ok(Turn::Bypassed);
            }
        }
    }

    fn wait_for_lock<E>(&self, deadline: Timestamp, attempt: &mut impl FnMut() -> Result<bool, E>) -> Result<Entry, E> {
        loop {
            // First the bell, then the attempt: who releases after the attempt sees the bell set, and rings it.
            self.bell().store(1, SeqCst);
            if attempt()? {
                return Ok(Entry::Entered);
            }
            sleep(self.bell(), 1, BELL_PATIENCE);
            if self.env.now() >= deadline {
                return Ok(if attempt()? { Entry::Entered } else { Entry::TimedOut });
            }
        }
    }

    fn pass_turn(&self, me: u32) {
        if self.turn().compare_exchange(me, PASSED, SeqCst, SeqCst).is_ok() {
            self.wake_next();
        }
    }

    /// The turn is marked as passed; gives it to the first in the line, or frees it.
    fn wake_next(&self) {
        if self.wake_one() {
            return;
        }
        if self.turn().compare_exchange(PASSED, FREE, SeqCst, SeqCst).is_ok() {
            // Who lined up between the two would sleep on although it is free now.
            self.wake_one();
        }
    }

    fn wake_one(&self) -> bool {
        futex::wake(self.turn(), futex::Flags::empty(), 1).is_ok_and(|woken| woken > 0)
    }

    fn turn(&self) -> &AtomicU32 {
        &self.words.words()[0]
    }

    fn bell(&self) -> &AtomicU32 {
        &self.words.words()[1]
    }
}

enum Turn {
    Taken,
    Bypassed,
    TimedOut,
}

/// Sleeps while the word has this value, for at most this long. Whether somebody woke us.
#[expect(
    clippy::disallowed_methods,
    reason = "blocks like the futex beside it; only threads of the store's own wait here"
)]
fn sleep(word: &AtomicU32, value: u32, patience: Duration) -> bool {
    let timeout = futex::Timespec { tv_sec: 0, tv_nsec: patience.as_nanos() as _ };
    match futex::wait(word, futex::Flags::empty(), value, Some(&timeout)) {
        Ok(()) => true,
        Err(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR) => false,
        Err(error) => {
            // Cannot happen with a mapped word; if it does, polling must not become spinning.
            tracing::error!(%error, "waiting at the gate failed");
            std::thread::sleep(patience);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;

    use super::*;
    use crate::store::sqlite::tests::{Scratch, runtime};

    fn gate_file(scratch: &Scratch) -> OwnedFd {
        let file =
            std::fs::File::options().read(true).write(true).create(true).truncate(false).open(scratch.path("gate"));
        let file = file.unwrap();
        file.set_len(4096).unwrap();
        file.into()
    }

    fn far(env: &Env) -> Timestamp {
        env.now() + Duration::from_secs(30)
    }

    /// Takes the flag as a lock.
    fn attempt(lock: &AtomicBool) -> Result<bool, ()> {
        Ok(!lock.swap(true, SeqCst))
    }

    #[test]
    fn a_waiter_is_next_also_before_who_has_just_written() {
        let (scratch, runtime) = (Scratch::new(), runtime());
        let env = Env::system(runtime.handle().clone());
        let file = gate_file(&scratch);
        let lock = Arc::new(AtomicBool::new(true));
        let ours = Gate::new(&file, env.clone()).unwrap();
        let (entered, has_entered) = mpsc::channel();
        let waiter = {
            let (gate, lock, env) = (Gate::new(&file, env.clone()).unwrap(), lock.clone(), env.clone());
            thread::spawn(move || {
                assert_eq!(gate.enter(far(&env), || attempt(&lock)), Ok(Entry::Entered));
                entered.send(()).unwrap();
                lock.store(false, SeqCst);
                gate.leave();
            })
        };
        while ours.is_quiet() {
            thread::yield_now();
        }
        lock.store(false, SeqCst);
        ours.leave();
        // It comes back at once, and finds the waiter served first.
        let order = ours.enter(far(&env), || if has_entered.try_recv().is_ok() { attempt(&lock) } else { Ok(false) });
        assert_eq!(order, Ok(Entry::Entered));
        waiter.join().unwrap();
        assert!(ours.is_quiet());
    }

    #[test]
    fn many_take_turns_and_nobody_is_starved() {
        const THREADS: usize = 6;
        const ENOUGH: usize = 300;
        let (scratch, runtime) = (Scratch::new(), runtime());
        let env = Env::system(runtime.handle().clone());
        let file = gate_file(&scratch);
        let lock = Arc::new(AtomicBool::new(false));
        let inside = Arc::new(AtomicUsize::new(0));
        let served = Arc::new(AtomicUsize::new(0));
        let start = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let gate = Gate::new(&file, env.clone()).unwrap();
                let (lock, inside, served, env) = (lock.clone(), inside.clone(), served.clone(), env.clone());
                let start = start.clone();
                thread::spawn(move || {
                    start.wait();
                    let mut mine = 0;
                    // Until everybody has had enough: who is starved keeps all others from coming to an end.
                    while served.load(SeqCst) < THREADS {
                        assert_eq!(gate.enter(far(&env), || attempt(&lock)), Ok(Entry::Entered));
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        for _ in 0..2_000 {
                            std::hint::spin_loop();
                        }
                        inside.fetch_sub(1, SeqCst);
                        lock.store(false, SeqCst);
                        gate.leave();
                        mine += 1;
                        if mine == ENOUGH {
                            served.fetch_add(1, SeqCst);
                        }
                    }
                    mine
                })
            })
            .collect();
        let shares: Vec<usize> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(shares.iter().all(|share| *share < 20 * ENOUGH), "{shares:?}");
    }

    #[test]
    fn a_dead_process_whose_turn_it_was_is_bypassed() {
        let (scratch, runtime) = (Scratch::new(), runtime());
        let env = Env::system(runtime.handle().clone());
        let file = gate_file(&scratch);
        let gate = Gate::new(&file, env.clone()).unwrap();
        for left_behind in [PASSED, 4711] {
            gate.turn().store(left_behind, SeqCst);
            let lock = AtomicBool::new(false);
            assert_eq!(gate.enter(far(&env), || attempt(&lock)), Ok(Entry::Entered));
            assert!(gate.is_quiet(), "the next one waits for nobody");
        }
    }

    #[test]
    fn the_deadline_is_looked_at_before_each_wait_in_the_line() {
        let (scratch, runtime) = (Scratch::new(), runtime());
        let env = Env::system(runtime.handle().clone());
        let gate = Gate::new(&gate_file(&scratch), env.clone()).unwrap();
        gate.turn().store(4711, SeqCst);
        let mut attempts = 0;
        let mut attempt = || {
            attempts += 1;
            Ok::<_, ()>(false)
        };
        assert_eq!(gate.enter(env.now(), &mut attempt), Ok(Entry::TimedOut));
        assert_eq!(attempts, 0, "not only after a look at whether the line moves, which it may do for ever");
    }

    #[test]
    fn a_lock_that_stays_taken_is_given_up_at_the_deadline() {
        let (scratch, runtime) = (Scratch::new(), runtime());
        let env = Env::system(runtime.handle().clone());
        let file = gate_file(&scratch);
        let gate = Gate::new(&file, env.clone()).unwrap();
        let soon = env.now() + Duration::from_millis(30);
        assert_eq!(gate.enter(soon, || Ok::<_, ()>(false)), Ok(Entry::TimedOut));
        assert!(gate.is_quiet());
        gate.turn().store(4711, SeqCst);
        assert_eq!(gate.enter(soon, || Ok::<_, ()>(false)), Ok(Entry::TimedOut));
        assert_eq!(gate.enter(far(&env), || Err(5)), Err(5));
    }
}
