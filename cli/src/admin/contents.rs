//! What is in volumes: diff, map, verify, export.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sterna_proto::admin::{self, export_volume_reply, verify_volume_reply};
use sterna_types::ByteSize;

use super::Session;
use super::client::{CallError, for_each};
use super::views::{DamageView, if_any};
use crate::args::volume::{Diff, Export, Map, OneContents};
use crate::console::interrupt::interruptible;
use crate::console::progress::Progress;
use crate::console::text::{about, count};

/// A range that differs.
#[derive(Serialize)]
struct ChangedView {
    start_bytes: u64,
    length_bytes: u64,
    now: String,
}

/// A range that has one place.
#[derive(Serialize)]
struct MappedView {
    start_bytes: u64,
    length_bytes: u64,
    chunk: Option<String>,
    first_byte_in_chunk: Option<u64>,
    /// Only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sites: Option<Vec<String>>,
    /// Sites that did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_sites: Option<Vec<String>>,
}

#[derive(Serialize)]
struct ExportView {
    source: String,
    file: String,
    size_bytes: u64,
    data_bytes: u64,
}

/// A line of what a verification found.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum VerifyView {
    Damage(DamageView),
    Result { verified_bytes: u64, damaged_ranges: u64 },
}

impl Session {
    pub(super) async fn diff(&mut self, diff: Diff) -> Result<()> {
        let Diff { old, new, compare_data } = diff;
        let request = admin::DiffVolumesRequest { old: old.to_string(), new: new.to_string(), compare_data };
        let work = async {
            let ranges = self.node.client.diff_volumes(request).await.map_err(CallError::from)?.into_inner();
            let (mut number, mut bytes, output) = (0, 0, &mut self.output);
            for_each(ranges, |range| {
                if number == 0 && !output.is_json() {
                    output.line(columns("START", "LENGTH", "NOW"))?;
                }
                (number, bytes) = (number + 1, bytes + range.length_bytes);
                let admin::ChangedRange { start_bytes, length_bytes, now } = range;
                let text = columns(&ByteSize(start_bytes).to_string(), &ByteSize(length_bytes).to_string(), &now);
                output.result(&ChangedView { start_bytes, length_bytes, now }, text)
            })
            .await?;
            let total = format!("{} in {} of {new} differ from {old}", about(bytes), count(number, "range"));
            if output.is_json() { Ok(()) } else { output.line(total) }
        };
        interruptible(work, "this is not all that differs").await
    }

    pub(super) async fn map(&mut self, map: Map) -> Result<()> {
        let Map { contents, sites: with_sites } = map;
        let request = admin::MapVolumeRequest { source: contents.source.to_string(), with_sites };
        let mut bytes_at = BTreeMap::<String, u64>::new();
        let work = async {
            let ranges = self.node.client.map_volume(request).await.map_err(CallError::from)?.into_inner();
            let output = &mut self.output;
            for_each(ranges, |range| {
                if range.start_bytes == 0 && !output.is_json() {
                    output.line(columns("START", "LENGTH", "CHUNK"))?;
                }
                let admin::MappedRange { start_bytes, length_bytes, chunk, first_byte_in_chunk, sites, unknown_sites } =
                    range;
                let chunk = if_any(chunk);
                let mut place = match &chunk {
                    Some(chunk) if first_byte_in_chunk == 0 => chunk.clone(),
                    Some(chunk) => format!("{chunk} from {}", ByteSize(first_byte_in_chunk)),
                    None => "hole".to_owned(),
                };
                if with_sites && chunk.is_some() {
                    let doubted = unknown_sites.iter().map(|site| format!("{site}?"));
                    let named: Vec<_> = sites.iter().cloned().chain(doubted).collect();
                    place.push_str(&format!("  {}", named.join(" ")));
                    sites.iter().for_each(|site| *bytes_at.entry(site.clone()).or_default() += length_bytes);
                }
                let text = columns(&ByteSize(start_bytes).to_string(), &ByteSize(length_bytes).to_string(), &place);
                let first_byte_in_chunk = chunk.is_some().then_some(first_byte_in_chunk);
                let [sites, unknown_sites] = [sites, unknown_sites].map(|names| with_sites.then_some(names));
                let view = MappedView { start_bytes, length_bytes, chunk, first_byte_in_chunk, sites, unknown_sites };
                output.result(&view, text)
            })
            .await?;
            if !output.is_json() && !bytes_at.is_empty() {
                let at = bytes_at.iter().map(|(site, bytes)| format!("{} at {site}", about(*bytes)));
                output.line(at.collect::<Vec<_>>().join(", "))?;
            }
            Ok(())
        };
        interruptible(work, "this is not all of the map").await
    }

    pub(super) async fn verify(&mut self, verify: OneContents) -> Result<()> {
        let source = verify.source.to_string();
        let request = admin::VerifyVolumeRequest { source: source.clone() };
        let work = async {
            let replies = self.node.client.verify_volume(request).await.map_err(CallError::from)?.into_inner();
            let (output, mut result) = (&mut self.output, None);
            let progress = Progress::new(format!("verifying {source}"), output.is_json());
            for_each(replies, |reply| {
                match reply.step {
                    Some(verify_volume_reply::Step::Progress(step)) => progress.set(&step),
                    Some(verify_volume_reply::Step::Damage(damage)) => {
                        let damage = DamageView::from(damage);
                        let text = format!("{}, chunk {}: {}", damage.place(), damage.chunk, damage.what);
                        progress.aside(|| {
                            output.result(&VerifyView::Damage(damage), text)?;
                            output.flush()
                        })?;
                    }
                    Some(verify_volume_reply::Step::Result(step)) => result = Some(step),
                    None => {}
                }
                Ok(())
            })
            .await?;
            result.context(NO_RESULT)
        };
        let admin::VerifyResult { verified_bytes, damaged_ranges } =
            interruptible(work, "the rest is not verified").await?;
        let view = VerifyView::Result { verified_bytes, damaged_ranges };
        if damaged_ranges > 0 {
            if self.output.is_json() {
                self.output.value(&view)?;
            }
            bail!(
                "{source} is damaged in {}: restore those from a snapshot or a backup",
                count(damaged_ranges, "range")
            );
        }
        self.output.result(&view, format!("verified {source}: {} of data, all whole", about(verified_bytes)))
    }

    pub(super) async fn export(&mut self, export: Export) -> Result<()> {
        self.node.is_here("an export")?;
        let shown = export.file.display();
        let path = std::path::absolute(&export.file).with_context(|| format!("'{shown}' is no path of a file"))?;
        let path = path.to_str().with_context(|| format!("the path {shown} is not UTF-8: choose another"))?.to_owned();
        let source = export.source.to_string();
        let request =
            admin::ExportVolumeRequest { source: source.clone(), path: path.clone(), overwrite: export.overwrite };
        let work = async {
            let replies = self.node.client.export_volume(request).await.map_err(CallError::from)?.into_inner();
            let (progress, mut result) = (Progress::new(format!("exporting {source}"), self.output.is_json()), None);
            for_each(replies, |reply| {
                match reply.step {
                    Some(export_volume_reply::Step::Progress(step)) => progress.set(&step),
                    Some(export_volume_reply::Step::Result(step)) => result = Some(step),
                    None => {}
                }
                Ok(())
            })
            .await?;
            result.context(NO_RESULT)
        };
        let remains = format!("{path} is as it was, unless it was complete by then; the same command begins again");
        let admin::ExportResult { size_bytes, data_bytes } = interruptible(work, &remains).await?;
        let text = format!("exported {source} to {path}: {}, {} of data", ByteSize(size_bytes), about(data_bytes));
        self.output.result(&ExportView { source, file: path, size_bytes, data_bytes }, text)
    }
}

/// A line of a table that is too long to be looked through before it is printed.
fn columns(start: &str, length: &str, what: &str) -> String {
    format!("{start:>16}  {length:>16}  {what}")
}

/// Only another version ends long work without saying how it went.
pub(super) const NO_RESULT: &str = "the node ended without a result: it runs another version of sterna";
