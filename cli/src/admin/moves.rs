//! Volumes that go on at another site.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sterna_proto::admin;

use super::Session;
use super::client::CallError;
use crate::args::volume::Move;
use crate::console::table::Table;
use crate::console::text::about;

#[derive(Serialize)]
struct MoveView {
    volumes: Vec<MovedView>,
    node: String,
    site: String,
    paused_us: u64,
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
        let reply = self.node.client.move_volumes(request).await.map_err(CallError::from)?.into_inner();
        let view = MoveView::from(reply);
        if self.output.is_json() {
            return self.output.value(&view);
        }
        let MoveView { volumes, node, site, paused_us } = view;
        let mut table = Table::new(["VOLUME", "OWNER", ">EPOCH", ">FETCHED FIRST"]);
        for MovedView { volume, epoch, tail_bytes } in volumes {
            table.row([volume, format!("{node} at {site}"), epoch.to_string(), about(tail_bytes)]);
        }
        self.output.line(table)?;
        self.output.line("")?;
        self.output.line(format!("acknowledged nothing for {:.1?}", Duration::from_micros(paused_us)))
    }
}

impl From<admin::MoveVolumesReply> for MoveView {
    fn from(reply: admin::MoveVolumesReply) -> Self {
        let admin::MoveVolumesReply { volumes, node, site, paused_us } = reply;
        let moved = |moved: admin::MovedVolume| {
            let admin::MovedVolume { volume, epoch, tail_bytes } = moved;
            MovedView { volume, epoch, tail_bytes }
        };
        Self { volumes: volumes.into_iter().map(moved).collect(), node, site, paused_us }
    }
}
