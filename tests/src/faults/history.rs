//! A history: what was done to a cluster, what its clients asked and were answered, and what its nodes tell of their
//! sessions. In a file it is JSON, one [`Record`] in each line (`docs/faults.md` has the fields); the first is the campaign.
//!
//! All times are nanoseconds of `CLOCK_BOOTTIME`, which is one clock for all processes of a machine. So of two operations, one
//! came before the other exactly if it was answered before the other was asked.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::mark::{Found, Mark};
use super::plan::Fault;

/// One thing that has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// What all of it is about; first, and once.
    Campaign(Setting),
    /// Something was done to the cluster, and undone.
    Fault(FaultRecord),
    /// A client asked for something.
    Operation(Operation),
    /// A volume was given to another node without its owner.
    Takeover(Takeover),
    /// A volume was to be handed over by its owner.
    Handoff(Handoff),
    /// An owner that was superseded has returned.
    Kept(Kept),
    /// A node tells something of a session, or of a volume that it serves.
    Node(NodeRecord),
}

/// What a campaign is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Of this format: [`VERSION`].
    pub version: u32,
    /// Decides which faults there are, and what clients do.
    pub seed: u64,
    /// The sites. Node N of all other records is at the Nth of them, counted from 0.
    pub sites: Vec<String>,
    /// How long sessions last.
    pub session_ms: u64,
    /// The volumes. Volume N of all other records is the Nth of them, counted from 0.
    pub volumes: Vec<VolumeSetting>,
}

/// A volume, which is all zeroes at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSetting {
    /// Its name.
    pub name: String,
    /// How many blocks of 4 KiB it has.
    pub blocks: u64,
    /// Its first owner.
    pub owner: u8,
    /// How many nodes have what is flushed before that is acknowledged: N of `sync:N`, and 1 of `local`.
    #[serde(default = "one")]
    pub copies: u8,
}

/// A fault as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Which of the plan.
    pub number: u32,
    /// What it is.
    #[serde(flatten)]
    pub fault: Fault,
    /// When it began.
    pub began_ns: u64,
    /// When it was over.
    pub ended_ns: u64,
}

/// A failover, and what it reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Takeover {
    /// The volume.
    pub volume: u8,
    /// Its owner before.
    pub from: u8,
    /// Its owner from then on.
    pub to: u8,
    /// The epoch that began.
    pub epoch: u64,
    /// The bytes that had ever been written of what the owner had published last, as the metadata remembers it.
    pub published_bytes: u64,
    /// The same of what the volume has fallen back to.
    pub complete_bytes: u64,
    /// Whether the new owner was in sync, and went on with every flush that was acknowledged; `None` where nobody remembers.
    #[serde(default)]
    pub is_in_sync: Option<bool>,
    /// What the failover reported to be lost; `None` where its report did not arrive.
    pub lost_bytes: Option<u64>,
    /// Before it was asked for.
    pub invoked_ns: u64,
    /// After it was known.
    pub answered_ns: u64,
}

/// A volume that its owner was asked to hand over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// The volume.
    pub volume: u8,
    /// The node that was asked, its owner.
    pub from: u8,
    /// The node that was to own it.
    pub to: u8,
    /// The epoch that began; `None` where that was not answered, and may have happened.
    pub epoch: Option<u64>,
    /// Before it was asked for.
    pub invoked_ns: u64,
    /// After it was known.
    pub answered_ns: u64,
}

/// What a superseded owner had of the epoch that ended without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The volume.
    pub volume: u8,
    /// The epoch.
    pub epoch: u64,
    /// All blocks of what is kept of it; `None` where that is nothing but what was gone on with.
    pub found: Option<Vec<Found>>,
}

/// What a client asked for, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The volume.
    pub volume: u8,
    /// The node that it is connected to.
    pub node: u8,
    /// Which of the connections of this node's client of this volume.
    pub connection: u32,
    /// What it asks for.
    #[serde(flatten)]
    pub does: Does,
    /// Before it was sent.
    pub invoked_ns: u64,
    /// After the answer, or after it was clear that there will be none.
    pub answered_ns: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "does", rename_all = "snake_case")]
pub enum Does {
    /// To be let in.
    Attach,
    /// To write one block.
    Write {
        /// Which block.
        block: u64,
        /// The number of the write: with node and connection it is the block's [`Mark`].
        sequence: u64,
    },
    /// To make what it has written durable.
    Flush,
    /// To read blocks.
    Read {
        /// The first of them.
        first: u64,
        /// What they hold; empty where it was not told.
        found: Vec<Found>,
    },
    /// To keep what the volume holds under a name. That is decided by the metadata, and by no lease.
    Snapshot {
        /// What was kept, of all blocks; empty where it was not looked at.
        found: Vec<Found>,
    },
}

impl Does {
    /// What it has found, and in which block that begins; `None` for what finds nothing.
    pub fn found(&self) -> Option<(u64, &[Found])> {
        match self {
            Self::Read { first, found } => Some((*first, found)),
            Self::Snapshot { found } => Some((0, found)),
            Self::Attach | Self::Write { .. } | Self::Flush => None,
        }
    }
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was acknowledged.
    Done,
    /// It was answered with this error number. It may have been done all the same.
    Failed(u32),
    /// It was not let in.
    Refused,
    /// The connection has ended. It may have been done all the same, before that.
    Lost,
    /// There was no answer within a minute.
    Unanswered,
}

/// What a node tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Which node.
    pub node: u8,
    /// When.
    pub at_ns: u64,
    /// What.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// What a node can tell: see `sterna_consensus::session::trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum NodeEvent {
    /// It is about to propose something.
    Asks {
        /// What.
        what: What,
        /// The node whose session it is about.
        of: u8,
        /// The session; 0 for one that is to be opened.
        session: u64,
    },
    /// What has come of it.
    Hears {
        /// What was proposed.
        what: What,
        /// The node whose session it is about.
        of: u8,
        /// The session.
        session: u64,
        /// What came of it.
        outcome: Decision,
        /// When it was proposed.
        asked_ns: u64,
    },
    /// Its own lease is prolonged.
    Lasts {
        /// By a renewal of this session.
        session: u64,
        /// Until then it may acknowledge things.
        until_ns: u64,
    },
    /// It has applied an entry of the metadata's log.
    Decided {
        /// The entry.
        index: u64,
        /// What.
        what: What,
        /// The node whose session it is about.
        of: u8,
        /// The session.
        session: u64,
        /// What came of it.
        outcome: Decision,
    },
    /// It serves a volume from now on.
    Serves {
        /// Which.
        volume: u8,
        /// The epoch that it serves it in.
        epoch: u64,
    },
    /// It has learnt that it does not own a volume any more.
    Ends {
        /// Which.
        volume: u8,
        /// The epoch that is over.
        epoch: u64,
    },
}

/// What can be decided about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It begins.
    Open,
    /// It goes on.
    Renew,
    /// Its node ends it.
    Close,
    /// Whoever leads ends it.
    Lapse,
}

/// What came of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It was carried out.
    Done,
    /// It was refused.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Operation {
    /// Whether it was acknowledged.
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }

    /// What a write has written, if it is one; and the block.
    pub fn written(&self) -> Option<(u64, Mark)> {
        let Does::Write { block, sequence } = self.does else { return None };
        Some((block, Mark { node: self.node, connection: self.connection, sequence }))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { volume, node, connection, does, invoked_ns, answered_ns, outcome } = self;
        match does {
            Does::Attach => write!(f, "attach to volume {volume}"),
            Does::Write { block, sequence } => write!(f, "write {sequence}, of block {block} of volume {volume}"),
            Does::Flush => write!(f, "flush of volume {volume}"),
            Does::Snapshot { .. } => write!(f, "snapshot of volume {volume}"),
            // All of what it found would be too long.
            Does::Read { first, found } => {
                write!(f, "read of {} blocks from {first} on of volume {volume}", found.len())
            }
        }?;
        write!(f, " on connection {connection} at node {node}, from {invoked_ns} to {answered_ns}: {outcome:?}")
    }
}

/// Takes down what happens, from many threads.
#[derive(Debug)]
pub struct Recorder {
    inner: Mutex<(Vec<Record>, BufWriter<File>)>,
}

impl Recorder {
    /// Writes to a file, too, so that something is left where the campaign is killed.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { inner: Mutex::new((Vec::new(), BufWriter::new(file))) })
    }

    /// Takes something down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&self, record: Record) -> Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (records, file) = &mut *inner;
        serde_json::to_writer(&mut *file, &record)?;
        file.write_all(b"\n").context("the history cannot be written")?;
        records.push(record);
        Ok(())
    }

    /// All that was taken down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<Vec<Record>> {
        let (records, mut file) = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        file.flush().context("the history cannot be written")?;
        Ok(records)
    }
}

/// Reads a history from its file.
///
/// # Errors
/// The file cannot be read, a line of it is no record, or it is of another version; the message says where and why.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
    let mut records = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("cannot read {shown}"))?;
        let record = serde_json::from_str(&line).with_context(|| format!("line {number} of {shown} is no record"))?;
        records.push(record);
    }
    setting(&records).with_context(|| format!("{shown} is not a history"))?;
    Ok(records)
}

/// What a history is about.
///
/// # Errors
/// Its first record does not say so, or it is of another version.
pub fn setting(records: &[Record]) -> Result<&Setting> {
    let Some(Record::Campaign(setting)) = records.first() else {
        anyhow::bail!("its first record is not the campaign: {:?}", records.first());
    };
    ensure!(setting.version == VERSION, "it has version {}, and this program knows {VERSION}", setting.version);
    Ok(setting)
}

/// This moment.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is negative, and the sum lasts for 584 years.
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

fn one() -> u8 {
    1
}

/// Of the format of histories.
pub const VERSION: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_back_from_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let volumes = vec![VolumeSetting { name: "disk".to_owned(), blocks: 2, owner: 0, copies: 1 }];
        let setting = Setting { version: VERSION, seed: 7, sites: vec!["ams".to_owned()], session_ms: 2_000, volumes };
        let read = Does::Read { first: 0, found: vec![Found::Zeroes, "0.1.2".parse().unwrap()] };
        let operation = |does, outcome| {
            let (volume, node, connection) = (0, 0, 1);
            Record::Operation(Operation { volume, node, connection, does, invoked_ns: 1, answered_ns: 2, outcome })
        };
        let event =
            NodeEvent::Hears { what: What::Lapse, of: 1, session: 3, outcome: Decision::Unknown, asked_ns: u64::MAX };
        let fault = Fault::Kill { site: 0 };
        let written = [
            Record::Campaign(setting),
            Record::Fault(FaultRecord { number: 3, fault, began_ns: 5, ended_ns: 6 }),
            operation(Does::Attach, Outcome::Lost),
            operation(Does::Write { block: 1, sequence: 2 }, Outcome::Failed(108)),
            operation(Does::Flush, Outcome::Unanswered),
            operation(Does::Snapshot { found: vec![Found::Zeroes] }, Outcome::Done),
            operation(read, Outcome::Done),
            Record::Node(NodeRecord { node: 0, at_ns: 4, event }),
        ];
        let recorder = Recorder::new(&path).unwrap();
        written.iter().for_each(|record| recorder.add(record.clone()).unwrap());
        assert_eq!(recorder.finish().unwrap(), written);
        assert_eq!(super::read(&path).unwrap(), written);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(format!("{:#}", super::read(&path).unwrap_err()).contains("line 1 of"));
    }
}
