//! What becomes of a connection: clients that are silent, slow, hasty, greedy or wrong.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sterna_nbd_server::wire::{command, command_flag, option};
use sterna_tests::client::{Client, Request, Style, option_bytes};
use sterna_tests::server::Server;
use sterna_tests::tool;

const MIB: u64 = 1 << 20;

fn attached(server: &Server, style: Style, export: &str) -> Result<Client<UnixStream>> {
    let mut client = server.client()?;
    client.attach(style, &[], export)?;
    Ok(client)
}

#[test]
fn a_handshake_that_takes_too_long_is_cut_and_an_idle_client_is_not() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    let mut idle = attached(&server, Style::Simple, "disk")?;
    let mut silent = server.connect()?;
    let mut greeted = server.client()?;
    let mut slow = server.client()?;
    let drip = move || -> Result<()> {
        // One byte at a time of an option that never ends.
        let bytes = option_bytes(option::INFO, &[0; 4000]);
        for byte in &bytes[..120] {
            if slow.say(&[*byte]).is_err() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(500));
        }
        anyhow::bail!("a client that sends two bytes in a second is still not cut after a minute");
    };
    let drip = thread::spawn(drip);
    let mut greeting = Vec::new();
    silent.read_to_end(&mut greeting).context("a silent client is not cut")?;
    assert_eq!(greeting.len(), 18);
    assert_eq!(greeted.until_closed()?, b"");
    drip.join().expect("the slow client does not panic")?;
    assert_eq!(idle.call(Request::read(0, 512))?.error(), 0, "who is attached may be silent for as long as it likes");
    drop(idle);
    let ended = server.terminate()?;
    assert_eq!(ended.log.matches("the handshake was not over").count(), 3, "{}", ended.log);
    Ok(())
}

/// Sends all requests with one write, and reads all answers; the cookies have to be all different.
fn pipelined(client: &mut Client<UnixStream>, style: Style, requests: &[Request]) -> Result<()> {
    let bytes: Vec<u8> = requests.iter().flat_map(|request| request.to_bytes(style)).collect();
    requests.iter().for_each(|request| client.expect(request.clone()));
    let mut stream = client.link().try_clone()?;
    // The server need not take requests for as long as nobody takes its answers.
    let writer = thread::spawn(move || stream.write_all(&bytes));
    let mut awaited: BTreeSet<u64> = requests.iter().map(|request| request.cookie).collect();
    for _ in requests {
        let answer = client.answer()?;
        ensure!(answer.error() == 0, "{answer:?}");
        ensure!(awaited.remove(&answer.cookie), "request {} was answered twice", answer.cookie);
    }
    writer.join().expect("the writer does not panic")?;
    assert_eq!(awaited, BTreeSet::new());
    Ok(())
}

#[test]
fn requests_in_one_write_are_all_answered_however_many() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).memory("memory", "64M").start()?;
    for export in ["file", "memory"] {
        for style in Style::ALL {
            let mut client = attached(&server, style, export)?;
            // More than may be in flight at a time, and slow ones among them, so that answers overtake each other.
            let requests: Vec<Request> = (1..=328)
                .map(|cookie| match cookie % 4 {
                    0 => Request::write(cookie * 4096, vec![7; 4096]).flags(command_flag::FUA),
                    1 => Request::read(cookie * 8192, 20_000),
                    2 => Request::flush(),
                    _ => Request::new(command::WRITE_ZEROES, 32 * MIB + cookie * 4096, 4096),
                })
                .zip(1..)
                .map(|(request, cookie)| request.cookie(cookie))
                .map(|r| if style == Style::Extended && r.command == command::WRITE { r.flags(1 << 5) } else { r })
                .collect();
            pipelined(&mut client, style, &requests)?;
            assert_eq!(client.call(Request::read(4 * 4096, 4096).cookie(999))?.data(), [7; 4096], "{export} {style:?}");
        }
    }
    Ok(())
}

/// Asks for far more than fits anywhere, without reading: the server's memory stays bounded, and then all answers come.
fn asks_and_does_not_listen(server: &Server, export: &str) -> Result<()> {
    const READS: u64 = 20_000;
    const LENGTH: usize = 64 << 10;
    let mut client = attached(server, Style::Simple, export)?;
    let part = |cookie: u64| cookie % 256;
    for index in 0..256u64 {
        let fill = index.to_le_bytes()[0];
        assert_eq!(client.call(Request::write(index * LENGTH as u64, vec![fill; LENGTH]))?.error(), 0);
    }
    let requests: Vec<Request> =
        (0..READS).map(|cookie| Request::read(part(cookie) * LENGTH as u64, LENGTH as u64).cookie(cookie)).collect();
    let bytes: Vec<u8> = requests.iter().flat_map(|request| request.to_bytes(Style::Simple)).collect();
    requests.into_iter().for_each(|request| client.expect(request));
    let rest = client.stuff(&bytes)?.to_vec();
    let resident = server.resident_bytes()?;
    ensure!(resident < 128 * MIB, "{export}: the server holds {} MiB for a client that does not read", resident >> 20);
    let mut stream = client.link().try_clone()?;
    let writer = thread::spawn(move || stream.write_all(&rest));
    let mut awaited: BTreeSet<u64> = (0..READS).collect();
    while !awaited.is_empty() {
        let answer = client.answer()?;
        let data = answer.data();
        ensure!(awaited.remove(&answer.cookie), "request {} was answered twice", answer.cookie);
        let expected = part(answer.cookie).to_le_bytes()[0];
        ensure!(data.len() == LENGTH && data.iter().all(|&byte| byte == expected), "wrong bytes: {answer:?}");
    }
    writer.join().expect("the writer does not panic")?;
    Ok(())
}

#[test]
fn a_client_that_does_not_read_costs_bounded_memory_over_a_memory_disk() -> Result<()> {
    let server = Server::builder().memory("disk", "16M").start()?;
    asks_and_does_not_listen(&server, "disk")
}

#[test]
fn a_client_that_does_not_read_costs_bounded_memory_over_a_file() -> Result<()> {
    let server = Server::builder().file("disk", 16 * MIB).start()?;
    asks_and_does_not_listen(&server, "disk")
}

#[test]
fn a_client_that_does_not_read_long_zeroes_costs_bounded_memory() -> Result<()> {
    let server = Server::builder().memory("memory", "64M").file("file", 64 * MIB).start()?;
    for export in ["memory", "file"] {
        let mut client = attached(&server, Style::Simple, export)?;
        let requests: Vec<Request> = (1..=64).map(|cookie| Request::read(0, 32 * MIB).cookie(cookie)).collect();
        let bytes: Vec<u8> = requests.iter().flat_map(|request| request.to_bytes(Style::Simple)).collect();
        requests.into_iter().for_each(|request| client.expect(request));
        ensure!(client.stuff(&bytes)?.is_empty(), "64 requests fit into the socket");
        let mut highest = 0;
        for _ in 0..25 {
            highest = server.resident_bytes()?.max(highest);
            thread::sleep(Duration::from_millis(20));
        }
        ensure!(highest < 192 * MIB, "{export}: the server holds {} MiB for long reads", highest >> 20);
        for _ in 0..4 {
            assert_eq!(client.answer()?.data().len() as u64, 32 * MIB);
        }
    }
    Ok(())
}

#[test]
fn long_transfers_leave_no_memory_behind_on_idle_connections() -> Result<()> {
    let server = Server::builder().memory("disk", "64M").start()?;
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut client = attached(&server, Style::Simple, "disk")?;
        assert_eq!(client.call(Request::read(0, 32 * MIB))?.data().len() as u64, 32 * MIB);
        assert_eq!(client.call(Request::write(0, vec![1; 32 << 20]))?.error(), 0);
        assert_eq!(client.call(Request::read(0, 32 * MIB))?.data().len() as u64, 32 * MIB);
        assert_eq!(client.call(Request::new(command::TRIM, 0, 64 * MIB))?.error(), 0);
        idle.push(client);
    }
    // What was given back stays with the allocator for some seconds.
    let mut resident = 0;
    let is_little = || {
        resident = server.resident_bytes()?;
        Ok(resident < 48 * MIB)
    };
    ensure!(tool::until(Duration::from_secs(60), is_little)?, "16 idle connections hold {} MiB", resident >> 20);
    Ok(())
}

#[test]
fn the_longest_payload_is_taken_and_a_longer_one_cuts_the_connection() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).memory("memory", "64M").start()?;
    for export in ["file", "memory"] {
        for style in Style::ALL {
            let mut client = attached(&server, style, export)?;
            let payload: Vec<u8> = (0..32 * MIB).map(|at| (at >> 12).to_le_bytes()[0] ^ 0x55).collect();
            assert_eq!(client.call(Request::write(MIB, payload.clone()))?.error(), 0, "{export} {style:?}");
            assert!(client.call(Request::read(MIB, 32 * MIB))?.data() == payload, "{export} {style:?}");
            let header = Request::new(command::WRITE, 0, 32 * MIB + 1).flags(0);
            client.send(header)?;
            assert_eq!(client.until_closed()?, b"", "{export} {style:?}");
        }
    }
    let mut extended = attached(&server, Style::Extended, "memory")?;
    extended.send(Request::new(command::READ, 0, 1 << 40).flags(command_flag::PAYLOAD_LEN))?;
    assert_eq!(extended.until_closed()?, b"", "a payload that no command takes is no longer either");
    assert_eq!(server.terminate()?.counter("violations")?, 7);
    Ok(())
}

#[test]
fn garbage_cuts_the_connection_and_no_other() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    let mut bystander = attached(&server, Style::Simple, "disk")?;
    let mut option = server.client()?;
    option.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    assert_eq!(option.until_closed()?, b"");
    for style in Style::ALL {
        let mut client = attached(&server, style, "disk")?;
        client.say(&[0x5a; 64])?;
        assert_eq!(client.until_closed()?, b"", "{style:?}");
    }
    // Headers of the other length.
    let mut compact = attached(&server, Style::Structured, "disk")?;
    compact.say(&Request::read(0, 512).to_bytes(Style::Extended))?;
    assert_eq!(compact.until_closed()?, b"");
    let mut extended = attached(&server, Style::Extended, "disk")?;
    extended.say(&[Request::read(0, 512).to_bytes(Style::Simple), vec![0; 4]].concat())?;
    assert_eq!(extended.until_closed()?, b"");
    assert_eq!(bystander.call(Request::read(0, 512))?.error(), 0);
    drop(bystander);
    assert_eq!(server.terminate()?.counter("violations")?, 5);
    Ok(())
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_anything_harms_nobody() -> Result<()> {
    let server = Server::builder().file("disk", MIB).start()?;
    let whole = Request::write(0, vec![9; 100_000]).to_bytes(Style::Simple);
    for length in [1, 27, 28, 29, 50_000, whole.len() - 1] {
        let mut client = attached(&server, Style::Simple, "disk")?;
        client.say(&whole[..length])?;
    }
    let option = option_bytes(option::GO, &[0; 100]);
    for length in [1, 15, 16, 60] {
        server.client()?.say(&option[..length])?;
    }
    let mut client = attached(&server, Style::Simple, "disk")?;
    let data = client.call(Request::read(0, 100_000))?.data();
    assert!(data.iter().all(|&byte| byte == 0), "a write whose payload is not whole is not done");
    drop(client);
    server.terminate()?;
    Ok(())
}

#[test]
fn a_disconnect_waits_for_the_answers_to_all_requests_before_it() -> Result<()> {
    let server = Server::builder().file("file", 64 * MIB).memory("memory", "64M").start()?;
    for export in ["file", "memory"] {
        let mut client = attached(&server, Style::Structured, export)?;
        let requests: Vec<Request> = (1..=96)
            .map(|cookie| match cookie % 3 {
                0 => Request::write(cookie * 65536, vec![5; 65536]).flags(command_flag::FUA),
                1 => Request::read(cookie * 65536, 65536),
                _ => Request::flush(),
            })
            .zip(1..)
            .map(|(request, cookie)| request.cookie(cookie))
            .collect();
        let goodbye = Request::new(command::DISC, 77, 88);
        let bytes: Vec<u8> = requests.iter().chain([&goodbye]).flat_map(|r| r.to_bytes(Style::Structured)).collect();
        requests.iter().for_each(|request| client.expect(request.clone()));
        let mut stream = client.link().try_clone()?;
        let writer = thread::spawn(move || stream.write_all(&bytes));
        let mut answered = BTreeSet::new();
        for _ in &requests {
            let answer = client.answer()?;
            assert_eq!(answer.error(), 0);
            answered.insert(answer.cookie);
        }
        assert_eq!(answered.len(), requests.len(), "{export}");
        assert_eq!(client.until_closed()?, b"", "DISC has no reply");
        writer.join().expect("the writer does not panic")?;
        let mut again = attached(&server, Style::Simple, export)?;
        assert_eq!(again.call(Request::read(96 * 65536, 65536))?.data(), [5; 65536]);
    }
    Ok(())
}
