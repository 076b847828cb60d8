//! What a process has used, as the kernel counts it.

use anyhow::{Context, Result};

/// What a process has used so far, and uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time of all its threads, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Memory that it has now, in MiB.
    pub(crate) resident_mib: f64,
    /// The most memory that it has had at any time, in MiB.
    pub(crate) peak_mib: f64,
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
        Ok(Self { cpu_seconds, resident_mib: mib("VmRSS")?, peak_mib: mib("VmHWM")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).expect("usage");
        assert!(usage.resident_mib > 0.5 && usage.peak_mib >= usage.resident_mib, "{usage:?}");
    }
}
