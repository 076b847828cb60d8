//! The format of a journal's records.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of everything behind it: the rest of the header, and the payload |
//! | 4 | 1 | kind: 1 data, 2 hole, 3 data that has arrived; 4 data and 5 hole with which a mirror begins anew |
//! | 5 | 3 | zero |
//! | 8 | 8 | salt of the file |
//! | 16 | 8 | sequence number |
//! | 24 | 8 | first block |
//! | 32 | 8 | number of blocks, not 0; at most 256 for data |
//! | 40 | 8 | sequence number of the newest record that was durable when this one was written |
//! | 48 | | payload: the blocks, for data; nothing, for a hole |
//!
//! What was durable is noted so that damage can be told from what a loss of power leaves: a record that does not check,
//! though a later one says that it was durable, is damage, and the volume is not opened as if nothing had been there.
//!
//! Integers are little-endian. The next record begins where this one ends. The salt is drawn anew for each use of a file,
//! and is not to be guessed: else what a guest wrote into one volume could be taken for a record of another, once the file
//! has changed hands.

use sterna_types::{BLOCK_SIZE, VolumeSize};

use super::MAX_RECORD_BLOCKS;

/// Bytes of a record without its payload.
pub const HEADER_BYTES: usize = 48;

/// The place of a record in its volume's history, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The one behind it.
    #[must_use]
    pub fn next(self) -> Self {
        // No history gets to the end of the numbers; what a damaged disk says might.
        Self(self.0.saturating_add(1))
    }
}

/// What a record does to its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// They have the contents that follow.
    Data,
    /// So they have, and had it already where the volume was handed over from: they are no new write.
    Arrived,
    /// They are a hole.
    Hole,
    /// They have the contents that follow where a mirror begins anew with them: they count once it has.
    AnewData,
    /// They are a hole where a mirror begins anew with that.
    AnewHole,
}

impl RecordKind {
    /// Whether contents follow.
    pub fn has_data(self) -> bool {
        match self {
            Self::Data | Self::Arrived | Self::AnewData => true,
            Self::Hole | Self::AnewHole => false,
        }
    }

    /// Whether a mirror begins anew with it.
    pub fn is_anew(self) -> bool {
        matches!(self, Self::AnewData | Self::AnewHole)
    }
}

/// A record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it does.
    pub kind: RecordKind,
    /// The salt of the file that it is in.
    pub salt: u64,
    /// Its place in the history.
    pub sequence: Sequence,
    /// The first block.
    pub first_block: u64,
    /// How many blocks.
    pub block_count: u64,
    /// The newest record that was durable when this one was written.
    pub durable: Sequence,
}

/// Bytes that are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    /// The end of the file comes first.
    #[error("it does not fit what is left of the file")]
    Short,
    /// It belongs to an earlier use of the file, or nothing was ever written here.
    #[error("it is not of this file")]
    Stale,
    /// A field has a value that it never has.
    #[error("its {0} is none that a record has")]
    Field(&'static str),
    /// It was not written whole.
    #[error("its checksum differs")]
    Checksum,
}

impl RecordHeader {
    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> u64 {
        if self.kind.has_data() { self.block_count * BLOCK_SIZE } else { 0 }
    }

    /// Bytes of header and payload.
    pub fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.payload_bytes()
    }

    /// The header of a record with these bytes as its payload.
    ///
    /// # Panics
    /// Where the payload is not as long as the header says.
    pub fn encode(&self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        assert_eq!(payload.len() as u64, self.payload_bytes(), "a record's payload is as long as its header says");
        let mut bytes = [0; HEADER_BYTES];
        bytes[4] = match self.kind {
            RecordKind::Data => 1,
            RecordKind::Hole => 2,
            RecordKind::Arrived => 3,
            RecordKind::AnewData => 4,
            RecordKind::AnewHole => 5,
        };
        bytes[8..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_block.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.block_count.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.durable.0.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[4..]), payload);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header of the record that `bytes`, all that is left of a file with this salt, begin with. Its payload has
    /// been verified.
    ///
    /// # Errors
    /// [`NotARecord`].
    pub fn parse(bytes: &[u8], salt: u64) -> Result<Self, NotARecord> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(NotARecord::Short)?;
        let parsed = Self::parse_fields(header, salt)?;
        let length = usize::try_from(parsed.payload_bytes()).map_err(|_| NotARecord::Short)?;
        let payload = rest.get(..length).ok_or(NotARecord::Short)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[4..]), payload);
        if checksum.to_le_bytes() == header[..4] { Ok(parsed) } else { Err(NotARecord::Checksum) }
    }

    fn parse_fields(header: &[u8; HEADER_BYTES], salt: u64) -> Result<Self, NotARecord> {
        let number = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(field)
        };
        if number(8) != salt {
            return Err(NotARecord::Stale);
        }
        let kind = match header[4] {
            1 => RecordKind::Data,
            2 => RecordKind::Hole,
            3 => RecordKind::Arrived,
            4 => RecordKind::AnewData,
            5 => RecordKind::AnewHole,
            _ => return Err(NotARecord::Field("kind")),
        };
        if header[5..8] != [0; 3] {
            return Err(NotARecord::Field("reserved part"));
        }
        let (sequence, durable) = (Sequence(number(16)), Sequence(number(40)));
        let parsed = Self { kind, salt, sequence, first_block: number(24), block_count: number(32), durable };
        let most = if kind.has_data() { MAX_RECORD_BLOCKS } else { MAX_BLOCKS };
        if parsed.block_count == 0 || parsed.block_count > most {
            return Err(NotARecord::Field("number of blocks"));
        }
        if durable >= sequence {
            return Err(NotARecord::Field("durable part"));
        }
        if parsed.first_block > MAX_BLOCKS - parsed.block_count {
            return Err(NotARecord::Field("first block"));
        }
        Ok(parsed)
    }
}

/// Blocks of the largest volume.
const MAX_BLOCKS: u64 = VolumeSize::MAX.0 / BLOCK_SIZE;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    fn headers() -> impl Strategy<Value = RecordHeader> {
        let kinds = prop_oneof![
            (1..=4u64).prop_map(|count| (RecordKind::Data, count)),
            (1..=4u64).prop_map(|count| (RecordKind::Arrived, count)),
            (1..=MAX_BLOCKS).prop_map(|count| (RecordKind::Hole, count)),
            (1..=4u64).prop_map(|count| (RecordKind::AnewData, count)),
            (1..=MAX_BLOCKS).prop_map(|count| (RecordKind::AnewHole, count)),
        ];
        (kinds, any::<u64>(), 1u64.., any::<u64>()).prop_map(|((kind, block_count), salt, sequence, at)| {
            let first_block = at % (MAX_BLOCKS - block_count + 1);
            let (sequence, durable) = (Sequence(sequence), Sequence(at % sequence));
            RecordHeader { kind, salt, sequence, first_block, block_count, durable }
        })
    }

    fn payload(header: &RecordHeader, seed: u8) -> Vec<u8> {
        vec![seed; usize::try_from(header.payload_bytes()).expect("a small payload")]
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(header in headers(), seed in any::<u8>()) {
            let payload = payload(&header, seed);
            let mut bytes = header.encode(&payload).to_vec();
            bytes.extend_from_slice(&payload);
            bytes.extend_from_slice(b"what lies behind");
            prop_assert_eq!(RecordHeader::parse(&bytes, header.salt), Ok(header));
        }

        #[test]
        fn a_record_with_any_bit_changed_is_none(header in headers(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let payload = payload(&header, 7);
            let mut bytes = header.encode(&payload).to_vec();
            bytes.extend_from_slice(&payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(RecordHeader::parse(&bytes, header.salt).is_err());
        }

        #[test]
        fn any_bytes_are_a_record_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 1..=2u8) {
            let mut bytes = bytes;
            if bytes.len() >= HEADER_BYTES {
                bytes[4..8].copy_from_slice(&[kind, 0, 0, 0]);
                bytes[8..16].copy_from_slice(&5u64.to_le_bytes());
            }
            prop_assert!(RecordHeader::parse(&bytes, 5).is_err());
        }
    }

    #[test]
    fn the_format_is_the_one_that_is_documented() {
        let header = RecordHeader {
            kind: RecordKind::Hole,
            salt: 0x1122_3344_5566_7788,
            sequence: Sequence(3),
            first_block: 0x0102,
            block_count: 1 << 29,
            durable: Sequence(2),
        };
        let hex: String = header.encode(&[]).iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = [
            "02000000",
            "8877665544332211",
            "0300000000000000",
            "0201000000000000",
            "0000002000000000",
            "0200000000000000",
        ]
        .concat();
        assert_eq!(hex[8..], fields, "the fields of a record have moved");
        assert_eq!(&hex[..8], GOLDEN_CHECKSUM, "the checksum of a record is another");
    }

    const GOLDEN_CHECKSUM: &str = "4fdc1e6d";
}
