//! Shards: which of several replicas runs which keys of a reconciler.
//!
//! A key belongs to one of a fixed number of shards, and a shard is an ordinary claim: whoever holds it runs its keys, and
//! nobody else. Rendezvous hashing (Thaler and Ravishankar, 1998) over the live replicas only says who *should* hold it:
//! two replicas see the others come and go at different moments, so a view decides nothing.
//!
//! The first and the second of a shard's ranking hold it or wait for it, so a shard whose holder dies has somebody who
//! watches it. A holder that is no longer first gives the shard up, but only in a view that has been the same for a
//! while, and not many shards at a time.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::protocol::work_queue::Rate;
use crate::time::Timestamp;

/// How many shards a reconciler has at most.
pub const MAX_SHARDS: u32 = 1_024;

/// How long a view must have been the same before a shard is moved because of it.
pub const STABLE: Duration = Duration::from_secs(2);

/// How many shards a replica gives up in a second.
pub const MOVES: Rate = Rate { per_second: 4.0, burst: 1 };

/// The shard of a key, by its bytes.
pub fn shard_of(key: &[u8], shards: u32) -> u32 {
    let hash = first_bytes(&Sha256::digest(key));
    u32::try_from(hash % u64::from(shards.max(1))).unwrap_or_default()
}

/// What a replica wants of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To hold it: it is the first in the ranking.
    First,
    /// To stand by.
    Second,
    /// Nothing.
    Nothing,
}

/// The live replicas as one of them sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    replicas: Vec<String>,
    since: Timestamp,
}

impl View {
    /// A view without anybody.
    pub fn empty(now: Timestamp) -> Self {
        Self { replicas: Vec::new(), since: now }
    }

    /// The sessions of the live replicas are these now.
    pub fn update(&mut self, mut replicas: Vec<String>, now: Timestamp) {
        replicas.sort_unstable();
        replicas.dedup();
        if replicas != self.replicas {
            *self = Self { replicas, since: now };
        }
    }

    /// The live replicas' sessions, in order.
    pub fn replicas(&self) -> &[String] {
        &self.replicas
    }

    /// From when on shards may be moved because of this view.
    pub fn stable_at(&self) -> Timestamp {
        self.since + STABLE
    }

    /// What the replica with this session wants of a shard.
    pub fn wish(&self, session: &str, shard: u32) -> Wish {
        if !self.replicas.iter().any(|replica| replica == session) {
            return Wish::Nothing;
        }
        let own = weight(session, shard);
        match self.replicas.iter().filter(|replica| weight(replica, shard) > own).count() {
            0 => Wish::First,
            1 => Wish::Second,
            _ => Wish::Nothing,
        }
    }
}

/// A replica's claim to a shard: the highest is first. The session breaks ties of the hash.
fn weight(session: &str, shard: u32) -> (u64, &str) {
    let mut hash = Sha256::new();
    hash.update(session.as_bytes());
    hash.update(shard.to_be_bytes());
    (first_bytes(&hash.finalize()), session)
}

fn first_bytes(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(replicas: &[&str]) -> View {
        let mut view = View::empty(Timestamp::ZERO);
        view.update(replicas.iter().map(|r| (*r).to_owned()).collect(), Timestamp::from_nanos(1));
        view
    }

    #[test]
    fn shards_are_those_of_the_published_hash() {
        // printf 'abc' | sha256sum: ba7816bf8f01cfea…
        assert_eq!(shard_of(b"abc", 64), (0xba78_16bf_8f01_cfea_u64 % 64) as u32);
        assert_eq!(shard_of(b"abc", 1), 0);
        let mut counts = [0; 64];
        for key in 0..64_000u32 {
            counts[shard_of(&key.to_le_bytes(), 64) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }

    #[test]
    fn each_shard_has_one_first_and_one_second() {
        let sessions = ["a", "b", "c", "d"];
        let view = view(&sessions);
        let mut firsts = [0; 4];
        for shard in 0..256 {
            let wishes = sessions.map(|session| view.wish(session, shard));
            assert_eq!(wishes.iter().filter(|wish| **wish == Wish::First).count(), 1);
            assert_eq!(wishes.iter().filter(|wish| **wish == Wish::Second).count(), 1);
            firsts[wishes.iter().position(|wish| *wish == Wish::First).unwrap()] += 1;
        }
        assert!(firsts.iter().all(|first| *first > 30), "{firsts:?}");
        assert_eq!(view.wish("stranger", 0), Wish::Nothing);
    }

    #[test]
    fn a_replica_that_goes_moves_only_its_own_shards() {
        let (before, after) = (view(&["a", "b", "c"]), view(&["a", "b"]));
        for shard in 0..256 {
            for session in ["a", "b"] {
                if before.wish(session, shard) == Wish::First {
                    assert_eq!(after.wish(session, shard), Wish::First);
                }
            }
        }
    }

    #[test]
    fn a_view_is_stable_from_its_last_change_on() {
        let mut view = View::empty(Timestamp::ZERO);
        let at = |s: u64| Timestamp::from_nanos(s * 1_000_000_000);
        view.update(vec!["b".into(), "a".into()], at(10));
        view.update(vec!["a".into(), "b".into(), "a".into()], at(20));
        assert_eq!((view.stable_at(), view.replicas().len()), (at(12), 2));
        view.update(vec!["a".into()], at(20));
        assert_eq!(view.stable_at(), at(22));
    }
}
