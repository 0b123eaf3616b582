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
