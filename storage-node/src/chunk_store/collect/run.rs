//! A collection that runs: its limits, and how far it has come.

use std::sync::atomic::AtomicBool;

use super::{CollectOptions, CollectReport};
use crate::chunk_store::Throttle;
use crate::chunk_store::index::IndexEntry;
use crate::progress::Progress;

/// A collection that runs.
pub(super) struct Run<'a> {
    pub(super) options: &'a CollectOptions,
    pub(super) report: CollectReport,
    throttle: Throttle<'a>,
    on_progress: &'a mut dyn FnMut(Progress),
    /// Bytes of all chunks when it began, and of those that are to be moved once that is known.
    total_bytes: u64,
    /// Bytes of these that have been.
    copied_bytes: u64,
}

impl<'a> Run<'a> {
    /// One that begins; there are chunks of so many bytes.
    pub(super) fn new(
        options: &'a CollectOptions,
        stored_bytes: u64,
        on_progress: &'a mut dyn FnMut(Progress),
        cancel: &'a AtomicBool,
    ) -> Self {
        let throttle = Throttle::new(options.bytes_per_second, cancel);
        let report = CollectReport::default();
        Self { options, report, throttle, on_progress, total_bytes: stored_bytes, copied_bytes: 0 }
    }

    /// A chunk was marked.
    pub(super) fn marked(&mut self, entry: &IndexEntry) {
        self.report.marked_chunks += 1;
        self.report.marked_bytes += u64::from(entry.frame.stored_length());
    }

    /// So many bytes more are to be moved.
    pub(super) fn will_copy(&mut self, stored_bytes: u64) {
        self.total_bytes = self.total_bytes.max(self.done_bytes()) + stored_bytes;
    }

    /// So many of them have been.
    pub(super) fn copied(&mut self, stored_bytes: u64) {
        self.copied_bytes += stored_bytes;
    }

    /// Says how far it has come, and that `bytes` were read and written for it; waits until more may be. `false` if there is
    /// to be no more.
    pub(super) fn pass(&mut self, bytes: u64) -> bool {
        let done_bytes = self.done_bytes();
        // What is stored while it runs may be more than there was.
        (self.on_progress)(Progress { done_bytes, total_bytes: self.total_bytes.max(done_bytes) });
        self.throttle.pass(bytes)
    }

    /// Whether there is to be no more work.
    pub(super) fn is_cancelled(&self) -> bool {
        self.throttle.is_cancelled()
    }

    fn done_bytes(&self) -> u64 {
        self.report.marked_bytes + self.report.dead_bytes + self.copied_bytes
    }
}
