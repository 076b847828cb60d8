//! What the destination's QEMU sends back while it takes a migration: messages, each with its length.
//!
//! ```text
//! message = u16:kind u16:length data
//! ```
//!
//! Two of them are levers. The source's QEMU does not switch over by itself before it has an acknowledgement for that (with the capability
//! `switchover-ack`), and it does not take the migration for completed before it has heard that all was loaded: a migrator that keeps these
//! decides when that is (QEMU 10.0, `migration/migration.c`, `source_return_path_thread`).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A message of the return path, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// As it is written, its kind and length included.
    pub written: Bytes,
}

/// What a message of the return path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The destination has ended: with 0 it has loaded everything, with anything else it has failed.
    Shut(u32),
    /// The answer to a ping.
    Pong(u32),
    /// The source may switch over.
    SwitchoverAck,
    /// One that only matters to QEMU.
    Other(u16),
}

/// A message that is longer than any is, or shorter than its kind: what comes is no return path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of kind {kind} on the return path has {length} bytes")]
pub struct Malformed {
    /// Its kind.
    pub kind: u16,
    /// How long it says it is.
    pub length: u16,
}

impl Message {
    /// That the destination has ended: 0 for all is well.
    pub fn shut(error: u32) -> Self {
        let mut written = BytesMut::with_capacity(8);
        written.put_u16(SHUT);
        written.put_u16(4);
        written.put_u32(error);
        Self { kind: Kind::Shut(error), written: written.freeze() }
    }

    /// The next message, taken from the front of `buffer`; `None` where its end has not come yet.
    ///
    /// # Errors
    /// [`Malformed`]; nothing was taken.
    pub fn next(buffer: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let mut header = &header[..];
        let (kind, length) = (header.get_u16(), header.get_u16());
        let fixed = match kind {
            SHUT | PONG => Some(4),
            SWITCHOVER_ACK => Some(0),
            _ => None,
        };
        if length > MAX_DATA_BYTES || fixed.is_some_and(|fixed| fixed != length) {
            return Err(Malformed { kind, length });
        }
        let end = HEADER_BYTES + usize::from(length);
        if buffer.len() < end {
            return Ok(None);
        }
        let written = buffer.split_to(end).freeze();
        let mut data = &written[HEADER_BYTES..];
        let kind = match kind {
            SHUT => Kind::Shut(data.get_u32()),
            PONG => Kind::Pong(data.get_u32()),
            SWITCHOVER_ACK => Kind::SwitchoverAck,
            other => Kind::Other(other),
        };
        Ok(Some(Self { kind, written }))
    }
}

const HEADER_BYTES: usize = 4;
const SHUT: u16 = 1;
const PONG: u16 = 2;
const SWITCHOVER_ACK: u16 = 7;

/// QEMU reads no longer ones.
const MAX_DATA_BYTES: u16 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_come() {
        let stream = b"\0\x07\0\0\0\x02\0\x04\0\0\0\x01\0\x05\0\x03abc\0\x01\0\x04\0\0\0\0";
        for piece_bytes in 1..stream.len() {
            let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(piece_bytes) {
                buffer.extend_from_slice(piece);
                while let Some(message) = Message::next(&mut buffer).unwrap() {
                    messages.push(message);
                }
            }
            assert!(buffer.is_empty());
            let kinds: Vec<_> = messages.iter().map(|message| message.kind).collect();
            assert_eq!(kinds, [Kind::SwitchoverAck, Kind::Pong(1), Kind::Other(5), Kind::Shut(0)]);
            assert_eq!(messages.iter().flat_map(|message| message.written.to_vec()).collect::<Vec<_>>(), stream);
            assert_eq!(messages.last(), Some(&Message::shut(0)));
        }
    }

    #[test]
    fn what_is_no_return_path_is_named() {
        let mut buffer = BytesMut::from(&b"HTTP/1.1"[..]);
        let malformed = Message::next(&mut buffer).unwrap_err();
        assert_eq!(malformed.to_string(), "a message of kind 18516 on the return path has 21584 bytes");
        assert_eq!(buffer.len(), 8);
        assert_eq!(Message::next(&mut BytesMut::from(&b"\0\x01\0\x02\0\0"[..])), Err(Malformed { kind: 1, length: 2 }));
    }
}
