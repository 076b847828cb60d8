//! What the node keeps in its bucket besides: how far it is, what is there, and volumes made again from it.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sterna_proto::admin::{self, collect_bucket_reply, restore_volume_reply};
use sterna_types::ByteSize;

use super::Session;
use super::client::{CallError, for_each};
use super::contents::NO_RESULT;
use super::views::{VolumeView, if_any};
use crate::args::BucketCommand;
use crate::args::bucket::{Named, Restore};
use crate::console::interrupt::interruptible;
use crate::console::progress::Progress;
use crate::console::table::{Facts, Table};
use crate::console::text::{about, count, duration, utc};

/// How it goes with the bucket.
#[derive(Serialize)]
pub(super) struct BucketView {
    url: String,
    failure: Option<String>,
    succeeded_ms_ago: Option<u64>,
    is_sending: bool,
    sent_packs: u64,
    sent_bytes: u64,
    usage: Option<UsageView>,
    volumes_behind: u64,
}

#[derive(Serialize)]
struct UsageView {
    packs: u64,
    bytes: u64,
    doomed_packs: u64,
    damaged_packs: u64,
    records: u64,
}

/// How far a volume is there.
#[derive(Serialize)]
pub(super) struct BucketVolumeView {
    volume: String,
    epoch: Option<u64>,
    generation: Option<u64>,
    behind_bytes: u64,
    behind_ms: u64,
    is_current: bool,
    failure: Option<String>,
}

#[derive(Serialize)]
struct BucketStatusView {
    #[serde(flatten)]
    bucket: BucketView,
    volumes: Vec<BucketVolumeView>,
}

/// A volume in the bucket.
#[derive(Serialize)]
struct RecordView {
    key: String,
    problem: Option<String>,
    name: String,
    size_bytes: u64,
    root: String,
    epoch: u64,
    generation: u64,
    published_at_ms: Option<u64>,
    node: String,
    site: String,
    snapshots: Vec<String>,
    is_own: bool,
}

#[derive(Serialize)]
struct RestoreView {
    volume: VolumeView,
    snapshots: Vec<String>,
    fetched_bytes: u64,
    published_at_ms: Option<u64>,
}

#[derive(Serialize)]
struct ForgottenView {
    forgotten: String,
    records: u64,
}

#[derive(Serialize)]
struct CollectedView {
    kept_packs: u64,
    kept_bytes: u64,
    doomed_packs: u64,
    doomed_bytes: u64,
    deleted_packs: u64,
    deleted_bytes: u64,
    copied_packs: u64,
    missing_chunks: u64,
    grace_seconds: u64,
}

impl Session {
    pub(super) async fn bucket(&mut self, command: BucketCommand) -> Result<()> {
        match command {
            BucketCommand::Status => self.bucket_status().await,
            BucketCommand::List => self.list_bucket().await,
            BucketCommand::Restore(restore) => self.restore(restore).await,
            BucketCommand::Forget(what) => self.forget(what).await,
            BucketCommand::Gc => self.collect_bucket().await,
        }
    }

    async fn bucket_status(&mut self) -> Result<()> {
        let request = admin::BucketStatusRequest {};
        let reply = self.node.client.bucket_status(request).await.map_err(CallError::from)?.into_inner();
        let bucket = BucketView::from(reply.report.context(NO_RESULT)?);
        let volumes = reply.volumes.into_iter().map(BucketVolumeView::from).collect();
        let view = BucketStatusView { bucket, volumes };
        let mut text = Facts::new(view.bucket.facts()).to_string();
        let mut table = Table::new(["VOLUME", "THERE", ">BEHIND", ">FOR", "PROBLEM"]);
        for volume in &view.volumes {
            let there =
                volume.generation.map_or_else(|| "nothing yet".to_owned(), |number| format!("generation {number}"));
            let (behind, time) = (about(volume.behind_bytes), duration(volume.behind_ms.div_ceil(1000)));
            let problem = volume.failure.clone().unwrap_or_default();
            table.row([volume.volume.clone(), there, behind, time, problem]);
        }
        if !table.is_empty() {
            text.push_str(&format!("\n\n{table}"));
        }
        self.output.result(&view, text)
    }

    async fn list_bucket(&mut self) -> Result<()> {
        let reply = self.node.client.list_bucket(admin::ListBucketRequest {}).await.map_err(CallError::from)?;
        let mut table = Table::new(["NAME", ">SIZE", "PUBLISHED (UTC)", ">SNAPSHOTS", "BY", "CLUSTER/VOLUME"]);
        let mut problems = Vec::new();
        for record in reply.into_inner().records.into_iter().map(RecordView::from) {
            if self.output.is_json() {
                self.output.value(&record)?;
            } else if let Some(problem) = record.problem {
                problems.push(format!("{}: {problem}", record.key));
            } else {
                let published = record.published_at_ms.map_or_else(|| "-".to_owned(), utc);
                let (size, snapshots) = (ByteSize(record.size_bytes).to_string(), record.snapshots.len().to_string());
                let by = format!("{} at {}", record.node, record.site);
                table.row([record.name, size, published, snapshots, by, record.key]);
            }
        }
        if self.output.is_json() {
            return Ok(());
        }
        self.output.line(table)?;
        if problems.is_empty() {
            return Ok(());
        }
        self.output.flush()?;
        bail!("{} cannot be read: {}", count(problems.len() as u64, "volume"), problems.join("; "))
    }

    async fn restore(&mut self, restore: Restore) -> Result<()> {
        let Restore { what: Named { name, from }, new_name } = restore;
        let request = admin::RestoreVolumeRequest {
            name: name.to_string(),
            new_name: new_name.map(|name| name.to_string()).unwrap_or_default(),
            key: from.map(|key| key.to_string()).unwrap_or_default(),
        };
        let work = async {
            let replies = self.node.client.restore_volume(request).await.map_err(CallError::from)?.into_inner();
            let (progress, mut result) = (Progress::new(format!("restoring {name}"), self.output.is_json()), None);
            for_each(replies, |reply| {
                match reply.step {
                    Some(restore_volume_reply::Step::Progress(step)) => progress.set(&step),
                    Some(restore_volume_reply::Step::Result(step)) => result = Some(step),
                    None => {}
                }
                Ok(())
            })
            .await?;
            result.context(NO_RESULT)
        };
        let result = interruptible(work, "the same command goes on with it").await?;
        let admin::RestoreResult { volume, snapshots, fetched_bytes, published_at_ms } = result;
        let volume = VolumeView::from(volume.context(NO_RESULT)?);
        let view = RestoreView { volume, snapshots, fetched_bytes, published_at_ms };
        let VolumeView { name, .. } = &view.volume;
        let (size, fetched) = (view.volume.size(), about(view.fetched_bytes));
        let snapshots = match view.snapshots.len() {
            0 => String::new(),
            some => format!(", {}", count(some as u64, "snapshot")),
        };
        let published = view.published_at_ms.map(|at| format!(", as published at {} UTC", utc(at))).unwrap_or_default();
        let uri = self.node.uri(name).map(|uri| format!(", {uri}")).unwrap_or_default();
        let text = format!("restored {name}: {size}{snapshots}{published}, {fetched} fetched{uri}");
        self.output.result(&view, text)
    }

    async fn forget(&mut self, what: Named) -> Result<()> {
        let Named { name, from } = what;
        let key = from.map(|key| key.to_string()).unwrap_or_default();
        let request = admin::ForgetVolumeRequest { name: name.to_string(), key };
        let reply = self.node.client.forget_volume(request).await.map_err(CallError::from)?.into_inner();
        let view = ForgottenView { forgotten: name.to_string(), records: reply.records };
        let text = format!("the bucket has no {name} any more; `sterna bucket gc` frees what only that needed");
        self.output.result(&view, text)
    }

    async fn collect_bucket(&mut self) -> Result<()> {
        let work = async {
            let request = admin::CollectBucketRequest {};
            let replies = self.node.client.collect_bucket(request).await.map_err(CallError::from)?.into_inner();
            let mut result = None;
            for_each(replies, |reply| {
                if let Some(collect_bucket_reply::Step::Result(step)) = reply.step {
                    result = Some(step);
                }
                Ok(())
            })
            .await?;
            result.context(NO_RESULT)
        };
        let view =
            CollectedView::from(interruptible(work, "what was done stays done, the same command does the rest").await?);
        let mut text = format!(
            "freed {} in {}; {} in {} go after {}; {} in {} stay",
            about(view.deleted_bytes),
            count(view.deleted_packs, "pack"),
            about(view.doomed_bytes),
            count(view.doomed_packs, "pack"),
            duration(view.grace_seconds),
            about(view.kept_bytes),
            count(view.kept_packs, "pack"),
        );
        if view.copied_packs > 0 {
            text.push_str(&format!(
                "\n{} were mostly dead or small, and were copied together",
                count(view.copied_packs, "pack")
            ));
        }
        if view.missing_chunks == 0 {
            return self.output.result(&view, text);
        }
        self.output.result(&view, text)?;
        self.output.flush()?;
        bail!(
            "the bucket lacks {} that volumes in it need: what this node's have is sent again; give this command to the other nodes, too",
            count(view.missing_chunks, "chunk")
        )
    }
}

impl BucketView {
    /// In a line, with what to worry about first.
    pub(super) fn summary(&self) -> String {
        let state = match (&self.failure, self.volumes_behind) {
            (Some(failure), _) => format!("FAILS: {failure}"),
            (None, 0) => "all volumes of this node are there".to_owned(),
            (None, behind) => format!("{} of this node not all there", count(behind, "volume")),
        };
        format!("{}: {state}", self.url)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("bucket", self.url.clone())];
        if let Some(failure) = &self.failure {
            facts.push(("failure", failure.clone()));
        }
        let succeeded = self.succeeded_ms_ago.map(|ms| format!("{} ago", duration(ms / 1000)));
        facts.push(("all sent", succeeded.unwrap_or_else(|| "not since the node was started".to_owned())));
        let sending = if self.is_sending { ", and more is on its way" } else { "" };
        facts.push(("sent", format!("{} in {}{sending}", about(self.sent_bytes), count(self.sent_packs, "pack"))));
        if let Some(usage) = &self.usage {
            let UsageView { packs, bytes, doomed_packs, damaged_packs, records } = usage;
            let mut there = format!("{} in {}, {}", about(*bytes), count(*packs, "pack"), count(*records, "volume"));
            if *doomed_packs > 0 {
                there.push_str(&format!("; {} that nothing needs", count(*doomed_packs, "pack")));
            }
            facts.push(("there", there));
            if *damaged_packs > 0 {
                facts.push((
                    "damaged",
                    format!("{} there cannot be read, and are not used", count(*damaged_packs, "pack")),
                ));
            }
        }
        facts
    }
}

impl BucketVolumeView {
    /// In a line.
    pub(super) fn summary(&self) -> String {
        let there = self.generation.map_or_else(|| "nothing yet".to_owned(), |number| format!("generation {number}"));
        match (&self.failure, self.is_current) {
            (Some(failure), _) => format!("{there}; FAILS: {failure}"),
            (None, true) => format!("all that is published, {there}"),
            (None, false) => {
                let (bytes, time) = (about(self.behind_bytes), duration(self.behind_ms.div_ceil(1000)));
                format!("{there}, {bytes} of writes behind for {time}")
            }
        }
    }
}

impl From<admin::BucketReport> for BucketView {
    fn from(report: admin::BucketReport) -> Self {
        Self {
            url: report.url,
            failure: if_any(report.failure),
            succeeded_ms_ago: report.succeeded_ms_ago,
            is_sending: report.is_sending,
            sent_packs: report.sent_packs,
            sent_bytes: report.sent_bytes,
            usage: report.usage.map(|usage| UsageView {
                packs: usage.packs,
                bytes: usage.bytes,
                doomed_packs: usage.doomed_packs,
                damaged_packs: usage.damaged_packs,
                records: usage.records,
            }),
            volumes_behind: report.volumes_behind,
        }
    }
}

impl From<admin::BucketVolume> for BucketVolumeView {
    fn from(volume: admin::BucketVolume) -> Self {
        Self {
            volume: volume.volume,
            epoch: volume.epoch,
            generation: volume.generation,
            behind_bytes: volume.behind_bytes,
            behind_ms: volume.behind_ms,
            is_current: volume.is_current,
            failure: if_any(volume.failure),
        }
    }
}

impl From<admin::BucketRecord> for RecordView {
    fn from(record: admin::BucketRecord) -> Self {
        Self {
            key: record.key,
            problem: if_any(record.problem),
            name: record.name,
            size_bytes: record.size_bytes,
            root: record.root,
            epoch: record.epoch,
            generation: record.generation,
            published_at_ms: record.published_at_ms,
            node: record.node,
            site: record.site,
            snapshots: record.snapshots,
            is_own: record.is_own,
        }
    }
}

impl From<admin::CollectBucketResult> for CollectedView {
    fn from(result: admin::CollectBucketResult) -> Self {
        Self {
            kept_packs: result.kept_packs,
            kept_bytes: result.kept_bytes,
            doomed_packs: result.doomed_packs,
            doomed_bytes: result.doomed_bytes,
            deleted_packs: result.deleted_packs,
            deleted_bytes: result.deleted_bytes,
            copied_packs: result.copied_packs,
            missing_chunks: result.missing_chunks,
            grace_seconds: result.grace_seconds,
        }
    }
}
