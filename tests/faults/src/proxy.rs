//! TCP proxies between clients and servers that hold back, slow down, lose or reset what passes.
//!
//! A connection belongs to whoever's tag stands in its first bytes: drivers send their application's name when they
//! connect. So one client can be cut off while others, and the servers among themselves, go on. Servers send their own
//! host and port, where they are run for tests: MongoDB's `mongobridge` goes by the same field. So one can be cut off
//! from the others, while clients still reach it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::history::now;
use crate::random::Random;

/// What happens to the traffic of all proxies that share it.
#[derive(Clone, Debug)]
pub struct Weather(watch::Sender<Conditions>);

/// Who sends and receives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The client with this tag.
    Client(String),
    /// The server on this port.
    Server(u16),
}

/// Which of somebody's bytes are held back. Connections stay open, and nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of them.
    Both,
    /// What it sends: requests come to it, and its answers go nowhere.
    Sent,
    /// What it is sent.
    Received,
}

#[derive(Clone, Debug, Default)]
struct Conditions {
    cuts: BTreeMap<Party, Cut>,
    /// Between which servers and all others bytes are held back, but not between them and clients.
    parted_servers: BTreeSet<u16>,
    /// Between which bounds the delay of a piece is.
    delay: (Duration, Duration),
    lossy: bool,
    /// Connections that were made before the latest reset of their party are closed.
    resets: u64,
    reset: Option<Party>,
}

impl Default for Weather {
    fn default() -> Self {
        Self(watch::Sender::new(Conditions::default()))
    }
}

/// What [`Weather::trouble`] can let happen to anybody.
pub const TROUBLES: [&str; 4] = ["cut off", "hears nothing", "is not heard", "flaps"];

impl Weather {
    /// Lets one of [`TROUBLES`] happen to somebody's connections for so long. Blocks until it is over.
    pub fn trouble(&self, whom: &Party, kind: &str, length: Duration) {
        let cut = match kind {
            "hears nothing" => Cut::Received,
            "is not heard" => Cut::Sent,
            _ => Cut::Both,
        };
        let turn = if kind == "flaps" { FLAP } else { length };
        let until = Instant::now() + length;
        while Instant::now() < until {
            self.cut(whom, Some(cut));
            std::thread::sleep(turn);
            self.cut(whom, None);
            // One that flaps is there between two times that it is not.
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(turn));
        }
    }

    /// Holds back somebody's bytes, or lets them through again.
    pub fn cut(&self, whom: &Party, cut: Option<Cut>) {
        self.0.send_modify(|c| {
            match cut {
                Some(cut) => c.cuts.insert(whom.clone(), cut),
                None => c.cuts.remove(whom),
            };
        });
    }

    /// Holds back what passes between the server on this port and the other servers: clients reach it still.
    pub fn part_server(&self, port: u16, parted: bool) {
        self.0.send_modify(|c| {
            if parted {
                c.parted_servers.insert(port)
            } else {
                c.parted_servers.remove(&port)
            };
        });
    }

    /// Delays every piece by something between these.
    pub fn set_delay(&self, shortest: Duration, longest: Duration) {
        self.0.send_modify(|c| c.delay = (shortest, longest));
    }

    /// Whether one packet in twenty is lost. TCP sends it again after a while, in which nothing that was sent after it
    /// arrives either.
    pub fn set_lossy(&self, lossy: bool) {
        self.0.send_modify(|c| c.lossy = lossy);
    }

    /// Closes somebody's connections.
    pub fn reset(&self, whom: &Party) {
        self.0.send_modify(|c| {
            c.resets += 1;
            c.reset = Some(whom.clone());
        });
    }

    /// Everything passes.
    pub fn heal(&self) {
        self.0.send_modify(|c| *c = Conditions { resets: c.resets, ..Conditions::default() });
    }
}

/// How long a link that flaps is there, and is not.
const FLAP: Duration = Duration::from_secs(1);

/// How many packets are lost on a lossy network.
const LOST: f64 = 0.05;

/// After which time TCP sends again what nobody has acknowledged, on a network of short ways.
const SENT_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));

/// Starts a proxy, which listens on this address, before the server on this port of the loopback interface. Returns its
/// own port. It lives as long as the runtime, in whose network both are.
///
/// # Errors
/// What the operating system says.
pub async fn start(address: Ipv4Addr, server: u16, weather: Weather) -> io::Result<u16> {
    let listener = TcpListener::bind((address, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client, server, weather.clone()));
        }
    });
    Ok(port)
}

async fn pass(client: TcpStream, server: u16, weather: Weather) {
    let Ok(upstream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server))).await else { return };
    // Small requests must not wait for each other's acknowledgements.
    if client.set_nodelay(true).is_err() || upstream.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    let from = Arc::new(Mutex::new(None));
    let pipe = |names| Pipe {
        server: Party::Server(server),
        from: Arc::clone(&from),
        weather: weather.0.subscribe(),
        random: Random::new(now()),
        names,
        there: names,
    };
    let (there, back) = (pipe(true), pipe(false));
    // Whichever ends first ends both.
    tokio::select! {
        () = there.run(from_client, to_server) => {}
        () = back.run(from_server, to_client) => {}
    }
}

/// Who made a connection, as its first bytes say.
fn party_of(bytes: &[u8]) -> Option<Party> {
    // A text in BSON: the field's name, four bytes of length, the text; all of them end with a zero.
    let server = bytes
        .windows(SERVER.len())
        .position(|window| window == SERVER)
        .and_then(|at| bytes.get(at + SERVER.len() + 4..))
        .and_then(|rest| rest.split(|byte| *byte == 0).next())
        .and_then(|name| std::str::from_utf8(name).ok()?.rsplit_once(':')?.1.parse().ok());
    let text = String::from_utf8_lossy(bytes);
    let tag = || Some(text.split_once(TAG)?.1.chars().take_while(char::is_ascii_alphanumeric).collect());
    server.map(Party::Server).or_else(|| tag().map(Party::Client))
}

/// One direction of one connection.
struct Pipe {
    server: Party,
    from: Arc<Mutex<Option<Party>>>,
    weather: watch::Receiver<Conditions>,
    random: Random,
    /// Whether the next bytes tell who it is.
    names: bool,
    /// Whether it leads to the server.
    there: bool,
}

/// The field in which a server says where it is.
const SERVER: &[u8] = b"hostInfo\0";

/// What a tag begins with in the application's name.
pub const TAG: &str = "coord-worker-";

impl Pipe {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let resets = self.weather.borrow().resets;
        let mut buffer = vec![0; 65_536];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                () = self.reset_since(resets) => return,
            };
            let Ok(length @ 1..) = read else { return };
            if std::mem::take(&mut self.names) {
                *self.from.lock().unwrap_or_else(PoisonError::into_inner) = party_of(&buffer[..length]);
            }
            self.clear().await;
            let time = self.time();
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    fn from(&self) -> Option<Party> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long a piece takes.
    fn time(&mut self) -> Duration {
        let ((shortest, longest), lossy) = {
            let conditions = self.weather.borrow();
            (conditions.delay, conditions.lossy)
        };
        let lost = lossy && self.random.chance(LOST);
        let again = if lost { self.random.between(SENT_AGAIN.0, SENT_AGAIN.1) } else { Duration::ZERO };
        self.random.between(shortest, longest) + again
    }

    async fn reset_since(&mut self, resets: u64) {
        let from = Arc::clone(&self.from);
        let ours = |c: &Conditions| {
            let from = from.lock().unwrap_or_else(PoisonError::into_inner);
            c.resets != resets && from.is_some() && *from == c.reset
        };
        // The sender lives as long as the campaign.
        let _ = self.weather.wait_for(ours).await;
    }

    /// Waits until nothing holds this connection back.
    async fn clear(&mut self) {
        let (from, server) = (self.from(), Some(self.server.clone()));
        let (sender, receiver) = if self.there { (&from, &server) } else { (&server, &from) };
        let passes = |c: &Conditions| {
            let cut = |whom: &Option<Party>| whom.as_ref().and_then(|whom| c.cuts.get(whom));
            let held = matches!(cut(sender), Some(Cut::Both | Cut::Sent))
                || matches!(cut(receiver), Some(Cut::Both | Cut::Received));
            let parted = |whom: &Option<Party>| match whom {
                Some(Party::Server(port)) => c.parted_servers.contains(port),
                _ => false,
            };
            let between_servers = matches!((sender, receiver), (Some(Party::Server(_)), Some(Party::Server(_))));
            !held && !(between_servers && (parted(sender) || parted(receiver)))
        };
        let _ = self.weather.wait_for(passes).await;
    }
}

#[cfg(test)]
mod tests;
