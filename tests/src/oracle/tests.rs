//! The oracle against disks that do what they may, and against each kind of disk that does not.

use super::*;

const SEED: u64 = 5;

/// A disk of one block, with what was written to it.
struct Disk {
    oracle: Oracle,
}

impl Disk {
    fn new() -> Self {
        Self { oracle: Oracle::new(SEED, 1) }
    }

    /// Writes data, and has it acknowledged.
    fn write(&mut self) -> Vec<u8> {
        let (write, bytes) = self.issue();
        self.oracle.acknowledge(&write, false);
        bytes
    }

    /// Writes data that is not acknowledged.
    fn issue(&mut self) -> (Write, Vec<u8>) {
        let write = self.oracle.issue(0, 1, Kind::Data);
        (write, self.oracle.payload(&write))
    }

    fn flush(&mut self) {
        let flush = self.oracle.issue_flush();
        self.oracle.acknowledge_flush(flush);
    }

    /// What the oracle says after a crash, of a disk that holds this.
    fn after(&self, crash: Crash, bytes: &[u8]) -> Option<Fault> {
        let mut oracle = self.oracle.clone();
        oracle.crash(crash);
        oracle.verify(0, bytes).err().map(|violation| violation.fault)
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_has_acknowledged() {
    let mut disk = Disk::new();
    let (one, two) = (disk.write(), disk.write());
    let (_, issued) = disk.issue();
    assert_eq!(disk.after(Crash::Process, &one), Some(Fault::Older));
    assert_eq!(disk.after(Crash::Process, &[0; BLOCK_BYTES]), Some(Fault::Zeros));
    assert_eq!(disk.after(Crash::Process, &two), None);
    assert_eq!(disk.after(Crash::Process, &issued), None);
}

#[test]
fn a_power_cut_loses_nothing_that_a_flush_covers() {
    let mut disk = Disk::new();
    let (one, two) = (disk.write(), disk.write());
    disk.flush();
    let three = disk.write();
    let (_, issued) = disk.issue();
    assert_eq!(disk.after(Crash::Power, &one), Some(Fault::Older));
    for good in [&two, &three, &issued] {
        assert_eq!(disk.after(Crash::Power, good), None);
    }
    assert_eq!(Disk::new().after(Crash::Power, &[0; BLOCK_BYTES]), None);
}

#[test]
fn a_flush_covers_only_what_was_acknowledged_before_it_was_issued() {
    let mut disk = Disk::new();
    let one = disk.write();
    let (write, two) = disk.issue();
    let flush = disk.oracle.issue_flush();
    disk.oracle.acknowledge(&write, false);
    disk.oracle.acknowledge_flush(flush);
    assert_eq!(disk.after(Crash::Power, &one), None);
    assert_eq!(disk.after(Crash::Power, &two), None);
    disk.flush();
    assert_eq!(disk.after(Crash::Power, &one), Some(Fault::Older));
}

#[test]
fn flushes_may_be_answered_in_another_order() {
    let mut disk = Disk::new();
    let one = disk.write();
    let first = disk.oracle.issue_flush();
    let two = disk.write();
    disk.flush();
    disk.oracle.acknowledge_flush(first);
    assert_eq!(disk.after(Crash::Power, &one), Some(Fault::Older));
    assert_eq!(disk.after(Crash::Power, &two), None);
}

#[test]
fn fua_needs_no_flush() {
    let mut disk = Disk::new();
    let one = disk.write();
    let (write, two) = disk.issue();
    disk.oracle.acknowledge(&write, true);
    assert_eq!(disk.after(Crash::Power, &one), Some(Fault::Older));
    assert_eq!(disk.after(Crash::Power, &two), None);
}

#[test]
fn torn_blocks_are_never_good() {
    let mut disk = Disk::new();
    let one = disk.write();
    let (_, two) = disk.issue();
    let torn = [&two[..1536], &one[1536..]].concat();
    assert_eq!(disk.after(Crash::Process, &torn), Some(Fault::Torn));
    let torn = [&[0; 512], &one[512..]].concat();
    assert_eq!(disk.after(Crash::Power, &torn), Some(Fault::Torn));
}

#[test]
fn what_belongs_elsewhere_is_not_good_here() {
    let mut disk = Disk::new();
    disk.write();
    let stamp = Stamp { seed: SEED, block: 0, sequence: 1 };
    for foreign in [Stamp { seed: 6, ..stamp }, Stamp { block: 1, ..stamp }] {
        assert_eq!(disk.after(Crash::Power, &foreign.to_bytes()), Some(Fault::Foreign));
    }
    let never = Stamp { sequence: 2, ..stamp };
    assert_eq!(disk.after(Crash::Power, &never.to_bytes()), Some(Fault::NeverThere));
    assert_eq!(disk.after(Crash::Power, &[0xff; BLOCK_BYTES]), Some(Fault::Foreign));
}

#[test]
fn zeros_are_good_where_zeros_were_written() {
    let mut disk = Disk::new();
    let one = disk.write();
    disk.flush();
    assert_eq!(disk.after(Crash::Power, &[0; BLOCK_BYTES]), Some(Fault::Zeros));
    let zeros = disk.oracle.issue(0, 1, Kind::Zeros);
    assert_eq!(disk.after(Crash::Power, &[0; BLOCK_BYTES]), None);
    assert_eq!(disk.after(Crash::Process, &one), None);
    disk.oracle.acknowledge(&zeros, false);
    assert_eq!(disk.after(Crash::Process, &one), Some(Fault::Older));
}

#[test]
fn what_one_crash_has_lost_does_not_come_back_after_another() -> Result<(), Violation> {
    let mut disk = Disk::new();
    let one = disk.write();
    let (_, lost) = disk.issue();
    disk.oracle.crash(Crash::Process);
    disk.oracle.verify(0, &one)?;
    assert!(!disk.oracle.is_busy(0));
    assert_eq!(disk.after(Crash::Process, &one), None);
    assert_eq!(disk.after(Crash::Process, &lost), Some(Fault::NeverThere));
    Ok(())
}

#[test]
fn what_was_seen_after_a_crash_stays() -> Result<(), Violation> {
    let mut disk = Disk::new();
    let one = disk.write();
    let (_, two) = disk.issue();
    disk.oracle.crash(Crash::Process);
    disk.oracle.verify(0, &two)?;
    assert_eq!(disk.after(Crash::Process, &one), Some(Fault::Older));
    assert_eq!(disk.after(Crash::Process, &two), None);
    Ok(())
}

#[test]
fn a_block_that_nobody_writes_to_holds_its_last_version() {
    let mut disk = Disk::new();
    let (one, two) = (disk.write(), disk.write());
    assert_eq!(disk.oracle.verify_idle(0, &two), Ok(()));
    let stale = disk.oracle.verify_idle(0, &one).expect_err("an older version");
    assert_eq!(stale.fault, Fault::Older);
}

#[test]
#[should_panic(expected = "two writes to block 0 at a time")]
fn the_oracle_refuses_writes_whose_order_is_nobodys_promise() {
    let mut disk = Disk::new();
    disk.issue();
    disk.issue();
}
