//! All nodes are restarted, one after the other, under clients that write. A client of the node that is restarted connects
//! again, and repeats what was not answered; those of the others notice nothing.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::check;
use super::history::{FaultRecord, Operation, Record, Setting, now_ns};
use super::plan::Fault;
use super::report::Report;
use super::stage::Stage;
use crate::node::Node;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct RollingRestart {
    /// Decides what the clients do.
    pub seed: u64,
    /// How often each node is restarted.
    pub rounds: u32,
    /// Where everything is: the nodes' directories, their logs, and the history.
    pub directory: PathBuf,
}

impl RollingRestart {
    /// Does it. What violates a promise, and what disturbs a client of a node that is not being restarted, is no error.
    ///
    /// # Errors
    /// It cannot be done: we are not root, or the cluster does not come to be, or a node does not come back.
    pub fn run(&self) -> Result<(Report, Vec<Operation>)> {
        let begun = Instant::now();
        let stage = Stage::build(&self.directory, self.seed, Vec::new(), SESSION, [1; 3])?;
        let played = stage.under_clients(|_| {
            stage.wait_until_served()?;
            for round in 0..self.rounds {
                for (site, node) in (0..).zip(&stage.nodes) {
                    stage.recorder.add(Record::Fault(restart(round * 3 + u32::from(site) + 1, site, node)?))?;
                    stage.wait_until_served()?;
                }
            }
            Ok(())
        });
        let setting = stage.setting.clone();
        let records = stage.end(played)?;
        let report = Report::of(&records, check::check(&records)?, begun.elapsed())?;
        Ok((report, disturbed(&setting, &records)))
    }
}

fn restart(number: u32, site: u8, node: &Mutex<Node>) -> Result<FaultRecord> {
    let mut node = node.lock().unwrap_or_else(PoisonError::into_inner);
    let began_ns = now_ns();
    node.terminate()?;
    node.run()?;
    Ok(FaultRecord { number, fault: Fault::Restart { site }, began_ns, ended_ns: now_ns() })
}

/// What a volume's owner did not acknowledge at a time at which it was not being restarted.
fn disturbed(setting: &Setting, records: &[Record]) -> Vec<Operation> {
    let restarts: Vec<(u8, u64, u64)> = records.iter().filter_map(restarted).collect();
    let is_disturbed = |operation: &&Operation| {
        let is_owner =
            setting.volumes.get(usize::from(operation.volume)).is_some_and(|volume| volume.owner == operation.node);
        let is_during = |&(site, began_ns, ended_ns): &(u8, u64, u64)| {
            site == operation.node && operation.invoked_ns <= ended_ns && operation.answered_ns >= began_ns
        };
        is_owner && !operation.is_done() && !restarts.iter().any(is_during)
    };
    let operations = records.iter().filter_map(|record| match record {
        Record::Operation(operation) => Some(operation),
        _ => None,
    });
    operations.filter(is_disturbed).cloned().collect()
}

fn restarted(record: &Record) -> Option<(u8, u64, u64)> {
    match record {
        Record::Fault(FaultRecord { fault: Fault::Restart { site }, began_ns, ended_ns, .. }) => {
            Some((*site, *began_ns, *ended_ns))
        }
        _ => None,
    }
}

/// That of the product.
const SESSION: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::history::{Does, Outcome, VERSION, VolumeSetting};

    #[test]
    fn a_client_is_disturbed_by_anything_but_the_restart_of_its_own_node() {
        let volumes = vec![VolumeSetting { name: "disk".to_owned(), blocks: 1, owner: 0, copies: 1 }];
        let setting = Setting { version: VERSION, seed: 1, sites: Vec::new(), session_ms: 1, volumes };
        let restart = |site, began_ns| {
            Record::Fault(FaultRecord { number: 1, fault: Fault::Restart { site }, began_ns, ended_ns: began_ns + 100 })
        };
        let flush = |node, invoked_ns, outcome| {
            let (volume, connection, answered_ns) = (0, 1, invoked_ns + 10);
            let does = Does::Flush;
            Record::Operation(Operation { volume, node, connection, does, invoked_ns, answered_ns, outcome })
        };
        let disturbed = |record| disturbed(&setting, &[restart(0, 1_000), restart(1, 2_000), record]).len();
        assert_eq!(disturbed(flush(0, 1_050, Outcome::Lost)), 0);
        assert_eq!(disturbed(flush(0, 2_050, Outcome::Done)), 0);
        assert_eq!(disturbed(flush(0, 2_050, Outcome::Failed(108))), 1);
        assert_eq!(disturbed(flush(0, 980, Outcome::Lost)), 1);
        assert_eq!(disturbed(flush(1, 2_050, Outcome::Refused)), 0, "it does not own the volume");
    }
}
