//! The bytes of a simulated file: pages that are copied only when they are changed, so that images of a disk are cheap.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page, the unit in which space is counted.
pub(super) const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// A sparse run of bytes. Invariant: what lies in a page beyond `size` is zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pages: BTreeMap<u64, Arc<Page>>,
    size: u64,
}

impl Contents {
    /// How many bytes there are.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How much space they take.
    pub(super) fn used_bytes(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    /// Fills `into` from `at` on; `false` where the end comes first.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> bool {
        if at.checked_add(into.len() as u64).is_none_or(|end| end > self.size) {
            return false;
        }
        let mut rest = into;
        for (page, within, length) in per_page(at, rest.len()) {
            let (here, behind) = rest.split_at_mut(length);
            match self.pages.get(&page) {
                Some(bytes) => here.copy_from_slice(&bytes[within..within + length]),
                None => here.fill(0),
            }
            rest = behind;
        }
        true
    }

    /// Puts `bytes` at `at`, and grows where it has to.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (page, within, length) in per_page(at, bytes.len()) {
            let (here, behind) = rest.split_at(length);
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + length].copy_from_slice(here);
            rest = behind;
        }
        self.size = self.size.max(at + bytes.len() as u64);
    }

    /// Takes space for all bytes up to `length`, which grows the file where it is shorter.
    pub(super) fn allocate(&mut self, length: u64) {
        let zeroes = Arc::new([0; PAGE_BYTES]);
        for page in self.size / PAGE_BYTES as u64..length.div_ceil(PAGE_BYTES as u64) {
            self.pages.entry(page).or_insert_with(|| Arc::clone(&zeroes));
        }
        self.size = self.size.max(length);
    }

    /// How much more space a write would take.
    pub(super) fn space_for(&self, at: u64, length: usize) -> u64 {
        let absent = per_page(at, length).filter(|(page, ..)| !self.pages.contains_key(page)).count();
        (absent * PAGE_BYTES) as u64
    }

    /// Cuts the file off, or lets it grow with a hole.
    pub(super) fn resize(&mut self, size: u64) {
        if size < self.size {
            self.pages.split_off(&size.div_ceil(PAGE_BYTES as u64));
            let kept = usize::try_from(size % PAGE_BYTES as u64).unwrap_or(0);
            if let Some(page) = self.pages.get_mut(&(size / PAGE_BYTES as u64)) {
                Arc::make_mut(page)[kept..].fill(0);
            }
        }
        self.size = size;
    }
}

/// The pages that a run of bytes touches: number of the page, first byte in it, bytes of it.
fn per_page(at: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, mut left) = (at, length);
    std::iter::from_fn(move || {
        let within = usize::try_from(at % PAGE_BYTES as u64).unwrap_or(0);
        let here = left.min(PAGE_BYTES - within);
        let page = at / PAGE_BYTES as u64;
        at += here as u64;
        left -= here;
        (here > 0).then_some((page, within, here))
    })
}
