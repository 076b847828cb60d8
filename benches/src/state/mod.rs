//! The metadata of a cluster that no machine here can hold: how large it is, how long it takes to write it down and to read it,
//! how fast commands are carried out, and what a node that leads sends to all the others.
//!
//! [`synthetic`] makes the metadata, command by command. [`value`] measures it as a value; [`group`] measures a node that runs on
//! it, alone and among nodes that are only pretended. Intervals and lengths are those that the product has without being told
//! otherwise. What the figures mean is in `docs/scale.md`.

mod group;
mod synthetic;
mod value;

use std::time::Instant;

use anyhow::{Context, Result};

use crate::facts::Facts;
use crate::usage::Usage;
use synthetic::Synthetic;

/// How large the cluster is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct State {
    /// Its sites.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1024))]
    sites: u32,
    /// Nodes of each site.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=4096))]
    nodes_per_site: u32,
    /// Volumes, shared out evenly among the nodes.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    volumes: u32,
    /// Snapshots, shared out evenly among the volumes.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(0..=262_144))]
    snapshots: u32,
    /// How often what is short is measured; the medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long the node that leads is watched under each load, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

/// Measures all of it.
///
/// # Errors
/// A command is refused, or a node does not run.
pub(crate) fn measure(state: State) -> Result<Facts> {
    let mut facts = Facts::new(format!(
        "the metadata of {} sites with {} nodes each, {} volumes and {} snapshots; {} rounds, {} s under each load",
        state.sites, state.nodes_per_site, state.volumes, state.snapshots, state.rounds, state.seconds
    ));
    let process = std::process::id();
    let (before, began) = (Usage::of(process)?.resident_mib, Instant::now());
    let synthetic = Synthetic::make(&state)?;
    facts.add("commands that it is made of, carried out in memory", "s", began.elapsed().as_secs_f64());
    facts.add("memory that it takes", "MiB", Usage::of(process)?.resident_mib - before);
    for _ in 0..state.rounds {
        value::written_down(&mut facts, synthetic.metadata())?;
        value::carried_out(&mut facts, &synthetic)?;
    }
    value::bytes(&mut facts, &synthetic);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(group::alone(&mut facts, &state))?;
    runtime.block_on(group::start(&mut facts, &synthetic, state.rounds))?;
    runtime.block_on(group::leading(&mut facts, &synthetic, state.seconds))?;
    Ok(facts)
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn per_second(count: usize, began: Instant) -> f64 {
    float(count) / began.elapsed().as_secs_f64()
}

/// No count here is beyond what a `f64` holds exactly.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_is_measured_in_full() {
        let small = State { sites: 3, nodes_per_site: 5, volumes: 60, snapshots: 30, rounds: 1, seconds: 1 };
        let facts = measure(small).expect("figures").to_string();
        for what in ["memory that it takes", "snapshot of it", "renewals alone", "1 volume in 10 written to", "start"] {
            assert!(facts.contains(what), "nothing about '{what}': {facts}");
        }
        assert!(!facts.contains("NaN"), "{facts}");
    }
}
