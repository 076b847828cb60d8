//! What owners and members tell each other: domain types from messages, and back. Whatever is wrong with a message is refused here.

use bytes::Bytes;
use sterna_proto::node::{Beginning as BeginningMessage, BlockChange};
use sterna_storage_node::volume::{Beginning, Change, Changed, FeedRecord, SealedState};
use sterna_types::{BLOCK_SIZE, ByteSize, ChunkId, Root, VolumeSize};

/// What a mirror begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// The sealed contents.
    pub(super) sealed: SealedState,
    /// Blocks of data that writes had, also in all that is newer.
    pub(super) written_blocks: u64,
}

/// A message that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the owner has sent {0}")]
pub(super) struct NoMessage(String);

impl Begin {
    /// Of what a volume says.
    pub(super) fn of(beginning: &Beginning) -> Self {
        Self { sealed: beginning.sealed, written_blocks: beginning.written_blocks }
    }

    /// As a message.
    pub(super) fn to_message(self) -> BeginningMessage {
        let Self { sealed: SealedState { root, generation, written_blocks: sealed_blocks }, written_blocks } = self;
        let root = root.top().map(|top| top.as_bytes().to_vec()).unwrap_or_default();
        BeginningMessage { root, generation, sealed_blocks, written_blocks }
    }

    /// From a message.
    pub(super) fn parse(message: &BeginningMessage) -> Result<Self, NoMessage> {
        let BeginningMessage { ref root, generation, sealed_blocks, written_blocks } = *message;
        let root = match <[u8; 32]>::try_from(&root[..]) {
            Ok(top) => Root::at(ChunkId::from_bytes(top)),
            Err(_) if root.is_empty() => Root::EMPTY,
            Err(_) => return Err(NoMessage(format!("a root of {} bytes", root.len()))),
        };
        Ok(Self { sealed: SealedState { root, generation, written_blocks: sealed_blocks }, written_blocks })
    }
}

/// A change as a message. Blocks.
///
/// # Errors
/// The journal cannot be read.
pub(super) fn to_message(record: &FeedRecord) -> std::io::Result<BlockChange> {
    let first = record.blocks.start;
    Ok(match record.is_hole() {
        true => BlockChange { first, data: Vec::new(), hole: record.blocks.end - first },
        false => BlockChange { first, data: record.data()?, hole: 0 },
    })
}

/// A change from a message. Whether it is within the volume is for that to say.
pub(super) fn change(message: BlockChange) -> Result<Change, NoMessage> {
    let BlockChange { first: first_block, data, hole } = message;
    let what = match (data.len() as u64, hole) {
        (0, 1..) => Changed::Hole(hole),
        (1..=MAX_DATA_BYTES, 0) if (data.len() as u64).is_multiple_of(BLOCK_SIZE) => Changed::Data(Bytes::from(data)),
        (bytes, hole) => return Err(NoMessage(format!("a change with {bytes} bytes and a hole of {hole} blocks"))),
    };
    Ok(Change { first_block, what })
}

/// The size of a volume.
pub(super) fn size(bytes: u64) -> Result<VolumeSize, NoMessage> {
    VolumeSize::try_from(ByteSize(bytes)).map_err(|error| NoMessage(format!("a volume's size that is none: {error}")))
}

/// What a record of the journal has at most.
const MAX_DATA_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mirror_begins_with_comes_as_it_was_sent() {
        for root in [Root::EMPTY, Root::at(ChunkId::from_bytes([7; 32]))] {
            let begin = Begin { sealed: SealedState { root, generation: 5, written_blocks: 6 }, written_blocks: 9 };
            assert_eq!(Begin::parse(&begin.to_message()), Ok(begin));
        }
        let bad = BeginningMessage { root: vec![1; 31], ..BeginningMessage::default() };
        assert_eq!(
            Begin::parse(&bad).map_err(|error| error.to_string()),
            Err("the owner has sent a root of 31 bytes".to_owned())
        );
    }

    #[test]
    fn a_change_is_whole_blocks_or_a_hole_and_not_both() {
        let message = |data: usize, hole| BlockChange { first: 3, data: vec![1; data], hole };
        assert_eq!(change(message(8192, 0)).expect("data").what, Changed::Data(vec![1; 8192].into()));
        assert_eq!(change(message(0, 7)).expect("a hole").what, Changed::Hole(7));
        for (data, hole) in [(0, 0), (4096, 1), (4095, 0), ((1 << 20) + 4096, 0)] {
            change(message(data, hole)).expect_err("it is no change");
        }
        size(1 << 20).expect("a size");
        size(1).expect_err("no volume has it");
    }
}
