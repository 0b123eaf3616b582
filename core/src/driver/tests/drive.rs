//! Awaiting on other executors.

use super::*;

#[test]
fn any_executor_can_await_it() {
    let runtime = Runtime::shared().expect("a runtime");
    let slow = async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(thread_name())
    };
    let name = block_on(runtime.drive(slow)).expect("it ends");
    assert!(name.starts_with("coord-rt-"));
    let here = thread::current().id();
    let at_once = block_on(runtime.drive(async { Ok(thread::current().id()) }));
    assert_eq!(at_once, Ok(here));
    let panicking = runtime.drive::<()>(async { panic!("caught") });
    assert_eq!(code(block_on(panicking)), Code::Panic);
}

#[test]
fn dropping_it_drops_the_future_on_the_runtime() {
    struct Tells(mpsc::Sender<String>);
    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(thread_name());
        }
    }
    let runtime = Runtime::shared().expect("a runtime");
    let (send, receive) = mpsc::channel();
    let tells = Tells(send);
    let mut driven = runtime.drive(async move {
        let _tells = tells;
        pending::<Result<()>>().await
    });
    assert!(futures::FutureExt::now_or_never(&mut driven).is_none());
    drop(driven);
    let name = receive.recv_timeout(PATIENCE).expect("dropped");
    assert!(name.starts_with("coord-rt-"), "{name}");
}

#[test]
fn a_result_that_nobody_fetches_is_dropped() {
    let runtime = Runtime::shared().expect("a runtime");
    let balance = Arc::new(Balance::default());
    let inner = balance.clone();
    let mut driven = runtime.drive(async move {
        tokio::task::yield_now().await;
        Ok(Owned::new(&inner))
    });
    assert!(futures::FutureExt::now_or_never(&mut driven).is_none_or(|result| result.is_ok()));
    until("the result", || balance.made() == 1);
    drop(driven);
    until("its drop", || balance.dropped() == 1);
}

#[test]
fn a_future_within_another_is_a_part_of_it() {
    let runtime = Runtime::shared().expect("a runtime");
    let inner = runtime.clone();
    let parts = block_on(runtime.drive(async move {
        let first = inner.drive(async {
            tokio::task::yield_now().await;
            Ok(tokio::task::id())
        });
        let panicking = inner.drive::<()>(async {
            tokio::task::yield_now().await;
            panic!("caught")
        });
        let at_once = inner.drive::<()>(async { panic!("caught") });
        Ok((first.await?, tokio::task::id(), code(panicking.await), code(at_once.await)))
    }));
    let (first, outer, panicked, at_once) = parts.expect("it ends");
    assert_eq!(first, outer, "one task");
    assert_eq!([panicked, at_once], [Code::Panic; 2]);
}

#[test]
fn a_future_that_began_within_another_goes_on_elsewhere() {
    let runtime = Runtime::shared().expect("a runtime");
    let inner = runtime.clone();
    let begun = runtime.drive(async move {
        let mut inner = inner.drive(async {
            // A timer needs the runtime, wherever it is polled.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(7)
        });
        assert!(futures::poll!(&mut inner).is_pending());
        Ok(inner)
    });
    assert_eq!(block_on(block_on(begun).expect("it ends")), Ok(7));
}
