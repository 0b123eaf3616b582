//! The hooks of the core's known-bad variants: here each test switches on its own, without the feature that would
//! switch them on for everybody.

use std::cell::Cell;

pub(crate) use coord_core::mutants::Mutant;

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether this mutant is switched on. Shuttle plays all threads of a test on the test's own.
pub(crate) fn on(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Switches on a mutant for as long as what is returned lives.
pub(crate) fn planted(mutant: Mutant) -> Planted {
    PLANTED.set(Some(mutant));
    Planted
}

pub(crate) struct Planted;

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}
