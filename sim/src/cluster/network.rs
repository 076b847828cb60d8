//! The network between the machines: that of turmoil, below the product's own connections.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;

use sterna_transport::simulation::{self, Accept, Network, Stream};
use turmoil::net::{TcpListener, TcpStream};

/// Has the connections of this process go through the network of the run, once.
pub(super) fn install() {
    // Whoever has done it before has done the same.
    let _ = simulation::install(Box::new(OfRun));
}

#[derive(Debug)]
struct OfRun;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

impl Network for OfRun {
    fn connect(&self, address: SocketAddr) -> Boxed<'static, Box<dyn Stream>> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn Stream>) })
    }

    fn bind(&self, address: SocketAddr) -> Boxed<'static, Box<dyn Accept>> {
        // A machine has one address, and turmoil wants none said.
        let own = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        Box::pin(async move { Ok(Box::new(Door(TcpListener::bind(own).await?)) as Box<dyn Accept>) })
    }
}

struct Door(TcpListener);

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

impl Accept for Door {
    fn accept(&mut self) -> Boxed<'_, (Box<dyn Stream>, SocketAddr)> {
        Box::pin(async move {
            let (stream, address) = self.0.accept().await?;
            Ok((Box::new(stream) as Box<dyn Stream>, address))
        })
    }
}
