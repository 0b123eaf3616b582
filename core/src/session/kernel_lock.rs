//! placeholder
use crate::protocol::session::*;
use std::path::{Path, PathBuf};
pub(crate) struct HostIdentity {
    pub(crate) host: String,
    pub(crate) boot: String,
    pub(crate) pid: u32,
    pub(crate) start: u64,
}
impl HostIdentity {
    pub(crate) fn read() -> Self {
        Self { host: "h".into(), boot: "b".into(), pid: std::process::id(), start: 0 }
    }
}
#[derive(Debug)]
pub(crate) struct OwnedLock;
impl OwnedLock {
    pub(crate) fn create(_d: &Path, _id: SessionId) -> std::io::Result<Self> {
        Ok(Self)
    }
    pub(crate) fn identity(&self) -> LockFile {
        LockFile { dev: 0, ino: 0, btime: 0 }
    }
    pub(crate) fn write_ring(&self, _n: &[Nonce]) -> std::io::Result<()> {
        Ok(())
    }
    pub(crate) fn intact(&self) -> bool {
        true
    }
    pub(crate) fn remove(self) {}
}
pub(crate) fn run_directory(d: Option<PathBuf>) -> Result<PathBuf, String> {
    d.ok_or("none".into())
}
pub(crate) fn remove_file_of_dead(_d: &Path, _id: SessionId) {}
#[derive(Debug)]
pub(crate) struct DeathWatch;
impl DeathWatch {
    pub(crate) fn open(_d: &Path, _id: SessionId, _i: &SessionInfo, _t: bool) -> Option<Self> {
        None
    }
    pub(crate) async fn freed(&mut self) -> Vec<Nonce> {
        std::future::pending().await
    }
}
