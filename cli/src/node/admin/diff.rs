//! DiffVolumes: the ranges in which two contents differ.

use std::sync::Arc;

use sterna_proto::admin::{ChangedRange, DiffVolumesRequest};
use sterna_storage_node::map::{BlockChange, ChangedBlocks, Comparison, diff_blocks};
use sterna_types::BLOCK_SIZE;
use tonic::{Response, Status};

use super::lookup::{Freshness, contents};
use super::status::IntoStatus;
use super::work::{Replies, Reporter, long_work, upkeep};
use crate::node::node::Node;

/// Lists the ranges, neighbours of one kind joined.
pub(super) fn diff(node: &Arc<Node>, request: DiffVolumesRequest) -> Response<Replies<ChangedRange>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let old = contents(&own, &request.old, Freshness::Now).await?;
        let new = contents(&own, &request.new, Freshness::Now).await?;
        let comparison = if request.compare_data { Comparison::Contents } else { Comparison::Places };
        upkeep(&own, move |own| {
            let storage = &own.engine.storage;
            let mut joined = Joined { reporter, pending: None };
            for changed in diff_blocks(&**storage.store(), storage.nodes(), old.root, new.root, comparison) {
                let subject = format!("'{}' and '{}'", request.old, request.new);
                joined.push(&changed.map_err(|error| error.about(&subject))?)?;
            }
            Ok(joined.pending)
        })
        .await?
    })
}

/// Ranges that were found and are sent once it is known where they end.
struct Joined {
    reporter: Reporter<ChangedRange>,
    pending: Option<ChangedRange>,
}

impl Joined {
    fn push(&mut self, changed: &ChangedBlocks) -> Result<(), Status> {
        let next = range_of(changed);
        if let Some(pending) = &mut self.pending
            && pending.now == next.now
            && pending.start_bytes + pending.length_bytes == next.start_bytes
        {
            pending.length_bytes += next.length_bytes;
            return Ok(());
        }
        match self.pending.replace(next).map(|done| self.reporter.send(done)) {
            Some(std::ops::ControlFlow::Break(())) => Err(Status::cancelled("the comparison was stopped")),
            _ => Ok(()),
        }
    }
}

fn range_of(changed: &ChangedBlocks) -> ChangedRange {
    let now = match changed.change {
        BlockChange::Written | BlockChange::Replaced => "data",
        BlockChange::Cleared => "hole",
    };
    ChangedRange {
        start_bytes: changed.first.0 * BLOCK_SIZE,
        length_bytes: changed.count * BLOCK_SIZE,
        now: now.to_owned(),
    }
}
