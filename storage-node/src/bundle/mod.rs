//! Chunks on their way to another site: several of them compressed together, against what the other site has already.
//!
//! ```text
//! site that has them                                           site that lacks them
//! ──────────────────                                           ────────────────────
//!            <── gaps: these chunks, each with what was in its place before ── Gaps
//! Packer ──── bundle: lengths, prefix, frame ──────────────────────────────────> Unpacker ──> store_fetched
//! ```
//!
//! The frame (zstd, RFC 8878) holds the contents of some chunks, one after the other. Its prefix is what the compressor may refer to and
//! that is not in the frame itself: excerpts of chunks that the receiver has, since it has named them as what was in the place of those
//! that it wants. So a block of which a few bytes have changed, or a manifest with one extent more, costs about what has changed.
//! Chunks without predecessors are compressed together all the same.
//!
//! No chunk is named: what comes is called what its contents hash to, and it is taken if that was asked for. What did not come when the
//! last bundle has is not there.
//!
//! **Below.** Whoever walks the difference of two roots needs a round trip for each level of the map. If asked to, the packer sends what
//! is below a node too, nodes and manifests: where it has what was in its place before, as far as these two differ. Each of them is taken
//! if one that was taken before names it. Data the other site may have, from anywhere, so it is offered by its name first; but where all of it
//! is less than it costs to ask ([`MAX_UNASKED_BLOCKS`]), it is sent too. So a volume in which little has changed is followed in one round trip.
//!
//! Bounds: a bundle has about [`BUNDLE_BYTES`] of contents and at most [`PREFIX_BYTES`] of prefix, and the receiver never makes room for more;
//! at most [`MAX_BELOW`] nodes and manifests are sent unasked, and data only where it is below at most [`MAX_UNASKED_MANIFESTS`].

mod pack;
#[cfg(test)]
mod tests;
mod unpack;

use std::ops::Range;

use bytes::Bytes;
use sterna_types::ChunkId;

pub use pack::Packer;
pub use unpack::{UnpackError, Unpacker};

use crate::chunk_store::{ChunkStore, StoreError};

/// Contents after which a bundle is closed, in bytes; the last chunk is in it. Enough to compress well, and little to hold.
pub const BUNDLE_BYTES: usize = 1 << 20;

/// The most bytes of prefix.
pub const PREFIX_BYTES: usize = 1 << 20;

/// The most nodes and manifests that are sent unasked for one request: 20 MiB at most.
pub const MAX_BELOW: usize = 4096;

/// The most blocks of data that are sent unasked. A request costs 700 bytes and a round trip.
pub const MAX_UNASKED_BLOCKS: u64 = 4;

/// Of how many manifests data is sent unasked: the receiver has to know what may come, and that is all that is in them.
pub const MAX_UNASKED_MANIFESTS: usize = 64;

/// Some bytes of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Excerpt {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Which of its bytes, as far as it has them.
    pub bytes: Range<u32>,
}

/// Some chunks, compressed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The length of each of the chunks in bytes, in order.
    pub lengths: Vec<u32>,
    /// What the frame refers to, in order.
    pub prefix: Vec<Excerpt>,
    /// All of the contents.
    pub frame: Bytes,
}

impl Excerpt {
    /// All of a chunk.
    pub fn all_of(chunk: ChunkId) -> Self {
        Self { chunk, bytes: 0..u32::MAX }
    }

    /// What it says; `None` where the chunk is not here.
    fn read(&self, store: &dyn ChunkStore) -> Result<Option<Bytes>, StoreError> {
        let Some(chunk) = store.get(self.chunk)? else { return Ok(None) };
        let within = |at: u32| usize::try_from(at).unwrap_or(usize::MAX).min(chunk.len());
        let (start, end) = (within(self.bytes.start), within(self.bytes.end));
        Ok(Some(chunk.slice(start..end.max(start))))
    }
}
