//! The handshake as a state machine: fixed newstyle, options, metadata contexts, up to the agreement on one export.
//!
//! The machine is fed what has arrived ([`Handshake::step`]) and says what it consumed and what it needs next: more
//! bytes, an answer from the catalog, TLS. It writes its replies into a buffer. Invariants:
//!
//! * it keeps no input: whatever is incomplete stays with the caller, at most [`Handshake::INPUT_BYTES`] of it;
//! * replies go out in the order of the options, and none after [`Next::Transmit`], [`Next::StartTls`] or [`Next::Close`];
//! * metadata contexts, once selected, belong to one export; STARTTLS forgets everything negotiated before it.
//!
//! ```text
//!            greeting                      option            answer of the catalog
//!  (start) ──────────> ClientFlags ──> Options <──────> Asking ───────────────────> Done (transmission)
//!                                        │  ^ \
//!                         too long a one │  │  \ STARTTLS
//!                                        v  │   v
//!                                      Skipping  Upgrading ── encrypted() ──> Options
//! ```

mod meta;
mod option;
mod outcome;
mod reply;
#[cfg(test)]
mod tests;

use crate::export::{Export, ExportListing, ExportName};
use crate::limits::{MAX_OPTION_BYTES, MAX_OPTIONS, MAX_PAYLOAD_BYTES};
use crate::wire::{self, Fields, client_flag, handshake_flag, transmission_flag};

use meta::MetaQuery;
use option::{ExportRequest, OptionHead};
use reply::{Refusal, ReplyWriter};

pub use meta::{Contexts, MetaContext};
pub use outcome::{Agreement, CloseReason, Next, Progress, ReplyStyle, TlsTerms};

/// One handshake, from the greeting on.
#[derive(Debug)]
pub struct Handshake {
    terms: TlsTerms,
    encrypted: bool,
    /// Whether something was asked in the clear that takes TLS.
    refused_in_the_clear: bool,
    draining: bool,
    stage: Stage,
    fixed_newstyle: bool,
    no_zeroes: bool,
    options_seen: u32,
    style: ReplyStyle,
    /// The contexts of the last successful SET_META_CONTEXT, and the export they are of.
    selection: Option<(ExportName, Contexts)>,
}

#[derive(Debug)]
enum Stage {
    ClientFlags,
    Options,
    /// Reading past the data of an option; then it is refused.
    Skipping {
        left: u32,
        refusal: Refusal,
    },
    Asking(Question),
    Upgrading,
    Done,
}

/// What the catalog is asked on behalf of a client.
#[derive(Debug)]
enum Question {
    List,
    Export { option: u32, request: ExportRequest },
    ExportName,
    Meta { option: u32, query: MetaQuery },
}

impl Handshake {
    /// No more input than this is ever needed to go on.
    pub const INPUT_BYTES: usize = OptionHead::BYTES + MAX_OPTION_BYTES as usize;

    /// A new handshake; its greeting goes into `out`.
    pub fn new(terms: TlsTerms, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&wire::INIT_PASSWD.to_be_bytes());
        out.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES).to_be_bytes());
        Self {
            terms,
            encrypted: false,
            refused_in_the_clear: false,
            draining: false,
            stage: Stage::ClientFlags,
            fixed_newstyle: false,
            no_zeroes: false,
            options_seen: 0,
            style: ReplyStyle::Simple,
            selection: None,
        }
    }

    /// From now on every option but ABORT is answered with ERR_SHUTDOWN.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes what it can of `input`, and appends replies to `out`: at most a small multiple of what it took.
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let took = match &mut self.stage {
                Stage::ClientFlags => self.take_client_flags(rest),
                Stage::Options => self.take_option(rest, out),
                Stage::Skipping { left, refusal } => {
                    let skipped = rest.len().min(*left as usize);
                    *left -= u32::try_from(skipped).unwrap_or(u32::MAX);
                    if *left == 0 {
                        ReplyWriter(out).refusal(*refusal);
                        self.stage = Stage::Options;
                        Ok(skipped)
                    } else {
                        Err((skipped, Next::Read))
                    }
                }
                // The caller owes an answer first.
                Stage::Asking(_) | Stage::Upgrading | Stage::Done => Err((0, Next::Read)),
            };
            match took {
                Ok(bytes) => consumed += bytes,
                Err((bytes, next)) => return Progress { consumed: consumed + bytes, next },
            }
        }
    }

    /// The answer to [`Next::List`].
    pub fn listed(&mut self, exports: &[ExportListing], out: &mut Vec<u8>) {
        let mut replies = ReplyWriter(out);
        let hidden = |export: &ExportListing| export.requires_tls && self.terms == TlsTerms::Offered && !self.encrypted;
        for export in exports.iter().filter(|export| !hidden(export)) {
            replies.server(export);
        }
        replies.ack(wire::option::LIST);
        self.stage = Stage::Options;
    }

    /// The answer to [`Next::Find`].
    pub fn found(&mut self, export: Option<Export>, out: &mut Vec<u8>) -> Next {
        let Stage::Asking(question) = std::mem::replace(&mut self.stage, Stage::Options) else {
            return Next::Read;
        };
        let visible = export.filter(|export| self.encrypted || !export.requires_tls);
        match question {
            Question::List => Next::Read,
            Question::Export { option, request } => self.answer_export(option, &request, visible, out),
            Question::ExportName => self.answer_export_name(visible, out),
            Question::Meta { option, query } => {
                self.answer_meta(option, &query, visible, out);
                Next::Read
            }
        }
    }

    /// Whether the client has asked for something without TLS that takes it here, and has not begun TLS since.
    pub fn refused_in_the_clear(&self) -> bool {
        self.refused_in_the_clear && !self.encrypted
    }

    /// TLS is up: nothing that was negotiated before counts any more.
    pub fn encrypted(&mut self) {
        self.encrypted = true;
        self.style = ReplyStyle::Simple;
        self.selection = None;
        self.stage = Stage::Options;
    }

    fn take_client_flags(&mut self, input: &[u8]) -> Result<usize, (usize, Next)> {
        let Some(flags) = Fields(input).u32() else { return Err((0, Next::Read)) };
        if flags & !(client_flag::FIXED_NEWSTYLE | client_flag::NO_ZEROES) != 0 {
            return Err((4, self.close(CloseReason::UnknownClientFlags(flags))));
        }
        self.fixed_newstyle = flags & client_flag::FIXED_NEWSTYLE != 0;
        self.no_zeroes = flags & client_flag::NO_ZEROES != 0;
        self.stage = Stage::Options;
        Ok(4)
    }

    fn take_option(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, (usize, Next)> {
        let Some(head) = OptionHead::read(input) else { return Err((0, Next::Read)) };
        if head.magic != wire::OPTION_MAGIC {
            return Err((OptionHead::BYTES, self.close(CloseReason::NotAnOption(head.magic))));
        }
        let takes_tls = self.terms == TlsTerms::Required && !self.encrypted;
        self.refused_in_the_clear |= takes_tls && !matches!(head.option, wire::option::ABORT | wire::option::STARTTLS);
        if let Some(reason) = self.is_fatal(head) {
            return Err((OptionHead::BYTES, self.close(reason)));
        }
        if let Some(refusal) = self.refuses(head) {
            self.options_seen += 1;
            self.stage = Stage::Skipping { left: head.length, refusal };
            return Ok(OptionHead::BYTES);
        }
        let Some(data) = input[OptionHead::BYTES..].get(..head.length as usize) else { return Err((0, Next::Read)) };
        self.options_seen += 1;
        let consumed = OptionHead::BYTES + data.len();
        match self.obey(head.option, data, out) {
            Next::Read => Ok(consumed),
            next => Err((consumed, next)),
        }
    }

    /// Whether the option can only be answered by closing the connection.
    fn is_fatal(&self, head: OptionHead) -> Option<CloseReason> {
        let by_name = head.option == wire::option::EXPORT_NAME;
        let must_encrypt = self.terms == TlsTerms::Required && !self.encrypted;
        let impossible = self.draining || must_encrypt || self.style == ReplyStyle::Extended;
        let too_long = head.length > crate::limits::MAX_STRING_BYTES;
        match head.option {
            _ if self.options_seen >= MAX_OPTIONS => Some(CloseReason::TooManyOptions),
            _ if by_name && (impossible || too_long) => Some(CloseReason::ExportNameRefused),
            option if !by_name && !self.fixed_newstyle => Some(CloseReason::NotFixedNewstyle(option)),
            _ => None,
        }
    }

    /// Why the option is refused whatever its data says.
    fn refuses(&self, head: OptionHead) -> Option<Refusal> {
        use wire::{option as opt, option_reply as error};
        let refusal = |kind, text| Some(Refusal { option: head.option, kind, text });
        let chunked = self.style != ReplyStyle::Simple;
        let must_encrypt = self.terms == TlsTerms::Required && !self.encrypted;
        match head.option {
            opt::ABORT if head.length <= MAX_OPTION_BYTES => None,
            _ if self.draining => refusal(error::ERR_SHUTDOWN, "the server is shutting down"),
            opt::STARTTLS if self.terms == TlsTerms::Off => refusal(error::ERR_POLICY, "TLS is not configured here"),
            opt::STARTTLS if self.encrypted => refusal(error::ERR_INVALID, "TLS is on already"),
            opt::STARTTLS if head.length == 0 => None,
            opt::STARTTLS => refusal(error::ERR_INVALID, "STARTTLS takes no data"),
            _ if must_encrypt => refusal(error::ERR_TLS_REQD, "this server speaks TLS only: send STARTTLS first"),
            opt::LIST | opt::STRUCTURED_REPLY | opt::EXTENDED_HEADERS if head.length != 0 => {
                refusal(error::ERR_INVALID, "this option takes no data")
            }
            opt::STRUCTURED_REPLY if self.style == ReplyStyle::Extended => {
                refusal(error::ERR_EXT_HEADER_REQD, "extended headers were chosen already, and go first")
            }
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT if !chunked => {
                refusal(error::ERR_INVALID, "metadata contexts need structured replies or extended headers first")
            }
            opt::EXPORT_NAME..=opt::ABORT | opt::LIST | opt::INFO..=opt::EXTENDED_HEADERS => {
                (head.length > MAX_OPTION_BYTES).then_some(Refusal {
                    option: head.option,
                    kind: error::ERR_TOO_BIG,
                    text: "the option's data is too long",
                })
            }
            _ => refusal(error::ERR_UNSUP, "this option is not known here"),
        }
    }

    /// Does what an option says whose data is complete, and which [`Handshake::refuses`] let pass.
    fn obey(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Next {
        use wire::option as opt;
        match option {
            opt::EXPORT_NAME => match ExportName::try_from(data) {
                Ok(name) => self.ask(Question::ExportName, name),
                Err(_) => self.close(CloseReason::ExportNameRefused),
            },
            opt::ABORT => {
                ReplyWriter(out).ack(option);
                self.close(CloseReason::Aborted)
            }
            opt::LIST => {
                self.stage = Stage::Asking(Question::List);
                Next::List
            }
            opt::STARTTLS => {
                ReplyWriter(out).ack(option);
                self.stage = Stage::Upgrading;
                Next::StartTls
            }
            opt::STRUCTURED_REPLY | opt::EXTENDED_HEADERS => {
                let structured = option == opt::STRUCTURED_REPLY;
                self.style = if structured { ReplyStyle::Structured } else { ReplyStyle::Extended };
                ReplyWriter(out).ack(option);
                Next::Read
            }
            opt::INFO | opt::GO => match ExportRequest::parse(data) {
                Ok((name, request)) => self.ask(Question::Export { option, request }, name),
                Err(text) => self.refuse(Refusal::invalid(option, text), out),
            },
            _ => {
                if option == opt::SET_META_CONTEXT {
                    // The old choice is gone even where the new one fails.
                    self.selection = None;
                }
                match MetaQuery::parse(option, data) {
                    Ok((name, query)) => self.ask(Question::Meta { option, query }, name),
                    Err(refusal) => self.refuse(refusal, out),
                }
            }
        }
    }

    fn ask(&mut self, question: Question, name: ExportName) -> Next {
        self.stage = Stage::Asking(question);
        Next::Find(name)
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Next {
        ReplyWriter(out).refusal(refusal);
        Next::Read
    }

    fn close(&mut self, reason: CloseReason) -> Next {
        self.stage = Stage::Done;
        Next::Close(reason)
    }

    /// ERR_UNKNOWN, except that a client without TLS may not learn which exports there are.
    fn unknown(&self, option: u32) -> Refusal {
        use wire::option_reply as error;
        if self.terms == TlsTerms::Offered && !self.encrypted {
            let text = "there is no such export without TLS: send STARTTLS first";
            return Refusal { option, kind: error::ERR_TLS_REQD, text };
        }
        Refusal { option, kind: error::ERR_UNKNOWN, text: "there is no such export" }
    }

    fn answer_export(
        &mut self,
        option: u32,
        request: &ExportRequest,
        export: Option<Export>,
        out: &mut Vec<u8>,
    ) -> Next {
        let Some(export) = export else { return self.refuse(self.unknown(option), out) };
        let agreement = self.agree(export);
        let geometry = agreement.export.device.geometry();
        let mut replies = ReplyWriter(out);
        if geometry.minimum_io_bytes > 1 && !request.block_size {
            replies.block_size(option, geometry, MAX_PAYLOAD_BYTES);
            let kind = wire::option_reply::ERR_BLOCK_SIZE_REQD;
            let text = "this export takes aligned requests only: ask for its block sizes";
            return self.refuse(Refusal { option, kind, text }, out);
        }
        replies.export(option, geometry.size, agreement.flags);
        if request.name {
            replies.name(option, &agreement.export.name);
        }
        if let Some(text) = agreement.export.description.as_ref().filter(|_| request.description) {
            replies.description(option, text);
        }
        if request.block_size {
            replies.block_size(option, geometry, MAX_PAYLOAD_BYTES);
        }
        replies.ack(option);
        if option == wire::option::INFO {
            return Next::Read;
        }
        self.stage = Stage::Done;
        Next::Transmit(Box::new(agreement))
    }

    fn answer_export_name(&mut self, export: Option<Export>, out: &mut Vec<u8>) -> Next {
        let Some(export) = export else { return self.close(CloseReason::ExportNameRefused) };
        let agreement = self.agree(export);
        out.extend_from_slice(&agreement.export.device.geometry().size.0.to_be_bytes());
        out.extend_from_slice(&agreement.flags.to_be_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; 124]);
        }
        self.stage = Stage::Done;
        Next::Transmit(Box::new(agreement))
    }

    fn answer_meta(&mut self, option: u32, query: &MetaQuery, export: Option<Export>, out: &mut Vec<u8>) {
        let Some(export) = export else {
            let kind = wire::option_reply::ERR_UNKNOWN;
            ReplyWriter(out).refusal(Refusal { option, kind, text: "there is no such export" });
            return;
        };
        let contexts = query.contexts();
        let selecting = option == wire::option::SET_META_CONTEXT;
        let mut replies = ReplyWriter(out);
        for context in contexts.iter() {
            let id = if selecting { context.id() } else { 0 };
            replies.meta_context(option, id, context.name());
        }
        replies.ack(option);
        if selecting {
            self.selection = Some((export.name, contexts));
        }
    }

    /// What would be agreed on if the handshake ended with this export now.
    fn agree(&self, export: Export) -> Agreement {
        let contexts = match &self.selection {
            Some((name, contexts)) if *name == export.name => *contexts,
            _ => Contexts::default(),
        };
        let mut flags = export.base_flags();
        if self.style != ReplyStyle::Simple {
            flags |= transmission_flag::SEND_DF;
        }
        if self.style == ReplyStyle::Extended && !contexts.is_empty() {
            flags |= transmission_flag::BLOCK_STATUS_PAYLOAD;
        }
        Agreement { export, style: self.style, contexts, flags }
    }
}
