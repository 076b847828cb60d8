//! The rules of the handshake, one test each; `docs/nbd.md` names them beside the specification's rows.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use sterna_types::ByteSize;
use sterna_types::device::MemoryDevice;

use super::{Agreement, CloseReason, Handshake, MetaContext, Next, ReplyStyle, TlsTerms};
use crate::checks::{self, export};
use crate::export::{Export, ExportListing, ExportMode};
use crate::wire::{self, Fields, info, option as opt, option_reply as rep, transmission_flag as flag};

const GREETING_BYTES: usize = 18;

/// A handshake with the exports `disk` (the default) and `secret` (TLS only).
struct Talk {
    machine: Handshake,
    exports: Vec<Export>,
    /// Input that the machine has not taken yet.
    kept: Vec<u8>,
    out: Vec<u8>,
}

/// A reply to an option.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    option: u32,
    kind: u32,
    data: Vec<u8>,
}

/// What a sequence of options led to, if it led to anything.
#[derive(Debug)]
enum Led {
    Nowhere,
    Transmission(Box<Agreement>),
    Tls,
    Closed(CloseReason),
}

impl Talk {
    fn begin(terms: TlsTerms) -> Self {
        let mut talk = Self::unanswered(terms);
        talk.send(&3u32.to_be_bytes());
        talk
    }

    fn unanswered(terms: TlsTerms) -> Self {
        let mut out = Vec::new();
        let machine = Handshake::new(terms, &mut out);
        assert_eq!(out.len(), GREETING_BYTES);
        Self {
            machine,
            exports: vec![export("disk", false), export("secret", true)],
            kept: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Sends bytes and answers the machine's questions.
    fn send(&mut self, input: &[u8]) -> Led {
        self.kept.extend_from_slice(input);
        loop {
            let progress = self.machine.step(&self.kept, &mut self.out);
            self.kept.drain(..progress.consumed);
            let next = match progress.next {
                Next::List => {
                    let listing = |export: &Export| ExportListing {
                        name: export.name.clone(),
                        description: export.description.clone(),
                        requires_tls: export.requires_tls,
                    };
                    let list: Vec<_> = self.exports.iter().map(listing).collect();
                    self.machine.listed(&list, &mut self.out);
                    continue;
                }
                Next::Find(name) => {
                    let named = self.exports.iter().find(|export| export.name == name);
                    let found = named.or_else(|| self.exports.first().filter(|_| name.as_str().is_empty()));
                    self.machine.found(found.cloned(), &mut self.out)
                }
                Next::Read if progress.consumed == 0 => return Led::Nowhere,
                next => next,
            };
            match next {
                Next::Read | Next::List | Next::Find(_) => {}
                Next::StartTls => return Led::Tls,
                Next::Transmit(agreement) => return Led::Transmission(agreement),
                Next::Close(reason) => return Led::Closed(reason),
            }
        }
    }

    fn option(&mut self, option: u32, data: &[u8]) -> Led {
        self.send(&option_bytes(option, data))
    }

    fn replies(&mut self) -> Vec<Reply> {
        let out = std::mem::take(&mut self.out);
        let mut fields = Fields(&out);
        let mut replies = Vec::new();
        while let Some(magic) = fields.u64() {
            assert_eq!(magic, wire::OPTION_REPLY_MAGIC);
            let (option, kind) = (fields.u32().expect("an option"), fields.u32().expect("a type"));
            let length = fields.u32().expect("a length");
            replies.push(Reply { option, kind, data: fields.bytes(length).expect("the data").to_vec() });
        }
        replies
    }

    /// Sends an option that is to be answered with one reply, and returns its type.
    fn ask(&mut self, option: u32, data: &[u8]) -> u32 {
        assert!(matches!(self.option(option, data), Led::Nowhere), "option {option} was to be answered");
        let replies = self.replies();
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!(replies[0].option, option);
        replies[0].kind
    }
}

fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("a length of a test");
    let mut bytes = wire::OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The data of INFO and GO.
fn wish(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).expect("a short name").to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&u16::try_from(kinds.len()).expect("few kinds").to_be_bytes());
    kinds.iter().for_each(|kind| data.extend_from_slice(&kind.to_be_bytes()));
    data
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
fn query(name: &str, queries: &[&str]) -> Vec<u8> {
    let word = |length: usize| u32::try_from(length).expect("a short text").to_be_bytes();
    let mut data = word(name.len()).to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&word(queries.len()));
    for query in queries {
        data.extend_from_slice(&word(query.len()));
        data.extend_from_slice(query.as_bytes());
    }
    data
}

fn contexts_in(replies: &[Reply]) -> Vec<(u32, String)> {
    let contexts = replies.iter().filter(|reply| reply.kind == rep::META_CONTEXT);
    contexts
        .map(|reply| {
            let mut fields = Fields(&reply.data);
            (fields.u32().expect("an id"), String::from_utf8(fields.0.to_vec()).expect("a name"))
        })
        .collect()
}

fn flags_in(replies: &[Reply]) -> u16 {
    let export = replies.iter().find(|reply| reply.kind == rep::INFO && reply.data[..2] == info::EXPORT.to_be_bytes());
    let mut fields = Fields(&export.expect("INFO_EXPORT").data[10..]);
    fields.u16().expect("the flags")
}

#[test]
fn the_greeting_is_fixed_newstyle() {
    let mut out = Vec::new();
    Handshake::new(TlsTerms::Off, &mut out);
    assert_eq!(out, b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn client_flags_that_were_not_offered_end_the_session() {
    let led = Talk::unanswered(TlsTerms::Off).send(&4u32.to_be_bytes());
    assert!(matches!(led, Led::Closed(CloseReason::UnknownClientFlags(4))), "{led:?}");
}

#[test]
fn without_the_fixed_newstyle_only_export_name_is_understood() {
    let mut talk = Talk::unanswered(TlsTerms::Off);
    talk.send(&0u32.to_be_bytes());
    assert!(matches!(talk.option(opt::LIST, b""), Led::Closed(CloseReason::NotFixedNewstyle(opt::LIST))));
    let mut talk = Talk::unanswered(TlsTerms::Off);
    talk.send(&0u32.to_be_bytes());
    assert!(matches!(talk.option(opt::EXPORT_NAME, b"disk"), Led::Transmission(_)));
}

#[test]
fn what_is_no_option_ends_the_session() {
    let led = Talk::begin(TlsTerms::Off).send(&[0x41; 16]);
    assert!(matches!(led, Led::Closed(CloseReason::NotAnOption(0x4141_4141_4141_4141))), "{led:?}");
}

#[test]
fn export_name_is_answered_with_size_flags_and_the_zeroes_agreed_on() {
    for (flags, zeroes) in [(3u32, 0), (1u32, 124)] {
        let mut talk = Talk::unanswered(TlsTerms::Off);
        talk.send(&flags.to_be_bytes());
        assert!(matches!(talk.option(opt::EXPORT_NAME, b"disk"), Led::Transmission(_)));
        assert_eq!(talk.out.len(), 10 + zeroes);
        assert_eq!(talk.out[..8], (1u64 << 20).to_be_bytes());
        assert!(talk.out[10..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn export_name_that_cannot_be_had_closes_the_connection() {
    let long = vec![b'a'; 5000];
    for name in [&b"none"[..], b"\xff", b"secret", &long] {
        let led = Talk::begin(TlsTerms::Offered).option(opt::EXPORT_NAME, name);
        assert!(matches!(led, Led::Closed(CloseReason::ExportNameRefused)), "{name:?}: {led:?}");
    }
    let mut forced = Talk::begin(TlsTerms::Required);
    assert!(matches!(forced.option(opt::EXPORT_NAME, b"disk"), Led::Closed(CloseReason::ExportNameRefused)));
}

#[test]
fn export_name_is_forbidden_behind_extended_headers() {
    let mut talk = Talk::begin(TlsTerms::Off);
    assert_eq!(talk.ask(opt::EXTENDED_HEADERS, b""), rep::ACK);
    assert!(matches!(talk.option(opt::EXPORT_NAME, b"disk"), Led::Closed(CloseReason::ExportNameRefused)));
}

#[test]
fn the_empty_name_is_the_default_export() {
    let mut talk = Talk::begin(TlsTerms::Off);
    match talk.option(opt::GO, &wish("", &[])) {
        Led::Transmission(agreement) => assert_eq!(agreement.export.name.as_str(), "disk"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(Talk::begin(TlsTerms::Off).option(opt::EXPORT_NAME, b""), Led::Transmission(_)));
}

#[test]
fn abort_is_acknowledged_whatever_comes_with_it() {
    for data in [&b""[..], b"and more"] {
        let mut talk = Talk::begin(TlsTerms::Required);
        assert!(matches!(talk.option(opt::ABORT, data), Led::Closed(CloseReason::Aborted)));
        assert_eq!(talk.replies(), [Reply { option: opt::ABORT, kind: rep::ACK, data: vec![] }]);
    }
}

#[test]
fn list_names_every_export_and_takes_no_data() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.exports[1].requires_tls = false;
    talk.option(opt::LIST, b"");
    let replies = talk.replies();
    let kinds: Vec<u32> = replies.iter().map(|reply| reply.kind).collect();
    assert_eq!(kinds, [rep::SERVER, rep::SERVER, rep::ACK]);
    assert_eq!(replies[0].data, b"\0\0\0\x04diska disk of a test");
    assert_eq!(talk.ask(opt::LIST, b"x"), rep::ERR_INVALID);
}

#[test]
fn list_hides_exports_that_need_tls_from_those_without() {
    let mut talk = Talk::begin(TlsTerms::Offered);
    talk.option(opt::LIST, b"");
    assert_eq!(talk.replies().iter().filter(|reply| reply.kind == rep::SERVER).count(), 1);
    assert!(matches!(talk.option(opt::STARTTLS, b""), Led::Tls));
    talk.machine.encrypted();
    talk.replies();
    talk.option(opt::LIST, b"");
    assert_eq!(talk.replies().iter().filter(|reply| reply.kind == rep::SERVER).count(), 2);
}

#[test]
fn starttls_is_refused_where_tls_is_off() {
    assert_eq!(Talk::begin(TlsTerms::Off).ask(opt::STARTTLS, b""), rep::ERR_POLICY);
    assert_eq!(Talk::begin(TlsTerms::Off).ask(opt::INFO, &wish("secret", &[])), rep::ERR_UNKNOWN);
}

#[test]
fn starttls_takes_no_data_and_comes_once() {
    let mut talk = Talk::begin(TlsTerms::Required);
    assert_eq!(talk.ask(opt::STARTTLS, b"x"), rep::ERR_INVALID);
    assert!(matches!(talk.option(opt::STARTTLS, b""), Led::Tls));
    talk.machine.encrypted();
    talk.replies();
    assert_eq!(talk.ask(opt::STARTTLS, b""), rep::ERR_INVALID);
}

#[test]
fn starttls_forgets_what_was_negotiated_before() {
    let mut talk = Talk::begin(TlsTerms::Offered);
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.option(opt::SET_META_CONTEXT, &query("disk", &["base:allocation"]));
    talk.option(opt::STARTTLS, b"");
    talk.machine.encrypted();
    match talk.option(opt::GO, &wish("disk", &[])) {
        Led::Transmission(agreement) => {
            assert_eq!(agreement.style, ReplyStyle::Simple);
            assert!(agreement.contexts.is_empty());
            assert_eq!(agreement.flags & flag::SEND_DF, 0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_tls_is_required_nothing_else_is_answered_before_it() {
    let mut talk = Talk::begin(TlsTerms::Required);
    for option in [opt::LIST, opt::INFO, opt::GO, opt::STRUCTURED_REPLY, opt::SET_META_CONTEXT, 77] {
        assert_eq!(talk.ask(option, b"some data"), rep::ERR_TLS_REQD, "option {option}");
    }
    assert!(matches!(talk.option(opt::STARTTLS, b""), Led::Tls));
    talk.machine.encrypted();
    assert!(matches!(talk.option(opt::GO, &wish("secret", &[])), Led::Transmission(_)));
}

#[test]
fn where_tls_is_offered_only_info_and_go_ask_for_it() {
    let mut talk = Talk::begin(TlsTerms::Offered);
    assert_eq!(talk.ask(opt::INFO, &wish("secret", &[])), rep::ERR_TLS_REQD);
    assert_eq!(talk.ask(opt::GO, &wish("none", &[])), rep::ERR_TLS_REQD);
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.replies();
    assert_eq!(talk.ask(opt::SET_META_CONTEXT, &query("secret", &[])), rep::ERR_UNKNOWN);
    assert!(matches!(talk.option(opt::GO, &wish("disk", &[])), Led::Transmission(_)));
}

#[test]
fn info_tells_what_go_tells_and_what_was_asked_for() {
    let mut talk = Talk::begin(TlsTerms::Off);
    let all = [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE, 999];
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.replies();
    assert!(matches!(talk.option(opt::INFO, &wish("", &all)), Led::Nowhere));
    let told = talk.replies();
    assert!(matches!(talk.option(opt::GO, &wish("", &all)), Led::Transmission(_)));
    let gone = talk.replies();
    let data = |replies: &[Reply]| replies.iter().map(|reply| (reply.kind, reply.data.clone())).collect::<Vec<_>>();
    assert_eq!(data(&told), data(&gone));
    assert_eq!(told[1].data, b"\0\x01disk");
    assert_eq!(told[2].data, b"\0\x02a disk of a test");
    let sizes = [1u32, 4096, 32 << 20].map(u32::to_be_bytes).concat();
    assert_eq!(told[3].data, [&b"\0\x03"[..], &sizes].concat());
    assert_eq!(told[4].kind, rep::ACK);
}

#[test]
fn go_for_an_unknown_export_lets_the_haggling_go_on() {
    let mut talk = Talk::begin(TlsTerms::Off);
    assert_eq!(talk.ask(opt::GO, &wish("none", &[])), rep::ERR_UNKNOWN);
    assert!(matches!(talk.option(opt::GO, &wish("disk", &[])), Led::Transmission(_)));
}

#[test]
fn a_malformed_info_is_invalid_and_leaves_both_in_step() {
    let mut talk = Talk::begin(TlsTerms::Off);
    let good = wish("disk", &[info::NAME]);
    let mut longer = good.clone();
    longer.push(0);
    let long_name = wish(&"a".repeat(4097), &[]);
    let bad: [&[u8]; 7] =
        [b"", b"\0\0\0", b"\0\0\0\x09disk\0\0", &good[..good.len() - 1], &longer, &long_name, b"\0\0\0\x01\xff\0\0"];
    for data in bad {
        assert_eq!(talk.ask(opt::INFO, data), rep::ERR_INVALID, "{data:?}");
    }
    assert!(matches!(talk.option(opt::GO, &good), Led::Transmission(_)));
}

#[test]
fn an_export_with_a_minimum_block_insists_on_being_asked_for_it() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.exports[0].device = Arc::new(MemoryDevice::new(ByteSize(1 << 20)).with_minimum_io(4096));
    assert!(matches!(talk.option(opt::GO, &wish("disk", &[])), Led::Nowhere));
    let kinds: Vec<u32> = talk.replies().iter().map(|reply| reply.kind).collect();
    assert_eq!(kinds, [rep::INFO, rep::ERR_BLOCK_SIZE_REQD]);
    assert!(matches!(talk.option(opt::GO, &wish("disk", &[info::BLOCK_SIZE])), Led::Transmission(_)));
}

#[test]
fn structured_replies_and_extended_headers_take_no_data() {
    let mut talk = Talk::begin(TlsTerms::Off);
    for option in [opt::STRUCTURED_REPLY, opt::EXTENDED_HEADERS] {
        assert_eq!(talk.ask(option, b"x"), rep::ERR_INVALID);
        assert_eq!(talk.ask(option, b""), rep::ACK);
        assert_eq!(talk.ask(option, b""), rep::ACK);
    }
}

#[test]
fn extended_headers_go_before_structured_replies() {
    let mut talk = Talk::begin(TlsTerms::Off);
    assert_eq!(talk.ask(opt::STRUCTURED_REPLY, b""), rep::ACK);
    assert_eq!(talk.ask(opt::EXTENDED_HEADERS, b""), rep::ACK);
    assert_eq!(talk.ask(opt::STRUCTURED_REPLY, b""), rep::ERR_EXT_HEADER_REQD);
    match talk.option(opt::GO, &wish("disk", &[])) {
        Led::Transmission(agreement) => assert_eq!(agreement.style, ReplyStyle::Extended),
        other => panic!("{other:?}"),
    }
}

#[test]
fn metadata_contexts_need_chunked_replies() {
    let mut talk = Talk::begin(TlsTerms::Off);
    for option in [opt::LIST_META_CONTEXT, opt::SET_META_CONTEXT] {
        assert_eq!(talk.ask(option, &query("disk", &["base:allocation"])), rep::ERR_INVALID);
    }
}

#[test]
fn listing_contexts_knows_wildcards_and_tells_no_ids() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.replies();
    let both = [(0, "base:allocation".to_owned()), (0, "x-sterna:residency".to_owned())];
    type Case<'a> = (&'a [&'a str], &'a [(u32, String)]);
    let cases: [Case<'_>; 6] = [
        (&[], &both),
        (&["base:"], &both[..1]),
        (&["x-sterna:"], &both[1..]),
        (&["base:allocation", "x-sterna:residency", "base:"], &both),
        (&["qemu:dirty-bitmap:b", "other:"], &[]),
        (&["base:nothing"], &[]),
    ];
    for (queries, expected) in cases {
        talk.option(opt::LIST_META_CONTEXT, &query("disk", queries));
        let replies = talk.replies();
        assert_eq!(contexts_in(&replies), expected, "{queries:?}");
        assert_eq!(replies.last().map(|reply| reply.kind), Some(rep::ACK));
    }
    assert_eq!(talk.ask(opt::LIST_META_CONTEXT, &query("none", &[])), rep::ERR_UNKNOWN);
}

#[test]
fn setting_contexts_gives_each_an_id_of_its_own() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.replies();
    talk.option(opt::SET_META_CONTEXT, &query("disk", &["x-sterna:residency", "base:allocation", "base:allocation"]));
    let contexts = contexts_in(&talk.replies());
    assert_eq!(contexts, [(1, "base:allocation".to_owned()), (2, "x-sterna:residency".to_owned())]);
    match talk.option(opt::GO, &wish("disk", &[])) {
        Led::Transmission(agreement) => assert_eq!(agreement.contexts.iter().count(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn setting_contexts_knows_no_wildcards() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.replies();
    assert_eq!(talk.ask(opt::SET_META_CONTEXT, &query("disk", &["base:", "x-sterna:"])), rep::ACK);
    assert_eq!(talk.ask(opt::SET_META_CONTEXT, &query("disk", &[])), rep::ACK);
}

#[test]
fn a_failed_setting_of_contexts_forgets_the_one_before() {
    for bad in [query("none", &["base:allocation"]), query("disk", &["no colon"]), b"\0".to_vec()] {
        let mut talk = Talk::begin(TlsTerms::Off);
        talk.option(opt::STRUCTURED_REPLY, b"");
        talk.option(opt::SET_META_CONTEXT, &query("disk", &["base:allocation"]));
        talk.option(opt::SET_META_CONTEXT, &bad);
        match talk.option(opt::GO, &wish("disk", &[])) {
            Led::Transmission(agreement) => assert!(agreement.contexts.is_empty(), "{bad:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn contexts_belong_to_the_export_they_were_set_for() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.exports[1].requires_tls = false;
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.option(opt::SET_META_CONTEXT, &query("disk", &["base:allocation"]));
    match talk.option(opt::GO, &wish("secret", &[])) {
        Led::Transmission(agreement) => assert!(agreement.contexts.is_empty()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn malformed_context_queries_are_invalid_and_too_many_too_big() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.option(opt::STRUCTURED_REPLY, b"");
    talk.replies();
    let good = query("disk", &["base:allocation"]);
    let mut longer = good.clone();
    longer.push(0);
    let long = format!("base:{}", "a".repeat(4096));
    let bad = [good[..good.len() - 1].to_vec(), longer, query("disk", &[&long]), query("disk", &["no colon"])];
    for data in bad {
        assert_eq!(talk.ask(opt::LIST_META_CONTEXT, &data), rep::ERR_INVALID, "{data:?}");
    }
    let many = vec!["base:allocation"; 65];
    assert_eq!(talk.ask(opt::SET_META_CONTEXT, &query("disk", &many)), rep::ERR_TOO_BIG);
}

#[test]
fn unknown_options_are_refused_and_passed_over() {
    let mut talk = Talk::begin(TlsTerms::Off);
    for option in [4, 12, 999, u32::MAX] {
        assert_eq!(talk.ask(option, b"whatever it says"), rep::ERR_UNSUP);
    }
    assert!(matches!(talk.option(opt::GO, &wish("disk", &[])), Led::Transmission(_)));
}

#[test]
fn data_that_is_too_long_is_passed_over_without_being_kept() {
    let mut talk = Talk::begin(TlsTerms::Off);
    let mut bytes = option_bytes(opt::INFO, &[]);
    bytes[12..16].copy_from_slice(&(1u32 << 30).to_be_bytes());
    talk.send(&bytes);
    let piece = vec![0; 1 << 20];
    for _ in 0..1 << 10 {
        assert!(talk.out.is_empty() && talk.kept.is_empty());
        talk.send(&piece);
    }
    assert_eq!(talk.replies()[0].kind, rep::ERR_TOO_BIG);
    assert!(matches!(talk.option(opt::GO, &wish("disk", &[])), Led::Transmission(_)));
}

#[test]
fn error_replies_say_why_in_words() {
    let mut talk = Talk::begin(TlsTerms::Required);
    talk.option(opt::LIST, b"");
    let text = String::from_utf8(talk.replies().remove(0).data).expect("a text");
    assert!(text.contains("STARTTLS"), "{text}");
}

#[test]
fn a_server_that_shuts_down_answers_every_option_with_that() {
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.machine.drain();
    for option in [opt::LIST, opt::GO, opt::STRUCTURED_REPLY, 999] {
        assert_eq!(talk.ask(option, b""), rep::ERR_SHUTDOWN);
    }
    assert!(matches!(talk.option(opt::ABORT, b""), Led::Closed(CloseReason::Aborted)));
    let mut talk = Talk::begin(TlsTerms::Off);
    talk.machine.drain();
    assert!(matches!(talk.option(opt::EXPORT_NAME, b"disk"), Led::Closed(CloseReason::ExportNameRefused)));
}

#[test]
fn nobody_may_send_options_for_ever() {
    let mut talk = Talk::begin(TlsTerms::Off);
    let many = option_bytes(999, b"").repeat(10_000);
    for _ in 0..10 {
        assert!(matches!(talk.send(&many), Led::Nowhere));
        talk.out.clear();
    }
    assert!(matches!(talk.option(999, b""), Led::Closed(CloseReason::TooManyOptions)));
}

#[test]
fn the_flags_tell_what_the_export_can_do() {
    let base = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN | flag::SEND_CACHE;
    let writes = flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
    for (mode, expected) in [
        (ExportMode::ReadWrite, base | writes),
        (ExportMode::ReadOnly, base | flag::READ_ONLY),
        (ExportMode::Standby, base | writes),
    ] {
        let mut talk = Talk::begin(TlsTerms::Off);
        talk.exports[0].mode = mode;
        talk.option(opt::INFO, &wish("disk", &[]));
        assert_eq!(flags_in(&talk.replies()), expected, "{mode:?}");
        talk.option(opt::STRUCTURED_REPLY, b"");
        talk.option(opt::INFO, &wish("disk", &[]));
        assert_eq!(flags_in(&talk.replies()[1..]), expected | flag::SEND_DF, "{mode:?}");
    }
}

#[test]
fn the_payload_of_block_status_is_offered_with_extended_headers_and_contexts_only() {
    for (style, query_first, offered) in [
        (opt::STRUCTURED_REPLY, true, false),
        (opt::EXTENDED_HEADERS, false, false),
        (opt::EXTENDED_HEADERS, true, true),
    ] {
        let mut talk = Talk::begin(TlsTerms::Off);
        talk.option(style, b"");
        if query_first {
            talk.option(opt::SET_META_CONTEXT, &query("disk", &["base:allocation"]));
        }
        talk.replies();
        talk.option(opt::GO, &wish("disk", &[]));
        assert_eq!(flags_in(&talk.replies()) & flag::BLOCK_STATUS_PAYLOAD != 0, offered);
    }
}

#[test]
fn every_context_has_an_id_that_leads_back_to_it() {
    for context in MetaContext::ALL {
        assert_eq!(MetaContext::from_id(context.id()), Some(context));
        assert!(context.name().starts_with(context.namespace()));
    }
    assert_eq!(MetaContext::from_id(0), None);
}

proptest! {
    /// Whatever arrives, framed as options or not: see [`checks::handshake`].
    #[test]
    fn any_bytes_leave_the_handshake_in_a_defined_state(
        pieces in vec((0u32..14, vec(any::<u8>(), 0..64), any::<bool>()), 0..40),
        flags in 0u32..5,
        cut in 1usize..200,
        terms in 0usize..3,
    ) {
        let mut bytes = flags.to_be_bytes().to_vec();
        for (option, data, framed) in pieces {
            bytes.extend(if framed { option_bytes(option, &data) } else { data });
        }
        checks::handshake([TlsTerms::Off, TlsTerms::Offered, TlsTerms::Required][terms], &bytes, cut);
    }
}
