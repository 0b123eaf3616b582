//! A disk that remembers: what was written and synced when, and what of it a power loss at any moment may leave.
//!
//! What a sync promises is all that is relied on: what was written to a file before it is there. Of what was written
//! since, each sector has what it had at some moment since the sync, or garbage where it was being written; the file has
//! some length that it has had. A file is found in its directory, or not, as of some moment since the directory was synced.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::SQLITE_OK;

use crate::dice::Dice;
use crate::story::Note;

/// One of the files that there ever were.
pub(crate) type FileId = usize;

/// What has happened, in order.
#[derive(Debug)]
pub(crate) enum Event {
    Create(FileId, String),
    Write(FileId, u64, Vec<u8>),
    Truncate(FileId, u64),
    Sync(FileId),
    /// Whether its directory was synced, too.
    Delete(FileId, bool),
    /// What somebody has been told.
    Note(Note),
}

/// All that happens in a directory.
#[derive(Debug, Default)]
pub(crate) struct Trace(Mutex<Traced>);

#[derive(Debug, Default)]
struct Traced {
    events: Vec<Event>,
    present: BTreeMap<String, FileId>,
    files: FileId,
}

impl Trace {
    fn lock(&self) -> MutexGuard<'_, Traced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, note: Note) {
        self.lock().events.push(Event::Note(note));
    }

    pub(crate) fn opened(&self, name: &str) -> FileId {
        let mut traced = self.lock();
        if let Some(file) = traced.present.get(name) {
            return *file;
        }
        let file = traced.files;
        traced.files += 1;
        traced.present.insert(name.to_owned(), file);
        traced.events.push(Event::Create(file, name.to_owned()));
        file
    }

    /// Does something and notes it, under the lock: so the order of the notes is that of what was done.
    pub(crate) fn done(&self, work: impl FnOnce() -> c_int, event: impl FnOnce() -> Event) -> c_int {
        let mut traced = self.lock();
        let code = work();
        if code == SQLITE_OK {
            traced.events.push(event());
        }
        code
    }

    pub(crate) fn delete(&self, name: &str, synced: bool, delete: impl FnOnce() -> c_int) -> c_int {
        let mut traced = self.lock();
        let code = delete();
        if code == SQLITE_OK
            && let Some(file) = traced.present.remove(name)
        {
            traced.events.push(Event::Delete(file, synced));
        }
        code
    }

    pub(crate) fn into_events(self) -> Vec<Event> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).events
    }
}

/// What a power loss leaves of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// All of it: only the processes have died.
    Nothing,
    /// None of it.
    Everything,
    /// What came first, up to some byte.
    Tail,
    /// Of each sector of this size what it was at some moment.
    Sectors(usize),
}

/// The disk, up to an event.
#[derive(Debug)]
pub(crate) struct Disk {
    files: Vec<Content>,
    /// What a directory may say of a name: what it said when it was synced, and since. The last is what it says now.
    names: BTreeMap<String, Vec<Option<FileId>>>,
    /// Whose syncs do not do what they promise.
    pub(crate) lies: Lies,
}

/// What a disk says to have synced, and has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lies {
    Never,
    AboutLogs,
    AboutDatabases,
}

#[derive(Debug, Default)]
struct Content {
    name: String,
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

/// The files of a directory.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

impl Disk {
    pub(crate) fn new() -> Self {
        Self { files: Vec::new(), names: BTreeMap::new(), lies: Lies::Never }
    }

    fn lies_about(&self, file: FileId) -> bool {
        let log = is_log(&self.files[file].name);
        self.lies == if log { Lies::AboutLogs } else { Lies::AboutDatabases }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(file, name) => {
                assert_eq!(*file, self.files.len());
                self.files.push(Content { name: name.clone(), ..Content::default() });
                // The database itself was made before SQLite opened it.
                let before = if is_log(name) { vec![None] } else { Vec::new() };
                self.names.entry(name.clone()).or_insert(before).push(Some(*file));
            }
            Event::Write(file, at, data) => self.files[*file].since.push(Change::Write(*at, data.clone())),
            Event::Truncate(file, size) => self.files[*file].since.push(Change::Truncate(*size)),
            Event::Sync(file) if !self.lies_about(*file) => {
                let content = &mut self.files[*file];
                for change in content.since.drain(..) {
                    change.apply(&mut content.synced);
                }
                // SQLite syncs the directory with the first sync of a log, whose name it has made.
                if is_log(&content.name) {
                    self.sync_directory();
                }
            }
            Event::Delete(file, synced) => {
                let name = self.files[*file].name.clone();
                self.names.entry(name).or_default().push(None);
                if *synced {
                    self.sync_directory();
                }
            }
            Event::Sync(_) | Event::Note(_) => {}
        }
    }

    fn sync_directory(&mut self) {
        for said in self.names.values_mut() {
            said.drain(..said.len() - 1);
        }
    }

    /// What is there after the machine has lost its power just now.
    pub(crate) fn image(&self, loss: Loss, dice: &mut Dice) -> Image {
        let mut image = Image::new();
        for (name, said) in &self.names {
            let which = match loss {
                Loss::Nothing => said.len() - 1,
                Loss::Everything => 0,
                Loss::Tail | Loss::Sectors(_) => dice.below(said.len()),
            };
            if let Some(file) = said[which] {
                image.insert(name.clone(), self.files[file].after(loss, dice));
            }
        }
        image
    }
}

fn is_log(name: &str) -> bool {
    name.ends_with("-wal") || name.ends_with("-journal")
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => put(bytes, *at as usize, data),
            Self::Truncate(size) => bytes.resize(*size as usize, 0),
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl Content {
    fn after(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let truncated = self.since.iter().any(|change| matches!(change, Change::Truncate(_)));
        match loss {
            Loss::Nothing => self.all(),
            Loss::Everything => self.synced.clone(),
            // A new length is written in order with what came before it.
            Loss::Sectors(size) if !truncated => self.sectors(size, dice),
            Loss::Tail | Loss::Sectors(_) => self.beginning(dice),
        }
    }

    fn all(&self) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        self.since.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    }

    fn beginning(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let whole = dice.below(self.since.len() + 1);
        self.since[..whole].iter().for_each(|change| change.apply(&mut bytes));
        if let Some(Change::Write(at, data)) = self.since.get(whole) {
            put(&mut bytes, *at as usize, &data[..dice.below(data.len())]);
        }
        if whole < self.since.len() && dice.one_in(3) {
            // The file had become longer, and nothing was written there.
            let end = bytes.len();
            bytes.resize(end + dice.below(8_192), 0);
            if dice.one_in(2) {
                dice.fill(&mut bytes[end..]);
            }
        }
        bytes
    }

    fn sectors(&self, size: usize, dice: &mut Dice) -> Vec<u8> {
        let mut sectors: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for change in &self.since {
            let Change::Write(at, data) = change else { continue };
            let (mut at, mut data) = (*at as usize, data.as_slice());
            while !data.is_empty() {
                let (piece, rest) = data.split_at(data.len().min(size - at % size));
                sectors.entry(at / size).or_default().push((at, piece));
                (at, data) = (at + piece.len(), rest);
            }
        }
        let mut bytes = self.synced.clone();
        let damaged_in = [2, 8, 64][dice.below(3)];
        for pieces in sectors.values() {
            let written = if dice.one_in(damaged_in) { dice.below(pieces.len() + 1) } else { pieces.len() };
            pieces[..written].iter().for_each(|(at, piece)| put(&mut bytes, *at, piece));
            if let Some((at, piece)) = pieces.get(written)
                && dice.one_in(2)
            {
                let garbage = self.garbage(piece.len(), dice);
                put(&mut bytes, *at, &garbage);
            }
        }
        if dice.one_in(4) && bytes.len() > self.synced.len() {
            bytes.truncate(self.synced.len() + dice.below(bytes.len() - self.synced.len()));
        }
        bytes
    }

    /// Zeros, anything, or what stands elsewhere in the file.
    fn garbage(&self, length: usize, dice: &mut Dice) -> Vec<u8> {
        let mut garbage = vec![0; length];
        match dice.below(3) {
            0 => {}
            1 => dice.fill(&mut garbage),
            _ if self.synced.len() > length => {
                let at = dice.below(self.synced.len() - length) / length * length;
                garbage.copy_from_slice(&self.synced[at..at + length]);
            }
            _ => {}
        }
        garbage
    }
}

/// Puts the files into a directory.
pub(crate) fn lay_down(image: &Image, directory: &Path) {
    for (name, bytes) in image {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}
