//! Who comes in, who does not, and that each of them is counted.

use std::future::poll_fn;

use sterna_types::ClusterId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::authority::Authority;
use crate::credentials::Credentials;
use crate::lane::ALPN;
use crate::refusals::RefusalReason;
use crate::testing::{cluster, credentials, listen, node, refused};

struct Fixture {
    credentials: Credentials,
    listener: Listener,
}

fn fixture(limits: ListenerLimits) -> Fixture {
    let authority = Authority::create(cluster(1)).expect("an authority");
    let credentials = credentials(&authority, node(2));
    let listener = listen(&Tls::new(credentials.clone()).expect("a node's"), limits);
    Fixture { credentials, listener }
}

impl Fixture {
    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_address()).await.expect("it listens")
    }

    /// A client without a certificate.
    async fn stranger(
        &self,
        version: &'static SupportedProtocolVersion,
        protocols: &[&[u8]],
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version that is compiled in")
            .with_root_certificates(self.credentials.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = self.credentials.identity().server_name();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await).await
    }

    async fn refused(&self, reason: RefusalReason) {
        refused(&self.listener.refusals(), reason, 1).await;
    }
}

/// Until the other end has closed the connection, in whatever way.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn a_client_without_a_certificate_arrives_as_a_stranger() {
    let mut fixture = fixture(ListenerLimits::default());
    let mut client = fixture.stranger(&TLS13, &[ALPN]).await.expect("it is let in");
    let mut connection = fixture.listener.accept().await.expect("a connection");
    assert_eq!(*connection.peer(), Peer::Stranger);
    assert_eq!(connection.address(), client.get_ref().0.local_addr().expect("it is connected"));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    client.write_all(preface).await.expect("it is written");
    client.flush().await.expect("it is sent");
    let mut heard = [0; 24];
    connection.read_exact(&mut heard).await.expect("it is read");
    assert_eq!(&heard, preface);
}

#[tokio::test]
async fn what_is_not_tls_is_cut_and_counted() {
    for garbage in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 4096]]
    {
        let fixture = fixture(ListenerLimits::default());
        let mut tcp = fixture.tcp().await;
        tcp.write_all(garbage).await.expect("it is written");
        closed(tcp).await;
        fixture.refused(RefusalReason::NotTls).await;
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_and_counted() {
    let limits = ListenerLimits { handshake_timeout: Duration::from_millis(20), ..ListenerLimits::default() };
    let fixture = fixture(limits);
    let mut tcp = fixture.tcp().await;
    // The header of a ClientHello, and no more.
    tcp.write_all(&[22, 3, 1, 2, 0]).await.expect("it is written");
    closed(tcp).await;
    fixture.refused(RefusalReason::TooSlow).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_counted() {
    let fixture = fixture(ListenerLimits::default());
    drop(fixture.tcp().await);
    fixture.refused(RefusalReason::Departed).await;
}

#[tokio::test]
async fn old_tls_and_other_protocols_are_refused() {
    let old = fixture(ListenerLimits::default());
    assert!(old.stranger(&TLS12, &[ALPN]).await.is_err());
    old.refused(RefusalReason::Incompatible).await;
    let other = fixture(ListenerLimits::default());
    assert!(other.stranger(&TLS13, &[b"http/1.1"]).await.is_err());
    other.refused(RefusalReason::Incompatible).await;
    let none = fixture(ListenerLimits::default());
    closed(none.stranger(&TLS13, &[]).await.expect("it hears of it later")).await;
    none.refused(RefusalReason::Incompatible).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    // Of another cluster, and an old one of our own.
    for number in [2, 1] {
        refuses_authority_of(cluster(number)).await;
    }
}

async fn refuses_authority_of(cluster: ClusterId) {
    let fixture = fixture(ListenerLimits::default());
    let elsewhere = credentials(&Authority::create(cluster).expect("an authority"), node(1));
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(fixture.credentials.roots())
        .with_client_auth_cert(elsewhere.chain(), elsewhere.key().to_tls())
        .expect("rustls takes it");
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = fixture.credentials.identity().server_name();
    let client = TlsConnector::from(Arc::new(config)).connect(name, fixture.tcp().await).await;
    closed(client.expect("it hears of it later")).await;
    fixture.refused(RefusalReason::OtherAuthority).await;
}

#[tokio::test]
async fn places_are_given_back_when_connections_end() {
    let mut fixture = fixture(ListenerLimits { connections_per_address: 1, ..ListenerLimits::default() });
    let _client = fixture.stranger(&TLS13, &[ALPN]).await.expect("it is let in");
    let connection = fixture.listener.accept().await.expect("a connection");
    closed(fixture.tcp().await).await;
    fixture.refused(RefusalReason::TooManyFromAddress).await;
    drop(connection);
    let _client = fixture.stranger(&TLS13, &[ALPN]).await.expect("there is room again");
    fixture.listener.accept().await.expect("a connection");
}

#[tokio::test]
async fn strangers_are_few() {
    let mut fixture = fixture(ListenerLimits { strangers: 1, ..ListenerLimits::default() });
    let _first = fixture.stranger(&TLS13, &[ALPN]).await.expect("it is let in");
    let _first = fixture.listener.accept().await.expect("a connection");
    closed(fixture.stranger(&TLS13, &[ALPN]).await.expect("it hears of it later")).await;
    fixture.refused(RefusalReason::TooManyStrangers).await;
}

#[tokio::test]
async fn a_stranger_does_not_stay() {
    let limits = ListenerLimits { stranger_lifetime: Duration::from_millis(20), ..ListenerLimits::default() };
    let mut fixture = fixture(limits);
    let _client = fixture.stranger(&TLS13, &[ALPN]).await.expect("it is let in");
    let mut connection = fixture.listener.accept().await.expect("a connection");
    let over = connection.read_u8().await.expect_err("the client says nothing");
    assert_eq!(over.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn handshakes_that_stand_still_do_not_hold_up_others() {
    let limits = ListenerLimits { handshakes_per_address: MAX_HANDSHAKES, ..ListenerLimits::default() };
    let mut fixture = fixture(ListenerLimits { connections_per_address: MAX_HANDSHAKES, ..limits });
    let mut silent = Vec::new();
    for _ in 0..MAX_HANDSHAKES - 1 {
        silent.push(fixture.tcp().await);
    }
    let _client = fixture.stranger(&TLS13, &[ALPN]).await.expect("it is let in");
    fixture.listener.accept().await.expect("a connection");
}

#[tokio::test]
async fn an_accept_that_is_given_up_loses_no_connection() {
    let mut fixture = fixture(ListenerLimits::default());
    {
        let mut accept = std::pin::pin!(fixture.listener.accept());
        poll_fn(|context| {
            assert!(accept.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    let _client = fixture.stranger(&TLS13, &[ALPN]).await.expect("it is let in");
    fixture.listener.accept().await.expect("the connection");
}

#[tokio::test]
async fn a_listener_that_was_stopped_accepts_nothing_and_leaves_nothing_behind() {
    let authority = Authority::create(cluster(1)).expect("an authority");
    let stop = CancellationToken::new();
    let config = ListenerConfig::new(Tls::new(credentials(&authority, node(2))).expect("a node's"), stop.clone());
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut listener = Listener::start(socket, config).expect("it listens");
    let silent = TcpStream::connect(listener.local_address()).await.expect("it listens");
    stop.cancel();
    assert!(listener.accept().await.is_none());
    let address = listener.local_address();
    listener.shutdown().await;
    closed(silent).await;
    TcpStream::connect(address).await.expect_err("nobody listens");
}

#[tokio::test]
async fn a_listener_that_is_dropped_stops() {
    let authority = Authority::create(cluster(1)).expect("an authority");
    let stop = CancellationToken::new();
    let config = ListenerConfig::new(Tls::new(credentials(&authority, node(2))).expect("a node's"), stop.clone());
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listener = Listener::start(socket, config).expect("it listens");
    let silent = TcpStream::connect(listener.local_address()).await.expect("it listens");
    drop(listener);
    closed(silent).await;
    assert!(!stop.is_cancelled());
}
