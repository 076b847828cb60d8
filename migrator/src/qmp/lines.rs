//! Lines from a socket, of bounded length.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::End;
use super::limits::MAX_LINE_BYTES;

/// What reads a socket line by line.
///
/// What is never false: `buffer` has no end of a line in its first `searched` bytes, and no more than [`MAX_LINE_BYTES`] and one read.
pub(super) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    searched: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// Why there is none: the socket has ended, or the line is too long.
    ///
    /// # Cancel safety
    /// Dropped, it has taken nothing that the next call does not give.
    pub(super) async fn next(&mut self) -> Result<Bytes, End> {
        loop {
            if let Some(line) = self.take()? {
                return Ok(line);
            }
            self.buffer.reserve(READ_BYTES);
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(End::Closed),
                Ok(_) => {}
                Err(error) => return Err(End::Failed(Arc::new(error))),
            }
        }
    }

    /// The first line in the buffer, if it is whole.
    fn take(&mut self) -> Result<Option<Bytes>, End> {
        let found = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
        let length = found.map_or(self.buffer.len(), |at| self.searched + at);
        if length > MAX_LINE_BYTES {
            return Err(End::TooLong { what: "a line", limit_bytes: MAX_LINE_BYTES });
        }
        if found.is_none() {
            self.searched = length;
            return Ok(None);
        }
        let line = self.buffer.split_to(length + 1).freeze().slice(..length);
        self.searched = 0;
        Ok(Some(line))
    }
}

/// How much is read at a time at least: more than most answers.
const READ_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    async fn all_of(bytes: &[u8]) -> (Vec<Bytes>, End) {
        let (mut lines, mut found) = (Lines::new(bytes), Vec::new());
        loop {
            match lines.next().await {
                Ok(line) => found.push(line),
                Err(end) => return (found, end),
            }
        }
    }

    #[tokio::test]
    async fn lines_come_as_they_are_and_the_rest_without_an_end_is_no_line() {
        let (found, end) = all_of(b"one\n\ntwo\r\nthr").await;
        assert_eq!(found, ["one", "", "two\r"]);
        assert!(matches!(end, End::Closed), "{end:?}");
    }

    #[tokio::test]
    async fn a_line_may_have_the_longest_length_and_not_one_byte_more() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES];
        bytes.push(b'\n');
        let (found, end) = all_of(&bytes).await;
        assert_eq!(found[0].len(), MAX_LINE_BYTES);
        assert!(matches!(end, End::Closed), "{end:?}");

        bytes.insert(0, b'x');
        let (found, end) = all_of(&bytes).await;
        assert!(found.is_empty() && matches!(end, End::TooLong { .. }), "{end:?}");

        // Nor need its end be seen.
        bytes.pop();
        assert!(matches!(all_of(&bytes).await.1, End::TooLong { .. }));
    }
}
