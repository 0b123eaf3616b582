//! Dates that jump while a process lives by them, with libfaketime: it reads the offset from a file, at most a second
//! late. The boot-time clock is left alone.

use std::io;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// The date of one process.
#[derive(Clone, Debug)]
pub struct Date(PathBuf);

/// How far off a date may be, in seconds.
const FARTHEST: usize = 3_600;

impl Date {
    /// The date that is kept in this file, which is made. None where there is no libfaketime.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(file: PathBuf) -> io::Result<Option<Self>> {
        if library().is_none() {
            return Ok(None);
        }
        std::fs::write(&file, "+0s")?;
        Ok(Some(Self(file)))
    }

    /// The date in a file that others have made.
    pub fn kept_in(file: PathBuf) -> Option<Self> {
        file.exists().then_some(Self(file))
    }

    /// What a process needs to live by it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let library = library().unwrap_or_default();
        [
            ("LD_PRELOAD", &*library),
            ("FAKETIME_TIMESTAMP_FILE", &*self.0.to_string_lossy()),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            // Its repair of waits by the monotonic clock ends them at once where glibc has that clock's waits right.
            ("FAKETIME_FORCE_MONOTONIC_FIX", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Sets it off by up to an hour from the host's, ahead or behind.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn jump(&self, random: &mut Random) -> io::Result<()> {
        let seconds = random.below(2 * FARTHEST + 1) as i64 - FARTHEST as i64;
        // In one step: a reader must not find half of it.
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}s"))?;
        std::fs::rename(&new, &self.0)
    }
}

fn library() -> Option<String> {
    std::fs::read_dir("/usr/lib").ok()?.flatten().find_map(|entry| {
        let path = entry.path().join(Path::new("faketime/libfaketimeMT.so.1"));
        path.exists().then(|| path.to_string_lossy().into_owned())
    })
}
