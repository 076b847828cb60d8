//! Faults one upon the other under clients that write, while all volumes are handed over again and again; and in the end a judgement.
//!
//! The ways between the sites are shorter than between continents, and sessions shorter than what they are by themselves: so
//! there are many faults in a minute, and sessions lapse. Nothing but that is other than in the product.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::check;
use super::handoff::move_about;
use super::inflict::Target;
use super::plan::{Plan, Planned};
use super::report::Report;
use super::stage::{Stage, usual};
use crate::three_sites::SITES;

/// What is to be done.
///
/// ```no_run
/// # use sterna_tests::faults::campaign::Campaign;
/// let report = Campaign { seed: 7, faults: 10, with_members: false, directory: "/tmp/campaign".into() }.run(|_| {})?;
/// assert!(report.violations.is_empty(), "{report}");
/// # anyhow::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Decides which faults there are.
    pub seed: u64,
    /// How many.
    pub faults: u32,
    /// Whether flushes of two of the three volumes wait for others, and these are struck and go on in their turns.
    pub with_members: bool,
    /// Where everything is: the nodes' directories, their logs, and the history.
    pub directory: PathBuf,
}

impl Campaign {
    /// Which faults there are, and when.
    pub fn plan(&self) -> Plan {
        Plan::with_members(self.seed, self.faults, 3, if self.with_members { &[1, 2] } else { &[] })
    }

    /// Does it. `tell` is shown each fault as it begins. What violates a promise is in the report, and no error.
    ///
    /// # Errors
    /// It cannot be done: we are not root, or the cluster does not come to be, or does not come back.
    pub fn run(&self, tell: impl Fn(&Planned)) -> Result<Report> {
        let begun = Instant::now();
        let copies = if self.with_members { [1, 2, 3] } else { [1; 3] };
        let stage = Stage::build(&self.directory, self.seed, settings(), SESSION, copies)?;
        let plan = self.plan();
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(one, other)| (one, other, Mutex::new(())));
        let usual = usual()?;
        let played = stage.under_clients(|stop| {
            let Stage { nodes, wan, recorder, failovers, .. } = &stage;
            let target = Target { sites: &SITES, nodes, wan, pairs: &pairs, usual, failovers, recorder, stop };
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                let (volumes, sites, is_over) = (0..u8::try_from(SITES.len())?, u8::try_from(SITES.len())?, &is_over);
                let movers: Vec<_> = volumes
                    .map(|volume| {
                        scope.spawn(move || move_about(failovers, recorder, (volume, sites), self.seed, is_over))
                    })
                    .collect();
                let inflicted = target.inflict(&plan, tell);
                is_over.store(true, Ordering::Relaxed);
                for mover in movers {
                    mover.join().map_err(|_| anyhow!("a mover has panicked"))??;
                }
                inflicted
            })
        });
        let records = stage.end(played)?;
        Report::of(&records, check::check(&records)?, begun.elapsed())
    }
}

/// Elections that suit the network, and a store that has much to do.
fn settings() -> Vec<(&'static str, String)> {
    let settings = [
        ("cluster", "heartbeat = \"150ms\""),
        ("cluster", "election_min = \"600ms\""),
        ("cluster", "election_max = \"1200ms\""),
        // Who proposes something soon hears that nobody leads.
        ("cluster", "patience = \"2s\""),
        // Much is sealed and published, so that there is much to go wrong.
        ("journal", "seal_age = \"500ms\""),
    ];
    settings.map(|(section, line)| (section, line.to_owned())).to_vec()
}

/// Shorter than the longer ones of the faults.
const SESSION: Duration = Duration::from_secs(2);
