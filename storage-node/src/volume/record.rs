//! What a node keeps of each of its volumes beside the chunks: the sealed root, and where the journal goes on from it.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version: 3 where a tail follows, 4 where it is said with what a mirror has begun anew, else 2 |
//! | 1 | 1 | 1 where there is a root and a checkpoint, 0 for the empty root; 2 more where it is a mirror of what another node owns |
//! | 2 | 6 | blocks written: how many blocks of data writes of the volume's whole life the root holds, at most 2^48 - 1 |
//! | 8 | 8 | generation: how often the root has changed |
//! | 16 | 8 | epoch |
//! | 24 | 8 | size in bytes when it was sealed |
//! | 32 | 8 | sequence number of the newest journal record that the root holds |
//! | 40 | 8 | number of the first journal file that holds later ones |
//! | 48 | 32 | root |
//! | 80 | 32 | checkpoint |
//! | 112 | | in version 3: the tail of the handoff by which the volume came here, as far as it has not arrived ([`super::tail`]) |
//! | 112 | 8 | in version 4: blocks of data writes that the mirror has begun anew with, beyond those in the root |
//! | 120 | 8 | in version 4: sequence number of the last of the journal's records with which it has |
//!
//! Integers are little-endian. In version 1, which is still read, nothing was counted: blocks written is zero. The same fields up
//! to the root are a chunk of their own, the **checkpoint**, always of version 2, so that the packs alone tell which roots there
//! were; it is also the note in the headers of the journal's files, so that a volume that was never sealed can be told from its
//! journal:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STRNCKPT` |
//! | 8 | 8 | volume id |
//! | 16 | 80 | the fields above, up to the root |

use sterna_types::{ChunkId, Epoch, Root, VolumeId};

use super::error::VolumeError;
use super::tail::Tail;
use super::volume::SealedState;
use crate::journal::FileNumber;
use crate::journal::record::Sequence;

/// A volume's sealed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// The sealed contents.
    pub root: Root,
    /// How often they have changed.
    pub generation: u64,
    /// Blocks of 4 KiB of the data writes of the volume's whole life that are in them, each as often as it was written; holes
    /// count nothing. What is kept of it ends at 2^48 - 1.
    pub written_blocks: u64,
    /// Under which epoch they were sealed.
    pub epoch: Epoch,
    /// The volume's size in bytes when they were.
    pub size_bytes: u64,
    /// The newest journal record that is in them.
    pub sealed_through: Sequence,
    /// The journal file from which on later records are.
    pub replay_from: FileNumber,
    /// The chunk that says the same.
    pub checkpoint: Option<ChunkId>,
    /// Whether another node owns the volume in that epoch, and this is kept so that this node can go on with it.
    pub is_mirror: bool,
    /// Where it is a mirror that has begun anew and was not sealed since: with what.
    pub anew: Option<Anew>,
}

/// With what a mirror has begun anew, beyond its root: see [`super::mirror`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anew {
    /// Blocks of data writes, each as often as it was written by the volume's owner.
    pub written_blocks: u64,
    /// The last record of the journal with which it has. Those of [`RecordKind::is_anew`] up to here count, and no others.
    ///
    /// [`RecordKind::is_anew`]: crate::journal::record::RecordKind::is_anew
    pub through: Sequence,
}

impl VolumeRecord {
    /// The record as bytes, with the part of the volume that has not arrived.
    ///
    /// # Panics
    /// Of a mirror that has begun anew, where there is such a part: mirrors have none.
    pub fn encode(&self, tail: &Tail) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_BYTES];
        bytes[..CHECKPOINT_FIELD].copy_from_slice(&self.encode_common());
        if let Some(checkpoint) = self.checkpoint {
            bytes[CHECKPOINT_FIELD..].copy_from_slice(checkpoint.as_bytes());
        }
        if !tail.is_empty() {
            assert!(self.anew.is_none(), "a mirror has everything");
            bytes[0] = VERSION_WITH_TAIL;
            bytes.extend_from_slice(&tail.encode());
        }
        if let Some(Anew { written_blocks, through }) = self.anew {
            bytes[0] = VERSION_ANEW;
            bytes.extend([written_blocks, through.0].map(u64::to_le_bytes).concat());
        }
        bytes
    }

    /// What was sealed.
    pub fn state(&self) -> SealedState {
        let Self { root, generation, written_blocks, .. } = *self;
        SealedState { root, generation, written_blocks }
    }

    /// The checkpoint of `volume` that says the same.
    pub fn encode_checkpoint(&self, volume: VolumeId) -> [u8; CHECKPOINT_BYTES] {
        let mut bytes = [0; CHECKPOINT_BYTES];
        bytes[..8].copy_from_slice(CHECKPOINT_MAGIC);
        bytes[8..16].copy_from_slice(&volume.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.encode_common());
        bytes
    }

    fn encode_common(&self) -> [u8; CHECKPOINT_FIELD] {
        let mut bytes = [0; CHECKPOINT_FIELD];
        bytes[0] = VERSION;
        bytes[2..8].copy_from_slice(&self.written_blocks.min(MAX_WRITTEN_BLOCKS).to_le_bytes()[..6]);
        let numbers =
            [self.generation, self.epoch.number(), self.size_bytes, self.sealed_through.0, self.replay_from.0];
        for (index, number) in numbers.into_iter().enumerate() {
            bytes[8 + 8 * index..16 + 8 * index].copy_from_slice(&number.to_le_bytes());
        }
        if self.is_mirror {
            bytes[1] = MIRROR;
        }
        if let Some(top) = self.root.top() {
            bytes[1] |= HAS_ROOT;
            bytes[48..].copy_from_slice(top.as_bytes());
        }
        bytes
    }

    /// The record of `volume` that these bytes are, and the part of the volume that has not arrived.
    ///
    /// # Errors
    /// [`VolumeError::DamagedRecord`].
    pub fn parse(volume: VolumeId, bytes: &[u8]) -> Result<(Self, Tail), VolumeError> {
        let damaged = |what| VolumeError::DamagedRecord { volume, what };
        let (common, rest) = bytes.split_first_chunk::<CHECKPOINT_FIELD>().ok_or_else(|| damaged("it is too short"))?;
        let (checkpoint, more) = rest.split_first_chunk::<32>().ok_or_else(|| damaged("it is too short"))?;
        let checkpoint = (*checkpoint != [0; 32]).then(|| ChunkId::from_bytes(*checkpoint));
        let (mut common, mut tail, mut anew) = (*common, Tail::EMPTY, None);
        match (common[0], more) {
            (VERSION_WITH_TAIL, [_, ..]) => tail = Tail::parse(more).map_err(|_| damaged("its tail is none"))?,
            (VERSION_ANEW, _) => match more.as_chunks::<8>() {
                (&[written_blocks, through], []) => {
                    let [written_blocks, through] = [written_blocks, through].map(u64::from_le_bytes);
                    anew = Some(Anew { written_blocks, through: Sequence(through) });
                }
                _ => return Err(damaged("its length is wrong")),
            },
            (VERSION | VERSION_WITHOUT_COUNT, []) => {}
            (VERSION | VERSION_WITHOUT_COUNT | VERSION_WITH_TAIL, _) => return Err(damaged("its length is wrong")),
            _ => return Err(damaged("its version is unknown here")),
        }
        if matches!(common[0], VERSION_WITH_TAIL | VERSION_ANEW) {
            common[0] = VERSION;
        }
        let common = Self::parse_common(&common, checkpoint).map_err(damaged)?;
        Ok((Self { anew, ..common }, tail))
    }

    /// The volume and the state that a checkpoint speaks of; `None` where the bytes are none.
    pub fn parse_checkpoint(bytes: &[u8], id: ChunkId) -> Option<(VolumeId, Self)> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (volume, common) = rest.split_first_chunk::<8>()?;
        let common = common.try_into().ok()?;
        let record = Self::parse_common(common, Some(id)).ok()?;
        (magic == CHECKPOINT_MAGIC).then(|| (VolumeId(u64::from_le_bytes(*volume)), record))
    }

    fn parse_common(bytes: &[u8; CHECKPOINT_FIELD], checkpoint: Option<ChunkId>) -> Result<Self, &'static str> {
        let mut written_blocks = [0; 8];
        written_blocks[..6].copy_from_slice(&bytes[2..8]);
        let written_blocks = u64::from_le_bytes(written_blocks);
        match bytes[0] {
            VERSION => {}
            VERSION_WITHOUT_COUNT if written_blocks == 0 => {}
            VERSION_WITHOUT_COUNT => return Err("its reserved part is not zero"),
            _ => return Err("its version is unknown here"),
        }
        let number = |index: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[8 + 8 * index..16 + 8 * index]);
            u64::from_le_bytes(field)
        };
        let mut top = [0; 32];
        top.copy_from_slice(&bytes[48..]);
        let is_mirror = bytes[1] & MIRROR != 0;
        let root = match (bytes[1] & !MIRROR, top == [0; 32]) {
            (0, true) => Root::EMPTY,
            (HAS_ROOT, _) => Root::at(ChunkId::from_bytes(top)),
            _ => return Err("its root is neither there nor absent"),
        };
        Ok(Self {
            root,
            generation: number(0),
            written_blocks,
            epoch: Epoch::from_number(number(1)).ok_or("its epoch is 0")?,
            size_bytes: number(2),
            sealed_through: Sequence(number(3)),
            replay_from: FileNumber(number(4)),
            checkpoint,
            is_mirror,
            anew: None,
        })
    }
}

/// In the second byte: there is a root.
const HAS_ROOT: u8 = 1;
/// In the second byte: it is a mirror.
const MIRROR: u8 = 2;
/// 4: a mirror has begun anew.
const VERSION_ANEW: u8 = 4;
/// 3: not all of the volume is here.
const VERSION_WITH_TAIL: u8 = 3;
/// 2: blocks written are counted.
const VERSION: u8 = 2;
/// 1: where the count is now, there is zero.
const VERSION_WITHOUT_COUNT: u8 = 1;
/// As much as there is room for: an exbibyte.
const MAX_WRITTEN_BLOCKS: u64 = (1 << 48) - 1;
const CHECKPOINT_FIELD: usize = 80;
const RECORD_BYTES: usize = CHECKPOINT_FIELD + 32;
const CHECKPOINT_BYTES: usize = 16 + CHECKPOINT_FIELD;
const _: () = assert!(CHECKPOINT_BYTES == crate::journal::NOTE_BYTES);
const CHECKPOINT_MAGIC: &[u8; 8] = b"STRNCKPT";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(
            top in any::<Option<[u8; 32]>>(),
            numbers in any::<[u64; 4]>(),
            written_blocks in 0..=MAX_WRITTEN_BLOCKS,
            epoch in 1u64..,
            volume in any::<u64>(),
            has_tail in any::<bool>(),
            is_mirror in any::<bool>(),
            anew in any::<Option<[u64; 2]>>(),
        ) {
            let anew = anew.map(|[written_blocks, through]| Anew { written_blocks, through: Sequence(through) });
            let tail = if has_tail && anew.is_none() { tail() } else { Tail::EMPTY };
            let root = top.map_or(Root::EMPTY, |top| Root::at(ChunkId::from_bytes(top)));
            let mut record = VolumeRecord {
                root,
                generation: numbers[0],
                written_blocks,
                epoch: Epoch::from_number(epoch).expect("not 0"),
                size_bytes: numbers[1],
                sealed_through: Sequence(numbers[2]),
                replay_from: FileNumber(numbers[3]),
                checkpoint: None,
                is_mirror,
                anew,
            };
            let volume = VolumeId(volume);
            prop_assert_eq!(VolumeRecord::parse(volume, &record.encode(&tail)).ok(), Some((record, tail.clone())));
            let checkpoint = record.encode_checkpoint(volume);
            record.checkpoint = Some(crate::chunk_store::chunk_id(&checkpoint));
            prop_assert_eq!(VolumeRecord::parse(volume, &record.encode(&tail)).ok(), Some((record, tail)));
            let id = crate::chunk_store::chunk_id(&checkpoint);
            let record = VolumeRecord { anew: None, ..record };
            prop_assert_eq!(VolumeRecord::parse_checkpoint(&checkpoint, id), Some((volume, record)));
        }

        #[test]
        fn any_bytes_are_a_record_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..140)) {
            let id = ChunkId::from_bytes([1; 32]);
            let _ = VolumeRecord::parse(VolumeId(1), &bytes);
            prop_assert_eq!(VolumeRecord::parse_checkpoint(&bytes, id), None);
        }
    }

    /// A record as it is written today, and the bytes that it has in the two versions.
    fn golden(version: u8) -> (VolumeRecord, Vec<u8>) {
        let written: [u8; 6] = if version == 1 { [0; 6] } else { [6, 5, 4, 3, 2, 1] };
        let record = VolumeRecord {
            root: Root::at(ChunkId::from_bytes([7; 32])),
            generation: 2,
            written_blocks: if version == 1 { 0 } else { 0x0102_0304_0506 },
            epoch: Epoch::from_number(3).expect("not 0"),
            size_bytes: 4 << 20,
            sealed_through: Sequence(5),
            replay_from: FileNumber(6),
            checkpoint: Some(ChunkId::from_bytes([8; 32])),
            is_mirror: false,
            anew: None,
        };
        let numbers = [2, 3, 4 << 20, 5, 6].map(u64::to_le_bytes).concat();
        (record, [&[version, 1], &written[..], &numbers, &[7; 32], &[8; 32]].concat())
    }

    #[test]
    fn golden_bytes_of_a_record() {
        let (record, bytes) = golden(2);
        assert_eq!(record.encode(&Tail::EMPTY), *bytes);
        assert_eq!(VolumeRecord::parse(VolumeId(1), &bytes).ok(), Some((record, Tail::EMPTY)));
        assert!(VolumeRecord::parse(VolumeId(1), &golden(5).1).is_err(), "a version that nobody knows");
    }

    fn tail() -> Tail {
        Tail::parse(&[9u64, 2].map(u64::to_le_bytes).concat()).expect("a tail")
    }

    #[test]
    fn a_record_with_a_tail_is_of_version_3() {
        let (record, mut bytes) = golden(3);
        assert!(VolumeRecord::parse(VolumeId(1), &bytes).is_err(), "its tail is missing");
        bytes.extend([9u64, 2].map(u64::to_le_bytes).concat());
        assert_eq!(record.encode(&tail()), bytes);
        assert_eq!(VolumeRecord::parse(VolumeId(1), &bytes).ok(), Some((record, tail())));
        assert!(VolumeRecord::parse(VolumeId(1), &bytes[..bytes.len() - 1]).is_err());
        bytes[0] = 2;
        assert!(VolumeRecord::parse(VolumeId(1), &bytes).is_err(), "there is more than it says");
    }

    #[test]
    fn a_record_of_a_mirror_that_has_begun_anew_is_of_version_4() {
        let (record, mut bytes) = golden(4);
        assert!(VolumeRecord::parse(VolumeId(1), &bytes).is_err(), "it does not say with what");
        bytes.extend([9u64, 7].map(u64::to_le_bytes).concat());
        let record = VolumeRecord { anew: Some(Anew { written_blocks: 9, through: Sequence(7) }), ..record };
        assert_eq!(record.encode(&Tail::EMPTY), bytes);
        assert_eq!(VolumeRecord::parse(VolumeId(1), &bytes).ok(), Some((record, Tail::EMPTY)));
        assert!(VolumeRecord::parse(VolumeId(1), &bytes[..bytes.len() - 1]).is_err());
        bytes.push(0);
        assert!(VolumeRecord::parse(VolumeId(1), &bytes).is_err(), "there is more than it says");
    }

    #[test]
    fn a_record_of_version_1_is_read_and_has_counted_nothing() {
        let (record, mut bytes) = golden(1);
        assert_eq!(VolumeRecord::parse(VolumeId(1), &bytes).ok(), Some((record, Tail::EMPTY)));
        let checkpoint = [b"STRNCKPT", &9u64.to_le_bytes()[..], &bytes[..CHECKPOINT_FIELD]].concat();
        let id = ChunkId::from_bytes([8; 32]);
        assert_eq!(VolumeRecord::parse_checkpoint(&checkpoint, id), Some((VolumeId(9), record)));
        bytes[4] = 1;
        assert!(VolumeRecord::parse(VolumeId(1), &bytes).is_err(), "there is nothing in it but zero");
    }

    #[test]
    fn a_count_that_there_is_no_room_for_ends_at_the_most_that_there_is() {
        let record = VolumeRecord { written_blocks: u64::MAX, ..golden(2).0 };
        let (read, _) = VolumeRecord::parse(VolumeId(1), &record.encode(&Tail::EMPTY)).expect("a record");
        assert_eq!(read.written_blocks, MAX_WRITTEN_BLOCKS);
    }
}
