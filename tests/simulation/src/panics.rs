//! Panics within a history. A runtime keeps a panic to the task in which it was, and nobody waits for most of the core's
//! tasks: without a record, a renewal that panicked would look like a session that died.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// What has panicked on this thread since a record was begun. A history is played by one thread.
    static RECORD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Plays, and returns the panics that there were on this thread meanwhile, also those that were caught.
pub fn recorded<T>(play: impl FnOnce() -> T) -> (T, Vec<String>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that is about to end has no record any more, and plays nothing.
            let _ = RECORD.try_with(|record| {
                if let Some(record) = record.borrow_mut().as_mut() {
                    record.push(panic.to_string().replace('\n', " "));
                }
            });
            before(panic);
        }));
    });
    RECORD.set(Some(Vec::new()));
    let result = play();
    (result, RECORD.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_task_is_recorded_by_its_own_thread() {
        let quiet = std::thread::spawn(|| recorded(std::thread::park).1);
        let ((), panics) = recorded(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                // As the core does, which keeps no more of most tasks than the means to abort them.
                let task = tokio::spawn(async { panic!("planted") }).abort_handle();
                while !task.is_finished() {
                    tokio::task::yield_now().await;
                }
            });
        });
        assert_eq!(panics.len(), 1);
        assert!(panics[0].contains("panics.rs") && panics[0].ends_with("planted"), "{panics:?}");
        quiet.thread().unpark();
        assert_eq!(quiet.join().unwrap(), Vec::<String>::new());
        assert_eq!(recorded(|| ()).1, Vec::<String>::new());
    }
}
