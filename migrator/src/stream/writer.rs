//! From records to QEMU's migration stream.

use std::sync::Arc;

use bytes::BufMut;

use super::record::{BlockNumber, Contents, Page, RamBlocks, Record};

/// Writes records as the stream that they were parsed from.
#[derive(Debug, Default)]
pub struct Writer {
    blocks: Option<Arc<RamBlocks>>,
    /// The block of the page before.
    current: Option<BlockNumber>,
}

/// Why a record cannot be written: whoever it is from has made it up. Nothing of it has been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A page before there is memory.
    #[error("a page comes before the list of the blocks of memory")]
    NoBlocks,
    /// A page where there is no memory.
    #[error("a page is at {} of block {} of the machine's memory, and there is none", .0.offset_bytes, .0.block.0)]
    NoSuchPage(PagePlace),
    /// A page that continues no other, or another block.
    #[error("a page is to continue block {}, and does not follow a page of that", .0.block.0)]
    NotContinued(PagePlace),
    /// Another number of bytes than a page has.
    #[error("a page has {given} bytes")]
    Length {
        /// How many.
        given: usize,
    },
}

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PagePlace {
    /// In which block.
    pub block: BlockNumber,
    /// Where it begins there.
    pub offset_bytes: u64,
}

impl Page {
    /// Where it is.
    pub fn place(&self) -> PagePlace {
        PagePlace { block: self.block, offset_bytes: self.offset_bytes }
    }
}

impl Writer {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record to `out`.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was appended.
    pub fn write(&mut self, record: &Record, out: &mut impl BufMut) -> Result<(), WriteError> {
        match record {
            Record::Verbatim(bytes) => out.put_slice(bytes),
            Record::Blocks(blocks) => {
                out.put_slice(&blocks.written);
                (self.blocks, self.current) = (Some(Arc::clone(blocks)), None);
            }
            Record::Page(page) => self.page(page, out)?,
        }
        Ok(())
    }

    fn page(&mut self, page: &Page, out: &mut impl BufMut) -> Result<(), WriteError> {
        let blocks = self.blocks.as_deref().ok_or(WriteError::NoBlocks)?;
        let place = page.place();
        let block = blocks.get(page.block).ok_or(WriteError::NoSuchPage(place))?;
        if !blocks.has_page(page.block, page.offset_bytes) {
            return Err(WriteError::NoSuchPage(place));
        }
        if page.is_continued && self.current != Some(page.block) {
            return Err(WriteError::NotContinued(place));
        }
        let length = match &page.contents {
            Contents::Data(data) if data.len() != blocks.page_bytes => Some(data.len()),
            Contents::Delta(delta) if delta.len() > blocks.page_bytes.min(u16::MAX.into()) => Some(delta.len()),
            _ => None,
        };
        if let Some(given) = length {
            return Err(WriteError::Length { given });
        }
        let kind = match &page.contents {
            Contents::Zero => flag::ZERO,
            Contents::Data(_) => flag::PAGE,
            Contents::Delta(_) => flag::XBZRLE,
        };
        out.put_u64(page.offset_bytes | kind | if page.is_continued { flag::CONTINUE } else { 0 });
        if !page.is_continued {
            out.put_u8(u8::try_from(block.name.len()).expect("the parser has read it with a length of one byte"));
            out.put_slice(&block.name);
        }
        match &page.contents {
            Contents::Zero => out.put_u8(ZEROS),
            Contents::Data(data) => out.put_slice(data),
            Contents::Delta(delta) => {
                out.put_u8(XBZRLE_ENCODING);
                out.put_u16(u16::try_from(delta.len()).expect("looked at above"));
                out.put_slice(delta);
            }
        }
        self.current = Some(page.block);
        Ok(())
    }
}

/// The flags of a word in the body of a section of memory.
pub(super) mod flag {
    pub(in super::super) const ZERO: u64 = 0x002;
    pub(in super::super) const MEM_SIZE: u64 = 0x004;
    pub(in super::super) const PAGE: u64 = 0x008;
    pub(in super::super) const EOS: u64 = 0x010;
    pub(in super::super) const CONTINUE: u64 = 0x020;
    pub(in super::super) const XBZRLE: u64 = 0x040;
    /// All that is no offset.
    pub(in super::super) const ALL: u64 = 0xfff;
}

/// What a page of zeros is filled with.
pub(super) const ZEROS: u8 = 0;

/// The one encoding of deltas that there is.
pub(super) const XBZRLE_ENCODING: u8 = 1;
