//! fio with its nbd engine, which is libnbd.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use sterna_tests::disk_server::Disk;
use sterna_tests::tool::{Ended, Tool};

use crate::work::{Pattern, Seen, Work};

/// Runs the work for so many seconds.
///
/// # Errors
/// fio fails, or did nothing.
pub(crate) fn run(disk: &Disk, work: Work, seconds: u32) -> Result<Seen> {
    let ended = command(disk, work, seconds).succeed()?;
    let Ended { stdout, .. } = &ended;
    parse(stdout, work).with_context(|| format!("fio's figures cannot be read: {ended}"))
}

/// The command that does the work.
pub(crate) fn command(disk: &Disk, work: Work, seconds: u32) -> Tool {
    let pattern = match work.pattern {
        Pattern::RandomRead => "randread",
        Pattern::RandomWrite => "randwrite",
        Pattern::RandomMixed => "randrw",
        Pattern::Read => "read",
        Pattern::Write => "write",
    };
    let mut args = vec![
        "--name=work".to_owned(),
        "--ioengine=nbd".to_owned(),
        format!("--uri={}", disk.uri()),
        format!("--rw={pattern}"),
        "--rwmixread=70".to_owned(),
        format!("--bs={}", work.block_bytes),
        format!("--iodepth={}", work.depth),
        format!("--numjobs={}", work.connections),
        "--group_reporting".to_owned(),
        format!("--runtime={seconds}"),
        "--output-format=json".to_owned(),
    ];
    // Without it fio ends when it has been everywhere once.
    args.extend((!work.once).then(|| "--time_based".to_owned()));
    args.extend(work.flushes_each.then(|| "--fsync=1".to_owned()));
    Tool::new("fio").args(args).time_limit(Duration::from_secs(u64::from(seconds)) + END_LIMIT)
}

fn parse(printed: &str, work: Work) -> Result<Seen> {
    // The nbd engine says that it is connected before the figures begin.
    let json = &printed[printed.find('{').context("fio printed no figures")?..];
    let figures: Value = serde_json::from_str(json)?;
    let job = figures.pointer("/jobs/0").context("fio ran no job")?;
    let number = |path: &str| job.pointer(path).and_then(Value::as_f64).with_context(|| format!("there is no {path}"));
    let (reads, writes) = (number("/read/total_ios")?, number("/write/total_ios")?);
    let side = if reads > 0.0 { "read" } else { "write" };
    anyhow::ensure!(reads + writes > 0.0, "fio did nothing");
    let percentile = |of: &str| number(&format!("/{side}/clat_ns/percentile/{of}.000000")).ok().map(|ns| ns / 1e3);
    Ok(Seen {
        requests: reads + writes,
        written_bytes: writes * f64::from(work.block_bytes),
        per_second: number("/read/iops")? + number("/write/iops")?,
        p50_us: percentile("50"),
        p99_us: percentile("99"),
        last_quarter: None,
    })
}

/// For what fio does before and after the work.
const END_LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    const WRITES: Work = Work::new(Pattern::RandomWrite, 4, 1);

    #[test]
    fn the_figures_of_the_side_that_worked_are_read() {
        let printed = r#"fio: connected to NBD server
            {"jobs": [{"read": {"total_ios": 0, "iops": 0.0},
                       "write": {"total_ios": 10, "iops": 5.5, "clat_ns": {"percentile": {"50.000000": 2000}}}}]}"#;
        let seen = parse(printed, WRITES).expect("figures");
        assert_eq!((seen.requests, seen.written_bytes, seen.per_second), (10.0, 40960.0, 5.5));
        assert_eq!((seen.p50_us, seen.p99_us), (Some(2.0), None));
        assert!(parse("fio: failed", WRITES).is_err());
        assert!(parse(r#"{"jobs": []}"#, WRITES).is_err());
        let idle = r#"{"jobs": [{"read": {"total_ios": 0, "iops": 0.0}, "write": {"total_ios": 0, "iops": 0.0}}]}"#;
        assert!(parse(idle, WRITES).is_err());
    }

    #[test]
    fn both_sides_of_a_mixed_work_count_and_the_latency_is_that_of_its_reads() {
        let printed = r#"{"jobs": [{
            "read": {"total_ios": 7, "iops": 70.0, "clat_ns": {"percentile": {"50.000000": 1000, "99.000000": 9000}}},
            "write": {"total_ios": 3, "iops": 30.0, "clat_ns": {"percentile": {"50.000000": 5000}}}}]}"#;
        let seen = parse(printed, Work::new(Pattern::RandomMixed, 4, 32)).expect("figures");
        assert_eq!((seen.requests, seen.written_bytes, seen.per_second), (10.0, 12288.0, 100.0));
        assert_eq!((seen.p50_us, seen.p99_us), (Some(1.0), Some(9.0)));
    }
}
