//! What must be so in all that was said, read and sent.

use std::collections::{BTreeMap, BTreeSet};

use coord_faults::history::Nanos;

use crate::post::Arrived;
use crate::said::Said;
use crate::story::FORCED;

/// What is known in the end.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the processes of the story said, and whoever stood beside it.
    pub said: Vec<Said>,
    /// What was granted after everything, to somebody else.
    pub after: Vec<Said>,
    /// The documents that are there: their table, key and number.
    pub documents: BTreeMap<String, i64>,
    /// What has arrived.
    pub arrived: Vec<Arrived>,
    /// The mails of the outbox.
    pub mails: Vec<Kept>,
    /// How many senders may have died, or lost their session, between a final dot and its record.
    pub doubts: usize,
}

/// A mail as the outbox has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: String,
    /// Its Message-ID.
    pub id: String,
    /// Whether it is sent.
    pub sent: bool,
    /// Whether the outbox knows that it may have been sent more than once.
    pub maybe: bool,
}

impl Facts {
    /// What must not be so, and is.
    pub fn violations(&self) -> Vec<String> {
        [self.beliefs(), self.tokens(), self.writes(), self.post()].concat()
    }

    /// Nobody believes in a claim when a later one has it.
    fn beliefs(&self) -> Vec<String> {
        let mut grants: BTreeMap<&str, Vec<(i64, Nanos)>> = BTreeMap::new();
        for said in self.said.iter().chain(&self.after) {
            if let Said::Granted { claim, token, t } = said {
                grants.entry(claim).or_default().push((*token, *t));
            }
        }
        let mut wrong = BTreeSet::new();
        for said in &self.said {
            let Said::Ok { claim, token, t } = said else { continue };
            // Broken by force: only the token tells.
            if claim == FORCED {
                continue;
            }
            for (later, granted) in grants.get(claim.as_str()).into_iter().flatten() {
                if later > token && granted < t {
                    wrong.insert(format!("{claim}: token {token} was believed in after {later} was granted"));
                }
            }
        }
        for (claim, tokens) in grants {
            let different: BTreeSet<i64> = tokens.iter().map(|(token, _)| *token).collect();
            if different.len() < tokens.len() {
                wrong.insert(format!("{claim}: a token was granted twice: {tokens:?}"));
            }
        }
        wrong.into_iter().collect()
    }

    /// Whoever comes after has a higher token.
    fn tokens(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for after in &self.after {
            let Said::Granted { claim, token, .. } = after else { continue };
            let before = self.said.iter().filter_map(|said| match said {
                Said::Granted { claim: other, token, .. } if other == claim => Some(*token),
                _ => None,
            });
            if let Some(highest) = before.max().filter(|highest| highest >= token) {
                wrong.push(format!("{claim}: {token} was granted after {highest}"));
            }
        }
        wrong
    }

    /// A document is as it was written last, or as somebody was about to write it.
    fn writes(&self) -> Vec<String> {
        let mut may_be: BTreeMap<&str, (Option<i64>, Vec<Option<i64>>)> = BTreeMap::new();
        for said in &self.said {
            match said {
                Said::Writing { key, n } => may_be.entry(key).or_default().1.push(*n),
                Said::Wrote { key } => {
                    let (acknowledged, begun) = may_be.entry(key).or_default();
                    if let Some(last) = begun.pop() {
                        *acknowledged = last;
                    }
                }
                _ => {}
            }
        }
        let mut wrong = Vec::new();
        for key in self.documents.keys().filter(|key| !may_be.contains_key(key.as_str())) {
            wrong.push(format!("{key} is there, and nobody was about to write it"));
        }
        for (key, (acknowledged, begun)) in may_be {
            let found = self.documents.get(key).copied();
            if found != acknowledged && !begun.contains(&found) {
                wrong.push(format!("{key} is {found:?}, after {acknowledged:?} was acknowledged and {begun:?} begun"));
            }
        }
        wrong
    }

    /// Each mail that was acknowledged has arrived, and a second copy only where a sender was in doubt.
    fn post(&self) -> Vec<String> {
        let mut copies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for mail in &self.arrived {
            copies.entry(&mail.key).or_default().push(&mail.id);
        }
        let mut wrong = Vec::new();
        let (mut begun, mut doubles) = (BTreeSet::new(), 0);
        for said in &self.said {
            match said {
                Said::Enqueuing { key } => drop(begun.insert(key.as_str())),
                Said::Enqueued { key } if !copies.contains_key(key.as_str()) => {
                    wrong.push(format!("the mail {key} was accepted, and never arrived"));
                }
                _ => {}
            }
        }
        for (key, ids) in copies {
            doubles += ids.len() - 1;
            let kept = self.mails.iter().find(|mail| mail.key == key);
            if !begun.contains(key) {
                wrong.push(format!("the mail {key} has arrived, and nobody sent it"));
            }
            if ids.iter().any(|id| *id != ids[0]) || kept.is_some_and(|kept| kept.id != ids[0]) {
                wrong.push(format!("copies of the mail {key} have several ids: {ids:?}"));
            }
            if ids.len() > 1 && !kept.is_some_and(|kept| kept.maybe) {
                wrong.push(format!("{} copies of the mail {key}, of which nobody knows", ids.len()));
            }
        }
        if doubles > self.doubts {
            wrong.push(format!("{doubles} second copies, with {} senders in doubt", self.doubts));
        }
        for mail in self.mails.iter().filter(|mail| !mail.sent) {
            wrong.push(format!("the mail {} is not sent in the end", mail.key));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(token: i64, t: Nanos) -> Said {
        Said::Granted { claim: "a".into(), token, t }
    }

    fn ok(token: i64, t: Nanos) -> Said {
        Said::Ok { claim: "a".into(), token, t }
    }

    fn writing(n: Option<i64>) -> Said {
        Said::Writing { key: "t/k".into(), n }
    }

    fn wrote() -> Said {
        Said::Wrote { key: "t/k".into() }
    }

    fn enqueued(key: &str) -> [Said; 2] {
        [Said::Enqueuing { key: key.into() }, Said::Enqueued { key: key.into() }]
    }

    fn arrived(key: &str, id: &str) -> Arrived {
        Arrived { key: key.into(), id: id.into() }
    }

    fn kept(key: &str, maybe: bool) -> Kept {
        Kept { key: key.into(), id: "1".into(), sent: true, maybe }
    }

    fn document(n: i64) -> BTreeMap<String, i64> {
        [("t/k".to_owned(), n)].into()
    }

    fn good() -> Vec<Facts> {
        let none = Facts::default;
        vec![
            Facts {
                said: vec![granted(1, 10), ok(1, 20), granted(2, 30), ok(2, 40)],
                after: vec![granted(3, 50)],
                ..none()
            },
            Facts { said: vec![writing(Some(1)), wrote(), writing(Some(2))], documents: document(1), ..none() },
            Facts { said: vec![writing(Some(1)), wrote(), writing(Some(2))], documents: document(2), ..none() },
            Facts { said: vec![writing(Some(1)), wrote(), writing(None), wrote()], ..none() },
            Facts {
                said: enqueued("m").into(),
                arrived: vec![arrived("m", "1")],
                mails: vec![kept("m", false)],
                ..none()
            },
            Facts {
                said: enqueued("m").into(),
                arrived: vec![arrived("m", "1"), arrived("m", "1")],
                mails: vec![kept("m", true)],
                doubts: 1,
                ..none()
            },
        ]
    }

    #[test]
    fn what_is_right_is_not_reported() {
        for facts in good() {
            assert_eq!(facts.violations(), Vec::<String>::new(), "{facts:?}");
        }
    }

    #[test]
    fn each_planted_violation_is_reported() {
        let [locks, early, .., doubled] = &good()[..] else { unreachable!() };
        let planted = [
            ("believed in after", Facts { said: vec![granted(1, 10), granted(2, 20), ok(1, 30)], ..Facts::default() }),
            ("believed in after", Facts { said: [&locks.said[..], &[ok(2, 60)]].concat(), ..locks.clone() }),
            ("granted twice", Facts { said: vec![granted(1, 10), granted(1, 20)], ..Facts::default() }),
            ("was granted after", Facts { after: vec![granted(1, 50)], said: vec![granted(2, 30)], ..locks.clone() }),
            ("acknowledged", Facts { documents: document(3), ..early.clone() }),
            ("acknowledged", Facts { documents: BTreeMap::new(), ..early.clone() }),
            ("nobody was about", Facts { said: Vec::new(), ..early.clone() }),
            ("never arrived", Facts { arrived: Vec::new(), ..doubled.clone() }),
            ("nobody sent", Facts { said: Vec::new(), ..doubled.clone() }),
            ("nobody knows", Facts { mails: vec![kept("m", false)], ..doubled.clone() }),
            ("several ids", Facts { arrived: vec![arrived("m", "1"), arrived("m", "2")], ..doubled.clone() }),
            ("in doubt", Facts { doubts: 0, ..doubled.clone() }),
            ("not sent", Facts { mails: vec![Kept { sent: false, ..kept("m", true) }], ..doubled.clone() }),
        ];
        for (expected, facts) in planted {
            let found = facts.violations();
            assert!(found.iter().any(|one| one.contains(expected)), "{expected}: {found:?} of {facts:?}");
        }
    }
}
