//! Sessions and leases, as nodes tell of them themselves and as clients see them.
//!
//! **In an order.** Who opens, renews or ends a session is told what came of it; whoever is renewed, and whoever acknowledges
//! a client's request, holds a session at some moment between the question and the answer. All of that together has to be
//! linearisable. Where a node was killed or got no answer, it may have happened or not.
//!
//! **In time.** Nothing is acknowledged but during a lease that the node itself has told of; no lease lasts longer than until
//! the metadata decides that its session has lapsed; and all nodes have applied the same decisions at the same place of the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::linear::{self, Call, Model, NotLinear};
use super::{Promise, Violation};
use crate::faults::history::{Decision, Does, NodeEvent, NodeRecord, Operation, Record, Setting, Takeover, What};

/// What of the sessions cannot have been so.
pub fn check(setting: &Setting, records: &[Record]) -> Vec<Violation> {
    let mut violations = check_order(setting.sites.len(), records);
    violations.extend(check_acknowledged_in_time(records));
    violations.extend(check_lapses(records));
    violations.extend(check_agreement(records));
    violations
}

/// The newest session of each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Session {
    number: u64,
    is_live: bool,
}

/// What was done to a session, and what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// It was opened with this number.
    Opened(u64),
    /// The next one was opened, or was not.
    MayOpen,
    /// It was renewed.
    Renewed(u64),
    /// It could not be renewed: it was over.
    Over(u64),
    /// It was ended.
    Ended(u64),
    /// It was ended, or was not.
    MayEnd(u64),
    /// Its node has acknowledged something, or has been given a volume.
    Acted,
    /// A volume of its node was given to another one.
    Replaced,
}

/// A node's sessions. Those of different nodes have nothing to do with each other.
struct Sessions;

impl Model for Sessions {
    type State = Session;
    type Op = Op;

    fn steps(&self, &state: &Session, op: &Op) -> Vec<Session> {
        let opened = Session { number: state.number + 1, is_live: true };
        let ended = Session { is_live: false, ..state };
        let is = |number: &u64| *number == state.number;
        match op {
            Op::Opened(number) if *number == opened.number => vec![opened],
            Op::MayOpen => vec![state, opened],
            Op::Renewed(number) if is(number) && state.is_live => vec![state],
            Op::Over(number) if !is(number) || !state.is_live => vec![state],
            Op::Ended(number) if is(number) => vec![ended],
            Op::MayEnd(number) if is(number) && state.is_live => vec![state, ended],
            Op::MayEnd(_) => vec![state],
            Op::Acted if state.is_live => vec![state],
            Op::Replaced if !state.is_live => vec![state],
            _ => Vec::new(),
        }
    }

    fn only_looks(&self, op: &Op) -> bool {
        matches!(op, Op::Renewed(_) | Op::Over(_) | Op::Acted | Op::Replaced)
    }
}

fn check_order(nodes: usize, records: &[Record]) -> Vec<Violation> {
    let calls = linear::by_object(session_calls(records).into_iter().chain(acted(records)).chain(taken_over(records)));
    let of_node = |(node, calls): (&u8, &Vec<Call<Op>>)| {
        if usize::from(*node) >= nodes {
            return Some(violation(0, format!("there is no node {node}")));
        }
        let error = linear::check(&Sessions, [Session::default()], calls).err()?;
        let (NotLinear::NoPlace { call, .. } | NotLinear::TooMany { call }) = error;
        let Call { op, invoked_ns, answered_ns } = &calls[call];
        let others: Vec<_> = match &error {
            NotLinear::NoPlace { under_way, .. } => under_way.iter().map(|&other| &calls[other]).collect(),
            NotLinear::TooMany { .. } => Vec::new(),
        };
        let mut before: Vec<_> =
            calls.iter().filter(|other| other.answered_ns < *answered_ns && other.op != Op::Acted).collect();
        before.sort_by_key(|other| other.answered_ns);
        let before = &before[before.len().saturating_sub(SHOWN_CALLS)..];
        let what = format!(
            "the session of node {node}: {op:?} from {invoked_ns} to {answered_ns} has no place among what was under way \
             ({others:?}), after {before:?}: {error}"
        );
        Some(violation(*answered_ns, what))
    };
    calls.iter().filter_map(of_node).collect()
}

/// What was proposed about sessions, by whose session it is. What has no answer may have been done until the node has opened a
/// later session, after which it can do nothing any more.
fn session_calls(records: &[Record]) -> Vec<(u8, Call<Op>)> {
    let mut opened: BTreeMap<u8, Vec<(u64, u64)>> = BTreeMap::new();
    let mut heard = HashMap::new();
    for NodeRecord { node, at_ns, event } in records.iter().filter_map(node_record) {
        let NodeEvent::Hears { what, of, session, outcome, asked_ns } = *event else { continue };
        heard.insert((*node, what, of, asked_ns), (session, outcome, *at_ns));
        if (what, outcome) == (What::Open, Decision::Done) {
            opened.entry(of).or_default().push((session, *at_ns));
        }
    }
    let later = |of: u8, session: u64, at_ns: u64| {
        let opened = opened.get(&of).into_iter().flatten();
        let after = opened.filter(|(number, heard_ns)| *number > session && *heard_ns > at_ns);
        after.map(|(_, heard_ns)| *heard_ns).min().unwrap_or(u64::MAX)
    };
    let mut calls = Vec::new();
    for NodeRecord { node, at_ns: asked_ns, event } in records.iter().filter_map(node_record) {
        let NodeEvent::Asks { what, of, session } = *event else { continue };
        let answer = heard.get(&(*node, what, of, *asked_ns)).copied();
        let (number, outcome, heard_ns) = answer.unwrap_or((session, Decision::Unknown, *asked_ns));
        let op = match (what, outcome) {
            (What::Open, Decision::Done) => Op::Opened(number),
            (What::Open, Decision::Unknown) => Op::MayOpen,
            (What::Renew, Decision::Done) => Op::Renewed(number),
            (What::Renew, Decision::Refused) => Op::Over(number),
            (What::Close | What::Lapse, Decision::Done) => Op::Ended(number),
            (What::Close | What::Lapse, Decision::Unknown) => Op::MayEnd(number),
            // It has changed nothing, or nothing that one could see.
            (What::Renew, Decision::Unknown) | (What::Open | What::Close | What::Lapse, Decision::Refused) => continue,
        };
        let answered_ns = match op {
            Op::MayOpen | Op::MayEnd(_) => later(of, session, *asked_ns),
            _ => heard_ns,
        };
        calls.push((of, Call { op, invoked_ns: *asked_ns, answered_ns }));
    }
    calls
}

/// What clients' requests say of sessions.
fn acted(records: &[Record]) -> impl Iterator<Item = (u8, Call<Op>)> {
    let acknowledged = records.iter().filter_map(acknowledgement);
    acknowledged.map(|Operation { node, invoked_ns, answered_ns, .. }| {
        (*node, Call { op: Op::Acted, invoked_ns: *invoked_ns, answered_ns: *answered_ns })
    })
}

/// What failovers say of sessions: that of the owner has ended, and that of its successor has not.
fn taken_over(records: &[Record]) -> impl Iterator<Item = (u8, Call<Op>)> {
    let takeovers =
        records.iter().filter_map(|record| if let Record::Takeover(takeover) = record { Some(takeover) } else { None });
    takeovers.flat_map(|Takeover { from, to, invoked_ns, answered_ns, .. }| {
        let call = |op| Call { op, invoked_ns: *invoked_ns, answered_ns: *answered_ns };
        [(*from, call(Op::Replaced)), (*to, call(Op::Acted))]
    })
}

fn check_acknowledged_in_time(records: &[Record]) -> Vec<Violation> {
    let mut leases: BTreeMap<u8, Vec<(u64, u64)>> = BTreeMap::new();
    for NodeRecord { node, at_ns, event } in records.iter().filter_map(node_record) {
        if let NodeEvent::Lasts { until_ns, .. } = event {
            leases.entry(*node).or_default().push((*at_ns, *until_ns));
        }
    }
    leases.values_mut().for_each(|leases| leases.sort_unstable());
    let has_lease = |operation: &&Operation| {
        let Some(leases) = leases.get(&operation.node) else { return false };
        // Leases overlap, and each ends after the one before it.
        let last = leases.partition_point(|(from_ns, _)| *from_ns <= operation.answered_ns);
        last > 0 && leases[last - 1].1 > operation.invoked_ns
    };
    let without = records.iter().filter_map(acknowledgement).filter(|operation| !has_lease(operation));
    without
        .map(|operation| violation(operation.answered_ns, format!("acknowledged without a lease: {operation}")))
        .collect()
}

fn check_lapses(records: &[Record]) -> Vec<Violation> {
    let mut leases: BTreeMap<u8, Vec<(u64, u64, u64)>> = BTreeMap::new();
    let mut lapsed: BTreeMap<(u8, u64), u64> = BTreeMap::new();
    for NodeRecord { node, at_ns, event } in records.iter().filter_map(node_record) {
        match *event {
            NodeEvent::Lasts { session, until_ns } => {
                leases.entry(*node).or_default().push((*at_ns, session, until_ns));
            }
            NodeEvent::Decided { what: What::Lapse, of, session, outcome: Decision::Done, .. } => {
                let first = lapsed.entry((of, session)).or_insert(u64::MAX);
                *first = (*at_ns).min(*first);
            }
            _ => {}
        }
    }
    // Each takes the place of the one before it, which may have been a longer one: sessions can be made shorter.
    let mut until: BTreeMap<(u8, u64), u64> = BTreeMap::new();
    for (node, mut leases) in leases {
        leases.sort_unstable();
        let replaced = leases.iter().skip(1).map(|(at_ns, ..)| *at_ns).chain([u64::MAX]);
        for ((_, session, until_ns), replaced_ns) in leases.iter().zip(replaced) {
            let end = until.entry((node, *session)).or_default();
            *end = replaced_ns.min(*until_ns).max(*end);
        }
    }
    // Who closes its session has given up its lease before.
    let closed: HashSet<(u8, u64)> = records.iter().filter_map(node_record).filter_map(closed).collect();
    let outlasts = |(of, at_ns): (&(u8, u64), &u64)| {
        let end = *until.get(of)?;
        let what =
            format!("session {} of node {} was decided to have lapsed, and its lease lasts until {end}", of.1, of.0);
        (end > *at_ns && !closed.contains(of)).then(|| violation(*at_ns, what))
    };
    lapsed.iter().filter_map(outlasts).collect()
}

fn closed(record: &NodeRecord) -> Option<(u8, u64)> {
    match record.event {
        NodeEvent::Asks { what: What::Close, of, session } => Some((of, session)),
        _ => None,
    }
}

fn check_agreement(records: &[Record]) -> Vec<Violation> {
    let (mut outcomes, mut opened) = (BTreeMap::<_, BTreeMap<u8, HashSet<Decision>>>::new(), BTreeMap::new());
    let mut violations = Vec::new();
    for NodeRecord { node, at_ns, event } in records.iter().filter_map(node_record) {
        let NodeEvent::Decided { index, what, of, session, outcome } = *event else { continue };
        if (what, outcome) == (What::Open, Decision::Done) {
            let place = *opened.entry((of, session)).or_insert(index);
            if place != index {
                let what =
                    format!("session {session} of node {of} was opened by entries {place} and {index} of the log");
                violations.push(violation(*at_ns, what));
            }
        }
        let by_node = outcomes.entry((index, what as u8, of, session)).or_default();
        by_node.entry(*node).or_default().insert(outcome);
        // One entry may hold the same command twice, and a node that was killed has told of a part of it only.
        if let Some((other, outcomes)) = by_node.iter().find(|(_, outcomes)| outcomes.is_disjoint(&by_node[node])) {
            let what = format!(
                "entry {index} of the log, {what:?} of session {session} of node {of}: nodes {node} and {other} have applied \
                 it as {outcome:?} and {outcomes:?}"
            );
            violations.push(violation(*at_ns, what));
        }
    }
    violations
}

fn node_record(record: &Record) -> Option<&NodeRecord> {
    if let Record::Node(record) = record { Some(record) } else { None }
}

/// What only a node with a lease may have said.
fn acknowledgement(record: &Record) -> Option<&Operation> {
    match record {
        Record::Operation(operation) if operation.is_done() => match operation.does {
            Does::Write { .. } | Does::Flush | Does::Read { .. } => Some(operation),
            Does::Attach | Does::Snapshot { .. } => None,
        },
        _ => None,
    }
}

fn violation(at_ns: u64, what: String) -> Violation {
    Violation { promise: Promise::Leases, at_ns, what }
}

/// In a message.
const SHOWN_CALLS: usize = 6;
