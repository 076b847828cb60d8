//! Ids of chunks, volumes, nodes and clusters, roots, and epochs.

use std::fmt;
use std::str::FromStr;

/// The name of a chunk: the BLAKE3-256 hash of its contents, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId([u8; 32]);

/// A text that is not a [`ChunkId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a chunk id: it takes 64 hexadecimal digits")]
pub struct InvalidChunkId {
    /// What was given.
    pub text: String,
}

impl ChunkId {
    /// The id that these 32 bytes are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

impl FromStr for ChunkId {
    type Err = InvalidChunkId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_hex(text).map(Self).ok_or_else(|| InvalidChunkId { text: text.to_owned() })
    }
}

/// The bytes that twice as many hexadecimal digits stand for, and nothing else.
fn from_hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low)?;
    }
    Some(bytes)
}

/// The contents of a volume at one moment: the id of the top of its map, or nothing at all for a volume of zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Root(Option<ChunkId>);

impl Root {
    /// The contents of a volume that nobody has written: all of it is a hole.
    pub const EMPTY: Self = Self(None);

    /// The contents whose map has its top in the chunk `id`.
    pub const fn at(id: ChunkId) -> Self {
        Self(Some(id))
    }

    /// The chunk at the top of the map; `None` where everything is a hole.
    pub const fn top(self) -> Option<ChunkId> {
        self.0
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => id.fmt(f),
            None => f.write_str("empty"),
        }
    }
}

impl FromStr for Root {
    type Err = InvalidChunkId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "empty" { Ok(Self::EMPTY) } else { text.parse().map(Self::at) }
    }
}

/// A volume, whatever it is called: given out once by the metadata, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u64);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node, whatever it is called: given out once by the metadata, and never again. Raft knows it by the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The node that its cluster began with.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A cluster: 16 random bytes, chosen when it began and written as 32 hexadecimal digits, so that nodes of two clusters
/// never take each other for their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId([u8; 16]);

/// A text that is not a [`ClusterId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a cluster's id: it takes 32 hexadecimal digits")]
pub struct InvalidClusterId {
    /// What was given.
    pub text: String,
}

impl ClusterId {
    /// The id that these 16 bytes are.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ClusterId {
    type Err = InvalidClusterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_hex(text).map(Self).ok_or_else(|| InvalidClusterId { text: text.to_owned() })
    }
}

/// Which join token it is: 8 random bytes, no secret, written as 16 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

/// A text that is not a [`TokenId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not the id of a join token: it takes 16 hexadecimal digits in lower case")]
pub struct InvalidTokenId {
    /// What was given.
    pub text: String,
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_lower = !text.bytes().any(|c| c.is_ascii_uppercase());
        let bytes = from_hex(text).filter(|_| is_lower);
        bytes.map(|bytes| Self(u64::from_be_bytes(bytes))).ok_or_else(|| InvalidTokenId { text: text.to_owned() })
    }
}

/// How often a volume has changed its owner; it never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a volume that has had one owner.
    pub const FIRST: Self = Self(1);

    /// The epoch of this number; `None` for 0, which no volume ever has.
    pub const fn from_number(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The epoch after the next change of owner.
    ///
    /// # Panics
    /// After 2^64 changes of owner.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a volume changes its owner fewer than 2^64 times"))
    }

    /// The number of the epoch.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn a_chunk_id_reads_back_as_it_was_written(bytes in any::<[u8; 32]>()) {
            let id = ChunkId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<ChunkId>()?, id);
            prop_assert_eq!(id.to_string().to_uppercase().parse::<ChunkId>()?, id);
            prop_assert_eq!(Root::at(id).to_string().parse::<Root>()?, Root::at(id));
        }
    }

    #[test]
    fn what_is_not_64_digits_is_no_chunk_id() {
        let mut texts = vec![String::new(), "0".repeat(63), "0".repeat(65), "g".repeat(64), "é".repeat(32)];
        texts.push("+f".repeat(32));
        for text in texts {
            assert!(text.parse::<ChunkId>().is_err(), "{text} was taken for a chunk id");
        }
    }

    #[test]
    fn a_cluster_id_reads_back_as_it_was_written() {
        let id = ClusterId::from_bytes(*b"sixteen bytes ok");
        assert_eq!(id.to_string(), "7369787465656e206279746573206f6b");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("7369787465656e206279746573206f6".parse::<ClusterId>().is_err());
    }

    #[test]
    fn the_empty_root_has_a_name_of_its_own() {
        assert_eq!(Root::EMPTY.to_string().parse(), Ok(Root::EMPTY));
        assert_eq!(Root::EMPTY.top(), None);
    }

    #[test]
    fn epochs_grow() {
        assert!(Epoch::FIRST.next() > Epoch::FIRST);
        assert_eq!(Epoch::FIRST.next().number(), 2);
        assert_eq!(Epoch::from_number(1), Some(Epoch::FIRST));
        assert_eq!(Epoch::from_number(0), None);
    }
}
