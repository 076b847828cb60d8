//! The log of a volume's writes that are newer than its root.
//!
//! A journal is a row of [`JournalFile`]s of 16 MiB, each a header and then [`record`]s one behind the other. A write is
//! acknowledged once its record is in the file, and durable once the file was synced. A [`Journal`] gives records their
//! sequence numbers, without a gap, and knows up to which one they are durable. Files come from a [`JournalPool`] and go
//! back to it, since syncing a file that was written before costs half of syncing one that grows.
//!
//! Invariants:
//! * sequence numbers of a volume grow by one from record to record, across files and for ever;
//! * `durable <= appended`, and a sync that returns covers every record that was appended before it began;
//! * a file is written over only when nobody can read it any more: no overlay, no reader, no replay.
//!
//! What a crash may leave, and what [`replay()`] makes of it:
//!
//! | left behind | replayed as |
//! |---|---|
//! | records without a gap, then one that does not check | everything before that one, which nobody was told is durable |
//! | a whole record of an earlier use of the file | the end of this file: its salt is another |
//! | a file prepared and not used | nothing |
//! | a file before the one that the volume's record says to begin with | nothing: it is sealed |
//! | a file whose header is of another volume or number | nothing: it has changed hands |
//!
//! A file that has the name of a journal's and no header that checks is none of these: it is damaged, and the volume is not
//! opened. [`survey()`] reads what there is all the same, and changes nothing.

use sterna_types::BLOCK_SIZE;

mod file;
mod log;
mod pool;
pub mod record;
mod replay;
mod survey;
#[cfg(test)]
mod tests;

pub use file::{FileNumber, JournalFile, JournalNote, NOTE_BYTES};
pub use log::{Appended, Journal, JournalError};
pub use pool::{JournalPool, SaltSource};
pub use replay::{Replay, Replayed, newest_note, replay};
pub use survey::{Continued, Found, JournalDamage, Survey, survey};

/// Bytes of a journal's file: small enough that a volume that was written a little holds little, large enough that
/// changing to the next one is rare.
pub const JOURNAL_FILE_BYTES: u64 = 16 << 20;

/// The most blocks in one record: 1 MiB. A longer write is several records, as no write is atomic beyond a block.
pub const MAX_RECORD_BLOCKS: u64 = (1 << 20) / BLOCK_SIZE;
