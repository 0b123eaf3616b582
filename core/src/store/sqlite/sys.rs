//! Words of memory that processes share through a file.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// Two words in a file that every process maps.
#[derive(Debug)]
pub(super) struct SharedWords(NonNull<[AtomicU32; 2]>);

impl SharedWords {
    /// Maps the beginning of the file, which must have that many bytes. The descriptor may be closed afterwards.
    pub(super) fn map(file: &OwnedFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(Self).ok_or_else(|| io::Error::other("mmap gave a null pointer"))
    }

    /// The words.
    pub(super) fn words(&self) -> &[AtomicU32; 2] {
        // SAFETY: the mapping is page-aligned, at least as long as the words, and lives as long as `self`. Other
        // threads and processes change the words by atomic operations only.
        unsafe { self.0.as_ref() }
    }

    const BYTES: usize = size_of::<[AtomicU32; 2]>();
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}

// SAFETY: it owns its mapping, and the words in it are atomic.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}
