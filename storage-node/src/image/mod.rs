//! Whole disks in and out: raw images as roots, and roots as raw images.
//!
//! Neither goes through a volume's journal: an import cuts the image into chunks and makes a map of them, an export writes
//! what a map names. Both skip holes, report how far they are, and stop when they are told to. What an import has stored
//! when it stops is found again by the next one, which has only to read and hash it.

mod export;
mod import;
#[cfg(test)]
mod tests;

pub use export::{ExportError, Exported, export};
pub use import::{ImportError, Imported, import};
