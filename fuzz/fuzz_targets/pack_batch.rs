//! Any bytes as a batch header, as they are and with a checksum that is right, alone and in a pack that is read from end to
//! end: refused, or frames that lie where they can.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_storage_node::chunk_store::MAX_CHUNK_BYTES;
use sterna_storage_node::chunk_store::pack::{BatchHeader, PackId, PackScanner};
use sterna_storage_node::disk::{Disk, SimulatedDisk};

fuzz_target!(|data: &[u8]| {
    let _ = BatchHeader::parse(data);
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(4096).max(4096), 0);
    // Whole blocks up to where the header says that it ends, in front of a payload.
    let header_bytes = match bytes[32] % 2 {
        0 => 4096,
        _ => bytes.len(),
    };
    bytes[..8].copy_from_slice(b"STRNBTCH");
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    bytes[16..24].copy_from_slice(&7u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&4096u64.to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(header_bytes).expect("a short input").to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[16..header_bytes]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    if let Ok(header) = BatchHeader::parse(&bytes) {
        for frame in &header.frames {
            assert!((1..=MAX_CHUNK_BYTES).contains(&usize::try_from(frame.length).expect("32 bits")));
            assert!(frame.offset + frame.stored_length() <= header.payload_bytes);
            assert!(!frame.is_aligned() || frame.offset % 4096 == 0);
        }
    }
    scan(&bytes);
});

fn scan(bytes: &[u8]) {
    let disk = SimulatedDisk::new();
    let file = disk.create("pack").expect("a file");
    file.write_at(4096, &[bytes]).expect("a write");
    let mut scanner = PackScanner::new(PackId(7), file).expect("a pack");
    while let Some(scanned) = scanner.next_frame().expect("a pack that can be read") {
        scanner.read(&scanned.frame).expect("a pack that can be read");
    }
    assert!(scanner.skipped_bytes() <= bytes.len() as u64);
}
