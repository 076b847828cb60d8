//! What the tests of several modules need: clusters, subjects, credentials for them, and a node that says who calls.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use sterna_types::{ClusterId, NodeId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

use crate::authority::{Authority, Moments};
use crate::certificate::SignedCertificate;
use crate::credentials::Credentials;
use crate::http2;
use crate::key::PrivateKey;
use crate::listener::{ConnectInfo, Listener, ListenerConfig, ListenerLimits};
use crate::refusals::{RefusalReason, Refusals};
use crate::subject::{Role, Subject};
use crate::tls::Tls;

/// One of several clusters.
pub(crate) fn cluster(number: u8) -> ClusterId {
    ClusterId::from_bytes([number; 16])
}

/// A node.
pub(crate) fn node(number: u64) -> Subject {
    Subject::Node(NodeId(number))
}

/// An administrator.
pub(crate) fn administrator(name: &str, role: Role) -> Subject {
    Subject::Administrator { name: name.parse().expect("a name"), role }
}

/// A new key with a certificate for a day.
pub(crate) fn signed(authority: &Authority, subject: Subject) -> (PrivateKey, SignedCertificate) {
    let key = PrivateKey::generate().expect("a key");
    let request = key.request().expect("a request");
    let certificate = authority.sign(&request, &subject, Duration::from_secs(86_400)).expect("a certificate");
    (key, certificate)
}

/// Credentials that trust this one authority.
pub(crate) fn credentials(authority: &Authority, subject: Subject) -> Credentials {
    let (key, certificate) = signed(authority, subject);
    Credentials::new(key, certificate, vec![authority.certificate().clone()]).expect("they belong together")
}

/// Credentials that were valid until an hour ago.
pub(crate) fn expired(authority: &Authority, subject: &Subject) -> Credentials {
    let key = PrivateKey::generate().expect("a key");
    let hours_ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
    let moments = Moments { not_before: hours_ago(3), not_after: hours_ago(1) };
    let certificate = authority.sign_between(&key.request().expect("a request"), subject, moments);
    let authorities = vec![authority.certificate().clone()];
    Credentials::new(key, certificate.expect("a certificate"), authorities).expect("they belong together")
}

/// A node that serves; dropped, it does so no more.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) refusals: Arc<Refusals>,
    server: JoinHandle<()>,
}

impl Serving {
    /// Ends it, with its connections.
    pub(crate) async fn end(mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A listener on a free port.
pub(crate) fn listen(tls: &Tls, limits: ListenerLimits) -> Listener {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let config = ListenerConfig { limits, ..ListenerConfig::new(tls.clone(), CancellationToken::new()) };
    Listener::start(socket, config).expect("it listens")
}

/// A node on a free port that answers each call by saying who called.
pub(crate) fn serve(tls: &Tls) -> Serving {
    serve_on(listen(tls, ListenerLimits::default()))
}

/// A node that answers on this listener.
pub(crate) fn serve_on(listener: Listener) -> Serving {
    let (address, refusals) = (listener.local_address(), listener.refusals());
    let server = http2::server().add_service(Who).serve_with_incoming(listener);
    let server = tokio::spawn(async move { server.await.expect("it serves until it is aborted") });
    Serving { address, refusals, server }
}

/// Waits until this was refused so often.
pub(crate) async fn refused(refusals: &Refusals, reason: RefusalReason, count: u64) {
    while refusals.count(reason) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(refusals.count(reason), count);
}

/// Calls, and returns what the other end says who called, and from which of our ports.
pub(crate) async fn ask(channel: &Channel) -> Result<(String, String), tonic::transport::Error> {
    let request = Request::builder().method("POST").uri("/test.Who/Ask").body(Body::empty()).expect("a request");
    let response = channel.clone().ready_oneshot().await?.call(request).await?;
    let header = |name| response.headers()[name].to_str().expect("a text").to_owned();
    Ok((header("peer"), header("port")))
}

/// All that an error says, cause by cause.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Says who calls.
#[derive(Clone)]
struct Who;

impl NamedService for Who {
    const NAME: &'static str = "test.Who";
}

impl Service<Request<Body>> for Who {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let info = request.extensions().get::<ConnectInfo>().expect("tonic puts it there");
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("peer", info.peer.to_string())
            .header("port", info.address.port().to_string());
        std::future::ready(Ok(response.body(Body::empty()).expect("a response")))
    }
}
