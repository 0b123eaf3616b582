//! Child processes that die with this one.
//!
//! The kernel sends the death signal when the *thread* that started the child ends, and a test is a thread of its
//! own. So children are started by one thread that lives as long as the process.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError, mpsc};

use once_cell::sync::Lazy;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

type Request = (Command, Signal, mpsc::Sender<io::Result<Child>>);

static STARTER: Lazy<Mutex<mpsc::Sender<Request>>> = Lazy::new(|| {
    let (sender, requests) = mpsc::channel::<Request>();
    std::thread::Builder::new()
        .name("starter".into())
        .spawn(move || {
            for (command, signal, reply) in requests {
                let _ = reply.send(spawn_here(command, signal));
            }
        })
        .expect("a thread that starts servers");
    Mutex::new(sender)
});

/// Starts a process that is sent `on_death` when this process ends in whatever way. It starts with no signal
/// blocked.
///
/// # Errors
/// What the operating system says.
pub fn spawn(command: Command, on_death: Signal) -> io::Result<Child> {
    let (reply, answer) = mpsc::channel();
    STARTER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, on_death, reply))
        .expect("the starter lives as long as the process");
    answer.recv().expect("the starter answers every request")
}

fn spawn_here(mut command: Command, on_death: Signal) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec the closure makes three system calls and touches no memory but its own stack.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(on_death))?;
            // The parent may have died before the line above; then no signal would ever come.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::other("the parent is gone"));
            }
            set_blocked(&[])
        });
    }
    command.spawn()
}

/// Sends a signal to a process that this one started and has not waited for.
///
/// # Errors
/// What the operating system says.
pub fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    Ok(rustix::process::kill_process(pid_of(child), signal)?)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Waits until a child has ended, and calls `ended` while its process id still belongs to it.
pub fn wait(mut child: Child, ended: impl FnOnce()) -> ExitStatus {
    let pid = pid_of(&child);
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {}
    ended();
    child.wait().expect("a child of this process can be waited for")
}

/// A signal that reached this process, and whether the terminal sent it (then the children have it already).
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// Which signal.
    pub signal: Signal,
    /// Whether it came from the terminal, which sends it to the whole foreground group.
    pub from_terminal: bool,
}

/// Blocks the signals that end a process, in this thread and in those that it starts, so that [`next_signal`] gets
/// them.
///
/// # Errors
/// What the operating system says.
pub fn block_signals() -> io::Result<()> {
    set_blocked(&FORWARDED)
}

/// Waits for one of the signals of [`block_signals`].
///
/// # Errors
/// What the operating system says.
pub fn next_signal() -> io::Result<Caught> {
    let set = set_of(&FORWARDED);
    loop {
        // SAFETY: a `siginfo_t` of zeros is valid; the kernel fills it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live values of the right types.
        let number = unsafe { libc::sigwaitinfo(&set, &mut info) };
        if let Some(signal) = Signal::from_named_raw(number) {
            return Ok(Caught { signal, from_terminal: info.si_code == libc::SI_KERNEL });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

const FORWARDED: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: a `sigset_t` of zeros is a valid value to initialise, and the calls get a pointer to it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

fn set_blocked(signals: &[libc::c_int]) -> io::Result<()> {
    let set = set_of(signals);
    // SAFETY: the pointer is to a live value; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
