//! Calls from node to node over real TLS on the loopback interface.

use std::time::Duration;

use sterna_types::TokenId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::authority::{Authority, AuthorityCertificate};
use crate::fingerprint::Fingerprint;
use crate::links::LinkId;
use crate::listener::{Listener, ListenerConfig};
use crate::refusals::RefusalReason;
use crate::subject::Role;
use crate::testing::{
    Serving, administrator, ask, chain, cluster, credentials, expired, node, refused, serve, serve_on, signed,
};
use crate::tls::server_config;
use crate::token::TokenSecret;

fn authority() -> Authority {
    Authority::create(cluster(1)).expect("an authority")
}

fn tls(credentials: Credentials) -> Tls {
    Tls::new(credentials).expect("the credentials of a node")
}

fn node_tls(authority: &Authority, number: u64) -> Tls {
    tls(credentials(authority, node(number)))
}

/// Channels to nodes that are all at one address.
fn channels(tls: Tls, address: SocketAddr) -> Channels {
    Channels::new(tls, move |_| Some(address))
}

fn token(authority: Fingerprint, addresses: Vec<SocketAddr>) -> JoinToken {
    let secret = TokenSecret::generate().expect("a secret");
    JoinToken::new(cluster(1), authority, TokenId(1), secret, addresses).expect("one to eight addresses")
}

/// An address at which nobody listens.
fn nowhere() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("it is bound")
}

#[tokio::test]
async fn a_node_reaches_a_node_and_is_known_to_it() {
    let authority = authority();
    let other = serve(&node_tls(&authority, 2));
    let channels = channels(node_tls(&authority, 1), other.address);
    let mut ports = Vec::new();
    for lane in Lane::ALL {
        for _ in 0..2 {
            let (peer, port) = ask(&channels.channel(NodeId(2), lane)).await.expect("an answer");
            assert_eq!(peer, "node 1");
            ports.push(port);
        }
    }
    // One connection for each lane.
    assert!(ports[0] == ports[1] && ports[2] == ports[3] && ports[0] != ports[2], "{ports:?}");
}

#[tokio::test]
async fn a_node_at_the_address_of_another_is_not_taken_for_it() {
    let authority = authority();
    let other = serve(&node_tls(&authority, 3));
    let failed = ask(&channels(node_tls(&authority, 1), other.address).channel(NodeId(2), Lane::Control)).await;
    let failed = failed.expect_err("node 3 is not node 2");
    assert!(
        matches!(
            ConnectError::behind(&failed),
            Some(ConnectError::Untrusted {
                source: TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. }),
                ..
            })
        ),
        "{}",
        chain(&failed)
    );
    refused(&other.refusals, RefusalReason::RefusedUs, 1).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_told_so() {
    let authority = authority();
    let stranger = Authority::create(cluster(2)).expect("an authority");
    let other = serve(&node_tls(&authority, 2));
    // It trusts the server, but is not trusted.
    let posing = credentials(&stranger, node(1));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(credentials(&authority, node(1)).roots())
        .with_client_auth_cert(posing.chain(), posing.key().to_tls())
        .expect("rustls takes it");
    let name = Identity { cluster: cluster(1), subject: node(2) }.server_name();
    let failed = connect(other.address, Arc::new(with_http2(config)), name, None).await.expect_err("another cluster");
    assert!(matches!(failed, ConnectError::Refused { alert: AlertDescription::UnknownCA, .. }), "{}", chain(&failed));
    assert!(failed.to_string().contains("does not trust the authority"), "{failed}");
    refused(&other.refusals, RefusalReason::OtherAuthority, 1).await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused_at_both_ends() {
    let authority = authority();
    let valid = serve(&node_tls(&authority, 2));
    let late = channels(tls(expired(&authority, &node(1))), valid.address);
    let failed = ask(&late.channel(NodeId(2), Lane::Control)).await.expect_err("it has expired");
    assert!(chain(&failed).contains("our certificate has expired"), "{}", chain(&failed));
    refused(&valid.refusals, RefusalReason::Expired, 1).await;

    let late = serve(&tls(expired(&authority, &node(2))));
    let failed = ask(&channels(node_tls(&authority, 1), late.address).channel(NodeId(2), Lane::Control)).await;
    let failed = failed.expect_err("it has expired");
    assert!(
        matches!(
            ConnectError::behind(&failed),
            Some(ConnectError::Untrusted {
                source: TlsError::InvalidCertificate(CertificateError::ExpiredContext { .. }),
                ..
            })
        ),
        "{}",
        chain(&failed)
    );
}

#[tokio::test]
async fn an_administrator_is_seen_with_its_role_by_whatever_node_is_there() {
    let authority = authority();
    let other = serve(&node_tls(&authority, 7));
    let anna = credentials(&authority, administrator("anna", Role::Operator));
    let channel = connect_as_administrator(&anna, other.address).await.expect("a channel");
    assert_eq!(ask(&channel).await.expect("an answer").0, "operator anna");
    assert!(matches!(Tls::new(anna), Err(crate::tls::TlsError::NotANode { .. })));

    let elsewhere = Authority::create(cluster(2)).expect("an authority");
    let stranger = credentials(&elsewhere, administrator("anna", Role::Admin));
    let failed = connect_as_administrator(&stranger, other.address).await.expect_err("another cluster");
    assert!(matches!(failed, ConnectError::NotANode { .. }), "{}", chain(&failed));
}

#[tokio::test]
async fn an_administrators_certificate_cannot_serve_as_a_nodes() {
    let authority = authority();
    let anna = credentials(&authority, administrator("anna", Role::Admin));
    let config = Arc::new(server_config(&anna).expect("rustls takes it"));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let posing = tokio::spawn(async move {
        let (tcp, _) = socket.accept().await.expect("a connection");
        TlsAcceptor::from(config).accept(tcp).await
    });
    // For the name that is in it, even: the purpose alone stands in the way.
    let settings = node_tls(&authority, 1).now();
    let failed = connect(address, Arc::clone(&settings.client), anna.identity().server_name(), None).await;
    let failed = failed.expect_err("an administrator's certificate");
    assert!(
        matches!(
            &failed,
            ConnectError::Untrusted {
                source: TlsError::InvalidCertificate(CertificateError::InvalidPurposeContext { .. }),
                ..
            }
        ),
        "{}",
        chain(&failed)
    );
    assert!(posing.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_node_with_a_token_reaches_its_cluster_as_a_stranger() {
    let authority = authority();
    let other = serve(&node_tls(&authority, 2));
    let token = token(authority.fingerprint(), vec![nowhere(), other.address]);
    let channel = connect_to_join(&token).await.expect("the second address leads there");
    assert_eq!(ask(&channel).await.expect("an answer").0, "a stranger");
}

#[tokio::test]
async fn a_token_is_not_followed_to_another_authority() {
    // Of the same cluster, as somebody who stands between would make it.
    let [authority, other_authority] = [(); 2].map(|()| authority());
    let other = serve(&node_tls(&other_authority, 2));
    let dead = nowhere();
    let token = token(authority.fingerprint(), vec![dead, other.address]);
    let failed = connect_to_join(&token).await.expect_err("another authority");
    assert!(
        matches!(
            failed.attempts.as_slice(),
            [ConnectError::Unreachable { address, .. }, ConnectError::NotANode { .. }] if *address == dead
        ),
        "{failed}"
    );
    let said = format!("is not the one of the token, {}", authority.fingerprint());
    assert!(failed.to_string().contains(&said), "{failed}");
}

#[tokio::test]
async fn new_connections_see_a_new_certificate_while_the_old_one_goes_on() {
    let [old, new] = [(); 2].map(|()| authority());
    let (caller, called) = (node_tls(&old, 1), node_tls(&old, 2));
    let other = serve(&called);
    let channels = channels(caller.clone(), other.address);
    let before = ask(&channels.channel(NodeId(2), Lane::Control)).await.expect("an answer");

    // Both authorities are trusted, then the new one certifies, then the old one is dropped.
    let both: Vec<AuthorityCertificate> = vec![old.certificate().clone(), new.certificate().clone()];
    for authorities in [both, vec![new.certificate().clone()]] {
        for tls in [&caller, &called] {
            let (key, certificate) = signed(&new, tls.credentials().subject().clone());
            let renewed = Credentials::new(key, certificate, authorities.clone()).expect("they belong together");
            tls.replace(renewed).expect("the same node");
        }
        let settings = caller.now();
        let name = settings.identity_of(NodeId(2)).server_name();
        let fresh = connect(other.address, Arc::clone(&settings.client), name, None).await.expect("a connection");
        let shown = fresh.inner().get_ref().1.peer_certificates().expect("certificates");
        assert_eq!(shown[0].as_ref(), called.credentials().certificate().der());
        // And calls still go over the connection from before.
        assert_eq!(ask(&channels.channel(NodeId(2), Lane::Control)).await.expect("an answer"), before);
    }
}

#[tokio::test]
async fn credentials_of_another_node_or_cluster_do_not_replace_ours() {
    let (authority, elsewhere) = (authority(), Authority::create(cluster(2)).expect("an authority"));
    let tls = node_tls(&authority, 1);
    for other in [credentials(&authority, node(2)), credentials(&elsewhere, node(1))] {
        assert!(matches!(tls.replace(other), Err(crate::tls::TlsError::Another { .. })));
    }
    assert_eq!(*tls.credentials().subject(), node(1));
}

#[tokio::test]
async fn a_channel_finds_a_node_that_has_come_back_elsewhere() {
    let authority = authority();
    let first = serve(&node_tls(&authority, 2));
    let address = Arc::new(Mutex::new(first.address));
    let where_it_is = Arc::clone(&address);
    let channels = Channels::new(node_tls(&authority, 1), move |_| Some(*where_it_is.lock().expect("no panic")));
    let channel = channels.channel(NodeId(2), Lane::Control);
    ask(&channel).await.expect("an answer");
    first.end().await;
    let second = serve(&node_tls(&authority, 2));
    *address.lock().expect("no panic") = second.address;
    while ask(&channel).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    channels.forget(NodeId(2));
    assert_eq!(ask(&channels.channel(NodeId(2), Lane::Control)).await.expect("an answer").0, "node 1");
}

#[tokio::test]
async fn a_call_that_cannot_be_made_says_why_and_the_next_one_does_not_try() {
    let authority = authority();
    let channels = Channels::new(node_tls(&authority, 1), |_| None);
    let channel = channels.channel(NodeId(2), Lane::Bulk);
    let failed = ask(&channel).await.expect_err("nobody knows where it is");
    let behind = ConnectError::behind(&failed);
    assert!(matches!(behind, Some(ConnectError::NoAddress { node: NodeId(2) })), "{}", chain(&failed));
    // Soon after comes one that is not tried at all.
    let waiting = loop {
        let failed = ask(&channel).await.expect_err("nobody knows where it is");
        match ConnectError::behind(&failed) {
            Some(ConnectError::Waiting { node: NodeId(2), last: Some(_), .. }) => break failed,
            other => assert!(matches!(other, Some(ConnectError::NoAddress { .. })), "{}", chain(&failed)),
        }
    };
    assert!(chain(&waiting).contains("it is not known at which address node 2 is"), "{}", chain(&waiting));
}

/// A node that counts what it sends over each lane to node 1.
fn serve_counted(tls: &Tls) -> (Serving, Links) {
    let (socket, links) = (std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"), Links::default());
    let config = ListenerConfig::new(tls.clone(), CancellationToken::new()).with_links(links.clone());
    (serve_on(Listener::start(socket, config).expect("it listens")), links)
}

/// What was sent and what has come over a lane.
fn counted(links: &Links, peer: u64, lane: Lane) -> (u64, u64) {
    let mut counters = links.counters().into_iter();
    let found = counters.find(|counted| (counted.link, counted.lane) == (LinkId(peer), lane));
    found.map_or((0, 0), |counted| (counted.sent_bytes, counted.received_bytes))
}

#[tokio::test]
async fn both_ends_count_under_the_lane_of_the_call() {
    let authority = authority();
    let (other, theirs) = serve_counted(&node_tls(&authority, 2));
    let ours = Links::default();
    let channels = channels(node_tls(&authority, 1), other.address).with_links(ours.clone());
    for (index, lane) in Lane::ALL.into_iter().enumerate() {
        ask(&channels.channel(NodeId(2), lane)).await.expect("an answer");
        for (place, lane) in Lane::ALL.into_iter().enumerate() {
            let ((ours_sent, ours_received), (sent, received)) = (counted(&ours, 2, lane), counted(&theirs, 1, lane));
            if place <= index {
                // The handshakes alone are more, and each end has all that came with the answer.
                assert!(ours_sent > 500 && received > 500 && ours_received > 500 && sent >= ours_received, "{lane}");
            } else {
                assert_eq!([ours_sent, ours_received, sent, received], [0; 4], "{lane} before it was used");
            }
        }
    }
}

#[tokio::test]
async fn who_knows_no_lanes_is_on_the_control_lane_and_administrators_are_on_no_link() {
    let authority = authority();
    let (other, theirs) = serve_counted(&node_tls(&authority, 2));
    let anna = credentials(&authority, administrator("anna", Role::Operator));
    let channel = connect_as_administrator(&anna, other.address).await.expect("a channel");
    ask(&channel).await.expect("an answer");
    assert!(theirs.counters().is_empty());
    // A node of an earlier version offers `h2`, whatever it calls for.
    let settings = node_tls(&authority, 1).now();
    let name = settings.identity_of(NodeId(2)).server_name();
    let _connection = connect(other.address, Arc::clone(&settings.client), name, None).await.expect("a connection");
    assert!(counted(&theirs, 1, Lane::Control).0 > 500);
}

#[tokio::test]
async fn a_server_that_knows_no_lanes_is_reached_on_all_of_them() {
    let authority = authority();
    let mut config = server_config(&credentials(&authority, node(2))).expect("rustls takes it");
    config.alpn_protocols = vec![crate::lane::ALPN.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let serving = tokio::spawn(async move {
        loop {
            let (tcp, _) = socket.accept().await.expect("a connection");
            let mut stream = acceptor.accept(tcp).await.expect("a handshake");
            // The head of its settings is as much as is waited for.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("it is written");
            stream.flush().await.expect("it is sent");
        }
    });
    let (settings, links) = (node_tls(&authority, 1).now(), Links::default());
    for lane in Lane::ALL {
        let name = settings.identity_of(NodeId(2)).server_name();
        let member = links.member(NodeId(2), lane);
        connect(address, Arc::clone(&settings.client), name, Some(member)).await.expect("a connection");
        assert!(counted(&links, 2, lane).1 > 500, "{lane}");
    }
    serving.abort();
}

fn with_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![crate::lane::ALPN.to_vec()];
    config
}
