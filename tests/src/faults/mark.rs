//! What a client writes into a block, so that whoever reads the block knows which write it is from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::oracle::block::{BLOCK_BYTES, Content, Stamp};

/// One write: the node whose client wrote it, the client's connection, and the write's number. A client's numbers rise
/// over all of its connections, and none comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The node that the client was connected to, counted from 0.
    pub node: u8,
    /// Which of its connections.
    pub connection: u32,
    /// Which of its writes.
    pub sequence: u64,
}

/// What a block was found to hold. As text: `-`, `node.connection.sequence`, or `!` and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Found {
    /// Zeroes.
    Zeroes,
    /// A write, all of it.
    Mark(Mark),
    /// Something that no client has written there.
    Wrong(String),
}

/// A text is not what a block can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not what a block holds: it takes '-', 'node.connection.sequence', or '!' and what is wrong")]
pub struct BadFound(String);

impl Mark {
    /// The bytes of this block of this volume.
    pub fn to_bytes(self, volume: u8, block: u64) -> Vec<u8> {
        Stamp { seed: self.seed(volume), block, sequence: self.sequence }.to_bytes()
    }

    fn seed(self, volume: u8) -> u64 {
        u64::from(volume) << 48 | u64::from(self.node) << 40 | u64::from(self.connection)
    }
}

impl Found {
    /// What the bytes of this block of this volume are.
    pub fn of(volume: u8, block: u64, bytes: &[u8]) -> Self {
        let stamp = match Content::of(bytes) {
            Content::Zeros => return Self::Zeroes,
            Content::Written(stamp) => stamp,
            Content::Torn(_) => return Self::Wrong("parts of several writes".to_owned()),
            Content::Garbage { sector } => return Self::Wrong(format!("sector {sector} is nothing that was written")),
        };
        let [_, of, node, _, connection @ ..] = stamp.seed.to_be_bytes();
        let mark = Mark { node, connection: u32::from_be_bytes(connection), sequence: stamp.sequence };
        if (of, stamp.block) == (volume, block) && mark.seed(volume) == stamp.seed {
            Self::Mark(mark)
        } else {
            Self::Wrong(format!("block {} of volume {of}", stamp.block))
        }
    }

    /// What all blocks of this volume are, from the first on.
    pub fn all_of(volume: u8, bytes: &[u8]) -> Vec<Self> {
        (0..).zip(bytes.chunks(BLOCK_BYTES)).map(|(block, bytes)| Self::of(volume, block, bytes)).collect()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.node, self.connection, self.sequence)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroes => f.write_str("-"),
            Self::Mark(mark) => mark.fmt(f),
            Self::Wrong(what) => write!(f, "!{what}"),
        }
    }
}

impl FromStr for Found {
    type Err = BadFound;

    fn from_str(text: &str) -> Result<Self, BadFound> {
        if text == "-" {
            return Ok(Self::Zeroes);
        }
        if let Some(what) = text.strip_prefix('!') {
            return Ok(Self::Wrong(what.to_owned()));
        }
        let mark = || {
            let mut parts = text.splitn(3, '.');
            let node = parts.next()?.parse().ok()?;
            let connection = parts.next()?.parse().ok()?;
            Some(Mark { node, connection, sequence: parts.next()?.parse().ok()? })
        };
        mark().map(Self::Mark).ok_or_else(|| BadFound(text.to_owned()))
    }
}

impl TryFrom<String> for Found {
    type Error = BadFound;

    fn try_from(text: String) -> Result<Self, BadFound> {
        text.parse()
    }
}

impl From<Found> for String {
    fn from(found: Found) -> Self {
        found.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { node: 2, connection: 70_000, sequence: 9 };

    #[test]
    fn a_block_says_which_write_it_is_from() {
        let bytes = MARK.to_bytes(1, 7);
        assert_eq!(Found::of(1, 7, &bytes), Found::Mark(MARK));
        assert_eq!(Found::of(1, 7, &[0; 4096]), Found::Zeroes);
        for (volume, block) in [(0, 7), (1, 8)] {
            assert_eq!(Found::of(volume, block, &bytes), Found::Wrong("block 7 of volume 1".to_owned()));
        }
        assert!(matches!(Found::of(1, 7, &[1; 4096]), Found::Wrong(_)));
        let torn = [&bytes[..512], &Mark { sequence: 10, ..MARK }.to_bytes(1, 7)[512..]].concat();
        assert!(matches!(Found::of(1, 7, &torn), Found::Wrong(_)));
    }

    #[test]
    fn what_a_block_holds_is_read_back_from_its_text() {
        for found in [Found::Zeroes, Found::Mark(MARK), Found::Wrong("x.y".to_owned())] {
            assert_eq!(found.to_string().parse(), Ok(found));
        }
        for text in ["", "1.2", "1.2.x", "300.1.1"] {
            assert_eq!(text.parse::<Found>(), Err(BadFound(text.to_owned())));
        }
    }
}
