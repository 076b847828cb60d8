//! What the destination of a migration does next.

use super::{Verdict, Volumes};

/// What the destination knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationFacts {
    /// How far its QEMU is.
    pub vm: IncomingVm,
    /// Where its node says that the volumes are: [`Volumes::Here`] or [`Volumes::There`].
    pub volumes: Volumes,
    /// What it has written down.
    pub verdict: Option<Verdict>,
    /// Whether it is not to go on: the source has said so, or has said nothing for too long.
    pub is_given_up: bool,
}

/// The destination's QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IncomingVm {
    /// It takes memory and devices.
    Loading,
    /// It has all of them, and stands.
    Loaded,
    /// It runs the VM.
    Running,
    /// What came could not be loaded.
    Failed,
    /// There is none: not yet, or not any more.
    Absent,
}

/// What it is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationStep {
    /// Nothing, until something has changed.
    Wait,
    /// To write down, durably, what becomes of it.
    Record(Verdict),
    /// To say `cont`.
    Continue,
    /// To end its QEMU.
    End,
    /// To have its node hand the volumes to the source's.
    Return,
    /// To say that the VM runs here, whoever asks.
    Done(Verdict),
    /// To say that the VM ended here: it had run, or may have.
    Lost,
}

/// What the destination does next.
pub fn destination(facts: &DestinationFacts) -> DestinationStep {
    match facts.verdict {
        None => undecided(facts),
        Some(Verdict::Runs) => match facts.vm {
            IncomingVm::Running => DestinationStep::Done(Verdict::Runs),
            IncomingVm::Loaded => DestinationStep::Continue,
            IncomingVm::Loading | IncomingVm::Failed | IncomingVm::Absent => DestinationStep::Lost,
        },
        Some(Verdict::Declined) => match (facts.vm, facts.volumes) {
            (IncomingVm::Absent, Volumes::Here) => DestinationStep::Return,
            (IncomingVm::Absent, _) => DestinationStep::Done(Verdict::Declined),
            _ => DestinationStep::End,
        },
    }
}

fn undecided(facts: &DestinationFacts) -> DestinationStep {
    let cannot = matches!(facts.vm, IncomingVm::Failed | IncomingVm::Absent);
    if facts.is_given_up || cannot {
        DestinationStep::Record(Verdict::Declined)
    } else if facts.vm == IncomingVm::Loaded && facts.volumes == Volumes::Here {
        DestinationStep::Record(Verdict::Runs)
    } else {
        DestinationStep::Wait
    }
}
