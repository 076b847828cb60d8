//! All that a stranger can try over the network, and on the sockets of a machine: each is refused, with a line in the log that says
//! why and who it was, and the node goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sterna_nbd_server::wire::option;
use sterna_proto::admin::admin_client::AdminClient;
use sterna_proto::admin::{CreateVolumeRequest, StatusRequest};
use sterna_proto::cluster::ListNodesRequest;
use sterna_proto::cluster::cluster_client::ClusterClient;
use sterna_proto::node::enrolment_client::EnrolmentClient;
use sterna_proto::node::metadata_client::MetadataClient;
use sterna_proto::node::raft_client::RaftClient;
use sterna_proto::node::{
    AppendRequest, FetchAuthorityRequest, JoinRequest, PingRequest, ProposeRequest, RenewRequest,
};
use sterna_tests::client::option_bytes;
use sterna_tests::cluster::Cluster;
use sterna_tests::node::{Node, is_refusal};
use sterna_tests::server::sterna;
use sterna_tests::tool::{Ended, Tool, until};
use sterna_transport::{
    Authority, CredentialFiles, Credentials, JoinToken, PrivateKey, Role, Subject, connect_as_administrator,
    connect_to_join,
};
use sterna_types::{ClusterId, NodeId};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tonic::{Code, Status};

/// What a connection is given to end: handshakes last ten seconds at most.
const PATIENCE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NO_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A cluster of one node, and its authority: whoever has that can show any certificate.
struct World {
    cluster: Cluster,
    authority: Authority,
    directory: TempDir,
}

type Encrypted<S> = StreamOwned<ClientConnection, S>;

impl World {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let cluster = Cluster::start(directory.path(), &["ams"])?;
        let authority = CredentialFiles::new(cluster.nodes[0].data().join("pki")).load_authority()?;
        Ok(Self { cluster, authority: authority.context("the first node's authority")?, directory })
    }

    fn node(&self) -> &Node {
        &self.cluster.nodes[0]
    }

    fn credentials(&self, subject: &Subject) -> Result<Credentials> {
        certified(&self.authority, subject, DAY)
    }

    /// Waits for a line of the node's log that has all of these words.
    fn logged(&self, words: &[&str]) -> Result<()> {
        logged(self.node(), words)
    }

    /// Connects as whoever shows these credentials; what the node makes of them shows behind it.
    fn connect(&self, shown: Option<&Credentials>) -> Result<(Encrypted<TcpStream>, SocketAddr)> {
        let stream = TcpStream::connect(self.cluster.address(0))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let address = stream.local_addr()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.certificate().der().to_owned()))?;
        let name = format!("node-1.{}.sterna", self.authority.cluster());
        let pem = shown.map(Credentials::to_pem);
        let mut config = config(roots, pem.as_deref())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok((encrypt(stream, config, &name)?, address))
    }

    /// Whether an ordinary command is carried out as ever.
    fn goes_on(&self) -> Result<()> {
        self.node().sterna(["volume", "list"]).succeed()?;
        let admin = self.credentials(&administrator("anna", Role::Admin))?;
        runtime()?.block_on(async {
            let channel = connect_as_administrator(&admin, self.cluster.address(0)).await?;
            AdminClient::new(channel).status(StatusRequest {}).await?;
            Ok(())
        })
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn administrator(name: &str, role: Role) -> Subject {
    Subject::Administrator { name: name.parse().expect("a name"), role }
}

fn certified(authority: &Authority, subject: &Subject, lifetime: Duration) -> Result<Credentials> {
    let key = PrivateKey::generate()?;
    let certificate = authority.sign(&key.request()?, subject, lifetime)?;
    Ok(Credentials::new(key, certificate, vec![authority.certificate().clone()])?)
}

fn config(roots: RootCertStore, shown: Option<&str>) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots);
    Ok(match shown {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let first = CertificateDer::pem_slice_iter(pem.as_bytes()).next().context("a certificate")??;
            builder.with_client_auth_cert(vec![first], PrivateKeyDer::from_pem_slice(pem.as_bytes())?)?
        }
    })
}

fn encrypt<S: Read + Write>(mut stream: S, config: ClientConfig, name: &str) -> Result<Encrypted<S>> {
    let mut session = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned())?)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

fn logged(node: &Node, words: &[&str]) -> Result<()> {
    let has_it = || Ok(node.log().lines().any(|line| words.iter().all(|word| line.contains(word))));
    ensure!(until(PATIENCE, has_it)?, "no line of the log has {words:?}: {}", node.log());
    Ok(())
}

/// Reads until the other end has closed the connection, in whatever way.
fn until_closed(mut stream: impl Read) -> Result<Vec<u8>> {
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(said),
            Ok(read) => said.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                bail!("the connection was not closed within {PATIENCE:?}");
            }
            Err(_) => return Ok(said),
        }
    }
}

fn is_denied<T>(what: &str, answer: Result<T, Status>) -> Result<()> {
    let code = answer.err().map(|status| status.code());
    ensure!(code == Some(Code::PermissionDenied), "{what} was answered with {code:?}");
    Ok(())
}

#[test]
fn without_a_certificate_nothing_is_heard_but_a_token() -> Result<()> {
    let world = World::new()?;
    let token: JoinToken = world.cluster.token()?.parse()?;
    runtime()?.block_on(async {
        let channel = connect_to_join(&token).await?;
        let (mut admin, mut enrolment) = (AdminClient::new(channel.clone()), EnrolmentClient::new(channel.clone()));
        is_denied("Status", admin.status(StatusRequest {}).await)?;
        is_denied("ListNodes", ClusterClient::new(channel.clone()).list_nodes(ListNodesRequest {}).await)?;
        is_denied("Append", RaftClient::new(channel.clone()).append(AppendRequest::default()).await)?;
        is_denied("Ping", MetadataClient::new(channel).ping(PingRequest {}).await)?;
        is_denied("Renew", enrolment.renew(RenewRequest::default()).await)?;
        is_denied("FetchAuthority", enrolment.fetch_authority(FetchAuthorityRequest {}).await)?;
        let guess = JoinRequest { token: token.id().0, secret: vec![0; 16], ..JoinRequest::default() };
        is_denied("Join", enrolment.join(guess).await)
    })?;
    let refused = ["a call was refused", "peer=a stranger", "address=127.0.0.1:", "reason=not_allowed"];
    world.logged(&[&refused[..], &["/sterna.admin.v1.Admin/Status", "for administrators only"]].concat())?;
    world
        .logged(&[&refused[..], &["/sterna.node.v1.Raft/Append", "this is for nodes of the cluster only"]].concat())?;
    world.logged(&["a node was not let in", "there is no token", "reason=bad_token", "address=127.0.0.1:"])?;
    world.goes_on()
}

#[test]
fn certificates_of_other_authorities_and_expired_ones_are_refused() -> Result<()> {
    let world = World::new()?;
    let elsewhere = Authority::create(ClusterId::from_bytes([9; 16]))?;
    let impostor = Authority::create(world.authority.cluster())?;
    let anna = administrator("anna", Role::Admin);
    let brief = certified(&world.authority, &anna, Duration::from_secs(1))?;
    // Certificates know whole seconds: one is valid until the second is over in which it ends.
    while brief.not_after() + Duration::from_secs(1) >= std::time::SystemTime::now() {
        thread::sleep(Duration::from_millis(100));
    }
    let cases = [
        ("another cluster's administrator", certified(&elsewhere, &anna, DAY)?, "reason=other_authority"),
        ("another cluster's node", certified(&elsewhere, &Subject::Node(NodeId(1)), DAY)?, "reason=other_authority"),
        ("one that calls itself our authority", certified(&impostor, &anna, DAY)?, "reason=other_authority"),
        ("an expired one", brief, "reason=expired"),
    ];
    for (what, shown, reason) in cases {
        let (mut stream, address) = world.connect(Some(&shown))?;
        // In TLS 1.3 the calling end hears of it only now.
        let _ = stream.write_all(&[HTTP2_PREFACE, NO_SETTINGS].concat());
        let said = until_closed(stream)?;
        ensure!(said.is_empty(), "{what} was answered: {said:?}");
        world.logged(&["a connection was refused", reason, &format!("address={address}")])?;
    }
    world.goes_on()
}

#[test]
fn a_token_that_was_used_or_has_expired_lets_nobody_in() -> Result<()> {
    let world = World::new()?;
    let join = |token: &str, name: &str| {
        let data = world.directory.path().join(name);
        let args = ["--site", "icn", "--name", name, "--listen", "127.0.0.1:1", "--join", token];
        Tool::new(sterna()).args(["node", "init"]).args([data.as_os_str()]).args(args).run()
    };
    let token = world.cluster.token()?;
    ensure!(join(&token, "icn-1")?.status.success());
    is_refusal(&join(&token, "icn-2")?, 1, &["was used by node 2"])?;
    world.logged(&[
        "a node was not let in",
        "was used by node 2",
        "reason=bad_token",
        "address=127.0.0.1:",
        "'icn-2'",
    ])?;
    let short = world.node().value(["cluster", "token", "create", "--expires", "1s"])?;
    let expires = short["expires_at_ms"].as_u64().context("a time")?;
    while u128::from(expires) >= std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis() {
        thread::sleep(Duration::from_millis(100));
    }
    is_refusal(&join(short["token"].as_str().context("a token")?, "icn-3")?, 1, &["has expired"])?;
    world.logged(&["a node was not let in", "has expired", "reason=bad_token", "address=127.0.0.1:", "'icn-3'"])
}

/// Runs a command as an administrator of this role, whose file the world's authority signs.
fn command(world: &World, role: Role, args: &[&str]) -> Result<Ended> {
    let file = world.directory.path().join(format!("{role}.pem"));
    sterna_transport::store_administrator(
        &file,
        &world.credentials(&administrator("anna", role))?,
        world.cluster.address(0),
    )?;
    Tool::new(sterna()).args(["--identity"]).args([&file]).args(args).run()
}

#[test]
fn a_viewer_cannot_do_an_operators_work_nor_an_operator_an_admins() -> Result<()> {
    let world = World::new()?;
    let create = ["volume", "create", "disk", "--size", "64M"];
    is_refusal(&command(&world, Role::Viewer, &create)?, 1, &["role 'viewer' may not do this", "role 'operator'"])?;
    let refused = ["a call was refused", "address=127.0.0.1:", "reason=not_allowed"];
    world.logged(&[&refused[..], &["peer=viewer anna", "/sterna.admin.v1.Admin/CreateVolume"]].concat())?;
    ensure!(command(&world, Role::Operator, &create)?.status.success());
    is_refusal(&command(&world, Role::Viewer, &["volume", "delete", "disk"])?, 1, &["role 'viewer' may not do this"])?;
    ensure!(world.node().volumes()? == ["disk"]);

    let token = ["cluster", "token", "create"];
    is_refusal(&command(&world, Role::Operator, &token)?, 1, &["role 'operator' may not do this", "role 'admin'"])?;
    world.logged(&[&refused[..], &["peer=operator anna", "/sterna.cluster.v1.Cluster/CreateToken"]].concat())?;
    ensure!(command(&world, Role::Admin, &token)?.status.success());
    Ok(())
}

#[test]
fn an_operator_cannot_make_itself_an_admin() -> Result<()> {
    let world = World::new()?;
    let out = world.directory.path().join("more.pem").display().to_string();
    let args = ["cluster", "admin", "create", "anna", "--role", "admin", "--out", &out];
    is_refusal(&command(&world, Role::Operator, &args)?, 1, &["role 'operator' may not do this", "role 'admin'"])?;
    ensure!(!Path::new(&out).exists());
    world.logged(&["peer=operator anna", "reason=not_allowed", "/sterna.cluster.v1.Cluster/CreateAdministrator"])
}

#[test]
fn a_nodes_certificate_is_no_administrators_and_an_administrators_is_no_nodes() -> Result<()> {
    let world = World::new()?;
    let (node, unknown) = (Subject::Node(NodeId(1)), Subject::Node(NodeId(99)));
    let [node, unknown, anna] =
        [&node, &unknown, &administrator("anna", Role::Admin)].map(|who| world.credentials(who));
    let (node, unknown, anna) = (node?, unknown?, anna?);
    runtime()?.block_on(async {
        let address = world.cluster.address(0);
        let channel = connect_as_administrator(&node, address).await?;
        is_denied("Status", AdminClient::new(channel.clone()).status(StatusRequest {}).await)?;
        let channel = connect_as_administrator(&anna, address).await?;
        is_denied("Append", RaftClient::new(channel.clone()).append(AppendRequest::default()).await)?;
        is_denied("Propose", MetadataClient::new(channel.clone()).propose(ProposeRequest::default()).await)?;
        let mut enrolment = EnrolmentClient::new(channel);
        is_denied("FetchAuthority", enrolment.fetch_authority(FetchAuthorityRequest {}).await)?;
        // A node that was removed has a certificate still, and the metadata does not know it.
        let channel = connect_as_administrator(&unknown, address).await?;
        is_denied("Propose", MetadataClient::new(channel.clone()).propose(ProposeRequest::default()).await)?;
        is_denied("FetchAuthority", EnrolmentClient::new(channel).fetch_authority(FetchAuthorityRequest {}).await)
    })?;
    let refused = ["a call was refused", "address=127.0.0.1:", "reason=not_allowed"];
    world.logged(&[&refused[..], &["peer=node 1", "for administrators only"]].concat())?;
    world.logged(
        &[&refused[..], &["peer=admin anna", "/sterna.node.v1.Raft/Append", "nodes of the cluster only"]].concat(),
    )?;
    world.logged(&["peer=node 99", "127.0.0.1", "this is for nodes of the cluster only"])?;
    world.logged(&["the cluster's authority was not handed over", "node 99", "127.0.0.1"])?;
    world.goes_on()
}

#[test]
fn an_administrators_connection_ends_with_its_certificate() -> Result<()> {
    let world = World::new()?;
    let brief = certified(&world.authority, &administrator("anna", Role::Viewer), Duration::from_secs(5))?;
    let (mut stream, address) = world.connect(Some(&brief))?;
    stream.write_all(&[HTTP2_PREFACE, NO_SETTINGS].concat())?;
    ensure!(!until_closed(stream)?.is_empty(), "it was not heard while its certificate was valid");
    ensure!(brief.not_after() <= std::time::SystemTime::now(), "it was cut before its certificate had expired");
    world.logged(&["a connection was refused", "reason=outlived", &format!("address={address}")])
}

#[test]
fn messages_and_frames_that_are_too_long_are_refused() -> Result<()> {
    let world = World::new()?;
    let token: JoinToken = world.cluster.token()?.parse()?;
    let anna = world.credentials(&administrator("anna", Role::Admin))?;
    runtime()?.block_on(async {
        let long = "a".repeat(1 << 20);
        let mut stranger = EnrolmentClient::new(connect_to_join(&token).await?);
        let join = stranger.join(JoinRequest { name: long.clone(), ..JoinRequest::default() }).await;
        let code = join.err().map(|status| status.code());
        ensure!(code == Some(Code::OutOfRange), "a join of a MiB was answered with {code:?}");
        let channel = connect_as_administrator(&anna, world.cluster.address(0)).await?;
        let create = CreateVolumeRequest { name: long, ..CreateVolumeRequest::default() };
        let code = AdminClient::new(channel).create_volume(create).await.err().map(|status| status.code());
        ensure!(code == Some(Code::OutOfRange), "a volume's name of a MiB was answered with {code:?}");
        anyhow::Ok(())
    })?;
    let too_long = ["a call was refused", "reason=bad_message", "address=127.0.0.1:", "message length too large"];
    world.logged(&[&too_long[..], &["peer=a stranger", "Enrolment/Join"]].concat())?;
    world.logged(&[&too_long[..], &["peer=admin anna", "Admin/CreateVolume"]].concat())?;

    for shown in [None, Some(&anna)] {
        let (mut stream, address) = world.connect(shown)?;
        // A DATA frame of 16 MiB less one, and not what was agreed on: 16 KiB.
        stream.write_all(&[HTTP2_PREFACE, NO_SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat())?;
        let _ = stream.write_all(&[7; 4096]);
        until_closed(stream)?;
        world.logged(&["reason=broke_http2", "FRAME_SIZE_ERROR", &format!("address={address}")])?;
    }
    let mut local = UnixStream::connect(world.node().data().join("admin.sock"))?;
    local.set_read_timeout(Some(PATIENCE))?;
    local.write_all(&[HTTP2_PREFACE, NO_SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat())?;
    until_closed(local)?;
    world.logged(&["reason=broke_http2", "FRAME_SIZE_ERROR", "address=the admin socket"])?;

    let mut local = UnixStream::connect(world.node().data().join("admin.sock"))?;
    local.write_all(&grpc_call("/sterna.admin.v1.Admin/CreateVolume", 1 << 20))?;
    world.logged(&["reason=bad_message", "address=the admin socket", "message length too large"])?;
    world.goes_on()
}

/// A call of gRPC by hand, with a message of so many bytes: the preface, settings, a HEADERS frame, and as much as is allowed at once.
fn grpc_call(path: &str, message_bytes: u32) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let literal = |name: &str, value: &str| {
        let text = |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
        [vec![0], text(name), text(value)].concat()
    };
    let headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "node")];
    let more = [("content-type", "application/grpc"), ("te", "trailers")];
    let headers: Vec<u8> = headers.into_iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect();
    let message = [&[0][..], &message_bytes.to_be_bytes(), &[7; 100]].concat();
    [HTTP2_PREFACE, NO_SETTINGS, &frame(1, 4, 1, &headers), &frame(0, 0, 1, &message)].concat()
}

/// What is neither TLS, nor HTTP/2, nor NBD.
const GARBAGE: &[u8] = b"GET / HTTP/1.1\r\nhost: sterna\r\n\r\n\xff\xfe\0\0\0\0\0\0\0\0\0\0";

#[test]
fn garbage_is_cut_on_every_port() -> Result<()> {
    let world = World::new()?;
    let mut plain = TcpStream::connect(world.cluster.address(0))?;
    plain.set_read_timeout(Some(PATIENCE))?;
    let address = plain.local_addr()?;
    plain.write_all(GARBAGE)?;
    ensure!(!until_closed(plain)?.starts_with(b"HTTP"), "a stranger was answered without TLS");
    world.logged(&["a connection was refused", "reason=not_tls", &format!("address={address}")])?;

    let anna = world.credentials(&administrator("anna", Role::Admin))?;
    for shown in [None, Some(&anna)] {
        let (mut stream, address) = world.connect(shown)?;
        stream.write_all(GARBAGE)?;
        until_closed(stream)?;
        world.logged(&["reason=not_http2", &format!("address={address}")])?;
        // HTTP/2 as far as its preface, and then a window that grows by nothing, for no stream.
        let (mut stream, address) = world.connect(shown)?;
        stream.write_all(&[HTTP2_PREFACE, NO_SETTINGS, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat())?;
        until_closed(stream)?;
        world.logged(&["reason=broke_http2", "PROTOCOL_ERROR", &format!("address={address}")])?;
    }
    for (bytes, reason) in [(GARBAGE, "reason=not_http2"), (&[0; 64], "reason=not_http2")] {
        let mut local = UnixStream::connect(world.node().data().join("admin.sock"))?;
        local.set_read_timeout(Some(PATIENCE))?;
        local.write_all(bytes)?;
        until_closed(local)?;
        world.logged(&[reason, "address=the admin socket"])?;
    }
    let mut disk = UnixStream::connect(world.node().nbd_socket())?;
    disk.set_read_timeout(Some(PATIENCE))?;
    disk.write_all(GARBAGE)?;
    until_closed(disk)?;
    world.logged(&["a connection was cut", "client=this machine", "flags that were not offered"])?;
    world.goes_on()
}

/// Sends a byte now and then until the other end has had enough.
fn drip(mut stream: impl Read + Write, bytes: &[u8]) -> Result<()> {
    for byte in bytes.iter().cycle().take(PATIENCE.as_secs().try_into()?) {
        if stream.write_all(&[*byte]).is_err() || stream.flush().is_err() {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(1));
    }
    bail!("somebody was listened to for {PATIENCE:?} who sent one byte in a second")
}

#[test]
fn whoever_is_slow_is_cut_on_every_port_and_holds_up_nobody() -> Result<()> {
    let world = World::new()?;
    let address = world.cluster.address(0);
    // The beginning of a ClientHello of 512 bytes, of HTTP/2's preface, and of an option after NBD's client flags.
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    let nbd = [&[0, 0, 0, 3][..], &option_bytes(option::LIST, &[0; 100])].concat();
    let tcp = TcpStream::connect(address)?;
    let slow_at = tcp.local_addr()?;
    let (encrypted, silent_at) = world.connect(None)?;
    let [admin, silent, disk] =
        ["admin.sock", "admin.sock", "nbd.sock"].map(|name| UnixStream::connect(world.node().data().join(name)));
    let silent = silent?;
    silent.set_read_timeout(Some(PATIENCE))?;
    let admin = admin?;
    let disk = disk?;
    thread::scope(|scope| {
        let slow = [
            scope.spawn(|| drip(tcp, &hello)),
            scope.spawn(|| drip(encrypted, HTTP2_PREFACE)),
            scope.spawn(|| drip(admin, HTTP2_PREFACE)),
            scope.spawn(|| drip(disk, &nbd)),
            scope.spawn(|| until_closed(silent).map(drop)),
        ];
        world.goes_on()?;
        slow.into_iter().try_for_each(|slow| slow.join().expect("it does not panic"))
    })?;
    world.logged(&["a connection was refused", "reason=too_slow", &format!("address={slow_at}")])?;
    world.logged(&["a connection was refused", "reason=silent", &format!("address={silent_at}")])?;
    world.logged(&["a connection was refused", "reason=silent", "address=the admin socket"])?;
    world.logged(&["a connection was cut", "client=this machine", "the handshake was not over"])?;
    world.goes_on()
}

#[test]
fn many_that_begin_and_never_end_keep_nobody_out_who_comes_from_elsewhere() -> Result<()> {
    const MANY: usize = 400;
    let world = World::new()?;
    let runtime = runtime()?;
    // From an address of their own, as far as this machine has several.
    let many = runtime.block_on(async {
        let mut many = Vec::new();
        for _ in 0..MANY {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
            many.push(socket.connect(world.cluster.address(0)).await?);
        }
        anyhow::Ok(many)
    })?;
    world.goes_on()?;
    world.logged(&["a connection was refused", "reason=too_many_from_address", "address=127.0.0.2:"])?;
    drop(many);
    world.goes_on()
}
