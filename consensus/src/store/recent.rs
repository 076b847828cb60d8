//! The last entries of the log, in memory: a leader hands each of them to every other node soon after it was written, and would
//! otherwise read it from the database, and parse it, once for each.
//!
//! Invariants: what is here is on the disk as well, and the same; the indexes are consecutive; there are at most
//! [`MAX_RECENT_BYTES`], by what the entries take as JSON.

use std::collections::VecDeque;

use crate::limits::MAX_RECENT_BYTES;
use crate::raft::Entry;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Recent {
    /// Takes an entry that was written, in so many bytes; the oldest ones go for it.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        if self.entries.back().is_some_and(|(last, _)| last.log_id.index + 1 != entry.log_id.index) {
            self.clear();
        }
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        while self.bytes > MAX_RECENT_BYTES {
            match self.entries.pop_front() {
                Some((_, bytes)) => self.bytes -= bytes,
                None => break,
            }
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forgets those up to `last`, which leave the log.
    pub(super) fn forget(&mut self, last: u64) {
        while self.entries.front().is_some_and(|(entry, _)| entry.log_id.index <= last) {
            self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// The entries from `start` up to and without `end`, but for those at the end that would be more than `max_bytes`; not
    /// fewer than one. `None` where they are not all here.
    pub(super) fn get(&self, start: u64, end: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.0.log_id.index;
        let from = usize::try_from(start.checked_sub(first)?).ok()?;
        let count = usize::try_from(end.checked_sub(start)?).ok()?;
        if count == 0 || from.checked_add(count)? > self.entries.len() {
            return None;
        }
        let (mut entries, mut sum) = (Vec::with_capacity(count), 0);
        for (entry, bytes) in self.entries.range(from..from + count) {
            sum += bytes;
            if sum > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    use openraft::{EntryPayload, LeaderId};

    use super::*;
    use crate::raft::LogId;

    fn entry(index: u64) -> Entry {
        Entry { log_id: LogId::new(LeaderId::new(1, 1), index), payload: EntryPayload::Blank }
    }

    fn indexes(found: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        found.map(|entries| entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn only_what_is_here_in_full_is_found() {
        let mut recent = Recent::default();
        assert_eq!(recent.get(0, 1, 100), None);
        for index in 5..9 {
            recent.push(entry(index), 10);
        }
        assert_eq!(indexes(recent.get(5, 9, 100)), Some(vec![5, 6, 7, 8]));
        assert_eq!(indexes(recent.get(6, 8, 100)), Some(vec![6, 7]));
        assert_eq!(indexes(recent.get(6, 9, 20)), Some(vec![6, 7]));
        assert_eq!(indexes(recent.get(6, 9, 1)), Some(vec![6]));
        for (start, end) in [(4, 6), (8, 10), (6, 6), (7, 6), (0, u64::MAX)] {
            assert_eq!(recent.get(start, end, 100), None, "{start}..{end}");
        }
    }

    #[test]
    fn the_oldest_go_and_a_gap_forgets_all() {
        let mut recent = Recent::default();
        for index in 0..10 {
            recent.push(entry(index), MAX_RECENT_BYTES / 4);
        }
        assert_eq!(recent.get(5, 10, usize::MAX), None);
        assert_eq!(indexes(recent.get(6, 10, usize::MAX)), Some(vec![6, 7, 8, 9]));
        recent.push(entry(7), 1);
        assert_eq!(recent.get(6, 7, 100), None);
        assert_eq!(indexes(recent.get(7, 8, 100)), Some(vec![7]));
        recent.push(entry(8), 1);
        recent.forget(7);
        assert_eq!((recent.get(7, 9, 100), indexes(recent.get(8, 9, 100))), (None, Some(vec![8])));
        recent.push(entry(9), MAX_RECENT_BYTES + 1);
        assert_eq!((recent.get(9, 10, 100), recent.bytes), (None, 0));
    }
}
