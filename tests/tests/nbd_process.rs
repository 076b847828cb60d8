//! The server as a process: its end in good order, its sockets, and what it shares with other processes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sterna_nbd_server::wire::{option, option_reply as rep};
use sterna_tests::client::{Client, READ_LIMIT, Request, Style, option_bytes};
use sterna_tests::server::{Server, sterna};
use sterna_tests::tool::{Tool, until};

const MIB: u64 = 1 << 20;
const ESHUTDOWN: u32 = 108;

fn attached(server: &Server, style: Style, export: &str) -> Result<Client<UnixStream>> {
    let mut client = server.client()?;
    client.attach(style, &[], export)?;
    Ok(client)
}

#[test]
fn a_server_that_is_terminated_answers_what_is_in_flight_and_refuses_the_rest() -> Result<()> {
    const READS: u64 = 4000;
    let server = Server::builder().file("disk", 16 * MIB).start()?;
    let mut client = attached(&server, Style::Structured, "disk")?;
    assert_eq!(client.call(Request::write(0, vec![8; 65536]))?.error(), 0);
    let requests: Vec<Request> = (1..=READS).map(|cookie| Request::read(0, 65536).cookie(cookie)).collect();
    let bytes: Vec<u8> = requests.iter().flat_map(|request| request.to_bytes(Style::Structured)).collect();
    requests.into_iter().for_each(|request| client.expect(request));
    // Nobody reads beyond the first answer: so the server still has something to do, and the connection stays open.
    let rest = client.stuff(&bytes)?.to_vec();
    assert_eq!(client.answer()?.error(), 0, "the server is at it");
    server.signal(Signal::TERM)?;
    let told = until(READ_LIMIT, || Ok(server.log().contains("shutting down")))?;
    ensure!(told, "the server does not hear the signal");
    thread::sleep(Duration::from_millis(300));
    let mut stream = client.link().try_clone()?;
    let writer = thread::spawn(move || stream.write_all(&rest));
    let (mut served, mut refused) = (1, 0);
    for _ in 1..READS {
        let answer = client.answer()?;
        match answer.error() {
            0 => {
                ensure!(answer.data() == [8; 65536], "wrong bytes while shutting down");
                served += 1;
            }
            ESHUTDOWN => refused += 1,
            other => anyhow::bail!("error {other} while shutting down"),
        }
    }
    writer.join().expect("the writer does not panic")?;
    ensure!(served > 1 && refused > 0, "{served} requests served, {refused} refused");
    assert_eq!(client.until_closed()?, b"");
    let ended = server.wait()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    assert_eq!(ended.counter("errors")?, refused);
    assert!(!ended.log.contains('\x1b'), "a log in a file has no colours");
    Ok(())
}

#[test]
fn a_server_that_is_terminated_refuses_options() -> Result<()> {
    const OPTIONS: usize = 12_000;
    let server = Server::builder().memory("disk", "1M").start()?;
    let mut client = server.client()?;
    let bytes = option_bytes(option::LIST, &[]).repeat(OPTIONS);
    let rest = client.stuff(&bytes)?.to_vec();
    let first = [client.option_reply()?.kind, client.option_reply()?.kind];
    assert_eq!(first, [rep::SERVER, rep::ACK], "the server is at it");
    server.signal(Signal::TERM)?;
    let told = until(READ_LIMIT, || Ok(server.log().contains("shutting down")))?;
    ensure!(told, "the server does not hear the signal");
    let mut stream = client.link().try_clone()?;
    let writer = thread::spawn(move || stream.write_all(&rest));
    let mut last = vec![rep::ACK];
    while last.len() < OPTIONS {
        let reply = client.option_reply()?;
        if reply.is_last() {
            last.push(reply.kind);
        }
    }
    writer.join().expect("the writer does not panic")?;
    let served = last.iter().take_while(|&&kind| kind == rep::ACK).count();
    ensure!(served > 0 && served < OPTIONS, "{served} options were served");
    assert!(last[served..].iter().all(|&kind| kind == rep::ERR_SHUTDOWN), "{:?}", last[served]);
    assert_eq!(client.until_closed()?, b"");
    assert_eq!(server.wait()?.status.code(), Some(0));
    Ok(())
}

#[test]
fn an_idle_server_that_is_terminated_closes_its_connections_and_removes_its_socket() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::builder().file("disk", MIB).start()?;
        let socket = server.socket();
        let mut attached = attached(&server, Style::Extended, "disk")?;
        let mut choosing = server.client()?;
        server.signal(signal)?;
        assert_eq!((attached.until_closed()?, choosing.until_closed()?), (vec![], vec![]));
        let directory = socket.parent().context("a socket is in a directory")?.to_owned();
        assert!(until(READ_LIMIT, || Ok(!socket.exists()))?, "the socket is left in {}", directory.display());
        assert_eq!(server.wait()?.status.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_file_is_served_for_writing_by_one_process() -> Result<()> {
    let server = Server::builder().file("disk", MIB).start()?;
    let file = server.path("disk").display().to_string();
    let socket = server.path("second").display().to_string();
    for mode in ["read-write", "read-only", "standby"] {
        let args = ["nbd", "serve", "--file", &file, "--mode", mode, "--socket", &socket];
        let ended = Tool::new(sterna()).args(args).run()?;
        assert_eq!(ended.code()?, 1, "{ended}");
        assert!(ended.stderr.contains(&file) && ended.stderr.contains("in use"), "{ended}");
    }
    let reading = Server::builder().file("shared", MIB).mode("read-only").start()?;
    let shared = Server::builder().existing_file("shared", &reading.path("shared")).mode("standby").start()?;
    assert_eq!(attached(&shared, Style::Simple, "shared")?.call(Request::read(0, 512))?.error(), 0);
    Ok(())
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() -> Result<()> {
    let mut server = Server::builder().file("disk", MIB).start()?;
    let (socket, file) = (server.socket().display().to_string(), server.path("disk"));
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o600);
    let args = ["nbd", "serve", "--memory", "1M", "--socket", &socket];
    let second = Tool::new(sterna()).args(args).run()?;
    assert_eq!(second.code()?, 1, "{second}");
    assert!(second.stderr.contains(&socket), "{second}");
    let written = attached(&server, Style::Simple, "disk")?.call(Request::write(0, vec![4; 512]))?;
    assert_eq!(written.error(), 0, "the first server goes on serving");
    server.kill()?;
    assert!(fs::exists(&socket)?, "a killed server leaves its socket behind");
    let again = Server::builder().existing_file("disk", &file).no_socket().arg("--socket").arg(&socket).start()?;
    let mut client = Client::greet(UnixStream::connect(&socket)?)?;
    client.attach(Style::Simple, &[], "disk")?;
    assert_eq!(client.call(Request::read(0, 512))?.data(), [4; 512]);
    drop(client);
    again.terminate()?;
    Ok(())
}

#[test]
fn tcp_connections_send_without_delay_and_notice_peers_that_are_gone() -> Result<()> {
    let server = Server::builder().memory("disk", "16M").tcp().strace(&["trace=setsockopt"]).start()?;
    let mut client = Client::greet(server.connect_tcp("disk")?)?;
    client.attach(Style::Simple, &[], "disk")?;
    assert_eq!(client.call(Request::read(0, 512))?.error(), 0);
    let calls = server.system_calls()?;
    assert!(calls.contains("TCP_NODELAY, [1]"), "{calls}");
    assert!(calls.contains("SO_KEEPALIVE, [1]"), "{calls}");
    Ok(())
}
