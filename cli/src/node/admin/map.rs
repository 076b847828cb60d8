//! MapVolume: which chunk holds which range.

use std::ops::ControlFlow;
use std::sync::Arc;

use sterna_proto::admin::{MapVolumeRequest, MappedRange};
use sterna_storage_node::map::{MAX_SEGMENTS, manifest, segments};
use sterna_types::{BLOCK_SIZE, SEGMENT_SIZE, SegmentIndex};
use tonic::{Response, Status};

use super::lookup::{Freshness, HeldContents, contents};
use super::status::IntoStatus;
use super::work::{Replies, Reporter, long_work, upkeep};
use crate::node::node::Node;

/// Lists extents and holes of what was sealed last, in order, from the first byte to the last.
pub(super) fn map(node: &Arc<Node>, request: MapVolumeRequest) -> Response<Replies<MappedRange>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let contents = contents(&own, &request.source, Freshness::Sealed).await?;
        upkeep(&own, move |own| {
            Walk { reporter, at: 0, end: contents.size.bytes().0 }.run(&own, &contents, &request.source)
        })
        .await?
    })
}

struct Walk {
    reporter: Reporter<MappedRange>,
    /// Everything before this byte has been listed.
    at: u64,
    end: u64,
}

impl Walk {
    fn run(mut self, node: &Node, contents: &HeldContents, source: &str) -> Result<Option<MappedRange>, Status> {
        let (store, nodes) = (&**node.engine.storage.store(), node.engine.storage.nodes());
        let failed = |error: sterna_storage_node::map::MapError| error.about(&format!("'{source}'"));
        for found in segments(store, nodes, contents.root, SegmentIndex(0)..SegmentIndex(MAX_SEGMENTS)) {
            let (segment, id) = found.map_err(failed)?;
            for extent in manifest(store, nodes, id, segment).map_err(failed)?.extents() {
                let start = segment.0 * SEGMENT_SIZE + u64::from(extent.first_block) * BLOCK_SIZE;
                if start >= self.end {
                    break;
                }
                self.hole_until(start)?;
                let length_bytes = (u64::from(extent.block_count) * BLOCK_SIZE).min(self.end - start);
                self.send(MappedRange {
                    start_bytes: start,
                    length_bytes,
                    chunk: extent.chunk.to_string(),
                    first_byte_in_chunk: u64::from(extent.first_in_chunk) * BLOCK_SIZE,
                })?;
            }
        }
        self.hole_until(self.end)?;
        Ok(None)
    }

    fn hole_until(&mut self, start: u64) -> Result<(), Status> {
        if start <= self.at {
            return Ok(());
        }
        let length_bytes = start - self.at;
        self.send(MappedRange { start_bytes: self.at, length_bytes, ..MappedRange::default() })
    }

    fn send(&mut self, range: MappedRange) -> Result<(), Status> {
        self.at = range.start_bytes + range.length_bytes;
        match self.reporter.send(range) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Status::cancelled("the list was stopped")),
        }
    }
}
