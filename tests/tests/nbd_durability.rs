//! What is kept of a disk when the server is killed, what it asks of the operating system before it acknowledges, and
//! what it says when the operating system refuses.

use std::fs;
use std::os::unix::net::UnixStream;

use anyhow::Result;
use sterna_nbd_server::wire::{command, command_flag};
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::flush;
use sterna_tests::server::Server;

const MIB: u64 = 1 << 20;
const EIO: u32 = 5;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

fn attached(server: &Server, style: Style, export: &str) -> Result<Client<UnixStream>> {
    let mut client = server.client()?;
    client.attach(style, &[], export)?;
    Ok(client)
}

/// How often the server has made something durable, in any way.
fn syncs(server: &Server) -> Result<usize> {
    let calls = server.system_calls()?;
    let is_sync = |line: &&str| ["fdatasync(", "fsync("].iter().any(|call| line.contains(call));
    Ok(calls.lines().filter(is_sync).count())
}

#[test]
fn a_flush_on_one_connection_keeps_what_another_has_written() -> Result<()> {
    let mut server = Server::builder().file("disk", 16 * MIB).start()?;
    flush::write_on_one_and_flush_on_another(&server.disk("disk"))?;
    server.kill()?;
    let disk = fs::read(server.path("disk"))?;
    flush::check(|at| Ok(disk[usize::try_from(at)?..][..4096].to_vec()))
}

#[test]
fn what_fua_acknowledged_survives_the_process() -> Result<()> {
    let mut server = Server::builder().file("disk", 4 * MIB).start()?;
    let mut client = attached(&server, Style::Structured, "disk")?;
    assert_eq!(client.call(Request::write(MIB, vec![3; 5000]).flags(command_flag::FUA))?.error(), 0);
    server.kill()?;
    assert!(fs::read(server.path("disk"))?[1 << 20..][..5000].iter().all(|&byte| byte == 3));
    Ok(())
}

#[test]
fn a_flush_on_one_connection_syncs_what_another_has_written() -> Result<()> {
    let server = Server::builder().file("disk", 16 * MIB).strace(&["trace=fdatasync,fsync"]).start()?;
    let mut one = attached(&server, Style::Simple, "disk")?;
    let mut two = attached(&server, Style::Extended, "disk")?;
    for at in [0, MIB, 2 * MIB] {
        assert_eq!(one.call(Request::write(at, vec![1; 4096]))?.error(), 0);
        assert_eq!(one.call(Request::new(command::TRIM, at + 8192, 4096))?.error(), 0);
    }
    assert_eq!(syncs(&server)?, 0, "nobody has asked for it");
    assert_eq!(two.call(Request::flush())?.error(), 0);
    assert_eq!(syncs(&server)?, 1, "{}", server.system_calls()?);
    Ok(())
}

#[test]
fn fua_syncs_before_it_is_acknowledged() -> Result<()> {
    let server = Server::builder().file("disk", 16 * MIB).strace(&["trace=fdatasync,fsync"]).start()?;
    let changes = [
        Request::write(MIB, vec![1; 5000]),
        Request::write(0, vec![1; 4 << 20]),
        Request::new(command::WRITE_ZEROES, MIB, 4096),
        Request::new(command::WRITE_ZEROES, MIB, 4096).flags(command_flag::NO_HOLE),
        Request::new(command::TRIM, MIB, 4096),
    ];
    for style in Style::ALL {
        let mut client = attached(&server, style, "disk")?;
        for change in &changes {
            let before = syncs(&server)?;
            assert_eq!(client.call(change.clone())?.error(), 0);
            assert_eq!(syncs(&server)?, before, "{style:?}: without FUA, {}", change.command);
            assert_eq!(client.call(change.clone().flags(command_flag::FUA))?.error(), 0);
            assert!(syncs(&server)? > before, "{style:?}: with FUA, {}", change.command);
        }
    }
    Ok(())
}

#[test]
fn a_failed_sync_is_never_followed_by_a_good_one() -> Result<()> {
    let failing = ["trace=fdatasync", "inject=fdatasync:error=EIO:when=1"];
    let server = Server::builder().file("disk", MIB).strace(&failing).start()?;
    let mut client = attached(&server, Style::Structured, "disk")?;
    assert_eq!(client.call(Request::write(0, vec![1; 4096]))?.error(), 0);
    assert_eq!(client.call(Request::flush())?.error(), EIO);
    let mut another = attached(&server, Style::Extended, "disk")?;
    for client in [&mut client, &mut another] {
        assert_eq!(client.call(Request::flush())?.error(), EIO);
        assert_eq!(client.call(Request::write(0, vec![2; 4096]).flags(command_flag::FUA))?.error(), EIO);
        assert_eq!(client.call(Request::read(0, 4096))?.error(), EIO, "what is in memory may not be on the disk");
    }
    drop((client, another));
    server.terminate()?;
    Ok(())
}

#[test]
fn a_full_file_system_is_told_and_does_no_other_harm() -> Result<()> {
    // Every write finds it full; zeroing goes another way, and needs no space.
    let failing = ["trace=pwrite64", "inject=pwrite64:error=ENOSPC"];
    let builder = Server::builder().strace(&failing);
    let path = builder.path("disk");
    fs::write(&path, vec![1; 1 << 20])?;
    let server = builder.existing_file("disk", &path).start()?;
    let mut client = attached(&server, Style::Structured, "disk")?;
    assert_eq!(client.call(Request::write(4096, vec![2; 4096]))?.error(), ENOSPC);
    assert_eq!(client.call(Request::write(4096, vec![2; 4096]).flags(command_flag::FUA))?.error(), ENOSPC);
    assert_eq!(client.call(Request::new(command::WRITE_ZEROES, 8192, 4096))?.error(), 0);
    assert_eq!(client.call(Request::flush())?.error(), 0);
    let expected = [vec![1; 8192], vec![0; 4096]].concat();
    assert_eq!(client.call(Request::read(0, 12288))?.data(), expected);
    Ok(())
}

#[test]
fn zeroing_that_would_be_slow_is_refused_where_only_fast_zeroing_is_wanted() -> Result<()> {
    let failing = ["trace=fallocate", "inject=fallocate:error=EOPNOTSUPP"];
    let server = Server::builder().file("disk", MIB).strace(&failing).start()?;
    let mut client = attached(&server, Style::Structured, "disk")?;
    assert_eq!(client.call(Request::write(0, vec![1; 200_000]))?.error(), 0);
    let zero = Request::new(command::WRITE_ZEROES, 100, 150_000);
    for flags in [0, command_flag::NO_HOLE] {
        let fast = client.call(zero.clone().flags(flags | command_flag::FAST_ZERO))?;
        assert_eq!(fast.error(), ENOTSUP);
        assert!(
            client.call(Request::read(0, 200_000))?.data() == vec![1; 200_000],
            "what was refused changed something"
        );
    }
    assert_eq!(client.call(zero)?.error(), 0);
    let expected = [vec![1; 100], vec![0; 150_000], vec![1; 49_900]].concat();
    assert!(client.call(Request::read(0, 200_000))?.data() == expected);
    assert_eq!(client.call(Request::new(command::TRIM, 0, 200_000))?.error(), 0);
    assert!(client.call(Request::read(0, 200_000))?.data() == vec![0; 200_000], "trimmed bytes are zero in any case");
    Ok(())
}
