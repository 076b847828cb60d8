//! What a process has used, as the kernel counts it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use sterna_tests::tool::Tool;

/// What a process has used so far, and uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time of all its threads, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Memory that it has now, in MiB.
    pub(crate) resident_mib: f64,
    /// The most memory that it has had at any time, in MiB.
    pub(crate) peak_mib: f64,
    /// Bytes that it has caused to be written to a disk, as the kernel charges them to it: whole folios of the page cache,
    /// which are larger than what was changed in them where the file was written or read in large pieces.
    pub(crate) written_bytes: f64,
}

impl Usage {
    /// That of the process `id`.
    pub(crate) fn of(id: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The command's name, in brackets, may hold anything; the fields behind it are numbers (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib: u32 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no figure")?;
            anyhow::Ok(f64::from(kib) / 1024.0)
        };
        let cpu_seconds = f64::from(ticks) / f64::from(per_second);
        let io = std::fs::read_to_string(format!("/proc/{id}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no bytes written")?;
        let (resident_mib, peak_mib) = (mib("VmRSS")?, mib("VmHWM")?);
        Ok(Self { cpu_seconds, resident_mib, peak_mib, written_bytes: written.parse()? })
    }

    /// The most memory that the process `id` has had counts from now on (`clear_refs`, proc_pid_clear_refs(5)).
    pub(crate) fn forget_peak(id: u32) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{id}/clear_refs"), "5")?)
    }
}

/// Bytes written by anyone to the device that a file system is on, its own journal included; `None` where it is on none.
pub(crate) fn device_written_bytes(on: &Path) -> Result<Option<f64>> {
    let device = std::fs::metadata(on)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(stat) = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")) else { return Ok(None) };
    // Documentation/block/stat.rst: the seventh field counts sectors of 512 bytes, whatever the device's are.
    let sectors: f64 = stat.split_whitespace().nth(6).context("a device counts what is written to it")?.parse()?;
    Ok(Some(sectors * 512.0))
}

/// The space that a directory takes on its disk, in MiB.
///
/// # Errors
/// It cannot be looked through.
pub(crate) fn disk_mib(directory: &Path) -> Result<f64> {
    let printed = Tool::new("du").args(["-s", "--block-size=1M"]).args([directory]).succeed()?.stdout;
    Ok(printed.split_whitespace().next().context("du says a size")?.parse()?)
}

/// What `sterna.toml` allows the caches without being told otherwise: of segments, of nodes, and of the index.
pub(crate) const CACHES_MIB: f64 = 256.0 + 64.0 + 64.0;

/// What a node may take for each TiB of open volumes, beside the caches.
pub(crate) const OPEN_TIB_MIB: f64 = 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).expect("usage");
        assert!(usage.resident_mib > 0.5 && usage.peak_mib >= usage.resident_mib, "{usage:?}");
        assert!(usage.written_bytes >= 0.0, "{usage:?}");
    }
}
