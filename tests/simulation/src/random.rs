//! Random numbers from the seed.

use std::sync::Mutex;
use std::time::Duration;

use coord_core::env::Rng;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose faults with.
#[derive(Debug)]
pub struct Random(Mutex<u64>);

impl Random {
    /// Numbers from this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// Another independent source, that takes one number of this one.
    pub fn fork(&self) -> Self {
        Self::new(self.bits())
    }

    /// From 0 to `below` - 1.
    pub fn below(&self, below: u64) -> u64 {
        self.bits() % below.max(1)
    }

    /// True with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        ((self.bits() >> 11) as f64 / (1u64 << 53) as f64) < probability
    }

    /// A duration up to this one.
    pub fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64((self.bits() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

impl Rng for Random {
    fn bits(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
