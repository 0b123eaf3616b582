//! Started operations and their one event.

use super::*;

type Outcomes = EventQueue<(u64, Result<Owned>)>;

fn only_event(queue: &Arc<Outcomes>, tag: u64) -> Result<Owned> {
    let (got, outcome) = queue.poll(Some(PATIENCE)).expect("a terminal event");
    assert_eq!(got, tag);
    outcome
}

fn start(
    runtime: &Runtime,
    queue: &Arc<Outcomes>,
    tag: u64,
    timeout: Option<Duration>,
    cancel: Option<&CancelToken>,
    future: impl Future<Output = Result<Owned>> + Send + 'static,
) -> Op {
    runtime.start(queue, future, timeout, cancel, move |outcome| (tag, outcome)).expect("not forked")
}

async fn never(owned: Owned) -> Result<Owned> {
    pending::<()>().await;
    Ok(owned)
}

#[test]
fn each_way_to_end_gives_one_event() {
    let runtime = Runtime::shared().expect("a runtime");
    let queue = EventQueue::new().expect("a queue");
    let balance = Arc::new(Balance::default());
    let owned = || Owned::new(&balance);

    let at_once = owned();
    let op = start(&runtime, &queue, 1, None, None, async move { Ok(at_once) });
    assert_eq!(queue.len(), 1, "served inline");
    op.cancel();
    assert!(only_event(&queue, 1).is_ok());

    let later = owned();
    start(&runtime, &queue, 2, Some(PATIENCE), None, async move {
        tokio::task::yield_now().await;
        Ok(later)
    });
    assert!(only_event(&queue, 2).is_ok());

    start(&runtime, &queue, 3, Some(Duration::from_millis(2)), None, never(owned()));
    assert_eq!(code(only_event(&queue, 3)), Code::Timeout);
    assert_eq!(balance.made(), balance.dropped(), "dropped before its event");

    let op = start(&runtime, &queue, 4, None, None, never(owned()));
    op.cancel();
    assert_eq!(code(only_event(&queue, 4)), Code::Cancelled);
    assert_eq!(balance.made(), balance.dropped(), "dropped before its event");

    let token = CancelToken::new();
    start(&runtime, &queue, 5, None, Some(&token), never(owned()));
    token.fire();
    assert_eq!(code(only_event(&queue, 5)), Code::Cancelled);
    start(&runtime, &queue, 6, None, Some(&token), async { panic!("not polled") });
    assert_eq!(code(only_event(&queue, 6)), Code::Cancelled);

    start(&runtime, &queue, 7, None, None, async { panic!("inline") });
    assert_eq!(code(only_event(&queue, 7)), Code::Panic);
    start(&runtime, &queue, 8, None, None, async {
        tokio::task::yield_now().await;
        panic!("later")
    });
    assert_eq!(code(only_event(&queue, 8)), Code::Panic);
    start(&runtime, &queue, 9, None, None, async { Err(Error::unavailable("its own")) });
    assert_eq!(code(only_event(&queue, 9)), Code::Unavailable);
    assert!(queue.is_empty());
    assert_eq!(balance.made(), balance.dropped());
}

#[test]
fn what_ended_at_once_is_the_callers() {
    let runtime = Runtime::shared().expect("a runtime");
    let queue: Arc<Outcomes> = EventQueue::new().expect("a queue");
    let balance = Arc::new(Balance::default());

    let at_once = Owned::new(&balance);
    let started = runtime.start_or_end(&queue, async move { Ok(at_once) }, None, None, |outcome| (1, outcome));
    assert!(matches!(started, Ok(Started::Ended((1, Ok(_))))));
    let started: Result<Started<(u64, Result<Owned>)>> =
        runtime.start_or_end(&queue, async { panic!("inline") }, None, None, |outcome| (2, outcome));
    let Ok(Started::Ended((2, outcome))) = started else { panic!("{started:?}") };
    assert_eq!(code(outcome), Code::Panic);
    assert!(queue.is_empty());

    let started = runtime.start_or_end(&queue, never(Owned::new(&balance)), None, None, |outcome| (3, outcome));
    let Ok(Started::GoesOn(op)) = started else { panic!("{started:?}") };
    assert!(queue.is_empty());
    op.cancel();
    assert_eq!(code(only_event(&queue, 3)), Code::Cancelled);
    assert_eq!(balance.made(), balance.dropped() + 1, "the first is still there");
}

#[test]
fn the_end_of_the_runtime_is_an_event_too() {
    if !alone("operation::the_end_of_the_runtime_is_an_event_too") {
        return;
    }
    let runtime = Runtime::shared().expect("a runtime");
    let queue = EventQueue::new().expect("a queue");
    let balance = Arc::new(Balance::default());
    start(&runtime, &queue, 1, None, None, never(Owned::new(&balance)));
    drop(runtime);
    assert_eq!(code(only_event(&queue, 1)), Code::Closed);
    until("the drop", || balance.dropped() == 1);
}

#[test]
fn what_comes_after_the_queue_was_closed_is_given_back() {
    let runtime = Runtime::shared().expect("a runtime");
    let queue = EventQueue::new().expect("a queue");
    let balance = Arc::new(Balance::default());
    let early = Owned::new(&balance);
    start(&runtime, &queue, 1, None, None, async move { Ok(early) });
    let ready = Arc::new(Notify::new());
    let (inner, granted) = (ready.clone(), balance.clone());
    start(&runtime, &queue, 2, None, None, async move {
        inner.notified().await;
        Ok(Owned::new(&granted))
    });
    queue.close();
    assert_eq!(balance.dropped(), 1, "what nobody took");
    ready.notify_one();
    until("the late grant is dropped", || balance.dropped() == 2);
    assert!(queue.poll(None).is_none(), "a closed queue never blocks");
}

#[test]
fn one_event_and_no_loss_when_a_cancel_meets_the_result() {
    let runtime = Runtime::shared().expect("a runtime");
    let queue = EventQueue::new().expect("a queue");
    let balance = Arc::new(Balance::default());
    const ROUNDS: u64 = 2000;
    for tag in 0..ROUNDS {
        let ready = Arc::new(Notify::new());
        let (result, granted) = (ready.clone(), balance.clone());
        let op = start(&runtime, &queue, tag, None, None, async move {
            result.notified().await;
            Ok(Owned::new(&granted))
        });
        runtime.handle().spawn(async move { ready.notify_one() });
        op.cancel();
    }
    let mut seen = vec![0; ROUNDS as usize];
    for _ in 0..ROUNDS {
        let (tag, outcome) = queue.poll(Some(PATIENCE)).expect("a terminal event");
        seen[tag as usize] += 1;
        assert!(outcome.is_ok() || code(outcome) == Code::Cancelled);
    }
    assert!(seen.iter().all(|&count| count == 1));
    assert!(queue.poll(Some(Duration::from_millis(20))).is_none());
    until("everything is given back", || balance.made() == balance.dropped());
}
