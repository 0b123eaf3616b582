//! Networks of servers' own, each with one link to a switch at which this process is, too. A link can be cut like a
//! cable: then connections die as they do with a pulled plug, and not as they do with a process.
//!
//! That needs the right to make networks: that of root, or of a user in a name space of his own. Everything is made in
//! the network name space of this process, which has to be one of its own, and `tests/faults/run` makes it. Invariant:
//! nothing is left, whatever happens. A network lives as long as its keeper, which the kernel kills with this process;
//! and the switch lives as long as the last process in the name space of this one.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use coord_tests::servers::{Place, process};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

use crate::random::Random;

/// A network of one host, which has a link to the switch. Gone when dropped.
#[derive(Debug)]
pub struct Link {
    keeper: Child,
    /// The link's name at the switch.
    name: String,
    address: Ipv4Addr,
}

/// Makes a switch and so many networks that are linked with it.
///
/// # Errors
/// Where that is not allowed, or this process has no network name space of its own.
pub fn make(count: usize) -> io::Result<Vec<Link>> {
    if std::env::var(OWN).as_deref() != Ok("own") {
        return Err(io::Error::other(format!("{OWN} does not say that this process has a network of its own")));
    }
    ip(&format!("link add {SWITCH} type bridge"))?;
    ip(&format!("address add {}/24 dev {SWITCH}", address(254)))?;
    ip(&format!("link set {SWITCH} up"))?;
    (1..=count as u8).map(Link::make).collect()
}

/// A runtime of one thread, whose tasks are in the network of this link; without one, in this process's.
///
/// # Errors
/// What the operating system says.
pub fn runtime(link: Option<&Link>) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    if let Some(link) = link {
        let network = Arc::new(link.network()?);
        builder.on_thread_start(move || enter(&network).expect("what was entered once can be entered"));
    }
    builder.build()
}

impl Link {
    fn make(number: u8) -> io::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo made && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let keeper = process::spawn(command, Signal::KILL)?;
        let mut link = Self { keeper, name: format!("member{number}"), address: address(number) };
        let mut made = String::new();
        if let Some(output) = link.keeper.stdout.take() {
            BufReader::new(output).read_line(&mut made)?;
        }
        if made.trim_end() != "made" {
            return Err(io::Error::other("a network name space cannot be made"));
        }
        let Self { name, address, keeper } = &link;
        ip(&format!("link add {name} type veth peer name {INSIDE} netns {}", keeper.id()))?;
        ip(&format!("link set {name} master {SWITCH} up"))?;
        let inside = |words: &str| run(&[&link.way_in()[..], &["ip".to_owned()]].concat(), words);
        inside(&format!("address add {address}/24 dev {INSIDE}"))?;
        inside(&format!("link set {INSIDE} up"))?;
        let network = link.network()?;
        // What a runtime does on its threads is seen to work before.
        std::thread::spawn(move || enter(&network)).join().map_err(|_| io::Error::other("a thread died"))??;
        Ok(link)
    }

    /// Its host's address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// For a server that runs there.
    pub fn place(&self) -> Place {
        Place { address: Some(self.address), enter: self.way_in() }
    }

    fn way_in(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.path())]
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.keeper.id())
    }

    fn network(&self) -> io::Result<File> {
        File::open(self.path())
    }

    /// Cuts it for so long: either the cable is pulled, which its host sees, or the switch loses all that comes from it
    /// and for it, which nobody sees.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cut_for(&self, length: Duration, random: &mut Random) -> io::Result<()> {
        let pulled = random.chance(0.5);
        self.set(pulled, true)?;
        // The fault's own length.
        std::thread::sleep(length);
        self.set(pulled, false)
    }

    fn set(&self, pulled: bool, cut: bool) -> io::Result<()> {
        let name = &self.name;
        match (pulled, cut) {
            (true, true) => ip(&format!("link set {name} down")),
            (true, false) => ip(&format!("link set {name} up")),
            (false, true) => ip(&format!("link set {name} nomaster")),
            (false, false) => ip(&format!("link set {name} master {SWITCH}")),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Moves this thread into a network: what it opens from then on is there.
fn enter(network: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn ip(words: &str) -> io::Result<()> {
    run(&["ip".to_owned()], words)
}

fn run(program: &[String], words: &str) -> io::Result<()> {
    let output = Command::new(&program[0]).args(&program[1..]).args(words.split_whitespace()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
}

/// In a network that is meant for documents (RFC 5737): nothing real is there.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// Says `own` where this process has a network name space of its own.
const OWN: &str = "COORD_FAULTS_NETWORK";

const SWITCH: &str = "switch0";

/// A link's name in its network.
const INSIDE: &str = "eth0";

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Runs the test of this name in a network name space of its own. Returns whether there it is already.
    fn apart(test: &str) -> bool {
        if std::env::var_os(OWN).is_some() {
            return true;
        }
        let own = std::env::current_exe().expect("this program");
        let way = [&["--net"][..], &["--map-root-user", "--net"]].into_iter().find(|way| {
            let mut possible = Command::new("unshare");
            possible.args(*way).args(["ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0"]);
            possible.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        });
        let Some(way) = way else {
            coord_tests::servers::skip("links that are cut: no networks can be made here");
            return false;
        };
        let mut inside = Command::new("unshare");
        inside.args(way).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "-"]).arg(own);
        inside.args([test, "--exact", "--nocapture"]).env(OWN, "own");
        assert!(inside.status().expect("unshare was there").success(), "see above");
        false
    }

    /// Answers each byte with itself. Returns where.
    fn echo(runtime: &Runtime, address: Ipv4Addr) -> SocketAddr {
        let listening = runtime.spawn(async move {
            let listener = TcpListener::bind((address, 0)).await.expect("an address of this network");
            let address = listener.local_addr().expect("an address");
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let mut byte = [0];
                        while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
                    });
                }
            });
            address
        });
        runtime.block_on(listening).expect("a task")
    }

    #[test]
    fn what_is_behind_a_cut_link_is_neither_reached_nor_closed() {
        if !apart("links::tests::what_is_behind_a_cut_link_is_neither_reached_nor_closed") {
            return;
        }
        let links = make(2).expect("networks");
        let runtimes: Vec<Runtime> = links.iter().map(|link| runtime(Some(link)).expect("a runtime")).collect();
        let cut = echo(&runtimes[0], links[0].address());
        let whole = echo(&runtimes[1], links[1].address());
        let mut to_cut = TcpStream::connect(cut).expect("a connection");
        let mut to_whole = TcpStream::connect(whole).expect("a connection");
        let ask = |stream: &mut TcpStream, patience: Duration| {
            stream.set_read_timeout(Some(patience)).expect("a time");
            stream.read_exact(&mut [0])
        };
        for pulled in [true, false] {
            links[0].set(pulled, true).expect("it can be cut");
            to_cut.write_all(b"x").expect("the connection is open");
            let error = ask(&mut to_cut, Duration::from_millis(500)).expect_err("nothing comes back");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "and nobody says so: {error}");
            let error = TcpStream::connect_timeout(&cut, Duration::from_millis(500)).expect_err("nobody is there");
            assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable), "{error}");
            to_whole.write_all(b"x").expect("the connection is open");
            ask(&mut to_whole, PATIENCE).expect("the other is there");
            links[0].set(pulled, false).expect("it can be mended");
            ask(&mut to_cut, PATIENCE).expect("TCP has sent it again");
            TcpStream::connect_timeout(&cut, PATIENCE).expect("it is there again");
        }
        let keeper = links[0].path();
        drop(links);
        assert!(File::open(keeper).is_err(), "its keeper has ended");
    }
}
