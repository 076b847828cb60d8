//! Volumes and snapshots by name: create, list, show, resize, set, delete, snapshot, clone.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use sterna_proto::admin;
use sterna_types::ByteSize;

use super::Session;
use super::bucket::BucketVolumeView;
use super::client::CallError;
use super::views::{MapView, OpenView, SnapshotView, VolumeView};
use crate::args::volume::{Clone, Create, Delete, Resize, Set, Show, Snapshot};
use crate::console::table::{Facts, Table};
use crate::console::text::{about, count};

/// All that is known about a volume.
#[derive(Serialize)]
struct Shown {
    volume: VolumeView,
    snapshots: Vec<SnapshotView>,
    open: Option<OpenView>,
    map: Option<MapView>,
    /// Of a volume of the node that answers, where that has a bucket.
    bucket: Option<BucketVolumeView>,
    /// Of this machine; nothing where the node is elsewhere.
    uri: Option<String>,
}

impl Session {
    pub(super) async fn create(&mut self, create: Create) -> Result<()> {
        let request = admin::CreateVolumeRequest {
            name: create.name.to_string(),
            size_bytes: create.size.bytes().0,
            durability: create.policies.durability.to_string(),
            attach: create.policies.attach.to_string(),
        };
        let volume = self.node.client.create_volume(request).await.map_err(CallError::from)?.into_inner();
        self.made("created", volume)
    }

    pub(super) async fn clone_volume(&mut self, clone: Clone) -> Result<()> {
        let request = admin::CloneVolumeRequest { source: clone.source.to_string(), name: clone.name.to_string() };
        let volume = self.node.client.clone_volume(request).await.map_err(CallError::from)?.into_inner();
        self.made("cloned", volume)
    }

    /// Tells that there is a new volume, and where.
    fn made(&mut self, how: &str, volume: admin::Volume) -> Result<()> {
        let volume = VolumeView::from(volume);
        let uri = self.node.uri(&volume.name).map(|uri| format!(", {uri}")).unwrap_or_default();
        let text = format!("{how} {}: {}{uri}", volume.name, volume.size());
        self.output.result(&volume, text)
    }

    pub(super) async fn list(&mut self) -> Result<()> {
        let reply = self.node.client.list_volumes(admin::ListVolumesRequest {}).await.map_err(CallError::from)?;
        let mut table = Table::new(["NAME", ">SIZE", "STATE", "OWNER", "DURABILITY", "ATTACH", ">SNAPSHOTS", "OPEN"]);
        for volume in reply.into_inner().volumes.into_iter().map(VolumeView::from) {
            if self.output.is_json() {
                self.output.value(&volume)?;
                continue;
            }
            let (size, open) = (volume.size(), if volume.open { "yes" } else { "no" });
            let snapshots = volume.snapshots.to_string();
            let VolumeView { name, state, owner, durability, attach, .. } = volume;
            table.row([name, size, state, owner, durability, attach, snapshots, open.to_owned()]);
        }
        if self.output.is_json() { Ok(()) } else { self.output.line(table) }
    }

    pub(super) async fn show(&mut self, show: Show) -> Result<()> {
        let request = admin::ShowVolumeRequest { name: show.name.to_string(), count_map: show.map };
        let reply = self.node.client.show_volume(request).await.map_err(CallError::from)?.into_inner();
        let shown = Shown {
            volume: reply.volume.context("the node describes no volume: it runs another version")?.into(),
            snapshots: reply.snapshots.into_iter().map(SnapshotView::from).collect(),
            open: reply.open.map(OpenView::from),
            map: reply.map.map(MapView::from),
            bucket: reply.bucket.map(BucketVolumeView::from),
            uri: self.node.uri(show.name.as_str()),
        };
        if self.output.is_json() {
            return self.output.value(&shown);
        }
        self.output.line(Facts::new(facts(&shown)))?;
        if shown.snapshots.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(["SNAPSHOT", ">SIZE", ">GENERATION", "CREATED (UTC)", "AT"]);
        for snapshot in shown.snapshots {
            let (size, created) = (ByteSize(snapshot.size_bytes).to_string(), snapshot.created());
            let holders = snapshot.holders.join(", ");
            table.row([snapshot.name, size, snapshot.generation.to_string(), created, holders]);
        }
        self.output.line("")?;
        self.output.line(table)
    }

    pub(super) async fn resize(&mut self, resize: Resize) -> Result<()> {
        let request = admin::ResizeVolumeRequest { name: resize.name.to_string(), size_bytes: resize.size.bytes().0 };
        let volume = self.node.client.resize_volume(request).await.map_err(CallError::from)?.into_inner();
        let volume = VolumeView::from(volume);
        let text = format!("{} has {} now", volume.name, volume.size());
        self.output.result(&volume, text)
    }

    pub(super) async fn set(&mut self, set: Set) -> Result<()> {
        let request = admin::SetVolumeRequest {
            name: set.name.to_string(),
            attach: set.attach.map(|attach| attach.to_string()).unwrap_or_default(),
            limit: set.limit.map(|limit| limit.to_string()).unwrap_or_default(),
            durability: set.durability.map(|durability| durability.to_string()).unwrap_or_default(),
            degraded: set.degraded.map(|policy| policy.to_string()).unwrap_or_default(),
        };
        let volume = self.node.client.set_volume(request).await.map_err(CallError::from)?.into_inner();
        let volume = VolumeView::from(volume);
        let limit = volume.limit.as_ref().map_or("without a limit".to_owned(), |limit| format!("{limit}/s"));
        let text = format!("{} is attached by '{}', and fetched by others {limit}", volume.name, volume.attach);
        self.output.result(&volume, text)
    }

    pub(super) async fn delete(&mut self, delete: Delete) -> Result<()> {
        let (volume, with_snapshots) = (delete.what.volume.to_string(), delete.with_snapshots);
        match &delete.what.snapshot {
            Some(snapshot) => {
                let request = admin::DeleteSnapshotRequest { volume, name: snapshot.to_string() };
                self.node.client.delete_snapshot(request).await.map_err(CallError::from)?;
            }
            None => {
                let request = admin::DeleteVolumeRequest { name: volume, with_snapshots };
                self.node.client.delete_volume(request).await.map_err(CallError::from)?;
            }
        }
        let what = delete.what.to_string();
        self.output.result(&json!({ "deleted": what }), format!("deleted {what}"))
    }

    pub(super) async fn snapshot(&mut self, snapshot: Snapshot) -> Result<()> {
        let request =
            admin::CreateSnapshotRequest { volume: snapshot.volume.to_string(), name: snapshot.name.to_string() };
        let snapshot = self.node.client.create_snapshot(request).await.map_err(CallError::from)?.into_inner();
        let snapshot = SnapshotView::from(snapshot);
        let text = format!("created {}@{}", snapshot.volume, snapshot.name);
        self.output.result(&snapshot, text)
    }
}

/// What flushes wait for, and what is in force of it.
fn durability(volume: &VolumeView) -> String {
    let VolumeView { durability, degraded, in_sync, .. } = volume;
    let short = match (durability.strip_prefix("sync:").and_then(|copies| copies.parse::<usize>().ok()), &degraded[..])
    {
        (Some(copies), degraded) if in_sync.len() + 1 < copies => match degraded {
            "continue" => ": flushes go on with these",
            _ => ": flushes wait for more",
        },
        _ => "",
    };
    match (&in_sync[..], durability.as_str()) {
        ([], "local") => durability.clone(),
        ([], _) => format!("{durability}, nobody else is in sync{short}"),
        (nodes, _) => format!("{durability}, in sync with {}{short}", nodes.join(", ")),
    }
}

fn facts(shown: &Shown) -> Vec<(&'static str, String)> {
    let volume = &shown.volume;
    let mut facts = vec![
        ("volume", volume.name.clone()),
        ("size", volume.size()),
        ("state", volume.state.clone()),
        ("owner", format!("{}, epoch {}", volume.owner, volume.epoch)),
        ("durability", durability(volume)),
        ("attach", volume.attach.clone()),
    ];
    if let Some(limit) = &volume.limit {
        facts.push(("fetched by others", format!("{limit}/s at most each, but for what somebody waits for")));
    }
    if let Some(uri) = &shown.uri {
        facts.push(("export", uri.clone()));
    }
    if let Some(from) = &volume.cloned_from {
        facts.push(("cloned from", from.clone()));
    }
    if let Some(to) = &volume.moving_to {
        facts.push(("handed over", format!("to {to}, which has not said yet that it has it")));
    }
    if !volume.sources.is_empty() {
        facts.push(("parts still at", volume.sources.join(", ")));
    }
    let exposed = match volume.exposed_bytes {
        None => "all of it: no replica has any of it completely".to_owned(),
        Some(0) => "nothing that is published".to_owned(),
        Some(bytes) => format!("{} of writes, that no replica has yet", about(bytes)),
    };
    facts.push(("at one site only", exposed));
    if let Some(bucket) = &shown.bucket {
        facts.push(("in the bucket", bucket.summary()));
    }
    if let Some(map) = &shown.map {
        let [segments, extents, chunks] =
            [(map.segments, "segment"), (map.extents, "extent"), (map.chunks, "chunk")].map(|(n, what)| count(n, what));
        facts.push(("data", format!("{} in {segments}, {extents}, {chunks}", about(map.mapped_bytes))));
    }
    match &shown.open {
        None => facts.push(("open here", "no".to_owned())),
        Some(open) => {
            facts.push(("open here", format!("yes, {} not sealed yet", about(open.unsealed_bytes))));
            if open.poisoned {
                facts.push((
                    "poisoned",
                    "yes: a write to the node's disk failed; mend that, and restart the node".into(),
                ));
            }
            if let Some(failure) = &open.seal_failure {
                facts.push(("last seal", format!("failed: {failure}")));
            }
            if open.fetched_for_clients + open.fetched_ahead > 0 {
                let (waited, ahead) = (open.fetched_for_clients, open.fetched_ahead);
                facts.push(("fetched", format!("{waited} times for a client that waited, {ahead} times before that")));
            }
            if let Some(failure) = &open.prefetch_failure {
                facts.push(("fetching ahead", format!("failed: {failure}")));
            }
        }
    }
    facts
}
