//! The connection below the dialogue: TCP, with TLS where that comes first.
//!
//! Made here and not by lettre, because a message leaves in several writes, and without TCP_NODELAY each would wait for
//! the acknowledgement of the one before.
#![allow(deprecated, reason = "the only way to give lettre a stream with TLS; the lock file pins the version")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead as _, AsyncWrite as _};
use lettre::transport::smtp::client::{AsyncNetworkStream, AsyncTokioStream, TlsParameters};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::options::Tls;

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

/// Connects to the first of the host's addresses that answers; with TLS where that comes first.
pub(super) async fn connect(
    host: &str,
    port: u16,
    tls: Tls,
    parameters: Option<TlsParameters>,
) -> Result<Box<dyn AsyncTokioStream>, StepError> {
    let tcp = TcpStream::connect((host, port)).await.map_err(StepError::Io)?;
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
