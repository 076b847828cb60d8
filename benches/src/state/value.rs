//! The metadata as a value: written down, read, and changed; and what its changes take in the log.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sterna_consensus::MetadataConfig;
use sterna_consensus::limits::{MAX_VOLUMES, PUBLISH_INTERVAL};
use sterna_consensus::rehearsal::{entry_of, metadata_of, snapshot_of, time_to_hold};
use sterna_consensus::session::keeper::RENEWALS_PER_SESSION;
use sterna_consensus::state::Metadata;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::request::Request;
use sterna_types::NodeId;

use super::synthetic::{Synthetic, new_volume, renewal};
use super::{float, ms_since, per_second};
use crate::facts::Facts;
use crate::goal::Goal;

/// A snapshot, made and read.
pub(super) fn written_down(facts: &mut Facts, metadata: &Metadata) -> Result<()> {
    let began = Instant::now();
    let plain = serde_json::to_vec(metadata)?;
    facts.add("write it as JSON", "ms", ms_since(began));
    facts.add("JSON of it", "MiB", float(plain.len()) / MIB);
    let began = Instant::now();
    let snapshot = snapshot_of(metadata)?;
    facts.add("make a snapshot of it", "ms", ms_since(began));
    facts.add("snapshot of it, as kept and sent", "MiB", float(snapshot.len()) / MIB);
    facts.add(TRANSFER, "s", float(snapshot.len()) * 8.0 / 25e6);
    facts.aim(TRANSFER, Goal::AtMost(30.0));
    let began = Instant::now();
    let read = metadata_of(&snapshot)?;
    facts.add("read that snapshot, all checks included", "ms", ms_since(began));
    ensure!(read == *metadata, "what was read is not what was written");
    let began = Instant::now();
    read.check().context("what was read is not as it should be")?;
    facts.add("of that, the checks", "ms", ms_since(began));
    Ok(())
}

/// Commands, many on one copy, and one for each copy, as an entry of a single command is.
pub(super) fn carried_out(facts: &mut Facts, synthetic: &Synthetic) -> Result<()> {
    let renewals: Vec<_> = (1..=synthetic.nodes()).map(renewal).map(request).collect();
    let roots: Vec<_> = (1..=synthetic.nodes())
        .map(|node| request(Command::PublishRoots(synthetic.publications(node, 2_000_000, usize::MAX))))
        .collect();
    let creations: Result<Vec<_>> = (1..=CREATIONS.min(MAX_VOLUMES as u64 - synthetic.volumes()))
        .map(|number| new_volume(synthetic.volumes() + number, NodeId(number % synthetic.nodes() + 1)).map(request))
        .collect();
    for (what, requests, each) in [
        ("renewals", renewals, 1.0),
        (
            "published roots",
            roots,
            float(usize::try_from(synthetic.volumes())?) / float(usize::try_from(synthetic.nodes())?),
        ),
        ("volumes made", creations?, 1.0),
    ] {
        if requests.is_empty() {
            // There are as many volumes as there may be.
            continue;
        }
        let mut metadata = synthetic.metadata().clone();
        let began = Instant::now();
        for request in &requests {
            applied(&mut metadata, request)?;
        }
        let rate = per_second(requests.len(), began) * each;
        facts.add(&format!("{what}, carried out in memory, all in one entry"), "per s", rate);
        let mut metadata = synthetic.metadata().clone();
        let mut view = metadata.clone();
        let began = Instant::now();
        for request in &requests {
            applied(&mut metadata, request)?;
            view = metadata.clone();
        }
        let each_us = ms_since(began) * 1e3 / float(requests.len());
        facts.add(&format!("{what}: a command in an entry of its own, while somebody reads"), "us", each_us);
        drop(black_box(view));
    }
    Ok(())
}

/// What renewals and published roots take in the log, at the intervals of the product; and so on the link of the node that
/// leads, which sends each entry to all others.
pub(super) fn bytes(facts: &mut Facts, synthetic: &Synthetic) {
    let nodes = synthetic.nodes();
    let renewal_interval = synthetic.metadata().session_length().duration() / RENEWALS_PER_SESSION;
    for (what, interval, command) in [
        ("renewal", renewal_interval, renewal as fn(u64) -> Command),
        ("published root, one of a node", PUBLISH_INTERVAL, one_root),
    ] {
        // What comes within one hold, from nodes that are spread over the interval evenly.
        let held = (time_to_hold(synthetic.metadata(), &MetadataConfig::default()).as_secs_f64()
            / interval.as_secs_f64()
            * as_float(nodes))
        .max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of nodes")]
        let count = held as u64;
        let alone = entry_of(vec![request(command(1))]).len();
        facts.add(&format!("{what}, in an entry of its own"), "bytes", float(alone));
        let entry = entry_of((1..=count).map(command).map(request).collect());
        facts.add(
            &format!("{what}, in an entry with what is held back with it"),
            "bytes",
            float(entry.len()) / as_float(count),
        );
        let compressed =
            zstd::encode_all(&*entry, zstd::DEFAULT_COMPRESSION_LEVEL).map_or(f64::NAN, |bytes| float(bytes.len()));
        let each = compressed / as_float(count);
        facts.add(&format!("{what}, the same compressed"), "bytes", each);
        let per_node = each * as_float(nodes) / interval.as_secs_f64();
        facts.add(&format!("{what}, if every node has one at each interval: to each node"), "kB/s", per_node / 1e3);
        let all = per_node * as_float(nodes.saturating_sub(1)) * 8.0 / 1e6;
        facts.add(
            &format!("{what}, if every node has one at each interval: link of the node that leads"),
            "Mbit/s",
            all,
        );
    }
}

fn one_root(node: u64) -> Command {
    Command::PublishRoots(super::synthetic::one_publication(node))
}

pub(super) fn request(command: Command) -> Request {
    Request { id: None, command }
}

fn applied(metadata: &mut Metadata, request: &Request) -> Result<()> {
    match metadata.apply(request)? {
        Outcome::Published { refused } if !refused.is_empty() => anyhow::bail!("roots are refused: {refused:?}"),
        _ => Ok(()),
    }
}

/// No count here is beyond what a `f64` holds exactly.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

const CREATIONS: u64 = 2_000;
const TRANSFER: &str = "time for that over a link of 25 Mbit/s";
const MIB: f64 = 1_048_576.0;
