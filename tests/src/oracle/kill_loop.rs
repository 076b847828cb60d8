//! Load, SIGKILL, restart, verify: again and again on one disk, with one oracle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{self, Answered, Ending, Load};
use super::{Crash, Oracle, index};
use crate::client::Style;
use crate::disk_server::DiskServer;
use crate::oracle::block::BLOCK_BYTES;
use crate::random::Random;
use crate::tool::until;

/// How much of a server's log goes into a message, in lines.
const LOG_TAIL_LINES: usize = 40;

/// What to do to a server.
///
/// ```no_run
/// # use sterna_tests::{oracle::kill_loop::KillLoop, server::Server};
/// let mut server = Server::builder().file("disk", 16 << 20).start()?;
/// KillLoop::new(1).cycles(20).run(&mut server, "disk")?;
/// # anyhow::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct KillLoop {
    seed: u64,
    cycles: u32,
    longest_load: Duration,
    load: Load,
}

impl KillLoop {
    /// Ten cycles of up to a third of a second each. The seed decides what is written and when the server is killed;
    /// how far it has come by then is up to the machine.
    pub fn new(seed: u64) -> Self {
        Self { seed, cycles: 10, longest_load: Duration::from_millis(300), load: Load::default() }
    }

    /// How often the server is killed.
    pub fn cycles(mut self, cycles: u32) -> Self {
        self.cycles = cycles;
        self
    }

    /// How long it runs at most before it is killed.
    pub fn longest_load(mut self, longest: Duration) -> Self {
        self.longest_load = longest;
        self
    }

    /// How it is put under load; the number of requests does not count.
    pub fn load(mut self, load: Load) -> Self {
        self.load = Load { requests: u64::MAX, ..load };
        self
    }

    /// Runs all cycles on an export that is all zeros, and whose size is a whole number of blocks. The server runs when
    /// it returns, and holds what the oracle says.
    ///
    /// # Errors
    /// The disk holds what it may not after a cycle, or the server fails in any other way than by being killed; with the
    /// seed, the cycle and the end of the server's log.
    pub fn run(&self, server: &mut dyn DiskServer, export: &str) -> Result<Answered> {
        let (_, size_bytes) = server.disk(export).attach(Style::Structured)?;
        ensure!(size_bytes % BLOCK_BYTES as u64 == 0, "{size_bytes} bytes are no whole number of blocks");
        let mut oracle = Oracle::new(self.seed, index(size_bytes / BLOCK_BYTES as u64));
        let (mut random, mut answered) = (Random::new(self.seed), Answered::default());
        for cycle in 0..self.cycles {
            self.cycle(server, export, &mut oracle, &mut random, &mut answered).with_context(|| {
                let log = server.log();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
                format!("in cycle {cycle} of the kill loop with seed {}; the server's log:\n{tail}", self.seed)
            })?;
        }
        ensure!(
            answered.writes > 0 && answered.flushes > 0,
            "the server was killed before it did anything: {answered:?}"
        );
        Ok(answered)
    }

    fn cycle(
        &self,
        server: &mut dyn DiskServer,
        export: &str,
        oracle: &mut Oracle,
        random: &mut Random,
        answered: &mut Answered,
    ) -> Result<()> {
        let disk = server.disk(export);
        let longest = u64::try_from(self.longest_load.as_micros())?.max(1);
        let until_kill = Duration::from_micros(random.below(longest));
        let is_killed = AtomicBool::new(false);
        let (killed, ending) = thread::scope(|scope| {
            let loading = scope.spawn(|| {
                let ending = self.load.run(&disk, oracle, random, answered);
                (ending, is_killed.load(Ordering::SeqCst))
            });
            // A load that has ended by itself is not waited for.
            let _ = until(until_kill, || Ok(loading.is_finished()));
            is_killed.store(true, Ordering::SeqCst);
            let killed = server.kill();
            (killed, loading.join())
        });
        killed?;
        let (ending, was_killed) = ending.expect("the load does not panic");
        ensure!(ending? == Ending::Cut && was_killed, "the server went away before it was killed");
        oracle.crash(Crash::Process);
        server.restart()?;
        load::verify(&disk, oracle)
    }
}
