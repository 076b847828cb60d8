//! What a raw client hears: replies to options, and to requests in each of the three styles.

use std::fmt;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail, ensure};
use sterna_nbd_server::wire::{
    EXTENDED_REPLY_MAGIC, OPTION_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, chunk_flag, command,
};

use crate::client::{Client, Style};

/// More than any reply has; a length beyond it is a sign of having lost the thread.
const LONGEST: u64 = 64 << 20;

/// One reply to an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// Which option it answers.
    pub option: u32,
    /// What it is (`wire::option_reply`).
    pub kind: u32,
    /// What follows.
    pub data: Vec<u8>,
}

impl OptionReply {
    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.kind & 1 << 31 != 0
    }

    /// Whether no other reply to the option follows.
    pub fn is_last(&self) -> bool {
        self.is_error() || self.kind == sterna_nbd_server::wire::option_reply::ACK
    }
}

/// What a chunk of a reply carries; a simple reply is taken for a chunk.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing: it is done.
    Nothing,
    /// Bytes.
    Data {
        /// Where they are from.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Zeroes.
    Hole {
        /// Where they are from.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// The status of extents.
    Status {
        /// The context's id.
        context: u32,
        /// Length in bytes, and status, of one after the other.
        runs: Vec<(u64, u64)>,
    },
    /// It failed.
    Error {
        /// Error number.
        code: u32,
        /// Why, for people; empty in a simple reply.
        text: String,
    },
}

impl fmt::Debug for Body {
    /// Of data, which may be long, only the beginning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Data { offset, bytes } => {
                write!(f, "{} bytes from {offset}: {:?}…", bytes.len(), &bytes[..bytes.len().min(16)])
            }
            Self::Hole { offset, length } => write!(f, "a hole of {length} bytes from {offset}"),
            Self::Status { context, runs } => write!(f, "status of context {context}: {runs:?}"),
            Self::Error { code, text } => write!(f, "error {code} ({text})"),
        }
    }
}

/// A chunk of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The request's name.
    pub cookie: u64,
    /// Whether the reply ends with it.
    pub last: bool,
    /// What it carries.
    pub body: Body,
}

/// All of the reply to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's name.
    pub cookie: u64,
    /// What its chunks carried, in their order.
    pub bodies: Vec<Body>,
}

impl Answer {
    /// Its error number; 0 where it is none.
    pub fn error(&self) -> u32 {
        let code = |body: &Body| if let Body::Error { code, .. } = body { Some(*code) } else { None };
        self.bodies.iter().find_map(code).unwrap_or(0)
    }

    /// The bytes that a READ returned, holes filled in.
    pub fn data(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for body in &self.bodies {
            match body {
                Body::Data { bytes, .. } => all.extend_from_slice(bytes),
                Body::Hole { length, .. } => all.resize(all.len() + *length as usize, 0),
                _ => {}
            }
        }
        all
    }

    /// The runs of one context, as lengths and statuses.
    ///
    /// # Errors
    /// The context is not there, or twice.
    pub fn status(&self, wanted: u32) -> Result<&[(u64, u64)]> {
        let runs = |body: &'_ Body| matches!(body, Body::Status { context, .. } if *context == wanted);
        let mut found = self.bodies.iter().filter(|body| runs(body));
        match (found.next(), found.next()) {
            (Some(Body::Status { runs, .. }), None) => Ok(runs),
            _ => bail!("not exactly one chunk for context {wanted}: {self:?}"),
        }
    }
}

impl<S: Read + Write> Client<S> {
    /// Reads one reply to an option.
    ///
    /// # Errors
    /// There is none.
    pub fn option_reply(&mut self) -> Result<OptionReply> {
        let magic = self.u64()?;
        ensure!(magic == OPTION_REPLY_MAGIC, "a reply to an option begins with {magic:#x}");
        let (option, kind, length) = (self.u32()?, self.u32()?, self.u32()?);
        Ok(OptionReply { option, kind, data: self.bytes(u64::from(length))? })
    }

    /// Reads the next reply with all of its chunks, whichever request it answers.
    ///
    /// # Errors
    /// There is none, or the server breaks the protocol.
    pub fn answer(&mut self) -> Result<Answer> {
        let mut answer: Option<Answer> = None;
        loop {
            let chunk = self.chunk()?;
            let answer = answer.get_or_insert_with(|| Answer { cookie: chunk.cookie, bodies: Vec::new() });
            ensure!(answer.cookie == chunk.cookie, "chunks of two replies are mixed: {answer:?}, {chunk:?}");
            answer.bodies.push(chunk.body);
            if chunk.last {
                self.outstanding.remove(&chunk.cookie);
                return Ok(answer.clone());
            }
        }
    }

    /// Reads one chunk, or one simple reply.
    ///
    /// # Errors
    /// There is none, or the server breaks the protocol.
    pub fn chunk(&mut self) -> Result<Chunk> {
        let magic = self.u32()?;
        match (magic, self.style) {
            (SIMPLE_REPLY_MAGIC, Style::Simple | Style::Structured) => self.simple(),
            (STRUCTURED_REPLY_MAGIC, Style::Structured) | (EXTENDED_REPLY_MAGIC, Style::Extended) => self.chunked(),
            (magic, style) => bail!("a reply in {style:?} style begins with {magic:#x}"),
        }
    }

    fn simple(&mut self) -> Result<Chunk> {
        let (code, cookie) = (self.u32()?, self.u64()?);
        let request = self.outstanding.get(&cookie).context("a reply to a request that was not sent")?;
        let (is_read, offset, length) = (request.command == command::READ, request.offset, request.length);
        ensure!(!is_read || self.style == Style::Simple, "a simple reply to READ, with structured replies negotiated");
        let body = match code {
            0 if is_read => Body::Data { offset, bytes: self.bytes(length)? },
            0 => Body::Nothing,
            code => Body::Error { code, text: String::new() },
        };
        Ok(Chunk { cookie, last: true, body })
    }

    fn chunked(&mut self) -> Result<Chunk> {
        let (flags, kind, cookie) = (self.u16()?, self.u16()?, self.u64()?);
        ensure!(flags & !chunk_flag::DONE == 0, "a chunk has flags {flags:#x}");
        let request = self.outstanding.get(&cookie).context("a reply to a request that was not sent")?;
        let (asked_offset, is_read) = (request.offset, request.command == command::READ);
        let length = if self.style == Style::Extended {
            let offset = self.u64()?;
            ensure!(offset == asked_offset, "an extended reply repeats the offset {offset}, not {asked_offset}");
            self.u64()?
        } else {
            u64::from(self.u32()?)
        };
        let payload = self.bytes(length)?;
        let body = body(self.style, kind, &payload)?;
        let fits = match body {
            Body::Data { .. } | Body::Hole { .. } => is_read,
            Body::Status { .. } => !is_read,
            Body::Nothing | Body::Error { .. } => true,
        };
        ensure!(fits, "a chunk that does not belong to its request: {body:?}");
        Ok(Chunk { cookie, last: flags & chunk_flag::DONE != 0, body })
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Reads this many bytes.
    ///
    /// # Errors
    /// They do not come.
    pub fn bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        ensure!(count <= LONGEST, "the server announces {count} bytes");
        let mut bytes = vec![0; usize::try_from(count)?];
        self.link.read_exact(&mut bytes).context("the server did not say more")?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.link.read_exact(&mut bytes).context("the server did not say more")?;
        Ok(bytes)
    }
}

fn body(style: Style, kind: u16, payload: &[u8]) -> Result<Body> {
    let mut rest = payload;
    let body = match kind {
        chunk::NONE => Body::Nothing,
        chunk::OFFSET_DATA => {
            let offset = u64::from_be_bytes(take(&mut rest)?);
            Body::Data { offset, bytes: std::mem::take(&mut rest).to_vec() }
        }
        chunk::OFFSET_HOLE => {
            Body::Hole { offset: u64::from_be_bytes(take(&mut rest)?), length: u32::from_be_bytes(take(&mut rest)?) }
        }
        chunk::BLOCK_STATUS if style == Style::Structured => {
            let context = u32::from_be_bytes(take(&mut rest)?);
            let mut runs = Vec::new();
            while !rest.is_empty() {
                let run = (u32::from_be_bytes(take(&mut rest)?), u32::from_be_bytes(take(&mut rest)?));
                runs.push((run.0.into(), run.1.into()));
            }
            Body::Status { context, runs }
        }
        chunk::BLOCK_STATUS_EXT if style == Style::Extended => {
            let (context, count) = (u32::from_be_bytes(take(&mut rest)?), u32::from_be_bytes(take(&mut rest)?));
            let mut runs = Vec::new();
            for _ in 0..count {
                runs.push((u64::from_be_bytes(take(&mut rest)?), u64::from_be_bytes(take(&mut rest)?)));
            }
            Body::Status { context, runs }
        }
        chunk::ERROR => {
            let (code, length) = (u32::from_be_bytes(take(&mut rest)?), u16::from_be_bytes(take(&mut rest)?));
            ensure!(rest.len() == usize::from(length), "an error's text is {} bytes, not {length}", rest.len());
            Body::Error { code, text: String::from_utf8(std::mem::take(&mut rest).to_vec())? }
        }
        kind => bail!("a chunk of type {kind:#x} in {style:?} style"),
    };
    ensure!(rest.is_empty(), "{} bytes too many in {body:?}", rest.len());
    Ok(body)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (front, behind) = rest.split_first_chunk().context("a chunk is too short")?;
    *rest = behind;
    Ok(*front)
}
