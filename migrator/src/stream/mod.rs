//! QEMU's migration stream, record by record: what of it is memory, page by page, and everything else as it is.
//!
//! A migrator stands between two QEMUs. To send less than it gets, it has to know where pages are; to be trusted, it must never change
//! what the destination's QEMU reads. So the parser makes [`Record`]s of the stream, the writer makes bytes of records, and one after
//! the other is the identity, for any bytes at all: what is not understood passes through, and so does all behind it ([`Unknown`] says
//! why). Between the two ends a page may then travel in another form.
//!
//! * [`record`]: what a stream consists of. * [`parser`]: from bytes, in pieces of any size. * [`writer`]: to bytes.
//! * [`return_path`]: what comes back, message by message.
//! * `checks`: what may never be false about them, for tests and fuzzers.
//!
//! The format, as QEMU 10.0 writes it with pre-copy and one channel (its `migration/savevm.c` and `migration/ram.c`); integers are
//! big-endian:
//!
//! ```text
//! stream        = "QEVM" u32:3 [configuration] { command | section } 0x00 [description]
//! configuration = 0x07 u32:length name { 0x05 u8:length name u32:version body }
//! command       = 0x08 u16:number u16:length data
//! section       = 0x01 id name u32:instance u32:version body footer        (start)
//!               | 0x02 id body footer | 0x03 id body footer                (part, end)
//!               | 0x04 id name u32:instance u32:version device footer      (full: a device, of unknown length)
//! footer        = 0x7e id                                                  (left out by some machine types)
//! ```
//!
//! The body of the sections of "ram", version 4, is a sequence of words of 64 bits, whose lower 12 bits are flags:
//!
//! ```text
//! 0x004 total   { u8:length name u64:used }, as many as it takes for the sum of `used` to be `total`
//! 0x008 offset  [u8:length name] page                                      (one page as it is)
//! 0x002 offset  [u8:length name] 0x00                                      (one page of zeros)
//! 0x040 offset  [u8:length name] 0x01 u16:length delta                     (XBZRLE)
//! 0x010         the end of the body
//! ```
//!
//! With 0x020 a page is of the block of the one before it, and the name is left out. Behind the end of "ram" come devices, which cannot
//! be taken apart without their descriptions, and those come last of all.

#[cfg(any(test, feature = "checks"))]
pub mod checks;
mod cursor;
pub mod parser;
pub mod record;
pub mod return_path;
pub mod writer;

#[cfg(test)]
mod tests;

pub use parser::Parser;
pub use record::{BlockNumber, Contents, Page, RamBlocks, Record, Unknown};
pub use writer::Writer;
