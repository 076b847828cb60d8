//! Any bytes to the transmission phase, whole and in pieces: the decisions are the same, and within bounds.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sterna_nbd_server::export::{Export, ExportMode, ExportName};
use sterna_nbd_server::handshake::{Agreement, Contexts, MetaContext, ReplyStyle};
use sterna_nbd_server::transmission::{Command, Step, Transmission};
use sterna_nbd_server::wire::transmission_flag;
use sterna_types::ByteSize;
use sterna_types::device::MemoryDevice;

const SIZE: ByteSize = ByteSize(1 << 40);

fn agreement(choice: u8) -> Agreement {
    let style = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended][usize::from(choice % 3)];
    let mode = [ExportMode::ReadWrite, ExportMode::ReadOnly, ExportMode::Standby][usize::from(choice / 3 % 3)];
    let minimum = [1, 512, 4096][usize::from(choice / 9 % 3)];
    let device = Arc::new(MemoryDevice::new(SIZE).with_minimum_io(minimum));
    let export = Export { name: ExportName::default(), description: None, mode, requires_tls: false, device };
    let mut contexts = Contexts::default();
    if choice & 0x40 != 0 {
        contexts.insert(MetaContext::Allocation);
    }
    if choice & 0x80 != 0 {
        contexts.insert(MetaContext::Residency);
    }
    let mut flags = export.base_flags();
    if style != ReplyStyle::Simple {
        flags |= transmission_flag::SEND_DF;
    }
    if style == ReplyStyle::Extended && !contexts.is_empty() {
        flags |= transmission_flag::BLOCK_STATUS_PAYLOAD;
    }
    Agreement { export, style, contexts, flags }
}

/// What the machine decides about input that arrives in pieces of `cut`.
fn decisions(agreed: &Agreement, input: &[u8], cut: usize) -> Vec<String> {
    let mut machine = Transmission::new(agreed);
    let (mut kept, mut told) = (Vec::new(), Vec::new());
    for piece in input.chunks(cut) {
        kept.extend_from_slice(piece);
        loop {
            match machine.step(&kept) {
                Step::NeedMore(total) => {
                    assert!(total > kept.len() && total <= Transmission::INPUT_BYTES);
                    break;
                }
                Step::Skipped { consumed } => {
                    assert!(consumed > 0);
                    kept.drain(..consumed);
                }
                Step::Perform { echo, command, payload_at, consumed } => {
                    assert!(payload_at <= consumed);
                    match command {
                        Command::Write(range, _) => {
                            assert_eq!(range.length(), (consumed - payload_at) as u64);
                            assert!(range.is_within(SIZE));
                        }
                        Command::Read(range) | Command::Trim(range, _) | Command::Prefetch(range) => {
                            assert!(range.is_within(SIZE));
                        }
                        Command::WriteZeroes(request) => assert!(request.range.is_within(SIZE)),
                        Command::Status { range, contexts, .. } => {
                            assert!(range.is_within(SIZE) && !contexts.is_empty());
                        }
                        Command::Flush => {}
                    }
                    told.push(format!("{echo:?} {command:?}"));
                    kept.drain(..consumed);
                }
                Step::Refuse { echo, error, consumed, .. } => {
                    told.push(format!("{echo:?} {error:?}"));
                    kept.drain(..consumed);
                }
                end @ (Step::Disconnect | Step::Violation(_)) => {
                    told.push(format!("{end:?}"));
                    return told;
                }
            }
        }
    }
    told
}

// The first two bytes choose what was agreed on and the length of the pieces, the rest is what the client sends.
fuzz_target!(|data: &[u8]| {
    let [choice, cut, input @ ..] = data else { return };
    let agreed = agreement(*choice);
    let whole = decisions(&agreed, input, input.len().max(1));
    assert_eq!(decisions(&agreed, input, usize::from(*cut) + 1), whole);
});
