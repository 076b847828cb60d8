//! The receiving end: what comes is what was asked for, or is refused.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sterna_types::ChunkId;
use zstd::zstd_safe::{self, DCtx};

use super::{BUNDLE_BYTES, Bundle, Excerpt, MAX_UNASKED_MANIFESTS, PREFIX_BYTES};
use crate::chunk_store::{ChunkKind, ChunkStore, MAX_CHUNK_BYTES, StoreError, chunk_id};
use crate::gaps::{Gap, Wanted};
use crate::map::{self, Node, kind_of_children};

/// Unpacks what was asked for at once.
#[derive(Debug)]
pub struct Unpacker {
    store: Arc<dyn ChunkStore>,
    /// What may come.
    expected: HashMap<ChunkId, ChunkKind>,
    with_below: bool,
    /// Manifests that have come.
    manifests: usize,
}

/// Why a bundle is of no use. What was asked for can be asked for once more, without predecessors.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is longer than any that is made.
    #[error("a bundle of {contents_bytes} bytes, against {prefix_bytes} others, is longer than any that is made")]
    TooLong {
        /// How much it says is in it.
        contents_bytes: usize,
        /// How much it refers to.
        prefix_bytes: usize,
    },
    /// It refers to what is not here.
    #[error("a bundle refers to chunk {id}, which is not here any more")]
    Predecessor {
        /// What that is.
        id: ChunkId,
    },
    /// Its frame is none, or has other contents than it says.
    #[error("a bundle cannot be decompressed: {what}")]
    Frame {
        /// What is wrong with it.
        what: &'static str,
    },
    /// One of its chunks was not asked for. It may be one that was, altered on its way.
    #[error("a bundle has a chunk {found} that was not asked for")]
    Unasked {
        /// What its contents are called.
        found: ChunkId,
    },
    /// What it refers to cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unpacker {
    /// Unpacks what comes of these, and where `with_below`, of what is below them.
    pub fn new(store: Arc<dyn ChunkStore>, gaps: &[Gap], with_below: bool) -> Self {
        let expected = gaps.iter().map(|gap| (gap.wanted.id, gap.wanted.kind)).collect();
        Self { store, expected, with_below, manifests: 0 }
    }

    /// The chunks of a bundle, each of which was asked for, and hashes to its id; of a kind that has yet to be checked
    /// ([`store_fetched`](crate::gaps::store_fetched)). Blocks.
    ///
    /// # Errors
    /// [`UnpackError`]; then nothing of it counts as having come.
    pub fn unpack(&mut self, bundle: &Bundle) -> Result<Vec<(Wanted, Bytes)>, UnpackError> {
        let contents = self.contents(bundle)?;
        let (mut chunks, mut start) = (Vec::with_capacity(bundle.lengths.len()), 0);
        for length in &bundle.lengths {
            let end = start + usize::try_from(*length).unwrap_or(usize::MAX);
            let bytes = contents.slice(start..end);
            start = end;
            let found = chunk_id(&bytes);
            let kind = self.expected.get(&found).copied().ok_or(UnpackError::Unasked { found })?;
            if self.with_below {
                self.expect_below(kind, &bytes);
            }
            chunks.push((Wanted { id: found, kind }, bytes));
        }
        Ok(chunks)
    }

    /// What a part of a map names may come too.
    fn expect_below(&mut self, kind: ChunkKind, bytes: &[u8]) {
        if kind == ChunkKind::Manifest {
            self.manifests += 1;
            if self.manifests > MAX_UNASKED_MANIFESTS {
                return;
            }
        }
        let below = match (kind, Node::decode(bytes)) {
            (ChunkKind::Node, Ok(node)) => kind_of_children(&node),
            _ => ChunkKind::Data,
        };
        for child in map::children(kind, bytes).unwrap_or_default() {
            // What was asked for is of the kind that it was asked for as.
            self.expected.entry(child).or_insert(below);
        }
    }

    /// What is in its frame, which is as long as its lengths say.
    fn contents(&self, bundle: &Bundle) -> Result<Bytes, UnpackError> {
        let add = |sum: usize, length: &u32| sum.saturating_add(usize::try_from(*length).unwrap_or(usize::MAX));
        let contents_bytes = bundle.lengths.iter().fold(0, add);
        let mut prefix = Vec::new();
        for excerpt in &bundle.prefix {
            prefix.extend_from_slice(&self.read(excerpt)?);
            if prefix.len() > PREFIX_BYTES {
                break;
            }
        }
        if contents_bytes > BUNDLE_BYTES + MAX_CHUNK_BYTES || prefix.len() > PREFIX_BYTES {
            return Err(UnpackError::TooLong { contents_bytes, prefix_bytes: prefix.len() });
        }
        let failed = |code| UnpackError::Frame { what: zstd_safe::get_error_name(code) };
        let mut context = DCtx::create();
        context.ref_prefix(&prefix).map_err(failed)?;
        let mut contents = Vec::with_capacity(contents_bytes);
        context.decompress(&mut contents, &bundle.frame).map_err(failed)?;
        if contents.len() != contents_bytes {
            return Err(UnpackError::Frame { what: "it has fewer contents than it says" });
        }
        Ok(contents.into())
    }

    fn read(&self, excerpt: &Excerpt) -> Result<Bytes, UnpackError> {
        excerpt.read(&*self.store)?.ok_or(UnpackError::Predecessor { id: excerpt.chunk })
    }
}
