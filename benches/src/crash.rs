//! `kill -9` under load, again and again: what was acknowledged, and what was flushed, is there afterwards.
//!
//! Two loops on the volumes of one node, which seals as often as it can be told to, so that kills hit every step of a
//! seal: one in which fio verifies what it has flushed, and one in which an oracle judges every single block. It ends with
//! the first loss; what it reports is how much was tried.

use std::time::Duration;

use anyhow::Result;
use sterna_tests::fio_loop::FioLoop;
use sterna_tests::node::Node;
use sterna_tests::oracle::kill_loop::KillLoop;
use sterna_tests::oracle::load::Load;

use crate::facts::Facts;
use crate::goal::Goal;

/// Up to this long from the beginning of the load to the kill.
const LONGEST_LOAD: Duration = Duration::from_millis(700);

/// Kills the node `cycles` times under fio, and as often under the oracle's load.
///
/// # Errors
/// Something was lost, with where and when.
pub(crate) fn measure(cycles: u32, seed: u64) -> Result<Facts> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::init(directory.path())?;
    std::fs::write(node.data().join("sterna.toml"), "[journal]\nseal_after = \"1M\"\nlimit = \"64M\"\n")?;
    node.run()?;
    for (volume, size) in [("fio", "64M"), ("oracle", "16M")] {
        node.sterna(["volume", "create", volume, "--size", size]).succeed()?;
    }
    let progress = |cycle| eprintln!("fio: {cycle} of {cycles}");
    let hits = FioLoop::new(seed, cycles, LONGEST_LOAD).run(&mut node, "fio", progress)?;
    let load = Load { connections: 2, depth: 16, ..Load::default() };
    let answered = KillLoop::new(seed).cycles(cycles).longest_load(LONGEST_LOAD).load(load).run(&mut node, "oracle")?;
    for volume in ["fio", "oracle"] {
        node.sterna(["volume", "snapshot", volume, "end"]).succeed()?;
        node.sterna(["volume", "verify", &format!("{volume}@end")]).succeed()?;
    }
    node.terminate()?;
    let mut facts = Facts::new(format!("kill -9 under load, seed {seed}: nothing was lost"));
    facts.add("kills under fio, all that it had flushed verified after each", "kills", f64::from(cycles));
    facts.add("of these, kills in the middle of writes", "kills", f64::from(hits));
    facts.add("kills under the oracle's load, every block judged after each", "kills", f64::from(cycles));
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    for (what, count) in [("writes", answered.writes), ("flushes", answered.flushes), ("reads", answered.reads)] {
        facts.add(&format!("{what} answered under the oracle's load"), what, count as f64);
    }
    facts.aim("kills under fio, all that it had flushed verified after each", Goal::AtLeast(200.0));
    facts.aim("kills under the oracle's load, every block judged after each", Goal::AtLeast(200.0));
    Ok(facts)
}
