//! Options that no well-behaved client sends, and those that few do: a raw client over a real socket.

use anyhow::Result;
use sterna_nbd_server::wire::{info, option, option_reply as rep, transmission_flag};
use sterna_tests::client::{Client, Described, Request, Style, described, export_request, meta_query, option_bytes};
use sterna_tests::reply::OptionReply;
use sterna_tests::server::Server;

const MIB: u64 = 1 << 20;

fn two_disks() -> Result<Server> {
    Server::builder().memory("one", "1M").memory("two", "2M").arg("--description").arg("a text").start()
}

/// Kinds of the replies, and for META_CONTEXT the id and the name.
fn contexts(replies: &[OptionReply]) -> Vec<(u32, String)> {
    let of_context = replies.iter().filter(|reply| reply.kind == rep::META_CONTEXT);
    let told = of_context.map(|reply| {
        let (id, name) = reply.data.split_first_chunk().expect("an id");
        (u32::from_be_bytes(*id), String::from_utf8_lossy(name).into_owned())
    });
    told.collect()
}

#[test]
fn client_flags_that_were_not_offered_close_the_connection() -> Result<()> {
    let server = two_disks()?;
    for flags in [1 << 2, 3 | 1 << 16, u32::MAX] {
        let mut client = Client::greet_with(server.connect()?, flags)?;
        assert_eq!(client.until_closed()?, b"", "flags {flags:#x}");
    }
    Ok(())
}

#[test]
fn export_name_sends_zeroes_unless_both_sides_do_without() -> Result<()> {
    let server = two_disks()?;
    for (flags, zeroes) in [(1, 124), (3, 0)] {
        let mut client = Client::greet_with(server.connect()?, flags)?;
        client.say(&option_bytes(option::EXPORT_NAME, b"two"))?;
        let told = client.bytes(10 + zeroes)?;
        assert_eq!(told[..8], (2 * MIB).to_be_bytes());
        assert!(told[10..].iter().all(|&byte| byte == 0));
        assert_eq!(client.call(Request::read(0, 512))?.data(), [0; 512], "the transmission follows at once");
    }
    Ok(())
}

#[test]
fn export_name_is_refused_by_closing() -> Result<()> {
    let server = two_disks()?;
    let mut unknown = server.client()?;
    unknown.say(&option_bytes(option::EXPORT_NAME, b"three"))?;
    assert_eq!(unknown.until_closed()?, b"");
    let mut extended = server.client()?;
    assert_eq!(extended.outcome(option::EXTENDED_HEADERS, &[])?, rep::ACK);
    extended.say(&option_bytes(option::EXPORT_NAME, b"one"))?;
    assert_eq!(extended.until_closed()?, b"");
    Ok(())
}

#[test]
fn abort_is_acknowledged_and_closes() -> Result<()> {
    let server = two_disks()?;
    for data in [&[][..], b"payload"] {
        let mut client = server.client()?;
        assert_eq!(client.outcome(option::ABORT, data)?, rep::ACK);
        assert_eq!(client.until_closed()?, b"");
    }
    let mut hasty = server.client()?;
    hasty.say(&option_bytes(option::ABORT, &[]))?;
    drop(hasty);
    assert_eq!(server.client()?.attach(Style::Simple, &[], "one")?.size_bytes, MIB, "the server lives on");
    Ok(())
}

#[test]
fn options_with_data_that_does_not_belong_are_refused_and_the_handshake_goes_on() -> Result<()> {
    let server = two_disks()?;
    let mut client = server.client()?;
    for option in [option::LIST, option::STRUCTURED_REPLY, option::EXTENDED_HEADERS] {
        assert_eq!(client.outcome(option, b"x")?, rep::ERR_INVALID, "option {option}");
    }
    assert_eq!(client.outcome(option::STARTTLS, &[])?, rep::ERR_POLICY, "there is no TLS here");
    for unknown in [4, 12, 0, 0xffff_ffff] {
        assert_eq!(client.outcome(unknown, &[7; 1000])?, rep::ERR_UNSUP, "option {unknown}");
    }
    assert_eq!(client.outcome(77, &vec![7; 5 << 20])?, rep::ERR_UNSUP, "long data is read past");
    let too_big = client.outcome(option::INFO, &vec![0; 70_000])?;
    assert!(too_big == rep::ERR_TOO_BIG || too_big == rep::ERR_INVALID, "{too_big:#x}");
    assert_eq!(client.option(option::LIST, &[])?.len(), 3);
    assert_eq!(client.attach(Style::Structured, &[], "two")?.size_bytes, 2 * MIB);
    assert_eq!(client.call(Request::read(0, 512))?.error(), 0);
    Ok(())
}

#[test]
fn info_and_go_refuse_bad_requests_and_the_handshake_goes_on() -> Result<()> {
    let server = two_disks()?;
    let mut client = server.client()?;
    let name_too_long = [&100u32.to_be_bytes()[..], b"one", &[0, 0]].concat();
    let no_count = [&3u32.to_be_bytes()[..], b"one"].concat();
    let too_few = [&3u32.to_be_bytes()[..], b"one", &[0, 2, 0, 3]].concat();
    let no_text = [&2u32.to_be_bytes()[..], &[0xff, 0xfe], &[0, 0]].concat();
    for option in [option::INFO, option::GO] {
        for bad in [&name_too_long, &no_count, &too_few, &no_text, &vec![], &vec![0xff; 6]] {
            assert_eq!(client.outcome(option, bad)?, rep::ERR_INVALID, "option {option}, {bad:?}");
        }
        assert_eq!(client.outcome(option, &export_request("three", &[]))?, rep::ERR_UNKNOWN);
    }
    assert_eq!(client.go(Style::Simple, "one")?.size_bytes, MIB);
    Ok(())
}

#[test]
fn info_tells_what_is_asked_for_and_go_tells_the_same() -> Result<()> {
    let server = two_disks()?;
    let mut client = server.client()?;
    let all = [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE, 999];
    let told = client.option(option::INFO, &export_request("", &all))?;
    let find = |kind: u16| told.iter().find_map(|reply| reply.data.strip_prefix(&kind.to_be_bytes()));
    assert_eq!(find(info::NAME), Some(&b"one"[..]), "the default export says its name");
    assert_eq!(find(info::DESCRIPTION), Some(&b"a text"[..]));
    let sizes = [1u32, 4096, 32 << 20].map(u32::to_be_bytes).concat();
    assert_eq!(find(info::BLOCK_SIZE), Some(&sizes[..]));
    assert_eq!(told.len(), 5, "four pieces and the end: {told:?}");
    let plain = client.option(option::INFO, &export_request("", &[]))?;
    assert_eq!(described(&plain)?, described(&told)?);
    let go = client.option(option::GO, &export_request("", &all))?;
    let without_option =
        |replies: &[OptionReply]| -> Vec<_> { replies.iter().map(|r| (r.kind, r.data.clone())).collect() };
    assert_eq!(without_option(&go), without_option(&told));
    assert_eq!(client.call(Request::read(0, 512))?.data(), [0; 512], "no zeroes follow GO");
    Ok(())
}

#[test]
fn extended_headers_go_before_structured_replies() -> Result<()> {
    let server = two_disks()?;
    let mut client = server.client()?;
    assert_eq!(client.outcome(option::STRUCTURED_REPLY, &[])?, rep::ACK);
    assert_eq!(client.outcome(option::EXTENDED_HEADERS, &[])?, rep::ACK);
    assert_eq!(client.outcome(option::STRUCTURED_REPLY, &[])?, rep::ERR_EXT_HEADER_REQD);
    client.go(Style::Extended, "one")?;
    assert_eq!(client.call(Request::write(0, vec![1; 512]))?.error(), 0);
    Ok(())
}

#[test]
fn transmission_flags_follow_what_was_negotiated() -> Result<()> {
    let server = two_disks()?;
    let flags = |style, contexts: &[&str]| -> Result<Described> { server.client()?.attach(style, contexts, "one") };
    let simple = flags(Style::Simple, &[])?.flags;
    let always = transmission_flag::HAS_FLAGS
        | transmission_flag::SEND_FLUSH
        | transmission_flag::SEND_FUA
        | transmission_flag::SEND_TRIM
        | transmission_flag::SEND_WRITE_ZEROES
        | transmission_flag::CAN_MULTI_CONN
        | transmission_flag::SEND_CACHE
        | transmission_flag::SEND_FAST_ZERO;
    assert_eq!(simple, always, "no DF without chunks");
    let chunked = always | transmission_flag::SEND_DF;
    assert_eq!(flags(Style::Structured, &["base:allocation"])?.flags, chunked);
    assert_eq!(flags(Style::Extended, &[])?.flags, chunked);
    let with_payload = chunked | transmission_flag::BLOCK_STATUS_PAYLOAD;
    assert_eq!(flags(Style::Extended, &["base:allocation"])?.flags, with_payload);
    Ok(())
}

#[test]
fn metadata_contexts_are_listed_as_they_are_asked_for() -> Result<()> {
    let server = two_disks()?;
    let mut client = server.client()?;
    for option in [option::LIST_META_CONTEXT, option::SET_META_CONTEXT] {
        let outcome = client.outcome(option, &meta_query("one", &["base:allocation"]))?;
        assert_eq!(outcome, rep::ERR_INVALID, "not without chunked replies");
    }
    assert_eq!(client.outcome(option::STRUCTURED_REPLY, &[])?, rep::ACK);
    let both = [(0, "base:allocation".to_owned()), (0, "x-sterna:residency".to_owned())];
    for (queries, expected) in [
        (&[][..], &both[..]),
        (&["base:"], &both[..1]),
        (&["x-sterna:"], &both[1..]),
        (&["x-sterna:residency", "base:allocation"], &both[..]),
        (&["qemu:dirty-bitmap:a", "base:unknown", "other:"], &[]),
    ] {
        let told = client.option(option::LIST_META_CONTEXT, &meta_query("one", queries))?;
        assert_eq!(contexts(&told), expected, "{queries:?}");
        assert_eq!(told.last().map(|reply| reply.kind), Some(rep::ACK));
    }
    let unknown = client.outcome(option::LIST_META_CONTEXT, &meta_query("three", &[]))?;
    assert_eq!(unknown, rep::ERR_UNKNOWN);
    let too_many = client.outcome(option::LIST_META_CONTEXT, &meta_query("one", &["base:"; 1000]))?;
    assert_eq!(too_many, rep::ERR_TOO_BIG);
    let mut overlong = meta_query("one", &["base:allocation"]);
    overlong[10] = 0xff;
    for bad in [overlong, meta_query("one", &["no namespace"]), meta_query("one", &[])[..9].to_vec()] {
        let outcome = client.outcome(option::LIST_META_CONTEXT, &bad)?;
        assert!(outcome == rep::ERR_INVALID || outcome == rep::ERR_TOO_BIG, "{bad:?}: {outcome:#x}");
    }
    Ok(())
}

#[test]
fn metadata_contexts_are_chosen_one_by_one_with_distinct_ids() -> Result<()> {
    let server = two_disks()?;
    let mut client = server.client()?;
    assert_eq!(client.outcome(option::STRUCTURED_REPLY, &[])?, rep::ACK);
    let wildcard = client.option(option::SET_META_CONTEXT, &meta_query("one", &["base:", "x-sterna:"]))?;
    assert_eq!(contexts(&wildcard), [], "wildcards are for listing");
    let queries = ["base:allocation", "x-sterna:residency", "base:allocation"];
    let chosen = contexts(&client.option(option::SET_META_CONTEXT, &meta_query("one", &queries))?);
    assert_eq!(chosen.len(), 2, "{chosen:?}");
    assert_ne!(chosen[0].0, chosen[1].0);
    client.go(Style::Structured, "one")?;
    let answer = client.call(Request::status(0, 4096))?;
    assert!(chosen.iter().all(|(id, _)| answer.status(*id).is_ok()) && answer.bodies.len() == 2, "{answer:?}");
    Ok(())
}

#[test]
fn a_choice_of_contexts_counts_for_its_export_and_until_the_next_one() -> Result<()> {
    let server = two_disks()?;
    let query = meta_query("one", &["base:allocation"]);
    let chosen = || -> Result<_> {
        let mut client = server.client()?;
        assert_eq!(client.outcome(option::STRUCTURED_REPLY, &[])?, rep::ACK);
        assert_eq!(client.outcome(option::SET_META_CONTEXT, &query)?, rep::ACK);
        Ok(client)
    };
    let mut kept = chosen()?;
    kept.go(Style::Structured, "one")?;
    assert_eq!(kept.call(Request::status(0, 4096))?.error(), 0);
    let mut elsewhere = chosen()?;
    elsewhere.go(Style::Structured, "two")?;
    assert_eq!(elsewhere.call(Request::status(0, 4096))?.error(), 22);
    let mut replaced = chosen()?;
    assert_eq!(replaced.outcome(option::SET_META_CONTEXT, &meta_query("one", &["other:thing"]))?, rep::ACK);
    replaced.go(Style::Structured, "one")?;
    assert_eq!(replaced.call(Request::status(0, 4096))?.error(), 22);
    let mut failed = chosen()?;
    assert_eq!(failed.outcome(option::SET_META_CONTEXT, &query[..9])?, rep::ERR_INVALID);
    failed.go(Style::Structured, "one")?;
    assert_eq!(failed.call(Request::status(0, 4096))?.error(), 22);
    assert_eq!(failed.call(Request::read(0, 4096))?.error(), 0);
    Ok(())
}
