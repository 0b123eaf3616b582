//! Awaiting on other executors.

use super::*;

#[test]
fn any_executor_can_await_it() {
    let runtime = Runtime::shared().expect("a runtime");
    let here = thread::current().id();
    let slow = async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let task = tokio::spawn(async { thread_name() }).await.expect("it ends");
        assert!(task.starts_with("coord-rt-"), "{task}");
        Ok(thread::current().id())
    };
    assert_eq!(block_on(runtime.drive(slow)), Ok(here));
    let at_once = block_on(runtime.drive(async { Ok(thread::current().id()) }));
    assert_eq!(at_once, Ok(here));
    let panicking = runtime.drive::<()>(async { panic!("caught") });
    assert_eq!(code(block_on(panicking)), Code::Panic);
}

#[test]
fn dropping_it_drops_the_future_at_once_within_the_runtime() {
    struct Tells(mpsc::Sender<thread::ThreadId>);
    impl Drop for Tells {
        fn drop(&mut self) {
            tokio::spawn(async {});
            let _ = self.0.send(thread::current().id());
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
    assert_eq!(receive.try_recv(), Ok(thread::current().id()));
}

#[test]
fn a_future_within_another_is_a_part_of_it() {
    let runtime = Runtime::shared().expect("a runtime");
    let inner = runtime.clone();
    let parts = block_on(runtime.drive(async move {
        let first = inner.drive(async {
            tokio::task::yield_now().await;
            Ok(thread::current().id())
        });
        let panicking = inner.drive::<()>(async {
            tokio::task::yield_now().await;
            panic!("caught")
        });
        let at_once = inner.drive::<()>(async { panic!("caught") });
        Ok((first.await?, code(panicking.await), code(at_once.await)))
    }));
    let (first, panicked, at_once) = parts.expect("it ends");
    assert_eq!(first, thread::current().id());
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
