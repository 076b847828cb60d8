//! What comes next of a sequence.

use bytes::Bytes;

use super::Offset;

/// How far a sequence has come. It keeps no bytes: each piece is handed on as it comes.
#[derive(Debug, Default)]
pub struct Inbox {
    received: Offset,
}

/// A piece that does not begin where the last one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream goes on at {}, and has come to {}", .given.0, .expected.0)]
pub struct Gap {
    /// Where the piece begins.
    pub given: Offset,
    /// Where it has to.
    pub expected: Offset,
}

impl Inbox {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the next piece has to begin: what is said on a new connection.
    pub fn received(&self) -> Offset {
        self.received
    }

    /// Takes a piece that begins at `at`: it is the next one.
    ///
    /// # Errors
    /// It is not. Over one connection nothing is lost and nothing comes twice, so whoever sends is wrong.
    pub fn take(&mut self, at: Offset, piece: Bytes) -> Result<Bytes, Gap> {
        if at != self.received {
            return Err(Gap { given: at, expected: self.received });
        }
        self.received = at.behind(piece.len());
        Ok(piece)
    }
}
