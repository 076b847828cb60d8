//! Nodes in a process that is a simulation: so it is a program of its own, and one test.
#![cfg(feature = "simulation")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sterna_runtime::clock;
use sterna_runtime::simulation::{AlreadySimulated, Simulated};
use sterna_transport::simulation::{Accept, Answer, Network, Stream, install};
use sterna_transport::{
    Authority, Channels, ConnectError, Credentials, Lane, Listener, ListenerConfig, PrivateKey, RefusalReason, Role,
    Subject, Tls, connect_as_administrator, http2,
};
use sterna_types::{ClusterId, NodeId};
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;
use tonic::transport::{Channel, Error};
use tower::ServiceExt;

/// Seconds since 1970.
static TIME_OF_DAY: AtomicU64 = AtomicU64::new(YEAR_1980);
/// So that no two certificates have the same number.
static CHANCE: AtomicU8 = AtomicU8::new(1);

#[derive(Debug)]
struct LongAgo;

impl Simulated for LongAgo {
    fn boot_time_ns(&self) -> u64 {
        17
    }

    fn since_1970(&self) -> Duration {
        Duration::from_secs(TIME_OF_DAY.load(Ordering::Relaxed))
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(CHANCE.fetch_add(1, Ordering::Relaxed));
    }
}

/// A network with one address.
#[derive(Debug)]
struct Pipes {
    callers: mpsc::Sender<(Box<dyn Stream>, SocketAddr)>,
    door: Mutex<Option<Door>>,
}

#[derive(Debug)]
struct Door(mpsc::Receiver<(Box<dyn Stream>, SocketAddr)>);

impl Network for Pipes {
    fn connect(&self, address: SocketAddr) -> Answer<'static, Box<dyn Stream>> {
        let (near, far) = duplex(1 << 16);
        self.callers.try_send((Box::new(far), address)).expect("somebody listens");
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Stream>) })
    }

    fn bind(&self, _: SocketAddr) -> Answer<'static, Box<dyn Accept>> {
        let door = self.door.lock().expect("no panic").take().expect("it is free");
        Box::pin(async move { Ok(Box::new(door) as Box<dyn Accept>) })
    }
}

impl Accept for Door {
    fn accept(&mut self) -> Answer<'_, (Box<dyn Stream>, SocketAddr)> {
        Box::pin(async { Ok(self.0.recv().await.expect("the network stays")) })
    }
}

fn credentials(authority: &Authority, subject: Subject) -> Credentials {
    let key = PrivateKey::generate().expect("a key");
    let certificate = authority.sign(&key.request().expect("a request"), &subject, A_DAY).expect("a certificate");
    Credentials::new(key, certificate, vec![authority.certificate().clone()]).expect("they belong together")
}

fn tls(authority: &Authority, number: u64) -> Tls {
    Tls::new(credentials(authority, Subject::Node(NodeId(number)))).expect("a node's")
}

async fn ask(mut channel: Channel) -> Result<Response<Body>, Error> {
    let request = Request::builder().method("POST").uri("/nothing.There/Is").body(Body::empty()).expect("a request");
    channel.ready().await?.call(request).await
}

#[tokio::test(start_paused = true)]
async fn certificates_and_connections_are_of_the_simulation() {
    let (callers, called) = mpsc::channel(8);
    sterna_runtime::simulation::install(Box::new(LongAgo)).unwrap();
    let network = |door| Box::new(Pipes { callers: callers.clone(), door: Mutex::new(door) });
    install(network(Some(Door(called)))).unwrap();
    assert_eq!(install(network(None)), Err(AlreadySimulated));

    let authority = Authority::create(ClusterId::from_bytes([1; 16])).unwrap();
    let node = tls(&authority, 2);
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_1980) + A_DAY;
    assert_eq!(node.credentials().not_after(), expires);
    let listener = Listener::start_simulated(ADDRESS, ListenerConfig::new(node.clone(), CancellationToken::new()));
    let listener = listener.await.unwrap();
    let refusals = listener.refusals();
    tokio::spawn(http2::server().add_routes(Routes::default()).serve_with_incoming(listener));

    // By the clock of this machine, all of them expired long ago.
    let anna = credentials(&authority, Subject::Administrator { name: "anna".parse().unwrap(), role: Role::Admin });
    ask(connect_as_administrator(&anna, ADDRESS).await.unwrap()).await.unwrap();
    let channels = || Channels::new(tls(&authority, 1), |_| Some(ADDRESS));
    let answer = ask(channels().channel(NodeId(2), Lane::Control)).await.unwrap();
    // Nor does the date of an answer depend on it.
    assert_eq!(answer.headers()["date"], "Thu, 01 Jan 1970 00:00:00 GMT");

    // And by that of the simulation some time later.
    let late = channels();
    TIME_OF_DAY.fetch_add(2 * A_DAY.as_secs(), Ordering::Relaxed);
    assert!(clock::wall_time() > expires);
    let failed = ask(late.channel(NodeId(2), Lane::Control)).await.unwrap_err();
    assert!(matches!(ConnectError::behind(&failed), Some(ConnectError::Untrusted { .. })), "{failed:?}");
    node.replace(credentials(&authority, Subject::Node(NodeId(2)))).unwrap();
    let failed = ask(late.channel(NodeId(2), Lane::Bulk)).await.unwrap_err();
    assert!(matches!(ConnectError::behind(&failed), Some(ConnectError::Refused { .. })), "{failed:?}");
    while refusals.count(RefusalReason::Expired) == 0 {
        tokio::task::yield_now().await;
    }
}

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), 7400);
const A_DAY: Duration = Duration::from_secs(86_400);
const YEAR_1980: u64 = 315_532_800;
