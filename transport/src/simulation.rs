//! A network as a simulation gives it, below TLS: for a whole process, and for good. What goes over it is the product's own.
//!
//! [`Channels`](crate::Channels) and their like connect through it from the moment that it is [installed](install);
//! [`Listener::start_simulated`](crate::Listener::start_simulated) listens in it. It carries the bytes of each connection in
//! order or ends it, as TCP does: what it loses, it loses from the end.

pub(crate) mod dates;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;

use sterna_runtime::simulation::AlreadySimulated;
use tokio::io::{AsyncRead, AsyncWrite};

/// One end of a connection.
pub trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for S {}

/// What a network answers later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A network. It knows itself which of the simulation's nodes asks.
pub trait Network: fmt::Debug + Send + Sync {
    /// Connects to who listens at `address`. The future may be dropped, and then leaves nothing behind.
    fn connect(&self, address: SocketAddr) -> Answer<'static, Box<dyn Stream>>;

    /// Listens at `address`, until what it returns is dropped.
    fn bind(&self, address: SocketAddr) -> Answer<'static, Box<dyn Accept>>;
}

/// What is listened on.
pub trait Accept: fmt::Debug + Send {
    /// The next connection, and where it comes from. The future may be dropped, and then has taken none.
    fn accept(&mut self) -> Answer<'_, (Box<dyn Stream>, SocketAddr)>;
}

/// Has all connections of this process go over `network` from now on.
///
/// # Errors
/// They go over one already.
pub fn install(network: Box<dyn Network>) -> Result<(), AlreadySimulated> {
    INSTALLED.set(network).map_err(|_| AlreadySimulated)
}

/// What connections go over, if this process is a simulation.
pub fn installed() -> Option<&'static dyn Network> {
    INSTALLED.get().map(AsRef::as_ref)
}

static INSTALLED: OnceLock<Box<dyn Network>> = OnceLock::new();

#[cfg(test)]
mod tests;
