//! The event queue and the sleep of a blocked call, in schedules drawn by chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use shuttle::thread;

use crate::{deaf, driver, schedules};

/// Two threads push, two poll until they have been told that it is over.
macro_rules! every_event_is_taken_once {
    ($queue:ty) => {
        || {
            let queue = <$queue>::new().expect("a queue");
            let pollers: Vec<_> = (0..2)
                .map(|_| {
                    let queue = Arc::clone(&queue);
                    thread::spawn(move || {
                        let mut taken = Vec::new();
                        while let Some(event) = queue.poll(None).filter(|event| *event != OVER) {
                            taken.push(event);
                        }
                        taken
                    })
                })
                .collect();
            let pushers: Vec<_> = (0..2)
                .map(|pusher| {
                    let queue = Arc::clone(&queue);
                    thread::spawn(move || (0..2).for_each(|event| queue.push(pusher * 2 + event)))
                })
                .collect();
            pushers.into_iter().for_each(|pusher| pusher.join().expect("a pusher ends"));
            (0..2).for_each(|_| queue.push(OVER));
            let mut all: Vec<u32> =
                pollers.into_iter().flat_map(|poller| poller.join().expect("a poller ends")).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3]);
        }
    };
}

const OVER: u32 = u32::MAX;

#[test]
fn every_event_is_taken_once() {
    shuttle::check_random(every_event_is_taken_once!(driver::queue::EventQueue<u32>), schedules());
    shuttle::check_pct(every_event_is_taken_once!(driver::queue::EventQueue<u32>), schedules() / 4, 3);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_wake_up_is_found() {
    shuttle::check_random(every_event_is_taken_once!(deaf::queue::EventQueue<u32>), schedules());
}

/// An event that counts its end.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_close_ends_every_poll_and_every_event() {
    shuttle::check_random(
        || {
            let ended = Arc::new(AtomicUsize::new(0));
            let queue = driver::queue::EventQueue::new().expect("a queue");
            let poller = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || while queue.poll(None).is_some() {})
            };
            let pusher = {
                let (queue, ended) = (Arc::clone(&queue), Arc::clone(&ended));
                thread::spawn(move || (0..3).for_each(|_| queue.push(Counted(Arc::clone(&ended)))))
            };
            queue.close();
            poller.join().expect("the poller ends");
            pusher.join().expect("the pusher ends");
            assert!(queue.is_closed() && queue.is_empty());
            assert_eq!(ended.load(SeqCst), 3, "each event has ended once");
        },
        schedules(),
    );
}

#[test]
fn a_poll_ends_by_a_wake_whenever_it_comes() {
    shuttle::check_random(
        || {
            let queue = driver::queue::EventQueue::<u32>::new().expect("a queue");
            let poller = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || u32::from(queue.poll(None).is_some()))
            };
            let pusher = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || queue.push(1))
            };
            queue.wake();
            let taken = poller.join().expect("the poller ends");
            pusher.join().expect("the pusher ends");
            assert_eq!(taken + queue.len() as u32, 1, "the event is taken or still there");
        },
        schedules(),
    );
}

#[test]
fn a_wake_alone_ends_a_poll_whenever_it_comes() {
    shuttle::check_random(
        || {
            let queue = driver::queue::EventQueue::<u32>::new().expect("a queue");
            let waking = Arc::clone(&queue);
            let other = thread::spawn(move || waking.wake());
            assert_eq!(queue.poll(None), None);
            other.join().expect("the other ends");
        },
        schedules(),
    );
}

fn is_readable(queue: &driver::queue::EventQueue<u32>) -> bool {
    let descriptor = queue.fd();
    let mut fds = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).expect("a descriptor can be looked at") == 1
}

#[test]
fn the_descriptor_says_what_the_queue_has() {
    shuttle::check_random(
        || {
            let queue = driver::queue::EventQueue::new().expect("a queue");
            let watcher = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || is_readable(&queue))
            };
            let pusher = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || (0..2).for_each(|event| queue.push(event)))
            };
            let taken = queue.poll(Some(std::time::Duration::ZERO)).is_some();
            watcher.join().expect("the watcher ends");
            pusher.join().expect("the pusher ends");
            assert_eq!(queue.len(), if taken { 1 } else { 2 });
            assert!(is_readable(&queue));
            while queue.poll(Some(std::time::Duration::ZERO)).is_some() {}
            assert!(!is_readable(&queue));
        },
        schedules(),
    );
}

#[test]
fn a_sleeper_that_is_woken_wakes() {
    shuttle::check_random(
        || {
            let parker = Arc::new(driver::park::Parker::default());
            let waker = std::task::Waker::from(Arc::clone(&parker));
            let done = Arc::new(shuttle::sync::atomic::AtomicBool::new(false));
            let setting = Arc::clone(&done);
            let other = thread::spawn(move || {
                setting.store(true, SeqCst);
                waker.wake();
            });
            // As a blocked call does: look, sleep, look again.
            while !done.load(SeqCst) {
                parker.park_until(crate::time::Timestamp::from_nanos(u64::MAX));
            }
            other.join().expect("the other ends");
        },
        schedules(),
    );
}
