//! Threads, signals and forks.

use super::*;

#[test]
fn threads_end_with_the_last_handle_and_start_again() {
    if !alone("runtime::threads_end_with_the_last_handle_and_start_again") {
        return;
    }
    for _ in 0..3 {
        assert_eq!(thread_count(), 0);
        let first = Runtime::shared().expect("a runtime");
        let second = Runtime::shared().expect("the same");
        until("two workers", || our_threads().len() == 2 && thread_count() == 2);
        drop(first);
        assert_eq!(
            second.wait(async { Ok(tokio::task::spawn_blocking(|| 7).await.expect("runs")) }, None, None),
            Ok(7)
        );
        drop(second);
        until("the end of the threads", || our_threads().is_empty() && thread_count() == 0);
    }
}

#[test]
fn the_last_handle_may_go_on_a_thread_of_the_runtime() {
    if !alone("runtime::the_last_handle_may_go_on_a_thread_of_the_runtime") {
        return;
    }
    let runtime = Runtime::shared().expect("a runtime");
    let (go, wait) = oneshot::channel::<()>();
    let (done, gone) = mpsc::channel();
    let inner = runtime.clone();
    runtime.handle().spawn(async move {
        let _ = wait.await;
        drop(inner);
        let _ = done.send(());
    });
    drop(runtime);
    let _ = go.send(());
    gone.recv_timeout(PATIENCE).expect("the drop returns");
    until("the end of the threads", || our_threads().is_empty() && thread_count() == 0);
}

#[test]
fn dropping_the_last_handle_does_not_wait_for_what_runs() {
    if !alone("runtime::dropping_the_last_handle_does_not_wait_for_what_runs") {
        return;
    }
    let runtime = Runtime::shared().expect("a runtime");
    let (go, wait) = mpsc::channel::<()>();
    let (begun, running) = mpsc::channel();
    runtime.handle().spawn_blocking(move || {
        let _ = begun.send(());
        let _ = wait.recv();
    });
    running.recv_timeout(PATIENCE).expect("it runs");
    drop(runtime);
    // Reached although the task waits for what comes only now.
    go.send(()).expect("the task is still there");
    until("the end of the threads", || our_threads().is_empty());
}

#[test]
fn threads_get_no_signals_and_callers_keep_their_mask() {
    if !alone("runtime::threads_get_no_signals_and_callers_keep_their_mask") {
        return;
    }
    let before = own_mask();
    let runtime = Runtime::shared().expect("a runtime");
    let inside = runtime.wait(async { Ok(own_mask()) }, None, None);
    assert_eq!(inside, Ok(before), "without connections nothing has to be blocked");
    connections_may_break();
    let inside = runtime.wait(async { Ok(own_mask()) }, None, None).expect("inline");
    let blocking = runtime.wait(async { Ok(tokio::task::spawn_blocking(own_mask).await.expect("runs")) }, None, None);
    assert_eq!(own_mask(), before, "the caller's mask is as it was");
    until("two workers", || thread_count() >= 2);
    let mut masks: Vec<u64> = our_threads().iter().map(|(_, status)| blocked_signals(status)).collect();
    assert!(masks.len() >= 2);
    masks.extend([inside, blocking.expect("a mask")]);
    let bit = |signal: i32| 1u64 << (signal - 1);
    let open = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT];
    for mask in masks {
        for signal in 1..=31 {
            let never = [libc::SIGKILL, libc::SIGSTOP, libc::SIGPROF].contains(&signal) || open.contains(&signal);
            assert_eq!(mask & bit(signal) == 0, never, "signal {signal} in mask {mask:x}");
        }
    }
}

#[test]
fn a_broken_connection_kills_no_host() {
    if !alone("runtime::a_broken_connection_kills_no_host") {
        return;
    }
    let_sigpipe_kill();
    connections_may_break();
    let runtime = Runtime::shared().expect("a runtime");
    let write = async { Ok(write_to_broken_pipe().kind()) };
    assert_eq!(runtime.wait(write, None, None), Ok(std::io::ErrorKind::BrokenPipe));
    let later = async {
        tokio::task::yield_now().await;
        Ok(write_to_broken_pipe().kind())
    };
    assert_eq!(runtime.wait(later, None, None), Ok(std::io::ErrorKind::BrokenPipe));
    // Proof that the test can fail: in the host's own code the same write is deadly.
    let status = in_forked_child(|| i32::from(write_to_broken_pipe().raw_os_error().is_none()));
    assert_eq!(status & 0x7f, libc::SIGPIPE);
}

#[test]
fn a_forked_child_gets_errors_and_harms_nothing() {
    if !alone("runtime::a_forked_child_gets_errors_and_harms_nothing") {
        return;
    }
    let runtime = Runtime::shared().expect("a runtime");
    let queue = EventQueue::new().expect("a queue");
    let balance = Arc::new(Balance::default());
    queue.push(Owned::new(&balance));
    let mut driven = runtime.drive(stuck(Owned::new(&balance)));
    assert!(futures::FutureExt::now_or_never(&mut driven).is_none());
    let (handle, events, counts) = (runtime.clone(), queue.clone(), balance.clone());
    let status = in_forked_child(move || {
        let refused = [
            code(handle.check()),
            code(Runtime::shared()),
            code(handle.wait(async { Ok(()) }, None, None)),
            code(handle.start(&events, async { Ok(()) }, None, None, |_| unreachable!()).map(drop)),
        ];
        let quiet = events.poll(None).is_none() && events.is_empty() && !Runtime::is_ours();
        drop((driven, handle, events));
        i32::from(!(quiet && refused == [Code::Forked; 4] && counts.dropped() == 0))
    });
    assert_eq!(status, 0, "the child's answer");
    assert!(Runtime::is_ours());
    assert_eq!(
        runtime.wait(
            async {
                tokio::task::yield_now().await;
                Ok(1)
            },
            None,
            None
        ),
        Ok(1)
    );
    assert!(queue.poll(None).is_some());
}

#[test]
fn a_child_that_runs_no_hooks_knows_what_it_is() {
    if !alone("runtime::a_child_that_runs_no_hooks_knows_what_it_is") {
        return;
    }
    let runtime = Runtime::shared().expect("a runtime");
    let handle = runtime.clone();
    let status = in_bare_child(move || {
        let refused = [code(handle.check()), code(Runtime::shared()), code(handle.wait(async { Ok(()) }, None, None))];
        drop(handle);
        i32::from(refused != [Code::Forked; 3])
    });
    assert_eq!(status, 0, "the child's answer");
    assert!(Runtime::is_ours());
    assert_eq!(runtime.wait(async { Ok(1) }, None, None), Ok(1));
}

#[test]
fn a_child_may_start_what_its_parent_never_had() {
    if !alone("runtime::a_child_may_start_what_its_parent_never_had") {
        return;
    }
    let status = in_forked_child(|| {
        let Ok(runtime) = Runtime::shared() else { return 1 };
        let answer = runtime.wait(
            async {
                tokio::task::yield_now().await;
                Ok(0)
            },
            Some(PATIENCE),
            None,
        );
        let grandchild = in_forked_child(|| i32::from(Runtime::shared().is_ok()));
        answer.unwrap_or(2) + grandchild
    });
    assert_eq!(status, 0);
}
