//! Any bytes as a volume's record or checkpoint: refused, or the one way to write what they say in their version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_storage_node::chunk_store::chunk_id;
use sterna_storage_node::volume::VolumeRecord;
use sterna_types::VolumeId;

fuzz_target!(|data: &[u8]| {
    check(data);
    // What a checkpoint begins with is hard to guess.
    check(&[&b"STRNCKPT"[..], data].concat());
});

fn check(bytes: &[u8]) {
    if let Ok((record, tail)) = VolumeRecord::parse(VolumeId(1), bytes) {
        let expected = if tail.is_empty() { renewed(bytes, 0) } else { bytes.to_vec() };
        assert_eq!(record.encode(&tail), expected);
    }
    if let Some((volume, record)) = VolumeRecord::parse_checkpoint(bytes, chunk_id(bytes)) {
        assert_eq!(record.encode_checkpoint(volume), *renewed(bytes, 16));
    }
}

/// The same as the version of today, which differs from the one before in its number alone; `at` is where that is.
fn renewed(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut renewed = bytes.to_vec();
    renewed[at] = 2;
    renewed
}
