//! Counting who passes which point, and striking at one of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use coord_core::failpoints::{ALL, On, Point, on};

use crate::said::{Said, say};

/// What happens to the thread at the point, or to its whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The process is killed.
    Kill,
    /// The thread is held up for so long, and goes on.
    Delay(Duration),
}

/// Where a blow falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// The point.
    pub point: Point,
    /// When it is passed for the so many-th time.
    pub nth: u64,
    /// What happens.
    pub blow: Blow,
}

static PASSED: [AtomicU64; ALL.len()] = [const { AtomicU64::new(0) }; ALL.len()];

/// Begins to count, and strikes in time. Returns whether that can be: not without the feature `failpoints`.
pub fn prepare(strike: Option<Strike>) -> bool {
    ALL.iter().all(|(point, ..)| {
        let point = *point;
        on(point, move || {
            let passed = PASSED[point as usize].fetch_add(1, SeqCst) + 1;
            if let Some(strike) = strike.filter(|strike| strike.point == point && strike.nth == passed) {
                fall(strike.blow);
            }
        })
    })
}

/// How often each point was passed.
pub fn passed() -> BTreeMap<String, u64> {
    ALL.iter().map(|(point, name, ..)| ((*name).to_owned(), PASSED[*point as usize].load(SeqCst))).collect()
}

/// The points that a story passes on this store.
pub fn points(mongodb: bool) -> impl Iterator<Item = Point> {
    let elsewhere = if mongodb { On::Sqlite } else { On::MongoDb };
    ALL.iter().filter(move |(_, _, on, _)| *on != elsewhere).map(|(point, ..)| *point)
}

fn fall(blow: Blow) {
    say(&Said::Struck);
    match blow {
        Blow::Kill => {
            let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            killed.expect("a process may kill itself");
            // The signal stops this thread when it returns to here, if not before.
            loop {
                std::thread::park();
            }
        }
        Blow::Delay(time) => {
            std::thread::sleep(time);
            say(&Said::Resumed);
        }
    }
}
