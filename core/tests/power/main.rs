//! What a power loss leaves of a store in an SQLite file, and how processes go on from there.
//!
//! A layer below SQLite notes every write and sync ([`sys`]) while several stores use one file ([`story`]). Afterwards the
//! machine is taken to have lost its power at many moments of that: of each, a copy of the files is made of what was
//! synced, and of some of what was not ([`disk`]). What SQLite makes of it must be the database as it was after one of the
//! commits ([`commits`]), at least after the last that was synced; and the store must keep what it promises ([`check`]).
//!
//! `COORD_POWER_MINUTES` makes it play for longer, and `COORD_POWER_SEED` says with which chances it begins. Threads run as
//! they like, so a seed alone does not repeat a run: the files of a failure are kept.
#![allow(clippy::disallowed_methods, reason = "a test is a program of its own")]

mod check;
mod commits;
mod dice;
mod disk;
mod story;
mod sys;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use check::{Past, Tried, Verdict, check_file, check_store};
use commits::Commits;
use dice::Dice;
use disk::{Disk, Event, Lies, Loss, Trace};

/// Rounds of a story: some thousand commits, with several checkpoints, after which the log begins anew.
const ROUNDS: usize = 160;

/// As many stories are played at most for what each should have.
const MOST: usize = 8;

/// Moments of a story at which the power is lost.
const MOMENTS: usize = 80;

#[test]
fn what_was_synced_is_there_after_a_power_loss() {
    let setting = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let mut seed = setting("COORD_POWER_SEED").unwrap_or_else(rand_seed);
    let until = Instant::now() + Duration::from_secs(60 * setting("COORD_POWER_MINUTES").unwrap_or(0));
    let (mut tried, mut stories) = (Tried::default(), 0);
    loop {
        let scratch = Scratch::new();
        let events = traced(&scratch, seed);
        if let Err(failure) = lose_power(&events, Lies::Never, &scratch, seed, &mut tried) {
            panic!("seed {seed}, files in {}: {failure}", scratch.keep().display());
        }
        (seed, stories) = (seed + 1, stories + 1);
        // One story may have none of it, by chance.
        if Instant::now() >= until && (tried.has_power() || stories >= MOST) {
            break;
        }
    }
    eprintln!("{stories} stories up to seed {}: {tried:?}", seed - 1);
    assert!(tried.has_power(), "it has shown nothing: {tried:?}");
}

/// The same on a disk that says from some moment on that it has synced, and has not.
#[test]
fn a_disk_that_lies_is_found_out() {
    for lies in [Lies::AboutLogs, Lies::AboutDatabases] {
        let scratch = Scratch::new();
        let events = traced(&scratch, 1);
        let found = lose_power(&events, lies, &scratch, 1, &mut Tried::default());
        eprintln!("{lies:?}: {}", found.expect_err("the disk has lied"));
    }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) >> 32
}

/// What happens to the files in a story.
fn traced(scratch: &Scratch, seed: u64) -> Vec<Event> {
    let directory = scratch.directory("live");
    let trace = Arc::new(Trace::default());
    sys::watch(&directory, &trace);
    runtime().block_on(story::play(&directory.join("t.db"), &trace, ROUNDS, &mut Dice::new(seed)));
    sys::forget(&directory);
    Arc::into_inner(trace).expect("everything is closed").into_events()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Loses the power at some moments, each in its own way.
fn lose_power(events: &[Event], lies: Lies, scratch: &Scratch, seed: u64, tried: &mut Tried) -> Verdict {
    let mut dice = Dice::new(!seed);
    let mut moments: Vec<usize> = (0..MOMENTS).map(|_| moment(events, &mut dice)).collect();
    moments.sort_unstable();
    let (mut disk, mut commits, mut past) = (Disk::new(), Commits::default(), Past::default());
    let (mut played, runtime) = (0, runtime());
    for moment in moments {
        for event in &events[played..moment] {
            disk.apply(event);
            commits.apply(event);
            if let Event::Note(note) = event {
                past.apply(note);
            }
        }
        played = moment;
        if played > events.len() / 4 {
            disk.lies = lies;
        }
        let loss = match dice.below(6) {
            0 => Loss::Nothing,
            1 => Loss::Everything,
            2 | 3 => Loss::Tail,
            4 => Loss::Sectors(512),
            _ => Loss::Sectors(4_096),
        };
        let image = disk.image(loss, &mut dice);
        tried.images += 1;
        let (file, store) = (scratch.directory("file"), scratch.directory("store"));
        check_file(&image, &file, &commits, &past, tried)
            .and_then(|()| runtime.block_on(check_store(&image, &store, &past, &mut dice, tried)))
            .map_err(|failure| {
                disk::lay_down(&image, &scratch.directory("found"));
                format!("after event {moment} of {}, {loss:?}: {failure}", events.len())
            })?;
        for directory in [file, store] {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
    Ok(())
}

/// Any moment; or one near a sync, a checkpoint, or a file that comes or goes.
fn moment(events: &[Event], dice: &mut Dice) -> usize {
    let any = 1 + dice.below(events.len());
    if dice.one_in(2) {
        return any;
    }
    let special = |event: &Event| match event {
        Event::Write(file, at, _) => *file == 0 || *at == 0,
        Event::Sync(_) | Event::Create(..) | Event::Delete(..) | Event::Truncate(..) => true,
        Event::Note(_) => false,
    };
    let next = events[any - 1..].iter().position(special).unwrap_or(0);
    (any + next + dice.below(3)).min(events.len())
}

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("coord-power-{}-{:x}", std::process::id(), rand_seed()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A new, empty directory in it.
    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// It stays.
    fn keep(self) -> PathBuf {
        let path = self.0.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
