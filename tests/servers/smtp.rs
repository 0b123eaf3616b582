//! A real mail server, aiosmtpd in a Python of its own, that can be told to misbehave: see `smtp.py` beside this file.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::process;

/// How the server is to be.
#[derive(Clone, Debug, Default)]
pub struct SmtpOptions {
    /// A PEM file with a certificate and its key; without it there is no TLS.
    pub certificate: Option<PathBuf>,
    /// `user:password`, without which nothing is accepted.
    pub login: Option<String>,
    /// Further options of the script, such as `--no-utf8`.
    pub more: Vec<String>,
}

/// A running mail server.
#[derive(Debug)]
pub struct Smtp {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    ports: Value,
}

impl Smtp {
    /// Starts one. None, after one line that says so, where there is no aiosmtpd.
    ///
    /// # Panics
    /// Where there is none and `CI` is `true`, or where it does not start.
    pub fn start(options: &SmtpOptions) -> Option<Self> {
        let Some(python) = python() else {
            super::skip("mail tests: there is no Python with aiosmtpd in .venv; see tests/setup/setup.sh");
            return None;
        };
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/smtp.py"));
        if let Some(certificate) = &options.certificate {
            command.arg("--certificate").arg(certificate);
        }
        if let Some(login) = &options.login {
            command.arg("--login").arg(login);
        }
        command.args(&options.more).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn(command, Signal::KILL).expect("Python starts");
        let stdin = child.stdin.take().expect("a pipe to it");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe from it"));
        let ports = line(&mut stdout);
        Some(Self { child, pipes: Mutex::new((stdin, stdout)), ports })
    }

    /// The port that speaks in clear, and STARTTLS where there is a certificate.
    pub fn port(&self) -> u16 {
        self.ports["port"].as_u64().expect("a port") as u16
    }

    /// The port that speaks TLS from the first byte.
    pub fn implicit_port(&self) -> u16 {
        self.ports["implicit"].as_u64().expect("a certificate was given") as u16
    }

    /// Asks the script for something; its own text says what there is.
    pub fn ask(&self, request: &Value) -> Value {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(pipes.0, "{request}").expect("the server listens");
        line(&mut pipes.1)
    }

    /// Misbehaves at this step: for ever, or so many times.
    pub fn rule(&self, at: &str, action: &str, times: Option<u32>) {
        let mut rule = json!({"at": at, "do": action});
        if let Some(times) = times {
            rule["times"] = times.into();
        }
        self.ask(&json!({"rule": rule}));
    }

    /// Misbehaves at this step for what contains this text, such as a recipient: for ever, or so many times.
    pub fn rule_for(&self, at: &str, whom: &str, action: &str, times: Option<u32>) {
        let mut rule = json!({"at": at, "do": action, "for": whom});
        if let Some(times) = times {
            rule["times"] = times.into();
        }
        self.ask(&json!({"rule": rule}));
    }

    /// Everything that has arrived.
    pub fn messages(&self) -> Vec<Value> {
        match self.ask(&json!({"messages": true}))["messages"].take() {
            Value::Array(messages) => messages,
            other => panic!("no list of messages: {other}"),
        }
    }

    /// The commands that came, each with the number of its connection.
    pub fn log(&self) -> Vec<(u64, String)> {
        let answer = self.ask(&json!({"log": true}));
        let list = answer["log"].as_array().expect("a list");
        list.iter().map(|one| (one[0].as_u64().unwrap_or(0), one[1].as_str().unwrap_or("").to_owned())).collect()
    }

    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        self.ask(&json!({"log": true}))["connections"].as_u64().expect("a number")
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment's Python, if it has aiosmtpd.
pub fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv");
    let python = venv.join("bin/python");
    let mut pythons = std::fs::read_dir(venv.join("lib")).ok()?.filter_map(Result::ok);
    pythons.any(|lib| lib.path().join("site-packages/aiosmtpd").is_dir()).then_some(python)
}

fn line(from: &mut impl BufRead) -> Value {
    let mut text = String::new();
    from.read_line(&mut text).expect("the server answers");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("the mail server said '{text}': {error}"))
}
