//! Requests that no well-behaved client sends, and those that none of the other clients here can: a raw client over a
//! real socket, in each of the three styles.

use std::os::unix::net::UnixStream;

use anyhow::Result;
use sterna_nbd_server::wire::{command, command_flag};
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::reply::Body;
use sterna_tests::server::Server;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

fn attached(server: &Server, style: Style) -> Result<Client<UnixStream>> {
    let contexts: &[&str] = if style == Style::Simple { &[] } else { &["base:allocation", "x-sterna:residency"] };
    let mut client = server.client()?;
    client.attach(style, contexts, "")?;
    Ok(client)
}

#[test]
fn a_command_that_is_unknown_is_refused_and_the_connection_goes_on() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    for style in Style::ALL {
        let mut client = attached(&server, style)?;
        for unknown in [8, 9, 100, 0xffff] {
            let answer = client.call(Request::new(unknown, 0, 512).cookie(u64::from(unknown) << 40))?;
            assert_eq!(answer.error(), EINVAL, "{style:?}, command {unknown}");
        }
        assert_eq!(client.call(Request::read(0, 512))?.data(), [0; 512]);
    }
    Ok(())
}

#[test]
fn a_refused_write_leaves_the_requests_behind_its_payload_readable() -> Result<()> {
    let server = Server::builder().file("disk", MIB).mode("standby").start()?;
    for style in Style::ALL {
        let mut client = attached(&server, style)?;
        // What looks like a request within a payload must not be taken for one.
        let trap = Request::new(command::DISC, 0, 0).to_bytes(style).repeat(3000);
        for (offset, expected) in [(0, EPERM), (MIB, EPERM)] {
            assert_eq!(client.call(Request::write(offset, trap.clone()))?.error(), expected, "{style:?}");
        }
        assert_eq!(client.call(Request::write(0, vec![1; 512]).flags(1 << 9))?.error(), EINVAL, "{style:?}");
        assert_eq!(client.call(Request::read(0, 512))?.data(), [0; 512], "{style:?}");
    }
    Ok(())
}

#[test]
fn requests_beyond_the_end_are_refused_in_every_style() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    for style in Style::ALL {
        let mut client = attached(&server, style)?;
        for offset in [MIB, MIB - 511, u64::MAX, u64::MAX - 511, 1 << 63] {
            assert_eq!(client.call(Request::write(offset, vec![1; 512]))?.error(), ENOSPC, "{style:?} {offset}");
            for (command, expected) in [
                (command::WRITE_ZEROES, ENOSPC),
                (command::READ, EINVAL),
                (command::TRIM, EINVAL),
                (command::CACHE, EINVAL),
            ] {
                let answer = client.call(Request::new(command, offset, 512))?;
                assert_eq!(answer.error(), expected, "{style:?}, command {command} at {offset}");
            }
            assert_eq!(client.call(Request::status(offset, 512))?.error(), EINVAL);
        }
        assert_eq!(client.call(Request::read(0, MIB))?.data(), vec![0; 1 << 20]);
    }
    Ok(())
}

#[test]
fn a_flush_is_done_whatever_offset_and_length_say() -> Result<()> {
    let server = Server::builder().file("disk", MIB).start()?;
    for style in Style::ALL {
        let mut client = attached(&server, style)?;
        assert_eq!(client.call(Request::new(command::FLUSH, 1 << 50, 12345))?.error(), 0, "{style:?}");
    }
    Ok(())
}

#[test]
fn flags_that_were_not_offered_are_refused() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    let mut simple = attached(&server, Style::Simple)?;
    assert_eq!(simple.call(Request::read(0, 512).flags(command_flag::DF))?.error(), EINVAL, "DF needs chunks");
    assert_eq!(simple.call(Request::new(command::FLUSH, 0, 0).flags(command_flag::PAYLOAD_LEN))?.error(), EINVAL);
    let mut structured = attached(&server, Style::Structured)?;
    assert_eq!(structured.call(Request::read(0, 512).flags(command_flag::DF))?.error(), 0);
    let with_payload = Request::write(0, vec![1; 512]).flags(command_flag::PAYLOAD_LEN);
    assert_eq!(structured.call(with_payload)?.error(), EINVAL, "PAYLOAD_LEN needs extended headers");
    assert_eq!(structured.call(Request::read(0, 512))?.data(), [0; 512]);
    Ok(())
}

#[test]
fn errors_come_with_a_text_for_people_and_zeroes_as_a_hole() -> Result<()> {
    for style in [Style::Structured, Style::Extended] {
        let server = Server::builder().memory("disk", "1M").start()?;
        let mut client = attached(&server, style)?;
        let refused = client.call(Request::read(MIB, 512))?;
        assert!(matches!(&refused.bodies[..], [Body::Error { text, .. }] if !text.is_empty()), "{refused:?}");
        let zeroes = client.call(Request::read(512, 8192))?;
        assert_eq!(zeroes.bodies, [Body::Hole { offset: 512, length: 8192 }]);
        client.call(Request::write(4096, vec![3; 4096]))?;
        let data = client.call(Request::read(4000, 8192).flags(command_flag::DF))?;
        assert!(matches!(&data.bodies[..], [Body::Data { offset: 4000, .. }]), "DF: one chunk");
        let expected: Vec<u8> = (4000..4000 + 8192).map(|at| if (4096..8192).contains(&at) { 3 } else { 0 }).collect();
        assert!(data.data() == expected);
    }
    Ok(())
}

#[test]
fn a_payload_that_a_command_does_not_take_is_read_past_and_refused() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    let mut client = attached(&server, Style::Extended)?;
    let trap = Request::new(command::DISC, 0, 0).to_bytes(Style::Extended).repeat(3000);
    for command in [command::READ, command::FLUSH, command::TRIM, command::CACHE, command::WRITE_ZEROES, 99] {
        let request = Request::new(command, 0, 0).payload(trap.clone()).flags(command_flag::PAYLOAD_LEN);
        assert_eq!(client.call(request)?.error(), EINVAL, "command {command}");
    }
    assert_eq!(client.call(Request::read(0, 512))?.data(), [0; 512]);
    Ok(())
}

#[test]
fn an_extended_write_is_taken_with_and_without_payload_len() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    let mut client = attached(&server, Style::Extended)?;
    client.send_as_it_is(Request::write(0, vec![1; 512]))?;
    assert_eq!(client.answer()?.error(), 0);
    client.send_as_it_is(Request::write(512, vec![2; 512]).flags(command_flag::PAYLOAD_LEN))?;
    assert_eq!(client.answer()?.error(), 0);
    assert_eq!(client.call(Request::read(0, 1024))?.data(), [vec![1; 512], vec![2; 512]].concat());
    Ok(())
}

#[test]
fn one_request_covers_tebibytes_with_extended_headers() -> Result<()> {
    let server = Server::builder().memory("disk", "64T").start()?;
    let mut client = attached(&server, Style::Extended)?;
    let marks = [TIB, 2 * TIB, 3 * TIB + 4096, 63 * TIB];
    let mark = |client: &mut Client<UnixStream>| -> Result<()> {
        for at in marks {
            assert_eq!(client.call(Request::write(at, vec![9; 4096]))?.error(), 0);
        }
        Ok(())
    };
    for (command, flags) in
        [(command::TRIM, 0), (command::WRITE_ZEROES, 0), (command::WRITE_ZEROES, command_flag::FAST_ZERO)]
    {
        mark(&mut client)?;
        let answer = client.call(Request::new(command, TIB, 2 * TIB + 100).flags(flags))?;
        assert_eq!(answer.error(), 0, "command {command}");
        for (at, expected) in marks.into_iter().zip([0, 0, 9, 9]) {
            assert_eq!(client.call(Request::read(at, 4096))?.data(), [expected; 4096], "command {command} at {at:#x}");
        }
    }
    assert_eq!(client.call(Request::new(command::CACHE, 0, 64 * TIB))?.error(), 0);
    let told = client.call(Request::status(0, 64 * TIB))?;
    let data = (4096, 0);
    let expected = [(3 * TIB + 4096, 3), data, (60 * TIB - 8192, 3), data, (TIB - 4096, 3)];
    assert_eq!(told.status(1)?, expected);
    assert_eq!(told.status(2)?, [(64 * TIB, 0)]);
    Ok(())
}

#[test]
fn the_status_of_a_large_disk_is_told_piece_by_piece_in_32_bits() -> Result<()> {
    let server = Server::builder().memory("disk", "20G").start()?;
    let mut client = attached(&server, Style::Structured)?;
    client.call(Request::write(9 << 30, vec![1; 1 << 20]))?;
    let (size, mut at, mut written, mut questions) = (20u64 << 30, 0, Vec::new(), 0);
    while at < size {
        let answer = client.call(Request::status(at, (size - at).min(u64::from(u32::MAX))))?;
        for &(length, bits) in answer.status(1)? {
            if bits == 0 {
                written.push((at, length));
            }
            assert!(length > 0, "there is progress");
            at += length;
        }
        questions += 1;
        assert!(questions < 100, "the status comes to an end");
    }
    assert_eq!((at, written), (size, vec![(9 << 30, MIB)]));
    Ok(())
}

#[test]
fn one_extent_is_told_where_one_is_asked_for() -> Result<()> {
    let server = Server::builder().file("disk", 16 * MIB).start()?;
    for style in [Style::Structured, Style::Extended] {
        let mut client = attached(&server, style)?;
        client.call(Request::write(4 * MIB, vec![1; 1 << 20]))?;
        let all = client.call(Request::status(0, 16 * MIB))?;
        assert_eq!(all.status(1)?, [(4 * MIB, 3), (MIB, 0), (11 * MIB, 3)], "{style:?}");
        let one = client.call(Request::status(0, 16 * MIB).flags(command_flag::REQ_ONE))?;
        assert_eq!(one.status(1)?, [(4 * MIB, 3)], "{style:?}");
        let within = client.call(Request::status(0, MIB).flags(command_flag::REQ_ONE))?;
        assert_eq!(within.status(1)?, [(MIB, 3)], "{style:?}: not longer than the request");
        assert_eq!(client.call(Request::status(0, 0))?.error(), EINVAL, "{style:?}");
    }
    Ok(())
}

#[test]
fn the_payload_of_a_status_request_chooses_among_the_contexts() -> Result<()> {
    let server = Server::builder().memory("disk", "1M").start()?;
    let mut client = attached(&server, Style::Extended)?;
    let asking = |length: u64, ids: &[u32]| {
        let ids = ids.iter().flat_map(|id| id.to_be_bytes());
        let payload = length.to_be_bytes().into_iter().chain(ids).collect();
        Request::new(command::BLOCK_STATUS, 0, 0).payload(payload).flags(command_flag::PAYLOAD_LEN)
    };
    let both = client.call(asking(MIB, &[2, 1]))?;
    assert_eq!((both.status(1)?, both.status(2)?), (&[(MIB, 3)][..], &[(MIB, 0)][..]));
    let residency = client.call(asking(4096, &[2]))?;
    assert_eq!(residency.bodies, [Body::Status { context: 2, runs: vec![(4096, 0)] }]);
    for bad in
        [asking(4096, &[]), asking(4096, &[3]), asking(4096, &[1, 1]), asking(4096, &[1, 2, 1]), asking(MIB + 1, &[1])]
    {
        assert_eq!(client.call(bad.clone())?.error(), EINVAL, "{bad:?}");
    }
    let odd = asking(4096, &[1]).payload(vec![0; 11]);
    assert_eq!(client.call(odd)?.error(), EINVAL);
    assert_eq!(client.call(Request::status(0, MIB))?.bodies.len(), 2, "without a payload all contexts answer");
    Ok(())
}
