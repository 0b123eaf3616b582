//! TCP proxies between clients and servers that hold back, slow down or reset what passes.
//!
//! A connection belongs to whoever's tag stands in its first bytes: drivers send their application's name when they
//! connect. So one client can be cut off while others, and the servers among themselves, go on. Servers send their own
//! host and port, where they are run for tests: MongoDB's `mongobridge` goes by the same field. So one can be cut off
//! from the others, while clients still reach it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the traffic of all proxies that share it.
#[derive(Clone, Debug)]
pub struct Weather(watch::Sender<Conditions>);

#[derive(Clone, Debug, Default)]
struct Conditions {
    /// Whose bytes are held back, both ways; connections stay open.
    cut_clients: BTreeSet<String>,
    /// To and from which servers all bytes are held back.
    cut_servers: BTreeSet<u16>,
    /// Between which servers and all others bytes are held back, but not between them and clients.
    parted_servers: BTreeSet<u16>,
    delay: Duration,
    /// Connections that were made before the latest reset of their tag are closed.
    resets: u64,
    reset_tag: String,
}

impl Default for Weather {
    fn default() -> Self {
        Self(watch::Sender::new(Conditions::default()))
    }
}

impl Weather {
    /// Cuts off the client with this tag, or lets it through again. Nobody is told: the connections are half-open.
    pub fn cut_client(&self, tag: &str, cut: bool) {
        self.0.send_modify(|c| {
            if cut {
                c.cut_clients.insert(tag.into())
            } else {
                c.cut_clients.remove(tag)
            };
        });
    }

    /// Holds back everything that the server on this port is sent or sends.
    pub fn cut_server(&self, port: u16, cut: bool) {
        self.0.send_modify(|c| {
            if cut {
                c.cut_servers.insert(port)
            } else {
                c.cut_servers.remove(&port)
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

    /// Delays every piece by this.
    pub fn set_delay(&self, delay: Duration) {
        self.0.send_modify(|c| c.delay = delay);
    }

    /// Closes the connections of this tag.
    pub fn reset_client(&self, tag: &str) {
        self.0.send_modify(|c| {
            c.resets += 1;
            c.reset_tag = tag.into();
        });
    }

    /// Everything passes.
    pub fn heal(&self) {
        self.0.send_modify(|c| *c = Conditions { resets: c.resets, ..Conditions::default() });
    }
}

/// Starts a proxy before the server on this port. Returns its own port. It lives as long as the runtime.
///
/// # Errors
/// What the operating system says.
pub async fn start(server: u16, weather: Weather) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
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
    let from = Arc::new(Mutex::new(From::default()));
    let there = Pipe { server, from: from.clone(), weather: weather.0.subscribe(), names: true };
    let back = Pipe { server, from, weather: weather.0.subscribe(), names: false };
    // Whichever ends first ends both.
    tokio::select! {
        () = there.run(from_client, to_server) => {}
        () = back.run(from_server, to_client) => {}
    }
}

/// Who made a connection, as its first bytes say.
#[derive(Clone, Debug, Default)]
struct From {
    client: Option<String>,
    server: Option<u16>,
}

impl From {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let client =
            text.split_once(TAG).map(|(_, rest)| rest.chars().take_while(char::is_ascii_alphanumeric).collect());
        // A text in BSON: the field's name, four bytes of length, the text; all of them end with a zero.
        let server = bytes
            .windows(SERVER.len())
            .position(|window| window == SERVER)
            .and_then(|at| bytes.get(at + SERVER.len() + 4..))
            .and_then(|rest| rest.split(|byte| *byte == 0).next())
            .and_then(|name| std::str::from_utf8(name).ok()?.rsplit_once(':')?.1.parse().ok());
        Self { client, server }
    }
}

/// One direction of one connection.
struct Pipe {
    server: u16,
    from: Arc<Mutex<From>>,
    weather: watch::Receiver<Conditions>,
    /// Whether the sender's first bytes tell who it is.
    names: bool,
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
                *self.from.lock().unwrap_or_else(PoisonError::into_inner) = From::read(&buffer[..length]);
            }
            self.clear().await;
            let delay = self.weather.borrow().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    fn from(&self) -> From {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reset_since(&mut self, resets: u64) {
        let from = self.from.clone();
        let ours = |c: &Conditions| {
            let client = &from.lock().unwrap_or_else(PoisonError::into_inner).client;
            c.resets != resets && client.as_deref() == Some(&c.reset_tag)
        };
        // The sender lives as long as the campaign.
        let _ = self.weather.wait_for(ours).await;
    }

    /// Waits until nothing holds this connection back.
    async fn clear(&mut self) {
        let (from, to) = (self.from(), self.server);
        let passes = |c: &Conditions| {
            let between_servers = from.server.is_some_and(|from| {
                c.cut_servers.contains(&from) || c.parted_servers.contains(&from) || c.parted_servers.contains(&to)
            });
            let of_cut = from.client.as_ref().is_some_and(|client| c.cut_clients.contains(client));
            !c.cut_servers.contains(&to) && !between_servers && !of_cut
        };
        let _ = self.weather.wait_for(passes).await;
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::From;

    #[test]
    fn who_connects_is_read_from_its_first_message() {
        let bytes = |message: bson::Document| message.to_vec().expect("a document");
        let of_server = bytes(doc! { "hello": 1, "hostInfo": "some.host:27018", "client": { "driver": "x" } });
        let from = From::read(&of_server);
        assert_eq!((from.server, from.client), (Some(27018), None));
        let of_client = bytes(doc! { "hello": 1, "client": { "application": { "name": "coord-worker-go3" } } });
        let from = From::read(&of_client);
        assert_eq!((from.server, from.client.as_deref()), (None, Some("go3")));
        let from = From::read(b"hostInfo\0");
        assert_eq!((from.server, from.client), (None, None));
    }
}
