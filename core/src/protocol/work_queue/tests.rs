use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BACKOFF: Backoff = Backoff { min: Duration::from_millis(5), max: Duration::from_secs(1000) };

fn queue(workers: usize) -> WorkQueue<u8> {
    WorkQueue::new(QueueOptions { workers, backoff: BACKOFF, rate: None })
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn failed() -> Verdict {
    Verdict::Failed { after: None }
}

/// Takes the next key, which must be this one.
fn take(queue: &mut WorkQueue<u8>, key: u8, now: Timestamp) -> Ticket {
    let taken = queue.take(now).expect("a key is ready");
    assert_eq!(taken.key, key);
    taken.ticket
}

#[test]
fn duplicates_collapse_and_order_is_that_of_the_first() {
    let mut q = queue(8);
    assert!(q.add(1, at(0)));
    assert!(q.add(2, at(0)));
    assert!(!q.add(1, at(0)));
    take(&mut q, 1, at(0));
    take(&mut q, 2, at(0));
    assert_eq!(q.take(at(0)), None);
}

#[test]
fn changes_during_a_run_lead_to_exactly_one_more() {
    let mut q = queue(8);
    for verdict in [Verdict::Done, failed(), Verdict::RequeueAfter(ms(50)), Verdict::Terminal { reason: "no".into() }] {
        q.add(1, at(0));
        let ticket = take(&mut q, 1, at(0));
        assert!(q.add(1, at(1)));
        assert!(!q.add(1, at(2)));
        assert_eq!(q.take(at(2)), None, "the same key never runs twice at once");
        assert_eq!(q.finish(ticket, verdict, at(3), 0.0), Next::AtOnce);
        let ticket = take(&mut q, 1, at(3));
        assert_eq!(q.finish(ticket, Verdict::Done, at(4), 0.0), Next::Idle);
        assert_eq!((q.take(at(5_000)), q.state(&1)), (None, KeyState::Idle));
    }
}

#[test]
fn the_earlier_of_two_plans_counts() {
    let mut q = queue(8);
    assert!(q.add_after(1, ms(50), at(0)));
    assert!(!q.add_after(1, ms(90), at(0)));
    assert_eq!(q.next_wake(at(0)), Some(at(50)));
    assert!(q.add_after(1, ms(20), at(0)));
    assert_eq!(q.next_wake(at(0)), Some(at(20)));
    assert_eq!(q.take(at(19)), None);
    let ticket = take(&mut q, 1, at(20));
    q.add_after(1, ms(70), at(20));
    assert_eq!(q.finish(ticket, Verdict::RequeueAfter(ms(40)), at(20), 0.0), Next::At(at(60)));
    assert!(q.add(1, at(30)), "a change is due now");
    take(&mut q, 1, at(30));
}

#[test]
fn errors_wait_twice_as_long_each_time_until_a_success() {
    let mut q = queue(8);
    q.add(1, at(0));
    let mut now = at(0);
    let mut waits = Vec::new();
    for attempt in 1..=20 {
        let taken = q.take(now).unwrap();
        assert_eq!(taken.attempt, attempt);
        let Next::At(due) = q.finish(taken.ticket, failed(), now, 0.0) else { panic!("an error waits") };
        assert_eq!(q.take(due - Duration::from_nanos(1)), None);
        waits.push(due.since(now));
        now = due;
    }
    assert_eq!(waits[..3], [ms(5), ms(10), ms(20)]);
    assert_eq!(waits[17], ms(5 << 17));
    assert_eq!(waits[18..], [Duration::from_secs(1000); 2]);
    let ticket = take(&mut q, 1, now);
    q.finish(ticket, Verdict::Done, now, 0.0);
    q.add(1, now);
    let ticket = take(&mut q, 1, now);
    assert_eq!(
        q.finish(ticket, failed(), now, 1.0),
        Next::At(now + Duration::from_micros(6250)),
        "a quarter by chance"
    );
    assert_eq!(BACKOFF.delay(u32::MAX, 0.0), Duration::from_secs(1000));
}

#[test]
fn a_failing_key_that_is_never_added_again_runs_as_often_as_the_back_off_says() {
    let mut q = queue(8);
    q.add(1, at(0));
    let (mut now, mut runs) = (at(0), 0);
    while now <= at(10_000) {
        let ticket = take(&mut q, 1, now);
        runs += 1;
        q.finish(ticket, failed(), now, 0.0);
        now = q.next_wake(now).unwrap();
    }
    // At 0, 5, 15, 35 … ms: 5·(2ⁿ-1) stays within 10 s for n up to 10.
    assert_eq!(runs, 11);
}

#[test]
fn terminal_keys_are_parked_until_they_are_added_again() {
    let mut q = queue(8);
    q.add(1, at(0));
    let ticket = take(&mut q, 1, at(0));
    assert_eq!(q.finish(ticket, Verdict::Terminal { reason: "bad".into() }, at(3), 0.0), Next::Parked);
    assert_eq!(q.parked(), [ParkedKey { key: 1, reason: "bad".into(), since: at(3) }]);
    assert!(!q.refresh(1, at(4)), "a resync is no change");
    assert_eq!(q.take(at(1_000_000)), None);
    assert!(q.add(1, at(5)));
    take(&mut q, 1, at(5));
    assert!(q.parked().is_empty());
}

#[test]
fn a_resync_hurries_plans_but_no_errors() {
    let mut q = queue(8);
    q.add_after(1, ms(500), at(0));
    assert!(q.refresh(1, at(1)));
    let ticket = take(&mut q, 1, at(1));
    q.finish(ticket, failed(), at(1), 0.0);
    assert!(!q.refresh(1, at(2)));
    assert_eq!(q.state(&1), KeyState::Delayed { due: at(6), failures: 1, owed: true });
    assert!(q.refresh(2, at(2)));
    assert_eq!(q.state(&2), KeyState::Ready);
}

#[test]
fn what_is_cancelled_does_not_run() {
    let mut q = queue(8);
    q.add(1, at(0));
    q.add_after(2, ms(5), at(0));
    q.add(3, at(0));
    assert!(q.cancel(&1) && q.cancel(&2) && !q.cancel(&4));
    let taken = q.take(at(10)).unwrap();
    assert_eq!(taken.key, 3);
    q.add(3, at(10));
    assert!(!q.is_cancelled(&taken.ticket));
    assert!(q.cancel(&3) && q.is_cancelled(&taken.ticket));
    assert_eq!(q.finish(taken.ticket, failed(), at(10), 0.0), Next::Idle);
    assert_eq!((q.take(at(99)), q.next_wake(at(99))), (None, None));
    let states = [1, 2, 3, 4].map(|key| q.state(&key));
    let expected = [KeyState::Cancelled, KeyState::Idle, KeyState::Cancelled, KeyState::Idle];
    assert_eq!(states, expected, "what was to be run is not taken for done; 2 was only planned");
    assert!(!q.cancel(&1), "nothing is left of it");

    q.add(3, at(100));
    let ticket = take(&mut q, 3, at(100));
    q.cancel(&3);
    q.add(3, at(100));
    assert_eq!(q.finish(ticket, Verdict::Done, at(100), 0.0), Next::AtOnce, "added after the cancel");
    for round in 0..10_000 {
        q.add(7, at(round));
        q.cancel(&7);
    }
    assert!(q.ready.len() < 200 && q.items.len() < 10, "cancelled keys take no memory");
}

#[test]
fn what_was_parked_or_cancelled_is_owed_although_it_is_planned() {
    let mut q = queue(8);
    let terminal = || Verdict::Terminal { reason: "no".into() };
    for key in 1..=5 {
        q.add(key, at(0));
    }
    let [parked, planned, cancelled, failed_once, done] = [1, 2, 3, 4, 5].map(|key| take(&mut q, key, at(0)));
    q.add(6, at(0));
    assert!(q.cancel(&3) && q.cancel(&6));
    assert_eq!(q.finish(parked, terminal(), at(0), 0.0), Next::Parked);
    q.finish(failed_once, failed(), at(0), 0.0);
    assert!(q.cancel(&4));
    for key in 1..=7 {
        assert!(q.add_after(key, ms(50), at(0)));
    }
    q.finish(planned, terminal(), at(0), 0.0);
    q.finish(cancelled, Verdict::Done, at(0), 0.0);
    q.finish(done, Verdict::Done, at(0), 0.0);
    for key in 1..=7 {
        let owed = ![5, 7].contains(&key);
        assert_eq!(q.state(&key), KeyState::Delayed { due: at(50), failures: 0, owed }, "{key}");
    }
    // A second cancel does not make it done, and a run without an error does.
    for key in 1..=7 {
        assert!(q.cancel(&key));
        let expected = if [5, 7].contains(&key) { KeyState::Idle } else { KeyState::Cancelled };
        assert_eq!(q.state(&key), expected, "{key}");
        q.add(key, at(1));
        let ticket = take(&mut q, key, at(1));
        q.finish(ticket, Verdict::RequeueAfter(ms(50)), at(1), 0.0);
        assert_eq!(q.state(&key), KeyState::Delayed { due: at(51), failures: 0, owed: false });
    }
}

#[test]
fn no_more_run_at_once_than_there_are_workers() {
    let mut q = queue(2);
    for key in 0..3 {
        q.add(key, at(0));
    }
    let first = take(&mut q, 0, at(0));
    take(&mut q, 1, at(0));
    assert_eq!((q.take(at(0)), q.next_wake(at(0))), (None, None));
    q.finish(first, Verdict::Done, at(0), 0.0);
    take(&mut q, 2, at(0));
}

#[test]
fn the_rate_allows_a_burst_and_then_evenness() {
    let rate = Some(Rate { per_second: 10.0, burst: 3 });
    let mut q = WorkQueue::new(QueueOptions { workers: 100, backoff: BACKOFF, rate });
    for key in 0..10u8 {
        q.add(key, at(1000));
    }
    let mut begun = Vec::new();
    let mut now = at(1000);
    while begun.len() < 6 {
        while q.take(now).is_some() {
            begun.push(now.since(at(1000)));
        }
        let wake = q.next_wake(now).unwrap();
        assert!(wake > now);
        now = wake;
    }
    assert_eq!(begun[..6], [ms(0), ms(0), ms(0), ms(100), ms(200), ms(300)]);
}

#[test]
fn pause_drain_and_close() {
    let mut q = queue(8);
    q.add(1, at(0));
    q.pause();
    assert!(q.is_paused() && q.takes_in() && q.add(2, at(0)));
    assert_eq!((q.take(at(0)), q.next_wake(at(0))), (None, None));
    q.resume();
    let one = take(&mut q, 1, at(0));
    q.drain();
    assert!(!q.takes_in() && !q.add(3, at(0)) && !q.is_drained());
    let two = take(&mut q, 2, at(0));
    q.finish(one, Verdict::Done, at(0), 0.0);
    assert!(!q.is_drained());
    q.finish(two, failed(), at(0), 0.0);
    assert!(q.is_drained(), "what is due later is not waited for");
    q.close();
    assert_eq!(q.take(at(99)), None);
    q.resume();
    q.drain();
    assert!(q.is_closed());
}

#[test]
fn depth_tells_ages() {
    let mut q = queue(1);
    q.add(1, at(0));
    q.add(2, at(10));
    take(&mut q, 1, at(20));
    q.add_after(3, ms(100), at(20));
    let depth = q.depth(at(50));
    assert_eq!((depth.ready, depth.delayed, depth.running, depth.parked), (1, 1, 1, 0));
    assert_eq!((depth.oldest, depth.longest_run), (ms(40), ms(30)));
}

/// The same rules over lists that are searched from end to end.
#[derive(Default)]
struct Naive {
    workers: usize,
    accepts: bool,
    starts: bool,
    /// In the order in which they became ready.
    ready: Vec<u8>,
    /// In the order in which they were planned.
    due: Vec<(u8, Timestamp)>,
    running: BTreeMap<u8, Run>,
    parked: Vec<u8>,
    cancelled: BTreeSet<u8>,
    failures: BTreeMap<u8, u32>,
    /// Of those that are planned.
    owed: BTreeSet<u8>,
}

#[derive(Default)]
struct Run {
    again: Option<Timestamp>,
    cancelled: bool,
}

impl Naive {
    fn wake(&mut self, now: Timestamp) {
        self.due.sort_by_key(|(_, at)| *at);
        let due = self.due.iter().take_while(|(_, at)| *at <= now).count();
        self.ready.extend(self.due.drain(..due).map(|(key, _)| key));
    }

    fn schedule(&mut self, key: u8, due: Timestamp, now: Timestamp) {
        if !self.accepts {
            return;
        }
        self.wake(now);
        if self.ready.contains(&key) {
            return;
        }
        if let Some(run) = self.running.get_mut(&key) {
            run.again = Some(run.again.map_or(due, |planned| planned.min(due)));
            return;
        }
        if self.parked.contains(&key) || self.cancelled.contains(&key) {
            self.owed.insert(key);
        }
        self.parked.retain(|parked| *parked != key);
        self.cancelled.remove(&key);
        match self.planned(key) {
            Some(planned) if planned <= due => return,
            _ => self.due.retain(|(planned, _)| *planned != key),
        }
        self.put(key, due, now);
    }

    fn put(&mut self, key: u8, due: Timestamp, now: Timestamp) {
        if due <= now {
            self.ready.push(key);
        } else {
            self.due.push((key, due));
        }
    }

    fn planned(&self, key: u8) -> Option<Timestamp> {
        self.due.iter().find(|(planned, _)| *planned == key).map(|(_, at)| *at)
    }

    fn cancel(&mut self, key: u8) {
        if matches!(self.state(key), KeyState::Ready | KeyState::Delayed { owed: true, .. } | KeyState::Parked) {
            self.cancelled.insert(key);
        }
        self.remove(key);
        if let Some(run) = self.running.get_mut(&key) {
            *run = Run { again: None, cancelled: true };
        }
    }

    fn remove(&mut self, key: u8) {
        self.ready.retain(|ready| *ready != key);
        self.due.retain(|(planned, _)| *planned != key);
        self.parked.retain(|parked| *parked != key);
        self.failures.remove(&key);
        self.owed.remove(&key);
    }

    fn take(&mut self, now: Timestamp) -> Option<(u8, u32)> {
        self.wake(now);
        if !self.starts || self.running.len() >= self.workers || self.ready.is_empty() {
            return None;
        }
        let key = self.ready.remove(0);
        self.running.insert(key, Run::default());
        Some((key, self.failures.get(&key).copied().unwrap_or(0) + 1))
    }

    fn finish(&mut self, key: u8, verdict: &Verdict, now: Timestamp) {
        self.wake(now);
        let run = self.running.remove(&key).expect("it runs");
        let failures = self.failures.remove(&key).unwrap_or(0) + 1;
        let mut due = run.again;
        self.owed.remove(&key);
        if !run.cancelled {
            let mut no_later_than = |at: Timestamp| due = Some(due.map_or(at, |planned| planned.min(at)));
            match verdict {
                Verdict::RequeueAfter(delay) => no_later_than(now + *delay),
                Verdict::Returned => {
                    if failures > 1 {
                        self.failures.insert(key, failures - 1);
                    }
                    no_later_than(now);
                }
                Verdict::Failed { after } => {
                    self.failures.insert(key, failures);
                    no_later_than(now + after.unwrap_or(ms(5) * 2u32.pow(failures - 1)));
                }
                Verdict::Terminal { .. } if due.is_none() => self.parked.push(key),
                _ => {}
            }
        }
        if let Some(due) = due {
            if run.cancelled || !matches!(verdict, Verdict::Done | Verdict::RequeueAfter(_)) {
                self.owed.insert(key);
            }
            self.put(key, due, now);
        } else if run.cancelled && *verdict != Verdict::Forgotten {
            self.cancelled.insert(key);
        }
    }

    fn state(&self, key: u8) -> KeyState {
        if let Some(run) = self.running.get(&key) {
            KeyState::Running { again: run.again.is_some() }
        } else if self.ready.contains(&key) {
            KeyState::Ready
        } else if let Some(due) = self.planned(key) {
            let failures = self.failures.get(&key).copied().unwrap_or(0);
            KeyState::Delayed { due, failures, owed: self.owed.contains(&key) }
        } else if self.parked.contains(&key) {
            KeyState::Parked
        } else if self.cancelled.contains(&key) {
            KeyState::Cancelled
        } else {
            KeyState::Idle
        }
    }
}

#[derive(Clone, Debug)]
enum Action {
    Add(u8),
    AddAfter(u8, u64),
    Refresh(u8),
    Cancel(u8),
    Retain(u8),
    Take,
    Finish(usize, Verdict),
    Pass(u64),
    Pause,
    Resume,
    Drain,
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Done),
        2 => (0..40u64).prop_map(|delay| Verdict::RequeueAfter(ms(delay))),
        3 => Just(failed()),
        1 => (0..40u64).prop_map(|delay| Verdict::Failed { after: Some(ms(delay)) }),
        1 => Just(Verdict::Terminal { reason: String::new() }),
        1 => Just(Verdict::Forgotten),
        1 => Just(Verdict::Returned),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    let key = 0..6u8;
    prop_oneof![
        6 => key.clone().prop_map(Action::Add),
        3 => (key.clone(), 0..60u64).prop_map(|(key, delay)| Action::AddAfter(key, delay)),
        1 => key.clone().prop_map(Action::Refresh),
        1 => key.clone().prop_map(Action::Cancel),
        1 => key.prop_map(Action::Retain),
        8 => Just(Action::Take),
        6 => (0..4usize, verdicts()).prop_map(|(which, verdict)| Action::Finish(which, verdict)),
        4 => (0..30u64).prop_map(Action::Pass),
        1 => Just(Action::Pause),
        2 => Just(Action::Resume),
    ]
}

/// Plays the actions on the queue and on the naive model, and compares after each.
fn compare(actions: Vec<Action>, workers: usize) -> Result<(), TestCaseError> {
    let mut queue = queue(workers);
    let mut naive = Naive { workers, accepts: true, starts: true, ..Naive::default() };
    let mut tickets: Vec<(u8, Ticket)> = Vec::new();
    let mut now = at(1);
    for action in actions {
        match action.clone() {
            Action::Add(key) => {
                queue.add(key, now);
                naive.schedule(key, now, now);
            }
            Action::AddAfter(key, delay) => {
                queue.add_after(key, ms(delay), now);
                naive.schedule(key, now + ms(delay), now);
            }
            Action::Refresh(key) => {
                queue.refresh(key, now);
                let waits = matches!(naive.state(key), KeyState::Parked | KeyState::Delayed { failures: 1.., .. });
                if !waits {
                    naive.schedule(key, now, now);
                }
            }
            Action::Cancel(key) => {
                queue.cancel(&key);
                naive.cancel(key);
            }
            Action::Retain(one) => {
                queue.retain(|key| *key != one);
                match naive.running.get_mut(&one) {
                    Some(run) => run.again = None,
                    None => {
                        naive.remove(one);
                        naive.cancelled.remove(&one);
                    }
                }
            }
            Action::Take => {
                let taken = queue.take(now);
                prop_assert_eq!(taken.as_ref().map(|taken| (taken.key, taken.attempt)), naive.take(now));
                tickets.extend(taken.map(|taken| (taken.key, taken.ticket)));
            }
            Action::Finish(which, verdict) if which < tickets.len() => {
                let (key, ticket) = tickets.swap_remove(which);
                naive.finish(key, &verdict, now);
                queue.finish(ticket, verdict, now, 0.0);
            }
            Action::Finish(..) => {}
            Action::Pass(time) => now = now + ms(time),
            Action::Pause => {
                queue.pause();
                naive.starts = !naive.accepts;
            }
            Action::Resume => {
                queue.resume();
                naive.starts = true;
            }
            Action::Drain => {
                queue.drain();
                (naive.accepts, naive.starts) = (false, true);
            }
        }
        for key in 0..6 {
            prop_assert_eq!(queue.state(&key), naive.state(key), "key {} after {:?}", key, &action);
        }
        let depth = queue.depth(now);
        prop_assert_eq!(
            (depth.ready, depth.delayed, depth.running, depth.parked),
            (naive.ready.len(), naive.due.len(), naive.running.len(), naive.parked.len())
        );
        prop_assert!(queue.ready.len() <= 2 * queue.ready_count + STALE);
        let cancelled = |(key, ticket): &(u8, Ticket)| queue.is_cancelled(ticket) == naive.running[key].cancelled;
        prop_assert!(tickets.iter().all(cancelled));
    }
    // Whatever happened: what is wanted is run, and then the queue is empty.
    for (_, ticket) in tickets {
        queue.finish(ticket, Verdict::Done, now, 0.0);
    }
    queue.resume();
    loop {
        if let Some(taken) = queue.take(now) {
            queue.finish(taken.ticket, Verdict::Done, now, 0.0);
        } else if let Some(wake) = queue.next_wake(now) {
            now = wake;
        } else {
            break;
        }
    }
    prop_assert_eq!(queue.depth(now), Depth { parked: queue.parked().len(), ..Depth::default() });
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_naive_model(
        mut before in prop::collection::vec(actions(), 1..120),
        drains in prop::bool::ANY,
        after in prop::collection::vec(actions(), 0..40),
        workers in 1..4usize,
    ) {
        if drains {
            before.push(Action::Drain);
        }
        before.extend(after);
        compare(before, workers)?;
    }
}
