//! Any bytes, in any pieces, to the handshake: it takes what there is, keeps nothing, and ends where it says so.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sterna_nbd_server::export::{Export, ExportListing, ExportMode, ExportName};
use sterna_nbd_server::handshake::{Handshake, Next, TlsTerms};
use sterna_types::ByteSize;
use sterna_types::device::MemoryDevice;

fn export(name: &str, requires_tls: bool) -> Export {
    Export {
        name: ExportName::try_from(name.as_bytes()).expect("a name"),
        description: Some("a disk".to_owned()),
        mode: ExportMode::ReadWrite,
        requires_tls,
        device: Arc::new(MemoryDevice::new(ByteSize(1 << 20))),
    }
}

// The first byte chooses the TLS terms and the length of the pieces, the rest is what the client sends.
fuzz_target!(|data: &[u8]| {
    let Some((&choice, mut input)) = data.split_first() else { return };
    let terms = [TlsTerms::Off, TlsTerms::Offered, TlsTerms::Required][usize::from(choice % 3)];
    let cut = usize::from(choice / 3) + 1;
    let exports = [export("disk", false), export("secret", true)];
    let mut out = Vec::new();
    let mut machine = Handshake::new(terms, &mut out);
    let (mut kept, mut sent, mut answered) = (Vec::new(), 0, 0);
    let mut encrypted = false;
    loop {
        let progress = machine.step(&kept, &mut out);
        assert!(progress.consumed <= kept.len());
        kept.drain(..progress.consumed);
        let next = match progress.next {
            Next::List => {
                let listing = |e: &Export| ExportListing {
                    name: e.name.clone(),
                    description: e.description.clone(),
                    requires_tls: e.requires_tls,
                };
                let list: Vec<_> = exports.iter().map(listing).collect();
                machine.listed(&list, &mut out);
                Next::Read
            }
            Next::Find(name) => {
                let found = exports.iter().find(|e| e.name == name || name.as_str().is_empty());
                machine.found(found.cloned(), &mut out)
            }
            Next::Read if progress.consumed == 0 => {
                assert!(kept.len() < Handshake::INPUT_BYTES);
                if input.is_empty() {
                    return;
                }
                let (piece, rest) = input.split_at(cut.min(input.len()));
                kept.extend_from_slice(piece);
                sent += piece.len();
                input = rest;
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
                assert!(encrypted || !agreement.export.requires_tls);
                assert!(encrypted || terms != TlsTerms::Required);
                return;
            }
            Next::Close(_) => return,
        }
    }
});
