//! The commits in what SQLite writes: which states the database has had, by the format of its log, not by SQLite's word.
//!
//! A state is told by a sum over its pages, so that a file can be compared with all states that there were.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::disk::{Event, FileId};

const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// What the database was after each commit.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// The sum of the state after each.
    sums: Vec<u64>,
    /// As many are synced.
    synced: usize,
    /// Of each page the sum of what it is.
    pages: BTreeMap<u32, u64>,
    logs: Vec<FileId>,
    page_bytes: u64,
    /// The frame that is being written: its page, and the database's length if it is the last of its transaction.
    frame: Option<(u32, u32)>,
    transaction: BTreeMap<u32, u64>,
    /// Where the next frame of the transaction is expected.
    next: u64,
}

impl Commits {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(file, name) if name.ends_with("-wal") => self.logs.push(*file),
            Event::Write(file, at, data) if self.logs.contains(file) => self.write(*at, data),
            Event::Sync(file) if self.logs.contains(file) => self.synced = self.sums.len(),
            _ => {}
        }
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().expect("four bytes"));
        if at == 0 {
            assert_eq!(data.len() as u64, LOG_HEADER);
            self.page_bytes = number(8).into();
            self.transaction.clear();
            self.next = LOG_HEADER;
            return;
        }
        if data.len() as u64 == FRAME_HEADER {
            if at != self.next {
                // The one before was given up, and is written over.
                self.transaction.clear();
            }
            assert_eq!((at - LOG_HEADER) % (FRAME_HEADER + self.page_bytes), 0);
            self.frame = Some((number(0), number(4)));
            return;
        }
        assert_eq!(data.len() as u64, self.page_bytes);
        let (page, length) = self.frame.take().expect("a page comes after its frame's head");
        self.next = at + self.page_bytes;
        self.transaction.insert(page, sum(page, data));
        if length != 0 {
            self.pages.append(&mut self.transaction);
            self.pages.retain(|page, _| *page <= length);
            self.sums.push(self.pages.values().fold(0, |all, page| all ^ page));
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.sums.len()
    }

    /// How many of them must be there after a power loss.
    pub(crate) fn synced(&self) -> usize {
        self.synced
    }

    /// How many commits have led to this database, which has no log beside it. Of several that leave the same, the last.
    pub(crate) fn find(&self, database: &[u8]) -> Option<usize> {
        let page_bytes = usize::try_from(self.page_bytes).expect("a page's size");
        let pages = database.chunks(page_bytes).zip(1..).map(|(page, number)| sum(number, page));
        let wanted = pages.fold(0, |all, page| all ^ page);
        self.sums.iter().rposition(|sum| *sum == wanted).map(|last| last + 1)
    }
}

fn sum(page: u32, data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (page, data).hash(&mut hasher);
    hasher.finish()
}
