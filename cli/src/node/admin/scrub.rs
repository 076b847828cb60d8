//! Scrub: everything that is stored is read, and checked; what was found to be lost is fetched from other nodes; then it is found out who
//! needs it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use sterna_proto::admin::scrub_reply::Step;
use sterna_proto::admin::{DamagedChunk, DamagedRange, ScrubReply, ScrubRequest, ScrubResult};
use sterna_storage_node::chunk_store::{
    ChunkStore, Damage, DamagedFrame, NewChunk, ScrubOptions, ScrubWatcher, StoreError, Throttle,
};
use sterna_storage_node::gaps::Wanted;
use sterna_storage_node::needed::{self, Found};
use sterna_storage_node::progress::Progress;
use sterna_types::{ByteSize, ChunkId};
use tonic::{Response, Status};

use super::lookup::{HeldContents, all_contents};
use super::reply;
use super::status::IntoStatus;
use super::work::{Replies, Reporter, long_work, upkeep};
use crate::node::node::Node;
use crate::node::replication::{Origin, mend};

/// Scrubs once.
pub(super) fn run(node: &Arc<Node>, request: ScrubRequest) -> Response<Replies<ScrubReply>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let options = ScrubOptions { bytes_per_second: NonZeroU64::new(request.bytes_per_second) };
        let (heard, report) = upkeep(&own, move |own| {
            let stop = Arc::clone(reporter.stop());
            let mut heard = Heard { reporter, damaged: Vec::new(), untold: 0 };
            let report = own.engine.store.scrub(&options, &mut heard, &stop);
            (heard, report)
        })
        .await?;
        let mended = heard.mend(&own).await;
        let needs = match heard.damaged.iter().any(is_lost) {
            true => Some(all_contents(&own).await),
            false => None,
        };
        upkeep(&own, move |own| {
            let is_complete = heard.tell(&own, &mended, needs, &options);
            let report = report.map_err(|error| error.about("the scrub"))?;
            if !report.finished {
                return Err(Status::cancelled("the scrub was stopped"));
            }
            Ok(step(Step::Result(ScrubResult {
                chunks: report.frames,
                bytes: report.stored_bytes,
                damaged_chunks: report.damaged,
                ranges_are_complete: is_complete,
                leavings_chunks: report.leavings.frames,
                leavings_bytes: report.leavings.bytes,
                repaired_chunks: mended.len() as u64,
            })))
        })
        .await?
    })
}

/// What a scrub has found, until it is known who needs it.
struct Heard {
    reporter: Reporter<ScrubReply>,
    damaged: Vec<DamagedFrame>,
    /// What was too much to be kept, and was told without that.
    untold: u64,
}

impl ScrubWatcher for Heard {
    fn progress(&mut self, progress: Progress) {
        // The scrub looks itself at what says whether to go on.
        let _ = self.reporter.progress(|| step(Step::Progress(reply::progress(progress))));
    }

    fn damage(&mut self, bad: &DamagedFrame) {
        if self.damaged.len() < MAX_LOOKED_FOR {
            return self.damaged.push(bad.clone());
        }
        self.untold += u64::from(is_lost(bad));
        self.send(damaged_chunk(bad));
    }
}

impl Heard {
    /// Writes anew what only the index finds, and fetches what is lost from other nodes; what is whole now, and from which node it is.
    async fn mend(&self, node: &Arc<Node>) -> BTreeMap<ChunkId, Origin> {
        let damaged = self.damaged.clone();
        let sorting = upkeep(node, move |own| rewrite(&own, &damaged)).await;
        let (mut mended, lost) = sorting.unwrap_or_default();
        if !lost.is_empty() && (node.metadata.channels().is_some() || node.bucket.is_some()) {
            match mend(node, lost).await {
                Ok(fetched) => mended.extend(fetched),
                Err(error) => tracing::warn!("what is damaged here could not be mended: {error}"),
            }
        }
        mended
    }

    /// Tells what was found, with the contents that need it; whether that is all of them.
    fn tell(
        self,
        node: &Node,
        mended: &BTreeMap<ChunkId, Origin>,
        contents: Option<Result<Vec<(String, HeldContents)>, Status>>,
        options: &ScrubOptions,
    ) -> bool {
        let (contents, are_known) = match contents.transpose() {
            Ok(contents) => (contents.unwrap_or_default(), true),
            Err(error) => {
                tracing::warn!(%error, "it cannot be found out who needs what is lost");
                (Vec::new(), false)
            }
        };
        let lost = self.damaged.iter().filter(|bad| is_lost(bad)).map(|bad| bad.id);
        let roots: Vec<_> = contents.iter().map(|(_, held)| (held.root, ByteSize(held.size.bytes().0))).collect();
        let mut throttle = Throttle::new(options.bytes_per_second, self.reporter.stop());
        let metadata = node.metadata.read();
        let found = needed::find(&*node.engine.store, lost, &roots, &mut throttle);
        for bad in &self.damaged {
            let mut chunk = damaged_chunk(bad);
            let from = mended.get(&bad.id).map(|origin| match origin {
                Origin::Node(node) => reply::node_name(&metadata, *node),
                Origin::Bucket => "the bucket".to_owned(),
            });
            chunk.repaired_from = from.unwrap_or_default();
            if is_lost(bad) {
                add_needs(&mut chunk, bad, &found, &contents);
            }
            self.send(chunk);
        }
        are_known && found.is_complete && self.untold == 0
    }

    fn send(&self, chunk: DamagedChunk) {
        // A caller who is gone has set what the scrub looks at.
        let _ = self.reporter.send(step(Step::Damage(chunk)));
    }
}

/// Writes anew what can be read, and only the index finds. What is lost is left.
fn rewrite(node: &Node, damaged: &[DamagedFrame]) -> (BTreeMap<ChunkId, Origin>, Vec<Wanted>) {
    let store = &node.engine.store;
    let (mut whole, mut lost) = (BTreeMap::new(), Vec::new());
    for bad in damaged {
        let mut rewritten = || {
            let Some(kind) = store.kind_of(bad.id)? else { return Ok(()) };
            if is_lost(bad) {
                lost.push(Wanted { id: bad.id, kind });
            } else if let Some(bytes) = store.get(bad.id)? {
                store.repair(&NewChunk::of(kind, bytes), &store.pin())?;
                whole.insert(bad.id, Origin::Node(node.metadata.id()));
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = rewritten() {
            tracing::warn!(chunk = %bad.id, %error, "it could not be mended");
        }
    }
    (whole, lost)
}

fn add_needs(chunk: &mut DamagedChunk, bad: &DamagedFrame, found: &Found, contents: &[(String, HeldContents)]) {
    let Some(needed) = found.chunks.get(&bad.id) else { return };
    let range = |(number, range): &(usize, sterna_types::ByteRange)| DamagedRange {
        volume: contents[*number].0.clone(),
        start_bytes: range.start().0,
        length_bytes: range.length(),
        chunk: chunk.chunk.clone(),
        what: chunk.what.clone(),
    };
    chunk.needed_by = needed.ranges.iter().map(range).collect();
    chunk.more_ranges = needed.more;
}

/// Whether what is bad is missing now wherever it is needed.
fn is_lost(bad: &DamagedFrame) -> bool {
    matches!(bad.damage, Damage::Lost | Damage::Dangling)
}

fn damaged_chunk(bad: &DamagedFrame) -> DamagedChunk {
    let what = match bad.damage {
        Damage::Lost => "its bytes are not what was stored: it is lost here",
        Damage::Dangling => "it is not where the index says: it is lost here",
        Damage::Unlisted => "it can be read, but could not be found without the index",
    };
    DamagedChunk {
        chunk: bad.id.to_string(),
        r#where: format!("pack {}, byte {}", bad.pack, bad.offset),
        what: what.to_owned(),
        needed_by: Vec::new(),
        more_ranges: 0,
        repaired_from: String::new(),
    }
}

fn step(step: Step) -> ScrubReply {
    ScrubReply { step: Some(step) }
}

/// So much damage is kept in memory until the end, to be looked for in all maps together: with the ranges that need it some
/// 15 MiB.
const MAX_LOOKED_FOR: usize = 4096;
