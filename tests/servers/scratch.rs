//! Folders and ports for servers.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use once_cell::sync::Lazy;
use rustix::process::Pid;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Removes, once, what earlier runs left behind when they were killed: folders whose process is gone.
static SWEPT: Lazy<()> = Lazy::new(|| {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        let gone = |pid| Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_err());
        if owner.is_some_and(gone) {
            // Another run may be sweeping too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
});

const PREFIX: &str = "coord-servers-";

/// A folder that is removed with this value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty folder.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new() -> io::Result<Self> {
        Lazy::force(&SWEPT);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover is swept by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports on the loopback interface that were free a moment ago, all different. They are below those that the system
/// gives to outgoing connections, so that none of these takes the port of a server before it starts, or while it is
/// down.
///
/// # Errors
/// What the operating system says.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let random = RandomState::new().build_hasher().finish();
    let first = usize::try_from(random % PORTS.len() as u64).unwrap_or_default();
    let free = PORTS.cycle().skip(first).take(PORTS.len()).filter_map(|port| {
        // Kept until all are found.
        Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?))
    });
    let found: Vec<_> = free.take(count).collect();
    if found.len() < count {
        return Err(io::Error::other("there are no free ports"));
    }
    Ok(found.into_iter().map(|(port, _)| port).collect())
}

const PORTS: std::ops::Range<u16> = 20_000..32_000;
