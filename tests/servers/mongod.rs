//! One `mongod` process.

use std::ffi::OsStr;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::Document;
use mongodb::options::ClientOptions;
use rustix::process::Signal;

use super::scratch::{Scratch, free_ports};
use super::{mongod_program, process, wait_for};

/// How long anything here may take. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server runs, if it has a network of its own.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Its address there, beside the loopback one.
    pub address: Option<Ipv4Addr>,
    /// What stands before a program's name to start it there.
    pub enter: Vec<String>,
}

/// What distinguishes one server from another.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// The program's arguments beside data folder, port and log.
    pub extra: Vec<String>,
    /// What follows the database in a URI for this server, e.g. `tls=true`.
    pub uri_options: String,
    /// `user:password@`, or nothing.
    pub credentials: String,
    /// Where it runs.
    pub place: Place,
}

/// A `mongod` on a loopback port, or in a network of its own. Stopped when dropped.
#[derive(Debug)]
pub struct Mongod {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    arguments: Arguments,
    child: Mutex<Option<Child>>,
    frozen: AtomicBool,
    /// Of a server that stands alone.
    _scratch: Option<Scratch>,
}

impl Mongod {
    /// A server without a replica set. None where there is no `mongod` (see [`mongod_program`]).
    ///
    /// # Panics
    /// If it does not start.
    pub fn standalone() -> Option<Self> {
        let program = mongod_program()?;
        let scratch = Scratch::new().expect("a folder for a server");
        let port = free_ports(1).expect("a free port")[0];
        let mut server = Self::start(program, scratch.path(), port, Arguments::default());
        server._scratch = Some(scratch);
        Some(server)
    }

    /// Starts a server with its data in `folder`.
    pub(crate) fn start(program: PathBuf, folder: &Path, port: u16, arguments: Arguments) -> Self {
        let folder = folder.join(format!("member-{port}"));
        std::fs::create_dir_all(&folder).expect("a folder for a server's data");
        let server = Self {
            program,
            folder,
            port,
            arguments,
            child: Mutex::new(None),
            frozen: AtomicBool::new(false),
            _scratch: None,
        };
        server.run();
        server
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host's name in URIs.
    pub fn host(&self) -> String {
        self.arguments.place.address.map_or_else(|| "localhost".into(), |address| address.to_string())
    }

    /// A URI for this server alone, whatever its role in a set is.
    pub fn uri(&self) -> String {
        self.uri_with("&directConnection=true")
    }

    /// A URI that names this server and nothing of how to use it.
    pub fn plain_uri(&self) -> String {
        self.uri_with("")
    }

    fn uri_with(&self, options: &str) -> String {
        let Self { port, arguments: Arguments { credentials, uri_options, .. }, .. } = self;
        format!(
            "mongodb://{credentials}{}:{port}/?{}",
            self.host(),
            format!("{uri_options}{options}").trim_start_matches('&')
        )
    }

    /// Ends the process without warning.
    pub fn kill(&self) {
        let mut child = self.child();
        if let Some(mut running) = child.take() {
            running.kill().expect("a running server can be killed");
            running.wait().expect("a killed server ends");
            self.frozen.store(false, Ordering::Relaxed);
        }
    }

    /// Stops the process in its tracks: its connections stay open and nobody answers.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
        self.send(Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        self.send(Signal::CONT);
        self.frozen.store(false, Ordering::Relaxed);
    }

    /// Starts a killed server again, on the same port with the same data, and waits until it answers.
    pub fn restart(&self) {
        self.kill();
        self.run();
    }

    /// Removes all that a killed server had stored. It starts as one that has never run.
    pub(crate) fn empty(&self) {
        self.kill();
        for entry in std::fs::read_dir(&self.folder).expect("a server's folder can be read") {
            let path = entry.expect("a server's folder can be read").path();
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false if path == self.log() => Ok(()),
                false => std::fs::remove_file(&path),
            };
            removed.expect("a server's data can be removed");
        }
    }

    /// Whether the process runs and is not frozen.
    pub fn is_running(&self) -> bool {
        !self.frozen.load(Ordering::Relaxed) && self.has_not_ended()
    }

    fn has_not_ended(&self) -> bool {
        self.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Runs a command on the `admin` database of this very server.
    ///
    /// # Errors
    /// What the server or the driver says.
    pub fn command(&self, command: Document) -> mongodb::error::Result<Document> {
        self.command_as(&self.arguments.credentials, command)
    }

    /// The same without credentials: what the server allows to a local user before there is any.
    pub(crate) fn command_before_users(&self, command: Document) -> mongodb::error::Result<Document> {
        self.command_as("", command)
    }

    fn command_as(&self, credentials: &str, command: Document) -> mongodb::error::Result<Document> {
        let uri = self.uri().replacen(&self.arguments.credentials, credentials, 1);
        wait_for(async move {
            let mut options = ClientOptions::parse(uri).await?;
            options.server_selection_timeout = Some(Duration::from_secs(5));
            let client = Client::with_options(options)?;
            let reply = client.database("admin").run_command(command).await;
            client.shutdown().immediate(true).await;
            reply
        })
    }

    fn run(&self) {
        let Place { address, enter } = &self.arguments.place;
        let mut words = enter.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        let bound = address.map(|address| format!(",{address}")).unwrap_or_default();
        command
            .args(words)
            .args([
                "--bind_ip",
                &format!("127.0.0.1{bound}"),
                "--nounixsocket",
                "--wiredTigerCacheSizeGB",
                "0.5",
                "--quiet",
            ])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            // Lets tests make a command fail on the server; changes nothing by itself.
            .args(["--setParameter", "enableTestCommands=1"])
            // What expires is looked for every second, not every minute; later than here that begins after a minute.
            .args(["--setParameter", "ttlMonitorSleepSecs=1"])
            .args(["--port", &self.port.to_string()])
            .arg("--dbpath")
            .arg(&self.folder)
            .arg("--logpath")
            .arg(self.log())
            .arg("--logappend")
            .args(&self.arguments.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = process::spawn(command, Signal::KILL).expect("mongod can be started");
        *self.child() = Some(child);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let begun = Instant::now();
        let address = self.arguments.place.address.unwrap_or(Ipv4Addr::LOCALHOST);
        while std::net::TcpStream::connect((address, self.port)).is_err() {
            assert!(self.has_not_ended(), "mongod ended:\n{}", self.log_tail());
            assert!(begun.elapsed() < PATIENCE, "mongod does not listen:\n{}", self.log_tail());
            std::thread::sleep(POLL);
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("mongod.log")
    }

    fn send(&self, signal: Signal) {
        self.try_send(signal).expect("a running server can be signalled");
    }

    fn try_send(&self, signal: Signal) -> io::Result<()> {
        match self.child().as_ref() {
            Some(child) => process::signal(child, signal),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the server is not running")),
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        // A frozen process dies of SIGKILL too.
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) const POLL: Duration = Duration::from_millis(25);
