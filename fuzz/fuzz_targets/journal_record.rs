//! Any bytes as a record of a journal, as they are and with a checksum that is right: refused, or the one way to write what
//! they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_storage_node::journal::record::{HEADER_BYTES, RecordHeader};

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    let Some(salt) = bytes.get(8..16).and_then(|salt| salt.try_into().ok()).map(u64::from_le_bytes) else {
        assert!(RecordHeader::parse(data, 0).is_err());
        return;
    };
    check(&bytes, salt);
    // The checksum covers the payload: for a block, for two, or for none.
    for length in [HEADER_BYTES, HEADER_BYTES + 4096, HEADER_BYTES + 8192] {
        if let Some(checked) = bytes.get(4..length) {
            let checksum = crc32c::crc32c(checked);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            check(&bytes, salt);
        }
    }
});

fn check(bytes: &[u8], salt: u64) {
    let Ok(header) = RecordHeader::parse(bytes, salt) else { return };
    let length = usize::try_from(header.record_bytes()).expect("it is within these bytes");
    assert_eq!(header.encode(&bytes[HEADER_BYTES..length])[..], bytes[..HEADER_BYTES]);
    assert!(RecordHeader::parse(bytes, !salt).is_err());
}
