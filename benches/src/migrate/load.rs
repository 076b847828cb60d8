//! What the guest does while it moves.

use anyhow::{Context, Result};
use sterna_tests::guest::{Guest, Job};

use super::lan::GUEST;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Nothing but its ticks.
    Idle,
    /// Writes to its disk, 4 KiB at a time, each flushed.
    Disk,
    /// Writes to its memory: 8 MB in a second, over 64 MB.
    Memory,
}

impl Load {
    pub(super) const ALL: [Self; 3] = [Self::Idle, Self::Disk, Self::Memory];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }

    /// Begins it, and the guest's ticks and echoes.
    pub(super) fn start(self, guest: &mut Guest) -> Result<Vec<Job>> {
        guest.succeed(&format!(
            "modprobe virtio_net; for i in $(seq 50); do [ -e /sys/class/net/{CARD} ] && break; sleep 0.1; done; \
             ip link set {CARD} up && ip addr add {GUEST}/24 dev {CARD}"
        ))?;
        let mut jobs = vec![guest.start(TICKS)?, guest.start(ECHO)?];
        let work = match self {
            Self::Idle => None,
            Self::Disk => Some(DISK),
            Self::Memory => Some(MEMORY),
        };
        jobs.extend(work.map(|work| guest.start(work)).transpose().context("the load does not start")?);
        Ok(jobs)
    }
}

/// The first network card, as the kernel calls it by itself.
const CARD: &str = "eth0";

/// A character on the console every two milliseconds, without a process for each.
const TICKS: &str = "exec perl -e 'open(my $t, \">\", \"/dev/ttyS0\"); while (1) { syswrite($t, \".\"); select(undef, undef, undef, 0.002); }'";

/// What is sent to port 7 comes back.
const ECHO: &str = "exec perl -MSocket -e 'socket(my $l, PF_INET, SOCK_STREAM, 0); setsockopt($l, SOL_SOCKET, SO_REUSEADDR, 1); \
bind($l, sockaddr_in(7, INADDR_ANY)) or die; listen($l, 4); while (accept(my $c, $l)) { setsockopt($c, 6, 1, 1); \
while (sysread($c, my $d, 64)) { syswrite($c, $d); } }'";

/// Each block somewhere in 64 MB, on the disk before the next one.
const DISK: &str = "exec perl -MFcntl -MIO::Handle -e 'sysopen(my $f, \"/var/tmp/load\", O_RDWR|O_CREAT) or die; truncate($f, 64 << 20); my $n = 0; \
while (1) { sysseek($f, 4096 * (($n * 7919) % 16384), 0); syswrite($f, pack(\"Q\", ++$n) x 512); $f->sync; select(undef, undef, undef, 0.002); }'";

/// Sixteen pages in two milliseconds.
const MEMORY: &str = "exec perl -e 'my $m = \"x\" x (64 << 20); my $n = 0; \
while (1) { for (1..16) { substr($m, 4096 * ($n++ % 16384), 8) = pack(\"Q\", $n); } select(undef, undef, undef, 0.002); }'";
