//! Volumes that go on at another site.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use sterna_proto::admin;
use sterna_proto::admin::move_volumes_reply::Step;

use super::Session;
use super::client::{CallError, for_each};
use super::contents::NO_RESULT;
use crate::args::volume::Move;
use crate::console::interrupt::interruptible;
use crate::console::progress::Progress;
use crate::console::table::Table;
use crate::console::text::about;

#[derive(Serialize)]
struct MoveView {
    volumes: Vec<MovedView>,
    node: String,
    site: String,
    paused_us: u64,
    pre_copied_bytes: u64,
}

#[derive(Serialize)]
struct MovedView {
    volume: String,
    epoch: u64,
    tail_bytes: u64,
}

impl Session {
    pub(super) async fn move_volumes(&mut self, moving: Move) -> Result<()> {
        let Move { names, to, node, require } = moving;
        let request = admin::MoveVolumesRequest {
            volumes: names.iter().map(ToString::to_string).collect(),
            site: to.to_string(),
            node: node.map(|node| node.to_string()).unwrap_or_default(),
            require: require.to_string(),
        };
        let work = async {
            let replies = self.node.client.move_volumes(request).await.map_err(CallError::from)?.into_inner();
            let progress = Progress::new("bringing what has to be there", self.output.is_json());
            let mut result = None;
            for_each(replies, |reply| {
                match reply.step {
                    Some(Step::Progress(step)) => progress.set(&step),
                    Some(Step::Result(step)) => result = Some(step),
                    Some(Step::Brought(_) | Step::Ready(_)) | None => {}
                }
                Ok(())
            })
            .await?;
            result.context(NO_RESULT)
        };
        let left = "nothing moves, unless it was about to: 'sterna volume list' says who owns what";
        let view = MoveView::from(interruptible(work, left).await?);
        if self.output.is_json() {
            return self.output.value(&view);
        }
        let MoveView { volumes, node, site, paused_us, pre_copied_bytes } = view;
        let mut table = Table::new(["VOLUME", "OWNER", ">EPOCH", ">FETCHED FIRST"]);
        for MovedView { volume, epoch, tail_bytes } in volumes {
            table.row([volume, format!("{node} at {site}"), epoch.to_string(), about(tail_bytes)]);
        }
        self.output.line(table)?;
        self.output.line("")?;
        let paused = Duration::from_micros(paused_us);
        self.output
            .line(format!("brought there before: {}; acknowledged nothing for {paused:.1?}", about(pre_copied_bytes)))
    }
}

impl From<admin::MoveResult> for MoveView {
    fn from(result: admin::MoveResult) -> Self {
        let admin::MoveResult { volumes, node, site, paused_us, pre_copied_bytes } = result;
        let moved = |moved: admin::MovedVolume| {
            let admin::MovedVolume { volume, epoch, tail_bytes } = moved;
            MovedView { volume, epoch, tail_bytes }
        };
        Self { volumes: volumes.into_iter().map(moved).collect(), node, site, paused_us, pre_copied_bytes }
    }
}
