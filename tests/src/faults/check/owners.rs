//! No moment with two writers.
//!
//! Each operation that was acknowledged took effect at one moment between the question and the answer. There are moments such
//! that the epochs of a volume's operations never fall, exactly if none of an earlier epoch was asked for after one of a later
//! epoch had been answered: so that is what is looked for.

use std::collections::BTreeMap;

use super::epochs::Epochs;
use super::{Promise, Violation};
use crate::faults::history::{Does, Operation, Record};

/// Operations of an earlier owner that came after those of a later one; and those that somebody acknowledged who never owned
/// the volume.
pub fn check(records: &[Record], epochs: &Epochs) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut acknowledged: BTreeMap<u8, Vec<(u64, &Operation)>> = BTreeMap::new();
    for operation in records.iter().filter_map(acknowledgement) {
        match epochs.get(operation) {
            Some(epoch) => acknowledged.entry(operation.volume).or_default().push((epoch, operation)),
            None => violations.push(violation(operation, "by a node that never served the volume".to_owned())),
        }
    }
    for operations in acknowledged.values_mut() {
        violations.extend(check_volume(operations));
    }
    violations
}

/// What was acknowledged by an owner, and by nobody else: being let in is not.
fn acknowledgement(record: &Record) -> Option<&Operation> {
    match record {
        Record::Operation(operation) if operation.is_done() && operation.does != Does::Attach => Some(operation),
        _ => None,
    }
}

/// One pass in the order of the questions, with the latest epoch that had been answered before each of them.
fn check_volume(operations: &mut [(u64, &Operation)]) -> Option<Violation> {
    let mut answered = operations.to_vec();
    answered.sort_by_key(|(_, operation)| operation.answered_ns);
    operations.sort_by_key(|(_, operation)| operation.invoked_ns);
    let mut answered = answered.into_iter().peekable();
    let mut latest: Option<(u64, &Operation)> = None;
    for &(epoch, operation) in &*operations {
        while let Some(before) = answered.next_if(|(_, other)| other.answered_ns < operation.invoked_ns) {
            if latest.is_none_or(|(latest, _)| latest < before.0) {
                latest = Some(before);
            }
        }
        if let Some((later, other)) = latest.filter(|(later, _)| *later > epoch) {
            let how = format!(
                "in epoch {epoch}, after node {} had acknowledged something in epoch {later} ({other})",
                other.node
            );
            return Some(violation(operation, how));
        }
    }
    None
}

fn violation(operation: &Operation, how: String) -> Violation {
    let what = format!("acknowledged {how}: {operation}");
    Violation { promise: Promise::OneWriter, at_ns: operation.answered_ns, what }
}
