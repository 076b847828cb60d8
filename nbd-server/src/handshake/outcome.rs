//! The terms a handshake begins with, what it asks of its caller, and what it leads to.

use crate::export::{Export, ExportName};
use crate::limits::MAX_OPTIONS;

use super::meta::Contexts;

/// How TLS is offered, for the whole of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsTerms {
    /// Not at all (NOTLS).
    Off,
    /// To those who ask; exports may insist on it (SELECTIVETLS).
    Offered,
    /// Before anything else (FORCEDTLS).
    Required,
}

/// In which form replies are sent, by what the client negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStyle {
    /// One header for each reply.
    Simple,
    /// Chunks, behind compact requests.
    Structured,
    /// Chunks with 64-bit lengths, behind extended requests.
    Extended,
}

/// What the handshake led to.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The export.
    pub export: Export,
    /// How replies look.
    pub style: ReplyStyle,
    /// What BLOCK_STATUS tells of.
    pub contexts: Contexts,
    /// The transmission flags, as they were told to the client.
    pub flags: u16,
}

/// What the machine needs, or has come to.
#[derive(Debug)]
pub enum Next {
    /// More input.
    Read,
    /// The exports: call [`super::Handshake::listed`].
    List,
    /// The export of this name: call [`super::Handshake::found`].
    Find(ExportName),
    /// TLS: write what is to be written, upgrade, call [`super::Handshake::encrypted`]. Input that is left was sent in the
    /// clear behind STARTTLS, and must not be believed.
    StartTls,
    /// The transmission phase begins with the next byte.
    Transmit(Box<Agreement>),
    /// Write what is to be written, and close.
    Close(CloseReason),
}

/// Why a handshake ended without an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client said ABORT.
    #[error("the client ended the handshake")]
    Aborted,
    /// Client flags that are unknown, or were not offered.
    #[error("the client answered the greeting with flags that were not offered: {0:#x}")]
    UnknownClientFlags(u32),
    /// Something else where an option was to begin.
    #[error("the client sent {0:#018x} where an option begins with 'IHAVEOPT'")]
    NotAnOption(u64),
    /// EXPORT_NAME cannot be refused in any other way.
    #[error("the client chose an export by EXPORT_NAME that it cannot have")]
    ExportNameRefused,
    /// Only EXPORT_NAME can be said without the fixed newstyle.
    #[error("the client sent option {0} without speaking the fixed newstyle")]
    NotFixedNewstyle(u32),
    /// No client needs so many.
    #[error("the client sent more than {MAX_OPTIONS} options")]
    TooManyOptions,
}

/// How far a step came.
#[derive(Debug)]
pub struct Progress {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// What is needed now.
    pub next: Next,
}
