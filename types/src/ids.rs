//! Ids and epochs.

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
        let invalid = || InvalidChunkId { text: text.to_owned() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(invalid)?;
        }
        Ok(Self(bytes))
    }
}

/// How often a volume has changed its owner; it never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a volume that has had one owner.
    pub const FIRST: Self = Self(1);

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
    fn epochs_grow() {
        assert!(Epoch::FIRST.next() > Epoch::FIRST);
        assert_eq!(Epoch::FIRST.next().number(), 2);
    }
}
