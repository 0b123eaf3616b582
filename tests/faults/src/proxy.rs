//! TCP proxies between clients and servers that hold back, slow down or reset what passes.
//!
//! A connection belongs to whoever's tag stands in its first bytes: drivers send their application's name when they
//! connect. So one client can be cut off while others, and the servers among themselves, go on.

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
    /// Before which servers all bytes are held back.
    cut_servers: BTreeSet<u16>,
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

    /// Holds back everything that is sent to the server on this port, and what it answers.
    pub fn cut_server(&self, port: u16, cut: bool) {
        self.0.send_modify(|c| {
            if cut {
                c.cut_servers.insert(port)
            } else {
                c.cut_servers.remove(&port)
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
    let tag = Arc::new(Mutex::new(None));
    let there = Pipe { server, tag: tag.clone(), weather: weather.0.subscribe(), names: true };
    let back = Pipe { server, tag, weather: weather.0.subscribe(), names: false };
    // Whichever ends first ends both.
    tokio::select! {
        () = there.run(from_client, to_server) => {}
        () = back.run(from_server, to_client) => {}
    }
}

/// One direction of one connection.
struct Pipe {
    server: u16,
    tag: Arc<Mutex<Option<String>>>,
    weather: watch::Receiver<Conditions>,
    /// Whether the sender's first bytes tell the tag.
    names: bool,
}

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
            if self.names {
                self.learn_tag(&buffer[..length]);
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

    fn learn_tag(&mut self, bytes: &[u8]) {
        self.names = false;
        let text = String::from_utf8_lossy(bytes);
        if let Some((_, rest)) = text.split_once(TAG) {
            let tag: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            *self.tag.lock().unwrap_or_else(PoisonError::into_inner) = Some(tag);
        }
    }

    fn tag(&self) -> Option<String> {
        self.tag.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reset_since(&mut self, resets: u64) {
        let tag = self.tag.clone();
        let ours = |c: &Conditions| {
            c.resets != resets && tag.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(&c.reset_tag)
        };
        // The sender lives as long as the campaign.
        let _ = self.weather.wait_for(ours).await;
    }

    /// Waits until nothing holds this connection back.
    async fn clear(&mut self) {
        let (tag, server) = (self.tag(), self.server);
        let passes = |c: &Conditions| {
            !c.cut_servers.contains(&server) && tag.as_ref().is_none_or(|tag| !c.cut_clients.contains(tag))
        };
        let _ = self.weather.wait_for(passes).await;
    }
}
