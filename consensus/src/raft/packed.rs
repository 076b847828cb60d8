//! An entry as it goes to other nodes: as JSON, and where every node can read that, compressed (zstd) once, however many nodes it
//! goes to. A leader of two thousand nodes would otherwise spend its processors on writing the same text down for each of them.
//!
//! What arrives is told apart by its first bytes.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use openraft::EntryPayload;

use super::wire::{InvalidMessage, json_of};
use super::{Entry, LogId};
use crate::limits::MAX_MESSAGE_BYTES;
use crate::store::record::{EntryRecord, to_json};

/// The compressed form of an entry, once it was needed. Shared by all copies of the entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed(Arc<OnceLock<(LogId, Vec<u8>)>>);

/// The entry as it goes to a node that can read the compressed form, or cannot.
pub(crate) fn pack(entry: &Entry, reads_compressed: bool) -> Vec<u8> {
    let json = || to_json(&EntryRecord::from(entry));
    let EntryPayload::Normal(batch) = &entry.payload else { return json() };
    if !reads_compressed {
        return json();
    }
    let (id, bytes) = batch.packed.0.get_or_init(|| (entry.log_id, compress(json())));
    if *id == entry.log_id { bytes.clone() } else { json() }
}

/// The entry that has arrived.
///
/// # Errors
/// [`InvalidMessage`].
pub(crate) fn unpack(bytes: &[u8]) -> Result<Entry, InvalidMessage> {
    if !bytes.starts_with(&ZSTD_MAGIC) {
        return json_of::<EntryRecord>("entry", bytes).map(Entry::from);
    }
    let json = decompress(bytes).map_err(|source| InvalidMessage::Compression { source })?;
    json_of::<EntryRecord>("entry", &json).map(Entry::from)
}

/// Shorter where that makes it so; the same otherwise.
fn compress(json: Vec<u8>) -> Vec<u8> {
    match zstd::encode_all(&*json, zstd::DEFAULT_COMPRESSION_LEVEL) {
        Ok(bytes) if bytes.len() < json.len() => bytes,
        _ => json,
    }
}

fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    zstd::Decoder::new(bytes)?.take(MAX_MESSAGE_BYTES as u64 + 1).read_to_end(&mut json)?;
    if json.len() > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than any entry"));
    }
    Ok(json)
}

/// How a frame of zstd begins; JSON begins with another byte.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[cfg(test)]
mod tests {
    use openraft::LeaderId;

    use super::*;
    use crate::raft::Batch;
    use crate::state::request::Request;
    use crate::state::tests::create_volume;

    fn entry(index: u64) -> Entry {
        let request = |number| Request { id: None, command: create_volume(&format!("volume-{number}")) };
        let payload = EntryPayload::Normal(Batch::from((0..100).map(request).collect::<Vec<_>>()));
        Entry { log_id: LogId::new(LeaderId::new(3, 1), index), payload }
    }

    #[test]
    fn an_entry_arrives_as_it_was_sent_and_is_compressed_once() {
        let entry = entry(7);
        let (plain, packed) = (pack(&entry, false), pack(&entry, true));
        assert_eq!(plain, to_json(&EntryRecord::from(&entry)));
        assert!(packed.len() * 4 < plain.len(), "{} of {} bytes", packed.len(), plain.len());
        assert_eq!(unpack(&plain).unwrap(), entry);
        assert_eq!(unpack(&packed).unwrap(), entry);
        let EntryPayload::Normal(batch) = &entry.payload else { panic!("{entry:?}") };
        assert_eq!(batch.packed.0.get().map(|(_, bytes)| bytes), Some(&packed));
        // The same requests in another place are another entry.
        let moved = Entry { log_id: LogId::new(LeaderId::new(4, 2), 8), payload: entry.payload.clone() };
        assert_eq!(unpack(&pack(&moved, true)).unwrap(), moved);
    }

    #[test]
    fn entries_of_raft_itself_and_short_ones_arrive_as_well() {
        let blank = Entry { log_id: LogId::new(LeaderId::new(3, 1), 7), payload: EntryPayload::Blank };
        let none = Entry { payload: EntryPayload::Normal(Batch::from(Vec::new())), ..blank };
        for entry in [blank, none] {
            assert_eq!(unpack(&pack(&entry, true)).unwrap(), entry);
        }
    }

    #[test]
    fn what_is_cut_off_or_swells_is_refused() {
        let packed = pack(&entry(7), true);
        let bomb = zstd::encode_all(io::repeat(b' ').take(MAX_MESSAGE_BYTES as u64 + 1), 1).unwrap();
        for bad in [&packed[..packed.len() / 2], &packed[..4], &bomb] {
            assert!(matches!(unpack(bad), Err(InvalidMessage::Compression { .. })));
        }
    }
}
