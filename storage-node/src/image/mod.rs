//! Whole disks in and out: raw images as roots, and roots as raw images.
//!
//! Neither goes through a volume's journal: an import cuts the image into chunks and makes a map of them, an export writes
//! what a map names. Both skip holes, report how far they are, and stop when they are told to. What an import has stored
//! when it stops is found again by the next one, which has only to read and hash it.

mod export;
mod import;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

pub use export::{ExportError, Exported, export};
pub use import::{ImportError, Imported, import};

/// How far a piece of long work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done, holes among them.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Hears how far a piece of long work has come, several times a second or for each segment, and says whether to go on.
pub type Watcher<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;
