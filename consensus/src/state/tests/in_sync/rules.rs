//! An owner that keeps the rules of [`in_sync`](crate::state::in_sync), with requests that are late, lost, repeated and overtaken, a
//! view of the metadata that is old, and starts in between: whoever is in sync holds what was acknowledged, and takes over with it.

use std::collections::BTreeMap;

use super::*;

/// What may happen next, to one of the nodes where it is about one.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    /// The node has so many more of the writes on its disk.
    Send(NodeId, u64),
    Acknowledge,
    /// Asks to publish what may be published.
    Publish,
    /// Asks for the node to be added, if it may be.
    Add(NodeId),
    Remove(NodeId),
    /// One of the requests is carried out; it stays, because it may be sent again.
    CarryOut(usize),
    /// So, and its answer arrives.
    Answer(usize),
    Learn,
    Start,
    /// An administrator gives the node's replica up, and has it kept again.
    Unset(NodeId),
    Reset(NodeId),
}

/// The owner's writes are counted: what anybody holds is the first so many of them.
struct World {
    metadata: Metadata,
    held: BTreeMap<NodeId, u64>,
    /// Each with the start of the owner that it is of.
    requests: Vec<(u32, Command)>,
    /// As the owner has applied it.
    known: Metadata,
    asked: BTreeMap<NodeId, InSyncRevision>,
    /// How often the owner has opened the volume, and whether it knows since what may still be carried out.
    starts: u32,
    is_sure: bool,
    written: u64,
    acknowledged: u64,
    /// What the owner has asked to publish: it is on its disk.
    sealed: u64,
}

const CANDIDATES: [NodeId; 3] = [B, C, NodeId(4)];

impl World {
    fn new() -> Self {
        let mut metadata = with_nodes(4);
        apply(&mut metadata, create_volume("a")).unwrap();
        let known = metadata.clone();
        let held = CANDIDATES.into_iter().map(|node| (node, 0)).collect();
        let mut world = Self {
            metadata,
            held,
            requests: Vec::new(),
            known,
            asked: BTreeMap::new(),
            starts: 0,
            is_sure: true,
            written: 0,
            acknowledged: 0,
            sealed: 0,
        };
        CANDIDATES.into_iter().for_each(|node| world.take(Step::Reset(node)));
        world
    }

    /// What all have whom the owner waits for.
    fn held_by_all(&self) -> u64 {
        let known = volume(&self.known);
        let asked =
            self.asked.iter().filter(|(_, revision)| **revision == known.in_sync_revision).map(|(node, _)| node);
        known.in_sync.iter().chain(asked).map(|node| self.held[node]).fold(self.written, u64::min)
    }

    fn ask(&mut self, command: Command) {
        self.requests.push((self.starts, command));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write => self.written += 1,
            Step::Send(node, count) => {
                let held = self.held.get_mut(&node).unwrap();
                *held = self.written.min(*held + count);
            }
            Step::Acknowledge if self.is_sure => self.acknowledged = self.acknowledged.max(self.held_by_all()),
            Step::Publish if self.is_sure && self.held_by_all() > self.sealed => {
                self.sealed = self.held_by_all();
                let number = u8::try_from(self.sealed % 250).unwrap();
                let publication = publication(VOLUME, 1, number, self.sealed);
                self.ask(Command::PublishRoots(vec![publication]));
            }
            Step::Add(node) if self.is_sure && self.held[&node] >= self.acknowledged.max(self.sealed) => {
                self.asked.insert(node, volume(&self.known).in_sync_revision);
                self.ask(change(&self.known, &[node], &[]));
            }
            Step::Remove(node) => self.ask(change(&self.known, &[], &[node])),
            Step::CarryOut(_) | Step::Answer(_) if self.requests.is_empty() => {}
            Step::CarryOut(which) => drop(self.carry_out(which)),
            Step::Answer(which) => {
                let of_now = self.carry_out(which).is_some_and(|starts| starts == self.starts);
                if of_now {
                    self.known = self.metadata.clone();
                    self.is_sure = true;
                }
            }
            Step::Learn => self.known = self.metadata.clone(),
            // What was in no acknowledged flush and in no root is lost; the others follow it in that.
            Step::Start => {
                (self.starts, self.is_sure, self.written) =
                    (self.starts + 1, false, self.acknowledged.max(self.sealed));
                self.asked.clear();
                self.held.values_mut().for_each(|held| *held = self.written.min(*held));
                self.ask(change(&self.known, &[], &[]));
            }
            Step::Unset(node) => {
                let command = Command::UnsetReplica { volume: VOLUME, site: site(node.0) };
                let _ = apply(&mut self.metadata, command);
            }
            Step::Reset(node) => {
                apply(&mut self.metadata, set_sync(node)).unwrap();
                let published = volume(&self.metadata).published;
                if self.held[&node] >= published.generation.0 {
                    apply(&mut self.metadata, report(node.0, E1, published)).unwrap();
                }
            }
            Step::Acknowledge | Step::Publish | Step::Add(_) => {}
        }
    }

    /// The start of the owner that a change of those in sync is of which was carried out.
    fn carry_out(&mut self, which: usize) -> Option<u32> {
        let (starts, command) = self.requests[which % self.requests.len()].clone();
        let is_change = matches!(command, Command::ChangeInSync { .. });
        apply(&mut self.metadata, command).ok().filter(|_| is_change).map(|_| starts)
    }

    fn check(&self) {
        let now = volume(&self.metadata);
        for member in &now.in_sync {
            let held = self.held[member];
            assert!(held >= self.acknowledged, "node {member} lacks what was acknowledged");
            assert!(held >= now.published.generation.0, "node {member} lacks what is published");
            let mut after = self.metadata.clone();
            lapse(&mut after, OWNER.0);
            apply(&mut after, take_over(*member, E1)).unwrap();
            check_step(&self.metadata, &after);
            assert_eq!(after.check(), Ok(()));
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = || (0..CANDIDATES.len()).prop_map(|which| CANDIDATES[which]);
    let which = || any::<usize>();
    prop_oneof![
        6 => Just(Step::Write),
        6 => (node(), 1u64..9).prop_map(|(node, count)| Step::Send(node, count)),
        6 => Just(Step::Acknowledge),
        2 => Just(Step::Publish),
        4 => node().prop_map(Step::Add),
        2 => node().prop_map(Step::Remove),
        4 => which().prop_map(Step::CarryOut),
        4 => which().prop_map(Step::Answer),
        2 => Just(Step::Learn),
        1 => Just(Step::Start),
        1 => node().prop_map(Step::Unset),
        2 => node().prop_map(Step::Reset),
    ]
}

proptest! {
    #[test]
    fn whoever_is_in_sync_takes_over_with_all_that_was_acknowledged(steps in collection::vec(any_step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
    }
}

#[test]
fn a_late_request_adds_nobody_whom_the_owner_waits_for_no_more() {
    let mut world = World::new();
    let steps = [Step::Add(B), Step::Remove(B), Step::Answer(1), Step::Write, Step::Acknowledge, Step::CarryOut(0)];
    steps.into_iter().for_each(|step| world.take(step));
    assert_eq!((world.acknowledged, in_sync(&world.metadata)), (1, vec![]));
    // Nor one from before the owner has started again.
    let steps = [
        Step::Send(B, 1),
        Step::Add(B),
        Step::Start,
        Step::Answer(3),
        Step::Write,
        Step::Acknowledge,
        Step::CarryOut(2),
    ];
    steps.into_iter().for_each(|step| world.take(step));
    assert_eq!((world.acknowledged, in_sync(&world.metadata)), (2, vec![]));
    world.check();
}
