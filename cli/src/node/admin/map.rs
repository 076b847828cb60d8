//! MapVolume: which chunk holds which range, and at which sites it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::future::join_all;

use sterna_proto::admin::{MapVolumeRequest, MappedRange};
use sterna_storage_node::gaps::MAX_WANTED;
use sterna_storage_node::map::{MAX_SEGMENTS, manifest, segments};
use sterna_types::{BLOCK_SIZE, ChunkId, NodeId, SEGMENT_SIZE, SegmentIndex, SiteName};
use tokio::runtime::Handle;
use tonic::{Response, Status};

use super::lookup::{Freshness, HeldContents, contents, metadata, volume};
use super::request::parsed;
use super::status::IntoStatus;
use super::work::{Replies, Reporter, long_work, upkeep};
use crate::args::values::Contents;
use crate::node::node::Node;
use crate::node::replication::{PullError, locate};

/// Lists extents and holes of what was sealed last, in order, from the first byte to the last.
pub(super) fn map(node: &Arc<Node>, request: MapVolumeRequest) -> Response<Replies<MappedRange>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let contents = contents(&own, &request.source, Freshness::Sealed).await?;
        let sites = if request.with_sites { Some(Sites::of(&own, &request.source).await?) } else { None };
        upkeep(&own, move |own| {
            let (at, end, batch) = (0, contents.size.bytes().0, Vec::new());
            Walk { reporter, at, end, batch, sites }.run(&own, &contents, &request.source)
        })
        .await?
    })
}

/// Where contents may be: at nodes that keep their volume, and at those from which its owner still fetches.
struct Sites {
    /// Those nodes, and the site of each.
    nodes: BTreeMap<NodeId, SiteName>,
    /// Those of them that did not answer once; they are not asked again.
    silent: BTreeSet<NodeId>,
}

impl Sites {
    async fn of(node: &Node, source: &str) -> Result<Self, Status> {
        let Contents { volume: name, snapshot } = parsed(source)?;
        let metadata = metadata(node).await?;
        let entry = volume(&metadata, &name)?;
        let snapshot = snapshot.and_then(|name| entry.snapshots.get(&name));
        let nodes = snapshot.into_iter().flat_map(|snapshot| entry.holders(snapshot));
        let nodes = nodes.chain([entry.owner]).chain(entry.replicas.values().map(|replica| replica.node));
        let nodes = nodes.chain(entry.sources.iter().map(|source| source.node));
        let known = nodes.filter_map(|id| metadata.node(id));
        Ok(Self { nodes: known.map(|node| (node.id, node.site.clone())).collect(), silent: BTreeSet::new() })
    }

    /// Says of each range at which sites its chunk is, and at which it may be since not all of their nodes answer.
    async fn say_where(&mut self, node: &Node, ranges: &mut [MappedRange]) {
        let mut ranges: Vec<_> = ranges
            .iter_mut()
            .filter_map(|range| range.chunk.parse().ok().map(|id: ChunkId| (id, BTreeMap::new(), range)))
            .collect();
        let ids: Vec<ChunkId> = ranges.iter().map(|(id, ..)| *id).collect();
        let asked = self.nodes.keys().filter(|at| !self.silent.contains(at));
        let asking = asked.map(async |at| {
            let unknown =
                |error: &PullError| tracing::info!(node = %at, %error, "a node does not say which chunks it has");
            (*at, locate(node, *at, &ids).await.inspect_err(unknown).ok())
        });
        let answers = join_all(asking).await;
        self.silent.extend(answers.iter().filter(|(_, answer)| answer.is_none()).map(|(at, _)| *at));
        let silent = self.silent.iter().map(|at| (*at, None));
        for (at, answer) in answers.into_iter().filter(|(_, answer)| answer.is_some()).chain(silent) {
            for (number, (_, sites, _)) in ranges.iter_mut().enumerate() {
                let found = answer.as_ref().map_or(Found::Unknown, |is_here| Found::of(is_here[number]));
                let site = sites.entry(&self.nodes[&at]).or_insert(Found::No);
                *site = (*site).max(found);
            }
        }
        for (_, sites, range) in ranges {
            let named =
                |wanted| sites.iter().filter(move |(_, found)| **found == wanted).map(|(site, _)| site.to_string());
            (range.sites, range.unknown_sites) = (named(Found::Yes).collect(), named(Found::Unknown).collect());
        }
    }
}

/// Whether a chunk is at a site: the greatest of what its nodes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    No,
    Unknown,
    Yes,
}

impl Found {
    fn of(is_here: bool) -> Self {
        if is_here { Self::Yes } else { Self::No }
    }
}

struct Walk {
    reporter: Reporter<MappedRange>,
    /// Everything before this byte has been listed.
    at: u64,
    end: u64,
    /// What has been listed and not sent yet.
    batch: Vec<MappedRange>,
    /// Where it is to be looked for.
    sites: Option<Sites>,
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
                self.hole_until(node, start)?;
                let length_bytes = (u64::from(extent.block_count) * BLOCK_SIZE).min(self.end - start);
                let range = MappedRange {
                    start_bytes: start,
                    length_bytes,
                    chunk: extent.chunk.to_string(),
                    first_byte_in_chunk: u64::from(extent.first_in_chunk) * BLOCK_SIZE,
                    ..MappedRange::default()
                };
                self.list(node, range)?;
            }
        }
        self.hole_until(node, self.end)?;
        self.send(node)?;
        Ok(None)
    }

    fn hole_until(&mut self, node: &Node, start: u64) -> Result<(), Status> {
        if start <= self.at {
            return Ok(());
        }
        let length_bytes = start - self.at;
        self.list(node, MappedRange { start_bytes: self.at, length_bytes, ..MappedRange::default() })
    }

    fn list(&mut self, node: &Node, range: MappedRange) -> Result<(), Status> {
        self.at = range.start_bytes + range.length_bytes;
        self.batch.push(range);
        if self.batch.len() < MAX_WANTED { Ok(()) } else { self.send(node) }
    }

    /// Sends what has been listed, and says where it is if that is to be said. On a thread that may block.
    fn send(&mut self, node: &Node) -> Result<(), Status> {
        if let Some(sites) = &mut self.sites {
            Handle::current().block_on(sites.say_where(node, &mut self.batch));
        }
        for range in self.batch.drain(..) {
            match self.reporter.send(range) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => return Err(Status::cancelled("the list was stopped")),
            }
        }
        Ok(())
    }
}
