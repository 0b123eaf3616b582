//! A guard's check against the renewal that moves its deadline: all orders, under the memory model of C11.

use loom::sync::Arc;
use loom::thread;

use crate::session::validity::Validity;

/// With the two stores the other way round.
mod reversed {
    use loom::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug)]
    pub(super) struct Validity {
        deadline: AtomicU64,
        epoch: AtomicU64,
    }

    impl Validity {
        pub(super) fn new() -> Self {
            Self { deadline: AtomicU64::new(0), epoch: AtomicU64::new(0) }
        }

        pub(super) fn publish(&self, epoch: u64, deadline: u64) {
            self.deadline.store(deadline, Ordering::Release);
            self.epoch.store(epoch, Ordering::Release);
        }

        pub(super) fn valid_in(&self, epoch: u64, now: impl FnOnce() -> u64) -> bool {
            let deadline = self.deadline.load(Ordering::Acquire);
            now() < deadline && self.epoch.load(Ordering::Acquire) == epoch
        }
    }
}

/// A session lives until 10. A late renewal finds that it was suspended, which ended its holds, and lets it live again
/// until 30, all at once. A hold of its first life is looked at when it is 20.
macro_rules! a_hold_does_not_outlive_its_epoch {
    ($validity:ty) => {
        loom::model(|| {
            let validity = Arc::new(<$validity>::new());
            validity.publish(1, 10);
            let renewing = Arc::clone(&validity);
            let renewal = thread::spawn(move || {
                renewing.publish(2, 30);
                renewing.publish(2, 40);
            });
            for _ in 0..2 {
                assert!(!validity.valid_in(1, || 20), "it is valid by a later epoch's deadline");
            }
            renewal.join().expect("the renewal ends");
            assert!(validity.valid_in(2, || 20));
        });
    };
}

#[test]
fn a_hold_is_never_valid_by_the_deadline_of_a_later_epoch() {
    a_hold_does_not_outlive_its_epoch!(Validity);
}

#[test]
#[should_panic(expected = "valid by a later epoch's deadline")]
fn the_other_order_of_stores_is_found() {
    a_hold_does_not_outlive_its_epoch!(reversed::Validity);
}

#[test]
fn a_grant_gets_an_epoch_in_which_it_can_be_valid() {
    loom::model(|| {
        let validity = Arc::new(Validity::new());
        validity.publish(1, 10);
        let renewing = Arc::clone(&validity);
        let renewal = thread::spawn(move || {
            renewing.publish(1, 20);
            renewing.publish(2, 0);
            renewing.publish(2, 30);
        });
        // It is 5: whatever epoch a hold gets now, it is the present one or has ended; never one to come.
        if let Some(epoch) = validity.live_epoch(|| 5) {
            let valid = validity.valid_in(epoch, || 25);
            assert!(epoch == 2 || !valid, "a hold of the first epoch is valid in the second");
        }
        renewal.join().expect("the renewal ends");
        assert_eq!((validity.deadline(), validity.live_epoch(|| 25)), (30, Some(2)));
    });
}
