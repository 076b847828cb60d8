//! STARTTLS: with libnbd (GnuTLS), QEMU (GnuTLS) and a raw client (rustls), in each of the server's three ways to use it.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_nbd_server::wire::{option, option_reply as rep, transmission_flag};
use sterna_tests::certificates::{Authority, Identity, Role};
use sterna_tests::client::{Client, Request, Style, export_request, meta_query, option_bytes};
use sterna_tests::server::{Builder, Server};
use sterna_tests::tool::{Ended, Tool};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

const MIB: u64 = 1 << 20;

/// An authority with a server's identity, directories as clients want them, and the same of a stranger.
struct World {
    directory: TempDir,
    server: Identity,
}

impl World {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (ours, strangers) = (Authority::new("ours")?, Authority::new("a stranger's")?);
        let server = ours.identity(Role::Server, &directory.path().join("server"))?;
        let world = Self { directory, server };
        ours.publish(&world.path("anonymous"))?;
        ours.publish(&world.path("known"))?;
        ours.identity(Role::Client, &world.path("known"))?;
        // Trusts our server, and is not trusted by it.
        ours.publish(&world.path("unknown"))?;
        strangers.identity(Role::Client, &world.path("unknown"))?;
        // Trusts somebody else's servers.
        strangers.publish(&world.path("misled"))?;
        Ok(world)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// A server with our identity.
    fn builder(&self) -> Builder {
        Server::builder().tls(&self.server.certificate, &self.server.key)
    }

    fn client_ca(&self) -> String {
        self.path("known").join("ca-cert.pem").display().to_string()
    }

    /// A client's configuration out of a directory.
    fn config(&self, who: &str, versions: &[&'static SupportedProtocolVersion]) -> Result<Arc<ClientConfig>> {
        let directory = self.path(who);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(directory.join("ca-cert.pem"))?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(versions)?.with_root_certificates(roots);
        let certificate = directory.join("client-cert.pem");
        Ok(Arc::new(if certificate.exists() {
            let key = PrivateKeyDer::from_pem_file(directory.join("client-key.pem"))?;
            builder.with_client_auth_cert(vec![CertificateDer::from_pem_file(certificate)?], key)?
        } else {
            builder.with_no_client_auth()
        }))
    }

    /// Goes on over TLS with a client whose STARTTLS was acknowledged.
    fn secured(&self, client: Client<UnixStream>, who: &str) -> Result<Secure> {
        secure(client, self.config(who, &[&TLS13, &TLS12])?)
    }
}

type Secure = Client<StreamOwned<ClientConnection, UnixStream>>;

fn secure(client: Client<UnixStream>, config: Arc<ClientConfig>) -> Result<Secure> {
    let mut stream = client.into_link();
    let mut session = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(Client::over(StreamOwned::new(session, stream)))
}

/// A client whose STARTTLS was acknowledged.
fn starting(server: &Server) -> Result<Client<UnixStream>> {
    let mut client = server.client()?;
    ensure!(client.outcome(option::STARTTLS, &[])? == rep::ACK, "STARTTLS was refused");
    Ok(client)
}

/// The URI for libnbd with the certificates of a directory.
fn tls_uri(server: &Server, export: &str, certificates: &Path) -> String {
    let socket = server.socket().display().to_string();
    format!("nbds+unix:///{export}?socket={socket}&tls-certificates={}", certificates.display())
}

/// The same over TCP.
fn tls_tcp_uri(server: &Server, export: &str, certificates: &Path) -> String {
    let uri = server.tcp_uri(export).replace("nbd:", "nbds:");
    format!("{uri}?tls-certificates={}", certificates.display())
}

fn nbdinfo(uri: &str) -> Result<Ended> {
    Tool::new("nbdinfo").args(["--json", uri]).run()
}

/// qemu-io over TCP with the certificates of a directory.
fn qemu_io(server: &Server, export: &str, certificates: &Path, commands: &[&str]) -> Result<Ended> {
    let address = server.tcp_uri(export);
    let port = address.rsplit(':').next().and_then(|rest| rest.split('/').next()).context("a port")?.to_owned();
    let credentials = format!("tls-creds-x509,id=tls0,dir={},endpoint=client,verify-peer=yes", certificates.display());
    let image = format!("driver=nbd,host=127.0.0.1,port={port},export={export},tls-creds=tls0");
    let fixed = ["--trace", "nbd_*", "--object", &credentials, "--image-opts", &image, "-t", "writeback"];
    Tool::new("qemu-io").args(fixed).args(commands.iter().flat_map(|command| ["-c", command])).run()
}

#[test]
fn libnbd_is_served_over_tls() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().file("disk", 64 * MIB).tcp().start()?;
    let uri = tls_uri(&server, "disk", &world.path("anonymous"));
    let told = nbdinfo(&uri)?;
    let json: Value = serde_json::from_str(&told.stdout).with_context(|| told.to_string())?;
    assert_eq!(json["TLS"], true);
    assert_eq!(json["exports"][0]["export-size"], 64 * MIB);
    let told = nbdinfo(&tls_tcp_uri(&server, "disk", &world.path("anonymous")))?;
    ensure!(told.stdout.contains("\"TLS\": true"), "over TCP, where the certificate's name counts: {told}");
    let (from, back) = (server.path("from"), server.path("back"));
    fs::write(&from, (0..20 * MIB).map(|at| (at >> 9).to_le_bytes()[0]).collect::<Vec<u8>>())?;
    let wide = ["-C", "4", "-T", "4", "-R", "16", "--flush"];
    Tool::new("nbdcopy").args(wide).args([&from.display().to_string(), &uri]).succeed()?;
    Tool::new("nbdcopy").args(wide).args([&uri, &back.display().to_string()]).succeed()?;
    assert!(fs::read(&back)?[..20 << 20] == fs::read(&from)?, "what was copied out differs");
    server.terminate()?;
    Ok(())
}

#[test]
fn qemu_is_served_over_tls() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().file("disk", 64 * MIB).tcp().start()?;
    let session = [
        "write -P 0x5a 1M 33M",
        "read -P 0x5a 1M 33M",
        "write -z -u 2M 1M",
        "read -P 0 2M 1M",
        "flush",
        "discard 4M 1M",
    ];
    let ended = qemu_io(&server, "disk", &world.path("anonymous"), &session)?;
    ensure!(ended.code()? == 0, "{ended}");
    for event in ["Received option reply 5 (starttls), type 1 (ack)", "reply 11 (extended headers), type 1 (ack)"] {
        ensure!(ended.stderr.contains(event), "not in the trace: {event}\n{ended}");
    }
    ensure!(!ended.stderr.contains("compliance"), "{ended}");
    assert!(fs::read(server.path("disk"))?[3 << 20..4 << 20].iter().all(|&byte| byte == 0x5a));
    Ok(())
}

#[test]
fn where_tls_is_required_nothing_else_is_said_without_it() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().memory("disk", "1M").start()?;
    let plain = nbdinfo(&server.uri("disk"))?;
    ensure!(plain.code()? != 0, "{plain}");
    let mut client = server.client()?;
    let go = export_request("disk", &[]);
    for (option, data) in [
        (option::LIST, &[][..]),
        (option::INFO, &go),
        (option::GO, &go),
        (option::STRUCTURED_REPLY, &[]),
        (option::EXTENDED_HEADERS, &[]),
        (option::LIST_META_CONTEXT, &meta_query("disk", &[])),
        (option::SET_META_CONTEXT, &meta_query("disk", &["base:allocation"])),
        (4, &[]),
        (99, &[1; 5000]),
    ] {
        assert_eq!(client.outcome(option, data)?, rep::ERR_TLS_REQD, "option {option}");
    }
    assert_eq!(client.outcome(option::STARTTLS, b"x")?, rep::ERR_INVALID);
    assert_eq!(client.outcome(option::STARTTLS, &[])?, rep::ACK);
    let mut client = world.secured(client, "anonymous")?;
    assert_eq!(client.attach(Style::Extended, &["base:allocation"], "disk")?.size_bytes, MIB);
    assert_eq!(client.call(Request::write(0, vec![1; 512]))?.error(), 0);
    let mut by_name = server.client()?;
    by_name.say(&option_bytes(option::EXPORT_NAME, b"disk"))?;
    assert_eq!(by_name.until_closed()?, b"");
    let mut hasty = server.client()?;
    assert_eq!(hasty.outcome(option::ABORT, &[])?, rep::ACK);
    Ok(())
}

#[test]
fn where_tls_is_offered_an_export_can_insist_on_it() -> Result<()> {
    let world = World::new()?;
    let builder = world.builder().arg("--tls").arg("offered").arg("--tls-only").arg("secret");
    let server = builder.memory("open", "1M").memory("secret", "2M").start()?;
    let mut plain = server.client()?;
    assert_eq!(plain.option(option::LIST, &[])?.len(), 2, "one export, and the end");
    for option in [option::INFO, option::GO] {
        assert_eq!(plain.outcome(option, &export_request("secret", &[]))?, rep::ERR_TLS_REQD);
        let missing = plain.outcome(option, &export_request("missing", &[]))?;
        assert_eq!(missing, rep::ERR_TLS_REQD, "who has no TLS cannot tell a hidden export from none");
    }
    assert_eq!(plain.attach(Style::Simple, &[], "open")?.size_bytes, MIB);
    let mut by_name = server.client()?;
    by_name.say(&option_bytes(option::EXPORT_NAME, b"secret"))?;
    assert_eq!(by_name.until_closed()?, b"");
    let mut encrypted = world.secured(starting(&server)?, "anonymous")?;
    assert_eq!(encrypted.option(option::LIST, &[])?.len(), 3, "two exports, and the end");
    assert_eq!(encrypted.outcome(option::INFO, &export_request("missing", &[]))?, rep::ERR_UNKNOWN);
    assert_eq!(encrypted.attach(Style::Structured, &[], "secret")?.size_bytes, 2 * MIB);
    assert_eq!(encrypted.call(Request::read(0, 512))?.data(), [0; 512]);
    let listed = Tool::new("nbdinfo").args(["--list", &format!("nbd+unix:///?socket={}", server.socket().display())]);
    let listed = listed.succeed()?;
    ensure!(listed.stdout.contains("open") && !listed.stdout.contains("secret"), "{listed}");
    ensure!(nbdinfo(&server.uri("secret"))?.code()? != 0, "a plain client was served");
    let told = nbdinfo(&tls_uri(&server, "secret", &world.path("anonymous")))?;
    ensure!(told.stdout.contains("\"export-size\": 2097152"), "{told}");
    Ok(())
}

#[test]
fn a_client_needs_a_certificate_of_the_right_authority_where_one_is_named() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().arg("--tls-client-ca").arg(&world.client_ca()).memory("disk", "1M").tcp().start()?;
    for (who, served) in [("known", true), ("unknown", false), ("anonymous", false)] {
        let libnbd = nbdinfo(&tls_uri(&server, "disk", &world.path(who)))?;
        assert_eq!(libnbd.code()? == 0, served, "{who}: {libnbd}");
        let qemu = qemu_io(&server, "disk", &world.path(who), &["read -P 0 0 4k"])?;
        assert_eq!(qemu.code()? == 0, served, "{who}: {qemu}");
        // With TLS 1.3 a client learns only afterwards that it was refused.
        let raw = world.secured(starting(&server)?, who).and_then(|mut client| {
            client.attach(Style::Simple, &[], "disk")?;
            Ok(client.call(Request::read(0, 512))?.error())
        });
        assert_eq!(raw.is_ok(), served, "{who}: {raw:?}");
    }
    let ended = server.terminate()?;
    // Five, not six: QEMU does not even try an identity that is not of the authority it trusts itself.
    assert_eq!(ended.log.matches("TLS could not be set up").count(), 5, "{}", ended.log);
    Ok(())
}

#[test]
fn a_client_that_trusts_others_refuses_us_and_we_live_on() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().memory("disk", "1M").tcp().start()?;
    // Over TCP, because libnbd checks no certificate where the URI names no host.
    let libnbd = nbdinfo(&tls_tcp_uri(&server, "disk", &world.path("misled")))?;
    ensure!(libnbd.code()? != 0 && libnbd.stderr.contains("certificate"), "{libnbd}");
    let qemu = qemu_io(&server, "disk", &world.path("misled"), &["read 0 4k"])?;
    ensure!(qemu.code()? != 0 && qemu.stderr.contains("certificate"), "{qemu}");
    ensure!(world.secured(starting(&server)?, "misled").is_err(), "rustls trusts a stranger");
    assert_eq!(nbdinfo(&tls_tcp_uri(&server, "disk", &world.path("anonymous")))?.code()?, 0);
    Ok(())
}

#[test]
fn what_was_negotiated_before_tls_does_not_count_after_it() -> Result<()> {
    let world = World::new()?;
    for before in [option::STRUCTURED_REPLY, option::EXTENDED_HEADERS] {
        let server = world.builder().arg("--tls").arg("offered").memory("disk", "1M").start()?;
        let mut plain = server.client()?;
        let query = meta_query("disk", &["base:allocation"]);
        assert_eq!(plain.outcome(before, &[])?, rep::ACK);
        assert_eq!(plain.outcome(option::SET_META_CONTEXT, &query)?, rep::ACK);
        assert_eq!(plain.outcome(option::STARTTLS, &[])?, rep::ACK);
        let mut client = world.secured(plain, "anonymous")?;
        assert_eq!(client.outcome(option::SET_META_CONTEXT, &query)?, rep::ERR_INVALID, "no chunks, no contexts");
        let described = client.go(Style::Simple, "disk")?;
        assert_eq!(described.flags & transmission_flag::SEND_DF, 0, "no chunks, no DF");
        assert_eq!(described.flags & transmission_flag::BLOCK_STATUS_PAYLOAD, 0);
        // The client checks the style: a chunk, or an extended header, would be an error here.
        assert_eq!(client.call(Request::read(0, 4096))?.data(), [0; 4096]);
        assert_eq!(client.call(Request::status(0, 4096))?.error(), 22);
    }
    let server = world.builder().arg("--tls").arg("offered").memory("disk", "1M").start()?;
    let mut plain = server.client()?;
    assert_eq!(plain.outcome(option::STRUCTURED_REPLY, &[])?, rep::ACK);
    assert_eq!(plain.outcome(option::SET_META_CONTEXT, &meta_query("disk", &["base:allocation"]))?, rep::ACK);
    assert_eq!(plain.outcome(option::STARTTLS, &[])?, rep::ACK);
    let mut client = world.secured(plain, "anonymous")?;
    client.attach(Style::Structured, &[], "disk")?;
    assert_eq!(client.call(Request::status(0, 4096))?.error(), 22, "the contexts are forgotten too");
    Ok(())
}

#[test]
fn tls_is_started_once() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().memory("disk", "1M").start()?;
    let mut client = world.secured(starting(&server)?, "anonymous")?;
    assert_eq!(client.outcome(option::STARTTLS, &[])?, rep::ERR_INVALID);
    assert_eq!(client.outcome(option::STARTTLS, b"x")?, rep::ERR_INVALID);
    client.attach(Style::Simple, &[], "disk")?;
    assert_eq!(client.call(Request::read(0, 512))?.error(), 0);
    Ok(())
}

#[test]
fn bytes_in_the_clear_behind_starttls_cut_the_connection() -> Result<()> {
    let world = World::new()?;
    for mode in ["required", "offered"] {
        let server = world.builder().arg("--tls").arg(mode).memory("disk", "1M").start()?;
        let injected = [
            option_bytes(option::LIST, &[]),
            option_bytes(option::GO, &export_request("disk", &[])),
            b"\x16\x03\x01".to_vec(),
            vec![0],
        ];
        for behind in &injected {
            let mut client = server.client()?;
            client.say(&[option_bytes(option::STARTTLS, &[]), behind.clone()].concat())?;
            let reply = client.option_reply()?;
            assert_eq!((reply.option, reply.kind), (option::STARTTLS, rep::ACK));
            assert_eq!(client.until_closed()?, b"", "{behind:?}");
        }
        let ended = server.terminate()?;
        assert_eq!(ended.log.matches("bytes in the clear behind STARTTLS").count(), injected.len(), "{}", ended.log);
    }
    Ok(())
}

#[test]
fn what_is_not_tls_behind_starttls_cuts_the_connection() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().memory("disk", "1M").start()?;
    let mut stream = starting(&server)?.into_link();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    Client::over(stream).until_closed()?;
    let mut silent = starting(&server)?;
    assert_eq!(silent.until_closed()?, b"", "a silent client is cut in the middle of TLS too");
    let ended = server.terminate()?;
    assert_eq!(ended.counter("handshakes_failed")?, 2, "{}", ended.log);
    assert!(ended.log.contains("TLS could not be set up") && ended.log.contains("the handshake was not over"));
    Ok(())
}

#[test]
fn tls_1_2_and_1_3_are_spoken() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().memory("disk", "64M").start()?;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = world.config("anonymous", &[version])?;
        let mut client = secure(starting(&server)?, config)?;
        assert_eq!(client.link().conn.protocol_version(), Some(expected));
        client.attach(Style::Structured, &[], "disk")?;
        let payload: Vec<u8> = (0..32 * MIB).map(|at| (at >> 10).to_le_bytes()[0]).collect();
        assert_eq!(client.call(Request::write(MIB, payload.clone()))?.error(), 0);
        assert!(client.call(Request::read(MIB, 32 * MIB))?.data() == payload, "{expected:?}");
    }
    Ok(())
}

#[test]
fn older_versions_of_tls_are_not_spoken() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().memory("disk", "1M").start()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("nbdsh").join("old_tls.py");
    let socket = server.socket().display().to_string();
    let run = |version: &str| {
        Tool::new("/usr/bin/python3").args([script.display().to_string().as_str(), &socket, version]).run()
    };
    let modern = run("TLSv1_2")?;
    ensure!(modern.code()? == 0 && modern.stdout.contains("TLSv1.2"), "{modern}");
    let old = run("TLSv1_1")?;
    ensure!(old.code()? == 3, "TLS 1.1 was spoken, or not even tried: {old}");
    Ok(())
}

#[test]
fn a_terminated_server_says_good_bye_over_tls() -> Result<()> {
    let world = World::new()?;
    let server = world.builder().memory("disk", "1M").start()?;
    let mut client = world.secured(starting(&server)?, "anonymous")?;
    client.attach(Style::Structured, &[], "disk")?;
    assert_eq!(client.call(Request::read(0, 512))?.error(), 0);
    server.terminate()?;
    // rustls takes an end without close_notify for an error; `until_closed` forgives that, this does not.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut client.into_link(), &mut rest).context("the end was not announced")?;
    assert_eq!(rest, b"");
    Ok(())
}
