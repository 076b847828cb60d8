//! Scrub: everything that is stored is read, and checked.

use std::num::NonZeroU64;
use std::sync::Arc;

use sterna_proto::admin::scrub_reply::Step;
use sterna_proto::admin::{DamagedChunk, ScrubReply, ScrubRequest, ScrubResult};
use sterna_storage_node::chunk_store::{Damage, DamagedFrame, ScrubOptions};
use tonic::{Response, Status};

use super::status::IntoStatus;
use super::work::{Replies, blocking, long_work};
use crate::node::node::Node;

/// Scrubs once.
pub(super) fn run(node: &Arc<Node>, request: ScrubRequest) -> Response<Replies<ScrubReply>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        blocking(move || {
            let options = ScrubOptions { bytes_per_second: NonZeroU64::new(request.bytes_per_second) };
            let stop = Arc::clone(reporter.stop());
            let on_bad = |bad: &DamagedFrame| {
                // A caller who is gone has set `stop`.
                let _ = reporter.send(step(Step::Damage(damaged_chunk(bad))));
            };
            let report = own.engine.store.scrub(&options, on_bad, &stop);
            let report = report.map_err(|error| error.about("the scrub"))?;
            if !report.finished {
                return Err(Status::cancelled("the scrub was stopped"));
            }
            let result =
                ScrubResult { chunks: report.frames, bytes: report.stored_bytes, damaged_chunks: report.damaged };
            Ok(step(Step::Result(result)))
        })
        .await?
    })
}

fn damaged_chunk(bad: &DamagedFrame) -> DamagedChunk {
    let what = match bad.damage {
        Damage::Lost => "its bytes are not what was stored: it is lost here",
        Damage::Dangling => "it is not where the index says: it is lost here",
        Damage::Unused => "its bytes are not what was stored, but nobody uses this copy",
        Damage::Unlisted => "it can be read, but could not be found without the index",
    };
    DamagedChunk {
        chunk: bad.id.to_string(),
        r#where: format!("pack {}, byte {}", bad.pack, bad.offset),
        what: what.to_owned(),
        needed_by: Vec::new(),
    }
}

fn step(step: Step) -> ScrubReply {
    ScrubReply { step: Some(step) }
}
