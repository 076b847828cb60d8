//! What is below TLS: a connection, and what is listened on. They are the system's, or with the feature `simulation` a simulated
//! network's; nobody above can tell them apart.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_congestion, set_tcp_keepidle};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{TCP_KEEPALIVE, UNSENT_BYTES};
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
                if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES) {
                    static ONCE: Once = Once::new();
                    ONCE.call_once(|| tracing::info!(%error, "the system does not bound what waits in it to be sent"));
                }
                Ok(())
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Sends an answer as soon as it is there, however long nothing was sent before: by CUBIC (RFC 9438), which does not pace.
    ///
    /// BBR, which a system may use by itself, learns how fast the way is from what it has sent: after some small answers it takes 0.6 s
    /// for one of 100 KB on a line of 25 Mbit/s.
    pub(crate) fn answer_at_once(&self) {
        self.use_congestion_control(WITHOUT_PACING);
    }

    /// Keeps the queues on the way short that long transfers would fill: by BBR (draft-ietf-ccwg-bbr), which sends as fast as the
    /// way carries, rather than until its queues overflow.
    pub(crate) fn keep_queues_short(&self) {
        self.use_congestion_control(CONGESTION_CONTROL);
    }

    /// A system that does not have it, or not for everybody, serves all the same, and is said to once.
    fn use_congestion_control(&self, wanted: &str) {
        match self {
            Self::System(stream) => {
                if let Err(error) = set_tcp_congestion(stream, wanted) {
                    static ONCE: Once = Once::new();
                    ONCE.call_once(|| {
                        tracing::info!(%error, wanted, "the system's own congestion control is used");
                    });
                }
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => {}
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

const CONGESTION_CONTROL: &str = "bbr";
const WITHOUT_PACING: &str = "cubic";

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::tcp_congestion;

    #[tokio::test]
    async fn what_waits_in_the_kernel_is_bounded_and_its_queues_are_short() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let near = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let before = tcp_congestion(&near).expect("Linux has it");
        let near = TcpStream::System(near);
        near.set_up().expect("options that Linux has");
        let far = TcpStream::System(listener.accept().await.expect("a connection").0);
        far.set_up().expect("options that Linux has");
        near.keep_queues_short();
        far.keep_queues_short();
        let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control");
        let allowed = allowed.unwrap_or_default().split_whitespace().any(|name| name == CONGESTION_CONTROL);
        for stream in [near, far] {
            #[cfg_attr(
                not(feature = "simulation"),
                expect(irrefutable_let_patterns, reason = "the other is simulated")
            )]
            let TcpStream::System(stream) = stream else { panic!("it is the system's") };
            assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().expect("Linux has it"), UNSENT_BYTES);
            let now = tcp_congestion(&stream).expect("Linux has it");
            // A privileged process may use what is not allowed to all.
            assert!(now == CONGESTION_CONTROL || (!allowed && now == before), "{now} in place of {before}");
        }
    }
}
