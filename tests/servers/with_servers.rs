//! Runs a command beside real servers: `with-servers mongodb3 -- make test`.
//!
//! `mongodb1` and `mongodb3` start a replica set of one or three members and export its URI as
//! `COORD_TEST_MONGODB_URI`; where the variable is set already, its value is used as it is. The command's exit status
//! is ours, signals reach it, and the servers are gone afterwards.

use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use coord_tests::servers::{ReplicaSet, URI_VARIABLE, process};
use rustix::process::Signal;

const USAGE: &str = "usage: with-servers mongodb1|mongodb3 -- COMMAND [ARGUMENT…]";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let members = match arguments.first().and_then(|kind| kind.to_str()) {
        Some("mongodb1") => 1,
        Some("mongodb3") => 3,
        _ => 0,
    };
    if members == 0 || arguments.len() < 3 || arguments[1] != "--" {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    // Before any thread is started, so that none is ended by a signal meant for all.
    process::block_signals().expect("signals can be blocked");
    let given = std::env::var_os(URI_VARIABLE).is_some_and(|uri| !uri.is_empty());
    let servers = if given { None } else { ReplicaSet::start(members) };

    let mut command = Command::new(&arguments[2]);
    command.args(&arguments[3..]);
    if let Some(servers) = &servers {
        command.env(URI_VARIABLE, servers.uri());
    }
    let child = match process::spawn(command, Signal::TERM) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("with-servers: {}: {error}", arguments[2].display());
            return ExitCode::from(127);
        }
    };
    let status = wait_forwarding_signals(child);
    drop(servers);
    exit_code(status)
}

fn wait_forwarding_signals(child: Child) -> ExitStatus {
    let running = Arc::new(Mutex::new(Some(rustix::process::Pid::from_child(&child))));
    let forwarding = Arc::clone(&running);
    std::thread::spawn(move || {
        while let Ok(caught) = process::next_signal() {
            // The lock is held while the signal is sent, so the pid cannot be another process's by then.
            if let Some(pid) = *forwarding.lock().unwrap_or_else(PoisonError::into_inner)
                && !caught.from_terminal
            {
                // It may have ended this instant.
                let _ = rustix::process::kill_process(pid, caught.signal);
            }
        }
    });
    process::wait(child, || {
        running.lock().unwrap_or_else(PoisonError::into_inner).take();
    })
}

fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
