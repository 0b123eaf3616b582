//! What a worker asks of documents, one after the other, and what it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, doc};
use coord_core::error::{Code, Error};
use coord_core::table::{Revision, Table, WriteOptions, Written};
use coord_faults::calls::GENERATION;
use coord_faults::history::{Answer, Ask, Event, Line, Log, now};
use coord_faults::random::Random;
use futures::executor::block_on;

/// Asks.
pub(crate) struct Clerk {
    log: Log,
    random: Random,
    /// What makes its values different from every other clerk's.
    seed: u64,
    asked: u64,
    /// The revision of what it has seen last of each document, and the value.
    seen: BTreeMap<String, (u64, Revision)>,
}

const DOCUMENTS: usize = 3;

impl Clerk {
    pub(crate) fn new(log: Log, seed: u64) -> Self {
        Self { log, random: Random::new(!seed), seed, asked: 0, seen: BTreeMap::new() }
    }

    fn note(&mut self, event: Event) {
        self.log.write(&Line { t: now(), event }).expect("the history can be written");
    }

    /// One question and its answer.
    pub(crate) fn ask(&mut self, table: &Table) {
        // So that a document's history stays short enough to be searched.
        std::thread::sleep(self.random.between(Duration::from_millis(10), Duration::from_millis(300)));
        let key = format!("k{}-{}", self.random.below(DOCUMENTS), now() / GENERATION.as_nanos() as u64);
        self.asked += 1;
        let n = self.asked;
        let ask = self.choose(&key);
        self.note(Event::Asked { lock: key.clone(), n, ask: ask.clone() });
        let answer = match block_on(self.put_to(table, &key, &ask)) {
            Ok(answer) => answer,
            Err(error) => refusal(&error),
        };
        self.note(Event::Answered { lock: key, n, answer });
    }

    fn choose(&mut self, key: &str) -> Ask {
        // Seeds are below a hundred million: thousands of generations of workers, times 1000, plus their numbers.
        let v = self.seed * 1_000_000 + self.asked;
        match (self.random.below(10), self.seen.get(key)) {
            (0, _) => Ask::Insert { v },
            (1, _) => Ask::Put { v },
            (2 | 3, _) => Ask::Update { v },
            (4 | 5, Some((seen, _))) => Ask::ReplaceIf { seen: *seen, v },
            (6, Some((seen, _))) => Ask::DeleteIf { seen: *seen },
            (7, _) => Ask::Delete,
            _ => Ask::Get,
        }
    }

    async fn put_to(&mut self, table: &Table, key: &str, ask: &Ask) -> Result<Answer, Error> {
        let none = WriteOptions::default();
        let whole = |v: u64| doc! { "v": v as i64, "n": 0_i64 };
        let revision = self.seen.get(key).map(|(_, revision)| *revision).unwrap_or_default();
        let written = match ask {
            Ask::Get => {
                let stored = table.get(key).await?;
                return Ok(self.remember(key, &stored.document, stored.revision));
            }
            Ask::Insert { v } => table.insert(key, whole(*v), none).await?,
            Ask::Put { v } => table.put(key, whole(*v), none).await?,
            Ask::Update { v } => {
                let update = doc! { "$set": { "v": *v as i64 }, "$inc": { "n": 1_i64 } };
                let Written { document, revision, .. } = table.update(key, update, none).await?;
                return Ok(self.remember(key, &document, revision));
            }
            Ask::ReplaceIf { v, .. } => table.replace_if(key, whole(*v), revision, none).await?,
            Ask::DeleteIf { .. } => table.delete_if(key, revision, none).await?,
            Ask::Delete => {
                let Written { document, .. } = table.delete(key, none).await?;
                return Ok(read(&document));
            }
        };
        if written.revision.is_some() {
            self.remember(key, &written.document, written.revision);
        }
        Ok(Answer::Done)
    }

    fn remember(&mut self, key: &str, document: &Document, revision: Option<Revision>) -> Answer {
        let answer = read(document);
        if let (Answer::Document { v, .. }, Some(revision)) = (&answer, revision) {
            self.seen.insert(key.to_owned(), (*v, revision));
        }
        answer
    }
}

fn read(document: &Document) -> Answer {
    let number = |field: &str| document.get_i64(field).unwrap_or(-1) as u64;
    Answer::Document { v: number("v"), n: number("n") }
}

fn refusal(error: &Error) -> Answer {
    match error.code() {
        Code::NotFound => Answer::Nothing,
        Code::AlreadyExists => Answer::Exists,
        Code::Conflict => Answer::Conflict,
        Code::Unavailable | Code::OutcomeUnknown | Code::Timeout | Code::Closed => Answer::Unknown,
        other => panic!("a document was refused with {other:?}: {error}"),
    }
}
