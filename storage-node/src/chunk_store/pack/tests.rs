//! The format of packs: golden bytes, arbitrary bytes, damaged bytes.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::chunk_store::index::IndexEntry;
use crate::chunk_store::{ChunkKind, Encoding, NewChunk};
use crate::disk::{Disk, DiskFile, SimulatedDisk};

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn chunk(kind: ChunkKind, bytes: Bytes) -> StoredChunk {
    StoredChunk::fresh(&NewChunk::of(kind, bytes))
}

/// What is in the golden pack: batches that are written as they are, and one that is compressed.
fn golden_chunks() -> [Vec<StoredChunk>; 2] {
    let raw = vec![
        chunk(ChunkKind::Manifest, noise(1, 100)),
        chunk(ChunkKind::Data, noise(2, 8192)),
        chunk(ChunkKind::Node, noise(3, 33)),
        chunk(ChunkKind::Checkpoint, noise(4, 1)),
    ];
    [raw, vec![chunk(ChunkKind::Manifest, vec![5; 5000].into())]]
}

fn write_pack(disk: &SimulatedDisk, id: PackId, batches: &[Vec<StoredChunk>]) -> Vec<u8> {
    disk.create_dir(PACK_DIRECTORY).expect("a directory");
    let mut pack = PackWriter::create(disk, id).expect("a pack");
    for batch in batches {
        pack.append(batch).expect("a batch");
    }
    pack.sync().expect("a sync");
    bytes_of(&**pack.file())
}

fn bytes_of(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.size().expect("a size")).expect("a short file")];
    file.read_at(0, &mut bytes).expect("its bytes");
    bytes
}

/// The frames of a pack with these bytes: numbers, and contents where they are sound.
fn scan(id: PackId, bytes: &[u8]) -> (Vec<(u32, Option<Bytes>)>, u64) {
    let file = SimulatedDisk::new().create("pack").expect("a file");
    file.write_at(0, &[bytes]).expect("a copy");
    let mut scanner = PackScanner::new(id, file).expect("a scanner");
    let mut found = Vec::new();
    while let Some(scanned) = scanner.next_frame().expect("a frame") {
        let sound = match scanner.read(&scanned.frame).expect("an answer") {
            Verdict::Sound(bytes) => Some(bytes),
            Verdict::Damaged => None,
        };
        found.push((scanned.place.number, sound));
    }
    (found, scanner.skipped_bytes())
}

#[test]
fn the_golden_pack_is_read_and_written() {
    let golden = include_bytes!("fixtures/version-1.pack");
    let id = PackId(0x1234);
    let raw_part = write_pack(&SimulatedDisk::new(), id, &golden_chunks()[..1]);
    assert_eq!(raw_part, golden[..raw_part.len()], "what is written today differs from version 1");
    let expected: Vec<Bytes> =
        vec![noise(2, 8192), noise(1, 100), noise(3, 33), noise(4, 1), Bytes::from(vec![5; 5000])];
    let expected: Vec<(u32, Option<Bytes>)> = (0..).zip(expected.into_iter().map(Some)).collect();
    assert_eq!(scan(id, golden), (expected, 0));
    let header = BatchHeader::parse(&golden[raw_part.len()..]).expect("the second batch");
    assert_eq!((header.first_frame, header.frames.len(), header.payload_bytes), (4, 1, 4096));
    assert!(matches!(header.frames[0].encoding, Encoding::Zstd { stored_length: 1..100 }));
    assert_eq!(BatchHeader::parse(&golden[4096..]).expect("the first batch").frames[0].kind, ChunkKind::Data);
}

#[test]
fn a_block_of_raw_data_is_aligned() {
    let disk = SimulatedDisk::new();
    disk.create_dir(PACK_DIRECTORY).expect("a directory");
    let mut pack = PackWriter::create(&disk, PackId(1)).expect("a pack");
    for entry in pack.append(&golden_chunks()[0]).expect("a batch") {
        assert!(entry.frame.kind != ChunkKind::Data || entry.frame.offset.is_multiple_of(4096), "{entry:?}");
        assert_eq!(IndexEntry::decode(entry.frame.id, &entry.encode()).expect("an entry"), entry);
        assert!(IndexEntry::decode(entry.frame.id, &entry.encode()[1..]).is_err());
    }
    let log = disk.log();
    let writes = log.iter().filter(|operation| matches!(operation, crate::disk::simulated::Operation::Write { .. }));
    assert_eq!(writes.count(), 2, "one for the header, one for the batch: {log:?}");
}

#[test]
fn batches_are_bounded() {
    let data: Vec<StoredChunk> = vec![chunk(ChunkKind::Data, vec![7; 128 << 10].into()); 300];
    assert_eq!(BatchLayout::fitting(&data), 256);
    let small: Vec<StoredChunk> = vec![chunk(ChunkKind::Checkpoint, Bytes::from_static(b"x")); 9000];
    assert_eq!(BatchLayout::fitting(&small), 8192);
    assert_eq!(BatchLayout::fitting(&[]), 0);
    let largest = BatchLayout::new(PackId(1), 4096, 0, &small[..8192]);
    let parts = largest.parts().concat();
    assert_eq!(parts.len() as u64, largest.length);
    assert_eq!(BatchHeader::parse(&parts).expect("a header").frames.len(), 8192);
}

#[test]
fn a_damaged_header_costs_its_own_batch_alone() {
    let id = PackId(9);
    let batch = |seed| vec![chunk(ChunkKind::Data, noise(seed, 8192))];
    let bytes = write_pack(&SimulatedDisk::new(), id, &[batch(1), batch(2), batch(3)]);
    let (all, skipped) = scan(id, &bytes);
    assert_eq!((all.len(), skipped), (3, 0));
    let mut damaged = bytes.clone();
    damaged[4096 + 12288 + 60] ^= 1;
    let (found, skipped) = scan(id, &damaged);
    assert_eq!(found, [all[0].clone(), all[2].clone()]);
    assert_eq!(skipped, 12288);
    damaged = bytes.clone();
    damaged[8192] ^= 1;
    let (found, _) = scan(id, &damaged);
    assert_eq!(found, [(0, None), all[1].clone(), all[2].clone()]);
    assert_eq!(scan(PackId(10), &bytes).0, [], "batches of another pack are not its own");
    assert_eq!(scan(id, &bytes[..bytes.len() - 1]).0, [all[0].clone(), all[1].clone(), (2, None)]);
    assert_eq!(scan(id, &bytes[..100]).0, []);
}

#[test]
fn a_pack_that_a_guest_has_on_its_disk_is_data() {
    let inner = write_pack(&SimulatedDisk::new(), PackId(1), &golden_chunks());
    let chunks = [vec![chunk(ChunkKind::Data, inner.into())]];
    let mut outer = write_pack(&SimulatedDisk::new(), PackId(1), &chunks);
    outer[4096] ^= 1;
    assert_eq!(scan(PackId(1), &outer).0, [], "a header that says it is elsewhere was believed");
}

#[test]
fn packs_are_known_by_their_names() {
    assert_eq!(PackId(0xab).path(), "packs/00000000000000ab.pack");
    assert_eq!(PackId::of_file_name("00000000000000ab.pack"), Some(PackId(0xab)));
    for other in ["ab.pack", "00000000000000AB.pack", "00000000000000ab", "+0000000000000ab.pack", ".pack"] {
        assert_eq!(PackId::of_file_name(other), None, "{other}");
    }
}

/// A header with everything right but what `change` does to it.
fn forged(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = BatchLayout::new(PackId(1), 4096, 0, &golden_chunks()[0]).parts()[0].to_vec();
    change(&mut bytes);
    let checksum = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let parsed = |at: usize, byte: u8| BatchHeader::parse(&forged(|bytes| bytes[at] = byte));
    assert!(parsed(0, b'S').is_ok());
    assert_eq!(parsed(0, b'X'), Err(InvalidBatch::NoMagic));
    assert_eq!(parsed(8, 2), Err(InvalidBatch::Version(2)));
    assert_eq!(parsed(33, 0x20), Err(InvalidBatch::Truncated(8192)));
    // Payload: length of 1; number of frames; the first data frame's kind, encoding, lengths and offset.
    for (at, byte) in [(36, 1), (43, 1), (42, 1), (80, 0), (80, 9), (81, 2), (84, 1), (88, 1), (92, 1), (95, 0x7f)] {
        assert_eq!(parsed(at, byte), Err(InvalidBatch::Contradiction), "byte {at} set to {byte}");
    }
    assert_eq!(BatchHeader::parse(&forged(|bytes| bytes[44..48].fill(0xff))), Err(InvalidBatch::Contradiction));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_header_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(BatchHeader::parse(&bytes).is_err());
    }

    #[test]
    fn a_header_with_any_change_and_a_right_checksum_is_read_without_harm(
        changes in proptest::collection::vec((0usize..4096, any::<u8>()), 0..8),
    ) {
        let bytes = forged(|bytes| changes.iter().for_each(|(at, byte)| bytes[*at] = *byte));
        if let Ok(header) = BatchHeader::parse(&bytes) {
            prop_assert!(header.frames.len() * 48 <= bytes.len());
            for frame in &header.frames {
                prop_assert!(frame.offset + frame.stored_length() <= header.payload_bytes);
            }
        }
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed(at in 0usize..4096, bit in 0u8..8) {
        let mut bytes = forged(|_| ());
        bytes[at] ^= 1 << bit;
        prop_assert!(BatchHeader::parse(&bytes).is_err());
    }

    #[test]
    fn what_is_written_is_found(lengths in proptest::collection::vec((1usize..5000, any::<bool>()), 1..40)) {
        let chunks: Vec<StoredChunk> = (0..).zip(&lengths).map(|(seed, (length, data))| {
            if *data {
                chunk(ChunkKind::Data, noise(seed, length.next_multiple_of(4096)))
            } else {
                chunk(ChunkKind::Node, noise(seed, *length))
            }
        }).collect();
        let batches: Vec<Vec<StoredChunk>> = chunks.chunks(7).map(<[StoredChunk]>::to_vec).collect();
        let bytes = write_pack(&SimulatedDisk::new(), PackId(3), &batches);
        prop_assert!(bytes.len().is_multiple_of(4096));
        let (found, skipped) = scan(PackId(3), &bytes);
        let mut found: Vec<Bytes> = found.into_iter().map(|(_, bytes)| bytes.expect("a sound frame")).collect();
        let mut expected: Vec<Bytes> = chunks.into_iter().map(|chunk| chunk.bytes).collect();
        found.sort();
        expected.sort();
        prop_assert_eq!((found, skipped), (expected, 0));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_no_damage() {
    let disk = SimulatedDisk::new();
    write_pack(&disk, PackId(1), &golden_chunks());
    let file: Arc<dyn DiskFile> = disk.open(&PackId(1).path()).expect("a pack");
    let mut scanner = PackScanner::new(PackId(1), file).expect("a scanner");
    let scanned = scanner.next_frame().expect("a frame").expect("a frame");
    disk.fail_next_read();
    assert!(scanner.read(&scanned.frame).is_err());
}
