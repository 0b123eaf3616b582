//! The connection below the dialogue: TCP, with TLS where that comes first.
//!
//! Made here and not by lettre, because a message leaves in several writes, and without TCP_NODELAY each would wait for
//! the acknowledgement of the one before.
#![allow(deprecated, reason = "the only way to give lettre a stream with TLS; the lock file pins the version")]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead as _, AsyncWrite as _};
use lettre::transport::smtp::client::{AsyncNetworkStream, AsyncTokioStream, TlsParameters};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};

use super::options::Tls;
use crate::env::Env;
use crate::time::Timestamp;

/// Why a step of a dialogue did not succeed, as it was told.
#[derive(Debug)]
pub(super) enum StepError {
    Smtp(lettre::transport::smtp::Error),
    Io(io::Error),
}

impl std::fmt::Display for StepError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Smtp(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<lettre::transport::smtp::Error> for StepError {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        Self::Smtp(error)
    }
}

/// Connects to the first of the host's addresses that answers.
pub(super) async fn reach(host: &str, port: u16, env: &Env, deadline: Timestamp) -> Result<TcpStream, StepError> {
    let addresses = lookup_host((host, port)).await.map_err(StepError::Io)?;
    first_of(addresses.collect(), env, deadline, TcpStream::connect).await.map_err(StepError::Io)
}

/// Each address but the last has its share of the time that is left: one that is silent would take all of it, since the
/// system gives up later.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    env: &Env,
    deadline: Timestamp,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let share = deadline.since(env.now()) / left;
        left -= 1;
        let tried = tokio::select! {
            biased;
            tried = connect(address) => tried,
            () = env.sleep(share), if left > 0 => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")))
            }
        };
        match tried {
            Ok(connected) => return Ok(connected),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// The stream of a connection; with TLS where that comes first.
pub(super) async fn prepare(
    tcp: TcpStream,
    tls: Tls,
    parameters: Option<TlsParameters>,
) -> Result<Box<dyn AsyncTokioStream>, StepError> {
    tcp.set_nodelay(true).map_err(StepError::Io)?;
    match (tls, parameters) {
        (Tls::Implicit, Some(parameters)) => {
            let mut stream = AsyncNetworkStream::use_existing_tokio1(Box::new(tcp));
            stream.upgrade_tls(parameters).await?;
            Ok(Box::new(Encrypted(stream)))
        }
        (Tls::Required, _) => Ok(Box::new(ToBeEncrypted { tcp, is: false })),
        _ => Ok(Box::new(tcp)),
    }
}

/// A stream in clear that STARTTLS is going to encrypt. Until then it gives out one line at a time: lettre keeps what it
/// has read, and would take what somebody on the way has put behind the server's agreement for answers that came
/// encrypted. As it is, that ends in the handshake, which fails.
#[derive(Debug)]
struct ToBeEncrypted {
    tcp: TcpStream,
    /// Whether the handshake has begun.
    is: bool,
}

impl AsyncTokioStream for ToBeEncrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.peer_addr()
    }
}

impl AsyncRead for ToBeEncrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is {
            return Pin::new(&mut self.tcp).poll_read(context, buffer);
        }
        let mut bytes = [0; MOST_OF_A_LINE];
        let room = buffer.remaining().min(bytes.len());
        let mut seen = ReadBuf::new(&mut bytes[..room]);
        ready!(self.tcp.poll_peek(context, &mut seen))?;
        let seen = seen.filled();
        let length = seen.iter().position(|byte| *byte == b'\n').map_or(seen.len(), |end| end + 1);
        let mut line = ReadBuf::new(&mut bytes[..length]);
        ready!(Pin::new(&mut self.tcp).poll_read(context, &mut line))?;
        buffer.put_slice(line.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ToBeEncrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is |= bytes.first() == Some(&HANDSHAKE);
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// What a handshake of TLS begins with, and no command of SMTP does.
const HANDSHAKE: u8 = 22;
/// How much of a line is read at once.
const MOST_OF_A_LINE: usize = 512;

/// lettre's TLS stream, as a stream that lettre can be given.
#[derive(Debug)]
struct Encrypted(AsyncNetworkStream);

impl AsyncTokioStream for Encrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(context, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_address_that_is_silent_leaves_time_for_the_next() {
        let env = Env::system(tokio::runtime::Handle::current());
        let address = |n: u8| SocketAddr::from(([192, 0, 2, n], 25));
        // The first is silent, the second refuses, the third answers.
        let connect = |to: SocketAddr| async move {
            match to {
                to if to == address(1) => std::future::pending().await,
                to if to == address(2) => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                to => Ok(to),
            }
        };
        let reach = async |addresses: &[u8]| {
            let addresses = addresses.iter().map(|&n| address(n)).collect();
            let deadline = env.now() + Duration::from_millis(300);
            tokio::time::timeout(Duration::from_secs(30), first_of(addresses, &env, deadline, connect)).await
        };
        assert_eq!(reach(&[1, 2, 3]).await.expect("in time").unwrap(), address(3));
        let error = reach(&[1, 2]).await.expect("in time").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = reach(&[]).await.expect("in time").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
