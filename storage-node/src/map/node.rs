//! A node of a map's radix tree, and how it is written down. There is one way only, so that equal nodes are one chunk:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `SMnd` |
//! | 4 | 2 | version, 1 |
//! | 6 | 1 | level: 2 at the top, 0 where the children are manifests |
//! | 7 | 1 | 0 |
//! | 8 | 32 | bitmap of the slots that have a child: slot s is bit s mod 8 (from the lowest) of byte s / 8; never all 0 |
//! | 40 | 32 n | ids of the n children, in the order of their slots |
//!
//! Integers are little-endian. A node without children is not written: its parent has no child in its slot.

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use sterna_types::{ChunkId, SegmentIndex};

/// Children that a node can have.
pub const FAN_OUT: usize = 256;

/// How far a node is from the manifests: 0 for one whose children are manifests, at most [`Level::TOP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// The level of a map's top, whatever the volume's size, so that the roots of volumes of different sizes compare.
    pub const TOP: Self = Self(2);
    /// The level of nodes whose children are manifests.
    pub const BOTTOM: Self = Self(0);

    /// The level of the children; `None` where those are manifests.
    pub fn below(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// How many segments are found through each child.
    pub fn segments_per_child(self) -> u64 {
        1 << (8 * u32::from(self.0))
    }

    /// How many segments are found through a node of this level.
    pub fn segments(self) -> u64 {
        self.segments_per_child() << 8
    }

    /// The slot, in a node of this level, that a segment is found through.
    pub fn slot_of(self, segment: SegmentIndex) -> u8 {
        (segment.0 / self.segments_per_child()).to_le_bytes()[0]
    }

    /// The segments found through slot `slot` of the node whose first segment is `first`.
    pub fn child_segments(self, first: SegmentIndex, slot: u8) -> Range<SegmentIndex> {
        let start = first.0 + u64::from(slot) * self.segments_per_child();
        SegmentIndex(start)..SegmentIndex(start + self.segments_per_child())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Up to [`FAN_OUT`] children: nodes of the level below, or manifests. Invariants:
/// * it has at least one child;
/// * the number of children is the number of bits in the bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    level: Level,
    bitmap: [u64; 4],
    children: Box<[ChunkId]>,
}

/// Bytes that are no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeFormatError {
    /// Not even a header and a bitmap.
    #[error("{length} bytes are too few for a node, which begins with {HEADER_BYTES}")]
    NoHeader {
        /// How many there are.
        length: usize,
    },
    /// Something else.
    #[error("a node begins with {MAGIC:02x?}, this with {found:02x?}")]
    Magic {
        /// How it begins.
        found: [u8; 4],
    },
    /// Written by a later program.
    #[error("a node of version {found}; this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u16,
    },
    /// A level that a map does not have.
    #[error("a node of level {found}, where the top has level {top}", top = Level::TOP)]
    Level {
        /// Its level.
        found: u8,
    },
    /// A field that has to be 0.
    #[error("the byte at offset 7 of a node is {found:#04x} and has to be 0")]
    Reserved {
        /// What is there.
        found: u8,
    },
    /// No children.
    #[error("a node without children")]
    Empty,
    /// More or fewer bytes than the bitmap says.
    #[error("a node of {expected} bytes by its bitmap has {found}")]
    Length {
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
}

impl Node {
    /// The node with these children, each by its slot; `None` where there are none.
    pub fn of(level: Level, slots: &[Option<ChunkId>; FAN_OUT]) -> Option<Self> {
        let mut bitmap = [0; 4];
        for (slot, _) in slots.iter().enumerate().filter(|(_, child)| child.is_some()) {
            bitmap[slot / 64] |= 1 << (slot % 64);
        }
        let children: Box<[ChunkId]> = slots.iter().flatten().copied().collect();
        (!children.is_empty()).then_some(Self { level, bitmap, children })
    }

    /// How far it is from the manifests.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The child in a slot.
    pub fn child(&self, slot: u8) -> Option<ChunkId> {
        let (word, bit) = (usize::from(slot / 64), slot % 64);
        if self.bitmap[word] >> bit & 1 == 0 {
            return None;
        }
        let in_words_before: u32 = self.bitmap[..word].iter().map(|word| word.count_ones()).sum();
        let before = in_words_before + (self.bitmap[word] & ((1 << bit) - 1)).count_ones();
        self.children.get(usize::try_from(before).ok()?).copied()
    }

    /// The first slot from `from` on that has a child.
    pub fn occupied_from(&self, from: u8) -> Option<u8> {
        let first_word = usize::from(from / 64);
        let masked = |word: usize| {
            if word == first_word { self.bitmap[word] & (u64::MAX << (from % 64)) } else { self.bitmap[word] }
        };
        let word = (first_word..self.bitmap.len()).find(|word| masked(*word) != 0)?;
        u8::try_from(word * 64 + usize::try_from(masked(word).trailing_zeros()).ok()?).ok()
    }

    /// Its children, in the order of their slots.
    pub fn children(&self) -> &[ChunkId] {
        &self.children
    }

    /// Its children, each by its slot.
    pub fn slots(&self) -> [Option<ChunkId>; FAN_OUT] {
        let mut slots = [None; FAN_OUT];
        let occupied = (0..FAN_OUT).filter(|slot| self.bitmap[slot / 64] >> (slot % 64) & 1 == 1);
        for (slot, child) in occupied.zip(&self.children) {
            slots[slot] = Some(*child);
        }
        slots
    }

    /// The bytes of the node's chunk.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(encoded_length(self.children.len()));
        bytes.put_slice(&MAGIC);
        bytes.put_u16_le(VERSION);
        bytes.put_u8(self.level.0);
        bytes.put_u8(0);
        self.bitmap.iter().for_each(|word| bytes.put_u64_le(*word));
        self.children.iter().for_each(|child| bytes.put_slice(child.as_bytes()));
        bytes.freeze()
    }

    /// The node that [`Node::encode`] has made these bytes of. No other bytes are accepted.
    ///
    /// # Errors
    /// [`NodeFormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeFormatError> {
        let Some((header, children)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(NodeFormatError::NoHeader { length: bytes.len() });
        };
        let [m0, m1, m2, m3, v0, v1, level, reserved, bitmap @ ..] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(NodeFormatError::Magic { found: [m0, m1, m2, m3] });
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(NodeFormatError::Version { found: version });
        }
        if level > Level::TOP.0 {
            return Err(NodeFormatError::Level { found: level });
        }
        if reserved != 0 {
            return Err(NodeFormatError::Reserved { found: reserved });
        }
        let count: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
        if count == 0 {
            return Err(NodeFormatError::Empty);
        }
        let expected = encoded_length(usize::try_from(count).unwrap_or(usize::MAX));
        if bytes.len() != expected {
            return Err(NodeFormatError::Length { expected, found: bytes.len() });
        }
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bitmap.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let children = children.as_chunks().0.iter().map(|id| ChunkId::from_bytes(*id)).collect();
        Ok(Self { level: Level(level), bitmap: words, children })
    }
}

const fn encoded_length(children: usize) -> usize {
    HEADER_BYTES + children * ID_BYTES
}

/// "Sterna node".
const MAGIC: [u8; 4] = *b"SMnd";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 40;
const ID_BYTES: usize = 32;

const _: () = assert!(size_of::<ChunkId>() == ID_BYTES);
const _: () =
    assert!(encoded_length(FAN_OUT) <= crate::chunk_store::MAX_CHUNK_BYTES, "a node with all its children is a chunk");

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;
    use crate::chunk_store::chunk_id;

    fn slots(children: impl IntoIterator<Item = (u8, u8)>) -> [Option<ChunkId>; FAN_OUT] {
        let mut slots = [None; FAN_OUT];
        for (slot, number) in children {
            slots[usize::from(slot)] = Some(ChunkId::from_bytes([number; 32]));
        }
        slots
    }

    fn some_slots() -> impl Strategy<Value = [Option<ChunkId>; FAN_OUT]> {
        let number = prop_oneof![0..8usize, 0..4 * FAN_OUT];
        number.prop_flat_map(|number| vec(any::<(u8, u8)>(), number)).prop_map(slots)
    }

    /// Something that is nearly a node: a real one, bytes of it changed, or one lost or added.
    fn nearly_a_node() -> impl Strategy<Value = Vec<u8>> {
        (some_slots(), 0..3u8, vec((0..48usize, any::<u8>()), 0..3), 0..5u8).prop_map(|(slots, level, changes, how)| {
            let mut bytes = Node::of(Level(level), &slots).map(|node| node.encode().to_vec()).unwrap_or(vec![0; 40]);
            for (place, byte) in changes {
                let place = place % bytes.len();
                bytes[place] = byte >> (byte % 8);
            }
            match how {
                0 => drop(bytes.pop()),
                1 => bytes.push(0),
                _ => {}
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn a_node_has_the_children_that_it_was_given(slots in some_slots(), level in 0..3u8) {
            let Some(node) = Node::of(Level(level), &slots) else {
                prop_assert!(slots.iter().all(Option::is_none));
                return Ok(());
            };
            prop_assert_eq!(node.slots(), slots);
            for slot in 0..=255u8 {
                prop_assert_eq!(node.child(slot), slots[usize::from(slot)]);
                let next = (slot..=255).find(|slot| slots[usize::from(*slot)].is_some());
                prop_assert_eq!(node.occupied_from(slot), next);
            }
            prop_assert_eq!(Node::decode(&node.encode()), Ok(node));
        }

        #[test]
        fn whatever_decodes_is_the_one_way_to_write_it(bytes in nearly_a_node()) {
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }

        #[test]
        fn no_bytes_are_too_odd_to_be_refused(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(Node::decode(&bytes).is_err());
        }

        #[test]
        fn a_segment_is_found_through_the_slot_that_spans_it(segment in 0..1u64 << 24) {
            let mut first = SegmentIndex(0);
            let mut level = Some(Level::TOP);
            while let Some(at) = level {
                let span = at.child_segments(first, at.slot_of(SegmentIndex(segment)));
                prop_assert!(span.contains(&SegmentIndex(segment)));
                (first, level) = (span.start, at.below());
            }
            prop_assert_eq!(first, SegmentIndex(segment));
        }
    }

    #[test]
    fn golden_bytes_of_a_node() {
        let node = Node::of(Level::BOTTOM, &slots([(0, 7), (9, 8), (255, 9)])).unwrap();
        let mut expected = vec![b'S', b'M', b'n', b'd', 1, 0, 0, 0];
        let mut bitmap = [0; 32];
        (bitmap[0], bitmap[1], bitmap[31]) = (0x01, 0x02, 0x80);
        expected.extend(bitmap);
        expected.extend([[7; 32], [8; 32], [9; 32]].concat());
        assert_eq!(node.encode(), expected);
        assert_eq!(Node::decode(&expected), Ok(node));
        assert_eq!(chunk_id(&expected).to_string(), "b770575d3ee821a44ae7ab6d375153d04afb8ff645dedaefff5b1817d7cb43ab");
    }

    #[test]
    fn a_wrong_field_is_named() {
        let good = Node::of(Level::TOP, &slots([(3, 1)])).unwrap().encode();
        let decoded = |place: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[place] = byte;
            Node::decode(&bytes).unwrap_err()
        };
        assert_eq!(decoded(3, b'x'), NodeFormatError::Magic { found: *b"SMnx" });
        assert_eq!(decoded(5, 1), NodeFormatError::Version { found: 257 });
        assert_eq!(decoded(6, 3), NodeFormatError::Level { found: 3 });
        assert_eq!(decoded(7, 1), NodeFormatError::Reserved { found: 1 });
        assert_eq!(decoded(8, 0), NodeFormatError::Empty);
        assert_eq!(decoded(9, 1), NodeFormatError::Length { expected: 104, found: 72 });
        assert_eq!(Node::decode(&good[..39]), Err(NodeFormatError::NoHeader { length: 39 }));
    }
}
