//! Packs: what is written is found and read again, and nothing that was altered is taken for it.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use sterna_storage_node::chunk_store::{ChunkKind, chunk_id};

use super::{Entry, PackWriter, TARGET_BYTES, decode_frame, parse_tail, where_index_begins};

fn pack(chunks: &[Vec<u8>]) -> (Bytes, Vec<Entry>) {
    let mut writer = PackWriter::new(TARGET_BYTES);
    for (number, contents) in chunks.iter().enumerate() {
        let kind = [ChunkKind::Data, ChunkKind::Manifest, ChunkKind::Node][number % 3];
        writer.add(chunk_id(contents), kind, contents);
    }
    writer.finish()
}

fn frame(pack: &Bytes, entry: &Entry) -> Bytes {
    pack.slice(entry.offset as usize..(entry.offset + entry.frame_bytes()) as usize)
}

proptest! {
    #[test]
    fn what_is_written_is_found_by_the_end_and_read_again(chunks in vec(vec(any::<u8>(), 1..3000), 1..20)) {
        let (pack, entries) = pack(&chunks);
        let bytes = pack.len() as u64;
        prop_assert_eq!(&parse_tail(&pack, bytes).expect("an index"), &entries);
        let begin = usize::try_from(where_index_begins(&pack[pack.len() - 32..], bytes).expect("a trailer")).expect("a place");
        prop_assert_eq!(&parse_tail(&pack[begin..], bytes).expect("an index"), &entries);
        for (entry, contents) in entries.iter().zip(&chunks) {
            prop_assert_eq!(&decode_frame(entry.id, &frame(&pack, entry)).expect("a chunk"), contents);
        }
    }

    #[test]
    fn a_bit_that_differs_is_noticed(contents in vec(any::<u8>(), 1..500), at in any::<usize>(), bit in 0..8_u8) {
        let (pack, entries) = pack(&[contents, vec![7; 5000]]);
        let mut altered = pack.to_vec();
        // The head is of use to people only.
        let at = 16 + at % (pack.len() - 16);
        altered[at] ^= 1_u8 << bit;
        let altered = Bytes::from(altered);
        let index_is_whole = parse_tail(&altered, pack.len() as u64).is_ok();
        let frames_are_whole = entries.iter().all(|entry| decode_frame(entry.id, &frame(&altered, entry)).is_ok());
        prop_assert!(!index_is_whole || !frames_are_whole, "byte {} of {}", at, pack.len());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(tail in vec(any::<u8>(), 0..300), bytes in any::<u64>()) {
        let _ = parse_tail(&tail, bytes);
        let _ = where_index_begins(&tail, bytes);
        let _ = decode_frame(chunk_id(&tail), &Bytes::from(tail));
    }
}

#[test]
fn a_pack_that_was_cut_off_is_none() {
    let (pack, _) = pack(&[vec![1; 4096], vec![2; 100]]);
    for length in 0..pack.len() {
        assert!(parse_tail(&pack[..length], length as u64).is_err(), "{length} bytes");
    }
}

#[test]
fn one_chunk_is_not_taken_for_another() {
    let (pack, entries) = pack(&[vec![1; 4096], vec![2; 4096]]);
    assert!(decode_frame(entries[1].id, &frame(&pack, &entries[0])).is_err());
}

#[test]
fn a_pack_is_written_as_it_was_in_version_1() {
    let (pack, _) = pack(&[b"a chunk of a map".to_vec()]);
    assert_eq!(&pack[..16], b"STRNBPAK\x01\0\0\0\0\0\0\0");
    assert_eq!(&pack[pack.len() - 8..], b"STRNBEND");
    // Fixed for ever: packs that were written are read with it.
    assert_eq!((pack.len(), crc32c::crc32c(&pack)), (16 + 52 + 16 + 48 + 32, GOLDEN));
}

const GOLDEN: u32 = 0xc672_d056;
