//! Blocking calls.

use super::*;

#[test]
fn what_is_ready_is_served_on_the_callers_thread() {
    let runtime = Runtime::shared().expect("a runtime");
    let here = thread::current().id();
    assert_eq!(runtime.wait(async { Ok(thread::current().id()) }, None, None), Ok(here));
}

#[test]
fn what_is_not_ready_goes_on_on_the_callers_thread_with_what_it_needs_of_the_runtime() {
    let runtime = Runtime::shared().expect("a runtime");
    let here = thread::current().id();
    let inner = runtime.clone();
    let slow = async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let nested = inner.drive(async {
            tokio::task::yield_now().await;
            Ok(thread::current().id())
        });
        assert_eq!(nested.await, Ok(here));
        let task = tokio::spawn(async { thread_name() });
        Ok((thread::current().id(), task.await.expect("it ends")))
    };
    let (end, task) = runtime.wait(slow, Some(PATIENCE), None).expect("it ends");
    assert_eq!(end, here);
    assert!(task.starts_with("coord-rt-"), "{task}");
}

#[test]
fn a_call_that_gives_up_has_dropped_its_future() {
    let runtime = Runtime::shared().expect("a runtime");
    let balance = Arc::new(Balance::default());
    for timeout in [Duration::ZERO, Duration::from_millis(5)] {
        let before = balance.dropped();
        assert_eq!(code(runtime.wait(stuck(Owned::new(&balance)), Some(timeout), None)), Code::Timeout);
        assert_eq!(balance.dropped(), before + 1);
    }
    let token = CancelToken::new();
    let other = token.clone();
    let firing = thread::spawn(move || other.fire());
    assert_eq!(code(runtime.wait(stuck(Owned::new(&balance)), None, Some(&token))), Code::Cancelled);
    assert_eq!(balance.dropped(), 3);
    firing.join().expect("fired");
    let never = async { panic!("not polled after its token was fired") };
    assert_eq!(code(runtime.wait::<()>(never, None, Some(&token))), Code::Cancelled);
}

#[test]
fn a_panic_is_an_error_wherever_it_happens() {
    let runtime = Runtime::shared().expect("a runtime");
    let now = runtime.wait::<()>(async { panic!("now") }, None, None).expect_err("a panic");
    assert_eq!((now.code(), now.message().contains("now")), (Code::Panic, true));
    let later = async {
        tokio::task::yield_now().await;
        panic!("later {}", 1)
    };
    let later = runtime.wait::<()>(later, None, None).expect_err("a panic");
    assert_eq!((later.code(), later.message().contains("later 1")), (Code::Panic, true));
}

#[test]
fn waiting_on_a_thread_of_the_runtime_is_refused() {
    let runtime = Runtime::shared().expect("a runtime");
    let inner = runtime.clone();
    let nested = async move {
        let task = tokio::spawn(async move { inner.wait(async { Ok(()) }, None, None) });
        task.await.expect("it ends")
    };
    assert_eq!(code(runtime.wait(nested, Some(PATIENCE), None)), Code::Reentrant);
}

#[test]
fn a_check_that_fails_ends_the_wait_with_its_own_error() {
    let runtime = Runtime::shared().expect("a runtime");
    let balance = Arc::new(Balance::default());
    let mut ticks = 0;
    let tick = || {
        ticks += 1;
        if ticks == 3 { Err("interrupted") } else { Ok(()) }
    };
    let owned = stuck(Owned::new(&balance));
    let outcome = runtime.wait_sliced(owned, None, None, Duration::from_millis(1), tick);
    assert_eq!(outcome, Err("interrupted"));
    assert_eq!((ticks, balance.dropped()), (3, 1));
    let fine = runtime.wait_sliced(async { Ok(5) }, None, None, Duration::from_millis(1), || Err("not asked"));
    assert_eq!(fine, Ok(Ok(5)));
}

#[test]
fn nothing_is_lost_when_a_cancel_meets_the_result() {
    let runtime = Runtime::shared().expect("a runtime");
    let balance = Arc::new(Balance::default());
    let (mut taken, mut cancelled) = (0, 0);
    for round in 0..2000u64 {
        let token = CancelToken::new();
        let ready = Arc::new(Notify::new());
        let (result, fire) = (ready.clone(), token.clone());
        let inner = balance.clone();
        let grant = async move {
            ready.notified().await;
            Ok(Owned::new(&inner))
        };
        runtime.handle().spawn(async move {
            if round % 2 == 0 {
                result.notify_one();
                fire.fire();
            } else {
                fire.fire();
                result.notify_one();
            }
        });
        let held_before = balance.made() - balance.dropped();
        match runtime.wait(grant, Some(PATIENCE), Some(&token)) {
            Ok(owned) => {
                assert_eq!(balance.made() - balance.dropped(), held_before + 1);
                drop(owned);
                taken += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Code::Cancelled);
                assert_eq!(balance.made() - balance.dropped(), held_before, "given back before the call returned");
                cancelled += 1;
            }
        }
    }
    assert_eq!(taken + cancelled, 2000);
    assert_eq!(balance.made(), balance.dropped());
}

#[test]
fn a_thread_that_is_ending_can_still_give_back() {
    thread_local! {
        static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
    }
    struct Late(Runtime, mpsc::Sender<Result<u32>>);
    impl Drop for Late {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.wait(async { Ok(3) }, Some(PATIENCE), None));
        }
    }
    let runtime = Runtime::shared().expect("a runtime");
    let (send, receive) = mpsc::channel();
    let inner = runtime.clone();
    let ending = thread::spawn(move || {
        // Made before tokio's own thread-local, and so destroyed after it.
        LATE.with(|late| *late.borrow_mut() = Some(Late(inner.clone(), send)));
        inner.wait(async { Ok(()) }, None, None)
    });
    assert_eq!(ending.join().expect("no panic"), Ok(()));
    assert_eq!(receive.recv_timeout(PATIENCE).expect("an answer"), Ok(3));
}
