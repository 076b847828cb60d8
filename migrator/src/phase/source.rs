//! What the source of a migration does next.

use super::{Verdict, Volumes};

/// What the source knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceFacts {
    /// Whether the VM is stopped before any of its memory is sent.
    pub is_offline: bool,
    /// Whether it is not to be: somebody has said so, or something has failed.
    pub is_given_up: bool,
    /// Its QEMU.
    pub vm: OutgoingVm,
    /// What its QEMU says of the migration.
    pub memory: Memory,
    /// Where the volumes are.
    pub volumes: Volumes,
    /// What the destination has said.
    pub destination: Destination,
    /// Whether what is left of memory and volumes is little enough to stop the VM for it.
    pub is_converged: bool,
}

/// The source's QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutgoingVm {
    /// It runs the VM.
    Running,
    /// It has stopped it, for this.
    Stopped,
    /// It has ended.
    Ended,
}

/// A migration, as the source's QEMU sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Memory {
    /// It has not begun, or has failed or was cancelled: nothing goes on.
    Idle,
    /// Memory is sent.
    Active,
    /// All but the last is sent: it waits for `migrate-continue`.
    PreSwitchover,
    /// The last of it is sent, and it waits to hear that it was loaded.
    Device,
    /// It has heard that.
    Completed,
}

/// What the destination has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// Nothing: it was not asked, or does not answer.
    Silent,
    /// It takes memory.
    Ready,
    /// What it has written down.
    Decided(Verdict),
}

/// What it is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceStep {
    /// Nothing, until something has changed.
    Wait,
    /// To have the destination start its QEMU.
    Prepare,
    /// To have its QEMU send memory: `migrate`.
    SendMemory,
    /// To have what is hot of the volumes brought there.
    BringVolumes,
    /// To have room made for them.
    PrepareVolumes,
    /// `stop`.
    Stop,
    /// `migrate-continue`; and beside it, the word that hands the volumes over.
    Switch,
    /// The word alone: `migrate-continue` was said.
    HandOver,
    /// To tell the destination that it is not to be, and hear which of the two it is.
    GiveUp,
    /// To have nothing handed over.
    AbortVolumes,
    /// `migrate_cancel`.
    CancelMemory,
    /// `cont`.
    Continue,
    /// To let its QEMU know that all was loaded, and to end it.
    End,
    /// It has ended: the VM runs at the destination.
    Moved,
    /// It has ended: the VM runs here.
    Kept,
    /// It has ended: its QEMU has, without the VM running elsewhere.
    Lost,
}

/// What the source does next.
pub fn source(facts: &SourceFacts) -> SourceStep {
    match facts.destination {
        Destination::Decided(Verdict::Runs) if facts.vm == OutgoingVm::Ended => SourceStep::Moved,
        Destination::Decided(Verdict::Runs) => SourceStep::End,
        Destination::Decided(Verdict::Declined) => undo(facts),
        Destination::Silent | Destination::Ready if facts.is_given_up || facts.vm == OutgoingVm::Ended => undo(facts),
        Destination::Silent | Destination::Ready => go_on(facts),
    }
}

/// Forward.
fn go_on(facts: &SourceFacts) -> SourceStep {
    match (facts.vm, facts.memory, facts.volumes) {
        (_, _, Volumes::UnderWay | Volumes::There) => match facts.memory {
            Memory::PreSwitchover => SourceStep::Switch,
            _ => SourceStep::Wait,
        },
        _ if facts.destination == Destination::Silent => SourceStep::Prepare,
        (OutgoingVm::Running, Memory::Idle, Volumes::Here) if facts.is_offline => SourceStep::BringVolumes,
        (OutgoingVm::Running, Memory::Idle, _) if facts.is_offline => SourceStep::Stop,
        (OutgoingVm::Stopped, Memory::Idle, _) if facts.is_offline => SourceStep::SendMemory,
        (OutgoingVm::Running, Memory::Idle, _) => SourceStep::SendMemory,
        (OutgoingVm::Running, Memory::Active, Volumes::Here) => SourceStep::BringVolumes,
        (OutgoingVm::Running, Memory::Active, Volumes::Brought) if facts.is_converged => SourceStep::PrepareVolumes,
        (OutgoingVm::Running, Memory::Active, Volumes::Ready) if facts.is_converged => SourceStep::Stop,
        (OutgoingVm::Stopped, Memory::PreSwitchover, Volumes::Brought) => SourceStep::PrepareVolumes,
        (OutgoingVm::Stopped, Memory::PreSwitchover, Volumes::Ready) => SourceStep::Switch,
        (OutgoingVm::Stopped, Memory::Device, Volumes::Ready) => SourceStep::HandOver,
        _ => SourceStep::Wait,
    }
}

/// Back, as far as that is for the source to say.
fn undo(facts: &SourceFacts) -> SourceStep {
    let has_declined = facts.destination == Destination::Decided(Verdict::Declined);
    match facts.volumes {
        Volumes::Brought | Volumes::Ready => SourceStep::AbortVolumes,
        // Which of the two it is decides the metadata, and then the destination.
        Volumes::UnderWay => SourceStep::Wait,
        Volumes::There if has_declined => SourceStep::Wait,
        Volumes::There => SourceStep::GiveUp,
        Volumes::Here => match (facts.vm, facts.memory) {
            (OutgoingVm::Ended, _) => SourceStep::Lost,
            (_, Memory::Active | Memory::PreSwitchover | Memory::Device) => SourceStep::CancelMemory,
            (OutgoingVm::Stopped, _) => SourceStep::Continue,
            (OutgoingVm::Running, _) => SourceStep::Kept,
        },
    }
}
