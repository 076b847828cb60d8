//! What a node has to do while its clients are measured: seal what another volume's client writes, collect garbage, scrub.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::tool;

use crate::fio;
use crate::work::{Pattern, Work};

/// Runs `work` while all of that goes on, and returns when none of it does any more.
///
/// # Errors
/// That of `work`; or some of the rest fails, or has not begun.
pub(crate) fn during<T>(node: &Node, seconds: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if !node.volumes()?.iter().any(|name| name == VOLUME) {
        node.create(VOLUME, VOLUME_BYTES)?;
    }
    let writer = fio::command(&node.disk(VOLUME), WRITES, seconds + START_SECONDS).args([RATE]).spawn()?;
    let has_written = || Ok(node.value(["volume", "show", VOLUME])?["open"]["unsealed_bytes"].as_u64() > Some(0));
    ensure!(tool::until(Duration::from_secs(START_SECONDS.into()), has_written)?, "nothing is written behind");
    let is_over = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        let commands = ["gc", "scrub"].map(|command| scope.spawn(|| again_and_again(node, command, &is_over)));
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        for command in commands {
            command.join().map_err(|_| anyhow!("a thread has panicked"))??;
        }
        done
    });
    // Killed, since it would go on for as long as it takes to start.
    drop(writer);
    done
}

fn again_and_again(node: &Node, command: &str, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        node.sterna([command]).succeed()?;
    }
    Ok(())
}

const VOLUME: &str = "behind";
const VOLUME_BYTES: u64 = 256 << 20;

/// A quarter of a gigabyte in eight seconds: a seal follows the other, and neither the client nor the server is full with it.
const WRITES: Work = Work::new(Pattern::RandomWrite, 64, 4);
const RATE: &str = "--rate=32m";

/// More than fio takes to begin, on any machine.
const START_SECONDS: u32 = 30;
