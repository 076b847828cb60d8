//! Headers of requests, compact and extended.

use crate::handshake::ReplyStyle;
use crate::wire::{EXTENDED_REQUEST_MAGIC, Fields, REQUEST_MAGIC, command, command_flag};

/// A request without its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestHead {
    pub(super) magic: u32,
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    /// Of the payload where there is one, of the effect otherwise.
    pub(super) length: u64,
}

impl RequestHead {
    const COMPACT_BYTES: usize = 28;
    pub(super) const EXTENDED_BYTES: usize = 32;

    pub(super) fn bytes(style: ReplyStyle) -> usize {
        if style == ReplyStyle::Extended { Self::EXTENDED_BYTES } else { Self::COMPACT_BYTES }
    }

    pub(super) fn magic(style: ReplyStyle) -> u32 {
        if style == ReplyStyle::Extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC }
    }

    pub(super) fn read(style: ReplyStyle, input: &[u8]) -> Option<Self> {
        let mut fields = Fields(input);
        Some(Self {
            magic: fields.u32()?,
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: if style == ReplyStyle::Extended { fields.u64()? } else { u64::from(fields.u32()?) },
        })
    }

    /// How many bytes follow that are not the next request. A WRITE has a payload in either form: with extended headers
    /// it ought to say PAYLOAD_LEN, but QEMU's client (seen in 10.0.2) sends the payload without saying so, and its server
    /// accepts that (`docs/decisions/0003-extended-writes-without-payload-len.md`).
    pub(super) fn payload_bytes(&self, style: ReplyStyle) -> u64 {
        let says_so = style == ReplyStyle::Extended && self.flags & command_flag::PAYLOAD_LEN != 0;
        if says_so || self.command == command::WRITE { self.length } else { 0 }
    }
}
