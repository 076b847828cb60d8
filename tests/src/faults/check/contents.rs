//! What was acknowledged is there, and nothing else.
//!
//! Each block is a register of its own: a write that was acknowledged is what later reads find until there is another one; a
//! write that was not may have been done by the time at which its client knew that there is no answer, and not later; a block
//! that was never written holds zeroes. That a node is killed or restarted changes nothing of this. A failover does, and says
//! exactly what: the epoch that it begins holds the first so many of all writes before; where its owner was in sync, at least all that
//! were before the last flush which was acknowledged, and all that was published. A handoff loses none of them.

use std::collections::{BTreeMap, HashSet};

use super::epochs::Epochs;
use super::lineage::Lineage;
use super::linear::{self, Call, NotLinear, RegisterOp, Registers};
use super::{Promise, Violation};
use crate::faults::history::{Does, Handoff, Kept, Operation, Outcome, Record, Setting, Takeover};
use crate::faults::mark::{Found, Mark};
use crate::oracle::block::BLOCK_BYTES;

/// Reads that found what they cannot have, failovers that reported what is not so, and questions that were answered with an
/// error that nobody may get, or never.
pub fn check(setting: &Setting, records: &[Record], epochs: &Epochs) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut by_epoch: BTreeMap<u8, BTreeMap<u64, Vec<&Operation>>> = BTreeMap::new();
    for record in records {
        let Record::Operation(operation) = record else { continue };
        violations.extend(check_answer(operation));
        if let Some(epoch) = epochs.get(operation) {
            by_epoch.entry(operation.volume).or_default().entry(epoch).or_default().push(operation);
        }
    }
    for (volume, mut by_epoch) in by_epoch {
        by_epoch.values_mut().for_each(|operations| operations.sort_by_key(|operation| operation.invoked_ns));
        let blocks = setting.volumes.get(usize::from(volume)).map_or(0, |volume| volume.blocks);
        let takeovers = records.iter().filter_map(|record| match record {
            Record::Takeover(takeover) if takeover.volume == volume => Some((takeover.epoch, takeover)),
            _ => None,
        });
        let kept = records.iter().filter_map(|record| match record {
            Record::Kept(kept) if kept.volume == volume => Some((kept.epoch, kept)),
            _ => None,
        });
        let handoff = records.iter().find_map(|record| match record {
            Record::Handoff(handoff) if handoff.volume == volume => Some(handoff),
            _ => None,
        });
        let (takeovers, kept) = (takeovers.collect(), kept.collect());
        let volume = Volume { number: volume, blocks, takeovers, handoff, kept, violations: Vec::new() };
        violations.extend(volume.check(&by_epoch));
    }
    violations
}

/// A volume that is being checked, one epoch after the other.
struct Volume<'a> {
    number: u8,
    blocks: u64,
    /// By the epoch that each began.
    takeovers: BTreeMap<u64, &'a Takeover>,
    /// The first that was asked for. One that was not answered may be what began an epoch, and so may each behind it.
    handoff: Option<&'a Handoff>,
    /// By the epoch that each is left of.
    kept: BTreeMap<u64, &'a Kept>,
    violations: Vec<Violation>,
}

impl<'a> Volume<'a> {
    fn check(mut self, by_epoch: &BTreeMap<u64, Vec<&'a Operation>>) -> Vec<Violation> {
        // All that the volume may have been through.
        let mut lineages = vec![Lineage::default()];
        let last = by_epoch.keys().chain(self.takeovers.keys()).copied().max().unwrap_or(FIRST_EPOCH);
        for epoch in FIRST_EPOCH..=last {
            let operations = by_epoch.get(&epoch).map_or(&[][..], Vec::as_slice);
            if epoch > FIRST_EPOCH {
                lineages = self.fall_back(epoch, &lineages, operations);
            }
            if lineages.is_empty() {
                return self.violations;
            }
            let begins: Vec<_> = lineages.iter().map(|lineage| lineage.contents(self.blocks)).collect();
            lineages.iter_mut().for_each(|lineage| lineage.extend(operations));
            let left = self.left(epoch, &lineages, operations);
            let operations: Vec<_> = operations.iter().copied().chain(&left).collect();
            Self::check_epoch((self.number, self.blocks), &begins, &operations, &mut self.violations);
        }
        self.violations
    }

    /// What the volume may have been through when this epoch began; nothing where the failover's report cannot be right.
    fn fall_back(&mut self, epoch: u64, lineages: &[Lineage], operations: &[&Operation]) -> Vec<Lineage> {
        let Some(takeover) = self.takeovers.get(&epoch).copied() else {
            if self.handoff.is_some() {
                return self.go_on(epoch, lineages, operations);
            }
            if let Some(operation) = operations.iter().find(|operation| operation.does != Does::Attach) {
                let what = format!("nothing tells how epoch {epoch} began: {operation}");
                self.violations.push(Violation { promise: Promise::Contents, at_ns: operation.invoked_ns, what });
            }
            return Vec::new();
        };
        let Takeover { published_bytes, complete_bytes, is_in_sync, lost_bytes, answered_ns, .. } = *takeover;
        let difference = published_bytes.checked_sub(complete_bytes);
        let mut report = |why: String| {
            let (number, promise) = (self.number, Promise::LossReport);
            let what = format!("the failover of volume {number} to epoch {epoch} {why}: {takeover:?}");
            self.violations.push(Violation { promise, at_ns: answered_ns, what });
        };
        if difference.is_none() || lost_bytes.is_some_and(|lost_bytes| difference != Some(lost_bytes)) {
            report("reports a difference that is none".to_owned());
        }
        let block_bytes = BLOCK_BYTES as u64;
        if published_bytes % block_bytes != 0 || complete_bytes % block_bytes != 0 {
            report("reports parts of blocks, and only whole ones were written".to_owned());
        }
        let counts: Vec<_> = lineages.iter().map(Lineage::counts).collect();
        let first = |bytes: u64| lineages.iter().flat_map(move |lineage| lineage.first(bytes / block_bytes));
        if first(published_bytes).next().is_none() {
            report(format!("reports that more was published than was written, for certain and perhaps: {counts:?}"));
        }
        let reported = first(complete_bytes).filter(|_| is_in_sync != Some(true));
        let flushed = lineages.iter().filter(|_| is_in_sync != Some(false));
        let flushed = flushed.flat_map(|lineage| lineage.flushed(published_bytes / block_bytes));
        let possible: Vec<_> = reported.chain(flushed).collect();
        let seen = first_seen(operations);
        let fits = |lineage: &Lineage| {
            let contents = lineage.contents(self.blocks);
            seen.iter().all(|(block, found)| contents.get(*block).is_some_and(|held| held == found))
        };
        let (found, count) =
            (possible.iter().filter(|lineage| fits(lineage)).cloned().collect::<Vec<_>>(), possible.len());
        if found.is_empty() {
            let differs = possible.first().map(|lineage| {
                let contents = lineage.contents(self.blocks);
                let differs = seen.iter().filter(|(block, found)| contents.get(**block) != Some(found));
                differs.map(|(block, found)| (*block, *found, contents.get(*block).copied().flatten())).next()
            });
            report(format!(
                "fell back to none of the {count} states that it reports; block, found and reported: {differs:?}"
            ));
        }
        found
    }

    /// What the volume may have been through when this epoch began by a handoff: all that was written before.
    fn go_on(&mut self, epoch: u64, lineages: &[Lineage], operations: &[&Operation]) -> Vec<Lineage> {
        let possible: Vec<_> = lineages.iter().flat_map(Lineage::whole).collect();
        let seen = first_seen(operations);
        let differing = |lineage: &Lineage| {
            let contents = lineage.contents(self.blocks);
            seen.iter()
                .find(|(block, found)| contents.get(**block) != Some(found))
                .map(|(block, found)| (*block, *found, contents.get(*block).copied().flatten()))
        };
        let found: Vec<_> = possible.iter().filter(|lineage| differing(lineage).is_none()).cloned().collect();
        if found.is_empty() {
            let (number, count) = (self.number, possible.len());
            let differs = possible.first().and_then(differing);
            let what = format!(
                "volume {number} was handed over, and epoch {epoch} did not begin with all that was written before, for \
                 certain and perhaps; {count} states are possible; block, found and written: {differs:?}"
            );
            let at_ns = operations.first().map_or(0, |first| first.invoked_ns);
            self.violations.push(Violation { promise: Promise::Contents, at_ns, what });
        }
        found
    }

    /// What its owner had at the end of an epoch that somebody else ended, as a read behind all others. Where nothing is kept,
    /// that is what was gone on with.
    fn left(&self, epoch: u64, lineages: &[Lineage], operations: &[&Operation]) -> Option<Operation> {
        let Kept { found, .. } = *self.kept.get(&epoch)?;
        let found = match found {
            Some(found) => found.clone(),
            None => {
                let resumed = self.takeovers.get(&(epoch + 1))?.complete_bytes / BLOCK_BYTES as u64;
                let possible: Vec<_> = lineages.iter().flat_map(|lineage| lineage.first(resumed)).collect();
                // With several possibilities this shows nothing.
                let [only] = possible.as_slice() else { return None };
                let shown = |held: Option<Mark>| held.map_or(Found::Zeroes, Found::Mark);
                only.contents(self.blocks).into_iter().map(shown).collect()
            }
        };
        let answered_ns = operations.iter().map(|operation| operation.answered_ns).max().unwrap_or(0) + 1;
        let last = operations.last();
        let (node, connection) = last.map_or((0, 0), |last| (last.node, last.connection));
        let (volume, does, outcome) = (self.number, Does::Read { first: 0, found }, Outcome::Done);
        Some(Operation { volume, node, connection, does, invoked_ns: answered_ns, answered_ns, outcome })
    }

    /// What was done in one epoch, which began with one of these contents.
    fn check_epoch(
        (volume, count): (u8, u64),
        begins: &[Vec<Option<Mark>>],
        operations: &[&Operation],
        violations: &mut Vec<Violation>,
    ) {
        let mut blocks: BTreeMap<u64, Block<'_>> = BTreeMap::new();
        for operation in operations {
            violations.extend(take(volume, count, operation, &mut blocks));
        }
        for (number, block) in &blocks {
            let held = |contents: &Vec<Option<Mark>>| usize::try_from(*number).ok().and_then(|at| *contents.get(at)?);
            let begins: HashSet<_> = begins.iter().map(held).collect();
            violations.extend(block.check(begins, volume, *number));
        }
    }
}

/// What was found in blocks before they were written in the epoch.
fn first_seen(operations: &[&Operation]) -> BTreeMap<usize, Option<Mark>> {
    let mut seen = BTreeMap::new();
    let mut written = HashSet::new();
    for operation in operations {
        if let Some((block, _)) = operation.written() {
            written.insert(block);
        }
        let Some((first, found)) = operation.does.found() else { continue };
        for (block, found) in (first..).zip(found).filter(|(block, _)| !written.contains(block)) {
            let value = match found {
                Found::Zeroes => None,
                Found::Mark(mark) => Some(*mark),
                // That is wrong by itself.
                Found::Wrong(_) => continue,
            };
            if let Ok(block) = usize::try_from(block) {
                seen.entry(block).or_insert(value);
            }
        }
    }
    seen
}

/// What was done to one block, and by which operations.
#[derive(Default)]
struct Block<'a> {
    calls: Vec<Call<RegisterOp<Option<Mark>>>>,
    operations: Vec<&'a Operation>,
}

impl<'a> Block<'a> {
    fn add(&mut self, op: RegisterOp<Option<Mark>>, operation: &'a Operation) {
        self.calls.push(Call { op, invoked_ns: operation.invoked_ns, answered_ns: operation.answered_ns });
        self.operations.push(operation);
    }

    fn check(&self, begins: HashSet<Option<Mark>>, volume: u8, block: u64) -> Option<Violation> {
        let error = linear::check(&Registers::new(), begins, &self.calls).err()?;
        let (NotLinear::NoPlace { call, .. } | NotLinear::TooMany { call }) = error;
        let (operation, op) = (self.operations[call], &self.calls[call].op);
        let at_ns = operation.answered_ns;
        let before = self.operations.iter().zip(&self.calls).filter(|(other, _)| other.invoked_ns < at_ns);
        let mut writes: Vec<_> = before.filter(|(other, _)| other.written().is_some()).collect();
        writes.sort_by_key(|(other, _)| other.invoked_ns);
        let last: Vec<_> = writes.iter().rev().take(SHOWN_WRITES).map(|(_, call)| call).collect();
        let what = format!(
            "block {block} of volume {volume}: {op:?} by {operation}: {error}; the last writes before it, the newest first: \
             {last:?}"
        );
        Some(Violation { promise: Promise::Contents, at_ns, what })
    }
}

/// Adds an operation to the blocks that it is about. What no client ever writes is wrong at once.
fn take<'a>(volume: u8, count: u64, operation: &'a Operation, blocks: &mut BTreeMap<u64, Block<'a>>) -> Vec<Violation> {
    let wrong = |what: String| Violation { promise: Promise::Contents, at_ns: operation.answered_ns, what };
    if let Some((block, mark)) = operation.written() {
        let op = if operation.is_done() { RegisterOp::Write(Some(mark)) } else { RegisterOp::MayWrite(Some(mark)) };
        blocks.entry(block).or_default().add(op, operation);
    }
    let Some((first, found)) = operation.does.found() else { return Vec::new() };
    let mut violations = Vec::new();
    for (block, found) in (first..).zip(found) {
        let value = match found {
            Found::Zeroes => None,
            Found::Mark(mark) => Some(*mark),
            Found::Wrong(what) => {
                violations.push(wrong(format!("block {block} of volume {volume} holds {what}")));
                continue;
            }
        };
        if block >= count {
            violations.push(wrong(format!("volume {volume} has {count} blocks, and block {block} was read")));
        }
        blocks.entry(block).or_default().add(RegisterOp::Read(value), operation);
    }
    violations
}

fn check_answer(operation: &Operation) -> Option<Violation> {
    let how = match operation.outcome {
        Outcome::Done | Outcome::Refused | Outcome::Lost | Outcome::Failed(ESHUTDOWN) => return None,
        Outcome::Failed(code) => format!("was answered with error {code}"),
        Outcome::Unanswered => "was not answered within a minute".to_owned(),
    };
    let what = format!("a request {how}: {operation}");
    Some(Violation { promise: Promise::Answers, at_ns: operation.answered_ns, what })
}

/// Of every volume that nobody has taken over.
const FIRST_EPOCH: u64 = 1;
/// Of NBD: the node has no lease, or does not own the volume any more, or is about to end.
pub const ESHUTDOWN: u32 = 108;
/// In a message.
const SHOWN_WRITES: usize = 4;
