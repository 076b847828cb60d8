//! How replies look, in each of the three styles.
//!
//! | | simple | structured | extended |
//! |---|---|---|---|
//! | data | simple reply + data | OFFSET_DATA | OFFSET_DATA |
//! | zeroes | simple reply + zeroes | OFFSET_HOLE | OFFSET_HOLE |
//! | done | simple reply | simple reply, for READ an empty chunk | empty chunk |
//! | error | simple reply | ERROR with a text | ERROR with a text |
//! | status | - | BLOCK_STATUS, 32-bit lengths | BLOCK_STATUS_EXT, 64-bit lengths |

use sterna_types::device::StatusRun;

use crate::handshake::{MetaContext, ReplyStyle};
use crate::limits::MAX_STRING_BYTES;
use crate::wire::{EXTENDED_REPLY_MAGIC, ErrorCode, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, chunk_flag};

use super::Echo;

/// The longest reply of fixed length: an extended header, and the offset and length of a hole.
pub const MAX_HEAD_BYTES: usize = 44;

/// A reply of fixed length, or the part of one in front of its data.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; MAX_HEAD_BYTES],
    length: usize,
}

impl Head {
    const EMPTY: Self = Self { bytes: [0; MAX_HEAD_BYTES], length: 0 };

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, field: &[u8]) {
        self.bytes[self.length..self.length + field.len()].copy_from_slice(field);
        self.length += field.len();
    }

    fn simple(echo: Echo, error: u32) -> Self {
        let mut head = Self::EMPTY;
        head.push(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        head.push(&error.to_be_bytes());
        head.push(&echo.cookie.to_be_bytes());
        head
    }

    fn chunk(style: ReplyStyle, echo: Echo, flags: u16, kind: u16, length: u32) -> Self {
        let extended = style == ReplyStyle::Extended;
        let magic = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
        let mut head = Self::EMPTY;
        head.push(&magic.to_be_bytes());
        head.push(&flags.to_be_bytes());
        head.push(&kind.to_be_bytes());
        head.push(&echo.cookie.to_be_bytes());
        if extended {
            head.push(&echo.offset.to_be_bytes());
            head.push(&u64::from(length).to_be_bytes());
        } else {
            head.push(&length.to_be_bytes());
        }
        head
    }
}

/// What goes in front of the `length` bytes, not none, that a READ returns.
pub fn data(style: ReplyStyle, echo: Echo, length: u32) -> Head {
    if style == ReplyStyle::Simple {
        return Head::simple(echo, 0);
    }
    let mut head = Head::chunk(style, echo, chunk_flag::DONE, chunk::OFFSET_DATA, length + 8);
    head.push(&echo.offset.to_be_bytes());
    head
}

/// The whole answer to a READ of `length` zeroes, not none; `None` where the style has to send the zeroes themselves.
pub fn zeroes(style: ReplyStyle, echo: Echo, length: u32) -> Option<Head> {
    if style == ReplyStyle::Simple {
        return None;
    }
    let mut head = Head::chunk(style, echo, chunk_flag::DONE, chunk::OFFSET_HOLE, 12);
    head.push(&echo.offset.to_be_bytes());
    head.push(&length.to_be_bytes());
    Some(head)
}

/// The answer to a command that is done and returns nothing.
pub fn done(style: ReplyStyle, echo: Echo) -> Head {
    let chunked = style == ReplyStyle::Extended || (style == ReplyStyle::Structured && echo.is_read);
    if chunked { Head::chunk(style, echo, chunk_flag::DONE, chunk::NONE, 0) } else { Head::simple(echo, 0) }
}

/// Appends the answer to a command that failed; `text` is for people, and cut where the protocol bounds it.
pub fn error(style: ReplyStyle, echo: Echo, error: ErrorCode, text: &str, out: &mut Vec<u8>) {
    if style == ReplyStyle::Simple {
        out.extend_from_slice(Head::simple(echo, error.number()).as_bytes());
        return;
    }
    let longest = text.floor_char_boundary(MAX_STRING_BYTES as usize);
    let text = &text.as_bytes()[..longest];
    #[expect(clippy::cast_possible_truncation, reason = "at most 4096")]
    let text_bytes = text.len() as u16;
    let head = Head::chunk(style, echo, chunk_flag::DONE, chunk::ERROR, 6 + u32::from(text_bytes));
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&error.number().to_be_bytes());
    out.extend_from_slice(&text_bytes.to_be_bytes());
    out.extend_from_slice(text);
}

/// Appends the status of one context, as runs from the request's offset on; `last` where no other context follows.
///
/// 32-bit lengths cannot tell of a run of 4 GiB or more: there the answer ends with the first part of that run, and the
/// client asks again.
pub fn status(
    style: ReplyStyle,
    echo: Echo,
    context: MetaContext,
    runs: &[StatusRun<u32>],
    last: bool,
    out: &mut Vec<u8>,
) {
    let flags = if last { chunk_flag::DONE } else { 0 };
    let extended = style == ReplyStyle::Extended;
    let told = if extended { runs.len() } else { runs.len().min(1 + short_runs(runs)) };
    let (kind, fixed, each) = if extended { (chunk::BLOCK_STATUS_EXT, 8, 16) } else { (chunk::BLOCK_STATUS, 4, 8) };
    let count = u32::try_from(told).expect("a status has at most MAX_STATUS_RUNS runs");
    out.extend_from_slice(Head::chunk(style, echo, flags, kind, fixed + each * count).as_bytes());
    out.extend_from_slice(&context.id().to_be_bytes());
    if extended {
        out.extend_from_slice(&count.to_be_bytes());
    }
    for run in &runs[..told] {
        if extended {
            out.extend_from_slice(&run.length.to_be_bytes());
            out.extend_from_slice(&u64::from(run.status).to_be_bytes());
        } else {
            out.extend_from_slice(&u32::try_from(run.length).unwrap_or(LONGEST_RUN).to_be_bytes());
            out.extend_from_slice(&run.status.to_be_bytes());
        }
    }
}

/// How many runs there are in front of the first that 32 bits cannot measure.
fn short_runs(runs: &[StatusRun<u32>]) -> usize {
    runs.iter().take_while(|run| u32::try_from(run.length).is_ok()).count()
}

/// The longest run in 32 bits that ends where every block size divides it.
const LONGEST_RUN: u32 = 0xffff_0000;
