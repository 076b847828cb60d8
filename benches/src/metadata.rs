//! The metadata of a cluster of three sites on an emulated wide-area network: what a decision costs, and when others see it.
//!
//! Times are those of whole commands, process and all. *commit* is a command that the node that leads carries out with one entry
//! of the log and no read (the revocation of a token that there is not): its floor is one round trip to the nearest other voter.
//! *seen* is how long `volume list` takes at another site from the moment on at which `volume create` has answered at the
//! first: it answers with everything that was decided before, or not at all.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::cluster::Cluster;
use sterna_tests::node::Node;
use sterna_tests::wan::{Change, Settings, Topology, Wan, Ways};

use crate::facts::Facts;
use crate::goal::Goal;

/// How often.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often each is measured; the medians are reported.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// Measures all of it. Needs root.
///
/// # Errors
/// The network or the cluster does not come to be, or a command fails.
pub(crate) fn measure(measure: Measure) -> Result<Facts> {
    let pairs = PAIRS.map(|(one, other, round_trip_ms)| format!("{one}-{other} {round_trip_ms} ms")).join(", ");
    let mut facts =
        Facts::new(format!("the metadata over three sites ({pairs} there and back), {} rounds", measure.rounds));
    let wan = Wan::start(Topology::of(&SITES, Settings::default())?)?;
    for (one, other, round_trip_ms) in PAIRS {
        let change = Change { delay: Some(format!("{}ms", round_trip_ms / 2).parse()?), ..Change::default() };
        wan.set(one, other, Ways::Both, &change)?;
    }
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start_on(Arc::new(wan), directory.path(), &SITES)?;
    let status = cluster.nodes[0].value(["cluster", "status"])?;
    round_trips(&mut facts, &status)?;
    let leader = status["leader"].as_str().context("a leader")?;
    let leader = SITES.iter().position(|site| leader == format!("{site}-1")).context("one of the sites")?;
    for number in 0..measure.rounds {
        commit(&mut facts, &cluster.nodes[leader], leader)?;
        for (site, node) in cluster.nodes.iter().enumerate() {
            create(&mut facts, &cluster, site, node, leader, number)?;
        }
    }
    Ok(facts)
}

/// What the node of the first site says of the ways to the others, beside what was asked for.
fn round_trips(facts: &mut Facts, status: &Value) -> Result<()> {
    for node in status["nodes"].as_array().context("a list of nodes")? {
        let (site, measured) = (node["site"].as_str().context("a site")?, node["round_trip_ms"].as_f64());
        let measured = measured.with_context(|| format!("{site} does not answer"))?;
        if site != SITES[0] {
            facts.add(&format!("round trip to {site}, as `cluster status` at {} shows it", SITES[0]), "ms", measured);
        }
    }
    Ok(())
}

/// One entry of the log, from the node that leads.
fn commit(facts: &mut Facts, leader: &Node, site: usize) -> Result<()> {
    let begun = Instant::now();
    let ended = leader.sterna(["cluster", "token", "revoke", "0000000000000000"]).run()?;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    ensure!(ended.stderr.contains("there is no token"), "it was not decided: {ended}");
    let nearest = (0..SITES.len())
        .filter(|&other| other != site)
        .map(|other| round_trip_ms(site, other))
        .fold(f64::MAX, f64::min);
    facts.add("commit at the node that leads", "ms", ms);
    let ratio = "commit at the node that leads, to one round trip to the nearest voter";
    facts.add(ratio, "x", ms / nearest);
    facts.aim(ratio, Goal::AtMost(1.2));
    Ok(())
}

/// A volume that is made at one site, and seen at the others.
fn create(facts: &mut Facts, cluster: &Cluster, site: usize, node: &Node, leader: usize, number: u32) -> Result<()> {
    let name = format!("{}-{number}", SITES[site]);
    let place = |site: usize| if site == leader { "that leads" } else { "that does not lead" };
    let begun = Instant::now();
    node.sterna(["volume", "create", &name, "--size", "1G"]).succeed()?;
    facts.add(&format!("create a volume at a site {}", place(site)), "ms", begun.elapsed().as_secs_f64() * 1e3);
    for (other, elsewhere) in cluster.nodes.iter().enumerate().filter(|(other, _)| *other != site) {
        let begun = Instant::now();
        ensure!(elsewhere.volumes()?.contains(&name), "a volume that was made is not seen");
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        let longest = (0..SITES.len()).map(|site| round_trip_ms(other, site)).fold(0.0, f64::max);
        let seen = format!("seen at a site {}, in its longest round trips", place(other));
        facts.add(&seen, "x", ms / longest);
        facts.aim(&seen, Goal::AtMost(2.0));
    }
    Ok(())
}

fn round_trip_ms(one: usize, other: usize) -> f64 {
    let is_pair = |(a, b, _): &&(&str, &str, u32)| {
        (SITES[one], SITES[other]) == (*a, *b) || (SITES[other], SITES[one]) == (*a, *b)
    };
    PAIRS.iter().find(is_pair).map_or(0.0, |(_, _, ms)| f64::from(*ms))
}

const SITES: [&str; 3] = ["ams", "chi", "icn"];
/// Amsterdam, Chicago, Seoul; milliseconds there and back.
const PAIRS: [(&str, &str, u32); 3] = [("ams", "chi", 100), ("chi", "icn", 160), ("ams", "icn", 250)];
