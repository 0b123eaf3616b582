//! A small disk for SQLite, which can be filled up. It needs the right to mount: that of root, or of a user in a
//! namespace of his own, which `tests/faults/run` makes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory. Unmounted when dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

/// Its size in KiB: a log of SQLite's that is not cut short for a while must fit.
const SIZE: u32 = 65_536;

/// What fills it.
const BALLAST: &str = "ballast";

impl Disk {
    /// Mounts one on this folder, which it makes. None where that is not allowed.
    ///
    /// # Errors
    /// What the operating system says about the folder.
    pub fn mount(folder: &Path) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE}k,mode=700"), "coord-faults"]).arg(folder);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        Ok(mounted.then(|| Self(folder.to_owned())))
    }

    /// Leaves no room.
    ///
    /// # Errors
    /// What the operating system says, but for that the disk is full.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.0.join(BALLAST))?;
        for size in [65_536, 4_096, 1] {
            loop {
                match file.write(&vec![0; size]) {
                    Ok(1..) => {}
                    Ok(0) => break,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn clear(&self) -> io::Result<()> {
        std::fs::remove_file(self.0.join(BALLAST))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // With a process that still has a file there: as soon as it ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_cleared() {
        let folder = std::env::temp_dir().join(format!("coord-disk-{}", std::process::id()));
        let Some(disk) = Disk::mount(&folder).expect("a folder") else {
            std::fs::remove_dir(&folder).expect("nothing is mounted");
            coord_tests::servers::skip("a full disk: nothing may be mounted here");
            return;
        };
        let file = folder.join("file");
        disk.fill().expect("it can be filled");
        let error = std::fs::write(&file, b"text").expect_err("there is no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.clear().expect("it can be cleared");
        std::fs::write(&file, b"text").expect("there is room");
        drop(disk);
        assert!(!file.exists());
        std::fs::remove_dir(&folder).expect("nothing is mounted");
    }
}
