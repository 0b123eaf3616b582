//! The run directory, `<file>-run/` beside the database: the gate, each session's socket, the socket of each who listens to
//! the log, and each session's lock file (which others write). Nothing in it is needed after the processes are gone.
//!
//! It is always beside the database, so that all processes agree on it whatever their environment and mounts are. A
//! socket whose path would be longer than the 107 bytes that the kernel takes is named by way of the directory's open
//! descriptor instead (`/proc/self/fd/N/<session>.sock`).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::file::DatabaseFile;
use crate::error::{Code, Error, Result};
use crate::failpoints::{self, Point};
use crate::protocol::session::SessionId;

/// The longest path of a unix socket.
const MAX_SOCKET_PATH: usize = 107;

/// The gate's words fit into one page.
const GATE_BYTES: u64 = 4096;

/// An open run directory.
#[derive(Debug)]
pub(super) struct RunDirectory {
    path: PathBuf,
    fd: OwnedFd,
    /// To whom files belong that root creates here: the owner of the database.
    give_to: Option<(u32, u32)>,
}

impl RunDirectory {
    /// Opens the directory of this database, or creates it, for this user only. Blocks.
    ///
    /// # Errors
    /// `Forbidden` if it cannot be created, or belongs to another user.
    pub(super) fn open(file: &DatabaseFile) -> Result<Self> {
        let mut path = file.path().as_os_str().to_owned();
        path.push("-run");
        let path = PathBuf::from(path);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused(&path, error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| refused(&path, error.into()))?;
        let us = rustix::process::geteuid();
        let give_to = (us.is_root() && file.owner().0 != 0).then(|| file.owner());
        let run = Self { path, fd, give_to };
        let stat = rustix::fs::fstat(&run.fd).map_err(|error| refused(&run.path, error.into()))?;
        if stat.st_uid != us.as_raw() && !us.is_root() {
            return Err(Error::new(
                Code::Forbidden,
                format!(
                    "'{}' belongs to another user; a database is for the processes of one user",
                    run.path.display()
                ),
            ));
        }
        if stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&run.fd, Mode::RWXU).map_err(|error| refused(&run.path, error.into()))?;
        }
        run.hand_over(&run.fd);
        Ok(run)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The address of a session's socket.
    pub(super) fn socket(&self, session: SessionId) -> PathBuf {
        self.address(&format!("{session}.sock"))
    }

    /// The address of the socket of one who listens to the log.
    pub(super) fn ear(&self, listener: SessionId) -> PathBuf {
        self.address(&format!("{listener}.ear"))
    }

    /// Removes the socket of one who listens to the log no more.
    pub(super) fn remove_ear(&self, listener: SessionId) {
        self.remove(&format!("{listener}.ear"));
    }

    fn address(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return path;
        }
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    /// Removes a session's socket only.
    pub(super) fn remove_socket(&self, session: SessionId) {
        self.remove(&format!("{session}.sock"));
    }

    /// Removes what a session left here. Only for a session that is dead in the database, or never will be in it: its lock
    /// file is then no proof that anybody still needs.
    pub(super) fn remove_remains(&self, session: SessionId) {
        self.remove(&format!("{session}.sock"));
        failpoints::at(Point::SqliteSocketRemoved);
        self.remove(&format!("{session}.lk"));
    }

    /// The sessions that have left something here.
    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.named(&["sock", "lk"])
    }

    /// Those who listen to the log, or have left their socket here.
    pub(super) fn ears(&self) -> Vec<SessionId> {
        self.named(&["ear"])
    }

    /// Whether the process that made this session's lock file is gone. It writes to the file only when it has locked it:
    /// one without content may be about to be locked. False where there is no file.
    pub(super) fn is_deserted(&self, session: SessionId) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, format!("{session}.lk"), flags, Mode::empty());
        file.is_ok_and(|file| {
            rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_size > 0)
                && rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
        })
    }

    fn named(&self, kinds: &[&str]) -> Vec<SessionId> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut found: Vec<SessionId> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let (id, kind) = name.to_str()?.split_once('.')?;
                if kinds.contains(&kind) { id.parse().ok() } else { None }
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Opens the file of the gate, with its bytes really there: a write to a page without space would be a `SIGBUS`.
    pub(super) fn open_gate(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fail = |error: Errno| refused(&self.path.join("gate"), error.into());
        let gate = rustix::fs::openat(&self.fd, "gate", flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        match rustix::fs::fallocate(&gate, FallocateFlags::empty(), 0, GATE_BYTES) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => rustix::fs::ftruncate(&gate, GATE_BYTES).map_err(fail)?,
            Err(error) => return Err(fail(error)),
        }
        self.hand_over(&gate);
        Ok(gate)
    }

    fn hand_over(&self, fd: &OwnedFd) {
        if let Some((user, group)) = self.give_to {
            // Without it only the other user's opening fails, with an error of its own.
            let _ = std::os::unix::fs::fchown(fd, Some(user), Some(group));
        }
    }

    fn remove(&self, name: &str) {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(file = name, %error, "a file of a dead session cannot be removed"),
        }
    }
}

fn refused(path: &Path, error: std::io::Error) -> Error {
    let code = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::IO) => Code::Unavailable,
        _ => Code::Forbidden,
    };
    Error::with_source(
        code,
        format!("'{}', which coord needs beside the database, cannot be used: {error}", path.display()),
        error,
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::store::sqlite::tests::Scratch;

    #[test]
    fn it_is_private_and_names_what_is_in_it() {
        let scratch = Scratch::new();
        let file = DatabaseFile::prepare(&scratch.path("t.db")).unwrap();
        fs::create_dir(scratch.path("t.db-run")).unwrap();
        let run = RunDirectory::open(&file).unwrap();
        assert_eq!(fs::metadata(run.path()).unwrap().mode() & 0o777, 0o700);
        let (a, b) = (SessionId::from_random(1), SessionId::from_random(2));
        for name in [format!("{a}.sock"), format!("{a}.lk"), format!("{b}.lk"), "gate".into(), "x.lk".into()] {
            fs::write(run.path().join(name), "").unwrap();
        }
        assert_eq!(run.sessions(), [a, b]);
        run.remove_remains(a);
        assert_eq!(run.sessions(), [b]);
        run.remove_remains(a);
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let scratch = Scratch::new();
        let file = DatabaseFile::prepare(&scratch.path("t.db")).unwrap();
        fs::write(scratch.path("t.db-run"), "").unwrap();
        assert_eq!(RunDirectory::open(&file).unwrap_err().code(), Code::Forbidden);
    }

    #[test]
    fn a_long_path_is_no_obstacle_to_a_socket() {
        let scratch = Scratch::new();
        let file = DatabaseFile::prepare(&scratch.path(&format!("{}/t.db", "d".repeat(150)))).unwrap();
        let run = RunDirectory::open(&file).unwrap();
        let id = SessionId::from_random(7);
        assert!(run.socket(id).as_os_str().len() <= MAX_SOCKET_PATH);
        let receiver = std::os::unix::net::UnixDatagram::bind(run.socket(id)).unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.send_to(b"x", run.socket(id)).unwrap();
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1);
        assert_eq!(run.sessions(), [id]);
    }
}
