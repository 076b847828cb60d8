//! VerifyVolume: everything that contents need is read and checked.

use std::ops::ControlFlow;
use std::sync::Arc;

use sterna_proto::admin::verify_volume_reply::Step;
use sterna_proto::admin::{DamagedRange, VerifyResult, VerifyVolumeReply, VerifyVolumeRequest};
use sterna_storage_node::progress::Progress;
use sterna_storage_node::verify::{Damage, VerifyWatcher, verify};
use tonic::{Response, Status};

use super::lookup::{Freshness, contents};
use super::reply;
use super::work::{Replies, Reporter, long_work, upkeep};
use crate::node::node::Node;

/// Verifies what was sealed last: sealing anew would need the very map that may be damaged.
pub(super) fn run(node: &Arc<Node>, request: VerifyVolumeRequest) -> Response<Replies<VerifyVolumeReply>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let source = request.source;
        let contents = contents(&own, &source, Freshness::Sealed).await?;
        upkeep(&own, move |own| {
            let storage = &own.engine.storage;
            let mut watcher = Watcher { reporter, source };
            let (root, size_bytes) = (contents.root, contents.size.bytes().0);
            let verified = verify(&**storage.store(), storage.nodes(), root, size_bytes, &mut watcher);
            if verified.stopped {
                return Err(Status::cancelled("the verification was stopped"));
            }
            let result = VerifyResult { verified_bytes: verified.sound_bytes, damaged_ranges: verified.damages };
            Ok(step(Step::Result(result)))
        })
        .await?
    })
}

struct Watcher {
    reporter: Reporter<VerifyVolumeReply>,
    source: String,
}

impl VerifyWatcher for Watcher {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        self.reporter.progress(|| step(Step::Progress(reply::progress(progress))))
    }

    fn damage(&mut self, damage: Damage) {
        let damaged = DamagedRange {
            volume: self.source.clone(),
            start_bytes: damage.range.start().0,
            length_bytes: damage.range.length(),
            chunk: damage.chunk.map(|chunk| chunk.to_string()).unwrap_or_default(),
            what: damage.what,
        };
        // A caller who is gone is noticed at the next progress.
        let _: ControlFlow<()> = self.reporter.send(step(Step::Damage(damaged)));
    }
}

fn step(step: Step) -> VerifyVolumeReply {
    VerifyVolumeReply { step: Some(step) }
}
