//! What may never be false about the two state machines, whatever a client sends. Property tests and fuzz targets both
//! run these, each with bytes of its own making.

use std::sync::Arc;

use sterna_types::ByteSize;
use sterna_types::device::MemoryDevice;

use crate::export::{Export, ExportListing, ExportMode, ExportName};
use crate::handshake::{Agreement, Contexts, Handshake, Next, ReplyStyle, TlsTerms};
use crate::transmission::{Command, Step, Transmission};
use crate::wire::transmission_flag;

/// The size of the disk behind [`agreement`], in bytes.
pub const DISK_SIZE: ByteSize = ByteSize(1 << 40);

/// An export of this name on an empty disk.
///
/// # Panics
/// No export can be called so.
pub fn export(name: &str, requires_tls: bool) -> Export {
    Export {
        name: ExportName::try_from(name.as_bytes()).expect("a name for an export"),
        description: Some("a disk of a test".parse().expect("a short text")),
        mode: ExportMode::ReadWrite,
        requires_tls,
        device: Arc::new(MemoryDevice::new(ByteSize(1 << 20))),
    }
}

/// What a handshake would agree on for a disk of [`DISK_SIZE`] that takes requests aligned to `minimum_io_bytes`.
pub fn agreement(style: ReplyStyle, mode: ExportMode, minimum_io_bytes: u32, contexts: Contexts) -> Agreement {
    let device = Arc::new(MemoryDevice::new(DISK_SIZE).with_minimum_io(minimum_io_bytes));
    let export = Export { name: ExportName::default(), description: None, mode, requires_tls: false, device };
    let mut flags = export.base_flags();
    if style != ReplyStyle::Simple {
        flags |= transmission_flag::SEND_DF;
    }
    if style == ReplyStyle::Extended && !contexts.is_empty() {
        flags |= transmission_flag::BLOCK_STATUS_PAYLOAD;
    }
    Agreement { export, style, contexts, flags }
}

/// Sends `input` to a handshake, in pieces of `cut` bytes, and answers its questions about two exports, `disk` and
/// `secret`, of which the second needs TLS.
///
/// # Panics
/// The machine takes what is not there, wants more than [`Handshake::INPUT_BYTES`], answers more than a few times what it
/// was sent, starts TLS twice or where there is none, or agrees on an export that the client may not have.
pub fn handshake(terms: TlsTerms, input: &[u8], cut: usize) {
    let exports = [export("disk", false), export("secret", true)];
    let mut out = Vec::new();
    let mut machine = Handshake::new(terms, &mut out);
    let (mut kept, mut sent, mut answered) = (Vec::new(), 0, 0);
    let mut encrypted = false;
    let mut pieces = input.chunks(cut.max(1));
    loop {
        let progress = machine.step(&kept, &mut out);
        kept.drain(..progress.consumed);
        let next = match progress.next {
            Next::List => {
                machine.listed(&exports.each_ref().map(listing), &mut out);
                Next::Read
            }
            Next::Find(name) => {
                let found = exports.iter().find(|export| export.name == name || name.as_str().is_empty());
                machine.found(found.cloned(), &mut out)
            }
            Next::Read if progress.consumed == 0 => {
                assert!(kept.len() < Handshake::INPUT_BYTES);
                let Some(piece) = pieces.next() else { return };
                kept.extend_from_slice(piece);
                sent += piece.len();
                Next::Read
            }
            next => next,
        };
        answered += out.len();
        assert!(answered <= 64 * (sent + 16), "{answered} bytes out for {sent} in");
        out.clear();
        match next {
            Next::Read | Next::List | Next::Find(_) => {}
            Next::StartTls => {
                assert!(!encrypted && terms != TlsTerms::Off);
                encrypted = true;
                machine.encrypted();
            }
            Next::Transmit(agreement) => {
                assert!(encrypted || (terms != TlsTerms::Required && !agreement.export.requires_tls));
                return;
            }
            Next::Close(_) => return,
        }
    }
}

fn listing(export: &Export) -> ExportListing {
    let (name, description) = (export.name.clone(), export.description.clone());
    ExportListing { name, description, requires_tls: export.requires_tls }
}

/// What the transmission machine decides about `input` that arrives in pieces of `cut` bytes: for the same input, it has
/// to be the same for every `cut`.
///
/// # Panics
/// The machine takes what is not there, wants more than [`Transmission::INPUT_BYTES`], or performs a command that is not
/// within the disk.
pub fn requests(agreed: &Agreement, input: &[u8], cut: usize) -> Vec<String> {
    let mut machine = Transmission::new(agreed);
    let (mut kept, mut told) = (Vec::new(), Vec::new());
    for piece in input.chunks(cut.max(1)) {
        kept.extend_from_slice(piece);
        loop {
            let taken = match machine.step(&kept) {
                Step::NeedMore(total) => {
                    assert!(total > kept.len() && total <= Transmission::INPUT_BYTES);
                    break;
                }
                Step::Skipped { consumed } => {
                    assert!(consumed > 0);
                    consumed
                }
                Step::Perform { echo, command, payload_at, consumed } => {
                    assert_within(command, consumed - payload_at);
                    told.push(format!("{echo:?} {command:?}"));
                    consumed
                }
                Step::Refuse { echo, error, consumed, .. } => {
                    told.push(format!("{echo:?} {error:?}"));
                    consumed
                }
                end @ (Step::Disconnect | Step::Violation(_)) => {
                    told.push(format!("{end:?}"));
                    return told;
                }
            };
            kept.drain(..taken);
        }
    }
    told
}

fn assert_within(command: Command, payload_bytes: usize) {
    match command {
        Command::Write(range, _) => assert!(range.is_within(DISK_SIZE) && range.length() == payload_bytes as u64),
        Command::Read(range) | Command::Trim(range, _) | Command::Prefetch(range) => {
            assert!(range.is_within(DISK_SIZE));
        }
        Command::WriteZeroes(request) => assert!(request.range.is_within(DISK_SIZE)),
        Command::Status { range, contexts, .. } => assert!(range.is_within(DISK_SIZE) && !contexts.is_empty()),
        Command::Flush => {}
    }
}
