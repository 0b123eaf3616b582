//! Calls of the C interface in any order, with the right handles, wrong ones, made-up ones and destroyed ones: an error
//! each, and in the end every lock is free.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use coord_core::client::Client;
use coord_core::config::Options;
use coord_core::driver::Runtime;

use crate::input::Input;
use crate::sys::{Handles, begin, call};

/// The most calls that one input makes.
const MOST: usize = 200;

/// The names that the calls take.
const TAKEN: [&str; 3] = ["a", "b", "a/b"];

/// Makes the calls, destroys all that is left, and takes every lock.
pub fn play(bytes: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let url = format!("memory:fuzz{}", COUNT.fetch_add(1, Relaxed));
    let runtime = Runtime::shared().expect("a runtime");
    let wait = Some(Duration::from_secs(60));
    let options = Options::parse(&url).expect("a URL");
    // Keeps the store, which lives as long as somebody uses it.
    let bystander = runtime.wait(Client::connect(options), wait, None).expect("a client");
    let mut handles = Handles::default();
    begin(&url, &mut handles);
    let mut input = Input::new(bytes);
    for _ in 0..MOST {
        if input.is_empty() {
            break;
        }
        call(&mut handles, &mut input);
    }
    handles.destroy_all();
    for name in TAKEN {
        let lock = bystander.lock(name).expect("a name");
        let held = runtime.wait(async move { lock.acquire().await }, wait, None).expect("the lock is free in the end");
        runtime.wait(async move { held.release().await }, wait, None).expect("released");
    }
    let closing = bystander.clone();
    runtime.wait(async move { closing.close(Duration::from_secs(60)).await }, wait, None).expect("closed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Kind;

    #[test]
    fn the_examples_get_as_far_as_holding_a_lock() {
        let mut handles = Handles::default();
        begin("memory:far", &mut handles);
        let example = include_bytes!("../corpus/calls/lock");
        let mut input = Input::new(example);
        while !input.is_empty() {
            call(&mut handles, &mut input);
        }
        for kind in [Kind::Client, Kind::Lock, Kind::Held, Kind::Op, Kind::Event, Kind::List] {
            assert!(handles.count(kind) > 0, "there is no {kind:?}: {handles:?}");
        }
        handles.destroy_all();
    }
}
