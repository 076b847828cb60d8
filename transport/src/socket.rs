//! What is below TLS: a connection, and what is listened on. They are the system's, or with the feature `simulation` a simulated
//! network's; nobody above can tell them apart.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::TCP_KEEPALIVE;
#[cfg(feature = "simulation")]
use crate::simulation::{self, Accept, Network, Stream};

/// The bytes of one connection, in order.
#[derive(Debug)]
pub(crate) enum TcpStream {
    System(tokio::net::TcpStream),
    #[cfg(feature = "simulation")]
    Simulated(Box<dyn Stream>),
}

impl TcpStream {
    /// Connects over the network that there is.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        #[cfg(feature = "simulation")]
        if let Some(network) = simulation::installed() {
            return Self::connect_over(network, address).await;
        }
        tokio::net::TcpStream::connect(address).await.map(Self::System)
    }

    /// Connects over this network.
    #[cfg(feature = "simulation")]
    pub(crate) async fn connect_over(network: &dyn Network, address: SocketAddr) -> io::Result<Self> {
        network.connect(address).await.map(Self::Simulated)
    }

    /// Sets the options of a connection, at either end. A simulated one has none.
    pub(crate) fn set_up(&self) -> io::Result<()> {
        match self {
            Self::System(stream) => {
                stream.set_nodelay(true)?;
                set_socket_keepalive(stream, true)?;
                set_tcp_keepidle(stream, TCP_KEEPALIVE)?;
                Ok(())
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => Ok(()),
        }
    }
}

/// What is listened on.
#[derive(Debug)]
pub(crate) enum TcpListener {
    System(tokio::net::TcpListener),
    #[cfg(feature = "simulation")]
    Simulated(Box<dyn Accept>),
}

impl TcpListener {
    /// The next connection, and where it comes from.
    ///
    /// # Cancel safety
    /// Safe: dropped, it has taken no connection.
    pub(crate) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::System(socket) => socket.accept().await.map(|(stream, from)| (TcpStream::System(stream), from)),
            #[cfg(feature = "simulation")]
            Self::Simulated(socket) => socket.accept().await.map(|(stream, from)| (TcpStream::Simulated(stream), from)),
        }
    }
}

/// Does the same with the stream that there is, whichever it is.
macro_rules! with {
    ($tcp:expr, $stream:ident => $what:expr) => {
        match $tcp {
            TcpStream::System($stream) => $what,
            #[cfg(feature = "simulation")]
            TcpStream::Simulated($stream) => $what,
        }
    };
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        with!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
