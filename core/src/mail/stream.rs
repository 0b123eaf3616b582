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

/// Connects to the first of the host's addresses that answers; with TLS from the first byte where there are parameters.
pub(super) async fn connect(
    host: &str,
    port: u16,
    tls: Option<TlsParameters>,
) -> Result<Box<dyn AsyncTokioStream>, StepError> {
    let tcp = TcpStream::connect((host, port)).await.map_err(StepError::Io)?;
    tcp.set_nodelay(true).map_err(StepError::Io)?;
    let Some(tls) = tls else { return Ok(Box::new(tcp)) };
    let mut stream = AsyncNetworkStream::use_existing_tokio1(Box::new(tcp));
    stream.upgrade_tls(tls).await?;
    Ok(Box::new(Encrypted(stream)))
}

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
