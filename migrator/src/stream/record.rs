//! What a migration stream consists of.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A piece of a stream. All of them, written one after the other, are the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Bytes that are handed on as they are.
    Verbatim(Bytes),
    /// The blocks of the machine's memory. The pages behind it are of these.
    Blocks(Arc<RamBlocks>),
    /// A page of memory.
    Page(Page),
}

/// A page of memory, as it was when it was sent. A later one of the same place replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In which block it is.
    pub block: BlockNumber,
    /// Where it begins there: a multiple of the page's size.
    pub offset_bytes: u64,
    /// Whether the block is not named, being that of the page before.
    pub is_continued: bool,
    /// What is in it.
    pub contents: Contents,
}

/// What is in a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zeros only.
    Zero,
    /// These bytes, as many as a page has.
    Data(Bytes),
    /// A delta of QEMU's own making (XBZRLE) to what was sent of the page before; at most as long as a page.
    Delta(Bytes),
}

/// A block of memory, by its place in [`RamBlocks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(pub u16);

/// The blocks of a machine's memory, in the order in which the stream names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamBlocks {
    /// How many bytes a page has: a power of two.
    pub(super) page_bytes: usize,
    /// The blocks.
    pub(super) blocks: Vec<RamBlock>,
    /// How the stream says it.
    pub(super) written: Bytes,
}

/// A block of memory: RAM, or a ROM that is in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamBlock {
    /// Its name, such as `pc.ram`: at most 255 bytes, and unlike the others'.
    pub name: Box<[u8]>,
    /// How much of it is in use.
    pub used_bytes: u64,
}

impl RamBlocks {
    /// How many bytes a page has.
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The blocks, each at its number.
    pub fn blocks(&self) -> &[RamBlock] {
        &self.blocks
    }

    /// How much memory they are together, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.used_bytes).sum()
    }

    /// The block of this number.
    pub fn get(&self, number: BlockNumber) -> Option<&RamBlock> {
        self.blocks.get(usize::from(number.0))
    }

    /// The number of the block of this name.
    pub fn find(&self, name: &[u8]) -> Option<BlockNumber> {
        let at = self.blocks.iter().position(|block| *block.name == *name)?;
        u16::try_from(at).ok().map(BlockNumber)
    }

    /// Whether a page that begins at `offset_bytes` of a block is in it.
    pub fn has_page(&self, number: BlockNumber, offset_bytes: u64) -> bool {
        let page_bytes = self.page_bytes as u64;
        offset_bytes.is_multiple_of(page_bytes) && self.get(number).is_some_and(|block| offset_bytes < block.used_bytes)
    }
}

/// What a parser has come upon that it cannot take apart. It and all behind it pass through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// It begins in another way.
    #[error("it does not begin like a migration stream of version 3")]
    Beginning,
    /// The machine's configuration.
    #[error("its configuration has {0}")]
    Configuration(Quoted),
    /// A command, such as of a post-copy.
    #[error("command {0}")]
    Command(u16),
    /// Something that is neither a command nor a section.
    #[error("a record of type {0:#04x}")]
    RecordType(u8),
    /// Something else than memory that is sent while the machine runs.
    #[error("a section {0}")]
    Section(Quoted),
    /// A section that continues one that has not begun.
    #[error("a part of section {0}, which has not begun")]
    Part(u32),
    /// A section that ends with another one's footer.
    #[error("a footer of section {0}")]
    Footer(u32),
    /// The list of the blocks of memory.
    #[error("a list of blocks of memory that does not add up to {total_bytes} bytes")]
    Blocks {
        /// What it is to add up to.
        total_bytes: u64,
    },
    /// A page of some other form.
    #[error("a page with flags {0:#05x}")]
    PageFlags(u64),
    /// A page where there is no memory.
    #[error("a page at {offset_bytes} of block {block}")]
    Page {
        /// The block's name.
        block: Quoted,
        /// Where it would begin.
        offset_bytes: u64,
    },
    /// Pages before the blocks that they are of.
    #[error("a page of no block")]
    NoBlock,
}

/// A name of QEMU's, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted(Box<[u8]>);

impl From<&[u8]> for Quoted {
    fn from(name: &[u8]) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.escape_ascii())
    }
}
