//! Any bytes to the transmission phase, whole and in pieces: the decisions are the same. The first byte chooses what was
//! agreed on, the second the length of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_nbd_server::checks;
use sterna_nbd_server::export::ExportMode;
use sterna_nbd_server::handshake::{Contexts, MetaContext, ReplyStyle};

fuzz_target!(|data: &[u8]| {
    let [choice, cut, input @ ..] = data else { return };
    let style = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended][usize::from(choice % 3)];
    let mode = [ExportMode::ReadWrite, ExportMode::ReadOnly, ExportMode::Standby][usize::from(choice / 3 % 3)];
    let minimum = [1, 512, 4096][usize::from(choice / 9 % 3)];
    let mut contexts = Contexts::default();
    for (bit, context) in [(0x40, MetaContext::Allocation), (0x80, MetaContext::Residency)] {
        if choice & bit != 0 {
            contexts.insert(context);
        }
    }
    let agreed = checks::agreement(style, mode, minimum, contexts);
    let whole = checks::requests(&agreed, input, input.len());
    assert_eq!(checks::requests(&agreed, input, usize::from(*cut) + 1), whole);
});
