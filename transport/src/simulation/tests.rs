//! Connections between two nodes over a network that is none: pipes in memory. It is handed to what connects and listens, and not
//! installed, because the other tests of this process have the system's.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use sterna_types::NodeId;
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tower::service_fn;

use super::*;
use crate::authority::Authority;
use crate::connect::{ConnectError, connect_over};
use crate::http2::endpoint;
use crate::lane::Lane;
use crate::listener::{Listener, ListenerConfig};
use crate::refusals::RefusalReason;
use crate::testing::{ask, chain, cluster, credentials, node, refused, serve_on};
use crate::tls::Tls;

/// A network with one address at which somebody listens, once.
#[derive(Debug)]
struct Pipes {
    callers: mpsc::Sender<(Box<dyn Stream>, SocketAddr)>,
    door: Mutex<Option<Door>>,
}

#[derive(Debug)]
struct Door(mpsc::Receiver<(Box<dyn Stream>, SocketAddr)>);

impl Pipes {
    fn new() -> Arc<Self> {
        let (callers, called) = mpsc::channel(8);
        Arc::new(Self { callers, door: Mutex::new(Some(Door(called))) })
    }
}

impl Network for Pipes {
    fn connect(&self, _: SocketAddr) -> Answer<'static, Box<dyn Stream>> {
        let (near, far) = duplex(1 << 16);
        let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
        let sent = self.callers.try_send((Box::new(far), CALLER)).map_err(refused);
        Box::pin(async move { sent.map(|()| Box::new(near) as Box<dyn Stream>) })
    }

    fn bind(&self, _: SocketAddr) -> Answer<'static, Box<dyn Accept>> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).take();
        let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
        Box::pin(async move { door.map(|door| Box::new(door) as Box<dyn Accept>).ok_or_else(in_use) })
    }
}

impl Accept for Door {
    fn accept(&mut self) -> Answer<'_, (Box<dyn Stream>, SocketAddr)> {
        Box::pin(async { self.0.recv().await.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) })
    }
}

fn tls(authority: &Authority, number: u64) -> Tls {
    Tls::new(credentials(authority, node(number))).expect("the credentials of a node")
}

async fn listen(network: &Pipes, tls: Tls) -> io::Result<Listener> {
    Listener::start_over(network, CALLED, ListenerConfig::new(tls, CancellationToken::new())).await
}

/// A channel to node 2.
fn channel(network: &Arc<Pipes>, from: &Tls) -> Channel {
    let (network, settings) = (Arc::clone(network), from.now());
    let name = settings.identity_of(NodeId(2));
    endpoint(&name.to_string(), Lane::Control).connect_with_connector_lazy(service_fn(move |_| {
        let (network, config, name) = (Arc::clone(&network), Arc::clone(&settings.client), name.server_name());
        async move { connect_over(&*network, CALLED, config, name).await }
    }))
}

#[tokio::test(start_paused = true)]
async fn nodes_know_one_another_over_a_simulated_network() {
    let (authority, network) = (Authority::create(cluster(1)).expect("an authority"), Pipes::new());
    let listener = listen(&network, tls(&authority, 2)).await.expect("it listens");
    assert_eq!(listener.local_address(), CALLED);
    let _serving = serve_on(listener);
    let channel = channel(&network, &tls(&authority, 1));
    for _ in 0..2 {
        let who = ask(&channel).await.expect("an answer");
        assert_eq!(who, ("node 1".to_owned(), CALLER.port().to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_of_another_authority_is_refused_over_a_simulated_network_too() {
    let (authority, network) = (Authority::create(cluster(1)).expect("an authority"), Pipes::new());
    let serving = serve_on(listen(&network, tls(&authority, 2)).await.expect("it listens"));
    // It trusts the other end, and is not trusted.
    let stranger = Authority::create(cluster(1)).expect("an authority");
    let both = vec![stranger.certificate().clone(), authority.certificate().clone()];
    let posing = credentials(&stranger, node(1)).with_authorities(both).expect("credentials with two authorities");
    let posing = Tls::new(posing).expect("the credentials of a node");
    let failed = ask(&channel(&network, &posing)).await.expect_err("another authority");
    assert!(matches!(ConnectError::behind(&failed), Some(ConnectError::Refused { .. })), "{}", chain(&failed));
    assert!(chain(&failed).contains("does not trust the authority"), "{}", chain(&failed));
    refused(&serving.refusals, RefusalReason::OtherAuthority, 1).await;
}

#[tokio::test]
async fn a_listener_that_has_ended_lets_go_of_its_address() {
    let (authority, network) = (Authority::create(cluster(1)).expect("an authority"), Pipes::new());
    let listener = listen(&network, tls(&authority, 2)).await.expect("it listens");
    assert_eq!(listen(&network, tls(&authority, 2)).await.expect_err("in use").kind(), io::ErrorKind::AddrInUse);
    listener.shutdown().await;
    let failed = ask(&channel(&network, &tls(&authority, 1))).await.expect_err("nobody listens");
    assert!(matches!(ConnectError::behind(&failed), Some(ConnectError::Unreachable { .. })), "{}", chain(&failed));
}

#[tokio::test]
async fn where_no_network_is_simulated_nobody_listens_in_one() {
    let authority = Authority::create(cluster(1)).expect("an authority");
    let config = ListenerConfig::new(tls(&authority, 2), CancellationToken::new());
    assert!(Listener::start_simulated(CALLED, config).await.is_err());
}

const CALLED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), 7400);
const CALLER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 40_000);
