//! What was taken to be sent and has not been acknowledged.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Offset;

/// Pieces of a sequence, kept until they are acknowledged, and sent again over each new connection.
///
/// `acknowledged <= sent <= end`, and the pieces are exactly the bytes from the first to the last of these.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Bytes>,
    acknowledged: Offset,
    sent: Offset,
    end: Offset,
}

/// The receiver says that it has what was not sent, or wants what it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has come to {claimed} of the stream, and was sent {} to {}", .from.0, .to.0, claimed = .claimed.0)]
pub struct NotSent {
    /// What it says.
    pub claimed: Offset,
    /// The first place that can be sent again.
    pub from: Offset,
    /// The last that was sent.
    pub to: Offset,
}

impl Outbox {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are kept.
    pub fn kept_bytes(&self) -> u64 {
        self.end.0 - self.acknowledged.0
    }

    /// How far it has been acknowledged.
    pub fn acknowledged(&self) -> Offset {
        self.acknowledged
    }

    /// Where the next piece will begin.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Takes the next piece. Whether there is room for it is for the caller to look at, who can wait.
    pub fn push(&mut self, piece: Bytes) {
        self.end = self.end.behind(piece.len());
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The next piece to be sent, at most `limit` bytes of it, and where it begins; `None` where all has been sent.
    pub fn next(&mut self, limit: usize) -> Option<(Offset, Bytes)> {
        let mut skipped = self.sent.0 - self.acknowledged.0;
        let mut pieces = self.pieces.iter();
        let piece = loop {
            let piece = pieces.next()?;
            let length = piece.len() as u64;
            if skipped < length {
                break piece;
            }
            skipped -= length;
        };
        let from = usize::try_from(skipped).expect("less than a piece has");
        let piece = piece.slice(from..piece.len().min(from.saturating_add(limit)));
        let at = self.sent;
        self.sent = at.behind(piece.len());
        Some((at, piece))
    }

    /// The receiver has come to `to`: what is before that is forgotten.
    ///
    /// # Errors
    /// That was never sent, or it was further already.
    pub fn acknowledge(&mut self, to: Offset) -> Result<(), NotSent> {
        let not_sent = NotSent { claimed: to, from: self.acknowledged, to: self.sent };
        let mut bytes = to.since(self.acknowledged).filter(|_| to <= self.sent).ok_or(not_sent)?;
        self.acknowledged = to;
        while bytes > 0 {
            let Some(first) = self.pieces.front_mut() else { unreachable!("what was sent is kept") };
            let length = first.len() as u64;
            if bytes < length {
                let _ = first.split_to(usize::try_from(bytes).expect("less than a piece has"));
                break;
            }
            bytes -= length;
            self.pieces.pop_front();
        }
        Ok(())
    }

    /// A new connection, whose receiver has come to `to`: the next to be sent is what is behind that.
    ///
    /// # Errors
    /// As [`Outbox::acknowledge`].
    pub fn resume(&mut self, to: Offset) -> Result<(), NotSent> {
        self.acknowledge(to)?;
        self.sent = to;
        Ok(())
    }
}
