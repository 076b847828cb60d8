//! Replies to options.

use sterna_types::ByteSize;
use sterna_types::device::Geometry;

use crate::export::{Description, ExportListing, ExportName};
use crate::wire::{OPTION_REPLY_MAGIC, info, option_reply};

/// An option refused, with a reason for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) option: u32,
    /// An error of [`option_reply`].
    pub(super) kind: u32,
    pub(super) text: &'static str,
}

impl Refusal {
    pub(super) fn invalid(option: u32, text: &'static str) -> Self {
        Self { option, kind: option_reply::ERR_INVALID, text }
    }
}

/// Appends replies to a buffer.
pub(super) struct ReplyWriter<'a>(pub(super) &'a mut Vec<u8>);

impl ReplyWriter<'_> {
    pub(super) fn ack(&mut self, option: u32) {
        self.reply(option, option_reply::ACK, &[]);
    }

    pub(super) fn refusal(&mut self, refusal: Refusal) {
        self.reply(refusal.option, refusal.kind, &[refusal.text.as_bytes()]);
    }

    pub(super) fn server(&mut self, export: &ExportListing) {
        let name = export.name.as_str().as_bytes();
        let description = export.description.as_ref().map_or("", Description::as_str);
        let parts = [&length(name).to_be_bytes(), name, description.as_bytes()];
        self.reply(crate::wire::option::LIST, option_reply::SERVER, &parts);
    }

    pub(super) fn export(&mut self, option: u32, size: ByteSize, flags: u16) {
        self.info(option, info::EXPORT, &[&size.0.to_be_bytes(), &flags.to_be_bytes()]);
    }

    pub(super) fn name(&mut self, option: u32, name: &ExportName) {
        self.info(option, info::NAME, &[name.as_str().as_bytes(), &[]]);
    }

    pub(super) fn description(&mut self, option: u32, text: &Description) {
        self.info(option, info::DESCRIPTION, &[text.as_str().as_bytes(), &[]]);
    }

    pub(super) fn block_size(&mut self, option: u32, geometry: Geometry, max_payload_bytes: u32) {
        let sizes = [geometry.minimum_io_bytes, geometry.preferred_io_bytes].map(u32::to_be_bytes);
        self.info(option, info::BLOCK_SIZE, &[&sizes.concat(), &max_payload_bytes.to_be_bytes()]);
    }

    pub(super) fn meta_context(&mut self, option: u32, id: u32, name: &str) {
        self.reply(option, option_reply::META_CONTEXT, &[&id.to_be_bytes(), name.as_bytes()]);
    }

    fn info(&mut self, option: u32, kind: u16, parts: &[&[u8]; 2]) {
        self.reply(option, option_reply::INFO, &[&kind.to_be_bytes(), parts[0], parts[1]]);
    }

    fn reply(&mut self, option: u32, kind: u32, parts: &[&[u8]]) {
        let length: u32 = parts.iter().map(|part| length(part)).sum();
        self.0.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        for number in [option, kind, length] {
            self.0.extend_from_slice(&number.to_be_bytes());
        }
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
    }
}

/// The length of a part of a reply: a name, a description or a fixed field, none of them near 4 GiB.
fn length(part: &[u8]) -> u32 {
    u32::try_from(part.len()).expect("names and descriptions are short")
}
