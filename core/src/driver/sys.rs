//! The calls that have no safe form: signal masks, the hook that a fork runs, and awaiting a descriptor.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whether this process is a child of the one that installed the hook.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Signals that a thread raises by its own instruction, where blocking would turn a report into a silent death, and
/// the one that profilers need on every thread.
const NEVER_BLOCKED: [libc::c_int; 8] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
    libc::SIGPROF,
];

/// A word that is zero in every child, other than here; null where the kernel does not know how.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

/// Whether this process was forked, at whatever distance, from the one that installed the hook.
#[inline]
pub(super) fn forked() -> bool {
    // SAFETY: the mark is null, or a word in a page that is mapped for good.
    let wiped = unsafe { MARK.load(Ordering::Acquire).as_ref() }.is_some_and(|mark| mark.load(Ordering::Relaxed) == 0);
    wiped || FORKED.load(Ordering::Relaxed)
}

/// Whether [`forked`] is true in every child, also in one for which no hooks run.
#[inline]
pub(super) fn tells_every_child() -> bool {
    !MARK.load(Ordering::Acquire).is_null()
}

/// From now on, [`forked`] is true in every child. A raw `clone` system call and `_Fork` run no hooks; the mark tells of
/// those, where the kernel knows how.
pub(super) fn install_fork_hook() -> io::Result<()> {
    extern "C" fn in_child() {
        FORKED.store(true, Ordering::Relaxed);
    }
    if let Some(mark) = wiped_on_fork() {
        MARK.store(mark, Ordering::Release);
    }
    // SAFETY: the hook is a plain function that lives as long as the process (the library is never unloaded), and an
    // atomic store is all that it does, which is allowed between fork and exec.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// A word of one in a page that the kernel gives to children as zeroes; none before Linux 4.14.
fn wiped_on_fork() -> Option<*mut AtomicU32> {
    const BYTES: usize = size_of::<AtomicU32>();
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use, and it is aligned to
    // a page. It is given back only here, where nobody else knows of it.
    unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let at = libc::mmap(std::ptr::null_mut(), BYTES, access, kind, -1, 0);
        if at == libc::MAP_FAILED {
            return None;
        }
        if libc::madvise(at, BYTES, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(at, BYTES);
            return None;
        }
        let mark = at.cast::<AtomicU32>();
        (*mark).store(1, Ordering::Relaxed);
        Some(mark)
    }
}

/// Blocks signals on this thread for good.
pub(super) fn block_signals() {
    std::mem::forget(SignalsBlocked::new());
}

/// While it lives, this thread gets no signal, and writing to a broken connection fails instead of killing the
/// process. Dropping it restores the mask as it was.
pub(super) struct SignalsBlocked {
    before: libc::sigset_t,
    /// A mask belongs to a thread, so the guard stays on it.
    _not_send: PhantomData<*const ()>,
}

impl SignalsBlocked {
    pub(super) fn new() -> Self {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are valid for writing; `sigfillset` and a successful `pthread_sigmask` initialize them.
        // None of the calls can fail with a valid set, a valid `how` and valid signal numbers.
        let before = unsafe {
            libc::sigfillset(set.as_mut_ptr());
            for signal in NEVER_BLOCKED {
                libc::sigdelset(set.as_mut_ptr(), signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before, _not_send: PhantomData }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` was initialized by `pthread_sigmask`; the other sets are initialized before they are read.
        unsafe {
            // A SIGPIPE that our own write raised waits for this thread; unblocking would deliver it. One that
            // was blocked before is the caller's business.
            if libc::sigismember(&self.before, libc::SIGPIPE) == 0 {
                discard_pending(libc::SIGPIPE);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut());
        }
    }
}

/// Takes a pending, blocked signal away from this thread.
///
/// # Safety
/// None beyond being allowed to lose the signal; unsafe only because its parts are.
unsafe fn discard_pending(signal: libc::c_int) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigpending` and `sigemptyset` initialize the set before it is read; null asks for no details.
    unsafe {
        libc::sigpending(set.as_mut_ptr());
        if libc::sigismember(set.as_ptr(), signal) != 1 {
            return;
        }
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        while libc::sigtimedwait(set.as_ptr(), std::ptr::null_mut(), &at_once) == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

/// A descriptor whose readability can be awaited. Must be called in the context of a runtime with I/O.
pub(crate) fn awaitable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is an open descriptor that nobody else closes, and gives the same number every time.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(io::Error::from)
}

/// What only tests do: fork, and be a host that lets SIGPIPE kill it.
#[cfg(test)]
pub(crate) mod testing {
    /// Runs `child` in a forked child, which then exits with its answer; returns the child's wait status.
    pub(crate) fn in_forked_child(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child runs code that a host may run after a fork, which is what is tested, and leaves by
        // `_exit`, so that nothing of the parent's is destroyed in it.
        unsafe {
            match libc::fork() {
                -1 => panic!("fork failed: {}", std::io::Error::last_os_error()),
                0 => libc::_exit(child()),
                pid => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                    status
                }
            }
        }
    }

    /// The same for a child that was made by the bare system call, for which no hooks run.
    pub(crate) fn in_bare_child(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: without flags and a stack of its own the call is a fork; the rest as above.
        unsafe {
            match libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) {
                -1 => panic!("clone failed: {}", std::io::Error::last_os_error()),
                0 => libc::_exit(child()),
                pid => {
                    let mut status = 0;
                    let pid = libc::pid_t::try_from(pid).expect("a process id");
                    assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                    status
                }
            }
        }
    }

    /// Gives SIGPIPE its default action, as in a C host; Rust programs ignore it.
    pub(crate) fn let_sigpipe_kill() {
        // SAFETY: installs no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }

    /// Writes to a pipe that nobody reads: raises SIGPIPE on this thread.
    pub(crate) fn write_to_broken_pipe() -> std::io::Error {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        std::io::Write::write(&mut &writer, b"x").expect_err("nobody reads")
    }
}
