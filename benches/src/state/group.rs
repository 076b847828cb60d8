//! A node that runs on the metadata: by itself, with every entry synced; starting; and leading nodes that are only pretended.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sterna_consensus::limits::PUBLISH_INTERVAL;
use sterna_consensus::rehearsal::{Traffic, furthest_behind, lay_out, open_among_echoes};
use sterna_consensus::session::keeper::RENEWALS_PER_SESSION;
use sterna_consensus::state::command::Command;
use sterna_consensus::{MetadataConfig, MetadataNode, ProposeError};
use sterna_types::NodeId;
use tokio::task::JoinSet;

use super::synthetic::{Synthetic, new_volume, renewal};
use super::value::request;
use super::{State, float, ms_since, per_second};
use crate::facts::Facts;
use crate::median::median;
use crate::usage::Usage;

/// A cluster of one node with as many volumes, asked by many at once.
pub(super) async fn alone(facts: &mut Facts, state: &State) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("metadata");
    let synthetic = Synthetic::alone(state.volumes.saturating_sub(ASKED).max(1))?;
    lay_out(&place, synthetic.metadata(), Vec::new())?;
    let node = Arc::new(MetadataNode::open(&place, MetadataConfig::default(), None).await?);
    for round in 0..state.rounds {
        let asked = ASKED / state.rounds;
        let volume = |number: u32| u64::from(round * asked + number) + synthetic.volumes() + 1;
        let creations =
            (0..asked).map(|number| new_volume(volume(number), NodeId::FIRST)).collect::<Result<Vec<_>>>()?;
        ask(facts, "volumes made", &node, creations).await?;
        ask(facts, "renewals", &node, vec![renewal(1); usize::try_from(asked)?]).await?;
        let first_generation = u64::from(round * asked) + 1;
        let roots = (0..u64::from(asked)).map(|number| {
            Command::PublishRoots(synthetic.publications(1, first_generation + number, ROOTS_PER_COMMAND))
        });
        ask(facts, "commands with 50 published roots", &node, roots.collect()).await?;
    }
    node.shutdown().await;
    Ok(())
}

/// Has commands carried out, by so many at a time that each waits for its answer.
async fn ask(facts: &mut Facts, what: &str, node: &Arc<MetadataNode>, commands: Vec<Command>) -> Result<()> {
    let (count, entries, began) = (commands.len(), node.applied_index(), Instant::now());
    let mut commands = commands.into_iter();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < AT_A_TIME
            && let Some(command) = commands.next()
        {
            let node = Arc::clone(node);
            asking.spawn(async move { node.propose(command).await });
        }
        match asking.join_next().await {
            Some(answer) => drop(answer??),
            None => break,
        }
    }
    let rate = per_second(count, began);
    facts.add(&format!("{what}, by a node alone with a synced log"), "per s", rate);
    let entries = usize::try_from(node.applied_index() - entries)?;
    facts.add(
        &format!("{what}, by a node alone with a synced log: entries"),
        "per s",
        rate * float(entries) / float(count),
    );
    Ok(())
}

/// From opening a directory to the first answer that decides anything: with a snapshot only, and with as long a log behind it
/// as there may be before the next snapshot.
pub(super) async fn start(facts: &mut Facts, synthetic: &Synthetic, rounds: u32) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("metadata");
    lay_out(&place, synthetic.metadata(), Vec::new())?;
    for _ in 0..rounds {
        let node = opened(facts, "start of a node with it, from a snapshot", &place, synthetic).await?;
        node.shutdown().await;
    }
    // Fewer than would bring about the next snapshot.
    let entries = MetadataConfig::default().snapshot_after_entries * 4 / 5;
    let behind = (0..entries).map(|number| {
        let roots = synthetic.publications(number % synthetic.nodes() + 1, 1_500_000 + number, 1);
        request(Command::PublishRoots(roots))
    });
    let place = directory.path().join("metadata-and-a-log");
    lay_out(&place, synthetic.metadata(), behind.collect())?;
    for _ in 0..rounds {
        let what = format!("start of a node with it, with {entries} entries behind the snapshot");
        let node = opened(facts, &what, &place, synthetic).await?;
        node.shutdown().await;
    }
    Ok(())
}

async fn opened(facts: &mut Facts, what: &str, place: &Path, synthetic: &Synthetic) -> Result<MetadataNode> {
    let began = Instant::now();
    let node = MetadataNode::open(place, MetadataConfig::default(), None).await?;
    let read = node.linearizable().await?;
    facts.add(what, "ms", ms_since(began));
    ensure!(read.volume_count() as u64 == synthetic.volumes(), "volumes are missing");
    Ok(node)
}

/// The node that leads, among others that acknowledge everything, from far away: what it sends them, and what that takes of it.
pub(super) async fn leading(facts: &mut Facts, synthetic: &Synthetic, seconds: u32) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("metadata");
    lay_out(&place, synthetic.metadata(), Vec::new())?;
    let (node, traffic) = open_among_echoes(&place, MetadataConfig::default()).await?;
    let mut load = Load { node: Arc::new(node), traffic, synthetic, generation: 3_000_000 };
    let time = Duration::from_secs(seconds.into());
    load.watch(facts, "renewals alone", 0, time).await?;
    for one_in in [100, 10] {
        let busy = usize::try_from(synthetic.volumes())? / one_in;
        let what = format!("renewals, and 1 volume in {one_in} written to");
        load.watch(facts, &what, busy, time).await?;
    }
    load.node.shutdown().await;
    Ok(())
}

struct Load<'a> {
    node: Arc<MetadataNode>,
    traffic: Arc<Traffic>,
    synthetic: &'a Synthetic,
    generation: u64,
}

/// What a node is about to ask, and when.
type Due = (Duration, Command);

impl Load<'_> {
    /// Asks what all nodes ask in so much time, when they ask it, with `busy` of the volumes sealed at every publication.
    async fn watch(&mut self, facts: &mut Facts, what: &str, busy: usize, time: Duration) -> Result<()> {
        let schedule = self.schedule(busy, time)?;
        let process = std::process::id();
        let (sent, cpu, entries) = (self.traffic.sent(), Usage::of(process)?.cpu_seconds, self.node.applied_index());
        let (began, mut asking) = (tokio::time::Instant::now(), JoinSet::new());
        for (at, command) in schedule {
            tokio::time::sleep_until(began + at).await;
            let node = Arc::clone(&self.node);
            asking.spawn(async move {
                let asked = Instant::now();
                node.propose_without_haste(command).await.map(|_| ms_since(asked))
            });
        }
        let answers: Vec<Result<f64, ProposeError>> = asking.join_all().await;
        let took = began.elapsed().as_secs_f64();
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        let ms: Vec<f64> = answers.into_iter().flatten().collect();
        let behind = usize::try_from(furthest_behind(&self.node))?;
        let now = self.traffic.sent();
        let others = float(usize::try_from(self.synthetic.nodes().saturating_sub(1).max(1))?);
        let rate = |count: u64| usize::try_from(count).map(|count| float(count) / took);
        let mut add =
            |figure: &str, unit: &'static str, value: f64| facts.add(&format!("{what}: {figure}"), unit, value);
        add("entries", "per s", rate(self.node.applied_index() - entries)?);
        add("messages with entries, to all nodes", "per s", rate(now.messages - sent.messages)?);
        add("heartbeats, to all nodes", "per s", rate(now.heartbeats - sent.heartbeats)?);
        let bytes = rate(now.bytes - sent.bytes)?;
        add("to each node", "kB/s", bytes / others / 1e3);
        add("link of the node that leads", "Mbit/s", bytes * 8.0 / 1e6);
        add("processors that the node which leads keeps busy", "of 2", (Usage::of(process)?.cpu_seconds - cpu) / took);
        add("time until an answer, median", "ms", median(&ms));
        add("time until an answer, longest", "ms", ms.iter().copied().fold(0.0, f64::max));
        add("time that it took, to that in which it was asked", "x", took / time.as_secs_f64());
        add("entries that the node furthest behind lacks at the end", "", float(behind));
        add("answers that did not come", "", float(failed));
        Ok(())
    }

    /// Every node renews its session, and publishes, at its intervals; the nodes are spread over these evenly.
    fn schedule(&mut self, busy: usize, time: Duration) -> Result<Vec<Due>> {
        let renewal_interval = self.synthetic.metadata().session_length().duration() / RENEWALS_PER_SESSION;
        let nodes = u32::try_from(self.synthetic.nodes())?;
        let (each, more) = (busy / usize::try_from(nodes)?, busy % usize::try_from(nodes)?);
        let mut schedule = Vec::new();
        for node in 0..nodes {
            let mut at = renewal_interval * node / nodes;
            while at < time {
                schedule.push((at, renewal(u64::from(node) + 1)));
                at += renewal_interval;
            }
            let own = each + usize::from(usize::try_from(node)? < more);
            let mut at = PUBLISH_INTERVAL * node / nodes;
            while own > 0 && at < time {
                self.generation += 1;
                let roots = self.synthetic.publications(u64::from(node) + 1, self.generation, own);
                schedule.push((at, Command::PublishRoots(roots)));
                at += PUBLISH_INTERVAL;
            }
        }
        schedule.sort_by_key(|(at, _)| *at);
        Ok(schedule)
    }
}

/// How many commands of each kind a lone node is asked, in all rounds together.
const ASKED: u32 = 20_000;
/// As many as volumes of a node, where 100,000 volumes belong to 2,000 nodes.
const ROOTS_PER_COMMAND: usize = 50;
/// Enough for an entry to be full.
const AT_A_TIME: usize = 512;
