//! The servers of peers, each on a free loopback port or socket with its data in a folder that goes with it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coord_bench_worker::Result;
use coord_tests::servers::process;
use coord_tests::servers::scratch::{Scratch, free_ports};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

/// Processes that serve something, and where. Killed when dropped.
pub(crate) struct Server {
    children: Vec<Child>,
    /// What its clients are told.
    pub(crate) address: String,
    _scratch: Scratch,
}

impl Server {
    /// An etcd of this many members.
    pub(crate) fn etcd(members: usize) -> Result<Self> {
        let program = need("etcd", "etcd-server")?;
        let scratch = Scratch::new()?;
        let ports = free_ports(2 * members)?;
        let (client_ports, peer_ports) = ports.split_at(members);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> =
            peer_ports.iter().enumerate().map(|(n, port)| format!("m{n}={}", url(*port))).collect();
        let mut children = Vec::new();
        for (n, (client, peer)) in client_ports.iter().zip(peer_ports).enumerate() {
            let mut command = Command::new(&program);
            command.args(["--name", &format!("m{n}"), "--initial-cluster-state", "new", "--log-level", "error"]);
            command.args(["--initial-cluster", &cluster.join(",")]);
            command.arg("--data-dir").arg(scratch.path().join(format!("m{n}")));
            for (option, port) in [
                ("--listen-client-urls", client),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer),
                ("--initial-advertise-peer-urls", peer),
            ] {
                command.args([option, &url(*port)]);
            }
            children.push(start(command)?);
        }
        let address = client_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        let server = Self { children, address, _scratch: scratch };
        server.wait_for_ports(client_ports)?;
        Ok(server)
    }

    /// A Redis that syncs every write, on a Unix socket.
    pub(crate) fn redis() -> Result<Self> {
        let program = need("redis-server", "redis-server")?;
        let scratch = Scratch::new()?;
        let socket = scratch.path().join("socket");
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.arg("--dir").arg(scratch.path()).arg("--unixsocket").arg(&socket);
        let children = vec![start(command)?];
        let server = Self { children, address: socket.display().to_string(), _scratch: scratch };
        server.wait("redis-server", || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
        Ok(server)
    }

    /// A ZooKeeper of one member.
    pub(crate) fn zookeeper() -> Result<Self> {
        let java = need("java", "default-jre-headless")?;
        let jars: Vec<PathBuf> = ZOOKEEPER_JARS.iter().map(|jar| Path::new(JARS).join(format!("{jar}.jar"))).collect();
        if let Some(missing) = jars.iter().find(|jar| !jar.is_file()) {
            return Err(format!("there is no {} (Debian's zookeeper)", missing.display()).into());
        }
        let scratch = Scratch::new()?;
        let port = free_ports(1)?[0];
        let config = scratch.path().join("zoo.cfg");
        let folder = scratch.path().display();
        fs::write(
            &config,
            format!(
                "tickTime=2000\ndataDir={folder}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
                 admin.enableServer=false\nmaxClientCnxns=0\n"
            ),
        )?;
        let mut command = Command::new(java);
        command.arg("-cp").arg(std::env::join_paths(jars)?);
        command.arg("org.apache.zookeeper.server.ZooKeeperServerMain").arg(&config).current_dir(scratch.path());
        let server = Self { children: vec![start(command)?], address: format!("127.0.0.1:{port}"), _scratch: scratch };
        server.wait_for_ports(&[port])?;
        Ok(server)
    }

    fn wait_for_ports(&self, ports: &[u16]) -> Result<()> {
        for port in ports {
            self.wait("a peer's server", || TcpStream::connect(("127.0.0.1", *port)).is_ok())?;
        }
        Ok(())
    }

    fn wait(&self, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !ready() {
            if Instant::now() > until {
                return Err(format!("{what} did not start within {} s", PATIENCE.as_secs()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const JARS: &str = "/usr/share/java";
const ZOOKEEPER_JARS: [&str; 7] =
    ["zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-nop", "netty-all", "metrics-core", "snappy-java"];

fn start(mut command: Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(process::spawn(command, Signal::KILL)?)
}

fn need(program: &str, package: &str) -> Result<PathBuf> {
    find(program).ok_or_else(|| format!("there is no {program} (Debian's {package})").into())
}

/// A program on the `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
