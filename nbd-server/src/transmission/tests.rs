//! The rules of the transmission phase, one test each; `docs/nbd.md` names them beside the specification's rows.

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert_eq, proptest};
use sterna_types::device::{Persistence, StatusRun, ZeroRequest};
use sterna_types::{ByteOffset, ByteRange};

use super::{Command, Echo, Step, Transmission, Violation, reply};
use crate::checks::{self, agreement};
use crate::export::ExportMode;
use crate::handshake::{Contexts, MetaContext, ReplyStyle};
use crate::limits::MAX_PAYLOAD_BYTES;
use crate::wire::{self, ErrorCode, command as cmd, command_flag as flag, transmission_flag};

const SIZE: u64 = checks::DISK_SIZE.0;
const STYLES: [ReplyStyle; 3] = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended];

fn both_contexts() -> Contexts {
    let mut contexts = Contexts::only(MetaContext::Allocation);
    contexts.insert(MetaContext::Residency);
    contexts
}

fn machine(style: ReplyStyle) -> Transmission {
    Transmission::new(&agreement(style, ExportMode::ReadWrite, 1, both_contexts()))
}

#[derive(Clone, Copy)]
struct Ask {
    flags: u16,
    command: u16,
    offset: u64,
    length: u64,
}

fn ask(command: u16, offset: u64, length: u64) -> Ask {
    Ask { flags: 0, command, offset, length }
}

impl Ask {
    fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    fn bytes(self, style: ReplyStyle, payload: &[u8]) -> Vec<u8> {
        let extended = style == ReplyStyle::Extended;
        let magic = if extended { wire::EXTENDED_REQUEST_MAGIC } else { wire::REQUEST_MAGIC };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&self.command.to_be_bytes());
        bytes.extend_from_slice(&0xc00c_1e00_u64.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        if extended {
            bytes.extend_from_slice(&self.length.to_be_bytes());
        } else {
            bytes.extend_from_slice(&u32::try_from(self.length).expect("a compact length").to_be_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The error that the request is refused with, all of it having been taken.
    fn refused(self, machine: &mut Transmission, payload: &[u8]) -> ErrorCode {
        let bytes = self.bytes(machine.style(), payload);
        match machine.step(&bytes) {
            Step::Refuse { error, consumed, text, echo } => {
                assert_eq!((consumed, echo.cookie, echo.offset), (bytes.len(), 0xc00c_1e00, self.offset));
                assert!(!text.is_empty());
                error
            }
            other => panic!("{other:?}"),
        }
    }

    fn performed(self, machine: &mut Transmission, payload: &[u8]) -> Command {
        let bytes = self.bytes(machine.style(), payload);
        match machine.step(&bytes) {
            Step::Perform { command, consumed, payload_at, .. } => {
                assert_eq!((consumed, consumed - payload_at), (bytes.len(), payload.len()));
                command
            }
            other => panic!("{other:?}"),
        }
    }
}

fn range(start: u64, length: u64) -> ByteRange {
    ByteRange::new(ByteOffset(start), length).expect("a range of a test")
}

fn write_flags(style: ReplyStyle) -> u16 {
    if style == ReplyStyle::Extended { flag::PAYLOAD_LEN } else { 0 }
}

#[test]
fn every_command_is_understood_in_every_style() {
    for style in STYLES {
        let mut m = machine(style);
        assert_eq!(ask(cmd::READ, 5, 7).performed(&mut m, &[]), Command::Read(range(5, 7)));
        let write = ask(cmd::WRITE, 5, 3).flags(write_flags(style));
        assert_eq!(write.performed(&mut m, b"abc"), Command::Write(range(5, 3), Persistence::AtNextFlush));
        assert_eq!(ask(cmd::FLUSH, 0, 0).performed(&mut m, &[]), Command::Flush);
        let trim = Command::Trim(range(0, 9), Persistence::AtNextFlush);
        assert_eq!(ask(cmd::TRIM, 0, 9).performed(&mut m, &[]), trim);
        assert_eq!(ask(cmd::CACHE, 1, 2).performed(&mut m, &[]), Command::Prefetch(range(1, 2)));
        let status = Command::Status { range: range(1, 2), one: false, contexts: both_contexts() };
        assert_eq!(ask(cmd::BLOCK_STATUS, 1, 2).performed(&mut m, &[]), status);
        let zero = ZeroRequest {
            range: range(8, 8),
            keep_allocated: true,
            only_if_fast: true,
            persistence: Persistence::Durable,
        };
        let flags = flag::FUA | flag::NO_HOLE | flag::FAST_ZERO;
        let zeroed = ask(cmd::WRITE_ZEROES, 8, 8).flags(flags).performed(&mut m, &[]);
        assert_eq!(zeroed, Command::WriteZeroes(zero));
        assert_eq!(m.step(&ask(cmd::DISC, u64::MAX, 77).bytes(style, &[])), Step::Disconnect);
    }
}

#[test]
fn fua_is_taken_with_every_command() {
    for style in STYLES {
        let mut m = machine(style);
        for command in [cmd::READ, cmd::FLUSH, cmd::TRIM, cmd::CACHE, cmd::WRITE_ZEROES, cmd::BLOCK_STATUS] {
            ask(command, 0, 4096).flags(flag::FUA).performed(&mut m, &[]);
        }
        let durable = Command::Write(range(0, 1), Persistence::Durable);
        assert_eq!(ask(cmd::WRITE, 0, 1).flags(flag::FUA | write_flags(style)).performed(&mut m, b"x"), durable);
        let durable = Command::Trim(range(0, 1), Persistence::Durable);
        assert_eq!(ask(cmd::TRIM, 0, 1).flags(flag::FUA).performed(&mut m, &[]), durable);
    }
}

#[test]
fn a_flag_that_is_not_for_the_command_is_invalid() {
    for style in STYLES {
        let mut m = machine(style);
        let cases: [(u16, &[u16]); 7] = [
            (cmd::READ, &[flag::NO_HOLE, flag::REQ_ONE, flag::FAST_ZERO, 1 << 6, 1 << 15]),
            (cmd::WRITE, &[flag::NO_HOLE, flag::DF, flag::REQ_ONE, flag::FAST_ZERO, 1 << 15]),
            (cmd::FLUSH, &[flag::NO_HOLE, flag::DF]),
            (cmd::TRIM, &[flag::NO_HOLE, flag::FAST_ZERO]),
            (cmd::CACHE, &[flag::DF, 1 << 7]),
            (cmd::WRITE_ZEROES, &[flag::DF, flag::REQ_ONE]),
            (cmd::BLOCK_STATUS, &[flag::NO_HOLE, flag::DF]),
        ];
        for (command, flags) in cases {
            for &flags in flags {
                let payload: &[u8] = if command == cmd::WRITE { b"abcd" } else { b"" };
                let error = ask(command, 0, 4).flags(flags).refused(&mut m, payload);
                assert_eq!(error, ErrorCode::Inval, "command {command} with {flags:#x}");
            }
        }
    }
}

#[test]
fn df_is_for_chunked_replies_only() {
    assert_eq!(ask(cmd::READ, 0, 1).flags(flag::DF).refused(&mut machine(ReplyStyle::Simple), &[]), ErrorCode::Inval);
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let longest = u64::from(MAX_PAYLOAD_BYTES);
        let read = ask(cmd::READ, 0, longest).flags(flag::DF).performed(&mut machine(style), &[]);
        assert_eq!(read, Command::Read(range(0, longest)));
    }
}

#[test]
fn fast_zero_is_invalid_where_it_was_not_offered() {
    let mut agreed = agreement(ReplyStyle::Structured, ExportMode::ReadWrite, 1, Contexts::default());
    agreed.flags &= !transmission_flag::SEND_FAST_ZERO;
    let zero = ask(cmd::WRITE_ZEROES, 0, 1).flags(flag::FAST_ZERO);
    assert_eq!(zero.refused(&mut Transmission::new(&agreed), &[]), ErrorCode::Inval);
}

#[test]
fn unknown_commands_are_invalid_and_carry_nothing() {
    for style in STYLES {
        let mut m = machine(style);
        for command in [8, 9, 0x100, u16::MAX] {
            assert_eq!(ask(command, 0, 4096).refused(&mut m, &[]), ErrorCode::Inval);
        }
        ask(cmd::READ, 0, 1).performed(&mut m, &[]);
    }
}

#[test]
fn what_reaches_beyond_the_end_is_refused_with_the_commands_own_error() {
    for style in STYLES {
        let mut m = machine(style);
        for (offset, length) in [(SIZE - 1, 2), (SIZE, 1), (u64::MAX - 1, 4), (u64::MAX, 1), (SIZE + 1, 0)] {
            for command in [cmd::READ, cmd::TRIM, cmd::CACHE, cmd::BLOCK_STATUS] {
                assert_eq!(ask(command, offset, length).refused(&mut m, &[]), ErrorCode::Inval, "command {command}");
            }
            assert_eq!(ask(cmd::WRITE_ZEROES, offset, length).refused(&mut m, &[]), ErrorCode::NoSpace);
            let payload = vec![0; usize::try_from(length).expect("a short write")];
            let write = ask(cmd::WRITE, offset, length).flags(write_flags(style));
            assert_eq!(write.refused(&mut m, &payload), ErrorCode::NoSpace);
        }
    }
}

#[test]
fn empty_requests_are_fine_up_to_the_very_end() {
    for style in STYLES {
        let mut m = machine(style);
        for offset in [0, 5, SIZE] {
            for command in [cmd::READ, cmd::TRIM, cmd::CACHE, cmd::WRITE_ZEROES, cmd::FLUSH] {
                ask(command, offset, 0).performed(&mut m, &[]);
            }
            ask(cmd::WRITE, offset, 0).flags(write_flags(style)).performed(&mut m, &[]);
        }
        assert_eq!(ask(cmd::BLOCK_STATUS, 0, 0).refused(&mut m, &[]), ErrorCode::Inval);
    }
}

#[test]
fn what_is_not_aligned_to_the_minimum_block_is_invalid() {
    for style in STYLES {
        let agreed = agreement(style, ExportMode::ReadWrite, 512, both_contexts());
        let mut m = Transmission::new(&agreed);
        for (offset, length) in [(1, 512), (512, 100)] {
            for command in [cmd::READ, cmd::TRIM, cmd::CACHE, cmd::WRITE_ZEROES, cmd::BLOCK_STATUS] {
                assert_eq!(ask(command, offset, length).refused(&mut m, &[]), ErrorCode::Inval);
            }
        }
        ask(cmd::READ, 512, 1024).performed(&mut m, &[]);
    }
}

#[test]
fn a_read_only_export_permits_no_change_and_takes_flushes() {
    refuses_changes(ExportMode::ReadOnly);
}

#[test]
fn a_standby_export_refuses_each_write_and_serves_reads() {
    refuses_changes(ExportMode::Standby);
    let agreed = agreement(ReplyStyle::Simple, ExportMode::Standby, 1, Contexts::default());
    assert_eq!(agreed.flags & transmission_flag::READ_ONLY, 0);
}

fn refuses_changes(mode: ExportMode) {
    for style in STYLES {
        let mut m = Transmission::new(&agreement(style, mode, 1, both_contexts()));
        let write = ask(cmd::WRITE, 0, 4).flags(write_flags(style));
        assert_eq!(write.refused(&mut m, b"abcd"), ErrorCode::Perm);
        assert_eq!(ask(cmd::TRIM, 0, 4).refused(&mut m, &[]), ErrorCode::Perm);
        assert_eq!(ask(cmd::WRITE_ZEROES, 0, 4).refused(&mut m, &[]), ErrorCode::Perm);
        for command in [cmd::READ, cmd::FLUSH, cmd::CACHE, cmd::BLOCK_STATUS] {
            ask(command, 0, 4).performed(&mut m, &[]);
        }
    }
}

#[test]
fn a_flush_may_say_any_offset_and_length() {
    for style in STYLES {
        assert_eq!(ask(cmd::FLUSH, SIZE, 4096).performed(&mut machine(style), &[]), Command::Flush);
    }
}

#[test]
fn a_read_longer_than_a_payload_may_be_is_invalid() {
    for style in STYLES {
        let mut m = machine(style);
        assert_eq!(ask(cmd::READ, 0, u64::from(MAX_PAYLOAD_BYTES) + 1).refused(&mut m, &[]), ErrorCode::Inval);
    }
}

#[test]
fn zeroing_and_trimming_may_be_longer_than_any_payload() {
    for style in STYLES {
        let length = if style == ReplyStyle::Extended { SIZE } else { u64::from(u32::MAX) };
        for command in [cmd::TRIM, cmd::WRITE_ZEROES, cmd::BLOCK_STATUS, cmd::CACHE] {
            ask(command, 0, length).performed(&mut machine(style), &[]);
        }
    }
}

#[test]
fn the_longest_payload_is_taken_and_a_longer_one_ends_the_session() {
    for style in STYLES {
        let mut m = machine(style);
        let longest = vec![7; MAX_PAYLOAD_BYTES as usize];
        let write = ask(cmd::WRITE, 0, u64::from(MAX_PAYLOAD_BYTES)).flags(write_flags(style));
        write.performed(&mut m, &longest);
        let longer = ask(cmd::WRITE, 0, u64::from(MAX_PAYLOAD_BYTES) + 1).flags(write_flags(style));
        let step = m.step(&longer.bytes(style, &[]));
        assert_eq!(step, Step::Violation(Violation::PayloadTooLong(u64::from(MAX_PAYLOAD_BYTES) + 1)));
    }
}

#[test]
fn a_refused_write_is_answered_behind_its_payload() {
    for style in STYLES {
        let mut m = Transmission::new(&agreement(style, ExportMode::ReadOnly, 1, Contexts::default()));
        let mut bytes = ask(cmd::WRITE, 0, 1000).flags(write_flags(style)).bytes(style, &[0; 1000]);
        bytes.extend(ask(cmd::READ, 0, 1).bytes(style, &[]));
        let mut refused = 0;
        let mut kept = Vec::new();
        for piece in bytes.chunks(90) {
            kept.extend_from_slice(piece);
            loop {
                match m.step(&kept) {
                    Step::NeedMore(_) => break,
                    Step::Skipped { consumed } => drop(kept.drain(..consumed)),
                    Step::Refuse { consumed, error, .. } => {
                        assert_eq!(error, ErrorCode::Perm);
                        refused += 1;
                        kept.drain(..consumed);
                    }
                    Step::Perform { consumed, command, .. } => {
                        assert_eq!((refused, command), (1, Command::Read(range(0, 1))));
                        kept.drain(..consumed);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((refused, kept.len()), (1, 0));
    }
}

#[test]
fn an_unexpected_payload_is_passed_over_and_then_invalid() {
    let mut m = machine(ReplyStyle::Extended);
    for command in [cmd::READ, cmd::FLUSH, cmd::TRIM, cmd::CACHE, cmd::WRITE_ZEROES, 99] {
        let request = ask(command, 0, 12).flags(flag::PAYLOAD_LEN);
        assert_eq!(request.refused(&mut m, b"unasked for!"), ErrorCode::Inval, "command {command}");
    }
    ask(cmd::READ, 0, 1).performed(&mut m, &[]);
}

#[test]
fn an_extended_write_carries_its_payload_whether_it_says_so_or_not() {
    let mut m = machine(ReplyStyle::Extended);
    for flags in [0, flag::PAYLOAD_LEN] {
        let write = ask(cmd::WRITE, 0, 4).flags(flags).performed(&mut m, b"abcd");
        assert_eq!(write, Command::Write(range(0, 4), Persistence::AtNextFlush));
    }
}

#[test]
fn payload_len_is_no_flag_of_compact_requests() {
    for style in [ReplyStyle::Simple, ReplyStyle::Structured] {
        let mut m = machine(style);
        let write = ask(cmd::WRITE, 0, 4).flags(flag::PAYLOAD_LEN);
        assert_eq!(write.refused(&mut m, b"abcd"), ErrorCode::Inval);
        assert_eq!(ask(cmd::READ, 0, 4).flags(flag::PAYLOAD_LEN).refused(&mut m, &[]), ErrorCode::Inval);
    }
}

#[test]
fn block_status_without_a_context_is_invalid() {
    for style in STYLES {
        let mut m = Transmission::new(&agreement(style, ExportMode::ReadWrite, 1, Contexts::default()));
        assert_eq!(ask(cmd::BLOCK_STATUS, 0, 4096).refused(&mut m, &[]), ErrorCode::Inval);
    }
}

#[test]
fn block_status_may_ask_for_one_extent() {
    let command =
        ask(cmd::BLOCK_STATUS, 0, 9).flags(flag::REQ_ONE).performed(&mut machine(ReplyStyle::Structured), &[]);
    assert_eq!(command, Command::Status { range: range(0, 9), one: true, contexts: both_contexts() });
}

#[test]
fn the_payload_of_block_status_names_distinct_negotiated_contexts() {
    let mut m = machine(ReplyStyle::Extended);
    let payload = |length: u64, ids: &[u32]| {
        let mut bytes = length.to_be_bytes().to_vec();
        ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_be_bytes()));
        bytes
    };
    let status = |bytes: &[u8]| ask(cmd::BLOCK_STATUS, 0, bytes.len() as u64).flags(flag::PAYLOAD_LEN);
    let good = payload(4096, &[2]);
    let expected =
        Command::Status { range: range(0, 4096), one: false, contexts: Contexts::only(MetaContext::Residency) };
    assert_eq!(status(&good).performed(&mut m, &good), expected);
    let bad = [
        payload(4096, &[]),
        payload(4096, &[1, 1]),
        payload(4096, &[3]),
        payload(4096, &[0]),
        payload(4096, &[1, 2, 1]),
        payload(0, &[1]),
        payload(SIZE + 1, &[1]),
        good[..11].to_vec(),
        vec![0; 100],
    ];
    for bytes in bad {
        assert_eq!(status(&bytes).refused(&mut m, &bytes), ErrorCode::Inval, "{bytes:?}");
    }
    let only_one = agreement(ReplyStyle::Extended, ExportMode::ReadWrite, 1, Contexts::only(MetaContext::Allocation));
    assert_eq!(status(&good).refused(&mut Transmission::new(&only_one), &good), ErrorCode::Inval);
}

#[test]
fn the_other_styles_magic_ends_the_session() {
    let compact = ask(cmd::READ, 0, 1).bytes(ReplyStyle::Simple, &[0; 4]);
    let step = machine(ReplyStyle::Extended).step(&compact);
    assert_eq!(step, Step::Violation(Violation::NotARequest(wire::REQUEST_MAGIC)));
    let extended = ask(cmd::READ, 0, 1).bytes(ReplyStyle::Extended, &[]);
    let step = machine(ReplyStyle::Structured).step(&extended);
    assert_eq!(step, Step::Violation(Violation::NotARequest(wire::EXTENDED_REQUEST_MAGIC)));
}

#[test]
fn a_server_that_shuts_down_answers_later_requests_with_that() {
    for style in STYLES {
        let mut m = machine(style);
        m.drain();
        assert_eq!(ask(cmd::READ, 0, 1).refused(&mut m, &[]), ErrorCode::Shutdown);
        let write = ask(cmd::WRITE, 0, 4).flags(write_flags(style));
        assert_eq!(write.refused(&mut m, b"abcd"), ErrorCode::Shutdown);
        assert_eq!(m.step(&ask(cmd::DISC, 0, 0).bytes(style, &[])), Step::Disconnect);
    }
}

const ECHO: Echo = Echo { cookie: 0x0102_0304_0506_0708, offset: 0x1000, is_read: false };
const READ_ECHO: Echo = Echo { is_read: true, ..ECHO };

#[test]
fn replies_without_data_look_as_the_style_asks() {
    let simple = b"\x67\x44\x66\x98\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08";
    assert_eq!(reply::done(ReplyStyle::Simple, READ_ECHO).as_bytes(), simple);
    assert_eq!(reply::done(ReplyStyle::Structured, ECHO).as_bytes(), simple);
    let structured = b"\x66\x8e\x33\xef\0\x01\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0";
    assert_eq!(reply::done(ReplyStyle::Structured, READ_ECHO).as_bytes(), structured);
    let extended = b"\x6e\x8a\x27\x8c\0\x01\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0";
    assert_eq!(reply::done(ReplyStyle::Extended, ECHO).as_bytes(), extended);
}

#[test]
fn data_is_one_chunk_that_says_where_it_belongs() {
    let structured = reply::data(ReplyStyle::Structured, READ_ECHO, 512);
    let expected = b"\x66\x8e\x33\xef\0\x01\0\x01\x01\x02\x03\x04\x05\x06\x07\x08\0\0\x02\x08\0\0\0\0\0\0\x10\0";
    assert_eq!(structured.as_bytes(), expected);
    let extended = reply::data(ReplyStyle::Extended, READ_ECHO, 512);
    assert_eq!(extended.as_bytes().len(), 40);
    assert_eq!(extended.as_bytes()[24..32], 520u64.to_be_bytes());
    assert_eq!(reply::data(ReplyStyle::Simple, READ_ECHO, 512).as_bytes().len(), 16);
}

#[test]
fn zeroes_travel_as_a_hole_where_chunks_are_spoken() {
    assert!(reply::zeroes(ReplyStyle::Simple, READ_ECHO, 512).is_none());
    for (style, head) in [(ReplyStyle::Structured, 20), (ReplyStyle::Extended, 32)] {
        let hole = reply::zeroes(style, READ_ECHO, 512).expect("a chunk");
        assert_eq!(hole.as_bytes().len(), head + 12);
        assert_eq!(hole.as_bytes()[4..8], [0, 1, 0, 2]);
        assert_eq!(hole.as_bytes()[head..], [&0x1000u64.to_be_bytes()[..], &512u32.to_be_bytes()].concat());
    }
}

#[test]
fn errors_carry_a_text_of_bounded_length_where_chunks_are_spoken() {
    let mut out = Vec::new();
    reply::error(ReplyStyle::Simple, ECHO, ErrorCode::Perm, "no", &mut out);
    assert_eq!(out, b"\x67\x44\x66\x98\0\0\0\x01\x01\x02\x03\x04\x05\x06\x07\x08");
    out.clear();
    reply::error(ReplyStyle::Structured, READ_ECHO, ErrorCode::NoSpace, "no", &mut out);
    assert_eq!(out[4..8], [0, 1, 0x80, 1]);
    assert_eq!(out[16..], *b"\0\0\0\x08\0\0\0\x1c\0\x02no");
    out.clear();
    reply::error(ReplyStyle::Extended, READ_ECHO, ErrorCode::Io, &"é".repeat(4000), &mut out);
    assert_eq!(out.len(), 32 + 6 + 4096);
}

#[test]
fn status_is_one_chunk_for_each_context_with_the_last_one_marked() {
    let runs = [StatusRun { length: 4096, status: 0 }, StatusRun { length: 1 << 33, status: 3 }];
    let mut out = Vec::new();
    reply::status(ReplyStyle::Extended, ECHO, MetaContext::Residency, &runs, false, &mut out);
    assert_eq!(out.len(), 32 + 8 + 2 * 16);
    assert_eq!(out[4..8], [0, 0, 0, 6]);
    assert_eq!(out[32..40], [0, 0, 0, 2, 0, 0, 0, 2]);
    assert_eq!(out[56..64], (1u64 << 33).to_be_bytes());
    out.clear();
    reply::status(ReplyStyle::Structured, ECHO, MetaContext::Allocation, &runs, true, &mut out);
    assert_eq!(out[4..8], [0, 1, 0, 5]);
    assert_eq!(out[20..], *b"\0\0\0\x01\0\0\x10\0\0\0\0\0\xff\xff\0\0\0\0\0\x03");
}

#[test]
fn a_run_too_long_for_32_bits_ends_the_status() {
    let runs = [StatusRun { length: 1 << 40, status: 3 }, StatusRun { length: 4096, status: 0 }];
    let mut out = Vec::new();
    reply::status(ReplyStyle::Structured, ECHO, MetaContext::Allocation, &runs, true, &mut out);
    assert_eq!(out.len(), 20 + 4 + 8);
}

proptest! {
    /// Whatever arrives, the same bytes lead to the same decisions however they are cut; and see [`checks::requests`].
    #[test]
    fn any_bytes_leave_the_transmission_in_a_defined_state(
        requests in vec((any::<u16>(), 0u16..9, any::<u64>(), 0u64..5000, any::<bool>()), 0..20),
        noise in vec(any::<u8>(), 0..64),
        cut in 1usize..300,
        style in 0usize..3,
        mode in 0usize..3,
    ) {
        let style = STYLES[style];
        let mode = [ExportMode::ReadWrite, ExportMode::ReadOnly, ExportMode::Standby][mode];
        let agreed = agreement(style, mode, 1, both_contexts());
        let mut bytes = Vec::new();
        for (flags, command, offset, length, tame) in requests {
            let flags = if tame { flags & 0x3f } else { flags };
            let offset = if tame { offset % SIZE } else { offset };
            let request = Ask { flags, command, offset, length };
            let carries = command == cmd::WRITE || (style == ReplyStyle::Extended && flags & flag::PAYLOAD_LEN != 0);
            let payload = vec![0; if carries { usize::try_from(length)? } else { 0 }];
            bytes.extend(request.bytes(style, &payload));
        }
        bytes.extend(noise);
        let whole = checks::requests(&agreed, &bytes, bytes.len());
        prop_assert_eq!(checks::requests(&agreed, &bytes, cut), whole);
    }
}
