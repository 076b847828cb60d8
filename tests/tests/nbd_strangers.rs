//! NBD over TCP: off without certificates on both sides, and then for those whom the access list means. What strangers try is refused,
//! with a line in the log that says why and who it was.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sterna_nbd_server::wire::{command, option, option_reply as rep, transmission_flag};
use sterna_tests::certificates::{Authority, Role, Validity};
use sterna_tests::client::{Client, Request, Style, export_request, option_bytes};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::tool::{Ended, Tool, until};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(60);
const EPERM: u32 = 1;

/// A node that serves `web-1`, `web-2` and `db-1` over TCP: to `h1.example` the first two, to `backup.example` all, for reading.
struct World {
    node: Node,
    address: SocketAddr,
    directory: TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let (servers, clients, strangers) = (Authority::new("s")?, Authority::new("c")?, Authority::new("others")?);
        let server = servers.identity(Role::Server, &at("server"))?;
        let client_ca = clients.publish(&at("clients"))?;
        for (who, authority, names, validity) in [
            ("h1", &clients, &["h1.example"][..], Validity::Now),
            ("backup", &clients, &["backup.example", "x.example"][..], Validity::Now),
            ("nobody", &clients, &["h2.example"][..], Validity::Now),
            ("wild", &clients, &["*.example"][..], Validity::Now),
            ("expired", &clients, &["h1.example"][..], Validity::Over),
            ("stranger", &strangers, &["h1.example"][..], Validity::Now),
        ] {
            servers.publish(&at(who))?;
            authority.named_identity(Role::Client, names, validity, &at(who))?;
        }
        servers.publish(&at("anonymous"))?;
        let mut node = Node::init(directory.path())?.log_level("info");
        let settings = format!(
            "[nbd]\nlisten = [\"127.0.0.1:0\"]\n[nbd.tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n[nbd.access]\n\
             \"web-*\" = {{ read_write = [\"h1.example\"] }}\n\"*\" = {{ read_only = [\"backup.example\"] }}\n",
            server.certificate, server.key, client_ca
        );
        fs::write(node.data().join("sterna.toml"), settings)?;
        node.run()?;
        for volume in ["web-1", "web-2", "db-1"] {
            node.create(volume, 64 << 20)?;
        }
        let status = node.value(["cluster", "status"])?;
        let uris = status["nbd_addresses"].as_array().context("addresses")?;
        let tcp = uris.iter().filter_map(Value::as_str).find_map(|uri| uri.strip_prefix("nbd://"));
        let address = tcp.and_then(|rest| rest.trim_end_matches('/').parse().ok()).context("a TCP address")?;
        Ok(Self { node, address, directory })
    }

    fn certificates(&self, who: &str) -> PathBuf {
        self.directory.path().join(who)
    }

    /// What nbdinfo says as one of those who have certificates.
    fn nbdinfo(&self, who: &str, export: &str, args: &[&str]) -> Result<Ended> {
        let port = self.address.port();
        let uri = format!("nbds://127.0.0.1:{port}/{export}?tls-certificates={}", self.certificates(who).display());
        Tool::new("nbdinfo").args(args).args([uri]).run()
    }

    fn tcp(&self) -> Result<(TcpStream, SocketAddr)> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let address = stream.local_addr()?;
        Ok((stream, address))
    }

    /// A raw client behind STARTTLS.
    fn secured(&self, who: &str) -> Result<(Client<StreamOwned<ClientConnection, TcpStream>>, SocketAddr)> {
        let (stream, address) = self.tcp()?;
        let mut client = Client::greet(stream)?;
        ensure!(client.outcome(option::STARTTLS, &[])? == rep::ACK);
        let mut stream = client.into_link();
        let directory = self.certificates(who);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(directory.join("ca-cert.pem"))?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let certificate = CertificateDer::from_pem_file(directory.join("client-cert.pem"))?;
        let key = PrivateKeyDer::from_pem_file(directory.join("client-key.pem"))?;
        let config = Arc::new(builder.with_client_auth_cert(vec![certificate], key)?);
        let mut session = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok((Client::over(StreamOwned::new(session, stream)), address))
    }

    fn logged(&self, words: &[&str]) -> Result<()> {
        let has_it = || Ok(self.node.log().lines().any(|line| words.iter().all(|word| line.contains(word))));
        ensure!(until(PATIENCE, has_it)?, "no line of the log has {words:?}: {}", self.node.log());
        Ok(())
    }

    fn goes_on(&self) -> Result<()> {
        let served = self.nbdinfo("h1", "web-1", &["--size"])?;
        ensure!(served.stdout.trim() == (64u64 << 20).to_string(), "{served}");
        Ok(())
    }
}

#[test]
fn over_tcp_each_client_gets_what_the_access_list_gives_it() -> Result<()> {
    let world = World::new()?;
    let (mut owner, _) = world.secured("h1")?;
    owner.attach(Style::Structured, &[], "web-1")?;
    ensure!(owner.call(Request::write(0, vec![7; 4096]))?.error() == 0);
    ensure!(owner.call(Request::flush())?.error() == 0);

    // The backup reads what was written, and may not write.
    let (mut backup, _) = world.secured("backup")?;
    let described = backup.attach(Style::Structured, &[], "web-1")?;
    ensure!(described.flags & transmission_flag::READ_ONLY != 0, "the backup was not told that it may only read");
    ensure!(backup.call(Request::read(0, 4096))?.data() == [7; 4096]);
    ensure!(backup.call(Request::write(0, vec![8; 4096]))?.error() == EPERM);

    let listed = |who: &str| -> Result<Vec<String>> {
        let told = world.nbdinfo(who, "", &["--list", "--json"])?;
        let told: Value = serde_json::from_str(&told.stdout).with_context(|| told.to_string())?;
        let exports = told["exports"].as_array().context("a list")?;
        let mut names: Vec<_> =
            exports.iter().filter_map(|export| Some(export["export-name"].as_str()?.to_owned())).collect();
        names.sort_unstable();
        Ok(names)
    };
    ensure!(listed("h1")? == ["web-1", "web-2"]);
    ensure!(listed("backup")? == ["db-1", "web-1", "web-2"]);

    // On the machine itself the socket's permission decides, and nothing is encrypted.
    let (mut local, _) = world.node.disk("db-1").attach(Style::Structured)?;
    ensure!(local.call(Request::write(0, vec![1; 512]))?.error() == 0);
    Ok(())
}

#[test]
fn an_export_that_the_access_list_does_not_give_is_refused_and_not_listed() -> Result<()> {
    let world = World::new()?;
    for (who, export, name) in
        [("h1", "db-1", "h1.example"), ("nobody", "web-1", "h2.example"), ("wild", "web-1", "without a DNS name")]
    {
        let (mut client, address) = world.secured(who)?;
        ensure!(
            client.outcome(option::GO, &export_request(export, &[]))? == rep::ERR_UNKNOWN,
            "{who} was given {export}"
        );
        // One that is not there looks the same.
        ensure!(client.outcome(option::GO, &export_request("missing", &[]))? == rep::ERR_UNKNOWN);
        let volume = format!("volume={export}");
        world.logged(&["a client was refused", "[nbd.access]", &volume, &format!("{address} ({name})")])?;
        let refused = world.nbdinfo(who, export, &["--size"])?;
        ensure!(refused.code()? != 0, "{refused}");
    }
    let (mut nobody, _) = world.secured("nobody")?;
    ensure!(nobody.option(option::LIST, &[])?.len() == 1, "something was listed that is not given");
    world.goes_on()
}

#[test]
fn plain_nbd_to_a_tls_export_is_refused() -> Result<()> {
    let world = World::new()?;
    let (stream, address) = world.tcp()?;
    let mut client = Client::greet(stream)?;
    for option in [option::GO, option::INFO] {
        ensure!(client.outcome(option, &export_request("web-1", &[]))? == rep::ERR_TLS_REQD);
    }
    ensure!(client.outcome(option::LIST, &[])? == rep::ERR_TLS_REQD);
    drop(client);
    world.logged(&["a client was refused", "does not use TLS", &format!("client={address}")])?;
    let (stream, address) = world.tcp()?;
    let mut by_name = Client::greet(stream)?;
    by_name.say(&option_bytes(option::EXPORT_NAME, b"web-1"))?;
    ensure!(by_name.until_closed()?.is_empty());
    world.logged(&["a client was refused", "does not use TLS", &format!("client={address}")])?;
    let plain = Tool::new("nbdinfo").args([format!("nbd://127.0.0.1:{}/web-1", world.address.port())]).run()?;
    ensure!(plain.code()? != 0, "{plain}");
    world.goes_on()
}

#[test]
fn clients_without_a_certificate_of_their_authority_are_refused() -> Result<()> {
    let world = World::new()?;
    let refused = world.nbdinfo("anonymous", "web-1", &["--size"])?;
    ensure!(refused.code()? != 0, "{refused}");
    world.logged(&["a connection was cut", "TLS could not be set up", "no certificates", "client=127.0.0.1:"])?;
    for (who, reason) in [("stranger", "UnknownIssuer"), ("expired", "expired")] {
        // In TLS 1.3 the client hears of it only once it asks for something.
        let (mut client, address) = world.secured(who)?;
        ensure!(client.attach(Style::Simple, &[], "web-1").is_err(), "{who} was served");
        world.logged(&["a connection was cut", "TLS could not be set up", reason, &format!("client={address}")])?;
        ensure!(world.nbdinfo(who, "web-1", &["--size"])?.code()? != 0, "{who} was served");
    }
    world.goes_on()
}

#[test]
fn over_tcp_nothing_is_served_without_certificates_and_a_list() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::init(directory.path())?;
    for (settings, words) in [
        ("[nbd]\nlisten = [\"127.0.0.1:0\"]\n", ["nbd.listen", "[nbd.tls]"]),
        ("[nbd]\nlisten = [\"127.0.0.1:0\"]\n[nbd.tls]\ncertificate = \"c\"\nkey = \"k\"\n", ["nbd.tls", "client_ca"]),
    ] {
        fs::write(node.data().join("sterna.toml"), settings)?;
        let before = node.log().len();
        ensure!(node.run().is_err(), "a node ran with {settings}");
        let log = node.log();
        ensure!(words.iter().all(|word| log[before..].contains(word)), "{log}");
    }
    Ok(())
}

#[test]
fn requests_and_options_that_are_too_long_are_refused() -> Result<()> {
    let world = World::new()?;
    let (mut long, address) = world.secured("h1")?;
    long.attach(Style::Simple, &[], "web-1")?;
    long.send(Request::new(command::WRITE, 0, (32 << 20) + 1).flags(0))?;
    ensure!(long.until_closed()?.is_empty());
    world.logged(&[
        "a connection was cut",
        "announced a payload of 33554433 bytes",
        &format!("client={address} (h1"),
    ])?;

    let (mut local, _) = world.node.disk("web-1").attach(Style::Simple)?;
    local.send(Request::new(command::WRITE, 0, (32 << 20) + 1).flags(0))?;
    ensure!(local.until_closed()?.is_empty());
    world.logged(&["a connection was cut", "announced a payload of 33554433 bytes", "client=this machine"])?;

    // An option of more than 64 KiB is read past, never kept, and refused; before TLS it is refused as any other.
    let (stream, _) = world.tcp()?;
    let mut plain = Client::greet(stream)?;
    ensure!(plain.outcome(option::GO, &vec![1; 1 << 20])? == rep::ERR_TLS_REQD);
    let (mut encrypted, _) = world.secured("h1")?;
    ensure!(encrypted.outcome(option::GO, &vec![1; 1 << 20])? == rep::ERR_TOO_BIG);
    ensure!(encrypted.outcome(option::GO, &export_request("missing", &[]))? == rep::ERR_UNKNOWN);
    world.goes_on()
}

#[test]
fn garbage_is_cut_before_tls_and_behind_it() -> Result<()> {
    let world = World::new()?;
    let (mut stream, address) = world.tcp()?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    Client::over(stream).until_closed()?;
    world.logged(&["a connection was cut", "flags that were not offered", &format!("client={address}")])?;
    let (stream, address) = world.tcp()?;
    let mut client = Client::greet(stream)?;
    client.say(&[7; 16])?;
    client.until_closed()?;
    world.logged(&["a connection was cut", "where an option begins", &format!("client={address}")])?;
    let (stream, address) = world.tcp()?;
    let mut client = Client::greet(stream)?;
    ensure!(client.outcome(option::STARTTLS, &[])? == rep::ACK);
    let mut stream = client.into_link();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    Client::over(stream).until_closed()?;
    world.logged(&["a connection was cut", "TLS could not be set up", &format!("client={address}")])?;
    let (mut attached, address) = world.secured("h1")?;
    attached.attach(Style::Simple, &[], "web-1")?;
    attached.say(&[7; 28])?;
    attached.until_closed()?;
    world.logged(&["a connection was cut", &format!("client={address} (h1.example)")])?;
    world.goes_on()
}

#[test]
fn whoever_is_slow_is_cut_and_holds_up_nobody() -> Result<()> {
    let world = World::new()?;
    let (mut slow, address) = world.tcp()?;
    let dripping = thread::spawn(move || {
        for byte in [&[0, 0, 0, 3][..], &option_bytes(option::LIST, &[0; 100])].concat() {
            if slow.write_all(&[byte]).is_err() {
                return Ok(());
            }
            thread::sleep(Duration::from_secs(1));
        }
        bail!("somebody was listened to who sent one byte in a second")
    });
    let silent = (0..200).map(|_| world.tcp()).collect::<Result<Vec<_>>>()?;
    world.goes_on()?;
    dripping.join().expect("it does not panic")?;
    world.logged(&["a connection was cut", "the handshake was not over", &format!("client={address}")])?;
    drop(silent);
    world.goes_on()
}
