//! The node, its cluster and its store: status, garbage collection, scrub.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sterna_proto::admin::{self, collect_garbage_reply, scrub_reply};

use super::Session;
use super::bucket::BucketView;
use super::client::{CallError, for_each};
use super::cluster::{NodeView, Nodes, metadata_version, table};
use super::contents::NO_RESULT;
use super::views::{DamageView, if_any};
use crate::args::values::Rate;
use crate::console::interrupt::interruptible;
use crate::console::progress::Progress;
use crate::console::table::Facts;
use crate::console::text::{about, count, duration};

#[derive(Serialize)]
struct StatusView {
    cluster: String,
    node: String,
    node_id: u64,
    site: String,
    version: String,
    data_directory: String,
    leader: Option<String>,
    /// Why this node cannot say what has been decided; none where it can.
    cut_off: Option<String>,
    metadata_version: u32,
    nodes: Vec<NodeView>,
    volumes: u64,
    open_volumes: u64,
    chunks: u64,
    packs: u64,
    chunk_bytes: u64,
    stored_bytes: u64,
    available_bytes: u64,
    nbd_addresses: Vec<String>,
    nbd_connections: u64,
    uptime_seconds: f64,
    /// None where the node has none.
    bucket: Option<BucketView>,
}

#[derive(Serialize)]
struct CollectedView {
    live_chunks: u64,
    dead_chunks: u64,
    freed_bytes: u64,
    removed_packs: u64,
    compacted_packs: u64,
    cramped_packs: u64,
    cramped_bytes: u64,
    waiting_bytes: u64,
}

/// A line of what a scrub found.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ScrubView {
    Damage {
        chunk: String,
        #[serde(rename = "where")]
        place: String,
        what: String,
        needed_by: Vec<DamageView>,
        more_ranges: u64,
        /// The node that had it whole.
        repaired_from: Option<String>,
    },
    Result {
        chunks: u64,
        bytes: u64,
        damaged_chunks: u64,
        repaired_chunks: u64,
        ranges_are_complete: bool,
        leavings_chunks: u64,
        leavings_bytes: u64,
    },
}

impl Session {
    pub(super) async fn status(&mut self) -> Result<()> {
        let reply = self.node.client.status(admin::StatusRequest {}).await.map_err(CallError::from)?.into_inner();
        let Nodes { views: nodes, cut_off, metadata_version } = self.nodes().await?;
        let chunks = reply.chunks.unwrap_or_default();
        let view = StatusView {
            cut_off,
            metadata_version,
            nodes,
            cluster: reply.cluster,
            node: reply.node,
            node_id: reply.node_id,
            site: reply.site,
            version: reply.version,
            data_directory: reply.data_directory,
            leader: if_any(reply.leader),
            volumes: reply.volumes,
            open_volumes: reply.open_volumes,
            chunks: chunks.chunks,
            packs: chunks.packs,
            chunk_bytes: chunks.chunk_bytes,
            stored_bytes: chunks.stored_bytes,
            available_bytes: reply.available_bytes,
            nbd_addresses: reply.nbd_addresses,
            nbd_connections: reply.nbd_connections,
            uptime_seconds: reply.uptime_seconds,
            bucket: reply.bucket.map(BucketView::from),
        };
        let mut text = Facts::new(facts(&view)).to_string();
        if view.nodes.len() > 1 {
            text.push_str(&format!("\n\n{}", table(&view.nodes)));
        }
        self.output.result(&view, text)
    }

    pub(super) async fn collect_garbage(&mut self) -> Result<()> {
        let work = async {
            let request = admin::CollectGarbageRequest {};
            let replies = self.node.client.collect_garbage(request).await.map_err(CallError::from)?.into_inner();
            let (progress, mut result) = (Progress::new("collecting garbage", self.output.is_json()), None);
            for_each(replies, |reply| {
                match reply.step {
                    Some(collect_garbage_reply::Step::Progress(step)) => progress.set(&step),
                    Some(collect_garbage_reply::Step::Result(step)) => result = Some(step),
                    None => {}
                }
                Ok(())
            })
            .await?;
            result.context(NO_RESULT)
        };
        let result = interruptible(work, "what was freed is free, the same command does the rest").await?;
        let view = CollectedView {
            live_chunks: result.live_chunks,
            dead_chunks: result.dead_chunks,
            freed_bytes: result.freed_bytes,
            removed_packs: result.removed_packs,
            compacted_packs: result.compacted_packs,
            cramped_packs: result.cramped_packs,
            cramped_bytes: result.cramped_bytes,
            waiting_bytes: result.waiting_bytes,
        };
        let mut text = format!(
            "freed {}: {} dead, {} live; {} removed, {} compacted",
            about(view.freed_bytes),
            count(view.dead_chunks, "chunk"),
            view.live_chunks,
            count(view.removed_packs, "pack"),
            view.compacted_packs
        );
        if view.cramped_packs > 0 {
            let (bytes, packs) = (about(view.cramped_bytes), count(view.cramped_packs, "pack"));
            text.push_str(&format!("\n{bytes} are dead in {packs} that could not be compacted for want of space"));
        }
        if view.waiting_bytes >= WORTH_TELLING {
            text.push_str(&format!("\n{} are dead in packs of which more than half lives", about(view.waiting_bytes)));
        }
        self.output.result(&view, text)
    }

    pub(super) async fn scrub(&mut self, rate: Option<Rate>) -> Result<()> {
        let request = admin::ScrubRequest { bytes_per_second: rate.map_or(0, Rate::bytes_per_second) };
        let work = async {
            let replies = self.node.client.scrub(request).await.map_err(CallError::from)?.into_inner();
            let (output, mut result, mut ranges) = (&mut self.output, None, Ranges::default());
            let progress = Progress::new("scrubbing", output.is_json());
            for_each(replies, |reply| {
                match reply.step {
                    Some(scrub_reply::Step::Progress(step)) => progress.set(&step),
                    Some(scrub_reply::Step::Damage(damage)) => progress.aside(|| {
                        let text = damage_text(&damage);
                        if damage.repaired_from.is_empty() {
                            ranges.named += damage.needed_by.len();
                            ranges.more += damage.more_ranges;
                        }
                        output.result(&damage_view(damage), text)?;
                        output.flush()
                    })?,
                    Some(scrub_reply::Step::Result(step)) => result = Some(step),
                    None => {}
                }
                Ok(())
            })
            .await?;
            Ok((result.context(NO_RESULT)?, ranges))
        };
        let (result, ranges) = interruptible(work, "the rest was not read").await?;
        let view = result_view(&result);
        let admin::ScrubResult { chunks, bytes, damaged_chunks, repaired_chunks, ranges_are_complete, .. } = result;
        let left = damaged_chunks.saturating_sub(repaired_chunks);
        if left > 0 {
            if self.output.is_json() {
                self.output.value(&view)?;
            }
            bail!("{} damaged{}", is_or_are(left), ranges.advice(ranges_are_complete));
        }
        let mut text = format!("read {}, {}: all whole", count(chunks, "chunk"), about(bytes));
        if repaired_chunks > 0 {
            text.push_str(&format!(" now: {} damaged, and fetched from other nodes", was_or_were(repaired_chunks)));
        }
        if result.leavings_bytes > 0 {
            let leavings = about(result.leavings_bytes);
            text.push_str(&format!(
                "\n{leavings} that nothing needs; `sterna gc` frees them where they are half of a pack"
            ));
        }
        self.output.result(&view, text)
    }
}

/// Each pack has some bytes that are no chunk's: less than this is nothing to think about.
const WORTH_TELLING: u64 = 1 << 20;

/// What was said about who needs what is damaged.
#[derive(Clone, Copy, Default)]
struct Ranges {
    named: usize,
    more: u64,
}

impl Ranges {
    fn advice(self, are_complete: bool) -> &'static str {
        match (self.named, are_complete && self.more == 0) {
            (0, true) => ", and no volume and no snapshot needs what is lost",
            (_, true) => ": restore the ranges above from a snapshot or a backup",
            (_, false) => {
                ": the ranges above are not all that need it, `sterna volume verify NAME` names those of a volume"
            }
        }
    }
}

fn is_or_are(chunks: u64) -> String {
    format!("{} {}", count(chunks, "chunk"), if chunks == 1 { "is" } else { "are" })
}

fn was_or_were(chunks: u64) -> String {
    format!("{} {}", count(chunks, "chunk"), if chunks == 1 { "was" } else { "were" })
}

fn result_view(result: &admin::ScrubResult) -> ScrubView {
    let admin::ScrubResult {
        chunks,
        bytes,
        damaged_chunks,
        repaired_chunks,
        ranges_are_complete,
        leavings_chunks,
        leavings_bytes,
    } = *result;
    ScrubView::Result {
        chunks,
        bytes,
        damaged_chunks,
        repaired_chunks,
        ranges_are_complete,
        leavings_chunks,
        leavings_bytes,
    }
}

fn damage_view(damage: admin::DamagedChunk) -> ScrubView {
    let needed_by = damage.needed_by.into_iter().map(DamageView::from).collect();
    let admin::DamagedChunk { chunk, r#where: place, what, more_ranges, repaired_from, .. } = damage;
    ScrubView::Damage { chunk, place, what, needed_by, more_ranges, repaired_from: if_any(repaired_from) }
}

fn damage_text(damage: &admin::DamagedChunk) -> String {
    let mut text = format!("chunk {} ({}): {}", damage.chunk, damage.r#where, damage.what);
    if !damage.repaired_from.is_empty() {
        text.push_str(&format!("; fetched from {}, and whole now", damage.repaired_from));
        return text;
    }
    for range in &damage.needed_by {
        text.push_str("\n  ");
        text.push_str(&DamageView::from(range.clone()).place());
    }
    if damage.more_ranges > 0 {
        text.push_str(&format!("\n  and {}", count(damage.more_ranges, "more range")));
    }
    text
}

fn facts(status: &StatusView) -> Vec<(&'static str, String)> {
    // Whole seconds are enough for people; a clock that runs backwards is none of their concern.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is right here")]
    let uptime = status.uptime_seconds as u64;
    let mut facts = vec![
        ("node", format!("{} (id {}), version {}", status.node, status.node_id, status.version)),
        ("site", status.site.clone()),
        ("cluster", status.cluster.clone()),
        ("leader", status.leader.clone().unwrap_or_else(|| "nobody is known to lead".to_owned())),
        ("cut off", status.cut_off.clone().unwrap_or_default()),
        ("metadata", metadata_version(status.metadata_version, &status.nodes)),
        ("directory", status.data_directory.clone()),
        ("volumes", format!("{}, {} open", status.volumes, status.open_volumes)),
        ("chunks", format!("{} in {}", count(status.chunks, "chunk"), count(status.packs, "pack"))),
        ("data", format!("{}, kept in {}", about(status.chunk_bytes), about(status.stored_bytes))),
        ("available", about(status.available_bytes)),
        ("NBD", format!("{} on {}", count(status.nbd_connections, "connection"), status.nbd_addresses.join(", "))),
        ("bucket", status.bucket.as_ref().map(BucketView::summary).unwrap_or_default()),
        ("up for", duration(uptime)),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}
