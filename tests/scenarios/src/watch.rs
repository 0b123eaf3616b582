//! What must be true in every story, whatever it tells. Pure: the conductor reports, this judges.
//!
//! - A grant's token is greater than every token of that lock that was seen before the grant was asked for.
//! - No two grants of a lock have the same token.
//! - Those who could believe that they hold a lock are known, so that the conductor can ask them all at each grant.

use std::collections::{BTreeMap, BTreeSet};

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    tokens: BTreeMap<String, BTreeSet<i64>>,
    /// By hold: the highest token of each lock when it was asked for.
    asked: BTreeMap<String, BTreeMap<String, i64>>,
    believers: BTreeMap<String, String>,
}

impl Watch {
    /// Somebody asks for a lock, under this name. Which lock is only known with the grant.
    pub fn asked(&mut self, hold: &str) {
        let highest = |(lock, tokens): (&String, &BTreeSet<i64>)| Some((lock.clone(), *tokens.last()?));
        self.asked.insert(hold.to_owned(), self.tokens.iter().filter_map(highest).collect());
    }

    /// The lock of this full name was granted.
    ///
    /// # Errors
    /// If the token is not right.
    pub fn granted(&mut self, hold: &str, lock: &str, token: i64) -> Result<(), String> {
        if let Some(before) =
            self.asked.get(hold).and_then(|tokens| tokens.get(lock)).filter(|before| token <= **before)
        {
            return Err(format!("token {token} is not above {before}, which was granted before this was asked for"));
        }
        let tokens = self.tokens.entry(lock.to_owned()).or_default();
        if !tokens.insert(token) {
            return Err(format!("token {token} was granted before"));
        }
        self.believers.insert(hold.to_owned(), lock.to_owned());
        Ok(())
    }

    /// This hold has ended, or its process has.
    pub fn ended(&mut self, hold: &str) {
        self.believers.remove(hold);
    }

    /// The other holds of the same lock that have not ended as far as is known.
    pub fn rivals(&self, hold: &str) -> Vec<String> {
        let lock = self.believers.get(hold);
        let same = |(other, its): &(&String, &String)| other.as_str() != hold && Some(*its) == lock;
        self.believers.iter().filter(same).map(|(other, _)| other.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_grow_and_never_repeat() {
        let mut watch = Watch::default();
        watch.asked("a");
        watch.asked("late");
        watch.granted("a", "x", 10).unwrap();
        // Granted before a's grant, told after it.
        watch.granted("late", "x", 9).unwrap();
        watch.asked("b");
        watch.asked("c");
        assert!(watch.granted("b", "x", 5).is_err(), "below one that was seen before the request");
        assert!(watch.granted("b", "x", 10).is_err(), "the same");
        watch.granted("b", "y", 5).unwrap();
        watch.granted("b", "x", 11).unwrap();
    }

    #[test]
    fn rivals_are_the_other_holds_of_that_lock() {
        let mut watch = Watch::default();
        for (hold, lock, token) in [("a", "x", 1), ("b", "y", 1), ("c", "x", 2)] {
            watch.granted(hold, lock, token).unwrap();
        }
        assert_eq!(watch.rivals("c"), ["a"]);
        watch.ended("a");
        assert!(watch.rivals("c").is_empty());
    }
}
