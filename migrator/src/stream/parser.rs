//! From QEMU's migration stream to records.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;

use super::cursor::{Cursor, Stop};
use super::record::{BlockNumber, Contents, Page, RamBlock, RamBlocks, Record, Unknown};
use super::writer::{XBZRLE_ENCODING, ZEROS, flag};

/// Takes a migration stream apart, as it comes.
///
/// It holds nothing of the stream but the list of the blocks of memory. Whoever reads gives it a buffer with what has come so far, and
/// takes records until there is none; then the buffer holds less than [`MAX_RECORD_BYTES`].
///
/// ```
/// # use bytes::BytesMut;
/// # use sterna_migrator::stream::{Parser, Writer};
/// let stream = b"QEVM\0\0\0\x03\x08\0\x01\0\0";
/// let (mut parser, mut buffer) = (Parser::new(), BytesMut::new());
/// let (mut writer, mut again) = (Writer::new(), Vec::new());
/// for piece in stream.chunks(5) {
///     buffer.extend_from_slice(piece);
///     while let Some(record) = parser.next(&mut buffer) {
///         writer.write(&record, &mut again)?;
///     }
/// }
/// assert!(buffer.is_empty() && again == stream);
/// # Ok::<(), sterna_migrator::stream::writer::WriteError>(())
/// ```
#[derive(Debug)]
pub struct Parser {
    state: State,
    page_bytes: usize,
    blocks: Option<Arc<RamBlocks>>,
    /// The block of the page before.
    current: Option<BlockNumber>,
    /// The section of memory, once it has begun.
    memory: Option<u32>,
    stage: Stage,
    unknown: Option<Unknown>,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before the first page.
    Beginning,
    /// The machine runs, and its memory is sent.
    Memory,
    /// The machine stands, and the rest of its memory is sent.
    SwitchingOver,
    /// All of its memory has been sent, and its devices are. They pass through.
    Devices,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Beginning,
    Configuration,
    Subsection,
    Record,
    /// In the body of a section of memory. Whether all of it has been sent at its end.
    Pages {
        is_last: bool,
    },
    Footer {
        is_last: bool,
    },
    /// Nothing is looked at any more.
    Opaque,
}

/// A record that is there in full.
struct Found {
    /// How many bytes it has.
    length: usize,
    what: What,
    /// What may come behind it.
    next: State,
}

enum What {
    Verbatim,
    /// Commands that say how far the stream has come.
    Stage(Stage),
    /// The machine's configuration says how large its pages are.
    PageBytes(usize),
    /// A section of memory begins.
    Memory(u32),
    Blocks(Vec<RamBlock>),
    Page {
        block: BlockNumber,
        offset_bytes: u64,
        is_continued: bool,
        contents: Place,
    },
}

/// Where in the record a page's contents are.
enum Place {
    Zero,
    Data(Range<usize>),
    Delta(Range<usize>),
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self {
            state: State::Beginning,
            page_bytes: PAGE_BYTES,
            blocks: None,
            current: None,
            memory: None,
            stage: Stage::Beginning,
            unknown: None,
        }
    }

    /// The next record, which is taken from the front of `buffer`; `None` where its end has not come yet. At the end of a stream what is
    /// left in the buffer is the end of it, and passes through as it is.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Record> {
        while self.state != State::Opaque {
            match self.find(buffer) {
                Ok(found) => {
                    // What may be left out may be nothing.
                    let is_there = found.length > 0;
                    let record = self.take(found, buffer);
                    if is_there {
                        return Some(record);
                    }
                }
                Err(Stop::More) => return None,
                Err(Stop::Unknown(unknown)) => {
                    self.state = State::Opaque;
                    self.unknown = Some(unknown);
                }
            }
        }
        let length = buffer.len().min(MAX_VERBATIM_BYTES);
        (length > 0).then(|| Record::Verbatim(buffer.split_to(length).freeze()))
    }

    /// How far the stream has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The blocks of the machine's memory, once they are known.
    pub fn blocks(&self) -> Option<&Arc<RamBlocks>> {
        self.blocks.as_ref()
    }

    /// Why everything passes through from some place on; `None` where all was understood up to the devices.
    pub fn unknown(&self) -> Option<&Unknown> {
        self.unknown.as_ref()
    }

    /// Makes a record of what was found, and goes on behind it.
    fn take(&mut self, found: Found, buffer: &mut BytesMut) -> Record {
        let bytes = buffer.split_to(found.length).freeze();
        self.state = found.next;
        match found.what {
            What::Verbatim => Record::Verbatim(bytes),
            What::Stage(stage) => {
                self.stage = self.stage.max(stage);
                Record::Verbatim(bytes)
            }
            What::PageBytes(page_bytes) => {
                self.page_bytes = page_bytes;
                Record::Verbatim(bytes)
            }
            What::Memory(section) => {
                (self.memory, self.stage) = (Some(section), self.stage.max(Stage::Memory));
                Record::Verbatim(bytes)
            }
            What::Blocks(blocks) => {
                let blocks = Arc::new(RamBlocks { page_bytes: self.page_bytes, blocks, written: bytes });
                (self.blocks, self.current) = (Some(Arc::clone(&blocks)), None);
                Record::Blocks(blocks)
            }
            What::Page { block, offset_bytes, is_continued, contents } => {
                self.current = Some(block);
                let contents = match contents {
                    Place::Zero => Contents::Zero,
                    Place::Data(at) => Contents::Data(bytes.slice(at)),
                    Place::Delta(at) => Contents::Delta(bytes.slice(at)),
                };
                Record::Page(Page { block, offset_bytes, is_continued, contents })
            }
        }
    }

    /// The record at the front of these bytes.
    fn find(&self, bytes: &[u8]) -> Result<Found, Stop> {
        let mut cursor = Cursor::new(bytes);
        let (what, next) = match self.state {
            State::Beginning => beginning(&mut cursor)?,
            State::Configuration => configuration(&mut cursor)?,
            State::Subsection => subsection(&mut cursor)?,
            State::Record => self.record(&mut cursor)?,
            State::Pages { is_last } => self.body(&mut cursor, is_last)?,
            State::Footer { is_last } => self.footer(&mut cursor, is_last)?,
            State::Opaque => return Err(Stop::More),
        };
        Ok(Found { length: cursor.at(), what, next })
    }

    fn record(&self, cursor: &mut Cursor<'_>) -> Result<(What, State), Stop> {
        match cursor.u8()? {
            kind::COMMAND => command(cursor),
            kind::SECTION_START => {
                let section = cursor.u32()?;
                let name = cursor.name()?;
                let (_instance, version) = (cursor.u32()?, cursor.u32()?);
                if name != MEMORY || version != MEMORY_VERSION || self.memory.is_some() {
                    return Err(Unknown::Section(name.into()).into());
                }
                Ok((What::Memory(section), State::Pages { is_last: false }))
            }
            part @ (kind::SECTION_PART | kind::SECTION_END) => {
                let section = cursor.u32()?;
                if self.memory != Some(section) {
                    return Err(Unknown::Part(section).into());
                }
                Ok((What::Verbatim, State::Pages { is_last: part == kind::SECTION_END }))
            }
            kind::SECTION_FULL => {
                let (_section, name) = (cursor.u32()?, cursor.name()?);
                Err(Unknown::Section(name.into()).into())
            }
            other => Err(Unknown::RecordType(other).into()),
        }
    }

    /// A word of the body of a section of memory, with what belongs to it.
    fn body(&self, cursor: &mut Cursor<'_>, is_last: bool) -> Result<(What, State), Stop> {
        let word = cursor.u64()?;
        let (value, flags) = (word & !flag::ALL, word & flag::ALL);
        match flags {
            flag::EOS if value == 0 => Ok((What::Verbatim, State::Footer { is_last })),
            flag::MEM_SIZE => Ok((What::Blocks(blocks(cursor, value)?), State::Pages { is_last })),
            _ => Ok((self.page(cursor, value, flags)?, State::Pages { is_last })),
        }
    }

    fn page(&self, cursor: &mut Cursor<'_>, offset_bytes: u64, flags: u64) -> Result<What, Stop> {
        let kind = flags & !flag::CONTINUE;
        if !matches!(kind, flag::ZERO | flag::PAGE | flag::XBZRLE) {
            return Err(Unknown::PageFlags(flags).into());
        }
        let blocks = self.blocks.as_ref().ok_or(Unknown::NoBlock)?;
        let is_continued = flags & flag::CONTINUE != 0;
        let block = if is_continued {
            self.current.ok_or(Unknown::NoBlock)?
        } else {
            let name = cursor.name()?;
            blocks.find(name).ok_or_else(|| Unknown::Page { block: name.into(), offset_bytes })?
        };
        if !blocks.has_page(block, offset_bytes) {
            let name = blocks.get(block).map_or(&[][..], |block| &block.name);
            return Err(Unknown::Page { block: name.into(), offset_bytes }.into());
        }
        let contents = match kind {
            flag::PAGE => Place::Data(place(cursor, self.page_bytes)?),
            flag::ZERO => match cursor.u8()? {
                ZEROS => Place::Zero,
                _ => return Err(Unknown::PageFlags(flags).into()),
            },
            _ => match (cursor.u8()?, usize::from(cursor.u16()?)) {
                (XBZRLE_ENCODING, length) if length <= self.page_bytes => Place::Delta(place(cursor, length)?),
                _ => return Err(Unknown::PageFlags(flags).into()),
            },
        };
        Ok(What::Page { block, offset_bytes, is_continued, contents })
    }

    fn footer(&self, cursor: &mut Cursor<'_>, is_last: bool) -> Result<(What, State), Stop> {
        // Some types of machines have none.
        if cursor.peek()? == kind::FOOTER {
            let _ = cursor.u8()?;
            let section = cursor.u32()?;
            if self.memory != Some(section) {
                return Err(Unknown::Footer(section).into());
            }
        }
        if is_last { Ok((What::Stage(Stage::Devices), State::Opaque)) } else { Ok((What::Verbatim, State::Record)) }
    }
}

fn beginning(cursor: &mut Cursor<'_>) -> Result<(What, State), Stop> {
    if (cursor.u32()?, cursor.u32()?) != (MAGIC, VERSION) {
        return Err(Unknown::Beginning.into());
    }
    Ok((What::Verbatim, State::Configuration))
}

/// The machine's type, where there is one.
fn configuration(cursor: &mut Cursor<'_>) -> Result<(What, State), Stop> {
    if cursor.peek()? != kind::CONFIGURATION {
        return Ok((What::Verbatim, State::Record));
    }
    let _ = cursor.u8()?;
    let length = cursor.u32()? as usize;
    if length > MAX_NAME_BYTES {
        return Err(Unknown::Configuration(b"a long name of its machine"[..].into()).into());
    }
    cursor.take(length)?;
    Ok((What::Verbatim, State::Subsection))
}

/// One of the parts of the configuration, where there is one more.
fn subsection(cursor: &mut Cursor<'_>) -> Result<(What, State), Stop> {
    if cursor.peek()? != kind::SUBSECTION {
        return Ok((What::Verbatim, State::Record));
    }
    let _ = cursor.u8()?;
    let name = cursor.name()?;
    let _version = cursor.u32()?;
    let unknown = || Stop::Unknown(Unknown::Configuration(name.into()));
    let mut what = What::Verbatim;
    match name {
        b"configuration/target-page-bits" => {
            let bits = cursor.u32()?;
            if !PAGE_BITS.contains(&bits) {
                return Err(unknown());
            }
            what = What::PageBytes(1 << bits);
        }
        b"configuration/capabilities" => {
            let count = cursor.u32()?;
            if count > MAX_CAPABILITIES {
                return Err(unknown());
            }
            for _ in 0..count {
                // Each of those that are compared alters how memory is written.
                cursor.name()?;
            }
            if count > 0 {
                return Err(unknown());
            }
        }
        b"configuration/uuid" => {
            cursor.take(UUID_BYTES)?;
        }
        _ => return Err(unknown()),
    }
    Ok((what, State::Subsection))
}

fn command(cursor: &mut Cursor<'_>) -> Result<(What, State), Stop> {
    let (number, length) = (cursor.u16()?, cursor.u16()?);
    let what = match number {
        command::OPEN_RETURN_PATH | command::PING => What::Verbatim,
        command::SWITCHOVER_START => What::Stage(Stage::SwitchingOver),
        other => return Err(Unknown::Command(other).into()),
    };
    cursor.take(length.into())?;
    Ok((what, State::Record))
}

/// The list of the blocks of memory.
fn blocks(cursor: &mut Cursor<'_>, total_bytes: u64) -> Result<Vec<RamBlock>, Stop> {
    let unknown = || Stop::Unknown(Unknown::Blocks { total_bytes });
    let (mut blocks, mut sum) = (Vec::<RamBlock>::new(), 0_u64);
    while sum < total_bytes {
        let (name, used_bytes) = (cursor.name()?, cursor.u64()?);
        sum = sum.checked_add(used_bytes).filter(|sum| *sum <= total_bytes).ok_or_else(unknown)?;
        let is_new = blocks.iter().all(|block| *block.name != *name);
        if used_bytes == 0 || !is_new || blocks.len() == MAX_BLOCKS {
            return Err(unknown());
        }
        blocks.push(RamBlock { name: name.into(), used_bytes });
    }
    Ok(blocks)
}

/// Where the next bytes are, which have come.
fn place(cursor: &mut Cursor<'_>, length: usize) -> Result<Range<usize>, Stop> {
    let at = cursor.at();
    cursor.take(length)?;
    Ok(at..at + length)
}

/// The first byte of a record.
mod kind {
    pub(super) const SECTION_START: u8 = 0x01;
    pub(super) const SECTION_PART: u8 = 0x02;
    pub(super) const SECTION_END: u8 = 0x03;
    pub(super) const SECTION_FULL: u8 = 0x04;
    pub(super) const SUBSECTION: u8 = 0x05;
    pub(super) const CONFIGURATION: u8 = 0x07;
    pub(super) const COMMAND: u8 = 0x08;
    pub(super) const FOOTER: u8 = 0x7e;
}

/// The commands after which all goes on as described.
mod command {
    pub(super) const OPEN_RETURN_PATH: u16 = 1;
    pub(super) const PING: u16 = 2;
    pub(super) const SWITCHOVER_START: u16 = 11;
}

const MAGIC: u32 = u32::from_be_bytes(*b"QEVM");
const VERSION: u32 = 3;
const MEMORY: &[u8] = b"ram";
const MEMORY_VERSION: u32 = 4;
const UUID_BYTES: usize = 16;

/// What a page has where the stream does not say it.
const PAGE_BYTES: usize = 4096;

/// From 4 KiB, below which there is no room for flags, to 64 KiB, the largest of any architecture.
const PAGE_BITS: std::ops::RangeInclusive<u32> = 12..=16;

/// The longest name of a type of machine. QEMU's have some 20 bytes.
const MAX_NAME_BYTES: usize = 255;

/// The most capabilities that a configuration may list. QEMU has some 30.
const MAX_CAPABILITIES: u32 = 256;

/// The most blocks of memory. A large machine has some 50: one for each bank of RAM, each ROM and each device's own memory.
const MAX_BLOCKS: usize = 512;

/// The longest record by far is the list of the blocks of memory; a page is at most 64 KiB, a command too.
pub const MAX_RECORD_BYTES: usize = 8 + (MAX_BLOCKS + 1) * (1 + 255 + 8);

/// How much of what passes through is handed on at once: few enough bytes to be sent as one.
pub const MAX_VERBATIM_BYTES: usize = 64 << 10;

/// What a command's data, or a capability list, may take at most is less.
const _: () =
    assert!(MAX_RECORD_BYTES > 5 + u16::MAX as usize && MAX_RECORD_BYTES > (MAX_CAPABILITIES as usize + 1) * 256);
const _: () = assert!(MAX_RECORD_BYTES > 8 + 256 + (1 << 16));
