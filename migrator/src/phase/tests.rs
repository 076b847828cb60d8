//! Both ends, and all that can happen to them, explored to the last state.

use std::collections::{HashMap, VecDeque};

use super::destination::IncomingVm;
use super::source::{Destination, Memory, OutgoingVm};
use super::*;

/// Two hosts, their nodes' volumes, and the link between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    source: SourceFacts,
    destination: DestinationFacts,
    /// Whether the destination has been asked to take part.
    is_prepared: bool,
    owner: Owner,
    is_link_up: bool,
    /// How many more faults there may be.
    faults: u8,
    /// Whether a host, or QEMU by itself, has ended the VM.
    has_died: bool,
}

/// Where the volumes really are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Source,
    /// What is hot is there.
    Brought,
    /// Prepared.
    Ready,
    /// The word was given.
    UnderWay,
    Destination,
    /// The destination hands them back.
    Returning,
}

impl World {
    fn new(faults: u8, is_offline: bool) -> Self {
        let source = SourceFacts {
            is_offline,
            is_given_up: false,
            vm: OutgoingVm::Running,
            memory: Memory::Idle,
            volumes: Volumes::Here,
            destination: Destination::Silent,
            is_converged: false,
        };
        let destination =
            DestinationFacts { vm: IncomingVm::Absent, volumes: Volumes::There, verdict: None, is_given_up: false };
        let (owner, is_link_up, has_died) = (Owner::Source, true, false);
        Self { source, destination, is_prepared: false, owner, is_link_up, faults, has_died }
    }

    /// What each end's node says.
    fn looked(mut self) -> Self {
        self.source.volumes = match self.owner {
            Owner::Source => Volumes::Here,
            Owner::Brought => Volumes::Brought,
            Owner::Ready => Volumes::Ready,
            Owner::UnderWay => Volumes::UnderWay,
            Owner::Destination | Owner::Returning => Volumes::There,
        };
        let is_here = self.owner == Owner::Destination;
        self.destination.volumes = if is_here { Volumes::Here } else { Volumes::There };
        self
    }

    fn with(self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self;
        change(&mut next);
        next.looked()
    }

    /// The source has done what it is to do.
    fn source_step(self) -> Self {
        let step = source(&self.source);
        self.with(|world| {
            let facts = &mut world.source;
            match step {
                SourceStep::Prepare if world.is_link_up => {
                    if !world.is_prepared {
                        (world.is_prepared, world.destination.vm) = (true, IncomingVm::Loading);
                    }
                    facts.destination = world.destination.verdict.map_or(Destination::Ready, Destination::Decided);
                }
                SourceStep::SendMemory => facts.memory = Memory::Active,
                SourceStep::BringVolumes => world.owner = Owner::Brought,
                SourceStep::PrepareVolumes => world.owner = Owner::Ready,
                SourceStep::Stop => facts.vm = OutgoingVm::Stopped,
                SourceStep::Switch => {
                    facts.memory = Memory::Device;
                    if world.owner == Owner::Ready {
                        world.owner = Owner::UnderWay;
                    }
                }
                SourceStep::HandOver => world.owner = Owner::UnderWay,
                SourceStep::GiveUp if world.is_link_up => world.destination.is_given_up = true,
                SourceStep::AbortVolumes => world.owner = Owner::Source,
                SourceStep::CancelMemory => facts.memory = Memory::Idle,
                SourceStep::Continue => {
                    assert!(matches!(facts.memory, Memory::Idle | Memory::Completed), "QEMU refuses it: {facts:?}");
                    facts.vm = OutgoingVm::Running;
                }
                SourceStep::End => (facts.vm, facts.memory) = (OutgoingVm::Ended, Memory::Completed),
                SourceStep::Prepare | SourceStep::GiveUp | SourceStep::Wait => {}
                SourceStep::Moved | SourceStep::Kept | SourceStep::Lost => {}
            }
        })
    }

    /// The destination has done what it is to do.
    fn destination_step(self) -> Self {
        if !self.is_prepared {
            return self;
        }
        let step = destination(&self.destination);
        self.with(|world| match step {
            DestinationStep::Record(verdict) => {
                assert_eq!(world.destination.verdict.replace(verdict), None, "it is written down once");
            }
            DestinationStep::Continue => world.destination.vm = IncomingVm::Running,
            DestinationStep::End => world.destination.vm = IncomingVm::Absent,
            DestinationStep::Return => world.owner = Owner::Returning,
            DestinationStep::Wait | DestinationStep::Done(_) | DestinationStep::Lost => {}
        })
    }

    /// What happens by itself.
    fn by_itself(self) -> Vec<Self> {
        let (source, destination) = (self.source, self.destination);
        let mut next = vec![self.source_step(), self.destination_step()];
        if self.is_link_up
            && self.is_prepared
            && let Some(verdict) = destination.verdict
        {
            next.push(self.with(|world| world.source.destination = Destination::Decided(verdict)));
        }
        if source.memory == Memory::Active && source.vm == OutgoingVm::Stopped {
            next.push(self.with(|world| world.source.memory = Memory::PreSwitchover));
        }
        if source.memory == Memory::Device && destination.vm == IncomingVm::Loading && self.is_link_up {
            next.push(self.with(|world| world.destination.vm = IncomingVm::Loaded));
        }
        if !source.is_converged {
            next.push(self.with(|world| world.source.is_converged = true));
        }
        match self.owner {
            Owner::UnderWay => {
                next.push(self.with(|world| world.owner = Owner::Destination));
                next.push(self.with(|world| world.owner = Owner::Source));
            }
            Owner::Returning if self.is_link_up => next.push(self.with(|world| world.owner = Owner::Source)),
            _ => {}
        }
        if !self.is_link_up {
            next.push(self.with(|world| world.is_link_up = true));
        }
        // Each end loses its patience some day, and so does whoever waits for it.
        next.push(self.with(|world| world.source.is_given_up = true));
        if self.is_prepared {
            next.push(self.with(|world| world.destination.is_given_up = true));
        }
        next
    }

    /// What goes wrong.
    fn faults(self) -> Vec<Self> {
        let Some(faults) = self.faults.checked_sub(1) else { return Vec::new() };
        let fault = |change: fn(&mut Self)| {
            self.with(|world| {
                world.faults = faults;
                change(world);
            })
        };
        let memory_fails = |world: &mut Self| {
            if world.source.memory != Memory::Completed {
                (world.source.memory, world.source.is_given_up) = (Memory::Idle, true);
            }
        };
        vec![
            fault(|world| world.is_link_up = false),
            fault(memory_fails),
            // The source's migrator starts again: its sockets have ended, and what it was told is forgotten.
            fault(|world| {
                if world.source.memory != Memory::Completed {
                    (world.source.memory, world.source.is_given_up) = (Memory::Idle, true);
                }
                world.source.destination = Destination::Silent;
            }),
            // The destination's does.
            fault(|world| {
                if world.destination.vm == IncomingVm::Loading {
                    world.destination.vm = IncomingVm::Failed;
                }
                world.destination.is_given_up = false;
            }),
            fault(|world| {
                (world.source.vm, world.source.memory) = (OutgoingVm::Ended, Memory::Idle);
                world.has_died = true;
            }),
            fault(|world| {
                if world.is_prepared {
                    world.has_died |= world.destination.verdict == Some(Verdict::Runs);
                    world.destination.vm = IncomingVm::Absent;
                }
            }),
        ]
    }

    fn check(&self) {
        let at_source = self.source.vm == OutgoingVm::Running;
        let at_destination = self.destination.vm == IncomingVm::Running;
        assert!(!(at_source && at_destination), "it runs twice: {self:?}");
        assert!(
            !at_source || matches!(self.owner, Owner::Source | Owner::Brought | Owner::Ready),
            "without its volumes: {self:?}"
        );
        assert!(!at_destination || self.owner == Owner::Destination, "without its volumes: {self:?}");
    }

    /// Whether it is over, and as it should be.
    fn has_ended_well(&self) -> bool {
        let runs_there = self.destination.vm == IncomingVm::Running && self.owner == Owner::Destination;
        match source(&self.source) {
            SourceStep::Moved => runs_there || self.has_died,
            SourceStep::Kept => !runs_there && self.owner == Owner::Source,
            SourceStep::Lost => self.has_died && !runs_there,
            _ => false,
        }
    }
}

/// All states that come about, with those that follow from each by itself.
fn explored(faults: u8, is_offline: bool) -> HashMap<World, Vec<World>> {
    let mut found = HashMap::new();
    let mut waiting = VecDeque::from([World::new(faults, is_offline).looked()]);
    while let Some(world) = waiting.pop_front() {
        if found.contains_key(&world) {
            continue;
        }
        world.check();
        let next = world.by_itself();
        waiting.extend(next.iter().copied().chain(world.faults()));
        found.insert(world, next);
    }
    found
}

#[test]
fn whatever_happens_one_end_runs_the_vm_at_most_and_all_ends_well() {
    all_ends_well(&explored(3, false));
}

#[test]
fn so_it_does_where_the_vm_is_stopped_first() {
    let found = explored(3, true);
    all_ends_well(&found);
    let is_early = |world: &World| world.source.memory == Memory::Active && world.source.vm == OutgoingVm::Running;
    // Only its undoing has it go on while QEMU still sends.
    assert!(!found.keys().any(|world| is_early(world) && !world.source.is_given_up), "it is sent before the stop");
}

fn all_ends_well(found: &HashMap<World, Vec<World>>) {
    let mut before: HashMap<World, Vec<World>> = HashMap::new();
    for (world, next) in found {
        next.iter().for_each(|next| before.entry(*next).or_default().push(*world));
    }
    let mut waiting: Vec<_> = found.keys().copied().filter(World::has_ended_well).collect();
    let mut ends_well: std::collections::HashSet<_> = waiting.iter().copied().collect();
    while let Some(world) = waiting.pop() {
        let earlier = before.get(&world).into_iter().flatten().copied();
        waiting.extend(earlier.filter(|world| ends_well.insert(*world)));
    }
    let stuck = found.keys().find(|world| !ends_well.contains(world));
    assert_eq!(stuck, None, "of {} states one leads nowhere", found.len());
    let has = |is_it: fn(&World) -> bool| found.keys().any(is_it);
    assert!(has(|world| source(&world.source) == SourceStep::Moved), "it moves");
    assert!(
        has(|world| source(&world.source) == SourceStep::Kept && world.destination.verdict.is_some()),
        "it is kept"
    );
    assert!(has(|world| world.owner == Owner::Returning), "volumes are returned");
    assert!(found.len() > 1_000, "{} states", found.len());
}

#[test]
fn without_a_fault_and_with_patience_it_moves() {
    moves(World::new(0, false).with(|world| world.source.is_converged = true));
    moves(World::new(0, true).looked());
}

fn moves(mut world: World) {
    for _ in 0..100 {
        let has_patience = |next: &World| !next.source.is_given_up && !next.destination.is_given_up;
        let next = world.by_itself().into_iter().find(|next| *next != world && has_patience(next));
        let Some(next) = next else { break };
        world = next;
    }
    assert_eq!(source(&world.source), SourceStep::Moved, "{world:?}");
    assert_eq!(destination(&world.destination), DestinationStep::Done(Verdict::Runs));
}
