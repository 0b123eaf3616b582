//! Cancel tokens.

use super::*;

#[test]
fn every_waiter_sees_it_and_none_misses_it() {
    for _ in 0..500 {
        let token = CancelToken::new();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let token = token.clone();
                thread::spawn(move || block_on(token.fired()))
            })
            .collect();
        token.fire();
        assert!(token.is_fired());
        waiters.into_iter().for_each(|waiter| waiter.join().expect("no panic"));
        block_on(token.fired());
    }
}
