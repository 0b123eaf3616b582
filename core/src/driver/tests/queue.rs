//! The event queue and its descriptor.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

fn readable(fd: impl AsFd, wait: Duration) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
    poll(&mut fds, Some(&timeout)).expect("poll") == 1
}

#[test]
fn the_descriptor_is_readable_exactly_when_there_is_an_event() {
    let queue = EventQueue::new().expect("a queue");
    queue.push(1);
    assert!(readable(queue.fd(), Duration::ZERO), "also for what came before anybody asked");
    queue.push(2);
    queue.push(3);
    assert_eq!(queue.poll(None), Some(1));
    assert!(readable(queue.fd(), Duration::ZERO));
    let mut out = Vec::new();
    assert_eq!(queue.poll_batch(0, None, &mut out), 0);
    assert_eq!(queue.poll_batch(10, None, &mut out), 2);
    assert_eq!(out, [2, 3]);
    assert!(!readable(queue.fd(), Duration::ZERO));
    queue.wake();
    assert!(!readable(queue.fd(), Duration::ZERO), "a wake-up is no event");
    queue.push(4);
    queue.close();
    assert!(!readable(queue.fd(), Duration::ZERO));
    queue.push(5);
    assert!(!readable(queue.fd(), Duration::ZERO));
    assert!(queue.is_closed() && queue.is_empty());
}

#[test]
fn the_descriptor_never_lies_under_load() {
    const EACH: usize = 5_000;
    let queue = EventQueue::new().expect("a queue");
    let producers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || (0..EACH).for_each(|n| queue.push(n)))
        })
        .collect();
    let mut taken = 0;
    let mut out = Vec::new();
    while taken < 3 * EACH {
        // The only consumer: if the descriptor says there is something, there is; and it says so before long.
        assert!(readable(queue.fd(), PATIENCE), "a wake-up was lost after {taken} events");
        let count = queue.poll_batch(1 + taken % 7, Some(Duration::ZERO), &mut out);
        assert!(count > 0, "readable, but empty");
        taken += count;
    }
    assert!(!readable(queue.fd(), Duration::ZERO));
    producers.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

#[test]
fn many_consumers_take_each_event_once() {
    const EVENTS: usize = 20_000;
    let queue = EventQueue::new().expect("a queue");
    let consumers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || std::iter::from_fn(|| queue.poll(Some(PATIENCE))).collect::<Vec<usize>>())
        })
        .collect();
    (0..EVENTS).for_each(|n| queue.push(n));
    until("all are taken", || queue.is_empty());
    queue.close();
    let mut all: Vec<_> = consumers.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..EVENTS));
}

#[test]
fn a_wake_ends_one_poll_each_and_is_kept_for_the_next() {
    let queue = EventQueue::<u32>::new().expect("a queue");
    queue.wake();
    assert_eq!(queue.poll(Some(Duration::ZERO)), None, "would not block, so the wake-up stays");
    assert_eq!(queue.poll(None), None);
    queue.wake();
    queue.push(1);
    assert_eq!(queue.poll(None), Some(1), "events first");
    assert_eq!(queue.poll(None), None);
    let pollers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || queue.poll(Some(PATIENCE)))
        })
        .collect();
    let start = Instant::now();
    while pollers.iter().any(|poller| !poller.is_finished()) {
        queue.wake();
        thread::sleep(Duration::from_millis(1));
    }
    assert!(start.elapsed() < PATIENCE, "it was the wake-up");
    assert!(pollers.into_iter().all(|poller| poller.join().expect("no panic").is_none()));
}

#[test]
fn time_closing_and_dropping_end_it() {
    let queue = EventQueue::<Owned>::new().expect("a queue");
    assert!(queue.poll(Some(Duration::from_millis(2))).is_none());
    let other = queue.clone();
    let blocked = thread::spawn(move || other.poll(None).is_none());
    queue.close();
    assert!(blocked.join().expect("no panic"));
    let balance = Arc::new(Balance::default());
    queue.push(Owned::new(&balance));
    assert_eq!(balance.dropped(), 1);
    let open = EventQueue::new().expect("a queue");
    open.push(Owned::new(&balance));
    drop(open);
    assert_eq!(balance.dropped(), 2);
}
