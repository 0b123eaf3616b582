//! The database file itself: on which disks it may lie, how it comes to be, and whether it is still there.
//!
//! Invariant: no code of ours opens and closes the database file by its own descriptor. POSIX locks belong to the
//! process and vanish when *any* descriptor of the file is closed, so that would take SQLite's locks away behind its
//! back. The file is created by `mknod`, and pinned by an `O_PATH` descriptor, to which locks do not apply.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::error::{Code, Error, LossReason, Result};

/// The database file as it was when the store was opened.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// Keeps the inode in use, so that its number cannot be given to a file that replaces this one.
    _pin: OwnedFd,
    identity: (u64, u64),
    owner: (u32, u32),
}

impl DatabaseFile {
    /// Finds the file, or creates it and missing directories above it, for this user only. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` if the path is not one of a file, or if the file has other names or is mounted by itself;
    /// `Unsupported` if it is not on a local file system; `Forbidden` if it cannot be read and written.
    pub(super) fn prepare(path: &Path) -> Result<Self> {
        let path = settle(path)?;
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        check_file_system(&path, directory)?;
        check_access(directory, directory, "directory")?;
        match rustix::fs::mknodat(CWD, &path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(refused(&path, "created", error)),
        }
        check_access(&path, directory, "file")?;
        let pin = rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| refused(&path, "opened", error))?;
        let stat = rustix::fs::fstat(&pin).map_err(|error| refused(&path, "examined", error))?;
        check_only_name(&path, stat.st_nlink > 1, is_mount_point(&path))?;
        check_file_system(&path, &path)?;
        Ok(Self { path, _pin: pin, identity: (stat.st_dev, stat.st_ino), owner: (stat.st_uid, stat.st_gid) })
    }

    /// The absolute path, without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's user and group.
    pub(super) fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// Checks that the path still leads to the file that is open. Costs one `stat`.
    ///
    /// # Errors
    /// `Lost` for the reason `StoreReplaced` if the file was deleted or another one is in its place.
    pub(super) fn check_in_place(&self) -> Result<()> {
        match rustix::fs::stat(&self.path) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == self.identity => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::lost("the store", LossReason::StoreReplaced)),
            Err(error) => Err(Error::with_source(
                Code::Unavailable,
                format!("'{}' cannot be examined", self.path.display()),
                std::io::Error::from(error),
            )),
        }
    }
}

/// The absolute path without symbolic links, its directories created.
fn settle(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let path = std::path::absolute(path).map_err(|error| {
        Error::with_source(Code::InvalidArgument, format!("'{shown}' is not the path of a file"), error)
    })?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid(format!("'{shown}' is not the path of a file")));
    };
    match fs::canonicalize(&path) {
        Ok(found) => return check_kind(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::with_source(Code::Forbidden, format!("'{shown}' cannot be reached: {error}"), error));
        }
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        Error::with_source(
            Code::Forbidden,
            format!("the directory '{}' is missing and cannot be created: {error}", directory.display()),
            error,
        )
    })?;
    let directory = fs::canonicalize(directory).map_err(|error| {
        Error::with_source(Code::Forbidden, format!("'{}' cannot be reached: {error}", directory.display()), error)
    })?;
    Ok(directory.join(name))
}

fn check_kind(path: PathBuf) -> Result<PathBuf> {
    let kind = fs::metadata(&path).map(|metadata| metadata.file_type());
    let what = match kind {
        Ok(kind) if kind.is_file() => return Ok(path),
        Ok(kind) if kind.is_dir() => "a directory",
        Ok(kind) if kind.is_socket() || kind.is_fifo() => "a socket or a pipe",
        _ => "not a regular file",
    };
    Err(Error::invalid(format!("'{}' is {what}; name a file for the database", path.display())))
}

fn check_access(path: &Path, directory: &Path, what: &str) -> Result<()> {
    let wanted = if what == "directory" {
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK
    } else {
        Access::READ_OK | Access::WRITE_OK
    };
    // By the effective user, which is who will open it.
    match rustix::fs::accessat(CWD, path, wanted, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(error) => Err(Error::with_source(
            Code::Forbidden,
            format!(
                "the {what} '{}' is not readable and writable for this process ({error}); SQLite needs both for the \
                 file and for its directory '{}'",
                path.display(),
                directory.display()
            ),
            std::io::Error::from(error),
        )),
    }
}

fn refused(path: &Path, what: &str, error: Errno) -> Error {
    let code = match error {
        Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::IO => Code::Unavailable,
        Errno::NAMETOOLONG | Errno::LOOP => Code::InvalidArgument,
        _ => Code::Forbidden,
    };
    Error::with_source(code, format!("'{}' cannot be {what}: {error}", path.display()), std::io::Error::from(error))
}

/// What belongs to the file lies beside it: its log, its index of the log, the run directory. Who opens it by another name
/// finds others there, sees nothing of what is written here, and damages the file.
fn check_only_name(path: &Path, is_linked: bool, is_mounted: bool) -> Result<()> {
    let shown = path.display();
    if is_linked {
        return Err(Error::invalid(format!(
            "'{shown}' is one of several hard links to a file; whoever used it by another one would damage it. Remove \
             the others, or name a copy"
        )));
    }
    if is_mounted {
        return Err(Error::invalid(format!(
            "'{shown}' is mounted by itself, without the files beside it; mount the directory that it lies in"
        )));
    }
    Ok(())
}

/// Whether something is mounted just there. False where the kernel does not tell, before Linux 5.8.
fn is_mount_point(path: &Path) -> bool {
    let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn check_file_system(path: &Path, at: &Path) -> Result<()> {
    let found = rustix::fs::statfs(at).map_err(|error| refused(at, "examined", error))?;
    // The kernel's field is wider than the 32-bit numbers it holds, and signed on some machines.
    judge(path, found.f_type as u32)
}

/// Only file systems known to have working locks and shared memory. A list of what is allowed, since a list of what
/// is not would miss the next network file system.
fn judge(path: &Path, magic: u32) -> Result<()> {
    if LOCAL.contains(&magic) {
        return Ok(());
    }
    let name = NOT_LOCAL.iter().find(|(number, _)| *number == magic).map_or("an unknown one", |(_, name)| name);
    Err(Error::new(
        Code::Unsupported,
        format!(
            "'{}' is on a file system ({name}, type {magic:#x}) on which locks and shared memory between processes \
             are not known to work; put the file on a local disk, or use a MongoDB replica set for several machines",
            path.display()
        ),
    ))
}

/// ext2/3/4, xfs, btrfs, zfs, f2fs, bcachefs, tmpfs, overlayfs.
const LOCAL: [u32; 8] =
    [0x0000_ef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0xf2f5_2010, 0xca45_1a4e, 0x0102_1994, 0x794c_7630];

/// For the message only.
const NOT_LOCAL: [(u32, &str); 10] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0000_9fa0, "proc"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::tests::Scratch;

    #[test]
    fn only_local_file_systems_are_allowed() {
        for magic in LOCAL {
            judge(Path::new("/a"), magic).unwrap();
        }
        for (magic, name) in NOT_LOCAL {
            let error = judge(Path::new("/a"), magic).unwrap_err();
            assert_eq!(error.code(), Code::Unsupported);
            assert!(error.message().contains(name) && error.message().contains("local disk"), "{error}");
        }
        assert_eq!(judge(Path::new("/a"), 1).unwrap_err().code(), Code::Unsupported);
        // The whole way, on a file system that is there on every Linux.
        let error = DatabaseFile::prepare(Path::new("/proc/coord-test.db")).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{error}");
    }

    #[test]
    fn files_and_directories_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let path = scratch.path("new/deep/t.db");
        let file = DatabaseFile::prepare(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(&scratch.path("new/deep")), 0o700);
        assert_eq!(mode(&scratch.path("new")), 0o700);
    }

    #[test]
    fn symbolic_links_lead_to_one_file() {
        let scratch = Scratch::new();
        let file = DatabaseFile::prepare(&scratch.path("t.db")).unwrap();
        std::os::unix::fs::symlink(scratch.path("t.db"), scratch.path("link.db")).unwrap();
        let linked = DatabaseFile::prepare(&scratch.path("link.db")).unwrap();
        assert_eq!(linked.path(), file.path());
    }

    #[test]
    fn a_file_that_others_may_use_by_another_name_is_refused() {
        let scratch = Scratch::new();
        let path = scratch.path("t.db");
        DatabaseFile::prepare(&path).unwrap();
        fs::hard_link(&path, scratch.path("link.db")).unwrap();
        for name in ["t.db", "link.db"] {
            let error = DatabaseFile::prepare(&scratch.path(name)).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().contains("hard links"), "{error}");
        }
        fs::remove_file(scratch.path("link.db")).unwrap();
        DatabaseFile::prepare(&path).unwrap();

        // Mounting needs rights, so the two halves: what is a mount point, and what is said of one.
        assert!(is_mount_point(Path::new("/proc")) && !is_mount_point(&path));
        let error = check_only_name(&path, false, true).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("mount the directory"), "{error}");
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        let scratch = Scratch::new();
        assert_eq!(DatabaseFile::prepare(&scratch.path("")).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(DatabaseFile::prepare(Path::new("")).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(DatabaseFile::prepare(Path::new("/dev/null")).unwrap_err().code(), Code::InvalidArgument);
        let long = scratch.path(&"x".repeat(300));
        assert!(matches!(DatabaseFile::prepare(&long).unwrap_err().code(), Code::InvalidArgument | Code::Forbidden));
        fs::write(scratch.path("plain"), "").unwrap();
        assert_eq!(DatabaseFile::prepare(&scratch.path("plain/t.db")).unwrap_err().code(), Code::Forbidden);
    }

    #[test]
    fn a_deleted_or_replaced_file_is_noticed() {
        let scratch = Scratch::new();
        let file = DatabaseFile::prepare(&scratch.path("t.db")).unwrap();
        file.check_in_place().unwrap();
        fs::remove_file(file.path()).unwrap();
        assert_eq!(file.check_in_place().unwrap_err().loss(), Some(LossReason::StoreReplaced));
        fs::write(file.path(), "another").unwrap();
        assert_eq!(file.check_in_place().unwrap_err().loss(), Some(LossReason::StoreReplaced));
    }
}
