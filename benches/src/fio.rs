//! fio with its nbd engine, which is libnbd.

use anyhow::{Context, Result};
use serde_json::Value;
use sterna_tests::tool::Tool;

/// A pattern of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// fio's name of it: `randread`, `write`, ...
    pub(crate) pattern: &'static str,
    /// Bytes of a request.
    pub(crate) block_bytes: u32,
    /// Requests in flight.
    pub(crate) depth: u32,
}

/// What a client saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Requests answered.
    pub(crate) requests: f64,
    /// Requests per second.
    pub(crate) per_second: f64,
    /// Median latency in microseconds; `None` where the client does not take it.
    pub(crate) p50_us: Option<f64>,
    /// The latency that 99 in 100 stay below, in microseconds.
    pub(crate) p99_us: Option<f64>,
}

/// Fills the first gigabyte of the disk with data that is not zero.
pub(crate) fn fill(uri: &str) -> Result<()> {
    let args = ["--name=fill", "--ioengine=nbd", "--rw=write", "--bs=1M", "--size=1G", "--iodepth=4"];
    Tool::new("fio").args(args).args([format!("--uri={uri}")]).succeed()?;
    Ok(())
}

/// Runs the work for so many seconds.
pub(crate) fn run(uri: &str, work: Work, seconds: u32) -> Result<Seen> {
    let args = [
        "--name=work".to_owned(),
        "--ioengine=nbd".to_owned(),
        format!("--uri={uri}"),
        format!("--rw={}", work.pattern),
        format!("--bs={}", work.block_bytes),
        format!("--iodepth={}", work.depth),
        "--size=1G".to_owned(),
        "--time_based".to_owned(),
        format!("--runtime={seconds}"),
        "--output-format=json".to_owned(),
    ];
    let ended = Tool::new("fio").args(args).succeed()?;
    parse(&ended.stdout).with_context(|| format!("fio's figures cannot be read: {}", ended.stdout))
}

fn parse(printed: &str) -> Result<Seen> {
    // The nbd engine says that it is connected before the figures begin.
    let json = &printed[printed.find('{').context("fio printed no figures")?..];
    let figures: Value = serde_json::from_str(json)?;
    let job = figures.pointer("/jobs/0").context("fio ran no job")?;
    let side = ["read", "write"].into_iter().map(|side| &job[side]).find(|side| side["total_ios"] != 0);
    let side = side.context("fio did nothing")?;
    let number = |path: &str| side.pointer(path).and_then(Value::as_f64);
    Ok(Seen {
        requests: number("/total_ios").context("fio counts its requests")?,
        per_second: number("/iops").context("fio tells a rate")?,
        p50_us: number("/clat_ns/percentile/50.000000").map(|ns| ns / 1e3),
        p99_us: number("/clat_ns/percentile/99.000000").map(|ns| ns / 1e3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_the_side_that_worked_are_read() {
        let printed = r#"fio: connected to NBD server
            {"jobs": [{"read": {"total_ios": 0, "iops": 0.0},
                       "write": {"total_ios": 10, "iops": 5.5, "clat_ns": {"percentile": {"50.000000": 2000}}}}]}"#;
        let seen = parse(printed).expect("figures");
        assert_eq!((seen.requests, seen.per_second, seen.p50_us, seen.p99_us), (10.0, 5.5, Some(2.0), None));
        assert!(parse("fio: failed").is_err());
        assert!(parse(r#"{"jobs": []}"#).is_err());
    }
}
