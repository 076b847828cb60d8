//! Any bytes as a migration stream, in pieces: what is written of what was parsed is the same. The first byte chooses the length of the
//! pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_migrator::stream::{Record, checks};

fuzz_target!(|data: &[u8]| {
    let [cut, stream @ ..] = data else { return };
    let pages = |piece_bytes| {
        checks::identity(stream, piece_bytes).into_iter().filter(|record| matches!(record, Record::Page(_)))
    };
    assert!(pages(usize::from(*cut) + 1).eq(pages(stream.len().max(1))));
});
