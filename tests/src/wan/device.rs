//! A site's TUN device, and all that is set of its namespace.
//!
//! The device hands over TCP packets of up to 64 KiB that are yet to be cut into segments, with checksums that are yet to be
//! computed (`IFF_VNET_HDR`, TSO, USO), and takes them the same. Where that is not wanted, its kernel cuts them first
//! (`gso_max_segs 1`), which can be changed at any time.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::namespace::inside;
use super::topology::{Site, Topology};
use crate::tool::Tool;

/// A device, and where its kernel counts what it drops. It is gone when it is dropped.
pub(super) struct Device {
    pub(super) tun: SyncDevice,
    statistics: File,
}

impl Device {
    /// Makes the device in a namespace that has none. It is not set up yet.
    pub(super) fn open(namespace: &str) -> Result<Self> {
        let opened = inside(namespace, || {
            let tun = DeviceBuilder::new().name(NAME).offload(true).build_sync()?;
            // Counts for the namespace of the thread that opens it, wherever it is read.
            let statistics = File::open(STATISTICS)?;
            std::io::Result::Ok(Self { tun, statistics })
        })?;
        let device =
            opened.with_context(|| format!("cannot make a TUN device in '{namespace}': is there /dev/net/tun?"))?;
        rustix::io::ioctl_fionbio(&device.tun, true)?;
        Ok(device)
    }

    /// How many packets the kernel has dropped because they were not read.
    pub(super) fn overruns(&mut self) -> Result<u64> {
        let mut text = String::new();
        self.statistics.seek(SeekFrom::Start(0))?;
        self.statistics.read_to_string(&mut text)?;
        let dropped = line_of_device(&text).and_then(|line| line.split_whitespace().nth(DROPPED_COLUMN)?.parse().ok());
        dropped.with_context(|| format!("{STATISTICS} does not say what {NAME} has dropped"))
    }
}

/// Whether the namespace of this thread has a device of ours.
pub(super) fn is_there() -> bool {
    fs::read_to_string(STATISTICS).is_ok_and(|text| line_of_device(&text).is_some())
}

/// Gives the site's device its address, the namespace its routes and buffers, and has both run.
pub(super) fn set_up(namespace: &str, site: &Site, topology: &Topology) -> Result<()> {
    inside(namespace, set_buffers)??;
    let mut batch = tempfile::NamedTempFile::new()?;
    writeln!(batch, "link set dev lo up")?;
    writeln!(batch, "link set dev {NAME} mtu {} txqueuelen {QUEUE_PACKETS} up", topology.mtu)?;
    writeln!(batch, "address add {site} dev {NAME}")?;
    for other in topology.sites().iter().filter(|other| *other != site) {
        writeln!(batch, "route add {} dev {NAME}", other.network_with_length())?;
    }
    let set = Tool::new("ip").args(["-n", namespace, "-batch"]).args([batch.path()]).succeed();
    set.with_context(|| format!("cannot set up the namespace '{namespace}'"))?;
    Ok(())
}

/// Whether the device hands over packets that are yet to be cut into segments.
pub(super) fn set_super_packets(namespace: &str, are_wanted: bool) -> Result<()> {
    let segments = if are_wanted { MOST_SEGMENTS } else { "1" };
    let args = ["-n", namespace, "link", "set", "dev", NAME, "gso_max_segs", segments];
    Tool::new("ip").args(args).succeed()?;
    Ok(())
}

/// For the namespace of this thread: buffers for long paths, nothing remembered from one connection for the next, and nothing forgotten
/// by one that pauses.
fn set_buffers() -> Result<()> {
    let most = MOST_SOCKET_BYTES;
    let settings = [
        ("ipv4/tcp_rmem".to_owned(), format!("4096 131072 {most}")),
        ("ipv4/tcp_wmem".to_owned(), format!("4096 65536 {most}")),
        ("ipv4/tcp_no_metrics_save".to_owned(), "1".to_owned()),
        ("ipv4/tcp_slow_start_after_idle".to_owned(), "0".to_owned()),
        ("core/rmem_max".to_owned(), most.to_string()),
        ("core/wmem_max".to_owned(), most.to_string()),
        (format!("ipv6/conf/{NAME}/disable_ipv6"), "1".to_owned()),
    ];
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        match fs::write(&path, &value) {
            // Not every kernel has each of them for each namespace.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
            written => written.with_context(|| format!("cannot write '{value}' to {path}"))?,
        }
    }
    Ok(())
}

/// What the kernel tells of our device: behind the colon.
fn line_of_device(statistics: &str) -> Option<&str> {
    statistics.lines().find_map(|line| line.trim_start().strip_prefix(NAME)?.strip_prefix(':'))
}

/// The name of each site's device.
const NAME: &str = "wan0";
/// Of the namespace of the thread that opens it.
const STATISTICS: &str = "/proc/thread-self/net/dev";
/// Sixteen columns; of those for what is sent, the fourth.
const DROPPED_COLUMN: usize = 11;
/// How many packets may wait until they are read: 50 ms of 1 Gbit/s in packets of the usual MTU.
const QUEUE_PACKETS: u32 = 4096;
/// The kernel's own.
const MOST_SEGMENTS: &str = "65535";
/// A window and its overhead for 1 Gbit/s over 300 ms there and back. Not more, since all sockets of a machine share what TCP
/// may use of its memory, and none of them gets more than a little once that is used up.
const MOST_SOCKET_BYTES: u32 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_read_from_the_right_column() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 0 0 0 0\n  wan0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(line_of_device(text).and_then(|line| line.split_whitespace().nth(DROPPED_COLUMN)), Some("12"));
        assert_eq!(line_of_device("  wan01: 1\n"), None);
    }
}
