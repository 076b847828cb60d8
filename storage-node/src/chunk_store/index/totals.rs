//! What the chunks come to that the index names: kept beside their entries, and changed in the same batches.
//!
//! The value of table `t` of the records, whose only key is the table, integers little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | chunks |
//! | 8 | 8 | bytes of the chunks |
//! | 16 | 8 | bytes that are stored of them |

use super::{Batch, Index, IndexError, Space};
use crate::chunk_store::pack::Frame;

/// What the chunks come to that the index names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::chunk_store) struct Totals {
    /// How many there are.
    pub(in crate::chunk_store) chunks: u64,
    /// Their bytes.
    pub(in crate::chunk_store) chunk_bytes: u64,
    /// The bytes that are stored of them.
    pub(in crate::chunk_store) stored_bytes: u64,
}

impl Totals {
    /// With one more chunk.
    pub(in crate::chunk_store) fn add(&mut self, frame: &Frame) {
        self.chunks += 1;
        self.chunk_bytes += u64::from(frame.length);
        self.stored_bytes += u64::from(frame.stored_length());
    }

    /// With a chunk less. Figures that were wrong do not get below nothing.
    pub(in crate::chunk_store) fn subtract(&mut self, frame: &Frame) {
        self.chunks = self.chunks.saturating_sub(1);
        self.chunk_bytes = self.chunk_bytes.saturating_sub(frame.length.into());
        self.stored_bytes = self.stored_bytes.saturating_sub(frame.stored_length().into());
    }

    /// Those that the index keeps; `None` where it keeps none: a program that knew of none wrote it.
    pub(in crate::chunk_store) fn load(index: &dyn Index) -> Result<Option<Self>, IndexError> {
        let Some(value) = index.get(Space::Records, TABLE)? else { return Ok(None) };
        let damaged = || IndexError::Damaged { what: "the totals of its chunks cannot be read".to_owned() };
        let ([chunks, chunk_bytes, stored_bytes], []) = value.as_chunks::<8>() else { return Err(damaged()) };
        let [chunks, chunk_bytes, stored_bytes] = [chunks, chunk_bytes, stored_bytes].map(|of| u64::from_le_bytes(*of));
        Ok(Some(Self { chunks, chunk_bytes, stored_bytes }))
    }

    /// Has a batch say that it makes these.
    pub(in crate::chunk_store) fn put_into(self, batch: &mut Batch) {
        let numbers = [self.chunks, self.chunk_bytes, self.stored_bytes];
        batch.put(Space::Records, TABLE, numbers.map(u64::to_le_bytes).concat());
    }
}

/// The table, and the key in it.
const TABLE: &[u8] = b"t";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk_store::index::MemoryIndex;

    #[test]
    fn totals_are_written_as_the_table_says_and_read_back() {
        let index = MemoryIndex::new();
        assert_eq!(Totals::load(&index).expect("an answer"), None);
        let totals = Totals { chunks: 1, chunk_bytes: 0x0203, stored_bytes: 4 };
        let mut batch = Batch::new();
        totals.put_into(&mut batch);
        index.commit(batch, true).expect("a batch");
        let value = index.get(Space::Records, b"t").expect("an answer").expect("totals");
        assert_eq!(value, [1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Totals::load(&index).expect("an answer"), Some(totals));
    }

    #[test]
    fn totals_that_make_no_sense_are_damage() {
        for length in [0, 23, 25, 32] {
            let index = MemoryIndex::new();
            let mut batch = Batch::new();
            batch.put(Space::Records, TABLE, vec![1; length]);
            index.commit(batch, true).expect("a batch");
            assert!(matches!(Totals::load(&index), Err(IndexError::Damaged { .. })), "{length} bytes");
        }
    }
}
