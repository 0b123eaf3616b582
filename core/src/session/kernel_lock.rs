//! Proof of death on one host: a lock that the kernel lets go of when its process ends.
//!
//! Each session has a file `<run directory>/<session id>.lk`, locked for as long as the session lives, with the
//! nonces in it that its record in the store may carry. Whoever finds the file unlocked may kill the session, if
//! the record carries one of these nonces: then the process that died is the one that renewed last, not the origin
//! of a copy (a restored backup, a cloned machine).
//!
//! Rules, each of which closes a way to see a death that did not happen:
//! - the file is the one that the record describes: device, inode, and time of birth (inodes are used again);
//! - it lies on a file system whose locks are known to work between processes;
//! - the observer has itself seen it locked, through the same descriptor: two views of one file (an overlay mount
//!   and the directory under it) have locks that do not conflict. Waived where the store stands on such locks too;
//! - it still has its name and its nonces: a session that ends without its process takes both away first;
//! - its process, where it can be seen, is gone. A host program that closed our descriptor let go of the lock alive.
//!
//! A missing file, another one, or a process id that is gone prove nothing.
//!
//! The lock is `flock`, not `fcntl`, whose locks vanish when any descriptor of the file is closed. It is never
//! unlocked, only closed: an unlock in a forked child would free the parent's lock. No thread ever blocks in it.
//!
//! Not covered, hence the option to do without: a host that closes descriptors of others where its process id is not
//! visible to the observer; checkpoint and restore within a ttl; children that go on with a dead parent's work.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::driver::awaitable;
use crate::failpoints::{self, Point};
use crate::protocol::session::{LockFile, Nonce, RING, SessionId, SessionInfo};

/// What identifies this process on this host, as far as the system tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostIdentity {
    /// The host's name.
    pub(crate) host: String,
    /// The id of this boot; empty if unknown.
    pub(crate) boot: String,
    /// The process id, in this process's own name space.
    pub(crate) pid: u32,
    /// When the process started, in clock ticks since boot; 0 if unknown.
    pub(crate) start: u64,
}

impl HostIdentity {
    pub(crate) fn read() -> Self {
        let pid = std::process::id();
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot: boot_id(),
            pid,
            start: start_of(pid).unwrap_or(0),
        }
    }
}

/// The directory for lock files: the store's own, else one of this user's in the runtime directory or the
/// directory for temporary files. Made if it is missing. All processes of a user must find the same.
///
/// # Errors
/// The sentence that says why there is none.
pub(crate) fn run_directory(of_store: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(path) = of_store {
        return make_directory(&path).map(|()| path);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    private_directory(runtime.as_deref(), &std::env::temp_dir())
}

fn private_directory(runtime: Option<&Path>, temporary: &Path) -> Result<PathBuf, String> {
    let of_user = format!("coord-{}", rustix::process::geteuid().as_raw());
    let in_runtime = runtime.filter(|path| path.is_absolute() && path.is_dir()).map(|path| path.join("coord"));
    let path = in_runtime.unwrap_or_else(|| temporary.join(of_user));
    make_directory(&path)?;
    let metadata = path.symlink_metadata().map_err(|error| format!("cannot look at '{}': {error}", path.display()))?;
    let ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !ours || metadata.mode() & 0o077 != 0 {
        return Err(format!("'{}' must be a directory of this user with mode 700; remove it", path.display()));
    }
    Ok(path)
}

fn make_directory(path: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(format!("cannot make the directory '{}': {error}", path.display())),
    }
}

/// Removes the lock file of a session that the store knows to be dead. It may be gone already.
pub(crate) fn remove_file_of_dead(directory: &Path, id: SessionId) {
    let _ = std::fs::remove_file(path_of(directory, id));
}

/// The lock file of a session of this process.
///
/// Dropping it takes away what others could read a death from, then the name, and only then the lock. In a forked
/// child it does nothing but close the child's descriptor, which leaves the parent's lock as it is.
#[derive(Debug)]
pub(crate) struct OwnedLock {
    path: PathBuf,
    /// Taken only by `drop`.
    file: Option<OwnedFd>,
    identity: LockFile,
    /// The process that made it.
    pid: u32,
}

impl OwnedLock {
    /// Makes the file and locks it.
    ///
    /// # Errors
    /// Those of the system; `Unsupported` on a file system whose locks or times of birth cannot be relied upon.
    pub(crate) fn create(directory: &Path, id: SessionId) -> io::Result<Self> {
        let path = path_of(directory, id);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
        let locked = lock_new(&file);
        // From here on dropping it removes the file.
        let identity = *locked.as_ref().unwrap_or(&LockFile { dev: 0, ino: 0, btime: 0 });
        let lock = Self { path, file: Some(file), identity, pid: std::process::id() };
        locked?;
        lock.write_ring(&[])?;
        Ok(lock)
    }

    /// What the session's record says of it.
    pub(crate) fn identity(&self) -> LockFile {
        self.identity
    }

    /// Replaces the nonces in the file: all that may be in the store now or after the next send. A write to the
    /// page cache survives the end of the process, and no more is needed.
    ///
    /// # Errors
    /// Those of the system; more than [`RING`] nonces; the descriptor is no longer ours.
    pub(crate) fn write_ring(&self, nonces: &[Nonce]) -> io::Result<()> {
        if nonces.len() > RING {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more nonces than the lock file holds"));
        }
        match &self.file {
            Some(file) if self.intact() => write_cell(file, &encode(nonces)),
            _ => Err(io::Error::other("the lock file's descriptor was closed by other code of this process")),
        }
    }

    /// Whether the descriptor is still the one of this file. A host program that closes descriptors which it does
    /// not own takes the lock away, and the number may by now be a file of its own. That the file has lost its name
    /// (to whatever cleans directories of temporary files) does no harm.
    pub(crate) fn intact(&self) -> bool {
        let Some(file) = &self.file else { return false };
        self.pid == std::process::id()
            && rustix::fs::fstat(file).is_ok_and(|s| s.st_dev == self.identity.dev && s.st_ino == self.identity.ino)
    }

    /// Removes the file and lets go of the lock.
    pub(crate) fn remove(self) {
        drop(self);
    }
}

impl Drop for OwnedLock {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        if self.pid != std::process::id() {
            return;
        }
        let never_locked = self.identity.ino == 0;
        let is_this = rustix::fs::fstat(&file)
            .is_ok_and(|s| never_locked || (s.st_dev == self.identity.dev && s.st_ino == self.identity.ino));
        // The process goes on, so an unlocked file with name and nonces would tell of a death that is none.
        let emptied = is_this && write_cell(&file, &encode(&[])).is_ok();
        failpoints::at(Point::LockFileEmptied);
        let removed = match std::fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        failpoints::at(Point::LockFileRemoved);
        if !is_this || !(emptied || removed) {
            // Not ours to close, or better locked until the process ends.
            std::mem::forget(file);
        }
    }
}

/// Locks a file that was just made, and tells what identifies it.
fn lock_new(file: &OwnedFd) -> io::Result<LockFile> {
    let unsupported = |what| io::Error::new(io::ErrorKind::Unsupported, what);
    if !on_local_file_system(file) {
        return Err(unsupported("the file system is not known to have locks that work between processes"));
    }
    // Nobody knows the file yet, so this never has to wait.
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?;
    identify(file)?.ok_or_else(|| unsupported("the file system does not tell when a file was made"))
}

/// Watches the process of another session through its lock file.
#[derive(Debug)]
pub(crate) struct DeathWatch {
    /// Kept open since the lock was seen held; none once it is known that it will never prove anything.
    file: Option<OwnedFd>,
    /// The process, where this one can see it.
    process: Option<OwnedFd>,
    seen_held: bool,
}

impl DeathWatch {
    /// Opens the lock file of this session, if it is the one that its record describes. `trusted` says that the
    /// store itself stands on working file locks, so that the lock need not have been seen held.
    pub(crate) fn open(directory: &Path, id: SessionId, info: &SessionInfo, trusted: bool) -> Option<Self> {
        let expected = info.lk?;
        let boot = boot_id();
        let same_boot = !boot.is_empty() && info.boot == boot;
        // Another boot id proves nothing: containers have their own. But a store that is trusted is on this very
        // machine, and whoever lived before a reboot has lost its lock.
        if !same_boot && !trusted {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path_of(directory, id), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let owner_trusted = stat.st_uid == rustix::process::geteuid().as_raw() || stat.st_uid == 0;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !owner_trusted {
            return None;
        }
        let found = identify(&file).ok()??;
        // Devices are numbered anew at each boot.
        let same_device = found.dev == expected.dev || !same_boot;
        if !same_device || found.ino != expected.ino || found.btime != expected.btime || !on_local_file_system(&file) {
            return None;
        }
        let process = if same_boot { open_process(info) } else { None };
        Some(Self { file: Some(file), process, seen_held: trusted })
    }

    /// Whether it may still prove something, as far as one look at the lock tells: one that is free already, and was
    /// not trusted, never will.
    pub(crate) fn can_prove(&mut self) -> bool {
        self.look();
        self.file.is_some()
    }

    /// Waits for the proof that the session's process is dead; returns the nonces that its record must carry one
    /// of. None as soon as it is known that nothing will ever be proven: of a session that ends before its process, that is
    /// looked for every `period`. Needs a tokio runtime with I/O and time; may be dropped at any time.
    pub(crate) async fn freed(&mut self, period: Duration) -> Option<Vec<Nonce>> {
        // Seen now or never: if it is free already and was not trusted, nothing can be learned from it.
        if !self.can_prove() {
            return None;
        }
        while let Some(process) = &self.process {
            match tokio::time::timeout(period, ended(process)).await {
                Ok(()) => self.process = None,
                // A lock that is free while its process is there proves nothing: its descriptor was closed.
                Err(_) if self.can_prove() => {}
                Err(_) => return None,
            }
        }
        loop {
            if let Some(nonces) = self.look() {
                return Some(nonces);
            }
            self.file.as_ref()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tries the lock once; the nonces if it proves a death.
    fn look(&mut self) -> Option<Vec<Nonce>> {
        let file = self.file.as_ref()?;
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                self.seen_held = true;
                return None;
            }
            Err(Errno::INTR) => return None,
            Err(_) => {
                self.file = None;
                return None;
            }
        }
        let named = rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink > 0);
        let nonces = if self.seen_held && named { read_ring(file) } else { Vec::new() };
        if nonces.is_empty() {
            self.file = None;
            return None;
        }
        Some(nonces)
    }
}

/// How often a lock is tried whose process cannot be seen, or has ended without letting go of it (a child of it has
/// the descriptor too).
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A descriptor of the session's process, if it is the process with this id that this one sees.
fn open_process(info: &SessionInfo) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(info.pid).ok()?)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Looked at after the descriptor was opened, so that it is this process's, not an earlier one's of the same id.
    (info.start != 0 && start_of(info.pid) == Some(info.start)).then_some(process)
}

/// Waits until the process has ended.
async fn ended(process: &OwnedFd) {
    if let Ok(process) = process.try_clone().and_then(awaitable)
        && process.readable().await.is_ok()
    {
        return;
    }
    // No descriptor left, or the runtime is ending.
    while !has_ended(process) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut entries = [PollFd::new(process, PollFlags::IN)];
    matches!(rustix::event::poll(&mut entries, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
}

fn path_of(directory: &Path, id: SessionId) -> PathBuf {
    directory.join(format!("{id}.lk"))
}

/// What identifies an open file; none if its file system keeps no time of birth.
fn identify(file: &OwnedFd) -> io::Result<Option<LockFile>> {
    let stat = rustix::fs::fstat(file)?;
    let more = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?;
    if more.stx_mask & StatxFlags::BTIME.bits() == 0 {
        return Ok(None);
    }
    let btime = more.stx_btime.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(more.stx_btime.tv_nsec));
    Ok(Some(LockFile { dev: stat.st_dev, ino: stat.st_ino, btime }))
}

/// File systems on which `flock` is known to conflict between all processes of a host. A list of those that do, not
/// of those that do not: a network file system that nobody thought of must not be taken for local.
const LOCAL: [u64; 8] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x2FC1_2FC1, // zfs
    0xF2F5_2010, // f2fs
    0xCA45_1A4E, // bcachefs
    0x0102_1994, // tmpfs
    0x794C_7630, // overlayfs, which takes only local ones as its upper layer
];

fn on_local_file_system(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u64 & 0xFFFF_FFFF)))
}

/// The file's whole content: a mark, the number of nonces, the nonces, zeros.
type Cell = [u8; 128];

const MARK: [u8; 8] = *b"coordlk1";
const NONCES_AT: usize = 16;

fn encode(nonces: &[Nonce]) -> Cell {
    let mut cell = [0; 128];
    cell[..8].copy_from_slice(&MARK);
    cell[8..NONCES_AT].copy_from_slice(&(nonces.len() as u64).to_le_bytes());
    for (place, nonce) in cell[NONCES_AT..].chunks_exact_mut(8).zip(nonces) {
        place.copy_from_slice(&nonce.0.to_le_bytes());
    }
    cell
}

/// The nonces of a cell; none if it is not one of ours.
fn decode(cell: &Cell) -> Vec<Nonce> {
    let number = |place: &[u8]| place.try_into().map_or(0, i64::from_le_bytes);
    let count = usize::try_from(number(&cell[8..NONCES_AT])).unwrap_or(usize::MAX);
    if cell[..8] != MARK || count > RING {
        return Vec::new();
    }
    cell[NONCES_AT..].chunks_exact(8).take(count).map(|place| Nonce(number(place))).collect()
}

/// One write within one page: the kernel does not stop in the midst of it, not even for a kill.
fn write_cell(file: &OwnedFd, cell: &Cell) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, cell, 0))? {
        written if written == cell.len() => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::WriteZero, "the lock file was written only in part")),
    }
}

fn read_ring(file: &OwnedFd) -> Vec<Nonce> {
    let mut cell: Cell = [0; 128];
    match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut cell[..], 0)) {
        Ok(read) if read == cell.len() => decode(&cell),
        _ => Vec::new(),
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// When a process that this one can see started, in clock ticks since boot.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may contain anything. The start is the 22nd.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests;
