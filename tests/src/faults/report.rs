//! What a history amounts to, in figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::check::Violation;
use super::history::{Decision, Does, NodeEvent, NodeRecord, Outcome, Record, What, setting};

/// The figures of a campaign.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Decided which faults there were.
    pub seed: u64,
    /// How long it took, with all that came before and after.
    pub seconds: f64,
    /// How many faults of each kind there were.
    pub faults: BTreeMap<String, u32>,
    /// How often a session was ended because it was not renewed.
    pub sessions_lapsed: usize,
    /// How many sessions were opened.
    pub sessions_opened: usize,
    /// How often a volume was given to another node without its owner.
    pub takeovers: u32,
    /// How many of these nodes were in sync, for certain.
    pub in_sync: u32,
    /// How often its owner has handed a volume over, as that was answered.
    pub handoffs: u32,
    /// How many of the failovers told what is lost; the answers of the others did not arrive.
    pub reported: u32,
    /// How many of the owners before have returned, and what they had was looked at.
    pub settled: u32,
    /// What was acknowledged.
    pub acknowledged: Counts,
    /// What was answered with ESHUTDOWN, or had its connection end.
    pub refused: u64,
    /// The same, as long as nobody knows whether it was done.
    pub lost: u64,
    /// Attempts to be let in that succeeded, and that did not.
    pub attached: u64,
    /// Those that did not.
    pub not_attached: u64,
    /// Promises that were not kept.
    #[serde(serialize_with = "as_text")]
    pub violations: Vec<Violation>,
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Writes of one block.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Blocks that were read.
    pub blocks_read: u64,
}

impl Report {
    /// That of a history in which this was found.
    ///
    /// # Errors
    /// It is no history.
    pub fn of(records: &[Record], violations: Vec<Violation>, took: Duration) -> Result<Self> {
        let mut report = Self {
            seed: setting(records)?.seed,
            seconds: took.as_secs_f64(),
            faults: BTreeMap::new(),
            sessions_lapsed: decided(records, What::Lapse),
            sessions_opened: decided(records, What::Open),
            takeovers: 0,
            in_sync: 0,
            handoffs: 0,
            reported: 0,
            settled: 0,
            acknowledged: Counts::default(),
            refused: 0,
            lost: 0,
            attached: 0,
            not_attached: 0,
            violations,
        };
        records.iter().for_each(|record| report.count(record));
        Ok(report)
    }

    /// How many faults there were.
    pub fn fault_count(&self) -> u32 {
        self.faults.values().sum()
    }

    fn count(&mut self, record: &Record) {
        let operation = match record {
            Record::Fault(fault) => {
                *self.faults.entry(fault.fault.kind().to_owned()).or_default() += 1;
                return;
            }
            Record::Operation(operation) => operation,
            Record::Takeover(takeover) => {
                self.takeovers += 1;
                self.in_sync += u32::from(takeover.is_in_sync == Some(true));
                self.reported += u32::from(takeover.lost_bytes.is_some());
                return;
            }
            Record::Kept(_) => {
                self.settled += 1;
                return;
            }
            Record::Handoff(handoff) => {
                self.handoffs += u32::from(handoff.epoch.is_some());
                return;
            }
            Record::Campaign(_) | Record::Node(_) => return,
        };
        match (&operation.does, operation.outcome) {
            (Does::Attach, Outcome::Done) => self.attached += 1,
            (Does::Attach, _) => self.not_attached += 1,
            (Does::Write { .. }, Outcome::Done) => self.acknowledged.writes += 1,
            (Does::Flush, Outcome::Done) => self.acknowledged.flushes += 1,
            (Does::Read { found, .. } | Does::Snapshot { found }, Outcome::Done) => {
                self.acknowledged.blocks_read += found.len() as u64;
            }
            (_, Outcome::Failed(_) | Outcome::Refused) => self.refused += 1,
            (_, Outcome::Lost | Outcome::Unanswered) => self.lost += 1,
        }
    }
}

/// How often this was decided about a session.
fn decided(records: &[Record], wanted: What) -> usize {
    let sessions = records.iter().filter_map(|record| match record {
        Record::Node(NodeRecord { event: NodeEvent::Decided { what, of, session, outcome, .. }, .. })
            if (*what, *outcome) == (wanted, Decision::Done) =>
        {
            Some((*of, *session))
        }
        _ => None,
    });
    sessions.collect::<BTreeSet<_>>().len()
}

fn as_text<S: serde::Serializer>(violations: &[Violation], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(violations.iter().map(ToString::to_string))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(
            f,
            "{} faults in {:.0} s, seed {}: {}",
            self.fault_count(),
            self.seconds,
            self.seed,
            kinds.join(", ")
        )?;
        let Self { sessions_opened, sessions_lapsed, takeovers, in_sync, handoffs, reported, settled, .. } = self;
        writeln!(f, "sessions: {sessions_opened} opened, {sessions_lapsed} lapsed")?;
        writeln!(
            f,
            "failovers: {takeovers}, {in_sync} of them to who was in sync; the loss reports of {reported} were read; what the owner \
             still had was looked at after {settled}"
        )?;
        writeln!(f, "handoffs: {handoffs}")?;
        let Counts { writes, flushes, blocks_read } = self.acknowledged;
        writeln!(f, "acknowledged: {writes} writes, {flushes} flushes, {blocks_read} blocks read")?;
        writeln!(f, "not acknowledged: {} answered with an error, {} without an answer", self.refused, self.lost)?;
        writeln!(f, "connections: {}, and {} that were not let in", self.attached, self.not_attached)?;
        writeln!(f, "violations: {}", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}
