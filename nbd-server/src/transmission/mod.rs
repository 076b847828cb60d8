//! The transmission phase as a state machine: requests in, decisions out.
//!
//! [`Transmission::step`] looks at the front of the input and says what to do with it: perform a command, refuse one,
//! read on, hang up. It judges everything that can be judged without the device: headers, flags, bounds, alignment,
//! read-only and standby exports, drain. How replies look is [`reply`]'s matter. Invariants:
//!
//! * it keeps no payload: a request that will be performed stays in the caller's buffer until it is whole (at most
//!   [`Transmission::INPUT_BYTES`]), the payload of one that will not is passed over as it comes;
//! * a command that is performed has a range within the export, aligned as the export asks;
//! * after [`Step::Disconnect`] or [`Step::Violation`] nothing follows.

pub mod reply;
mod request;
#[cfg(test)]
mod tests;

use sterna_types::device::{Persistence, ZeroRequest};
use sterna_types::{ByteOffset, ByteRange, ByteSize};

use crate::export::ExportMode;
use crate::handshake::{Agreement, Contexts, MetaContext, ReplyStyle};
use crate::limits::MAX_PAYLOAD_BYTES;
use crate::wire::{ErrorCode, Fields, command, command_flag, transmission_flag};

use request::RequestHead;

/// What a reply repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The client's own name for the request.
    pub cookie: u64,
    /// The offset of the request, which extended replies carry.
    pub offset: u64,
    /// Whether the request is READ, whose replies are always chunked where chunks were negotiated.
    pub is_read: bool,
}

/// A request that may be performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// READ. It is answered with one chunk, so DF changes nothing.
    Read(ByteRange),
    /// WRITE of the payload.
    Write(ByteRange, Persistence),
    /// FLUSH.
    Flush,
    /// TRIM.
    Trim(ByteRange, Persistence),
    /// CACHE.
    Prefetch(ByteRange),
    /// WRITE_ZEROES.
    WriteZeroes(ZeroRequest),
    /// BLOCK_STATUS: of these contexts, at most one extent each where `one` says so.
    Status {
        /// Which part of the export.
        range: ByteRange,
        /// REQ_ONE.
        one: bool,
        /// Never empty.
        contexts: Contexts,
    },
}

/// What to do with the front of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read on, until there are at least this many bytes.
    NeedMore(usize),
    /// Some of the input was part of a payload that nobody wants.
    Skipped {
        /// How many bytes.
        consumed: usize,
    },
    /// Perform a command and reply.
    Perform {
        /// For the reply.
        echo: Echo,
        /// What is to be done.
        command: Command,
        /// Where in the input its payload begins; it ends where the request does.
        payload_at: usize,
        /// Length of the request.
        consumed: usize,
    },
    /// Reply with an error.
    Refuse {
        /// For the reply.
        echo: Echo,
        /// Which error.
        error: ErrorCode,
        /// Why, for people.
        text: &'static str,
        /// Bytes of input that are done with.
        consumed: usize,
    },
    /// The client wants to end: finish what is in flight, and close.
    Disconnect,
    /// The client broke the protocol in a way that leaves nothing to reply to: close.
    Violation(Violation),
}

/// Why a connection has to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Something else where a request was to begin.
    #[error("the client sent {0:#010x} where a request begins")]
    NotARequest(u32),
    /// A payload longer than was advertised.
    #[error("the client announced a payload of {0} bytes; {MAX_PAYLOAD_BYTES} are the most")]
    PayloadTooLong(u64),
}

/// The transmission phase of one connection.
#[derive(Clone, Debug)]
pub struct Transmission {
    style: ReplyStyle,
    flags: u16,
    size: ByteSize,
    minimum_io_bytes: u64,
    standby: bool,
    contexts: Contexts,
    draining: bool,
    skipping: Option<Skipping>,
}

#[derive(Clone, Copy, Debug)]
struct Skipping {
    left: u64,
    echo: Echo,
    refused: Refused,
}

/// An error for the client, with the reason for people.
type Refused = (ErrorCode, &'static str);

impl Transmission {
    /// No more input than this is ever needed to go on.
    pub const INPUT_BYTES: usize = RequestHead::EXTENDED_BYTES + MAX_PAYLOAD_BYTES as usize;

    /// The phase that follows this agreement.
    pub fn new(agreement: &Agreement) -> Self {
        let geometry = agreement.export.device.geometry();
        Self {
            style: agreement.style,
            flags: agreement.flags,
            size: geometry.size,
            minimum_io_bytes: u64::from(geometry.minimum_io_bytes.max(1)),
            standby: agreement.export.mode == ExportMode::Standby,
            contexts: agreement.contexts,
            draining: false,
            skipping: None,
        }
    }

    /// How replies look.
    pub fn style(&self) -> ReplyStyle {
        self.style
    }

    /// From now on every request is answered with ESHUTDOWN.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Looks at the front of `input`.
    pub fn step(&mut self, input: &[u8]) -> Step {
        if let Some(skipping) = self.skipping {
            return self.skip(skipping, input, 0);
        }
        let head_bytes = RequestHead::bytes(self.style);
        let Some(head) = RequestHead::read(self.style, input) else { return Step::NeedMore(head_bytes) };
        if head.magic != RequestHead::magic(self.style) {
            return Step::Violation(Violation::NotARequest(head.magic));
        }
        if head.command == command::DISC {
            return Step::Disconnect;
        }
        let payload_bytes = head.payload_bytes(self.style);
        if payload_bytes > u64::from(MAX_PAYLOAD_BYTES) {
            return Step::Violation(Violation::PayloadTooLong(payload_bytes));
        }
        let echo = Echo { cookie: head.cookie, offset: head.offset, is_read: head.command == command::READ };
        let payload = input[head_bytes..].get(..usize::try_from(payload_bytes).unwrap_or(usize::MAX));
        match self.judge(&head, payload) {
            Ok(Some(command)) => {
                let consumed = head_bytes + payload.map_or(0, <[u8]>::len);
                Step::Perform { echo, command, payload_at: head_bytes, consumed }
            }
            Ok(None) => Step::NeedMore(head_bytes + usize::try_from(payload_bytes).unwrap_or(usize::MAX)),
            Err(refused) => self.skip(Skipping { left: payload_bytes, echo, refused }, input, head_bytes),
        }
    }

    /// Passes over what there is of a payload behind the first `consumed` bytes; refuses its request at its end.
    fn skip(&mut self, skipping: Skipping, input: &[u8], consumed: usize) -> Step {
        let available = input.len() - consumed;
        let skipped = usize::try_from(skipping.left).map_or(available, |left| left.min(available));
        let left = skipping.left - skipped as u64;
        let consumed = consumed + skipped;
        if left > 0 {
            self.skipping = Some(Skipping { left, ..skipping });
            return if consumed == 0 { Step::NeedMore(1) } else { Step::Skipped { consumed } };
        }
        self.skipping = None;
        let (error, text) = skipping.refused;
        Step::Refuse { echo: skipping.echo, error, text, consumed }
    }

    /// The command that a request is, `None` where it will be one once its payload is here, or why it is refused.
    fn judge(&self, head: &RequestHead, payload: Option<&[u8]>) -> Result<Option<Command>, Refused> {
        if self.draining {
            return Err((ErrorCode::Shutdown, "the server is shutting down"));
        }
        let allowed = self.allowed_flags(head.command).ok_or((ErrorCode::Inval, "this command is not known here"))?;
        if head.flags & !allowed != 0 {
            return Err((ErrorCode::Inval, "a flag is not known, not for this command, or was not offered"));
        }
        let persistence = match head.flags & command_flag::FUA {
            0 => Persistence::AtNextFlush,
            _ => Persistence::Durable,
        };
        let command = match head.command {
            command::READ => {
                if head.length > u64::from(MAX_PAYLOAD_BYTES) {
                    return Err((ErrorCode::Inval, "the read is longer than the largest payload that was advertised"));
                }
                Command::Read(self.range(head, head.length, ErrorCode::Inval)?)
            }
            command::WRITE => {
                self.check_writable()?;
                Command::Write(self.range(head, head.length, ErrorCode::NoSpace)?, persistence)
            }
            command::FLUSH => Command::Flush,
            command::TRIM => {
                self.check_writable()?;
                Command::Trim(self.range(head, head.length, ErrorCode::Inval)?, persistence)
            }
            command::CACHE => Command::Prefetch(self.range(head, head.length, ErrorCode::Inval)?),
            command::WRITE_ZEROES => {
                self.check_writable()?;
                Command::WriteZeroes(ZeroRequest {
                    range: self.range(head, head.length, ErrorCode::NoSpace)?,
                    keep_allocated: head.flags & command_flag::NO_HOLE != 0,
                    only_if_fast: head.flags & command_flag::FAST_ZERO != 0,
                    persistence,
                })
            }
            _ => return self.judge_status(head, payload),
        };
        Ok(payload.map(|_| command))
    }

    fn judge_status(&self, head: &RequestHead, payload: Option<&[u8]>) -> Result<Option<Command>, Refused> {
        if self.contexts.is_empty() {
            return Err((ErrorCode::Inval, "no metadata context was negotiated for this export"));
        }
        let (length, contexts) = if head.flags & command_flag::PAYLOAD_LEN == 0 {
            (head.length, self.contexts)
        } else {
            match self.status_payload(head.length, payload)? {
                Some(chosen) => chosen,
                None => return Ok(None),
            }
        };
        let range = self.range(head, length, ErrorCode::Inval)?;
        if range.is_empty() {
            return Err((ErrorCode::Inval, "the status of no bytes was asked for"));
        }
        Ok(Some(Command::Status { range, one: head.flags & command_flag::REQ_ONE != 0, contexts }))
    }

    /// The effect length and the contexts that the payload of a BLOCK_STATUS names; `None` where it is still to come.
    fn status_payload(&self, length: u64, payload: Option<&[u8]>) -> Result<Option<(u64, Contexts)>, Refused> {
        let invalid = (ErrorCode::Inval, "the payload of BLOCK_STATUS is a length and distinct negotiated context ids");
        let longest = 8 + 4 * self.contexts.iter().count() as u64;
        if length <= 8 || length > longest || !length.is_multiple_of(4) {
            return Err(invalid);
        }
        let Some(mut fields) = payload.map(Fields) else { return Ok(None) };
        let effect_length = fields.u64().ok_or(invalid)?;
        let mut chosen = Contexts::default();
        while let Some(id) = fields.u32() {
            let context = MetaContext::from_id(id).filter(|&context| self.contexts.contains(context));
            if !chosen.insert(context.ok_or(invalid)?) {
                return Err(invalid);
            }
        }
        Ok(Some((effect_length, chosen)))
    }

    /// The flags that a command may carry here; `None` for a command that is not known.
    fn allowed_flags(&self, command: u16) -> Option<u16> {
        let offered = |transmission: u16, flag: u16| if self.flags & transmission != 0 { flag } else { 0 };
        let extended = self.style == ReplyStyle::Extended;
        let own = match command {
            command::READ => offered(transmission_flag::SEND_DF, command_flag::DF),
            command::WRITE if extended => command_flag::PAYLOAD_LEN,
            command::WRITE | command::FLUSH | command::TRIM | command::CACHE => 0,
            command::WRITE_ZEROES => {
                command_flag::NO_HOLE | offered(transmission_flag::SEND_FAST_ZERO, command_flag::FAST_ZERO)
            }
            command::BLOCK_STATUS => {
                let payload = offered(transmission_flag::BLOCK_STATUS_PAYLOAD, command_flag::PAYLOAD_LEN);
                command_flag::REQ_ONE | payload
            }
            _ => return None,
        };
        Some(own | command_flag::FUA)
    }

    fn check_writable(&self) -> Result<(), Refused> {
        if self.flags & transmission_flag::READ_ONLY != 0 {
            return Err((ErrorCode::Perm, "the export is read-only"));
        }
        if self.standby {
            return Err((ErrorCode::Perm, "the export is in standby: it takes no writes until this node owns it"));
        }
        Ok(())
    }

    fn range(&self, head: &RequestHead, length: u64, beyond: ErrorCode) -> Result<ByteRange, Refused> {
        let range = ByteRange::new(ByteOffset(head.offset), length).ok().filter(|range| range.is_within(self.size));
        let range = range.ok_or((beyond, "the request reaches beyond the end of the export"))?;
        if range.is_aligned_to(self.minimum_io_bytes) {
            Ok(range)
        } else {
            Err((ErrorCode::Inval, "the request is not aligned to the export's minimum block size"))
        }
    }
}
